//! Workers that accept and serve, a control runtime for everything that is not a request, and the way all of it ends:
//! stop accepting, finish what runs, cut what does not finish in time.

use std::net::SocketAddr;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, io};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, watch};

use crate::counters::Counters;
use crate::gateway::log::Log;
use crate::gateway::{BuildError, Gateway, LIMITS_SWEEP_PERIOD, SWEEP_PERIOD, Serving};
use crate::server::accept;
use crate::server::accept::{Door, Handed, Plan};
use crate::server::listening::Listening;
use crate::server::phase::{Course, Phase};
use crate::server::seats::Seats;
use crate::server::sockets::bind_all;
use crate::settings::{Config, ConnectionSettings, ListenerSettings};
use crate::state::Recalled;
use crate::wire::BindError;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A thread or runtime cannot be made.
    #[error("cannot start a worker: {0}")]
    Worker(io::Error),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A certificate that callers refuse would take the place of one that they accept.
    #[error("listener {address}: {why}; the one in force is valid")]
    Lapsed {
        /// The listener.
        address: SocketAddr,
        /// What is wrong with the certificate.
        why: String,
    },
    /// A listener that is added has a part of the address of one that serves.
    #[error("listener {address} overlaps with {ours}, which serves: that change needs a restart")]
    Overlap {
        /// The one that is added.
        address: SocketAddr,
        /// The one that serves.
        ours: SocketAddr,
    },
    /// What was building did not end by itself.
    #[error("they were not built to the end: the gateway is stopping, or has a defect that is in its log")]
    Unfinished,
}

pub struct Server {
    pub(super) gateway: Arc<Gateway>,
    pub(super) plan: Arc<Plan>,
    pub(super) listenings: Vec<Arc<Listening>>,
    pub(super) crew: Crew,
    /// That of the workers themselves.
    _course: Course,
    threads: Vec<JoinHandle<()>>,
    control: Control,
    pub(super) drain_timeout: Duration,
    log: Log,
}

/// The workers, as those see them who give them sockets.
pub(super) struct Crew {
    workers: Vec<(Arc<Door>, Handle)>,
    /// Closed when no worker accepts connections any more.
    doors: watch::Sender<()>,
}

impl Crew {
    /// Has each worker accept connections on one of the sockets.
    pub(super) fn accept(&self, listening: &Arc<Listening>, sockets: Vec<StdListener>) {
        for ((door, runtime), socket) in self.workers.iter().zip(sockets) {
            let open = self.doors.subscribe();
            runtime.spawn(accept::accept(socket, listening.clone(), door.clone(), open));
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.addresses())
            .finish_non_exhaustive()
    }
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
    pub fn start(config: &Config, counters: &Counters, log: Log) -> Result<Self, StartError> {
        Self::start_with(config, counters, log, Recalled::default())
    }

    /// The same, with what was kept before.
    pub fn start_with(
        config: &Config,
        counters: &Counters,
        log: Log,
        recalled: Recalled,
    ) -> Result<Self, StartError> {
        let control = Control::start().map_err(StartError::Worker)?;
        let workers = config.gateway.workers;
        let bind = |listener: &ListenerSettings| bind_all(listener.address, workers);
        let bound = config.listeners.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
        let gateway = Gateway::build(config, &control.handle, counters, log.clone(), recalled)?;
        let seats = Seats::new(&config.connections, workers, counters);
        let (plan, handed) = Plan::new(workers, &gateway, &seats);
        let course = plan.phases.open();
        let (crew, threads) = start_workers(&plan, handed, &course)?;
        let mut server = Self {
            gateway: gateway.clone(),
            plan,
            listenings: Vec::new(),
            crew,
            _course: course,
            threads,
            control,
            drain_timeout: config.gateway.drain_timeout,
            log,
        };
        server.open(bound, &config.connections)?;
        server.control.handle.spawn(sweep_limits(gateway.clone()));
        gateway.set_serving(Serving::Yes);
        Ok(server)
    }

    /// Serves the listeners of the settings in force on these sockets.
    fn open(
        &mut self,
        bound: Vec<(SocketAddr, Vec<StdListener>)>,
        settings: &ConnectionSettings,
    ) -> Result<(), StartError> {
        let settings = Arc::new(settings.clone());
        let rereader = self.gateway.rereader();
        let mut all = Vec::with_capacity(bound.len());
        for (listener, (bound, sockets)) in self.gateway.listeners().iter().zip(bound) {
            let speaks = self.plan.speaks(listener, &settings, &rereader, None)?;
            let listening = Listening::new(listener.address, bound, speaks, &self.plan.phases);
            all.push((listening, sockets));
        }
        for (listening, sockets) in all {
            self.crew.accept(&listening, sockets);
            self.listenings.push(listening);
        }
        self.note_listeners();
        Ok(())
    }

    pub(super) fn note_listeners(&self) {
        let judges = self
            .listenings
            .iter()
            .filter_map(|listening| Some((listening.address, listening.speaks().judge()?)));
        self.gateway.set_listeners(self.addresses(), judges.collect());
    }

    /// Where callers are served, in the order of the settings.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listenings.iter().map(|listening| listening.bound).collect()
    }

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
        self.plan.phases.turn(Phase::Drain);
        let running = self.plan.seats.taken();
        let seconds = self.drain_timeout.as_secs();
        tracing::info!(connections = running, drain_seconds = seconds, "draining");
        tokio::select! {
            () = self.emptied() => tracing::info!("drained"),
            () = tokio::time::sleep(self.drain_timeout) => self.cut("the drain time is over"),
            () = hurry => self.cut("a second signal came"),
        }
        self.plan.phases.turn(Phase::Cut);
        let workers = std::mem::take(&mut self.threads);
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
        self.crew.doors.closed().await;
        self.plan.seats.emptied().await;
        self.gateway.departed().await;
    }

    fn cut(&self, why: &str) {
        let left = self.plan.seats.taken();
        self.log.stopping();
        tracing::warn!(connections = left, "{why}: the rest is cut");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.plan.phases.turn(Phase::Cut);
    }
}

fn start_workers(
    plan: &Arc<Plan>,
    handed: Vec<mpsc::Receiver<Handed>>,
    course: &Course,
) -> Result<(Crew, Vec<JoinHandle<()>>), StartError> {
    let (mut workers, mut threads) = (Vec::new(), Vec::new());
    for (index, handed) in handed.into_iter().enumerate() {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Worker)?;
        let door = Door::new(index, plan);
        workers.push((door.clone(), runtime.handle().clone()));
        let (gateway, phase) = (plan.gateway.clone(), course.follow());
        let thread = std::thread::Builder::new().name(format!("flowgate-{index}"));
        let worker = thread.spawn(move || {
            runtime.spawn(accept::take_in(door, handed));
            runtime.block_on(work(index, gateway, phase));
            // Dropping the runtime drops what was cut, and with it the log lines of those requests are written.
            // A name look-up that hangs in the system must not hold up the end.
            runtime.shutdown_timeout(Duration::from_millis(100));
        });
        threads.push(worker.map_err(StartError::Worker)?);
    }
    let (doors, _) = watch::channel(());
    Ok((Crew { workers, doors }, threads))
}

/// A worker until it is cut.
async fn work(index: usize, gateway: Arc<Gateway>, mut phase: watch::Receiver<Phase>) {
    let mut sweep = tokio::time::interval(SWEEP_PERIOD);
    loop {
        tokio::select! {
            _ = sweep.tick() => gateway.sweep(index),
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
        gateway.sweep_deliveries();
    }
}
