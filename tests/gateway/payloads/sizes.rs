//! How large a body may be.

use http_body_util::Full;

use crate::emulator::Answer as Flow;
use crate::emulator::{Reply, Trigger, TriggerHandle};
use crate::harness::{Answer, KEY, Running, TENANT, World, post, send_h2};
use crate::listening::served;
use crate::payloads::{LAST_CHUNK, chunk, chunked, noise, sha256, with_length};

/// A gateway whose route `/orders` accepts bodies of this size.
async fn limited(size: &str) -> (World, Running, TriggerHandle) {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let limit = format!("body_size_max = \"{size}\"");
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), &limit));
    (world, gateway, trigger)
}

fn assert_too_large(answer: &Answer) {
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert_eq!(answer.code(), "body-too-large");
    let problem = answer.json();
    assert_eq!(problem["reason"], "policy");
    assert_eq!(problem["retryable"], false);
}

#[tokio::test]
async fn a_stated_length_beyond_the_limit_is_refused_before_the_body_comes() {
    let (world, gateway, _) = served("").await;
    let mut talk = gateway.talk().await;
    talk.say(with_length(1_048_577)).await;
    let answer = talk.hear().await;
    assert_too_large(&answer);
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("1048577") && detail.contains("1048576"),
        "{detail}"
    );
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(talk.rest().await, "");
    assert_eq!(world.emulator.flow.heads().get(), 0);
}

#[tokio::test]
async fn a_caller_that_sends_it_anyway_can_still_read_the_refusal() {
    let (_world, gateway, _) = limited("1 KiB").await;
    let large = "x".repeat(3_000_000);
    let mut talk = gateway.talk().await;
    talk.say(with_length(large.len())).await;
    talk.say(&large).await;
    assert_too_large(&talk.hear().await);
    assert_eq!(talk.rest().await, "");
    // Usual libraries stop when a write fails, so the connection must not close before they have written
    // everything.
    for _ in 0..10 {
        assert_too_large(&gateway.post("/orders", &large).await);
    }
}

#[tokio::test]
async fn a_body_without_length_is_cut_at_the_limit() {
    let (world, gateway, _) = limited("1 KiB").await;
    let mut talk = gateway.talk().await;
    talk.say(chunked()).await;
    talk.say(chunk(&"x".repeat(1024))).await;
    talk.say(chunk("x")).await;
    let answer = talk.hear().await;
    assert_too_large(&answer);
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(world.emulator.flow.heads().get(), 0);
    assert_eq!(gateway.lines.of(&answer).await["problem"], "body-too-large");
}

#[tokio::test]
async fn a_streamed_body_beyond_the_limit_never_becomes_whole() {
    let (world, gateway, trigger) = limited("100 KiB").await;
    let mut talk = gateway.talk().await;
    talk.say(chunked()).await;
    talk.say(chunk(&"x".repeat(90 * 1024))).await;
    world.emulator.flow.body_bytes().reached(90 * 1024).await;
    talk.say(chunk(&"x".repeat(20 * 1024))).await;
    let answer = talk.hear().await;
    assert_too_large(&answer);
    assert_eq!(answer.header("connection"), Some("close"));
    world.emulator.flow.broken_bodies().reached(1).await;
    assert_eq!(trigger.runs(), 0);
    assert_eq!(gateway.lines.of(&answer).await["problem"], "body-too-large");
}

#[tokio::test]
async fn a_body_of_just_the_limit_passes() {
    for (limit, bytes) in [("1 KiB", 1024), ("100 KiB", 102_400)] {
        let (_world, gateway, trigger) = limited(limit).await;
        let body = "x".repeat(bytes);
        for request in [
            format!("{}{body}", with_length(bytes)),
            format!("{}{}{LAST_CHUNK}", chunked(), chunk(&body)),
        ] {
            let mut talk = gateway.talk().await;
            talk.say(request).await;
            assert_eq!(talk.hear().await.status, 202, "{limit}");
            let seen = trigger.last_request();
            assert_eq!((seen.body_bytes, seen.body_complete), (bytes as u64, true));
        }
        let mut talk = gateway.talk().await;
        talk.say(with_length(bytes + 1)).await;
        assert_too_large(&talk.hear().await);
        assert_eq!(trigger.runs(), 2);
    }
}

#[tokio::test]
async fn each_route_has_its_own_limit_and_1_mib_without_one() {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let gateway = world.start_with(
        &[
            world.route("small", "/small", &trigger.url(), "body_size_max = \"10 B\""),
            world.route("usual", "/usual", &trigger.url(), ""),
            world.route("large", "/large", &trigger.url(), "body_size_max = \"2 MiB\""),
        ]
        .concat(),
    );
    for (path, fits) in [("/small", 10), ("/usual", 1 << 20), ("/large", 2 << 20)] {
        let answer = gateway.post(path, &"x".repeat(fits)).await;
        assert_eq!(answer.status, 202, "{path}");
        let mut talk = gateway.talk().await;
        talk.say(with_length(fits + 1).replacen("/orders", path, 1)).await;
        assert_too_large(&talk.hear().await);
    }
    assert_eq!(trigger.runs(), 3);
}

#[tokio::test]
async fn twenty_megabytes_pass_intact_in_both_directions() {
    let world = World::new().await;
    let sent = noise(20_000_000);
    let returned = noise(20_000_001);
    let reply = Reply::text(200, returned.clone());
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Respond(reply)));
    let limit = "body_size_max = \"100 MiB\"";
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), limit));
    let request = post("/orders").header("x-api-key", KEY);
    let answer = gateway
        .send(request.body(Full::from(sent.clone())).unwrap())
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(sha256(&answer.body), sha256(&returned));
    let seen = trigger.last_request();
    assert_eq!(seen.body_bytes, 20_000_000);
    assert_eq!(seen.body_sha256, sha256(&sent));
    let line = gateway.lines.of(&answer).await;
    assert_eq!(
        (&line["bytes_in"], &line["bytes_out"]),
        (&20_000_000.into(), &20_000_001.into())
    );
}

#[tokio::test]
async fn megabytes_pass_intact_over_http2() {
    let world = World::new().await;
    let sent = noise(3_000_000);
    let returned = noise(3_000_001);
    let reply = Reply::text(200, returned.clone());
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Respond(reply)));
    let limit = "body_size_max = \"3 MB\"";
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), limit));
    let mut sender = gateway.connect_h2().await;
    let request = |body: &bytes::Bytes| {
        let request = http::Request::post("https://localhost/orders").header("x-api-key", KEY);
        request.body(Full::from(body.clone())).unwrap()
    };
    let answer = send_h2(&mut sender, request(&sent)).await;
    assert_eq!(sha256(&answer.body), sha256(&returned));
    assert_eq!(trigger.last_request().body_sha256, sha256(&sent));
    let answer = send_h2(&mut sender, request(&returned)).await;
    assert_too_large(&answer);
    assert_eq!(trigger.runs(), 1);
}
