//! Malformed requests on HTTP/2: each ends with our 400 or a reset of its own stream, nothing of it is sent
//! upstream, and the other streams of the connection live. What ends the whole connection is in `below.rs`.

use crate::harness::KEY;
use crate::listening::{order_bytes, served};
use crate::reading::frames::{Fields, Heard, Peer, and, fields, good, with, without};

/// A request that must be refused, and what is wrong with it.
struct Case {
    what: String,
    head: Fields,
    body: Option<&'static str>,
}

fn case(what: impl Into<String>, head: Fields) -> Case {
    Case {
        what: what.into(),
        head,
        body: Some("{}"),
    }
}

fn bodiless(what: impl Into<String>, head: Fields) -> Case {
    Case {
        what: what.into(),
        head,
        body: None,
    }
}

/// A good order with this field before all others.
fn first(name: &str, value: &str) -> Fields {
    let mut head = fields(&[(name, value)]);
    head.extend(good());
    head
}

/// A good order whose pseudo-field comes after the regular ones.
fn last(name: &str) -> Fields {
    let mut head = good();
    let at = head.iter().position(|(own, _)| own == name.as_bytes()).unwrap();
    let field = head.remove(at);
    head.push(field);
    head
}

/// Each between two good ones on one connection, of which the first is still waiting for its answer. A field that h2 cannot
/// decode ends the connection.
async fn assert_all_refused(cases: Vec<Case>) {
    let (world, gateway, trigger) = served("").await;
    for Case { what, head, body } in cases {
        let before = world.emulator.flow.heads().get();
        let gate = trigger.hold();
        let mut peer = Peer::connect(&world, &gateway).await;
        let waiting = peer.send(&good(), b"{}").await;
        gate.arrived(1).await;
        let bad = match body {
            Some(body) => peer.send(&head, body.as_bytes()).await,
            None => peer.send_bodiless(&head).await,
        };
        let heard = tokio::select! {
            heard = peer.hear(bad) => heard,
            () = gate.arrived(2) => panic!("{what}: it reaches the flow"),
        };
        assert!(heard.is_refusal_or_end(), "{what}: {heard:?}");
        gate.open();
        if matches!(heard, Heard::Over(_)) {
            assert_eq!(world.emulator.flow.heads().get(), before + 1, "{what}");
            continue;
        }
        assert_eq!(
            peer.hear(waiting).await,
            Heard::status(202),
            "the one before {what}"
        );
        assert_eq!(
            peer.ask(&good(), b"{}").await,
            Heard::status(202),
            "the one after {what}"
        );
        assert_eq!(world.emulator.flow.heads().get(), before + 2, "{what}");
    }
}

#[tokio::test]
async fn pseudo_fields_are_there_once_and_first() {
    let mut cases = Vec::new();
    for (name, other) in [
        (":method", "PUT"),
        (":scheme", "http"),
        (":authority", "hooks.example"),
        (":path", "/elsewhere"),
    ] {
        let own = good()
            .into_iter()
            .find(|(own, _)| own == name.as_bytes())
            .unwrap();
        let own = String::from_utf8(own.1).unwrap();
        cases.push(case(format!("two different {name}"), first(name, other)));
        cases.push(case(format!("two equal {name}"), first(name, &own)));
        cases.push(case(
            format!("{name} again after the regular ones"),
            and(name, &own),
        ));
        cases.push(case(format!("{name} after the regular ones"), last(name)));
        cases.push(case(format!("no {name}"), without(name)));
        if name != ":method" {
            cases.push(case(format!("an empty {name}"), with(name, "")));
        }
    }
    cases.extend([
        case("a pseudo-field of answers", first(":status", "200")),
        case(
            "an extended CONNECT that is none",
            first(":protocol", "websocket"),
        ),
        case("an extended CONNECT", {
            let mut head = first(":protocol", "websocket");
            head.retain(|(name, _)| name != b"content-length");
            head.iter_mut()
                .filter(|(name, _)| name == b":method")
                .for_each(|(_, value)| *value = b"CONNECT".to_vec());
            head
        }),
    ]);
    assert_all_refused(cases).await;
}

#[tokio::test]
async fn a_request_for_another_host_or_scheme_is_refused() {
    let authority = |value: &str| case(format!(":authority: {value}"), with(":authority", value));
    let host = |value: &str| case(format!("host: {value}"), and("host", value));
    let scheme = |value: &str| case(format!(":scheme: {value}"), with(":scheme", value));
    let alone = |values: &[&str]| {
        let mut head = without(":authority");
        for value in values {
            head.extend(fields(&[("host", value)]));
        }
        case(format!("no :authority, host: {values:?}"), head)
    };
    let mut two = and("host", "localhost");
    two.extend(fields(&[("host", "localhost")]));
    assert_all_refused(vec![
        authority("me@localhost"),
        authority("@localhost"),
        authority("localhost@evil.example"),
        authority("localhost/x"),
        authority("localhost, hooks.example"),
        authority("localhost:"),
        authority("localhost:0"),
        authority("localhost:x"),
        authority("[::1"),
        authority("local%68ost"),
        authority("l\u{f6}calhost"),
        host("hooks.example"),
        host("localhost:80"),
        host("localhost:8443"),
        host("localhost.evil.example"),
        host(""),
        host("localhost, localhost"),
        host("me@localhost"),
        case("host twice", two),
        alone(&[]),
        alone(&[""]),
        alone(&["me@localhost"]),
        alone(&["localhost", "localhost"]),
        alone(&["localhost", "hooks.example"]),
        scheme("http"),
        scheme("ftp"),
        scheme("wss"),
        scheme("ht tps"),
        scheme("https:"),
    ])
    .await;
}

#[tokio::test]
async fn a_length_that_is_not_one_plain_number_is_refused_on_http2() {
    let mut cases: Vec<Case> = [
        "",
        "+2",
        "-2",
        "02",
        "0002",
        "2, 2",
        "2,2",
        "2 2",
        "0x2",
        "2.0",
        "two",
        "18446744073709551618",
        "99999999999999999999",
    ]
    .iter()
    .map(|value| case(format!("content-length: {value}"), with("content-length", value)))
    .collect();
    cases.extend([
        case("two equal lengths", and("content-length", "2")),
        case("two different lengths", and("content-length", "3")),
        case("a length and an empty one", and("content-length", "")),
        bodiless("two lengths of nothing", {
            let mut head = with("content-length", "0");
            head.extend(fields(&[("content-length", "0")]));
            head
        }),
    ]);
    assert_all_refused(cases).await;
}

#[tokio::test]
async fn a_length_that_disagrees_with_the_data_is_refused() {
    assert_all_refused(vec![
        case("more data than said", with("content-length", "1")),
        case("data where none was said", with("content-length", "0")),
        case("less data than said", with("content-length", "3")),
        bodiless("no data where some was said", with("content-length", "2")),
    ])
    .await;
}

#[tokio::test]
async fn a_streamed_body_shorter_than_said_is_never_whole_to_the_flow() {
    let (world, gateway, trigger) = served("[bodies]\nhold_size_max = \"1 KiB\"\n").await;
    let mut peer = Peer::connect(&world, &gateway).await;
    for (said, sent) in [(5000, 4000), (4000, 5000)] {
        let heard = peer
            .ask(&with("content-length", said.to_string()), &vec![b'x'; sent])
            .await;
        assert!(heard.is_refusal(), "{said} said, {sent} sent: {heard:?}");
        let whole = trigger.requests().iter().any(|seen| seen.body_complete);
        assert!(!whole, "{said} said, {sent} sent");
    }
    assert_eq!(peer.ask(&good(), b"{}").await, Heard::status(202));
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn fields_of_one_connection_do_not_exist_on_http2() {
    assert_all_refused(
        [
            ("connection", "close"),
            ("connection", "x-api-key"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("transfer-encoding", "identity"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
            ("te", "trailers, gzip"),
            ("te", "chunked"),
        ]
        .iter()
        .map(|(name, value)| case(format!("{name}: {value}"), and(name, value)))
        .collect(),
    )
    .await;
}

#[tokio::test]
async fn a_value_with_outer_blanks_is_refused_on_http2() {
    assert_all_refused(
        [" 1", "1 ", "\t1", "1\t", " ", "\t"]
            .iter()
            .map(|value| case(format!("x-blank: {value:?}"), and("x-blank", value)))
            .collect(),
    )
    .await;
}

#[tokio::test]
async fn a_name_that_is_no_token_is_refused_on_http2() {
    assert_all_refused(
        ["x\"name", "x(name", "x/name", "x;name", "x{name"]
            .iter()
            .map(|name| case(*name, and(name, "1")))
            .collect(),
    )
    .await;
}

#[tokio::test]
async fn an_ambiguous_path_is_refused_on_http2() {
    let path = |path: &[u8]| case(format!(":path: {}", path.escape_ascii()), with(":path", path));
    let paths: [&[u8]; 21] = [
        b"orders",
        b"*",
        b"?x",
        b"https://localhost/orders",
        b"//localhost/orders",
        b"\\orders",
        b"/a\\..\\orders",
        b"/orders?a=\\b",
        "/\u{f6}rders".as_bytes(),
        "/orders?a=\u{f6}".as_bytes(),
        b"/or ders",
        b"/orders?a b",
        b"/or\tders",
        b"/orders\x7f",
        b"/orders?\x7f",
        b"/orders#x",
        b"/orders?a#b",
        b"/#/orders",
        b"/orders HTTP/1.1",
        b"/orders HTTP/1.1\r\nx-smuggled: 1",
        b"/orders?\r\nx-smuggled: 1",
    ];
    assert_all_refused(paths.into_iter().map(path).collect()).await;
}

#[tokio::test]
async fn a_method_that_is_not_served_is_refused_on_http2() {
    assert_all_refused(vec![
        case("TRACE", with(":method", "TRACE")),
        bodiless("TRACE without a body", {
            let mut head = with(":method", "TRACE");
            head.retain(|(name, _)| name != b"content-length");
            head
        }),
        case("CONNECT with a path", with(":method", "CONNECT")),
        bodiless(
            "CONNECT to a host",
            fields(&[
                (":method", "CONNECT"),
                (":authority", "localhost:443"),
                ("x-api-key", KEY),
            ]),
        ),
        bodiless(
            "CONNECT to us",
            fields(&[
                (":method", "CONNECT"),
                (":authority", "localhost"),
                ("x-api-key", KEY),
            ]),
        ),
        bodiless("OPTIONS of everything", {
            let mut head = with(":method", "OPTIONS");
            head.retain(|(name, _)| name != b"content-length");
            head.iter_mut()
                .filter(|(name, _)| name == b":path")
                .for_each(|(_, value)| *value = b"*".to_vec());
            head
        }),
    ])
    .await;
}

#[tokio::test]
async fn unusual_but_unambiguous_requests_are_served_on_http2() {
    let (world, gateway, trigger) = served("").await;
    let mut peer = Peer::connect(&world, &gateway).await;
    let mut hosted = without(":authority");
    hosted.extend(fields(&[("host", "localhost")]));
    for head in [
        good(),
        hosted,
        without("content-length"),
        and("host", "localhost"),
        and("host", "LOCALHOST:443"),
        and("te", "trailers"),
        and("x-empty", ""),
        and("x-name", "Mot\u{f6}rhead"),
        with(":authority", "localhost:443"),
        with(":path", "/orders?a=%2f..%2f&b"),
    ] {
        assert_eq!(peer.ask(&head, b"{}").await, Heard::status(202), "{head:?}");
        assert_eq!(trigger.last_request().head.target, trigger.target());
    }
    let empty = with("content-length", "0");
    let stream = peer.send_bodiless(&empty).await;
    assert_eq!(peer.hear(stream).await, Heard::status(202));
}

#[tokio::test]
async fn a_request_of_http1_in_the_data_is_data() {
    let (world, gateway, trigger) = served("").await;
    let mut peer = Peer::connect(&world, &gateway).await;
    let inside = order_bytes("X-Smuggled: 1\r\n");
    for (before, body) in [
        inside.clone(),
        format!("0\r\n\r\n{inside}"),
        format!("{:x}\r\n{inside}\r\n0\r\n\r\n", inside.len()),
    ]
    .into_iter()
    .enumerate()
    {
        for head in [
            without("content-length"),
            with("content-length", body.len().to_string()),
        ] {
            assert_eq!(peer.ask(&head, body.as_bytes()).await, Heard::status(202));
            let seen = trigger.last_request();
            assert_eq!((seen.text(), seen.header("x-smuggled")), (body.clone(), None));
        }
        assert_eq!(trigger.request_count().get(), 2 * (before as u64 + 1));
    }
    world.emulator.assert_clean();
}
