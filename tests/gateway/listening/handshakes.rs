//! Failed handshakes: each logs one line with what the peer offered and a sentence, and is counted.

use std::sync::Arc;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::emulator::Authority;
use crate::emulator::certs::server_name;
use crate::harness::Running;
use crate::listening::{Talk, order, served};

/// A connection without TLS on the port for TLS.
async fn bare(gateway: &Running) -> Talk<TcpStream> {
    Talk::new(TcpStream::connect(gateway.address).await.unwrap())
}

/// The line of a connection that ended for this reason.
async fn line(gateway: &Running, reason: &str) -> Value {
    let line = gateway
        .lines
        .wait_for(|line| line["kind"] == "connection" && line["reason"] == reason)
        .await;
    assert_eq!(line["address"], "127.0.0.1");
    line
}

async fn assert_counted(gateway: &Running, reason: &str) {
    let metrics = gateway.admin("/metrics").await.1;
    let count = format!("flowgate_handshakes_failed_total{{reason=\"{reason}\"}} 1\n");
    assert!(metrics.contains(&count), "{count} is missing in:\n{metrics}");
}

/// A ClientHello as TLS libraries of 2008 sent it: TLS 1.0, RSA key exchange, no extensions.
fn tls_1_0_hello() -> Vec<u8> {
    let mut body = vec![3, 1];
    body.extend_from_slice(&[7; 32]);
    // No session id; TLS_RSA_WITH_AES_128_CBC_SHA and TLS_RSA_WITH_3DES_EDE_CBC_SHA; no compression.
    body.extend_from_slice(&[0, 0, 4, 0x00, 0x2f, 0x00, 0x0a, 1, 0]);
    handshake_record([3, 1], &body)
}

/// A ClientHello with extensions, but no version above TLS 1.1.
fn tls_1_1_hello() -> Vec<u8> {
    let mut body = vec![3, 2];
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(&[0, 0, 4, 0xc0, 0x13, 0x00, 0x2f, 1, 0]);
    // Groups, point formats and signature algorithms.
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..],
        &[0, 11, 0, 2, 1, 0],
        &[0, 13, 0, 4, 0, 2, 4, 3],
    ]
    .concat();
    body.extend_from_slice(&u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend_from_slice(&extensions);
    handshake_record([3, 1], &body)
}

fn handshake_record(version: [u8; 2], body: &[u8]) -> Vec<u8> {
    let length = u8::try_from(body.len()).unwrap();
    let mut record = vec![22, version[0], version[1], 0, length + 4, 1, 0, 0, length];
    record.extend_from_slice(body);
    record
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_named() {
    let (_world, gateway, _) = served("").await;
    let mut talk = bare(&gateway).await;
    talk.say("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    talk.rest().await;
    let line = line(&gateway, "not-tls").await;
    assert!(line["detail"].as_str().unwrap().contains("https://"), "{line}");
    assert_counted(&gateway, "not-tls").await;
}

#[tokio::test]
async fn garbage_ends_its_connection_and_nothing_else() {
    let (_world, gateway, _) = served("").await;
    for garbage in [
        &b"\x16\x03\x01\x00\x05hello"[..],
        b"\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\x16\x03\x01\xff\xff",
        b"\x80\x2e\x01\x03\x01",
        b"SSH-2.0-x\r\n",
    ] {
        let mut talk = bare(&gateway).await;
        talk.say(garbage).await;
        talk.stream.shutdown().await.unwrap();
        talk.rest().await;
    }
    let failed = || {
        let lines = gateway.lines.all();
        lines
            .iter()
            .filter(|line| line.contains("\"kind\":\"connection\""))
            .count()
    };
    gateway.lines.wait_for(|_| failed() == 5).await;
    assert_eq!(gateway.send(order()).await.status, 202);
}

#[tokio::test]
async fn an_old_tls_version_is_named() {
    for hello in [tls_1_0_hello(), tls_1_1_hello()] {
        let (_world, gateway, _) = served("").await;
        let mut talk = bare(&gateway).await;
        talk.say(&hello).await;
        talk.rest().await;
        let line = line(&gateway, "old-version").await;
        let detail = line["detail"].as_str().unwrap();
        assert!(detail.contains("TLS version"), "{line}");
        assert!(detail.contains("renewed"), "{line}");
        assert_counted(&gateway, "old-version").await;
    }
}

#[tokio::test]
async fn a_caller_that_distrusts_the_certificate_is_logged_with_its_offer() {
    let (_world, gateway, _) = served("").await;
    let config = Authority::new().client_config(&["h2", "http/1.1"]);
    let tcp = TcpStream::connect(gateway.address).await.unwrap();
    let connect = TlsConnector::from(Arc::new(config)).connect(server_name("hooks.example"), tcp);
    assert!(connect.await.is_err());
    let line = line(&gateway, "certificate-distrusted").await;
    let detail = line["detail"].as_str().unwrap();
    for part in [
        "does not trust",
        "offered TLS 1.3",
        "name hooks.example",
        "ALPN h2 http/1.1",
    ] {
        assert!(detail.contains(part), "{part} is missing: {detail}");
    }
    assert_counted(&gateway, "certificate-distrusted").await;
}

#[tokio::test]
async fn a_caller_with_other_protocols_is_distinguished_from_a_broken_one() {
    let (world, gateway, _) = served("").await;
    let config = world.emulator.ca.client_config(&["spdy/3"]);
    let tcp = TcpStream::connect(gateway.address).await.unwrap();
    let connect = TlsConnector::from(Arc::new(config)).connect(server_name("localhost"), tcp);
    assert!(connect.await.is_err());
    let line = line(&gateway, "no-common-protocol").await;
    assert!(line["detail"].as_str().unwrap().contains("ALPN spdy/3"), "{line}");
}

#[tokio::test]
async fn a_caller_that_closes_in_the_handshake_is_logged_as_gone() {
    let (_world, gateway, _) = served("").await;
    let mut talk = bare(&gateway).await;
    talk.say(&tls_1_1_hello()[..20]).await;
    drop(talk);
    line(&gateway, "peer-gone").await;
    assert_counted(&gateway, "peer-gone").await;
}

#[tokio::test]
async fn a_handshake_has_a_deadline() {
    let (_world, gateway, _) = served("[connections]\nhandshake_timeout = \"300ms\"\n").await;
    let mut silent = bare(&gateway).await;
    let mut slow = bare(&gateway).await;
    slow.say(&tls_1_1_hello()[..20]).await;
    assert_eq!(silent.rest().await, "");
    // The alert close_notify.
    assert_eq!(slow.rest().await, "\x15\x03\x03\0\x02\x01\0");
    let timeouts = || {
        let lines = gateway.lines.all();
        lines
            .iter()
            .filter(|line| line.contains("handshake-timeout"))
            .count()
    };
    gateway.lines.wait_for(|_| timeouts() == 2).await;
    let line = line(&gateway, "handshake-timeout").await;
    assert!(line["detail"].as_str().unwrap().contains("300ms"), "{line}");
    let metrics = gateway.admin("/metrics").await.1;
    let count = "flowgate_handshakes_failed_total{reason=\"handshake-timeout\"} 2\n";
    assert!(metrics.contains(count), "{metrics}");
    assert_eq!(gateway.send(order()).await.status, 202);
}

#[tokio::test]
async fn a_flood_of_failed_handshakes_is_counted_and_does_not_fill_the_log() {
    const FLOOD: usize = 300;
    let (_world, gateway, _) = served("").await;
    let began = tokio::time::Instant::now();
    for _ in 0..FLOOD {
        let mut talk = bare(&gateway).await;
        talk.say("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        talk.rest().await;
    }
    // Another reason is logged at once.
    drop(bare(&gateway).await);
    line(&gateway, "peer-gone").await;
    let metrics = gateway.admin("/metrics").await.1;
    for name in ["handshakes_failed", "refusals"] {
        let count = format!("flowgate_{name}_total{{reason=\"not-tls\"}} {FLOOD}\n");
        assert!(metrics.contains(&count), "{count} is missing in:\n{metrics}");
    }
    let lines = gateway.lines.all();
    let lines = lines.iter().filter(|line| line.contains("\"not-tls\"")).count();
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!(
        (50..=seconds + 52).contains(&lines),
        "{lines} lines in {seconds} s"
    );
}
