//! Line ends, empty lines, folding, colons and characters: the boundaries and names of fields.

use crate::listening::{order_bytes, served};
use crate::reading::{Case, case, changed, refused};

/// Line ends that only some readers accept.
fn ends() -> Vec<Case> {
    let good = order_bytes("");
    vec![
        case("bare feeds everywhere", good.replace("\r\n", "\n")),
        case(
            "a bare feed after the request line",
            changed("HTTP/1.1\r\n", "HTTP/1.1\n"),
        ),
        case(
            "a bare feed after a field",
            changed("localhost\r\n", "localhost\n"),
        ),
        case(
            "a bare feed after the last field",
            changed("2\r\n\r\n", "2\n\r\n"),
        ),
        case("a bare feed as the empty line", changed("\r\n\r\n", "\r\n\n")),
        case("two bare feeds at the end", changed("\r\n\r\n", "\n\n")),
        case(
            "a bare return after the request line",
            changed("HTTP/1.1\r\n", "HTTP/1.1\r"),
        ),
        case(
            "a bare return after a field",
            changed("localhost\r\n", "localhost\r"),
        ),
        case(
            "a return too many after a field",
            changed("localhost\r\n", "localhost\r\r\n"),
        ),
        case("a return too many at the end", changed("\r\n\r\n", "\r\n\r\r\n")),
        case(
            "a bare return in a value",
            order_bytes("X-Field: a\rX-API-Key: b\r\n"),
        ),
        case("a bare return in a name", order_bytes("X-Fi\reld: a\r\n")),
        case("a bare return in the target", changed("/orders", "/ord\rers")),
    ]
}

refused!(
    ends();
    a_line_end_that_is_not_return_and_feed_is_refused,
    such_a_line_end_does_not_escape_behind_a_good_request,
    such_a_line_end_is_refused_in_two_pieces_too
);

/// Lines where none are allowed, and lines that continue the one before.
fn shapes() -> Vec<Case> {
    let good = order_bytes("");
    vec![
        case("an empty line before the head", format!("\r\n{good}")),
        case("two empty lines before the head", format!("\r\n\r\n{good}")),
        case("a bare feed before the head", format!("\n{good}")),
        case("a bare return before the head", format!("\r{good}")),
        case(
            "a value folded by a space",
            order_bytes("X-Long: one\r\n two\r\n"),
        ),
        case("a value folded by a tab", order_bytes("X-Long: one\r\n\ttwo\r\n")),
        case(
            "a value folded before its first word",
            order_bytes("X-Long:\r\n one\r\n"),
        ),
        case(
            "a field folded into the one before",
            order_bytes("X-Long: one\r\n X-API-Key: b\r\n"),
        ),
        case("a folded line as the first", changed("Host:", " Host:")),
        case("a line of one space", order_bytes(" \r\n")),
        case("a line of one tab", order_bytes("\t\r\n")),
        case(
            "a length folded over two lines",
            changed("Content-Length: 2", "Content-Length:\r\n 2"),
        ),
    ]
}

refused!(
    shapes();
    an_empty_or_folded_line_is_refused,
    an_empty_or_folded_line_does_not_escape_behind_a_good_request,
    an_empty_or_folded_line_is_refused_in_two_pieces_too
);

/// Fields with an ambiguous name.
fn names() -> Vec<Case> {
    vec![
        case("a space before the colon", order_bytes("X-Field : 1\r\n")),
        case("a tab before the colon", order_bytes("X-Field\t: 1\r\n")),
        case(
            "a space before the colon of a length",
            changed("Content-Length:", "Content-Length :"),
        ),
        case(
            "a space before the colon of a coding",
            order_bytes("Transfer-Encoding : chunked\r\n"),
        ),
        case("a space before the colon of the host", changed("Host:", "Host :")),
        case("a field without a name", order_bytes(": 1\r\n")),
        case("a field of one colon", order_bytes(":\r\n")),
        case("a field without a colon", order_bytes("X-Field\r\n")),
    ]
}

refused!(
    names();
    a_field_without_one_clear_name_is_refused,
    a_field_without_one_clear_name_does_not_escape_behind_a_good_request,
    a_field_without_one_clear_name_is_refused_in_two_pieces_too
);

/// Every control character except tab, return and feed, which have tests of their own, in each part of the
/// head.
fn controls() -> Vec<Case> {
    let controls = (0u8..0x20).chain([0x7f]).filter(|byte| !b"\t\r\n".contains(byte));
    let mut cases = Vec::new();
    for byte in controls {
        let place = |what: &str, before: &str, after: &str| {
            let bytes = [before.as_bytes(), &[byte], after.as_bytes()].concat();
            case(format!("{byte:#04x} in {what}"), bytes)
        };
        let good = order_bytes("");
        let (to_value, from_value) = good.split_at(good.find("localhost").unwrap());
        cases.push(place("a value", to_value, from_value));
        if matches!(byte, 0 | 0x0b | 0x0c | 0x1b | 0x7f) {
            let (to_target, from_target) = good.split_at(good.find("orders").unwrap());
            let (to_name, from_name) = good.split_at(good.find("Length").unwrap());
            let (to_end, from_end) = good.split_at(good.find("\r\n").unwrap());
            cases.push(place("the target", to_target, from_target));
            cases.push(place("a name", to_name, from_name));
            cases.push(place("the version", to_end, from_end));
            cases.push(place("front of the head", "", &good));
        }
    }
    cases
}

refused!(
    controls();
    a_control_character_in_the_head_is_refused,
    a_control_character_does_not_escape_behind_a_good_request,
    a_control_character_is_refused_in_two_pieces_too
);

#[tokio::test]
async fn unusual_but_unambiguous_requests_are_served() {
    let (_world, gateway, trigger) = served("").await;
    let mut talk = gateway.talk().await;
    for good in [
        changed("Host: localhost", "host:localhost"),
        changed("Host: localhost", "HOST: \t localhost \t "),
        changed("Host: localhost", "Host: LocalHost"),
        order_bytes("X-Empty:\r\nX-Empty: \r\n"),
        order_bytes("X-Tab: a\tb\r\n"),
        order_bytes("X-Colon: a:b: c\r\n"),
        order_bytes("!#$%&'*+-.^`|~1: token\r\n"),
        changed("Content-Length: 2", "content-LENGTH:2"),
        changed("/orders", "/orders?"),
        changed("/orders", "/orders?a=%2f..%2f&b"),
    ] {
        talk.say(&good).await;
        assert_eq!(talk.hear().await.status, 202, "{good}");
    }
    // Bytes beyond ASCII in a value pass unchanged (RFC 9110 section 5.5).
    talk.say(order_bytes("X-Name: Mot\u{f6}rhead\r\n")).await;
    assert_eq!(talk.hear().await.status, 202);
    let seen = trigger.last_request();
    let sent = seen.head.headers.iter().any(|(_, value)| {
        let value: &[u8] = value.as_ref();
        value == "Mot\u{f6}rhead".as_bytes()
    });
    assert!(sent, "{seen:?}");
}
