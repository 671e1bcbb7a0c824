//! Large bodies: they are forwarded while they arrive, no faster than the flow reads.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::emulator::{Framing, TriggerHandle};
use crate::harness::{PATIENCE, Running, World};
use crate::listening::served;
use crate::payloads::{Bare, LAST_CHUNK, chunk, chunked, with_length};

const SMALL_HOLD: &str = "[bodies]\nhold_size_max = \"1 KiB\"\n";
const OK: &str = "HTTP/1.1 200 OK\r\nx-ms-workflow-run-id: 08580000000000000000000000001CU00\r\n\
                  Content-Length: 2\r\n\r\nok";

/// A gateway that holds at most 1 KiB.
async fn streaming(more: &str) -> (World, Running, TriggerHandle) {
    served(&format!("{SMALL_HOLD}{more}")).await
}

#[tokio::test]
async fn a_large_body_is_forwarded_before_it_is_complete() {
    let (world, gateway, trigger) = streaming("").await;
    let flow = &world.emulator.flow;
    let half = "x".repeat(2048);
    let mut talk = gateway.talk().await;
    talk.say(with_length(4096)).await;
    talk.say(&half).await;
    flow.body_bytes().reached(2048).await;
    talk.say(&half).await;
    assert_eq!(talk.hear().await.status, 202);
    let seen = trigger.last_request();
    assert_eq!((seen.framing, seen.body_bytes), (Framing::Length(4096), 4096));
}

#[tokio::test]
async fn a_large_body_without_length_is_forwarded_before_it_is_complete() {
    let (world, gateway, trigger) = streaming("").await;
    let flow = &world.emulator.flow;
    let half = "x".repeat(2048);
    let mut talk = gateway.talk().await;
    talk.say(format!("{}{}", chunked(), chunk(&half))).await;
    flow.body_bytes().reached(2048).await;
    talk.say(format!("{}{LAST_CHUNK}", chunk(&half))).await;
    assert_eq!(talk.hear().await.status, 202);
    let seen = trigger.last_request();
    assert_eq!((seen.framing, seen.body_bytes), (Framing::Chunked, 4096));
}

#[tokio::test]
async fn a_connection_serves_again_after_a_streamed_body() {
    let (_world, gateway, trigger) = streaming("").await;
    let body = "x".repeat(4096);
    let mut talk = gateway.talk().await;
    for _ in 0..3 {
        talk.say(format!("{}{body}", with_length(4096))).await;
        let answer = talk.hear().await;
        assert_eq!((answer.status.as_u16(), answer.header("connection")), (202, None));
        talk.say(format!("{}{}{LAST_CHUNK}", chunked(), chunk(&body)))
            .await;
        let answer = talk.hear().await;
        assert_eq!((answer.status.as_u16(), answer.header("connection")), (202, None));
    }
    assert_eq!(trigger.runs(), 6);
}

#[tokio::test]
async fn a_streamed_body_that_stalls_is_ended_on_both_sides() {
    let (world, gateway, trigger) = streaming("timeout = \"300ms\"\n").await;
    let flow = &world.emulator.flow;
    let mut talk = gateway.talk().await;
    talk.say(with_length(4096)).await;
    talk.say("x".repeat(2048)).await;
    let answer = talk.hear().await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (408, "body-timeout")
    );
    assert_eq!(answer.header("connection"), Some("close"));
    flow.broken_bodies().reached(1).await;
    assert_eq!(trigger.runs(), 0);
    assert_eq!(gateway.lines.of(&answer).await["problem"], "body-timeout");
}

#[tokio::test]
async fn trailers_of_a_streamed_body_end_at_the_gateway() {
    let world = World::new().await;
    let flow = Bare::new(&world);
    let route = world.route("orders", "/orders", &flow.url(), "");
    let gateway = world.start_with(&format!("{route}{SMALL_HOLD}"));
    let mut talk = gateway.talk().await;
    talk.say(format!("{}{}", chunked(), chunk(&"x".repeat(2048))))
        .await;
    let mut upstream = flow.accept().await;
    upstream.hear_until("xxx").await;
    talk.say("0\r\nX-Flowgate-Caller: forged\r\nX-Last: 1\r\n\r\n")
        .await;
    let rest = upstream.hear_until("\r\n0\r\n").await;
    let end = upstream.hear_until("\r\n").await;
    assert_eq!(end, "\r\n", "there is nothing between the last chunk and the end");
    assert!(!rest.to_lowercase().contains("forged"), "{rest}");
    upstream.say(OK).await;
    assert_eq!(talk.hear().await.text(), "ok");
}

#[tokio::test]
async fn a_flow_that_does_not_read_holds_up_its_caller_and_fills_no_memory() {
    const BODY: usize = 50_000_000;
    let world = World::new().await;
    let flow = Bare::new(&world);
    let limit = "body_size_max = \"100 MiB\"";
    let gateway = world.start_with(&world.route("orders", "/orders", &flow.url(), limit));
    let (mut reading, mut writing) = tokio::io::split(gateway.tls_stream().await);
    writing.write_all(with_length(BODY).as_bytes()).await.unwrap();
    let piece = vec![b'x'; 100_000];
    let mut written = 0;
    // Only the sockets' buffers and one buffer of ours accept data; then the caller has to wait.
    while let Ok(result) = tokio::time::timeout(Duration::from_secs(1), writing.write_all(&piece)).await {
        result.unwrap();
        written += piece.len();
        assert!(written < BODY, "all of it was taken although nobody reads");
    }
    assert!(written < 25_000_000, "{written} bytes were taken");

    let mut upstream = flow.accept().await;
    upstream.hear_until("\r\n\r\n").await;
    let caller = tokio::spawn(async move {
        // How much of the last piece was sent is unknown, so the rest repeats the byte of every body.
        let _ = writing.write_all(&vec![b'x'; BODY]).await;
    });
    upstream.skip(BODY).await;
    upstream.say(OK).await;
    let mut answer = [0; 15];
    tokio::time::timeout(PATIENCE, reading.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    caller.abort();
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_body_reaches_the_caller() {
    let world = World::new().await;
    let flow = Bare::new(&world);
    let route = world.route("orders", "/orders", &flow.url(), "");
    let gateway = world.start_with(&format!("{route}{SMALL_HOLD}"));
    let mut talk = gateway.talk().await;
    talk.say(format!("{}{}", with_length(4096), "x".repeat(2048)))
        .await;
    let mut upstream = flow.accept().await;
    upstream.hear_until("xxx").await;
    upstream.say(OK).await;
    let answer = talk.hear().await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "ok"));
    assert_eq!(answer.header("connection"), Some("close"));
    drop(upstream);
    assert_eq!(talk.rest().await, "");
}
