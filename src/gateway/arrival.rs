//! The body of a request while it arrives, and how long its caller may take. Only time counts in which the caller is
//! waited for: as long as nobody asks for the next piece, because the trigger takes none, the caller may rest too. So may
//! all callers of an HTTP/2 connection whose window is full of bodies that triggers do not take.

use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use tokio::time::Instant;

use crate::model::clock;
use crate::problem::{Kind, Problem};
use crate::wire::{BodyError, Timer};

/// How often a stalled connection is checked again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The time in which the other side of an HTTP/2 connection could send nothing, because it holds as much as it may of
/// what triggers have not taken yet. The reader of the connection sets it.
#[derive(Debug)]
pub struct Standstill {
    born: Instant,
    /// Microseconds after `born`, plus one; 0 while it does not stand still.
    since: AtomicU64,
    /// Microseconds before that.
    before: AtomicU64,
}

impl Default for Standstill {
    fn default() -> Self {
        Self {
            born: clock::now(),
            since: AtomicU64::new(0),
            before: AtomicU64::new(0),
        }
    }
}

impl Standstill {
    pub fn begin(&self) {
        self.since.store(self.stamp(clock::now()) + 1, Ordering::Relaxed);
    }

    /// It has ended, if it had begun.
    pub fn end(&self) {
        let time = self.time(clock::now()).as_micros();
        let time = u64::try_from(time).unwrap_or(u64::MAX);
        self.before.store(time, Ordering::Relaxed);
        self.since.store(0, Ordering::Relaxed);
    }

    pub fn is_on(&self) -> bool {
        self.since.load(Ordering::Relaxed) > 0
    }

    /// All of it until this moment.
    fn time(&self, now: Instant) -> Duration {
        let before = self.before.load(Ordering::Relaxed);
        let since = self.since.load(Ordering::Relaxed).checked_sub(1);
        let current = since.map_or(0, |since| self.stamp(now).saturating_sub(since));
        Duration::from_micros(before.saturating_add(current))
    }

    fn stamp(&self, now: Instant) -> u64 {
        let micros = now.saturating_duration_since(self.born).as_micros();
        u64::try_from(micros).unwrap_or(u64::MAX - 1)
    }
}

/// A moment, and for how long the connection had stood still by then.
#[derive(Debug, Clone, Copy)]
struct Moment {
    at: Instant,
    stood: Duration,
}

impl Moment {
    /// When so much time will have passed that counts, if the connection goes on now.
    fn plus(self, patience: Duration, now: Self) -> Instant {
        self.at + patience + now.stood.saturating_sub(self.stood)
    }

    /// The time until another moment, as far as it counts.
    fn until(self, now: Self) -> Duration {
        let passed = now.at.saturating_duration_since(self.at);
        passed.saturating_sub(now.stood.saturating_sub(self.stood))
    }
}

/// How long a caller may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Time for a whole held body, and between two pieces of a streamed one.
    pub timeout: Duration,
    /// Least bytes a second on average, if there is such a limit.
    pub rate_min: Option<NonZeroU64>,
    /// Time a caller may keep us waiting at first, whatever its rate.
    pub rate_grace: Duration,
    /// Bytes a second by which a streamed body must be whole, if there is such a limit.
    pub stream_rate_min: Option<NonZeroU64>,
}

/// Why a body stopped arriving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// It was not whole in its time.
    Late(Duration),
    /// Nothing more came for too long.
    Silent(Duration),
    /// It came at less than this rate, for longer than the grace.
    Slow(NonZeroU64, Duration),
    /// It was streamed and not whole in the time that this rate and the grace give to its size.
    Overdue {
        /// Bytes a second.
        rate: NonZeroU64,
        grace: Duration,
        /// Its size, or as much of it as had come.
        bytes: u64,
    },
    /// The caller went, or its framing is wrong.
    Broken(String),
}

impl From<&Stop> for Problem {
    fn from(stop: &Stop) -> Self {
        let detail = match stop {
            Stop::Late(timeout) => format!("the body was not whole within {} s", timeout.as_secs_f64()),
            Stop::Silent(timeout) => {
                format!("no more of the body arrived within {} s", timeout.as_secs_f64())
            }
            Stop::Slow(rate, grace) => format!(
                "the body came at less than {rate} bytes per second, for longer than the {} s that are tolerated",
                grace.as_secs_f64()
            ),
            Stop::Overdue { rate, grace, bytes } => format!(
                "{bytes} bytes of the body have {:.1} s to arrive ({rate} bytes per second, and {} s besides), and it \
                 was not whole by then; send it faster, or in several smaller requests",
                (*grace + time_for(*bytes, *rate)).as_secs_f64(),
                grace.as_secs_f64()
            ),
            Stop::Broken(cause) => {
                return Self::from(Kind::MalformedRequest)
                    .detail("the body broke off or its framing is wrong")
                    .because(cause.clone());
            }
        };
        Self::from(Kind::BodyTimeout)
            .detail(detail)
            .wait(Duration::from_secs(1))
    }
}

fn time_for(bytes: u64, rate: NonZeroU64) -> Duration {
    Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate)
}

/// A body that is arriving. Trailers end here: no trigger reads them, and nothing in them may count as a field of the
/// head.
pub(super) struct Arrival<B> {
    body: B,
    pace: Pace,
    /// The length that its head states.
    stated: Option<u64>,
    /// What has come, and for how long the caller has been waited for until then.
    bytes: u64,
    waited: Duration,
    /// Time that the caller may still keep us waiting. Waiting spends it, bytes earn it.
    left: Duration,
    waiting_since: Option<Moment>,
    /// Since when it has one time for the whole.
    hurried_since: Option<Moment>,
    standstill: Option<Arc<Standstill>>,
    timer: Timer,
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Arrival<B> {
    pub(super) fn new(body: B, stated: Option<u64>, pace: Pace, standstill: Option<Arc<Standstill>>) -> Self {
        Self {
            body,
            pace,
            stated,
            bytes: 0,
            waited: Duration::ZERO,
            left: pace.rate_grace,
            waiting_since: None,
            hurried_since: None,
            standstill,
            timer: Timer::default(),
        }
    }

    /// The whole body must come in one time from now on.
    pub(super) fn hurry(&mut self) {
        self.hurried_since = Some(self.now());
    }

    /// Each piece has its own time again.
    pub(super) fn unhurry(&mut self) {
        self.hurried_since = None;
    }

    pub(super) fn body(&self) -> &B {
        &self.body
    }

    /// The next piece; none at the end. From here on the request waits for the caller.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Stop>>> {
        loop {
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return self.wait(cx).map(|stop| Some(Err(stop))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => {
                    let cause = crate::wire::describe(&*error);
                    return Poll::Ready(Some(Err(Stop::Broken(cause))));
                }
                Poll::Ready(Some(Ok(frame))) => frame,
            };
            if let Ok(data) = frame.into_data() {
                self.came(data.len() as u64);
                return Poll::Ready(Some(Ok(data)));
            }
        }
    }

    fn now(&self) -> Moment {
        let at = clock::now();
        let stood = self.standstill.as_ref().map(|standstill| standstill.time(at));
        Moment {
            at,
            stood: stood.unwrap_or_default(),
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        let now = self.now();
        let since = *self.waiting_since.get_or_insert(now);
        let timeout = self.pace.timeout;
        let (mut deadline, mut stop) = match self.hurried_since {
            Some(begin) => (begin.plus(timeout, now), Stop::Late(timeout)),
            None => (since.plus(timeout, now), Stop::Silent(timeout)),
        };
        let spent = since.plus(self.left, now);
        if let Some(rate) = self.pace.rate_min
            && spent < deadline
        {
            deadline = spent;
            stop = Stop::Slow(rate, self.pace.rate_grace);
        }
        if let Some(rate) = self.pace.stream_rate_min
            && self.hurried_since.is_none()
        {
            let grace = self.pace.rate_grace;
            let bytes = self.stated.unwrap_or(self.bytes);
            let left = (grace + time_for(bytes, rate)).saturating_sub(self.waited);
            let due = since.plus(left, now);
            if due < deadline {
                deadline = due;
                stop = Stop::Overdue { rate, grace, bytes };
            }
        }
        if self
            .standstill
            .as_ref()
            .is_some_and(|standstill| standstill.is_on())
        {
            // Nothing runs out, and nobody says when the connection goes on.
            deadline = deadline.max(now.at + LOOK_AGAIN);
        }
        std::task::ready!(self.timer.poll_until(cx, deadline));
        Poll::Ready(stop)
    }

    fn came(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        let waited = self.waiting_since.take().map(|since| since.until(self.now()));
        let waited = waited.unwrap_or_default();
        self.waited += waited;
        let Some(rate) = self.pace.rate_min else { return };
        // Saved up without end, one quick megabyte would buy an hour of dripping; and what is held must not buy a time
        // in which it takes memory and nothing comes.
        let most = match self.hurried_since {
            Some(_) => self.pace.rate_grace,
            None => self.pace.rate_grace.max(self.pace.timeout),
        };
        let left = self.left.saturating_sub(waited);
        self.left = left.saturating_add(time_for(bytes, rate)).min(most);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::num::NonZeroU64;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use bytes::Bytes;
    use http_body::{Body, Frame};
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::{Arrival, LOOK_AGAIN, Pace, Standstill, Stop};
    use crate::problem::Problem;
    use crate::wire::BodyError;

    struct Frames(mpsc::UnboundedReceiver<Frame<Bytes>>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            self.0.poll_recv(cx).map(|frame| frame.map(Ok))
        }
    }

    const RATE: u64 = 100;
    const GRACE: Duration = Duration::from_secs(5);
    const TIMEOUT: Duration = Duration::from_secs(30);

    fn slow() -> Stop {
        Stop::Slow(NonZeroU64::new(RATE).unwrap(), GRACE)
    }

    struct Caller(mpsc::UnboundedSender<Frame<Bytes>>);

    impl Caller {
        fn sends(&self, bytes: u64) {
            let data = Bytes::from(vec![b'x'; usize::try_from(bytes).unwrap()]);
            self.0.send(Frame::data(data)).unwrap();
        }

        /// Sends so many bytes each period, until nobody wants more.
        async fn drips(self, bytes: u64, period: Duration) {
            loop {
                tokio::time::sleep(period).await;
                let data = Bytes::from(vec![b'x'; usize::try_from(bytes).unwrap()]);
                if self.0.send(Frame::data(data)).is_err() {
                    return;
                }
            }
        }
    }

    fn arrival(rate_min: u64) -> (Caller, Arrival<Frames>) {
        let (sender, frames) = mpsc::unbounded_channel();
        let pace = Pace {
            timeout: TIMEOUT,
            rate_min: NonZeroU64::new(rate_min),
            rate_grace: GRACE,
            stream_rate_min: None,
        };
        (Caller(sender), Arrival::new(Frames(frames), None, pace, None))
    }

    /// One whose whole must come at this rate, and that says its length or not.
    fn streamed(stream_rate_min: u64, stated: Option<u64>) -> (Caller, Arrival<Frames>) {
        let (caller, mut arrival) = arrival(0);
        arrival.pace.stream_rate_min = NonZeroU64::new(stream_rate_min);
        arrival.stated = stated;
        (caller, arrival)
    }

    fn overdue(bytes: u64) -> Stop {
        Stop::Overdue {
            rate: NonZeroU64::new(RATE).unwrap(),
            grace: GRACE,
            bytes,
        }
    }

    /// One over a connection that may stand still.
    fn held_up(rate_min: u64) -> (Caller, Arrival<Frames>, Arc<Standstill>) {
        let (caller, mut arrival) = arrival(rate_min);
        let standstill = Arc::new(Standstill::default());
        arrival.standstill = Some(standstill.clone());
        (caller, arrival, standstill)
    }

    /// Lets the connection stand still for this time, from then on.
    fn stands_still(standstill: &Arc<Standstill>, after: Duration, time: Duration) {
        let standstill = standstill.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            standstill.begin();
            tokio::time::sleep(time).await;
            standstill.end();
        });
    }

    async fn next(arrival: &mut Arrival<Frames>) -> Option<Result<Bytes, Stop>> {
        poll_fn(|cx| arrival.poll(cx)).await
    }

    /// Why it stopped, and when; at most a minute is waited.
    async fn stop(arrival: &mut Arrival<Frames>) -> Option<(Stop, Duration)> {
        let began = Instant::now();
        while began.elapsed() < 2 * TIMEOUT {
            match next(arrival).await {
                Some(Err(stop)) => return Some((stop, began.elapsed())),
                Some(Ok(_)) => {}
                None => return None,
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_nothing_has_the_grace() {
        let (_caller, mut arrival) = arrival(RATE);
        assert_eq!(stop(&mut arrival).await, Some((slow(), GRACE)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_a_little_too_slow_is_stopped_when_the_grace_is_spent() {
        let (caller, mut arrival) = arrival(RATE);
        tokio::spawn(caller.drips(RATE / 2, Duration::from_secs(1)));
        // Each second costs half a second of it, and the last one is not whole.
        let (why, after) = stop(&mut arrival).await.unwrap();
        assert_eq!(why, slow());
        assert!(
            after > GRACE && after <= 2 * GRACE,
            "half the rate spends the grace twice as slowly: {after:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_keeps_the_rate_is_never_stopped() {
        let (caller, mut arrival) = arrival(RATE);
        tokio::spawn(caller.drips(RATE * 4, Duration::from_secs(4)));
        assert_eq!(stop(&mut arrival).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_one_by_one_count_like_many() {
        let (caller, mut arrival) = arrival(RATE);
        tokio::spawn(caller.drips(1, Duration::from_secs(1) / 100));
        assert_eq!(stop(&mut arrival).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_of_nothing_earn_nothing() {
        let (caller, mut arrival) = arrival(RATE);
        tokio::spawn(caller.drips(0, Duration::from_millis(100)));
        let (why, after) = stop(&mut arrival).await.unwrap();
        assert_eq!(why, slow());
        assert!(after <= GRACE + Duration::from_millis(100), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn trailers_earn_nothing_and_are_not_passed_on() {
        let (caller, mut arrival) = arrival(RATE);
        caller.0.send(Frame::trailers(http::HeaderMap::new())).unwrap();
        assert_eq!(stop(&mut arrival).await, Some((slow(), GRACE)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_streamed_body_must_be_whole_within_the_grace_and_the_time_of_its_size() {
        let (caller, mut arrival) = streamed(RATE, Some(20 * RATE));
        tokio::spawn(caller.drips(RATE / 2, Duration::from_secs(1)));
        let stopped = stop(&mut arrival).await;
        assert_eq!(
            stopped,
            Some((overdue(20 * RATE), GRACE + Duration::from_secs(20)))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_streamed_body_that_begins_slowly_may_still_be_whole_in_time() {
        let (caller, mut arrival) = streamed(RATE, Some(20 * RATE));
        tokio::spawn(async move {
            tokio::time::sleep(GRACE + Duration::from_secs(19)).await;
            caller.sends(20 * RATE);
        });
        assert_eq!(stop(&mut arrival).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_streamed_body_without_a_length_must_keep_the_rate_beyond_the_grace() {
        let (caller, mut arrival) = streamed(RATE, None);
        tokio::spawn(caller.drips(RATE * 2 / 5, Duration::from_secs(1)));
        // Seven pieces come, which buy 2.8 s beyond the grace; the eighth is due at 8 s.
        let expected = (overdue(7 * RATE * 2 / 5), GRACE + Duration::from_millis(2800));
        assert_eq!(stop(&mut arrival).await, Some(expected));
        let (caller, mut arrival) = streamed(RATE, None);
        tokio::spawn(caller.drips(RATE, Duration::from_secs(1)));
        assert_eq!(stop(&mut arrival).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_asks_is_no_part_of_the_time_of_a_streamed_body() {
        let (caller, mut arrival) = streamed(RATE, Some(20 * RATE));
        for _ in 0..10 {
            caller.sends(1);
            assert!(next(&mut arrival).await.unwrap().is_ok());
            // The trigger takes nothing, so the next piece is not asked for.
            tokio::time::advance(10 * TIMEOUT).await;
        }
        let began = Instant::now();
        let stopped = stop(&mut arrival).await.unwrap().0;
        assert_eq!(stopped, overdue(20 * RATE));
        assert_eq!(began.elapsed(), GRACE + Duration::from_secs(20));
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_of_streamed_bodies_is_not_that_of_held_ones() {
        let (caller, mut arrival) = streamed(RATE, Some(RATE));
        arrival.hurry();
        tokio::spawn(caller.drips(1, Duration::from_secs(1)));
        assert_eq!(stop(&mut arrival).await, Some((Stop::Late(TIMEOUT), TIMEOUT)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_body_that_stalls_has_the_grace_however_quick_it_was() {
        let (caller, mut arrival) = arrival(RATE);
        arrival.hurry();
        caller.sends(RATE * 3600);
        assert!(next(&mut arrival).await.unwrap().is_ok());
        assert_eq!(stop(&mut arrival).await, Some((slow(), GRACE)));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_asks_does_not_count() {
        let (caller, mut arrival) = arrival(RATE);
        for _ in 0..10 {
            caller.sends(1);
            assert!(next(&mut arrival).await.unwrap().is_ok());
            // The trigger takes nothing, so the next piece is not asked for.
            tokio::time::advance(10 * TIMEOUT).await;
        }
        let began = Instant::now();
        let (why, after) = stop(&mut arrival).await.unwrap();
        assert_eq!(why, slow());
        assert!(after >= GRACE && began.elapsed() < 2 * GRACE, "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_quick_caller_saves_lasts_no_longer_than_the_timeout() {
        let (caller, mut arrival) = arrival(RATE);
        caller.sends(RATE * 3600);
        assert!(next(&mut arrival).await.unwrap().is_ok());
        tokio::spawn(caller.drips(1, Duration::from_secs(1)));
        let (why, after) = stop(&mut arrival).await.unwrap();
        assert_eq!(why, slow());
        assert!(
            after >= TIMEOUT && after < TIMEOUT + Duration::from_secs(2),
            "{after:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn silence_after_much_ends_with_the_timeout() {
        let (caller, mut arrival) = arrival(RATE);
        caller.sends(RATE * 3600);
        assert!(next(&mut arrival).await.unwrap().is_ok());
        assert_eq!(stop(&mut arrival).await, Some((Stop::Silent(TIMEOUT), TIMEOUT)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_in_a_hurry_must_be_whole_in_time_at_any_rate() {
        let (caller, mut arrival) = arrival(RATE);
        arrival.hurry();
        tokio::spawn(caller.drips(RATE * 2, Duration::from_secs(1)));
        assert_eq!(stop(&mut arrival).await, Some((Stop::Late(TIMEOUT), TIMEOUT)));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_connection_stands_still_does_not_count() {
        for (rate, hurried, why, patience) in [
            (RATE, false, slow(), GRACE),
            (0, false, Stop::Silent(TIMEOUT), TIMEOUT),
            (0, true, Stop::Late(TIMEOUT), TIMEOUT),
        ] {
            for after in [Duration::ZERO, GRACE / 2] {
                let (_caller, mut arrival, standstill) = held_up(rate);
                if hurried {
                    arrival.hurry();
                }
                stands_still(&standstill, after, TIMEOUT / 2);
                let stopped = stop(&mut arrival).await;
                let expected = patience + TIMEOUT / 2;
                let (explained, took) = stopped.unwrap();
                assert_eq!(explained, why, "from {after:?}");
                let late = took.saturating_sub(expected);
                assert!(took >= expected && late <= LOOK_AGAIN, "{why:?}: {took:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_after_a_standstill_costs_only_the_time_beside_it() {
        let (caller, mut arrival, standstill) = held_up(RATE);
        stands_still(&standstill, GRACE / 5, TIMEOUT / 2);
        stands_still(&standstill, TIMEOUT, TIMEOUT / 2);
        tokio::spawn(async move {
            tokio::time::sleep(TIMEOUT / 2 + 2 * GRACE / 5).await;
            caller.sends(1);
            std::future::pending::<()>().await;
        });
        assert_eq!(next(&mut arrival).await.unwrap().unwrap().len(), 1);
        let left = arrival.left;
        // A byte buys a hundredth of a second.
        assert_eq!(left, GRACE * 3 / 5 + Duration::from_secs(1) / RATE as u32);
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_connection_stands_still_nothing_runs_out() {
        let (_caller, mut arrival, standstill) = held_up(RATE);
        arrival.hurry();
        standstill.begin();
        assert_eq!(
            tokio::time::timeout(100 * TIMEOUT, next(&mut arrival)).await.ok(),
            None
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_only_silence_counts() {
        let (caller, mut arrival) = arrival(0);
        let drip = tokio::spawn(caller.drips(1, TIMEOUT - Duration::from_secs(1)));
        assert_eq!(stop(&mut arrival).await, None);
        drip.abort();
        drop(drip.await);
        assert!(next(&mut arrival).await.is_none());
    }

    #[test]
    fn a_body_that_is_overdue_names_rate_grace_and_what_to_do() {
        let problem = Problem::from(&overdue(2000));
        assert_eq!(problem.kind().row().code, "body-timeout");
        let explained = problem.explanation().unwrap();
        for part in [
            "2000 bytes",
            "25.0 s",
            "100 bytes per second",
            "5 s besides",
            "send it faster",
        ] {
            assert!(explained.contains(part), "{explained}");
        }
    }

    #[test]
    fn the_caller_is_told_the_rate() {
        let problem = Problem::from(&slow());
        assert_eq!(problem.kind().row().code, "body-timeout");
        let explained = problem.explanation().unwrap();
        assert!(
            explained.contains("100 bytes per second") && explained.contains("5 s"),
            "{explained}"
        );
    }
}
