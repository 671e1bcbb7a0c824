//! The rest of a request's body over HTTP/2 that nobody reads any more, because its answer did not need it. Many callers
//! send their whole body before they look at the answer, and take a reset of the stream for a failure although it says
//! NO_ERROR (RFC 9113 section 8.1). So once the answer is on its way the rest is read and thrown away, within bounds of
//! bytes, time and number; what is beyond them is dropped, for which h2 resets the stream with NO_ERROR.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body::Frame;
use http_body::SizeHint;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::flow::BodyError;
use crate::server::Phase;
use crate::server::connection::Draining;
use crate::server::connection::told_to_stop;

/// A caller may send what nobody reads for so long, as with nginx's `lingering_time`.
const TIME: Duration = Duration::from_secs(30);
/// And may pause for so long, as with nginx's `lingering_timeout`.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Time that is left once the gateway stops.
const BRIEF_TIME: Duration = Duration::from_secs(2);
/// Bytes of one body: more than any trigger takes (100 MB), so no caller has more to send.
const BYTES_MAX: u64 = 128 * 1024 * 1024;

/// What the bodies of one connection share.
pub(super) struct Discarding {
    /// Bodies that are being discarded.
    now: AtomicUsize,
    phase: watch::Receiver<Phase>,
}

impl Discarding {
    pub(super) fn new(phase: watch::Receiver<Phase>) -> Arc<Self> {
        Arc::new(Self {
            now: AtomicUsize::new(0),
            phase,
        })
    }
}

/// A part of the number of bodies that are discarded at one time, returned when dropped.
struct Place(Arc<Discarding>);

impl Place {
    fn take(shared: &Arc<Discarding>, most: usize) -> Option<Self> {
        let before = shared.now.fetch_add(1, Ordering::Relaxed);
        let place = Self(shared.clone());
        (before < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What happens to the rest of a body.
enum State {
    /// The body is being read, and no answer is on its way.
    Wanted,
    /// Nobody reads it, and no answer is on its way.
    Left(Incoming),
    /// The answer is on its way; so many bodies of this connection may be discarded.
    Answered(usize),
    /// It is being discarded.
    Discarded(AbortHandle),
    /// The stream ends without a whole answer.
    GivenUp,
}

/// The rest of one body, for the request that it belongs to.
pub(super) struct Rest {
    state: Mutex<State>,
    shared: Arc<Discarding>,
}

impl Rest {
    /// A body for the gateway to read, and what becomes of it afterwards.
    pub(super) fn of(body: Incoming, shared: &Arc<Discarding>) -> (Arriving, Arc<Self>) {
        let rest = Arc::new(Self {
            state: Mutex::new(State::Wanted),
            shared: shared.clone(),
        });
        let arriving = Arriving {
            body: Some(body),
            rest: rest.clone(),
        };
        (arriving, rest)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the answer is on its way: from now on what nobody reads is discarded, unless that is done to `most`
    /// bodies of this connection already.
    pub(super) fn answered(&self, most: usize) {
        let mut state = self.state();
        let before = std::mem::replace(&mut *state, State::Answered(most));
        if let State::Left(body) = before {
            *state = self.discard(body, most);
        }
    }

    /// Notes that the stream ends without a whole answer: the caller shall see that.
    pub(super) fn give_up(&self) {
        let before = std::mem::replace(&mut *self.state(), State::GivenUp);
        if let State::Discarded(task) = before {
            task.abort();
        }
    }

    fn unread(&self, body: Incoming) {
        if body.is_end_stream() {
            return;
        }
        let mut state = self.state();
        match *state {
            State::Wanted => *state = State::Left(body),
            State::Answered(most) => *state = self.discard(body, most),
            State::Left(_) | State::Discarded(_) | State::GivenUp => {}
        }
    }

    fn discard(&self, body: Incoming, most: usize) -> State {
        // Outside a runtime (it is shutting down) nothing can be read any more.
        let (Some(place), Ok(runtime)) = (Place::take(&self.shared, most), Handle::try_current()) else {
            return State::GivenUp;
        };
        let task = runtime.spawn(discard(body, place));
        State::Discarded(task.abort_handle())
    }
}

async fn discard(mut body: Incoming, place: Place) {
    let mut phase = place.0.phase.clone();
    let mut deadline = Instant::now() + TIME;
    let mut draining = Draining::No;
    let mut bytes = 0;
    while bytes < BYTES_MAX {
        let until = deadline.min(Instant::now() + PAUSE_MAX);
        tokio::select! {
            biased;
            () = told_to_stop(&mut phase, draining) => {
                draining = Draining::Yes;
                deadline = deadline.min(Instant::now() + BRIEF_TIME);
            }
            frame = timeout_at(until, body.frame()) => match frame {
                Ok(Some(Ok(frame))) => bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
                _ => return,
            }
        }
    }
}

/// A body that is arriving. What is unread of it when it is dropped goes to its [`Rest`].
pub(super) struct Arriving {
    body: Option<Incoming>,
    rest: Arc<Rest>,
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = std::task::ready!(Pin::new(body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            self.rest.unread(body);
        }
    }
}
