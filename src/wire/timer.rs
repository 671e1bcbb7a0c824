//! A timer for a deadline that moves with every request. Moving the deadline further away costs nothing: the
//! runtime's timer is reset only when it fires too early.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

/// A timer that gets its deadline with each poll.
#[derive(Debug, Default)]
pub struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready when the deadline has passed. The task may also be woken earlier, without harm.
    pub fn poll_until(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Timer;

    #[tokio::test(start_paused = true)]
    async fn it_ends_at_the_deadline_that_was_set_last() {
        let begin = Instant::now();
        let mut timer = Timer::default();
        for millis in [500, 100, 900, 901, 300] {
            let begin = Instant::now();
            let deadline = begin + Duration::from_millis(millis);
            poll_fn(|cx| timer.poll_until(cx, deadline)).await;
            assert_eq!(begin.elapsed().as_millis(), u128::from(millis));
        }
        assert_eq!(begin.elapsed().as_millis(), 2701);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_has_passed_ends_at_once() {
        let begin = Instant::now();
        let mut timer = Timer::default();
        tokio::time::advance(Duration::from_secs(1)).await;
        poll_fn(|cx| timer.poll_until(cx, begin)).await;
        assert_eq!(begin.elapsed(), Duration::from_secs(1));
    }
}
