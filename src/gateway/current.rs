//! The gateway: what survives a reload, and the snapshot in force. It introduces policy, tokens and triggers to one another,
//! which do not know each other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;

use crate::counters::Counters;
use crate::gateway::estate::Estate;
use crate::gateway::listeners::Validity;
use crate::gateway::log::Log;
use crate::gateway::reread;
use crate::gateway::snapshot::{BuildError, Snapshot};
use crate::secrets::Rereader;
use crate::settings::{Config, ListenerSettings};

/// How often [`Gateway::sweep`] is worth calling.
pub const SWEEP_PERIOD: Duration = Duration::from_secs(5);
/// How often [`Gateway::sweep_limits`] is worth calling.
pub const LIMITS_SWEEP_PERIOD: Duration = Duration::from_secs(60);

/// Everything a request needs.
#[derive(Debug)]
pub struct Gateway {
    pub(super) estate: Estate,
    current: ArcSwap<Snapshot>,
}

/// Whether new requests are welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// They are.
    Yes,
    /// The gateway is starting or draining.
    No,
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
        let estate = Estate::build(config, control, counters, log)?;
        let snapshot = Snapshot::build(config, &estate)?;
        snapshot.take_effect(&estate);
        reread::follow(&estate, &snapshot, config);
        Ok(Arc::new(Self {
            estate,
            current: ArcSwap::from_pointee(snapshot),
        }))
    }

    /// What the settings in force decide. A request asks once: what it was admitted by is what it ends with.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The listeners of the settings in force.
    pub fn listeners(&self) -> Vec<ListenerSettings> {
        self.snapshot().listeners.clone()
    }

    /// Has a listener with TLS count: without a certificate that callers accept it serves nobody.
    pub fn add_listener(
        &self,
        address: SocketAddr,
        judge: impl Fn(SystemTime) -> Validity + Send + Sync + 'static,
    ) {
        self.estate.listeners.add(address, Box::new(judge));
    }

    /// What looks for successors of certificates and other secrets.
    pub fn rereader(&self) -> &Rereader {
        self.estate.tokens.rereader()
    }

    /// Notes whether new requests are welcome: not before all listeners are bound, and not while draining.
    pub fn set_serving(&self, serving: Serving) {
        self.estate
            .serving
            .store(serving == Serving::Yes, Ordering::Relaxed);
    }

    /// Notes where callers are served, once the addresses are bound.
    pub fn set_bound(&self, addresses: Vec<SocketAddr>) {
        // It is bound once.
        let _ = self.estate.bound.set(addresses);
    }

    /// Ends when no call is under way whose caller has gone.
    pub async fn departed(&self) {
        self.estate.departed.none().await;
    }

    /// Where lines about connections go.
    pub fn log(&self) -> &Log {
        &self.estate.log
    }

    /// What is counted.
    pub fn counters(&self) -> &Counters {
        &self.estate.counters
    }

    /// Gives back what this worker has held idle for too long.
    pub fn sweep(&self, worker: usize) {
        self.estate.flows.sweep(worker);
    }

    /// Forgets addresses whose failures have all been forgiven.
    pub fn sweep_limits(&self) {
        self.estate.limits.sweep();
    }
}
