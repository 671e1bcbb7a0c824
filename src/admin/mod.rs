//! The listener for health, readiness, metrics and keys that nobody uses: read-only paths without authentication,
//! therefore on loopback unless the settings say otherwise, and not for web pages. It owns no state.

mod answers;
mod listener;

pub use listener::start;
