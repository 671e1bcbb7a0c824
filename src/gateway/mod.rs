//! Everything a request needs, built once from the settings: [`Gateway`]. It introduces policy, tokens and triggers to
//! one another, which do not know each other; `handle.rs` is the way a request takes through them.

mod admission;
mod answer;
mod arrival;
mod budget;
mod connection;
mod detach;
mod forward;
mod handle;
mod host;
pub mod journal;
pub mod log;
mod payload;
mod query;
mod ready;
mod reread;
mod status;
mod upstream;
mod usage;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderName;
use tokio::runtime::Handle;
use tokio::time::Instant;

pub use answer::{AnswerBody, Passed};
pub use arrival::Standstill;
pub use connection::Connection;
pub use detach::Call;
pub use payload::Inbound;
pub use ready::{Readiness, Validity};
pub use status::{FailureCount, RouteStatus, SERVICE, Status};
pub use usage::{KeyUsage, UnusedKey};

use crate::counters::{Counters, RouteFigures};
use crate::entra::claims::{Inspector, Preflight};
use crate::entra::{Identity, Tokens};
use crate::flow::{Flows, Trigger};
use crate::gateway::arrival::Pace;
use crate::gateway::budget::Budget;
use crate::gateway::detach::Departed;
use crate::gateway::log::Log;
use crate::gateway::payload::Rules;
use crate::gateway::ready::Listeners;
use crate::model::{RouteName, clock};
use crate::outbound::TrustError;
use crate::policy::key::KeyReader;
use crate::policy::{Access, Callers, LimitStates, Matching, Networks, OpenPaths, Quotas, Routes};
use crate::problem::Kind;
use crate::secrets::Rereader;
use crate::settings::{
    Config, Proof, QueryPass, ReadyRequires, RelativePath, RouteKind, RouteSettings, SettingsDigest,
};

/// Everything a request needs.
#[derive(Debug)]
pub struct Gateway {
    routes: Routes<Arc<Route>>,
    list: Vec<Arc<Route>>,
    limits: LimitStates,
    quotas: Quotas,
    tokens: Tokens,
    flows: Flows,
    budget: Arc<Budget>,
    counters: Counters,
    log: Log,
    ready_requires: ReadyRequires,
    serving: AtomicBool,
    listeners: Listeners,
    headers_max: usize,
    head_bytes_max: usize,
    target_bytes_max: usize,
    departed: Arc<Departed>,
    callers: Arc<Callers>,
    started: Instant,
    settings: SettingsDigest,
    bound: OnceLock<Vec<SocketAddr>>,
}

/// A public address and all that is decided for it.
#[derive(Debug)]
pub struct Route {
    index: usize,
    name: RouteName,
    access: Access,
    networks: Networks,
    rules: Rules,
    identity: Option<Identity>,
    preflight: Option<Arc<Preflight>>,
    trigger: Arc<Trigger>,
    credentials: Vec<HeaderName>,
    query: QueryPass,
    relative_path: RelativePath,
    /// What of an API is open, on a route to one; none on a route to a flow.
    api: Option<OpenPaths>,
    figures: Arc<RouteFigures>,
}

/// Why a gateway cannot be built from settings that are right in themselves.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Nothing to trust, or not usable.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Two routes clash; the check of the settings names both places.
    #[error("the routes clash: {0}")]
    Routes(String),
}

impl Gateway {
    /// Builds the gateway and starts to fetch tokens on `control`.
    ///
    /// # Errors
    /// When this machine has no certificate authorities to trust.
    pub fn build(
        config: &Config,
        control: &Handle,
        counters: &Counters,
        log: Log,
    ) -> Result<Arc<Self>, BuildError> {
        let tokens = Tokens::build(&config.identities, config.keyvault.as_ref(), control, counters)?;
        let flows = Flows::new(config.gateway.workers, counters);
        let callers = Arc::new(Callers::build(&config.callers, config.key_pepper.as_ref()));
        let mut list = Vec::with_capacity(config.routes.len());
        for (index, settings) in config.routes.iter().enumerate() {
            let access = Access::build(&settings.callers, &settings.key_places, &callers);
            let identity = match &settings.proof {
                Proof::Identity(name) => tokens.identity(name).cloned(),
                Proof::Signed => None,
            };
            let route = Route {
                index,
                name: settings.name.clone(),
                // Kept from the flow also where no key is read: vendors send one header everywhere.
                credentials: KeyReader::build(&settings.key_places).header_places().to_vec(),
                access,
                networks: Networks::build(&settings.networks),
                rules: rules(config, settings),
                preflight: identity
                    .as_ref()
                    .map(|identity| Preflight::new(settings, identity.settings())),
                identity,
                trigger: flows.trigger(settings)?,
                query: settings.query.clone(),
                relative_path: settings.relative_path,
                api: match &settings.kind {
                    RouteKind::Flow => None,
                    RouteKind::Api(paths) => Some(OpenPaths::build(paths)),
                },
                figures: counters.of_route(settings.name.as_str(), Kind::ALL.len()),
            };
            list.push(Arc::new(route));
        }
        inspect(&tokens, &list);
        let table = config.routes.iter().map(Matching::from).zip(list.iter().cloned());
        let routes = Routes::build(table).map_err(|error| BuildError::Routes(error.to_string()))?;
        let limits = LimitStates::new(config.quotas.addresses_max);
        let gateway = Self {
            routes,
            list,
            quotas: Quotas::build(&config.quotas, &config.callers, &config.routes, &limits),
            limits,
            tokens,
            flows,
            budget: Budget::new(
                config.bodies.held_budget.bytes(),
                config.bodies.hold_size_max.bytes(),
                counters.clone(),
            ),
            counters: counters.clone(),
            log,
            ready_requires: config
                .admin
                .as_ref()
                .map_or(ReadyRequires::AnyRoute, |admin| admin.ready_requires),
            serving: AtomicBool::new(false),
            listeners: Listeners::new(config.listeners.len()),
            headers_max: config.connections.headers_max,
            head_bytes_max: config.connections.head_size_max.bytes(),
            target_bytes_max: config.connections.target_size_max.bytes(),
            departed: Arc::default(),
            callers,
            started: clock::now(),
            settings: config.digest.clone(),
            bound: OnceLock::new(),
        };
        gateway.follow(config);
        Ok(Arc::new(gateway))
    }

    /// What looks for successors of certificates and other secrets.
    pub fn rereader(&self) -> &Rereader {
        self.tokens.rereader()
    }

    /// Says whether new requests are welcome: not before all listeners are bound, and not while draining.
    pub fn set_serving(&self, serving: Serving) {
        self.serving.store(serving == Serving::Yes, Ordering::Relaxed);
    }

    /// Ends when no call is under way whose caller has gone.
    pub async fn departed(&self) {
        self.departed.none().await;
    }

    /// Where lines about connections go.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// What is counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Gives back what this worker has held idle for too long.
    pub fn sweep(&self, worker: usize) {
        self.flows.sweep(worker);
    }

    /// Forgets addresses whose failures have all been forgiven.
    pub fn sweep_limits(&self) {
        self.limits.sweep();
    }

    /// Brings the gauges that nobody else moves up to date.
    pub fn gauge(&self) {
        self.tokens.gauge();
        self.counters
            .limiter_entries
            .set(i64::try_from(self.limits.entries()).unwrap_or(i64::MAX));
        self.counters
            .log_dropped
            .set(i64::try_from(self.log.dropped()).unwrap_or(i64::MAX));
        self.counters.ready.set(i64::from(self.readiness().is_ready()));
    }
}

/// Whether new requests are welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// They are.
    Yes,
    /// The gateway is starting or draining.
    No,
}

/// Has each new token compared with what the routes of its identity need.
fn inspect(tokens: &Tokens, routes: &[Arc<Route>]) {
    for identity in tokens.identities() {
        let name = &identity.settings().name;
        let mine = routes.iter().filter(|route| {
            let used = route.identity.as_ref();
            used.is_some_and(|used| used.settings().name == *name)
        });
        let preflights = mine.filter_map(|route| route.preflight.clone()).collect();
        identity.inspect(Inspector::new(name, preflights));
    }
}

fn rules(config: &Config, route: &RouteSettings) -> Rules {
    let bodies = &config.bodies;
    Rules {
        bytes_max: route.body_bytes_max,
        hold_bytes_max: bodies.hold_size_max.bytes(),
        pace: Pace {
            timeout: bodies.timeout,
            rate_min: bodies.rate_min,
            rate_grace: bodies.rate_grace,
            stream_rate_min: bodies.stream_rate_min,
        },
    }
}

/// How often [`Gateway::sweep`] is worth calling.
pub const SWEEP_PERIOD: Duration = Duration::from_secs(5);
/// How often [`Gateway::sweep_limits`] is worth calling.
pub const LIMITS_SWEEP_PERIOD: Duration = Duration::from_secs(60);
