//! The hosts on which triggers live: one for each name, port and trust, so that routes share connections.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::counters::Counters;
use crate::flow::pool::Host;
use crate::model::{TriggerUrl, locked};
use crate::outbound::{Trust, TrustError};
use crate::settings::UpstreamSettings;

/// The hosts that triggers live on, or lived on a while ago.
#[derive(Debug)]
pub(super) struct Hosts {
    known: Mutex<HashMap<HostKey, Arc<Host>>>,
    workers: usize,
    counters: Counters,
}

impl Hosts {
    pub(super) fn new(workers: usize, counters: &Counters) -> Arc<Self> {
        Arc::new(Self {
            known: Mutex::default(),
            workers,
            counters: counters.clone(),
        })
    }

    pub(super) fn host(
        &self,
        url: &TriggerUrl,
        upstream: &UpstreamSettings,
    ) -> Result<Arc<Host>, TrustError> {
        let key = HostKey::of(url, upstream);
        let mut known = locked(&self.known);
        if let Some(host) = known.get(&key) {
            return Ok(host.clone());
        }
        let host = Host::new(url, upstream, self.workers, &self.counters)?;
        known.insert(key, host.clone());
        Ok(host)
    }

    /// Gives up those on which no trigger lives, once their last connection has gone.
    pub(super) fn forget(&self) {
        locked(&self.known).retain(|_, host| Arc::strong_count(host) > 1 || !host.is_empty());
    }

    pub(super) fn all(&self) -> Vec<Arc<Host>> {
        locked(&self.known).values().cloned().collect()
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
