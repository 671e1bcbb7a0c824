//! Small bodies: read completely before the flow is called, within limits of time and memory.

use std::time::Duration;

use http::Request;
use http_body_util::Full;

use crate::emulator::Answer as Flow;
use crate::emulator::{Framing, Trigger};
use crate::harness::{KEY, PATIENCE, Running, TENANT, World};
use crate::listening::{order, order_bytes, served};
use crate::payloads::{LAST_CHUNK, chunk, chunked, with_length};

#[tokio::test]
async fn a_chunked_body_leaves_with_its_length() {
    let (_world, gateway, trigger) = served("").await;
    let mut talk = gateway.talk().await;
    talk.say(format!(
        "{}{}{}{LAST_CHUNK}",
        chunked(),
        chunk("{\"a\":"),
        chunk("1}")
    ))
    .await;
    assert_eq!(talk.hear().await.status, 202);
    let seen = trigger.last_request();
    assert_eq!(
        (seen.framing, seen.text().as_str()),
        (Framing::Length(7), "{\"a\":1}")
    );
    assert_eq!(seen.header("transfer-encoding"), None);
}

#[tokio::test]
async fn trailers_end_at_the_gateway() {
    let (_world, gateway, trigger) = served("").await;
    let mut talk = gateway.talk().await;
    let trailers = format!("0\r\nX-API-Key: {KEY}\r\nX-Flowgate-Caller: forged\r\n\r\n");
    talk.say(format!("{}{}{trailers}", chunked(), chunk("{}"))).await;
    assert_eq!(talk.hear().await.status, 202);
    let seen = trigger.last_request();
    assert_eq!(seen.framing, Framing::Length(2));
    assert_eq!(seen.headers_named("x-flowgate-caller"), ["shop"]);
    assert_eq!(seen.header("x-api-key"), None);
}

#[tokio::test]
async fn a_key_in_the_trailers_is_no_key() {
    let (_world, gateway, trigger) = served("").await;
    let mut talk = gateway.talk().await;
    let keyless = chunked().replace(&format!("X-API-Key: {KEY}\r\n"), "");
    talk.say(format!("{keyless}{}0\r\nX-API-Key: {KEY}\r\n\r\n", chunk("{}")))
        .await;
    assert_eq!(talk.hear().await.code(), "key-missing");
    assert_eq!(trigger.request_count().get(), 0);
}

#[tokio::test]
async fn the_flow_is_not_called_before_the_body_is_whole() {
    let (world, gateway, trigger) = served("").await;
    let mut slow = gateway.talk().await;
    slow.say(with_length(4)).await;
    slow.say("{  ").await;
    // Another caller's complete request is served.
    assert_eq!(gateway.send(order()).await.status, 202);
    assert_eq!(world.emulator.flow.listener().connections().get(), 1);
    assert_eq!(world.emulator.flow.heads().get(), 1);
    slow.say("}").await;
    assert_eq!(slow.hear().await.status, 202);
    assert_eq!(trigger.last_request().text(), "{  }");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_answered_408() {
    let (world, gateway, _) = served("[bodies]\ntimeout = \"300ms\"\n").await;
    for start in [with_length(4), chunked()] {
        let mut talk = gateway.talk().await;
        talk.say(start).await;
        talk.say("1").await;
        let answer = talk.hear().await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (408, "body-timeout")
        );
        let problem = answer.json();
        assert_eq!(
            (&problem["reason"], &problem["retryable"]),
            (&"time".into(), &true.into())
        );
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(talk.rest().await, "");
    }
    assert_eq!(world.emulator.flow.heads().get(), 0);
}

#[tokio::test]
async fn a_body_that_drips_has_no_more_time_than_another() {
    let (world, gateway, _) = served("[bodies]\ntimeout = \"400ms\"\n").await;
    let mut talk = gateway.talk().await;
    talk.say(with_length(10_000)).await;
    let drip = async {
        loop {
            if talk.try_say("x").await.is_err()
                || tokio::time::timeout(Duration::from_millis(50), talk.hear())
                    .await
                    .is_ok()
            {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, drip)
        .await
        .expect("it may drip forever");
    gateway
        .lines
        .wait_for(|line| line["problem"] == "body-timeout")
        .await;
    assert_eq!(world.emulator.flow.heads().get(), 0);
}

const NARROW: &str = "[bodies]\nhold_size_max = \"1 KiB\"\nheld_budget = \"1 KiB\"\n";

/// Waits until bodies of this many bytes are held.
async fn held(gateway: &Running, bytes: usize) {
    let line = format!("\nflowgate_held_body_bytes {bytes}\n");
    let held = async {
        while !gateway.admin("/metrics").await.1.contains(&line) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, held)
        .await
        .expect("they are not held");
}

#[tokio::test]
async fn the_memory_for_held_bodies_is_bounded_and_comes_back() {
    let (_world, gateway, trigger) = served(NARROW).await;
    let large = "x".repeat(1000);
    let mut first = gateway.talk().await;
    first.say(with_length(1000)).await;
    first.say(&large[..900]).await;
    held(&gateway, 900).await;

    let answer = gateway.post("/orders", &large).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (503, "gateway-busy")
    );
    assert_eq!(answer.header("retry-after"), Some("1"));
    let problem = answer.json();
    assert_eq!(
        (&problem["reason"], &problem["retryable"]),
        (&"time".into(), &true.into())
    );
    let mut unstated = gateway.talk().await;
    unstated
        .say(format!("{}{}{LAST_CHUNK}", chunked(), chunk(&large)))
        .await;
    assert_eq!(unstated.hear().await.code(), "gateway-busy");
    assert_eq!(gateway.post("/orders", "tiny").await.status, 202, "4 bytes fit");

    first.say(&large[900..]).await;
    assert_eq!(first.hear().await.status, 202);
    assert_eq!(gateway.post("/orders", &large).await.status, 202);
    assert_eq!(trigger.runs(), 3);
    held(&gateway, 0).await;
}

#[tokio::test]
async fn a_caller_that_announces_a_body_and_sends_none_takes_no_memory() {
    let (_world, gateway, _) = served(NARROW).await;
    let mut silent = Vec::new();
    for _ in 0..5 {
        let mut talk = gateway.talk().await;
        talk.say(with_length(1000)).await;
        silent.push(talk);
    }
    let large = "x".repeat(1000);
    assert_eq!(gateway.post("/orders", &large).await.status, 202);
}

#[tokio::test]
async fn a_caller_that_leaves_gives_its_memory_back() {
    let (_world, gateway, _) = served(NARROW).await;
    let mut leaving = gateway.talk().await;
    leaving.say(with_length(1000)).await;
    leaving.say("x".repeat(900)).await;
    held(&gateway, 900).await;
    drop(leaving);
    held(&gateway, 0).await;
    let large = "x".repeat(1000);
    assert_eq!(gateway.post("/orders", &large).await.status, 202);
}

#[tokio::test]
async fn an_empty_body_is_a_body() {
    let (_world, gateway, trigger) = served("").await;
    let mut talk = gateway.talk().await;
    for request in [
        with_length(0),
        format!("{}{LAST_CHUNK}", chunked()),
        chunked().replace("Transfer-Encoding: chunked\r\n", ""),
    ] {
        talk.say(&request).await;
        assert_eq!(talk.hear().await.status, 202, "{request}");
        let seen = trigger.last_request();
        assert_eq!((seen.body_bytes, seen.body_complete), (0, true));
        assert_eq!(seen.framing, Framing::Length(0), "{request}");
    }
    talk.say(order_bytes("")).await;
    assert_eq!(talk.hear().await.status, 202);
}

#[tokio::test]
async fn a_get_has_no_body() {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).methods(&["GET"]).does(Flow::Accepted));
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), "methods = [\"GET\"]"));
    let request = Request::get("/orders")
        .header("host", "localhost")
        .header("x-api-key", KEY);
    let answer = gateway.send(request.body(Full::default()).unwrap()).await;
    assert_eq!(answer.status, 202);
    let seen = trigger.last_request();
    assert_eq!((seen.framing, seen.body_bytes), (Framing::Absent, 0));
}
