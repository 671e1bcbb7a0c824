//! What a trigger does with a request that passed its checks: the behaviour of real flows, failures of the
//! platform, and failures of networks.

use bytes::Bytes;
use serde_json::{Value, json};

use super::faults::{NO_RESPONSE, Names, PlatformFault, RunStarted, UNLISTED};
use super::gate::Gate;
use super::record::Recorded;
use super::reply::Reply;
use super::steps::{Stage, Steps};

/// One answer of a trigger.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A flow without a Response action: 202 at once, no body, a run.
    Accepted,
    /// A Response action: this answer with the headers of a run.
    Respond(Reply),
    /// A Response action with asynchronous response: 202 with `Location`; this many polls get 202 again, then
    /// the answer.
    Asynchronous {
        polls: u32,
        /// The final answer.
        then: Reply,
    },
    /// A failure from the table.
    Fault(PlatformFault),
    /// An answer of the platform before any run.
    Platform(Reply),
    /// An answer of the platform although a run was started.
    Late(Reply),
    /// A run, but never an answer; the connection stays until the caller leaves.
    Never,
    /// A run, but the connection is cut instead of an answer.
    Cut,
    /// The connection is cut once the head is read; the body stays unread and no run starts.
    CutAtHead,
    /// The platform answers once the head is read, and closes; no run starts.
    AtHead(Reply),
    /// These bytes unchanged, after the request was read; no run is counted.
    Raw {
        bytes: Bytes,
        /// What happens to the connection afterwards.
        then: After,
    },
    /// Written step by step; no run is counted.
    Steps(Steps),
    /// A run whose answer is a long chunked body of letters.
    Stream {
        chunks: usize,
        chunk_bytes: usize,
        /// The gate for each chunk but the first.
        gate: Option<Gate>,
    },
    /// A run that answers with what it received, as JSON.
    EchoHead,
}

/// What happens to a connection after raw bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It stays open for the next request.
    KeepAlive,
    /// It is closed cleanly.
    Close,
    /// Our side is closed cleanly, and reading continues until the caller closes too: an unread byte would
    /// reset the connection and could discard the answer.
    Linger,
    /// It is cut, without close_notify.
    Cut,
    /// It is reset: what has not arrived yet is lost.
    Reset,
    /// It stays silent until the caller leaves.
    Stall,
}

/// The body of an error whose real form is not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorBody {
    /// The platform's envelope with an unlisted code.
    Envelope,
    /// A page.
    Html,
    /// Nothing.
    Empty,
}

impl Answer {
    /// A Response action with a JSON body.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::Respond(Reply::json(status, body))
    }

    /// 502 `NoResponse` with the id of the run.
    pub fn no_response() -> Self {
        Self::Fault(NO_RESPONSE)
    }

    /// 504 after a run was started, with a body that reveals nothing.
    pub fn timeout(body: ErrorBody) -> Self {
        Self::Late(error_reply(504, body))
    }

    /// 429, with this literal value of `Retry-After`, if any.
    pub fn throttled(retry_after: Option<&str>, body: ErrorBody) -> Self {
        let reply = error_reply(429, body);
        Self::Platform(match retry_after {
            Some(wait) => reply.header("Retry-After", wait),
            None => reply,
        })
    }

    /// 413 with a page, given after the whole body was read.
    pub fn too_large() -> Self {
        Self::Platform(Reply::html(413, "Request Entity Too Large"))
    }

    /// A failure of a front end, before any run.
    pub fn server_error(status: u16, body: ErrorBody) -> Self {
        Self::Platform(error_reply(status, body))
    }

    /// Raw bytes, then a clean close.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self::Raw {
            bytes: bytes.into(),
            then: After::Close,
        }
    }

    /// Whether a run exists once this answer begins.
    pub fn starts_run(&self) -> RunStarted {
        match self {
            Self::Fault(fault) => fault.run,
            Self::Accepted
            | Self::Respond(_)
            | Self::Asynchronous { .. }
            | Self::Late(_)
            | Self::Never
            | Self::Cut
            | Self::Stream { .. }
            | Self::EchoHead => RunStarted::Yes,
            Self::Platform(_) | Self::CutAtHead | Self::AtHead(_) | Self::Raw { .. } | Self::Steps(_) => {
                RunStarted::No
            }
        }
    }

    /// Whether the answer comes from the run itself, and so carries the run's id.
    pub fn tells_run(&self) -> bool {
        match self {
            Self::Accepted
            | Self::Respond(_)
            | Self::Asynchronous { .. }
            | Self::Stream { .. }
            | Self::EchoHead => true,
            Self::Fault(_)
            | Self::Platform(_)
            | Self::Late(_)
            | Self::Never
            | Self::Cut
            | Self::CutAtHead
            | Self::AtHead(_)
            | Self::Raw { .. }
            | Self::Steps(_) => false,
        }
    }

    /// Whether it is sent before the body is read.
    pub fn is_at_head(&self) -> bool {
        match self {
            Self::AtHead(_) | Self::CutAtHead => true,
            Self::Steps(steps) => steps.stage == Stage::Head,
            _ => false,
        }
    }
}

/// An error of the platform that must be recognized by its status.
pub fn error_reply(status: u16, body: ErrorBody) -> Reply {
    match body {
        ErrorBody::Envelope => UNLISTED.with_status(status).reply(&Names::default()),
        ErrorBody::Html => Reply::html(status, "The service is unavailable"),
        ErrorBody::Empty => Reply::new(status),
    }
}

/// One encoded chunk of a stream.
pub fn chunk(bytes: usize) -> Vec<u8> {
    let mut chunk = format!("{bytes:x}\r\n").into_bytes();
    chunk.resize(chunk.len() + bytes, b'x');
    chunk.extend_from_slice(b"\r\n");
    chunk
}

/// The answer of a flow that returns what it received.
pub fn echo(request: &Recorded) -> Reply {
    let headers: Vec<Value> = request
        .head
        .headers
        .iter()
        .map(|(name, value)| json!([name, value]))
        .collect();
    Reply::json(
        200,
        &json!({
            "method": request.head.method,
            "target": request.head.target,
            "headers": headers,
            "body_bytes": request.body_bytes,
            "body_sha256": request.body_sha256,
            "framing": format!("{:?}", request.framing),
        }),
    )
}
