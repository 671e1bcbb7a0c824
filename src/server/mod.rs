//! Workers that accept and serve, a control runtime for everything that is not a request, and the way all of it ends:
//! stop accepting, finish what runs, cut what does not finish in time.

mod accept;
mod admin;
mod connection;
mod http1;
mod http2;
mod linger;
mod refusals;
mod seats;
mod tls;

pub use http2::blocks;

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, watch};

use crate::counters::Counters;
use crate::gateway::journal::Log;
use crate::gateway::{BuildError, Gateway, LIMITS_SWEEP_PERIOD, SWEEP_PERIOD, Serving};
use crate::server::accept::{Handed, Plan};
use crate::server::seats::{Seat, Seats};
use crate::settings::Config;

/// Connections that the kernel completes before we accept them.
const BACKLOG: i32 = 4096;
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
    #[error("cannot listen on {address}, the `address` of {table}: {error}{}", remedy(*.address, .error))]
    Bind {
        /// The table of the settings that names it.
        table: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
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

/// What to do about an address that cannot be bound.
fn remedy(address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse if cfg!(target_os = "linux") => format!(
            "; `ss -ltnp 'sport = :{port}'`, run as root, names the process that has it: stop that one, or set another port"
        ),
        io::ErrorKind::AddrInUse => format!(
            "; `lsof -nP -iTCP:{port} -sTCP:LISTEN` names the process that has it: stop that one, or set another port"
        ),
        io::ErrorKind::AddrNotAvailable => {
            "; no interface of this machine has this address: write 0.0.0.0 or [::] for all of them"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied if port < 1024 => "; ports below 1024 need the capability \
            CAP_NET_BIND_SERVICE: give it to the service, or set a higher port"
            .to_owned(),
        _ => String::new(),
    }
}

/// A running gateway.
#[derive(Debug)]
pub struct Server {
    gateway: Arc<Gateway>,
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    phase: watch::Sender<Phase>,
    /// Closed when no worker lets in connections any more.
    doors: watch::Sender<()>,
    workers: Vec<JoinHandle<()>>,
    control: Control,
    drain_timeout: Duration,
    log: Log,
    seats: Arc<Seats>,
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

impl Server {
    /// Binds every listener, builds the gateway and starts its workers.
    ///
    /// # Errors
    /// Names the address that cannot be bound, or what is missing.
    pub fn start(config: &Config, counters: &Counters, log: Log) -> Result<Self, StartError> {
        let control = Control::start().map_err(StartError::Worker)?;
        let sockets = bind_all(config)?;
        let addresses: Vec<SocketAddr> = sockets
            .iter()
            .filter_map(|socket| socket.first()?.local_addr().ok())
            .collect();
        let gateway = Gateway::build(config, &control.handle, counters, log.clone())?;
        gateway.set_bound(addresses.clone());
        let (phase, _) = watch::channel(Phase::Serve);
        let (doors, _) = watch::channel(());
        let seats = Seats::new(&config.connections, config.gateway.workers, counters);
        let (plan, handed) = Plan::new(config, &gateway, &seats)?;
        let workers = start_workers(config, &plan, sockets, handed, (&phase, &doors))?;
        let admin = start_admin(config, &control.handle, &gateway)?;
        control.handle.spawn(sweep_limits(gateway.clone()));
        gateway.set_serving(Serving::Yes);
        let drain_timeout = config.gateway.drain_timeout;
        Ok(Self {
            gateway,
            addresses,
            admin,
            phase,
            doors,
            workers,
            control,
            drain_timeout,
            log,
            seats,
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
        let running = self.seats.taken();
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

    /// Ends when no connection is open, none can come, and no call is under way.
    async fn emptied(&self) {
        self.doors.closed().await;
        self.seats.emptied().await;
        self.gateway.departed().await;
    }

    fn cut(&self, why: &str) {
        let left = self.seats.taken();
        self.log.stopping();
        tracing::warn!(connections = left, "{why}: the rest is cut");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Cut);
    }
}

/// One socket for each listener and worker.
fn bind_all(config: &Config) -> Result<Vec<Vec<StdListener>>, StartError> {
    let mut all = Vec::with_capacity(config.listeners.len());
    for listener in &config.listeners {
        let failed = |address, error| StartError::Bind {
            table: "[[listener]]",
            address,
            error,
        };
        let first = claim(listener.address)
            .and_then(|()| bind(listener.address, Sharing::Workers))
            .map_err(|error| failed(listener.address, error))?;
        // Port 0 becomes a real one with the first socket; the others join it.
        let address = first
            .local_addr()
            .map_err(|error| failed(listener.address, error))?;
        let mut sockets = vec![first];
        while sockets.len() < config.gateway.workers {
            sockets.push(another(&sockets, address).map_err(|error| failed(address, error))?);
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
    // Answers leave in whole pieces; waiting for more would only add delay. On Linux each connection has it from here.
    #[cfg(target_os = "linux")]
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn start_workers(
    config: &Config,
    plan: &Plan,
    sockets: Vec<Vec<StdListener>>,
    handed: Vec<mpsc::Receiver<Handed>>,
    (phase, doors): (&watch::Sender<Phase>, &watch::Sender<()>),
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let mut by_worker: Vec<Vec<StdListener>> = (0..config.gateway.workers).map(|_| Vec::new()).collect();
    for listener in sockets {
        for (worker, socket) in by_worker.iter_mut().zip(listener) {
            worker.push(socket);
        }
    }
    let mut workers = Vec::with_capacity(config.gateway.workers);
    for (index, (sockets, handed)) in by_worker.into_iter().zip(handed).enumerate() {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Worker)?;
        let plan = plan.clone();
        let phase = phase.subscribe();
        let open = doors.subscribe();
        let thread = std::thread::Builder::new().name(format!("flowgate-{index}"));
        let worker = thread.spawn(move || {
            runtime.block_on(work(index, plan, sockets, handed, phase, open));
            // Dropping the runtime drops what was cut, and with it the log lines of those requests are written.
            // A name look-up that hangs in the system must not hold up the end.
            runtime.shutdown_timeout(Duration::from_millis(100));
        });
        workers.push(worker.map_err(StartError::Worker)?);
    }
    Ok(workers)
}

async fn work(
    index: usize,
    plan: Plan,
    sockets: Vec<StdListener>,
    handed: mpsc::Receiver<Handed>,
    mut phase: watch::Receiver<Phase>,
    open: watch::Receiver<()>,
) {
    accept::open(index, &plan, sockets, handed, &phase, &open);
    drop(open);
    let mut sweep = tokio::time::interval(SWEEP_PERIOD);
    loop {
        tokio::select! {
            _ = sweep.tick() => plan.gateway.sweep(index),
            // A dropped server is a cut as well.
            _ = phase.wait_for(|phase| *phase == Phase::Cut) => return,
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
    let failed = |error| StartError::Bind {
        table: "[admin]",
        address: settings.address,
        error,
    };
    let _inside = control.enter();
    let listener = bind(settings.address, Sharing::Alone)
        .and_then(TcpListener::from_std)
        .map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    control.spawn(admin::serve(listener, gateway.clone(), settings.hosts.clone()));
    Ok(Some(address))
}
