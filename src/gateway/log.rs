//! Where finished lines go, and the lines of connections that ended below HTTP.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::model::claims::printable;
use crate::model::clock;
use crate::settings::AccessLog;

/// Version of the schema of a line; it rises when a field changes its meaning or goes away.
pub const SCHEMA_VERSION: u8 = 1;
/// Longest detail of a connection that is written. Characters.
const DETAIL_CHARS_MAX: usize = 512;

/// Where finished lines go. It must not block: requests wait for it.
pub trait Sink: Send + Sync {
    /// Takes one line, with its line feed.
    fn line(&self, line: &[u8]);

    /// Takes a line that anyone can cause without a key, such as that of a connection. Where there is not room for all
    /// lines, these are given up first.
    fn minor(&self, line: &[u8]) {
        self.line(line);
    }

    /// Lines that were dropped because the writer could not keep up.
    fn dropped(&self) -> u64 {
        0
    }
}

/// How lines are written, and where to.
#[derive(Clone)]
pub struct Log(Arc<Desk>);

struct Desk {
    sink: Option<Arc<dyn Sink>>,
    form: Form,
    requests: AccessLog,
    stopping: AtomicBool,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("form", &self.0.form)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Json,
    Text,
}

impl Log {
    /// Lines of requests and connections to this sink.
    pub fn new(sink: Arc<dyn Sink>, form: Form) -> Self {
        Self::with(Some(sink), form, AccessLog::On)
    }

    /// Lines of connections to this sink, and none of requests.
    pub fn without_requests(sink: Arc<dyn Sink>, form: Form) -> Self {
        Self::with(Some(sink), form, AccessLog::Off)
    }

    pub fn off() -> Self {
        Self::with(None, Form::Json, AccessLog::Off)
    }

    fn with(sink: Option<Arc<dyn Sink>>, form: Form, requests: AccessLog) -> Self {
        Self(Arc::new(Desk {
            sink,
            form,
            requests,
            stopping: AtomicBool::new(false),
        }))
    }

    /// Where lines of requests go. Without it nothing is made ready for them either.
    pub(super) fn requests(&self) -> Option<&Arc<dyn Sink>> {
        match self.0.requests {
            AccessLog::On => self.0.sink.as_ref(),
            AccessLog::Off => None,
        }
    }

    pub fn dropped(&self) -> u64 {
        self.0.sink.as_ref().map_or(0, |sink| sink.dropped())
    }

    /// Notes that what still runs is being cut: requests that end from now on are not their callers' doing.
    pub fn stopping(&self) {
        self.0.stopping.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Relaxed)
    }

    pub(super) fn form(&self) -> Form {
        self.0.form
    }

    pub fn connection(&self, line: &ConnectionLine<'_>) {
        let Some(sink) = &self.0.sink else { return };
        let bytes = match self.0.form {
            Form::Json => json(line),
            Form::Text => {
                let peer = line.address;
                let detail = line.detail.as_deref().unwrap_or_default();
                format!("{} {peer} connection {} {detail}\n", line.time, line.reason).into_bytes()
            }
        };
        sink.minor(&bytes);
    }
}

pub(super) fn json(line: &impl Serialize) -> Vec<u8> {
    // These plain fields cannot fail to serialize.
    let mut bytes = serde_json::to_vec(line).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// What is logged about a connection that was refused or broke below HTTP.
#[derive(Debug, Serialize)]
pub struct ConnectionLine<'a> {
    /// Version of the schema.
    pub v: u8,
    /// When it ended, RFC 3339.
    pub time: String,
    /// Always `connection`.
    pub kind: &'static str,
    pub address: IpAddr,
    /// A word from the code.
    pub reason: &'static str,
    /// What happened, and what the peer offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Cow<'a, str>>,
}

impl<'a> ConnectionLine<'a> {
    pub fn new(address: IpAddr, reason: &'static str, detail: Option<Cow<'a, str>>) -> Self {
        Self {
            v: SCHEMA_VERSION,
            time: clock::stamp(),
            kind: "connection",
            address,
            reason,
            detail: detail.map(|detail| printable(&detail, DETAIL_CHARS_MAX).into()),
        }
    }
}
