//! HTTP/1 connections: one request after the other, read and answered without a library between the stream and the
//! gateway, so that every deadline is kept here and an idle connection holds no memory but that of TLS.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::response::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body::{Body, Frame, SizeHint};
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::gateway::{AnswerBody, Connection, Inbound, Passed};
use crate::model::clock;
use crate::server::linger::{PAUSE_MAX, Unread, linger};
use crate::server::phase::Phase;
use crate::server::seats::Seat;
use crate::server::shared::{LAST_CALL, PIECE_BYTES, Shared, refused};
use crate::settings::ConnectionSettings;
use crate::wire;
use crate::wire::{
    BodyError, Decoder, Defect, Found, Framing, Limits, Outbox, Piece, RequestHead, Scan, Stream, Timer,
};

/// Bytes read at once, of heads and of bodies.
const READ_BYTES_MAX: usize = 64 * 1024;
/// Bytes read ahead while a request is being answered: the next one, on a connection that pipelines.
const AHEAD_BYTES_MAX: usize = 4 * 1024;
/// Time that a request may still wait for its turn after its caller has closed its side.
const HALF_CLOSED_TIME: Duration = Duration::from_millis(400);
/// Of a refused body so much may still be to come for the connection to serve on, as many bytes as a held body has: to
/// read them costs less than another handshake.
const SETTLED_BYTES_MAX: u64 = 64 * 1024;
/// Time for them.
const SETTLED_TIME: Duration = Duration::from_secs(10);
/// Time in which a peer may take in that an idle connection is closed.
const GOODBYE_TIME: Duration = Duration::from_secs(2);
/// What invites a caller to send the body it has announced (RFC 9110 section 15.2.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How a connection ends.
enum End {
    /// It is idle, and too old or no longer wanted: TLS says goodbye.
    Over,
    /// After an answer that was its last: the peer may still be sending.
    Answered,
    /// The peer has left, or there is nobody to tell.
    Gone,
    /// The answer broke off: the peer must see that it is not whole.
    Cut,
    /// A deadline passed; the word says which.
    Late(&'static str),
    /// The peer takes nothing of its answer: what the kernel still keeps for it would look whole, and stay for minutes.
    Stalled,
}

/// Serves one connection to its end. Each time it is woken the clock is read once.
pub(in crate::server) async fn serve<S: Stream>(
    stream: S,
    peer: SocketAddr,
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
    seat: Seat,
) {
    let mut life = pin!(live(stream, peer, shared, phase, seat));
    poll_fn(|cx| clock::turn(|| life.as_mut().poll(cx))).await;
}

async fn live<S: Stream>(
    stream: S,
    peer: SocketAddr,
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
    seat: Seat,
) {
    let mut line = Line {
        timer: Timer::default(),
        halt: Halt::new(phase),
        born: Instant::now(),
        via: Connection::new(
            peer,
            shared.worker,
            "h1",
            shared.health_path.as_ref(),
            shared.peers,
        ),
        shared,
    };
    let mut wire = Wire::new(stream);
    let (end, wire) = loop {
        match line.turn(wire).await {
            Ok(back) => wire = back,
            Err(ended) => break ended,
        }
    };
    match (end, wire) {
        (End::Over, Some(wire)) => Box::pin(goodbye(wire.stream)).await,
        (End::Answered, Some(wire)) => {
            let unread = match wire.body.is_done() {
                true => Unread::Nothing,
                false => Unread::Rest,
            };
            Box::pin(linger(wire.stream, unread, &seat, line.halt.looks)).await;
        }
        (End::Cut, Some(wire)) => cut(&wire.stream),
        (End::Stalled, wire) => {
            refused(&line.shared, peer, "write-stalled", None);
            if let Some(wire) = wire {
                cut(&wire.stream);
            }
        }
        (End::Late(reason), _) => refused(&line.shared, peer, reason, None),
        _ => {}
    }
    drop(seat);
}

/// What a connection keeps from one request to the next.
struct Line {
    shared: Arc<Shared>,
    via: Arc<Connection>,
    born: Instant,
    timer: Timer,
    halt: Halt,
}

/// The stream, and what of the peer's bytes has not been read.
struct Wire<S> {
    stream: S,
    held: BytesMut,
    body: Decoder,
    /// Whether the peer waits to be asked for the body.
    awaits_continue: bool,
    /// Since when the peer has closed its side.
    closed_since: Option<Instant>,
    served: bool,
}

impl<S: Stream> Wire<S> {
    fn new(stream: S) -> Self {
        Self {
            stream,
            held: BytesMut::new(),
            body: Decoder::Done,
            awaits_continue: false,
            closed_since: None,
            served: false,
        }
    }

    /// Reads ahead only to learn that the peer has left: fails if it has for certain.
    fn watch(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        // What is held is the next request, to be read when the answer has left.
        if self.closed_since.is_some() || !self.body.is_done() || !self.held.is_empty() {
            return Ok(());
        }
        match self.stream.poll_more(cx, &mut self.held, AHEAD_BYTES_MAX) {
            Poll::Ready(Ok(0)) => self.closed_since = Some(clock::now()),
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Ready(Ok(_)) | Poll::Pending => {}
        }
        Ok(())
    }

    /// The next piece of the request's body.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            match self.body.next(&mut self.held) {
                Ok(Piece::Data(data)) => return Poll::Ready(Some(Ok(data))),
                Ok(Piece::End) => return Poll::Ready(None),
                Ok(Piece::More) => {}
                Err(what) => return Poll::Ready(Some(Err(what.into()))),
            }
            if self.awaits_continue {
                std::task::ready!(self.invite(cx))?;
            }
            match std::task::ready!(self.stream.poll_more(cx, &mut self.held, READ_BYTES_MAX)) {
                Ok(0) => {
                    let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the caller ended it early");
                    return Poll::Ready(Some(Err(error.into())));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    /// Asks for the body. So few bytes fit into any socket that has just been read from.
    fn invite(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let stream = &mut self.stream;
        let written = std::task::ready!(Pin::new(&mut *stream).poll_write(cx, CONTINUE))?;
        self.awaits_continue = false;
        if written < CONTINUE.len() {
            return Poll::Ready(Err("the caller takes no bytes".into()));
        }
        std::task::ready!(Pin::new(stream).poll_flush(cx))?;
        Poll::Ready(Ok(()))
    }
}

/// A stream that the body of a request and the connection use in turn.
struct Lent<S>(Mutex<Option<Wire<S>>>);

impl<S> Lent<S> {
    fn lock(&self) -> MutexGuard<'_, Option<Wire<S>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of a request that is still arriving.
struct Arriving<S> {
    lent: Arc<Lent<S>>,
    length: Option<u64>,
}

impl<S: Stream> Body for Arriving<S> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self.lent.lock() {
            Some(wire) => wire
                .poll_body(cx)
                .map(|piece| piece.map(|data| data.map(Frame::data))),
            None => Poll::Ready(Some(Err("the connection has gone on without it".into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.lent.lock().as_ref().is_some_and(|wire| wire.body.is_done())
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Who has the stream while a request is being answered.
enum Hands<S> {
    Own(Wire<S>),
    Lent(Arc<Lent<S>>),
}

impl<S: Stream> Hands<S> {
    /// The body of the request, and who has the stream.
    fn open(mut wire: Wire<S>, framing: Framing, expects: bool) -> (Inbound, Self) {
        wire.body = Decoder::new(framing);
        if let Framing::Length(length) = framing
            && wire.held.len() as u64 >= length
            && let Ok(Piece::Data(data)) = wire.body.next(&mut wire.held)
        {
            return (Inbound::Whole(data), Self::Own(wire));
        }
        if wire.body.is_done() {
            return (Inbound::Whole(Bytes::new()), Self::Own(wire));
        }
        // A body that is on its way already needs no invitation.
        wire.awaits_continue = expects && wire.held.is_empty();
        let lent = Arc::new(Lent(Mutex::new(Some(wire))));
        let body = Arriving {
            lent: lent.clone(),
            length: match framing {
                Framing::Length(length) => Some(length),
                _ => None,
            },
        };
        (Inbound::Http1(Box::pin(body)), Self::Lent(lent))
    }

    fn watch(&mut self, cx: &mut Context<'_>) -> (io::Result<()>, Option<Instant>) {
        let mut watched = |wire: &mut Wire<S>| (wire.watch(cx), wire.closed_since);
        match self {
            Self::Own(wire) => watched(wire),
            Self::Lent(lent) => lent.lock().as_mut().map_or((Ok(()), None), watched),
        }
    }

    fn back(self) -> Option<Wire<S>> {
        match self {
            Self::Own(wire) => Some(wire),
            Self::Lent(lent) => lent.lock().take(),
        }
    }
}

/// Tells when the gateway stops serving. It is asked with each poll, and costs one look at a number.
struct Halt {
    looks: watch::Receiver<Phase>,
    /// Wakes the connection; polled once, because the task that waits is always the same.
    wakes: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    armed: bool,
}

impl Halt {
    fn new(phase: watch::Receiver<Phase>) -> Self {
        let looks = phase.clone();
        let mut wakes = phase;
        Self {
            looks,
            wakes: Some(Box::pin(async move {
                // A closed channel means that the worker is gone: then this connection is too.
                let _ = wakes.changed().await;
            })),
            armed: false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.armed {
            self.armed = true;
            if let Some(wakes) = &mut self.wakes
                && wakes.as_mut().poll(cx).is_ready()
            {
                self.wakes = None;
            }
        }
        self.is_on()
    }

    fn is_on(&self) -> bool {
        self.looks.has_changed().unwrap_or(true)
    }
}

/// What arrives on an idle connection.
enum Next {
    Head(Box<RequestHead>),
    Defect(Defect),
    End(End),
}

impl Line {
    fn settings(&self) -> &ConnectionSettings {
        &self.shared.settings
    }

    /// Reads one request and answers it.
    async fn turn<S: Stream>(&mut self, mut wire: Wire<S>) -> Turn<S> {
        if let Err(end) = self.settle(&mut wire).await {
            return Err((end, Some(wire)));
        }
        let head = match self.next(&mut wire).await {
            Next::Head(head) => *head,
            Next::Defect(defect) => return self.refuse(wire, defect).await,
            Next::End(end) => return Err((end, Some(wire))),
        };
        wire.served = true;
        let expects = head.version == Version::HTTP_11 && head.headers.contains_key(header::EXPECT);
        let (body, hands) = Hands::open(wire, head.framing, expects);
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = head.target;
        *request.version_mut() = head.version;
        *request.headers_mut() = head.headers;
        self.answer(request, hands, head.persists, None).await
    }

    /// Answers a head that cannot be read, in the place of which a request without meaning stands.
    async fn refuse<S: Stream>(&mut self, mut wire: Wire<S>, defect: Defect) -> Turn<S> {
        // Where the next request begins is unknown.
        wire.held = BytesMut::new();
        wire.body = Decoder::UntilClose;
        let mut request = Request::new(Inbound::Whole(Bytes::new()));
        // The method of such a head is not known for certain.
        if let Ok(unknown) = Method::from_bytes(b"-") {
            *request.method_mut() = unknown;
        }
        *request.uri_mut() = Uri::from_static("/");
        self.answer(request, Hands::Own(wire), false, Some(defect)).await
    }

    /// Reads what is left of a refused body, so that the next request can be read.
    async fn settle<S: Stream>(&mut self, wire: &mut Wire<S>) -> Result<(), End> {
        if wire.body.is_done() {
            return Ok(());
        }
        let began = clock::now();
        let mut paused_since = began;
        poll_fn(|cx| {
            while let Poll::Ready(piece) = wire.poll_body(cx) {
                match piece {
                    None => return Poll::Ready(Ok(())),
                    Some(Ok(_)) => paused_since = clock::now(),
                    Some(Err(_)) => return Poll::Ready(Err(End::Gone)),
                }
            }
            if self.halt.poll(cx) {
                return Poll::Ready(Err(End::Answered));
            }
            let deadline = (paused_since + PAUSE_MAX).min(began + SETTLED_TIME);
            std::task::ready!(self.timer.poll_until(cx, deadline));
            Poll::Ready(Err(End::Over))
        })
        .await
    }

    /// Waits for a request and reads its head.
    async fn next<S: Stream>(&mut self, wire: &mut Wire<S>) -> Next {
        let limits = Limits {
            bytes_max: self.settings().head_size_max.bytes(),
            fields_max: self.settings().headers_max,
        };
        let mut scan = Scan::default();
        let idle_since = clock::now();
        let mut head_since = None;
        let mut halted_since = None;
        poll_fn(|cx| {
            loop {
                if !wire.held.is_empty() {
                    match scan.look(&wire.held, limits) {
                        Ok(Some(Found { end, fields })) => {
                            let text = wire.held.split_to(end).freeze();
                            if wire.held.is_empty() {
                                wire.held = BytesMut::new();
                            }
                            return Poll::Ready(match wire::request(&text, fields) {
                                Ok(head) => Next::Head(Box::new(head)),
                                Err(defect) => Next::Defect(defect),
                            });
                        }
                        Ok(None) => {}
                        Err(defect) => return Poll::Ready(Next::Defect(defect)),
                    }
                    head_since.get_or_insert_with(clock::now);
                } else if wire.closed_since.is_some() {
                    return Poll::Ready(Next::End(End::Gone));
                }
                match wire.stream.poll_more(cx, &mut wire.held, READ_BYTES_MAX) {
                    Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Poll::Ready(Next::End(End::Gone)),
                    Poll::Ready(Ok(_)) => continue,
                    Poll::Pending => {}
                }
                let settings = &self.shared.settings;
                let (deadline, end) = match head_since {
                    Some(since) => (since + settings.head_timeout, End::Late("head-timeout")),
                    None if self.halt.poll(cx) => {
                        // A request that its caller has sent already, or is about to, is still answered.
                        let since = *halted_since.get_or_insert_with(clock::now);
                        let over = wire.served && wire.stream.is_silent();
                        (if over { since } else { since + LAST_CALL }, End::Over)
                    }
                    None if !wire.served => (idle_since + settings.head_timeout, End::Late("no-request")),
                    None => {
                        let idle = idle_since + settings.idle_timeout;
                        (idle.min(self.born + settings.age_max), End::Over)
                    }
                };
                std::task::ready!(self.timer.poll_until(cx, deadline));
                return Poll::Ready(Next::End(end));
            }
        })
        .await
    }

    /// Lets the gateway answer, and sends the answer.
    async fn answer<S: Stream>(
        &mut self,
        request: Request<Inbound>,
        mut hands: Hands<S>,
        persists: bool,
        defect: Option<Defect>,
    ) -> Turn<S> {
        let asked = Asked {
            head: request.method() == Method::HEAD,
            version: request.version(),
        };
        let mut call = self.shared.gateway.handle(request, &self.via, defect);
        let timer = &mut self.timer;
        let response = poll_fn(|cx| {
            if let Poll::Ready(response) = Pin::new(&mut call).poll(cx) {
                return Poll::Ready(Some(response));
            }
            let (watched, closed_since) = hands.watch(cx);
            if watched.is_err() {
                return Poll::Ready(None);
            }
            // A peer may close its side and still wait for the answer; one whose request still waits a while later is
            // taken for gone, so that no run starts for nobody.
            if let Some(since) = closed_since
                && !call.is_handed_over()
            {
                std::task::ready!(timer.poll_until(cx, since + HALF_CLOSED_TIME));
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await;
        // What is left of the call goes on by itself, or ends.
        drop(call);
        let Some(mut wire) = hands.back() else {
            return Err((End::Gone, None));
        };
        let Some(response) = response else {
            return Err((End::Gone, Some(wire)));
        };
        // A caller that waits to be asked for its body may send it or not.
        let settles = !wire.awaits_continue && wire.body.left().is_some_and(|left| left <= SETTLED_BYTES_MAX);
        let reusable = persists
            && settles
            && wire.closed_since.is_none()
            && !self.halt.is_on()
            && clock::now() < self.born + self.settings().age_max;
        match self.send(&mut wire, response, asked, reusable).await {
            Ok(()) => Ok(wire),
            Err(end) => Err((end, Some(wire))),
        }
    }

    /// Sends an answer; fails if the connection ends with it.
    async fn send<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        response: Response<AnswerBody>,
        asked: Asked,
        reusable: bool,
    ) -> Result<(), End> {
        let (head, mut body) = response.into_parts();
        let passed = body.take_passed();
        let stated = stated_length(&head.headers, passed.as_ref());
        let plan = Plan::new(&head, stated, &body.size_hint(), asked, reusable);
        if plan.ending == Ending::None {
            body.omit();
        }
        let mut outbox = Outbox::default();
        plan.write(&head.headers, passed.as_ref(), outbox.head());
        let timeout = self.settings().write_timeout;
        pour(
            &mut wire.stream,
            outbox,
            body,
            plan.ending,
            &mut self.timer,
            timeout,
        )
        .await?;
        if plan.persists { Ok(()) } else { Err(End::Answered) }
    }
}

/// How one request was answered: the connection goes on, or ends.
type Turn<S> = Result<Wire<S>, (End, Option<Wire<S>>)>;

/// What of a request decides how its answer is framed.
#[derive(Clone, Copy)]
struct Asked {
    head: bool,
    version: Version,
}

/// How the end of an answer is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// There is no body, or it is not wanted.
    None,
    Length(u64),
    Chunked,
    /// The connection ends with it.
    Close,
}

/// The head of an answer as it will leave.
struct Plan {
    status: StatusCode,
    ending: Ending,
    /// The length that is told; also where no body follows.
    length: Option<u64>,
    persists: bool,
    /// Whether the caller speaks HTTP/1.0: then it is answered so, and told if the connection persists.
    old: bool,
}

impl Plan {
    fn new(head: &Parts, stated: Option<u64>, size: &SizeHint, asked: Asked, reusable: bool) -> Self {
        let status = head.status;
        let bodiless = matches!(status.as_u16(), 100..=199 | 204 | 304);
        let (ending, length) = match size.exact() {
            // RFC 9110 section 8.6: what it would have been, if it is known.
            _ if status == StatusCode::NOT_MODIFIED => (Ending::None, stated),
            _ if bodiless => (Ending::None, None),
            exact if asked.head => (Ending::None, stated.or(exact.filter(|bytes| *bytes > 0))),
            Some(bytes) => (Ending::Length(bytes), Some(bytes)),
            None if asked.version == Version::HTTP_11 => (Ending::Chunked, None),
            None => (Ending::Close, None),
        };
        let closes = head
            .headers
            .get(header::CONNECTION)
            .is_some_and(|options| options == "close");
        Self {
            status,
            ending,
            length,
            persists: reusable && !closes && ending != Ending::Close,
            old: asked.version == Version::HTTP_10,
        }
    }

    /// Names and values were checked when they were read, so nothing in them can end a line.
    fn write(&self, headers: &HeaderMap, passed: Option<&Passed>, to: &mut Vec<u8>) {
        use std::io::Write as _;
        to.reserve(HEAD_BYTES_USUAL);
        to.extend_from_slice(if self.old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
        to.extend_from_slice(self.status.as_str().as_bytes());
        to.push(b' ');
        to.extend_from_slice(self.status.canonical_reason().unwrap_or_default().as_bytes());
        to.extend_from_slice(b"\r\n");
        let mut dated = false;
        let mut field = |name: &[u8], value: &[u8]| {
            let framing = match name.len() {
                10 => name.eq_ignore_ascii_case(b"connection"),
                14 => name.eq_ignore_ascii_case(b"content-length"),
                17 => name.eq_ignore_ascii_case(b"transfer-encoding"),
                _ => false,
            };
            if framing {
                return;
            }
            dated |= name.eq_ignore_ascii_case(b"date");
            let start = to.len();
            to.extend_from_slice(name);
            if let Some(name) = to.get_mut(start..) {
                name.make_ascii_lowercase();
            }
            to.extend_from_slice(b": ");
            to.extend_from_slice(value);
            to.extend_from_slice(b"\r\n");
        };
        for (name, value) in headers {
            field(name.as_str().as_bytes(), value.as_bytes());
        }
        if let Some(passed) = passed {
            passed.each(&mut field);
        }
        if !dated {
            to.extend_from_slice(b"date: ");
            clock::date(to);
            to.extend_from_slice(b"\r\n");
        }
        if let Some(length) = self.length {
            // Writing into memory does not fail.
            let _ = write!(to, "content-length: {length}\r\n");
        }
        if self.ending == Ending::Chunked {
            to.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        if !self.persists {
            to.extend_from_slice(b"connection: close\r\n");
        } else if self.old {
            to.extend_from_slice(b"connection: keep-alive\r\n");
        }
        to.extend_from_slice(b"\r\n");
    }
}

/// The length that an answer states of itself, also where no body follows.
fn stated_length(headers: &HeaderMap, passed: Option<&Passed>) -> Option<u64> {
    let text = match passed {
        Some(passed) => passed.fields.text("content-length"),
        None => headers.get(header::CONTENT_LENGTH)?.to_str().ok(),
    };
    text?.parse().ok()
}

/// Memory asked for the head of an answer at once.
const HEAD_BYTES_USUAL: usize = 512;

/// Sends the head that is in the outbox, and the body after it. The reader has `timeout` for each 16 KiB; time in which
/// the flow is waited for does not count.
async fn pour<B: Body<Data = Bytes> + Unpin>(
    stream: &mut impl Stream,
    mut outbox: Outbox,
    body: B,
    ending: Ending,
    timer: &mut Timer,
    timeout: Duration,
) -> Result<(), End> {
    let mut rest = Some(body);
    let mut sent = 0;
    // Since when the reader is waited for, and what had been sent by then.
    let mut blocked = None;
    poll_fn(|cx| {
        loop {
            // The first piece leaves with the head; each other one when what came before it has left.
            if outbox.takes_piece()
                && let Err(end) = refill(&mut outbox, &mut rest, ending, cx)
            {
                return Poll::Ready(Err(end));
            }
            if outbox.is_empty() {
                // Now the flow is waited for.
                blocked = None;
                return if rest.is_some() {
                    Poll::Pending
                } else {
                    Poll::Ready(Ok(()))
                };
            }
            match outbox.poll_send(stream, cx, &mut sent) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(End::Gone)),
                Poll::Pending => {
                    // Its request would hold the trigger's permit for ever, also if single bytes were taken.
                    if blocked.is_some_and(|(_, from)| sent - from >= PIECE_BYTES as u64) {
                        blocked = None;
                    }
                    let (since, _) = *blocked.get_or_insert_with(|| (clock::now(), sent));
                    std::task::ready!(timer.poll_until(cx, since + timeout));
                    return Poll::Ready(Err(End::Stalled));
                }
            }
        }
    })
    .await
}

/// Puts the next piece of the answer into the outbox, if it is there.
fn refill<B: Body<Data = Bytes> + Unpin>(
    outbox: &mut Outbox,
    rest: &mut Option<B>,
    ending: Ending,
    cx: &mut Context<'_>,
) -> Result<(), End> {
    while let Some(body) = rest {
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Pending => return Ok(()),
            // Ends visibly: the peer must not take a part for the whole.
            Poll::Ready(Some(Err(_))) => return Err(End::Cut),
            Poll::Ready(None) => {
                *rest = None;
                if ending == Ending::Chunked {
                    outbox.last_chunk();
                }
            }
            Poll::Ready(Some(Ok(frame))) => {
                let over = body.is_end_stream();
                if over {
                    *rest = None;
                }
                let Ok(data) = frame.into_data() else { continue };
                match ending {
                    Ending::None => continue,
                    Ending::Length(_) | Ending::Close => outbox.body(data),
                    Ending::Chunked if over => outbox.final_chunk(data),
                    Ending::Chunked => outbox.chunk(data),
                }
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Makes the end of a connection a reset: an answer that ends with it would look whole after anything else.
fn cut(stream: &impl Stream) {
    let _ = SockRef::from(stream.socket()).set_linger(Some(Duration::ZERO));
}

/// Closes an idle connection. The goodbye tells the peer that this is no fault; it may take its time to read it.
async fn goodbye<S: Stream>(mut stream: S) {
    let _ = tokio::time::timeout(GOODBYE_TIME, stream.shutdown()).await;
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use bytes::Bytes;
    use http_body::{Body, Frame};
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpSocket, TcpStream};
    use tokio::time::{Instant, MissedTickBehavior};

    use super::{End, Ending, pour};
    use crate::wire::{Outbox, Timer};

    const PATIENCE: Duration = Duration::from_secs(20);
    const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

    /// So many pieces of one size, each of them there at once.
    struct Pieces {
        bytes: usize,
        left: usize,
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            self.left -= 1;
            Poll::Ready(Some(Ok(Frame::data(vec![b'x'; self.bytes].into()))))
        }
    }

    /// A gateway's side and a caller's between which the kernel keeps so little that it takes 6 KiB at once.
    async fn narrow_pair() -> (TcpStream, TcpStream) {
        let listener = TcpSocket::new_v4().unwrap();
        listener.set_send_buffer_size(4096).unwrap();
        listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listener.listen(1).unwrap();
        let caller = TcpSocket::new_v4().unwrap();
        caller.set_recv_buffer_size(4096).unwrap();
        let caller = caller.connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0, caller)
    }

    /// How an answer to a reader ends that takes so many bytes every 150 ms.
    async fn poured(body: Pieces, step: usize) -> Result<(), End> {
        let (mut ours, mut caller) = narrow_pair().await;
        let mut pace = tokio::time::interval(Duration::from_millis(150));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut space = vec![0; step];
        let reading = async {
            loop {
                caller.read_exact(&mut space).await.unwrap();
                pace.tick().await;
            }
        };
        let mut timer = Timer::default();
        let outbox = Outbox::default();
        let pouring = pour(&mut ours, outbox, body, Ending::Close, &mut timer, WRITE_TIMEOUT);
        tokio::select! {
            end = tokio::time::timeout(PATIENCE, pouring) => end.expect("it is poured for ever"),
            () = reading => unreachable!(),
        }
    }

    #[tokio::test]
    async fn a_reader_that_takes_a_few_bytes_now_and_then_is_cut() {
        // Small pieces have left the gateway as a whole again and again.
        for bytes in [65_536, 512] {
            let left = (64 << 20) / bytes;
            let end = poured(Pieces { bytes, left }, 1500).await;
            assert!(matches!(end, Err(End::Stalled)), "{bytes}");
        }
    }

    #[tokio::test]
    async fn a_reader_that_takes_16_kib_in_its_time_gets_everything() {
        let began = Instant::now();
        for bytes in [65_536, 512] {
            let left = 4 * 65_536 / bytes;
            let end = poured(Pieces { bytes, left }, 16 * 1024).await;
            assert!(end.is_ok(), "{bytes}");
        }
        assert!(began.elapsed() > 2 * WRITE_TIMEOUT, "too quick to show anything");
    }
}
