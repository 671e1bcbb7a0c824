//! Answers that are ready before the body is: they reach the caller, and do not affect other requests.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use crate::harness::{KEY, send_h2};
use crate::listening::frames::{DATA, END_HEADERS, HEADERS, Peer, field, frame, stream};
use crate::listening::served;

const WRONG: &str = "canary-key-of-nobody";

fn post(key: &str, body: Bytes) -> Request<Full<Bytes>> {
    let request = Request::post("https://localhost/orders").header("x-api-key", key);
    request.body(Full::from(body)).unwrap()
}

fn filled(bytes: usize) -> Bytes {
    vec![b'x'; bytes].into()
}

/// The head of an order with this key, whose body is still to come.
fn head(number: u32, key: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x83, 0x87];
    block.extend(field(":path", "/orders"));
    block.extend(field(":authority", "localhost"));
    block.extend(field("x-api-key", key));
    for (name, value) in more {
        block.extend(field(name, value));
    }
    frame(HEADERS, END_HEADERS, stream(number), &block)
}

#[tokio::test]
async fn a_refused_stream_that_stops_in_its_body_is_answered_at_once() {
    let (_world, gateway, _) = served("[bodies]\ntimeout = \"5m\"\n").await;
    let mut peer = Peer::connect(&gateway).await;
    assert!(peer.say(&head(0, WRONG, &[("content-length", "200")])).await);
    let answer = peer.hear(|heard| heard.kind == HEADERS).await;
    assert_eq!(answer.expect("the connection is closed").stream, stream(0));
    let line = gateway.lines.wait_for(|line| line["status"] == 401).await;
    assert_eq!((&line["bytes_in"], &line["protocol"]), (&0.into(), &"h2".into()));
    assert!(line["ms"]["total"].as_f64().unwrap() < 900.0, "{line}");
    assert!(peer.catch_up().await, "the connection is closed");
}

#[tokio::test]
async fn refused_bodies_on_http2_leave_room_for_the_next_one() {
    let plenty = "[limits]\nfailed_authentications = { requests = 1000, per = \"1s\" }\n";
    let (_world, gateway, trigger) = served(plenty).await;
    let mut sender = gateway.connect_h2().await;
    // Together far more than the connection's window of 1 MiB, of which each may fill a stream's.
    for _ in 0..40 {
        let answer = send_h2(&mut sender, post(WRONG, filled(200_000))).await;
        assert_eq!(answer.code(), "key-unknown");
    }
    let answer = send_h2(&mut sender, post(KEY, filled(500_000))).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(trigger.last_request().body_bytes, 500_000);
}

#[tokio::test]
async fn a_refused_caller_that_expects_100_continue_is_answered_at_once_on_http2() {
    let (_world, gateway, _) = served("").await;
    let mut peer = Peer::connect(&gateway).await;
    let expects = [("content-length", "2"), ("expect", "100-continue")];
    assert!(peer.say(&head(0, WRONG, &expects)).await);
    // A `100 Continue` would be a second head.
    for kind in [HEADERS, DATA] {
        let heard = peer.hear(|heard| heard.stream == stream(0)).await.unwrap();
        assert_eq!(heard.kind, kind, "{heard:?}");
    }
    let line = gateway.lines.wait_for(|line| line["status"] == 401).await;
    assert!(line["ms"]["total"].as_f64().unwrap() < 900.0, "{line}");
}

#[tokio::test]
async fn a_refused_body_on_http2_ends_its_stream_alone() {
    let (_world, gateway, trigger) = served("").await;
    let mut sender = gateway.connect_h2().await;
    for bytes in [60_000, 64 * 1024 + 1] {
        let answer = send_h2(&mut sender, post(WRONG, filled(bytes))).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (401, "key-unknown"),
            "{bytes}"
        );
    }
    assert_eq!(send_h2(&mut sender, post(KEY, filled(2))).await.status, 202);
    assert_eq!(trigger.runs(), 1);
}
