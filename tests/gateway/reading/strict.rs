//! What only a strict reader of HTTP/1 refuses with our own messages: request lines, names, trailers and
//! extensions that violate RFC 9112, and requests in one piece that must not wait for each other.

use std::time::Duration;

use tokio::time::Instant;

use crate::listening::{order_bytes, served};
use crate::reading::{Case, bodies, case, changed, refused};

fn versions() -> Vec<Case> {
    let versions = [
        "HTTP/1.2",
        "HTTP/1.9",
        "HTTP/1.10",
        "HTTP/1.01",
        "HTTP/01.1",
        "HTTP/0.9",
        "HTTP/2.0",
        "HTTP/2",
        "HTTP/3",
        "HTTP/1",
        "HTTP/1.",
        "HTTP/.1",
        "HTTP/1.1.1",
        "HTTP/1,1",
        "HTTP/-1.1",
        "HTTP/1.1x",
        "HTTP 1.1",
        "HTTPS/1.1",
        "HTTP",
        "http/1.1",
        "Http/1.1",
        "hTTP/1.0",
        "XTTP/1.1",
    ];
    let mut cases: Vec<Case> = versions
        .iter()
        .map(|version| case(*version, changed("HTTP/1.1", version)))
        .collect();
    cases.extend([
        case("no version", changed(" HTTP/1.1", "")),
        case("HTTP/0.9", "GET /orders\r\n\r\n"),
        case("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ]);
    cases
}

refused!(
    versions();
    a_version_that_is_not_spoken_is_refused,
    a_version_that_is_not_spoken_does_not_escape_behind_a_good_request,
    a_version_that_is_not_spoken_is_refused_in_two_pieces_too
);

fn request_lines() -> Vec<Case> {
    let line = |what: &str, line: &str| case(what, changed("POST /orders HTTP/1.1", line));
    vec![
        line("two spaces after the method", "POST  /orders HTTP/1.1"),
        line("two spaces before the version", "POST /orders  HTTP/1.1"),
        line("a space at the front", " POST /orders HTTP/1.1"),
        line("a space at the end", "POST /orders HTTP/1.1 "),
        line("a tab after the method", "POST\t/orders HTTP/1.1"),
        line("a tab before the version", "POST /orders\tHTTP/1.1"),
        line("tabs between all", "POST\t/orders\tHTTP/1.1"),
        line("a tab at the front", "\tPOST /orders HTTP/1.1"),
        line("a tab at the end", "POST /orders HTTP/1.1\t"),
        line("a tab in the target", "POST /or\tders HTTP/1.1"),
        line("four words", "POST /orders x HTTP/1.1"),
        line("two versions", "POST /orders HTTP/1.1 HTTP/1.1"),
        line("a target with a version", "POST /orders HTTP/1.0 HTTP/1.1"),
        line("no method", "/orders HTTP/1.1"),
        line("an empty method", " /orders HTTP/1.1"),
        line("no target", "POST HTTP/1.1"),
        line("an empty target", "POST  HTTP/1.1"),
        line("a query alone", "POST ?x HTTP/1.1"),
        line("one word", "POST"),
        line("a method in quotes", "\"POST\" /orders HTTP/1.1"),
        line("a method with a parenthesis", "PO(ST /orders HTTP/1.1"),
        line("a method with a slash", "PO/ST /orders HTTP/1.1"),
        line("a method with a colon", "POST: /orders HTTP/1.1"),
        line("a method with a comma", "GET,POST /orders HTTP/1.1"),
        line("a method beyond ASCII", "P\u{d6}ST /orders HTTP/1.1"),
        line("a field as the first line", "Host: localhost"),
    ]
}

refused!(
    request_lines();
    a_request_line_that_is_not_three_words_is_refused,
    a_request_line_that_is_not_three_words_does_not_escape_behind_a_good_request,
    a_request_line_that_is_not_three_words_is_refused_in_two_pieces_too
);

fn names() -> Vec<Case> {
    let characters = " \t\"(),/;<=>?@[\\]{}\u{e9}\u{a0}";
    let mut cases: Vec<Case> = characters
        .chars()
        .map(|character| {
            let what = format!("a name with {}", character.escape_default());
            case(what, order_bytes(&format!("X{character}Field: 1\r\n")))
        })
        .collect();
    cases.extend([
        case("a host after a word", order_bytes("x Host: evil.example\r\n")),
        case("a length in brackets", order_bytes("[Content-Length]: 3\r\n")),
        case(
            "a coding after a space beyond ASCII",
            order_bytes("\u{a0}Transfer-Encoding: chunked\r\n"),
        ),
    ]);
    cases
}

refused!(
    names();
    a_name_that_is_no_token_is_refused,
    a_name_that_is_no_token_does_not_escape_behind_a_good_request,
    a_name_that_is_no_token_is_refused_in_two_pieces_too
);

/// Bodies whose data are certain, and whose trailers or extensions are ambiguous.
fn endings() -> Vec<Case> {
    let bodies = [
        ("a quote that stays open", "2;x=\"\r\n{}\r\n0\r\n\r\n"),
        (
            "a quote over two lines",
            "2;x=\"\r\n{}\r\n0\r\n\r\n\"\r\n{}\r\n0\r\n\r\n",
        ),
        ("a trailer without a colon", "2\r\n{}\r\n0\r\nX-T\r\n\r\n"),
        ("a trailer without a name", "2\r\n{}\r\n0\r\n: 1\r\n\r\n"),
        (
            "a space before a trailer's colon",
            "2\r\n{}\r\n0\r\nX-T : 1\r\n\r\n",
        ),
        ("a space in a trailer's name", "2\r\n{}\r\n0\r\nX T: 1\r\n\r\n"),
        ("a folded trailer", "2\r\n{}\r\n0\r\nX-T: 1\r\n 2\r\n\r\n"),
        (
            "a trailer folded into the last size",
            "2\r\n{}\r\n0\r\n X-T: 1\r\n\r\n",
        ),
    ];
    bodies
        .map(|(what, body)| {
            let chunked = changed("Content-Length: 2", "Transfer-Encoding: chunked");
            case(what, chunked.replace("{}", body))
        })
        .into()
}

#[tokio::test]
async fn a_chunked_body_with_an_ambiguous_ending_is_refused() {
    bodies::refused_alone(&endings()).await;
}

#[tokio::test]
async fn an_ambiguous_ending_does_not_escape_after_a_good_request() {
    bodies::refused_after_a_good_one(&endings()).await;
}

#[tokio::test]
async fn an_ambiguous_ending_is_refused_in_two_pieces_too() {
    bodies::refused_in_two_pieces(&endings()).await;
}

#[tokio::test]
async fn requests_in_one_piece_do_not_wait_for_anything_but_each_other() {
    let (_world, gateway, trigger) = served("").await;
    let mut talk = gateway.talk().await;
    talk.say(order_bytes("")).await;
    assert_eq!(talk.hear().await.status, 202);
    let began = Instant::now();
    talk.say(order_bytes("").repeat(20)).await;
    for _ in 0..20 {
        assert_eq!(talk.hear().await.status, 202);
    }
    assert_eq!(trigger.runs(), 21);
    // Waiting for the connection's timer on each would take ten seconds.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}
