//! Triggers that stop sending or close at any point of their answer.

use super::Verdict::{Cut, Harmless};
use super::heads::GOAWAY;
use super::{Fault, IMPATIENT, LOST, Verdict, bytes, faults};
use crate::emulator::{After, Steps};

const HALF_A_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Le";
const HALF_A_LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
const HALF_A_CHUNK: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf";
const NO_LAST_CHUNK: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
const NO_LAST_LINE: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n";
const UNTIL_CLOSED: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nwhole";
const OLD: &str = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nwhole";

/// Words for them in the log.
const CLOSED: [&str; 4] = ["closed", "reset", "eof", "end of file"];

faults! {
    closed_before_the_answer: Steps::new().then(After::Close) => LOST, CLOSED;
    cut_before_the_answer: Steps::new().then(After::Cut) => LOST, CLOSED;
    reset_before_the_answer: Steps::new().then(After::Reset) => LOST, CLOSED;
    closed_in_the_middle_of_a_head: bytes(HALF_A_HEAD).then(After::Close) => LOST, CLOSED;
    cut_in_the_middle_of_a_head: bytes(HALF_A_HEAD).then(After::Cut) => LOST, CLOSED;
    reset_in_the_middle_of_a_head: bytes(HALF_A_HEAD).then(After::Reset) => LOST, CLOSED;
    closed_after_an_interim_answer: bytes("HTTP/1.1 100 Continue\r\n\r\n").then(After::Close) => LOST, CLOSED;
    closed_before_a_body_with_a_length: bytes("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n").then(After::Close)
        => Cut, CLOSED;
    closed_in_a_body_with_a_length: bytes(HALF_A_LENGTH).then(After::Close) => Cut, CLOSED;
    cut_in_a_body_with_a_length: bytes(HALF_A_LENGTH).then(After::Cut) => Cut, CLOSED;
    reset_in_a_body_with_a_length: bytes(HALF_A_LENGTH).then(After::Reset) => Cut, CLOSED;
    goaway_of_http2_in_a_body_with_a_length: bytes("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        .send(GOAWAY).then(After::Close) => Cut, CLOSED;
    /// A refusal is read ahead, because it may be a fault of the platform.
    closed_in_the_body_of_a_refusal: bytes(HALF_A_LENGTH.replace("200 OK", "422 Odd")).then(After::Close)
        => LOST, CLOSED;
    cut_in_the_body_of_a_refusal: bytes(HALF_A_CHUNK.replace("200 OK", "500 Odd")).then(After::Cut) => LOST, CLOSED;
    cut_at_the_end_of_a_refusal_without_a_length: bytes(UNTIL_CLOSED.replace("200 OK", "404 Odd")).then(After::Cut)
        => LOST, CLOSED;
    closed_in_a_chunk: bytes(HALF_A_CHUNK).then(After::Close) => Cut, CLOSED;
    cut_in_a_chunk: bytes(HALF_A_CHUNK).then(After::Cut) => Cut, CLOSED;
    reset_in_a_chunk: bytes(HALF_A_CHUNK).then(After::Reset) => Cut, CLOSED;
    closed_before_the_last_chunk: bytes(NO_LAST_CHUNK).then(After::Close) => Cut, CLOSED;
    cut_before_the_last_chunk: bytes(NO_LAST_CHUNK).then(After::Cut) => Cut, CLOSED;
    closed_before_the_last_line: bytes(NO_LAST_LINE).then(After::Close) => Cut, CLOSED;
    /// Anybody on the way can end a connection, but only the trigger can send a close_notify: only that
    /// completes the body.
    cut_at_the_end_of_a_body_without_a_length: bytes(UNTIL_CLOSED).then(After::Cut) => Cut, CLOSED;
    reset_at_the_end_of_a_body_without_a_length: bytes(UNTIL_CLOSED).then(After::Reset) => Cut, CLOSED;
    cut_at_the_end_of_a_body_of_http_1_0: bytes(OLD).then(After::Cut) => Cut, CLOSED;
}

/// The answer is complete, and its connection has ended with it.
#[tokio::test]
async fn a_body_without_a_length_is_whole_at_the_tls_goodbye() {
    for answer in [UNTIL_CLOSED, OLD] {
        let answer = bytes(answer).then(After::Close);
        Fault::new(answer, Verdict::Alone(200, "whole")).ends_well().await;
    }
}

#[tokio::test]
async fn an_answer_that_announces_the_close_is_the_last_on_its_connection() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nwhole";
    for then in [After::Close, After::KeepAlive] {
        let answer = bytes(answer).then(then);
        Fault::new(answer, Verdict::Alone(200, "whole")).ends_well().await;
    }
}

#[tokio::test]
async fn an_answer_of_http_1_0_is_the_last_on_its_connection() {
    let answer = bytes("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nwhole");
    Fault::new(answer, Verdict::Alone(200, "whole")).ends_well().await;
}

/// Silence from here on is noticed after the route's time limit.
async fn silent_after(answer: &str, verdict: Verdict) {
    let answer = bytes(answer).then(After::Stall);
    let fault = Fault::new(answer, verdict).logged(&["500ms"]).route(IMPATIENT);
    fault.ends_well().await;
}

const TIMEOUT: Verdict = Verdict::Refused("flow-timeout");

#[tokio::test]
async fn silence_before_the_answer_ends() {
    silent_after("", TIMEOUT).await;
}

#[tokio::test]
async fn silence_in_the_middle_of_a_status_line_ends() {
    silent_after("HTTP/1.1 2", TIMEOUT).await;
}

#[tokio::test]
async fn silence_in_the_middle_of_a_head_ends() {
    silent_after(HALF_A_HEAD, TIMEOUT).await;
}

#[tokio::test]
async fn silence_after_an_interim_answer_ends() {
    silent_after("HTTP/1.1 103 Early Hints\r\n\r\n", TIMEOUT).await;
}

#[tokio::test]
async fn silence_before_a_body_ends() {
    silent_after("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", Cut).await;
}

#[tokio::test]
async fn silence_in_a_body_with_a_length_ends() {
    silent_after(HALF_A_LENGTH, Cut).await;
}

#[tokio::test]
async fn silence_in_a_chunk_ends() {
    silent_after(HALF_A_CHUNK, Cut).await;
}

#[tokio::test]
async fn silence_before_the_last_line_ends() {
    silent_after(NO_LAST_LINE, Cut).await;
}

#[tokio::test]
async fn silence_in_a_body_without_a_length_ends() {
    silent_after(UNTIL_CLOSED, Cut).await;
}

/// Not a fault: an answer that ends in time is complete, however many pieces it arrived in.
#[tokio::test]
async fn an_answer_byte_by_byte_is_an_answer() {
    let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let pieces = text.bytes().map(|byte| vec![byte]);
    let answer = pieces.fold(Steps::new(), Steps::send);
    Fault::new(answer, Harmless(200, "ok")).ends_well().await;
}
