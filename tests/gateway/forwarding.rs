//! What reaches the flow, and what is returned.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::json;

use crate::emulator::Answer as Flow;
use crate::emulator::{Family, Reply, Trigger};
use crate::harness::{KEY, TENANT, World, post, send_h2};

#[tokio::test]
async fn a_plain_call_with_a_key_starts_a_run() {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::json(200, &json!({"ok": true}))));
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));

    let answer = gateway.post("/orders", r#"{"order":1}"#).await;

    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json(), json!({"ok": true}));
    assert_eq!(answer.header("x-flowgate-answer"), Some("flow"));
    assert_eq!(trigger.runs(), 1);
    assert_eq!(trigger.last_request().text(), r#"{"order":1}"#);
    let line = gateway.lines.of(&answer).await;
    assert_eq!(line["route"], "orders");
    assert_eq!(line["caller"], "shop");
    assert_eq!(line["key"], "shop-1");
    assert_eq!(line["status"], 200);
    assert_eq!(line["end"], "complete");
    assert_eq!(line["bytes_in"], 11);
    assert_eq!(line["run"].as_str(), trigger.last_request().run.as_deref());
    world.emulator.assert_clean();
}

#[tokio::test]
async fn http2_serves_the_same() {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::EchoHead));
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    let mut sender = gateway.connect_h2().await;
    for _ in 0..3 {
        let request = Request::post("https://localhost/orders").header("x-api-key", KEY);
        let answer = send_h2(&mut sender, request.body(Full::from("{}")).unwrap()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(gateway.lines.of(&answer).await["protocol"], "h2");
    }
    assert_eq!(trigger.runs(), 3);
}

#[tokio::test]
async fn the_flow_gets_what_the_vendor_sent_and_who_it_was() {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    let request = post("/orders")
        .header("authorization", format!("Bearer {KEY}"))
        .header("x-api-key", KEY)
        .header("x-github-event", "push")
        .header("x-ms-dynamics-entity-name", "account")
        .header("x-ms-client-tracking-id", "forged")
        .header("x-flowgate-caller", "forged")
        .header("x-forwarded-for", "10.1.1.1")
        .header("cookie", "session=canary")
        .header("accept-encoding", "gzip")
        .header("connection", "x-hop")
        .header("x-hop", "1");

    let answer = gateway.send(request.body(Full::from("{}")).unwrap()).await;

    assert_eq!(answer.status, 202, "{}", answer.text());
    let seen = trigger.last_request();
    assert_eq!(seen.header("x-github-event"), Some("push"));
    assert_eq!(seen.header("x-ms-dynamics-entity-name"), Some("account"));
    assert_eq!(seen.header("x-flowgate-caller"), Some("shop"));
    assert_eq!(seen.header("x-flowgate-key-id"), Some("shop-1"));
    assert_eq!(seen.header("x-flowgate-origin"), Some("127.0.0.1"));
    assert_eq!(
        seen.header("x-flowgate-request-id"),
        answer.header("x-request-id")
    );
    assert_eq!(
        seen.header("x-ms-client-tracking-id"),
        answer.header("x-request-id")
    );
    assert_eq!(seen.headers_named("authorization").len(), 1);
    assert!(seen.header("traceparent").is_some());
    for name in [
        "x-api-key",
        "cookie",
        "x-forwarded-for",
        "accept-encoding",
        "x-hop",
    ] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(
        seen.header("host"),
        Some(trigger.url().split('/').nth(2).unwrap())
    );
}

#[tokio::test]
async fn the_answer_comes_without_the_platform() {
    let world = World::new().await;
    let reply = Reply::json(201, &json!({"id": 7}))
        .header("x-order", "7")
        .header("location", "https://shop.example/7");
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Respond(reply)));
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));

    let answer = gateway.post("/orders", "{}").await;

    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("x-order"), Some("7"));
    assert_eq!(answer.header("location"), Some("https://shop.example/7"));
    for name in answer.headers.keys() {
        let platforms = name.as_str().starts_with("x-ms-")
            || ["server", "set-cookie", "strict-transport-security"].contains(&name.as_str());
        assert!(!platforms, "{name}");
    }
}

#[tokio::test]
async fn an_asynchronous_answer_hides_the_address_of_the_flow() {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Asynchronous {
            polls: 1,
            then: Reply::new(200),
        }));
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    let answer = gateway.post("/orders", "{}").await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("location"), None);
}

#[tokio::test]
async fn path_and_query_go_up_byte_for_byte() {
    let world = World::new().await;
    for family in [
        Family::LogicApps,
        Family::PowerPlatform { scale_unit: None },
        Family::PowerPlatform {
            scale_unit: Some("07".into()),
        },
        Family::Standard,
    ] {
        let trigger = world
            .emulator
            .flow
            .add(Trigger::any_user(TENANT).family(family).does(Flow::Accepted));
        let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
        assert_eq!(
            gateway
                .post("/orders?sig=stolen&api-version=9&x=1", "{}")
                .await
                .status,
            202
        );
        assert_eq!(trigger.last_request().head.target, trigger.target());
    }
}

#[tokio::test]
async fn a_signed_route_sends_the_signature_and_no_token() {
    let mut world = World::new().await;
    let trigger = world.emulator.flow.add(Trigger::anyone().does(Flow::Accepted));
    world.secrets.push(("TRIGGER".into(), trigger.url()));
    let gateway = world.start_with(&world.route("hook", "/hook", "env:TRIGGER", "signed = true"));
    let answer = gateway.post("/hook", "{}").await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(trigger.last_request().head.target, trigger.target());
    assert_eq!(trigger.last_request().header("authorization"), None);
}

#[tokio::test]
async fn the_rest_of_the_path_becomes_the_relative_path() {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let route = world.route("files", "/files/{*rest}", &trigger.url(), "relative_path = true");
    let gateway = world.start_with(&route);
    assert_eq!(gateway.post("/files/a/b%20c", "{}").await.status, 202);
    let (path, query) = trigger
        .target()
        .split_once('?')
        .map(|(p, q)| (p.to_owned(), q.to_owned()))
        .unwrap();
    assert_eq!(
        trigger.last_request().head.target,
        format!("{path}/a/b%20c?{query}")
    );
    for target in [
        "/files/..%2fx",
        "/files/a/../b",
        "/files/a//b",
        "/files/%2e%2e/x",
        "/files/a%3fsig=1%252f",
    ] {
        let answer = gateway.post(target, "{}").await;
        assert!(answer.status.is_client_error(), "{target}: {}", answer.status);
    }
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn query_parameters_pass_only_as_listed() {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let routes = [
        world.route("some", "/some", &trigger.url(), "query = [\"shop\", \"id\"]"),
        world.route("all", "/all", &trigger.url(), "query = [\"*\"]"),
    ]
    .concat();
    let gateway = world.start_with(&routes);
    assert_eq!(
        gateway
            .post("/some?id=%2F1&other=2&sig=x&shop=a+b", "{}")
            .await
            .status,
        202
    );
    assert_eq!(
        trigger.last_request().head.target,
        format!("{}&id=%2F1&shop=a+b", trigger.target())
    );
    assert_eq!(
        gateway.post("/all?a=1&SP=x&api%2Dversion=9&b", "{}").await.status,
        202
    );
    assert_eq!(
        trigger.last_request().head.target,
        format!("{}&a=1&b", trigger.target())
    );
}

#[tokio::test]
async fn connections_to_the_trigger_are_reused() {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::json(200, &json!({"ok": 1}))));
    let settings = format!(
        "{}{}",
        world.base(),
        world.route("orders", "/orders", &trigger.url(), "")
    );
    let gateway = world.start(&settings.replace("workers = 2", "workers = 1"));
    let mut connection = gateway.connect().await;
    for _ in 0..5 {
        let answer = connection
            .send(
                post("/orders")
                    .header("x-api-key", KEY)
                    .body(Full::from("{}"))
                    .unwrap(),
            )
            .await;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(world.emulator.flow.listener().connections().get(), 1);
    let metrics = gateway.admin("/metrics").await.1;
    assert!(metrics.contains("flowgate_upstream_reused_total 4"), "{metrics}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let world = World::new().await;
    let reply = Reply::new(302).header("location", "https://elsewhere.example/");
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Respond(reply)));
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    assert_eq!(gateway.post("/orders", "{}").await.status, 302);
    assert_eq!(world.emulator.flow.request_count().get(), 1);
}

#[tokio::test]
async fn a_large_answer_streams_back_whole() {
    let world = World::new().await;
    let stream = Flow::Stream {
        chunks: 64,
        chunk_bytes: 65_536,
        gate: None,
    };
    let trigger = world.emulator.flow.add(Trigger::any_user(TENANT).does(stream));
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    let answer = gateway.post("/orders", "{}").await;
    assert_eq!(answer.body.len(), 64 * 65_536);
    assert_eq!(gateway.lines.of(&answer).await["bytes_out"], 64 * 65_536);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_seen_to_break_off() {
    let world = World::new().await;
    let raw = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nx-ms-workflow-run-id: 08580000000000000000000000001CU00\r\n\r\nshort";
    let trigger = world.emulator.flow.add(
        Trigger::any_user(TENANT)
            .unchecked()
            .does(Flow::raw(raw.to_vec())),
    );
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    let text = gateway
        .raw(format!("POST /orders HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: 2\r\n\r\n{{}}").as_bytes())
        .await;
    assert!(text.to_lowercase().contains("content-length: 100"), "{text}");
    assert!(text.ends_with("short"), "{text}");
    let line = gateway.lines.wait_for(|line| line["end"] == "flow-cut").await;
    assert_eq!(line["status"], 200);
}

#[tokio::test]
async fn a_flow_that_is_called_with_get_works() {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).methods(&["GET"]).does(Flow::Accepted));
    let gateway = world.start_with(&world.route("poll", "/poll", &trigger.url(), "methods = [\"GET\"]"));
    let request = Request::get("/poll")
        .header("host", "localhost")
        .header("x-api-key", KEY);
    let answer = gateway
        .send(request.body(Full::<Bytes>::default()).unwrap())
        .await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let request = post("/poll")
        .header("x-api-key", KEY)
        .body(Full::from("{}"))
        .unwrap();
    let answer = gateway.send(request).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("allow")),
        (405, Some("GET"))
    );
}

#[tokio::test]
async fn a_pause_in_the_middle_of_an_answer_does_not_end_it() {
    use crate::emulator::Gate;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let world = World::new().await;
    let gate = Gate::closed();
    let stream = Flow::Stream {
        chunks: 2,
        chunk_bytes: 1000,
        gate: Some(gate.clone()),
    };
    let trigger = world.emulator.flow.add(Trigger::any_user(TENANT).does(stream));
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    let mut caller = gateway.tls_stream().await;
    let head = format!(
        "POST /orders HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
    );
    caller.write_all(head.as_bytes()).await.unwrap();
    gate.arrived(1).await;
    let mut answer = Vec::new();
    let mut space = [0u8; 4096];
    while answer.len() < 1000 {
        let count = caller.read(&mut space).await.unwrap();
        answer.extend_from_slice(&space[..count]);
    }
    // Longer than the time after which an idle connection is parked.
    let quiet = tokio::time::timeout(std::time::Duration::from_millis(1200), caller.read(&mut space)).await;
    assert!(quiet.is_err(), "nothing was released: {quiet:?}");
    gate.open();
    caller.read_to_end(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(
        text.ends_with("\r\n0\r\n\r\n"),
        "the answer must end as it should: {}",
        text.len()
    );
    assert_eq!(
        gateway.lines.wait_for(|line| line["end"] == "complete").await["bytes_out"],
        2000
    );
}

#[tokio::test]
async fn a_slow_reader_gets_the_whole_answer_before_the_connection_closes() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let world = World::new().await;
    let stream = Flow::Stream {
        chunks: 128,
        chunk_bytes: 65_536,
        gate: None,
    };
    let trigger = world.emulator.flow.add(Trigger::any_user(TENANT).does(stream));
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    let mut caller = gateway.tls_stream().await;
    let head = format!(
        "POST /orders HTTP/1.0\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    caller.write_all(head.as_bytes()).await.unwrap();
    // The trigger has been called, and the answer fills every buffer on the way, before a byte of it is read.
    trigger.run_count().reached(1).await;
    let mut answer = Vec::new();
    caller.read_to_end(&mut answer).await.unwrap();
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(answer.len() - body, 128 * 65_536);
}

#[tokio::test]
async fn a_connection_serves_again_after_an_idle_time() {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    let mut connection = gateway.connect().await;
    let request = || {
        post("/orders")
            .header("x-api-key", KEY)
            .body(Full::from("{}"))
            .unwrap()
    };
    for _ in 0..2 {
        assert_eq!(connection.send(request()).await.status, 202);
        let rested = tokio::time::timeout(
            std::time::Duration::from_millis(800),
            std::future::pending::<()>(),
        )
        .await;
        assert!(rested.is_err());
        assert!(connection.is_open());
    }
    assert_eq!(connection.send(request()).await.status, 202);
}

#[tokio::test]
async fn every_field_of_a_line_is_documented() {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), ""));
    gateway.post("/orders", "{}").await;
    gateway.post("/nowhere", "{}").await;
    gateway.post("/orders", &"x".repeat(2 * 1024 * 1024)).await;
    gateway
        .lines
        .wait_for(|line| line["problem"] == "body-too-large")
        .await;
    let page = include_str!("../../docs/running.md");
    for line in gateway.lines.all() {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        for field in line.as_object().unwrap().keys() {
            assert!(
                page.contains(&format!("`{field}`")),
                "docs/running.md does not explain the field {field}"
            );
        }
    }
}

#[tokio::test]
async fn a_caller_that_stops_reading_does_not_block_the_flow_forever() {
    use tokio::io::AsyncWriteExt;

    let world = World::new().await;
    let stream = Flow::Stream {
        chunks: 1024,
        chunk_bytes: 65_536,
        gate: None,
    };
    let trigger = world.emulator.flow.add(Trigger::any_user(TENANT).does(stream));
    let settings = format!(
        "[connections]\nwrite_timeout = \"1s\"\n{}{}",
        world.base(),
        world.route(
            "orders",
            "/orders",
            &trigger.url(),
            "in_flight_max = 1\nwaiting_timeout = \"15s\""
        )
    );
    let gateway = world.start(&settings);
    let mut reader = gateway.tls_stream().await;
    let head = format!(
        "POST /orders HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    reader.write_all(head.as_bytes()).await.unwrap();
    trigger.run_count().reached(1).await;
    trigger.does(Flow::Accepted);
    // The only permit is released although the first caller never reads another byte.
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    gateway
        .lines
        .wait_for(|line| line["reason"] == "write-stalled")
        .await;
    drop(reader);
}
