//! An admitted request on its way: first of its delivery, permit, token, connection, and what comes back.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode, header};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::deliveries::{Delivery, Sent, identify};
use crate::entra::Token;
use crate::flow::outbound::{Introduction, Parcel};
use crate::flow::{self, Answer, FlowError, Outgoing, Permit, Progress};
use crate::gateway::admission::{Admitted, AdmittedParts};
use crate::gateway::answer::{self, AnswerBody, FlowBody};
use crate::gateway::bearer::fitting_token;
use crate::gateway::cors::Cors;
use crate::gateway::course::Course;
use crate::gateway::deadline::{Deadline, Met};
use crate::gateway::duplicates::{Duplicates, Turn};
use crate::gateway::estate::Estate;
use crate::gateway::journal::Journal;
use crate::gateway::payload::Payload;
use crate::gateway::run::{Patience, Run};
use crate::gateway::snapshot::Route;
use crate::gateway::upstream::{Dispatched, Judgement};
use crate::gateway::waiting::{RunningAt, Waiting};
use crate::model::{AnsweredBy, clock};
use crate::problem::{Kind, Problem};
use crate::settings::RelativePath;
use crate::wire::Fields;

/// Tries on other connections while no byte of the request has left.
const TRIES_MAX: usize = 3;

/// Whether a token was already replaced for this request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    First,
    Second,
}

/// What is to be done after one try.
enum Next {
    End(Outcome),
    /// The same bytes go once more, with a fresh token.
    Again,
}

enum Outcome {
    Pass(StatusCode, Fields, Box<FlowBody>, AnsweredBy),
    Problem(Problem, AnsweredBy),
}

struct Departure<'a, 'r> {
    admitted: &'a mut AdmittedParts<'r>,
    progress: &'a Arc<Course>,
    serving: &'a watch::Sender<bool>,
    worker: usize,
}

pub(super) async fn forward(
    admitted: &mut Admitted<'_>,
    estate: &Estate,
    worker: usize,
    progress: &Arc<Course>,
    mut journal: Journal,
) -> Response<AnswerBody> {
    let admitted = admitted.parts();
    let began = journal.started();
    let deadline = admitted
        .deadline
        .map(|deadline| (deadline, deadline.after(began)));
    let sender = &admitted.sender;
    let sent = (admitted.head, admitted.rest, &admitted.payload);
    let turn = match delivery(admitted.route, sent, &sender.who, sender.delivery()) {
        Ok(Some((rules, delivery))) => {
            let store = estate.deliveries.clone();
            let until = deadline.map(|(_, at)| at);
            // In a box: waiting takes room, and most routes never do.
            Box::pin(rules.turn(store, &delivery, (progress, until), &mut journal)).await
        }
        Ok(None) => Ok(Turn::Forward(None)),
        Err(problem) => Err(problem),
    };
    let delivering = match turn {
        Ok(Turn::Forward(delivering)) => delivering,
        Ok(Turn::Repeat(kept)) => return answer::repeated(&kept, journal),
        Err(problem) => {
            let problem = admitted.route.problem(problem);
            return answer::problem(&problem, AnsweredBy::Gateway, journal);
        }
    };
    let mut departure = Departure {
        admitted,
        progress,
        serving: &estate.serving,
        worker,
    };
    let outcome = match deadline {
        None => departure.travel(&mut journal).await,
        Some(deadline) => Box::pin(departure.travel_until(deadline, &mut journal)).await,
    };
    match outcome {
        Outcome::Problem(problem, by) => {
            let problem = departure.admitted.route.problem(problem);
            if let Some(delivering) = delivering {
                delivering.failed(&problem, by);
            }
            answer::problem(&problem, by, journal)
        }
        Outcome::Pass(status, fields, mut body, by) => {
            body.keeping = delivering.map(|delivering| Box::new(delivering.answered(status, &fields, by)));
            body.taken = departure.admitted.taken.take();
            answer::passed(status, fields, body, by, journal)
        }
    }
}

/// Which delivery a request is, on a route that recognizes duplicates: such a route holds every body.
pub(super) fn delivery<'r>(
    route: &'r Route,
    (head, rest, payload): (&Parts, Option<&str>, &Payload),
    who: &Introduction,
    id: Option<&str>,
) -> Result<Option<(&'r Duplicates, Delivery)>, Problem> {
    let (Some(rules), Payload::Held(body, _)) = (&route.duplicates, payload) else {
        return Ok(None);
    };
    let passes = &route.passes;
    // Keys, signatures and what else stays here may differ where a delivery is sent again.
    let query = route.upstream.passed_query(passes, head.uri.query());
    let sent = Sent {
        method: &head.method,
        path: rest.filter(|_| passes.relative_path == RelativePath::Appended),
        query: &query,
        headers: &head.headers,
        body,
        delivery: id,
    };
    let delivery = identify(&rules.settings, (&route.name, &who.caller), who.request, &sent)?;
    Ok(delivery.map(|delivery| (rules, delivery)))
}

impl Departure<'_, '_> {
    /// Goes to the flow and comes back with what is to be answered.
    async fn travel(&mut self, journal: &mut Journal) -> Outcome {
        let mut round = Round::First;
        loop {
            match self.attempt(journal, round).await {
                Ok(Next::End(outcome)) => return outcome,
                Ok(Next::Again) => round = Round::Second,
                Err(problem) => return Outcome::Problem(problem, AnsweredBy::Gateway),
            }
        }
    }

    /// The same, for a sender that gives up after a known time.
    async fn travel_until(&mut self, (deadline, at): (Deadline, Instant), journal: &mut Journal) -> Outcome {
        let (route, head, course) = (self.admitted.route, self.admitted.head, self.progress);
        let (request, started) = (journal.request(), clock::now());
        let overdue = || route.problem(deadline.overdue());
        let mut bytes = 0;
        let answer = || {
            let mut early = answer::early(&overdue(), request);
            bytes = early.body().len() as u64;
            if let Some(cors) = &route.cors {
                cors.permit(&head.headers, early.headers_mut());
            }
            route.figures.overdue.inc();
            course.answer_early(early);
        };
        match Deadline::meet(at, self.travel(journal), course, answer).await {
            Met::InTime(outcome) => outcome,
            Met::Overdue(outcome) => {
                journal.overdue(&overdue(), bytes);
                outcome
            }
            Met::GivenUp => {
                route.figures.overdue.inc();
                journal.waited(clock::now() - started);
                journal.unsent();
                Outcome::Problem(deadline.given_up(), AnsweredBy::Gateway)
            }
        }
    }

    async fn attempt(&mut self, journal: &mut Journal, round: Round) -> Result<Next, Problem> {
        let route = self.admitted.route;
        let permit = self.permit(journal).await?;
        // After the wait, because a token may end during it.
        let mut token = fitting_token(route, journal).await?;
        let Answer {
            status,
            mut fields,
            body,
        } = self.send(&mut token, journal).await?;
        let mut body = Box::new(FlowBody::new(body, permit, route.trigger.response_timeout()));
        // Before the judgement, which takes it out.
        let run = (route.waiting.as_ref())
            .filter(|_| status == StatusCode::ACCEPTED)
            .and_then(|waiting| Some((waiting, RunningAt::of(&fields, self.admitted.address.url())?)));
        let sent = Dispatched {
            to: self.admitted.address.url(),
            token: route.identity.as_ref().zip(token.as_ref()),
        };
        let answer = (status, &mut fields);
        let refusal = match route.upstream.judge(answer, &mut body, &sent, journal).await? {
            Judgement::Pass(by) => {
                // It is not sent again, and the answer may be long in coming: its memory is for others.
                self.admitted.payload = Payload::Held(Bytes::new(), None);
                let mut status = status;
                if let Some((waiting, at)) = run {
                    // In a box, like all waits that most routes never have.
                    let waited = Box::pin(self.result((waiting, at), (&mut fields, &mut body), journal));
                    match waited.await {
                        Ok(of_result) => status = of_result,
                        Err(problem) => {
                            return Ok(Next::End(Outcome::Problem(problem, AnsweredBy::Platform)));
                        }
                    }
                }
                let status = match &route.success {
                    Some(success) => {
                        let method = &self.admitted.head.method;
                        let answer = (status, &mut fields);
                        success.apply(method, answer, &mut body, journal).await
                    }
                    None => status,
                };
                if route.cors.is_some() {
                    Cors::replace(&mut fields);
                }
                return Ok(Next::End(Outcome::Pass(status, fields, body, by)));
            }
            Judgement::Refused(refusal) => refusal,
        };
        // Also where this body cannot go again: the next request shall not meet the same refusal.
        let is_replaced = refusal.gives_up_token(&sent);
        let is_held = matches!(self.admitted.payload, Payload::Held(..));
        if is_held && round == Round::First && is_replaced {
            journal.resent();
            journal.cause(format!("{refusal}; a fresh one was fetched"));
            return Ok(Next::Again);
        }
        let problem = refusal.problem(&sent);
        Ok(Next::End(Outcome::Problem(problem, AnsweredBy::Platform)))
    }

    /// Waits for the result of a run, as long as the route and the sender do. Fields and body become those of the result, or of
    /// the address at which the caller can ask for it.
    async fn result(
        &mut self,
        (waiting, at): (&Waiting, Result<RunningAt, &'static str>),
        (fields, body): (&mut Fields, &mut FlowBody),
        journal: &mut Journal,
    ) -> Result<StatusCode, Problem> {
        let mut at = match at {
            Ok(at) => at,
            Err(why) => {
                journal.cause(format!(
                    "the flow answered 202 with an address that is not followed: {why}. Fixed by: flow-owner."
                ));
                return Ok(StatusCode::ACCEPTED);
            }
        };
        // One by one: the body that is beside them belongs to this task alone.
        let AdmittedParts {
            route,
            address,
            sender,
            deadline,
            ..
        } = &*self.admitted;
        let run = Run {
            route,
            address,
            who: &sender.who,
            holder: sender.holder,
            worker: self.worker,
        };
        let given_up = deadline.map(|deadline| deadline.after(journal.started()));
        let patience = Patience {
            until: waiting.until(given_up),
            serving: self.serving.subscribe(),
            course: self.progress,
            is_kept: route.duplicates.is_some(),
        };
        let place = waiting.place().filter(|_| patience.has_time(&at));
        if place.is_some() {
            // Nothing of the trigger is kept while its run goes on.
            body.discard().await;
            body.permit = None;
            let began = clock::now();
            let ended = run.wait(&mut at, &patience, journal).await;
            journal.waited(clock::now() - began);
            if let Some((status, of_result, result)) = ended? {
                (*fields, *body) = (of_result, *result);
                return Ok(status);
            }
            *fields = Fields::default();
        }
        let expires = waiting.expires();
        if let Some(address) = waiting.address(&run.who.caller, expires, (run.address.url(), &at)) {
            fields.set(&header::LOCATION, &address);
            fields.set(&header::RETRY_AFTER, &at.retry_after());
        }
        Ok(StatusCode::ACCEPTED)
    }

    /// Waits for the right to send. What counts while the body is arriving stays with the body.
    async fn permit(&mut self, journal: &mut Journal) -> Result<Permit, Problem> {
        let admitted = &mut self.admitted;
        let load = admitted.payload.load();
        let waiting = clock::now();
        let permit = admitted.route.trigger.permit(admitted.sender.holder, load).await;
        journal.waited(clock::now() - waiting);
        let mut permit = permit.map_err(|error| {
            let cause = format!("{error}; the share is that of {}", admitted.sender.owner());
            Problem::from(error).because(cause)
        })?;
        admitted.payload.hold(permit.take_arriving());
        Ok(permit)
    }

    /// Sends the request; on another connection as long as not a byte of it has left.
    async fn send(
        &mut self,
        token: &mut Option<Arc<Token>>,
        journal: &mut Journal,
    ) -> Result<Answer, Problem> {
        let Self {
            admitted,
            progress,
            worker,
            ..
        } = self;
        let (route, address) = (admitted.route, &admitted.address);
        let mut unsent = None;
        let mut tries = 0;
        loop {
            tries += 1;
            let pooled = match tries {
                TRIES_MAX.. => None,
                _ => address.pooled(*worker),
            };
            let mut lease = match pooled {
                Some(lease) => lease,
                None => {
                    let waiting = clock::now();
                    let lease = address.new_connection(*worker).await;
                    journal.waited(clock::now() - waiting);
                    lease?
                }
            };
            if token.as_ref().is_some_and(|token| token.is_over()) {
                *token = fitting_token(route, journal).await?;
            }
            let age = lease.age;
            let fate = admitted.payload.fate();
            let Some(body) = unsent.take().or_else(|| admitted.payload.outgoing()) else {
                let why = "a streamed body cannot be sent again";
                return Err(Problem::from(Kind::FlowConnectionLost).because(why));
            };
            let streamed = matches!(body, Outgoing::Streamed(_));
            if !streamed {
                // A held body is handed over with the head: from here on the answer is awaited even if nobody waits.
                progress.done();
            }
            let parcel = parcel(admitted, token.as_deref());
            let (head, tracking) = route.upstream.head(&parcel, lease.take_space());
            let call = flow::Call {
                head,
                method: admitted.head.method.clone(),
                body,
                tracking,
            };
            journal.sending();
            // Read anew: what was done in this turn until now is our own time, not the trigger's.
            let started = Instant::now();
            let watched = streamed.then_some::<&Progress>(progress);
            let sent = route.trigger.send(lease, call, watched).await;
            journal.flow_time(clock::now().saturating_duration_since(started), age);
            let failed = match sent {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            if let Some(ending) = fate.as_ref().and_then(|fate| fate.get()) {
                return Err(ending.into());
            }
            let nothing = matches!(&failed.error, FlowError::Lost(_, flow::Sent::Nothing));
            if nothing {
                journal.unsent();
            }
            // A streamed body can go again only if it came back untouched.
            let again = nothing && (!streamed || failed.body.is_some()) && tries < TRIES_MAX;
            if !again {
                return Err(failed.error.into());
            }
            unsent = failed.body.filter(|_| streamed);
        }
    }
}

fn parcel<'a>(admitted: &'a AdmittedParts<'_>, token: Option<&'a Token>) -> Parcel<'a> {
    Parcel {
        method: &admitted.head.method,
        target: &admitted.target,
        from: &admitted.head.headers,
        credentials: &admitted.route.credentials,
        host: admitted.address.authority(),
        bearer: token.map(Token::header),
        content_type: admitted.content_type,
        who: &admitted.sender.who,
    }
}
