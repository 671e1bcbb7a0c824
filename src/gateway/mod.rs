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
mod key_expiry;
mod listeners;
pub mod log;
mod payload;
mod query;
mod ready;
mod reloads;
mod reread;
mod snapshot;
mod status;
mod upstream;
mod usage;

pub use answer::{AnswerBody, Passed};
pub use arrival::Standstill;
pub use connection::Connection;
pub use current::{Gateway, LIMITS_SWEEP_PERIOD, NotRevoked, Prepared, Retired, SWEEP_PERIOD, Serving};
pub use detach::Call;
pub use listeners::{Judge, Validity};
pub use payload::Inbound;
pub use ready::Readiness;
pub use reloads::{LastReload, ReloadOutcome};
pub use snapshot::{BuildError, Wanted};
pub use status::{FailureCount, RouteStatus, SERVICE, Status};
pub use usage::{KeyFacts, KeyUsage, UnusedKey};
