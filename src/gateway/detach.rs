//! A request that outlives its caller: once the body has been handed over the flow may be running, so the
//! answer is awaited and logged although nobody is there to take it. Before that, a caller that leaves ends it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use http::Response;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::flow::Progress;
use crate::gateway::answer::AnswerBody;

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
    progress: Arc<Progress>,
    departed: Arc<Departed>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

impl Call {
    /// Wraps the work; `progress` says whether the body was handed over.
    pub(super) fn new(work: Work, progress: Arc<Progress>, departed: &Arc<Departed>) -> Self {
        Self {
            work: Some(work),
            progress,
            departed: departed.clone(),
        }
    }

    /// Whether the whole body was handed over to the trigger: a run may have started.
    pub fn is_handed_over(&self) -> bool {
        self.progress.is_done()
    }
}

impl Future for Call {
    type Output = Response<AnswerBody>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.work else {
            return Poll::Pending;
        };
        let answer = std::task::ready!(work.as_mut().poll(cx));
        self.work = None;
        Poll::Ready(answer)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let Some(work) = self.work.take().filter(|_| self.progress.is_done()) else {
            return;
        };
        self.progress.abandon();
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
