//! A request as the trigger server records it.

use bytes::Bytes;

use super::wire::{Framing, Head};

/// What decided on the answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decided {
    /// A check refused it, with this code.
    Check(&'static str),
    Script,
    /// The trigger's behaviour.
    Behaviour,
    /// It was a poll for an asynchronous answer.
    Poll,
}

/// A request as the trigger server received it.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The number of its connection.
    pub connection: u64,
    /// The server name in the TLS handshake of its connection.
    pub sni: Option<String>,
    /// The protocol negotiated for its connection.
    pub alpn: Option<String>,
    /// Method, target and headers as sent.
    pub head: Head,
    /// How the length of the body was stated.
    pub framing: Framing,
    /// The first MiB of the body.
    pub body: Bytes,
    /// The length of the whole body, as far as it was read.
    pub body_bytes: u64,
    /// The SHA-256 of the whole body, as far as it was read.
    pub body_sha256: String,
    /// False if the caller stopped in the middle, or the body was not read to its end.
    pub body_complete: bool,
    /// The workflow it was for, if there is one.
    pub workflow: Option<String>,
    /// The run that was started.
    pub run: Option<String>,
    pub decided: Decided,
}

impl Recorded {
    /// The value of the first header with this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The values of all headers with this name.
    pub fn headers_named(&self, name: &str) -> Vec<&str> {
        self.head.headers_named(name)
    }

    /// The token it carried.
    pub fn bearer(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("Bearer ")
    }

    /// The recorded part of the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
