//! What a request presents, and what each kind of proof makes of it.

use std::fmt;
use std::time::SystemTime;

use http::{HeaderMap, Method};

use crate::model::PublicUrl;
use crate::policy::address::Origin;
use crate::policy::caller::Caller;
use crate::policy::proof::pending::Pending;
use crate::policy::proof::signature::Head;
use crate::problem::Problem;

/// What a request presents with its head.
#[derive(Clone, Copy)]
pub struct Shown<'r> {
    pub headers: &'r HeaderMap,
    pub method: &'r Method,
    /// Path and query as they came, and scheme and host under which callers know the route.
    pub target: &'r str,
    pub public_url: Option<&'r PublicUrl>,
    /// What the segment `{key}` of the route's path matched.
    pub path_key: Option<&'r str>,
    pub origin: Origin,
    pub guesses: Guesses,
    /// The wall clock, read only for a credential that has dates.
    pub now: &'r (dyn Fn() -> SystemTime + Sync),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guesses {
    Allowed,
    /// Generated keys only. Any other is unknown without a look at it, so that neither the answer nor its
    /// time depends on whether it is right.
    Refused,
}

impl Shown<'_> {
    /// The address that the caller called. Where nothing signs it, its host is left out.
    pub(super) fn url(&self) -> String {
        let known = self.public_url.map(|url| url.with(self.target));
        known.unwrap_or_else(|| self.target.to_owned())
    }

    pub(super) fn head<'h>(&'h self, url: &'h str) -> Head<'h> {
        Head {
            method: self.method,
            url,
            headers: self.headers,
        }
    }
}

/// What a proof makes of a request.
#[derive(Debug)]
pub enum Identity {
    Known(Caller),
    Pending(Pending),
}

/// One kind of proof on one route.
pub(in crate::policy) trait Proof: fmt::Debug + Send + Sync {
    /// Identifies the caller; none where the request has no proof of this kind, so that the next kind is asked.
    fn identify(&self, shown: &Shown<'_>) -> Option<Result<Identity, Problem>>;

    /// The answer where this kind is the first of a route, and the request has no proof of any.
    fn missing(&self, origin: Origin) -> Problem;
}
