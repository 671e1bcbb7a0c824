//! Old versions, large heads, long addresses, and the host that a request is for.

use http::Request;
use http_body_util::Full;

use crate::emulator::Answer as Flow;
use crate::emulator::Trigger;
use crate::harness::{KEY, TENANT, World, send_h2};
use crate::listening::{order_bytes, served};

#[tokio::test]
async fn http_1_0_without_a_host_goes_to_the_route_for_any_host() {
    let world = World::new().await;
    let flow = &world.emulator.flow;
    let any = flow.add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let named = flow.add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let routes = [
        world.route("any", "/orders", &any.url(), ""),
        world.route("named", "/orders", &named.url(), "host = \"localhost\""),
    ]
    .concat();
    let gateway = world.start_with(&routes);
    let hostless = order_bytes("")
        .replace("HTTP/1.1", "HTTP/1.0")
        .replace("Host: localhost\r\n", "");
    let heard = gateway.raw(hostless.as_bytes()).await;
    assert!(heard.starts_with("HTTP/1.0 202"), "{heard}");
    assert_eq!((any.runs(), named.runs()), (1, 0));
    let heard = gateway
        .raw(order_bytes("").replace("HTTP/1.1", "HTTP/1.0").as_bytes())
        .await;
    assert!(heard.starts_with("HTTP/1.0 202"), "{heard}");
    assert_eq!((any.runs(), named.runs()), (1, 1));
}

#[tokio::test]
async fn the_absolute_form_for_our_own_host_is_served() {
    let (_world, gateway, trigger) = served("").await;
    let mut talk = gateway.talk().await;
    talk.say(order_bytes("").replacen("/orders", "https://localhost/orders", 1))
        .await;
    assert_eq!(talk.hear().await.status, 202);
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let (world, gateway, _) = served("").await;
    for filling in ["x".repeat(40_000), "x".repeat(400_000)] {
        let mut talk = gateway.talk().await;
        // The gateway may close before everything is written.
        let _ = talk
            .try_say(order_bytes(&format!("X-Large: {filling}\r\n")))
            .await;
        let answer = talk.hear().await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (431, "head-too-large")
        );
        assert_eq!(answer.header("connection"), Some("close"));
        talk.rest().await;
    }
    assert_eq!(world.emulator.flow.heads().get(), 0);
}

#[tokio::test]
async fn the_size_of_heads_is_a_setting() {
    for (setting, bytes) in [("64 KiB", 40_000), ("512 KiB", 400_000)] {
        let settings = format!("[connections]\nhead_size_max = \"{setting}\"\n");
        let (_world, gateway, _) = served(&settings).await;
        let mut talk = gateway.talk().await;
        let large = order_bytes(&format!("X-Large: {}\r\n", "x".repeat(bytes)));
        talk.say(large.replacen("/orders", "/nowhere", 1)).await;
        assert_eq!(talk.hear().await.status, 404, "{setting}");
        talk.say(order_bytes("")).await;
        assert_eq!(talk.hear().await.status, 202, "{setting}");
    }
}

#[tokio::test]
async fn too_many_header_fields_are_refused() {
    let fields = |count: usize| -> String { (0..count).map(|n| format!("X-Field-{n}: 1\r\n")).collect() };
    for (setting, fitting, too_many) in [("headers_max = 20\n", 17, 18), ("", 97, 98), ("", 97, 200)] {
        let (world, gateway, trigger) = served(&format!("[connections]\n{setting}")).await;
        let mut talk = gateway.talk().await;
        // Three more are in every order.
        talk.say(order_bytes(&fields(fitting))).await;
        assert_eq!(talk.hear().await.status, 202, "{setting}{fitting}");
        talk.say(order_bytes(&fields(too_many))).await;
        let answer = talk.hear().await;
        assert_eq!(answer.status, 431, "{setting}{too_many}");
        assert_eq!(answer.code(), "head-too-large", "{setting}{too_many}");
        assert_eq!(world.emulator.flow.heads().get(), 1);
        assert_eq!(trigger.runs(), 1);
    }
}

#[tokio::test]
async fn more_header_fields_can_be_allowed() {
    let (_world, gateway, trigger) = served("[connections]\nheaders_max = 300\n").await;
    let fields: String = (0..200).map(|n| format!("X-Field-{n}: 1\r\n")).collect();
    let mut talk = gateway.talk().await;
    talk.say(order_bytes(&fields)).await;
    assert_eq!(talk.hear().await.status, 202);
    assert_eq!(trigger.last_request().header("x-field-199"), Some("1"));
}

#[tokio::test]
async fn an_address_that_is_too_long_is_refused() {
    let (world, gateway, trigger) = served("").await;
    let with_target = |length: usize| {
        let target = format!("/orders?q={}", "x".repeat(length - "/orders?q=".len()));
        order_bytes("").replacen("/orders", &target, 1)
    };
    let mut talk = gateway.talk().await;
    talk.say(with_target(16_384)).await;
    assert_eq!(talk.hear().await.status, 202);
    talk.say(with_target(16_385)).await;
    let answer = talk.hear().await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (414, "target-too-long")
    );
    assert_eq!(world.emulator.flow.heads().get(), 1);
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_shorter_target_can_be_demanded() {
    let (_world, gateway, trigger) = served("[connections]\ntarget_size_max = \"300 B\"\n").await;
    let mut talk = gateway.talk().await;
    let with_target = |bytes: usize| {
        let query = "q".repeat(bytes - "/orders?".len());
        order_bytes("").replacen("/orders", &format!("/orders?{query}"), 1)
    };
    talk.say(with_target(300)).await;
    assert_eq!(talk.hear().await.status, 202);
    talk.say(with_target(301)).await;
    assert_eq!(talk.hear().await.code(), "target-too-long");
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_bad_request_on_http2_leaves_the_other_streams_alone() {
    let (_world, gateway, trigger) = served("").await;
    let gate = trigger.hold();
    let sender = gateway.connect_h2().await;
    let request = |host: Option<&str>| {
        let request = Request::post("https://localhost/orders").header("x-api-key", KEY);
        let request = host
            .into_iter()
            .fold(request, |request, host| request.header("host", host));
        request.body(Full::from("{}")).unwrap()
    };
    let waiting = tokio::spawn({
        let mut sender = sender.clone();
        let request = request(None);
        async move { send_h2(&mut sender, request).await }
    });
    gate.arrived(1).await;
    let mut other = sender.clone();
    let answer = send_h2(&mut other, request(Some("hooks.example"))).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (400, "malformed-request")
    );
    assert_eq!(
        answer.header("connection"),
        None,
        "there is no such field in HTTP/2"
    );
    gate.open();
    assert_eq!(waiting.await.unwrap().status, 202);
    assert_eq!(send_h2(&mut other, request(Some("localhost"))).await.status, 202);
    assert_eq!(trigger.runs(), 2);
}

#[tokio::test]
async fn large_heads_are_refused_on_http2_too() {
    let (_world, gateway, trigger) = served("").await;
    let mut sender = gateway.connect_h2().await;
    let request = Request::post("https://localhost/orders")
        .header("x-api-key", KEY)
        .header("x-large", "x".repeat(40_000));
    let answer = send_h2(&mut sender, request.body(Full::from("{}")).unwrap()).await;
    assert_eq!(answer.status, 431);
    let good = Request::post("https://localhost/orders").header("x-api-key", KEY);
    let good = good.body(Full::from("{}")).unwrap();
    assert_eq!(send_h2(&mut sender, good).await.status, 202);
    assert_eq!(trigger.runs(), 1);
}
