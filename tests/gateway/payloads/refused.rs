//! A refused caller gets its answer at once, and can read it however much it still sends.

use http_body_util::Full;

use crate::harness::{KEY, post};
use crate::listening::{order, order_bytes, served};
use crate::payloads::{LAST_CHUNK, chunk, chunked, with_length};

/// Far more than socket buffers, and more than any body limit here.
const LARGE: usize = 20_000_000;

fn without_key(head: &str) -> String {
    head.replace(KEY, "guess")
}

#[tokio::test]
async fn a_refusal_does_not_wait_for_a_small_body_and_keeps_the_connection() {
    let (_world, gateway, _) = served("").await;
    let mut talk = gateway.talk().await;
    talk.say(without_key(&with_length(64 * 1024))).await;
    let answer = talk.hear().await;
    assert_eq!((answer.status.as_u16(), answer.header("connection")), (401, None));
    talk.say("x".repeat(64 * 1024)).await;
    talk.say(order_bytes("")).await;
    assert_eq!(talk.hear().await.status, 202);
}

#[tokio::test]
async fn a_refusal_does_not_wait_for_a_chunk_and_ends_the_connection() {
    let (_world, gateway, _) = served("").await;
    let mut talk = gateway.talk().await;
    talk.say(without_key(&chunked())).await;
    let answer = talk.hear().await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("connection")),
        (401, Some("close"))
    );
    talk.say(chunk("x")).await;
    assert_eq!(talk.rest().await, "");
}

#[tokio::test]
async fn a_refused_body_that_came_whole_is_counted_and_keeps_the_connection() {
    let (_world, gateway, _) = served("").await;
    let mut talk = gateway.talk().await;
    let sized = format!("{}{}", with_length(3000), "x".repeat(3000));
    let in_chunks = format!("{}{}{LAST_CHUNK}", chunked(), chunk(&"x".repeat(10_000)));
    for (sent, bytes) in [(sized, 3000), (in_chunks, 10_000)] {
        talk.say(without_key(&sent)).await;
        let answer = talk.hear().await;
        assert_eq!((answer.status.as_u16(), answer.header("connection")), (401, None));
        assert_eq!(gateway.lines.of(&answer).await["bytes_in"], bytes);
    }
    talk.say(order_bytes("")).await;
    assert_eq!(talk.hear().await.status, 202);
}

#[tokio::test]
async fn a_refused_body_of_64_kib_keeps_its_connection_and_a_large_one_does_not() {
    let (_world, gateway, trigger) = served("").await;
    let refused = |bytes: usize| {
        let request = post("/orders").header("x-api-key", "guess");
        request.body(Full::from("x".repeat(bytes))).unwrap()
    };
    let mut connection = gateway.connect().await;
    let answer = connection.send(refused(64 * 1024)).await;
    assert_eq!((answer.status.as_u16(), answer.header("connection")), (401, None));
    assert_eq!(connection.send(order()).await.status, 202);

    let answer = connection.send(refused(LARGE)).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("connection")),
        (401, Some("close"))
    );
    assert_eq!(answer.code(), "key-unknown");
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_caller_that_writes_everything_before_it_reads_sees_its_refusal() {
    let (_world, gateway, _) = served("").await;
    let large = "x".repeat(LARGE);
    for (head, body, status) in [
        (without_key(&with_length(LARGE)), large.clone(), 401),
        (
            with_length(LARGE).replace("/orders", "/nowhere"),
            large.clone(),
            404,
        ),
        (with_length(LARGE), large.clone(), 413),
        (
            without_key(&chunked()),
            format!("{}{LAST_CHUNK}", chunk(&large)),
            401,
        ),
        (chunked(), format!("{}{LAST_CHUNK}", chunk(&large)), 413),
        (with_length(LARGE).replace("Host:", "Host :"), large.clone(), 400),
    ] {
        let mut talk = gateway.talk().await;
        talk.say(head).await;
        talk.say(body).await;
        let answer = talk.hear().await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("connection")),
            (status, Some("close"))
        );
        assert_eq!(talk.rest().await, "");
    }
}

#[tokio::test]
async fn a_caller_that_sends_without_end_is_cut_off() {
    let (_world, gateway, _) = served("").await;
    let mut talk = gateway.talk().await;
    talk.say(without_key(&with_length(1_000_000_000))).await;
    let piece = "x".repeat(1_000_000);
    let mut sent = 0;
    while talk.try_say(&piece).await.is_ok() {
        sent += 1;
        assert!(sent < 400, "{sent} MB were taken");
    }
}

#[tokio::test]
async fn a_refused_head_request_logs_that_no_body_left() {
    let (_world, gateway, _) = served("").await;
    let mut talk = gateway.talk().await;
    for (path, status) in [("/orders", 405), ("/nowhere", 404)] {
        talk.say(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
            .await;
        let answer = talk.hear_after("HEAD").await;
        assert_eq!(answer.status, status);
        assert_ne!(answer.header("content-length"), None);
        let line = gateway.lines.of(&answer).await;
        assert_eq!(
            (&line["bytes_out"], &line["end"]),
            (&0.into(), &"complete".into())
        );
    }
}
