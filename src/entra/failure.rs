//! Failures of what the platform gives: endpoints of managed identities, files with federated tokens. Each is a whole
//! sentence that names the identity, the place, the reason and who mends it.

use std::time::Duration;

use crate::entra::cache::{REFUSED_PAUSE, REFUSED_PAUSE_MAX};
use crate::model::{FixedBy, Outlook};

/// Pauses after a failure that may pass: tries at 0, 2, 6, 14 and 30 seconds, as Microsoft documents them for IMDS
/// ("How to use managed identities for Azure resources on an Azure VM to acquire an access token"). A gateway goes on
/// after that, and meets the end of an update, which takes up to 70 seconds, with its eighth try.
const PASSING_PAUSE: Duration = Duration::from_secs(2);
/// The last of those pauses.
const PASSING_PAUSE_MAX: Duration = Duration::from_secs(16);

/// Why the platform gives no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The sentence for the log.
    pub sentence: String,
    /// What was seen, and where.
    pub seen: String,
    /// What it means and what to do, in sentences.
    pub cause: String,
    /// Who must mend it.
    pub fixed_by: FixedBy,
    /// A word for metrics.
    pub label: &'static str,
    /// Whether time helps.
    pub outlook: Outlook,
    /// The wait that was asked for.
    pub wait: Option<Duration>,
}

/// What went wrong, without the identity it happened to.
pub(crate) struct Trouble {
    /// A word for metrics.
    pub(crate) label: &'static str,
    /// What was seen.
    pub(crate) seen: String,
    /// What it means and what to do, in sentences.
    pub(crate) cause: String,
    /// Who must mend it.
    pub(crate) fixed_by: FixedBy,
    /// Whether time helps.
    pub(crate) outlook: Outlook,
}

impl Trouble {
    /// Whether somebody has to mend something; with the cause in sentences.
    pub(crate) fn lasting(
        label: &'static str,
        seen: impl Into<String>,
        cause: impl Into<String>,
        fixed_by: FixedBy,
    ) -> Self {
        Self {
            label,
            seen: seen.into(),
            cause: cause.into(),
            fixed_by,
            outlook: Outlook::AfterFix,
        }
    }

    /// Something that passes by itself, as a rule.
    pub(crate) fn passing(
        label: &'static str,
        seen: impl Into<String>,
        cause: impl Into<String>,
        fixed_by: FixedBy,
    ) -> Self {
        Self {
            outlook: Outlook::Transient,
            ..Self::lasting(label, seen, cause, fixed_by)
        }
    }

    /// The failure of `identity` at `place`.
    pub(crate) fn of(self, identity: &str, place: &str, wait: Option<Duration>) -> Failure {
        let sentence = format!(
            "No token for identity {identity} ({place}): {}. {} {}; {}.",
            self.seen,
            self.cause,
            self.fixed_by.must_fix(),
            self.outlook.clause()
        );
        Failure {
            sentence,
            seen: format!("{place}: {}", self.seen),
            cause: self.cause,
            fixed_by: self.fixed_by,
            label: self.label,
            outlook: self.outlook,
            wait,
        }
    }
}

impl Failure {
    /// First and longest pause before the next try, and the pause that was asked for.
    pub(crate) fn pauses(&self) -> (Duration, Duration, Option<Duration>) {
        match self.outlook {
            Outlook::AfterFix => (REFUSED_PAUSE, REFUSED_PAUSE_MAX, None),
            Outlook::Transient | Outlook::BackOff => (PASSING_PAUSE, PASSING_PAUSE_MAX, self.wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::runtime::Handle;
    use tokio::time::Instant;

    use super::Trouble;
    use crate::counters::Counters;
    use crate::entra::answer::TokenError;
    use crate::entra::cache::Slot;
    use crate::entra::grants::Fetch;
    use crate::model::{FixedBy, IdentityName};

    /// When a source that always fails like this is asked within `time`, in seconds from the start.
    async fn asked(trouble: fn() -> Trouble, wait: Option<Duration>, time: u64) -> Vec<u64> {
        let asked: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let fetch: Fetch = Arc::new({
            let asked = asked.clone();
            move || {
                asked.lock().unwrap().push(Instant::now());
                let failure = trouble().of("contoso", "here", wait);
                Box::pin(async move { Err(TokenError::Platform(Box::new(failure))) })
            }
        });
        let begun = Instant::now();
        let name = IdentityName::parse("contoso").unwrap();
        let slot = Slot::new(name, fetch, Handle::current(), Counters::new());
        let minder = tokio::time::timeout(Duration::from_secs(time), slot.mind());
        assert!(minder.await.is_err(), "a minder never ends");
        let asked = asked.lock().unwrap();
        asked.iter().map(|at| (*at - begun).as_secs()).collect()
    }

    fn passing() -> Trouble {
        Trouble::passing("refused", "it answered 410", "", FixedBy::Nobody)
    }

    #[tokio::test(start_paused = true)]
    async fn a_passing_failure_is_tried_again_at_the_documented_times_and_past_the_longest_update() {
        assert_eq!(asked(passing, None, 79).await, [0, 2, 6, 14, 30, 46, 62, 78]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_asked_for_is_kept() {
        let wait = Some(Duration::from_secs(20));
        assert_eq!(asked(passing, wait, 41).await, [0, 20, 40]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_somebody_must_mend_is_asked_for_rarely() {
        let lasting = || Trouble::lasting("refused", "it answered 400", "", FixedBy::Operator);
        assert_eq!(asked(lasting, None, 100).await, [0, 5, 15, 35, 75]);
    }
}
