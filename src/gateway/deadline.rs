//! When the senders of a route give up: they get a problem before that, and the call goes on without them. A vendor that sees
//! its own time-out instead learns nothing, and counts it against the webhook.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::Instant;

use crate::gateway::course::Course;
use crate::problem::{Again, Kind, Problem, Run};
use crate::settings::{CallerSettings, CallersSettings, RouteSettings};

/// How long before its sender gives up a request is answered: a way around the world takes 300 ms, the rest is for the clock and
/// the load of the sender. Of a short time it is a quarter.
const MARGIN: Duration = Duration::from_millis(500);

/// The time that the sender of a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deadline {
    within: Duration,
    /// Whose time it is; none where the settings of the route say it.
    vendor: Option<&'static str>,
}

/// What became of work with a deadline.
pub(super) enum Met<T> {
    InTime(T),
    /// Its caller was answered before.
    Overdue(T),
    /// It was ended before anything was handed over.
    GivenUp,
}

/// The deadlines of a route.
#[derive(Debug)]
pub(super) enum Deadlines {
    OfAll(Deadline),
    /// By the index of the caller; most routes have none.
    OfCallers(Box<[(usize, Deadline)]>),
}

impl Deadlines {
    pub(super) fn build(route: &RouteSettings, callers: &[CallerSettings]) -> Self {
        let (within, names) = match (route.answer_within, &route.callers) {
            (Some(within), _) => (Some(within), &[][..]),
            (None, CallersSettings::Named(names)) => (None, names.as_slice()),
            (None, CallersSettings::Anonymous) => (None, &[][..]),
        };
        if let Some(within) = within.filter(|within| !within.is_zero()) {
            return Self::OfAll(Deadline { within, vendor: None });
        }
        let listed = callers
            .iter()
            .enumerate()
            .filter(|(_, caller)| names.contains(&caller.name));
        let of_callers = listed.filter_map(|(index, caller)| {
            let signature = caller.signature.as_ref()?;
            let deadline = Deadline {
                within: signature.habits.answer_within?,
                vendor: signature.vendor,
            };
            Some((index, deadline))
        });
        Self::OfCallers(of_callers.collect())
    }

    /// That of a caller, by its index.
    pub(super) fn of(&self, caller: Option<usize>) -> Option<Deadline> {
        match self {
            Self::OfAll(deadline) => Some(*deadline),
            Self::OfCallers(deadlines) => {
                let mut deadlines = deadlines.iter();
                deadlines
                    .find(|(index, _)| Some(*index) == caller)
                    .map(|(_, deadline)| *deadline)
            }
        }
    }
}

impl Deadline {
    /// When a request that began then is answered at the latest.
    pub(super) fn after(self, began: Instant) -> Instant {
        began + self.within - MARGIN.min(self.within / 4)
    }

    /// Does the work. At the deadline, what was handed over goes on once `answer` was given to its caller; all else ends.
    pub(super) async fn meet<T>(
        at: Instant,
        work: impl Future<Output = T>,
        course: &Course,
        answer: impl FnOnce(),
    ) -> Met<T> {
        let mut work = pin!(work);
        if let Ok(done) = tokio::time::timeout_at(at, work.as_mut()).await {
            return Met::InTime(done);
        }
        if !course.is_done() {
            return Met::GivenUp;
        }
        answer();
        Met::Overdue(work.await)
    }

    /// The answer where the flow has the request.
    pub(super) fn overdue(self) -> Problem {
        self.problem(
            "The flow has the request: it goes on, may have started a run, and is not sent again",
            "by the owner of the flow, which has to answer at once: see `flowgate explain answer-overdue`",
        )
    }

    /// The answer where nothing was handed over.
    pub(super) fn given_up(self) -> Problem {
        let problem = self.problem(
            "The flow did not get the request in that time, so no run has started",
            "by the operator: permits, the token, a connection or the body took too long",
        );
        problem.run(Run::No).again(Again::Later)
    }

    fn problem(self, what: &str, fixed: &str) -> Problem {
        let who = match self.vendor {
            Some(vendor) => format!("{vendor} gives up"),
            None => "senders of this route give up".to_owned(),
        };
        let detail = format!("{who} after {:?}. {what}.", self.within);
        Problem::from(Kind::AnswerOverdue)
            .because(format!("{detail} Fixed {fixed}."))
            .detail(detail)
    }
}
