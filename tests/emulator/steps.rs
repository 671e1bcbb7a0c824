//! An answer written step by step: any bytes, with pauses wherever a test wants them, and any end. For
//! answers that no HTTP library would write.

use bytes::Bytes;

use super::answer::{After, Answer};
use super::gate::Gate;

/// When the writing begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// After the whole request was read.
    Request,
    /// Once the head is read; the body stays unread.
    Head,
}

/// One step of an answer.
#[derive(Clone, Debug)]
pub enum Step {
    /// These bytes are written.
    Send(Bytes),
    /// These bytes are written repeatedly.
    Repeat {
        /// The bytes; a large piece costs less than many small ones.
        bytes: Bytes,
        times: usize,
    },
    /// The writer waits at this gate.
    Pass(Gate),
}

/// The steps of an answer and what follows them.
#[derive(Clone, Debug)]
pub struct Steps {
    /// What is written, in this order.
    pub list: Vec<Step>,
    /// What happens to the connection afterwards.
    pub then: After,
    /// When the writing begins.
    pub stage: Stage,
}

impl Steps {
    /// Writes nothing, and keeps the connection open for the next request.
    pub fn new() -> Self {
        Self {
            list: Vec::new(),
            then: After::KeepAlive,
            stage: Stage::Request,
        }
    }

    /// Writes bytes unchanged.
    #[must_use]
    pub fn send(mut self, bytes: impl Into<Bytes>) -> Self {
        self.list.push(Step::Send(bytes.into()));
        self
    }

    /// Writes the same bytes this many times, unless the caller leaves before.
    #[must_use]
    pub fn repeat(mut self, bytes: impl Into<Bytes>, times: usize) -> Self {
        let bytes = bytes.into();
        self.list.push(Step::Repeat { bytes, times });
        self
    }

    #[must_use]
    pub fn pass(mut self, gate: &Gate) -> Self {
        self.list.push(Step::Pass(gate.clone()));
        self
    }

    /// Sets the end.
    #[must_use]
    pub fn then(self, then: After) -> Self {
        Self { then, ..self }
    }

    /// Begins once the head is read.
    #[must_use]
    pub fn at_head(self) -> Self {
        Self {
            stage: Stage::Head,
            ..self
        }
    }
}

impl From<Steps> for Answer {
    fn from(steps: Steps) -> Self {
        Self::Steps(steps)
    }
}
