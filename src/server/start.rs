//! Workers that accept and serve, a control runtime for everything that is not a request, and the way all of it ends:
//! stop accepting, finish what runs, cut what does not finish in time.

use std::io;
use std::net::SocketAddr;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, watch};

use crate::counters::Counters;
use crate::gateway::log::Log;
use crate::gateway::{BuildError, Gateway, LIMITS_SWEEP_PERIOD, SWEEP_PERIOD, Serving};
use crate::server::accept;
use crate::server::accept::{Handed, Plan};
use crate::server::phase::Phase;
use crate::server::seats::Seats;
use crate::server::sockets::bind_all;
use crate::settings::Config;
use crate::wire::BindError;

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
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
        control.handle.spawn(sweep_limits(gateway.clone()));
        gateway.set_serving(Serving::Yes);
        let drain_timeout = config.gateway.drain_timeout;
        Ok(Self {
            gateway,
            addresses,
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

    /// The gateway itself.
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// The runtime for everything that is not a request.
    pub fn control(&self) -> &Handle {
        &self.control.handle
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
