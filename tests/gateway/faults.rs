//! What caller and operator learn when the flow, its platform or the connection to it fails, and that nothing
//! is sent twice.

use std::sync::Arc;

use http_body_util::Full;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::emulator::Answer as Flow;
use crate::emulator::faults::RunStarted;
use crate::emulator::{Door, Emulator, ErrorBody, KeepAlive, Reply, Trigger, TriggerHandle, faults};
use crate::harness::{CLIENT, KEY, Running, SECRET, TENANT, World, post};

/// A flow that accepts everybody in the tenant, and a gateway with one route to it; `more` adds keys to the
/// route.
async fn world(more: &str) -> (World, Running, TriggerHandle) {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::json(200, &json!({"ok": 1}))));
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), more));
    gateway.ready().await;
    (world, gateway, trigger)
}

/// The problem code that the caller gets for each fault. Any other fault fails the test.
fn wanted(code: &str, message: &str) -> &'static str {
    match code {
        "MisMatchingOAuthClaims" => "flow-refused-token",
        "DirectApiInvalidAuthorizationScheme" if message.contains("not valid") => "flow-refused-token",
        "DirectApiAuthorizationRequired"
        | "DirectApiRequestHasMoreThanOneAuthorization"
        | "DirectApiInvalidAuthorizationScheme"
        | "OAuthAccessPolicyNotFound"
        | "DirectApiInvalidAuthorizationSignature"
        | "AuthorizationFailed"
        | "MissingApiVersionParameter"
        | "TriggerRequestMethodNotValid"
        | "ClientScopeAuthorizationFailed" => "flow-misconfigured",
        "TriggerInputSchemaMismatch" => "body-refused-by-flow",
        "WorkflowTriggerIsNotEnabled" if message.contains("Deleted") => "flow-gone",
        "WorkflowTriggerIsNotEnabled" => "flow-off",
        "WorkflowNotFound" | "WorkflowTriggerNotFound" => "flow-gone",
        "NoResponse" => "flow-no-response",
        "GatewayTimeout" => "flow-timeout",
        _ => "flow-failed",
    }
}

#[tokio::test]
async fn every_fault_of_the_platform_is_translated() {
    let (_world, gateway, trigger) = world("").await;
    let mut causes: Vec<String> = Vec::new();
    for fault in faults::PLATFORM_FAULTS {
        trigger.next(Flow::Fault(*fault));
        if fault.code == "DirectApiInvalidAuthorizationScheme" {
            // A refused token is retried once; only the second refusal is the answer.
            trigger.next(Flow::Fault(*fault));
        }
        let answer = gateway.post("/orders", "{}").await;
        let line = gateway.lines.of(&answer).await;
        let cause = line["cause"].as_str().unwrap().to_owned();
        assert_eq!(
            answer.code(),
            wanted(fault.code, fault.message),
            "{}: {}",
            fault.code,
            fault.message
        );
        assert_eq!(
            answer.header("x-flowgate-answer"),
            Some("platform"),
            "{}",
            fault.code
        );
        assert!(
            ![401, 403].contains(&answer.status.as_u16()),
            "the caller is not to blame for {}",
            fault.code
        );
        let run_started = answer.json()["run_started"].clone();
        assert_eq!(line["run_started"], run_started, "{}", fault.code);
        match fault.run {
            RunStarted::Yes => {
                assert_eq!(answer.json()["retryable"], false, "{}", fault.code);
                assert_ne!(run_started, "no", "{}", fault.code);
            }
            RunStarted::No => assert_ne!(run_started, "yes", "{}", fault.code),
        }
        assert!(cause.contains(fault.code), "{cause}");
        assert!(cause.contains("Fixed by: "), "{cause}");
        causes.push(cause);
        trigger.does(Flow::json(200, &json!({"ok": 1})));
        while gateway.post("/orders", "{}").await.status != 200 {}
    }
    let shared = causes
        .iter()
        .find(|cause| cause.contains("Shared Access scheme"))
        .unwrap();
    let oauth = causes
        .iter()
        .find(|cause| cause.contains("OAuth authorization scheme"))
        .unwrap();
    let advice = |cause: &str| cause.split("It said").next().unwrap().to_owned();
    assert_ne!(
        advice(shared),
        advice(oauth),
        "the two wordings mean different things"
    );
}

#[tokio::test]
async fn an_answer_with_a_run_id_is_the_flows_own() {
    let (_world, gateway, trigger) = world("").await;
    let envelope = json!({"error": {"code": "MisMatchingOAuthClaims", "message": "the owner says so"}});
    for status in [400, 401, 403, 404, 409, 429, 500, 502, 503] {
        trigger.does(Flow::Respond(
            Reply::json(status, &envelope).header("x-own", "kept"),
        ));
        let answer = gateway.post("/orders", "{}").await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.json(), envelope);
        assert_eq!(answer.header("x-own"), Some("kept"));
        assert_eq!(answer.header("x-flowgate-answer"), Some("flow"));
    }
}

#[tokio::test]
async fn answers_without_a_code_are_judged_by_their_status() {
    let (_world, gateway, trigger) = world("").await;
    let cases = [
        (
            Flow::throttled(Some("7"), ErrorBody::Envelope),
            503,
            "flow-throttled",
            true,
        ),
        (
            Flow::throttled(None, ErrorBody::Html),
            503,
            "flow-throttled",
            true,
        ),
        (
            Flow::throttled(None, ErrorBody::Empty),
            503,
            "flow-throttled",
            true,
        ),
        (Flow::too_large(), 413, "body-too-large", false),
        (
            Flow::server_error(500, ErrorBody::Html),
            502,
            "flow-failed",
            false,
        ),
        (
            Flow::server_error(503, ErrorBody::Empty),
            502,
            "flow-failed",
            false,
        ),
        (Flow::timeout(ErrorBody::Html), 504, "flow-timeout", false),
    ];
    for (fault, status, code, retryable) in cases {
        trigger.next(fault);
        let answer = gateway.post("/orders", "{}").await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code));
        assert_eq!(answer.json()["retryable"], retryable, "{code}");
        if code == "flow-throttled" && answer.header("retry-after").is_some() {
            assert_eq!(answer.header("retry-after"), Some("7"));
        }
    }
}

/// Calls once with a token of these claims, and returns the cause from the log.
async fn mismatch(overrides: Value, scope: Option<&str>) -> String {
    let world = World::new().await;
    world.emulator.entra.allow_audience("https://graph.microsoft.com");
    world.emulator.entra.claims(overrides);
    let trigger = world
        .emulator
        .flow
        .add(Trigger::specific_users(TENANT, &["somebody-else"]));
    let mut settings = world.base();
    if let Some(scope) = scope {
        settings = settings.replace(
            "timeout = \"3s\"\n",
            &format!("timeout = \"3s\"\nscope = \"{scope}\"\n"),
        );
    }
    let gateway = world.start(&format!(
        "{settings}{}",
        world.route("orders", "/orders", &trigger.url(), "")
    ));
    let answer = gateway.post("/orders", "{}").await;
    assert_eq!(answer.code(), "flow-refused-token", "{}", answer.text());
    assert_eq!(
        trigger.requests().len(),
        1,
        "a token whose claims do not match is not tried twice"
    );
    assert!(
        !answer.text().contains("aud"),
        "the claims are the operator's business: {}",
        answer.text()
    );
    gateway.lines.of(&answer).await["cause"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn the_claim_that_cannot_match_is_named() {
    let slash = mismatch(json!({"aud": "https://service.flow.microsoft.com"}), None).await;
    assert!(slash.contains("slash"), "{slash}");
    let graph = mismatch(json!({}), Some("https://graph.microsoft.com/.default")).await;
    assert!(graph.contains("Microsoft Graph"), "{graph}");
    let cloud = mismatch(json!({"aud": "https://gov.service.flow.microsoft.us/"}), None).await;
    assert!(
        cloud.to_lowercase().contains("gcc") || cloud.contains("cloud"),
        "{cloud}"
    );
    let other = "22222222-2222-4333-8444-555555555555";
    let tenant = mismatch(json!({"tid": other}), None).await;
    assert!(tenant.contains(other) && tenant.contains(TENANT), "{tenant}");
    let listed = mismatch(json!({}), None).await;
    assert!(listed.contains(crate::harness::OID), "{listed}");
}

#[tokio::test]
async fn a_flow_that_never_answers_is_given_up() {
    let (_world, gateway, trigger) = world("response_timeout = \"300ms\"").await;
    trigger.does(Flow::Never);
    let answer = gateway.post("/orders", "{}").await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (504, "flow-timeout")
    );
    assert_eq!(answer.json()["retryable"], false);
    assert_eq!(trigger.requests().len(), 1);
}

#[tokio::test]
async fn a_trigger_that_cannot_be_reached_was_sent_nothing() {
    for (door, code) in [
        (Door::Refuse, "flow-unreachable"),
        (Door::Slam, "flow-unreachable"),
        (Door::Silent, "flow-connect-timeout"),
    ] {
        let (world, gateway, trigger) = world("connect_timeout = \"400ms\"").await;
        world.emulator.flow.listener().set_door(door).await;
        let answer = gateway.post("/orders", "{}").await;
        assert_eq!(answer.code(), code);
        assert_eq!(answer.json()["retryable"], true);
        assert_eq!(trigger.requests().len(), 0);
    }
}

#[tokio::test]
async fn a_trigger_with_the_wrong_certificate_gets_nothing() {
    let (world, gateway, trigger) = world("").await;
    for leaf in [
        world.emulator.ca.wrong_name_leaf(),
        world.emulator.ca.expired_leaf(&["localhost"]),
        Emulator::start().await.ca.leaf(&["localhost"]),
    ] {
        world.emulator.flow.listener().present(&leaf);
        let answer = gateway.post("/orders", "{}").await;
        assert_eq!(answer.code(), "flow-unreachable");
        let cause = gateway.lines.of(&answer).await["cause"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(cause.contains("certificate"), "{cause}");
    }
    assert_eq!(trigger.requests().len(), 0);
}

#[tokio::test]
async fn a_request_is_not_sent_twice_when_its_connection_is_lost() {
    let (_world, gateway, trigger) = world("").await;
    assert_eq!(gateway.post("/orders", "{}").await.status, 200);
    trigger.next(Flow::Cut);
    let answer = gateway.post("/orders", "{}").await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (502, "flow-connection-lost")
    );
    assert_eq!(answer.json()["retryable"], false);
    assert_eq!(trigger.requests().len(), 2);
}

#[tokio::test]
async fn garbage_is_not_an_answer() {
    let (_world, gateway, trigger) = world("").await;
    trigger.change(|settings| *settings = settings.clone().unchecked());
    for garbage in [
        &b"garbage\r\n\r\n"[..],
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ] {
        trigger.next(Flow::raw(garbage.to_vec()));
        let answer = gateway.post("/orders", "{}").await;
        assert_eq!(
            answer.code(),
            "flow-answer-invalid",
            "{}",
            String::from_utf8_lossy(garbage)
        );
        assert_eq!(answer.json()["retryable"], false);
    }
}

#[tokio::test]
async fn a_connection_closed_while_idle_costs_no_request() {
    let (world, gateway, trigger) = world("").await;
    for way in [
        KeepAlive::CloseAnnounced,
        KeepAlive::CloseSilently,
        KeepAlive::Yes,
    ] {
        world.emulator.flow.listener().keep_alive(way);
        for _ in 0..5 {
            assert_eq!(gateway.post("/orders", "{}").await.status, 200);
        }
        world.emulator.flow.listener().evict();
        world.emulator.flow.listener().open().settled_at(0).await;
    }
    assert_eq!(trigger.requests().len(), 15);
    assert_eq!(trigger.runs(), 15);
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let (_world, gateway, trigger) =
        world("in_flight_max = 1\nwaiting_max = 1\nwaiting_timeout = \"10s\"").await;
    let gateway = Arc::new(gateway);
    let gate = trigger.hold();
    let call = || {
        let gateway = gateway.clone();
        tokio::spawn(async move { gateway.post("/orders", "{}").await })
    };
    let first = call();
    gate.arrived(1).await;
    // One of these waits, and the other finds the queue full; which one is not determined.
    let (mut second, mut third) = (call(), call());
    let (full, waiting) = tokio::select! {
        answer = &mut second => (answer.unwrap(), third),
        answer = &mut third => (answer.unwrap(), second),
    };
    assert_eq!((full.status.as_u16(), full.code().as_str()), (503, "flow-busy"));
    assert!(full.header("retry-after").is_some());
    gate.open();
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(waiting.await.unwrap().status, 200);
    assert_eq!(trigger.runs(), 2);
}

#[tokio::test]
async fn a_wait_is_bounded() {
    let (_world, gateway, trigger) = world("in_flight_max = 1\nwaiting_timeout = \"200ms\"").await;
    let gateway = Arc::new(gateway);
    let gate = trigger.hold();
    let first = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.post("/orders", "{}").await }
    });
    gate.arrived(1).await;
    assert_eq!(gateway.post("/orders", "{}").await.code(), "flow-busy");
    gate.open();
    assert_eq!(first.await.unwrap().status, 200);
}

#[tokio::test]
async fn an_answer_is_awaited_and_logged_although_the_caller_has_gone() {
    let (_world, gateway, trigger) = world("").await;
    let gate = trigger.hold();
    let mut sender = gateway.connect_h2().await;
    let request = http::Request::post("https://localhost/orders").header("x-api-key", KEY);
    let pending = sender.send_request(request.body(Full::from("{}")).unwrap());
    let pending = tokio::spawn(pending);
    gate.arrived(1).await;
    pending.abort();
    drop(pending.await);
    // Another exchange on the connection: its answer shows that the gateway has noticed that the first caller
    // is gone.
    let nowhere = http::Request::get("https://localhost/nowhere");
    let answer = sender.send_request(nowhere.body(Full::default()).unwrap()).await;
    assert_eq!(answer.unwrap().status(), 404);
    drop(sender);
    gate.open();
    let line = gateway.lines.wait_for(|line| line["end"] == "caller-gone").await;
    assert_eq!(line["run"].as_str(), trigger.last_request().run.as_deref());
    assert_eq!(line["status"], 200);
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_caller_that_leaves_in_the_middle_of_its_body_starts_no_run() {
    let (world, gateway, trigger) = world("").await;
    for length in [100, 200_000] {
        let mut caller = gateway.tls_stream().await;
        let head = format!(
            "POST /orders HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: {length}\r\n\r\nhalf"
        );
        caller.write_all(head.as_bytes()).await.unwrap();
        if length > 100_000 {
            world.emulator.flow.heads().reached(1).await;
        }
        drop(caller);
        gateway
            .lines
            .wait_for(|line| line["problem"] == "malformed-request" || line["end"] == "caller-gone")
            .await;
    }
    world.emulator.flow.broken_bodies().reached(1).await;
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_and_the_same_bytes_go_again() {
    let (world, gateway, trigger) = world("").await;
    let before = world.emulator.entra.token_requests().get();
    world.emulator.revoke_issued_tokens();
    let body = format!("{{\"order\":\"{}\"}}", "x".repeat(5000));

    let answer = gateway.post("/orders", &body).await;

    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = trigger.requests();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].body, seen[1].body);
    assert_ne!(seen[0].bearer(), seen[1].bearer());
    assert_eq!(trigger.runs(), 1);
    assert_eq!(world.emulator.entra.token_requests().get(), before + 1);
    let line = gateway.lines.of(&answer).await;
    assert!(
        line["cause"].as_str().unwrap().contains("refused the token"),
        "{line}"
    );

    // Within the minute a second refusal is final, and no further token is requested.
    world.emulator.revoke_issued_tokens();
    let answer = gateway.post("/orders", &body).await;
    assert_eq!(answer.code(), "flow-refused-token");
    assert_eq!(world.emulator.entra.token_requests().get(), before + 1);
    assert_eq!(trigger.requests().len(), 3);
}

#[tokio::test]
async fn a_streamed_body_is_not_sent_again() {
    let (world, gateway, trigger) = world("").await;
    world.emulator.revoke_issued_tokens();
    let answer = gateway.post("/orders", &"x".repeat(100_000)).await;
    assert_eq!(answer.code(), "flow-refused-token");
    assert_eq!(trigger.requests().len(), 1);
}

#[tokio::test]
async fn many_refusals_of_one_token_cause_one_fetch() {
    let (world, gateway, trigger) = world("").await;
    let gateway = Arc::new(gateway);
    let before = world.emulator.entra.token_requests().get();
    for _ in 0..20 {
        trigger.next(Flow::Fault(faults::TOKEN_INVALID));
    }
    // All twenty are refused with the same token before the first of them can fetch another.
    let gate = trigger.hold();
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let gateway = gateway.clone();
            tokio::spawn(async move { gateway.post("/orders", "{}").await })
        })
        .collect();
    gate.arrived(20).await;
    gate.open();
    for call in calls {
        assert_eq!(call.await.unwrap().status, 200);
    }
    assert_eq!(world.emulator.entra.token_requests().get(), before + 1);
    assert_eq!(trigger.runs(), 20);
}

#[tokio::test]
async fn each_trigger_gets_the_token_of_its_own_identity() {
    let other_tenant = "33333333-2222-4333-8444-555555555555";
    let mut world = World::new().await;
    world.emulator.register_app(
        other_tenant,
        "bbbbbbbb-bbbb-4ccc-8ddd-eeeeeeeeeeee",
        SECRET,
        "other-oid",
    );
    let mine = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let theirs = world
        .emulator
        .flow
        .add(Trigger::any_user(other_tenant).does(Flow::Accepted));
    let signed = world.emulator.flow.add(Trigger::anyone().does(Flow::Accepted));
    world.secrets.push(("SIGNED".into(), signed.url()));
    let routes = [
        world.identity(
            "fabrikam",
            other_tenant,
            "bbbbbbbb-bbbb-4ccc-8ddd-eeeeeeeeeeee",
            "env:CONTOSO_SECRET",
        ),
        world.route("mine", "/mine", &mine.url(), ""),
        world.route("theirs", "/theirs", &theirs.url(), "identity = \"fabrikam\""),
        world.route("signed", "/signed", "env:SIGNED", "signed = true"),
    ]
    .concat();
    let gateway = world.start_with(&routes);
    for path in ["/mine", "/theirs", "/signed"] {
        assert_eq!(gateway.post(path, "{}").await.status, 202, "{path}");
    }
    let tenant = |trigger: &TriggerHandle| {
        let token = trigger.last_request().bearer().map(str::to_owned)?;
        let claims = crate::emulator::jwt::unverified_claims(&token)?;
        claims["tid"].as_str().map(str::to_owned)
    };
    assert_eq!(tenant(&mine).as_deref(), Some(TENANT));
    assert_eq!(tenant(&theirs).as_deref(), Some(other_tenant));
    assert_eq!(tenant(&signed), None);
    assert_eq!(world.emulator.entra.token_requests_of(CLIENT), 1);
    let request = post("/mine").body(Full::from("{}")).unwrap();
    assert_eq!(gateway.send(request).await.status, 401);
}

#[tokio::test]
async fn an_answer_that_breaks_off_while_it_is_judged_is_no_answer() {
    let (_world, gateway, trigger) = world("").await;
    trigger.change(|settings| *settings = settings.clone().unchecked());
    let raw = b"HTTP/1.1 422 Unprocessable\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    trigger.next(Flow::raw(raw.to_vec()));
    let answer = gateway.post("/orders", "{}").await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (502, "flow-connection-lost")
    );
    assert_eq!(answer.json()["retryable"], false);
}

#[tokio::test]
async fn a_token_that_expires_in_the_queue_is_replaced() {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    world.emulator.entra.lifetime(std::time::Duration::from_secs(4));
    let route = world.route(
        "orders",
        "/orders",
        &trigger.url(),
        "in_flight_max = 1\nwaiting_timeout = \"10s\"",
    );
    let gateway = Arc::new(world.start_with(&route));
    gateway.ready().await;
    let gate = trigger.hold();
    let call = || {
        let gateway = gateway.clone();
        tokio::spawn(async move { gateway.post("/orders", "{}").await })
    };
    let first = call();
    gate.arrived(1).await;
    let second = call();
    // Both the first token and its successor have been replaced when the second call is sent.
    world.emulator.entra.token_requests().reached(3).await;
    gate.open();
    assert_eq!(first.await.unwrap().status, 202);
    assert_eq!(second.await.unwrap().status, 202);
    assert_ne!(trigger.requests()[0].bearer(), trigger.requests()[1].bearer());
}
