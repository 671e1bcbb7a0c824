//! What survives a reload: counters, log, memory, tokens, connections and permits of triggers, the state of limits, deliveries
//! that were answered, certificates of vendors, and requests whose callers have gone. A snapshot takes its parts out of it by what they are for, and changes none while it
//! is built.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::counters::{Counters, RouteFigures};
use crate::deliveries::Memory;
use crate::flow::Flows;
use crate::gateway::budget::Budget;
use crate::gateway::detach::Departed;
use crate::gateway::enrolments::Enrolments;
use crate::gateway::key_expiry::KeyExpiry;
use crate::gateway::listeners::Listeners;
use crate::gateway::log::Log;
use crate::gateway::reloads::Reloads;
use crate::gateway::vendor::Vendor;
use crate::model::{Registry, RouteName, clock};
use crate::outbound::{Trust, TrustError};
use crate::policy::{CallerNumbers, LimitStates};
use crate::problem::Kind;
use crate::secrets::Rereader;
use crate::settings::Config;
use crate::state::{Recalled, Revocations};

#[derive(Debug)]
pub(super) struct Estate {
    pub counters: Counters,
    pub figures: Registry<RouteName, RouteFigures>,
    pub log: Log,
    pub budget: Arc<Budget>,
    /// Turns of large bodies that are read beside the workers.
    pub large_bodies: Arc<Semaphore>,
    /// What looks for successors of secrets, for identities, listeners and triggers alike.
    pub rereader: Rereader,
    pub flows: Flows,
    pub limits: LimitStates,
    /// What was fetched from vendors, by the authorities that are trusted for that.
    pub vendors: Registry<Trust, Vendor>,
    /// Where it is fetched.
    pub control: Handle,
    /// Deliveries whose duplicates are recognized.
    pub deliveries: Arc<Memory>,
    pub callers: CallerNumbers,
    pub revocations: Revocations,
    /// Secrets that vendors sent, and routes that are open for one.
    pub enrolments: Arc<Enrolments>,
    pub first_revision: u64,
    pub key_expiry: KeyExpiry,
    pub departed: Arc<Departed>,
    pub listeners: Listeners,
    /// Whether new requests are welcome; a watch, because those that wait for a result learn of its end.
    pub serving: watch::Sender<bool>,
    pub started: Instant,
    pub reloads: Reloads,
}

impl Estate {
    pub(super) fn build(
        config: &Config,
        control: &Handle,
        counters: &Counters,
        log: Log,
        recalled: Recalled,
    ) -> Self {
        let bodies = &config.bodies;
        Self {
            rereader: Rereader::new(control.clone()),
            figures: Registry::default(),
            log,
            budget: Budget::new(
                bodies.held_budget.bytes(),
                config.held_body_bytes_max(),
                counters.clone(),
            ),
            large_bodies: Arc::new(Semaphore::new(config.gateway.workers)),
            flows: Flows::new(config.gateway.workers, counters),
            limits: LimitStates::new(config.quotas.addresses_max),
            vendors: Registry::default(),
            control: control.clone(),
            deliveries: Arc::new(Memory::new(
                config.quotas.deliveries_max,
                config.quotas.delivery_answers_budget.bytes(),
            )),
            callers: CallerNumbers::default(),
            revocations: recalled.revocations,
            enrolments: Arc::new(Enrolments::new(recalled.enrolled, recalled.trail)),
            first_revision: recalled.revision,
            key_expiry: KeyExpiry::default(),
            departed: Arc::default(),
            listeners: Listeners::default(),
            serving: watch::Sender::new(false),
            started: clock::now(),
            reloads: Reloads::default(),
            counters: counters.clone(),
        }
    }

    /// What is fetched from vendors with this trust.
    pub(super) fn vendor(&self, trust: &Trust) -> Result<Arc<Vendor>, TrustError> {
        if let Some(known) = self.vendors.known(trust) {
            return Ok(known);
        }
        let built = Vendor::build(trust, &self.control, &self.counters)?;
        Ok(self.vendors.share(trust.clone(), || built))
    }

    /// Forgets the state of everything that no settings have any more.
    pub(super) fn sweep(&self) {
        self.figures.sweep_with(|route| {
            let codes = Kind::ALL.iter().map(|kind| kind.row().code);
            self.counters.forget_route(route.as_str(), codes);
        });
        self.callers.sweep();
        self.vendors.sweep();
        self.flows.sweep_names();
        self.limits.sweep_names();
    }
}
