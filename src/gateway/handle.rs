//! The way of one request: its log line, admission, the flow, and the answer to what was refused.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};

use crate::gateway::admission::{Admission, Admitted, admit};
use crate::gateway::answer::{self, AnswerBody};
use crate::gateway::arrived::Arrived;
use crate::gateway::connection::Connection;
use crate::gateway::course::Course;
use crate::gateway::current::Gateway;
use crate::gateway::detach::Call;
use crate::gateway::estate::Estate;
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
        let course = Course::new();
        let (gateway, via, progress) = (self.clone(), via.clone(), course.clone());
        let (head, body) = request.into_parts();
        // One box for the whole way: who drops it decides whether it goes on without a caller. It is there first, so that only
        // what a request begins with is written to it, not the room for all that may follow.
        let way = Box::new_uninit();
        // A block, because the arguments of an `async fn` are kept twice.
        let answer = async move {
            let estate = &gateway.estate;
            let address = Origin::of_peer(via.peer).address();
            let journal = Journal::open(&estate.log, &estate.counters, address, via.protocol, &head.method);
            let id = journal.request();
            let snapshot = gateway.snapshot();
            let mut arrived = Arrived {
                head: &head,
                defect,
                body: Some(body),
                via: &via,
                route: None,
                progress: &progress,
            };
            let answer = answer(estate, &snapshot, &mut arrived, journal);
            let answered = AssertUnwindSafe(answer).catch_unwind().await;
            let mut response = answered.unwrap_or_else(|_| {
                tracing::error!(request = %id, "a request met a mistake in the gateway; please report it");
                answer::without_line(&Kind::Internal.into(), id)
            });
            if let Some(cors) = arrived.route.and_then(|route| route.cors.as_ref()) {
                cors.permit(&head.headers, response.headers_mut());
            }
            response
        };
        let way = Box::into_pin(Box::write(way, answer));
        Call::new(way, course, &self.estate.departed)
    }
}

async fn answer<'r>(
    estate: &Estate,
    snapshot: &'r Snapshot,
    arrived: &mut Arrived<'r>,
    mut journal: Journal,
) -> Response<AnswerBody> {
    let head = arrived.head;
    let is_sound = arrived.defect.is_none();
    if is_sound && let Some(answer) = beside_routes(estate, snapshot, arrived, &mut journal) {
        return match answer {
            Ok(answer) => own(answer, arrived, journal),
            Err(problem) => refuse(&problem, arrived, journal),
        };
    }
    match run_of(snapshot, head.uri.path()).filter(|_| is_sound) {
        Some(sealed) => serve_run(snapshot, arrived, sealed, journal).await,
        None => serve(estate, snapshot, arrived, journal).await,
    }
}

/// What is sealed in the address of a run, and what opens it.
fn run_of<'a>(snapshot: &'a Snapshot, path: &'a str) -> Option<(&'a RunSeals, &'a str)> {
    Some((snapshot.run_seals.as_ref()?, path.strip_prefix(RUNS)?))
}

/// The answer to what no route is asked for: health, a preflight, the page of a problem.
fn beside_routes(
    estate: &Estate,
    snapshot: &Snapshot,
    arrived: &Arrived<'_>,
    journal: &mut Journal,
) -> Option<Result<Response<Bytes>, Problem>> {
    let (head, via) = (arrived.head, arrived.via);
    if via.health_path.as_deref() == Some(head.uri.path()) {
        return Some(Ok(health(ready::is_ready(estate, snapshot))));
    }
    if let Some(answer) = preflight(snapshot, head, journal) {
        return Some(Ok(answer));
    }
    let page = problem_page::answer(snapshot, head, Origin::of_peer(via.peer), journal)?;
    Some(page.map_err(|problem| snapshot.problem(problem)))
}

/// Answers what a browser asks before it lets a page call, without any credential. No flow sees it.
///
/// None for every other request, and for a preflight from an origin or for a method that no route lists: that is answered as
/// the OPTIONS request that it is.
fn preflight(snapshot: &Snapshot, head: &Parts, journal: &mut Journal) -> Option<Response<Bytes>> {
    let method = cors::asked_method(head)?;
    snapshot.heads.check(head).ok()?;
    let host = host::of(head).ok()?;
    let path = head.uri.path();
    let (route, methods) = match run_of(snapshot, path) {
        Some(sealed) if method == Method::GET => {
            runs::note(journal);
            (runs::route_of(snapshot, sealed, &host)?, Some(&runs::METHODS))
        }
        Some(_) => return None,
        None => (&**snapshot.table.find(&host, path, &method).ok()?.value, None),
    };
    let answer = route.cors.as_ref()?.preflight(&head.headers, methods);
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
    estate: &Estate,
    snapshot: &'r Snapshot,
    arrived: &mut Arrived<'r>,
    journal: Journal,
) -> Response<AnswerBody> {
    let (head, via, progress) = (arrived.head, arrived.via, arrived.progress);
    let (mut admitted, journal) = match decide(estate, snapshot, arrived, journal).await {
        Decided::Forward(admitted, journal) => (admitted, journal),
        Decided::Answer(response) => return response,
    };
    let is_streamed = admitted.is_streamed();
    let mut response = forward(&mut admitted, estate, via.worker, progress, journal).await;
    if response.status().is_success()
        && let Some((name, value)) = admitted.demanded()
    {
        response.headers_mut().insert(name, value);
    }
    if is_streamed && !progress.is_done() {
        // The caller may still be sending what nobody reads any more.
        close(&mut response, head);
    }
    response
}

/// What admission comes to.
enum Decided<'r> {
    Forward(Admitted<'r>, Journal),
    Answer(Response<AnswerBody>),
}

async fn decide<'r>(
    estate: &Estate,
    snapshot: &'r Snapshot,
    arrived: &mut Arrived<'r>,
    mut journal: Journal,
) -> Decided<'r> {
    Decided::Answer(match admit(estate, snapshot, arrived, &mut journal).await {
        Ok(Admission::Passed(admitted)) => return Decided::Forward(admitted, journal),
        Ok(Admission::Handshake(answer)) => own(answer, arrived, journal),
        Ok(Admission::Check(findings, passage)) => {
            let answer = Box::pin(check::conclude(findings, *passage, &mut journal)).await;
            own(answer, arrived, journal)
        }
        Err(problem) => {
            let problem = match arrived.route {
                Some(route) => route.problem(problem),
                None => snapshot.problem(problem),
            };
            refuse(&problem, arrived, journal)
        }
    })
}

/// An answer in place of the flow's.
#[cold]
fn own(answer: Response<Bytes>, arrived: &mut Arrived<'_>, mut journal: Journal) -> Response<AnswerBody> {
    let is_settled = discard(arrived, &mut journal);
    let mut response = answer::own(answer, AnsweredBy::Gateway, journal);
    if !is_settled {
        // The caller may still be sending it.
        close(&mut response, arrived.head);
    }
    response
}

/// Drops the body of a request whose answer does not depend on it. Whether the connection can go on: nothing was read of the
/// body, or all.
fn discard(arrived: &mut Arrived<'_>, journal: &mut Journal) -> bool {
    let unread = arrived.body.take();
    let is_settled = unread.is_some();
    journal.discarded(unread.map_or(0, |unread| payload::discard(unread, &arrived.head.headers)));
    is_settled
}

/// The answer at the address of a run.
async fn serve_run<'r>(
    snapshot: &'r Snapshot,
    arrived: &mut Arrived<'r>,
    sealed: (&RunSeals, &str),
    mut journal: Journal,
) -> Response<AnswerBody> {
    match runs::admit(snapshot, arrived, sealed, &mut journal) {
        Ok(found) => {
            discard(arrived, &mut journal);
            Box::pin(found.ask(arrived.via, journal)).await
        }
        Err(problem) => {
            let problem = match arrived.route {
                Some(route) => route.problem(problem),
                None => problem,
            };
            refuse(&problem, arrived, journal)
        }
    }
}

/// The answer on the path on which a balancer asks for health.
fn health(is_ready: bool) -> Response<Bytes> {
    let (status, text) = match is_ready {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    };
    let mut answer = Response::new(Bytes::from_static(text.as_bytes()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    answer
}

/// Answers a refusal at once. What the caller still sends of its body is the connection's business: it discards the
/// rest, within bounds, so that the caller gets to see the answer.
#[cold]
fn refuse(problem: &Problem, arrived: &mut Arrived<'_>, mut journal: Journal) -> Response<AnswerBody> {
    let is_settled = discard(arrived, &mut journal);
    let mut response = answer::problem(problem, AnsweredBy::Gateway, journal);
    // A caller whose head is ambiguous may mean something else by what follows, too.
    let is_ambiguous = matches!(problem.kind(), Kind::MalformedRequest | Kind::HeadTooLarge);
    if !is_settled || is_ambiguous {
        close(&mut response, arrived.head);
    }
    response
}

/// Asks for the connection to be closed after this answer; HTTP/2 has no such field (RFC 9113 section 8.2.2).
fn close(response: &mut Response<AnswerBody>, head: &Parts) {
    if head.version < Version::HTTP_2 {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}
