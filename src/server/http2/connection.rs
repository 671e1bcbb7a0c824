//! HTTP/2 connections: hyper speaks the protocol, and the deadlines, the age and the drain around it are ours.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::gateway::{AnswerBody, Call, Connection, Inbound, Standstill};
use crate::server::http2::blocks::{BlockDefect, Blocks};
use crate::server::http2::frames::{Credit, Frames};
use crate::server::http2::gate::{Gate, UnderWay};
use crate::server::http2::guard::{Guard, Signs};
use crate::server::http2::pace::{Streams, Turn};
use crate::server::http2::unread::{Discarding, Rest};
use crate::server::http2::{blocks, pace};
use crate::server::phase::{Draining, Phase, told_to_stop};
use crate::server::seats::Seat;
use crate::server::shared::{PIECE_BYTES, Shared, refused};
use crate::settings::ConnectionSettings;
use crate::wire::{BodyError, Defect, OfCaller, describe};

/// Largest piece of answers kept for one HTTP/2 stream that does not read; bytes.
const H2_SEND_BUFFER: usize = 16 * 1024;
/// Time the requests of an HTTP/2 connection get to end after the connection has grown too old.
const LAST_WORDS: Duration = Duration::from_secs(600);

const OUTER_BLANKS: &str = "the value of a header field begins or ends with a blank";
const QUOTED_NAME: &str = "the name of a header field has a quotation mark";

/// Malformed requests of one connection before a credential was accepted: h2 remembers each that it resets.
const UNKNOWN_MALFORMED_MAX: u32 = 4;
/// Streams that h2 may reset by itself while a connection lives. Resets that a peer provokes spend its credit in
/// `frames.rs`; those for data that was under way when its stream was reset cost none, and are no flood.
const PROVOKED_RESETS_MAX: usize = 10_000;

/// How h2 describes the code ENHANCE_YOUR_CALM, with which it ends a connection that floods (RFC 9113 section 7).
const H2_FLOOD: &str = "detected: detected excessive load";

/// Hands requests of one connection to the gateway.
#[derive(Clone)]
pub(super) struct Requests(pub(super) Arc<Line>);

/// What all requests of one connection share.
pub(super) struct Line {
    pub(super) shared: Arc<Shared>,
    via: Arc<Connection>,
    pub(super) signs: Arc<Signs>,
    /// How many requests of unknown callers may be under way.
    gate: Arc<Gate>,
    /// What the peer may send without asking for anything.
    credit: Arc<Credit>,
    /// The time in which the peer could send no more of any body.
    standstill: Arc<Standstill>,
    /// Bodies that nobody reads.
    discarding: Arc<Discarding>,
    /// Kept until the last request has ended: an HTTP/2 request may outlive its connection for a moment.
    _seat: Seat,
    /// Requests that are running: until their answer has left.
    now: AtomicUsize,
    served: AtomicUsize,
}

impl Requests {
    pub(super) fn new(
        shared: &Arc<Shared>,
        gate: &Arc<Gate>,
        guard: &Guard<Box<OfCaller>>,
        credit: &Arc<Credit>,
        seat: Seat,
    ) -> Self {
        Self(Arc::new(Line {
            shared: shared.clone(),
            via: gate.via().clone(),
            gate: gate.clone(),
            signs: guard.signs().clone(),
            credit: credit.clone(),
            standstill: guard.standstill().clone(),
            discarding: Arc::default(),
            _seat: seat,
            now: AtomicUsize::new(0),
            served: AtomicUsize::new(0),
        }))
    }

    pub(super) fn running(&self) -> usize {
        self.0.now.load(Ordering::Relaxed)
    }

    fn under_way(&self) -> UnderWay {
        UnderWay {
            requests: self.running(),
            bodies: self.0.discarding.count(),
        }
    }

    pub(super) fn served(&self) -> usize {
        self.0.served.load(Ordering::Relaxed)
    }
}

struct Running {
    line: Arc<Line>,
    /// Whether its answer is whole.
    whole: bool,
    /// What becomes of its body, if it has one.
    rest: Option<Arc<Rest>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.line.now.fetch_sub(1, Ordering::Relaxed);
        if !self.line.via.is_known() {
            self.line.gate.changed();
        }
        if !self.whole {
            self.line.credit.dropped();
            if let Some(rest) = &self.rest {
                rest.give_up();
            }
        }
    }
}

impl Line {
    /// Time in which a reader must move on.
    pub(super) fn write_timeout(&self) -> Duration {
        self.shared.settings.write_timeout
    }

    /// A stream is reset because its reader did not move on.
    pub(super) fn stream_stalled(&self) {
        let detail = "an HTTP/2 stream whose reader took nothing of its answer was reset";
        refused(
            &self.shared,
            self.via.peer,
            "write-stalled",
            Some(detail.to_owned()),
        );
    }
}

/// An answer's body that keeps its request running.
pub(super) struct RunningBody {
    body: AnswerBody,
    /// What is left of a frame that is handed on piece by piece.
    rest: Bytes,
    /// Bytes that were handed on.
    handed: u64,
    /// Of these, those after which the reader's time began anew.
    timed: u64,
    /// Whether the flow was waited for.
    awaited: bool,
    running: Running,
}

impl RunningBody {
    fn new(body: AnswerBody, running: Running) -> Self {
        // Before it asks for the first piece, HTTP/2 waits for the reader's window.
        pace::tell(Turn::Reader);
        let mut body = Self {
            body,
            rest: Bytes::new(),
            handed: 0,
            timed: 0,
            awaited: false,
            running,
        };
        body.note_end();
        body
    }

    /// With the last piece the request has had its answer, whatever becomes of it.
    fn note_end(&mut self) {
        self.running.whole |= self.is_end_stream();
    }

    /// HTTP/2 gets an answer in pieces, so that it holds little for a slow reader, and that each step shows.
    fn next(&mut self, data: Bytes) -> Bytes {
        self.rest = data;
        self.piece()
    }

    fn piece(&mut self) -> Bytes {
        let piece = pace::piece(&mut self.rest);
        self.handed += piece.len() as u64;
        piece
    }

    /// The reader's time begins anew when it has taken a whole piece, or when the flow was waited for: not with each
    /// byte that it lets come.
    fn note_pace(&mut self) {
        if self.awaited || self.handed - self.timed >= PIECE_BYTES as u64 {
            self.awaited = false;
            self.timed = self.handed;
            pace::tell(Turn::Reader);
        }
    }
}

impl Body for RunningBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.rest.is_empty() {
            let piece = self.piece();
            self.note_pace();
            self.note_end();
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_pending() {
            self.awaited = true;
            pace::tell(Turn::Ours);
            return Poll::Pending;
        }
        let polled = polled.map_ok(|frame| frame.map_data(|data| self.next(data)));
        self.note_pace();
        match polled {
            Poll::Ready(Some(Ok(_))) => self.note_end(),
            // Its end, or the flow broke off.
            _ => self.running.whole = true,
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let mut hint = self.body.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<RunningBody>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.0.now.fetch_add(1, Ordering::Relaxed);
        self.0.served.fetch_add(1, Ordering::Relaxed);
        self.0.credit.request();
        let (head, body) = request.into_parts();
        let (body, rest) = match body.is_end_stream() {
            true => (Inbound::Whole(Bytes::new()), None),
            false => {
                let (body, rest) = Rest::of(body, &self.0.discarding);
                let body = Inbound::Http2(Box::pin(body), self.0.standstill.clone());
                (body, Some(rest))
            }
        };
        let running = Running {
            line: self.0.clone(),
            whole: false,
            rest,
        };
        let is_head = head.method == Method::HEAD;
        let defect = defect_of(&head.headers);
        let request = Request::from_parts(head, body);
        Answering {
            call: self.0.shared.gateway.handle(request, &self.0.via, defect),
            running: Some(running),
            is_head,
        }
    }
}

/// What no field may have (RFC 9113 section 8.2.1) and h2 lets pass.
fn defect_of(fields: &HeaderMap) -> Option<Defect> {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let defect = fields.iter().find_map(|(name, value)| {
        let value = value.as_bytes();
        if is_blank(value.first()) || is_blank(value.last()) {
            return Some(OUTER_BLANKS);
        }
        name.as_str().contains('"').then_some(QUOTED_NAME)
    });
    defect.map(Defect::Malformed)
}

/// A request that is being answered.
pub(super) struct Answering {
    call: Call,
    running: Option<Running>,
    /// Whether the head of the answer is all that is wanted.
    is_head: bool,
}

impl Future for Answering {
    type Output = Result<Response<RunningBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let is_known = |running: &Running| running.line.via.is_known();
        let was_known = self.running.as_ref().is_some_and(is_known);
        let polled = Pin::new(&mut self.call).poll(cx);
        if let Some(running) = &self.running
            && !was_known
            && is_known(running)
        {
            running.line.gate.changed();
        }
        let response = std::task::ready!(polled);
        match self.running.take() {
            Some(running) => {
                if let Some(rest) = &running.rest {
                    rest.answered(&running.line.discarding);
                }
                let mut response = response;
                if self.is_head
                    && let Some(bytes) = response.body_mut().omit()
                {
                    response
                        .headers_mut()
                        .insert(header::CONTENT_LENGTH, bytes.into());
                }
                if let Some(passed) = response.body_mut().take_passed() {
                    passed.append_to(response.headers_mut());
                }
                if response.status() == StatusCode::NO_CONTENT {
                    // RFC 9110 section 8.6, also where the flow says one.
                    response.headers_mut().remove(header::CONTENT_LENGTH);
                }
                Poll::Ready(Ok(response.map(|body| RunningBody::new(body, running))))
            }
            // It is over; whoever asks again gets nothing more.
            None => Poll::Pending,
        }
    }
}

/// Whether the peer has taken nothing of an answer for as long as it may. Its request would hold the trigger's permit
/// for ever.
pub(super) fn stalled(signs: &Signs, settings: &ConnectionSettings, now: Instant) -> bool {
    signs
        .write_since()
        .is_some_and(|since| now >= since + settings.write_timeout)
}

/// Serves one connection to its end.
pub(in crate::server) async fn serve(
    stream: Box<OfCaller>,
    peer: SocketAddr,
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
    seat: Seat,
) {
    let frames = Frames::new();
    let credit = frames.credit().clone();
    let via = Connection::new(
        peer,
        shared.worker,
        "h2",
        shared.health_path.as_ref(),
        shared.peers,
    );
    let gate = Gate::new(&via);
    let blocks = Blocks::new(shared.settings.head_size_max.bytes());
    let guard = Guard::new(stream, frames, blocks, &gate);
    let signs = guard.signs().clone();
    let requests = Requests::new(&shared, &gate, &guard, &credit, seat);
    let ended = live(guard, requests, phase).await;
    let streams = signs.refused_streams();
    match ended {
        Some((reason, detail)) => refused(&shared, peer, reason, detail),
        // h2 resets what is malformed and tells nobody.
        None if streams > 0 => {
            let detail = format!("{streams} of its streams were malformed and have been reset");
            refused(&shared, peer, "malformed-http2", Some(detail));
        }
        None => {}
    }
}

/// Why a connection did not end as it should: a word from the code, and what happened.
type Fault = (&'static str, Option<String>);

async fn live(
    guard: Guard<Box<OfCaller>>,
    requests: Requests,
    mut phase: watch::Receiver<Phase>,
) -> Option<Fault> {
    let settings = requests.0.shared.settings.clone();
    let line = requests.clone();
    let head_bytes = blocks::decoded_bytes_max(settings.head_size_max.bytes());
    let head_bytes = u32::try_from(head_bytes).unwrap_or(u32::MAX);
    let frame_bytes = u32::try_from(blocks::frame_bytes_max(settings.head_size_max.bytes())).ok();
    let mut connection = Box::pin(
        http2::Builder::new(Streams::of(&requests.0))
            .timer(TokioTimer::new())
            .max_concurrent_streams(settings.http2_streams_max)
            .initial_stream_window_size(settings.http2_stream_window.as_u32())
            .initial_connection_window_size(settings.http2_connection_window.as_u32())
            .max_send_buf_size(H2_SEND_BUFFER)
            .max_header_list_size(head_bytes)
            .max_local_error_reset_streams(Some(PROVOKED_RESETS_MAX))
            .max_frame_size(frame_bytes)
            .keep_alive_interval(settings.idle_timeout)
            .keep_alive_timeout(settings.head_timeout)
            .serve_connection(TokioIo::new(guard), requests),
    );
    let born = Instant::now();
    let mut idle_since = Instant::now();
    let mut draining = Draining::No;
    let mut timer = Box::pin(tokio::time::sleep(settings.head_timeout));
    let mut seen = 0;
    loop {
        tokio::select! {
            biased;
            () = told_to_stop(&mut phase, draining) => {}
            over = poll_fn(|cx| poll_gated(connection.as_mut(), &line, cx)) => {
                return over.and_then(|result| ended(&line.0.signs, &settings, result));
            }
            () = timer.as_mut() => {}
        }
        let now = Instant::now();
        if stalled(&line.0.signs, &settings, now) {
            return Some(("write-stalled", None));
        }
        let served = line.served();
        if line.running() > 0 || served != seen {
            idle_since = now;
            seen = served;
        }
        let patience = if served == 0 {
            settings.head_timeout
        } else {
            settings.idle_timeout
        };
        let stop = *phase.borrow() != Phase::Serve || now >= born + settings.age_max;
        if draining == Draining::No && (stop || now >= idle_since + patience) {
            draining = Draining::Yes;
            connection.as_mut().graceful_shutdown();
            line.0.discarding.hurry();
        } else if draining == Draining::Yes && now >= idle_since + patience + settings.head_timeout {
            // Told to go, nothing under way, and still there.
            return (served == 0 && !stop).then_some(("no-request", None));
        } else if now >= born + settings.age_max + LAST_WORDS {
            // A stream whose window the peer never opens again would go on for ever.
            return Some(("too-old", None));
        }
        // It looks around now and then, and just in time for what ends next.
        let period = settings
            .head_timeout
            .min(settings.idle_timeout)
            .min(Duration::from_secs(5));
        let patience = match draining {
            Draining::Yes => patience + settings.head_timeout,
            Draining::No => patience,
        };
        timer.as_mut().reset((now + period).min(idle_since + patience));
    }
}

/// Polls the connection, and once more, after its requests have had their turn, if the gate lets more pass by then. It is
/// over without a result if an unknown caller sends too much that is malformed.
fn poll_gated<T>(
    connection: Pin<&mut impl Future<Output = T>>,
    requests: &Requests,
    cx: &mut Context<'_>,
) -> Poll<Option<T>> {
    let line = &requests.0;
    line.discarding.poll(cx);
    // Once it is open, the gate costs nothing.
    let was_known = line.via.is_known();
    if !was_known {
        line.gate.settle(requests.under_way());
    }
    let polled = connection.poll(cx);
    line.discarding.poll(cx);
    if !was_known && polled.is_pending() && line.gate.is_late(requests.under_way()) {
        cx.waker().wake_by_ref();
    }
    if !line.via.is_known() && line.signs.refused_streams() > UNKNOWN_MALFORMED_MAX {
        return Poll::Ready(None);
    }
    polled.map(Some)
}

fn ended(signs: &Signs, settings: &ConnectionSettings, result: Result<(), hyper::Error>) -> Option<Fault> {
    match signs.block_defect() {
        Some(BlockDefect::TooLong { bytes }) => {
            let detail = format!(
                "a head of {bytes} bytes or more, compressed; `connections.head_size_max` is {}",
                settings.head_size_max.bytes()
            );
            return Some(("head-too-large", Some(detail)));
        }
        Some(BlockDefect::Fragment) => {
            let detail = "the path of a request has a fragment (`#`)".to_owned();
            return Some(("malformed-http2", Some(detail)));
        }
        None => {}
    }
    if signs.is_flooded() {
        return Some(("http2-flood", None));
    }
    let error = result.err()?;
    let text = describe(&error);
    if text.contains(H2_FLOOD) {
        return Some(("http2-flood", Some(text)));
    }
    // A peer that closes or resets the connection is not news; what h2 refuses is.
    let protocol = !(error.is_closed() || error.is_canceled() || error.is_incomplete_message())
        && std::error::Error::source(&error).is_some_and(|source| !source.is::<std::io::Error>());
    let refused = protocol && !text.contains("NO_ERROR") && !text.contains("not connected");
    refused.then_some(("malformed-http2", Some(text)))
}
