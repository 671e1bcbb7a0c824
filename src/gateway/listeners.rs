//! What listeners report of their certificates, which may be replaced while they serve.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::SystemTime;

use crate::model::locked;
use crate::settings::ReadyRequires;

/// The certificates of a listener at a moment.
#[derive(Debug, Default)]
pub struct Validity {
    /// How many callers can accept.
    pub valid: usize,
    /// What is wrong with each of the others.
    pub lapsed: Vec<String>,
}

/// Judges the certificates that a listener serves at a moment.
pub type Judge = Box<dyn Fn(SystemTime) -> Validity + Send + Sync>;

#[derive(Default)]
pub(super) struct Listeners(Mutex<State>);

#[derive(Default)]
struct State {
    /// Where callers are served, once the addresses are bound.
    bound: Vec<SocketAddr>,
    with_tls: Vec<(SocketAddr, Judge)>,
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listeners").finish_non_exhaustive()
    }
}

impl Listeners {
    pub(super) fn set(&self, bound: Vec<SocketAddr>, with_tls: Vec<(SocketAddr, Judge)>) {
        *locked(&self.0) = State { bound, with_tls };
    }

    pub(super) fn bound(&self) -> Vec<SocketAddr> {
        locked(&self.0).bound.clone()
    }

    /// Whether callers can connect at all, or on each name; and what is wrong with each certificate that they refuse.
    pub(super) fn validity(
        &self,
        now: SystemTime,
        requires: ReadyRequires,
    ) -> (bool, Vec<(SocketAddr, String)>) {
        let state = locked(&self.0);
        let list = &state.with_tls;
        let mut serving = state.bound.len().saturating_sub(list.len());
        let mut lapsed = Vec::new();
        for (address, judge) in list.iter() {
            let found = judge(now);
            serving += usize::from(found.valid > 0);
            lapsed.extend(found.lapsed.into_iter().map(|why| (*address, why)));
        }
        let enough = match requires {
            ReadyRequires::AnyRoute => serving > 0,
            ReadyRequires::AllRoutes => lapsed.is_empty(),
        };
        (enough, lapsed)
    }
}
