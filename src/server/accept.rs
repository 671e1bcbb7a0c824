//! The door of a worker: it accepts connections, turns away those that have no seat or no business here, and passes
//! connections on to a worker that has noticeably fewer. What is spoken on them is decided in `connection.rs`.

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener as StdListener;
use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::gateway::Gateway;
use crate::server::phase::Phase;
use crate::server::refusals::Refusals;
use crate::server::seats::{Counting, Seat, Seats};
use crate::server::shared::{Shared, refused};
use crate::server::sockets::BACKLOG;
use crate::server::{connection, tls};
use crate::settings::{Config, ConnectionSettings, Peers, Transport};

/// Pause after a failed accept: out of file descriptors, nothing gets better by trying at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Rest between two lines about failed accepts.
const ACCEPT_LINE_PERIOD: Duration = Duration::from_secs(10);
/// Connections passed on to a worker that it has not taken yet. A worker that is this far behind is not calm.
const HANDED_MAX: usize = 64;

/// What each worker needs to know to serve.
#[derive(Clone)]
pub(super) struct Plan {
    listeners: Arc<[Speaks]>,
    pub(super) gateway: Arc<Gateway>,
    settings: Arc<ConnectionSettings>,
    seats: Arc<Seats>,
    refusals: Arc<Refusals>,
    /// Where connections for each worker are left.
    inboxes: Arc<[mpsc::Sender<Handed>]>,
}

struct Speaks {
    transport: Spoken,
    health_path: Option<Arc<str>>,
    peers: Peers,
}

enum Spoken {
    Tls(Arc<rustls::ServerConfig>),
    Plain(Arc<[IpNet]>),
}

/// A connection on its way to another worker; the seat is already one there.
pub(super) struct Handed {
    tcp: StdStream,
    peer: SocketAddr,
    listener: usize,
    seat: Seat,
}

impl Plan {
    /// The plan, and for each worker what others pass on to it.
    pub(super) fn new(
        config: &Config,
        gateway: &Arc<Gateway>,
        seats: &Arc<Seats>,
    ) -> Result<(Self, Vec<mpsc::Receiver<Handed>>), rustls::Error> {
        let mut listeners = Vec::with_capacity(config.listeners.len());
        for listener in &config.listeners {
            let transport = match &listener.transport {
                Transport::Tls(settings) => {
                    Spoken::Tls(tls::server_config(settings, listener.address, gateway)?)
                }
                Transport::Plain { from, .. } => Spoken::Plain(from.clone().into()),
            };
            let peers = match &listener.transport {
                Transport::Tls(_) => Peers::Callers,
                Transport::Plain { peers, .. } => *peers,
            };
            let health_path = listener.health_path.as_deref().map(Into::into);
            listeners.push(Speaks {
                transport,
                health_path,
                peers,
            });
        }
        let (inboxes, handed): (Vec<_>, Vec<_>) = (0..config.gateway.workers)
            .map(|_| mpsc::channel(HANDED_MAX))
            .unzip();
        let plan = Self {
            listeners: listeners.into(),
            gateway: gateway.clone(),
            settings: Arc::new(config.connections.clone()),
            seats: seats.clone(),
            refusals: Arc::new(Refusals::new()),
            inboxes: inboxes.into(),
        };
        Ok((plan, handed))
    }
}

/// The door of one worker.
struct Door {
    worker: usize,
    plan: Plan,
    /// What connections of each listener share.
    shared: Vec<Arc<Shared>>,
    phase: watch::Receiver<Phase>,
}

/// Opens the door of a worker; it is closed when the gateway stops serving, and every copy of `open` is dropped once
/// nobody comes in any more.
pub(super) fn open(
    worker: usize,
    plan: &Plan,
    sockets: Vec<StdListener>,
    handed: mpsc::Receiver<Handed>,
    phase: &watch::Receiver<Phase>,
    open: &watch::Receiver<()>,
) {
    let shared = plan.listeners.iter().map(|speaks| {
        Arc::new(Shared {
            gateway: plan.gateway.clone(),
            worker,
            settings: plan.settings.clone(),
            health_path: speaks.health_path.clone(),
            peers: speaks.peers,
            refusals: plan.refusals.clone(),
        })
    });
    let door = Arc::new(Door {
        worker,
        plan: plan.clone(),
        shared: shared.collect(),
        phase: phase.clone(),
    });
    tokio::spawn(take_in(door.clone(), handed));
    for (index, socket) in sockets.into_iter().enumerate() {
        match TcpListener::from_std(socket) {
            Ok(listener) => {
                tokio::spawn(accept(listener, index, door.clone(), open.clone()));
            }
            Err(error) => tracing::error!(worker, %error, "a worker cannot use its socket"),
        }
    }
}

async fn accept(listener: TcpListener, index: usize, door: Arc<Door>, _open: watch::Receiver<()>) {
    let mut phase = door.phase.clone();
    let mut next_line = Instant::now();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase != Phase::Serve) => return door.close(listener, index),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => door.welcome(tcp, peer, index),
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                door.plan.gateway.counters().refused("accept-failed");
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
async fn take_in(door: Arc<Door>, mut handed: mpsc::Receiver<Handed>) {
    while let Some(Handed {
        tcp,
        peer,
        listener,
        seat,
    }) = handed.recv().await
    {
        match TcpStream::from_std(tcp) {
            Ok(tcp) => door.serve(tcp, peer, listener, seat),
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
    fn welcome(&self, tcp: TcpStream, peer: SocketAddr, listener: usize) {
        let Some(speaks) = self.plan.listeners.get(listener) else {
            return;
        };
        self.plan.gateway.counters().connections_accepted.inc();
        let counting = match &speaks.transport {
            Spoken::Tls(_) => Counting::ByAddress,
            Spoken::Plain(from) => {
                let address = peer.ip().to_canonical();
                if !from.iter().any(|network| network.contains(&address)) {
                    return self.turn_away(peer, listener, "plain-http-address");
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
            Err(full) => return self.turn_away(peer, listener, full.reason()),
        };
        let Some((_, inbox)) = other else {
            return self.serve(tcp, peer, listener, seat);
        };
        match tcp.into_std() {
            Ok(tcp) => inbox.send(Handed {
                tcp,
                peer,
                listener,
                seat,
            }),
            Err(error) => self.lost(&error),
        }
    }

    /// Lets in the connections that the kernel has completed, whose callers may have sent their requests, and closes the
    /// listener. They are looked for without the runtime, which may not have noticed them.
    fn close(&self, listener: TcpListener, index: usize) {
        let Ok(listener) = listener.into_std() else {
            return;
        };
        for _ in 0..BACKLOG {
            match listener.accept() {
                Ok((tcp, peer)) => match tcp.set_nonblocking(true).and_then(|()| TcpStream::from_std(tcp)) {
                    Ok(tcp) => self.welcome(tcp, peer, index),
                    Err(error) => self.lost(&error),
                },
                Err(error) if is_about_one_connection(&error) => {}
                // Mostly because there is none left.
                Err(_) => return,
            }
        }
    }

    fn serve(&self, tcp: TcpStream, peer: SocketAddr, listener: usize, seat: Seat) {
        let (Some(speaks), Some(shared)) = (self.plan.listeners.get(listener), self.shared.get(listener))
        else {
            return;
        };
        let shared = shared.clone();
        let phase = self.phase.clone();
        match &speaks.transport {
            Spoken::Tls(config) => {
                let config = config.clone();
                tokio::spawn(connection::serve_tls(tcp, peer, config, shared, phase, seat));
            }
            Spoken::Plain(_) => {
                tokio::spawn(connection::serve_plain(tcp, peer, shared, phase, seat));
            }
        }
    }

    fn turn_away(&self, peer: SocketAddr, listener: usize, reason: &'static str) {
        if let Some(shared) = self.shared.get(listener) {
            refused(shared, peer, reason, None);
        }
    }

    /// A connection that the system did not let go of, or not let in.
    fn lost(&self, error: &io::Error) {
        self.plan.gateway.counters().refused("accept-failed");
        tracing::debug!(worker = self.worker, %error, "a connection was lost on its way to another worker");
    }
}
