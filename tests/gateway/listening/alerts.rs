//! A caller whose TLS is refused receives an alert that says why, and then the end of the connection: before,
//! during and after the handshake, byte by byte, and also while it continues to send.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use aws_lc_rs::aead;
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, CipherSuite, ClientConfig, ClientConnection, ConnectionTrafficSecrets, Error,
    SupportedProtocolVersion,
};

use crate::emulator::certs::server_name;
use crate::harness::{PATIENCE, Running, World};
use crate::listening::{order, served};

const APPLICATION: u8 = 23;
const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;
const CHANGE_CIPHER_SPEC: [u8; 6] = [20, 3, 3, 0, 1, 1];
/// What a caller sends before it reads: more than one read of the gateway takes.
const MORE: usize = 100 * 1024;

/// A socket with timeouts for reads and writes.
fn socket(gateway: &Running) -> TcpStream {
    let socket = TcpStream::connect(gateway.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends everything before anything is read, and returns what arrives until the gateway closes the connection
/// properly.
fn answer_to(socket: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    socket.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    answer
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[kind, 3, 3, length[0], length[1]], content].concat()
}

fn with_length(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    [&length, bytes].concat()
}

fn extension(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[0, kind][..], &with_length(content)].concat()
}

/// A ClientHello with this version and these extensions, in as many records as it takes.
fn hello(version: [u8; 2], extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = version.to_vec();
    body.extend_from_slice(&[7; 32]);
    // No session; TLS_AES_128_GCM_SHA256, and an old suite; no compression.
    body.extend_from_slice(&[0, 0, 4, 0x13, 0x01, 0xc0, 0x13, 1, 0]);
    body.extend_from_slice(&with_length(&extensions.concat()));
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[1], &length[1..], &body].concat();
    message
        .chunks(16 * 1024)
        .flat_map(|part| record(HANDSHAKE, part))
        .collect()
}

fn signatures() -> Vec<u8> {
    extension(13, &[0, 2, 4, 3])
}

fn versions_1_3() -> Vec<u8> {
    extension(43, &[2, 3, 4])
}

/// An alert that is not encrypted.
fn plain_alert(description: AlertDescription) -> Vec<u8> {
    record(ALERT, &[2, description.into()])
}

#[tokio::test]
async fn a_first_message_that_is_refused_is_answered_with_the_right_alert() {
    let (_world, gateway, _) = served("").await;
    let groups = extension(10, &with_length(&[0x1a; 24 * 1024]));
    let share = [&[0x12, 0x34][..], &with_length(&[1; 24 * 1024])].concat();
    let shares = extension(51, &with_length(&share));
    let never_whole = [1, 0, 0xff, 0xff];
    for (what, bytes, expected) in [
        (
            "24 KiB of groups",
            hello([3, 3], &[groups, signatures(), versions_1_3()]),
            AlertDescription::IllegalParameter,
        ),
        (
            "24 KiB of key shares",
            hello([3, 3], &[shares, signatures(), versions_1_3()]),
            AlertDescription::IllegalParameter,
        ),
        (
            "a length of 16 MB",
            record(HANDSHAKE, &[1, 0xff, 0xff, 0xff]),
            AlertDescription::IllegalParameter,
        ),
        ("TLS 1.0", hello([3, 1], &[]), AlertDescription::ProtocolVersion),
        ("TLS 1.1", hello([3, 2], &[]), AlertDescription::ProtocolVersion),
        (
            "TLS 1.1 with signatures",
            hello([3, 2], &[signatures()]),
            AlertDescription::ProtocolVersion,
        ),
        (
            "TLS 1.2 without signatures",
            hello([3, 3], &[]),
            AlertDescription::HandshakeFailure,
        ),
        (
            "SSL 2 as the version of a record",
            vec![HANDSHAKE, 2, 0, 0, 1, 1],
            AlertDescription::ProtocolVersion,
        ),
        (
            "data in the middle of a message",
            [record(HANDSHAKE, &never_whole), record(APPLICATION, b"x")].concat(),
            AlertDescription::UnexpectedMessage,
        ),
        (
            "40 warnings",
            record(ALERT, &[1, 90]).repeat(40),
            AlertDescription::UnexpectedMessage,
        ),
        (
            "no TLS",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            AlertDescription::UnexpectedMessage,
        ),
        (
            "a heartbeat",
            record(24, &[1, 0, 0]),
            AlertDescription::UnexpectedMessage,
        ),
        (
            "a record with nothing of a message",
            record(HANDSHAKE, &[]),
            AlertDescription::UnexpectedMessage,
        ),
        (
            "a record that is too long",
            vec![HANDSHAKE, 3, 1, 0x48, 1],
            AlertDescription::RecordOverflow,
        ),
        ("SSL 3", hello([3, 0], &[]), AlertDescription::ProtocolVersion),
        (
            "no suite in common",
            hello([3, 3], &[signatures()]),
            AlertDescription::HandshakeFailure,
        ),
        (
            "no group in common",
            hello(
                [3, 3],
                &[
                    extension(10, &[0, 2, 0x1a, 0x1a]),
                    extension(51, &[0, 0]),
                    signatures(),
                    versions_1_3(),
                ],
            ),
            AlertDescription::HandshakeFailure,
        ),
        (
            "a version that does not exist",
            hello([3, 3], &[signatures(), extension(43, &[2, 3, 9])]),
            AlertDescription::ProtocolVersion,
        ),
    ] {
        let bytes = [bytes, vec![0; MORE]].concat();
        let answer = answer_to(&mut socket(&gateway), &bytes);
        assert_eq!(answer, plain_alert(expected), "{what}");
    }
    assert_eq!(gateway.send(order()).await.status, 202);
}

#[tokio::test]
async fn a_message_after_the_first_one_is_refused_with_an_alert() {
    let (world, gateway, _) = served("").await;
    let config = client(&world, &TLS13, "http/1.1");
    for (what, bytes, expected) in [
        (
            "40 empty records",
            record(APPLICATION, &[]).repeat(40),
            Some(AlertDescription::BadRecordMac),
        ),
        // The library accepts no more after it, so the alert is the library's choice.
        ("40 changes of the cipher", CHANGE_CIPHER_SPEC.repeat(40), None),
    ] {
        let mut socket = socket(&gateway);
        let mut tls = ClientConnection::new(config.clone(), server_name("localhost")).unwrap();
        while tls.is_handshaking() {
            while tls.wants_write() {
                tls.write_tls(&mut socket).unwrap();
            }
            tls.read_tls(&mut socket).unwrap();
            tls.process_new_packets().unwrap();
        }
        // In place of its last message.
        let answer = answer_to(&mut socket, &[bytes, vec![0; MORE]].concat());
        tls.read_tls(&mut answer.as_slice()).unwrap();
        match (tls.process_new_packets(), expected) {
            (Err(Error::AlertReceived(alert)), Some(expected)) => assert_eq!(alert, expected, "{what}"),
            (Err(Error::AlertReceived(_)), None) => {}
            (other, _) => panic!("{what}: {other:?}"),
        }
    }
}

/// A client configuration that exposes its keys, with one cipher suite for each version.
fn client(world: &World, version: &'static SupportedProtocolVersion, protocol: &str) -> Arc<ClientConfig> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| {
        [
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ]
        .contains(&suite.suite())
    });
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(world.emulator.ca.roots())
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.into()];
    config.enable_secret_extraction = true;
    Arc::new(config)
}

/// One direction of a connection whose records are built by hand.
struct Direction {
    key: aead::LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    tls_1_3: bool,
}

impl Direction {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets), tls_1_3: bool) -> Self {
        let ConnectionTrafficSecrets::Aes128Gcm { key, iv } = secrets else {
            panic!("another suite was agreed on");
        };
        let key = aead::UnboundKey::new(&aead::AES_128_GCM, key.as_ref()).unwrap();
        Self {
            key: aead::LessSafeKey::new(key),
            iv: iv.as_ref().try_into().unwrap(),
            sequence,
            tls_1_3,
        }
    }

    /// The nonce and the authenticated data for this much content (RFC 8446 section 5.2, RFC 5288 section 3).
    fn terms(&mut self, kind: u8, length: usize) -> ([u8; 12], Vec<u8>) {
        let sequence = self.sequence.to_be_bytes();
        self.sequence += 1;
        let mut nonce = self.iv;
        if self.tls_1_3 {
            let place = nonce[4..].iter_mut();
            place.zip(sequence).for_each(|(byte, number)| *byte ^= number);
            let length = u16::try_from(length + 17).unwrap().to_be_bytes();
            return (nonce, vec![APPLICATION, 3, 3, length[0], length[1]]);
        }
        nonce[4..].copy_from_slice(&sequence);
        let length = u16::try_from(length).unwrap().to_be_bytes();
        (nonce, [&sequence[..], &[kind, 3, 3], &length].concat())
    }

    fn seal(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let (nonce, along) = self.terms(kind, content.len());
        let mut sealed = content.to_vec();
        if self.tls_1_3 {
            sealed.push(kind);
        }
        let unique = aead::Nonce::assume_unique_for_key(nonce);
        let along = aead::Aad::from(along);
        self.key
            .seal_in_place_append_tag(unique, along, &mut sealed)
            .unwrap();
        if self.tls_1_3 {
            return record(APPLICATION, &sealed);
        }
        record(kind, &[&nonce[4..], &sealed].concat())
    }

    /// The description in this record, which must be a fatal alert.
    fn alert(&mut self, record: &[u8]) -> AlertDescription {
        let (mut nonce, along) = self.terms(ALERT, 2);
        let mut sealed = record[5..].to_vec();
        if !self.tls_1_3 {
            nonce[4..].copy_from_slice(&sealed[..8]);
            sealed.drain(..8);
        }
        let unique = aead::Nonce::assume_unique_for_key(nonce);
        let opened = self
            .key
            .open_in_place(unique, aead::Aad::from(along), &mut sealed);
        match opened.unwrap() {
            [2, description, rest @ ..] if rest == &[ALERT][..usize::from(self.tls_1_3)] => {
                AlertDescription::from(*description)
            }
            other => panic!("no fatal alert: {other:?}"),
        }
    }
}

/// Socket, then the keys of both directions, after the handshake.
fn connected(gateway: &Running, config: &Arc<ClientConfig>) -> (TcpStream, Direction, Direction) {
    let mut socket = socket(gateway);
    let mut tls = ClientConnection::new(config.clone(), server_name("localhost")).unwrap();
    while tls.is_handshaking() || tls.wants_write() {
        tls.complete_io(&mut socket).unwrap();
    }
    let tls_1_3 = tls.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3);
    let secrets = tls.dangerous_extract_secrets().unwrap();
    let there = Direction::new(secrets.tx, tls_1_3);
    (socket, there, Direction::new(secrets.rx, tls_1_3))
}

#[tokio::test]
async fn a_record_that_is_refused_after_the_handshake_is_answered_with_the_right_alert() {
    type Make = fn(&mut Direction) -> Vec<u8>;
    let (world, gateway, _) = served("").await;
    let cases: [(&str, Make, AlertDescription); 8] = [
        (
            "33 empty records",
            |there| (0..33).flat_map(|_| there.seal(APPLICATION, &[])).collect(),
            AlertDescription::UnexpectedMessage,
        ),
        (
            "33 empty records amid a request",
            |there| {
                let mut bytes = there.seal(APPLICATION, b"POST /orders HTTP/1.1\r\nHost: loc");
                bytes.extend((0..33).flat_map(|_| there.seal(APPLICATION, &[])));
                bytes
            },
            AlertDescription::UnexpectedMessage,
        ),
        (
            "a record that was changed",
            |there| {
                let mut bytes = there.seal(APPLICATION, b"hello");
                *bytes.last_mut().unwrap() ^= 1;
                bytes
            },
            AlertDescription::BadRecordMac,
        ),
        (
            "a record that is too long",
            |there| there.seal(APPLICATION, &[b'x'; 16 * 1024 + 1]),
            AlertDescription::RecordOverflow,
        ),
        (
            "no record",
            |_| b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            // unexpected_message is more precise, here and for an empty record, and record_overflow for a head that says
            // too much; but once it is encrypted, the alert is the library's.
            AlertDescription::DecodeError,
        ),
        (
            "a record with nothing of a message",
            |_| record(HANDSHAKE, &[]),
            AlertDescription::DecodeError,
        ),
        (
            "the head of a record that is too long",
            |_| vec![APPLICATION, 3, 3, 0x48, 1],
            AlertDescription::DecodeError,
        ),
        (
            "a message that was begun, and data",
            |there| [there.seal(HANDSHAKE, &[24, 0]), there.seal(APPLICATION, b"x")].concat(),
            // unexpected_message is more precise, but the library sends only this one in the middle of a
            // message.
            AlertDescription::DecodeError,
        ),
    ];
    for (version, protocol) in [(&TLS13, "http/1.1"), (&TLS13, "h2"), (&TLS12, "http/1.1")] {
        let config = client(&world, version, protocol);
        for (what, make, expected) in &cases {
            let (mut socket, mut there, mut back) = connected(&gateway, &config);
            let bytes = [make(&mut there), vec![0; MORE]].concat();
            let answer = answer_to(&mut socket, &bytes);
            // A ticket and the preface of HTTP/2 may come before it.
            let (mut at, mut last) = (0, 0);
            while at < answer.len() {
                last = at;
                at += 5 + usize::from(u16::from_be_bytes([answer[at + 3], answer[at + 4]]));
                if at < answer.len() {
                    back.sequence += 1;
                }
            }
            let alert = back.alert(&answer[last..]);
            assert_eq!(alert, *expected, "{version:?} {protocol}: {what}");
        }
    }
    assert_eq!(gateway.send(order()).await.status, 202);
}

#[tokio::test]
async fn a_caller_that_never_closes_after_an_alert_is_let_go() {
    let (world, gateway, _) = served("").await;
    let mut before = socket(&gateway);
    answer_to(&mut before, b"GET / HTTP/1.1\r\n\r\n");
    let (mut after, mut there, _) = connected(&gateway, &client(&world, &TLS13, "http/1.1"));
    let bytes: Vec<u8> = (0..33).flat_map(|_| there.seal(APPLICATION, &[])).collect();
    answer_to(&mut after, &bytes);
    // If the gateway has closed, it resets what still arrives.
    for mut socket in [before, after] {
        let closed = async {
            while socket.write_all(b"x").is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, closed)
            .await
            .expect("the connection stays open");
    }
}

/// A goodbye that is not encrypted.
fn plain_goodbye() -> Vec<u8> {
    record(ALERT, &[1, AlertDescription::CloseNotify.into()])
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_ends_with_a_goodbye_once_it_has_begun() {
    let (_world, gateway, _) = served("[connections]\nhandshake_timeout = \"1s\"\n").await;
    let begun = record(HANDSHAKE, &[1, 0, 1, 0, 3, 3]);
    for (what, bytes, expected) in [
        ("nothing", &[][..], Vec::new()),
        ("a part of the head of a record", &begun[..3], plain_goodbye()),
        ("a part of a message", &begun, plain_goodbye()),
    ] {
        let answer = answer_to(&mut socket(&gateway), bytes);
        assert_eq!(answer, expected, "{what}");
        gateway
            .lines
            .wait_for(|line| line["reason"] == "handshake-timeout")
            .await;
    }
}

#[tokio::test]
async fn a_protocol_that_nobody_speaks_is_refused_with_its_alert() {
    let (world, gateway, _) = served("").await;
    for version in [&TLS13, &TLS12] {
        let mut socket = socket(&gateway);
        let config = client(&world, version, "spdy/3");
        let mut tls = ClientConnection::new(config, server_name("localhost")).unwrap();
        let error = loop {
            if let Err(error) = tls.complete_io(&mut socket) {
                break error;
            }
        };
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        let alert = AlertDescription::NoApplicationProtocol;
        assert_eq!(inner, Some(&Error::AlertReceived(alert)), "{version:?}: {error}");
    }
}
