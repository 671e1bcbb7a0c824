//! Crowds of slow connections against the program, which runs in a process of its own: every slow connection
//! ends at its deadline and costs little, and an ordinary caller is not affected. `FLOWGATE_SLOW` sets the
//! number of each kind.
//!
//! 10,000 of each, with as many file descriptors as allowed, and small kernel buffers for unread data:
//!
//!
//! ```sh
//! ulimit -n "$(ulimit -Hn)"
//! export FLOWGATE_SLOW=10000
//! cargo test --release --test slow --no-run
//! sudo -E unshare --net sh -c 'ip link set lo up
//!     echo 4096 16384 32768 > /proc/sys/net/ipv4/tcp_wmem
//!     echo 4096 32768 32768 > /proc/sys/net/ipv4/tcp_rmem
//!     exec cargo test --release --test slow kinds -- --nocapture --test-threads=1'
//! ```
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
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
mod strangers;
