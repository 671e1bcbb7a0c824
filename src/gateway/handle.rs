//! The way of one request: its log line, admission, the flow, and the answer to what was refused.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};

use crate::flow::Progress;
use crate::gateway::admission::{Arrived, admit};
use crate::gateway::answer::{self, AnswerBody};
use crate::gateway::connection::Connection;
use crate::gateway::current::Gateway;
use crate::gateway::detach::Call;
use crate::gateway::forward::forward;
use crate::gateway::journal::{AnsweredBy, Journal};
use crate::gateway::payload::{self, Inbound};
use crate::gateway::ready;
use crate::policy::Origin;
use crate::problem::{Kind, Problem};
use crate::wire::Defect;

impl Gateway {
    /// Answers a request, whatever happens. `defect` is what is wrong with the head that the request replaces.
    pub fn handle(
        self: &Arc<Self>,
        request: Request<Inbound>,
        via: &Arc<Connection>,
        defect: Option<Defect>,
    ) -> Call {
        let progress = Progress::new();
        let answer = answer_all(self.clone(), via.clone(), request, defect, progress.clone());
        // One box for the whole way: who drops it decides whether it goes on without a caller.
        Call::new(Box::pin(answer), progress, &self.estate.departed)
    }
}

/// Answers also where the gateway itself fails.
async fn answer_all(
    gateway: Arc<Gateway>,
    via: Arc<Connection>,
    request: Request<Inbound>,
    defect: Option<Defect>,
    progress: Arc<Progress>,
) -> Response<AnswerBody> {
    let estate = &gateway.estate;
    let address = Origin::of_peer(via.peer).address();
    let journal = Journal::open(
        &estate.log,
        &estate.counters,
        address,
        via.protocol,
        request.method(),
    );
    let id = journal.request();
    let answer = answer(&gateway, &via, request, (defect, &progress), journal);
    match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!(request = %id, "a request met a mistake in the gateway; please report it");
            answer::without_line(&Kind::Internal.into(), id)
        }
    }
}

async fn answer(
    gateway: &Gateway,
    via: &Connection,
    request: Request<Inbound>,
    (defect, progress): (Option<Defect>, &Arc<Progress>),
    mut journal: Journal,
) -> Response<AnswerBody> {
    let snapshot = gateway.snapshot();
    let (head, body) = request.into_parts();
    if defect.is_none() && via.health_path.as_deref() == Some(head.uri.path()) {
        let is_ready = ready::is_ready(&gateway.estate, &snapshot);
        return health(is_ready, &head, body, journal);
    }
    let mut arrived = Arrived {
        head: &head,
        defect,
        body: Some(body),
        via,
        progress,
    };
    let admitted = match admit(&gateway.estate, &snapshot, &mut arrived, &mut journal).await {
        Ok(admitted) => admitted,
        Err(problem) => {
            return match arrived.body {
                Some(unread) => refuse(&problem, &head, unread, journal),
                None => closing(answer::problem(&problem, AnsweredBy::Gateway, journal), &head),
            };
        }
    };
    let is_streamed = admitted.is_streamed();
    let response = forward(admitted, via.worker, progress, journal).await;
    match is_streamed && !progress.is_done() {
        // The caller may still be sending what nobody reads any more.
        true => closing(response, &head),
        false => response,
    }
}

/// The answer on the path on which a balancer asks for health. A body is discarded, as that of a refused request.
fn health(is_ready: bool, head: &Parts, body: Inbound, mut journal: Journal) -> Response<AnswerBody> {
    journal.discarded(payload::discard(body, &head.headers));
    let (status, text) = match is_ready {
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
