//! Pages in browsers: which origins may call a route, and what their browsers learn.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::json;

use crate::emulator::Answer as Flow;
use crate::emulator::{Reply, Trigger, TriggerHandle};
use crate::harness::{Answer, KEY, Running, TENANT, World, post, send_h2};

const PAGE: &str = "https://app.example.com";
const ORIGINS: &str = "cors_origins = [\"https://app.example.com\", \"http://localhost:3000\"]";

/// A flow with CORS fields of its own, and a gateway whose route `orders` lists two origins and `plain` none.
async fn stage(more: &str) -> (World, Running, TriggerHandle) {
    let world = World::new().await;
    let reply = Reply::json(200, &json!({"ok": true}))
        .header("Access-Control-Allow-Origin", "*")
        .header("access-control-allow-credentials", "true")
        .header("Vary", "Accept");
    let trigger = world.emulator.flow.add(
        Trigger::any_user(TENANT)
            .methods(&["POST", "OPTIONS"])
            .does(Flow::Respond(reply)),
    );
    let routes = [
        world.route("orders", "/orders", &trigger.url(), &format!("{ORIGINS}\n{more}")),
        world.route("plain", "/plain", &trigger.url(), ""),
    ];
    let gateway = world.start_with(&routes.concat());
    (world, gateway, trigger)
}

async fn ask(gateway: &Running, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder()
        .method(Method::OPTIONS)
        .uri(path)
        .header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    gateway
        .send(request.body(Full::<Bytes>::default()).unwrap())
        .await
}

async fn preflight(gateway: &Running, path: &str, origin: &str, method: &str) -> Answer {
    let headers = [("origin", origin), ("access-control-request-method", method)];
    ask(gateway, path, &headers).await
}

async fn from_page(gateway: &Running, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    gateway.send(request.body(Full::from("{}")).unwrap()).await
}

fn cors_fields(answer: &Answer) -> Vec<&str> {
    let names = answer.headers.keys().map(|name| name.as_str());
    names.filter(|name| name.starts_with("access-control-")).collect()
}

#[tokio::test]
async fn a_preflight_is_answered_here_without_a_credential() {
    let (_world, gateway, trigger) = stage("methods = [\"POST\", \"PUT\"]").await;
    let headers = [
        ("origin", PAGE),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "content-type,x-api-key"),
    ];

    let answer = ask(&gateway, "/orders", &headers).await;

    assert_eq!(answer.status, 204, "{}", answer.text());
    for (name, value) in [
        ("access-control-allow-origin", PAGE),
        ("access-control-allow-methods", "POST, PUT"),
        ("access-control-allow-headers", "content-type,x-api-key"),
        ("access-control-max-age", "600"),
        ("vary", "origin"),
        ("x-flowgate-answer", "gateway"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    assert!(answer.body.is_empty());
    assert_eq!(trigger.requests().len(), 0, "no flow sees it");
    let line = gateway.lines.of(&answer).await;
    assert_eq!((&line["route"], &line["status"]), (&json!("orders"), &json!(204)));
    assert_eq!(line["caller"], json!(null));
}

#[tokio::test]
async fn a_page_of_another_origin_gets_no_cors_fields() {
    let (_world, gateway, trigger) = stage("").await;
    for origin in [
        "https://evil.example",
        "null",
        "*",
        "https://APP.example.com",
        "https://app.example.com:443",
        "https://app.example.com/",
        "https://app.example.com.evil.example",
        "https://app.example.com, http://localhost:3000",
        "",
    ] {
        let asked = preflight(&gateway, "/orders", origin, "POST").await;
        assert_eq!(
            (asked.status.as_u16(), asked.code().as_str()),
            (405, "method-not-allowed")
        );
        assert_eq!(cors_fields(&asked), [""; 0], "{origin}");
        let answer = from_page(&gateway, "/orders", &[("origin", origin), ("x-api-key", KEY)]).await;
        assert_eq!(answer.status, 200, "CORS binds browsers alone");
        assert_eq!(cors_fields(&answer), [""; 0], "{origin}");
    }
    let asked = preflight(&gateway, "/orders", "https://evil.example", "POST").await;
    let cause = gateway.lines.of(&asked).await["cause"].to_string();
    assert!(cause.contains("`cors_origins` of route orders"), "{cause}");
    assert_eq!(trigger.requests().len(), 9);
}

#[tokio::test]
async fn two_origins_are_none() {
    let (_world, gateway, _) = stage("").await;
    let headers = [
        ("origin", PAGE),
        ("origin", PAGE),
        ("access-control-request-method", "POST"),
    ];
    let asked = ask(&gateway, "/orders", &headers).await;
    assert_eq!((asked.status.as_u16(), cors_fields(&asked).len()), (405, 0));
    let headers = [
        ("origin", PAGE),
        ("origin", "https://evil.example"),
        ("x-api-key", KEY),
    ];
    let answer = from_page(&gateway, "/orders", &headers).await;
    assert_eq!((answer.status.as_u16(), cors_fields(&answer).len()), (200, 0));
}

#[tokio::test]
async fn the_fields_of_a_flow_do_not_double_ours() {
    let (_world, gateway, _) = stage("").await;
    let mut h2 = gateway.connect_h2().await;
    let request = Request::post("https://localhost/orders")
        .header("x-api-key", KEY)
        .header("origin", PAGE);
    for answer in [
        from_page(&gateway, "/orders", &[("origin", PAGE), ("x-api-key", KEY)]).await,
        send_h2(&mut h2, request.body(Full::from("{}")).unwrap()).await,
    ] {
        assert_eq!(answer.json(), json!({"ok": true}));
        let origins: Vec<_> = answer
            .headers
            .get_all("access-control-allow-origin")
            .iter()
            .collect();
        assert_eq!(origins, [PAGE]);
        assert_eq!(answer.header("access-control-expose-headers"), Some("*"));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        let varies: Vec<_> = answer.headers.get_all("vary").iter().collect();
        assert_eq!(varies, ["origin", "Accept"]);
    }
}

#[tokio::test]
async fn caches_learn_that_the_answer_depends_on_the_origin() {
    let (_world, gateway, _) = stage("").await;
    let answer = gateway.post("/orders", "{}").await;
    assert_eq!(answer.header("vary"), Some("origin"));
    assert_eq!(cors_fields(&answer), [""; 0]);
}

#[tokio::test]
async fn without_origins_a_route_is_as_it_was() {
    let (_world, gateway, _) = stage("").await;
    let asked = preflight(&gateway, "/plain", PAGE, "POST").await;
    assert_eq!((asked.status.as_u16(), cors_fields(&asked).len()), (405, 0));
    assert_eq!(asked.header("vary"), None);
    let answer = from_page(&gateway, "/plain", &[("origin", PAGE), ("x-api-key", KEY)]).await;
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("*"),
        "the flow's own"
    );
    assert_eq!(answer.header("vary"), Some("Accept"));
}

#[tokio::test]
async fn a_page_can_read_every_refusal_of_its_route() {
    let (_world, gateway, trigger) = stage("body_size_max = 4").await;
    for (path, headers, status, code) in [
        ("/orders", &[("x-api-key", "wrong")][..], 401, "key-unknown"),
        ("/orders", &[], 401, "key-missing"),
        (
            "/orders",
            &[("x-api-key", KEY), ("x_api_key", "x")],
            400,
            "malformed-request",
        ),
    ] {
        let headers = [headers, &[("origin", PAGE)]].concat();
        let answer = from_page(&gateway, path, &headers).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code));
        assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE), "{code}");
        assert_eq!(answer.header("vary"), Some("origin"), "{code}");
    }
    let request = post("/orders").header("x-api-key", KEY).header("origin", PAGE);
    let large = gateway
        .send(request.body(Full::from("{\"a\": 1}")).unwrap())
        .await;
    assert_eq!(large.code(), "body-too-large");
    assert_eq!(large.header("access-control-allow-origin"), Some(PAGE));
    trigger.next(Flow::no_response());
    let answer = from_page(&gateway, "/orders", &[("x-api-key", KEY), ("origin", PAGE)]).await;
    assert_eq!(answer.code(), "flow-no-response");
    assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
}

#[tokio::test]
async fn without_a_route_there_is_nobody_to_allow_a_page() {
    let (_world, gateway, _) = stage("").await;
    for (path, method, status) in [
        ("/nowhere", "POST", 404),
        ("/orders", "DELETE", 405),
        ("/orders", "post", 405),
        ("/orders", "", 405),
        ("/orders", "POST, PUT", 405),
        ("/orders", "OPTIONS", 405),
        ("/%6frders", "POST", 400),
    ] {
        let asked = preflight(&gateway, path, PAGE, method).await;
        assert_eq!(asked.status, status, "{method} {path}");
        assert_eq!(cors_fields(&asked), [""; 0], "{method} {path}");
    }
    let answer = from_page(&gateway, "/nowhere", &[("origin", PAGE)]).await;
    assert_eq!((answer.status.as_u16(), cors_fields(&answer).len()), (404, 0));
    // Without a method, and without an origin, it is no preflight.
    for header in [("origin", PAGE), ("access-control-request-method", "POST")] {
        assert_eq!(ask(&gateway, "/orders", &[header]).await.status, 405);
    }
}

#[tokio::test]
async fn requested_fields_are_repeated_within_bounds() {
    let (_world, gateway, _) = stage("").await;
    let names = |count: usize| vec!["x-field-123456"; count].join(",");
    let (some, many) = (names(68), names(69));
    assert!(some.len() <= 1024 && many.len() > 1024);
    for (asked, is_repeated) in [
        (some.as_str(), true),
        ("content-type, x-api-key", true),
        ("", true),
        (many.as_str(), false),
        ("x-a;x-b", false),
        ("x-\u{e4}", false),
        ("*", false),
    ] {
        let headers = [
            ("origin", PAGE),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", asked),
        ];
        let answer = ask(&gateway, "/orders", &headers).await;
        assert_eq!(answer.status, 204, "{asked}");
        let repeated = answer.header("access-control-allow-headers");
        assert_eq!(repeated, is_repeated.then_some(asked), "{asked}");
    }
    let headers = [
        ("origin", PAGE),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "x-a"),
        ("access-control-request-headers", "x-b"),
    ];
    let answer = ask(&gateway, "/orders", &headers).await;
    assert_eq!(answer.header("access-control-allow-headers"), None);
}

#[tokio::test]
async fn other_options_requests_reach_a_route_that_lists_the_method() {
    let (_world, gateway, trigger) = stage("methods = [\"OPTIONS\", \"POST\"]").await;
    let asked = preflight(&gateway, "/orders", PAGE, "POST").await;
    assert_eq!((asked.status.as_u16(), trigger.requests().len()), (204, 0));
    let foreign = preflight(&gateway, "/orders", "https://evil.example", "POST").await;
    assert_eq!(
        (foreign.status.as_u16(), foreign.code().as_str()),
        (401, "key-missing")
    );
    assert_eq!(cors_fields(&foreign), [""; 0]);
    let own = ask(&gateway, "/orders", &[("x-api-key", KEY)]).await;
    assert_eq!((own.status.as_u16(), trigger.requests().len()), (200, 1));
}
