//! Plain HTTP, for networks that the settings allow explicitly.

use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use crate::emulator::Answer as Flow;
use crate::emulator::TriggerHandle;
use crate::harness::{Running, World};
use crate::listening::{Talk, order_bytes, served};

/// A gateway with a second listener, with plain HTTP for peers of this network.
async fn plain(from: &str) -> (World, Running, TriggerHandle) {
    let listener = "[[listener]]\naddress = \"127.0.0.1:0\"\nplain_http = \"private-networks\"";
    served(&format!("{listener}\nplain_http_from = [\"{from}\"]\n")).await
}

async fn talk(gateway: &Running) -> Talk<TcpStream> {
    Talk::new(TcpStream::connect(gateway.server.addresses()[1]).await.unwrap())
}

#[tokio::test]
async fn listed_networks_are_served_in_plain_http() {
    let (_world, gateway, trigger) = plain("127.0.0.0/8").await;
    let mut talk = talk(&gateway).await;
    for _ in 0..2 {
        talk.say(order_bytes("")).await;
        let answer = talk.hear().await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        assert_eq!(gateway.lines.of(&answer).await["protocol"], "h1");
    }
    assert_eq!(trigger.runs(), 2);
}

#[tokio::test]
async fn a_caller_that_pipelines_and_reads_late_gets_every_answer_whole() {
    const REQUESTS: usize = 100;
    let (_world, gateway, trigger) = plain("127.0.0.0/8").await;
    trigger.does(Flow::Stream {
        chunks: 2,
        chunk_bytes: 20_000,
        gate: None,
    });
    // A small window: answers wait at their first byte repeatedly.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(gateway.server.addresses()[1]).await.unwrap();
    let mut talk = Talk::new(stream);
    talk.say(order_bytes("").repeat(REQUESTS)).await;
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    for number in 0..REQUESTS {
        if number % 8 == 0 {
            pace.tick().await;
        }
        let answer = talk.hear().await;
        assert_eq!(
            (answer.status.as_u16(), answer.body.len()),
            (200, 40_000),
            "{number}"
        );
    }
    assert_eq!(trigger.runs(), REQUESTS as u64);
}

#[tokio::test]
async fn other_networks_are_cut_before_any_answer() {
    let (_world, gateway, trigger) = plain("10.0.0.0/8").await;
    let mut talk = talk(&gateway).await;
    // It may be cut off while it writes.
    let _ = talk.try_say(order_bytes("")).await;
    assert_eq!(talk.rest().await, "");
    gateway
        .lines
        .wait_for(|line| line["kind"] == "connection" && line["reason"] == "plain-http-address")
        .await;
    assert_eq!(trigger.request_count().get(), 0);
}

#[tokio::test]
async fn plain_http_needs_a_key_like_any_other() {
    let (_world, gateway, trigger) = plain("127.0.0.0/8").await;
    let mut talk = talk(&gateway).await;
    talk.say("POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
        .await;
    assert_eq!(talk.hear().await.code(), "key-missing");
    assert_eq!(trigger.request_count().get(), 0);
}

#[tokio::test]
async fn http2_is_not_spoken_in_plain() {
    let (_world, gateway, trigger) = plain("127.0.0.0/8").await;
    let mut preface = talk(&gateway).await;
    preface
        .say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await;
    let heard = preface.rest().await;
    assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 4"), "{heard:?}");

    let mut upgrade = talk(&gateway).await;
    let more = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    upgrade.say(order_bytes(more)).await;
    assert_eq!(
        upgrade.hear().await.status,
        202,
        "an offer to upgrade is not taken up"
    );
    let seen = trigger.last_request();
    for name in ["upgrade", "http2-settings"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn tls_on_the_plain_port_is_not_answered_as_a_request() {
    let (_world, gateway, trigger) = plain("127.0.0.0/8").await;
    let mut talk = talk(&gateway).await;
    talk.say(b"\x16\x03\x01\x00\x2a\x01\x00\x00\x26\x03\x03 and more\r\n\r\n")
        .await;
    let heard = talk.rest().await;
    assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 400"), "{heard:?}");
    assert_eq!(trigger.request_count().get(), 0);
}
