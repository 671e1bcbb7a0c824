//! Promises to users, tested through real TLS sockets against the emulator of Entra and the trigger.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::type_complexity,
    unreachable_pub,
    reason = "a test fails by panicking"
)]

#[path = "../emulator/mod.rs"]
mod emulator;
mod handshakes;
mod harness;
mod program;

#[cfg(unix)]
mod accounts;
mod admission;
mod answers;
mod apis;
mod bodies;
mod certificates;
mod checks;
mod claims;
mod cors;
mod deadlines;
mod doctor;
mod duplicates;
#[cfg(unix)]
mod enrolment;
mod explained;
mod faults;
mod federated;
mod fetched_certificates;
mod forwarding;
mod guessing;
#[cfg(unix)]
mod keys;
mod limits;
mod listening;
#[cfg(unix)]
mod logging;
mod managed;
#[cfg(unix)]
mod operating;
mod payloads;
mod preflight;
mod problem_pages;
mod reading;
mod reloading;
#[cfg(unix)]
mod rereading;
mod rollback;
mod rotation;
mod runs;
mod secrets;
mod shutdown;
mod signatures;
mod subscriptions;
mod tokens;
mod upstream;
mod url_keys;
mod vault;
mod vendor_test;
