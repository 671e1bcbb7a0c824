//! A trigger: its address, its permits, and a request to it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;

use crate::counters::Counters;
use crate::flow::body::Progress;
use crate::flow::error::{Failed, FlowError};
use crate::flow::exchange::{self, Answer, Call, Echo};
use crate::flow::hosts::Hosts;
use crate::flow::permits::{Permit, Permits};
use crate::flow::pool::{Host, Lease};
use crate::flow::shares::Load;
use crate::model::{Holder, Registry, RouteName, TriggerUrl};
use crate::outbound::TrustError;
use crate::settings::{RouteSettings, UpstreamSettings};

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

    pub fn url(&self) -> &TriggerUrl {
        &self.url
    }

    pub fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// A connection that is open already.
    pub fn pooled(&self, worker: usize) -> Option<Lease> {
        self.host.take(worker)
    }

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

impl Trigger {
    pub fn address(&self) -> Arc<Address> {
        self.address.load_full()
    }

    /// Time between two pieces of an answer's body.
    pub fn response_timeout(&self) -> Duration {
        self.response_timeout
    }

    /// Waits, within bounds, for the right to send one request of this holder.
    pub async fn permit(&self, holder: Holder, load: Load) -> Result<Permit, FlowError> {
        self.permits.acquire(holder, load).await
    }

    /// Whether a request of this holder would have it at once. None is taken.
    pub fn probe(&self, holder: Holder, load: Load) -> Result<(), FlowError> {
        self.permits.probe(holder, load)
    }

    pub async fn new_connection(&self, worker: usize) -> Result<Lease, FlowError> {
        self.address().new_connection(worker).await
    }

    /// Sends a request and waits for the head of the answer. The deadline counts from the last piece of the body.
    pub fn send<'a>(
        &'a self,
        lease: Lease,
        call: Call,
        progress: Option<&'a Progress>,
    ) -> impl Future<Output = Result<Answer, Failed>> + use<'a> {
        exchange::send(lease, call, self.response_timeout, progress, &self.echo)
    }
}

/// What triggers are made of, and share: hosts with their connections, and permits.
#[derive(Debug)]
pub struct Flows {
    hosts: Arc<Hosts>,
    /// By the name of the route, so that new settings find the requests that are under way.
    permits: Registry<RouteName, Permits>,
}

impl Flows {
    pub fn new(workers: usize, counters: &Counters) -> Self {
        Self {
            hosts: Hosts::new(workers, counters),
            permits: Registry::default(),
        }
    }

    /// The trigger of a route; routes on one host with the same trust share its connections.
    pub fn trigger(&self, route: &RouteSettings) -> Result<Arc<Trigger>, TrustError> {
        let upstream = &route.upstream;
        let host = self.hosts.host(&route.trigger, upstream)?;
        let permits = || {
            Permits::new(
                upstream.in_flight_max,
                upstream.waiting_max,
                upstream.waiting_timeout,
            )
        };
        Ok(Arc::new(Trigger {
            address: ArcSwap::new(Address::new(route.trigger.clone(), host)?),
            permits: self.permits.share(route.name.clone(), permits),
            response_timeout: upstream.response_timeout,
            echo: Echo::default(),
        }))
    }

    /// Changes the permits of a route to what its settings say.
    pub fn resize(&self, route: &RouteSettings) {
        let upstream = &route.upstream;
        if let Some(permits) = self.permits.known(&route.name) {
            permits.resize(
                upstream.in_flight_max,
                upstream.waiting_max,
                upstream.waiting_timeout,
            );
        }
    }

    /// Forgets routes and hosts that no settings have any more.
    pub fn sweep_names(&self) {
        self.permits.sweep();
        self.hosts.forget();
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

#[derive(Debug)]
pub struct Mover {
    trigger: Arc<Trigger>,
    hosts: Arc<Hosts>,
    upstream: UpstreamSettings,
}

impl Mover {
    pub fn trigger(&self) -> &Trigger {
        &self.trigger
    }

    /// An address to go to, with the connections there.
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
