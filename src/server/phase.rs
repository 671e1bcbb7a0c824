//! What the whole gateway is doing, and how a connection learns that it stops.

use std::sync::{Arc, Mutex, Weak};

use tokio::sync::watch;

use crate::model::locked;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// New connections and requests are welcome.
    Serve,
    /// Running requests finish, nothing new begins.
    Drain,
    /// What still runs is cut.
    Cut,
}

/// A phase that several things follow and one of them may turn.
#[derive(Debug, Clone)]
pub(super) struct Course {
    phase: Arc<watch::Sender<Phase>>,
    /// Cloned, it has not seen any turn yet.
    start: watch::Receiver<Phase>,
}

impl Course {
    pub(super) fn turn(&self, to: Phase) {
        self.phase.send_replace(to);
    }

    pub(super) fn follow(&self) -> watch::Receiver<Phase> {
        self.start.clone()
    }
}

/// The courses of all listeners and of what is spoken there. One of them may drain by itself; the gateway as a whole takes
/// all of them along.
#[derive(Debug, Default)]
pub(super) struct Phases(Mutex<Vec<Weak<watch::Sender<Phase>>>>);

impl Phases {
    /// One more, for as long as somebody has it.
    pub(super) fn open(&self) -> Course {
        let (phase, start) = watch::channel(Phase::Serve);
        let phase = Arc::new(phase);
        let mut all = locked(&self.0);
        all.retain(|phase| phase.strong_count() > 0);
        all.push(Arc::downgrade(&phase));
        Course { phase, start }
    }

    /// Turns all of them. No other is opened after that.
    pub(super) fn turn(&self, to: Phase) {
        let all = locked(&self.0);
        for phase in all.iter().filter_map(Weak::upgrade) {
            phase.send_replace(to);
        }
    }
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
