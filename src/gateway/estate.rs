//! What survives a reload: counters, log, memory, tokens, connections and permits of triggers, the state of limits, and
//! requests whose callers have gone. A snapshot takes its parts out of it by what they are for, and changes none while it
//! is built.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::counters::{Counters, RouteFigures};
use crate::entra::Tokens;
use crate::flow::Flows;
use crate::gateway::budget::Budget;
use crate::gateway::detach::Departed;
use crate::gateway::listeners::Listeners;
use crate::gateway::log::Log;
use crate::model::{Registry, RouteName, clock};
use crate::outbound::TrustError;
use crate::policy::LimitStates;
use crate::settings::Config;

#[derive(Debug)]
pub(super) struct Estate {
    pub counters: Counters,
    /// The figures of each route.
    pub figures: Registry<RouteName, RouteFigures>,
    pub log: Log,
    pub budget: Arc<Budget>,
    pub tokens: Tokens,
    pub flows: Flows,
    pub limits: LimitStates,
    pub departed: Arc<Departed>,
    pub listeners: Listeners,
    /// Whether new requests are welcome.
    pub serving: AtomicBool,
    pub started: Instant,
    /// Where callers are served.
    pub bound: OnceLock<Vec<SocketAddr>>,
}

impl Estate {
    /// Makes all of it, and starts to fetch tokens on `control`.
    pub(super) fn build(
        config: &Config,
        control: &Handle,
        counters: &Counters,
        log: Log,
    ) -> Result<Self, TrustError> {
        let bodies = &config.bodies;
        Ok(Self {
            tokens: Tokens::build(&config.identities, config.keyvault.as_ref(), control, counters)?,
            figures: Registry::default(),
            log,
            budget: Budget::new(
                bodies.held_budget.bytes(),
                bodies.hold_size_max.bytes(),
                counters.clone(),
            ),
            flows: Flows::new(config.gateway.workers, counters),
            limits: LimitStates::new(config.quotas.addresses_max),
            departed: Arc::default(),
            listeners: Listeners::new(config.listeners.len()),
            serving: AtomicBool::new(false),
            started: clock::now(),
            bound: OnceLock::new(),
            counters: counters.clone(),
        })
    }
}
