//! Senders that give up at a known time: they get a problem before that, and the flow's answer is awaited without them.

use std::time::Duration;

use aws_lc_rs::hmac;
use http::Request;
use http_body_util::Full;
use serde_json::json;
use tokio::time::Instant;

use crate::emulator::{Answer as Flow, Gate, Reply, Trigger, TriggerHandle};
use crate::harness::{Answer, KEY, PATIENCE, Running, TENANT, World, post, send_h2};

/// Short, so that a test ends soon: answered after 300 ms.
const SHORT: &str = "[route.answer]\nwithin = \"400ms\"\n";
const BY_HEADER: &str = "[route.duplicates]\nby = \"header:x-delivery\"\n";

/// A gateway with one route with these lines, to a flow that is held until the gate opens.
async fn stage(more: &str) -> (World, Running, TriggerHandle, Gate) {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::json(201, &json!({"order": 7}))));
    let gate = trigger.hold();
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), more));
    gateway.ready().await;
    (world, gateway, trigger, gate)
}

fn counted(metrics: &str) -> Option<&str> {
    let name = "flowgate_answers_overdue_total{route=\"orders\"} ";
    metrics.lines().find_map(|line| line.strip_prefix(name))
}

fn check_overdue(answer: &Answer, detail: &str) {
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (504, "answer-overdue")
    );
    let body = answer.json();
    assert_eq!(
        (&body["retryable"], &body["run_started"]),
        (&json!(false), &json!("unknown"))
    );
    assert!(body["detail"].as_str().unwrap().starts_with(detail), "{body}");
    assert_eq!(answer.header("x-flowgate-answer"), Some("gateway"));
    assert_eq!(answer.header("retry-after"), None);
}

#[tokio::test]
async fn a_sender_that_gives_up_has_a_problem_before_that_and_the_run_is_logged() {
    let (_world, gateway, trigger, gate) = stage(SHORT).await;
    let mut h2 = gateway.connect_h2().await;
    let request = Request::post("https://localhost/orders").header("x-api-key", KEY);
    let mut kept = gateway.connect().await;
    let began = Instant::now();
    let answers = [
        kept.send(
            post("/orders")
                .header("x-api-key", KEY)
                .body(Full::from("{}"))
                .unwrap(),
        )
        .await,
        send_h2(&mut h2, request.body(Full::from("{}")).unwrap()).await,
    ];
    // Twice 300 ms; the flow has answered nothing.
    assert!(
        began.elapsed() >= Duration::from_millis(600),
        "{:?}",
        began.elapsed()
    );
    gate.arrived(2).await;
    for answer in &answers {
        check_overdue(
            answer,
            "senders of this route give up after 400ms. The flow has the request",
        );
    }
    let metrics = gateway.admin("/metrics").await.1;
    assert_eq!(counted(&metrics), Some("2"), "{metrics}");
    // The connection serves on while the flow still works.
    assert!(kept.is_open());
    gate.open();
    for answer in &answers {
        let line = gateway.lines.of(answer).await;
        assert_eq!(
            (
                &line["status"],
                &line["flow_status"],
                &line["answer"],
                &line["problem"]
            ),
            (
                &json!(504),
                &json!(201),
                &json!("gateway"),
                &json!("answer-overdue")
            )
        );
        assert_eq!(
            (&line["run_started"], &line["end"]),
            (&json!("yes"), &json!("complete"))
        );
        assert!(line["run"].is_string(), "{line}");
        assert_eq!(line["bytes_out"], answer.body.len());
    }
    assert_eq!(trigger.runs(), 2);
}

#[tokio::test]
async fn a_preset_knows_when_its_vendor_gives_up() {
    let world = World::new().await;
    let secret = "canary-signing-secret";
    world.file("secret", secret);
    let trigger = world.emulator.flow.add(Trigger::any_user(TENANT));
    let gate = trigger.hold();
    let caller =
        "[[caller]]\nname = \"slack\"\n[caller.signature]\npreset = \"slack\"\nsecret = \"file:secret\"\n";
    let routes = [("orders", ""), ("patient", "[route.answer]\nwithin = \"0s\"\n")].map(|(name, more)| {
        let more = format!("callers = [\"slack\", \"shop\"]\n{more}");
        world.route(name, &format!("/{name}"), &trigger.url(), &more)
    });
    let gateway = world.start(&format!("{}{caller}{}", world.base(), routes.concat()));
    gateway.ready().await;
    let signed = |path: &str| {
        let now = flowgate::model::clock::wall();
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let signature = hmac::sign(&key, format!("v0:{now}:{{}}").as_bytes());
        let hex: String = signature
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        post(path)
            .header("x-slack-request-timestamp", now)
            .header("x-slack-signature", format!("v0={hex}"))
            .body(Full::from("{}"))
            .unwrap()
    };
    let keyed = post("/orders")
        .header("x-api-key", KEY)
        .body(Full::from("{}"))
        .unwrap();
    let (mut keyed_by, mut patient_by) = (gateway.connect().await, gateway.connect().await);
    let patient = signed("/patient");
    let keyed = tokio::spawn(async move { keyed_by.send(keyed).await });
    let patient = tokio::spawn(async move { patient_by.send(patient).await });
    let began = Instant::now();
    let answer = gateway.send(signed("/orders")).await;
    let took = began.elapsed();
    // Half a second before the three of Slack.
    let in_time = Duration::from_millis(2500)..Duration::from_millis(3000);
    assert!(in_time.contains(&took), "{took:?}");
    check_overdue(&answer, "slack gives up after 3s. The flow has the request");
    gate.arrived(3).await;
    // Others of the route, and a route that says so, wait on.
    assert!(!keyed.is_finished() && !patient.is_finished());
    gate.open();
    for waiting in [keyed, patient] {
        assert_eq!(waiting.await.unwrap().status, 202);
    }
    assert_eq!(trigger.runs(), 3);
}

#[tokio::test]
async fn what_did_not_reach_the_flow_in_time_may_be_sent_again() {
    let (_world, gateway, trigger, gate) = stage(&format!("in_flight_max = 1\n{SHORT}")).await;
    let first = gateway.post("/orders", "{}").await;
    check_overdue(&first, "senders");
    // The flow still has the only permit.
    let second = gateway.post("/orders", "{}").await;
    let body = second.json();
    assert_eq!(
        (second.status.as_u16(), &body["code"]),
        (504, &json!("answer-overdue"))
    );
    assert_eq!(
        (&body["retryable"], &body["run_started"]),
        (&json!(true), &json!("no"))
    );
    assert!(
        body["detail"].as_str().unwrap().contains("no run has started"),
        "{body}"
    );
    let line = gateway.lines.of(&second).await;
    assert_eq!(
        (&line["run_started"], &line["flow_status"]),
        (&json!("no"), &json!(null))
    );
    gate.open();
    gateway.lines.of(&first).await;
    assert_eq!((trigger.runs(), trigger.requests().len()), (1, 1));
    assert_eq!(gateway.post("/orders", "{}").await.status, 201);
}

#[tokio::test]
async fn a_repeated_delivery_gets_the_answer_that_came_too_late() {
    let (_world, gateway, trigger, gate) = stage(&format!("{SHORT}{BY_HEADER}")).await;
    let deliver = || {
        let request = post("/orders").header("x-api-key", KEY).header("x-delivery", "1");
        gateway.send(request.body(Full::from("{}")).unwrap())
    };
    let first = deliver().await;
    check_overdue(&first, "senders");
    // It waits for the first one no longer than its sender does.
    let early = deliver().await;
    assert_eq!(
        (early.status.as_u16(), early.code().as_str()),
        (409, "delivery-in-flight")
    );
    gate.open();
    gateway.lines.of(&first).await;
    let again = deliver().await;
    assert_eq!((again.status.as_u16(), again.json()), (201, json!({"order": 7})));
    assert_eq!(
        again.header("x-flowgate-duplicate-of"),
        first.header("x-request-id")
    );
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn what_the_flow_fails_at_later_is_in_the_line() {
    let (_world, gateway, trigger, gate) = stage(SHORT).await;
    for (does, run, cause) in [
        (Flow::no_response(), "yes", "Afterwards: flow-no-response: "),
        (Flow::Cut, "unknown", "Afterwards: flow-connection-lost: "),
    ] {
        trigger.next(does);
        let answer = gateway.post("/orders", "{}").await;
        check_overdue(&answer, "senders");
        gate.release(1);
        let line = gateway.lines.of(&answer).await;
        assert_eq!(
            (&line["status"], &line["problem"]),
            (&json!(504), &json!("answer-overdue"))
        );
        assert_eq!(line["run_started"], run);
        assert!(line["cause"].as_str().unwrap().contains(cause), "{line}");
    }
}

#[tokio::test]
async fn an_answer_in_time_is_the_flows_and_pages_can_read_a_late_one() {
    let lines = format!("cors_origins = [\"https://app.example\"]\n{SHORT}");
    let (_world, gateway, trigger, gate) = stage(&lines).await;
    let request = post("/orders")
        .header("x-api-key", KEY)
        .header("origin", "https://app.example");
    let late = gateway.send(request.body(Full::from("{}")).unwrap()).await;
    check_overdue(&late, "senders");
    let allowed = late.header("access-control-allow-origin");
    assert_eq!(allowed, Some("https://app.example"));
    gate.open();
    trigger.does(Flow::Respond(Reply::new(200)));
    assert_eq!(gateway.post("/orders", "{}").await.status, 200);
    let metrics = gateway.admin("/metrics").await.1;
    assert_eq!(counted(&metrics), Some("1"), "{metrics}");
}

#[tokio::test]
async fn a_stop_waits_for_a_flow_whose_sender_was_answered() {
    let (_world, gateway, trigger, gate) = stage(SHORT).await;
    let answer = gateway.post("/orders", "{}").await;
    check_overdue(&answer, "senders");
    gate.arrived(1).await;
    let lines = gateway.lines.clone();
    let stopping = tokio::spawn(gateway.server.stop(std::future::pending()));
    gate.open();
    let line = lines.of(&answer).await;
    assert_eq!(
        (&line["flow_status"], &line["end"]),
        (&json!(201), &json!("complete"))
    );
    tokio::time::timeout(PATIENCE, stopping).await.unwrap().unwrap();
    assert_eq!(trigger.runs(), 1);
}
