//! Wrong keys: guessing runs into a limit, and nobody else does.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::emulator::Answer as Flow;
use crate::emulator::{Trigger, TriggerHandle};
use crate::harness::{Answer, KEY, PATIENCE, Running, TENANT, World, digest, post};

/// A key of the form that `flowgate key new` gives.
const GENERATED: &str = "flowgate_canary-0123456789_abcdefghijklmnopqrstuvwxy";
/// The same with another last character: well-formed, but nobody's key.
const GENERATED_WRONG: &str = "flowgate_canary-0123456789_abcdefghijklmnopqrstuvwxz";
/// Failures after which an address is refused for an hour.
const FAILURES: usize = 2;

/// A gateway whose caller `shop` has the guessable key of every test, a generated one and an expired one. Its
/// second listener accepts plain HTTP from peers of this kind; besides the route for keys there are one for a
/// network and one without keys.
async fn gateway(plain_peers: &str) -> (World, Running, TriggerHandle) {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let url = trigger.url();
    let key = |label: &str, key: &str, more: &str| {
        format!(
            "[[caller.key]]\nlabel = \"{label}\"\ndigest = \"{}\"\n{more}\n",
            digest(key)
        )
    };
    let settings = [
        world.base(),
        key("generated", GENERATED, ""),
        key("expired", &expired(), "expires = 2020-01-01"),
        "[[caller]]\nname = \"plant\"\nnetworks = [\"127.0.0.0/8\"]\n".to_owned(),
        world.route("orders", "/orders", &url, ""),
        world.route("plant", "/plant", &url, "callers = [\"plant\", \"shop\"]"),
        world.route("open", "/open", &url, "anonymous = true"),
        format!(
            "[limits]\nfailed_authentications = {{ requests = {FAILURES}, per = \"2h\" }}\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\nplain_http = \"{plain_peers}\"\n\
             plain_http_from = [\"127.0.0.0/8\"]\n"
        ),
    ];
    let running = world.start(&settings.concat());
    (world, running, trigger)
}

/// A generated key that has expired.
fn expired() -> String {
    format!("flowgate_{}", "e".repeat(43))
}

fn with_key(path: &str, key: &str) -> Request<Full<Bytes>> {
    let request = post(path).header("x-api-key", key);
    request.body(Full::from("{}")).unwrap()
}

fn keyless(path: &str) -> Request<Full<Bytes>> {
    post(path).body(Full::from("{}")).unwrap()
}

/// Presents wrong keys until the address is refused.
async fn spend(gateway: &Running) {
    for _ in 0..FAILURES {
        let answer = gateway.send(with_key("/orders", "a-guess")).await;
        assert_eq!(answer.code(), "key-unknown");
    }
}

/// Sends one request to the listener for plain HTTP.
async fn send_plain(gateway: &Running, request: Request<Full<Bytes>>) -> (StatusCode, String) {
    let exchange = async {
        let stream = TcpStream::connect(gateway.server.addresses()[1]).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
        (
            head.status,
            problem["code"].as_str().unwrap_or_default().to_owned(),
        )
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .expect("no answer in time")
}

/// What a caller sees of a refusal, without ids of the request.
fn visible(answer: &Answer) -> (StatusCode, Vec<String>, Value) {
    let names = answer.headers.keys().map(ToString::to_string).collect();
    let mut problem = answer.json();
    let problem_fields = problem.as_object_mut().unwrap();
    problem_fields.remove("request_id");
    problem_fields.remove("instance");
    // Both count down by the second.
    problem_fields.remove("retry_after");
    (answer.status, names, problem)
}

#[tokio::test]
async fn a_valid_generated_key_passes_whatever_others_at_its_address_present() {
    let (_world, gateway, trigger) = gateway("private-networks").await;
    spend(&gateway).await;
    for _ in 0..20 {
        gateway.send(with_key("/orders", "a-guess")).await;
    }
    for path in ["/orders", "/plant"] {
        let answer = gateway.send(with_key(path, GENERATED)).await;
        assert_eq!(answer.status, 202, "{path}: {}", answer.text());
        assert_eq!(gateway.lines.of(&answer).await["key"], "generated");
    }
    assert_eq!(trigger.runs(), 2);
}

#[tokio::test]
async fn over_the_limit_a_right_guess_and_a_wrong_one_have_the_same_answer() {
    let (_world, gateway, trigger) = gateway("private-networks").await;
    spend(&gateway).await;
    let wrong = gateway.send(with_key("/orders", "another-guess")).await;
    let right = gateway.send(with_key("/orders", KEY)).await;
    assert_eq!(right.status, 429);
    assert_eq!(visible(&right), visible(&wrong));
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn over_the_limit_failing_attempts_are_429_whatever_their_form() {
    let (_world, gateway, _) = gateway("private-networks").await;
    spend(&gateway).await;
    let two_keys = post("/orders")
        .header("x-api-key", GENERATED)
        .header("authorization", format!("Bearer {GENERATED_WRONG}"));
    let attempts = [
        with_key("/orders", GENERATED_WRONG),
        with_key("/orders", &expired()),
        with_key("/orders", &GENERATED[..GENERATED.len() - 1]),
        with_key("/orders", &format!("{GENERATED}x")),
        two_keys.body(Full::from("{}")).unwrap(),
    ];
    for attempt in attempts {
        let shown = format!("{:?}", attempt.headers());
        let answer = gateway.send(attempt).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (429, "rate-limited"),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn the_answer_over_the_limit_says_which_keys_are_accepted() {
    let (_world, gateway, _) = gateway("private-networks").await;
    spend(&gateway).await;
    let answer = gateway.send(with_key("/orders", KEY)).await;
    assert_eq!(
        answer.json()["detail"],
        "Too many wrong keys were presented from this address. Until then only a valid key that begins with \
         flowgate_ is accepted from it; any other is refused, even if it is right."
    );
}

#[tokio::test]
async fn a_caller_without_a_key_does_not_meet_the_limit_of_wrong_ones() {
    let (_world, gateway, trigger) = gateway("private-networks").await;
    spend(&gateway).await;
    assert_eq!(gateway.send(keyless("/plant")).await.status, 202);
    assert_eq!(gateway.send(keyless("/open")).await.status, 202);
    assert_eq!(gateway.send(keyless("/orders")).await.code(), "key-missing");
    // A route without keys reads no key, so this field is not one.
    assert_eq!(gateway.send(with_key("/open", "a-guess")).await.status, 202);
    assert_eq!(trigger.runs(), 3);
}

#[tokio::test]
async fn the_address_of_a_balancer_is_not_limited() {
    let (_world, gateway, trigger) = gateway("behind-tls-balancer").await;
    for _ in 0..5 * FAILURES {
        let (status, code) = send_plain(&gateway, with_key("/orders", "a-guess")).await;
        assert_eq!((status.as_u16(), code.as_str()), (401, "key-unknown"));
    }
    assert_eq!(send_plain(&gateway, with_key("/orders", KEY)).await.0, 202);
    // No failure was counted for the address either.
    assert_eq!(gateway.send(with_key("/orders", KEY)).await.status, 202);
    spend(&gateway).await;
    assert_eq!(send_plain(&gateway, with_key("/orders", KEY)).await.0, 202);
    assert_eq!(trigger.runs(), 3);
}

#[tokio::test]
async fn callers_in_private_networks_are_limited_by_their_addresses() {
    let (_world, gateway, _) = gateway("private-networks").await;
    for _ in 0..FAILURES {
        assert_eq!(send_plain(&gateway, with_key("/orders", "a-guess")).await.0, 401);
    }
    assert_eq!(send_plain(&gateway, with_key("/orders", KEY)).await.0, 429);
}
