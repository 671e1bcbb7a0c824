//! Why there is no answer from a trigger, and whether any byte of the request has left.

use std::io;
use std::time::Duration;

use crate::flow::body::Outgoing;
use crate::model::RequestId;
use crate::problem::{Again, Kind, Problem, Run};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// None has: the request may be sent on another connection.
    Nothing,
    /// Some have: the trigger may have seen a whole request.
    Something,
}

#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Every permit and every waiting place is taken, or the wait took too long.
    #[error(
        "{all} {what} to this trigger are under way, {own} of them of this sender, and {waiting} wait; {why}"
    )]
    Busy {
        /// What there are too many of.
        what: &'static str,
        all: usize,
        /// How many of them are in the share of this one's sender.
        own: usize,
        waiting: usize,
        why: &'static str,
        wait: Duration,
    },
    #[error(
        "no answer from the trigger within {0:?}. Fixed by: flow-owner. The flow has to answer sooner, or answer 202 \
         first and work afterwards; where it may take longer, the operator raises the route's response_timeout"
    )]
    Timeout(Duration),
    #[error("the connection to the trigger was lost: {0}")]
    Lost(String, Sent),
    /// What came is the answer to another request.
    #[error(
        "the answer carries the tracking id {0}, which is that of another request; its connection was closed. \
         If the flow sets tracking ids of its own, restart the gateway"
    )]
    Foreign(RequestId),
    #[error("the answer of the trigger is not valid HTTP: {0}")]
    Invalid(String),
}

impl From<FlowError> for Problem {
    fn from(error: FlowError) -> Self {
        let problem = match &error {
            FlowError::Connect(ConnectError::Timeout(..)) => Self::from(Kind::FlowConnectTimeout),
            FlowError::Connect(_) => Self::from(Kind::FlowUnreachable),
            FlowError::Busy { wait, .. } => Self::from(Kind::FlowBusy).wait(*wait),
            FlowError::Timeout(_) => Self::from(Kind::FlowTimeout),
            FlowError::Lost(_, Sent::Nothing) => Self::from(Kind::FlowConnectionLost)
                .again(Again::Later)
                .run(Run::No),
            FlowError::Lost(_, Sent::Something) => Self::from(Kind::FlowConnectionLost),
            FlowError::Foreign(_) | FlowError::Invalid(_) => Self::from(Kind::FlowAnswerInvalid),
        };
        problem.because(error.to_string())
    }
}

/// A request without an answer.
#[derive(Debug)]
pub struct Failed {
    pub error: FlowError,
    /// The body, if it came back untouched.
    pub body: Option<Outgoing>,
}

impl From<FlowError> for Failed {
    fn from(error: FlowError) -> Self {
        Self { error, body: None }
    }
}

/// Why there is no connection. Nothing has been sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(
        "the name {0} cannot be resolved: {1}. Fixed by: operator. Compare the host in the route's trigger and the DNS of \
         this machine, for example with `getent hosts {0}`; behind a private endpoint set connect_to"
    )]
    Name(String, io::Error),
    #[error(
        "no connection to {0} port {1}: {2}. Fixed by: operator. Let this machine out to that host and port, without a \
         proxy, for example with `nc -vz {0} {1}`; if that works, it passes by itself"
    )]
    Tcp(String, u16, io::Error),
    /// TLS failed: wrong name, unknown authority, no common version.
    #[error("TLS with {0} failed: {1}")]
    Tls(String, String),
    #[error(
        "no connection to {0} port {1} within {2:?}, the time for name, TCP and TLS together. Fixed by: operator. Look for a \
         firewall that drops packets without an answer, for example with `nc -vz {0} {1}`; if that works, it passes by \
         itself"
    )]
    Timeout(String, u16, Duration),
}
