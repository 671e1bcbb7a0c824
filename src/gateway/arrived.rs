//! A request as it arrived, and how its body is read: in the share of its caller, or of its address while nobody is known.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;

use crate::flow::outbound::Introduction;
use crate::gateway::budget::Owner;
use crate::gateway::connection::Connection;
use crate::gateway::course::Course;
use crate::gateway::estate::Estate;
use crate::gateway::journal::Journal;
use crate::gateway::payload::{self, Inbound, Payload, Rules};
use crate::gateway::snapshot::Route;
use crate::model::{CallerName, Holder, KeyLabel, clock};
use crate::policy::{Caller, Origin};
use crate::problem::{Kind, Problem};
use crate::wire::Defect;

/// When callers of a route that is switched off are asked to come again.
const DISABLED_WAIT: Duration = Duration::from_secs(60);

pub(super) struct Arrived<'r> {
    pub head: &'r Parts,
    /// What is wrong with the head that this one replaces.
    pub defect: Option<Defect>,
    /// The body; none while a part of it was read, and empty once all was.
    pub body: Option<Inbound>,
    pub via: &'r Connection,
    /// The route, as soon as it is known.
    pub route: Option<&'r Route>,
    pub progress: &'r Arc<Course>,
}

pub(super) async fn read(
    estate: &Estate,
    rules: Rules,
    arrived: &mut Arrived<'_>,
    journal: &mut Journal,
    owner: Owner<'_>,
) -> Result<Payload, Problem> {
    let started = clock::now();
    let (budget, course) = (&estate.budget, arrived.progress);
    let mut body = arrived.body.take().unwrap_or_default();
    let read = match Payload::whole(&mut body, &rules, budget, owner, course) {
        Ok(Some(payload)) => Ok(payload),
        // In a box, which most requests do not need: their body came with the head.
        Ok(None) => {
            Box::pin(Payload::read(
                body,
                &arrived.head.headers,
                rules,
                budget,
                owner,
                course,
            ))
            .await
        }
        Err(problem) => Err(problem),
    };
    journal.body(course, clock::now() - started);
    if let Ok(Payload::Held(..)) = read {
        // Nothing of it is left on the connection, which can go on after a refusal.
        arrived.body = Some(Inbound::default());
    }
    read
}

/// Reads a body before its caller is known. It is held whole, in the share of its address among those of unknown callers, and
/// no limit of a caller is spent before its signature was right.
pub(super) async fn read_whole(
    estate: &Estate,
    route: &Route,
    arrived: &mut Arrived<'_>,
    origin: Origin,
    journal: &mut Journal,
) -> Result<Payload, Problem> {
    let nobody = (origin.bucket().into(), CallerName::anonymous(), None);
    read_early(estate, route, arrived, journal, nobody).await
}

/// The same of a caller that is known, in its share.
pub(super) async fn read_of(
    estate: &Estate,
    (route, caller): (&Route, &Caller),
    arrived: &mut Arrived<'_>,
    origin: Origin,
    journal: &mut Journal,
) -> Result<Payload, Problem> {
    let of = (caller.holder(origin), caller.name.clone(), caller.label.clone());
    read_early(estate, route, arrived, journal, of).await
}

async fn read_early(
    estate: &Estate,
    route: &Route,
    arrived: &mut Arrived<'_>,
    journal: &mut Journal,
    (holder, caller, key): (Holder, CallerName, Option<KeyLabel>),
) -> Result<Payload, Problem> {
    check_enabled(route)?;
    payload::check_length(&arrived.head.headers, &route.rules)?;
    let who = Introduction {
        request: journal.request(),
        caller,
        key,
        origin: arrived.via.origin.clone(),
    };
    let owner = Owner { holder, who: &who };
    read(estate, route.rules.whole(), arrived, journal, owner).await
}

pub(super) fn check_enabled(route: &Route) -> Result<(), Problem> {
    match route.enabled {
        true => Ok(()),
        false => Err(Problem::from(Kind::RouteDisabled).wait(DISABLED_WAIT)),
    }
}
