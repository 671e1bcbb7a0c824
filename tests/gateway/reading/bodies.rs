//! Bodies on HTTP/1: an ambiguous chunk starts no run, and content of a body, of a chunk extension or of a
//! trailer never becomes a request.

use crate::emulator::Trigger;
use crate::harness::{KEY, Running, TENANT, World};
use crate::listening::{order, order_bytes, served};
use crate::reading::{Case, assert_last, case, changed, each};

/// A request that would reach the flow if it were read as one.
fn smuggled() -> String {
    order_bytes("X-Smuggled: 1\r\n")
}

fn chunked(body: &str) -> String {
    changed("Content-Length: 2", "Transfer-Encoding: chunked").replace("{}", body)
}

fn with_length(body: &str) -> String {
    changed("Content-Length: 2", &format!("Content-Length: {}", body.len())).replace("{}", body)
}

/// Bodies whose end is ambiguous. Each is complete for some reader.
fn chunks() -> Vec<Case> {
    let long = format!("2;x={}\r\n{{}}\r\n0\r\n\r\n", "y".repeat(10_000));
    let trailer = format!("2\r\n{{}}\r\n0\r\nX-T: {}\r\n\r\n", "y".repeat(100_000));
    let bodies = [
        ("a size with a plus", "+2\r\n{}\r\n0\r\n\r\n"),
        ("a size with a minus", "-2\r\n{}\r\n0\r\n\r\n"),
        ("a size of minus nothing", "2\r\n{}\r\n-0\r\n\r\n"),
        ("a size with a prefix", "0x2\r\n{}\r\n0\r\n\r\n"),
        ("a last size with a prefix", "2\r\n{}\r\n0x0\r\n\r\n"),
        ("a size with a suffix", "2h\r\n{}\r\n0\r\n\r\n"),
        ("a size of letters", "two\r\n{}\r\n0\r\n\r\n"),
        ("no size", "\r\n{}\r\n0\r\n\r\n"),
        ("an extension without a size", ";x\r\n{}\r\n0\r\n\r\n"),
        ("a space before a size", " 2\r\n{}\r\n0\r\n\r\n"),
        ("a space after a size", "2 \r\n{}\r\n0\r\n\r\n"),
        ("a tab after a size", "2\t\r\n{}\r\n0\r\n\r\n"),
        ("a space in a size", "0 2\r\n{}\r\n0\r\n\r\n"),
        ("an underscore in a size", "0_2\r\n{}\r\n0\r\n\r\n"),
        ("2^64 and 2", "10000000000000002\r\n{}\r\n0\r\n\r\n"),
        ("2^63", "8000000000000000\r\n{}\r\n0\r\n\r\n"),
        ("2^64 - 1", "ffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
        ("17 digits", "fffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
        ("a bare feed after a size", "2\n{}\r\n0\r\n\r\n"),
        ("a bare feed after an extension", "2;x\n{}\r\n0\r\n\r\n"),
        ("a bare feed after the data", "2\r\n{}\n0\r\n\r\n"),
        ("a bare feed after the last size", "2\r\n{}\r\n0\n\r\n"),
        ("a bare feed at the end", "2\r\n{}\r\n0\r\n\n"),
        ("bare feeds everywhere", "2\n{}\n0\n\n"),
        ("a bare return after a size", "2\r{}\r\n0\r\n\r\n"),
        ("a bare return in an extension", "2;x\ry\r\n{}\r\n0\r\n\r\n"),
        ("a return too many", "2\r\r\n{}\r\n0\r\n\r\n"),
        ("a NUL in an extension", "2;x\0\r\n{}\r\n0\r\n\r\n"),
        ("more data than its size", "2\r\n{}}\r\n0\r\n\r\n"),
        ("less data than its size", "3\r\n{}\r\n0\r\n\r\n"),
        ("no line end after the data", "2\r\n{}0\r\n\r\n"),
        ("a bare feed after a trailer", "2\r\n{}\r\n0\r\nX-T: 1\n\r\n"),
        ("a NUL in a trailer", "2\r\n{}\r\n0\r\nX-T: \0\r\n\r\n"),
        ("a bare return in a trailer", "2\r\n{}\r\n0\r\nX-T: a\rb\r\n\r\n"),
        ("an endless extension", &long),
        ("an endless trailer", &trailer),
    ];
    bodies.map(|(what, body)| case(what, chunked(body))).into()
}

async fn assert_nothing_begun(gateway: &Running, heads: u64, world: &World) {
    assert_eq!(world.emulator.flow.heads().get(), heads);
    assert_eq!(gateway.send(order()).await.status, 202);
}

pub(super) async fn refused_alone(cases: &[Case]) {
    let (world, gateway, _) = served("").await;
    for Case { what, bytes } in cases {
        let mut talk = gateway.talk().await;
        // Enough data after it to complete whatever is still taken for a chunk.
        let behind = smuggled().repeat(2);
        let _ = talk.try_say([bytes, behind.as_bytes()].concat()).await;
        assert_last(&mut talk, what).await;
    }
    assert_nothing_begun(&gateway, 0, &world).await;
}

pub(super) async fn refused_after_a_good_one(cases: &[Case]) {
    let (world, gateway, _) = served("").await;
    each(cases, async |Case { what, bytes }| {
        let mut talk = gateway.talk().await;
        let good = order_bytes("");
        let _ = talk
            .try_say([good.as_bytes(), bytes, smuggled().as_bytes()].concat())
            .await;
        assert_eq!(talk.hear().await.status, 202, "the one before {what}");
        assert_last(&mut talk, what).await;
    })
    .await;
    assert_nothing_begun(&gateway, cases.len() as u64, &world).await;
}

pub(super) async fn refused_in_two_pieces(cases: &[Case]) {
    let world = World::new().await;
    let trigger = world.emulator.flow.add(Trigger::any_user(TENANT));
    // More requests than one caller may have by default.
    let name = "name = \"shop\"\n";
    let rate = "rate = { requests = 10000, per = \"1s\" }\n";
    let settings = world.base().replace(name, &format!("{name}{rate}"));
    let route = world.route("orders", "/orders", &trigger.url(), "");
    let gateway = world.start(&format!("{settings}{route}"));
    for Case { what, bytes } in cases {
        let body = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        for cut in [body, body + 1, body + 2, body + 3, bytes.len() - 1] {
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            let mut talk = gateway.talk().await;
            let _ = talk.try_say(first).await;
            let _ = talk.try_say([second, smuggled().as_bytes()].concat()).await;
            assert_last(&mut talk, &format!("{what}, cut at {cut}")).await;
        }
    }
    assert_nothing_begun(&gateway, 0, &world).await;
}

#[tokio::test]
async fn a_body_with_ambiguous_chunks_is_refused() {
    refused_alone(&chunks()).await;
}

#[tokio::test]
async fn such_a_body_does_not_escape_after_a_good_request() {
    refused_after_a_good_one(&chunks()).await;
}

#[tokio::test]
async fn such_a_body_is_refused_in_two_pieces_too() {
    refused_in_two_pieces(&chunks()).await;
}

#[tokio::test]
async fn unambiguous_chunks_are_served() {
    let (_world, gateway, trigger) = served("").await;
    let mut talk = gateway.talk().await;
    for body in [
        "2\r\n{}\r\n0\r\n\r\n",
        "02\r\n{}\r\n000\r\n\r\n",
        "1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
        "2;x=y;z=\"1\"\r\n{}\r\n0;last\r\n\r\n",
        "2\r\n{}\r\n0\r\nX-T: 1\r\nX-U: 2\r\n\r\n",
    ] {
        talk.say(chunked(body)).await;
        assert_eq!(talk.hear().await.status, 202, "{body:?}");
        let seen = trigger.last_request();
        assert_eq!(seen.text(), "{}", "{body:?}");
        assert_eq!(seen.header("content-length"), Some("2"), "{body:?}");
        assert_eq!(seen.header("transfer-encoding"), None, "{body:?}");
    }
}

#[tokio::test]
async fn a_request_in_a_body_is_a_body() {
    let (_world, gateway, trigger) = served("").await;
    let inside = smuggled();
    let size = format!("{:x}", inside.len());
    let ended = format!("0\r\n\r\n{inside}");
    let mut talk = gateway.talk().await;
    let mut runs = 0;
    for (request, body) in [
        (with_length(&inside), inside.clone()),
        (with_length(&ended), ended.clone()),
        (
            with_length(&format!("\r\n\r\n{inside}")),
            format!("\r\n\r\n{inside}"),
        ),
        (
            chunked(&format!("{size}\r\n{inside}\r\n0\r\n\r\n")),
            inside.clone(),
        ),
        (
            chunked(&format!("{:x}\r\n{ended}\r\n0\r\n\r\n", ended.len())),
            ended.clone(),
        ),
    ] {
        talk.say([request.as_str(), &order_bytes("X-Behind: 1\r\n")].concat())
            .await;
        assert_eq!(talk.hear().await.status, 202);
        assert_eq!(talk.hear().await.status, 202);
        runs += 2;
        let seen = trigger.requests();
        let [.., first, second] = seen.as_slice() else {
            panic!("two requests reach the flow");
        };
        assert_eq!((first.text(), first.header("x-smuggled")), (body, None));
        assert_eq!(
            (second.text().as_str(), second.header("x-behind")),
            ("{}", Some("1"))
        );
        assert_eq!(trigger.request_count().get(), runs);
    }
}

#[tokio::test]
async fn a_request_in_an_extension_or_a_trailer_is_never_read() {
    let (world, gateway, trigger) = served("").await;
    let inside = smuggled();
    for body in [
        format!("2\r\n{{}}\r\n0;\r\n{inside}"),
        format!("2\r\n{{}}\r\n0\r\n{inside}"),
        format!("2\r\n{{}}\r\n0\r\nX-T: 1\r\n{inside}"),
    ] {
        let before = trigger.request_count().get();
        let mut talk = gateway.talk().await;
        let _ = talk.try_say(chunked(&body)).await;
        // Read as a trailer or refused: either way the order itself is the only request before the text after
        // it.
        let heard = talk.hear().await;
        assert!([202, 400].contains(&heard.status.as_u16()), "{body:?}");
        let after = trigger.requests();
        let new = after.get(before as usize..).unwrap_or_default();
        assert!(
            new.iter().all(|seen| seen.header("x-smuggled").is_none()),
            "{body:?}"
        );
    }
    world.emulator.assert_clean();
}

#[tokio::test]
async fn a_request_in_the_body_of_a_refused_one_is_never_read() {
    let (world, gateway, _) = served("").await;
    let inside = smuggled();
    let bodies = [
        with_length(&inside),
        chunked(&format!("{:x}\r\n{inside}\r\n0\r\n\r\n", inside.len())),
    ];
    for good in bodies {
        let refusals = [
            (401, good.replacen(KEY, "guess", 1)),
            (404, good.replacen("/orders", "/nowhere", 1)),
            (405, good.replacen("POST", "PUT", 1)),
            (400, good.replacen("X-API-Key", "X_API_Key", 1)),
            (400, good.replacen("/orders", "/a/../orders", 1)),
            (417, good.replacen("Host:", "Expect: magic\r\nHost:", 1)),
            (
                404,
                good.replacen("/orders", "/nowhere", 1)
                    .replacen("Host:", "Expect: 100-continue\r\nHost:", 1),
            ),
        ];
        for (status, request) in refusals {
            let mut talk = gateway.talk().await;
            talk.say(&request).await;
            let answer = talk.hear().await;
            assert_eq!(answer.status.as_u16(), status, "{request}");
            if answer.header("connection") == Some("close") {
                assert_eq!(talk.rest().await, "", "{request}");
                continue;
            }
            // The connection stays open: the next answer belongs to the next request, not to the one in the
            // body.
            talk.say("GET /elsewhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .await;
            assert_eq!(talk.hear().await.code(), "route-unknown", "{request}");
        }
    }
    assert_eq!(world.emulator.flow.heads().get(), 0);
}

#[tokio::test]
async fn a_body_where_none_is_usual_is_a_body() {
    let (world, gateway, trigger) = served("").await;
    let inside = smuggled();
    let mut talk = gateway.talk().await;
    for method in ["GET", "DELETE", "OPTIONS", "HEAD", "QUERY"] {
        talk.say(with_length(&inside).replacen("POST", method, 1)).await;
        let answer = talk.hear_after(method).await;
        assert_eq!(answer.status, 405, "{method}");
    }
    talk.say(order_bytes("")).await;
    assert_eq!(talk.hear().await.status, 202);
    assert_eq!(trigger.request_count().get(), 1);
    assert_eq!(world.emulator.flow.heads().get(), 1);
}
