//! The body of a request while it arrives, and how long its caller may take. Only time counts in which the caller is
//! waited for: as long as nobody asks for the next piece, because the trigger takes none, the caller may rest too.

use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use tokio::time::Instant;

use crate::flow::BodyError;
use crate::model::clock;
use crate::problem::Kind;
use crate::problem::Problem;
use crate::wire::Timer;

/// How long a caller may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Time for a whole held body, and between two pieces of a streamed one.
    pub timeout: Duration,
    /// Least bytes a second on average, if there is such a limit.
    pub rate_min: Option<NonZeroU64>,
    /// Time a caller may keep us waiting at first, whatever its rate.
    pub rate_grace: Duration,
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

/// A body that is arriving. Trailers end here: no trigger reads them, and nothing in them may count as a field of the
/// head.
pub(super) struct Arrival<B> {
    body: B,
    pace: Pace,
    /// Time that the caller may still keep us waiting. Waiting spends it, bytes earn it.
    left: Duration,
    waiting_since: Option<Instant>,
    /// When it must be whole.
    whole_by: Option<Instant>,
    timer: Timer,
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Arrival<B> {
    pub(super) fn new(body: B, pace: Pace) -> Self {
        Self {
            body,
            pace,
            left: pace.rate_grace,
            waiting_since: None,
            whole_by: None,
            timer: Timer::default(),
        }
    }

    /// The whole body must come in one time from now on.
    pub(super) fn hurry(&mut self) {
        self.whole_by = Some(clock::now() + self.pace.timeout);
    }

    /// Each piece has its own time again.
    pub(super) fn unhurry(&mut self) {
        self.whole_by = None;
    }

    pub(super) fn body(&self) -> &B {
        &self.body
    }

    /// The next piece; none at the end. Whoever asks for it waits for the caller from here on.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Stop>>> {
        loop {
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return self.wait(cx).map(|stop| Some(Err(stop))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(Err(error))) => {
                    let cause = crate::flow::describe(&*error);
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

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        let since = *self.waiting_since.get_or_insert_with(clock::now);
        let (mut deadline, mut stop) = match self.whole_by {
            Some(end) => (end, Stop::Late(self.pace.timeout)),
            None => (since + self.pace.timeout, Stop::Silent(self.pace.timeout)),
        };
        if let Some(rate) = self.pace.rate_min
            && since + self.left < deadline
        {
            deadline = since + self.left;
            stop = Stop::Slow(rate, self.pace.rate_grace);
        }
        std::task::ready!(self.timer.poll_until(cx, deadline));
        Poll::Ready(stop)
    }

    fn came(&mut self, bytes: u64) {
        let since = self.waiting_since.take();
        let Some(rate) = self.pace.rate_min else { return };
        if let Some(since) = since {
            let waited = clock::now().saturating_duration_since(since);
            self.left = self.left.saturating_sub(waited);
        }
        // Saved up without end, one quick megabyte would buy an hour of dripping.
        let most = self.pace.rate_grace.max(self.pace.timeout);
        let earned = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate);
        self.left = self.left.saturating_add(earned).min(most);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::num::NonZeroU64;
    use std::pin::Pin;
    use std::task::Context;
    use std::task::Poll;
    use std::time::Duration;

    use bytes::Bytes;
    use http_body::Body;
    use http_body::Frame;
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::Arrival;
    use super::Pace;
    use super::Stop;
    use crate::flow::BodyError;
    use crate::problem::Problem;

    /// A body of frames that the test sends.
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
        };
        (Caller(sender), Arrival::new(Frames(frames), pace))
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
    async fn without_a_rate_only_silence_counts() {
        let (caller, mut arrival) = arrival(0);
        let drip = tokio::spawn(caller.drips(1, TIMEOUT - Duration::from_secs(1)));
        assert_eq!(stop(&mut arrival).await, None);
        drip.abort();
        drop(drip.await);
        assert!(next(&mut arrival).await.is_none());
    }

    #[test]
    fn the_caller_is_told_the_rate() {
        let problem = Problem::from(&slow());
        assert_eq!(problem.kind().row().code, "body-timeout");
        let told = problem.told().unwrap();
        assert!(
            told.contains("100 bytes per second") && told.contains("5 s"),
            "{told}"
        );
    }
}
