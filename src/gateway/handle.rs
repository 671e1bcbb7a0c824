//! The way of one request: its log line, admission, the flow, and the answer to what was refused.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};

use crate::gateway::admission::{Admission, admit};
use crate::gateway::answer::{self, AnswerBody};
use crate::gateway::arrived::Arrived;
use crate::gateway::connection::Connection;
use crate::gateway::course::Course;
use crate::gateway::current::Gateway;
use crate::gateway::detach::Call;
use crate::gateway::forward::forward;
use crate::gateway::journal::Journal;
use crate::gateway::payload::{self, Inbound};
use crate::gateway::run_address::RunSeals;
use crate::gateway::snapshot::Snapshot;
use crate::gateway::{check, cors, host, problem_page, ready, runs};
use crate::model::AnsweredBy;
use crate::policy::Origin;
use crate::problem::{Kind, Problem};
use crate::settings::RUNS;
use crate::wire::Defect;

impl Gateway {
    /// Answers a request, whatever happens. `defect` is what is wrong with the head that the request replaces.
    pub fn handle(
        self: &Arc<Self>,
        request: Request<Inbound>,
        via: &Arc<Connection>,
        defect: Option<Defect>,
    ) -> Call {
        let progress = Course::new();
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
    progress: Arc<Course>,
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
    (defect, progress): (Option<Defect>, &Arc<Course>),
    mut journal: Journal,
) -> Response<AnswerBody> {
    let snapshot = gateway.snapshot();
    let (head, body) = request.into_parts();
    if defect.is_none() && via.health_path.as_deref() == Some(head.uri.path()) {
        let is_ready = ready::is_ready(&gateway.estate, &snapshot);
        return health(is_ready, &head, body, journal);
    }
    if defect.is_none()
        && let Some(answer) = preflight(&snapshot, &head, &mut journal)
    {
        journal.discarded(payload::discard(body, &head.headers));
        return answer::own(answer, AnsweredBy::Gateway, journal);
    }
    if defect.is_none()
        && let Some(answer) = problem_page::answer(&snapshot, &head, Origin::of_peer(via.peer), &mut journal)
    {
        let answer = answer.map_err(|problem| snapshot.problem(problem));
        return match answer {
            Ok(page) => {
                journal.discarded(payload::discard(body, &head.headers));
                answer::own(page, AnsweredBy::Gateway, journal)
            }
            Err(problem) => refuse(&problem, &head, body, journal),
        };
    }
    let mut arrived = Arrived {
        head: &head,
        defect,
        body: Some(body),
        via,
        route: None,
        progress,
    };
    let run = snapshot.run_seals.as_ref().filter(|_| defect.is_none());
    let mut response = match run.and_then(|seals| Some((seals, head.uri.path().strip_prefix(RUNS)?))) {
        Some((seals, text)) => serve_run(&snapshot, &mut arrived, (seals, text), journal).await,
        None => serve(gateway, &snapshot, &mut arrived, journal).await,
    };
    if let Some(cors) = arrived.route.and_then(|route| route.cors.as_ref()) {
        cors.permit(&head.headers, response.headers_mut());
    }
    response
}

/// Answers what a browser asks before it lets a page call, without any credential. No flow sees it.
///
/// None for every other request, and for a preflight from an origin or for a method that no route lists: that is answered as
/// the OPTIONS request that it is.
fn preflight(snapshot: &Snapshot, head: &Parts, journal: &mut Journal) -> Option<Response<Bytes>> {
    let method = cors::asked_method(head)?;
    snapshot.heads.check(head).ok()?;
    let host = host::of(head).ok()?;
    let found = snapshot.table.find(&host, head.uri.path(), &method).ok()?;
    let route = found.value;
    let answer = route.cors.as_ref()?.preflight(&head.headers);
    match answer {
        Some(_) => journal.route(&route.figures),
        None => journal.cause(format!(
            "a preflight from an origin that `cors_origins` of route {} does not list",
            route.name
        )),
    }
    answer
}

/// The answer of a route, or the refusal.
async fn serve<'r>(
    gateway: &Gateway,
    snapshot: &'r Snapshot,
    arrived: &mut Arrived<'r>,
    mut journal: Journal,
) -> Response<AnswerBody> {
    let (head, via, progress) = (arrived.head, arrived.via, arrived.progress);
    let admitted = match admit(&gateway.estate, snapshot, arrived, &mut journal).await {
        Ok(Admission::Passed(admitted)) => admitted,
        Ok(Admission::Handshake(answer)) => return own(answer, arrived, journal),
        Ok(Admission::Check(findings, passage)) => {
            let answer = check::conclude(findings, *passage, &mut journal).await;
            return own(answer, arrived, journal);
        }
        Err(problem) => {
            let problem = match arrived.route {
                Some(route) => route.problem(problem),
                None => snapshot.problem(problem),
            };
            return match arrived.body.take() {
                Some(unread) => refuse(&problem, head, unread, journal),
                None => closing(answer::problem(&problem, AnsweredBy::Gateway, journal), head),
            };
        }
    };
    let is_streamed = admitted.is_streamed();
    let demanded = admitted.demanded();
    let mut response = forward(admitted, &gateway.estate, via.worker, progress, journal).await;
    if let Some((name, value)) = demanded.filter(|_| response.status().is_success()) {
        response.headers_mut().insert(name, value);
    }
    match is_streamed && !progress.is_done() {
        // The caller may still be sending what nobody reads any more.
        true => closing(response, head),
        false => response,
    }
}

/// An answer in place of the flow's.
fn own(answer: Response<Bytes>, arrived: &mut Arrived<'_>, mut journal: Journal) -> Response<AnswerBody> {
    match arrived.body.take() {
        Some(unread) => {
            journal.discarded(payload::discard(unread, &arrived.head.headers));
            answer::own(answer, AnsweredBy::Gateway, journal)
        }
        // The caller may still be sending it.
        None => closing(answer::own(answer, AnsweredBy::Gateway, journal), arrived.head),
    }
}

/// The answer at the address of a run.
async fn serve_run<'r>(
    snapshot: &'r Snapshot,
    arrived: &mut Arrived<'r>,
    sealed: (&RunSeals, &str),
    mut journal: Journal,
) -> Response<AnswerBody> {
    let (head, unread) = (arrived.head, arrived.body.take().unwrap_or_default());
    match runs::admit(snapshot, arrived, sealed, &mut journal) {
        Ok(found) => {
            journal.discarded(payload::discard(unread, &head.headers));
            Box::pin(found.ask(arrived.via, journal)).await
        }
        Err(problem) => {
            let problem = match arrived.route {
                Some(route) => route.problem(problem),
                None => problem,
            };
            refuse(&problem, head, unread, journal)
        }
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
