//! Admission: everything about who may call, in one order, and the only maker of [`Admitted`]. Inexpensive checks come
//! first, and nothing of a body is read before the caller is known.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Response};

use crate::flow::outbound::Introduction;
use crate::flow::{Address, outbound};
use crate::gateway::arrived::{Arrived, check_enabled, read, read_of, read_whole};
use crate::gateway::attempts::Attempts;
use crate::gateway::budget::Owner;
use crate::gateway::connection::Connection;
use crate::gateway::deadline::Deadline;
use crate::gateway::estate::Estate;
use crate::gateway::handshake;
use crate::gateway::journal::Journal;
use crate::gateway::payload::Payload;
use crate::gateway::snapshot::{Route, Snapshot};
use crate::gateway::steps::{Findings, Step, Steps};
use crate::gateway::{body, certificates, host, payload};
use crate::model::{Holder, RequestId, clock};
use crate::policy::{Caller, Identity, Origin, Pending, Shown, Signed, Taken};
use crate::problem::{Kind, Problem};
use crate::wire::Defect;

/// A body up to this size is hashed by the worker, in some 30 microseconds for each secret; a larger one elsewhere.
const CONFIRMED_HERE_MAX: usize = 64 * 1024;

/// A request that passed every check. Only [`admit`] makes one, at its end: its field is private to this file.
pub(super) struct Admitted<'r>(AdmittedParts<'r>);

pub(super) struct AdmittedParts<'r> {
    pub head: &'r Parts,
    pub payload: Payload,
    /// The type of the body for the flow, if it is not the stated one.
    pub content_type: Option<&'r HeaderValue>,
    pub route: &'r Route,
    pub address: Arc<Address>,
    pub target: PathAndQuery,
    /// What the caller has behind the path of the route.
    pub rest: Option<&'r str>,
    pub sender: Sender,
    /// When its sender gives up, where that is known.
    pub deadline: Option<Deadline>,
    /// Kept until the last byte of the answer, whose body takes it over.
    pub taken: Option<Taken>,
}

/// The caller of a request, for what follows admission.
pub(super) struct Sender {
    pub who: Introduction,
    /// Whose share the request uses.
    pub holder: Holder,
    /// Its index in the settings; none for the anonymous caller.
    index: Option<usize>,
    signed: Option<Box<Signed>>,
}

impl Sender {
    fn of(caller: Caller, request: RequestId, via: &Connection, origin: Origin) -> Self {
        Self {
            holder: caller.holder(origin),
            who: Introduction {
                request,
                caller: caller.name,
                key: caller.label,
                origin: via.origin.clone(),
            },
            index: caller.index,
            signed: caller.signed,
        }
    }

    pub(super) fn owner(&self) -> Owner<'_> {
        Owner {
            holder: self.holder,
            who: &self.who,
        }
    }

    /// The id of the delivery, where its signature has one.
    pub(super) fn delivery(&self) -> Option<&str> {
        self.signed.as_ref()?.delivery.as_deref()
    }
}

/// A request after its last step. What is missing of a check is what a step did not get.
pub(super) struct Passage<'r> {
    pub head: &'r Parts,
    pub route: &'r Route,
    address: Arc<Address>,
    pub sender: Sender,
    deadline: Option<Deadline>,
    taken: Option<Taken>,
    target: Option<PathAndQuery>,
    pub rest: Option<&'r str>,
    pub payload: Option<Payload>,
    content_type: Option<Option<&'r HeaderValue>>,
}

/// What becomes of a request that is not refused.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every request is the large one, and a box would be an allocation for each"
)]
pub(super) enum Admission<'r> {
    Passed(Admitted<'r>),
    /// It is the challenge of a vendor, and this is the answer.
    Handshake(Response<Bytes>),
    /// It only asks whether it would be admitted.
    Check(Findings, Box<Passage<'r>>),
}

impl<'r> Admitted<'r> {
    /// The field that a vendor demands in every answer that succeeds.
    pub(super) fn demanded(&self) -> Option<(HeaderName, HeaderValue)> {
        self.0.route.handshakes.as_ref()?.in_answer(self.0.head)
    }

    pub(super) fn is_streamed(&self) -> bool {
        matches!(self.0.payload, Payload::Streamed(_))
    }

    pub(super) fn parts(&mut self) -> &mut AdmittedParts<'r> {
        &mut self.0
    }
}

impl<'r> Passage<'r> {
    fn end(self, steps: Steps) -> Result<Admission<'r>, Problem> {
        if let Steps::Checking(findings) = steps {
            return Ok(Admission::Check(findings, Box::new(self)));
        }
        // Whatever is missing was refused before.
        let missing = || Problem::from(Kind::Internal);
        Ok(Admission::Passed(Admitted(AdmittedParts {
            head: self.head,
            payload: self.payload.ok_or_else(missing)?,
            content_type: self.content_type.ok_or_else(missing)?,
            route: self.route,
            address: self.address,
            target: self.target.ok_or_else(missing)?,
            rest: self.rest,
            sender: self.sender,
            deadline: self.deadline,
            taken: Some(self.taken.ok_or_else(missing)?),
        })))
    }
}

/// Decides whether a request may start a flow.
pub(super) async fn admit<'r>(
    estate: &Estate,
    snapshot: &'r Snapshot,
    arrived: &mut Arrived<'r>,
    journal: &mut Journal,
) -> Result<Admission<'r>, Problem> {
    let (head, via) = (arrived.head, arrived.via);
    refuse_defect(arrived.defect)?;
    snapshot.heads.check(head)?;
    let host = host::of(head)?;
    let found = match snapshot.table.find(&host, head.uri.path(), &head.method) {
        Ok(found) => found,
        Err(refusal) => {
            let answer = handshake::unlisted(snapshot, (&host, arrived), journal, refusal);
            return answer.map(Admission::Handshake);
        }
    };
    let route = *arrived.route.insert(found.value);
    journal.route(&route.figures);
    outbound::refuse_lookalikes(&head.headers, &route.credentials)?;

    let origin = Origin::of_peer(via.peer);
    route.networks.admit(origin)?;
    let at = (route, found.key);
    let (sender, confirmed) = match recognise((estate, snapshot), at, arrived, origin, journal).await? {
        Recognised::Caller(caller, payload) => (Sender::of(caller, journal.request(), via, origin), payload),
        Recognised::Challenge(answer) => return Ok(Admission::Handshake(answer)),
    };

    // The first problem is the answer, but for a check, which goes on to the next step.
    let mut steps = Steps::of(head, route, &snapshot.quotas)?;
    steps.pass(Step::Enabled, check_enabled(route))?;
    let taken = steps.take(&snapshot.quotas, sender.index, route.index)?;
    let length = payload::check_length(&head.headers, &route.rules);
    let fits = steps.pass(Step::BodyLength, length)?.is_some();
    // Looked up once: whatever replaces it, this request goes where its target belongs.
    let address = route.trigger.address();
    let (rest, query) = (found.rest, head.uri.query());
    let target = route.upstream.target(address.url(), &route.passes, rest, query);
    let target = steps.pass(Step::Target, target)?;

    let owner = sender.owner();
    let mut payload = match confirmed {
        Some(payload) => steps.pass(Step::Body, Ok(payload))?,
        None if fits => steps.pass(
            Step::Body,
            read(estate, route.rules, arrived, journal, owner).await,
        )?,
        None => None,
    };
    let content_type = match (&mut payload, &route.body) {
        (Some(payload), Some(rules)) => {
            let applied = body::apply(rules, head, payload, (owner, estate)).await;
            steps.pass(Step::BodyRules, applied)?
        }
        (Some(_), None) => steps.pass(Step::BodyRules, Ok(None))?,
        (None, _) => None,
    };
    let passage = Passage {
        head,
        route,
        address,
        deadline: route.deadlines.of(sender.index),
        sender,
        taken,
        target,
        rest,
        payload,
        content_type,
    };
    passage.end(steps)
}

/// Who sends a request, or that it asks only whether webhooks are wanted.
enum Recognised {
    /// A caller, and the body if it was read to know that.
    Caller(Caller, Option<Payload>),
    Challenge(Response<Bytes>),
}

async fn recognise(
    (estate, snapshot): (&Estate, &Snapshot),
    (route, path_key): (&Route, Option<&str>),
    arrived: &mut Arrived<'_>,
    origin: Origin,
    journal: &mut Journal,
) -> Result<Recognised, Problem> {
    let (head, via) = (arrived.head, arrived.via);
    let at = (estate, snapshot);
    if let Some(answered) = handshake::in_head(snapshot, route, arrived, origin, journal)? {
        let answer = Box::pin(handshake::conclude(at, (route, None), (answered, origin))).await;
        return answer.map(Recognised::Challenge);
    }
    let attempts = Attempts::of(&snapshot.quotas, origin, via.peers);
    let target = head.uri.path_and_query();
    let shown = Shown {
        headers: &head.headers,
        method: &head.method,
        target: target.map_or(head.uri.path(), PathAndQuery::as_str),
        public_url: route.public_url.as_ref(),
        path_key,
        origin,
        guesses: attempts.guesses(),
        now: &clock::wall,
    };
    match route.access.identify(&shown) {
        Ok(Identity::Known(caller)) if !handshake::may_be_in_body(route, head) => {
            note(&caller, via, journal);
            Ok(Recognised::Caller(caller, None))
        }
        Ok(identity) => Box::pin(by_body(at, route, identity, arrived, origin, journal)).await,
        Err(problem) => {
            let refusal = (origin, attempts.failed(problem));
            let answer = Box::pin(handshake::of_nobody(at, route, arrived, refusal, journal)).await;
            answer.map(Recognised::Challenge)
        }
    }
}

/// The same where that depends on the body.
async fn by_body(
    at: (&Estate, &Snapshot),
    route: &Route,
    identity: Identity,
    arrived: &mut Arrived<'_>,
    origin: Origin,
    journal: &mut Journal,
) -> Result<Recognised, Problem> {
    let ((estate, snapshot), head) = (at, arrived.head);
    let (caller, payload) = match identity {
        Identity::Known(caller) => {
            let payload = read_of(estate, (route, &caller), arrived, origin, journal).await?;
            (caller, payload)
        }
        Identity::Pending(pending) => {
            let payload = read_whole(estate, route, arrived, origin, journal).await?;
            // A body that is held whole has at most the bytes that a route accepts.
            let body = payload.held().ok_or(Kind::BodyTooLarge)?;
            let pending = match pending.needs_certificate() {
                true => certificates::supply(pending, snapshot, (head, body), origin).await?,
                false => pending,
            };
            (confirm(pending, head, body).await?, payload)
        }
    };
    note(&caller, arrived.via, journal);
    if let Some(answered) = handshake::in_body(snapshot, (route, &caller), (arrived, &payload), journal)? {
        let answer = handshake::conclude(at, (route, caller.index), (answered, origin)).await;
        return answer.map(Recognised::Challenge);
    }
    Ok(Recognised::Caller(caller, Some(payload)))
}

fn note(caller: &Caller, via: &Connection, journal: &mut Journal) {
    via.set_known();
    journal.caller(&caller.name, caller.label.as_ref());
}

/// Checks the signature that says who sent a request.
async fn confirm(pending: Pending, head: &Parts, body: &Bytes) -> Result<Caller, Problem> {
    if body.len() <= CONFIRMED_HERE_MAX {
        return pending.confirm(&head.method, &head.headers, body, clock::wall());
    }
    let (method, headers, body) = (head.method.clone(), head.headers.clone(), body.clone());
    let confirming = move || pending.confirm(&method, &headers, &body, clock::wall());
    let confirmed = tokio::task::spawn_blocking(confirming).await;
    confirmed.unwrap_or_else(|_| Err(Kind::Internal.into()))
}

fn refuse_defect(defect: Option<Defect>) -> Result<(), Problem> {
    match defect {
        Some(Defect::Malformed(what)) => Err(Problem::from(Kind::MalformedRequest).detail(what)),
        Some(Defect::TooLarge) => Err(Kind::HeadTooLarge.into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::path::Path;
    use std::sync::Arc;

    use allocation_counter::measure;
    use bytes::Bytes;
    use futures_util::FutureExt;
    use http::Request;
    use http::request::Parts;

    use super::{Admission, admit};
    use crate::counters::Counters;
    use crate::gateway::arrived::Arrived;
    use crate::gateway::connection::Connection;
    use crate::gateway::course::Course;
    use crate::gateway::current::Gateway;
    use crate::gateway::journal::Journal;
    use crate::gateway::log::Log;
    use crate::gateway::payload::Inbound;
    use crate::settings::{Environment, KeyDigest, Peers, parse};
    use crate::state::Recalled;

    const KEY: &str = "canary-key-0123456789";
    const TRIGGER: &str = "https://prod-01.westeurope.logic.azure.com/workflows/\
        0123456789abcdef0123456789abcdef/triggers/manual/paths/invoke?api-version=2016-10-01\
        &sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=canary";

    /// One caller with a key, and all limits that a request can meet.
    fn gateway() -> Arc<Gateway> {
        let text = format!(
            "[[listener]]\n\
             address = \"127.0.0.1:0\"\n\
             plain_http = \"private-networks\"\n\
             plain_http_from = [\"127.0.0.0/8\"]\n\
             [[caller]]\n\
             name = \"shop\"\n\
             networks = [\"10.0.0.0/8\"]\n\
             [[caller.key]]\n\
             label = \"first\"\n\
             digest = \"{}\"\n\
             expires = 2099-01-01\n\
             [[route]]\n\
             name = \"orders\"\n\
             host = \"hooks.example.com\"\n\
             path = \"/orders/{{id}}\"\n\
             callers = [\"shop\"]\n\
             networks = [\"10.0.0.0/8\"]\n\
             signed = true\n\
             trigger = \"env:TRIGGER\"\n",
            KeyDigest::of(KEY.as_bytes(), None).to_setting()
        );
        let environment = Environment::from_pairs([("TRIGGER", TRIGGER)]);
        let (config, _) = parse(&text, Path::new("flowgate.toml"), &environment)
            .unwrap_or_else(|report| panic!("{report}"));
        let control = tokio::runtime::Handle::current();
        let recalled = Recalled::default();
        Gateway::build(&config, &control, &Counters::new(), Log::off(), recalled).unwrap()
    }

    fn head(length: usize) -> Parts {
        let request = Request::post("/orders/17")
            .header("host", "hooks.example.com")
            .header("x-api-key", KEY)
            .header("user-agent", "Vendor-Hook/1.0")
            .header("content-type", "application/json")
            .header("content-length", length);
        request.body(()).unwrap().into_parts().0
    }

    /// Admits a request whose body came with its head. Returns how often it allocated, from the load of the snapshot until
    /// what it took was given back.
    fn allocations_of_one(gateway: &Gateway, body: &'static str) -> u64 {
        let head = head(body.len());
        let peer = "10.0.0.7:4242".parse().unwrap();
        let via = Connection::new(peer, 0, "h1", None, Peers::Callers);
        let estate = &gateway.estate;
        let mut journal = Journal::open(&estate.log, &estate.counters, peer.ip(), "h1", &head.method);
        let progress = Course::new();
        let body = Inbound::Whole(Bytes::from_static(body.as_bytes()));
        let mut is_admitted = false;
        let allocated = measure(|| {
            let snapshot = gateway.snapshot();
            let mut arrived = Arrived {
                head: &head,
                defect: None,
                body: Some(body),
                via: &via,
                route: None,
                progress: &progress,
            };
            let admitted = admit(estate, &snapshot, &mut arrived, &mut journal).now_or_never();
            is_admitted = matches!(admitted, Some(Ok(Admission::Passed(_))));
        });
        assert!(is_admitted);
        allocated.count_total
    }

    #[tokio::test]
    async fn a_plain_keyed_request_is_admitted_without_an_allocation() {
        assert_eq!(measure(|| drop(black_box(Box::new(17)))).count_total, 1);
        let gateway = gateway();
        for body in ["", r#"{"order":17}"#] {
            // The first request makes what all later ones use, such as the table of shares of memory.
            allocations_of_one(&gateway, body);
            assert_eq!(allocations_of_one(&gateway, body), 0, "{body}");
        }
    }
}
