//! What is fetched because of requests: each URL once at a time, remembered within a bound. Those who wait for a URL get the one
//! answer to it; what went well is kept for long, a failure for as long as a vendor takes to send again.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::{clock, locked};

/// URLs that are remembered. Far more than a vendor has certificates in use in all its regions.
const SLOTS_MAX: usize = 128;
/// How long a failure is remembered.
const FAILURE_KEPT: Duration = Duration::from_secs(15);

/// Why something was not fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FetchFailed {
    /// What is at the URL is of no use, and will be of none.
    Unfit(String),
    Unavailable(String),
    /// Too much was fetched; for so long nothing is.
    Limited(Duration),
}

pub(super) type Outcome<T> = Result<T, FetchFailed>;

pub(super) struct Fetches<T> {
    control: Handle,
    slots: Mutex<HashMap<String, Slot<T>>>,
}

/// URLs may contain what only we may know.
impl<T> fmt::Debug for Fetches<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fetches({})", locked(&self.slots).len())
    }
}

struct Slot<T> {
    answer: watch::Receiver<Option<Answer<T>>>,
    used: Instant,
}

#[derive(Clone)]
struct Answer<T> {
    outcome: Outcome<T>,
    until: Instant,
}

impl<T: Clone + Send + Sync + 'static> Fetches<T> {
    pub(super) fn new(control: Handle) -> Self {
        Self {
            control,
            slots: Mutex::default(),
        }
    }

    /// What is at this URL, and for how long that counts: as it is remembered, or fetched if that is permitted. It is fetched to
    /// its end also when nobody waits any more.
    pub(super) async fn at<F>(
        &self,
        url: &str,
        permit: impl FnOnce() -> Result<(), Duration>,
        fetch: impl FnOnce() -> F,
    ) -> Outcome<T>
    where
        F: Future<Output = Result<(T, Duration), FetchFailed>> + Send + 'static,
    {
        let mut answer = self.slot(url, permit, fetch)?;
        let failed = || FetchFailed::Unavailable("the gateway stopped to fetch it".to_owned());
        let answer = answer.wait_for(Option::is_some).await.map_err(|_| failed())?;
        answer.as_ref().ok_or_else(failed)?.outcome.clone()
    }

    fn slot<F>(
        &self,
        url: &str,
        permit: impl FnOnce() -> Result<(), Duration>,
        fetch: impl FnOnce() -> F,
    ) -> Outcome<watch::Receiver<Option<Answer<T>>>>
    where
        F: Future<Output = Result<(T, Duration), FetchFailed>> + Send + 'static,
    {
        let now = clock::now();
        let mut slots = locked(&self.slots);
        let earlier = slots.get_mut(url);
        let mut was_good = false;
        if let Some(slot) = earlier {
            if slot.counts(now) {
                slot.used = now;
                return Ok(slot.answer.clone());
            }
            was_good = slot.is_good();
        }
        // What was good is what the vendor uses: no stranger made it up, and it is due once in its time.
        if !was_good {
            permit().map_err(FetchFailed::Limited)?;
        }
        if !slots.contains_key(url) && !make_room(&mut slots, now) {
            return Err(FetchFailed::Limited(FAILURE_KEPT));
        }
        let (sender, answer) = watch::channel(None);
        let slot = Slot {
            answer: answer.clone(),
            used: now,
        };
        slots.insert(url.to_owned(), slot);
        let fetch = fetch();
        self.control.spawn(async move {
            let fetched = fetch.await;
            let kept = fetched.as_ref().map_or(FAILURE_KEPT, |(_, kept)| *kept);
            sender.send_replace(Some(Answer {
                outcome: fetched.map(|(found, _)| found),
                until: clock::now() + kept,
            }));
        });
        Ok(answer)
    }
}

impl<T> Slot<T> {
    /// Whether it is being fetched, or its answer still counts.
    fn counts(&self, now: Instant) -> bool {
        match &*self.answer.borrow() {
            Some(answer) => now < answer.until,
            None => self.answer.has_changed().is_ok(),
        }
    }

    fn is_good(&self) -> bool {
        matches!(&*self.answer.borrow(), Some(Answer { outcome: Ok(_), .. }))
    }

    fn is_over(&self) -> bool {
        self.answer.borrow().is_some() || self.answer.has_changed().is_err()
    }
}

/// Whether there is room for one more: what counts no more goes first, then failures, then what was not used for longest.
fn make_room<T>(slots: &mut HashMap<String, Slot<T>>, now: Instant) -> bool {
    if slots.len() < SLOTS_MAX {
        return true;
    }
    let over = slots.iter().filter(|(_, slot)| slot.is_over());
    let least = over.min_by_key(|(_, slot)| (slot.counts(now), slot.is_good(), slot.used));
    match least.map(|(url, _)| url.clone()) {
        Some(url) => slots.remove(&url).is_some(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures_util::future::join_all;
    use tokio::runtime::Handle;
    use tokio::sync::Notify;
    use tokio::time::advance;

    use super::{FAILURE_KEPT, FetchFailed, Fetches, SLOTS_MAX};
    use crate::model::locked;

    const DAY: Duration = Duration::from_secs(86_400);

    fn free() -> Result<(), Duration> {
        Ok(())
    }

    fn spent() -> Result<(), Duration> {
        Err(Duration::from_secs(7))
    }

    fn gone() -> FetchFailed {
        FetchFailed::Unavailable("down".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_url_is_fetched_once_for_all_who_wait() {
        let fetches = Fetches::new(Handle::current());
        let count = AtomicUsize::new(0);
        let go = Arc::new(Notify::new());
        let one = || {
            fetches.at("a", free, || {
                count.fetch_add(1, Ordering::Relaxed);
                let go = go.clone();
                async move {
                    go.notified().await;
                    Ok((1, DAY))
                }
            })
        };
        let all = join_all((0..10).map(|_| one()));
        let (all, ()) = tokio::join!(all, async { go.notify_one() });
        assert!(all.iter().all(|found| *found == Ok(1)));
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_needs_no_permission_and_neither_does_its_renewal() {
        let fetches = Fetches::new(Handle::current());
        let limited = Err(FetchFailed::Limited(Duration::from_secs(7)));
        assert_eq!(fetches.at("a", spent, || ready(Ok((1, DAY)))).await, limited);
        assert_eq!(fetches.at("a", free, || ready(Ok((1, DAY)))).await, Ok(1));
        assert_eq!(fetches.at("a", spent, || ready(Ok((2, DAY)))).await, Ok(1));
        advance(DAY).await;
        assert_eq!(fetches.at("a", spent, || ready(Ok((2, DAY)))).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_remembered_for_a_short_time() {
        let fetches = Fetches::new(Handle::current());
        assert_eq!(fetches.at("a", free, || ready(Err(gone()))).await, Err(gone()));
        assert_eq!(
            fetches.at("a", spent, || ready(Ok((1, DAY)))).await,
            Err(gone()),
            "not tried again"
        );
        advance(FAILURE_KEPT).await;
        assert_eq!(fetches.at("a", free, || ready(Ok((1, DAY)))).await, Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_goes_on_without_those_who_waited() {
        let fetches = Fetches::new(Handle::current());
        let go = Arc::new(Notify::new());
        let waited = go.clone();
        let first = fetches.at("a", free, || async move {
            waited.notified().await;
            Ok((1, DAY))
        });
        assert!(
            tokio::time::timeout(Duration::from_millis(1), first)
                .await
                .is_err()
        );
        go.notify_one();
        assert_eq!(fetches.at("a", spent, || ready(Ok((2, DAY)))).await, Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_that_panics_is_a_failure_and_blocks_nothing() {
        let fetches = Fetches::new(Handle::current());
        let broken = fetches.at("a", free, || async { panic!("a mistake in a library") });
        let broken: Result<i32, _> = broken.await;
        assert!(matches!(broken, Err(FetchFailed::Unavailable(_))), "{broken:?}");
        assert_eq!(fetches.at("a", free, || ready(Ok((1, DAY)))).await, Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_failures_displace_nothing_good() {
        let fetches = Fetches::new(Handle::current());
        for number in 0..SLOTS_MAX / 2 {
            let url = format!("good-{number}");
            assert_eq!(
                fetches.at(&url, free, || ready(Ok((number, DAY)))).await,
                Ok(number)
            );
        }
        for number in 0..10_000 {
            let url = format!("bad-{number}");
            assert_eq!(fetches.at(&url, free, || ready(Err(gone()))).await, Err(gone()));
        }
        assert_eq!(locked(&fetches.slots).len(), SLOTS_MAX);
        for number in 0..SLOTS_MAX / 2 {
            let url = format!("good-{number}");
            assert_eq!(fetches.at(&url, spent, || ready(Err(gone()))).await, Ok(number));
        }
        for number in 0..SLOTS_MAX {
            let url = format!("slow-{number}");
            let slow = fetches.at(&url, free, pending);
            assert!(
                tokio::time::timeout(Duration::from_millis(1), slow)
                    .await
                    .is_err()
            );
        }
        let more = fetches.at("more", free, || ready(Ok((1, DAY)))).await;
        assert_eq!(more, Err(FetchFailed::Limited(FAILURE_KEPT)), "all are under way");
    }
}
