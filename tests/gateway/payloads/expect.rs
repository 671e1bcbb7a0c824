//! `Expect: 100-continue` is answered by the gateway, and only callers whose body is wanted get a `100
//! Continue`.

use crate::emulator::TokenAnswer;
use crate::harness::KEY;
use crate::listening::{order_bytes, served};
use crate::payloads::head;

const EXPECT: &str = "Expect: 100-continue";

#[tokio::test]
async fn a_caller_that_expects_100_continue_gets_it() {
    let (_world, gateway, trigger) = served("").await;
    let mut talk = gateway.talk().await;
    for _ in 0..2 {
        talk.say(head(&format!("Content-Length: 2\r\n{EXPECT}"))).await;
        assert_eq!(talk.hear().await.status, 100);
        talk.say("{}").await;
        assert_eq!(talk.hear().await.status, 202);
        let seen = trigger.last_request();
        assert_eq!((seen.header("expect"), seen.text().as_str()), (None, "{}"));
    }
}

#[tokio::test]
async fn a_caller_with_a_large_body_gets_100_continue_too() {
    let (_world, gateway, trigger) = served("").await;
    let mut talk = gateway.talk().await;
    talk.say(head(&format!("Content-Length: 100000\r\n{EXPECT}")))
        .await;
    assert_eq!(talk.hear().await.status, 100);
    talk.say("x".repeat(100_000)).await;
    assert_eq!(talk.hear().await.status, 202);
    let seen = trigger.last_request();
    assert_eq!((seen.header("expect"), seen.body_bytes), (None, 100_000));
}

#[tokio::test]
async fn a_refused_caller_gets_no_100_continue() {
    let (world, gateway, _) = served("").await;
    let length = |bytes: usize| head(&format!("Content-Length: {bytes}\r\n{EXPECT}"));
    for (request, status) in [
        (length(2).replace(KEY, "guess"), 401),
        (length(2).replace("/orders", "/nowhere"), 404),
        (length(2_000_000), 413),
        (
            head(&format!("Transfer-Encoding: chunked\r\n{EXPECT}")).replace(KEY, "guess"),
            401,
        ),
    ] {
        let mut talk = gateway.talk().await;
        talk.say(request).await;
        let answer = talk.hear().await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("connection")),
            (status, Some("close"))
        );
        assert_eq!(talk.rest().await, "", "{status}");
    }
    assert_eq!(world.emulator.flow.heads().get(), 0);
}

#[tokio::test]
async fn a_caller_that_cannot_be_served_gets_no_100_continue_for_a_large_body() {
    let (world, gateway, _) = served("").await;
    gateway.ready().await;
    let entra = &world.emulator.entra;
    entra.always(TokenAnswer::aadsts(7_000_215));
    world
        .emulator
        .flow
        .listener()
        .set_door(crate::emulator::Door::Refuse)
        .await;
    let mut talk = gateway.talk().await;
    talk.say(head(&format!("Content-Length: 100000\r\n{EXPECT}")))
        .await;
    let answer = talk.hear().await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (502, "flow-unreachable")
    );
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(talk.rest().await, "");
}

#[tokio::test]
async fn other_expectations_are_refused() {
    let (world, gateway, _) = served("").await;
    for expectation in ["200-ok", "100-continue, 100-continue", "100-continue;q=1", ""] {
        let mut talk = gateway.talk().await;
        talk.say(order_bytes(&format!("Expect: {expectation}\r\n"))).await;
        let answer = talk.hear().await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (417, "expectation-failed"),
            "{expectation:?}"
        );
    }
    assert_eq!(world.emulator.flow.heads().get(), 0);
}

#[tokio::test]
async fn two_expectations_are_refused_as_well() {
    let (world, gateway, _) = served("").await;
    let mut talk = gateway.talk().await;
    talk.say(order_bytes("Expect: 100-continue\r\nExpect: 200-ok\r\n"))
        .await;
    let answer = talk.hear().await;
    assert_eq!(answer.status, 417, "{}", answer.text());
    assert_eq!(world.emulator.flow.heads().get(), 0);
}
