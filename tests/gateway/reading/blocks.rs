//! Header blocks on HTTP/2 with a field that cannot be one, however it is written: its stream ends with our 400 or a
//! reset, or its connection ends with an error and a line in the log; others live, and nothing of it goes upstream.

use std::time::Duration;

use tokio::time::Instant;

use crate::harness::KEY;
use crate::listening::served;
use crate::reading::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Fields, HEADERS, Heard, PADDED, Peer, and, block, fields,
    frame, good, with, without, write_length,
};

/// A literal with incremental indexing (RFC 7541 section 6.2).
const KEPT: u8 = 0x40;
const NOT_KEPT: u8 = 0x00;
const NEVER_KEPT: u8 = 0x10;
/// The newest entry of the table, as a whole field.
const NEWEST: u8 = 0x80 | 62;

/// Strings in Huffman code (RFC 7541 appendix B).
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

/// A good order with these bytes after its fields.
fn good_and(more: &[u8]) -> Vec<u8> {
    [block(&good()), more.to_vec()].concat()
}

/// Blocks that must end only their stream, and what is wrong with them.
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
        // The same after names from the static table: `:path`, `accept`.
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
        // "a", NUL, padding: 00011 1111111111000 111111.
        let value = [&[kind][..], &string(b"x-value"), &coded(&[0x1f, 0xfe, 0x3f])].concat();
        wrong.push((format!("a NUL in code, kind {kind}"), good_and(&value)));
    }
    wrong
}

#[tokio::test]
async fn a_field_that_cannot_be_one_ends_its_stream_or_its_connection() {
    let (world, gateway, trigger) = served("").await;
    let gate = trigger.hold();
    let mut good_peer = Peer::connect(&world, &gateway).await;
    let waiting = good_peer.send(&good(), b"{}").await;
    gate.arrived(1).await;
    for (what, block) in wrong() {
        let mut peer = Peer::connect(&world, &gateway).await;
        let stream = peer.send_block(&block, b"{}").await;
        let heard = tokio::select! {
            heard = peer.hear(stream) => heard,
            () = gate.arrived(2) => panic!("{what}: it reaches the flow"),
        };
        assert!(heard.is_refusal_or_end(), "{what}: {heard:?}");
    }
    gate.open();
    assert_eq!(
        good_peer.hear(waiting).await,
        Heard::status(202),
        "the one before"
    );
    assert_eq!(
        good_peer.ask(&good(), b"{}").await,
        Heard::status(202),
        "the one after"
    );
    assert_eq!(world.emulator.flow.heads().get(), 2);
    let line = gateway.lines.wait_for(|line| line["kind"] == "connection").await;
    assert_eq!(line["reason"], "malformed-http2");
}

#[tokio::test]
async fn a_fragment_in_a_path_is_named_in_the_line_of_its_connection() {
    let (world, gateway, _) = served("").await;
    let mut peer = Peer::connect(&world, &gateway).await;
    let heard = peer.ask(&with(":path", "/orders?a=1#b"), b"{}").await;
    assert!(heard.is_refusal_or_end(), "{heard:?}");
    let line = gateway.lines.wait_for(|line| line["kind"] == "connection").await;
    assert_eq!(line["reason"], "malformed-http2");
    assert_eq!(line["detail"], "the path of a request has a fragment (`#`)");
    assert_eq!(world.emulator.flow.heads().get(), 0);
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
    assert!(heard.is_refusal_or_end(), "{heard:?}");
    let mut peer = Peer::connect(&world, &gateway).await;
    let (front, back) = wrong.split_at(block(&good()).len());
    let mut bytes = frame(HEADERS, END_STREAM, 1, front);
    bytes.extend(frame(CONTINUATION, END_HEADERS, 1, back));
    peer.write(&bytes).await;
    let heard = peer.hear(1).await;
    assert!(heard.is_refusal_or_end(), "{heard:?}");
    assert_eq!(world.emulator.flow.heads().get(), 0);
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
    for (name, value) in trailers {
        let mut peer = Peer::connect(&world, &gateway).await;
        let what = name.escape_ascii();
        let stream = peer.head(&without("content-length")).await;
        peer.data(stream, b"{}").await;
        let wrong: Fields = vec![(name.to_vec(), value.to_vec())];
        peer.trailers(stream, &wrong).await;
        let heard = peer.hear(stream).await;
        assert!(heard.is_refusal_or_end(), "{what}: {heard:?}");
        assert_eq!(world.emulator.flow.heads().get(), 0, "{what}");
    }
    let mut peer = Peer::connect(&world, &gateway).await;
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
    // h2 resets the stream for it.
    let wrong = block(&and("transfer-encoding", "chunked"));
    assert_eq!(peer.ask(&good(), b"{}").await, Heard::status(202));
    for stream in (3..).step_by(2).take(5_000) {
        peer.write(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &wrong))
            .await;
    }
    peer.end().await;
    let line = gateway.lines.wait_for(|line| line["kind"] == "connection").await;
    assert_eq!(line["reason"], "http2-flood");
    assert_eq!(world.emulator.flow.heads().get(), 1);
}

#[tokio::test]
async fn an_unknown_caller_may_send_few_fields_that_cannot_be_any() {
    let (world, gateway, _) = served("").await;
    let mut peer = Peer::connect(&world, &gateway).await;
    // h2 resets the stream for it.
    let wrong = block(&and("transfer-encoding", "chunked"));
    for stream in (1..).step_by(2).take(20) {
        peer.write(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &wrong))
            .await;
    }
    peer.end().await;
    let line = gateway.lines.wait_for(|line| line["kind"] == "connection").await;
    assert_eq!(line["reason"], "malformed-http2");
}

/// A block in frames that end at these places.
fn split(stream: u32, flags: u8, block: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut begin = 0;
    for (place, end) in cuts.iter().copied().chain([block.len()]).enumerate() {
        let (kind, flags) = if place == 0 {
            (HEADERS, flags)
        } else {
            (CONTINUATION, 0)
        };
        let last = if place == cuts.len() { END_HEADERS } else { 0 };
        bytes.extend(frame(kind, flags | last, stream, &block[begin..end]));
        begin = end;
    }
    bytes
}

#[tokio::test]
async fn what_is_wrong_anywhere_in_a_block_of_several_frames_reaches_no_flow() {
    let (world, gateway, _) = served("").await;
    let mut peer = Peer::connect(&world, &gateway).await;
    let mut stream = 1;
    let mut served = 0;
    for wrong in [
        literal(NOT_KEPT, b"transfer-encoding", b"chunked"),
        literal(NOT_KEPT, b":path", b"/elsewhere"),
        literal(NOT_KEPT, b"X-Upper", b"1"),
        literal(KEPT, b"x-value", b"a\r\nb"),
    ] {
        let front = block(&good()).len();
        let whole = [good_and(&wrong), literal(NOT_KEPT, b"x-cut", b"1")].concat();
        // Before the invalid field, at each byte of it and of the following one, and in more than two frames.
        let mut all: Vec<Vec<usize>> = (front..=whole.len()).map(|cut| vec![cut]).collect();
        all.extend([vec![0], vec![3, whole.len() - 3], (1..whole.len()).collect()]);
        for cuts in all {
            let mut bytes = split(stream, 0, &whole, &cuts);
            bytes.extend(frame(DATA, END_STREAM, stream, b"{}"));
            peer.write(&bytes).await;
            let heard = peer.hear(stream).await;
            assert!(
                heard.is_refusal_or_end(),
                "{wrong:x?}, cut at {cuts:?}: {heard:?}"
            );
            stream += 2;
            if matches!(heard, Heard::Over(_)) {
                peer = Peer::connect(&world, &gateway).await;
                stream = 1;
            }
            // A good request restores what the frames have cost.
            peer.write(&split(
                stream,
                END_STREAM,
                &block(&with("content-length", "0")),
                &[40],
            ))
            .await;
            assert_eq!(peer.hear(stream).await, Heard::status(202));
            stream += 2;
            served += 1;
        }
    }
    assert_eq!(world.emulator.flow.heads().get(), served);
}

/// A good head of some 30 KiB; its body is empty.
fn large() -> Vec<u8> {
    let mut fields = with("content-length", "0");
    for number in 0..30 {
        let name = format!("x-large-{number}");
        fields.push((name.into_bytes(), vec![b'a' + number % 26; 950]));
    }
    block(&fields)
}

#[tokio::test]
async fn a_large_head_is_the_same_to_the_flow_however_it_is_cut() {
    let (world, gateway, trigger) = served("").await;
    let mut peer = Peer::connect(&world, &gateway).await;
    let large = large();
    assert!(large.len() > 28_000);
    let cuts = [
        vec![16_000],
        vec![0, 16_384],
        vec![10_000, 20_000],
        vec![1, 2, 3, 13_000, large.len() - 1],
        (1..large.len()).step_by(1_000).collect(),
        (16_000..16_100).collect(),
    ];
    let mut seen = Vec::new();
    for (cuts, stream) in cuts.iter().zip((1..).step_by(2)) {
        let bytes = split(stream, END_STREAM, &large, cuts);
        // Read in pieces of other sizes than the frames.
        for piece in bytes.chunks(7_001) {
            peer.write(piece).await;
        }
        assert_eq!(peer.hear(stream).await, Heard::status(202), "{cuts:?}");
        let request = trigger.last_request();
        let fields: Vec<_> = (0..30)
            .map(|number| request.header(&format!("x-large-{number}")).map(str::to_owned))
            .collect();
        assert!(
            fields
                .iter()
                .all(|value| value.as_ref().is_some_and(|value| value.len() == 950))
        );
        seen.push(fields);
    }
    assert!(seen.windows(2).all(|two| two[0] == two[1]));
}

#[tokio::test]
async fn padding_and_priority_are_no_part_of_a_block_in_several_frames() {
    let (world, gateway, _) = served("").await;
    let mut peer = Peer::connect(&world, &gateway).await;
    let whole = block(&with("content-length", "0"));
    let (front, back) = whole.split_at(50);
    let priority = 0x20;
    let of_nobody = [0, 0, 0, 0, 16];
    let first = [&[9][..], &of_nobody, front, &[0; 9]].concat();
    let mut bytes = frame(HEADERS, END_STREAM | PADDED | priority, 1, &first);
    bytes.extend(frame(CONTINUATION, END_HEADERS, 1, back));
    // A stream cannot depend on itself (RFC 9113 section 5.3.1 no longer defines it, and h2 still refuses
    // it).
    let first = [&[0, 0, 0, 3, 16], front].concat();
    bytes.extend(frame(HEADERS, END_STREAM | priority, 3, &first));
    bytes.extend(frame(CONTINUATION, END_HEADERS, 3, back));
    bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, 5, &whole));
    peer.write(&bytes).await;
    assert_eq!(peer.hear(1).await, Heard::status(202));
    assert!(peer.hear(3).await.is_refusal());
    assert_eq!(peer.hear(5).await, Heard::status(202));
}

#[tokio::test]
async fn a_wrong_field_in_trailers_of_several_frames_refuses_the_request() {
    let (world, gateway, _) = served("").await;
    for wrong in [
        literal(NOT_KEPT, b"transfer-encoding", b"chunked"),
        literal(NOT_KEPT, b"X-Upper", b"1"),
    ] {
        let mut peer = Peer::connect(&world, &gateway).await;
        let trailers = [wrong, literal(NOT_KEPT, b"x-cut", b"1")].concat();
        let stream = peer.head(&without("content-length")).await;
        peer.data(stream, b"{}").await;
        peer.write(&split(stream, END_STREAM, &trailers, &[trailers.len() - 3]))
            .await;
        let heard = peer.hear(stream).await;
        assert!(heard.is_refusal_or_end(), "{heard:?}");
    }
    assert_eq!(world.emulator.flow.heads().get(), 0);
    let mut peer = Peer::connect(&world, &gateway).await;
    assert_eq!(peer.ask(&good(), b"{}").await, Heard::status(202));
}

#[tokio::test]
async fn a_head_of_several_frames_that_is_too_large_costs_its_stream_alone() {
    let (world, gateway, _) = served("").await;
    let mut peer = Peer::connect(&world, &gateway).await;
    let large = [large(), large()].concat();
    // The second half has only regular fields, because a pseudo-field there would be malformed.
    let filler = literal(NOT_KEPT, b"x-more", &[b'y'; 950]);
    let large = [&large[..large.len() / 2], &filler.repeat(30)].concat();
    assert_eq!(peer.ask(&good(), b"{}").await, Heard::status(202));
    peer.write(&split(3, END_STREAM, &large, &[16_000, 32_000, 48_000]))
        .await;
    assert_eq!(peer.hear(3).await, Heard::problem(431, "head-too-large"));
    let good = block(&with("content-length", "0"));
    peer.write(&split(5, END_STREAM, &good, &[7])).await;
    assert_eq!(peer.hear(5).await, Heard::status(202));
    assert_eq!(world.emulator.flow.heads().get(), 2);
}

#[tokio::test]
async fn a_block_that_is_far_too_long_ends_its_connection_with_its_size_in_the_log() {
    const ENHANCE_YOUR_CALM: u32 = 0xb;
    let (world, gateway, _) = served("").await;
    let long = good_and(&literal(NOT_KEPT, b"x-more", &[b'y'; 950]).repeat(75));
    let cuts = [16_000, 32_000, 48_000, 64_000];
    let bytes = split(1, END_STREAM, &long, &cuts);
    let mut peer = Peer::connect(&world, &gateway).await;
    // Without its last frame, which would never come.
    peer.write(&bytes[..cuts.len() * 16_009 + 9 + 1_000]).await;
    assert_eq!(peer.end().await, Some(ENHANCE_YOUR_CALM));
    let line = gateway
        .lines
        .wait_for(|line| line["reason"] == "head-too-large")
        .await;
    let detail = line["detail"].as_str().unwrap();
    assert!(detail.contains("a head of 64000 bytes or more"), "{detail}");
    assert!(
        detail.contains("`connections.head_size_max` is 32768"),
        "{detail}"
    );
    assert_eq!(world.emulator.flow.heads().get(), 0);
}

#[tokio::test]
async fn an_unknown_caller_has_a_long_head_refused_in_words_as_its_first_one_only() {
    const ENHANCE_YOUR_CALM: u32 = 0xb;
    let (world, gateway, _) = served("").await;
    let fields: Vec<_> = with("content-length", "0")
        .into_iter()
        .filter(|(name, _)| name != b"x-api-key")
        .collect();
    let long = [
        block(&fields),
        literal(NOT_KEPT, b"x-more", &[b'y'; 950]).repeat(40),
    ]
    .concat();
    let mut peer = Peer::connect(&world, &gateway).await;
    peer.write(&split(1, END_STREAM, &long, &[16_000, 32_000])).await;
    assert_eq!(peer.hear(1).await, Heard::problem(431, "head-too-large"));
    peer.write(&split(3, END_STREAM, &long, &[16_000, 32_000])).await;
    assert_eq!(peer.end().await, Some(ENHANCE_YOUR_CALM));
    assert_eq!(world.emulator.flow.heads().get(), 0);
}

#[tokio::test]
async fn a_block_that_is_too_long_is_refused_although_its_fields_are_few() {
    let (world, gateway, _) = served("").await;
    // Fields that h2 does not count, and the resizing of a table: neither makes the list of fields too large.
    let malformed = literal(NOT_KEPT, b"transfer-encoding", b"chunked").repeat(2_000);
    let resized = vec![0x20; 50_000];
    for whole in [
        good_and(&[malformed, literal(NOT_KEPT, b"x-cut", b"1")].concat()),
        [
            resized,
            good_and(&literal(NOT_KEPT, b"transfer-encoding", b"chunked")),
        ]
        .concat(),
    ] {
        // The last frame begins within a field.
        for last in [1, 3, 12] {
            let mut peer = Peer::connect(&world, &gateway).await;
            let cuts: Vec<usize> = (1..whole.len() / 15_000 + 1)
                .map(|number| number * 15_000 - 1)
                .chain([whole.len() - last])
                .collect();
            peer.write(&split(1, END_STREAM, &whole, &cuts)).await;
            let heard = peer.hear(1).await;
            let is_refused =
                heard.is_refusal() || matches!(heard, Heard::Over(_)) || heard == Heard::status(431);
            assert!(is_refused, "{heard:?}");
        }
    }
    assert_eq!(world.emulator.flow.heads().get(), 0);
}

#[tokio::test]
async fn a_block_that_never_ends_is_cut_at_its_deadline() {
    let settings = "[connections]\nhead_timeout = \"400ms\"\nidle_timeout = \"400ms\"\n";
    let (world, gateway, _) = served(settings).await;
    let large = large();
    let begun = [
        frame(HEADERS, 0, 3, &large[..100]),
        frame(HEADERS, 0, 3, &large[..100])[..50].to_vec(),
        split(3, 0, &large, &[16_000])[..20_000].to_vec(),
        [
            frame(HEADERS, 0, 3, &large[..16_000]),
            frame(CONTINUATION, 0, 3, &large[16_000..]),
        ]
        .concat(),
    ];
    for bytes in &begun {
        let mut peer = Peer::connect(&world, &gateway).await;
        // It sends no settings afterwards, which would interrupt the block.
        assert_eq!(peer.ask(&good(), b"{}").await, Heard::status(202));
        let begin = Instant::now();
        peer.write(bytes).await;
        assert!(peer.end().await.is_some());
        let rested = begin.elapsed();
        assert!(rested > Duration::from_millis(300), "{rested:?}");
    }
    assert_eq!(world.emulator.flow.heads().get(), begun.len() as u64);
}

#[tokio::test]
async fn a_frame_longer_than_was_agreed_on_ends_the_connection() {
    let (world, gateway, _) = served("").await;
    let large = large();
    for bytes in [
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &large),
        [
            frame(HEADERS, END_STREAM, 1, &large[..9]),
            frame(CONTINUATION, END_HEADERS, 1, &large[9..]),
        ]
        .concat(),
        [
            frame(HEADERS, END_HEADERS, 1, &block(&without("content-length"))),
            frame(DATA, END_STREAM, 1, &[b'x'; 16_385]),
        ]
        .concat(),
    ] {
        let mut peer = Peer::connect(&world, &gateway).await;
        peer.write(&bytes).await;
        // FRAME_SIZE_ERROR, unless the block before it was interrupted.
        let code = peer.end().await;
        assert!(matches!(code, Some(6 | 1)), "{code:?}");
    }
    assert_eq!(world.emulator.flow.heads().get(), 0);
}
