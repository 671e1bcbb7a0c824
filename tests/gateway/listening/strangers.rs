//! HTTP/2 connections before and after a credential was accepted.

use std::collections::HashSet;

use crate::harness::Running;
use crate::listening::frames::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Heard, Peer, RST_STREAM, SETTINGS, field, frame,
    order_fields, stream,
};
use crate::listening::served;

const REQUESTS: u32 = 90;

fn stranger(id: u32) -> Vec<u8> {
    let fields = [
        vec![0x83, 0x87],
        field(":path", "/nowhere"),
        field(":authority", "localhost"),
    ];
    frame(HEADERS, END_HEADERS | END_STREAM, id, &fields.concat())
}

fn order(id: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, id, &order_fields())
}

fn malformed(id: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, id, &field(":path", ""))
}

/// The connection ends, and the log says how many of its streams were malformed.
async fn ends_with_malformed(streams: u32, peer: &mut Peer, gateway: &Running) {
    peer.rest().await;
    let line = gateway
        .lines
        .wait_for(|line| line["reason"] == "malformed-http2")
        .await;
    let detail = line["detail"].as_str().unwrap();
    let wanted = format!("{streams} of its streams were malformed");
    assert!(detail.starts_with(&wanted), "{detail}");
}

#[tokio::test]
async fn a_known_caller_may_have_all_its_requests_under_way_at_once() {
    let (_world, gateway, trigger) = served("").await;
    let gate = trigger.hold();
    let mut peer = Peer::connect(&gateway).await;
    let all: Vec<u8> = (0..REQUESTS).flat_map(|number| order(stream(number))).collect();
    peer.say(&all).await;
    // None of them has been answered.
    gate.arrived(u64::from(REQUESTS)).await;
    gate.open();
    let mut open: HashSet<u32> = (0..REQUESTS).map(stream).collect();
    while !open.is_empty() {
        let answer = peer.hear(|heard| heard.kind == HEADERS).await.unwrap();
        open.remove(&answer.stream);
    }
}

#[tokio::test]
async fn requests_of_an_unknown_caller_that_reads_are_all_answered() {
    let (_world, gateway, _) = served("").await;
    let mut peer = Peer::connect(&gateway).await;
    let all: Vec<u8> = (0..REQUESTS)
        .flat_map(|number| stranger(stream(number)))
        .collect();
    peer.say(&[all, order(stream(REQUESTS))].concat()).await;
    let mut open: HashSet<u32> = (0..=REQUESTS).map(stream).collect();
    while !open.is_empty() {
        let heard = peer
            .hear(|heard| [HEADERS, RST_STREAM, GOAWAY].contains(&heard.kind))
            .await
            .unwrap();
        assert_eq!(heard.kind, HEADERS, "{heard:?}");
        open.remove(&heard.stream);
    }
}

/// As curl does, which sends nothing more once it sees that its request is refused.
fn upload(id: u32) -> Vec<u8> {
    let fields = [
        vec![0x83, 0x87],
        field(":path", "/nowhere"),
        field(":authority", "localhost"),
        field("content-length", "13"),
    ];
    frame(HEADERS, END_HEADERS, id, &fields.concat())
}

/// The connection is asked to close after two of them, and the next requests are answered.
#[tokio::test]
async fn a_body_that_ends_early_because_its_request_was_refused_is_not_malformed() {
    let (_world, gateway, _) = served("").await;
    let mut peer = Peer::connect(&gateway).await;
    // After how many requests it is asked to close.
    let mut asked = None;
    for number in 0..4 {
        let id = stream(number);
        let pieces = [
            (upload(id), HEADERS),
            (frame(DATA, END_STREAM, id, b""), RST_STREAM),
        ];
        for (piece, kind) in pieces {
            peer.say(&piece).await;
            let is_answer = |heard: &Heard| heard.stream == id && heard.kind != DATA;
            loop {
                let heard = peer
                    .hear(|heard| heard.kind == GOAWAY || is_answer(heard))
                    .await
                    .unwrap();
                if is_answer(&heard) {
                    assert_eq!(heard.kind, kind, "{heard:?}");
                    break;
                }
                asked = asked.or(Some(number));
            }
        }
    }
    assert_eq!(asked, Some(2));
    // Two of the four were excused, and this is one too many.
    peer.say(&malformed(stream(4))).await;
    ends_with_malformed(1, &mut peer, &gateway).await;
}

#[tokio::test]
async fn an_unknown_caller_that_does_not_read_has_few_requests_under_way() {
    let (_world, gateway, _) = served("").await;
    let mut peer = Peer::connect(&gateway).await;
    let closed = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let all: Vec<u8> = (0..REQUESTS)
        .flat_map(|number| stranger(stream(number)))
        .collect();
    peer.say(&[closed, all].concat()).await;
    let is_line = |line: &String| line.contains("\"kind\":\"request\"");
    let mut heads = HashSet::new();
    while heads.len() < 4 {
        let head = peer.hear(|heard| heard.kind == HEADERS).await.unwrap();
        heads.insert(head.stream);
    }
    assert_eq!(heads, [1, 3, 5, 7].into());
    let (_, metrics) = gateway.admin("/metrics").await;
    assert!(!metrics.is_empty());
    assert!(gateway.lines.all().iter().filter(|line| is_line(line)).count() <= 4);
}

#[tokio::test]
async fn two_malformed_requests_of_an_unknown_caller_are_reset_and_the_third_ends_its_connection() {
    let (_world, gateway, _) = served("").await;
    let mut peer = Peer::connect(&gateway).await;
    peer.say(&[malformed(1), malformed(3), stranger(5)].concat())
        .await;
    for id in [1, 3] {
        let reset = peer.hear(|heard| heard.stream == id).await.unwrap();
        assert_eq!(reset.kind, RST_STREAM, "{reset:?}");
    }
    assert!(peer.hear(|heard| heard.kind == HEADERS).await.is_some());
    peer.say(&malformed(7)).await;
    ends_with_malformed(3, &mut peer, &gateway).await;
}
