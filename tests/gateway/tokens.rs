//! Tokens: one request to Entra for all who wait, renewed ahead of time, never sent after their expiry, and
//! every failure of Entra has a name.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::emulator::Answer as Flow;
use crate::emulator::{Emulator, TokenAnswer, Trigger, TriggerHandle};
use crate::harness::{CLIENT, KEY, PATIENCE, Running, SECRET, TENANT, World, send_h2};

fn accepting(world: &World) -> TriggerHandle {
    world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted))
}

/// Calls until the answer has this status.
async fn until(gateway: &Running, path: &str, status: u16) {
    let calls = async { while gateway.post(path, "{}").await.status.as_u16() != status {} };
    tokio::time::timeout(PATIENCE, calls)
        .await
        .expect("the route does not recover");
}

#[tokio::test]
async fn a_thousand_cold_calls_cause_one_token_request() {
    let world = World::new().await;
    let trigger = accepting(&world);
    world.emulator.flow.stop_recording();
    let gate = world.emulator.entra.hold();
    let fast = "{ requests = 100000, per = \"1s\", burst = 100000 }";
    // Each call makes a connection of its own to the trigger, and the token request is held until all have been sent. On
    // a busy machine a thousand handshakes take longer than the usual timeouts, which are not what is tested.
    let patient = format!("\"{}s\"", PATIENCE.as_secs());
    let settings = format!(
        "[limits]\ngateway = {fast}\n{}{}",
        world
            .base()
            .replace("timeout = \"3s\"", &format!("timeout = {patient}"))
            .replace("[[caller.key]]", &format!("rate = {fast}\n[[caller.key]]")),
        world.route(
            "orders",
            "/orders",
            &trigger.url(),
            &format!("rate = {fast}\nin_flight_max = 2000\nconnect_timeout = {patient}")
        )
    );
    let gateway = Arc::new(world.start(&settings));
    let mut calls = Vec::new();
    for _ in 0..20 {
        let sender = gateway.connect_h2().await;
        for _ in 0..50 {
            let mut sender = sender.clone();
            calls.push(tokio::spawn(async move {
                let request = Request::post("https://localhost/orders").header("x-api-key", KEY);
                send_h2(&mut sender, request.body(Full::from("{}")).unwrap())
                    .await
                    .status
                    .as_u16()
            }));
        }
    }
    gate.arrived(1).await;
    gate.open();
    for call in calls {
        let status = call.await.unwrap();
        let lines = || {
            gateway
                .lines
                .all()
                .into_iter()
                .find(|line| line.contains("\"problem\""))
        };
        assert_eq!(status, 202, "{:?}", lines());
    }
    assert_eq!(world.emulator.entra.token_requests().get(), 1);
    assert_eq!(trigger.runs(), 1000);
}

#[tokio::test]
async fn the_request_is_what_entra_documents() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    let request = world.emulator.entra.requests()[0].clone();
    assert_eq!(request.tenant(), TENANT);
    assert_eq!(request.field("grant_type"), Some("client_credentials"));
    assert_eq!(request.field("client_id"), Some(CLIENT));
    assert_eq!(request.field("client_secret"), Some(SECRET));
    let raw = String::from_utf8_lossy(request.raw.as_ref()).into_owned();
    assert!(
        raw.contains("scope=https%3A%2F%2Fservice.flow.microsoft.com%2F%2F.default"),
        "{}",
        raw.len()
    );
}

#[tokio::test]
async fn each_cloud_asks_for_its_own_scope() {
    for (cloud, audience) in [
        ("gcc", "https://gov.service.flow.microsoft.us/"),
        ("gcc-high", "https://high.service.flow.microsoft.us/"),
        ("dod", "https://service.flow.appsplatform.us/"),
        ("china", "https://service.powerautomate.cn/"),
    ] {
        let world = World::new().await;
        world.emulator.entra.allow_audience(audience);
        let trigger = world
            .emulator
            .flow
            .add(Trigger::any_user(TENANT).audience(audience).does(Flow::Accepted));
        let base = world
            .base()
            .replace("[[identity]]", &format!("[[identity]]\ncloud = \"{cloud}\""));
        let gateway = world.start(&format!(
            "{base}{}",
            world.route("orders", "/orders", &trigger.url(), "")
        ));
        assert_eq!(gateway.post("/orders", "{}").await.status, 202, "{cloud}");
        let scope = format!("{audience}/.default");
        assert_eq!(
            world.emulator.entra.requests()[0].field("scope"),
            Some(scope.as_str())
        );
    }
}

#[tokio::test]
async fn a_slow_identity_does_not_delay_another() {
    let world = World::new().await;
    let slow = "cccccccc-bbbb-4ccc-8ddd-eeeeeeeeeeee";
    world.emulator.register_app(TENANT, slow, SECRET, "slow-oid");
    world.emulator.entra.always_for(slow, TokenAnswer::Hang);
    let trigger = accepting(&world);
    let routes = [
        world.identity("slow", TENANT, slow, "env:CONTOSO_SECRET"),
        world.route("slow", "/slow", &trigger.url(), "identity = \"slow\""),
        world.route("quick", "/quick", &trigger.url(), ""),
    ]
    .concat();
    let gateway = Arc::new(world.start_with(&routes));
    let waiting = tokio::spawn({
        let gateway = gateway.clone();
        async move { gateway.post("/slow", "{}").await }
    });
    for _ in 0..5 {
        assert_eq!(gateway.post("/quick", "{}").await.status, 202);
    }
    assert!(
        !waiting.is_finished(),
        "the slow identity has a deadline of seconds"
    );
    let answer = waiting.await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (503, "token-unavailable")
    );
    let cause = gateway.lines.of(&answer).await["cause"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(cause.contains("did not answer within"), "{cause}");
}

#[tokio::test]
async fn a_wrong_secret_is_named_and_not_retried_repeatedly() {
    let mut world = World::new().await;
    world.secrets = vec![("CONTOSO_SECRET".into(), "wrong".into())];
    let trigger = accepting(&world);
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    for _ in 0..20 {
        let answer = gateway.post("/orders", "{}").await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (502, "token-refused")
        );
        assert_eq!(answer.json()["reason"], "not-your-fault");
        assert!(answer.header("retry-after").is_some());
        let cause = gateway.lines.of(&answer).await["cause"]
            .as_str()
            .unwrap()
            .to_owned();
        for part in ["contoso", TENANT, CLIENT, "AADSTS7000215", "operator"] {
            assert!(cause.contains(part), "{part}: {cause}");
        }
        for part in [TENANT, CLIENT, "AADSTS"] {
            assert!(!answer.text().contains(part), "{}", answer.text());
        }
    }
    assert_eq!(world.emulator.entra.token_requests().get(), 1);
    assert_eq!(trigger.requests().len(), 0, "no token, no forward");
}

#[tokio::test]
async fn throttling_is_honoured() {
    let world = World::new().await;
    world.emulator.entra.always(TokenAnswer::throttle(60));
    let trigger = accepting(&world);
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    for _ in 0..5 {
        let answer = gateway.post("/orders", "{}").await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (503, "token-unavailable")
        );
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((50..=60).contains(&wait), "{wait}");
    }
    assert_eq!(world.emulator.entra.token_requests().get(), 1);
}

#[tokio::test]
async fn every_useless_answer_has_a_name_and_nothing_is_forwarded() {
    let cases = [
        (TokenAnswer::Empty, "empty body"),
        (TokenAnswer::Html, "web page"),
        (TokenAnswer::NotJson, "other than JSON"),
        (TokenAnswer::MissingAccessToken, "access_token"),
        (TokenAnswer::Oversized(1024 * 1024), "larger than"),
        (TokenAnswer::Cut, "broke off"),
        (
            TokenAnswer::Redirect("https://elsewhere.example/".into()),
            "redirect",
        ),
        (TokenAnswer::Hang, "did not answer within"),
        (TokenAnswer::ServerError(503), "503"),
    ];
    for (fault, part) in cases {
        let world = World::new().await;
        world.emulator.entra.always(fault);
        let trigger = accepting(&world);
        let base = world.base().replace("timeout = \"3s\"", "timeout = \"700ms\"");
        let gateway = world.start(&format!(
            "{base}{}",
            world.route("orders", "/orders", &trigger.url(), "")
        ));
        let answer = gateway.post("/orders", "{}").await;
        assert!(
            [502, 503].contains(&answer.status.as_u16()),
            "{part}: {}",
            answer.status
        );
        let cause = gateway.lines.of(&answer).await["cause"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(cause.contains(part), "{part}: {cause}");
        assert_eq!(trigger.requests().len(), 0, "{part}");
    }
}

#[tokio::test]
async fn an_authority_that_is_not_trusted_is_named() {
    let world = World::new().await;
    let stranger = Emulator::start().await;
    world
        .emulator
        .entra
        .listener()
        .present(&stranger.ca.leaf(&["localhost"]));
    let trigger = accepting(&world);
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    let answer = gateway.post("/orders", "{}").await;
    assert_eq!(answer.code(), "token-unavailable");
    let cause = gateway.lines.of(&answer).await["cause"]
        .as_str()
        .unwrap()
        .to_owned();
    let named = "issued by `CN=Emulator Root";
    assert!(
        cause.contains(named) && cause.contains("is not trusted"),
        "{cause}"
    );
}

#[tokio::test]
async fn a_route_recovers_by_itself_and_readiness_says_why_not_yet() {
    let world = World::new().await;
    world.emulator.entra.next(TokenAnswer::ServerError(500));
    world.emulator.entra.next(TokenAnswer::Html);
    let trigger = accepting(&world);
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    let reported = async {
        loop {
            let (status, body) = gateway.admin("/readyz?verbose").await;
            let body: Value = serde_json::from_str(&body).unwrap();
            let identity = &body["identities"][0];
            if status == 503 && identity["why"].is_string() {
                assert_eq!(identity["name"], "contoso");
                assert_eq!(identity["ready"], false);
                assert_eq!(body["routes_not_ready"][0]["name"], "orders");
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, reported)
        .await
        .expect("readiness never says why");
    gateway.ready().await;
    assert_eq!(world.emulator.entra.token_requests().get(), 3);
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
}

#[tokio::test]
async fn readiness_can_ask_for_every_route() {
    for (requires, status) in [("any-route", 200), ("all-routes", 503)] {
        let mut world = World::new().await;
        let signed = world.emulator.flow.add(Trigger::anyone().does(Flow::Accepted));
        world.secrets.push(("SIGNED".into(), signed.url()));
        world.emulator.entra.always(TokenAnswer::aadsts(7_000_222));
        let trigger = accepting(&world);
        let routes = [
            world.route("orders", "/orders", &trigger.url(), ""),
            world.route("signed", "/signed", "env:SIGNED", "signed = true"),
        ]
        .concat();
        let ready = format!("[admin]\nready_requires = \"{requires}\"");
        let gateway = world.start(&format!("{}{routes}", world.base().replace("[admin]", &ready)));
        // The first call waits for Entra's answer, so that readiness has something to report.
        assert_eq!(gateway.post("/orders", "{}").await.code(), "token-refused");
        assert_eq!(gateway.admin("/readyz").await.0, status, "{requires}");
    }
}

#[tokio::test]
async fn a_short_token_is_renewed_before_anybody_waits() {
    let world = World::new().await;
    world.emulator.entra.lifetime(Duration::from_secs(4));
    let trigger = accepting(&world);
    let fast = "{ requests = 100000, per = \"1s\", burst = 100000 }";
    let settings = format!(
        "[limits]\ngateway = {fast}\n{}{}",
        world
            .base()
            .replace("[[caller.key]]", &format!("rate = {fast}\n[[caller.key]]")),
        world.route("orders", "/orders", &trigger.url(), &format!("rate = {fast}"))
    );
    let gateway = world.start(&settings);
    gateway.ready().await;
    let mut connection = gateway.connect().await;
    let renewed = async {
        while world.emulator.entra.token_requests().get() < 3 {
            let request = crate::harness::post("/orders")
                .header("x-api-key", KEY)
                .body(Full::from("{}"))
                .unwrap();
            assert_eq!(connection.send(request).await.status, 202);
        }
    };
    tokio::time::timeout(PATIENCE, renewed)
        .await
        .expect("the token is not renewed");
}

#[tokio::test]
async fn an_expired_token_is_not_sent() {
    let world = World::new().await;
    world.emulator.entra.next(TokenAnswer::ExpiresIn(2));
    world.emulator.entra.always(TokenAnswer::ServerError(503));
    let trigger = accepting(&world);
    let fast = "{ requests = 1000000, per = \"1s\", burst = 1000000 }";
    let settings = format!(
        "[limits]\ngateway = {fast}\n{}{}",
        world
            .base()
            .replace("[[caller.key]]", &format!("rate = {fast}\n[[caller.key]]")),
        world.route("orders", "/orders", &trigger.url(), &format!("rate = {fast}"))
    );
    let gateway = world.start(&settings);
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    until(&gateway, "/orders", 503).await;
    let forwarded = trigger.requests().len();
    assert_eq!(gateway.post("/orders", "{}").await.code(), "token-unavailable");
    assert_eq!(trigger.requests().len(), forwarded);
    assert_eq!(gateway.admin("/readyz").await.0, 503);
}

/// A gateway whose identity reads its tokens from a file.
fn from_file(world: &World, trigger: &TriggerHandle, more: &str) -> Running {
    let identity =
        format!("[[identity]]\nname = \"file\"\ntenant = \"{TENANT}\"\ntoken_file = \"token\"\n{more}\n");
    let route = world.route("orders", "/orders", &trigger.url(), "identity = \"file\"");
    world.start_with(&format!("{identity}{route}"))
}

#[tokio::test]
async fn a_token_file_is_used_and_read_again_when_it_changes() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let audience = "https://service.flow.microsoft.com/";
    let token = |oid: &str| {
        world
            .emulator
            .entra
            .token_for(TENANT, CLIENT, audience, &json!({"oid": oid}))
    };
    let (one, two) = (token("one"), token("two"));
    world.file("token", &format!("{one}\n"));
    let gateway = from_file(&world, &trigger, "");
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    assert_eq!(trigger.last_request().bearer(), Some(one.as_str()));
    world.file("token.new", &two);
    std::fs::rename(world.dir().join("token.new"), world.dir().join("token")).unwrap();
    let changed = async {
        while trigger.last_request().bearer() != Some(two.as_str()) {
            assert_eq!(gateway.post("/orders", "{}").await.status.as_u16() / 100, 2);
            // The file is read every two seconds; the route's own rate is far above what this loop needs.
            tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>())
                .await
                .unwrap_err();
        }
    };
    tokio::time::timeout(PATIENCE, changed)
        .await
        .expect("the new token is not used");
}

#[tokio::test]
async fn an_unusable_token_file_is_named() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let audience = "https://service.flow.microsoft.com/";
    let expired = world
        .emulator
        .entra
        .token_for(TENANT, CLIENT, audience, &json!({"exp": 1_000_000}));
    for (text, part) in [
        (expired.as_str(), "has expired"),
        ("two words\nand a line", "other than one token"),
        ("", "other than one token"),
    ] {
        world.file("token", text);
        let gateway = from_file(&world, &trigger, "");
        let answer = gateway.post("/orders", "{}").await;
        assert_eq!(answer.code(), "token-refused");
        let cause = gateway.lines.of(&answer).await["cause"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(cause.contains(part), "{part}: {cause}");
        assert!(!cause.contains("words"), "{cause}");
    }
    std::fs::remove_file(world.dir().join("token")).unwrap();
    let gateway = from_file(&world, &trigger, "");
    let answer = gateway.post("/orders", "{}").await;
    let cause = gateway.lines.of(&answer).await["cause"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(cause.contains("cannot be read"), "{cause}");
    assert_eq!(trigger.requests().len(), 0);
}

#[tokio::test]
async fn an_opaque_token_from_a_file_serves() {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).unchecked().does(Flow::Accepted));
    world.file("token", "opaque-token-of-another-program");
    let gateway = from_file(&world, &trigger, "token_life = \"2m\"");
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    assert_eq!(
        trigger.last_request().bearer(),
        Some("opaque-token-of-another-program")
    );
    let (_, body) = gateway.admin("/readyz?verbose").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    let identities = body["identities"].as_array().unwrap();
    let file = identities
        .iter()
        .find(|identity| identity["name"] == "file")
        .unwrap();
    let left = file["expires_in_seconds"].as_u64().unwrap();
    assert!((110..=120).contains(&left), "{left}");
}

#[tokio::test]
async fn a_caller_that_leaves_while_its_token_is_fetched_starts_no_run() {
    use tokio::io::AsyncWriteExt;

    let world = World::new().await;
    let trigger = accepting(&world);
    let gate = world.emulator.entra.hold();
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    let request = format!(
        "POST /orders HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    let mut caller = gateway.tls_stream().await;
    caller.write_all(request.as_bytes()).await.unwrap();
    gate.arrived(1).await;
    // Closing with unread data resets the connection, and the kernel would drop a request that was not read
    // yet.
    let held = async {
        while !gateway
            .admin("/metrics")
            .await
            .1
            .contains("flowgate_held_body_bytes 2")
        {}
    };
    tokio::time::timeout(PATIENCE, held)
        .await
        .expect("the request is not read");
    drop(caller);
    let line = gateway.lines.wait_for(|line| line["end"] == "caller-gone").await;
    assert_eq!(line["status"], Value::Null);
    gate.open();
    gateway.ready().await;
    assert_eq!(trigger.requests().len(), 0);
}

#[tokio::test]
async fn a_caller_that_closes_only_its_own_side_gets_its_answer() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let world = World::new().await;
    let trigger = accepting(&world);
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    gateway.ready().await;
    let gate = trigger.hold();
    let request = format!(
        "POST /orders HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    let mut caller = gateway.tls_stream().await;
    caller.write_all(request.as_bytes()).await.unwrap();
    caller.shutdown().await.unwrap();
    gate.arrived(1).await;
    // Longer than a request may wait in the queue after its caller has closed its side.
    let quiet = tokio::time::timeout(Duration::from_millis(1200), std::future::pending::<()>()).await;
    assert!(quiet.is_err());
    gate.open();
    let mut answer = String::new();
    caller.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    assert_eq!(
        gateway.lines.wait_for(|line| line["status"] == 202).await["end"],
        "complete"
    );
}
