//! Tests of the emulator itself, with a client of its own: what other tests rely on is checked here first.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a broken assumption shall end the test"
)]

#[path = "emulator/mod.rs"]
mod emulator;
#[path = "emulator/selftest/mod.rs"]
mod selftest;
