//! A rate, and the state that it is applied to: a cell can be tested, taken from, and given back to. The arithmetic
//! (generic cell rate algorithm) is governor's. A cell does not store its rate, so that its state outlives settings that
//! change the rate. `limits.rs` decides which limits apply to a request.

use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use crate::model::clock;
use crate::settings::Rate;

// Governor adds nanoseconds in 64 bits, which last for 584 years, so interval times burst must stay below a
// quarter of them. No limit that anybody could notice is this slow.
const INTERVAL_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);
const SPAN_NANOS_MAX: u64 = u64::MAX / 4;

/// Nanoseconds since the limits were built. Tokio's clock is monotonic, so setting the wall clock does not
/// affect any limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticks(Instant);

impl Ticks {
    pub(super) fn start() -> Self {
        Self(clock::now())
    }

    pub(super) fn now(self) -> u64 {
        nanos(clock::now().saturating_duration_since(self.0))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The clock that governor reads. A limiter counts from its construction, but state that outlives it needs one beginning
/// for all: so this clock reads zero until it runs.
#[derive(Debug)]
struct SharedStart {
    ticks: Ticks,
    runs: AtomicBool,
}

impl Clock for SharedStart {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        match self.runs.load(Ordering::Relaxed) {
            true => Nanos::new(self.ticks.now()),
            false => Nanos::new(0),
        }
    }
}

/// The state that governor decides on, as its key: a theoretical arrival time in nanoseconds, zero if there is none yet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Arrival(std::cell::Cell<u64>);

impl Hash for Arrival {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.get().hash(state);
    }
}

/// Hands governor the state that comes with the question, and puts the next one in its place.
#[derive(Debug)]
struct FromKey;

impl StateStore for FromKey {
    type Key = Arrival;

    fn measure_and_replace<T, F, E>(&self, arrival: &Arrival, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let known = arrival.0.get();
        let (answer, next) = decide((known > 0).then(|| Nanos::new(known)))?;
        arrival.0.set(next.as_u64());
        Ok(answer)
    }
}

/// Time in which one request is replenished.
fn interval(rate: &Rate) -> Duration {
    let interval = rate.per.checked_div(rate.requests).unwrap_or(rate.per);
    interval.clamp(Duration::from_nanos(1), INTERVAL_MAX)
}

/// A rate in the form that governor needs.
#[derive(Debug)]
pub(super) struct Pace {
    governor: RateLimiter<Arrival, FromKey, SharedStart, NoOpMiddleware<Nanos>>,
    interval_nanos: u64,
}

impl Pace {
    pub(super) fn of(rate: &Rate, ticks: Ticks) -> Self {
        let interval = interval(rate);
        let interval_nanos = nanos(interval);
        let burst_max = u32::try_from(SPAN_NANOS_MAX / interval_nanos.max(1)).unwrap_or(u32::MAX);
        let burst = NonZeroU32::new(rate.burst.min(burst_max)).unwrap_or(NonZeroU32::MIN);
        // Governor refuses an interval of zero, which `interval` never returns.
        let quota = Quota::with_period(interval).unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN));
        let clock = SharedStart {
            ticks,
            runs: AtomicBool::new(false),
        };
        let governor = RateLimiter::new(quota.allow_burst(burst), FromKey, clock);
        governor.clock().runs.store(true, Ordering::Relaxed);
        Self {
            governor,
            interval_nanos,
        }
    }

    /// The theoretical arrival time after one more request, or how long until one could pass.
    pub(super) fn next(&self, arrival: u64) -> Result<u64, Duration> {
        let arrival = Arrival(std::cell::Cell::new(arrival));
        match self.governor.check_key(&arrival) {
            Ok(()) => Ok(arrival.0.get()),
            Err(refusal) => Err(refusal.wait_time_from(self.governor.clock().now())),
        }
    }
}

/// The state of one limit: the theoretical arrival time of the next request. It is lock-free.
#[derive(Debug, Default)]
pub(super) struct Cell(AtomicU64);

impl Cell {
    /// Whether a request would pass now, or how long it would have to wait.
    pub(super) fn probe(&self, pace: &Pace) -> Result<(), Duration> {
        pace.next(self.0.load(Ordering::Acquire)).map(drop)
    }

    /// Takes one request, or returns how long it would have to wait.
    pub(super) fn take(&self, pace: &Pace) -> Result<(), Duration> {
        let mut seen = self.0.load(Ordering::Acquire);
        loop {
            let next = pace.next(seen)?;
            match self
                .0
                .compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Ok(()),
                Err(changed) => seen = changed,
            }
        }
    }

    /// Gives back what one [`Cell::take`] took.
    pub(super) fn give_back(&self, pace: &Pace) {
        let earlier = |arrival: u64| Some(arrival.saturating_sub(pace.interval_nanos));
        // The closure always returns a value, so this cannot fail.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, earlier);
    }

    #[cfg(test)]
    pub(super) fn is_fresh(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::{Cell, Pace, Ticks, interval};
    use crate::settings::Rate;

    const SECOND: Duration = Duration::from_secs(1);

    /// A rate and its state.
    struct Limiter(Pace, Cell);

    impl Limiter {
        fn new(rate: &Rate) -> Self {
            Self(Pace::of(rate, Ticks::start()), Cell::default())
        }

        fn probe(&self) -> Result<(), Duration> {
            self.1.probe(&self.0)
        }

        fn take(&self) -> Result<(), Duration> {
            self.1.take(&self.0)
        }

        fn give_back(&self) {
            self.1.give_back(&self.0);
        }
    }

    fn limiter(requests: u32, per: Duration, burst: u32) -> Limiter {
        Limiter::new(&Rate { requests, per, burst })
    }

    fn taken(limiter: &Limiter) -> usize {
        (0..1_000).take_while(|_| limiter.take().is_ok()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_at_once_and_no_more() {
        let limiter = limiter(10, 60 * SECOND, 7);
        assert_eq!(taken(&limiter), 7);
        assert_eq!(limiter.take(), Err(6 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_earned_back_one_by_one_up_to_the_burst() {
        let limiter = limiter(10, 10 * SECOND, 5);
        assert_eq!(taken(&limiter), 5);
        advance(2 * SECOND).await;
        assert_eq!(taken(&limiter), 2);
        advance(3600 * SECOND).await;
        assert_eq!(taken(&limiter), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_as_long_as_asked_passes() {
        let limiter = limiter(3, 10 * SECOND, 1);
        assert_eq!(taken(&limiter), 1);
        let wait = limiter.probe().unwrap_err();
        advance(wait - Duration::from_millis(1)).await;
        assert!(limiter.take().is_err());
        advance(Duration::from_millis(1)).await;
        assert!(limiter.take().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_takes_nothing() {
        let limiter = limiter(1, SECOND, 3);
        for _ in 0..100 {
            assert!(limiter.probe().is_ok());
        }
        assert_eq!(taken(&limiter), 3);
        assert_eq!(limiter.probe(), Err(SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_back_can_be_taken_again() {
        let limiter = limiter(1, SECOND, 3);
        assert_eq!(taken(&limiter), 3);
        limiter.give_back();
        assert_eq!(taken(&limiter), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn giving_back_never_exceeds_the_burst() {
        let limiter = limiter(1, SECOND, 3);
        for _ in 0..10 {
            limiter.give_back();
        }
        assert_eq!(taken(&limiter), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn extreme_rates_do_not_end_the_process() {
        for rate in [
            Rate {
                requests: u32::MAX,
                per: Duration::from_nanos(1),
                burst: u32::MAX,
            },
            Rate {
                requests: 1,
                per: Duration::MAX,
                burst: u32::MAX,
            },
            Rate {
                requests: 0,
                per: Duration::ZERO,
                burst: 0,
            },
        ] {
            let limiter = Limiter::new(&rate);
            assert!(limiter.take().is_ok(), "{rate:?}");
            let _ = limiter.take();
        }
    }

    #[test]
    fn threads_together_take_no_more_than_the_burst() {
        let limiter = limiter(1, 3600 * SECOND, 1_000);
        let taken: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1_000).filter(|_| limiter.take().is_ok()).count()))
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(taken, 1_000);
    }

    #[test]
    fn requests_are_earned_no_faster_than_each_nanosecond_and_no_slower_than_each_leap_year() {
        let rate = |requests, per| Rate {
            requests,
            per,
            burst: 1,
        };
        assert_eq!(interval(&rate(4, SECOND)), SECOND / 4);
        assert_eq!(interval(&rate(0, Duration::ZERO)), Duration::from_nanos(1));
        assert_eq!(interval(&rate(u32::MAX, SECOND)), Duration::from_nanos(1));
        assert_eq!(interval(&rate(1, Duration::MAX)), 366 * 86_400 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_bounded_where_the_arithmetic_ends() {
        let slowest = limiter(1, Duration::MAX, u32::MAX);
        // A quarter of the 584 years that 64 bits of nanoseconds last.
        assert_eq!(taken(&slowest), 145);
    }
}
