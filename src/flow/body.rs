//! The body of a request to a trigger, and how far it has come.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use tokio::time::Instant;

use crate::model::clock;
use crate::wire::BodyError;

pub type StreamedBody = Pin<Box<dyn Body<Data = Bytes, Error = BodyError> + Send>>;

pub enum Outgoing {
    /// Whole in memory, to be sent in one piece with its length.
    Held(Bytes),
    Streamed(StreamedBody),
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(bytes) => write!(f, "Held({} bytes)", bytes.len()),
            Self::Streamed(_) => f.write_str("Streamed"),
        }
    }
}

/// How far the body of a request has come; shared between the body, the deadline of the answer and the log line.
#[derive(Debug)]
pub struct Progress {
    born: Instant,
    last_millis: AtomicU64,
    bytes: AtomicU64,
    done: AtomicBool,
    abandoned: AtomicBool,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            born: clock::now(),
            last_millis: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            done: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        }
    }
}

impl Progress {
    pub fn moved(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let passed = clock::now().saturating_duration_since(self.born);
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        self.last_millis.store(millis, Ordering::Relaxed);
    }

    /// Notes that the last piece went on.
    pub fn done(&self) {
        self.moved(0);
        self.done.store(true, Ordering::Release);
    }

    /// Whether the whole body was handed over.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Notes that nobody waits for the answer any more.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn last(&self) -> Instant {
        self.born + Duration::from_millis(self.last_millis.load(Ordering::Relaxed))
    }
}
