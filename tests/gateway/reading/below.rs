//! What TLS or HTTP/2 refuses before there is a request: one line about the connection, and a count.

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::emulator::Authority;
use crate::emulator::certs::server_name;
use crate::harness::Running;
use crate::listening::{Talk, order, served};
use crate::reading::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Heard, PADDED, PING, PUSH_PROMISE, Peer,
    SETTINGS, WINDOW_UPDATE, and, block, frame, good, with,
};

fn connection_lines(gateway: &Running) -> Vec<Value> {
    let lines = gateway.lines.all();
    let lines = lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["kind"] == "connection").collect()
}

/// Waits for this many lines, and expects this reason in the last one and in the metrics.
async fn assert_logged(gateway: &Running, count: usize, reason: &str, of_reason: usize, what: &str) {
    gateway
        .lines
        .wait_for(|_| connection_lines(gateway).len() >= count)
        .await;
    let lines = connection_lines(gateway);
    assert_eq!(lines.len(), count, "{what}: {lines:#?}");
    let line = &lines[count - 1];
    assert_eq!(
        (&line["reason"], &line["address"]),
        (&reason.into(), &"127.0.0.1".into()),
        "{what}"
    );
    let metrics = gateway.admin("/metrics").await.1;
    let counter = format!("flowgate_refusals_total{{reason=\"{reason}\"}} {of_reason}\n");
    assert!(
        metrics.contains(&counter),
        "{what}: {counter} is missing in:\n{metrics}"
    );
}

/// Writes bytes to the TLS port, closes, and waits for the other side.
async fn bare(gateway: &Running, bytes: &[u8]) {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    Talk::new(stream).rest().await;
}

/// Attempts a handshake as a client with these protocols that trusts this authority.
async fn shake(gateway: &Running, authority: &Authority, protocols: &[&str]) {
    let config = authority.client_config(protocols);
    let tcp = TcpStream::connect(gateway.address).await.unwrap();
    let connect = TlsConnector::from(std::sync::Arc::new(config)).connect(server_name("localhost"), tcp);
    assert!(connect.await.is_err());
}

#[tokio::test]
async fn what_tls_refuses_has_one_line_and_a_count() {
    let (world, gateway, _) = served("").await;
    bare(&gateway, b"POST /orders HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_logged(&gateway, 1, "not-tls", 1, "plain HTTP on the port for TLS").await;
    bare(&gateway, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_logged(&gateway, 2, "not-tls", 2, "plain HTTP/2 on the port for TLS").await;
    bare(&gateway, b"").await;
    assert_logged(&gateway, 3, "peer-gone", 1, "nothing at all").await;
    bare(&gateway, b"\x16\x03\x01\x02").await;
    assert_logged(&gateway, 4, "peer-gone", 2, "half a record").await;
    bare(&gateway, b"\x16\x03\x01\x00\x05hello").await;
    // Read as a handshake message, it states a length of 6.6 MB.
    assert_logged(&gateway, 5, "handshake-too-long", 1, "a greeting that is none").await;
    bare(&gateway, b"\x15\x03\x01\x00\x02\x02\x28").await;
    assert_logged(&gateway, 6, "tls", 1, "an alert instead of a greeting").await;
    shake(&gateway, &Authority::new(), &["h2"]).await;
    assert_logged(
        &gateway,
        7,
        "certificate-distrusted",
        1,
        "an alert about our certificate",
    )
    .await;
    shake(&gateway, &world.emulator.ca, &["spdy/3"]).await;
    assert_logged(
        &gateway,
        8,
        "no-common-protocol",
        1,
        "a protocol that is not spoken",
    )
    .await;
    assert_eq!(world.emulator.flow.heads().get(), 0);
    assert_eq!(gateway.send(order()).await.status, 202);
}

/// Frames after a good beginning that HTTP/2 answers by closing the connection (RFC 9113, the sections
/// named).
fn fatal() -> Vec<(&'static str, Vec<u8>)> {
    let head = |fields| block(&fields);
    let whole = END_HEADERS | END_STREAM;
    let oversize = frame(DATA, 0, 1, &vec![0; 16_385]);
    vec![
        (
            "a frame that is too long (4.2)",
            [frame(HEADERS, END_HEADERS, 1, &head(good())), oversize].concat(),
        ),
        (
            "a header block that is none (4.3)",
            frame(HEADERS, whole, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ),
        (
            "a header block that ends too early (4.3)",
            frame(HEADERS, whole, 1, &[0, 5, b'a']),
        ),
        (
            "an index that nobody has (4.3)",
            frame(HEADERS, whole, 1, &[0xfe]),
        ),
        (
            "a head on an even stream (5.1.1)",
            frame(HEADERS, whole, 2, &head(good())),
        ),
        (
            "a head on no stream (6.2)",
            frame(HEADERS, whole, 0, &head(good())),
        ),
        ("data on no stream (6.1)", frame(DATA, 0, 0, b"{}")),
        ("data on a stream that is idle (5.1)", frame(DATA, 0, 1, b"{}")),
        (
            "more padding than data (6.1)",
            [
                frame(HEADERS, END_HEADERS, 1, &head(good())),
                frame(DATA, PADDED | END_STREAM, 1, &[200, b'{', b'}']),
            ]
            .concat(),
        ),
        (
            "another frame within a head (6.10)",
            [
                frame(HEADERS, END_STREAM, 1, &head(good())),
                frame(PING, 0, 0, &[0; 8]),
            ]
            .concat(),
        ),
        (
            "a continuation of nothing (6.10)",
            frame(CONTINUATION, END_HEADERS, 1, &head(good())),
        ),
        (
            "a promise of a caller (8.4)",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
        ),
        ("settings of odd length (6.5)", frame(SETTINGS, 0, 0, &[0, 1, 0])),
        ("settings on a stream (6.5)", frame(SETTINGS, 0, 1, &[])),
        (
            "an acknowledgement with settings (6.5)",
            frame(SETTINGS, ACK, 0, &[0, 1, 0, 0, 0, 0]),
        ),
        (
            "a window that is too large (6.5.2)",
            frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        ),
        ("a ping of odd length (6.7)", frame(PING, 0, 0, &[0; 7])),
        (
            "a window opened by nothing (6.9)",
            frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
        ),
        (
            "a window opened too far (6.9.1)",
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
        ),
    ]
}

#[tokio::test]
async fn what_http2_refuses_has_one_line_and_a_count() {
    let (world, gateway, _) = served("").await;
    for (before, (what, bytes)) in fatal().into_iter().enumerate() {
        let mut peer = Peer::connect(&world, &gateway).await;
        peer.write(&bytes).await;
        peer.end().await;
        assert_logged(&gateway, before + 1, "malformed-http2", before + 1, what).await;
    }
    assert_eq!(world.emulator.flow.heads().get(), 0);
    assert_eq!(gateway.send(order()).await.status, 202);
}

#[tokio::test]
async fn a_beginning_that_is_not_http2_has_one_line_and_a_count() {
    let (world, gateway, _) = served("").await;
    let beginnings: [&[u8]; 3] = [
        b"POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ];
    for (before, bytes) in beginnings.into_iter().enumerate() {
        let mut peer = Peer::connect_silently(&world, &gateway).await;
        peer.write(bytes).await;
        peer.end().await;
        let what = bytes.escape_ascii().to_string();
        assert_logged(&gateway, before + 1, "malformed-http2", before + 1, &what).await;
    }
    assert_eq!(world.emulator.flow.heads().get(), 0);
}

#[tokio::test]
async fn a_peer_that_simply_leaves_has_no_line() {
    let (world, gateway, _) = served("").await;
    let mut peer = Peer::connect(&world, &gateway).await;
    assert_eq!(peer.ask(&good(), b"{}").await, Heard::status(202));
    peer.leave().await;
    let mut talk = gateway.talk().await;
    talk.say(crate::listening::order_bytes("")).await;
    assert_eq!(talk.hear().await.status, 202);
    drop(talk);
    // A later connection with a line of its own shows that the earlier ones have none.
    bare(&gateway, b"GET / HTTP/1.1\r\n\r\n").await;
    assert_logged(&gateway, 1, "not-tls", 1, "the only line").await;
}

/// Waits for the line of a connection, and expects its reason among the counts.
async fn assert_noted(gateway: &Running, what: &str) {
    let line = gateway.lines.wait_for(|line| line["kind"] == "connection").await;
    let reason = line["reason"].as_str().unwrap();
    let metrics = gateway.admin("/metrics").await.1;
    let counter = format!("flowgate_refusals_total{{reason=\"{reason}\"}} ");
    assert!(
        metrics.contains(&counter),
        "{what}: {counter} is missing in:\n{metrics}"
    );
    let lines = connection_lines(gateway);
    assert_eq!(lines.len(), 1, "{what}: {lines:#?}");
}

#[tokio::test]
async fn streams_that_http2_refuses_have_one_line_for_their_connection_and_a_count() {
    let (world, gateway, trigger) = served("").await;
    let mut peer = Peer::connect(&world, &gateway).await;
    // Of an unknown caller the third would end the connection.
    assert_eq!(peer.ask(&good(), b"{}").await, Heard::status(202));
    for head in [
        and(":method", "POST"),
        and("connection", "close"),
        with(":path", ""),
    ] {
        let heard = peer.ask(&head, b"{}").await;
        assert!(matches!(heard, Heard::Reset(_)), "{heard:?}");
    }
    assert_eq!(peer.ask(&good(), b"{}").await, Heard::status(202));
    peer.leave().await;
    assert_noted(&gateway, "streams that are reset").await;
    assert_eq!(trigger.request_count().get(), 2);
}

#[tokio::test]
async fn a_head_that_http2_finds_too_large_has_one_line_and_a_count() {
    let (world, gateway, trigger) = served("").await;
    let mut peer = Peer::connect(&world, &gateway).await;
    let mut large = good();
    large.extend((0..3).map(|_| (b"x-large".to_vec(), vec![b'x'; 5_000])));
    let part = block(&large);
    let more = block(&(0..8).map(|_| (b"x-large".to_vec(), vec![b'x'; 1_500])).collect());
    let mut bytes = frame(HEADERS, END_STREAM, 1, &part);
    bytes.extend(frame(CONTINUATION, 0, 1, &more));
    bytes.extend(frame(CONTINUATION, END_HEADERS, 1, &more));
    peer.write(&bytes).await;
    let heard = peer.hear(1).await;
    assert!(
        matches!(
            heard,
            Heard::Reset(_) | Heard::Over(_) | Heard::Answer { status: 431, .. }
        ),
        "{heard:?}"
    );
    if !matches!(heard, Heard::Over(_)) {
        peer.leave().await;
    }
    let is_logged = |line: &Value| line["kind"] == "connection" || line["problem"] == "head-too-large";
    gateway.lines.wait_for(is_logged).await;
    assert_eq!(trigger.request_count().get(), 0);
}
