//! Calling triggers: permits, connections, deadlines, and whether anything of a request has left. It knows nothing of
//! callers or of how a token is got; `gateway` hands it a finished head and body.

mod exchange;
pub mod fault;
pub mod outbound;
mod permits;
mod pool;
pub mod reply;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::HeaderValue;
use http_body::Body;
use rustls::pki_types::ServerName;
use tokio::time::Instant;

pub use exchange::{Answer, AnswerBody, Call};
pub use permits::{Arriving, Load, Permit, Permits};
pub use pool::{Age, ConnectError, Lease};

use crate::counters::Counters;
use crate::flow::exchange::Echo;
use crate::flow::pool::{Host, Target};
use crate::model::{Holder, RequestId, TriggerUrl, clock};
use crate::outbound::{Trust, TrustError};
use crate::problem::{Again, Kind, Problem, Run};
use crate::settings::{RouteSettings, UpstreamSettings};
use crate::wire::BodyError;

/// A body that arrives while it is sent.
pub type StreamedBody = Pin<Box<dyn Body<Data = Bytes, Error = BodyError> + Send>>;

/// The body of a request to a trigger.
pub enum Outgoing {
    /// Whole in memory, to be sent in one piece with its length.
    Held(Bytes),
    /// Passed on as it arrives.
    Streamed(StreamedBody),
}

/// How far the body of a request has come; shared between the body, the deadline of the answer and the log line.
#[derive(Debug)]
pub struct Progress {
    born: Instant,
    last_millis: AtomicU64,
    bytes: AtomicU64,
    done: AtomicBool,
    abandoned: AtomicBool,
}

impl Progress {
    /// Progress that begins now.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            born: clock::now(),
            last_millis: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            done: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        })
    }

    /// Notes that a piece of so many bytes went on.
    pub fn moved(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let passed = clock::now().saturating_duration_since(self.born);
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        self.last_millis.store(millis, Ordering::Relaxed);
    }

    /// Notes that the last piece went on.
    pub fn done(&self) {
        self.moved(0);
        self.done.store(true, Ordering::Release);
    }

    /// Whether the whole body was handed over.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Notes that nobody waits for the answer any more.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Whether nobody waits for the answer any more.
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Bytes that went on.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// When something moved last.
    fn last(&self) -> Instant {
        self.born + Duration::from_millis(self.last_millis.load(Ordering::Relaxed))
    }
}

/// Whether any byte of a request has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// None has: the request may be sent on another connection.
    Nothing,
    /// Some have: the trigger may have seen a whole request.
    Something,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Every permit and every waiting place is taken, or the wait took too long.
    #[error(
        "{all} {what} to this trigger are under way, {own} of them of this sender, and {waiting} wait; {why}"
    )]
    Busy {
        /// What there are too many of.
        what: &'static str,
        /// How many there are.
        all: usize,
        /// How many of them are in the share of this one's sender.
        own: usize,
        /// Requests that wait.
        waiting: usize,
        /// Which limit was met.
        why: &'static str,
        /// When to come back.
        wait: Duration,
    },
    /// No head of an answer in time.
    #[error(
        "no answer from the trigger within {0:?}. Fixed by: flow-owner. The flow has to answer sooner, or answer 202 \
         first and work afterwards; where it may take longer, the operator raises the route's response_timeout"
    )]
    Timeout(Duration),
    /// The connection broke.
    #[error("the connection to the trigger was lost: {0}")]
    Lost(String, Sent),
    /// What came is the answer to another request.
    #[error(
        "the answer carries the tracking id {0}, which is that of another request; its connection was closed. \
         If the flow sets tracking ids of its own, restart the gateway"
    )]
    Foreign(RequestId),
    /// What came is not HTTP.
    #[error("the answer of the trigger is not valid HTTP: {0}")]
    Invalid(String),
}

impl From<FlowError> for Problem {
    fn from(error: FlowError) -> Self {
        let problem = match &error {
            FlowError::Connect(ConnectError::Timeout(..)) => Self::from(Kind::FlowConnectTimeout),
            FlowError::Connect(_) => Self::from(Kind::FlowUnreachable),
            FlowError::Busy { wait, .. } => Self::from(Kind::FlowBusy).wait(*wait),
            FlowError::Timeout(_) => Self::from(Kind::FlowTimeout),
            FlowError::Lost(_, Sent::Nothing) => Self::from(Kind::FlowConnectionLost)
                .again(Again::Later)
                .run(Run::No),
            FlowError::Lost(_, Sent::Something) => Self::from(Kind::FlowConnectionLost),
            FlowError::Foreign(_) | FlowError::Invalid(_) => Self::from(Kind::FlowAnswerInvalid),
        };
        problem.because(error.to_string())
    }
}

/// A request without an answer.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: FlowError,
    /// The body, if it came back untouched.
    pub body: Option<Outgoing>,
}

impl From<FlowError> for Failed {
    fn from(error: FlowError) -> Self {
        Self { error, body: None }
    }
}

/// Where a trigger is, and its connections there. A call has the same one from its first look to its last.
#[derive(Debug)]
pub struct Address {
    url: TriggerUrl,
    host: Arc<Host>,
    authority: HeaderValue,
}

impl Address {
    fn new(url: TriggerUrl, host: Arc<Host>) -> Result<Arc<Self>, TrustError> {
        let authority = HeaderValue::try_from(url.authority())
            .map_err(|_| TrustError::Unusable("the trigger's host is no header value".to_owned()))?;
        Ok(Arc::new(Self { url, host, authority }))
    }

    /// The address itself.
    pub fn url(&self) -> &TriggerUrl {
        &self.url
    }

    /// The `Host` field for it.
    pub fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// A connection: one in the pool, or else a new one.
    ///
    /// # Errors
    /// [`FlowError::Connect`]; nothing has been sent then.
    pub async fn connection(&self, worker: usize) -> Result<Lease, FlowError> {
        match self.host.take(worker) {
            Some(lease) => Ok(lease),
            None => self.new_connection(worker).await,
        }
    }

    /// A new connection.
    ///
    /// # Errors
    /// [`FlowError::Connect`]; nothing has been sent then.
    pub async fn new_connection(&self, worker: usize) -> Result<Lease, FlowError> {
        Ok(self.host.connect(worker).await?)
    }
}

/// A trigger with its connections and its permits, shared by all workers.
#[derive(Debug)]
pub struct Trigger {
    address: ArcSwap<Address>,
    permits: Arc<Permits>,
    response_timeout: Duration,
    echo: Echo,
}

/// All triggers, in the order of the routes, and the hosts they live on.
#[derive(Debug)]
pub struct Flows {
    /// One for each route.
    pub triggers: Vec<Arc<Trigger>>,
    hosts: Arc<Hosts>,
}

impl Flows {
    /// Makes the triggers of all routes; routes on one host with the same trust share its connections.
    ///
    /// # Errors
    /// When there is no certificate authority to trust.
    pub fn build(routes: &[RouteSettings], workers: usize, counters: &Counters) -> Result<Self, TrustError> {
        let hosts = Arc::new(Hosts {
            known: Mutex::default(),
            workers,
            counters: counters.clone(),
        });
        let mut triggers = Vec::with_capacity(routes.len());
        for route in routes {
            let host = hosts.host(&route.trigger, &route.upstream)?;
            triggers.push(Arc::new(make_trigger(route, host)?));
        }
        Ok(Self { triggers, hosts })
    }

    /// Closes connections of this worker that were idle for too long.
    pub fn sweep(&self, worker: usize) {
        for host in self.hosts.all() {
            host.sweep(worker);
        }
    }

    /// What gives the trigger of this route another address while calls go on.
    pub fn mover(&self, trigger: &Arc<Trigger>, route: &RouteSettings) -> Mover {
        Mover {
            trigger: trigger.clone(),
            hosts: self.hosts.clone(),
            upstream: route.upstream.clone(),
        }
    }
}

/// Gives a trigger another address.
#[derive(Debug)]
pub struct Mover {
    trigger: Arc<Trigger>,
    hosts: Arc<Hosts>,
    upstream: UpstreamSettings,
}

impl Mover {
    /// The trigger.
    pub fn trigger(&self) -> &Trigger {
        &self.trigger
    }

    /// An address to go to, with the connections there.
    ///
    /// # Errors
    /// When its host is no name that a certificate can carry.
    pub fn reach(&self, url: TriggerUrl) -> Result<Arc<Address>, TrustError> {
        self.hosts.forget();
        let host = self.hosts.host(&url, &self.upstream)?;
        Address::new(url, host)
    }

    /// Calls go to this address from now on; those under way go on with the one they have.
    pub fn go(&self, address: Arc<Address>) {
        self.trigger.echo.forget();
        self.trigger.address.store(address);
    }
}

/// The hosts that triggers live on, or lived on a while ago.
#[derive(Debug)]
struct Hosts {
    known: Mutex<HashMap<HostKey, Arc<Host>>>,
    workers: usize,
    counters: Counters,
}

impl Hosts {
    fn known(&self) -> MutexGuard<'_, HashMap<HostKey, Arc<Host>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn host(&self, url: &TriggerUrl, upstream: &UpstreamSettings) -> Result<Arc<Host>, TrustError> {
        let key = HostKey::of(url, upstream);
        let mut known = self.known();
        if let Some(host) = known.get(&key) {
            return Ok(host.clone());
        }
        let host = make_host(url, upstream, self.workers, &self.counters)?;
        known.insert(key, host.clone());
        Ok(host)
    }

    /// Gives up those on which no trigger lives, once their last connection has gone.
    fn forget(&self) {
        self.known()
            .retain(|_, host| Arc::strong_count(host) > 1 || !host.is_empty());
    }

    fn all(&self) -> Vec<Arc<Host>> {
        self.known().values().cloned().collect()
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct HostKey {
    name: String,
    port: u16,
    trust: Vec<Vec<u8>>,
    connect_to: Option<SocketAddr>,
    timeouts: [Duration; 2],
}

impl HostKey {
    fn of(url: &TriggerUrl, upstream: &UpstreamSettings) -> Self {
        let trust = match &upstream.trust {
            Trust::System => Vec::new(),
            Trust::Only(certificates) => certificates.iter().map(|der| der.to_vec()).collect(),
        };
        Self {
            name: url.host().to_owned(),
            port: url.port(),
            trust,
            connect_to: upstream.connect_to,
            timeouts: [upstream.connect_timeout, upstream.idle_timeout],
        }
    }
}

fn make_host(
    url: &TriggerUrl,
    upstream: &UpstreamSettings,
    workers: usize,
    counters: &Counters,
) -> Result<Arc<Host>, TrustError> {
    let name = url
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let server_name = ServerName::try_from(name.clone())
        .map_err(|_| TrustError::Unusable(format!("{name} is no name a certificate can carry")))?;
    let target = Target {
        name,
        port: url.port(),
        server_name,
        connect_to: upstream.connect_to,
        tls: Arc::new(upstream.trust.explaining_client_config()?),
        connect_timeout: upstream.connect_timeout,
        idle_timeout: upstream.idle_timeout,
    };
    Ok(Host::new(target, workers, counters.clone()))
}

fn make_trigger(route: &RouteSettings, host: Arc<Host>) -> Result<Trigger, TrustError> {
    Ok(Trigger {
        address: ArcSwap::new(Address::new(route.trigger.clone(), host)?),
        permits: Permits::new(
            route.upstream.in_flight_max,
            route.upstream.waiting_max,
            route.upstream.waiting_timeout,
        ),
        response_timeout: route.upstream.response_timeout,
        echo: Echo::default(),
    })
}

impl Trigger {
    /// Where it is now.
    pub fn address(&self) -> Arc<Address> {
        self.address.load_full()
    }

    /// Time between two pieces of an answer's body.
    pub fn response_timeout(&self) -> Duration {
        self.response_timeout
    }

    /// Waits, within bounds, for the right to send one request of this holder.
    ///
    /// # Errors
    /// [`FlowError::Busy`].
    pub async fn permit(&self, holder: Holder, load: Load) -> Result<Permit, FlowError> {
        self.permits.acquire(holder, load).await
    }

    /// A new connection to where it is now.
    ///
    /// # Errors
    /// [`FlowError::Connect`]; nothing has been sent then.
    pub async fn new_connection(&self, worker: usize) -> Result<Lease, FlowError> {
        self.address().new_connection(worker).await
    }

    /// Sends a request and waits for the head of the answer. The deadline counts from the last piece of the body.
    ///
    /// # Errors
    /// Each error says whether any byte has left.
    pub async fn send(
        &self,
        lease: Lease,
        call: Call,
        progress: Option<&Progress>,
    ) -> Result<Answer, Failed> {
        exchange::send(lease, call, self.response_timeout, progress, &self.echo).await
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(bytes) => write!(f, "Held({} bytes)", bytes.len()),
            Self::Streamed(_) => f.write_str("Streamed"),
        }
    }
}
