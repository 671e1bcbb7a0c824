//! What a route demands of bodies, and what it makes of them for the flow.

use http::request::Builder;
use http::{Request, header};
use http_body_util::Full;
use serde_json::json;

use crate::emulator::Answer as Flow;
use crate::emulator::{Framing, Trigger, TriggerHandle};
use crate::harness::{Answer, KEY, Running, TENANT, World, caller, post, send_h2};
use crate::payloads::{LAST_CHUNK, chunk, chunked};

const SCHEMA: &str = r#"{
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["id"],
    "properties": {
        "id": {"type": "integer"},
        "note": {"type": "string"},
        "lines": {"type": "array", "items": {"properties": {"sku": {"type": "string", "pattern": "^[A-Z]+$"}}}}
    }
}"#;

/// A gateway whose route `/orders` has these lines; `more` goes before the routes.
async fn served_with(lines: &str, more: &str) -> (World, Running, TriggerHandle) {
    let world = World::new().await;
    world.file("orders.json", SCHEMA);
    let trigger = Trigger::any_user(TENANT).methods(&["GET", "POST"]);
    let trigger = world.emulator.flow.add(trigger.does(Flow::Accepted));
    let route = world.route("orders", "/orders", &trigger.url(), lines);
    let gateway = world.start_with(&format!("{more}{route}"));
    (world, gateway, trigger)
}

async fn served(lines: &str) -> (World, Running, TriggerHandle) {
    served_with(lines, "").await
}

fn typed(content_type: &str) -> Builder {
    Request::post("/orders")
        .header("host", "localhost")
        .header("x-api-key", KEY)
        .header("content-type", content_type)
}

fn full(request: Builder, body: impl Into<bytes::Bytes>) -> Request<Full<bytes::Bytes>> {
    request.body(Full::new(body.into())).unwrap()
}

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, code: &str, parts: &[&str]) {
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (status, code),
        "{}",
        answer.text()
    );
    let problem = answer.json();
    let detail = problem["detail"].as_str().unwrap_or_default();
    for part in parts {
        assert!(detail.contains(part), "{detail}");
    }
    assert_eq!(problem["run_started"], "no");
    assert!(!answer.text().contains("canary"), "{}", answer.text());
}

#[tokio::test]
async fn another_type_is_answered_415_with_the_accepted_ones() {
    let (_world, gateway, trigger) = served("content_types = [\"application/json\", \"text/*\"]").await;
    for accepted in ["application/json", "Application/JSON; charset=utf-16", "text/csv"] {
        assert_eq!(
            gateway.send(full(typed(accepted), "x")).await.status,
            202,
            "{accepted}"
        );
        assert_eq!(trigger.last_request().header("content-type"), Some(accepted));
    }
    let other = gateway.send(full(typed("image/png"), "x")).await;
    assert_refused(
        &other,
        415,
        "body-type-refused",
        &["accepts application/json, text/*", "image/png"],
    );
    let without = Request::post("/orders")
        .header("host", "localhost")
        .header("x-api-key", KEY);
    let without = gateway.send(full(without, "x")).await;
    assert_refused(&without, 415, "body-type-refused", &["has no Content-Type"]);
    let twice = gateway
        .send(full(
            typed("application/json").header("content-type", "text/csv"),
            "x",
        ))
        .await;
    assert_refused(&twice, 415, "body-type-refused", &["more than one"]);
    assert_eq!(trigger.runs(), 3);
    let line = gateway.lines.of(&other).await;
    assert_eq!(
        (&line["problem"], &line["caller"]),
        (&"body-type-refused".into(), &"shop".into())
    );
}

#[tokio::test]
async fn a_request_without_a_body_needs_no_type() {
    let lines =
        "content_types = [\"application/json\"]\ncontent_type_as = \"text/plain\"\nmethods = [\"GET\"]";
    let (_world, gateway, trigger) = served(lines).await;
    let request = Request::get("/orders")
        .header("host", "localhost")
        .header("x-api-key", KEY);
    assert_eq!(gateway.send(full(request, "")).await.status, 202);
    assert_eq!(trigger.last_request().header("content-type"), None);
}

#[tokio::test]
async fn a_large_body_of_another_type_is_refused_and_of_this_one_streamed() {
    let lines = "content_types = [\"application/json\"]\ncontent_type_as = \"text/plain\"";
    let (_world, gateway, trigger) = served_with(lines, "[bodies]\nhold_size_max = \"1 KiB\"\n").await;
    let large = "x".repeat(100_000);
    assert_eq!(
        gateway.send(full(typed("image/png"), large.clone())).await.status,
        415
    );
    assert_eq!(
        gateway
            .send(full(typed("application/json"), large.clone()))
            .await
            .status,
        202
    );
    let seen = trigger.last_request();
    assert_eq!(
        (seen.text(), seen.headers_named("content-type")),
        (large, vec!["text/plain"])
    );
}

#[tokio::test]
async fn the_flow_gets_the_type_that_the_route_says() {
    let (_world, gateway, trigger) = served("content_type_as = \"application/json\"").await;
    for stated in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin1",
    ] {
        assert_eq!(gateway.send(full(typed(stated), r#"{"a": 1}"#)).await.status, 202);
        let seen = trigger.last_request();
        assert_eq!(
            seen.headers_named("content-type"),
            ["application/json"],
            "{stated}"
        );
        assert_eq!(seen.text(), r#"{"a": 1}"#);
    }
    let mut sender = gateway.connect_h2().await;
    let request = Request::post("https://localhost/orders").header("x-api-key", KEY);
    assert_eq!(send_h2(&mut sender, full(request, "{}")).await.status, 202);
    assert_eq!(
        trigger.last_request().headers_named("content-type"),
        ["application/json"]
    );
}

#[tokio::test]
async fn a_body_that_does_not_fit_the_schema_is_answered_400_with_pointers() {
    let (_world, gateway, trigger) = served("json_schema = \"orders.json\"").await;
    let fits = r#"{ "id": 17,  "note": "as it came", "more": 1.10 }"#;
    assert_eq!(gateway.post("/orders", fits).await.status, 202);
    assert_eq!(trigger.last_request().text(), fits);

    let mut connection = gateway.connect().await;
    let body = r#"{"note": 1, "lines": [{"sku": "A"}, {"sku": "canary"}]}"#;
    let answer = connection.send(full(typed("application/json"), body)).await;
    assert_refused(
        &answer,
        400,
        "body-invalid",
        &["/id (required)", "/note (type)", "/lines/1/sku (pattern)"],
    );
    assert_eq!(answer.json()["retryable"], false);
    let line = gateway.lines.of(&answer).await;
    let cause = line["cause"].as_str().unwrap();
    assert!(
        cause.contains("/lines/1/sku (pattern) by /properties/lines/items"),
        "{cause}"
    );
    assert!(!line.to_string().contains("canary"), "{line}");
    assert_eq!(line["caller"], "shop");
    // All of it was read, so the connection goes on.
    assert_eq!(
        connection
            .send(full(typed("application/json"), fits))
            .await
            .status,
        202
    );
    assert_eq!(trigger.runs(), 2);
}

#[tokio::test]
async fn what_is_not_json_in_one_reading_is_refused_where_the_body_is_read() {
    let (_world, gateway, trigger) = served("json_schema = \"orders.json\"").await;
    for (body, part) in [
        ("canary", "line 1 column 1"),
        ("", "it is empty"),
        ("{\"id\": 1", "line 1 column 8"),
        ("{\"id\": 1} canary", "line 1 column 11"),
        (
            "{\"id\": 1, \"\\u0069d\": \"canary\"}",
            "a key is there twice at /id",
        ),
        (
            "{\"id\": 1, \"lines\": [{\"a\": 1, \"a\": 1}]}",
            "a key is there twice at /lines/0/a",
        ),
        ("[1]", "the body as a whole (type)"),
    ] {
        let answer = gateway.send(full(typed("application/json"), body)).await;
        assert_refused(&answer, 400, "body-invalid", &[part]);
    }
    let latin = gateway
        .send(full(
            typed("application/json"),
            &b"{\"id\": 1, \"note\": \"\xe4\"}"[..],
        ))
        .await;
    assert_refused(&latin, 400, "body-invalid", &[]);
    let wide: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_refused(
        &gateway.send(full(typed("application/json"), wide)).await,
        400,
        "body-invalid",
        &[],
    );
    assert_eq!(trigger.request_count().get(), 0);
}

#[tokio::test]
async fn a_doubled_key_is_the_flows_business_where_the_body_is_not_read() {
    let (_world, gateway, trigger) = served("content_types = [\"application/json\"]").await;
    for body in ["{\"a\": 1, \"a\": 2}", "no JSON", &"[".repeat(10_000)] {
        assert_eq!(gateway.post("/orders", body).await.status, 202);
        assert_eq!(trigger.last_request().text(), body);
    }
}

#[tokio::test]
async fn nesting_has_a_limit() {
    let (_world, gateway, trigger) = served("json_depth_max = 3").await;
    assert_eq!(gateway.post("/orders", "{\"a\": [[1]]}").await.status, 202);
    let deep = gateway.post("/orders", "{\"a\": [[[]]]}").await;
    assert_refused(&deep, 400, "body-invalid", &["nested too deeply at /a/0"]);
    let abyss = gateway.post("/orders", &"[".repeat(60_000)).await;
    assert_refused(&abyss, 400, "body-invalid", &["nested too deeply at /0/0/0"]);
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_compressed_body_is_415_where_it_is_read_and_passes_elsewhere() {
    let (_world, gateway, trigger) = served("drop_nulls = true").await;
    let packed = |encoding: &str| {
        let request = typed("application/json").header(header::CONTENT_ENCODING, encoding);
        full(request, "{}")
    };
    for encoding in ["gzip", "br", "identity, gzip"] {
        let answer = gateway.send(packed(encoding)).await;
        assert_refused(&answer, 415, "body-type-refused", &["Content-Encoding"]);
    }
    assert_eq!(gateway.send(packed("identity")).await.status, 202);
    assert_eq!(trigger.runs(), 1);
    let (_world, gateway, trigger) = served("content_types = [\"application/json\"]").await;
    assert_eq!(gateway.send(packed("gzip")).await.status, 202);
    assert_eq!(trigger.last_request().header("content-encoding"), Some("gzip"));
}

#[tokio::test]
async fn json_is_utf_8_and_loses_its_byte_order_mark() {
    let (_world, gateway, trigger) = served("json_schema = \"orders.json\"").await;
    let answer = gateway
        .send(full(typed("application/json; charset=utf-16"), "{\"id\": 1}"))
        .await;
    assert_refused(&answer, 415, "body-type-refused", &["UTF-8"]);
    let marked = full(typed("application/json"), "\u{feff}{\"id\": 1}");
    assert_eq!(gateway.send(marked).await.status, 202);
    let seen = trigger.last_request();
    assert_eq!(
        (seen.text().as_str(), seen.framing),
        ("{\"id\": 1}", Framing::Length(9))
    );
}

#[tokio::test]
async fn nulls_are_left_out_and_the_length_is_right() {
    let (_world, gateway, trigger) = served("drop_nulls = true\njson_schema = \"orders.json\"").await;
    let body = r#"{"id": 1, "note": null, "price": 1.10, "lines": [null, {"sku": null}]}"#;
    assert_eq!(gateway.post("/orders", body).await.status, 202);
    let seen = trigger.last_request();
    let expected = r#"{"id":1,"price":1.10,"lines":[null,{}]}"#;
    assert_eq!(
        (seen.text().as_str(), seen.framing),
        (expected, Framing::Length(expected.len() as u64))
    );
    assert_eq!(seen.header("content-type"), Some("application/json"));
    let mut talk = gateway.talk().await;
    talk.say(chunked().replace("Transfer", "Content-Type: application/json\r\nTransfer"))
        .await;
    talk.say(format!(
        "{}{}{LAST_CHUNK}",
        chunk("{\"id\": 2, \"no"),
        chunk("te\": null}")
    ))
    .await;
    assert_eq!(talk.hear().await.status, 202);
    assert_eq!(trigger.last_request().text(), r#"{"id":2}"#);
}

#[tokio::test]
async fn a_form_becomes_json_of_its_texts() {
    let (_world, gateway, trigger) = served("form_to_json = true").await;
    let form = "application/x-www-form-urlencoded; charset=UTF-8";
    let answer = gateway
        .send(full(typed(form), "From=%2B49+30&Media=a&Media=b&Body=%C3%A4%22"))
        .await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let seen = trigger.last_request();
    let expected = json!({"From": "+49 30", "Media": ["a", "b"], "Body": "\u{e4}\""});
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&seen.text()).unwrap(),
        expected
    );
    assert_eq!(seen.headers_named("content-type"), ["application/json"]);
    assert_eq!(seen.framing, Framing::Length(seen.body.len() as u64));

    assert_eq!(gateway.post("/orders", "{\"a\": 1}").await.status, 202);
    assert_eq!(trigger.last_request().text(), "{\"a\": 1}");
    let answer = gateway.send(full(typed(form), "a=canary&b=%ff")).await;
    assert_refused(&answer, 400, "body-invalid", &["parameter 2 of the form"]);
    let answer = gateway.send(full(typed(form), "canary&".repeat(1025))).await;
    assert_refused(&answer, 400, "body-invalid", &["more than 1024 parameters"]);
    let answer = gateway.send(full(typed("text/plain"), "a=b")).await;
    let both = "application/json, application/x-www-form-urlencoded";
    assert_refused(&answer, 415, "body-type-refused", &[both]);
}

#[tokio::test]
async fn the_schema_sees_what_the_flow_gets() {
    let world = World::new().await;
    world.file(
        "text.json",
        r#"{"required": ["a"], "properties": {"a": {"type": "string"}}}"#,
    );
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let lines = "form_to_json = true\ndrop_nulls = true\njson_schema = \"text.json\"";
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), lines));
    let form = |body: &'static str| full(typed("application/x-www-form-urlencoded"), body);
    assert_eq!(gateway.send(form("a=1")).await.status, 202);
    let twice = gateway.send(form("a=canary&a=canary")).await;
    assert_refused(&twice, 400, "body-invalid", &["/a (type)"]);
    let null = gateway.post("/orders", "{\"a\": null}").await;
    assert_refused(&null, 400, "body-invalid", &["/a (required)"]);
}

#[tokio::test]
async fn a_body_too_large_to_be_held_is_413_with_the_limit() {
    let (_world, gateway, trigger) =
        served_with("json_depth_max = 9", "[bodies]\nhold_size_max = \"1 KiB\"\n").await;
    let fits = format!("\"{}\"", "x".repeat(1022));
    assert_eq!(gateway.post("/orders", &fits).await.status, 202);
    let large = format!("\"{}\"", "x".repeat(1023));
    let answer = gateway.post("/orders", &large).await;
    assert_refused(&answer, 413, "body-too-large", &["1025", "1024"]);
    let line = gateway.lines.of(&answer).await;
    assert_eq!(line["cause"], "`bodies.hold_size_max` is 1024 bytes");
    let mut talk = gateway.talk().await;
    talk.say(format!("{}{}{LAST_CHUNK}", chunked(), chunk(&large)))
        .await;
    assert_refused(
        &talk.hear().await,
        413,
        "body-too-large",
        &["more than the 1024 bytes"],
    );
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_large_body_is_read_beside_the_workers() {
    let more = "[bodies]\nhold_size_max = \"4 MiB\"\nheld_budget = \"256 MiB\"\n";
    let lines = "body_size_max = \"4 MiB\"\ndrop_nulls = true\njson_schema = \"orders.json\"";
    let (_world, gateway, trigger) = served_with(lines, more).await;
    let lines = vec![json!({"sku": "ABC", "x": null}); 40_000];
    let body = serde_json::to_string(&json!({"id": 1, "lines": lines})).unwrap();
    let answer = gateway.post("/orders", &body).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let seen = trigger.last_request();
    assert_eq!(seen.text().len(), body.len() - 40_000 * ",\"x\":null".len());
    let wrong = body.replacen("ABC", "abc", 1);
    let answer = gateway.post("/orders", &wrong).await;
    assert_refused(&answer, 400, "body-invalid", &["/lines/0/sku (pattern)"]);
    let (_, metrics) = gateway.admin("/metrics").await;
    assert!(
        metrics.contains("\nflowgate_held_body_bytes 0\n"),
        "all memory came back"
    );
}

#[tokio::test]
async fn reading_takes_memory_from_the_share_of_the_caller() {
    let more = "[bodies]\nhold_size_max = \"1 KiB\"\nheld_budget = \"64 KiB\"\n";
    let (_world, gateway, trigger) = served_with("json_schema = \"orders.json\"", more).await;
    // As a tree this takes some hundred bytes for each of its objects.
    let wide = format!("{{\"id\": 1, \"x\": [{}]}}", vec!["{\"\":0}"; 140].join(","));
    let answer = gateway.post("/orders", &wide).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (503, "gateway-busy")
    );
    let line = gateway.lines.of(&answer).await;
    assert!(line["cause"].as_str().unwrap().contains("caller shop"), "{line}");
    assert_eq!(gateway.post("/orders", "{\"id\": 1}").await.status, 202);
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_caller_that_may_not_call_learns_nothing_about_bodies() {
    let world = World::new().await;
    world.file("orders.json", SCHEMA);
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let route = world.route(
        "orders",
        "/orders",
        &trigger.url(),
        "json_schema = \"orders.json\"",
    );
    let other = caller("other", "canary-key-of-other-0123456789");
    let gateway = world.start_with(&format!("{other}{route}"));
    for (key, code) in [
        ("canary-key-of-other-0123456789", "caller-not-allowed"),
        ("canary-key-of-nobody-0123456789", "key-unknown"),
    ] {
        let request = post("/orders").header("x-api-key", key);
        let answer = gateway.send(full(request, "not JSON")).await;
        assert_eq!(answer.code(), code);
    }
}

#[tokio::test]
async fn an_api_gets_the_same_checks() {
    let world = World::new().await;
    world.file("orders.json", SCHEMA);
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let url = trigger.url();
    let host = url.split('/').nth(2).unwrap();
    let lines = format!("kind = \"api\"\nupstream = \"https://{host}/v1.0\"\njson_schema = \"orders.json\"");
    let route = world
        .route("orders", "/orders", "", &lines)
        .replace("trigger = \"\"\n", "");
    let gateway = world.start_with(&route);
    let answer = gateway.post("/orders", "{}").await;
    assert_refused(&answer, 400, "body-invalid", &["/id (required)"]);
}
