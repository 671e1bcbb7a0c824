//! What the whole gateway is doing, and how a connection learns that it stops.

use tokio::sync::watch;

/// What the whole gateway is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// New connections and requests are welcome.
    Serve,
    /// Running requests finish, nothing new begins.
    Drain,
    /// What still runs is cut.
    Cut,
}

/// Whether a connection closes after what it is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Draining {
    Yes,
    No,
}

/// Ends when the gateway stops serving; never, once that is known.
pub(super) async fn stopping(phase: &mut watch::Receiver<Phase>, draining: Draining) {
    if draining == Draining::Yes {
        return std::future::pending().await;
    }
    // A closed channel means that the worker is gone: then this connection is too.
    let _ = phase.wait_for(|phase| *phase != Phase::Serve).await;
}
