//! What a route makes of deliveries that come twice: who may start a run, what the others get, and which outcome is kept for
//! them. Which requests are the same is decided in `deliveries`.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::deliveries::{Claim, Delivery, DeliveryStore, Earlier, KeptAnswer, Running};
use crate::gateway::course::Course;
use crate::gateway::journal::Journal;
use crate::model::{AnsweredBy, RequestId};
use crate::problem::{Kind, Problem, Run};
use crate::settings::{DuplicateSettings, InFlight, RouteSettings, UnknownOutcome};
use crate::wire::Fields;

/// Largest body of an answer that is kept; a flow's answer to a webhook has a few hundred bytes. Fields are not longer.
const KEPT_BYTES_MAX: usize = 16 * 1024;
/// Fields without which a body cannot be read, and where the first request was sent.
const KEPT_FIELDS: [HeaderName; 3] = [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::LOCATION];
/// When callers are asked to repeat a delivery that is under way.
const IN_FLIGHT_WAIT: Duration = Duration::from_secs(5);

/// The rules of one route.
#[derive(Debug)]
pub(super) struct Duplicates {
    pub settings: DuplicateSettings,
    /// Places for duplicates that wait for the first one.
    places: Semaphore,
    /// As long as the first one may take.
    wait_max: Duration,
}

/// Whether a request goes to the flow.
pub(super) enum Turn {
    Forward(Option<Box<Delivering>>),
    Repeat(Arc<KeptAnswer>),
}

impl Duplicates {
    pub(super) fn build(settings: &RouteSettings) -> Option<Self> {
        let upstream = &settings.upstream;
        let result = settings.waiting.as_ref().map(|waiting| waiting.time);
        let answer = upstream.waiting_timeout + upstream.connect_timeout + upstream.response_timeout;
        Some(Self {
            settings: settings.duplicates.clone()?,
            places: Semaphore::new(upstream.waiting_max.min(Semaphore::MAX_PERMITS)),
            wait_max: answer + result.unwrap_or_default(),
        })
    }

    /// Claims the delivery that a request is, or waits for the answer of the request that has it.
    pub(super) async fn turn(
        &self,
        store: Arc<dyn DeliveryStore>,
        delivery: &Delivery,
        (progress, until): (&Arc<Course>, Option<Instant>),
        journal: &mut Journal,
    ) -> Result<Turn, Problem> {
        let deadline = Instant::now() + self.wait_max;
        let deadline = until.map_or(deadline, |until| until.min(deadline));
        loop {
            let running = match Claim::take(&store, delivery, self.settings.window).await {
                Ok(claim) => {
                    return Ok(Turn::Forward(Some(Box::new(Delivering {
                        claim: Some(claim),
                        request: journal.request(),
                        progress: progress.clone(),
                        unknown: self.settings.unknown,
                    }))));
                }
                Err(Earlier::Answered(answer)) => return Ok(Turn::Repeat(answer)),
                Err(Earlier::Differs(first)) => {
                    let cause = format!("request {first} had the same id and other content");
                    return Err(Problem::from(Kind::DeliveryIdReused).because(cause));
                }
                Err(Earlier::Running(running)) => running,
            };
            let waiting = Instant::now();
            let ended = self.wait(running, deadline).await;
            journal.waited(waiting.elapsed());
            // Where the first one was given up, the next to try takes its place.
            if let Some(answer) = ended? {
                return Ok(Turn::Repeat(answer));
            }
        }
    }

    async fn wait(&self, running: Running, deadline: Instant) -> Result<Option<Arc<KeptAnswer>>, Problem> {
        let Running { first, end } = running;
        let in_flight = |why: &str| {
            let cause = format!("request {first} has no answer yet{why}");
            Problem::from(Kind::DeliveryInFlight)
                .wait(IN_FLIGHT_WAIT)
                .because(cause)
        };
        if self.settings.in_flight == InFlight::Conflict {
            return Err(in_flight(""));
        }
        let place = self.places.try_acquire();
        let _place = place.map_err(|_| in_flight(", and `waiting_max` duplicates of the route wait"))?;
        let ended = tokio::time::timeout_at(deadline, end).await;
        ended.map_err(|_| in_flight(", and this one has waited for as long as it may"))
    }
}

/// A claimed delivery on its way to the flow. Dropped without an end, its outcome is unknown once the request was handed over,
/// and otherwise nothing has happened.
pub(super) struct Delivering {
    claim: Option<Claim>,
    request: RequestId,
    progress: Arc<Course>,
    unknown: UnknownOutcome,
}

impl Delivering {
    /// There is no answer of the flow.
    pub(super) fn failed(mut self, problem: &Problem, by: AnsweredBy) {
        self.end(problem, by);
    }

    fn end(&mut self, problem: &Problem, by: AnsweredBy) {
        let Some(claim) = self.claim.take() else { return };
        match (problem.run_started(), self.unknown) {
            (Run::No, _) | (Run::Unknown, UnknownOutcome::Again) => drop(claim),
            (_, UnknownOutcome::Accept) => {
                claim.complete(KeptAnswer::bare(
                    self.request,
                    AnsweredBy::Gateway,
                    StatusCode::OK,
                ));
            }
            // What is known to run is not started again.
            (Run::Unknown, UnknownOutcome::Problem)
            | (Run::Yes, UnknownOutcome::Problem | UnknownOutcome::Again) => {
                let (head, body) = problem.answer(self.request).into_parts();
                let content_type = head.headers.get(header::CONTENT_TYPE).cloned();
                claim.complete(KeptAnswer {
                    fields: content_type
                        .map(|value| (header::CONTENT_TYPE, value))
                        .into_iter()
                        .collect(),
                    body,
                    ..KeptAnswer::bare(self.request, by, head.status)
                });
            }
        }
    }

    /// The answer began: its head is known, and its body goes through what is returned.
    pub(super) fn answered(mut self, status: StatusCode, fields: &Fields, by: AnsweredBy) -> Keeping {
        let refused = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
        if by == AnsweredBy::Api && refused.contains(&status) {
            // It did nothing, and says so itself.
            self.claim = None;
        }
        let mut answer = KeptAnswer::bare(self.request, by, status);
        for name in KEPT_FIELDS {
            let value = fields.get_all(name.as_str()).next();
            // Both were checked when they were read.
            if let Some(value) = value.and_then(|value| HeaderValue::from_bytes(value).ok()) {
                answer.fields.push((name, value));
            }
        }
        let fields_bytes = answer.fields.iter().map(|(_, value)| value.len()).sum::<usize>();
        let mut keeping = Keeping {
            claim: self.claim.take(),
            answer,
            body: Vec::new(),
        };
        if fields_bytes > KEPT_BYTES_MAX {
            keeping.keep_status();
        }
        keeping
    }
}

impl Drop for Delivering {
    fn drop(&mut self) {
        // After a panic, or in a runtime that is shutting down.
        if self.progress.is_done() {
            self.end(&Kind::Internal.into(), AnsweredBy::Gateway);
        }
    }
}

/// Copies a small answer on its way to the caller. Of a larger one, or one that breaks off, only the status is kept.
pub(super) struct Keeping {
    claim: Option<Claim>,
    answer: KeptAnswer,
    body: Vec<u8>,
}

impl Keeping {
    /// Copies a piece of the body. An answer that is too large ends the claim at once: nobody waits for its end.
    pub(super) fn add(&mut self, data: &[u8]) {
        if self.claim.is_none() {
            return;
        }
        if self.body.len() + data.len() > KEPT_BYTES_MAX {
            return self.keep_status();
        }
        self.body.extend_from_slice(data);
    }

    /// The answer has reached its end.
    pub(super) fn finish(&mut self) {
        if let Some(claim) = self.claim.take() {
            let body = std::mem::take(&mut self.body).into_boxed_slice();
            claim.complete(KeptAnswer {
                body: body.into(),
                ..self.answer.clone()
            });
        }
    }

    fn keep_status(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.body = Vec::new();
            let KeptAnswer {
                request, by, status, ..
            } = self.answer;
            claim.complete(KeptAnswer::bare(request, by, status));
        }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.keep_status();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;
    use std::time::Duration;

    use http::{HeaderMap, Method, StatusCode};
    use tokio::time::Instant;

    use super::{Delivering, Duplicates, Turn};
    use crate::counters::Counters;
    use crate::deliveries::{Delivery, DeliveryStore, Memory, Sent, identify};
    use crate::gateway::course::Course;
    use crate::gateway::journal::Journal;
    use crate::gateway::log::Log;
    use crate::model::{AnsweredBy, CallerName, RequestId};
    use crate::problem::{Kind, Problem};
    use crate::settings::{
        DeliveryId, DuplicateSettings, InFlight, RouteSettings, UnknownOutcome, WithoutId,
    };
    use crate::wire::Fields;

    struct Stand {
        rules: Duplicates,
        store: Arc<dyn DeliveryStore>,
        delivery: Delivery,
    }

    impl Stand {
        fn new(unknown: UnknownOutcome) -> Self {
            let mut route = RouteSettings::sample();
            let settings = DuplicateSettings {
                by: DeliveryId::Body,
                window: Duration::from_secs(60),
                in_flight: InFlight::Wait,
                unknown,
                without_id: WithoutId::Refuse,
            };
            let sent = Sent {
                method: &Method::POST,
                path: None,
                query: "",
                headers: &HeaderMap::new(),
                body: b"{}",
                delivery: None,
            };
            let caller = CallerName::anonymous();
            let delivery = identify(&settings, (&route.name, &caller), RequestId::new(), &sent);
            route.duplicates = Some(settings);
            Self {
                rules: Duplicates::build(&route).unwrap(),
                store: Arc::new(Memory::new(1000, 1 << 20)),
                delivery: delivery.unwrap().unwrap(),
            }
        }

        async fn turn(&self, progress: &Arc<Course>) -> Result<Turn, Problem> {
            let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let mut journal = Journal::open(&Log::off(), &Counters::new(), address, "h1", &Method::POST);
            let turn = self
                .rules
                .turn(self.store.clone(), &self.delivery, (progress, None), &mut journal);
            turn.await
        }

        async fn first(&self, progress: &Arc<Course>) -> Box<Delivering> {
            match self.turn(progress).await {
                Ok(Turn::Forward(Some(delivering))) => delivering,
                _ => panic!("it is not the first"),
            }
        }

        /// The status that a duplicate gets; none if it may start a run.
        async fn repeated(&self) -> Option<StatusCode> {
            match self.turn(&Course::new()).await {
                Ok(Turn::Repeat(answer)) => Some(answer.status),
                Ok(Turn::Forward(_)) => None,
                Err(problem) => panic!("{problem}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_duplicate_waits_no_longer_than_the_first_one_may_take() {
        let stand = Stand::new(UnknownOutcome::Problem);
        let first = stand.first(&Course::new()).await;
        let began = Instant::now();
        let refused = stand.turn(&Course::new()).await.err().unwrap();
        assert_eq!(refused.kind(), Kind::DeliveryInFlight);
        // waiting_timeout, connect_timeout and response_timeout.
        assert_eq!(began.elapsed(), Duration::from_secs(5 + 5 + 125));
        drop(first);
    }

    #[tokio::test]
    async fn what_is_dropped_before_it_was_handed_over_may_be_repeated() {
        let stand = Stand::new(UnknownOutcome::Problem);
        drop(stand.first(&Course::new()).await);
        assert_eq!(stand.repeated().await, None);
    }

    #[tokio::test]
    async fn what_is_dropped_after_it_was_handed_over_has_an_unknown_outcome() {
        for (unknown, status) in [
            (UnknownOutcome::Problem, Some(StatusCode::INTERNAL_SERVER_ERROR)),
            (UnknownOutcome::Accept, Some(StatusCode::OK)),
            (UnknownOutcome::Again, None),
        ] {
            let stand = Stand::new(unknown);
            let progress = Course::new();
            let first = stand.first(&progress).await;
            progress.done();
            drop(first);
            assert_eq!(stand.repeated().await, status, "{unknown:?}");
        }
    }

    #[tokio::test]
    async fn an_api_that_did_nothing_may_be_asked_again() {
        for (by, status, repeated) in [
            (AnsweredBy::Api, StatusCode::TOO_MANY_REQUESTS, false),
            (AnsweredBy::Api, StatusCode::SERVICE_UNAVAILABLE, false),
            (AnsweredBy::Api, StatusCode::CONFLICT, true),
            (AnsweredBy::Flow, StatusCode::SERVICE_UNAVAILABLE, true),
        ] {
            let stand = Stand::new(UnknownOutcome::Problem);
            let first = stand.first(&Course::new()).await;
            first.answered(status, &Fields::default(), by).finish();
            assert_eq!(stand.repeated().await.is_some(), repeated, "{by:?} {status}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_dropped_keeps_its_status() {
        let stand = Stand::new(UnknownOutcome::Problem);
        let first = stand.first(&Course::new()).await;
        let mut keeping = first.answered(StatusCode::CREATED, &Fields::default(), AnsweredBy::Flow);
        keeping.add(b"half");
        drop(keeping);
        match stand.turn(&Course::new()).await {
            Ok(Turn::Repeat(answer)) => {
                assert_eq!((answer.status, answer.body.len()), (StatusCode::CREATED, 0));
            }
            _ => panic!("it was forgotten"),
        }
    }
}
