//! The health path of a public listener, for load balancers that cannot reach the admin listener.

use http::Request;
use http_body_util::Full;

use crate::emulator::Answer as Flow;
use crate::emulator::{Trigger, TriggerHandle};
use crate::harness::{PATIENCE, Running, TENANT, World};
use crate::listening::order_bytes;

const GET: &str = "GET /-/health HTTP/1.1\r\nHost: balancer\r\n\r\n";

/// A gateway whose listener answers `/-/health`.
fn start(world: &World) -> (Running, TriggerHandle) {
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let settings = world.base().replace(
        "[[listener.certificate]]",
        "health_path = \"/-/health\"\n[[listener.certificate]]",
    );
    let route = world.route("orders", "/orders", &trigger.url(), "");
    (world.start(&format!("{settings}{route}")), trigger)
}

#[tokio::test]
async fn it_says_ok_without_a_key_and_keeps_the_connection() {
    let world = World::new().await;
    let (gateway, trigger) = start(&world);
    gateway.ready().await;
    let mut talk = gateway.talk().await;
    for _ in 0..3 {
        talk.say(GET).await;
        let answer = talk.hear().await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "ok\n"));
        assert_eq!(answer.header("connection"), None);
    }
    talk.say(order_bytes("")).await;
    assert_eq!(talk.hear().await.status, 202);
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn it_says_503_while_no_token_is_there_and_200_after() {
    let world = World::new().await;
    let gate = world.emulator.entra.hold();
    let (gateway, _) = start(&world);
    gate.arrived(1).await;
    let mut talk = gateway.talk().await;
    talk.say(GET).await;
    let answer = talk.hear().await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (503, "not ready\n")
    );
    gate.open();
    let ready = async {
        loop {
            talk.say(GET).await;
            if talk.hear().await.status == 200 {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, ready)
        .await
        .expect("it never says 200");
}

#[tokio::test]
async fn it_drains_what_it_is_sent() {
    let world = World::new().await;
    let (gateway, _) = start(&world);
    gateway.ready().await;
    let mut talk = gateway.talk().await;
    let body = "x".repeat(10_000);
    let with_length =
        format!("POST /-/health HTTP/1.1\r\nHost: balancer\r\nContent-Length: 10000\r\n\r\n{body}");
    let chunked = format!(
        "POST /-/health HTTP/1.1\r\nHost: balancer\r\nTransfer-Encoding: chunked\r\n\r\n\
         2710\r\n{body}\r\n0\r\n\r\n"
    );
    for request in [with_length, chunked] {
        talk.say(request).await;
        let answer = talk.hear().await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("connection"), None);
        assert_eq!(gateway.lines.of(&answer).await["bytes_in"], 10_000);
    }
    talk.say(GET).await;
    assert_eq!(talk.hear().await.status, 200);
}

#[tokio::test]
async fn it_does_not_drain_forever() {
    let world = World::new().await;
    let (gateway, _) = start(&world);
    gateway.ready().await;
    let mut talk = gateway.talk().await;
    talk.say("POST /-/health HTTP/1.1\r\nHost: balancer\r\nContent-Length: 10000000\r\n\r\nx")
        .await;
    let answer = talk.hear().await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("connection")),
        (200, Some("close"))
    );
}

#[tokio::test]
async fn other_paths_and_other_listeners_have_none() {
    let world = World::new().await;
    let (gateway, _) = start(&world);
    for path in ["/-/health/", "/-/healthz", "/healthz", "/readyz", "/metrics"] {
        let request = Request::get(path).header("host", "localhost");
        let answer = gateway.send(request.body(Full::default()).unwrap()).await;
        assert_eq!(answer.status, 404, "{path}");
    }
}
