//! What is behind a route: a flow or an API, and everything in which the two differ.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::uri::PathAndQuery;

use crate::entra::{Forgotten, Identity, Token, claims};
use crate::flow::evidence::{Evidence, Expected, Fault, Reading};
use crate::flow::fault::Credential;
use crate::flow::outbound::{self, Audience, Parcel};
use crate::flow::{evidence, reply};
use crate::gateway::answer::FlowBody;
use crate::gateway::journal::Journal;
use crate::gateway::query::{self, Reserved};
use crate::model::{AnsweredBy, RequestId, TriggerUrl, clock};
use crate::policy::OpenPaths;
use crate::problem::{Kind, Problem};
use crate::settings::{QueryPass, RelativePath, RouteKind};
use crate::wire::Fields;

/// How much is kept of what an API says about how to sign in. Characters.
const SAID_CHARS_MAX: usize = 256;

#[derive(Debug)]
pub(super) enum Upstream {
    /// A flow, started by its trigger. Its platform answers for it where it fails.
    Flow,
    /// An API, of which these paths are open. It answers for itself.
    Api(OpenPaths),
}

/// What of the caller's target goes on.
#[derive(Debug)]
pub(super) struct Passes {
    pub relative_path: RelativePath,
    pub query: QueryPass,
}

/// What was sent: the address, and the token with its identity.
#[derive(Clone, Copy)]
pub(super) struct Dispatched<'r> {
    pub to: &'r TriggerUrl,
    pub token: Option<(&'r Identity, &'r Arc<Token>)>,
}

/// What an answer means.
pub(super) enum Judgement {
    Pass(AnsweredBy),
    /// It was not the flow's: the caller gets a problem, unless the request can go once more.
    Refused(Refusal),
}

/// Why the request was not served.
pub(super) enum Refusal {
    /// What the platform says, and when to come back.
    ByPlatform(Fault, Option<Duration>),
    /// What the API says about how to sign in.
    ByApi(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByPlatform(fault, _) => write!(f, "the trigger refused the token: {fault}"),
            Self::ByApi(said) => write!(f, "the API refused the token: {said}"),
        }
    }
}

impl Upstream {
    pub(super) fn of(kind: &RouteKind) -> Self {
        match kind {
            RouteKind::Flow => Self::Flow,
            RouteKind::Api(paths) => Self::Api(OpenPaths::build(paths)),
        }
    }

    /// The request target: the upstream's own path and query, and what the route lets through of the caller's.
    pub(super) fn target(
        &self,
        url: &TriggerUrl,
        passes: &Passes,
        rest: Option<&str>,
        caller_query: Option<&str>,
    ) -> Result<PathAndQuery, Problem> {
        let rest = rest.filter(|rest| passes.relative_path == RelativePath::Appended && !rest.is_empty());
        if let (Self::Api(open), Some(rest)) = (self, rest) {
            open.admit(rest)?;
        }
        let base = match rest {
            Some(rest) => url.with_relative(rest).map_err(|error| {
                Problem::from(Kind::MalformedRequest).detail(format!("the rest of the path: {error}"))
            })?,
            None => url.path_and_query().clone(),
        };
        if caller_query.is_none() || passes.query == QueryPass::None {
            return Ok(base);
        }
        let mut text = base.as_str().to_owned();
        query::append(&mut text, caller_query, &passes.query, self.reserved());
        if text.len() > query::TARGET_BYTES_MAX {
            return Err(Kind::TargetTooLong.into());
        }
        PathAndQuery::try_from(text).map_err(|_| Kind::MalformedRequest.into())
    }

    /// What of the caller's query goes on; empty if nothing does.
    pub(super) fn passed_query(&self, passes: &Passes, caller_query: Option<&str>) -> String {
        let mut passed = String::new();
        query::append(&mut passed, caller_query, &passes.query, self.reserved());
        passed
    }

    fn reserved(&self) -> Reserved {
        match self {
            Self::Api(_) => Reserved::Tokens,
            Self::Flow => Reserved::Triggers,
        }
    }

    /// The head that leaves, in the memory of `space`, and the tracking id that its answer must echo.
    pub(super) fn head(&self, parcel: &Parcel<'_>, space: Vec<u8>) -> (Vec<u8>, Option<RequestId>) {
        let (audience, tracking) = match self {
            Self::Flow => (Audience::Flow, Some(parcel.who.request)),
            Self::Api(_) => (Audience::Api, None),
        };
        (outbound::head(parcel, audience, space), tracking)
    }

    /// Whose answer it is, and what of its head passes.
    pub(super) async fn judge(
        &self,
        (status, fields): (StatusCode, &mut Fields),
        body: &mut FlowBody,
        sent: &Dispatched<'_>,
        journal: &mut Journal,
    ) -> Result<Judgement, Problem> {
        if let Self::Api(_) = self {
            // An API that answers 401 has done nothing yet.
            if status == StatusCode::UNAUTHORIZED && sent.token.is_some() {
                let said = fields.text("www-authenticate").unwrap_or_default();
                let said = said.chars().take(SAID_CHARS_MAX).collect();
                return Ok(Judgement::Refused(Refusal::ByApi(said)));
            }
            reply::api_head(fields);
            return Ok(Judgement::Pass(AnsweredBy::Api));
        }
        let run = reply::run_id(fields);
        journal.run(run.clone());
        if run.is_none() && (status.is_client_error() || status.is_server_error()) {
            let waiting = clock::now();
            let seen = body.read_ahead().await;
            journal.waited(clock::now() - waiting);
            let seen = seen?;
            let evidence = Evidence {
                status,
                run_id: None,
                content_type: fields.text("content-type"),
                www_authenticate: fields.text("www-authenticate"),
                body: &seen,
            };
            if let Reading::Fault(fault) = evidence::classify(&evidence) {
                // Some mean something else where a token was sent.
                let fault = match sent.token {
                    Some(_) => fault.despite_token(),
                    None => fault,
                };
                return Ok(Judgement::Refused(Refusal::ByPlatform(
                    fault,
                    retry_after(fields),
                )));
            }
        }
        reply::head(status, fields, sent.to);
        Ok(Judgement::Pass(AnsweredBy::Flow))
    }
}

impl Refusal {
    /// Gives the token up where it was the reason. Whether the next one will be another.
    pub(super) fn gives_up_token(&self, sent: &Dispatched<'_>) -> bool {
        let Some((identity, token)) = sent.token else {
            return false;
        };
        let forgotten = match self {
            Self::ByApi(_) => identity.doubt(token),
            Self::ByPlatform(fault, _) if fault.row.credential == Credential::Suspect => {
                identity.forget(token)
            }
            Self::ByPlatform(..) => return false,
        };
        forgotten == Forgotten::Yes
    }

    pub(super) fn problem(&self, sent: &Dispatched<'_>) -> Problem {
        match self {
            Self::ByPlatform(fault, wait) => wait
                .iter()
                .copied()
                .fold(fault_problem(fault, sent), Problem::wait),
            Self::ByApi(said) => api_problem(said, sent),
        }
    }
}

/// The operator's sentence for a token that an API refuses.
fn api_problem(said: &str, sent: &Dispatched<'_>) -> Problem {
    let identity = sent.token.map(|(identity, _)| identity.settings());
    let (name, audience) = identity.map_or(("-", "-"), |settings| {
        (settings.name.as_str(), settings.audience.as_str())
    });
    Problem::from(Kind::ApiRefusedToken).because(format!(
        "the API refused the token of identity {name}, which is for {audience}: compare the identity's scope with what \
         the API wants, and see whether the tenant lets the application use it. It said: {said}. Fixed by: operator."
    ))
}

fn retry_after(fields: &Fields) -> Option<Duration> {
    // A day is longer than any throttling the platform documents; more would be a wrong or hostile number.
    Some(clock::retry_after(fields.text("retry-after")?)?.min(Duration::from_secs(86_400)))
}

fn fault_problem(fault: &Fault, sent: &Dispatched<'_>) -> Problem {
    let mut cause = format!("{fault} Fixed by: {}.", fault.row.failure.fixed_by.as_str());
    if let (Kind::FlowRefusedToken, Some((identity, token))) = (fault.row.kind, sent.token) {
        let settings = identity.settings();
        let expected = Expected {
            audience: claims::wanted_audience(sent.to, settings),
            tenant: settings.tenant.as_ref(),
            now: clock::wall(),
        };
        cause.push_str(&format!(" Identity {}: ", settings.name));
        cause.push_str(&evidence::explain_mismatch(token.text().expose(), &expected));
    }
    Problem::from(fault.row.kind)
        .because(cause)
        .again(fault.row.again())
        .run(fault.row.run)
}
