//! The length of a body must be stated once, in one way (RFC 9112 section 6.3).

use super::Verdict::{Cut, Harmless};
use super::{INVALID, bytes, faults};
use crate::emulator::{After, Steps};

/// A body that is `ok` by the first of its framings, and `{"ok":1}` and more by another.
fn framed(lines: &str) -> Steps {
    bytes(format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\nok"))
}

/// A chunked body after these lines.
fn coded(lines: &str) -> Steps {
    bytes(format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n2\r\nok\r\n0\r\n\r\n"))
}

/// Words for them in the log.
const LENGTH: [&str; 2] = ["length", "field"];
const CODING: [&str; 2] = ["coding", "transfer"];

faults! {
    a_negative_length: framed("Content-Length: -2") => INVALID, LENGTH;
    a_signed_length: framed("Content-Length: +2") => INVALID, LENGTH;
    a_list_of_equal_lengths: framed("Content-Length: 2, 2") => INVALID, LENGTH;
    a_list_of_lengths: framed("Content-Length: 2, 3") => INVALID, LENGTH;
    a_length_and_a_comma: framed("Content-Length: 2,") => INVALID, LENGTH;
    equal_lengths: framed("Content-Length: 2\r\nContent-Length: 2") => INVALID, LENGTH;
    two_lengths: framed("Content-Length: 2\r\nContent-Length: 3") => INVALID, LENGTH;
    two_lengths_apart: framed("Content-Length: 2\r\nX-Field: 1\r\ncontent-length: 0") => INVALID, LENGTH;
    an_empty_length: framed("Content-Length:") => INVALID, LENGTH;
    a_length_in_words: framed("Content-Length: two") => INVALID, LENGTH;
    a_length_in_hexadecimal: framed("Content-Length: 0x2") => INVALID, LENGTH;
    a_length_with_a_point: framed("Content-Length: 2.0") => INVALID, LENGTH;
    a_length_with_a_gap: framed("Content-Length: 2 2") => INVALID, LENGTH;
    a_length_beyond_64_bits: framed("Content-Length: 18446744073709551618") => INVALID, LENGTH;
    a_length_of_a_hundred_digits: framed(&format!("Content-Length: {}", "9".repeat(100))) => INVALID, LENGTH;
    a_length_beyond_all_bodies: framed("Content-Length: 9223372036854775807").then(After::Close)
        => Cut, ["length", "closed", "end", "body"];

    length_and_coding: coded("Content-Length: 2\r\nTransfer-Encoding: chunked")
        => INVALID, ["length", "coding", "transfer"];
    coding_and_length: coded("Transfer-Encoding: chunked\r\nContent-Length: 12")
        => INVALID, ["length", "coding", "transfer"];
    coding_and_a_broken_length: coded("Transfer-Encoding: chunked\r\nContent-Length: x")
        => INVALID, ["length", "coding", "transfer"];
    an_unknown_coding: coded("Transfer-Encoding: xchunked") => INVALID, CODING;
    a_compressed_transfer: coded("Transfer-Encoding: gzip, chunked") => INVALID, CODING;
    compressed_until_the_end: coded("Transfer-Encoding: gzip").then(After::Close) => INVALID, CODING;
    chunked_not_last: coded("Transfer-Encoding: chunked, gzip") => INVALID, CODING;
    chunked_in_a_list_twice: coded("Transfer-Encoding: chunked, chunked") => INVALID, CODING;
    chunked_in_two_fields: coded("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked") => INVALID, CODING;
    coding_in_two_fields: coded("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity") => INVALID, CODING;
    the_identity_coding: coded("Transfer-Encoding: identity") => INVALID, CODING;
    an_empty_coding: coded("Transfer-Encoding:") => INVALID, CODING;
    a_coding_with_a_parameter: coded("Transfer-Encoding: chunked;q=1") => INVALID, CODING;
    a_coding_in_quotes: coded("Transfer-Encoding: \"chunked\"") => INVALID, CODING;
    chunked_in_capitals: coded("Transfer-Encoding: CHUNKED") => Harmless(200, "ok");
}
