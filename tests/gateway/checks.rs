//! Checks: a caller asks whether its request would start a flow, learns what each step says, and nothing starts.

use aws_lc_rs::hmac;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::emulator::Answer as Flow;
use crate::emulator::{Trigger, TriggerHandle};
use crate::harness::{Answer, CLIENT, KEY, Running, TENANT, World, post, send_h2};

const CHECK: &str = "x-flowgate-check";
const SECRET: &str = "canary-signing-secret";

/// All steps, in their order.
const STEPS: [&str; 10] = [
    "credentials",
    "enabled",
    "limits",
    "body-length",
    "target",
    "body",
    "body-rules",
    "delivery-id",
    "token",
    "permit",
];

fn accepting(world: &World) -> TriggerHandle {
    let trigger = Trigger::any_user(TENANT).does(Flow::Accepted);
    world.emulator.flow.add(trigger)
}

/// A gateway with one route that answers checks; `more` ends the route.
async fn stage(more: &str) -> (World, Running, TriggerHandle) {
    let world = World::new().await;
    let trigger = accepting(&world);
    let more = format!("checks = true\n{more}");
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), &more));
    (world, gateway, trigger)
}

fn asking(body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = post("/orders").header("x-api-key", KEY).header(CHECK, "true");
    request.body(Full::from(body.into())).unwrap()
}

/// What a step came to: `passed`, `skipped`, or the code of the problem.
fn found(answer: &Answer, step: &str) -> String {
    let report = answer.json();
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == step).unwrap();
    match check["result"].as_str().unwrap() {
        "failed" => check["problem"]["code"].as_str().unwrap().to_owned(),
        other => {
            assert_eq!(check.get("problem"), None, "{step}");
            other.to_owned()
        }
    }
}

/// The steps that did not pass, with what they came to.
fn unpassed(answer: &Answer) -> Vec<(&'static str, String)> {
    let all = STEPS.iter().map(|step| (*step, found(answer, step)));
    all.filter(|(_, found)| found != "passed").collect()
}

#[track_caller]
fn assert_check(answer: &Answer, result: &str, expected: &[(&str, &str)]) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header(CHECK), Some(result), "{}", answer.text());
    assert_eq!(answer.header("x-flowgate-answer"), Some("gateway"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let report = answer.json();
    assert_eq!(report["check"], result);
    assert!(report["note"].as_str().unwrap().contains("nothing was started"));
    let names = report["checks"].as_array().unwrap().iter();
    let names: Vec<_> = names.map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(names, STEPS);
    let unpassed = unpassed(answer);
    let unpassed: Vec<_> = unpassed
        .iter()
        .map(|(step, found)| (*step, found.as_str()))
        .collect();
    assert_eq!(unpassed, expected, "{}", answer.text());
}

#[tokio::test]
async fn a_check_tests_every_step_and_starts_and_claims_nothing() {
    let lines = "json_depth_max = 4\n[route.duplicates]\nby = \"header:x-delivery\"\n";
    let (world, gateway, trigger) = stage(lines).await;
    gateway.ready().await;
    let request = |check: bool| {
        let mut request = post("/orders").header("x-api-key", KEY).header("x-delivery", "1");
        if check {
            request = request.header(CHECK, "true");
        }
        request.body(Full::from("{}")).unwrap()
    };
    let answer = gateway.send(request(true)).await;
    assert_check(&answer, "passed", &[]);
    assert_eq!(trigger.requests().len(), 0);
    let line = gateway.lines.of(&answer).await;
    for (field, value) in [
        ("check", json!("passed")),
        ("route", json!("orders")),
        ("caller", json!("shop")),
        ("status", json!(200)),
        ("answer", json!("gateway")),
        ("run_started", json!("no")),
        ("end", json!("complete")),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
    let metrics = gateway.admin("/metrics").await.1;
    for figure in [
        "flowgate_checks_total 1",
        "flowgate_remembered_deliveries 0",
        "flowgate_upstream_opened_total 0",
    ] {
        assert!(metrics.lines().any(|line| line == figure), "{figure}:\n{metrics}");
    }
    let status: Value = serde_json::from_str(&gateway.admin("/status").await.1).unwrap();
    assert_eq!(status["routes"], json!([]), "it is no call that was answered");
    let real = gateway.send(request(false)).await;
    assert_eq!((real.status.as_u16(), real.header(CHECK)), (202, None));
    assert_eq!(gateway.lines.of(&real).await.get("check"), None);
    assert_eq!(trigger.runs(), 1, "the check had not claimed the delivery");
    world.emulator.assert_clean();
}

#[tokio::test]
async fn a_check_goes_on_after_a_problem_and_reports_all_of_them() {
    let mut world = World::new().await;
    world.secrets.push(("BROKEN".into(), "canary-wrong".into()));
    let trigger = accepting(&world);
    let route = world.route(
        "orders",
        "/orders",
        &trigger.url(),
        "checks = true\nenabled = false\njson_depth_max = 4\nidentity = \"broken\"\ncontact = \"Ask Anna\"\n\
         [route.duplicates]\nby = \"header:x-delivery\"\n",
    );
    let broken = world.identity("broken", TENANT, CLIENT, "env:BROKEN");
    let gateway = world.start_with(&format!("{broken}{route}"));
    let answer = gateway.send(asking("no JSON")).await;
    assert_check(
        &answer,
        "failed",
        &[
            ("enabled", "route-disabled"),
            ("body-rules", "body-invalid"),
            ("delivery-id", "delivery-id-missing"),
            ("token", "token-refused"),
        ],
    );
    let report = answer.json();
    let problem = |index: usize| report["checks"][index]["problem"].clone();
    // The same document that the request would have got.
    assert_eq!(problem(1)["status"], 503);
    assert_eq!(problem(1)["retry_after"], 60);
    assert_eq!(problem(1)["contact"], "Ask Anna");
    assert_eq!(
        problem(1)["instance"],
        format!("urn:uuid:{}", answer.header("x-request-id").unwrap())
    );
    assert!(problem(6)["detail"].as_str().unwrap().contains("JSON"));
    // What happened inside is in the log alone.
    assert!(!answer.text().contains("AADSTS"), "{}", answer.text());
    let line = gateway.lines.of(&answer).await;
    assert_eq!(line["check"], "failed");
    let cause = line["cause"].as_str().unwrap();
    for part in ["enabled: route-disabled", "token: token-refused", "AADSTS7000215"] {
        assert!(cause.contains(part), "{part}: {cause}");
    }
    assert_eq!(trigger.requests().len(), 0);
}

#[tokio::test]
async fn a_check_without_valid_credentials_is_refused_as_any_request() {
    let (_world, gateway, trigger) = stage("").await;
    let send = async |key: Option<&str>, check: bool| {
        let mut request = post("/orders");
        if let Some(key) = key {
            request = request.header("x-api-key", key);
        }
        if check {
            request = request.header(CHECK, "true");
        }
        gateway.send(request.body(Full::from("{}")).unwrap()).await
    };
    for key in [None, Some("canary-wrong-key"), Some("")] {
        let (plain, check) = (send(key, false).await, send(key, true).await);
        assert_eq!(check.status, 401);
        let without_id = |answer: &Answer| {
            let mut body = answer.json();
            body.as_object_mut().unwrap().remove("instance");
            let mut headers = answer.headers.clone();
            headers.remove("x-request-id");
            headers.remove("date");
            (body, headers)
        };
        assert_eq!(without_id(&check), without_id(&plain));
        assert_eq!(gateway.lines.of(&check).await.get("check"), None);
    }
    // It counts as a failed authentication: wrong keys are limited also with this field.
    let limited = async {
        loop {
            let answer = send(Some("canary-wrong-key"), true).await;
            if answer.status == 429 {
                return answer;
            }
        }
    };
    assert_eq!(gateway.lines.of(&limited.await).await["limit"], "address");
    assert_eq!(trigger.requests().len(), 0);
}

#[tokio::test]
async fn a_route_without_the_setting_starts_nothing_for_who_asks_for_a_check() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    for value in ["true", "false", "", "\u{fc}"] {
        let request = post("/orders").header("x-api-key", KEY).header(CHECK, value);
        let answer = gateway.send(request.body(Full::from("{}")).unwrap()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (403, "checks-off")
        );
        let cause = gateway.lines.of(&answer).await["cause"].clone();
        assert!(
            cause
                .as_str()
                .unwrap()
                .contains("`checks = true` of route orders")
        );
    }
    let request = post("/orders")
        .header("x-api-key", "canary-wrong")
        .header(CHECK, "true");
    let answer = gateway.send(request.body(Full::from("{}")).unwrap()).await;
    assert_eq!(answer.code(), "key-unknown", "strangers learn nothing of it");
    assert_eq!(trigger.requests().len(), 0);
}

#[tokio::test]
async fn only_one_true_is_a_check_and_nothing_else_starts_a_flow() {
    let (_world, gateway, trigger) = stage("").await;
    for (name, values) in [
        (CHECK, &["false"][..]),
        (CHECK, &["True"]),
        (CHECK, &["1"]),
        (CHECK, &[""]),
        (CHECK, &["true, true"]),
        (CHECK, &["true", "true"]),
        (CHECK, &["true", "false"]),
        ("x_flowgate_check", &["true"]),
    ] {
        let mut request = post("/orders").header("x-api-key", KEY);
        for value in values {
            request = request.header(name, *value);
        }
        let answer = gateway.send(request.body(Full::from("{}")).unwrap()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (400, "malformed-request"),
            "{name} {values:?}"
        );
    }
    assert_eq!(trigger.requests().len(), 0);
}

#[tokio::test]
async fn of_ten_thousand_checks_one_a_second_is_answered_and_no_other_limit_is_spent() {
    let (_world, gateway, trigger) = stage("rate = { requests = 1, per = \"1h\" }\n").await;
    let began = Instant::now();
    let mut senders = Vec::new();
    for _ in 0..10 {
        let mut sender = gateway.connect_h2().await;
        senders.push(tokio::spawn(async move {
            let mut answered = 0;
            for _ in 0..1_000 {
                let request = Request::post("https://localhost/orders")
                    .header("x-api-key", KEY)
                    .header(CHECK, "true");
                let answer = send_h2(&mut sender, request.body(Full::from("{}")).unwrap()).await;
                match answer.status.as_u16() {
                    200 => answered += 1,
                    429 => {
                        // Two, where another worker's clock was read a moment before that of the answered one.
                        let wait = answer.header("retry-after").unwrap();
                        assert!(["1", "2"].contains(&wait), "{wait}");
                        assert_eq!(answer.header("ratelimit-policy"), Some("\"check\";q=1;w=1"));
                        assert_eq!(answer.header(CHECK), None);
                    }
                    other => panic!("{other}: {}", answer.text()),
                }
            }
            answered
        }));
    }
    let mut answered = 0;
    for sender in senders {
        answered += sender.await.unwrap();
    }
    let seconds = began.elapsed().as_secs() + 1;
    assert!((1..=seconds).contains(&answered), "{answered} in {seconds} s");
    assert_eq!(trigger.requests().len(), 0);
    let line = gateway.lines.wait_for(|line| line["limit"] == "check").await;
    assert_eq!(line["cause"], "the limit of check orders is spent");
    // The one request that the route has in an hour is still there.
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    assert_eq!(gateway.post("/orders", "{}").await.status, 429);
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_spent_limit_and_a_busy_flow_are_reported() {
    let lines = "rate = { requests = 1, per = \"1h\" }\nin_flight_max = 1\nwaiting_max = 0\n";
    let (_world, gateway, trigger) = stage(lines).await;
    let gate = trigger.hold();
    let (first, answer) = tokio::join!(gateway.post("/orders", "{}"), async {
        gate.arrived(1).await;
        let answer = gateway.send(asking("{}")).await;
        gate.open();
        answer
    });
    assert_eq!(first.status, 202);
    assert_check(
        &answer,
        "failed",
        &[("limits", "rate-limited"), ("permit", "flow-busy")],
    );
    let wait = answer.json()["checks"][2]["problem"]["retry_after"].as_u64();
    assert!(wait.is_some_and(|wait| (3500..=3600).contains(&wait)), "{wait:?}");
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_reported_unread() {
    let (_world, gateway, trigger) = stage("body_size_max = 16\n[route.duplicates]\nby = \"body\"\n").await;
    let answer = gateway.send(asking(vec![b'x'; 17])).await;
    let expected = [
        ("body-length", "body-too-large"),
        ("body", "skipped"),
        ("body-rules", "skipped"),
        ("delivery-id", "skipped"),
    ];
    assert_check(&answer, "failed", &expected);
    assert_eq!(trigger.requests().len(), 0);
}

#[tokio::test]
async fn a_streamed_body_is_not_read_to_its_end() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let route = world.route(
        "orders",
        "/orders",
        &trigger.url(),
        "checks = true\nbody_size_max = \"8 MiB\"\n",
    );
    let settings = format!("{}[bodies]\nhold_size_max = \"64 KiB\"\n{route}", world.base());
    let gateway = world.start(&settings);
    let answer = gateway.send(asking(vec![b'x'; 4 << 20])).await;
    assert_check(&answer, "passed", &[]);
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(trigger.requests().len(), 0);
}

#[tokio::test]
async fn a_token_that_does_not_fit_is_reported() {
    let lines = format!("object_ids = [\"{CLIENT}\"]\non_claim_mismatch = \"refuse\"\n");
    let (_world, gateway, trigger) = stage(&lines).await;
    let answer = gateway.send(asking("{}")).await;
    assert_check(&answer, "failed", &[("token", "token-unfit")]);
    assert!(!answer.text().contains(CLIENT), "{}", answer.text());
    assert_eq!(trigger.requests().len(), 0);
}

#[tokio::test]
async fn a_target_that_cannot_be_built_is_reported() {
    let (_world, gateway, trigger) = stage("query = [\"*\"]\n").await;
    // With what the trigger's own address has it is too long.
    let path = format!("/orders?a={}", "x".repeat(16_350));
    let plain = gateway.post(&path, "{}").await;
    assert_eq!(plain.code(), "target-too-long", "{}", plain.text());
    let request = post(&path).header("x-api-key", KEY).header(CHECK, "true");
    let answer = gateway.send(request.body(Full::from("{}")).unwrap()).await;
    assert_check(&answer, "failed", &[("target", "target-too-long")]);
    assert_eq!(trigger.requests().len(), 0);
}

#[tokio::test]
async fn a_signed_check_is_answered_once_its_signature_is_right() {
    let world = World::new().await;
    world.file("secret", SECRET);
    let trigger = accepting(&world);
    let github =
        "[[caller]]\nname = \"github\"\n[caller.signature]\npreset = \"github\"\nsecret = \"file:secret\"\n";
    let lines = "callers = [\"github\"]\nchecks = true\n[route.duplicates]\nby = \"delivery\"\n";
    let route = world.route("hooks", "/hooks", &trigger.url(), lines);
    let gateway = world.start_with(&format!("{github}{route}"));
    let send = async |secret: &str, check: bool| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&key, b"{}");
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let mut request = post("/hooks")
            .header("x-hub-signature-256", format!("sha256={hex}"))
            .header("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958");
        if check {
            request = request.header(CHECK, "true");
        }
        gateway.send(request.body(Full::from("{}")).unwrap()).await
    };
    let wrong = send("canary-other", true).await;
    assert_eq!(
        (wrong.status.as_u16(), wrong.code().as_str()),
        (401, "signature-invalid")
    );
    assert_check(&send(SECRET, true).await, "passed", &[]);
    assert_eq!(trigger.requests().len(), 0);
    assert_eq!(send(SECRET, false).await.status, 202);
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_page_may_read_the_answer_to_its_check() {
    let (_world, gateway, _trigger) = stage("cors_origins = [\"https://app.example.com\"]\n").await;
    let mut request = asking("{}");
    let origin = "https://app.example.com";
    request.headers_mut().insert("origin", origin.parse().unwrap());
    let answer = gateway.send(request).await;
    assert_check(&answer, "passed", &[]);
    assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
}
