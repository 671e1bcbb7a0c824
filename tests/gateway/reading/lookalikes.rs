//! Field names with `_`, which CGI-like servers read as `-`. A name that would become one which the gateway
//! reads, drops or sets is refused; all others pass to the flow unchanged.

use http::Request;
use http_body_util::Full;

use crate::emulator::Answer as Flow;
use crate::emulator::{Trigger, TriggerHandle};
use crate::harness::{Answer, KEY, Running, TENANT, World, send_h2};

/// Names that the gateway reads, drops or sets, each with a `-` to replace.
const OURS: [&str; 26] = [
    "content-length",
    "transfer-encoding",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "http2-settings",
    "accept-encoding",
    "x-api-key",
    "x-vendor-token",
    "x-real-ip",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-anything",
    "x-flowgate-caller",
    "x-flowgate-key-id",
    "x-flowgate-origin",
    "x-flowgate-request-id",
    "x-flowgate-anything",
    "x-ms-client-tracking-id",
    "x-ms-correlation-id",
    "x-ms-workflow-run-id",
    "x-ms-anything",
    "x-forwarded-",
    "x-flowgate-",
];

/// Names that the gateway does not use.
const THEIRS: [&str; 16] = [
    "my_own_field",
    "x_my_field",
    "x-my_field",
    "content_type",
    "user_agent",
    "idempotency_key",
    "x_request_id",
    "x_ms_dynamics_entity_name",
    "x-ms-dynamics-entity_name",
    "authorization_",
    "_authorization",
    "x_flowgate",
    "x_api_keys",
    "x__api__key",
    "_",
    "__",
];

/// `a-b-c` becomes `a_b-c`, `a-b_c` and `a_b_c`.
fn spellings(name: &str) -> Vec<String> {
    let dashes: Vec<usize> = name.match_indices('-').map(|(at, _)| at).collect();
    (1..1u32 << dashes.len())
        .map(|mask| {
            let mut bytes = name.as_bytes().to_vec();
            for (bit, at) in dashes.iter().enumerate() {
                if mask >> bit & 1 == 1 {
                    bytes[*at] = b'_';
                }
            }
            String::from_utf8(bytes).unwrap()
        })
        .collect()
}

/// A route that reads keys in a header of its own in addition to the usual one, and a route that reads none.
async fn gateway() -> (World, Running, TriggerHandle) {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let place = "key_from = [\"header:x-api-key\", \"header:x-vendor-token\"]";
    let routes = [
        world.route("orders", "/orders", &trigger.url(), place),
        world.route("open", "/open", &trigger.url(), "anonymous = true"),
    ]
    .concat();
    let gateway = world.start_with(&routes);
    (world, gateway, trigger)
}

async fn ask(gateway: &Running, path: &str, name: &str) -> Answer {
    let mut talk = gateway.talk().await;
    talk.say(format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: 2\r\n{name}: 1\r\n\r\n{{}}"
    ))
    .await;
    talk.hear().await
}

#[tokio::test]
async fn a_lookalike_of_a_field_of_ours_is_refused() {
    let (world, gateway, _) = gateway().await;
    for name in OURS.iter().flat_map(|name| spellings(name)) {
        let shouted = name.to_ascii_uppercase();
        for name in [name, shouted] {
            let answer = ask(&gateway, "/orders", &name).await;
            assert_eq!(
                (answer.status.as_u16(), answer.code().as_str()),
                (400, "malformed-request"),
                "{name}"
            );
            assert_eq!(answer.header("connection"), Some("close"), "{name}");
        }
    }
    assert_eq!(world.emulator.flow.heads().get(), 0);
}

#[tokio::test]
async fn a_lookalike_is_refused_where_no_key_is_read_too() {
    let (world, gateway, _) = gateway().await;
    for name in [
        "x_api_key",
        "x_flowgate_caller",
        "content_length",
        "transfer_encoding",
        "x_forwarded_for",
    ] {
        assert_eq!(
            ask(&gateway, "/open", name).await.code(),
            "malformed-request",
            "{name}"
        );
    }
    assert_eq!(world.emulator.flow.heads().get(), 0);
}

#[tokio::test]
async fn a_lookalike_is_refused_on_http2_and_the_other_streams_live() {
    let (world, gateway, trigger) = gateway().await;
    let mut sender = gateway.connect_h2().await;
    let request = |name: &str| {
        Request::post("https://localhost/orders")
            .header("x-api-key", KEY)
            .header(name, "1")
            .body(Full::from("{}"))
            .unwrap()
    };
    for name in OURS.iter().flat_map(|name| spellings(name)) {
        let answer = send_h2(&mut sender, request(&name)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (400, "malformed-request"),
            "{name}"
        );
    }
    assert_eq!(world.emulator.flow.heads().get(), 0);
    for name in THEIRS {
        assert_eq!(send_h2(&mut sender, request(name)).await.status, 202, "{name}");
        assert_eq!(trigger.last_request().header(name), Some("1"), "{name}");
    }
}

#[tokio::test]
async fn every_other_name_with_an_underscore_passes_untouched() {
    let (_world, gateway, trigger) = gateway().await;
    for name in THEIRS {
        let answer = ask(&gateway, "/orders", name).await;
        assert_eq!(answer.status, 202, "{name}: {}", answer.text());
        assert_eq!(trigger.last_request().header(name), Some("1"), "{name}");
    }
}

#[tokio::test]
async fn a_key_header_of_another_route_passes_untouched() {
    let (_world, gateway, trigger) = gateway().await;
    let answer = ask(&gateway, "/open", "x_vendor_token").await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(trigger.last_request().header("x_vendor_token"), Some("1"));
}

#[tokio::test]
async fn naming_our_fields_in_connection_does_not_take_them_away() {
    let (_world, gateway, trigger) = gateway().await;
    let mut talk = gateway.talk().await;
    talk.say(format!(
        "POST /orders HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: 2\r\nConnection: host, \
         authorization, content-length, x-api-key, x-flowgate-caller, x-flowgate-key-id, x-flowgate-origin, traceparent, \
         x-ms-client-tracking-id\r\n\r\n{{}}"
    ))
    .await;
    let answer = talk.hear().await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let seen = trigger.last_request();
    assert_eq!(seen.text(), "{}");
    assert_eq!(seen.header("x-flowgate-caller"), Some("shop"));
    for name in [
        "host",
        "authorization",
        "content-length",
        "x-flowgate-key-id",
        "x-flowgate-origin",
        "traceparent",
        "x-ms-client-tracking-id",
    ] {
        assert_eq!(seen.headers_named(name).len(), 1, "{name}");
    }
}
