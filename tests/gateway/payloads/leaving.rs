//! Callers that leave before they have their answer.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::http2::SendRequest;
use serde_json::Value;

use crate::emulator::Answer as Flow;
use crate::emulator::Trigger;
use crate::harness::{KEY, TENANT, World, send_h2};
use crate::listening::served;
use crate::payloads::with_length;

fn order() -> Request<Full<Bytes>> {
    let request = Request::post("https://localhost/orders").header("x-api-key", KEY);
    request.body(Full::from("{}")).unwrap()
}

#[tokio::test]
async fn a_caller_that_leaves_in_a_small_body_never_reaches_the_flow() {
    let (world, gateway, _) = served("").await;
    let mut talk = gateway.talk().await;
    talk.say(with_length(100)).await;
    talk.say("half").await;
    drop(talk);
    let line = gateway.lines.wait_for(|line| line["route"] == "orders").await;
    assert!(
        line["problem"] == "malformed-request" || line["end"] == "caller-gone",
        "{line}"
    );
    assert_eq!(world.emulator.flow.heads().get(), 0);
}

#[tokio::test]
async fn a_caller_that_leaves_in_a_large_body_ends_the_call() {
    let (world, gateway, trigger) = served("[bodies]\nhold_size_max = \"1 KiB\"\n").await;
    let mut talk = gateway.talk().await;
    talk.say(with_length(4096)).await;
    talk.say("x".repeat(2048)).await;
    world.emulator.flow.body_bytes().reached(2048).await;
    drop(talk);
    world.emulator.flow.broken_bodies().reached(1).await;
    let line = gateway.lines.wait_for(|line| line["route"] == "orders").await;
    assert!(
        line["problem"] == "malformed-request" || line["end"] == "caller-gone",
        "{line}"
    );
    assert_eq!(line["bytes_in"], 2048);
    assert_eq!(trigger.runs(), 0);
}

/// Makes another exchange on this connection, so that everything sent on it before has been received.
pub(super) async fn settle(sender: &mut SendRequest<Full<Bytes>>) {
    let nowhere = Request::get("https://localhost/nowhere");
    let answer = send_h2(sender, nowhere.body(Full::default()).unwrap()).await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn a_caller_that_leaves_while_the_token_is_fetched_starts_no_run() {
    let world = World::new().await;
    let tokens = world.emulator.entra.hold();
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    let mut sender = gateway.connect_h2().await;
    let leaving = tokio::spawn({
        let mut sender = sender.clone();
        async move { send_h2(&mut sender, order()).await }
    });
    tokens.arrived(1).await;
    settle(&mut sender).await;
    leaving.abort();
    assert!(leaving.await.unwrap_err().is_cancelled());
    settle(&mut sender).await;
    let line = gateway.lines.wait_for(|line| line["route"] == "orders").await;
    assert_eq!(
        (&line["status"], &line["end"]),
        (&Value::Null, &"caller-gone".into())
    );
    tokens.open();
    assert_eq!(send_h2(&mut sender, order()).await.status, 202);
    assert_eq!(trigger.request_count().get(), 1);
}

#[tokio::test]
async fn an_answer_nobody_waits_for_is_still_logged() {
    let (_world, gateway, trigger) = served("").await;
    let gate = trigger.hold();
    let mut sender = gateway.connect_h2().await;
    let leaving = tokio::spawn({
        let mut sender = sender.clone();
        async move { send_h2(&mut sender, order()).await }
    });
    gate.arrived(1).await;
    leaving.abort();
    assert!(leaving.await.unwrap_err().is_cancelled());
    settle(&mut sender).await;
    gate.open();
    let line = gateway.lines.wait_for(|line| line["route"] == "orders").await;
    assert_eq!(
        (&line["status"], &line["end"]),
        (&202.into(), &"caller-gone".into())
    );
    assert_eq!(line["run"].as_str(), trigger.last_request().run.as_deref());
}
