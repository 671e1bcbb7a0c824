//! How an HTTP/1 connection ends.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use crate::server::http1::lent::Wire;
use crate::server::linger::{Unread, linger};
use crate::server::phase::Phase;
use crate::server::reason;
use crate::server::reason::Reason;
use crate::server::seats::Seat;
use crate::server::shared::{Shared, refused};
use crate::wire::Stream;

/// Time in which a peer may take in that an idle connection is closed.
const GOODBYE_TIME: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It is idle, and too old or no longer wanted: TLS says goodbye.
    Over,
    /// After an answer that was its last: the peer may still be sending.
    Answered,
    /// The peer has left, or nothing can be sent to it.
    Gone,
    /// The answer broke off: the peer must see that it is not whole.
    Cut,
    /// A deadline passed.
    Late(Reason),
    /// The peer takes nothing of its answer: what the kernel still keeps for it would look whole, and stay for minutes.
    Stalled,
}

impl End {
    /// Ends a connection; without a stream it has gone already.
    pub(super) async fn finish<S: Stream>(
        self,
        wire: Option<Wire<S>>,
        shared: &Shared,
        peer: SocketAddr,
        seat: &Seat,
        phase: watch::Receiver<Phase>,
    ) {
        match (self, wire) {
            (Self::Over, Some(wire)) => Box::pin(goodbye(wire.stream)).await,
            (Self::Answered, Some(wire)) => {
                let unread = match wire.body.is_done() {
                    true => Unread::Nothing,
                    false => Unread::Rest,
                };
                Box::pin(linger(wire.stream, unread, seat, phase)).await;
            }
            (Self::Cut, Some(wire)) => cut(&wire.stream),
            (Self::Stalled, wire) => {
                refused(shared, peer, reason::WRITE_STALLED, None);
                if let Some(wire) = wire {
                    cut(&wire.stream);
                }
            }
            (Self::Late(reason), _) => refused(shared, peer, reason, None),
            _ => {}
        }
    }
}

/// Makes the end of a connection a reset: an answer that ends with it would look whole after anything else.
fn cut(stream: &impl Stream) {
    let _ = SockRef::from(stream.socket()).set_linger(Some(Duration::ZERO));
}

/// Closes an idle connection. The TLS goodbye shows the peer that this is no fault.
async fn goodbye<S: Stream>(mut stream: S) {
    let _ = tokio::time::timeout(GOODBYE_TIME, stream.shutdown()).await;
}
