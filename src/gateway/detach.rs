//! A call to a trigger that outlives its caller: once the body has been handed over the flow may be running, so the
//! answer is awaited and logged although nobody is there to take it. Before that, a caller that leaves ends the call.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;

use http::Response;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::flow::Progress;
use crate::gateway::answer::AnswerBody;

type Call = Pin<Box<dyn Future<Output = Response<AnswerBody>> + Send>>;

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
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// One of them.
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

/// A call that goes on in a task of its own when it is dropped after its body was handed over.
pub(super) struct Detach<'a> {
    call: Option<Call>,
    handed_over: &'a AtomicBool,
    progress: Arc<Progress>,
    departed: Arc<Departed>,
}

impl<'a> Detach<'a> {
    /// Wraps a call; `progress` tells whether its body was handed over, and `handed_over` is told.
    pub(super) fn new(
        call: Call,
        progress: Arc<Progress>,
        departed: &Arc<Departed>,
        handed_over: &'a AtomicBool,
    ) -> Self {
        Self {
            call: Some(call),
            handed_over,
            progress,
            departed: departed.clone(),
        }
    }
}

impl Future for Detach<'_> {
    type Output = Response<AnswerBody>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(call) = &mut self.call else {
            return Poll::Pending;
        };
        let polled = call.as_mut().poll(cx);
        if self.progress.is_done() {
            self.handed_over.store(true, Ordering::Relaxed);
        }
        let answer = std::task::ready!(polled);
        self.call = None;
        Poll::Ready(answer)
    }
}

impl Drop for Detach<'_> {
    fn drop(&mut self) {
        let Some(call) = self.call.take().filter(|_| self.progress.is_done()) else {
            return;
        };
        self.progress.abandon();
        // Outside a runtime (it is shutting down) nothing can be awaited any more.
        if let Ok(runtime) = Handle::try_current() {
            let orphan = Orphan::of(&self.departed);
            runtime.spawn(async move {
                call.await.into_body().read_out().await;
                drop(orphan);
            });
        }
    }
}
