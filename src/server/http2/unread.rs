//! The rest of a request's body over HTTP/2 that nobody reads any more, because its answer did not need it. Many callers
//! send their whole body before they look at the answer, and take a reset of the stream for a failure although it says
//! NO_ERROR (RFC 9113 section 8.1). So once the answer is on its way the rest is read and thrown away, within bounds of
//! bytes, time and number; what is beyond them is dropped, for which h2 resets the stream with NO_ERROR.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::model::locked;
use crate::server::linger::{BRIEF_TIME, LINGER_BYTES_MAX, LINGER_TIME, PAUSE_MAX};
use crate::wire::{BodyError, describe};

/// Bodies of one connection that are discarded at one time; more are dropped. Each keeps its stream open, and a caller
/// whose bodies were all refused must have streams left for its next requests.
const AT_ONCE_MAX: usize = 32;
/// How h2 describes a stream that it resets for what came on it, such as a body that ends before its announced length.
const H2_MALFORMED: &str = "stream error detected: unspecific protocol error";

/// The bodies of one connection that are being discarded. The task of the connection
/// reads them: a task for each would cost more memory than all else that h2 keeps of the stream.
#[derive(Default)]
pub(super) struct Discarding {
    discards: Mutex<Discards>,
    cut_short: AtomicU32,
}

#[derive(Default)]
struct Discards {
    bodies: Vec<Discard>,
    deadline: Option<Instant>,
    /// The connection's.
    waker: Option<Waker>,
}

struct Discard {
    body: Incoming,
    rest: Arc<Rest>,
    bytes: u64,
    began: Instant,
    moved: Instant,
}

impl Discard {
    /// Whether it is over, and then, whether its caller has ended it early.
    fn poll(&mut self, deadline: Option<Instant>, cx: &mut Context<'_>) -> Poll<bool> {
        if self.rest.is_given_up() {
            return Poll::Ready(false);
        }
        let now = Instant::now();
        while let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(describe(&error).contains(H2_MALFORMED)),
                None => return Poll::Ready(false),
            };
            self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            self.moved = now;
            if self.bytes > LINGER_BYTES_MAX {
                return Poll::Ready(false);
            }
        }
        let is_late = now >= self.began + LINGER_TIME
            || now >= self.moved + PAUSE_MAX
            || deadline.is_some_and(|deadline| now >= deadline);
        if is_late {
            Poll::Ready(false)
        } else {
            Poll::Pending
        }
    }
}

impl Discarding {
    /// Reads what has arrived, and drops what is over.
    pub(super) fn poll(&self, cx: &mut Context<'_>) {
        let discards = &mut *locked(&self.discards);
        let deadline = discards.deadline;
        let is_known = |waker: &Waker| waker.will_wake(cx.waker());
        if !discards.waker.as_ref().is_some_and(is_known) {
            discards.waker = Some(cx.waker().clone());
        }
        discards.bodies.retain_mut(|discard| {
            let polled = discard.poll(deadline, cx);
            if polled == Poll::Ready(true) {
                self.cut_short.fetch_add(1, Ordering::Relaxed);
            }
            polled.is_pending()
        });
    }

    /// Bodies so far that their callers ended early because they had their answer. For h2 such a request is malformed.
    pub(super) fn cut_short(&self) -> u32 {
        self.cut_short.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self) -> usize {
        locked(&self.discards).bodies.len()
    }

    /// Notes that the connection is to end.
    pub(super) fn hurry(&self) {
        locked(&self.discards).deadline = Some(Instant::now() + BRIEF_TIME);
    }

    fn add(&self, body: Incoming, rest: &Arc<Rest>) {
        let now = Instant::now();
        let mut discards = locked(&self.discards);
        if discards.bodies.len() >= AT_ONCE_MAX {
            return;
        }
        discards.bodies.push(Discard {
            body,
            rest: rest.clone(),
            bytes: 0,
            began: now,
            moved: now,
        });
        if let Some(waker) = &discards.waker {
            waker.wake_by_ref();
        }
    }
}

/// What happens to the rest of a body.
enum State {
    /// The body is being read, and no answer is on its way.
    Wanted,
    /// Nobody reads it, and no answer is on its way.
    Left(Incoming),
    Answered,
    /// The stream ends without a whole answer.
    GivenUp,
}

/// The rest of one body, for the request that it belongs to.
pub(super) struct Rest(Mutex<State>);

impl Rest {
    /// A body for the gateway to read, whose first piece may have been taken, and what becomes of it afterwards.
    pub(super) fn of(
        body: Incoming,
        first: Option<hyper::Result<Frame<Bytes>>>,
        discarding: &Arc<Discarding>,
    ) -> (Arriving, Arc<Self>) {
        let rest = Arc::new(Self(Mutex::new(State::Wanted)));
        let arriving = Arriving {
            first,
            body: Some(body),
            rest: rest.clone(),
            discarding: discarding.clone(),
        };
        (arriving, rest)
    }

    /// Notes that the answer is on its way: from now on what nobody reads is discarded.
    pub(super) fn answered(self: &Arc<Self>, discarding: &Discarding) {
        let before = std::mem::replace(&mut *locked(&self.0), State::Answered);
        if let State::Left(body) = before {
            discarding.add(body, self);
        }
    }

    /// Notes that the stream ends without a whole answer: the caller shall see that.
    pub(super) fn give_up(&self) {
        *locked(&self.0) = State::GivenUp;
    }

    fn is_given_up(&self) -> bool {
        matches!(*locked(&self.0), State::GivenUp)
    }
}

/// A body that is arriving. What is unread of it when it is dropped goes to its [`Rest`].
pub(super) struct Arriving {
    first: Option<hyper::Result<Frame<Bytes>>>,
    body: Option<Incoming>,
    rest: Arc<Rest>,
    discarding: Arc<Discarding>,
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first.map_err(BodyError::from)));
        }
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = std::task::ready!(Pin::new(body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint);
        let first = self
            .first
            .as_ref()
            .and_then(|first| first.as_ref().ok()?.data_ref());
        match (hint.exact(), first) {
            (Some(bytes), Some(first)) => SizeHint::with_exact(bytes + first.len() as u64),
            _ => hint,
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        let mut state = locked(&self.rest.0);
        match *state {
            State::Wanted => *state = State::Left(body),
            State::Answered => {
                drop(state);
                self.discarding.add(body, &self.rest);
            }
            State::Left(_) | State::GivenUp => {}
        }
    }
}
