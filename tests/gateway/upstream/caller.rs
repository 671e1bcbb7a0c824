//! A caller that notices how an answer ends: complete, or visibly cut. It speaks HTTP/1.1 byte by byte,
//! because a library is lenient, and HTTP/2 with a library that distinguishes a reset from an end.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::{KEY, PATIENCE, Running};

/// The protocol between caller and gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    /// The word in the log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "h1",
            Self::Http2 => "h2",
        }
    }
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// At the end that its head announced.
    Whole,
    /// Earlier; the text says how the caller noticed.
    Broken(String),
}

/// What a caller saw of an answer.
#[derive(Debug)]
pub(crate) struct Seen {
    /// None if the head did not arrive.
    pub(crate) status: Option<u16>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) end: End,
}

impl Seen {
    fn nothing(why: String) -> Self {
        Self {
            status: None,
            headers: HeaderMap::new(),
            body: Vec::new(),
            end: End::Broken(why),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn is_problem(&self) -> bool {
        self.header("content-type") == Some("application/problem+json")
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// A caller with one connection, replaced whenever HTTP/1.1 has closed it.
pub(crate) enum Caller {
    Http1(Option<Box<Wire>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Caller {
    pub(crate) async fn connect(gateway: &Running, protocol: Protocol) -> Self {
        match protocol {
            Protocol::Http1 => Self::Http1(Some(Box::new(Wire::new(gateway).await))),
            Protocol::Http2 => Self::Http2(gateway.connect_h2().await),
        }
    }

    /// Sends a request with the key of `shop` and reads everything that is returned. On HTTP/2 the connection
    /// must survive a failed stream, so it is never replaced.
    pub(crate) async fn send(&mut self, gateway: &Running, method: &str, body: &[u8]) -> Seen {
        let exchange = async {
            match self {
                Self::Http2(sender) => send_h2(sender, method, body).await,
                Self::Http1(kept) => {
                    let mut wire = match kept.take() {
                        Some(wire) => wire,
                        None => Box::new(Wire::new(gateway).await),
                    };
                    wire.ask(method, body.len(), body).await;
                    let seen = wire.hear(method).await;
                    let closes = seen.header("connection") == Some("close");
                    *kept = Some(wire).filter(|_| seen.end == End::Whole && !closes);
                    seen
                }
            }
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .expect("the answer neither ends nor breaks off")
    }
}

async fn send_h2(sender: &mut http2::SendRequest<Full<Bytes>>, method: &str, body: &[u8]) -> Seen {
    let request = Request::builder()
        .method(method)
        .uri("https://localhost/orders")
        .header("x-api-key", KEY)
        .header("content-type", "application/json")
        .body(Full::from(body.to_vec()))
        .unwrap();
    sender.ready().await.unwrap();
    let (head, mut body) = match sender.send_request(request).await {
        Ok(answer) => answer.into_parts(),
        Err(error) => return Seen::nothing(reset(&error)),
    };
    let mut seen = Seen {
        status: Some(head.status.as_u16()),
        headers: head.headers,
        body: Vec::new(),
        end: End::Whole,
    };
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => seen.body.extend(frame.into_data().expect("trailers stay behind")),
            Err(error) => {
                seen.end = End::Broken(reset(&error));
                // The library would return the same error repeatedly.
                break;
            }
        }
    }
    seen
}

/// How a stream was reset. A cut is visible only if the gateway reset it, and not our side.
fn reset(error: &hyper::Error) -> String {
    let text = format!("{error:?}");
    assert!(
        text.contains("Reset") && text.contains("Remote"),
        "no stream error of the gateway: {text}"
    );
    text
}

/// HTTP/1.1, byte by byte.
pub(crate) struct Wire {
    stream: TlsStream<TcpStream>,
    ahead: Vec<u8>,
}

/// The result of reading the connection.
enum Read {
    More,
    /// A close_notify.
    Closed,
    /// The connection ended without it.
    Lost(String),
}

impl Wire {
    pub(crate) async fn new(gateway: &Running) -> Self {
        Self {
            stream: gateway.tls_stream().await,
            ahead: Vec::new(),
        }
    }

    /// Writes a request that announces this many bytes, and sends these of them.
    pub(crate) async fn ask(&mut self, method: &str, length: usize, body: &[u8]) {
        let head = format!(
            "{method} /orders HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Type: \
             application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        let request = [head.as_bytes(), body].concat();
        self.stream.write_all(&request).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Reads one answer as strictly as the strictest caller.
    pub(crate) async fn hear(&mut self, method: &str) -> Seen {
        let (status, headers) = loop {
            match self.head() {
                Some((100..200, _)) => {}
                Some(head) => break head,
                None => match self.read().await {
                    Read::More => {}
                    Read::Closed => return Seen::nothing("closed before a head".to_owned()),
                    Read::Lost(why) => return Seen::nothing(why),
                },
            }
        };
        let mut seen = Seen {
            status: Some(status),
            headers,
            body: Vec::new(),
            end: End::Whole,
        };
        let bodiless = method == "HEAD" || [204, 304].contains(&status);
        let broken = match seen
            .header("content-length")
            .map(|length| length.parse().unwrap())
        {
            _ if bodiless => None,
            Some(length) => self.length(length, &mut seen.body).await,
            None if seen.header("transfer-encoding") == Some("chunked") => self.chunks(&mut seen.body).await,
            None => self.until_closed(&mut seen.body).await,
        };
        seen.end = broken.map_or(End::Whole, End::Broken);
        seen
    }

    /// The head at the beginning of the data, if it is complete.
    fn head(&mut self) -> Option<(u16, HeaderMap)> {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut fields);
        let parsed = response.parse(&self.ahead);
        let parsed = parsed.unwrap_or_else(|error| {
            panic!("{error}: {:?}", String::from_utf8_lossy(&self.ahead));
        });
        let httparse::Status::Complete(length) = parsed else {
            return None;
        };
        let headers = response.headers.iter().map(|field| {
            let name = HeaderName::from_bytes(field.name.as_bytes()).unwrap();
            (name, HeaderValue::from_bytes(field.value).unwrap())
        });
        let head = (response.code.unwrap(), headers.collect());
        self.ahead.drain(..length);
        Some(head)
    }

    async fn read(&mut self) -> Read {
        match self.stream.read_buf(&mut self.ahead).await {
            Ok(1..) => Read::More,
            Ok(0) => Read::Closed,
            Err(error) => Read::Lost(error.to_string()),
        }
    }

    /// Continues to read in the middle of a message; an end of any kind is too early.
    async fn more(&mut self) -> Option<String> {
        match self.read().await {
            Read::More => None,
            Read::Closed => Some("closed in the middle of the body".to_owned()),
            Read::Lost(why) => Some(why),
        }
    }

    async fn length(&mut self, length: usize, body: &mut Vec<u8>) -> Option<String> {
        loop {
            let part = self.ahead.len().min(length - body.len());
            body.extend(self.ahead.drain(..part));
            if body.len() == length {
                return None;
            }
            if let Some(broken) = self.more().await {
                return Some(broken);
            }
        }
    }

    async fn chunks(&mut self, body: &mut Vec<u8>) -> Option<String> {
        // Removed from the front all at once: a million chunks would move the rest a million times.
        let mut at = 0;
        loop {
            match chunk(&self.ahead[at..]) {
                Some((data, frame)) => {
                    let (from, to) = (at + frame - data - 2, at + frame - 2);
                    body.extend_from_slice(&self.ahead[from..to]);
                    at += frame;
                    if data == 0 {
                        self.ahead.drain(..at);
                        return None;
                    }
                }
                None => {
                    self.ahead.drain(..at);
                    at = 0;
                    if let Some(broken) = self.more().await {
                        return Some(broken);
                    }
                }
            }
        }
    }

    /// A body without a length is complete only at a close_notify.
    async fn until_closed(&mut self, body: &mut Vec<u8>) -> Option<String> {
        loop {
            let read = self.read().await;
            body.append(&mut self.ahead);
            match read {
                Read::More => {}
                Read::Closed => return None,
                Read::Lost(why) => return Some(why),
            }
        }
    }
}

/// Length of the data and of the whole encoding of the first chunk, if it is complete.
fn chunk(bytes: &[u8]) -> Option<(usize, usize)> {
    let parsed = httparse::parse_chunk_size(bytes).expect("the gateway's chunks are sound");
    let httparse::Status::Complete((line, data)) = parsed else {
        return None;
    };
    let data = usize::try_from(data).unwrap();
    let frame = line + data + 2;
    let end = bytes.get(line + data..frame)?;
    assert_eq!(end, b"\r\n", "a chunk that is longer than it said, or a trailer");
    Some((data, frame))
}
