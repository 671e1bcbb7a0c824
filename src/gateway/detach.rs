//! A request that outlives its caller, or its caller's patience: once the body has been handed over the flow may be running, so
//! the answer is awaited and logged although nobody is there to take it. Before that, a caller that leaves ends it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use http::Response;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::gateway::answer::{self, AnswerBody};
use crate::gateway::course::Course;

type Work = Pin<Box<dyn Future<Output = Response<AnswerBody>> + Send>>;

/// Calls whose callers have gone. A gateway that stops waits for them as for all others.
#[derive(Debug, Default)]
pub(super) struct Departed {
    count: AtomicUsize,
    ended: Notify,
}

impl Departed {
    /// Ends when none is left.
    pub(super) async fn none(&self) {
        loop {
            let ended = self.ended.notified();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    }
}

struct Orphan(Arc<Departed>);

impl Orphan {
    fn of(departed: &Arc<Departed>) -> Self {
        departed.count.fetch_add(1, Ordering::AcqRel);
        Self(departed.clone())
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.ended.notify_waiters();
    }
}

/// A request on its way. Dropped after its body was handed over, it goes on in a task of its own.
pub struct Call {
    work: Option<Work>,
    course: Arc<Course>,
    departed: Arc<Departed>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("course", &self.course)
            .finish_non_exhaustive()
    }
}

impl Call {
    /// Wraps the work; `course` says whether the body was handed over.
    pub(super) fn new(work: Work, course: Arc<Course>, departed: &Arc<Departed>) -> Self {
        Self {
            work: Some(work),
            course,
            departed: departed.clone(),
        }
    }

    /// Whether the whole body was handed over to the trigger: a run may have started.
    pub fn is_handed_over(&self) -> bool {
        self.course.is_done()
    }

    /// Ends the work in a task of its own: its answer is read to the end, so that its line has how it ended.
    fn detach(&self, work: impl Future<Output = Response<AnswerBody>> + Send + 'static) {
        // Outside a runtime (it is shutting down) nothing can be awaited any more.
        if let Ok(runtime) = Handle::try_current() {
            let orphan = Orphan::of(&self.departed);
            runtime.spawn(async move {
                work.await.into_body().read_out().await;
                drop(orphan);
            });
        }
    }
}

impl Future for Call {
    type Output = Response<AnswerBody>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.work else {
            return Poll::Pending;
        };
        let polled = work.as_mut().poll(cx);
        if let Some(early) = self.course.take_early() {
            match (polled, self.work.take()) {
                (Poll::Ready(answer), _) => self.detach(std::future::ready(answer)),
                (Poll::Pending, Some(work)) => self.detach(work),
                (Poll::Pending, None) => {}
            }
            return Poll::Ready(answer::of_bytes(early));
        }
        let answer = std::task::ready!(polled);
        self.work = None;
        Poll::Ready(answer)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(work) = self.work.take().filter(|_| self.course.is_done()) {
            self.course.abandon();
            self.detach(work);
        }
    }
}
