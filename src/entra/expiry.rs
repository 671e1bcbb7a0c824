//! When the credentials of identities end: a gauge in days, and warnings ahead of time, each told once. Ends are dates
//! that people wrote down, so they are compared with the wall clock; how often something is told is not.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::SystemTime;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::counters::Counters;
use crate::counters::CredentialLabels;
use crate::model::clock;

const DAY: Duration = Duration::from_secs(86_400);
/// How often ends are looked at.
const PERIOD: Duration = Duration::from_secs(3600);
/// Days before the end at which somebody is warned; the end itself comes after the last.
const DAYS: [u32; 5] = [60, 30, 14, 7, 1];
/// Warnings of one credential: one for each of the days, and one for the end.
const STEPS: usize = DAYS.len() + 1;

/// A credential and the time it has left.
#[derive(Debug, Clone)]
pub struct Life {
    /// Its name: `client-secret-1`.
    pub credential: String,
    /// Whole days until it ends; below zero when it is over.
    pub days: i64,
}

/// All credentials whose end may be known.
#[derive(Debug, Default)]
pub(super) struct Watch {
    list: Mutex<Vec<Arc<Dated>>>,
}

impl Watch {
    /// Watches a credential. Its end may be set later, and again.
    pub(super) fn add(&self, identity: &str, credential: &str, end: Option<SystemTime>) -> Arc<Dated> {
        let dated = Arc::new(Dated {
            identity: identity.into(),
            credential: credential.into(),
            course: Mutex::new(Course {
                end,
                ..Course::default()
            }),
        });
        self.all().push(dated.clone());
        dated
    }

    /// Looks at all of them for as long as the returned future is polled.
    pub(super) async fn mind(self: Arc<Self>) {
        loop {
            for dated in self.all().iter() {
                dated.look(clock::wall());
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Writes the gauges.
    pub(super) fn gauge(&self, counters: &Counters) {
        let now = clock::wall();
        for dated in self.all().iter() {
            let labels = CredentialLabels {
                identity: dated.identity.clone(),
                credential: dated.credential.clone(),
            };
            match dated.end() {
                Some(end) => {
                    let gauge = counters.credential_days_left.get_or_create(&labels);
                    gauge.set(seconds_left(end, now) / DAY.as_secs_f64());
                }
                // The credential that took its place has no known end.
                None => {
                    counters.credential_days_left.remove(&labels);
                }
            }
        }
    }

    /// What the credentials of an identity have left.
    pub(super) fn lives(&self, identity: &str) -> Vec<Life> {
        let now = clock::wall();
        let list = self.all();
        let own = list.iter().filter(|dated| &*dated.identity == identity);
        own.filter_map(|dated| {
            Some(Life {
                credential: dated.credential.to_string(),
                days: days_left(dated.end()?, now),
            })
        })
        .collect()
    }

    fn all(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Dated>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A credential with its end.
#[derive(Debug)]
pub(super) struct Dated {
    identity: Arc<str>,
    credential: Arc<str>,
    course: Mutex<Course>,
}

impl Dated {
    /// Sets another end, or none; what is due is told at once.
    pub(super) fn set(&self, end: Option<SystemTime>) {
        let mut course = self.course.lock().unwrap_or_else(PoisonError::into_inner);
        if course.end == end {
            return;
        }
        *course = Course {
            end,
            ..Course::default()
        };
        drop(course);
        self.look(clock::wall());
    }

    fn end(&self) -> Option<SystemTime> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner).end
    }

    fn look(&self, now: SystemTime) {
        let mut course = self.course.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(end), Some(step)) = (course.end, course.step(now, Instant::now())) else {
            return;
        };
        drop(course);
        let (identity, credential) = (&*self.identity, &*self.credential);
        let date = Timestamp::try_from(end).map_or_else(
            |_| "a date far away".to_owned(),
            |end| end.strftime("%Y-%m-%d").to_string(),
        );
        let days = days_left(end, now);
        if step == DAYS.len() {
            tracing::warn!(
                identity,
                credential,
                days,
                "credential {credential} of identity {identity} expired on {date}; put a new one in its place"
            );
            return;
        }
        tracing::warn!(
            identity,
            credential,
            days,
            "credential {credential} of identity {identity} expires on {date}; make a new one in time, and put it \
             beside the old one or in its place"
        );
    }
}

/// An end, and what was told of it.
#[derive(Debug, Default)]
struct Course {
    end: Option<SystemTime>,
    /// The step that was reached when it was last looked at.
    reached: Option<usize>,
    /// When each step was told.
    told: [Option<Instant>; STEPS],
}

impl Course {
    /// The step to tell now, if there is one. Each is told when it is reached; a wall clock that jumps to and fro reaches
    /// one again and again, so none is told twice within a day of the other clock.
    fn step(&mut self, now: SystemTime, at: Instant) -> Option<usize> {
        let before = self.reached;
        self.reached = step_of(self.end?, now);
        let step = self
            .reached
            .filter(|step| before.is_none_or(|before| before < *step))?;
        let told = self.told.get_mut(step)?;
        if told.is_some_and(|told| at.saturating_duration_since(told) < DAY) {
            return None;
        }
        *told = Some(at);
        Some(step)
    }
}

/// The last step that was reached: one of the days, or the end.
fn step_of(end: SystemTime, now: SystemTime) -> Option<usize> {
    let Ok(left) = end.duration_since(now) else {
        return Some(DAYS.len());
    };
    if left.is_zero() {
        return Some(DAYS.len());
    }
    DAYS.iter().rposition(|days| left <= DAY * *days)
}

fn seconds_left(end: SystemTime, now: SystemTime) -> f64 {
    match end.duration_since(now) {
        Ok(left) => left.as_secs_f64(),
        Err(past) => -past.duration().as_secs_f64(),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a cast of a float stops at the largest number"
)]
fn days_left(end: SystemTime, now: SystemTime) -> i64 {
    (seconds_left(end, now) / DAY.as_secs_f64()).floor() as i64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;
    use std::time::SystemTime;

    use tokio::time::Instant;

    use super::Course;
    use super::DAY;
    use super::DAYS;
    use super::PERIOD;
    use super::days_left;
    use crate::model::clock;

    fn course(end: SystemTime) -> Course {
        Course {
            end: Some(end),
            ..Course::default()
        }
    }

    #[test]
    fn each_step_is_told_once_on_the_way_to_the_end() {
        let (start, at) = (clock::wall(), Instant::now());
        let end = start + 90 * DAY;
        let mut course = course(end);
        let mut told = Vec::new();
        let mut passed = Duration::ZERO;
        while passed < 95 * DAY {
            if course.step(start + passed, at + passed).is_some() {
                told.push(days_left(end, start + passed));
            }
            passed += PERIOD;
        }
        assert_eq!(told, [60, 30, 14, 7, 1, 0]);
    }

    #[test]
    fn a_start_close_to_the_end_tells_the_step_it_finds() {
        let (now, at) = (clock::wall(), Instant::now());
        for (left, step) in [
            (61 * DAY, None),
            (60 * DAY, Some(0)),
            (20 * DAY, Some(1)),
            (3 * DAY, Some(3)),
            (Duration::from_secs(1), Some(4)),
            (Duration::ZERO, Some(5)),
        ] {
            let mut course = course(now + left);
            assert_eq!(course.step(now, at), step, "{left:?}");
            assert_eq!(course.step(now, at + PERIOD), None, "{left:?}");
        }
        assert_eq!(course(now - DAY).step(now, at), Some(5));
    }

    #[test]
    fn a_clock_that_jumps_to_and_fro_does_not_flood_the_log() {
        let (now, at) = (clock::wall(), Instant::now());
        let mut course = course(now + 20 * DAY);
        let mut told = 0;
        for turn in 0..24 * 60 {
            let jump = if turn % 2 == 0 { 40 * DAY } else { Duration::ZERO };
            let look = course.step(now + jump, at + Duration::from_secs(60) * turn);
            told += usize::from(look.is_some());
        }
        assert!((1..=2).contains(&told), "{told}");
    }

    #[test]
    fn a_clock_that_was_put_right_leaves_the_warnings_to_come() {
        let (now, at) = (clock::wall(), Instant::now());
        let mut course = course(now + 40 * DAY);
        assert_eq!(course.step(now + 400 * DAY, at), Some(DAYS.len()));
        assert_eq!(course.step(now, at + PERIOD), None);
        let passed = 11 * DAY;
        assert_eq!(course.step(now + passed, at + passed), Some(1));
        let passed = 41 * DAY;
        assert_eq!(course.step(now + passed, at + passed), Some(DAYS.len()));
    }
}
