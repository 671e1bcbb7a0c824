//! An admitted request on its way: permit, token, connection, and what comes back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use tokio::time::Instant;

use crate::entra::{Forgotten, Identity, Token, claims};
use crate::flow;
use crate::flow::fault::{Evidence, Expected, Fault, Reading};
use crate::flow::outbound::{Audience, Parcel};
use crate::flow::{Answer, FlowError, Load, Outgoing, Permit, Sent, fault, outbound, reply};
use crate::gateway::admission::Admitted;
use crate::gateway::answer::{AnswerBody, FlowBody};
use crate::gateway::budget::Owner;
use crate::gateway::journal::{AnsweredBy, Journal};
use crate::gateway::payload::Payload;
use crate::gateway::{Route, answer};
use crate::model::clock;
use crate::problem::{Again, Kind, Problem, Run};
use crate::wire::Fields;

/// How much of a failed answer is read to find out whose it is; every fault of the platform is far smaller. Bytes.
const JUDGED_BYTES_MAX: usize = 64 * 1024;
/// Time for that much.
const JUDGED_TIME: Duration = Duration::from_secs(10);
/// How much is kept of what an API says about how to sign in. Characters.
const SAID_CHARS_MAX: usize = 256;
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
    Pass(StatusCode, Fields, Box<FlowBody>, AnsweredBy),
    Problem(Problem, AnsweredBy),
    /// This token was refused; the same bytes may go once more with a fresh one.
    FreshToken(Refused, Arc<Token>),
}

/// Who refused a token, and how.
enum Refused {
    ByPlatform(Fault),
    /// What the API says about how to sign in.
    ByApi(String),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ByPlatform(fault) => write!(f, "the trigger refused the token: {fault}"),
            Self::ByApi(said) => write!(f, "the API refused the token: {said}"),
        }
    }
}

impl Refused {
    fn problem(&self, admitted: &Admitted, token: &Arc<Token>) -> (Problem, AnsweredBy) {
        match self {
            Self::ByPlatform(fault) => (fault_problem(fault, admitted, Some(token)), AnsweredBy::Platform),
            Self::ByApi(said) => (api_problem(said, admitted), AnsweredBy::Platform),
        }
    }
}

/// Gets a token, calls the trigger, reads what comes back.
pub(super) async fn forward(mut admitted: Admitted, mut journal: Journal) -> Response<AnswerBody> {
    let mut round = Round::First;
    loop {
        let next = match attempt(&mut admitted, &mut journal, round).await {
            Ok(next) => next,
            Err(problem) => Next::Problem(problem, AnsweredBy::Gateway),
        };
        match next {
            Next::Problem(problem, by) => return answer::problem(&problem, by, journal),
            Next::Pass(status, fields, body, by) => {
                return answer::passed(status, fields, body, by, journal);
            }
            Next::FreshToken(refused, token) => {
                let identity = admitted.route.identity.as_ref();
                let forgotten = identity.map(|identity| match refused {
                    Refused::ByPlatform(_) => identity.forget(&token),
                    Refused::ByApi(_) => identity.doubt(&token),
                });
                if forgotten != Some(Forgotten::Yes) {
                    let (problem, by) = refused.problem(&admitted, &token);
                    return answer::problem(&problem, by, journal);
                }
                journal.resent();
                journal.cause(format!("{refused}; a fresh one was fetched"));
                round = Round::Second;
            }
        }
    }
}

/// Waits for the right to send. What counts while the body is arriving stays with the body.
async fn permit(admitted: &mut Admitted, journal: &mut Journal) -> Result<Permit, Problem> {
    let load = match admitted.payload {
        Payload::Held(..) => Load::Whole,
        Payload::Streamed(_) => Load::Arriving,
    };
    let waiting = clock::now();
    let permit = admitted.route.trigger.permit(admitted.holder, load).await;
    journal.waited(clock::now() - waiting);
    let mut permit = permit.map_err(|error| {
        let owner = Owner {
            holder: admitted.holder,
            who: &admitted.who,
        };
        let cause = format!("{error}; the share is that of {owner}");
        Problem::from(error).because(cause)
    })?;
    admitted.payload.hold(permit.take_arriving());
    Ok(permit)
}

async fn attempt(admitted: &mut Admitted, journal: &mut Journal, round: Round) -> Result<Next, Problem> {
    let permit = permit(admitted, journal).await?;
    // After the wait, because a token may end during it.
    let mut token = fitting_token(&admitted.route, journal).await?;
    let Answer {
        status,
        mut fields,
        body,
    } = send(admitted, &mut token, journal).await?;
    let mut body = FlowBody {
        first: VecDeque::new(),
        rest: Some(body),
        permit: Some(permit),
        timeout: admitted.route.trigger.response_timeout(),
        timer: None,
    };
    if admitted.route.api.is_some() {
        return Ok(match token.filter(|_| status == StatusCode::UNAUTHORIZED) {
            Some(token) => {
                drop(body.rest.take());
                refused_by_api(&fields, admitted, token, round)
            }
            None => {
                reply::api_head(&mut fields);
                Next::Pass(status, fields, Box::new(body), AnsweredBy::Api)
            }
        });
    }
    let run = reply::run_id(&fields);
    journal.run(run.clone());
    if run.is_none() && (status.is_client_error() || status.is_server_error()) {
        let waiting = clock::now();
        let seen = judge(&mut body).await;
        journal.waited(clock::now() - waiting);
        let seen = seen?;
        let evidence = Evidence {
            status,
            run_id: None,
            content_type: fields.text("content-type"),
            www_authenticate: fields.text("www-authenticate"),
            body: &seen,
        };
        if let Some(fault) = fault_of(&evidence, token.as_ref()) {
            // A connection whose answer has ended serves on.
            drop(body.rest.take());
            let repeatable = matches!(admitted.payload, Payload::Held(..)) && round == Round::First;
            let suspect = fault.row.credential == fault::Credential::Suspect;
            return Ok(match token {
                Some(token) if suspect && repeatable => Next::FreshToken(Refused::ByPlatform(fault), token),
                token => {
                    if let (true, Some(identity), Some(token)) = (suspect, &admitted.route.identity, &token) {
                        // This body cannot go again, but the next request shall not meet the same refusal.
                        identity.forget(token);
                    }
                    let wait = retry_after(&fields);
                    let problem = fault_problem(&fault, admitted, token.as_ref());
                    Next::Problem(
                        wait.into_iter().fold(problem, Problem::wait),
                        AnsweredBy::Platform,
                    )
                }
            });
        }
    }
    reply::head(status, &mut fields, admitted.address.url());
    Ok(Next::Pass(status, fields, Box::new(body), AnsweredBy::Flow))
}

/// The fault that an answer reports; some mean something else where a token was sent.
fn fault_of(evidence: &Evidence<'_>, token: Option<&Arc<Token>>) -> Option<Fault> {
    match (fault::classify(evidence), token) {
        (Reading::Fault(fault), Some(_)) => Some(fault.despite_token()),
        (Reading::Fault(fault), None) => Some(fault),
        (Reading::Owner, _) => None,
    }
}

/// An API that answers 401 has done nothing yet, so the same bytes may go once more where they are still there.
fn refused_by_api(fields: &Fields, admitted: &Admitted, token: Arc<Token>, round: Round) -> Next {
    let said = fields.text("www-authenticate").unwrap_or_default();
    let said: String = said.chars().take(SAID_CHARS_MAX).collect();
    if matches!(admitted.payload, Payload::Held(..)) && round == Round::First {
        return Next::FreshToken(Refused::ByApi(said), token);
    }
    if let Some(identity) = &admitted.route.identity {
        identity.doubt(&token);
    }
    Next::Problem(api_problem(&said, admitted), AnsweredBy::Platform)
}

/// The operator's sentence for a token that an API refuses.
fn api_problem(said: &str, admitted: &Admitted) -> Problem {
    let identity = admitted.route.identity.as_ref().map(Identity::settings);
    let (name, audience) = identity.map_or(("-", "-"), |settings| {
        (settings.name.as_str(), settings.audience.as_str())
    });
    Problem::from(Kind::ApiRefusedToken).because(format!(
        "the API refused the token of identity {name}, which is for {audience}: compare the identity's scope with what \
         the API wants, and see whether the tenant lets the application use it. It said: {said}. Fixed by: operator."
    ))
}

/// The token of the route's identity, if it has one; not one that the route refuses to show.
async fn fitting_token(route: &Route, journal: &mut Journal) -> Result<Option<Arc<Token>>, Problem> {
    let Some(identity) = &route.identity else {
        return Ok(None);
    };
    let token = token(identity, journal).await?;
    let preflight = route.preflight.as_ref();
    match preflight.and_then(|preflight| preflight.refusal()) {
        Some(why) => Err(Problem::from(Kind::TokenUnfit).because(why)),
        None => Ok(Some(token)),
    }
}

/// The identity's token: at hand nearly always, or else waited for.
async fn token(identity: &Identity, journal: &mut Journal) -> Result<Arc<Token>, Problem> {
    if let Some(token) = identity.token_at_hand() {
        return Ok(token);
    }
    let started = Instant::now();
    let token = identity.token().await;
    journal.token_time(started.elapsed());
    Ok(token?)
}

/// Sends the request; on another connection as long as not a byte of it has left.
async fn send(
    admitted: &mut Admitted,
    token: &mut Option<Arc<Token>>,
    journal: &mut Journal,
) -> Result<Answer, Problem> {
    let route = admitted.route.clone();
    let trigger = &route.trigger;
    let address = admitted.address.clone();
    let mut unsent = None;
    let mut tries = 0;
    loop {
        tries += 1;
        let waiting = clock::now();
        let lease = match tries {
            TRIES_MAX.. => address.new_connection(admitted.worker).await,
            _ => address.connection(admitted.worker).await,
        };
        journal.waited(clock::now() - waiting);
        let mut lease = lease?;
        renew_if_over(&route, token, journal).await?;
        let age = lease.age;
        let fate = admitted.payload.fate();
        let Some(body) = unsent.take().or_else(|| admitted.payload.outgoing()) else {
            return Err(
                Problem::from(Kind::FlowConnectionLost).because("a streamed body cannot be sent again")
            );
        };
        let streamed = matches!(body, Outgoing::Streamed(_));
        if !streamed {
            // A held body is handed over with the head: from here on the answer is awaited even if nobody waits.
            admitted.progress.done();
        }
        let audience = match route.api {
            Some(_) => Audience::Api,
            None => Audience::Flow,
        };
        let parcel = parcel(admitted, token.as_deref());
        let call = flow::Call {
            head: outbound::head(&parcel, audience, lease.take_space()),
            method: admitted.head.method.clone(),
            body,
            tracking: route.api.is_none().then_some(admitted.who.request),
        };
        journal.sending();
        // Read anew: what was done in this turn until now is our own time, not the trigger's.
        let started = Instant::now();
        let sent = trigger
            .send(lease, call, streamed.then_some(&*admitted.progress))
            .await;
        journal.flow_time(clock::now().saturating_duration_since(started), age);
        let failed = match sent {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        if let Some(ending) = fate.as_ref().and_then(|fate| fate.get()) {
            return Err(ending.into());
        }
        let nothing = matches!(&failed.error, FlowError::Lost(_, Sent::Nothing));
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

/// A token may end while a connection is opened; it must not travel after that.
async fn renew_if_over(
    route: &Route,
    held: &mut Option<Arc<Token>>,
    journal: &mut Journal,
) -> Result<(), Problem> {
    if held.as_ref().is_some_and(|token| token.is_over()) {
        *held = fitting_token(route, journal).await?;
    }
    Ok(())
}

fn parcel<'a>(admitted: &'a Admitted, token: Option<&'a Token>) -> Parcel<'a> {
    Parcel {
        method: &admitted.head.method,
        target: &admitted.target,
        from: &admitted.head.headers,
        credentials: &admitted.route.credentials,
        host: admitted.address.authority(),
        bearer: token.map(Token::header),
        who: &admitted.who,
    }
}

/// Reads ahead in a failed answer, so that the fault table can look at it. What was read stays in the body.
async fn judge(body: &mut FlowBody) -> Result<Bytes, Problem> {
    let deadline = Instant::now() + JUDGED_TIME;
    let mut seen = Vec::new();
    while let Some(rest) = &mut body.rest {
        match tokio::time::timeout_at(deadline, rest.data()).await {
            Ok(None) => body.rest = None,
            Ok(Some(Ok(data))) => {
                seen.extend_from_slice(&data);
                body.first.push_back(data);
            }
            // Nothing has gone to the caller yet, and the body itself would end quietly after its error.
            Ok(Some(Err(what))) => {
                return Err(Problem::from(Kind::FlowConnectionLost).because(what));
            }
            Err(_) => break,
        }
        if seen.len() > JUDGED_BYTES_MAX {
            return Ok(Bytes::new());
        }
    }
    Ok(Bytes::from(seen))
}

fn retry_after(fields: &Fields) -> Option<Duration> {
    let seconds = fields.text("retry-after")?.parse::<u64>().ok()?;
    // A day is longer than any throttling the platform documents; more would be a wrong or hostile number.
    Some(Duration::from_secs(seconds.min(86_400)))
}

/// The caller's problem and the operator's sentence for a fault of the platform.
fn fault_problem(fault: &Fault, admitted: &Admitted, token: Option<&Arc<Token>>) -> Problem {
    let mut cause = format!("{} Fixed by: {}.", fault.private(), fault.row.fixed_by.as_str());
    let identity = admitted.route.identity.as_ref();
    if let (Kind::FlowRefusedToken, Some(identity), Some(token)) = (fault.row.kind, identity, token) {
        let settings = identity.settings();
        let expected = Expected {
            audience: claims::wanted_audience(admitted.address.url(), settings),
            tenant: &settings.tenant,
            now: clock::wall(),
        };
        cause.push_str(&format!(" Identity {}: ", settings.name));
        cause.push_str(&fault::explain_mismatch(token.text().expose(), &expected));
    }
    let again = match fault.row.run {
        Run::No => fault.row.kind.row().again,
        Run::Yes | Run::Unknown => Again::No,
    };
    Problem::from(fault.row.kind)
        .because(cause)
        .again(again)
        .run(fault.row.run)
}

impl Drop for FlowBody {
    fn drop(&mut self) {
        // The permit goes last: while a connection is open, its trigger counts the request as under way.
        drop(self.rest.take());
        drop(self.permit.take());
    }
}
