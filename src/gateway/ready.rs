//! Whether the gateway can serve, route by route and identity by identity, with the reason where it cannot. Computed
//! from the tokens in hand at the moment of the question, so it cannot stay green by mistake.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::Serialize;

use crate::entra::claims::Preflight;
use crate::gateway::{Gateway, Route};
use crate::model::clock;
use crate::settings::ReadyRequires;

/// The answer of `/readyz?verbose`.
#[derive(Debug, Serialize)]
pub struct Readiness {
    /// `ready`, `not-serving` (starting or draining), `no-token` or `no-certificate`.
    pub status: &'static str,
    /// What the settings ask for: `any-route` or `all-routes`.
    pub requires: &'static str,
    /// Each identity.
    pub identities: Vec<IdentityState>,
    /// What belongs to no identity, such as certificates of listeners, and ends one day.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<HeldState>,
    /// Each route whose token has a claim that the flow cannot accept.
    pub claim_mismatches: Vec<MismatchState>,
    /// Each route that cannot serve.
    pub routes_not_ready: Vec<RouteState>,
    /// Each certificate of a listener that callers refuse because of its dates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates_not_ready: Vec<CertificateState>,
}

/// How an identity is doing.
#[derive(Debug, Serialize)]
pub struct IdentityState {
    /// Its name.
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

/// A credential of an identity and the time it has left.
#[derive(Debug, Serialize)]
pub struct CredentialState {
    /// Kind and number, such as `client-secret-1`.
    pub credential: String,
    /// Whole days until it expires; below zero when it is over.
    pub days_left: i64,
}

/// Something that ends one day, and belongs to no identity.
#[derive(Debug, Serialize)]
pub struct HeldState {
    /// Whose it is: `listener 0.0.0.0:8443`, `route orders`, `the gateway`.
    pub of: String,
    /// The name of a certificate, or what it is.
    pub credential: String,
    /// Whole days until it expires; below zero when it is over.
    pub days_left: i64,
}

/// A route whose token has a claim that the flow cannot accept.
#[derive(Debug, Serialize)]
pub struct MismatchState {
    /// The route.
    pub route: String,
    /// Each such claim, and how to mend it.
    pub findings: Vec<String>,
}

/// A route that cannot serve.
#[derive(Debug, Serialize)]
pub struct RouteState {
    /// Its name.
    pub name: String,
    /// What it lacks.
    pub why: String,
}

/// A certificate of a listener that is outside of its dates.
#[derive(Debug, Serialize)]
pub struct CertificateState {
    /// The listener.
    pub listener: String,
    /// Which certificate it is, and what is wrong with it.
    pub why: String,
}

/// The certificates of a listener at a moment.
#[derive(Debug, Default)]
pub struct Validity {
    /// How many callers can accept.
    pub valid: usize,
    /// What is wrong with each of the others.
    pub lapsed: Vec<String>,
}

/// Judges the certificates that a listener serves at a moment.
type Judge = Box<dyn Fn(SystemTime) -> Validity + Send + Sync>;

/// What listeners say of their certificates, which may be replaced while they serve.
pub(super) struct Listeners {
    /// How many there are, those without TLS included.
    total: usize,
    with_tls: Mutex<Vec<(SocketAddr, Judge)>>,
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listeners")
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

impl Listeners {
    pub(super) fn new(total: usize) -> Self {
        Self {
            total,
            with_tls: Mutex::default(),
        }
    }

    pub(super) fn add(&self, address: SocketAddr, judge: Judge) {
        let mut list = self.with_tls.lock().unwrap_or_else(PoisonError::into_inner);
        list.push((address, judge));
    }

    /// Whether callers can connect at all, or on each name; and each certificate that they refuse.
    fn state(&self, now: SystemTime, requires: ReadyRequires) -> (bool, Vec<CertificateState>) {
        let list = self.with_tls.lock().unwrap_or_else(PoisonError::into_inner);
        let mut serving = self.total.saturating_sub(list.len());
        let mut lapsed = Vec::new();
        for (address, judge) in list.iter() {
            let found = judge(now);
            serving += usize::from(found.valid > 0);
            lapsed.extend(found.lapsed.into_iter().map(|why| CertificateState {
                listener: address.to_string(),
                why,
            }));
        }
        let enough = match requires {
            ReadyRequires::AnyRoute => serving > 0,
            ReadyRequires::AllRoutes => lapsed.is_empty(),
        };
        (enough, lapsed)
    }
}

impl Readiness {
    /// Whether the gateway is ready.
    pub fn is_ready(&self) -> bool {
        self.status == "ready"
    }
}

impl Route {
    /// Whether it can serve; cheap, for a path that anybody may ask.
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
        let mut identities: Vec<_> = self
            .tokens
            .identities()
            .map(|identity| {
                let health = identity.health();
                let name = &identity.settings().name;
                let credentials = self.tokens.lives(name).into_iter().map(|life| CredentialState {
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
            })
            .collect();
        identities.sort_by(|one, other| one.name.cmp(&other.name));
        let lacking = self.list.iter().filter_map(|route| {
            let why = route.lacks()?;
            Some(RouteState {
                name: route.name.to_string(),
                why,
            })
        });
        let routes_not_ready: Vec<_> = lacking.collect();
        let claim_mismatches = self.list.iter().filter_map(|route| {
            let findings = route.preflight.as_ref()?.findings().to_vec();
            (!findings.is_empty()).then(|| MismatchState {
                route: route.name.to_string(),
                findings,
            })
        });
        let claim_mismatches = claim_mismatches.collect();
        let enough = match self.ready_requires {
            ReadyRequires::AnyRoute => routes_not_ready.len() < self.list.len(),
            ReadyRequires::AllRoutes => routes_not_ready.is_empty(),
        };
        let (reachable, certificates_not_ready) = self.listeners.state(clock::wall(), self.ready_requires);
        let status = match (self.serving.load(Ordering::Relaxed), enough, reachable) {
            (false, _, _) => "not-serving",
            (true, false, _) => "no-token",
            (true, true, false) => "no-certificate",
            (true, true, true) => "ready",
        };
        let requires = match self.ready_requires {
            ReadyRequires::AnyRoute => "any-route",
            ReadyRequires::AllRoutes => "all-routes",
        };
        Readiness {
            status,
            requires,
            identities,
            credentials: self.held(),
            claim_mismatches,
            routes_not_ready,
            certificates_not_ready,
        }
    }

    /// Has a listener with TLS count: without a certificate that callers accept it serves nobody.
    pub fn add_listener(
        &self,
        address: SocketAddr,
        judge: impl Fn(SystemTime) -> Validity + Send + Sync + 'static,
    ) {
        self.listeners.add(address, Box::new(judge));
    }

    fn held(&self) -> Vec<HeldState> {
        let lives = self.rereader().lives().into_iter();
        lives
            .map(|(holder, life)| HeldState {
                of: holder.to_string(),
                credential: life.credential,
                days_left: life.days,
            })
            .collect()
    }

    /// Whether the gateway can serve, without the reasons; cheap enough for a public health path.
    pub fn is_ready(&self) -> bool {
        self.serving.load(Ordering::Relaxed)
            && self.listeners.state(clock::wall(), self.ready_requires).0
            && match self.ready_requires {
                ReadyRequires::AnyRoute => self.list.iter().any(|route| route.can_serve()),
                ReadyRequires::AllRoutes => self.list.iter().all(|route| route.can_serve()),
            }
    }
}
