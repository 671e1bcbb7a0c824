//! The way of a request, and everything it needs, built from the settings.

mod admission;
mod answer;
mod arrival;
mod budget;
mod connection;
mod current;
mod detach;
mod estate;
mod forward;
mod handle;
mod host;
pub mod journal;
mod listeners;
pub mod log;
mod payload;
mod query;
mod ready;
mod reread;
mod snapshot;
mod status;
mod upstream;
mod usage;

pub use answer::{AnswerBody, Passed};
pub use arrival::Standstill;
pub use connection::Connection;
pub use current::{Gateway, LIMITS_SWEEP_PERIOD, SWEEP_PERIOD, Serving};
pub use detach::Call;
pub use listeners::Validity;
pub use payload::Inbound;
pub use ready::Readiness;
pub use snapshot::BuildError;
pub use status::{FailureCount, RouteStatus, SERVICE, Status};
pub use usage::{KeyUsage, UnusedKey};
