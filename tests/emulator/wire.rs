//! A small HTTP/1.1 reader and writer on a TLS stream. It is written by hand so that a test sees each request
//! exactly as it was sent, and may answer with any bytes, even those that no HTTP library would write.

use std::{future, io};

use aws_lc_rs::digest;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::ids;

/// More than the platform's 16 KiB of address and any reasonable headers need.
const HEAD_BYTES_MAX: usize = 128 << 10;
const HEADERS_MAX: usize = 1024;
/// The longest line between two chunks, chunk extensions included.
const CHUNK_LINE_MAX: usize = 8 << 10;
/// How much of a body is recorded; the rest is only counted and hashed.
const STORED_BYTES_MAX: usize = 1 << 20;

/// Why a request could not be read.
#[derive(Debug)]
pub enum Broken {
    /// The peer closed the connection between two requests.
    Closed,
    /// The connection broke, or was closed in the middle of a request.
    Lost,
    /// The peer sent something that is not HTTP/1.1, or is ambiguous.
    Malformed(String),
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self::Lost
    }
}

/// How the length of a request body is stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Neither header: no body.
    Absent,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// The head of a request, unchanged as far as a test may depend on it.
#[derive(Clone, Debug)]
pub struct Head {
    pub method: String,
    /// The target as sent: path and query, not decoded.
    pub target: String,
    /// The 1 of HTTP/1.1.
    pub minor_version: u8,
    /// Names in the case and order in which they were sent.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The value of the first header with this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The values of all headers with this name.
    pub fn headers_named(&self, name: &str) -> Vec<&str> {
        headers_named(&self.headers, name)
    }

    /// The target before the question mark.
    pub fn path(&self) -> &str {
        self.target
            .split_once('?')
            .map_or(self.target.as_str(), |(path, _)| path)
    }

    /// The target after the question mark.
    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// Whether the peer wants to keep the connection open after this request.
    pub fn keeps_alive(&self) -> bool {
        let close = self
            .headers_named("connection")
            .iter()
            .any(|value| value.eq_ignore_ascii_case("close"));
        self.minor_version == 1 && !close
    }

    /// How the body is framed.
    ///
    /// # Errors
    /// Ambiguous framing is malformed: both headers, several lengths, other codings.
    pub fn framing(&self) -> Result<Framing, Broken> {
        let lengths = self.headers_named("content-length");
        let codings = self.headers_named("transfer-encoding");
        match (lengths.as_slice(), codings.as_slice()) {
            ([], []) => Ok(Framing::Absent),
            ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => length
                .parse()
                .map(Framing::Length)
                .map_err(|_| Broken::Malformed(format!("content-length {length:?}"))),
            ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
            _ => Err(Broken::Malformed(format!(
                "ambiguous framing: content-length {lengths:?}, transfer-encoding {codings:?}"
            ))),
        }
    }
}

/// The value of the first header with this name, ignoring case.
pub fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

/// The values of all headers with this name, ignoring case.
pub fn headers_named<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    let named = headers
        .iter()
        .filter(|(known, _)| known.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.as_str()).collect()
}

/// A request body: its beginning, length and hash.
pub struct Body {
    stored: BytesMut,
    bytes: u64,
    digest: digest::Context,
}

impl Body {
    pub fn empty() -> Self {
        Self {
            stored: BytesMut::new(),
            bytes: 0,
            digest: digest::Context::new(&digest::SHA256),
        }
    }

    /// The recorded bytes, at most the first MiB.
    pub fn stored(&self) -> Bytes {
        Bytes::copy_from_slice(&self.stored)
    }

    /// Number of bytes read.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The hash of all bytes read so far.
    pub fn sha256(&self) -> String {
        ids::hex(self.digest.clone().finish().as_ref())
    }

    fn push(&mut self, part: &[u8]) {
        let room = STORED_BYTES_MAX.saturating_sub(self.stored.len());
        self.stored.extend_from_slice(&part[..part.len().min(room)]);
        self.bytes += part.len() as u64;
        self.digest.update(part);
    }
}

/// One accepted connection.
pub struct Wire {
    stream: TlsStream<TcpStream>,
    buffer: BytesMut,
}

impl Wire {
    /// Starts reading requests from a stream after its handshake.
    pub fn new(stream: TlsStream<TcpStream>) -> Self {
        Self {
            stream,
            buffer: BytesMut::with_capacity(8 << 10),
        }
    }

    /// Reads the next head. Cancellation-safe: data that was read stays in the buffer.
    ///
    /// # Errors
    /// [`Broken::Closed`] is the ordinary end of a connection.
    pub async fn head(&mut self) -> Result<Head, Broken> {
        loop {
            if let Some((head, length)) = parse_head(&self.buffer)? {
                self.buffer.advance(length);
                return Ok(head);
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(Broken::Malformed(format!(
                    "a head longer than {HEAD_BYTES_MAX} bytes"
                )));
            }
            let fresh = self.buffer.is_empty();
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(if fresh { Broken::Closed } else { Broken::Lost });
            }
        }
    }

    /// Reads a whole body; `progress` is called for each part as it arrives.
    ///
    /// # Errors
    /// [`Broken::Lost`] if the peer stops in the middle; `body` then has what arrived.
    pub async fn body(
        &mut self,
        framing: Framing,
        body: &mut Body,
        progress: impl Fn(u64),
    ) -> Result<(), Broken> {
        match framing {
            Framing::Absent => Ok(()),
            Framing::Length(bytes) => self.copy(bytes, body, &progress).await,
            Framing::Chunked => self.chunks(body, &progress).await,
        }
    }

    /// Writes bytes unchanged.
    ///
    /// # Errors
    /// If the peer is gone.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Returns when the peer has closed its side. Bytes that arrive before stay in the buffer.
    pub async fn gone(&mut self) {
        loop {
            if self.buffer.len() > HEAD_BYTES_MAX {
                // Reading on would be unbounded, and a peer that sends this much has not left.
                future::pending::<()>().await;
            }
            if !matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..)) {
                return;
            }
        }
    }

    /// Returns when the peer has closed its side. Bytes that arrive are discarded, so it must be the end of
    /// the exchange.
    pub async fn drained(&mut self) {
        loop {
            self.buffer.clear();
            if !matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..)) {
                return;
            }
        }
    }

    /// Sends a close_notify and closes our side; the peer's stays open.
    ///
    /// # Errors
    /// If the peer is gone.
    pub async fn close_our_side(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Closes the connection cleanly, with a close_notify. Dropping a wire instead cuts it.
    pub async fn close(mut self) {
        // Fails if the peer has already left, which changes nothing.
        let _ = self.stream.shutdown().await;
    }

    /// Makes dropping the wire reset the connection.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn reset_when_dropped(&self) -> io::Result<()> {
        self.stream.get_ref().0.set_zero_linger()
    }

    async fn copy(&mut self, mut left: u64, body: &mut Body, progress: &impl Fn(u64)) -> Result<(), Broken> {
        while left > 0 {
            if self.buffer.is_empty() {
                self.fill().await?;
            }
            let part = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            body.push(&self.buffer[..part]);
            self.buffer.advance(part);
            progress(part as u64);
            left -= part as u64;
        }
        Ok(())
    }

    async fn chunks(&mut self, body: &mut Body, progress: &impl Fn(u64)) -> Result<(), Broken> {
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let bytes = u64::from_str_radix(size, 16)
                .map_err(|_| Broken::Malformed(format!("a chunk of size {size:?}")))?;
            if bytes == 0 {
                break;
            }
            self.copy(bytes, body, progress).await?;
            if !self.line().await?.is_empty() {
                return Err(Broken::Malformed("a chunk longer than it said".to_owned()));
            }
        }
        // Trailers end with an empty line.
        while !self.line().await?.is_empty() {}
        Ok(())
    }

    async fn line(&mut self) -> Result<String, Broken> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.advance(end + 2);
                return Ok(line);
            }
            if self.buffer.len() > CHUNK_LINE_MAX {
                return Err(Broken::Malformed("a chunk line without an end".to_owned()));
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), Broken> {
        self.buffer.reserve(16 << 10);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(Broken::Lost),
            _ => Ok(()),
        }
    }
}

/// The head at the start of `bytes` and its length, or `None` while it is incomplete.
///
/// # Errors
/// If it is not a valid HTTP/1.1 head.
pub fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Broken> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request
        .parse(bytes)
        .map_err(|error| Broken::Malformed(format!("a head with {error}")))?;
    let httparse::Status::Complete(length) = parsed else {
        return Ok(None);
    };
    let headers = request.headers.iter();
    let head = Head {
        method: request.method.unwrap_or_default().to_owned(),
        target: request.path.unwrap_or_default().to_owned(),
        minor_version: request.version.unwrap_or_default(),
        headers: headers
            .map(|field| {
                (
                    field.name.to_owned(),
                    String::from_utf8_lossy(field.value).into_owned(),
                )
            })
            .collect(),
    };
    Ok(Some((head, length)))
}
