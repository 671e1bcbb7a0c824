//! Whether the gateway can serve, route by route and identity by identity, with the reason where it cannot. Computed
//! from the tokens in hand at the moment of the question, so it cannot stay green by mistake.

use std::sync::Arc;

use serde::Serialize;

use crate::entra::claims::Preflight;
use crate::entra::{Identity, Tokens};
use crate::gateway::current::Gateway;
use crate::gateway::estate::Estate;
use crate::gateway::reloads::LastReload;
use crate::gateway::snapshot::{Route, Snapshot};

use crate::model::clock;
use crate::settings::ReadyRequires;

/// The answer of `/readyz?verbose`.
#[derive(Debug, Serialize)]
pub struct Readiness {
    /// `ready`, `not-serving` (starting or draining), `no-token` or `no-certificate`.
    pub status: &'static str,
    pub revision: u64,
    /// The revision that was rolled back to: files are not followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinned: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_reload: Option<LastReload>,
    /// What the settings ask for.
    pub requires: ReadyRequires,
    pub identities: Vec<IdentityState>,
    /// What belongs to no identity, such as certificates of listeners, and ends one day.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<HeldState>,
    pub claim_mismatches: Vec<MismatchState>,
    pub routes_not_ready: Vec<RouteState>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates_not_ready: Vec<CertificateState>,
}

#[derive(Debug, Serialize)]
pub struct IdentityState {
    pub name: String,
    /// Whether it has a token that has not expired.
    pub ready: bool,
    /// Seconds until its token expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
    /// The last failure, while it has not been followed by a success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Its credentials whose end is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<CredentialState>,
}

#[derive(Debug, Serialize)]
pub struct CredentialState {
    /// Kind and number, such as `client-secret-1`.
    pub credential: String,
    /// Whole days until it expires; below zero when it is over.
    pub days_left: i64,
}

#[derive(Debug, Serialize)]
pub struct HeldState {
    /// Whose it is: `listener 0.0.0.0:8443`, `route orders`, `the gateway`.
    pub of: String,
    /// The name of a certificate, or what it is.
    pub credential: String,
    pub days_left: i64,
}

/// A route whose token has a claim that the flow cannot accept.
#[derive(Debug, Serialize)]
pub struct MismatchState {
    pub route: String,
    /// Each such claim, and how to fix it.
    pub findings: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct RouteState {
    pub name: String,
    pub why: String,
}

/// A certificate of a listener that is outside of its dates.
#[derive(Debug, Serialize)]
pub struct CertificateState {
    pub listener: String,
    /// Which certificate it is, and what is wrong with it.
    pub why: String,
}

impl Readiness {
    pub fn is_ready(&self) -> bool {
        self.status == "ready"
    }
}

impl Route {
    /// Whether it can serve; inexpensive, for a path that anybody may ask.
    fn can_serve(&self) -> bool {
        let refuses = |preflight: &Arc<Preflight>| preflight.refusal().is_some();
        self.identity
            .as_ref()
            .is_none_or(|identity| identity.token_at_hand().is_some())
            && !self.preflight.as_ref().is_some_and(refuses)
    }

    fn lacks(&self) -> Option<String> {
        let identity = self.identity.as_ref()?;
        match identity.health().expires_in {
            Some(_) => self.preflight.as_ref()?.refusal(),
            None => Some(format!("identity {} has no token", identity.settings().name)),
        }
    }
}

impl Gateway {
    /// Whether the gateway can serve, and why not.
    pub fn readiness(&self) -> Readiness {
        let (estate, snapshot) = (&self.estate, self.snapshot());
        let (routes, requires) = (&snapshot.routes, snapshot.ready_requires);
        let mut identities: Vec<_> = snapshot
            .tokens
            .identities()
            .map(|identity| state_of(identity, &snapshot.tokens))
            .collect();
        identities.sort_by(|one, other| one.name.cmp(&other.name));
        let lacking = routes.iter().filter_map(|route| {
            let why = route.lacks()?;
            Some(RouteState {
                name: route.name.to_string(),
                why,
            })
        });
        let routes_not_ready: Vec<_> = lacking.collect();
        let claim_mismatches = routes.iter().filter_map(|route| {
            let findings = route.preflight.as_ref()?.findings().to_vec();
            (!findings.is_empty()).then(|| MismatchState {
                route: route.name.to_string(),
                findings,
            })
        });
        let claim_mismatches = claim_mismatches.collect();
        let enough = match requires {
            ReadyRequires::AnyRoute => routes_not_ready.len() < routes.len(),
            ReadyRequires::AllRoutes => routes_not_ready.is_empty(),
        };
        let (reachable, lapsed) = estate.listeners.validity(clock::wall(), requires);
        let certificates_not_ready = lapsed.into_iter().map(|(listener, why)| CertificateState {
            listener: listener.to_string(),
            why,
        });
        let status = match (*estate.serving.borrow(), enough, reachable) {
            (false, _, _) => "not-serving",
            (true, false, _) => "no-token",
            (true, true, false) => "no-certificate",
            (true, true, true) => "ready",
        };
        Readiness {
            status,
            revision: snapshot.revision,
            pinned: estate.reloads.pinned(),
            last_reload: estate.reloads.last(),
            requires,
            identities,
            credentials: held(&snapshot),
            claim_mismatches,
            routes_not_ready,
            certificates_not_ready: certificates_not_ready.collect(),
        }
    }

    /// Forgets deliveries whose window is over.
    pub fn sweep_deliveries(&self) {
        self.estate.deliveries.sweep();
    }

    /// Refreshes the gauges that are computed on demand.
    pub fn gauge(&self) {
        let counters = &self.estate.counters;
        self.snapshot().tokens.gauge();
        counters
            .limiter_entries
            .set(i64::try_from(self.estate.limits.entries()).unwrap_or(i64::MAX));
        let (deliveries, bytes) = self.estate.deliveries.used();
        counters
            .deliveries
            .set(i64::try_from(deliveries).unwrap_or(i64::MAX));
        counters
            .delivery_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
        counters
            .log_dropped
            .set(i64::try_from(self.estate.log.dropped()).unwrap_or(i64::MAX));
        counters.ready.set(i64::from(self.readiness().is_ready()));
    }
}

fn state_of(identity: &Identity, tokens: &Tokens) -> IdentityState {
    let health = identity.health();
    let name = &identity.settings().name;
    let credentials = tokens.lives(name).into_iter().map(|life| CredentialState {
        credential: life.credential,
        days_left: life.days,
    });
    IdentityState {
        name: name.to_string(),
        ready: health.expires_in.is_some(),
        expires_in_seconds: health.expires_in.map(|left| left.as_secs()),
        why: health.failure,
        credentials: credentials.collect(),
    }
}

fn held(snapshot: &Snapshot) -> Vec<HeldState> {
    let lives = snapshot.tokens.rereader().lives().into_iter();
    lives
        .map(|(holder, life)| HeldState {
            of: holder.to_string(),
            credential: life.credential,
            days_left: life.days,
        })
        .collect()
}

/// Whether the gateway can serve, without the reasons; inexpensive enough for a public health path.
pub(super) fn is_ready(estate: &Estate, snapshot: &Snapshot) -> bool {
    let routes = &mut snapshot.routes.iter();
    *estate.serving.borrow()
        && estate
            .listeners
            .validity(clock::wall(), snapshot.ready_requires)
            .0
        && match snapshot.ready_requires {
            ReadyRequires::AnyRoute => routes.any(|route| route.can_serve()),
            ReadyRequires::AllRoutes => routes.all(|route| route.can_serve()),
        }
}
