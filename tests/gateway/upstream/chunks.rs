//! Invalid chunked bodies.

use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use super::Verdict::{Cut, Harmless};
use super::caller::{Caller, End, Protocol, Wire};
use super::heads::GOAWAY;
use super::{Stand, bytes, endless, faults};
use crate::emulator::Steps;
use crate::harness::{KEY, PATIENCE};

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
/// Words for them in the log.
const CHUNK: [&str; 1] = ["chunk"];
const TRAILER: [&str; 3] = ["trailer", "field", "header"];

/// A good chunk, followed by this.
fn then(rest: &str) -> Steps {
    bytes(format!("{CHUNKED}2\r\nok\r\n{rest}"))
}

/// The same without end.
fn then_endless(before: &str, piece: &str) -> Steps {
    endless(&format!("{CHUNKED}2\r\nok\r\n{before}"), piece)
}

faults! {
    a_chunk_size_that_overflows: then("10000000000000002\r\nok\r\n0\r\n\r\n") => Cut, CHUNK;
    a_chunk_size_of_a_hundred_digits: then(&format!("{}\r\nok\r\n0\r\n\r\n", "F".repeat(100))) => Cut, CHUNK;
    a_chunk_size_with_a_plus: then("+2\r\nok\r\n0\r\n\r\n") => Cut, CHUNK;
    a_chunk_size_with_a_minus: then("-2\r\nok\r\n0\r\n\r\n") => Cut, CHUNK;
    a_chunk_size_with_a_prefix: then("0x2\r\nok\r\n0\r\n\r\n") => Cut, CHUNK;
    a_chunk_size_in_words: then("two\r\nok\r\n0\r\n\r\n") => Cut, CHUNK;
    a_chunk_size_after_a_space: then(" 2\r\nok\r\n0\r\n\r\n") => Cut, CHUNK;
    an_empty_chunk_size: then("\r\nok\r\n0\r\n\r\n") => Cut, CHUNK;
    a_chunk_size_that_ends_in_a_bare_feed: then("2\nok\r\n0\r\n\r\n") => Cut, CHUNK;
    a_chunk_size_that_ends_in_a_bare_return: then("2\rok\r\n0\r\n\r\n") => Cut, CHUNK;
    a_chunk_that_ends_in_a_bare_feed: then("2\r\nok\n0\r\n\r\n") => Cut, CHUNK;
    a_chunk_longer_than_it_said: then("2\r\nokay\r\n0\r\n\r\n") => Cut, CHUNK;
    a_chunk_shorter_than_it_said: then("3\r\nok\r\n0\r\n\r\n") => Cut, CHUNK;
    goaway_of_http2_between_two_chunks: then("").send(GOAWAY) => Cut, CHUNK;
    a_second_head_between_two_chunks: then("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") => Cut, CHUNK;
    a_bare_feed_in_an_extension: then("2;a\nb\r\nok\r\n0\r\n\r\n") => Cut, CHUNK;
    an_extension: then("2;name=value\r\n!!\r\n0\r\n\r\n") => Harmless(200, "ok!!");
    an_extension_without_end: then_endless("2;", "x") => Cut, CHUNK;
    extensions_without_end: then_endless("", "1;extension=of-some-length\r\nx\r\n") => Cut, CHUNK;
    a_chunk_size_without_end: then_endless("", "0") => Cut, CHUNK;
    a_trailer: then("0\r\nX-Sum: 1\r\n\r\n") => Harmless(200, "ok");
    a_trailer_that_is_no_field: then("0\r\nno field\r\n\r\n") => Cut, TRAILER;
    a_trailer_that_ends_in_a_bare_feed: then("0\r\nX-Sum: 1\n\r\n") => Cut, TRAILER;
    a_trailer_without_end: then_endless("0\r\nX-Sum: ", "1") => Cut, TRAILER;
    trailers_without_end: then_endless("0\r\n", "X-Sum: 1\r\n") => Cut, TRAILER;
}

/// One byte in each of a million chunks.
const FLOOD: usize = 1_000_000;

fn flood() -> Steps {
    let block = "1\r\nx\r\n".repeat(10_000);
    bytes(CHUNKED).repeat(block, FLOOD / 10_000).send("0\r\n\r\n")
}

#[tokio::test]
async fn a_flood_of_small_chunks_arrives_over_http1() {
    let stand = Stand::new("").await;
    let mut caller = Caller::connect(&stand.gateway, Protocol::Http1).await;
    stand.trigger.next(flood().into());
    let seen = caller.send(&stand.gateway, "POST", b"{}").await;
    assert_eq!((seen.status, &seen.end), (Some(200), &End::Whole));
    assert_eq!(seen.body.len(), FLOOD);
    let connection = stand.trigger.last_request().connection;
    assert_eq!(stand.ordinary(&mut caller, "after").await, connection);
}

/// Callers count frames that carry next to nothing and end the whole connection at too many, so chunks that
/// arrived together must be sent together. This caller begins to read when everything has been sent.
#[tokio::test]
async fn a_flood_of_small_chunks_arrives_over_http2() {
    let stand = Stand::new("").await;
    let mut sender = stand.gateway.connect_h2().await;
    stand.trigger.next(flood().into());
    let request = Request::post("https://localhost/orders").header("x-api-key", KEY);
    let sent = sender.send_request(request.body(Full::from("{}")).unwrap());
    let answer = tokio::time::timeout(PATIENCE, sent).await.unwrap().unwrap();
    stand
        .gateway
        .lines
        .wait_for(|line| line["route"] == "orders")
        .await;
    let body = tokio::time::timeout(PATIENCE, answer.into_body().collect())
        .await
        .unwrap();
    assert_eq!(body.unwrap().to_bytes().len(), FLOOD);
}

/// What a caller does not read, the gateway does not read either: it holds a few buffers of an answer, never
/// all of it.
#[tokio::test]
async fn a_caller_that_reads_nothing_holds_the_trigger_back() {
    let stand = Stand::new("\n[connections]\nwrite_timeout = \"1s\"").await;
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    stand.trigger.next(endless(CHUNKED, &chunk).into());
    let mut wire = Wire::new(&stand.gateway).await;
    wire.ask("POST", 2, b"{}").await;
    let ended = |line: &Value| line["route"] == "orders";
    assert_ne!(stand.gateway.lines.wait_for(ended).await["end"], "complete");
    stand.world.emulator.flow.listener().open().settled_at(0).await;
    assert_eq!(
        stand.world.emulator.flow.written().get(),
        0,
        "64 MiB were taken for nobody"
    );
    drop(wire);
}
