//! Asks the platform for a run, over the connections and permits of its trigger and nowhere else. An address that carries a
//! signature gets no token: the platform refuses both at once.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::entra::Token;
use crate::flow::outbound::{Introduction, Parcel};
use crate::flow::{self, Address, FlowError, Load, Outgoing, Sent};
use crate::gateway::answer::FlowBody;
use crate::gateway::bearer::fitting_token;
use crate::gateway::course::Course;
use crate::gateway::journal::Journal;
use crate::gateway::snapshot::Route;
use crate::gateway::upstream::{Dispatched, Judgement, Refusal};
use crate::gateway::waiting::RunningAt;
use crate::model::{Holder, clock};
use crate::problem::{Again, Kind, Problem};
use crate::wire::Fields;

/// A run of a route, and for whom it is asked.
pub(super) struct Run<'r> {
    pub route: &'r Route,
    pub address: &'r Arc<Address>,
    pub who: &'r Introduction,
    pub holder: Holder,
    pub worker: usize,
}

/// What the platform says of a run.
pub(super) enum Asked {
    /// It goes on; the fields say where and when to ask again.
    Running(Fields),
    Ended(Ended),
    /// It says nothing of the run.
    Refused(Problem),
}

/// The answer of a run.
pub(super) type Ended = (StatusCode, Fields, Box<FlowBody>);

/// How long a result is waited for.
pub(super) struct Patience<'r> {
    pub until: Instant,
    /// A gateway that stops keeps nobody waiting.
    pub serving: watch::Receiver<bool>,
    pub course: &'r Course,
    /// Whether duplicates get the result of a request whose caller has gone.
    pub is_kept: bool,
}

impl Patience<'_> {
    /// Whether the run can be asked for in time.
    pub(super) fn has_time(&self, at: &RunningAt) -> bool {
        clock::now() + at.pause < self.until
    }

    /// Ends when nobody waits any more, or nobody may.
    async fn over(&self) {
        let mut serving = self.serving.clone();
        // A request whose caller leaves goes on in another task, which polls everything in it.
        let nobody = poll_fn(|_| match self.course.is_abandoned() && !self.is_kept {
            true => Poll::Ready(()),
            false => Poll::Pending,
        });
        tokio::select! {
            () = nobody => {}
            _ = serving.wait_for(|is_serving| !is_serving) => {}
        }
    }
}

impl Run<'_> {
    /// Asks again and again. None if there is no result in time.
    ///
    /// # Errors
    /// The platform does not give the result.
    pub(super) async fn wait(
        &self,
        at: &mut RunningAt,
        patience: &Patience<'_>,
        journal: &mut Journal,
    ) -> Result<Option<Ended>, Problem> {
        while patience.has_time(at) {
            let asking = async {
                tokio::time::sleep(at.pause).await;
                self.ask(&at.target, journal).await
            };
            let asked = tokio::select! {
                biased;
                () = patience.over() => break,
                asked = tokio::time::timeout_at(patience.until, asking) => asked,
            };
            let Ok(asked) = asked else { break };
            match asked {
                Ok(Asked::Running(fields)) => at.update(&fields, self.address.url()),
                Ok(Asked::Ended(ended)) => return Ok(Some(ended)),
                Ok(Asked::Refused(problem)) if is_final(problem.kind()) => {
                    // It is the result that is refused; its run has started.
                    return Err(problem.run(crate::problem::Run::Yes).again(Again::No));
                }
                Ok(Asked::Refused(problem)) | Err(problem) => at.retry_later(problem.wait_time()),
            }
        }
        Ok(None)
    }

    /// Asks once; once more where a new token takes the place of a refused one.
    pub(super) async fn ask(&self, target: &PathAndQuery, journal: &mut Journal) -> Result<Asked, Problem> {
        let (asked, is_token_new) = self.ask_once(target, journal).await?;
        match is_token_new {
            true => Ok(self.ask_once(target, journal).await?.0),
            false => Ok(asked),
        }
    }

    async fn ask_once(&self, target: &PathAndQuery, journal: &mut Journal) -> Result<(Asked, bool), Problem> {
        let route = self.route;
        let permit = route.trigger.permit(self.holder, Load::Whole).await?;
        let is_signed = target.query().is_some_and(|query| {
            let mut pairs = query.split('&');
            pairs.any(|pair| {
                pair.get(..4)
                    .is_some_and(|name| name.eq_ignore_ascii_case("sig="))
            })
        });
        let token = match is_signed {
            true => None,
            false => fitting_token(route, journal).await?,
        };
        let answer = self.send(target, token.as_ref()).await?;
        let (status, mut fields) = (answer.status, answer.fields);
        let mut body = FlowBody::new(answer.body, permit, route.trigger.response_timeout());
        if status == StatusCode::ACCEPTED {
            body.discard().await;
            return Ok((Asked::Running(fields), false));
        }
        let sent = Dispatched {
            to: self.address.url(),
            token: route.identity.as_ref().zip(token.as_ref()),
        };
        let judged = route
            .upstream
            .judge((status, &mut fields), &mut body, &sent, journal);
        Ok(match judged.await? {
            Judgement::Pass(_) => (Asked::Ended((status, fields, Box::new(body))), false),
            Judgement::Refused(refusal) => {
                let is_token_new = Refusal::gives_up_token(&refusal, &sent);
                (Asked::Refused(refusal.problem(&sent)), is_token_new)
            }
        })
    }

    /// Sends the question; over a new connection if the first one is closed before a byte has left.
    async fn send(&self, target: &PathAndQuery, token: Option<&Arc<Token>>) -> Result<flow::Answer, Problem> {
        let mut lease = match self.address.pooled(self.worker) {
            Some(lease) => lease,
            None => self.address.new_connection(self.worker).await?,
        };
        let mut is_first = true;
        loop {
            let parcel = Parcel {
                method: &Method::GET,
                target,
                from: &HeaderMap::new(),
                credentials: &[],
                host: self.address.authority(),
                bearer: token.map(|token| token.header()),
                content_type: None,
                who: self.who,
            };
            let (head, _) = self.route.upstream.head(&parcel, lease.take_space());
            let call = flow::Call {
                head,
                method: Method::GET,
                body: Outgoing::Held(Bytes::new()),
                // The answer may carry the id of the request that started the run.
                tracking: None,
            };
            match self.route.trigger.send(lease, call, None).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => match failed.error {
                    FlowError::Lost(_, Sent::Nothing) if is_first => {
                        is_first = false;
                        lease = self.address.new_connection(self.worker).await?;
                    }
                    error => return Err(error.into()),
                },
            }
        }
    }
}

/// Whether asking again would be answered the same way.
fn is_final(kind: Kind) -> bool {
    !matches!(kind, Kind::FlowThrottled | Kind::FlowFailed | Kind::FlowTimeout)
}
