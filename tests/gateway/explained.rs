//! What log and caller learn about a failed request: who sent it, whether a run started, and who fixes what.

use std::time::Duration;

use serde_json::Value;

use crate::emulator::Answer as Flow;
use crate::emulator::{Door, Emulator, Gate, Reply, Steps, Trigger, TriggerHandle};
use crate::harness::{KEY, Running, TENANT, World, caller};
use crate::listening::{Talk, order_bytes};

async fn served(more: &str) -> (World, Running, TriggerHandle) {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), more));
    gateway.ready().await;
    (world, gateway, trigger)
}

#[tokio::test]
async fn a_known_key_that_is_refused_is_named_in_the_log() {
    let world = World::new().await;
    let trigger = world.emulator.flow.add(Trigger::any_user(TENANT));
    let elsewhere = caller("shop", KEY).replace(
        "name = \"shop\"\n",
        "name = \"shop\"\nnetworks = [\"192.0.2.0/24\"]\n",
    );
    let expired = format!("{}expires = \"2020-01-01\"\n", caller("shop", KEY));
    let cases = [
        (elsewhere, "callers = [\"shop\"]", "address-refused"),
        (expired, "callers = [\"shop\"]", "key-expired"),
        (
            format!(
                "{}{}",
                caller("shop", KEY),
                caller("other", "canary-other-key-0123456789")
            ),
            "callers = [\"other\"]",
            "caller-not-allowed",
        ),
    ];
    for (callers, listed, code) in cases {
        let base = world.base().replace(&caller("shop", KEY), &callers);
        let route = world.route("orders", "/orders", &trigger.url(), listed);
        let gateway = world.start(&format!("{base}{route}"));
        let answer = gateway.post("/orders", "{}").await;
        assert_eq!(answer.code(), code, "{}", answer.text());
        let line = gateway.lines.of(&answer).await;
        assert_eq!(
            (&line["caller"], &line["key"]),
            (&"shop".into(), &"shop-1".into()),
            "{line}"
        );
        assert!(!answer.text().contains("shop"), "{}", answer.text());
    }
    assert_eq!(trigger.runs(), 0);
}

/// The values in answer and log line about whether a run started.
async fn run_started(gateway: &Running, path: &str) -> (Value, Value) {
    let answer = gateway.post(path, "{}").await;
    let line = gateway.lines.of(&answer).await;
    let body = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
    (body["run_started"].clone(), line["run_started"].clone())
}

#[tokio::test]
async fn answer_and_log_say_whether_a_run_started() {
    let (world, gateway, trigger) = served("response_timeout = \"1s\"\n").await;
    let door = world.emulator.flow.listener();
    let both = |word: &str| (Value::from(word), Value::from(word));

    assert_eq!(run_started(&gateway, "/nowhere").await, both("no"));
    assert_eq!(
        run_started(&gateway, "/orders").await,
        (Value::Null, "yes".into()),
        "the flow's own answer has a run id"
    );
    trigger.next(Flow::Never);
    assert_eq!(
        run_started(&gateway, "/orders").await,
        both("unknown"),
        "no answer in time"
    );
    let throttled = serde_json::json!({"error": {"code": "WorkflowRunActionThrottled", "message": "x"}});
    trigger.next(Flow::Platform(Reply::json(429, &throttled)));
    assert_eq!(run_started(&gateway, "/orders").await, both("no"), "throttled");
    door.set_door(Door::Refuse).await;
    door.evict();
    door.open().settled_at(0).await;
    assert_eq!(
        run_started(&gateway, "/orders").await,
        both("no"),
        "nothing was sent"
    );
}

#[tokio::test]
async fn a_throttled_flow_may_be_called_again_whatever_the_platform_calls_it() {
    let (_world, gateway, trigger) = served("").await;
    let throttled = serde_json::json!({"error": {"code": "WorkflowRunActionThrottled", "message": "x"}});
    trigger.next(Flow::Platform(Reply::json(429, &throttled)));
    let answer = gateway.post("/orders", "{}").await;
    assert_eq!(
        (answer.code().as_str(), &answer.json()["retryable"]),
        ("flow-throttled", &true.into())
    );
}

#[tokio::test]
async fn own_time_does_not_count_the_wait_for_the_body_of_a_fault() {
    let (_world, gateway, trigger) = served("").await;
    let gate = Gate::closed();
    let steps = Steps::new()
        .send("HTTP/1.1 500 x\r\ncontent-length: 4\r\n\r\n")
        .pass(&gate)
        .send("oops");
    trigger.next(steps.into());
    let mut talk = Talk::new(gateway.tls_stream().await);
    talk.say(order_bytes("")).await;
    gate.arrived(1).await;
    talk.silence(Duration::from_secs(2)).await;
    gate.open();
    assert_eq!(talk.hear().await.status, 502);
    let metrics = gateway.admin("/metrics").await.1;
    let sum = metrics
        .lines()
        .find_map(|line| line.strip_prefix("flowgate_own_time_seconds_sum "))
        .unwrap();
    assert!(sum.parse::<f64>().unwrap() < 1.5, "{sum}");
}

#[tokio::test]
async fn a_refused_certificate_is_named_by_subject_and_issuer() {
    let (world, gateway, _trigger) = served("").await;
    let listener = world.emulator.flow.listener();
    let stranger = Emulator::start().await;
    for (leaf, issuer, end) in [
        (
            stranger.ca.leaf(&["localhost"]),
            "Emulator Root",
            "comes from an authority",
        ),
        (
            stranger.ca.intermediate().leaf(&["localhost"]),
            "Emulator Intermediate",
            "leads to `CN=Emulator Root",
        ),
    ] {
        listener.present(&leaf);
        listener.evict();
        let answer = gateway.post("/orders", "{}").await;
        assert_eq!(answer.code(), "flow-unreachable");
        let line = gateway.lines.of(&answer).await;
        let cause = line["cause"].as_str().unwrap();
        assert!(
            cause.contains("the certificate of `CN=") && cause.contains(end),
            "{cause}"
        );
        assert!(cause.contains(&format!("issued by `CN={issuer}")), "{cause}");
        assert!(
            cause.contains("Fixed by: operator") && cause.contains("ca_file"),
            "{cause}"
        );
        assert!(!cause.contains("UnknownIssuer"), "{cause}");
    }
}
