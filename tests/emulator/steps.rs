//! An answer written by hand: any bytes, with pauses wherever a test wants them, and any end. What no HTTP library would
//! write is made of these.

use bytes::Bytes;

use super::answer::{After, Answer};
use super::gate::Gate;

/// When the writing begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// After the whole request was read.
    Request,
    /// As soon as the head is read; the body stays unread.
    Head,
}

/// One step of an answer.
#[derive(Clone, Debug)]
pub enum Step {
    /// These bytes are written.
    Send(Bytes),
    /// These bytes are written so many times.
    Repeat {
        /// The bytes; a large piece costs less than many small ones.
        bytes: Bytes,
        /// How many times.
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
    /// What happens to the connection then.
    pub then: After,
    /// When the writing begins.
    pub stage: Stage,
}

impl Steps {
    /// Nothing is written, and the connection serves the next request.
    pub fn new() -> Self {
        Self {
            list: Vec::new(),
            then: After::KeepAlive,
            stage: Stage::Request,
        }
    }

    /// Writes bytes as they are.
    #[must_use]
    pub fn send(mut self, bytes: impl Into<Bytes>) -> Self {
        self.list.push(Step::Send(bytes.into()));
        self
    }

    /// Writes the same bytes so many times, unless the caller leaves before.
    #[must_use]
    pub fn repeat(mut self, bytes: impl Into<Bytes>, times: usize) -> Self {
        let bytes = bytes.into();
        self.list.push(Step::Repeat { bytes, times });
        self
    }

    /// Waits at the gate.
    #[must_use]
    pub fn pass(mut self, gate: &Gate) -> Self {
        self.list.push(Step::Pass(gate.clone()));
        self
    }

    /// Another end than none.
    #[must_use]
    pub fn then(self, then: After) -> Self {
        Self { then, ..self }
    }

    /// Begins as soon as the head is read.
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
