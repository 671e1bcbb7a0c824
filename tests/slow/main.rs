//! Crowds of slow connections against the program itself, in a process of its own: whoever is slow ends at its deadline
//! and costs little, and a caller that is not slow notices nothing. `FLOWGATE_SLOW` sets how many there are of a kind.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking"
)]
#![allow(clippy::print_stdout, reason = "the figures are what a large run is for")]

#[path = "../emulator/mod.rs"]
mod emulator;
#[allow(dead_code, reason = "it is shared with tests that need more of it")]
#[path = "../gateway/harness.rs"]
mod harness;

mod costs;
mod crowd;
mod frames;
mod good;
mod kinds;
mod lists;
mod program;
