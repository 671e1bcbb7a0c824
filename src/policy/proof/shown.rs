//! What a request presents, and what each kind of proof makes of it.

use std::fmt;
use std::time::SystemTime;

use http::HeaderMap;

use crate::policy::address::Origin;
use crate::policy::caller::Caller;
use crate::problem::Problem;

/// What a request presents with its head.
#[derive(Clone, Copy)]
pub struct Shown<'r> {
    pub headers: &'r HeaderMap,
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

/// One kind of proof on one route.
pub(in crate::policy) trait Proof: fmt::Debug + Send + Sync {
    /// Identifies the caller; none where the request has no proof of this kind, so that the next kind is asked.
    fn identify(&self, shown: &Shown<'_>) -> Option<Result<Caller, Problem>>;

    /// The answer where this kind is the first of a route, and the request has no proof of any.
    fn missing(&self, origin: Origin) -> Problem;
}
