//! An ordinary HTTP answer and its bytes on the wire.

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::wire;

/// A status, headers and a body of known length.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code; any number, also ones that have no name.
    pub status: u16,
    /// Headers in the order in which they are written.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Reply {
    /// An answer without headers and body.
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// An answer with a JSON body, with the platform's content type.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::new(status)
            .header("Content-Type", "application/json; charset=utf-8")
            .body(body.to_string())
    }

    /// An answer with a page for browsers, as front ends of the platform write them.
    pub fn html(status: u16, title: &str) -> Self {
        let page = format!("<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>");
        Self::new(status).header("Content-Type", "text/html").body(page)
    }

    /// An answer with plain text.
    pub fn text(status: u16, body: impl Into<Bytes>) -> Self {
        Self::new(status)
            .header("Content-Type", "text/plain; charset=utf-8")
            .body(body)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Adds those headers that the answer does not have yet.
    #[must_use]
    pub fn with_defaults(mut self, defaults: Vec<(String, String)>) -> Self {
        for (name, value) in defaults {
            if wire::header(&self.headers, &name).is_none() {
                self.headers.push((name, value));
            }
        }
        self
    }

    /// The head without the headers for the length.
    pub fn open_head(&self) -> String {
        let reason = StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason());
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason.unwrap_or("Unknown"));
        for (name, value) in &self.headers {
            head.push_str(name);
            head.push_str(": ");
            head.push_str(value);
            head.push_str("\r\n");
        }
        head
    }

    /// The whole answer as bytes, as an answer to `method`.
    pub fn bytes(&self, method: &str) -> Vec<u8> {
        let mut head = self.open_head();
        let without_body = matches!(self.status, 100..200 | 204 | 304);
        if !without_body && wire::header(&self.headers, "content-length").is_none() {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if !without_body && method != "HEAD" {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}
