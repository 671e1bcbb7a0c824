//! Header blocks on HTTP/2 with a field that cannot be one, however it is written: its stream ends with our 400 or a
//! reset, those before and behind it live, and nothing of it goes upstream.

use crate::harness::KEY;
use crate::listening::served;
use crate::reading::frames::CONTINUATION;
use crate::reading::frames::END_HEADERS;
use crate::reading::frames::END_STREAM;
use crate::reading::frames::Fields;
use crate::reading::frames::HEADERS;
use crate::reading::frames::Heard;
use crate::reading::frames::Peer;
use crate::reading::frames::and;
use crate::reading::frames::block;
use crate::reading::frames::fields;
use crate::reading::frames::frame;
use crate::reading::frames::good;
use crate::reading::frames::with;
use crate::reading::frames::without;
use crate::reading::frames::write_length;

/// How a literal is kept by the other side (RFC 7541 section 6.2).
const KEPT: u8 = 0x40;
const NOT_KEPT: u8 = 0x00;
const NEVER_KEPT: u8 = 0x10;
/// The newest entry of the table, as a whole field.
const NEWEST: u8 = 0x80 | 62;

/// Strings in the code of Huffman (RFC 7541 appendix B).
const UPPER: [u8; 4] = [0xfc, 0xf3, 0xe7, 0xcf];
const LOWER: [u8; 4] = [0xf3, 0xe7, 0xcf, 0x9f];

fn string(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_length(&mut bytes, text.len());
    bytes.extend(text);
    bytes
}

fn coded(code: &[u8]) -> Vec<u8> {
    let mut bytes = string(code);
    bytes[0] |= 0x80;
    bytes
}

fn literal(kind: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[kind][..], &string(name), &string(value)].concat()
}

/// A good order, and these bytes behind its fields.
fn good_and(more: &[u8]) -> Vec<u8> {
    [block(&good()), more.to_vec()].concat()
}

/// Blocks that must cost their stream only, and what is wrong with them.
fn wrong() -> Vec<(String, Vec<u8>)> {
    let mut wrong: Vec<(String, Vec<u8>)> = Vec::new();
    let names: [&[u8]; 9] = [
        b"",
        b"X-Upper",
        b"x-uppeR",
        b"x name",
        b"x\rname",
        b"x-name: 1\r\nx-smuggled",
        b"x\0",
        b":unknown",
        b":Path",
    ];
    for name in names {
        wrong.push((
            format!("the name {}", name.escape_ascii()),
            block(&and(name, "1")),
        ));
    }
    let values: [&[u8]; 6] = [
        b"a\0b",
        b"a\rb",
        b"a\nb",
        b"a\r\nx-api-key: b",
        b"\x7f",
        b"\x1b[2J",
    ];
    for value in values {
        let what = value.escape_ascii();
        wrong.push((format!("the value {what}"), block(&and("x-value", value))));
        for name in [
            ":path",
            ":authority",
            ":scheme",
            ":method",
            "x-api-key",
            "content-length",
        ] {
            wrong.push((format!("{name}: {what}"), block(&with(name, value))));
        }
        // The same behind names from the static table: `:path`, `accept`.
        for index in [4, 19 | KEPT] {
            let block = [vec![index], string(value)].concat();
            wrong.push((format!("entry {index} with {what}"), good_and(&block)));
        }
    }
    for (name, value) in [
        (":method", &b""[..]),
        (":method", b"POST /orders"),
        (":method", b"POST\r\nx: y"),
        (":path", b"/\xf6rders"),
        (":path", b"/orders?\xf6"),
        (":authority", b"localh\xf6st"),
        (":scheme", b"\xff"),
    ] {
        wrong.push((
            format!("{name}: {}", value.escape_ascii()),
            block(&with(name, value)),
        ));
    }
    for kind in [KEPT, NOT_KEPT, NEVER_KEPT] {
        let upper = [&[kind][..], &coded(&UPPER), &string(b"1")].concat();
        wrong.push((
            format!("an upper-case name in code, kind {kind}"),
            good_and(&upper),
        ));
        // "a", NUL, filled up: 00011 1111111111000 111111.
        let value = [&[kind][..], &string(b"x-value"), &coded(&[0x1f, 0xfe, 0x3f])].concat();
        wrong.push((format!("a NUL in code, kind {kind}"), good_and(&value)));
    }
    wrong
}

#[tokio::test]
async fn a_field_that_cannot_be_one_costs_its_stream_alone() {
    let (world, gateway, trigger) = served("").await;
    let gate = trigger.hold();
    let mut peer = Peer::connect(&world, &gateway).await;
    let waiting = peer.send(&good(), b"{}").await;
    gate.arrived(1).await;
    for (what, block) in wrong() {
        let stream = peer.send_block(&block, b"{}").await;
        let heard = tokio::select! {
            heard = peer.hear(stream) => heard,
            () = gate.arrived(2) => panic!("{what}: it reaches the flow"),
        };
        assert!(heard.is_refusal(), "{what}: {heard:?}");
    }
    gate.open();
    assert_eq!(peer.hear(waiting).await, Heard::status(202), "the one before");
    assert_eq!(
        peer.ask(&good(), b"{}").await,
        Heard::status(202),
        "the one after"
    );
    assert_eq!(world.emulator.flow.heads().get(), 2);
    peer.leave().await;
    let line = gateway.lines.wait_for(|line| line["kind"] == "connection").await;
    assert_eq!(line["reason"], "malformed-http2");
}

#[tokio::test]
async fn a_name_in_lower_case_is_served_in_code_and_whole_or_in_pieces() {
    let (world, gateway, trigger) = served("").await;
    let mut peer = Peer::connect(&world, &gateway).await;
    let lower = [&[KEPT][..], &coded(&LOWER), &string(b"kept")].concat();
    let stream = peer.send_block(&good_and(&lower), b"{}").await;
    assert_eq!(peer.hear(stream).await, Heard::status(202));
    assert_eq!(trigger.last_request().header("xxxx"), Some("kept"));
    let stream = peer.send_block(&good_and(&[NEWEST]), b"{}").await;
    assert_eq!(peer.hear(stream).await, Heard::status(202));
    assert_eq!(trigger.last_request().header("xxxx"), Some("kept"));
    assert_eq!(world.emulator.flow.heads().get(), 2);
}

#[tokio::test]
async fn an_entry_that_cannot_be_a_field_is_refused_whenever_it_is_named() {
    let (world, gateway, trigger) = served("").await;
    for wrong in [
        literal(KEPT, b"X-Upper", b"1"),
        [&[KEPT][..], &coded(&UPPER), &string(b"1")].concat(),
        literal(KEPT, b"x-value", b"a\r\nb"),
        [vec![KEPT | 19], string(b"a\0b")].concat(),
        literal(KEPT, b"", b""),
    ] {
        let mut peer = Peer::connect(&world, &gateway).await;
        // An entry before it, to see that all keep their places.
        let before = literal(KEPT, b"x-before", b"before");
        let stream = peer.send_block(&good_and(&before), b"{}").await;
        assert_eq!(peer.hear(stream).await, Heard::status(202));
        let heads = world.emulator.flow.heads().get();
        for more in [&wrong[..], &[NEWEST], &[0x0f, 62 - 15, 1, b'1']] {
            let stream = peer.send_block(&good_and(more), b"{}").await;
            let heard = peer.hear(stream).await;
            assert!(heard.is_refusal(), "{wrong:x?}, then {more:x?}: {heard:?}");
        }
        assert_eq!(world.emulator.flow.heads().get(), heads);
        let stream = peer.send_block(&good_and(&[NEWEST + 1]), b"{}").await;
        assert_eq!(peer.hear(stream).await, Heard::status(202));
        assert_eq!(trigger.last_request().header("x-before"), Some("before"));
    }
}

#[tokio::test]
async fn a_block_in_pieces_is_refused_like_a_whole_one() {
    let (world, gateway, _) = served("").await;
    let mut peer = Peer::connect(&world, &gateway).await;
    let wrong = block(&and("X-Upper", "1"));
    let bytes = frame(HEADERS, END_HEADERS | END_STREAM, 1, &wrong);
    for byte in bytes {
        // Each write is a TLS record, and each record is read alone.
        peer.write(&[byte]).await;
    }
    let heard = peer.hear(1).await;
    assert!(heard.is_refusal(), "{heard:?}");
    let (front, back) = wrong.split_at(block(&good()).len());
    let mut bytes = frame(HEADERS, END_STREAM, 3, front);
    bytes.extend(frame(CONTINUATION, END_HEADERS, 3, back));
    peer.write(&bytes).await;
    let heard = peer.hear(3).await;
    assert!(heard.is_refusal(), "{heard:?}");
    let good = frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        5,
        &block(&with("content-length", "0")),
    );
    peer.write(&good).await;
    assert_eq!(peer.hear(5).await, Heard::status(202));
    assert_eq!(world.emulator.flow.heads().get(), 1);
}

#[tokio::test]
async fn a_wrong_field_in_the_trailers_refuses_the_request() {
    let (world, gateway, _) = served("").await;
    let trailers: [(&[u8], &[u8]); 4] = [
        (b"X-Upper", b"1"),
        (b":unknown", b"1"),
        (b"", b"1"),
        (b"x-value", b"a\r\nb"),
    ];
    let mut peer = Peer::connect(&world, &gateway).await;
    for (name, value) in trailers {
        let what = name.escape_ascii();
        let stream = peer.head(&without("content-length")).await;
        peer.data(stream, b"{}").await;
        let wrong: Fields = vec![(name.to_vec(), value.to_vec())];
        peer.trailers(stream, &wrong).await;
        let heard = peer.hear(stream).await;
        assert!(heard.is_refusal(), "{what}: {heard:?}");
        assert_eq!(world.emulator.flow.heads().get(), 0, "{what}");
    }
    let order = fields(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/orders"),
        ("x-api-key", KEY),
    ]);
    assert_eq!(peer.ask(&order, b"{}").await, Heard::status(202));
}

#[tokio::test]
async fn fields_that_cannot_be_any_do_not_go_on_for_ever() {
    let (world, gateway, _) = served("").await;
    let mut peer = Peer::connect(&world, &gateway).await;
    let wrong = block(&and("X-Upper", "1"));
    for stream in (1..).step_by(2).take(5_000) {
        peer.write(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &wrong))
            .await;
    }
    peer.end().await;
    let line = gateway.lines.wait_for(|line| line["kind"] == "connection").await;
    assert_eq!(line["reason"], "http2-flood");
    assert_eq!(world.emulator.flow.heads().get(), 0);
}
