//! What the listeners do before, around and instead of a request. This file has the shared parts: a gateway
//! with one route, and a connection that is written and read byte by byte.

mod acknowledgements;
mod admin;
mod alerts;
mod crowds;
mod deadlines;
mod early;
#[cfg(target_os = "linux")]
mod exhaustion;
mod floods;
pub(crate) mod frames;
mod handshakes;
mod heads;
mod health;
mod hosts;
mod lapsed;
mod plain;
mod readers;
mod refusals;
mod strangers;
mod tls;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::Full;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::emulator::Answer as Flow;
use crate::emulator::{Trigger, TriggerHandle};
use crate::harness::{Answer, KEY, PATIENCE, Running, TENANT, World, post};

/// A flow that answers 202, and a gateway with the route `/orders` to it, followed by these settings.
pub(crate) async fn served(more: &str) -> (World, Running, TriggerHandle) {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let route = world.route("orders", "/orders", &trigger.url(), "");
    let gateway = world.start_with(&format!("{route}{more}"));
    (world, gateway, trigger)
}

/// A small order with the key of `shop`.
pub(crate) fn order() -> Request<Full<Bytes>> {
    post("/orders")
        .header("x-api-key", KEY)
        .body(Full::from("{}"))
        .unwrap()
}

/// The same as bytes, with more lines in its head.
pub(crate) fn order_bytes(more: &str) -> String {
    format!(
        "POST /orders HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: 2\r\n{more}\r\n{{}}"
    )
}

/// A connection that is written and read byte by byte.
pub(crate) struct Talk<S = TlsStream<TcpStream>> {
    stream: S,
    ahead: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            ahead: Vec::new(),
        }
    }

    /// Writes bytes unchanged.
    pub(crate) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_say(bytes).await.unwrap();
    }

    /// Writes bytes unchanged, to a gateway that may have closed.
    pub(crate) async fn try_say(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await?;
        self.stream.flush().await
    }

    /// The next answer, 1xx included.
    pub(crate) async fn hear(&mut self) -> Answer {
        self.hear_after("POST").await
    }

    /// The next answer to a request with this method.
    pub(crate) async fn hear_after(&mut self, method: &str) -> Answer {
        let hear = async {
            loop {
                if let Some((answer, length)) = parse(&self.ahead, method) {
                    self.ahead.drain(..length);
                    return Some(answer);
                }
                if self.more().await == 0 {
                    return None;
                }
            }
        };
        let heard = tokio::time::timeout(PATIENCE, hear).await;
        match heard {
            Ok(Some(answer)) => answer,
            _ => panic!("no whole answer: {:?}", String::from_utf8_lossy(&self.ahead)),
        }
    }

    /// Everything until the gateway closes.
    pub(crate) async fn rest(&mut self) -> String {
        let end = async { while self.more().await > 0 {} };
        let ended = tokio::time::timeout(PATIENCE, end).await;
        let text = String::from_utf8_lossy(&self.ahead).into_owned();
        assert!(ended.is_ok(), "the gateway keeps the connection open: {text:?}");
        text
    }

    /// Everything up to this text.
    pub(crate) async fn hear_until(&mut self, end: &str) -> String {
        let hear = async {
            loop {
                let found = self
                    .ahead
                    .windows(end.len())
                    .position(|part| part == end.as_bytes());
                if let Some(at) = found {
                    return self.ahead.drain(..at + end.len()).collect::<Vec<u8>>();
                }
                assert!(
                    self.more().await > 0,
                    "it closed without {end:?}: {:?}",
                    self.ahead
                );
            }
        };
        let heard = tokio::time::timeout(PATIENCE, hear).await;
        String::from_utf8_lossy(&heard.expect("it does not come")).into_owned()
    }

    /// Reads this many bytes and discards them.
    pub(crate) async fn skip(&mut self, mut bytes: usize) {
        let skip = async {
            loop {
                let part = bytes.min(self.ahead.len());
                bytes -= part;
                self.ahead.drain(..part);
                if bytes == 0 {
                    return;
                }
                assert!(self.more().await > 0, "it closed {bytes} bytes early");
            }
        };
        tokio::time::timeout(PATIENCE, skip)
            .await
            .expect("they do not come");
    }

    /// Checks that nothing arrives for this long, not even a close_notify.
    pub(crate) async fn silence(&mut self, length: Duration) {
        let heard = tokio::time::timeout(length, self.more()).await;
        assert!(heard.is_err(), "{heard:?} bytes: {:?}", self.ahead);
    }

    /// Reads once; 0 at the end. A reset connection has ended too.
    async fn more(&mut self) -> usize {
        self.stream.read_buf(&mut self.ahead).await.unwrap_or(0)
    }
}

/// The first complete answer in these bytes, and its length.
fn parse(bytes: &[u8], method: &str) -> Option<(Answer, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = response.parse(bytes).unwrap() else {
        return None;
    };
    let status = StatusCode::from_u16(response.code.unwrap()).unwrap();
    let headers: HeaderMap = response
        .headers
        .iter()
        .map(|field| {
            let name = HeaderName::from_bytes(field.name.as_bytes()).unwrap();
            (name, HeaderValue::from_bytes(field.value).unwrap())
        })
        .collect();
    let bodiless = method == "HEAD" || status.is_informational() || [204, 304].contains(&status.as_u16());
    let (body, length) = match headers.get("content-length") {
        _ if bodiless => (Vec::new(), 0),
        Some(length) => {
            let length: usize = length.to_str().unwrap().parse().unwrap();
            (bytes.get(head..head + length)?.to_vec(), length)
        }
        None => chunks(&bytes[head..])?,
    };
    let body = Bytes::from(body);
    Some((
        Answer {
            status,
            headers,
            body,
        },
        head + length,
    ))
}

/// The data of a chunked body, and the length of the encoded body.
fn chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let httparse::Status::Complete((line, size)) = httparse::parse_chunk_size(&bytes[at..]).unwrap()
        else {
            return None;
        };
        let size = usize::try_from(size).unwrap();
        at += line;
        body.extend_from_slice(bytes.get(at..at + size)?);
        at += size + 2;
        bytes.get(..at)?;
        if size == 0 {
            return Some((body, at));
        }
    }
}

impl Running {
    /// A TLS connection for HTTP/1.1 that is written and read byte by byte.
    pub(crate) async fn talk(&self) -> Talk {
        Talk::new(self.tls_stream().await)
    }
}

/// A refusal before anything was sent upstream: our own 400, announced as the last answer of its connection.
pub(crate) fn assert_malformed(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 400, "{what}: {}", answer.text());
    assert_eq!(answer.code(), "malformed-request", "{what}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{what}"
    );
    assert_eq!(answer.json()["retryable"], false, "{what}");
    assert_eq!(answer.header("connection"), Some("close"), "{what}");
}
