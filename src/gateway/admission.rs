//! Admission: everything about who may call, in one order, and the only maker of [`Admitted`]. Inexpensive checks come
//! first, and nothing of a body is read before the caller is known.

use std::sync::Arc;

use http::request::Parts;
use http::uri::PathAndQuery;

use crate::flow::outbound::Introduction;
use crate::flow::{Address, Progress, outbound};
use crate::gateway::budget::Owner;
use crate::gateway::connection::Connection;
use crate::gateway::estate::Estate;
use crate::gateway::journal::Journal;
use crate::gateway::payload::{Inbound, Payload};
use crate::gateway::snapshot::{Route, Snapshot};
use crate::gateway::{host, payload};
use crate::model::{Holder, clock};
use crate::policy::{Attempt, Guesses, Origin, Quotas, Shown, Taken};
use crate::problem::{Kind, Problem};
use crate::settings::Peers;
use crate::wire::Defect;

/// A request that passed every check. Only [`admit`] makes one: its field is private to this file.
pub(super) struct Admitted<'r>(AdmittedParts<'r>);

/// What is known of an admitted request, for the one who sends it on.
pub(super) struct AdmittedParts<'r> {
    pub head: &'r Parts,
    pub payload: Payload,
    pub route: &'r Route,
    pub address: Arc<Address>,
    pub target: PathAndQuery,
    pub who: Introduction,
    pub holder: Holder,
    /// Kept until the last byte of the answer.
    pub taken: Taken,
}

impl<'r> Admitted<'r> {
    /// Whether its body is sent on while it arrives.
    pub(super) fn is_streamed(&self) -> bool {
        matches!(self.0.payload, Payload::Streamed(_))
    }

    /// Takes it apart for the one who sends it on.
    pub(super) fn into_parts(self) -> AdmittedParts<'r> {
        self.0
    }
}

/// A request as it came.
pub(super) struct Arrived<'r> {
    pub head: &'r Parts,
    /// What is wrong with the head that this one replaces.
    pub defect: Option<Defect>,
    /// The body; none once it was begun to be read.
    pub body: Option<Inbound>,
    pub via: &'r Connection,
    pub progress: &'r Arc<Progress>,
}

/// Decides whether a request may start a flow.
pub(super) async fn admit<'r>(
    estate: &Estate,
    snapshot: &'r Snapshot,
    arrived: &mut Arrived<'r>,
    journal: &mut Journal,
) -> Result<Admitted<'r>, Problem> {
    let (head, via) = (arrived.head, arrived.via);
    refuse_defect(arrived.defect)?;
    snapshot.heads.check(head)?;
    let host = host::of(head)?;
    let path = head.uri.path();
    let found = snapshot.table.find(&host, path, &head.method);
    let found = found.inspect_err(|_| journal.target(path))?;
    let route = found.value;
    journal.route(&route.figures);
    outbound::refuse_lookalikes(&head.headers, &route.credentials)?;

    let origin = Origin::of_peer(via.peer);
    route.networks.admit(origin)?;
    let attempts = Attempts::of(&snapshot.quotas, origin, via.peers);
    let shown = Shown {
        headers: &head.headers,
        origin,
        guesses: attempts.guesses(),
        now: &clock::wall,
    };
    let identified = route.access.identify(&shown);
    let caller = identified.map_err(|problem| attempts.failed(problem))?;
    via.set_known();
    journal.caller(&caller.name, caller.label.as_ref());

    let taken = snapshot.quotas.take(caller.index, route.index)?;
    payload::check_length(&head.headers, &route.rules)?;
    // Looked up once: whatever replaces it, this request goes where its target belongs.
    let address = route.trigger.address();
    let query = head.uri.query();
    let target = route
        .upstream
        .target(address.url(), &route.passes, found.rest, query)?;
    let holder = caller.holder(origin);
    let who = Introduction {
        request: journal.request(),
        caller: caller.name,
        key: caller.label,
        origin: via.origin.clone(),
    };

    let started = clock::now();
    let body = arrived.body.take().unwrap_or_default();
    let owner = Owner { holder, who: &who };
    let (rules, budget) = (route.rules, &estate.budget);
    let read = Payload::read(body, &head.headers, rules, budget, owner, arrived.progress).await;
    journal.body(arrived.progress, clock::now() - started);
    Ok(Admitted(AdmittedParts {
        payload: read?,
        head,
        route,
        address,
        target,
        who,
        holder,
        taken,
    }))
}

fn refuse_defect(defect: Option<Defect>) -> Result<(), Problem> {
    match defect {
        Some(Defect::Malformed(what)) => Err(Problem::from(Kind::MalformedRequest).detail(what)),
        Some(Defect::TooLarge) => Err(Kind::HeadTooLarge.into()),
        None => Ok(()),
    }
}

/// The failed attempts of an address, which are limited. A caller with a valid generated key, or with none where none is
/// needed, is served whatever others at its address present.
struct Attempts<'s> {
    quotas: &'s Quotas,
    origin: Origin,
    /// All callers behind a balancer have its address, so a limit there would be one for all of them.
    is_limited: bool,
    /// The refusal of an address that has no attempt left.
    spent: Option<Problem>,
}

impl<'s> Attempts<'s> {
    fn of(quotas: &'s Quotas, origin: Origin, peers: Peers) -> Self {
        let is_limited = peers == Peers::Callers;
        let spent = is_limited.then(|| quotas.admit_address(origin).err()).flatten();
        Self {
            quotas,
            origin,
            is_limited,
            spent,
        }
    }

    fn guesses(&self) -> Guesses {
        match &self.spent {
            Some(_) => Guesses::Refused,
            None => Guesses::Allowed,
        }
    }

    /// Counts an attempt that failed; returns the answer to it.
    fn failed(self, problem: Problem) -> Problem {
        if Attempt::of(problem.kind()) == Attempt::Unrelated {
            return problem;
        }
        if self.is_limited && self.spent.is_none() {
            self.quotas.count_failure(self.origin);
        }
        self.spent.unwrap_or(problem)
    }
}
