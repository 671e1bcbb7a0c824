//! The way of one request: its log line, admission, the flow, and the answer to whatever fails.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};

use crate::flow::Progress;
use crate::gateway::admission::{Admitted, Known};
use crate::gateway::answer::AnswerBody;
use crate::gateway::budget::Owner;
use crate::gateway::connection::Connection;
use crate::gateway::detach::Call;
use crate::gateway::forward::forward;
use crate::gateway::journal::{AnsweredBy, Journal};
use crate::gateway::payload::{Inbound, Payload};
use crate::gateway::{Gateway, answer, payload};
use crate::model::clock;
use crate::policy::Origin;
use crate::problem::{Kind, Problem};
use crate::wire::Defect;

/// A request's way through the gateway.
struct Path {
    gateway: Arc<Gateway>,
    via: Arc<Connection>,
    defect: Option<Defect>,
    progress: Arc<Progress>,
}

impl Path {
    async fn walk(self, request: Request<Inbound>) -> Response<AnswerBody> {
        let gateway = &self.gateway;
        let address = Origin::of_peer(self.via.peer).address();
        let journal = Journal::open(
            &gateway.log,
            &gateway.counters,
            address,
            self.via.protocol,
            request.method(),
        );
        let id = journal.request();
        match AssertUnwindSafe(self.answer(request, journal))
            .catch_unwind()
            .await
        {
            Ok(response) => response,
            Err(_) => {
                tracing::error!(request = %id, "a request met a mistake in the gateway; please report it");
                answer::without_line(&Kind::Internal.into(), id)
            }
        }
    }

    async fn answer(&self, request: Request<Inbound>, mut journal: Journal) -> Response<AnswerBody> {
        let gateway = &self.gateway;
        let progress = &self.progress;
        let (head, body) = request.into_parts();
        if self.defect.is_none() && self.via.health_path.as_deref() == Some(head.uri.path()) {
            return gateway.health(&head, body, journal);
        }
        let known = match gateway.check(&head, &self.via, self.defect, &mut journal) {
            Ok(known) => known,
            Err(problem) => return refuse(&problem, &head, body, journal),
        };
        let started = clock::now();
        let owner = Owner {
            holder: known.holder,
            who: &known.who,
        };
        let (rules, budget) = (known.route.rules, &gateway.budget);
        let read = Payload::read(body, &head.headers, rules, budget, owner, progress).await;
        journal.body(progress, clock::now() - started);
        let payload = match read {
            Ok(payload) => payload,
            Err(problem) => return closing(answer::problem(&problem, AnsweredBy::Gateway, journal), &head),
        };
        let Known {
            route,
            address,
            target,
            who,
            holder,
        } = known;
        let version = head.version;
        let streamed = matches!(payload, Payload::Streamed(_));
        let admitted = Admitted {
            head,
            payload,
            route,
            address,
            target,
            who,
            holder,
            progress: progress.clone(),
            worker: self.via.worker,
        };
        let mut response = forward(admitted, journal).await;
        if streamed && !progress.is_done() && version < Version::HTTP_2 {
            // The caller may still be sending what nobody reads any more.
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl Gateway {
    /// Answers a request, whatever happens. `defect` is what is wrong with the head that the request replaces.
    pub fn handle(
        self: &Arc<Self>,
        request: Request<Inbound>,
        via: &Arc<Connection>,
        defect: Option<Defect>,
    ) -> Call {
        let progress = Progress::new();
        let path = Path {
            gateway: self.clone(),
            via: via.clone(),
            defect,
            progress: progress.clone(),
        };
        // One box for the whole way: who drops it decides whether it goes on without a caller.
        Call::new(Box::pin(path.walk(request)), progress, &self.departed)
    }

    /// The path on which a balancer asks for health. A body is discarded, as that of a refused request.
    fn health(&self, head: &Parts, body: Inbound, mut journal: Journal) -> Response<AnswerBody> {
        journal.discarded(payload::discard(body, &head.headers));
        let (status, text) = match self.is_ready() {
            true => (StatusCode::OK, "ok\n"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        };
        let mut answer = Response::new(Bytes::from_static(text.as_bytes()));
        *answer.status_mut() = status;
        answer
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        answer::own(answer, AnsweredBy::Gateway, journal)
    }
}

/// Answers a refusal at once. What the caller still sends of its body is the connection's business: it discards the
/// rest, within bounds, so that the caller gets to see the answer.
fn refuse(problem: &Problem, head: &Parts, body: Inbound, mut journal: Journal) -> Response<AnswerBody> {
    journal.discarded(payload::discard(body, &head.headers));
    let response = answer::problem(problem, AnsweredBy::Gateway, journal);
    // A caller whose head is ambiguous may mean something else by what follows, too.
    match problem.kind() {
        Kind::MalformedRequest | Kind::HeadTooLarge => closing(response, head),
        _ => response,
    }
}

/// Asks for the connection to be closed after this answer; HTTP/2 has no such field (RFC 9113 section 8.2.2).
fn closing(mut response: Response<AnswerBody>, head: &Parts) -> Response<AnswerBody> {
    if head.version < Version::HTTP_2 {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
