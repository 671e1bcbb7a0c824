//! A call to a trigger that outlives its caller: once the body has been handed over the flow may be running, so the
//! answer is awaited and logged although nobody is there to take it. Before that, a caller that leaves ends the call.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use http::Response;
use tokio::runtime::Handle;

use crate::flow::Progress;
use crate::gateway::answer::AnswerBody;

type Call = Pin<Box<dyn Future<Output = Response<AnswerBody>> + Send>>;

/// A call that goes on in a task of its own when it is dropped after its body was handed over.
pub(super) struct Detach {
    call: Option<Call>,
    progress: Arc<Progress>,
}

impl Detach {
    /// Wraps a call; `progress` tells whether its body was handed over.
    pub(super) fn new(call: Call, progress: Arc<Progress>) -> Self {
        Self {
            call: Some(call),
            progress,
        }
    }
}

impl Future for Detach {
    type Output = Response<AnswerBody>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(call) = &mut self.call else {
            return Poll::Pending;
        };
        let answer = std::task::ready!(call.as_mut().poll(cx));
        self.call = None;
        Poll::Ready(answer)
    }
}

impl Drop for Detach {
    fn drop(&mut self) {
        let Some(call) = self.call.take().filter(|_| self.progress.is_done()) else {
            return;
        };
        self.progress.abandon();
        // Outside a runtime (it is shutting down) nothing can be awaited any more.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { call.await.into_body().read_out().await });
        }
    }
}
