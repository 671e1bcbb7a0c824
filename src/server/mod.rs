//! Workers that accept and serve, a control runtime for everything that is not a request, and the way all of it ends:
//! stop accepting, finish what runs, cut what does not finish in time.

mod admin;
mod connection;
mod frames;
mod guard;
mod http1;
mod http2;
mod resets;
mod tls;

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use ipnet::IpNet;
use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::runtime::Handle;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::sync::watch;

use crate::config::Config;
use crate::config::Transport;
use crate::counters::Counted;
use crate::counters::Counters;
use crate::gateway::BuildError;
use crate::gateway::Gateway;
use crate::gateway::LIMITS_SWEEP_PERIOD;
use crate::gateway::SWEEP_PERIOD;
use crate::gateway::Serving;
use crate::gateway::journal::Log;
use crate::server::connection::Shared;

/// Connections that the kernel completes before we accept them.
const BACKLOG: i32 = 4096;
/// Pause after a failed accept: out of file descriptors, nothing gets better by trying at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the whole gateway is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// New connections and requests are welcome.
    Serve,
    /// Running requests finish, nothing new begins.
    Drain,
    /// What still runs is cut.
    Cut,
}

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error("cannot listen on {0}: {1}")]
    Bind(SocketAddr, io::Error),
    /// A thread or runtime cannot be made.
    #[error("cannot start a worker: {0}")]
    Worker(io::Error),
    /// TLS settings are refused by the library.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The gateway cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// A running gateway.
#[derive(Debug)]
pub struct Server {
    gateway: Arc<Gateway>,
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    phase: watch::Sender<Phase>,
    workers: Vec<JoinHandle<()>>,
    control: Control,
    drain_timeout: Duration,
    log: Log,
    open: Arc<Open>,
}

/// The control runtime. Dropped, it ends without waiting: tokio panics when a runtime is dropped inside another one,
/// and that is where a start that failed would drop it.
#[derive(Debug)]
struct Control {
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Control {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("flowgate-control")
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        Ok(Self {
            runtime: Some(runtime),
            handle,
        })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Open connections of all workers.
#[derive(Debug, Default)]
struct Open {
    count: AtomicUsize,
    changed: Notify,
}

/// One open connection.
struct Seat {
    open: Arc<Open>,
    _gauge: Counted,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.open.count.fetch_sub(1, Ordering::Relaxed);
        self.open.changed.notify_waiters();
    }
}

impl Server {
    /// Binds every listener, builds the gateway and starts its workers.
    ///
    /// # Errors
    /// Names the address that cannot be bound, or what is missing.
    pub fn start(config: &Config, counters: &Counters, log: Log) -> Result<Self, StartError> {
        let control = Control::start().map_err(StartError::Worker)?;
        let sockets = bind_all(config)?;
        let addresses = sockets
            .iter()
            .filter_map(|socket| socket.first()?.local_addr().ok())
            .collect();
        let gateway = Gateway::build(config, &control.handle, counters, log.clone())?;
        let (phase, _) = watch::channel(Phase::Serve);
        let open = Arc::new(Open::default());
        let plan = Plan::new(config, &gateway, &open)?;
        let workers = start_workers(config, plan, sockets, &phase)?;
        let admin = start_admin(config, &control.handle, &gateway)?;
        control.handle.spawn(sweep_limits(gateway.clone()));
        gateway.set_serving(Serving::Yes);
        let drain_timeout = config.connections.drain_timeout;
        Ok(Self {
            gateway,
            addresses,
            admin,
            phase,
            workers,
            control,
            drain_timeout,
            log,
            open,
        })
    }

    /// Addresses of the public listeners, in the order of the settings.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Address of the admin listener.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// The gateway itself.
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Stops accepting, lets running requests finish within the drain time, cuts the rest, and returns when all is
    /// over. `hurry` ends the drain early.
    pub async fn stop(mut self, hurry: impl Future<Output = ()>) {
        self.gateway.set_serving(Serving::No);
        self.phase.send_replace(Phase::Drain);
        let running = self.open.count.load(Ordering::Relaxed);
        let seconds = self.drain_timeout.as_secs();
        tracing::info!(connections = running, drain_seconds = seconds, "draining");
        tokio::select! {
            () = self.emptied() => tracing::info!("drained"),
            () = tokio::time::sleep(self.drain_timeout) => self.cut("the drain time is over"),
            () = hurry => self.cut("a second signal came"),
        }
        self.phase.send_replace(Phase::Cut);
        let workers = std::mem::take(&mut self.workers);
        let control = self.control.runtime.take();
        let joined = tokio::task::spawn_blocking(move || {
            for worker in workers {
                // A worker that panicked has said so already.
                let _ = worker.join();
            }
            if let Some(control) = control {
                control.shutdown_timeout(Duration::from_secs(1));
            }
        });
        let _ = joined.await;
    }

    /// Ends when no connection is open and no call is under way.
    async fn emptied(&self) {
        self.open.emptied().await;
        self.gateway.departed().await;
    }

    fn cut(&self, why: &str) {
        let left = self.open.count.load(Ordering::Relaxed);
        self.log.stopping();
        tracing::warn!(connections = left, "{why}: the rest is cut");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Cut);
    }
}

impl Open {
    async fn emptied(&self) {
        loop {
            let changed = self.changed.notified();
            if self.count.load(Ordering::Relaxed) == 0 {
                return;
            }
            changed.await;
        }
    }

    fn seat(self: &Arc<Self>, max: usize, counters: &Counters) -> Option<Seat> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Seat {
            open: self.clone(),
            _gauge: Counted::on(&counters.connections),
        })
    }
}

/// What each worker needs to know about each listener.
#[derive(Clone)]
struct Plan {
    listeners: Vec<Speaks>,
    gateway: Arc<Gateway>,
    settings: Arc<crate::config::ConnectionSettings>,
    open: Arc<Open>,
}

#[derive(Clone)]
struct Speaks {
    transport: Spoken,
    health_path: Option<Arc<str>>,
}

#[derive(Clone)]
enum Spoken {
    Tls(Arc<rustls::ServerConfig>),
    Plain(Arc<[IpNet]>),
}

impl Plan {
    fn new(config: &Config, gateway: &Arc<Gateway>, open: &Arc<Open>) -> Result<Self, StartError> {
        let mut listeners = Vec::with_capacity(config.listeners.len());
        for listener in &config.listeners {
            let transport = match &listener.transport {
                Transport::Tls(settings) => Spoken::Tls(tls::server_config(settings)?),
                Transport::Plain { from } => Spoken::Plain(from.clone().into()),
            };
            let health_path = listener.health_path.as_deref().map(Into::into);
            listeners.push(Speaks {
                transport,
                health_path,
            });
        }
        let settings = Arc::new(config.connections.clone());
        Ok(Self {
            listeners,
            gateway: gateway.clone(),
            settings,
            open: open.clone(),
        })
    }
}

/// One socket for each listener and worker.
fn bind_all(config: &Config) -> Result<Vec<Vec<StdListener>>, StartError> {
    let mut all = Vec::with_capacity(config.listeners.len());
    for listener in &config.listeners {
        let first = claim(listener.address)
            .and_then(|()| bind(listener.address, Sharing::Workers))
            .map_err(|error| StartError::Bind(listener.address, error))?;
        // Port 0 becomes a real one with the first socket; the others join it.
        let address = first
            .local_addr()
            .map_err(|error| StartError::Bind(listener.address, error))?;
        let mut sockets = vec![first];
        while sockets.len() < config.workers {
            sockets.push(another(&sockets, address).map_err(|error| StartError::Bind(address, error))?);
        }
        all.push(sockets);
    }
    Ok(all)
}

/// Makes sure that the port is free. Sockets that share it among our workers would share it with another process of
/// this account as well, and each would get a part of the callers.
fn claim(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

#[cfg(target_os = "linux")]
fn another(_sockets: &[StdListener], address: SocketAddr) -> io::Result<StdListener> {
    bind(address, Sharing::Workers)
}

// Elsewhere several sockets on one port do not share the load: the workers accept from one queue in turn.
#[cfg(not(target_os = "linux"))]
fn another(sockets: &[StdListener], _address: SocketAddr) -> io::Result<StdListener> {
    sockets
        .first()
        .map_or_else(|| Err(io::ErrorKind::NotFound.into()), StdListener::try_clone)
}

/// Who may listen on an address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// A socket for each worker; the kernel spreads connections over them.
    Workers,
    /// One socket: another process on the same address would answer some of the questions.
    Alone,
}

fn bind(address: SocketAddr, sharing: Sharing) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    #[cfg(target_os = "linux")]
    socket.set_reuse_port(sharing == Sharing::Workers)?;
    #[cfg(not(target_os = "linux"))]
    let _ = sharing;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn start_workers(
    config: &Config,
    plan: Plan,
    sockets: Vec<Vec<StdListener>>,
    phase: &watch::Sender<Phase>,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let mut by_worker: Vec<Vec<StdListener>> = (0..config.workers).map(|_| Vec::new()).collect();
    for listener in sockets {
        for (worker, socket) in by_worker.iter_mut().zip(listener) {
            worker.push(socket);
        }
    }
    let mut workers = Vec::with_capacity(config.workers);
    for (index, sockets) in by_worker.into_iter().enumerate() {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Worker)?;
        let plan = plan.clone();
        let phase = phase.subscribe();
        let thread = std::thread::Builder::new().name(format!("flowgate-{index}"));
        let worker = thread.spawn(move || {
            runtime.block_on(work(index, plan, sockets, phase));
            // Dropping the runtime drops what was cut, and with it the log lines of those requests are written.
            // A name look-up that hangs in the system must not hold up the end.
            runtime.shutdown_timeout(Duration::from_millis(100));
        });
        workers.push(worker.map_err(StartError::Worker)?);
    }
    Ok(workers)
}

async fn work(index: usize, plan: Plan, sockets: Vec<StdListener>, mut phase: watch::Receiver<Phase>) {
    for (socket, speaks) in sockets.into_iter().zip(&plan.listeners) {
        match TcpListener::from_std(socket) {
            Ok(listener) => {
                tokio::spawn(accept(
                    listener,
                    index,
                    speaks.clone(),
                    plan.clone(),
                    phase.clone(),
                ));
            }
            Err(error) => tracing::error!(worker = index, %error, "a worker cannot use its socket"),
        }
    }
    let mut sweep = tokio::time::interval(SWEEP_PERIOD);
    loop {
        tokio::select! {
            _ = sweep.tick() => plan.gateway.sweep(index),
            // A dropped server is a cut as well.
            _ = phase.wait_for(|phase| *phase == Phase::Cut) => return,
        }
    }
}

async fn accept(
    listener: TcpListener,
    worker: usize,
    speaks: Speaks,
    plan: Plan,
    mut phase: watch::Receiver<Phase>,
) {
    let shared = Arc::new(Shared {
        gateway: plan.gateway.clone(),
        worker,
        settings: plan.settings.clone(),
        health_path: speaks.health_path.clone(),
    });
    let connections = phase.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            // Leaving the loop closes the listener.
            _ = phase.wait_for(|phase| *phase != Phase::Serve) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => welcome(tcp, peer, &shared, &speaks, &plan, &connections),
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                plan.gateway.counters().refused("accept-failed");
                tracing::warn!(%error, "cannot accept connections at the moment");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
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

fn welcome(
    tcp: TcpStream,
    peer: SocketAddr,
    shared: &Arc<Shared>,
    speaks: &Speaks,
    plan: &Plan,
    phase: &watch::Receiver<Phase>,
) {
    let counters = plan.gateway.counters();
    counters.connections_accepted.inc();
    let Some(seat) = plan.open.seat(plan.settings.connections_max, counters) else {
        return connection::refused(shared, peer, "connections-full", None);
    };
    // Answers leave in whole pieces; waiting for more would only add delay.
    let _ = tcp.set_nodelay(true);
    let shared = shared.clone();
    let phase = phase.clone();
    match &speaks.transport {
        Spoken::Tls(config) => {
            let config = config.clone();
            tokio::spawn(connection::serve_tls(tcp, peer, config, shared, phase, seat));
        }
        Spoken::Plain(from) => {
            let address: IpAddr = peer.ip().to_canonical();
            if !from.iter().any(|network| network.contains(&address)) {
                return connection::refused(&shared, peer, "plain-http-address", None);
            }
            tokio::spawn(connection::serve_plain(tcp, peer, shared, phase, seat));
        }
    }
}

async fn sweep_limits(gateway: Arc<Gateway>) {
    let mut period = tokio::time::interval(LIMITS_SWEEP_PERIOD);
    loop {
        period.tick().await;
        gateway.sweep_limits();
    }
}

fn start_admin(
    config: &Config,
    control: &Handle,
    gateway: &Arc<Gateway>,
) -> Result<Option<SocketAddr>, StartError> {
    let Some(settings) = &config.admin else {
        return Ok(None);
    };
    let failed = |error| StartError::Bind(settings.address, error);
    let _inside = control.enter();
    let listener = bind(settings.address, Sharing::Alone)
        .and_then(TcpListener::from_std)
        .map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    control.spawn(admin::serve(listener, gateway.clone()));
    Ok(Some(address))
}
