//! Headers that a caller cannot forge towards a flow: its address, the request id, and the parameters of the
//! trigger's address.

use http_body_util::Full;

use crate::emulator::Answer as Flow;
use crate::emulator::{Trigger, TriggerHandle};
use crate::harness::{KEY, Running, TENANT, World, post, send_h2};

async fn gateway(more: &str) -> (World, Running, TriggerHandle) {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), more));
    (world, gateway, trigger)
}

#[tokio::test]
async fn claims_about_address_path_and_method_do_not_reach_a_flow_on_either_protocol() {
    let (_world, gateway, trigger) = gateway("").await;
    let request = || {
        let mut request = post("/orders")
            .header("x-api-key", KEY)
            .header("x-custom", "theirs");
        for name in [
            "x-original-url",
            "x-rewrite-url",
            "x-http-method",
            "x-http-method-override",
            "x-method-override",
            "true-client-ip",
            "client-ip",
            "x-client-ip",
            "x-real-ip",
            "x-cluster-client-ip",
            "cf-connecting-ip",
            "fastly-client-ip",
            "x-forwarded",
            "x-forwarded-anything",
            "client_ip",
            "x_original_url",
            "x_http_method-override",
        ] {
            request = request.header(name, "claimed");
        }
        request.body(Full::from("{}")).unwrap()
    };
    for number in 0..2 {
        let answer = match number {
            0 => gateway.send(request()).await,
            _ => send_h2(&mut gateway.connect_h2().await, request()).await,
        };
        assert_eq!(answer.status, 202, "{}", answer.text());
        let seen = trigger.last_request();
        assert_eq!(seen.header("x-custom"), Some("theirs"));
        for (name, value) in &seen.head.headers {
            assert_ne!(value, "claimed", "{name}");
        }
    }
}

#[tokio::test]
async fn no_other_spelling_adds_to_the_query_of_the_trigger() {
    let (_world, gateway, trigger) = gateway("query = [\"*\"]").await;
    for name in [
        "%u0073ig",
        "sig%00",
        "sig%00a",
        "%252573ig",
        "%2525252573ig",
        "%ef%bd%93ig",
    ] {
        let answer = gateway.post(&format!("/orders?a=1&{name}=x&b=2"), "{}").await;
        assert_eq!(answer.status, 202, "{name}: {}", answer.text());
        let sent = trigger.last_request().head.target.clone();
        assert_eq!(sent, format!("{}&a=1&b=2", trigger.target()), "{name}");
    }
}
