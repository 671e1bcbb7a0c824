//! One interpretation of every request: heads that another server on the way could read differently are
//! refused, and nothing of them is sent upstream.

use crate::harness::{KEY, Running};
use crate::listening::{assert_malformed, order, order_bytes, served};

/// A head with these lines between the first one and the body `{}`.
fn head(lines: &str) -> String {
    format!("POST /orders HTTP/1.1\r\nX-API-Key: {KEY}\r\n{lines}\r\n\r\n{{}}")
}

/// Sends each on a connection of its own, and expects our 400, a close, and no call of the flow.
async fn assert_all_refused(requests: &[(&str, String)]) {
    let (world, gateway, _) = served("").await;
    for (what, request) in requests {
        let mut talk = gateway.talk().await;
        talk.say(request).await;
        assert_malformed(&talk.hear().await, what);
        assert_eq!(talk.rest().await, "", "{what}");
    }
    assert_eq!(world.emulator.flow.heads().get(), 0);
    assert_eq!(gateway.send(order()).await.status, 202);
    assert_all_logged(&gateway, requests.len()).await;
}

/// Each refusal has a request line of its own.
async fn assert_all_logged(gateway: &Running, count: usize) {
    let refused = || {
        let lines = gateway.lines.all();
        lines
            .iter()
            .filter(|line| line.contains("\"problem\":\"malformed-request\""))
            .count()
    };
    gateway.lines.wait_for(|_| refused() == count).await;
}

#[tokio::test]
async fn a_body_with_two_ends_is_refused() {
    let host = "Host: localhost\r\n";
    assert_all_refused(&[
        (
            "two lengths",
            head(&format!("{host}Content-Length: 2\r\nContent-Length: 3")),
        ),
        (
            "two equal lengths",
            head(&format!("{host}Content-Length: 2\r\nContent-Length: 2")),
        ),
        ("a list of lengths", head(&format!("{host}Content-Length: 2, 2"))),
        ("a signed length", head(&format!("{host}Content-Length: +2"))),
        (
            "a length with leading zeros",
            head(&format!("{host}Content-Length: 02")),
        ),
        (
            "length and coding",
            head(&format!("{host}Content-Length: 2\r\nTransfer-Encoding: chunked")),
        ),
        (
            "coding and length",
            head(&format!("{host}Transfer-Encoding: chunked\r\nContent-Length: 2")),
        ),
        (
            "an unknown coding",
            head(&format!("{host}Transfer-Encoding: xchunked")),
        ),
        (
            "chunked not last",
            head(&format!("{host}Transfer-Encoding: chunked, identity")),
        ),
        (
            "chunked twice",
            head(&format!(
                "{host}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"
            )),
        ),
        (
            "chunked in HTTP/1.0",
            head(&format!("{host}Transfer-Encoding: chunked")).replace("HTTP/1.1", "HTTP/1.0"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_head_with_two_shapes_is_refused() {
    let good = order_bytes("");
    assert_all_refused(&[
        ("bare line feeds", good.replace("\r\n", "\n")),
        (
            "one bare line feed",
            good.replacen("localhost\r\n", "localhost\n", 1),
        ),
        ("an empty line before the head", format!("\r\n{good}")),
        (
            "an empty line of a bare feed before the head",
            format!("\n{good}"),
        ),
        ("a folded field", order_bytes("X-Long: one\r\n two\r\n")),
        ("a field folded by a tab", order_bytes("X-Long: one\r\n\ttwo\r\n")),
        ("a space before the colon", order_bytes("X-Field : 1\r\n")),
        ("a tab before the colon", order_bytes("X-Field\t: 1\r\n")),
        ("a field without a name", order_bytes(": 1\r\n")),
        ("a field without a colon", order_bytes("X-Field\r\n")),
        ("a NUL in a value", order_bytes("X-Field: a\0b\r\n")),
        (
            "a carriage return in a value",
            order_bytes("X-Field: a\rX-API-Key: b\r\n"),
        ),
        ("a delete character in a value", order_bytes("X-Field: \x7f\r\n")),
    ])
    .await;
}

#[tokio::test]
async fn an_ambiguous_target_is_refused() {
    let good = order_bytes("");
    let target = |target: &str| good.replacen("/orders", target, 1);
    assert_all_refused(&[
        ("a fragment", target("/orders#x")),
        ("a backslash", target("\\orders")),
        ("a backslash inside", target("/a/..\\orders")),
        ("bytes that are not ASCII", target("/ord\u{e9}rs")),
        (
            "CONNECT",
            good.replacen("POST /orders", "CONNECT localhost:443", 1),
        ),
        ("TRACE", good.replacen("POST", "TRACE", 1)),
    ])
    .await;
}

#[tokio::test]
async fn a_request_with_two_hosts_or_none_is_refused() {
    let absolute = |target: &str, host: &str| {
        format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nX-API-Key: {KEY}\r\nContent-Length: 2\r\n\r\n{{}}")
    };
    let length = "Content-Length: 2";
    assert_all_refused(&[
        (
            "two hosts",
            head(&format!("Host: localhost\r\nHost: hooks.example\r\n{length}")),
        ),
        (
            "one host twice",
            head(&format!("Host: localhost\r\nHost: localhost\r\n{length}")),
        ),
        ("no host", head(length)),
        ("an empty host", head(&format!("Host:\r\n{length}"))),
        ("a list of hosts", head(&format!("Host: a, b\r\n{length}"))),
        (
            "a host with a user",
            head(&format!("Host: me@localhost\r\n{length}")),
        ),
        (
            "a host with a path",
            head(&format!("Host: localhost/x\r\n{length}")),
        ),
        (
            "another host in the target",
            absolute("https://evil.example/orders", "localhost"),
        ),
        (
            "a user in the target",
            absolute("https://me@localhost/orders", "localhost"),
        ),
        ("another scheme", absolute("ftp://localhost/orders", "localhost")),
    ])
    .await;
}

#[tokio::test]
async fn a_bad_head_after_a_good_request_does_not_escape() {
    let (_world, gateway, trigger) = served("").await;
    let mut talk = gateway.talk().await;
    let bad = order_bytes("").replace("\r\n", "\n");
    let bytes = format!("{}{bad}{}", order_bytes(""), order_bytes(""));
    talk.say(bytes).await;
    assert_eq!(talk.hear().await.status, 202);
    assert_malformed(&talk.hear().await, "the second");
    assert_eq!(talk.rest().await, "", "nothing behind it is read");
    assert_eq!(trigger.request_count().get(), 1);
}

#[tokio::test]
async fn a_head_inside_a_body_is_a_body() {
    let (_world, gateway, trigger) = served("").await;
    let inside = order_bytes("X-Smuggled: 1\r\n");
    let size = inside.len();
    for request in [
        order_bytes("")
            .replace("Content-Length: 2", &format!("Content-Length: {size}"))
            .replace("{}", &inside),
        order_bytes("")
            .replace("Content-Length: 2", "Transfer-Encoding: chunked")
            .replace("{}", &format!("{size:x}\r\n{inside}\r\n0\r\n\r\n")),
    ] {
        let mut talk = gateway.talk().await;
        talk.say(request).await;
        assert_eq!(talk.hear().await.status, 202);
        assert_eq!(trigger.last_request().text(), inside);
        assert_eq!(trigger.last_request().header("x-smuggled"), None);
    }
    assert_eq!(trigger.request_count().get(), 2);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let (_world, gateway, trigger) = served("").await;
    let gate = trigger.hold();
    let mut talk = gateway.talk().await;
    talk.say(format!(
        "{}GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n{}",
        order_bytes(""),
        order_bytes("")
    ))
    .await;
    gate.arrived(1).await;
    // The second could be answered at once, but must not overtake the first.
    talk.silence(std::time::Duration::from_millis(200)).await;
    gate.open();
    let statuses = [
        talk.hear().await.status.as_u16(),
        talk.hear().await.status.as_u16(),
        talk.hear().await.status.as_u16(),
    ];
    assert_eq!(statuses, [202, 404, 202]);
    assert_eq!(trigger.runs(), 2);
}

#[tokio::test]
async fn a_chunked_body_with_wrong_framing_starts_no_run() {
    let (_world, gateway, trigger) = served("").await;
    for body in [
        "+2\r\n{}\r\n0\r\n\r\n",
        "0x2\r\n{}\r\n0\r\n\r\n",
        "2\n{}\r\n0\r\n\r\n",
        "2\r\n{}x\r\n0\r\n\r\n",
        "ffffffffffffffff2\r\n{}\r\n0\r\n\r\n",
        "-2\r\n{}\r\n0\r\n\r\n",
        "2 \r\n{}\r\n0\r\n\r\n",
    ] {
        let request = order_bytes("")
            .replace("Content-Length: 2", "Transfer-Encoding: chunked")
            .replace("{}", body);
        let mut talk = gateway.talk().await;
        talk.say(request).await;
        let heard = talk.rest().await;
        assert!(
            heard.is_empty() || heard.starts_with("HTTP/1.1 400"),
            "{body:?}: {heard}"
        );
    }
    assert_eq!(trigger.request_count().get(), 0);
    assert_eq!(gateway.send(order()).await.status, 202);
}
