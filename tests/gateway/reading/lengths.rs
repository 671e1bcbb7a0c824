//! The end of a body on HTTP/1: one plain length or one `chunked`, and never both.

use crate::listening::{order_bytes, served};
use crate::reading::{Case, case, changed, refused};

/// A good order with these lines instead of its length.
fn framed(lines: &str) -> String {
    changed("Content-Length: 2\r\n", lines)
}

fn lengths() -> Vec<Case> {
    let values = [
        "",
        "+2",
        "-2",
        "-0",
        "+0",
        "02",
        "00",
        "0002",
        "2, 2",
        "2,2",
        "2,3",
        "2 2",
        "2,",
        ",2",
        "0x2",
        "0x",
        "2h",
        "a",
        "2.0",
        "2e0",
        "1_0",
        "\"2\"",
        "2;",
        "two",
        "\u{ff12}",
        "\u{b2}",
        // 2^64 + 2, and numbers that no integer type holds.
        "18446744073709551618",
        "99999999999999999999",
        "9223372036854775808",
        "100000000000000000000000000000000000000002",
        "00000000000000000000000000000000000000002",
    ];
    let one = |value: &&str| {
        case(
            format!("Content-Length: {value}"),
            framed(&format!("Content-Length: {value}\r\n")),
        )
    };
    let mut cases: Vec<Case> = values.iter().map(one).collect();
    let length = |value: &str| format!("Content-Length: {value}\r\n");
    cases.extend([
        case("two lengths", framed(&[length("2"), length("3")].concat())),
        case("two equal lengths", framed(&[length("2"), length("2")].concat())),
        case(
            "two lengths of nothing",
            framed(&[length("0"), length("0")].concat()),
        ),
        case(
            "two lengths apart from each other",
            format!("{}{{}}", order_bytes("X-Between: 1\r\nContent-Length: 2\r\n")),
        ),
        case(
            "two lengths in two spellings",
            framed("content-length: 2\r\nCONTENT-LENGTH: 2\r\n"),
        ),
        case(
            "a length and an empty one",
            framed(&[length("2"), length("")].concat()),
        ),
        case(
            "a wrong length on HTTP/1.0",
            framed(&length("+2")).replace("HTTP/1.1", "HTTP/1.0"),
        ),
        case(
            "two lengths on HTTP/1.0",
            framed(&[length("2"), length("2")].concat()).replace("HTTP/1.1", "HTTP/1.0"),
        ),
        case(
            "a wrong length of a GET",
            framed(&length("0, 0")).replacen("POST", "GET", 1),
        ),
    ]);
    cases
}

refused!(
    lengths();
    a_length_that_is_not_one_plain_number_is_refused,
    a_length_that_is_not_one_plain_number_does_not_escape_behind_a_good_request,
    a_length_that_is_not_one_plain_number_is_refused_in_two_pieces_too
);

fn codings() -> Vec<Case> {
    let values = [
        "",
        "identity",
        "gzip",
        "xchunked",
        "chunkedx",
        "chunke",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "chunked,chunked",
        "chunked,",
        ",chunked",
        "chunked;",
        "chunked;q=1",
        "chunked; x=y",
        "\"chunked\"",
        "chunked chunked",
        "x",
        "\u{b}chunked",
        "chun\tked",
        "trailers",
    ];
    let one = |value: &&str| {
        case(
            format!("Transfer-Encoding: {value}"),
            chunked(&format!("Transfer-Encoding: {value}\r\n")),
        )
    };
    let mut cases: Vec<Case> = values.iter().map(one).collect();
    let length = "Content-Length: 2\r\n";
    let coding = "Transfer-Encoding: chunked\r\n";
    cases.extend([
        case("chunked in two fields", chunked(&[coding, coding].concat())),
        case(
            "chunked, and identity in another field",
            chunked(&format!("{coding}Transfer-Encoding: identity\r\n")),
        ),
        case(
            "identity, and chunked in another field",
            chunked(&format!("Transfer-Encoding: identity\r\n{coding}")),
        ),
        case(
            "chunked, and an empty field",
            chunked(&format!("{coding}Transfer-Encoding:\r\n")),
        ),
        case("length and coding", chunked(&[length, coding].concat())),
        case("coding and length", chunked(&[coding, length].concat())),
        case(
            "a length of nothing and coding",
            chunked(&format!("Content-Length: 0\r\n{coding}")),
        ),
        case(
            "coding and a wrong length",
            chunked(&format!("{coding}Content-Length: abc\r\n")),
        ),
        case(
            "length and an unknown coding",
            framed(&format!("{length}Transfer-Encoding: x\r\n")),
        ),
        case(
            "chunked on HTTP/1.0",
            chunked(coding).replace("HTTP/1.1", "HTTP/1.0"),
        ),
        case(
            "chunked on HTTP/1.0 with a length",
            chunked(&[length, coding].concat()).replace("HTTP/1.1", "HTTP/1.0"),
        ),
        case(
            "chunked on HTTP/1.0 that is to stay open",
            chunked(&format!("Connection: keep-alive\r\n{coding}")).replace("HTTP/1.1", "HTTP/1.0"),
        ),
        case(
            "a wrong coding of a GET",
            chunked("Transfer-Encoding: identity\r\n").replacen("POST", "GET", 1),
        ),
    ]);
    cases
}

/// A good order with these lines instead of its length, and a chunked body.
fn chunked(lines: &str) -> String {
    framed(lines).replace("{}", "2\r\n{}\r\n0\r\n\r\n")
}

refused!(
    codings();
    a_coding_that_is_not_one_chunked_is_refused,
    a_coding_that_is_not_one_chunked_does_not_escape_behind_a_good_request,
    a_coding_that_is_not_one_chunked_is_refused_in_two_pieces_too
);

#[tokio::test]
async fn one_plain_length_or_one_chunked_is_served() {
    let (_world, gateway, trigger) = served("").await;
    let mut talk = gateway.talk().await;
    for good in [
        framed("Content-Length: 2\r\n"),
        framed("content-length:\t2 \r\n"),
        framed("Content-Length: 0\r\n").replace("{}", ""),
        framed("").replace("{}", ""),
        chunked("Transfer-Encoding: chunked\r\n"),
        chunked("transfer-encoding:CHUNKED \r\n"),
    ] {
        talk.say(&good).await;
        assert_eq!(talk.hear().await.status, 202, "{good}");
        let body = if good.contains("{}") { "{}" } else { "" };
        assert_eq!(trigger.last_request().text(), body, "{good}");
    }
}
