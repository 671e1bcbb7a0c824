//! A listener while it serves. Its address stays; what is spoken there is replaced when the settings change, for connections
//! that are accepted from then on.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::gateway::Judge;
use crate::model::Network;
use crate::server::phase::{Course, Phase, Phases};
use crate::server::shared::Shared;
use crate::server::tls::Secured;
use crate::settings::Peers;

pub(super) struct Listening {
    /// As in the settings; with port 0 it is bound elsewhere.
    pub address: SocketAddr,
    pub bound: SocketAddr,
    speaks: ArcSwap<Speaks>,
    /// Whether connections are accepted.
    course: Course,
}

/// What is spoken on a listener.
pub(super) struct Speaks {
    pub transport: Spoken,
    /// For each worker what its connections share.
    pub shared: Box<[Arc<Shared>]>,
    /// What connections that are accepted with this follow.
    pub course: Course,
}

pub(super) enum Spoken {
    Tls(Secured),
    /// Peers outside of these networks are cut at once.
    Plain(Arc<[Network]>, Peers),
}

impl Spoken {
    /// Whether everybody who may speak this may speak the `other` as well.
    fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tls(_), Self::Tls(_)) => true,
            (Self::Plain(ours, peers), Self::Plain(theirs, others)) => {
                let is_within = |network: &Network| theirs.iter().any(|wide| wide.contains(&**network));
                peers == others && ours.iter().all(is_within)
            }
            (Self::Tls(_), Self::Plain(..)) | (Self::Plain(..), Self::Tls(_)) => false,
        }
    }
}

impl Listening {
    pub(super) fn new(address: SocketAddr, bound: SocketAddr, speaks: Speaks, phases: &Phases) -> Arc<Self> {
        Arc::new(Self {
            address,
            bound,
            speaks: ArcSwap::from_pointee(speaks),
            course: phases.open(),
        })
    }

    pub(super) fn speaks(&self) -> Arc<Speaks> {
        self.speaks.load_full()
    }

    /// Speaks something else from now on. Connections go on as they began, unless their peers might not have been let in
    /// now: those end after what they are doing.
    pub(super) fn speak(&self, mut speaks: Speaks) {
        let earlier = self.speaks();
        if earlier.transport.is_within(&speaks.transport) {
            speaks.follow(earlier.course.clone());
            self.speaks.store(Arc::new(speaks));
            return;
        }
        self.speaks.store(Arc::new(speaks));
        earlier.course.turn(Phase::Drain);
    }

    /// Accepts no more connections; those there are end after what they are doing.
    pub(super) fn close(&self) {
        self.course.turn(Phase::Drain);
        self.speaks().course.turn(Phase::Drain);
    }

    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.course.follow()
    }
}

impl Speaks {
    pub(super) fn judge(&self) -> Option<Judge> {
        match &self.transport {
            Spoken::Tls(secured) => Some(secured.judge()),
            Spoken::Plain(..) => None,
        }
    }

    /// What is wrong with a certificate, where those spoken with so far are all valid.
    pub(super) fn lapse(&self, earlier: &Self) -> Option<String> {
        match (&self.transport, &earlier.transport) {
            (Spoken::Tls(now), Spoken::Tls(earlier)) => now.lapse(earlier),
            _ => None,
        }
    }

    fn follow(&mut self, course: Course) {
        let shared = self.shared.iter().map(|shared| {
            Arc::new(Shared {
                course: course.clone(),
                ..(**shared).clone()
            })
        });
        self.shared = shared.collect();
        self.course = course;
    }
}
