//! When the challenge of a vendor is answered in place of the flow: behind the networks of its route and within a limit of its
//! own, before any limit of a caller is spent. What is a challenge, and what is answered, is decided in `policy/handshake`.

use bytes::Bytes;
use http::Response;
use http::request::Parts;

use crate::gateway::arrived::{Arrived, check_enabled, read_whole};
use crate::gateway::enrolment;
use crate::gateway::estate::Estate;
use crate::gateway::journal::Journal;
use crate::gateway::payload::{Payload, stated_length};
use crate::gateway::snapshot::{Route, Snapshot};
use crate::gateway::vendor::{Confirmed, NotConfirmed};
use crate::model::clock;
use crate::policy::handshake::Answered;
use crate::policy::{AlsoDue, CHALLENGE_BYTES_MAX, Caller, Challenge, Origin};
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
    // Nothing else is due: an enrolment comes with a method of the route.
    answer(snapshot, route, challenge, origin, journal).map(|answered| answered.response)
}

/// The answer to the challenge that a head is by itself.
pub(super) fn in_head(
    snapshot: &Snapshot,
    route: &Route,
    arrived: &Arrived<'_>,
    origin: Origin,
    journal: &mut Journal,
) -> Result<Option<Answered>, Problem> {
    let challenge = route
        .handshakes
        .as_ref()
        .and_then(|handshakes| handshakes.of_head(arrived.head));
    let answered = challenge.map(|challenge| answer(snapshot, route, challenge, origin, journal));
    answered.transpose()
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
        Some(challenge) => {
            answer(snapshot, route, challenge, origin, journal).map(|answered| answered.response)
        }
        None => Err(refusal),
    }
}

/// The answer to a challenge in the body of a caller.
pub(super) fn in_body(
    snapshot: &Snapshot,
    (route, caller): (&Route, &Caller),
    (arrived, payload): (&Arrived<'_>, &Payload),
    journal: &mut Journal,
) -> Result<Option<Answered>, Problem> {
    let asked = route.handshakes.as_deref().zip(payload.held());
    let challenge = asked.and_then(|(handshakes, body)| {
        let signed = handshakes.of_signed(arrived.head, body, caller, &snapshot.callers);
        signed.or_else(|| handshakes.of_body(arrived.head, body))
    });
    let origin = Origin::of_peer(arrived.via.peer);
    let answered = challenge.map(|challenge| answer(snapshot, route, challenge, origin, journal));
    answered.transpose()
}

/// Does what is due before a challenge is answered.
pub(super) async fn conclude(
    (estate, snapshot): (&Estate, &Snapshot),
    (route, caller): (&Route, Option<usize>),
    (answered, origin): (Answered, Origin),
) -> Result<Response<Bytes>, Problem> {
    if matches!(answered.beside, AlsoDue::Confirm(_) | AlsoDue::Warning(_)) {
        // Anyone who has read such a message can send it again.
        snapshot.quotas.take_handshake(origin, route.index)?;
    }
    match &answered.beside {
        AlsoDue::Nothing => {}
        AlsoDue::Enrol { caller, secret } => {
            let of = (answered.vendor, caller);
            enrolment::accept((estate, snapshot), route, of, secret.clone(), origin).await?;
        }
        AlsoDue::Warning(text) => tracing::warn!(route = %route.name, "{text}"),
        AlsoDue::Confirm(confirmation) => {
            let vendor = caller.and_then(|index| snapshot.vendors.get(index)?.as_ref());
            let confirmed = vendor.ok_or(Kind::Internal)?.confirm(confirmation).await;
            let topic = confirmation.topic();
            let text = |why| {
                let vendor = answered.vendor;
                format!("handshake of {vendor}: the subscription of {topic} was not confirmed: {why}")
            };
            let confirmed = confirmed.map_err(|failed| match failed {
                NotConfirmed::Refused(why) => Problem::from(Kind::HandshakeRefused).because(text(why)),
                NotConfirmed::Unavailable { why, wait } => Problem::from(Kind::VendorUnavailable)
                    .wait(wait)
                    .because(text(why)),
            });
            if confirmed? == Confirmed::Now {
                tracing::info!(route = %route.name, "the subscription of {topic} was confirmed");
            }
        }
    }
    Ok(answered.response)
}

fn answer(
    snapshot: &Snapshot,
    route: &Route,
    challenge: Challenge<'_>,
    origin: Origin,
    journal: &mut Journal,
) -> Result<Answered, Problem> {
    journal.handshake(challenge.vendor());
    check_enabled(route)?;
    if !challenge.is_signed() {
        snapshot.quotas.take_handshake(origin, route.index)?;
    }
    challenge.answer(clock::wall())
}
