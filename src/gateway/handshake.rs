//! When the challenge of a vendor is answered in place of the flow: behind the networks of its route and within a limit of its
//! own, before any limit of a caller is spent. What is a challenge, and what is answered, is decided in `policy/handshake`.

use bytes::Bytes;
use http::Response;

use crate::gateway::arrived::{Arrived, check_enabled, read_whole};
use crate::gateway::estate::Estate;
use crate::gateway::journal::Journal;
use crate::gateway::payload::Payload;
use crate::gateway::snapshot::{Route, Snapshot};
use crate::model::clock;
use crate::policy::{Caller, Challenge, Handshakes, Origin};
use crate::problem::{Kind, Problem};

/// What a request is on a route that answers challenges.
pub(super) enum Asked {
    /// A challenge, and the answer to it.
    Challenge(Response<Bytes>),
    /// None, as far as it is known without its signature; its body may have been read for that.
    Delivery(Option<Payload>),
}

/// Answers a challenge whose method the address does not have otherwise; every other request keeps its refusal.
pub(super) fn unlisted<'r>(
    snapshot: &'r Snapshot,
    (host, arrived): (&str, &mut Arrived<'r>),
    journal: &mut Journal,
    refusal: Problem,
) -> Result<Response<Bytes>, Problem> {
    let head = arrived.head;
    let path = head.uri.path();
    let is_unlisted = refusal.kind() == Kind::MethodNotAllowed;
    let route = is_unlisted.then(|| snapshot.table.find_unlisted(host, path, &head.method));
    let asked = route
        .flatten()
        .and_then(|route| Some((route, route.handshakes.as_ref()?.of_head(head)?)));
    let Some((route, challenge)) = asked else {
        journal.target(path, snapshot.path_mask);
        return Err(refusal);
    };
    arrived.route = Some(route);
    journal.route(&route.figures);
    let origin = Origin::of_peer(arrived.via.peer);
    route.networks.admit(origin)?;
    answer(snapshot, route, challenge, origin, journal)
}

/// Looks for a challenge that nobody signs.
pub(super) async fn unsigned(
    (estate, snapshot): (&Estate, &Snapshot),
    (route, handshakes): (&Route, &Handshakes),
    arrived: &mut Arrived<'_>,
    origin: Origin,
    journal: &mut Journal,
) -> Result<Asked, Problem> {
    let head = arrived.head;
    if let Some(challenge) = handshakes.of_head(head) {
        return answer(snapshot, route, challenge, origin, journal).map(Asked::Challenge);
    }
    if !handshakes.needs_body(head) {
        return Ok(Asked::Delivery(None));
    }
    let payload = read_whole(estate, route, arrived, origin, journal).await?;
    match payload.held().and_then(|body| handshakes.of_body(head, body)) {
        Some(challenge) => answer(snapshot, route, challenge, origin, journal).map(Asked::Challenge),
        None => Ok(Asked::Delivery(Some(payload))),
    }
}

/// Answers a challenge whose signature was right.
pub(super) fn signed(
    snapshot: &Snapshot,
    (route, caller): (&Route, &Caller),
    (arrived, payload): (&Arrived<'_>, &Payload),
    journal: &mut Journal,
) -> Option<Result<Response<Bytes>, Problem>> {
    let handshakes = route.handshakes.as_deref()?;
    let challenge = handshakes.of_signed(arrived.head, payload.held()?, caller, &snapshot.callers)?;
    let origin = Origin::of_peer(arrived.via.peer);
    Some(answer(snapshot, route, challenge, origin, journal))
}

fn answer(
    snapshot: &Snapshot,
    route: &Route,
    challenge: Challenge<'_>,
    origin: Origin,
    journal: &mut Journal,
) -> Result<Response<Bytes>, Problem> {
    journal.handshake(challenge.vendor());
    check_enabled(route)?;
    if !challenge.is_signed() {
        snapshot.quotas.take_handshake(origin, route.index)?;
    }
    challenge.answer(clock::wall())
}
