//! Heads of answers that are invalid, or that another server on the way could read differently.

use super::Verdict::Harmless;
use super::{INVALID, bytes, endless, faults};
use crate::emulator::{After, Steps};

/// A body of two bytes after a head with this line.
fn line(line: &str) -> Steps {
    bytes(format!(
        "HTTP/1.1 200 OK\r\n{line}\r\nContent-Length: 2\r\n\r\nok"
    ))
}

/// The same with this first line.
fn status(first: &str) -> Steps {
    bytes(format!("{first}\r\nContent-Length: 2\r\n\r\nok"))
}

/// The empty SETTINGS frame with which an HTTP/2 server begins.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// The frame with which it ends the connection.
pub(super) const GOAWAY: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// Words for a head in the log.
const HEAD: [&str; 5] = ["head", "field", "status", "version", "line"];

faults! {
    garbage: bytes("garbage\r\n\r\n") => INVALID, HEAD;
    garbage_without_an_end: bytes("\x16\x03\x01 nothing that ends").then(After::Close) => INVALID, HEAD;
    a_request_in_place_of_an_answer: bytes("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n") => INVALID, HEAD;
    another_protocol: bytes("SSH-2.0-OpenSSH_9.6\r\n") => INVALID, HEAD;
    /// HTTP/0.9 has no head at all.
    a_body_without_a_status_line: bytes("<html>hello</html>\r\n").then(After::Close) => INVALID, HEAD;
    frames_of_http2: bytes(SETTINGS).send(GOAWAY) => INVALID, HEAD;
    goaway_of_http2: bytes(GOAWAY).then(After::Close) => INVALID, HEAD;

    a_status_of_two_digits: status("HTTP/1.1 99 Odd") => INVALID, HEAD;
    a_status_of_four_digits: status("HTTP/1.1 1000 Odd") => INVALID, HEAD;
    a_status_below_a_hundred: status("HTTP/1.1 099 Odd") => INVALID, HEAD;
    a_status_with_a_letter: status("HTTP/1.1 2x0 OK") => INVALID, HEAD;
    a_status_with_a_sign: status("HTTP/1.1 +20 OK") => INVALID, HEAD;
    no_status: status("HTTP/1.1  OK") => INVALID, HEAD;
    a_status_after_two_spaces: status("HTTP/1.1  200 OK") => INVALID, HEAD;
    no_reason_phrase: status("HTTP/1.1 200 ") => Harmless(200, "ok");
    no_reason_phrase_and_no_space: status("HTTP/1.1 200") => Harmless(200, "ok");
    a_status_line_that_begins_with_a_space: status(" HTTP/1.1 200 OK") => INVALID, HEAD;
    another_version: status("HTTP/2.0 200 OK") => INVALID, HEAD;
    a_version_of_two_digits: status("HTTP/1.10 200 OK") => INVALID, HEAD;
    a_version_in_lower_case: status("http/1.1 200 OK") => INVALID, HEAD;
    a_control_byte_in_the_reason: status("HTTP/1.1 200 O\x07K") => INVALID, HEAD;

    a_folded_field: line("X-Long: one\r\n two") => INVALID, HEAD;
    a_field_folded_by_a_tab: line("X-Long: one\r\n\ttwo") => INVALID, HEAD;
    a_folded_first_field: line(" X-Long: one") => INVALID, HEAD;
    a_space_before_the_colon: line("X-Field : 1") => INVALID, HEAD;
    a_tab_before_the_colon: line("X-Field\t: 1") => INVALID, HEAD;
    a_field_without_a_colon: line("X-Field") => INVALID, HEAD;
    a_field_without_a_name: line(": 1") => INVALID, HEAD;
    a_name_with_a_space: line("X Field: 1") => INVALID, HEAD;
    a_name_beyond_ascii: line("X-F\u{e9}: 1") => INVALID, HEAD;
    a_nul_in_a_name: line("X-\0Field: 1") => INVALID, HEAD;
    a_nul_in_a_value: line("X-Field: a\0b") => INVALID, HEAD;
    a_control_byte_in_a_value: line("X-Field: a\x01b") => INVALID, HEAD;
    a_delete_in_a_value: line("X-Field: a\x7fb") => INVALID, HEAD;
    a_carriage_return_in_a_value: line("X-Field: a\rb") => INVALID, HEAD;
    an_empty_value: line("X-Field:") => Harmless(200, "ok");

    bare_feeds: bytes("HTTP/1.1 200 OK\nContent-Length: 2\n\nok") => INVALID, HEAD;
    a_bare_feed_after_the_status: bytes("HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok") => INVALID, HEAD;
    a_bare_feed_after_a_field: line("X-Field: 1\nX-Other: 2") => INVALID, HEAD;
    a_bare_feed_at_the_end_of_a_head: bytes("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok") => INVALID, HEAD;
    a_bare_return_after_the_status: bytes("HTTP/1.1 200 OK\rContent-Length: 2\r\n\r\nok") => INVALID, HEAD;
    an_empty_line_before_the_head: bytes("\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") => INVALID, HEAD;

    fields_without_end: endless("HTTP/1.1 200 OK\r\n", "X-Field: 1\r\n") => INVALID, HEAD;
    a_value_without_end: endless("HTTP/1.1 200 OK\r\nX-Field: ", "x") => INVALID, HEAD;
    a_name_without_end: endless("HTTP/1.1 200 OK\r\n", "x") => INVALID, HEAD;
    a_reason_without_end: endless("HTTP/1.1 200 ", "x") => INVALID, HEAD;
    more_fields_than_anybody_sends: bytes(
        format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\nok", "X: 1\r\n".repeat(5000))
    ) => INVALID, HEAD;
}
