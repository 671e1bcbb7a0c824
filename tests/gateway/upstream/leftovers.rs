//! Bytes after the end of an answer, or without a request. They belong to no request, and must never become
//! the beginning of the next answer.

use super::Verdict::Alone;
use super::caller::{Caller, Protocol};
use super::{Fault, Stand, Verdict, bytes, faults};
use crate::emulator::{After, Gate, Steps};

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
/// An answer to another caller's request.
const INTRUDER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nintruder";
/// Words for them in the log, if they are noticed in time.
const REST: [&str; 5] = ["behind", "after", "body", "more", "unexpected"];

faults! {
    a_second_answer_after_a_length: bytes([GOOD, INTRUDER].concat()) => Alone(200, "ok"), REST;
    a_second_answer_after_the_last_chunk: bytes([CHUNKED, INTRUDER].concat()) => Alone(200, "ok"), REST;
    a_second_answer_in_a_write_of_its_own: bytes(GOOD).send(INTRUDER) => Alone(200, "ok"), REST;
    a_second_answer_and_the_end: bytes([GOOD, INTRUDER].concat()).then(After::Close) => Alone(200, "ok"), REST;
    half_a_second_answer: bytes([GOOD, "HTTP/1.1 2"].concat()) => Alone(200, "ok"), REST;
    an_interim_answer_after_the_answer: bytes([GOOD, "HTTP/1.1 100 Continue\r\n\r\n"].concat())
        => Alone(200, "ok"), REST;
    an_empty_line_after_the_answer: bytes([GOOD, "\r\n"].concat()) => Alone(200, "ok"), REST;
    a_byte_after_the_answer: bytes([GOOD, "!"].concat()) => Alone(200, "ok"), REST;
    a_second_last_chunk: bytes([CHUNKED, "0\r\n\r\n"].concat()) => Alone(200, "ok"), REST;
    a_body_longer_than_its_length: bytes([GOOD, "ok and more"].concat()) => Alone(200, "ok"), REST;
    a_body_after_an_empty_one: bytes("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nsomething") => Alone(200, ""), REST;

    a_body_after_204: bytes("HTTP/1.1 204 No Content\r\n\r\nsomething") => Alone(204, ""), REST;
    a_body_with_a_length_after_204: bytes("HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\nsomething")
        => Alone(204, ""), REST;
    a_chunked_body_after_204: bytes(CHUNKED.replace("200 OK", "204 No Content")) => Alone(204, ""), REST;
    an_answer_after_204: bytes(["HTTP/1.1 204 No Content\r\n\r\n", INTRUDER].concat()) => Alone(204, ""), REST;
    a_body_after_304: bytes("HTTP/1.1 304 Not Modified\r\n\r\nsomething") => Alone(304, ""), REST;
    a_body_with_a_length_after_304: bytes("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\nsomething")
        => Alone(304, ""), REST;
    a_chunked_body_after_304: bytes(CHUNKED.replace("200 OK", "304 Not Modified")) => Alone(304, ""), REST;
}

async fn answers_head(answer: &str, verdict: Verdict) {
    Fault::new(bytes(answer), verdict)
        .logged(&REST)
        .method("HEAD")
        .ends_well()
        .await;
}

#[tokio::test]
async fn an_answer_to_head_has_a_length_and_no_body() {
    answers_head(
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
        Verdict::Harmless(200, ""),
    )
    .await;
}

#[tokio::test]
async fn a_body_with_a_length_after_an_answer_to_head() {
    answers_head(
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsomething",
        Alone(200, ""),
    )
    .await;
}

#[tokio::test]
async fn a_chunked_body_after_an_answer_to_head() {
    answers_head(CHUNKED, Alone(200, "")).await;
}

#[tokio::test]
async fn an_answer_after_an_answer_to_head() {
    let twice = ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", INTRUDER].concat();
    answers_head(&twice, Alone(200, "")).await;
}

/// The trigger sends this on an idle connection, and then does `then`.
async fn spoken_to_nobody(unasked: &str, then: After) {
    let stand = Stand::new("").await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut caller = Caller::connect(&stand.gateway, protocol).await;
        let gate = Gate::closed();
        let written = stand.world.emulator.flow.written().get();
        let steps = Steps::new()
            .send(GOOD)
            .pass(&gate)
            .send(unasked.to_owned())
            .then(then);
        stand.trigger.next(steps.into());
        let seen = caller.send(&stand.gateway, "POST", b"{}").await;
        Alone(200, "ok").check(&seen, protocol);
        let spoilt = stand.trigger.last_request().connection;
        // The answer was read to its end, so the connection is back in the pool before the trigger spoils it.
        gate.open();
        stand.world.emulator.flow.written().reached(written + 1).await;
        assert_ne!(stand.ordinary(&mut caller, "next").await, spoilt);
        stand.world.emulator.flow.listener().open().settled_at(1).await;
    }
    stand.world.emulator.assert_script_done();
}

#[tokio::test]
async fn an_answer_without_a_request_spoils_its_connection() {
    spoken_to_nobody(INTRUDER, After::KeepAlive).await;
}

#[tokio::test]
async fn a_timeout_answer_on_an_idle_connection_spoils_it() {
    let unasked = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    spoken_to_nobody(unasked, After::Close).await;
    spoken_to_nobody(unasked, After::Cut).await;
}

#[tokio::test]
async fn garbage_without_a_request_spoils_its_connection() {
    spoken_to_nobody("\0", After::KeepAlive).await;
}

#[tokio::test]
async fn a_reset_of_an_idle_connection_costs_nothing() {
    spoken_to_nobody("", After::Reset).await;
}
