//! The body of a request: held whole when it is small, streamed when it is large, and counted in both cases; how long
//! it may take is for `arrival.rs`. It also drops the body of a refused request.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::{HeaderMap, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::flow::{Arriving, Load, Outgoing};
use crate::gateway::arrival::{Arrival, Pace, Standstill, Stop};
use crate::gateway::budget::{Budget, Owner, Reservation};
use crate::gateway::course::Course;
use crate::problem::{Kind, Problem};
use crate::wire::BodyError;

/// The body of a request as it comes from the connection.
pub enum Inbound {
    /// Whole already: it came with its head, or there is none.
    Whole(Bytes),
    /// Arriving over HTTP/1.
    Http1(Pin<Box<dyn Body<Data = Bytes, Error = BodyError> + Send>>),
    /// Arriving over HTTP/2, beside others that may take all its room.
    Http2(
        Pin<Box<dyn Body<Data = Bytes, Error = BodyError> + Send>>,
        Arc<Standstill>,
    ),
}

/// No body.
impl Default for Inbound {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(bytes) => write!(f, "Whole({} bytes)", bytes.len()),
            Self::Http1(_) => f.write_str("Http1"),
            Self::Http2(..) => f.write_str("Http2"),
        }
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Whole(bytes) => {
                let bytes = Some(std::mem::take(bytes)).filter(|bytes| !bytes.is_empty());
                Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Http1(body) | Self::Http2(body, _) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Http1(body) | Self::Http2(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Http1(body) | Self::Http2(body, _) => body.size_hint(),
        }
    }
}

/// Bytes of a refused body that are taken before the answer, of those that have arrived.
const DISCARDED_BYTES_MAX: u64 = 64 * 1024;

#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub bytes_max: u64,
    /// What sets that, in the words of a refusal.
    pub set_by: &'static str,
    pub hold_bytes_max: usize,
    pub is_read: IsRead,
    pub pace: Pace,
}

/// Whether a route does more with bodies than to send them on, for which they must be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IsRead {
    Yes,
    No,
}

impl Rules {
    /// The largest body, and the setting that says so.
    fn limit(&self) -> (u64, &'static str) {
        let held = self.hold_bytes_max as u64;
        match self.is_read == IsRead::Yes && held < self.bytes_max {
            true => (held, "`bodies.hold_size_max`"),
            false => (self.bytes_max, self.set_by),
        }
    }

    /// The same for a body that is read here whatever the route does with it: none is streamed.
    pub(super) fn whole(mut self) -> Self {
        self.hold_bytes_max = usize::try_from(self.limit().0).unwrap_or(usize::MAX);
        self
    }
}

/// A body that may go on.
pub(super) enum Payload {
    /// Whole in memory; it can be sent again.
    Held(Bytes, Option<Reservation>),
    Streamed(Box<Streamed>),
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(bytes, _) => write!(f, "Held({} bytes)", bytes.len()),
            Self::Streamed(_) => f.write_str("Streamed"),
        }
    }
}

/// The length that a request states. The connection has made sure that it is one number.
pub(super) fn stated_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Why a body cannot be accepted, known before any of it is read.
pub(super) fn check_length(headers: &HeaderMap, rules: &Rules) -> Result<(), Problem> {
    match stated_length(headers) {
        Some(length) if length > rules.limit().0 => Err(too_large(Some(length), rules.limit())),
        _ => Ok(()),
    }
}

fn too_large(length: Option<u64>, (bytes_max, setting): (u64, &str)) -> Problem {
    let detail = match length {
        Some(length) => format!("the body has {length} bytes; this address accepts {bytes_max}"),
        None => format!("the body has more than the {bytes_max} bytes that this address accepts"),
    };
    let cause = format!("{setting} is {bytes_max} bytes");
    Problem::from(Kind::BodyTooLarge).detail(detail).because(cause)
}

impl Payload {
    /// A body that came with its head, if it may be held.
    ///
    /// # Errors
    /// [`Kind::GatewayBusy`].
    pub(super) fn whole(
        body: &mut Inbound,
        rules: &Rules,
        budget: &Arc<Budget>,
        owner: Owner<'_>,
        progress: &Course,
    ) -> Result<Option<Self>, Problem> {
        let Inbound::Whole(bytes) = body else {
            return Ok(None);
        };
        if bytes.is_empty() {
            return Ok(Some(Self::Held(Bytes::new(), None)));
        }
        if bytes.len() as u64 > rules.bytes_max.min(rules.hold_bytes_max as u64) {
            return Ok(None);
        }
        let mut reservation = Reservation::of(budget, owner.holder);
        reservation.grow(bytes.len(), owner)?;
        progress.moved(bytes.len() as u64);
        Ok(Some(Self::Held(std::mem::take(bytes), Some(reservation))))
    }

    /// Reads a body up to the hold size; what is larger goes on as a stream.
    ///
    /// # Errors
    /// [`Kind::BodyTooLarge`], [`Kind::BodyTimeout`], [`Kind::GatewayBusy`], [`Kind::MalformedRequest`].
    pub(super) async fn read(
        body: Inbound,
        headers: &HeaderMap,
        rules: Rules,
        budget: &Arc<Budget>,
        owner: Owner<'_>,
        progress: &Arc<Course>,
    ) -> Result<Self, Problem> {
        let held_max = rules.hold_bytes_max as u64;
        if body.is_end_stream() {
            return Ok(Self::Held(Bytes::new(), None));
        }
        let stated = stated_length(headers);
        let standstill = match &body {
            Inbound::Http2(_, standstill) => Some(standstill.clone()),
            Inbound::Whole(_) | Inbound::Http1(_) => None,
        };
        let mut arrival = Arrival::new(body, stated, rules.pace, standstill);
        if stated.is_some_and(|length| length > held_max) {
            let streamed = Streamed::new(Pieces::default(), arrival, stated, rules, progress);
            return Ok(Self::Streamed(Box::new(streamed)));
        }
        // Taken as bytes arrive: a caller that announces a body and sends none must not spend what others need.
        let mut reservation = Reservation::of(budget, owner.holder);
        arrival.hurry();
        let mut pieces = Pieces::default();
        while let Some(data) = poll_fn(|cx| arrival.poll(cx)).await {
            let data = data.map_err(|stop| Problem::from(&stop))?;
            reservation.grow(data.len(), owner)?;
            pieces.push(data);
            if pieces.bytes > rules.limit().0 {
                return Err(too_large(None, rules.limit()));
            }
            if pieces.bytes > held_max {
                arrival.unhurry();
                let mut streamed = Streamed::new(pieces, arrival, stated, rules, progress);
                streamed.reservation = Some(reservation);
                return Ok(Self::Streamed(Box::new(streamed)));
            }
        }
        let bytes = pieces.join();
        progress.moved(bytes.len() as u64);
        Ok(Self::Held(bytes, Some(reservation)))
    }

    /// What it is for the trigger's permits.
    pub(super) fn load(&self) -> Load {
        match self {
            Self::Held(..) => Load::Whole,
            Self::Streamed(_) => Load::Arriving,
        }
    }

    /// All of it, if it is held.
    pub(super) fn held(&self) -> Option<&Bytes> {
        match self {
            Self::Held(bytes, _) => Some(bytes),
            Self::Streamed(_) => None,
        }
    }

    /// The body to send, for the first time or, if it is held, once more.
    pub(super) fn outgoing(&mut self) -> Option<Outgoing> {
        match self {
            Self::Held(bytes, _) => Some(Outgoing::Held(bytes.clone())),
            Self::Streamed(streamed) => {
                let streamed = streamed.take()?;
                Some(Outgoing::Streamed(Box::pin(streamed)))
            }
        }
    }

    /// Keeps what counts for the trigger as long as the body is arriving, until it is whole.
    pub(super) fn hold(&mut self, arriving: Option<Arriving>) {
        if let Self::Streamed(streamed) = self {
            streamed.arriving = arriving;
        }
    }

    /// What ended a streamed body early, if something did.
    pub(super) fn fate(&self) -> Option<Arc<OnceLock<Ending>>> {
        match self {
            Self::Held(..) => None,
            Self::Streamed(streamed) => Some(streamed.ending.clone()),
        }
    }
}

/// Data of a body in the order of arrival. One piece stays as it came; more are copied together, because a small piece
/// keeps the whole buffer alive in which it arrived.
#[derive(Default)]
struct Pieces {
    only: Bytes,
    joined: BytesMut,
    bytes: u64,
}

impl Pieces {
    fn push(&mut self, data: Bytes) {
        self.bytes += data.len() as u64;
        if self.only.is_empty() && self.joined.is_empty() {
            self.only = data;
            return;
        }
        if self.joined.is_empty() {
            self.joined.extend_from_slice(&std::mem::take(&mut self.only));
        }
        self.joined.extend_from_slice(&data);
    }

    fn join(self) -> Bytes {
        if self.joined.is_empty() {
            self.only
        } else {
            self.joined.freeze()
        }
    }
}

/// Why a streamed body ended before its end.
#[derive(Debug, Clone)]
pub enum Ending {
    /// More bytes than the route accepts.
    TooLarge(u64, &'static str),
    Stopped(Stop),
}

impl From<&Ending> for Problem {
    fn from(ending: &Ending) -> Self {
        match ending {
            Ending::TooLarge(bytes_max, set_by) => too_large(None, (*bytes_max, set_by)),
            Ending::Stopped(stop) => stop.into(),
        }
    }
}

/// A body that goes on while it arrives, counted.
pub(super) struct Streamed {
    first: Bytes,
    arrival: Option<Arrival<Inbound>>,
    left: u64,
    bytes_max: u64,
    set_by: &'static str,
    stated: Option<u64>,
    progress: Arc<Course>,
    ending: Arc<OnceLock<Ending>>,
    reservation: Option<Reservation>,
    arriving: Option<Arriving>,
}

impl Streamed {
    fn new(
        first: Pieces,
        arrival: Arrival<Inbound>,
        stated: Option<u64>,
        rules: Rules,
        progress: &Arc<Course>,
    ) -> Self {
        Self {
            first: first.join(),
            arrival: Some(arrival),
            left: rules.bytes_max,
            bytes_max: rules.bytes_max,
            set_by: rules.set_by,
            stated,
            progress: progress.clone(),
            ending: Arc::default(),
            reservation: None,
            arriving: None,
        }
    }

    /// Moves the stream out; what stays behind knows only its ending.
    fn take(&mut self) -> Option<Self> {
        let arrival = self.arrival.take()?;
        Some(Self {
            first: std::mem::take(&mut self.first),
            arrival: Some(arrival),
            progress: self.progress.clone(),
            ending: self.ending.clone(),
            reservation: self.reservation.take(),
            arriving: self.arriving.take(),
            ..*self
        })
    }

    fn end(&self, ending: Ending) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let text = format!("{ending:?}");
        // The first ending counts: what follows is its consequence.
        let _ = self.ending.set(ending);
        Poll::Ready(Some(Err(text.into())))
    }

    fn pass(&mut self, data: Bytes) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let bytes = data.len() as u64;
        if bytes > self.left {
            return self.end(Ending::TooLarge(self.bytes_max, self.set_by));
        }
        self.left -= bytes;
        self.progress.moved(bytes);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.first.is_empty() {
            let data = std::mem::take(&mut self.first);
            return self.pass(data);
        }
        // What was held while its size was unknown has gone on by now.
        self.reservation = None;
        let Some(arrival) = &mut self.arrival else {
            return Poll::Ready(None);
        };
        match std::task::ready!(arrival.poll(cx)) {
            Some(Ok(data)) => self.pass(data),
            Some(Err(stop)) => self.end(Ending::Stopped(stop)),
            None => {
                self.arriving = None;
                self.progress.done();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let over = |arrival: &Arrival<Inbound>| arrival.body().is_end_stream();
        let end = self.first.is_empty() && self.arrival.as_ref().is_none_or(over);
        if end {
            // A body with a stated length ends without another poll.
            self.progress.done();
        }
        end
    }

    fn size_hint(&self) -> SizeHint {
        match (self.stated, &self.arrival) {
            (Some(_), Some(arrival)) => arrival.body().size_hint(),
            _ => SizeHint::default(),
        }
    }
}

/// Drops a body that nobody reads, and returns how many bytes of it had arrived. It waits for none: whether the rest
/// is read off the connection is decided there. Where `Expect` is set nothing is read, because polling the body would
/// ask the caller to send it.
pub(super) fn discard(mut body: Inbound, headers: &HeaderMap) -> u64 {
    if let Inbound::Whole(bytes) = &body {
        return bytes.len() as u64;
    }
    if headers.contains_key(header::EXPECT) {
        return 0;
    }
    let mut bytes = 0;
    while bytes <= DISCARDED_BYTES_MAX
        && let Some(Some(Ok(frame))) = body.frame().now_or_never()
    {
        bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    bytes
}
