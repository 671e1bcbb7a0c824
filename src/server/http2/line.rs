//! What all requests of one HTTP/2 connection share, and one of them while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::gateway::{Connection, Standstill};
use crate::server::http2::frames::Credit;
use crate::server::http2::gate::{Gate, UnderWay};
use crate::server::http2::guard::{Guard, Signs};
use crate::server::http2::unread::{Discarding, Rest};
use crate::server::reason;
use crate::server::seats::Seat;
use crate::server::shared::{Shared, refused};

/// Malformed requests of one connection before a credential was accepted: h2 remembers each stream that it resets.
const UNKNOWN_MALFORMED_MAX: u32 = 2;
/// Bodies that an unknown caller may end early on one connection beside these. Then the connection is asked to close.
const UNKNOWN_CUT_SHORT_MAX: u32 = 2;

pub(super) struct Line {
    pub(super) shared: Arc<Shared>,
    pub(super) via: Arc<Connection>,
    pub(super) signs: Arc<Signs>,
    /// How many requests of unknown callers may be under way.
    pub(super) gate: Arc<Gate>,
    /// What the peer may send without asking for anything.
    pub(super) credit: Arc<Credit>,
    pub(super) standstill: Arc<Standstill>,
    pub(super) discarding: Arc<Discarding>,
    /// Kept until the last request has ended: an HTTP/2 request may outlive its connection for a moment.
    _seat: Seat,
    /// Requests that are running: until their answer has left.
    now: AtomicUsize,
    served: AtomicUsize,
}

impl Line {
    pub(super) fn new<S>(
        shared: &Arc<Shared>,
        gate: &Arc<Gate>,
        guard: &Guard<S>,
        credit: &Arc<Credit>,
        seat: Seat,
    ) -> Arc<Self> {
        Arc::new(Self {
            shared: shared.clone(),
            via: gate.via.clone(),
            gate: gate.clone(),
            signs: guard.signs().clone(),
            credit: credit.clone(),
            standstill: guard.standstill().clone(),
            discarding: Arc::default(),
            _seat: seat,
            now: AtomicUsize::new(0),
            served: AtomicUsize::new(0),
        })
    }

    pub(super) fn running(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    pub(super) fn under_way(&self) -> UnderWay {
        UnderWay {
            requests: self.running(),
            bodies: self.discarding.count(),
        }
    }

    pub(super) fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }

    /// Streams that were refused for what the peer sent, save those whose body it ended early because it had its answer.
    pub(super) fn malformed(&self) -> u32 {
        let refused = self.signs.refused_streams();
        refused.saturating_sub(self.discarding.cut_short())
    }

    /// Whether an unknown caller has had too many streams reset.
    pub(super) fn has_too_many_resets(&self) -> bool {
        let cut_short = self.discarding.cut_short();
        // Not each body that ends early has its stream reset, but h2 remembers all of them.
        let reset = self.signs.refused_streams().max(cut_short);
        reset > UNKNOWN_MALFORMED_MAX + cut_short.min(UNKNOWN_CUT_SHORT_MAX) && !self.via.is_known()
    }

    /// Whether an unknown caller should continue on another connection.
    pub(super) fn should_renew(&self) -> bool {
        self.discarding.cut_short() >= UNKNOWN_CUT_SHORT_MAX && !self.via.is_known()
    }

    /// A stream is reset because its reader did not move on.
    pub(super) fn stream_stalled(&self) {
        let detail = "an HTTP/2 stream whose reader took nothing of its answer was reset";
        refused(
            &self.shared,
            self.via.peer,
            reason::WRITE_STALLED,
            Some(detail.to_owned()),
        );
    }
}

/// A request until its answer has left.
pub(super) struct Running {
    pub(super) line: Arc<Line>,
    /// Whether its answer is whole.
    pub(super) whole: bool,
    /// What becomes of its body, if it has one.
    pub(super) rest: Option<Arc<Rest>>,
}

impl Running {
    pub(super) fn begin(line: &Arc<Line>) -> Self {
        line.now.fetch_add(1, Ordering::Relaxed);
        line.served.fetch_add(1, Ordering::Relaxed);
        line.credit.request();
        Self {
            line: line.clone(),
            whole: false,
            rest: None,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.line.now.fetch_sub(1, Ordering::Relaxed);
        if !self.line.via.is_known() {
            self.line.gate.changed();
        }
        if !self.whole {
            self.line.credit.dropped();
            if let Some(rest) = &self.rest {
                rest.give_up();
            }
        }
    }
}
