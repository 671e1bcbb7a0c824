//! One limit with its state: it can be tested, taken from, and given back to. The arithmetic (generic cell
//! rate algorithm) is governor's; `mod.rs` decides which limits apply to a request.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{NotUntil, Quota, RateLimiter};
use tokio::time::Instant;

use crate::model::clock;
use crate::settings::Rate;

// Governor counts nanoseconds in 64 bits, which last for 584 years, and adds unchecked, so interval times
// burst must stay below a quarter of them. No limit that anybody could notice is this slow.
const INTERVAL_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);
const SPAN_NANOS_MAX: u64 = u64::MAX / 4;

/// Time since the limits were built. Tokio's clock is monotonic, so setting the wall clock does not affect
/// any limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticks(Instant);

impl Ticks {
    pub(super) fn start() -> Self {
        Self(clock::now())
    }
}

impl Clock for Ticks {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(
            u64::try_from(clock::now().saturating_duration_since(self.0).as_nanos()).unwrap_or(u64::MAX),
        )
    }
}

/// The operation on a cell. It is passed as governor's key, so that one limiter with one start time serves
/// both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    /// Test whether taking would succeed, without changing anything.
    Probe,
    Take,
}

/// A governor with our own state store.
pub(super) type Governor<K, S> = RateLimiter<K, S, Ticks, NoOpMiddleware<Nanos>>;

/// How long until a refused request could pass.
pub(super) fn wait(refusal: &NotUntil<Nanos>, clock: &Ticks) -> Duration {
    refusal.wait_time_from(clock.now())
}

/// Time in which one request is replenished.
pub(super) fn interval(rate: &Rate) -> Duration {
    let interval = rate.per.checked_div(rate.requests).unwrap_or(rate.per);
    interval.clamp(Duration::from_nanos(1), INTERVAL_MAX)
}

/// The rate in governor's terms.
pub(super) fn quota(rate: &Rate) -> Quota {
    let interval = interval(rate);
    let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
    let burst_max = u32::try_from(SPAN_NANOS_MAX / nanos).unwrap_or(u32::MAX);
    let burst = NonZeroU32::new(rate.burst.min(burst_max)).unwrap_or(NonZeroU32::MIN);
    // Governor refuses a zero interval, which `interval` never returns.
    let quota = Quota::with_period(interval).unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN));
    quota.allow_burst(burst)
}

/// Applies governor's decision to one cell; in `Take` it retries until no other thread has interfered.
///
/// A cell stores the theoretical arrival time of the next request in nanoseconds; zero means unused.
pub(super) fn decide_on<T, E>(
    cell: &AtomicU64,
    mode: Mode,
    decide: impl Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
) -> Result<T, E> {
    let mut seen = cell.load(Ordering::Acquire);
    loop {
        let known = (seen > 0).then(|| Nanos::new(seen));
        let (answer, next) = decide(known)?;
        if mode == Mode::Probe {
            return Ok(answer);
        }
        match cell.compare_exchange_weak(seen, next.as_u64(), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Ok(answer),
            Err(changed) => seen = changed,
        }
    }
}

/// The state of one limit.
#[derive(Debug, Clone, Default)]
struct Cell(Arc<AtomicU64>);

impl StateStore for Cell {
    type Key = Mode;

    fn measure_and_replace<T, F, E>(&self, mode: &Mode, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        decide_on(&self.0, *mode, decide)
    }
}

/// A limit of one caller, one route or the gateway. It is lock-free.
#[derive(Debug)]
pub(super) struct Limiter {
    governor: Governor<Mode, Cell>,
    cell: Cell,
    clock: Ticks,
    interval_nanos: u64,
}

impl Limiter {
    pub(super) fn new(rate: &Rate, clock: Ticks) -> Self {
        let cell = Cell::default();
        let interval_nanos = u64::try_from(interval(rate).as_nanos()).unwrap_or(u64::MAX);
        Self {
            governor: RateLimiter::new(quota(rate), cell.clone(), clock),
            cell,
            clock,
            interval_nanos,
        }
    }

    /// Whether a request would pass now, or how long it would have to wait.
    pub(super) fn probe(&self) -> Result<(), Duration> {
        self.governor
            .check_key(&Mode::Probe)
            .map_err(|refusal| wait(&refusal, &self.clock))
    }

    /// Takes one request, or returns how long it would have to wait.
    pub(super) fn take(&self) -> Result<(), Duration> {
        self.governor
            .check_key(&Mode::Take)
            .map_err(|refusal| wait(&refusal, &self.clock))
    }

    /// Gives back what one [`Limiter::take`] took.
    pub(super) fn give_back(&self) {
        let earlier = |arrival: u64| Some(arrival.saturating_sub(self.interval_nanos));
        // The closure always returns a value, so this cannot fail.
        let _ = self
            .cell
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, earlier);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::{Limiter, Ticks, interval};
    use crate::settings::Rate;

    const SECOND: Duration = Duration::from_secs(1);

    fn limiter(requests: u32, per: Duration, burst: u32) -> Limiter {
        Limiter::new(&Rate { requests, per, burst }, Ticks::start())
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
    async fn requests_are_replenished_one_by_one_up_to_the_burst() {
        let limiter = limiter(10, 10 * SECOND, 5);
        assert_eq!(taken(&limiter), 5);
        advance(2 * SECOND).await;
        assert_eq!(taken(&limiter), 2);
        advance(3600 * SECOND).await;
        assert_eq!(taken(&limiter), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_passes_after_the_reported_wait() {
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
            let limiter = Limiter::new(&rate, Ticks::start());
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
    fn requests_are_replenished_no_faster_than_each_nanosecond_and_no_slower_than_each_leap_year() {
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
