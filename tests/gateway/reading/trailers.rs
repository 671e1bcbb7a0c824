//! Trailers on both protocols: nothing in them counts as a field of the head, and nothing of them reaches the
//! flow.

use crate::emulator::{Recorded, TriggerHandle};
use crate::harness::{KEY, Running, World};
use crate::listening::served;
use crate::reading::frames::{Fields, Heard, Peer, fields, good, without};

/// A gateway that streams bodies over 1 KiB, without a limit on failures.
async fn gateway() -> (World, Running, TriggerHandle) {
    let limit = "{ requests = 1000, per = \"1m\", burst = 1000 }";
    served(&format!(
        "[bodies]\nhold_size_max = \"1 KiB\"\n[limits]\nfailed_authentications = {limit}\n"
    ))
    .await
}

/// Trailers that would change the caller, or what the flow believes, if they were fields of the head.
const FORGED: [(&str, &str); 9] = [
    ("x-api-key", KEY),
    ("authorization", "Bearer canary-in-a-trailer"),
    ("cookie", "canary-in-a-trailer"),
    ("x-flowgate-caller", "canary-in-a-trailer"),
    ("x-forwarded-for", "192.0.2.66"),
    ("content-type", "text/canary-in-a-trailer"),
    ("x-ms-client-tracking-id", "canary-in-a-trailer"),
    ("x_api_key", "canary-in-a-trailer"),
    ("x-plain", "canary-in-a-trailer"),
];

fn trailer_lines() -> String {
    FORGED
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect()
}

fn on_http1(key: &str, body: &str) -> String {
    let trailers = trailer_lines();
    format!(
        "POST /orders HTTP/1.1\r\nHost: localhost\r\n{key}Transfer-Encoding: chunked\r\nTrailer: X-API-Key\r\n\r\n\
         {:x}\r\n{body}\r\n0\r\n{trailers}\r\n",
        body.len()
    )
}

fn assert_without_trailers(seen: &Recorded, body: &str) {
    assert_eq!(seen.body_bytes, body.len() as u64);
    assert_eq!(seen.header("x-flowgate-caller"), Some("shop"));
    for (name, value) in &seen.head.headers {
        let value = String::from_utf8_lossy(value.as_ref()).into_owned();
        let foreign =
            value.contains("canary-in-a-trailer") || value.contains(KEY) || value.contains("192.0.2.66");
        assert!(!foreign, "{name:?}: {value}");
    }
    for name in ["trailer", "x-plain", "x-api-key", "x_api_key"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_key_in_the_trailers_of_http1_is_no_key() {
    let (world, gateway, _) = gateway().await;
    for body in ["{}", &"x".repeat(4096)] {
        let mut talk = gateway.talk().await;
        talk.say(on_http1("", body)).await;
        assert_eq!(talk.hear().await.code(), "key-missing");
        let mut talk = gateway.talk().await;
        talk.say(on_http1("X-API-Key: guess\r\n", body)).await;
        assert_eq!(talk.hear().await.code(), "key-unknown");
    }
    assert_eq!(world.emulator.flow.heads().get(), 0);
}

#[tokio::test]
async fn trailers_of_http1_do_not_reach_the_flow() {
    let (world, gateway, trigger) = gateway().await;
    for body in ["{}", &"x".repeat(4096)] {
        let mut talk = gateway.talk().await;
        for _ in 0..2 {
            talk.say(on_http1(&format!("X-API-Key: {KEY}\r\n"), body)).await;
            let answer = talk.hear().await;
            assert_eq!(answer.status, 202, "{}", answer.text());
            assert_without_trailers(&trigger.last_request(), body);
        }
    }
    assert_eq!(trigger.runs(), 4);
    world.emulator.assert_clean();
}

async fn on_http2(peer: &mut Peer, head: &Fields, body: &[u8]) -> Heard {
    let stream = peer.head(head).await;
    peer.data(stream, body).await;
    peer.trailers(stream, &fields(&FORGED)).await;
    peer.hear(stream).await
}

fn chunked_order() -> Fields {
    without("content-length")
}

#[tokio::test]
async fn a_key_in_the_trailers_of_http2_is_no_key() {
    let (world, gateway, _) = gateway().await;
    let mut peer = Peer::connect(&world, &gateway).await;
    for body in [b"{}".to_vec(), vec![b'x'; 4096]] {
        let mut keyless = chunked_order();
        keyless.retain(|(name, _)| name != b"x-api-key");
        let heard = on_http2(&mut peer, &keyless, &body).await;
        assert_eq!(heard, Heard::problem(401, "key-missing"));
        keyless.push((b"x-api-key".to_vec(), b"guess".to_vec()));
        let heard = on_http2(&mut peer, &keyless, &body).await;
        assert_eq!(heard, Heard::problem(401, "key-unknown"));
    }
    assert_eq!(world.emulator.flow.heads().get(), 0);
}

#[tokio::test]
async fn trailers_of_http2_do_not_reach_the_flow() {
    let (world, gateway, trigger) = gateway().await;
    let mut peer = Peer::connect(&world, &gateway).await;
    for body in ["{}".to_owned(), "x".repeat(4096)] {
        let heard = on_http2(&mut peer, &chunked_order(), body.as_bytes()).await;
        assert_eq!(heard, Heard::status(202));
        assert_without_trailers(&trigger.last_request(), &body);
    }
    assert_eq!(trigger.runs(), 2);
    world.emulator.assert_clean();
}

#[tokio::test]
async fn pseudo_fields_in_trailers_change_nothing() {
    let (world, gateway, trigger) = gateway().await;
    let mut peer = Peer::connect(&world, &gateway).await;
    for (name, value) in [
        (":path", "/elsewhere"),
        (":authority", "evil.example"),
        (":method", "GET"),
        (":status", "200"),
    ] {
        let before = trigger.requests().len();
        let stream = peer.head(&chunked_order()).await;
        peer.data(stream, b"{}").await;
        peer.trailers(stream, &fields(&[(name, value)])).await;
        let heard = peer.hear(stream).await;
        assert!(
            heard.is_refusal() || heard == Heard::status(202),
            "{name}: {heard:?}"
        );
        if let Some(seen) = trigger.requests().get(before) {
            assert_eq!(seen.head.target, trigger.target(), "{name}");
        }
        assert_eq!(peer.ask(&good(), b"{}").await, Heard::status(202), "{name}");
    }
    world.emulator.assert_clean();
}
