//! HTTP/2 frame by frame, for requests that no library would send. It writes header blocks as plain literals
//! and reads only status, body and end of an answer.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::emulator::certs::server_name;
use crate::harness::{KEY, PATIENCE, Running, World};

/// Frame types (RFC 9113 section 6).
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
/// Flags.
pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;

/// Names and values of a header block, as they are sent.
pub(super) type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Fields from strings.
pub(super) fn fields(fields: &[(&str, &str)]) -> Fields {
    let bytes = |text: &str| text.as_bytes().to_vec();
    fields
        .iter()
        .map(|(name, value)| (bytes(name), bytes(value)))
        .collect()
}

/// The head of an order whose body is `{}`.
pub(super) fn good() -> Fields {
    fields(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/orders"),
        ("x-api-key", KEY),
        ("content-length", "2"),
    ])
}

/// A good order in which this field has another value.
pub(super) fn with(name: &str, value: impl AsRef<[u8]>) -> Fields {
    let mut fields = good();
    let place = fields.iter_mut().find(|(own, _)| own == name.as_bytes());
    place.expect("a good order has this field").1 = value.as_ref().to_vec();
    fields
}

/// A good order without this field.
pub(super) fn without(name: &str) -> Fields {
    let mut fields = good();
    fields.retain(|(own, _)| own != name.as_bytes());
    fields
}

/// A good order with one more field at its end.
pub(super) fn and(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Fields {
    let mut fields = good();
    fields.push((name.as_ref().to_vec(), value.as_ref().to_vec()));
    fields
}

/// One frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block of literals that are not indexed and not compressed (RFC 7541 section 6.2.2).
pub(super) fn block(fields: &Fields) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            write_length(&mut bytes, text.len());
            bytes.extend(text);
        }
    }
    bytes
}

/// A length with a prefix of seven bits (RFC 7541 section 5.1).
pub(super) fn write_length(bytes: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(0x7f) else {
        bytes.push(u8::try_from(length).unwrap());
        return;
    };
    bytes.push(0x7f);
    while rest >= 0x80 {
        bytes.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    bytes.push(u8::try_from(rest).unwrap());
}

/// The status, which is the first field of every answer. The encoder's dynamic table is disabled, so it is an
/// entry of the static table or a literal.
fn status(mut block: &[u8]) -> u16 {
    while let [first, rest @ ..] = block
        && first & 0xe0 == 0x20
    {
        block = rest;
    }
    match block {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        [name, length, text @ ..] if name & 0x0f == 8 && name & 0x80 == 0 => {
            let plain = &text[..usize::from(length & 0x7f)];
            if length & 0x80 == 0 {
                return std::str::from_utf8(plain).unwrap().parse().unwrap();
            }
            digits(plain)
        }
        _ => panic!("no status at the front of {block:x?}"),
    }
}

/// Three digits in Huffman code (RFC 7541 appendix B): `0` to `2` have five bits, `3` to `9` six.
fn digits(text: &[u8]) -> u16 {
    let bits = text.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (32 - 8 * text.len());
    let mut at = 0;
    let mut number = 0;
    for _ in 0..3 {
        let six = bits << at >> 26;
        let (digit, length) = if six >> 1 <= 2 {
            (six >> 1, 5)
        } else {
            (six + 3 - 0x19, 6)
        };
        number = number * 10 + digit;
        at += length;
    }
    u16::try_from(number).unwrap()
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// With an answer; the code is that of its problem, or empty.
    Answer { status: u16, code: String },
    /// By a reset with this error.
    Reset(u32),
    /// Together with its connection, with the error of the last GOAWAY.
    Over(Option<u32>),
}

impl Heard {
    pub(super) fn status(status: u16) -> Self {
        Self::problem(status, "")
    }

    pub(super) fn problem(status: u16, code: &str) -> Self {
        let code = code.to_owned();
        Self::Answer { status, code }
    }

    /// Our 400 or the end of this one stream.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Reset(_)) || *self == Self::problem(400, "malformed-request")
    }

    /// The same, or the end of the connection with an error.
    pub(super) fn is_refusal_or_end(&self) -> bool {
        self.is_refusal() || matches!(self, Self::Over(Some(1..)))
    }
}

#[derive(Default)]
struct Stream {
    status: u16,
    body: Vec<u8>,
    heard: Option<Heard>,
}

/// A caller that writes its frames itself.
pub(super) struct Peer {
    stream: TlsStream<TcpStream>,
    ahead: Vec<u8>,
    streams: HashMap<u32, Stream>,
    next: u32,
    goaway: Option<u32>,
    over: bool,
}

impl Peer {
    /// Connects and sends the preface, settings that disable the encoder's dynamic table, and a window.
    pub(super) async fn connect(world: &World, gateway: &Running) -> Self {
        let mut peer = Self::connect_silently(world, gateway).await;
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        hello.extend(frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]));
        // Opened once for all requests: this reader sends no further updates.
        hello.extend(frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0]));
        peer.write(&hello).await;
        peer
    }

    /// Negotiates HTTP/2 by ALPN and sends nothing.
    pub(super) async fn connect_silently(world: &World, gateway: &Running) -> Self {
        let config = world.emulator.ca.client_config(&["h2"]);
        let tcp = TcpStream::connect(gateway.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(server_name("localhost"), tcp).await.unwrap();
        Self {
            stream,
            ahead: Vec::new(),
            streams: HashMap::new(),
            next: 1,
            goaway: None,
            over: false,
        }
    }

    /// Writes bytes unchanged, to a gateway that may have closed.
    pub(super) async fn write(&mut self, bytes: &[u8]) {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        // A closed connection is noticed when it is read.
        let _ = write.await;
    }

    fn next_stream(&mut self) -> u32 {
        let stream = self.next;
        self.next += 2;
        stream
    }

    /// Opens a stream with this head; a body follows.
    pub(super) async fn head(&mut self, fields: &Fields) -> u32 {
        let stream = self.next_stream();
        let head = frame(HEADERS, END_HEADERS, stream, &block(fields));
        self.write(&head).await;
        stream
    }

    /// Sends a part of a body.
    pub(super) async fn data(&mut self, stream: u32, body: &[u8]) {
        self.write(&frame(DATA, 0, stream, body)).await;
    }

    /// Ends a stream with trailers.
    pub(super) async fn trailers(&mut self, stream: u32, fields: &Fields) {
        let trailers = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(fields));
        self.write(&trailers).await;
    }

    /// Sends a whole request.
    pub(super) async fn send(&mut self, fields: &Fields, body: &[u8]) -> u32 {
        let stream = self.next_stream();
        let mut bytes = frame(HEADERS, END_HEADERS, stream, &block(fields));
        bytes.extend(frame(DATA, END_STREAM, stream, body));
        self.write(&bytes).await;
        stream
    }

    /// Sends a request that ends with its head.
    pub(super) async fn send_bodiless(&mut self, fields: &Fields) -> u32 {
        let stream = self.next_stream();
        let bytes = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(fields));
        self.write(&bytes).await;
        stream
    }

    /// Sends a whole request with exactly this header block.
    pub(super) async fn send_block(&mut self, block: &[u8], body: &[u8]) -> u32 {
        let stream = self.next_stream();
        let mut bytes = frame(HEADERS, END_HEADERS, stream, block);
        bytes.extend(frame(DATA, END_STREAM, stream, body));
        self.write(&bytes).await;
        stream
    }

    /// Sends a whole request and waits for its end.
    pub(super) async fn ask(&mut self, fields: &Fields, body: &[u8]) -> Heard {
        let stream = self.send(fields, body).await;
        self.hear(stream).await
    }

    /// Waits for the end of a stream.
    pub(super) async fn hear(&mut self, stream: u32) -> Heard {
        let hear = async {
            loop {
                if let Some(heard) = self.streams.get(&stream).and_then(|stream| stream.heard.clone()) {
                    return heard;
                }
                if self.over {
                    return Heard::Over(self.goaway);
                }
                self.read().await;
            }
        };
        tokio::time::timeout(PATIENCE, hear)
            .await
            .expect("the stream never ends")
    }

    /// Waits for the end of the connection and returns the error of the last GOAWAY.
    pub(super) async fn end(&mut self) -> Option<u32> {
        let end = async {
            while !self.over {
                self.read().await;
            }
        };
        tokio::time::timeout(PATIENCE, end)
            .await
            .expect("the gateway keeps the connection open");
        self.goaway
    }

    /// Closes the connection from this side and waits for the other.
    pub(super) async fn leave(mut self) {
        // The other side may have closed first.
        let _ = self.stream.shutdown().await;
        self.end().await;
    }

    async fn read(&mut self) {
        match self.stream.read_buf(&mut self.ahead).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => self.over = true,
        }
        while let Some(header) = self.ahead.get(..9) {
            let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
            if self.ahead.len() < 9 + length {
                return;
            }
            let bytes: Vec<u8> = self.ahead.drain(..9 + length).collect();
            let stream = word(&bytes[5..]) & 0x7fff_ffff;
            self.take(bytes[3], bytes[4], stream, &bytes[9..]).await;
        }
    }

    async fn take(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        match kind {
            SETTINGS if flags & ACK == 0 => self.write(&frame(SETTINGS, ACK, 0, &[])).await,
            PING if flags & ACK == 0 => self.write(&frame(PING, ACK, 0, payload)).await,
            GOAWAY => self.goaway = Some(word(&payload[4..])),
            HEADERS | DATA | RST_STREAM => {
                let stream = self.streams.entry(stream).or_default();
                match kind {
                    // This reader ignores trailers, and no answer here has any.
                    HEADERS if stream.status == 0 => stream.status = status(payload),
                    DATA => stream.body.extend(payload),
                    RST_STREAM if stream.heard.is_none() => stream.heard = Some(Heard::Reset(word(payload))),
                    _ => {}
                }
                if kind != RST_STREAM && flags & END_STREAM != 0 {
                    let body: serde_json::Value = serde_json::from_slice(&stream.body).unwrap_or_default();
                    let code = body["code"].as_str().unwrap_or_default();
                    stream.heard = Some(Heard::problem(stream.status, code));
                }
            }
            _ => {}
        }
    }
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

#[test]
fn a_status_is_read_however_it_is_written() {
    assert_eq!(status(&[0x88]), 200);
    assert_eq!(status(&[0x20, 0x8c]), 400);
    assert_eq!(status(&[0x20, 0x08, 3, b'4', b'1', b'3']), 413);
    // "302" in RFC 7541 appendix C.6.1, and with indexing.
    assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), 302);
    assert_eq!(status(&[0x48, 0x83, 0x64, 0x0e, 0xff]), 307);
    assert_eq!(digits(&[0x10, 0x05]), 202);
}
