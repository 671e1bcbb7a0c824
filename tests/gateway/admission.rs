//! Who may call, and which answers refused callers get.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use crate::emulator::Answer as Flow;
use crate::emulator::Trigger;
use crate::harness::{Answer, KEY, Running, TENANT, World, caller, digest, post};

async fn with_headers(gateway: &Running, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    gateway.send(request.body(Full::from("{}")).unwrap()).await
}

fn basic(text: &str) -> String {
    use base64::Engine;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
}

/// A world with one flow that answers 202 to everything, and a gateway with these routes to it.
async fn gateway(
    more: &str,
    routes: impl Fn(&World, &str) -> String,
) -> (World, Running, crate::emulator::TriggerHandle) {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let settings = format!("{}{more}{}", world.base(), routes(&world, &trigger.url()));
    let running = world.start(&settings);
    (world, running, trigger)
}

#[tokio::test]
async fn a_key_is_read_in_every_usual_place() {
    let (_world, gateway, trigger) =
        gateway("", |world, url| world.route("orders", "/orders", url, "")).await;
    let places = [
        ("x-api-key", KEY.to_owned()),
        ("authorization", KEY.to_owned()),
        ("authorization", format!("Bearer {KEY}")),
        ("authorization", format!("ApiKey {KEY}")),
        ("authorization", basic(&format!("anyone:{KEY}"))),
    ];
    for (name, value) in places {
        let answer = with_headers(&gateway, "/orders", &[(name, &value)]).await;
        assert_eq!(answer.status, 202, "{name}: {value}: {}", answer.text());
        let seen = trigger.last_request();
        assert!(
            !seen
                .head
                .headers
                .iter()
                .any(|(_, value)| String::from_utf8_lossy(value.as_ref()).contains(KEY))
        );
    }
}

#[tokio::test]
async fn a_route_names_its_own_place() {
    let (_world, gateway, _) = gateway("", |world, url| {
        world.route("orders", "/orders", url, "key_from = [\"header:x-vendor-token\"]")
    })
    .await;
    assert_eq!(
        with_headers(&gateway, "/orders", &[("x-vendor-token", KEY)])
            .await
            .status,
        202
    );
    // A header that the route does not read is not a credential: it is neither accepted nor counted as a
    // failure.
    let missing = with_headers(&gateway, "/orders", &[("x-api-key", KEY)]).await;
    assert_eq!(missing.code(), "key-missing");
    assert_eq!(missing.json()["detail"], "The key is read in x-vendor-token.");
    let both = [
        ("x-vendor-token", KEY),
        ("authorization", "Bearer something-else"),
    ];
    assert_eq!(with_headers(&gateway, "/orders", &both).await.status, 202);
}

#[tokio::test]
async fn refusals_say_whether_it_was_the_credential_or_the_policy() {
    let more = format!(
        "{}[[caller.key]]\nlabel = \"old\"\ndigest = \"{}\"\nexpires = 2020-01-01\n[[caller.key]]\nlabel = \"off\"\ndigest = \"{}\"\nenabled = false\n",
        caller("bank", "key-of-bank"),
        digest("old-key"),
        digest("off-key"),
    );
    let (_world, gateway, trigger) = gateway(&more, |world, url| {
        format!(
            "{}{}",
            world.route("orders", "/orders", url, "callers = [\"shop\", \"bank\"]"),
            world.route("private", "/private", url, "callers = [\"shop\"]")
        )
    })
    .await;
    let cases: [(&str, &[(&str, &str)], u16, &str, &str); 7] = [
        ("/orders", &[], 401, "key-missing", "credential"),
        (
            "/orders",
            &[("x-api-key", "guessed")],
            401,
            "key-unknown",
            "credential",
        ),
        (
            "/orders",
            &[("x-api-key", "old-key")],
            401,
            "key-expired",
            "credential",
        ),
        (
            "/orders",
            &[("x-api-key", "off-key")],
            401,
            "key-expired",
            "credential",
        ),
        (
            "/orders",
            &[("x-api-key", KEY), ("authorization", "Bearer key-of-bank")],
            401,
            "keys-differ",
            "credential",
        ),
        (
            "/private",
            &[("x-api-key", "key-of-bank")],
            403,
            "caller-not-allowed",
            "policy",
        ),
        ("/nowhere", &[("x-api-key", KEY)], 404, "route-unknown", "request"),
    ];
    for (path, headers, status, code, reason) in cases {
        let answer = with_headers(&gateway, path, headers).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (status, code),
            "{path} {headers:?}"
        );
        assert_eq!(answer.json()["reason"], reason);
        assert_eq!(answer.header("x-flowgate-answer"), Some("gateway"));
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let instance = format!("urn:uuid:{}", answer.header("x-request-id").unwrap());
        assert_eq!(answer.json()["instance"], instance.as_str());
        assert_eq!(gateway.lines.of(&answer).await["problem"], code);
    }
    let same_twice = [("x-api-key", KEY), ("authorization", KEY)];
    assert_eq!(with_headers(&gateway, "/orders", &same_twice).await.status, 202);
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_refused_key_on_a_small_body_keeps_its_connection() {
    let (_world, gateway, _) = gateway("", |world, url| world.route("orders", "/orders", url, "")).await;
    let mut connection = gateway.connect().await;
    for _ in 0..3 {
        let request = post("/orders")
            .header("x-api-key", "guessed")
            .body(Full::from("{\"a\":1}"))
            .unwrap();
        assert_eq!(connection.send(request).await.status, 401);
    }
    let request = post("/orders")
        .header("x-api-key", KEY)
        .body(Full::from("{}"))
        .unwrap();
    assert_eq!(connection.send(request).await.status, 202);
    assert!(connection.is_open());
}

#[tokio::test]
async fn an_erp_is_known_by_its_address_alone() {
    let more = "[[caller]]\nname = \"erp\"\nnetworks = [\"127.0.0.0/8\"]\n";
    let (_world, gateway, trigger) = gateway(more, |world, url| {
        world.route("erp", "/erp", url, "callers = [\"erp\"]")
    })
    .await;
    // The caller's Authorization header is not a credential here, and must not collide with the token.
    let answer = with_headers(
        &gateway,
        "/erp",
        &[("authorization", "Basic whatever"), ("x-api-key", "x")],
    )
    .await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(trigger.last_request().header("x-flowgate-caller"), Some("erp"));
    assert_eq!(trigger.last_request().header("x-flowgate-key-id"), None);
    assert_eq!(gateway.lines.of(&answer).await["caller"], "erp");
}

#[tokio::test]
async fn networks_of_route_and_caller_are_enforced() {
    let away = format!(
        "[[caller]]\nname = \"away\"\nnetworks = [\"192.0.2.0/24\"]\n[[caller.key]]\nlabel = \"one\"\ndigest = \"{}\"\n",
        digest("key-of-away")
    );
    let (_world, gateway, trigger) = gateway(&away, |world, url| {
        [
            world.route("a", "/inside", url, "networks = [\"127.0.0.0/8\", \"::1/128\"]"),
            world.route("b", "/outside", url, "networks = [\"192.0.2.0/24\"]"),
            world.route("c", "/denied", url, "deny_networks = [\"127.0.0.1/32\"]"),
            world.route("d", "/away", url, "callers = [\"away\"]"),
            world.route("e", "/open", url, "anonymous = true\nnetworks = [\"10.0.0.0/8\"]"),
        ]
        .concat()
    })
    .await;
    assert_eq!(gateway.post("/inside", "{}").await.status, 202);
    for path in ["/outside", "/denied", "/open"] {
        let answer = gateway.post(path, "{}").await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (403, "address-refused"),
            "{path}"
        );
        let line = gateway.lines.of(&answer).await;
        assert_eq!(line["address"], "127.0.0.1");
        assert!(line["cause"].as_str().unwrap().contains("127.0.0.1"), "{line}");
        assert!(
            !answer.text().contains("127.0.0.1"),
            "the rule is the operator's business"
        );
    }
    let answer = with_headers(&gateway, "/away", &[("x-api-key", "key-of-away")]).await;
    assert_eq!(answer.code(), "address-refused");
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_route_open_to_all_says_so_and_serves() {
    let (_world, gateway, trigger) = gateway("", |world, url| {
        world.route("open", "/open", url, "anonymous = true")
    })
    .await;
    let answer = with_headers(&gateway, "/open", &[]).await;
    assert_eq!(answer.status, 202);
    assert_eq!(
        trigger.last_request().header("x-flowgate-caller"),
        Some("anonymous")
    );
    assert_eq!(gateway.lines.of(&answer).await["caller"], "anonymous");
}

#[tokio::test]
async fn methods_and_paths_are_distinguished() {
    let (_world, gateway, _) = gateway("", |world, url| {
        [
            world.route("orders", "/orders/{id}", url, "methods = [\"POST\", \"PUT\"]"),
            world.route(
                "host",
                "/orders/{id}",
                url,
                "host = \"hooks.example\"\nmethods = [\"DELETE\"]",
            ),
        ]
        .concat()
    })
    .await;
    let send = async |method: &str, host: &str, path: &str| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", host)
            .header("x-api-key", KEY);
        gateway
            .send(request.body(Full::<Bytes>::default()).unwrap())
            .await
    };
    let answer = send("GET", "localhost", "/orders/1").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("allow")),
        (405, Some("POST, PUT"))
    );
    let answer = send("POST", "hooks.example:8443", "/orders/1").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("allow")),
        (405, Some("DELETE"))
    );
    assert_eq!(send("POST", "localhost", "/orders").await.status, 404);
    assert_eq!(send("POST", "localhost", "/orders/1/2").await.status, 404);
}

#[tokio::test]
async fn nothing_that_decodes_to_another_route_gets_through() {
    let (_world, gateway, trigger) = gateway("", |world, url| {
        [
            world.route("open", "/open/{*rest}", url, "anonymous = true"),
            world.route("item", "/item/{id}", url, "anonymous = true"),
            world.route("secret", "/secret", url, ""),
        ]
        .concat()
    })
    .await;
    for path in [
        "/open/../secret",
        "/open/%2e%2e/secret",
        "/open/..%2fsecret",
        "/open/..;/secret",
        "/open/..%5csecret",
        "/open/%252e%252e/secret",
        "/open//secret",
        "//secret",
        "/item/..%2fsecret",
        "/item/%2e%2e",
        "/secre%74",
        "/./secret",
    ] {
        let answer = with_headers(&gateway, path, &[]).await;
        assert!(
            [400, 404].contains(&answer.status.as_u16()),
            "{path}: {}",
            answer.status
        );
    }
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn lookalikes_of_our_fields_are_refused() {
    let (_world, gateway, trigger) =
        gateway("", |world, url| world.route("orders", "/orders", url, "")).await;
    for name in ["x_flowgate_caller", "x_api_key", "x_forwarded_for"] {
        let answer = with_headers(&gateway, "/orders", &[("x-api-key", KEY), (name, "1")]).await;
        assert_eq!(answer.code(), "malformed-request", "{name}");
    }
    let answer = with_headers(&gateway, "/orders", &[("x-api-key", KEY), ("my_own_field", "1")]).await;
    assert_eq!(answer.status, 202);
    assert_eq!(trigger.last_request().header("my_own_field"), Some("1"));
}

#[tokio::test]
async fn a_key_never_reaches_the_flow_even_where_none_is_read() {
    let more = "[[caller]]\nname = \"erp\"\nnetworks = [\"127.0.0.0/8\"]\n";
    let (_world, gateway, trigger) = gateway(more, |world, url| {
        [
            world.route("open", "/open", url, "anonymous = true"),
            world.route("erp", "/erp", url, "callers = [\"erp\"]"),
        ]
        .concat()
    })
    .await;
    for path in ["/open", "/erp"] {
        assert_eq!(
            with_headers(&gateway, path, &[("x-api-key", KEY)]).await.status,
            202
        );
        assert_eq!(trigger.last_request().header("x-api-key"), None, "{path}");
    }
}
