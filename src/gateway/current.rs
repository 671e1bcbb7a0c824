//! The gateway: what survives a reload, and the snapshot in force. It introduces policy, tokens and triggers to one another,
//! which do not know each other.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;

use crate::counters::Counters;
use crate::gateway::estate::Estate;
use crate::gateway::listeners::Judge;
use crate::gateway::log::Log;
use crate::gateway::reread;
use crate::gateway::snapshot::{BuildError, Snapshot, Wanted};
use crate::model::{CallerName, KeyLabel, Minute, clock};
use crate::secrets::Rereader;
use crate::settings::{Config, ListenerSettings};
use crate::state::{Recalled, RevokedKey};

/// How often [`Gateway::sweep`] is worth calling.
pub const SWEEP_PERIOD: Duration = Duration::from_secs(5);
/// How often [`Gateway::sweep_limits`] is worth calling; the uses of keys are noted to this.
pub const LIMITS_SWEEP_PERIOD: Duration = Duration::from_secs(60);

/// How often it is looked whether what is retired can go.
const RELEASE_PERIOD: Duration = Duration::from_millis(500);

/// Everything a request needs.
#[derive(Debug)]
pub struct Gateway {
    pub(super) estate: Estate,
    current: ArcSwap<Snapshot>,
}

/// What settings decide, built and not in force.
#[derive(Debug)]
#[must_use]
pub struct Prepared(Box<Snapshot>);

impl Prepared {
    pub fn listeners(&self) -> &[ListenerSettings] {
        &self.0.listeners
    }

    pub fn rereader(&self) -> &Rereader {
        self.0.tokens.rereader()
    }
}

/// What settings decided that are in force no more, while requests end with it.
#[derive(Debug)]
#[must_use]
pub struct Retired(Arc<Snapshot>);

#[derive(Debug)]
pub enum NotRevoked {
    /// The settings in force have no such key.
    NoKey,
    /// The key is refused, until the next start.
    NotKept(io::Error),
}

/// Whether new requests are welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    Yes,
    /// The gateway is starting or draining.
    No,
}

impl Gateway {
    /// Builds the gateway and starts to fetch tokens on `control`.
    pub fn build(
        config: &Config,
        control: &Handle,
        counters: &Counters,
        log: Log,
        recalled: Recalled,
    ) -> Result<Arc<Self>, BuildError> {
        let estate = Estate::build(config, control, counters, log, recalled);
        let snapshot = Snapshot::build(config, &estate, None)?;
        take_effect(&snapshot, &estate, config);
        Ok(Arc::new(Self {
            estate,
            current: ArcSwap::from_pointee(snapshot),
        }))
    }

    /// Refuses a key from the next request on, whatever the settings say of it from now on.
    pub fn revoke(&self, caller: &CallerName, label: &KeyLabel) -> Result<(), NotRevoked> {
        let digest = self.snapshot().callers.digest(caller, label);
        let key = RevokedKey {
            digest: digest.ok_or(NotRevoked::NoKey)?.to_setting(),
            caller: caller.to_string(),
            label: label.to_string(),
        };
        // Noted first: settings that come into force at the same time look there. The disk comes last: it may hang.
        self.estate.revocations.insert(&key);
        self.snapshot()
            .callers
            .revoke_all(|digest| digest.to_setting() == key.digest);
        self.estate.revocations.write(&key).map_err(NotRevoked::NotKept)
    }

    /// Where tokens or signatures would go under these settings and do not go now, in words.
    pub fn moves(&self, config: &Config) -> Vec<String> {
        self.snapshot().moves(config)
    }

    /// Builds what these settings decide, and changes nothing. It may take a second: not for a worker.
    pub fn prepare(&self, config: &Config, wanted: Wanted) -> Result<Prepared, BuildError> {
        let current = self.snapshot();
        if wanted == Wanted::ByItself {
            current.check_moves(config)?;
        }
        let snapshot = Snapshot::build(config, &self.estate, Some(&current))?;
        Ok(Prepared(Box::new(snapshot)))
    }

    /// Puts what was prepared from these settings in force: requests that are running end with what they began with.
    /// Returns the revision that is in force now, and what is left of the last one.
    pub fn put_in_force(&self, Prepared(snapshot): Prepared, config: &Config) -> (u64, Retired) {
        let revision = snapshot.revision;
        take_effect(&snapshot, &self.estate, config);
        let earlier = self.current.swap(Arc::from(snapshot));
        let now = self.snapshot();
        // One that was revoked while this was built.
        let revocations = &self.estate.revocations;
        if !revocations.is_empty() {
            now.callers
                .revoke_all(|digest| revocations.has(&digest.to_setting()));
        }
        // Requests that are running may need it for long, and its followers would report everything twice.
        earlier.keep(Vec::new());
        now.callers.carry_over(&earlier.callers);
        earlier.tokens.clear_gauges(&now.tokens);
        (revision, Retired(earlier))
    }

    /// Waits until no request needs what is retired, and drops it where that may take long.
    pub async fn release(self: Arc<Self>, Retired(earlier): Retired) {
        while Arc::strong_count(&earlier) > 1 {
            tokio::time::sleep(RELEASE_PERIOD).await;
        }
        // Of a hundred thousand keys.
        let dropped = tokio::task::spawn_blocking(move || {
            drop(earlier);
            self.estate.sweep();
        });
        // A panic in a destructor has been reported by itself.
        let _ = dropped.await;
    }

    /// What the settings in force decide. A request asks once: what it was admitted by is what it ends with.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    pub fn listeners(&self) -> Vec<ListenerSettings> {
        self.snapshot().listeners.clone()
    }

    pub fn rereader(&self) -> Rereader {
        self.snapshot().tokens.rereader().clone()
    }

    /// Notes where callers are served, in the order of the settings, and what judges the certificates of each listener with
    /// TLS: without one that callers accept it serves nobody.
    pub fn set_listeners(&self, bound: Vec<SocketAddr>, with_tls: Vec<(SocketAddr, Judge)>) {
        self.estate.listeners.set(bound, with_tls);
    }

    /// Notes whether new requests are welcome: not before all listeners are bound, and not while draining.
    pub fn set_serving(&self, serving: Serving) {
        self.estate.serving.send_replace(serving == Serving::Yes);
    }

    /// Ends when no call is under way whose caller has gone.
    pub async fn departed(&self) {
        self.estate.departed.none().await;
    }

    pub fn log(&self) -> &Log {
        &self.estate.log
    }

    pub fn counters(&self) -> &Counters {
        &self.estate.counters
    }

    /// Gives back what this worker has held idle for too long.
    pub fn sweep(&self, worker: usize) {
        self.estate.flows.sweep(worker);
    }

    /// Forgets addresses whose failures have all been forgiven, advances the minute with which uses of keys are noted, and
    /// warns of keys that expire.
    pub fn sweep_limits(&self) {
        self.estate.limits.sweep();
        let (snapshot, now) = (self.snapshot(), clock::wall());
        snapshot.callers.advance(Minute::of(now));
        self.estate.key_expiry.look(&snapshot.callers, now);
    }
}

/// Changes parts of the estate to what a snapshot needs, and follows what may be replaced under it.
fn take_effect(snapshot: &Snapshot, estate: &Estate, config: &Config) {
    snapshot.take_effect(estate, config);
    snapshot.keep(reread::follow(estate, snapshot, config));
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::path::Path;

    use allocation_counter::measure;

    use super::{Gateway, Retired};
    use crate::counters::Counters;
    use crate::gateway::log::Log;
    use crate::gateway::snapshot::Wanted;
    use crate::settings::{Config, Environment, KeyDigest, parse};
    use crate::state::Recalled;

    /// A route with a hundred keys, one of which is this.
    fn config(key: &str) -> Config {
        let mut text = "[[listener]]\naddress = \"127.0.0.1:0\"\nplain_http = \"private-networks\"\n\
            plain_http_from = [\"127.0.0.0/8\"]\n\
            [[route]]\nname = \"orders\"\npath = \"/orders\"\ncallers = [\"shop\"]\nsigned = true\n\
            trigger = \"env:TRIGGER\"\n\
            [[caller]]\nname = \"shop\"\nrate = { requests = 10, per = \"1s\", burst = 20 }\n"
            .to_owned();
        let others = (1..100).map(|number| format!("key-{number}"));
        for (number, key) in others.chain([key.to_owned()]).enumerate() {
            let digest = KeyDigest::of(key.as_bytes(), None).to_setting();
            writeln!(
                text,
                "[[caller.key]]\nlabel = \"k{number}\"\ndigest = \"{digest}\""
            )
            .unwrap();
        }
        let trigger = "https://prod-01.westeurope.logic.azure.com/workflows/\
            0123456789abcdef0123456789abcdef/triggers/manual/paths/invoke?api-version=2016-10-01\
            &sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=canary";
        let environment = Environment::from_pairs([("TRIGGER", trigger)]);
        let parsed = parse(&text, Path::new("flowgate.toml"), &environment);
        parsed.unwrap_or_else(|report| panic!("{report}")).0
    }

    #[tokio::test]
    async fn a_reload_leaves_nothing_in_memory() {
        let configs = [config("first"), config("second")];
        let (counters, control) = (Counters::new(), tokio::runtime::Handle::current());
        let gateway =
            Gateway::build(&configs[0], &control, &counters, Log::off(), Recalled::default()).unwrap();
        let reload = |config: &Config| {
            let prepared = gateway.prepare(config, Wanted::ByOperator).unwrap();
            let (_, Retired(earlier)) = gateway.put_in_force(prepared, config);
            drop(earlier);
            gateway.estate.sweep();
        };
        let twenty = || {
            for config in configs.iter().cycle().take(20) {
                reload(config);
            }
        };
        twenty();
        let left = measure(twenty);
        assert!(left.count_total > 1000, "{left:?}");
        assert_eq!((left.count_current, left.bytes_current), (0, 0), "{left:?}");
    }
}
