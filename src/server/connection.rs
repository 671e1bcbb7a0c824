//! One connection's life: handshake, requests, rest, age, end. An idle HTTP/1 connection is parked: HTTP is taken off,
//! and only the stream waits for the next byte. It decides when a connection ends; what is answered is decided above.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::Sleep;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::ConnectionSettings;
use crate::flow::describe;
use crate::gateway::Gateway;
use crate::gateway::journal::ConnectionLine;
use crate::server::Phase;
use crate::server::Seat;
use crate::server::framing::Limits;
use crate::server::guard::Guard;
use crate::server::guard::Signs;
use crate::server::http2;
use crate::server::http2::Requests;
use crate::server::http2::stalled;
use crate::server::tls;
use crate::server::tls::Offer;

/// Rest after which HTTP is taken off an idle connection. Shorter pauses are common between requests of one burst,
/// and putting HTTP back costs a few allocations.
const PARK_AFTER: Duration = Duration::from_millis(500);
/// Largest read buffer of a connection; bytes. Heads that may be larger get a larger one.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Header fields that hyper reads without asking for memory.
const FIELDS_INLINE_MAX: usize = 100;
/// Time that a request may still wait for its turn after its caller has closed its side.
const HALF_CLOSED_TIME: Duration = Duration::from_millis(400);
/// A peer that still sends after the last answer is read for this long, so that the answer is not lost in a reset.
const LINGER_TIME: Duration = Duration::from_secs(2);
/// And for so many bytes: a few times the usual limit of a body, for callers that send it all before they look.
const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What connections of one listener share within a worker.
#[derive(Debug)]
pub(super) struct Shared {
    /// Who answers.
    pub gateway: Arc<Gateway>,
    /// The worker.
    pub worker: usize,
    /// Deadlines and limits.
    pub settings: Arc<ConnectionSettings>,
    /// Path answered with the gateway's health.
    pub health_path: Option<Arc<str>>,
}

/// Serves one connection to its end.
pub(super) async fn serve_tls(
    tcp: TcpStream,
    peer: SocketAddr,
    config: Arc<rustls::ServerConfig>,
    shared: Arc<Shared>,
    mut phase: watch::Receiver<Phase>,
    seat: Seat,
) {
    let deadline = shared.settings.handshake_timeout;
    let handshake = tokio::select! {
        biased;
        // Boxed: the handshake's state is large and lives shortly.
        done = tokio::time::timeout(deadline, Box::pin(handshake(tcp, config))) => done,
        // Nobody is served on a connection that is not there yet, so it holds up no stop.
        () = told_to_stop(&mut phase, Draining::No) => return,
    };
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err((error, offer))) => return handshake_failed(&shared, peer, &error, offer),
        Err(_) => {
            let detail = format!("no whole handshake within {deadline:?}");
            return handshake_refused(&shared, peer, "handshake-timeout", detail);
        }
    };
    if stream.get_ref().1.alpn_protocol() == Some(tls::ALPN_H2) {
        return Box::pin(http2::serve(stream, peer, shared, phase, seat)).await;
    }
    serve_http1(stream, peer, shared, phase, seat).await;
}

/// Serves one connection without TLS, HTTP/1 only.
pub(super) async fn serve_plain(
    tcp: TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
    seat: Seat,
) {
    serve_http1(tcp, peer, shared, phase, seat).await;
}

/// Boxed once after the handshake: it is large, and every future that holds it would carry it in full.
pub(super) type SecureStream = Box<TlsStream<TcpStream>>;

async fn handshake(
    tcp: TcpStream,
    config: Arc<rustls::ServerConfig>,
) -> Result<SecureStream, (std::io::Error, Option<Offer>)> {
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), tcp);
    let start = start.await.map_err(|error| (error, None))?;
    let offer = Offer::of(&start.client_hello());
    let stream = start
        .into_stream(config)
        .await
        .map_err(|error| (error, Some(offer)))?;
    Ok(Box::new(stream))
}

fn handshake_failed(shared: &Shared, peer: SocketAddr, error: &std::io::Error, offer: Option<Offer>) {
    let (reason, sentence) = tls::explain(error);
    let detail = match offer {
        Some(offer) => format!("{sentence}; it {offer}"),
        None => sentence,
    };
    handshake_refused(shared, peer, reason, detail);
}

fn handshake_refused(shared: &Shared, peer: SocketAddr, reason: &'static str, detail: String) {
    let labels = crate::counters::ReasonLabels { reason };
    shared
        .gateway
        .counters()
        .handshakes_failed
        .get_or_create(&labels)
        .inc();
    refused(shared, peer, reason, Some(detail));
}

/// Writes the line of a connection that did not end as it should.
pub(super) fn refused(shared: &Shared, peer: SocketAddr, reason: &'static str, detail: Option<String>) {
    shared.gateway.counters().refused(reason);
    let address = peer.ip().to_canonical();
    shared
        .gateway
        .log()
        .connection(&ConnectionLine::new(address, reason, detail.map(Into::into)));
}

/// A stream whose socket can be waited on without reading.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// The socket underneath.
    fn socket(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Stream for SecureStream {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Why an HTTP/1 connection was given back by hyper.
enum Leave {
    /// It is idle and may rest.
    Park,
    /// It is idle, and too old or no longer wanted.
    Over,
    /// The peer closed it, or it was closed after an answer.
    Ended,
    /// hyper or the stream failed.
    Failed(hyper::Error),
    /// The peer has left, and nobody would take the answer of a call that has not begun.
    Gone,
    /// A deadline passed.
    Late(&'static str),
}

async fn serve_http1<S: Stream>(
    stream: S,
    peer: SocketAddr,
    shared: Arc<Shared>,
    mut phase: watch::Receiver<Phase>,
    seat: Seat,
) {
    let limits = Limits {
        bytes_max: shared.settings.head_bytes_max,
        fields_max: shared.settings.headers_max,
    };
    let guard = Guard::http1(stream, limits);
    let signs = guard.signs().clone();
    let requests = Requests::new(&shared, peer, "h1", &signs, seat);
    let born = Instant::now();
    let mut guard = guard;
    loop {
        let (leave, back) = http1_requests(guard, &requests, born, &mut phase).await;
        match leave {
            Leave::Park => {}
            Leave::Over => return Box::pin(goodbye(back.into_stream())).await,
            Leave::Ended => return Box::pin(linger(back.into_stream())).await,
            Leave::Gone => return,
            Leave::Late(reason) => return refused(&shared, peer, reason, None),
            Leave::Failed(error) => {
                http1_failed(&shared, peer, &error, &signs);
                return Box::pin(linger(back.into_stream())).await;
            }
        }
        guard = back;
        if rest(guard.stream().socket(), &shared.settings, born, &mut phase).await == Rest::Over {
            return Box::pin(goodbye(guard.into_stream())).await;
        }
    }
}

/// Lets hyper serve until the connection is idle or over.
async fn http1_requests<S: Stream>(
    guard: Guard<S>,
    requests: &Requests,
    born: Instant,
    phase: &mut watch::Receiver<Phase>,
) -> (Leave, Guard<S>) {
    let settings = &requests.0.shared.settings;
    let signs = &requests.0.signs;
    let mut connection =
        Box::new(http1_builder(settings).serve_connection(TokioIo::new(guard), requests.clone()));
    let mut timer = Box::pin(tokio::time::sleep(PARK_AFTER));
    let mut quiet_since: Option<Instant> = None;
    let opened = Instant::now();
    let mut draining = Draining::No;
    let leave = loop {
        tokio::select! {
            biased;
            // Asked first, so that an answer given from now on says that it is the last.
            () = told_to_stop(phase, draining) => {}
            // Polled as a whole: hyper ends by flushing and closing its side, and only then is every byte out.
            result = &mut *connection => match result {
                Ok(()) => break Leave::Ended,
                Err(error) => break Leave::Failed(error),
            },
            () = timer.as_mut() => {}
        }
        let now = Instant::now();
        let over = *phase.borrow() != Phase::Serve || now >= born + settings.age_max;
        if over && draining == Draining::No {
            draining = Draining::Yes;
            Pin::new(&mut *connection).graceful_shutdown();
        }
        if let Some(since) = signs.head_since()
            && now >= since + settings.head_timeout
        {
            break Leave::Late("head-timeout");
        }
        if stalled(signs, settings, now) {
            break Leave::Late("write-stalled");
        }
        if has_left(requests, now) {
            break Leave::Gone;
        }
        let idle = signs.is_quiet() && requests.running() == 0;
        if idle && draining == Draining::Yes {
            // hyper by itself would wait for the first request of a connection that has sent none.
            break Leave::Over;
        }
        let served = requests.served();
        if !idle {
            quiet_since = None;
        } else if served == 0 && now >= opened + settings.head_timeout {
            break Leave::Late("no-request");
        } else if served > 0 && now >= *quiet_since.get_or_insert(now) + PARK_AFTER {
            break Leave::Park;
        }
        let next = signs
            .head_since()
            .map_or(now + PARK_AFTER, |since| since + settings.head_timeout);
        timer
            .as_mut()
            .reset(next.max(now + Duration::from_millis(10)).min(now + PARK_AFTER));
    };
    let parts = connection.into_parts();
    let mut guard = parts.io.into_inner();
    guard.unread(&parts.read_buf);
    (leave, guard)
}

/// Whether the peer has left before the body of its request was handed over. A peer may close its side and still wait
/// for the answer; one whose request still waits a while later is taken for gone, so that no run starts for nobody.
fn has_left(requests: &Requests, now: Instant) -> bool {
    let line = &*requests.0;
    let waiting = requests.running() > 0 && !line.handed_over.load(Ordering::Relaxed);
    waiting
        && line
            .signs
            .closed_since()
            .is_some_and(|since| now >= since + HALF_CLOSED_TIME)
}

/// hyper with limits no tighter than the guard's, whose refusals are answered in our own words.
fn http1_builder(settings: &ConnectionSettings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .max_buf_size(BUFFER_BYTES_MAX.max(settings.head_bytes_max));
    if settings.headers_max > FIELDS_INLINE_MAX {
        builder.max_headers(settings.headers_max);
    }
    builder
}

/// Whether a connection was told to close after what it is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Draining {
    Yes,
    No,
}

/// Ends when the gateway stops serving; never, once that is known.
pub(super) async fn told_to_stop(phase: &mut watch::Receiver<Phase>, draining: Draining) {
    if draining == Draining::Yes {
        return std::future::pending().await;
    }
    // A closed channel means that the worker is gone: then this connection is too.
    let _ = phase.wait_for(|phase| *phase != Phase::Serve).await;
}

/// How a rest ended.
#[derive(PartialEq, Eq)]
enum Rest {
    /// The peer sends again, or has closed; reading will tell.
    Woken,
    /// It was too long, or the gateway stops.
    Over,
}

async fn rest(
    socket: &TcpStream,
    settings: &ConnectionSettings,
    born: Instant,
    phase: &mut watch::Receiver<Phase>,
) -> Rest {
    let idle = Instant::now() + settings.idle_timeout.saturating_sub(PARK_AFTER);
    let end = idle.min(born + settings.age_max);
    let timer: Pin<Box<Sleep>> = Box::pin(tokio::time::sleep_until(end));
    tokio::select! {
        biased;
        _ = socket.readable() => Rest::Woken,
        () = timer => Rest::Over,
        () = told_to_stop(phase, Draining::No) => Rest::Over,
    }
}

fn http1_failed(shared: &Shared, peer: SocketAddr, error: &hyper::Error, signs: &Signs) {
    // What the guard refused was answered and has its request line; a peer that leaves is not news.
    if signs.defect().is_none() && (error.is_parse() || error.is_parse_too_large()) {
        refused(shared, peer, "malformed-head", Some(describe(error)));
    }
}

/// Closes an idle connection. The goodbye tells the peer that this is no fault; it may take its time to read it.
async fn goodbye<S: Stream>(mut stream: S) {
    let _ = tokio::time::timeout(LINGER_TIME, stream.shutdown()).await;
}

/// Closes our side and reads on for a moment: closing with unread bytes would make the kernel reset the connection,
/// and the peer could lose the answer.
async fn linger<S: Stream>(mut stream: S) {
    let deadline = Instant::now() + LINGER_TIME;
    if tokio::time::timeout_at(deadline, stream.shutdown())
        .await
        .is_err()
    {
        return;
    }
    let mut space = [0u8; 2048];
    let mut read = 0;
    while read < LINGER_BYTES_MAX {
        match tokio::time::timeout_at(deadline, stream.read(&mut space)).await {
            Ok(Ok(count)) if count > 0 => read += count,
            _ => return,
        }
    }
}
