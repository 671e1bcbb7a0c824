//! What an address pays for credentials that were wrong.

use crate::policy::{Attempt, Guesses, Origin, Quotas};
use crate::problem::Problem;
use crate::settings::Peers;

/// The failed attempts of an address, which are limited. A caller with a valid generated key, or with none where none is
/// needed, is served whatever others at its address present.
pub(super) struct Attempts<'s> {
    quotas: &'s Quotas,
    origin: Origin,
    /// All callers behind a balancer have its address, so a limit there would be one for all of them.
    is_limited: bool,
    /// The refusal of an address that has no attempt left.
    spent: Option<Problem>,
}

impl<'s> Attempts<'s> {
    pub(super) fn of(quotas: &'s Quotas, origin: Origin, peers: Peers) -> Self {
        let is_limited = peers == Peers::Callers;
        let spent = is_limited.then(|| quotas.admit_address(origin).err()).flatten();
        Self {
            quotas,
            origin,
            is_limited,
            spent,
        }
    }

    pub(super) fn guesses(&self) -> Guesses {
        match &self.spent {
            Some(_) => Guesses::Refused,
            None => Guesses::Allowed,
        }
    }

    /// Counts an attempt that failed; returns the answer to it.
    pub(super) fn failed(self, problem: Problem) -> Problem {
        if Attempt::of(problem.kind()) == Attempt::Unrelated {
            return problem;
        }
        if self.is_limited && self.spent.is_none() {
            self.quotas.count_failure(self.origin);
        }
        self.spent.unwrap_or(problem)
    }
}
