//! Answers on their way to the caller: piece by piece, with and without a body, and for old callers.

use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};

use crate::emulator::Answer as Flow;
use crate::emulator::{Gate, Reply, Trigger, TriggerHandle};
use crate::harness::{KEY, PATIENCE, Running, TENANT, World, send_h2};
use crate::listening::order_bytes;

/// Longer than any idle time after which these tests close something.
const LONG_PAUSE: Duration = Duration::from_millis(1500);
/// Deadlines that must not affect a slow answer.
const IMPATIENT: &str = "[connections]\nidle_timeout = \"200ms\"\nhead_timeout = \"200ms\"\n";

/// A gateway to a flow with this behaviour.
async fn answering(behaviour: Flow, more: &str) -> (World, Running, TriggerHandle) {
    let world = World::new().await;
    let methods = ["GET", "HEAD", "POST"];
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).methods(&methods).does(behaviour));
    let keys = "methods = [\"GET\", \"HEAD\", \"POST\"]";
    let route = world.route("orders", "/orders", &trigger.url(), keys);
    let gateway = world.start_with(&format!("{route}{more}"));
    (world, gateway, trigger)
}

/// A flow that answers in pieces of 1000 bytes, each but the first behind the gate.
fn pieces(chunks: usize, gate: &Gate) -> Flow {
    Flow::Stream {
        chunks,
        chunk_bytes: 1000,
        gate: Some(gate.clone()),
    }
}

#[tokio::test]
async fn the_first_piece_comes_before_the_last_was_made() {
    let gate = Gate::closed();
    let (_world, gateway, _) = answering(pieces(3, &gate), "").await;
    let mut talk = gateway.talk().await;
    talk.say(order_bytes("")).await;
    for _ in 0..2 {
        talk.hear_until(&"x".repeat(1000)).await;
        gate.release(1);
    }
    talk.hear_until(&"x".repeat(1000)).await;
    assert_eq!(talk.hear_until("0\r\n\r\n").await, "\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_pause_in_an_answer_does_not_count_as_idle() {
    let gate = Gate::closed();
    let (_world, gateway, trigger) = answering(pieces(2, &gate), IMPATIENT).await;
    let mut talk = gateway.talk().await;
    talk.say(order_bytes("")).await;
    talk.hear_until(&"x".repeat(1000)).await;
    talk.hear_until("\r\n").await;
    talk.silence(LONG_PAUSE).await;
    gate.open();
    talk.hear_until("0\r\n\r\n").await;
    // The answer is complete, and the connection is in step.
    talk.say(order_bytes("")).await;
    assert_eq!(talk.hear().await.body.len(), 2000);
    assert_eq!(trigger.runs(), 2);
}

#[tokio::test]
async fn a_pause_in_an_answer_on_http2_does_not_count_as_idle() {
    let gate = Gate::closed();
    let (_world, gateway, _) = answering(pieces(2, &gate), IMPATIENT).await;
    let mut sender = gateway.connect_h2().await;
    let request = Request::post("https://localhost/orders").header("x-api-key", KEY);
    let sent = sender.send_request(request.body(Full::from("{}")).unwrap());
    let answer = tokio::time::timeout(PATIENCE, sent).await.unwrap().unwrap();
    let mut body = answer.into_body();
    let mut received = 0;
    while received < 1000 {
        let frame = body.frame().await.unwrap().unwrap();
        received += frame.into_data().unwrap().len();
    }
    let early = tokio::time::timeout(LONG_PAUSE, body.frame()).await;
    assert!(early.is_err(), "{early:?}");
    gate.open();
    let rest = tokio::time::timeout(PATIENCE, body.collect()).await.unwrap();
    assert_eq!(rest.unwrap().to_bytes().len(), 1000);
}

#[tokio::test]
async fn a_head_request_gets_a_head_and_keeps_the_connection() {
    let reply = Reply::text(200, "twelve bytes");
    let (_world, gateway, trigger) = answering(Flow::Respond(reply), "").await;
    let mut talk = gateway.talk().await;
    let request =
        |method: &str| format!("{method} /orders HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\n\r\n");
    for _ in 0..2 {
        talk.say(request("HEAD")).await;
        let answer = talk.hear_after("HEAD").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-length")),
            (200, Some("12"))
        );
        talk.say(request("GET")).await;
        assert_eq!(talk.hear().await.text(), "twelve bytes");
    }
    assert_eq!(trigger.runs(), 4);
}

#[tokio::test]
async fn a_refused_head_request_keeps_the_connection_too() {
    let (_world, gateway, _) = answering(Flow::Accepted, "").await;
    let mut talk = gateway.talk().await;
    for path in ["/nowhere", "/orders"] {
        talk.say(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
            .await;
        let answer = talk.hear_after("HEAD").await;
        assert!([401, 404].contains(&answer.status.as_u16()), "{path}");
    }
    talk.say(order_bytes("")).await;
    assert_eq!(talk.hear().await.status, 202);
}

#[tokio::test]
async fn answers_without_a_body_keep_the_connection() {
    for status in [204, 304, 200] {
        let reply = Reply::new(status).header("X-Order", "7");
        let (_world, gateway, trigger) = answering(Flow::Respond(reply), "").await;
        let mut talk = gateway.talk().await;
        for _ in 0..3 {
            talk.say(order_bytes("")).await;
            let answer = talk.hear().await;
            assert_eq!(
                (answer.status.as_u16(), answer.header("x-order")),
                (status, Some("7"))
            );
            assert_eq!(gateway.lines.of(&answer).await["end"], "complete");
        }
        assert_eq!(trigger.runs(), 3);
    }
}

#[tokio::test]
async fn a_caller_of_http_1_0_gets_the_whole_answer_and_then_the_end() {
    let stream = Flow::Stream {
        chunks: 20,
        chunk_bytes: 5000,
        gate: None,
    };
    let (_world, gateway, _) = answering(stream, "").await;
    let request = order_bytes("").replace("HTTP/1.1", "HTTP/1.0");
    let heard = gateway.raw(request.as_bytes()).await;
    let (head, body) = heard.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200"), "{head}");
    assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
    assert_eq!((body.len(), body.replace('x', "")), (100_000, String::new()));
}

#[tokio::test]
async fn an_answer_of_a_known_length_keeps_it() {
    let reply = Reply::text(200, "x".repeat(100_000));
    let (_world, gateway, _) = answering(Flow::Respond(reply), "").await;
    let mut talk = gateway.talk().await;
    talk.say(order_bytes("")).await;
    let answer = talk.hear().await;
    assert_eq!(answer.header("content-length"), Some("100000"));
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!(answer.body.len(), 100_000);
}

#[tokio::test]
async fn many_answers_share_one_http2_connection() {
    let reply = Reply::text(200, "x".repeat(50_000));
    let (_world, gateway, trigger) = answering(Flow::Respond(reply), "").await;
    let sender = gateway.connect_h2().await;
    let requests: Vec<_> = (0..50)
        .map(|_| {
            let mut sender = sender.clone();
            let request = Request::post("https://localhost/orders").header("x-api-key", KEY);
            let request = request.body(Full::from("{}")).unwrap();
            tokio::spawn(async move { send_h2(&mut sender, request).await })
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.unwrap().body.len(), 50_000);
    }
    assert_eq!(trigger.runs(), 50);
}
