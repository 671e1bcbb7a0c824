//! Answers that belong to another request, detected by the tracking id that the platform echoes.

use serde_json::json;

use crate::emulator::Answer as Flow;
use crate::emulator::{Reply, Trigger, TriggerHandle};
use crate::harness::{Answer, Running, TENANT, World};

const TRACKING_ID: &str = "x-ms-client-tracking-id";
/// An id in the form of ours.
const OTHER: &str = "01912d68-783e-7a03-8467-5661c1243ad4";

async fn gateway() -> (World, Running, TriggerHandle) {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    // One worker, so that all requests share one pool.
    let one = world.base().replace("workers = 2", "workers = 1");
    let route = world.route("orders", "/orders", &trigger.url(), "");
    let gateway = world.start(&format!("{one}{route}"));
    gateway.ready().await;
    (world, gateway, trigger)
}

/// An answer with a run, a body of its own and this tracking id.
fn tracked(id: &str) -> Flow {
    let reply = Reply::json(200, &json!({"canary": "of-another"}));
    Flow::Respond(reply.header(TRACKING_ID, id))
}

async fn ask(gateway: &Running) -> Answer {
    gateway.post("/orders", "{}").await
}

#[tokio::test]
async fn an_answer_to_another_request_reaches_nobody_and_its_connection_serves_no_more() {
    let (_world, gateway, trigger) = gateway().await;
    let first = ask(&gateway).await;
    assert_eq!(first.status, 202);
    let earlier = first.header("x-request-id").unwrap();
    let pooled = trigger.last_request().connection;
    trigger.next(tracked(earlier));
    let answer = ask(&gateway).await;
    assert_eq!(answer.code(), "flow-answer-invalid", "{}", answer.text());
    assert_eq!(answer.status, 502);
    assert!(!answer.text().contains("canary"), "{}", answer.text());
    let line = gateway.lines.of(&answer).await;
    let cause = line["cause"].as_str().unwrap();
    assert!(
        cause.contains(earlier) && cause.contains("another request"),
        "{cause}"
    );
    assert_eq!(trigger.last_request().connection, pooled);
    assert_eq!(ask(&gateway).await.status, 202);
    assert_ne!(trigger.last_request().connection, pooled);
}

#[tokio::test]
async fn tracking_ids_that_the_owner_of_a_flow_sets_are_ignored() {
    let (_world, gateway, trigger) = gateway().await;
    // A flow that never echoes may send ids of any form.
    trigger.next(tracked(OTHER));
    assert_eq!(ask(&gateway).await.status, 200);
    assert_eq!(ask(&gateway).await.status, 202);
    for own in [
        "order-7",
        "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
        "08584290143402151988728929011CU00",
        "",
    ] {
        trigger.next(tracked(own));
        let answer = ask(&gateway).await;
        assert_eq!(answer.status, 200, "{own:?}: {}", answer.text());
    }
    trigger.next(tracked(OTHER));
    assert_eq!(ask(&gateway).await.status, 502, "now it has echoed one of ours");
}
