//! What connections of one listener share within a worker, and how one of them is reported that does not end as it
//! should.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::gateway::log::ConnectionLine;
use crate::gateway::{Connection, Gateway};
use crate::model::clock;
use crate::server::phase::Course;
use crate::server::reason::Reason;
use crate::server::refusals::{Lines, Refusals};
use crate::settings::{ConnectionSettings, Peers};

/// When the gateway stops, a connection that has not had a request yet may take so long for each of its handshake and
/// its first request: two round trips and a lost packet. A silent one does not hold up the stop for longer.
pub(super) const LAST_CALL: Duration = Duration::from_secs(2);

/// A reader moves on by this much at least in `connections.write_timeout`. It is the frame that HTTP/2 cuts answers into
/// anyway, unless the peer asks for larger ones (RFC 9113 section 4.2).
pub(super) const PIECE_BYTES: usize = 16 * 1024;

#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub gateway: Arc<Gateway>,
    pub worker: usize,
    pub settings: Arc<ConnectionSettings>,
    pub health_path: Option<Arc<str>>,
    pub peers: Peers,
    pub refusals: Arc<Refusals>,
    /// What connections follow. They keep it, because they take its end for theirs.
    pub course: Course,
}

impl Shared {
    pub(super) fn connection(&self, peer: SocketAddr, protocol: &'static str) -> Arc<Connection> {
        Connection::new(peer, self.worker, protocol, self.health_path.as_ref(), self.peers)
    }
}

/// Counts a connection that was turned away or did not end as it should, and writes its line unless there are too many
/// of them.
pub(super) fn refused(shared: &Shared, peer: SocketAddr, reason: Reason, detail: Option<String>) {
    let reason = reason.code;
    shared.gateway.counters().refused(reason);
    let lines = match detail {
        Some(_) => Lines::Detailed,
        None => Lines::Alike,
    };
    let Some(line) = shared.refusals.admit(peer, reason, lines, clock::now()) else {
        return;
    };
    let address = peer.ip().to_canonical();
    let detail = line.detail(detail).map(Into::into);
    shared
        .gateway
        .log()
        .connection(&ConnectionLine::new(address, reason, detail));
}
