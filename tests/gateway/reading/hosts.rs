//! The host of a request on HTTP/1: exactly one, wherever it is given.

use crate::emulator::Answer as Flow;
use crate::emulator::Trigger;
use crate::harness::{TENANT, World};
use crate::listening::{order_bytes, served};
use crate::reading::{Case, case, changed, refused};

/// Hosts that are missing or repeated.
fn counts() -> Vec<Case> {
    let host = |lines: &str| changed("Host: localhost\r\n", lines);
    let old = |bytes: String| bytes.replace("HTTP/1.1", "HTTP/1.0");
    vec![
        case("none", host("")),
        case("two", host("Host: localhost\r\nHost: hooks.example\r\n")),
        case("one twice", host("Host: localhost\r\nHost: localhost\r\n")),
        case(
            "one twice in two spellings",
            host("host: localhost\r\nHOST: localhost\r\n"),
        ),
        case("one, and an empty one", host("Host: localhost\r\nHost:\r\n")),
        case(
            "two apart from each other",
            order_bytes("Host: hooks.example\r\n"),
        ),
        case("two on HTTP/1.0", old(order_bytes("Host: hooks.example\r\n"))),
        case("one twice on HTTP/1.0", old(order_bytes("Host: localhost\r\n"))),
        case("an empty one on HTTP/1.0", old(host("Host:\r\n"))),
    ]
}

refused!(
    counts();
    a_request_with_no_host_or_two_is_refused,
    a_request_with_no_host_or_two_does_not_escape_behind_a_good_one,
    a_request_with_no_host_or_two_is_refused_in_two_pieces_too
);

/// Values that do not name one host.
fn values() -> Vec<Case> {
    let values: [&[u8]; 24] = [
        b"",
        b" ",
        b"a, b",
        b"localhost,localhost",
        b"localhost localhost",
        b"me@localhost",
        b"me:secret@localhost",
        b"localhost/orders",
        b"localhost?x",
        b"localhost#x",
        b"localhost\\x",
        b"https://localhost",
        b"localhost:",
        b"localhost:0",
        b"localhost:65536",
        b"localhost:+443",
        b"localhost:443x",
        b"localhost:443:443",
        b":443",
        b"local%68ost",
        b"l\xc3\xb6calhost",
        b"localhost..",
        b"[::1",
        b"[localhost]",
    ];
    let value = |value: &&[u8]| {
        let good = order_bytes("");
        let (before, after) = good.split_once("localhost").unwrap();
        let what = format!("Host: {}", value.escape_ascii());
        case(what, [before.as_bytes(), value, after.as_bytes()].concat())
    };
    values.iter().map(value).collect()
}

refused!(
    values();
    a_host_that_is_no_host_is_refused,
    a_host_that_is_no_host_does_not_escape_behind_a_good_request,
    a_host_that_is_no_host_is_refused_in_two_pieces_too
);

/// Targets that contain a host.
fn targets() -> Vec<Case> {
    let target = |target: &str| changed("/orders", target);
    let hostless = |bytes: String| bytes.replace("Host: localhost\r\n", "");
    vec![
        case("another host", target("https://evil.example/orders")),
        case("another host of ours", target("https://hooks.example/orders")),
        case("another host in plain", target("http://evil.example/orders")),
        case(
            "a host of which ours is the beginning",
            target("https://localhost.evil.example/orders"),
        ),
        case("another port", target("https://localhost:8443/orders")),
        case(
            "the port of another scheme",
            target("https://localhost:80/orders"),
        ),
        case("a user", target("https://me@localhost/orders")),
        case(
            "a user and a password",
            target("https://me:secret@localhost/orders"),
        ),
        case("an empty user", target("https://@localhost/orders")),
        case(
            "our host as a user",
            target("https://localhost@evil.example/orders"),
        ),
        case(
            "our host, and no Host",
            hostless(target("https://localhost/orders")),
        ),
        case(
            "a user on HTTP/1.0 without a Host",
            hostless(target("https://me@localhost/orders")).replace("HTTP/1.1", "HTTP/1.0"),
        ),
        case("another scheme", target("ftp://localhost/orders")),
        case("a scheme of web sockets", target("wss://localhost/orders")),
    ]
}

refused!(
    targets();
    a_target_that_names_another_host_is_refused,
    a_target_that_names_another_host_does_not_escape_behind_a_good_request,
    a_target_that_names_another_host_is_refused_in_two_pieces_too
);

#[tokio::test]
async fn the_absolute_form_leads_where_the_plain_one_leads() {
    let (_world, gateway, trigger) = served("").await;
    let mut talk = gateway.talk().await;
    for target in [
        "https://localhost/orders",
        "https://localhost:443/orders",
        "https://LOCALHOST/orders",
        "HTTPS://localhost/orders",
        "https://localhost/orders?x=1",
    ] {
        talk.say(changed("/orders", target)).await;
        assert_eq!(talk.hear().await.status, 202, "{target}");
        assert_eq!(trigger.last_request().head.target, trigger.target(), "{target}");
    }
}

#[tokio::test]
async fn http_1_0_without_a_host_finds_no_route_of_a_named_host() {
    let world = World::new().await;
    let trigger = Trigger::any_user(TENANT).does(Flow::Accepted);
    let named = world.emulator.flow.add(trigger);
    let gateway = world.start_with(&world.route("named", "/orders", &named.url(), "host = \"localhost\""));
    let hostless = order_bytes("")
        .replace("HTTP/1.1", "HTTP/1.0")
        .replace("Host: localhost\r\n", "");
    let mut talk = gateway.talk().await;
    talk.say(hostless).await;
    assert_eq!(talk.hear().await.code(), "route-unknown");
    assert_eq!(world.emulator.flow.heads().get(), 0);
}
