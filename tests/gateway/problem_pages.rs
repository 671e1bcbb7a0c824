//! The type of a problem leads to a page of the gateway, which anyone may read and which has nothing but the public table.

use bytes::Bytes;
use flowgate::problem::Kind;
use http::{Method, Request};
use http_body_util::Full;

use crate::emulator::Answer as Flow;
use crate::emulator::{Trigger, TriggerHandle};
use crate::harness::{Answer, KEY, Running, TENANT, World, post, send_h2};

const PAGES: &str = "problem_pages = \"https://hooks.example/problems\"";

/// A gateway with pages and one route.
async fn stage(pages: &str) -> (World, Running, TriggerHandle) {
    let world = World::new().await;
    let trigger = Trigger::any_user(TENANT).does(Flow::Accepted);
    let trigger = world.emulator.flow.add(trigger);
    let route = world.route("orders", "/orders", &trigger.url(), "contact = \"Ask Anna\"");
    let settings = format!("{}{route}", world.base());
    let gateway = world.start(&settings.replace("[gateway]\n", &format!("[gateway]\n{pages}\n")));
    (world, gateway, trigger)
}

async fn ask(gateway: &Running, method: Method, host: &str, path: &str) -> Answer {
    let request = Request::builder().method(method).uri(path).header("host", host);
    gateway
        .send(request.body(Full::<Bytes>::default()).unwrap())
        .await
}

async fn read(gateway: &Running, path: &str) -> Answer {
    ask(gateway, Method::GET, "hooks.example", path).await
}

#[tokio::test]
async fn the_type_of_a_problem_leads_to_its_page() {
    let (_world, gateway, _trigger) = stage(PAGES).await;
    let of_route = gateway
        .send(post("/orders").body(Full::from("{}")).unwrap())
        .await;
    assert_eq!(of_route.json()["contact"], "Ask Anna");
    let without_route = gateway.post("/nothing", "{}").await;
    for problem in [of_route, without_route] {
        let code = problem.code();
        let kind = problem.json()["type"].as_str().unwrap().to_owned();
        assert_eq!(kind, format!("https://hooks.example/problems/{code}"));
        let path = kind.strip_prefix("https://hooks.example").unwrap();
        let page = read(&gateway, path).await;
        assert_eq!(page.status, 200, "{}", page.text());
        for part in [&code, problem.json()["title"].as_str().unwrap()] {
            assert!(page.text().contains(part), "{part}: {}", page.text());
        }
        for private in ["Anna", "orders", "shop", "contoso"] {
            assert!(!page.text().contains(private), "{private}: {}", page.text());
        }
        for (name, value) in [
            ("content-type", "text/html; charset=utf-8"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "public, max-age=86400"),
            (
                "content-security-policy",
                "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            ),
            ("x-flowgate-answer", "gateway"),
        ] {
            assert_eq!(page.header(name), Some(value), "{name}");
        }
        let line = gateway.lines.of(&page).await;
        assert_eq!(line["page"].as_str(), Some(code.as_str()));
        assert_eq!(line["end"], "complete");
        assert_eq!(line.get("problem"), None);
    }
    let status: serde_json::Value = serde_json::from_str(&gateway.admin("/status").await.1).unwrap();
    assert_eq!(
        status["without_route"], 1,
        "pages are no requests without a route: {status}"
    );
    let metrics = gateway.admin("/metrics").await.1;
    assert!(
        metrics
            .lines()
            .any(|line| line == "flowgate_problem_pages_total 2"),
        "{metrics}"
    );
}

#[tokio::test]
async fn every_code_has_a_page_over_both_protocols() {
    let (_world, gateway, _trigger) = stage(PAGES).await;
    let mut sender = gateway.connect_h2().await;
    // As many as one address gets at once.
    for (number, kind) in Kind::ALL.iter().take(24).enumerate() {
        let path = format!("/problems/{}", kind.row().code);
        let answer = match number % 2 {
            0 => read(&gateway, &path).await,
            _ => {
                let request = Request::get(format!("https://hooks.example{path}"));
                send_h2(&mut sender, request.body(Full::default()).unwrap()).await
            }
        };
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert!(answer.text().contains(&format!("<h1>{}</h1>", kind.row().code)));
    }
    let head = ask(&gateway, Method::HEAD, "hooks.example", "/problems/flow-off").await;
    let page = ask(
        &gateway,
        Method::GET,
        "HOOKS.example.:443",
        "/problems/flow-off?a=%3Cb%3E",
    )
    .await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(
        head.header("content-length"),
        Some(page.body.len().to_string().as_str())
    );
    assert!(!page.text().contains("%3Cb"), "nothing of the request is in it");
}

#[tokio::test]
async fn nothing_else_is_a_page() {
    let (_world, gateway, trigger) = stage(PAGES).await;
    for (path, status) in [
        ("/problems", 404),
        ("/problems/", 404),
        ("/problems/no-such-code", 404),
        ("/problems/FLOW-OFF", 404),
        ("/problems/flow-off/", 404),
        ("/problems/flow-off/x", 404),
        ("/problems/flow%2Doff", 404),
        ("/problems/%3Cscript%3E", 404),
        ("/problems/../orders", 400),
        ("/problems/%2e%2e/orders", 400),
        ("/problems//flow-off", 400),
    ] {
        let answer = read(&gateway, path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json"),
            "{path}"
        );
        assert_eq!(gateway.lines.of(&answer).await.get("page"), None, "{path}");
    }
    let raw = "GET /problems/<script> HTTP/1.1\r\nhost: hooks.example\r\nconnection: close\r\n\r\n";
    let answer = gateway.raw(raw.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(!answer.contains("<script>"), "{answer}");
    let elsewhere = ask(&gateway, Method::GET, "localhost", "/problems/flow-off").await;
    assert_eq!(elsewhere.code(), "route-unknown", "only on its host");
    for method in [Method::POST, Method::OPTIONS, Method::DELETE] {
        let answer = ask(&gateway, method, "hooks.example", "/problems/flow-off").await;
        assert_eq!(answer.code(), "route-unknown");
    }
    assert_eq!(trigger.requests().len(), 0);
}

#[tokio::test]
async fn pages_have_a_limit_of_their_own() {
    let (_world, gateway, trigger) = stage(PAGES).await;
    let mut connection = gateway.connect().await;
    let mut answered = 0;
    let refused = loop {
        let request = Request::get("/problems/flow-off").header("host", "hooks.example");
        let answer = connection.send(request.body(Full::default()).unwrap()).await;
        if answer.status == 429 {
            break answer;
        }
        answered += 1;
    };
    assert!((30..=40).contains(&answered), "{answered}");
    assert_eq!(
        refused.json()["type"],
        "https://hooks.example/problems/rate-limited"
    );
    assert!(refused.header("retry-after").is_some());
    let line = gateway.lines.of(&refused).await;
    assert_eq!(
        (line["limit"].as_str(), line["page"].as_str()),
        (Some("page"), Some("flow-off"))
    );
    // It keeps nobody from calling.
    let request = post("/orders").header("x-api-key", KEY);
    assert_eq!(
        gateway.send(request.body(Full::from("{}")).unwrap()).await.status,
        202
    );
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn without_the_setting_the_type_is_a_name_and_there_is_no_page() {
    let (_world, gateway, _trigger) = stage("").await;
    let answer = read(&gateway, "/problems/flow-off").await;
    assert_eq!(answer.json()["type"], "urn:flowgate:problem:route-unknown");
}
