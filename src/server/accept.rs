//! The door of a worker: it accepts connections, turns away those that have no seat or no business here, and passes
//! connections on to a worker that has noticeably fewer. What is spoken on them is decided in `connection.rs`.

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener as StdListener;
use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::gateway::Gateway;
use crate::secrets::Rereader;
use crate::server::listening::{Listening, Speaks, Spoken};
use crate::server::phase::{Phase, Phases};
use crate::server::reason::Reason;
use crate::server::refusals::Refusals;
use crate::server::seats::{Counting, Seat, Seats};
use crate::server::shared::{Shared, refused};
use crate::server::sockets::BACKLOG;
use crate::server::{connection, http1, reason, tls};
use crate::settings::{ConnectionSettings, ListenerSettings, Peers, Transport};

/// Pause after a failed accept: out of file descriptors, nothing gets better by trying at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Rest between two lines about failed accepts.
const ACCEPT_LINE_PERIOD: Duration = Duration::from_secs(10);
/// Connections passed on to a worker that it has not taken yet. A worker that is this far behind is not calm.
const HANDED_MAX: usize = 64;

/// What the doors of all workers share.
pub(super) struct Plan {
    pub gateway: Arc<Gateway>,
    pub seats: Arc<Seats>,
    pub refusals: Arc<Refusals>,
    pub phases: Phases,
    /// Where each worker takes connections over.
    inboxes: Box<[mpsc::Sender<Handed>]>,
}

/// A connection on its way to another worker.
pub(super) struct Handed {
    tcp: StdStream,
    peer: SocketAddr,
    speaks: Arc<Speaks>,
    seat: Seat,
}

impl Plan {
    /// The plan, and where each worker takes connections over.
    pub(super) fn new(
        workers: usize,
        gateway: &Arc<Gateway>,
        seats: &Arc<Seats>,
    ) -> (Arc<Self>, Vec<mpsc::Receiver<Handed>>) {
        let (inboxes, handed): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::channel(HANDED_MAX)).unzip();
        let plan = Arc::new(Self {
            gateway: gateway.clone(),
            seats: seats.clone(),
            refusals: Arc::new(Refusals::new()),
            phases: Phases::default(),
            inboxes: inboxes.into(),
        });
        (plan, handed)
    }

    pub(super) fn workers(&self) -> usize {
        self.inboxes.len()
    }

    /// What a listener speaks. What follows its certificates is made by `rereader`; callers of `earlier` settings can
    /// resume their sessions.
    pub(super) fn speaks(
        &self,
        listener: &ListenerSettings,
        settings: &Arc<ConnectionSettings>,
        rereader: &Rereader,
        earlier: Option<&Speaks>,
    ) -> Result<Speaks, rustls::Error> {
        let (transport, peers) = match &listener.transport {
            Transport::Tls(tls) => {
                let earlier = earlier.and_then(|earlier| match &earlier.transport {
                    Spoken::Tls(secured) => Some(secured),
                    Spoken::Plain(..) => None,
                });
                let secured = tls::secured(tls, listener.address, rereader, earlier)?;
                (Spoken::Tls(secured), Peers::Callers)
            }
            Transport::Plain { from, peers } => (Spoken::Plain(from.clone().into(), *peers), *peers),
        };
        let health_path: Option<Arc<str>> = listener.health_path.as_deref().map(Into::into);
        let course = self.phases.open();
        let shared = (0..self.workers()).map(|worker| {
            Arc::new(Shared {
                gateway: self.gateway.clone(),
                worker,
                settings: settings.clone(),
                health_path: health_path.clone(),
                peers,
                refusals: self.refusals.clone(),
                course: course.clone(),
            })
        });
        Ok(Speaks {
            transport,
            shared: shared.collect(),
            course,
        })
    }
}

pub(super) struct Door {
    worker: usize,
    plan: Arc<Plan>,
}

impl Door {
    pub(super) fn new(worker: usize, plan: &Arc<Plan>) -> Arc<Self> {
        Arc::new(Self {
            worker,
            plan: plan.clone(),
        })
    }
}

/// Accepts connections of a listener on this worker until it is closed; `_open` is dropped then.
pub(super) async fn accept(
    socket: StdListener,
    listening: Arc<Listening>,
    door: Arc<Door>,
    _open: watch::Receiver<()>,
) {
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            let worker = door.worker;
            return tracing::error!(worker, %error, "a worker cannot use its socket");
        }
    };
    let mut phase = listening.phase();
    let mut next_line = Instant::now();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase != Phase::Serve) => return door.close(listener, &listening),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => door.welcome(tcp, peer, listening.speaks()),
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                door.plan.gateway.counters().refused(reason::ACCEPT_FAILED.code);
                if Instant::now() >= next_line {
                    next_line = Instant::now() + ACCEPT_LINE_PERIOD;
                    tracing::warn!(%error, "cannot accept connections at the moment");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Takes in what other workers pass on. Also while the gateway drains: what is on its way has a seat, and
/// ends there.
pub(super) async fn take_in(door: Arc<Door>, mut handed: mpsc::Receiver<Handed>) {
    while let Some(Handed {
        tcp,
        peer,
        speaks,
        seat,
    }) = handed.recv().await
    {
        match TcpStream::from_std(tcp) {
            Ok(tcp) => door.serve(tcp, peer, &speaks, seat),
            Err(error) => door.lost(&error),
        }
    }
}

/// Errors of a connection that was gone before it was accepted (accept(2) on Linux passes them on).
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

impl Door {
    fn welcome(&self, tcp: TcpStream, peer: SocketAddr, speaks: Arc<Speaks>) {
        self.plan.gateway.counters().connections_accepted.inc();
        let counting = match &speaks.transport {
            Spoken::Tls(_) => Counting::ByAddress,
            Spoken::Plain(from, _) => {
                let address = peer.ip().to_canonical();
                if !from.iter().any(|network| network.contains(&address)) {
                    return self.turn_away(peer, &speaks, reason::PLAIN_HTTP_ADDRESS);
                }
                Counting::Named
            }
        };
        // Linux hands it on from the listener.
        #[cfg(not(target_os = "linux"))]
        let _ = tcp.set_nodelay(true);
        let calmer = self.plan.seats.calmer(self.worker);
        let other = calmer.and_then(|worker| {
            let inbox = self.plan.inboxes.get(worker)?;
            Some((worker, inbox.try_reserve().ok()?))
        });
        let worker = other.as_ref().map_or(self.worker, |(worker, _)| *worker);
        let seat = match self.plan.seats.take(worker, peer, counting) {
            Ok(seat) => seat,
            Err(reason) => return self.turn_away(peer, &speaks, reason),
        };
        let Some((_, inbox)) = other else {
            return self.serve(tcp, peer, &speaks, seat);
        };
        match tcp.into_std() {
            Ok(tcp) => inbox.send(Handed {
                tcp,
                peer,
                speaks,
                seat,
            }),
            Err(error) => self.lost(&error),
        }
    }

    /// Lets in the connections that the kernel has completed, whose callers may have sent their requests, and closes the
    /// listener. They are looked for without the runtime, which may not have noticed them.
    fn close(&self, listener: TcpListener, listening: &Listening) {
        let Ok(listener) = listener.into_std() else {
            return;
        };
        for _ in 0..BACKLOG {
            match listener.accept() {
                Ok((tcp, peer)) => match tcp.set_nonblocking(true).and_then(|()| TcpStream::from_std(tcp)) {
                    Ok(tcp) => self.welcome(tcp, peer, listening.speaks()),
                    Err(error) => self.lost(&error),
                },
                Err(error) if is_about_one_connection(&error) => {}
                // Mostly because there is none left.
                Err(_) => return,
            }
        }
    }

    fn serve(&self, tcp: TcpStream, peer: SocketAddr, speaks: &Speaks, seat: Seat) {
        let Some(shared) = speaks.shared.get(self.worker).cloned() else {
            return;
        };
        let phase = shared.course.follow();
        match &speaks.transport {
            Spoken::Tls(secured) => {
                let config = secured.config.clone();
                tokio::spawn(connection::serve_tls(tcp, peer, config, shared, phase, seat));
            }
            Spoken::Plain(..) => {
                // HTTP/2 is spoken over TLS only.
                tokio::spawn(http1::serve(tcp, peer, shared, phase, seat));
            }
        }
    }

    fn turn_away(&self, peer: SocketAddr, speaks: &Speaks, reason: Reason) {
        if let Some(shared) = speaks.shared.get(self.worker) {
            refused(shared, peer, reason, None);
        }
    }

    /// A connection that the system did not let go of, or not let in.
    fn lost(&self, error: &io::Error) {
        self.plan.gateway.counters().refused(reason::ACCEPT_FAILED.code);
        tracing::debug!(worker = self.worker, %error, "a connection was lost on its way to another worker");
    }
}
