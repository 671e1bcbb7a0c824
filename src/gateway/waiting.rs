//! How the result of a run is waited for that a flow answers with 202: how many requests do so at one time, until when, and at
//! which address their callers ask afterwards. Asking itself is in `run.rs`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::uri::PathAndQuery;
use http::{HeaderValue, header};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::flow::run_target;
use crate::gateway::run_address::{RunAddress, RunSeals};
use crate::model::{CallerName, Host, PublicUrl, RouteName, TriggerUrl, clock};
use crate::settings::{RouteSettings, RunCredential, WaitSettings};
use crate::wire::Fields;

/// Between two questions where the platform does not say it.
const PAUSE: Duration = Duration::from_secs(2);
/// Whatever it says: less would be a burden, and more a wrong number.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(60)];
/// How long before its sender would be answered without a result a wait ends, so that there is time to say where it will be.
const NOTICE: Duration = Duration::from_millis(50);

/// The rules of one route.
#[derive(Debug)]
pub(super) struct Waiting {
    settings: WaitSettings,
    name: RouteName,
    host: Option<Host>,
    public_url: Option<PublicUrl>,
    seals: Arc<RunSeals>,
    /// Places for requests that wait.
    places: Semaphore,
}

/// Where a run is asked for, and when again.
#[derive(Debug)]
pub(super) struct RunningAt {
    pub target: PathAndQuery,
    pub pause: Duration,
}

impl RunningAt {
    /// What an answer says about it; none where it names no address.
    pub(super) fn of(fields: &Fields, trigger: &TriggerUrl) -> Option<Result<Self, &'static str>> {
        let mut locations = fields.get_all(header::LOCATION.as_str());
        let location = locations.next()?;
        if locations.next().is_some() {
            return Some(Err("there are two"));
        }
        let at = run_target(location, trigger).map(|target| Self {
            target,
            pause: pause(fields),
        });
        Some(at)
    }

    /// Where nothing has been heard of it yet.
    pub(super) fn first(target: PathAndQuery) -> Self {
        Self { target, pause: PAUSE }
    }

    /// Takes over what a later answer says.
    pub(super) fn update(&mut self, fields: &Fields, trigger: &TriggerUrl) {
        self.pause = pause(fields);
        if let Some(Ok(later)) = Self::of(fields, trigger) {
            self.target = later.target;
        }
    }

    /// Waits after a refusal: as long as it says, or no shorter than by default.
    pub(super) fn retry_later(&mut self, stated: Option<Duration>) {
        self.pause = within_bounds(stated.unwrap_or(self.pause.max(PAUSE)));
    }

    pub(super) fn retry_after(&self) -> HeaderValue {
        HeaderValue::from(self.pause.as_millis().div_ceil(1000).max(1) as u64)
    }
}

fn pause(fields: &Fields) -> Duration {
    let stated = fields.text("retry-after").and_then(clock::retry_after);
    within_bounds(stated.unwrap_or(PAUSE))
}

fn within_bounds(pause: Duration) -> Duration {
    let [least, most] = PAUSES;
    pause.clamp(least, most)
}

impl Waiting {
    pub(super) fn build(route: &RouteSettings, seals: Option<&Arc<RunSeals>>) -> Option<Self> {
        Some(Self {
            settings: route.waiting.clone()?,
            name: route.name.clone(),
            host: route.host.clone(),
            public_url: route.public_url.clone(),
            seals: seals?.clone(),
            places: Semaphore::new(route.upstream.waiting_max.min(Semaphore::MAX_PERMITS)),
        })
    }

    /// Until when a request waits whose sender is answered then.
    pub(super) fn until(&self, sender: Option<Instant>) -> Instant {
        let until = clock::now() + self.settings.time;
        sender.map_or(until, |sender| until.min(sender - NOTICE))
    }

    /// A place among those that wait, if there is one.
    pub(super) fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.places.try_acquire().ok()
    }

    /// When an address ends that is given out now.
    pub(super) fn expires(&self) -> SystemTime {
        clock::wall() + self.settings.expires
    }

    pub(super) fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    pub(super) fn demands_credential(&self) -> bool {
        self.settings.credential == RunCredential::OfCaller
    }

    /// The address at which the caller asks for a run: absolute where the settings know the host of the route.
    pub(super) fn address(
        &self,
        caller: &CallerName,
        expires: SystemTime,
        (trigger, at): (&TriggerUrl, &RunningAt),
    ) -> Option<HeaderValue> {
        let place = (trigger.authority(), at.target.clone());
        let run = RunAddress::new((&self.name, caller), expires, place);
        let path = self.seals.seal(&run)?;
        let address = self.public_url.as_ref().map(|url| url.with(&path));
        HeaderValue::try_from(address.unwrap_or(path)).ok()
    }
}
