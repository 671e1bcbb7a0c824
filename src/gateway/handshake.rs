//! When the challenge of a vendor is answered in place of the flow: behind the networks of its route and within a limit of its
//! own, before any limit of a caller is spent. What is a challenge, and what is answered, is decided in `policy/handshake`.

use bytes::Bytes;
use http::Response;
use http::request::Parts;

use crate::gateway::arrived::{Arrived, check_enabled, read_whole};
use crate::gateway::estate::Estate;
use crate::gateway::journal::Journal;
use crate::gateway::payload::{Payload, stated_length};
use crate::gateway::snapshot::{Route, Snapshot};
use crate::model::clock;
use crate::policy::{CHALLENGE_BYTES_MAX, Caller, Challenge, Origin};
use crate::problem::{Kind, Problem};

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

/// Answers the challenge that a head is by itself.
pub(super) fn in_head(
    snapshot: &Snapshot,
    route: &Route,
    arrived: &Arrived<'_>,
    origin: Origin,
    journal: &mut Journal,
) -> Option<Result<Response<Bytes>, Problem>> {
    let challenge = route.handshakes.as_ref()?.of_head(arrived.head)?;
    Some(answer(snapshot, route, challenge, origin, journal))
}

/// Whether a body may be a challenge, which is then read before it is known what the request is for.
pub(super) fn may_be_in_body(route: &Route, head: &Parts) -> bool {
    let handshakes = route.handshakes.as_ref();
    let is_short = |length| length <= CHALLENGE_BYTES_MAX as u64;
    handshakes.is_some_and(|handshakes| handshakes.needs_body(head))
        && stated_length(&head.headers).is_some_and(is_short)
}

/// Answers the challenge of somebody who is no caller: most vendors sign none and present no key with it. Every other request
/// keeps its refusal.
pub(super) async fn of_nobody(
    (estate, snapshot): (&Estate, &Snapshot),
    route: &Route,
    arrived: &mut Arrived<'_>,
    (origin, refusal): (Origin, Problem),
    journal: &mut Journal,
) -> Result<Response<Bytes>, Problem> {
    let head = arrived.head;
    // A wrong key is a guess, whatever comes with it.
    let is_without = matches!(
        refusal.kind(),
        Kind::KeyMissing | Kind::SignatureInvalid | Kind::AddressRefused
    );
    let handshakes = route.handshakes.as_ref();
    let Some(handshakes) = handshakes.filter(|_| is_without && may_be_in_body(route, head)) else {
        return Err(refusal);
    };
    let payload = read_whole(estate, route, arrived, origin, journal).await?;
    match payload.held().and_then(|body| handshakes.of_body(head, body)) {
        Some(challenge) => answer(snapshot, route, challenge, origin, journal),
        None => Err(refusal),
    }
}

/// Answers a challenge in the body of a caller.
pub(super) fn in_body(
    snapshot: &Snapshot,
    (route, caller): (&Route, &Caller),
    (arrived, payload): (&Arrived<'_>, &Payload),
    journal: &mut Journal,
) -> Option<Result<Response<Bytes>, Problem>> {
    let (handshakes, body) = (route.handshakes.as_deref()?, payload.held()?);
    let signed = handshakes.of_signed(arrived.head, body, caller, &snapshot.callers);
    let challenge = signed.or_else(|| handshakes.of_body(arrived.head, body))?;
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
