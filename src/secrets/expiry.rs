//! When credentials of identities, certificates of listeners and secrets of the gateway expire: a gauge in days, and
//! warnings ahead of time, each logged once. Expiry dates are compared with the wall clock, because people wrote them
//! down; how often a warning is logged depends on the monotonic clock.

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::time::Instant;

use crate::counters::{Counters, CredentialLabels, NameLabels};
use crate::model::{clock, locked};
use crate::secrets::owner::SecretOwner;

const DAY: Duration = Duration::from_secs(86_400);
/// How often ends are looked at.
const PERIOD: Duration = Duration::from_secs(3600);
/// Days before the end at which somebody is warned; the end itself comes after the last.
const DAYS: [u32; 5] = [60, 30, 14, 7, 1];
/// Warnings of one credential: one for each of the days, and one for the end.
const STEPS: usize = DAYS.len() + 1;

#[derive(Debug, Clone)]
pub struct Life {
    /// Its name: `client-secret-1`.
    pub credential: String,
    /// Whole days until it ends; below zero when it is over.
    pub days: i64,
}

/// All credentials whose end may be known, for as long as somebody else has them.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    list: Mutex<Vec<Arc<Dated>>>,
    /// Those that nobody has any more and whose gauge is still there.
    gone: Mutex<Vec<Arc<Dated>>>,
}

impl Watch {
    /// Watches a credential. Its end may be set later, and again.
    pub(crate) fn add(&self, holder: SecretOwner, credential: &str, end: Option<SystemTime>) -> Arc<Dated> {
        let mut all = self.all();
        // Settings that come into force have it anew: what was logged for those before is not logged again.
        let same =
            |other: &&Arc<Dated>| other.holder == holder && *locked(&other.name).current == *credential;
        let known = all.iter().find(same).map(|other| locked(&other.course).clone());
        let course = known.filter(|course| course.end == end).unwrap_or(Course {
            end,
            ..Course::default()
        });
        let dated = Arc::new(Dated {
            holder,
            name: Mutex::new(Name::new(credential)),
            course: Mutex::new(course),
        });
        all.push(dated.clone());
        dated
    }

    /// Logs the warnings that are due now.
    pub(crate) fn look(&self) {
        for dated in self.all().iter() {
            dated.look(clock::wall());
        }
    }

    /// Looks at all of them now and then, for as long as somebody has the watch.
    pub(crate) async fn mind(watch: Weak<Self>) {
        while let Some(watch) = watch.upgrade() {
            watch.look();
            drop(watch);
            tokio::time::sleep(PERIOD).await;
        }
    }

    pub(crate) fn gauge(&self, counters: &Counters) {
        let now = clock::wall();
        let all = self.all();
        for dated in locked(&self.gone).drain(..) {
            dated.set(None);
            dated.clear(counters);
        }
        for dated in all.iter() {
            dated.clear(counters);
        }
        // After that, because two listeners may show certificates of one name.
        for dated in all.iter() {
            dated.gauge(counters, now);
        }
    }

    /// What the credentials of an identity have left.
    pub(crate) fn lives(&self, identity: &str) -> Vec<Life> {
        let now = clock::wall();
        let list = self.all();
        let own = list
            .iter()
            .filter(|dated| dated.holder.identity() == Some(identity));
        own.filter_map(|dated| dated.life(now)).collect()
    }

    /// What everything has left that belongs to no identity.
    pub(crate) fn others(&self) -> Vec<(SecretOwner, Life)> {
        let now = clock::wall();
        let list = self.all();
        let others = list.iter().filter(|dated| dated.holder.identity().is_none());
        others
            .filter_map(|dated| Some((dated.holder.clone(), dated.life(now)?)))
            .collect()
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Dated>>> {
        let mut list = locked(&self.list);
        let unused = list.extract_if(.., |dated| Arc::strong_count(dated) == 1);
        let mut gone = locked(&self.gone);
        gone.extend(unused.filter(|dated| locked(&dated.name).gauged.is_some()));
        list
    }
}

#[derive(Debug)]
pub(crate) struct Dated {
    holder: SecretOwner,
    name: Mutex<Name>,
    course: Mutex<Course>,
}

/// What a credential is called, which may follow what it is.
#[derive(Debug)]
struct Name {
    current: Arc<str>,
    /// The name that its gauge has now.
    gauged: Option<Arc<str>>,
}

impl Name {
    fn new(name: &str) -> Self {
        Self {
            current: name.into(),
            gauged: None,
        }
    }
}

impl Dated {
    pub(crate) fn rename(&self, name: &str) {
        locked(&self.name).current = name.into();
    }

    fn life(&self, now: SystemTime) -> Option<Life> {
        let days = days_left(self.end()?, now);
        Some(Life {
            credential: locked(&self.name).current.to_string(),
            days,
        })
    }

    /// Takes out of the gauges what is there no more: its name is another one, or its end is not known.
    fn clear(&self, counters: &Counters) {
        let mut name = locked(&self.name);
        let is_known = self.end().is_some();
        let current = name.current.clone();
        let Some(old) = name.gauged.take_if(|gauged| !is_known || *gauged != current) else {
            return;
        };
        drop(name);
        match &self.holder {
            SecretOwner::Listener(_) => counters.certificate_days.remove(&NameLabels { name: old }),
            holder => counters.credential_days_left.remove(&labels(holder, old)),
        };
    }

    fn gauge(&self, counters: &Counters, now: SystemTime) {
        let Some(end) = self.end() else { return };
        let days = seconds_left(end, now) / DAY.as_secs_f64();
        let mut name = locked(&self.name);
        let current = name.current.clone();
        name.gauged = Some(current.clone());
        drop(name);
        let gauge = match &self.holder {
            SecretOwner::Listener(_) => counters
                .certificate_days
                .get_or_create_owned(&NameLabels { name: current }),
            holder => counters
                .credential_days_left
                .get_or_create_owned(&labels(holder, current)),
        };
        gauge.set(days);
    }

    /// Sets another expiry, or none; a warning that is due is logged at once.
    pub(crate) fn set(&self, end: Option<SystemTime>) {
        let mut course = locked(&self.course);
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
        locked(&self.course).end
    }

    /// Logs the warning that is due at this moment.
    pub(crate) fn look(&self, now: SystemTime) {
        let mut course = locked(&self.course);
        let (Some(end), Some(step)) = (course.end, course.step(now, Instant::now())) else {
            return;
        };
        drop(course);
        let (holder, credential) = (&self.holder, locked(&self.name).current.clone());
        let (identity, route, listener) = (holder.identity(), holder.route(), holder.listener());
        let credential = &*credential;
        let what = match holder {
            SecretOwner::Listener(_) => format!("the certificate for {credential}"),
            _ => format!("credential {credential}"),
        };
        let date = Timestamp::try_from(end).map_or_else(
            |_| "a date far away".to_owned(),
            |end| end.strftime("%Y-%m-%d").to_string(),
        );
        let days = days_left(end, now);
        let said = match step == DAYS.len() {
            true => format!("expired on {date}; put a new one in its place"),
            false => format!(
                "expires on {date}; make a new one in time, and put it beside the old one or in its place"
            ),
        };
        tracing::warn!(
            identity,
            route,
            listener,
            credential,
            days,
            "{what} of {holder} {said}"
        );
    }
}

fn labels(holder: &SecretOwner, credential: Arc<str>) -> CredentialLabels {
    CredentialLabels {
        // An empty label is the same as none.
        identity: holder.identity().unwrap_or_default().into(),
        credential,
    }
}

/// An expiry, and what was logged about it.
#[derive(Debug, Clone, Default)]
struct Course {
    end: Option<SystemTime>,
    /// The step that was reached when it was last looked at.
    reached: Option<usize>,
    /// When each step was logged.
    logged: [Option<Instant>; STEPS],
}

impl Course {
    /// The step to log now, if there is one. Each is logged when it is reached; a wall clock that jumps back and forth
    /// reaches one repeatedly, so none is logged twice within a day of the monotonic clock.
    fn step(&mut self, now: SystemTime, at: Instant) -> Option<usize> {
        let before = self.reached;
        self.reached = step_of(self.end?, now);
        let step = self
            .reached
            .filter(|step| before.is_none_or(|before| before < *step))?;
        let logged = self.logged.get_mut(step)?;
        if logged.is_some_and(|logged| at.saturating_duration_since(logged) < DAY) {
            return None;
        }
        *logged = Some(at);
        Some(step)
    }
}

/// The last step that was reached: one of the days, or the end.
fn step_of(end: SystemTime, now: SystemTime) -> Option<usize> {
    step_to(&DAYS, end, now)
}

/// The same with other days.
pub(crate) fn step_to(days: &[u32], end: SystemTime, now: SystemTime) -> Option<usize> {
    let left = end.duration_since(now).unwrap_or_default();
    if left.is_zero() {
        return Some(days.len());
    }
    days.iter().rposition(|days| left <= DAY * *days)
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
    use std::time::{Duration, SystemTime};

    use tokio::runtime::Handle;
    use tokio::time::Instant;

    use super::{Course, DAY, DAYS, Dated, PERIOD, Watch, days_left};
    use crate::counters::Counters;
    use crate::model::{clock, locked};
    use crate::secrets::owner::SecretOwner;
    use crate::secrets::rereading::{Followed, Rereader, Verdict};

    fn course(end: SystemTime) -> Course {
        Course {
            end: Some(end),
            ..Course::default()
        }
    }

    #[test]
    fn each_step_is_logged_once_on_the_way_to_the_expiry() {
        let (start, at) = (clock::wall(), Instant::now());
        let end = start + 90 * DAY;
        let mut course = course(end);
        let mut logged = Vec::new();
        let mut passed = Duration::ZERO;
        while passed < 95 * DAY {
            if course.step(start + passed, at + passed).is_some() {
                logged.push(days_left(end, start + passed));
            }
            passed += PERIOD;
        }
        assert_eq!(logged, [60, 30, 14, 7, 1, 0]);
    }

    #[test]
    fn a_start_close_to_the_expiry_logs_the_step_it_finds() {
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

    #[tokio::test]
    async fn what_is_followed_when_all_others_were_looked_at_is_logged_at_once() {
        let rereader = Rereader::new(Handle::current());
        let watch = rereader.watch();
        let followed = Followed {
            holder: SecretOwner::Gateway,
            what: "pepper",
            credential: "pepper".to_owned(),
            until: Some(clock::wall() + 20 * DAY),
        };
        let following = rereader.follow(followed, &[], |_| Verdict::Same);
        assert_eq!(watch.all()[0].course.lock().unwrap().reached, Some(1));
        let until = Some(clock::wall() + 20 * DAY);
        let end = watch.all()[0].end();
        let same = watch.add(SecretOwner::Gateway, "pepper", end);
        let other = watch.add(SecretOwner::Gateway, "pepper", until);
        let reached = |dated: &Dated| locked(&dated.course).reached;
        assert_eq!(
            (reached(&same), reached(&other)),
            (Some(1), None),
            "a reload logs nothing again"
        );
        drop((following, same, other));
        assert!(watch.all().is_empty());
    }

    #[test]
    fn a_credential_that_is_used_no_more_leaves_the_gauges() {
        let (watch, counters) = (Watch::default(), Counters::new());
        let end = Some(clock::wall() + 20 * DAY);
        let holder = || SecretOwner::Identity("contoso".into());
        let (old, _new) = (watch.add(holder(), "old", end), watch.add(holder(), "new", end));
        watch.gauge(&counters);
        assert!(counters.render().contains("credential=\"old\""));
        drop(old);
        watch.gauge(&counters);
        let text = counters.render();
        assert!(
            !text.contains("credential=\"old\"") && text.contains("credential=\"new\""),
            "{text}"
        );
    }

    #[test]
    fn a_clock_that_jumps_to_and_fro_does_not_flood_the_log() {
        let (now, at) = (clock::wall(), Instant::now());
        let mut course = course(now + 20 * DAY);
        let mut logged = 0;
        for turn in 0..24 * 60 {
            let jump = if turn % 2 == 0 { 40 * DAY } else { Duration::ZERO };
            let look = course.step(now + jump, at + Duration::from_secs(60) * turn);
            logged += usize::from(look.is_some());
        }
        assert!((1..=2).contains(&logged), "{logged}");
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
