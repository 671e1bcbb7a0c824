//! Flowgate: an authenticating TLS reverse proxy for HTTP-triggered Power Automate and Logic Apps flows.
//!
//! Callers that cannot get an Entra token post plain or API-key requests over TLS. The gateway checks them against
//! allow-lists and limits, adds an access token for the flow service, calls the trigger, and turns every failure into
//! an answer that says who must do what.
//!
//! Modules stand on floors and name lower floors only: `model`; `problem` and `counters`; `settings`; `policy`, `entra`,
//! `flow` and `deliveries`, which do not know each other; `gateway`; `server` and `admin`; and on the roof `doctor`, `cli` and the program itself.

#![forbid(unsafe_code)]

pub mod admin;
pub mod cli;
pub mod control;
pub mod counters;
pub mod deliveries;
pub mod doctor;
pub mod entra;
pub(crate) mod files;
pub mod flow;
pub mod gateway;
pub mod material;
pub mod model;
pub mod outbound;
pub mod policy;
pub mod problem;
pub mod secrets;
pub mod server;
pub mod settings;
pub mod state;
pub mod wire;
