//! What listeners report of their certificates, which may be replaced while they serve.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

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
type Judge = Box<dyn Fn(SystemTime) -> Validity + Send + Sync>;

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

    /// Whether callers can connect at all, or on each name; and what is wrong with each certificate that they refuse.
    pub(super) fn state(
        &self,
        now: SystemTime,
        requires: ReadyRequires,
    ) -> (bool, Vec<(SocketAddr, String)>) {
        let list = self.with_tls.lock().unwrap_or_else(PoisonError::into_inner);
        let mut serving = self.total.saturating_sub(list.len());
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
