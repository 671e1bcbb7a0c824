//! The life of an HTTP/2 connection: hyper speaks the protocol; the deadlines, the age and the drain around it are ours.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::server::http2::blocks;
use crate::server::http2::blocks::{BlockDefect, Blocks};
use crate::server::http2::frames::Frames;
use crate::server::http2::gate::Gate;
use crate::server::http2::guard::{Guard, Signs};
use crate::server::http2::line::Line;
use crate::server::http2::pace::Streams;
use crate::server::http2::requests::Requests;
use crate::server::phase::{Draining, Phase, stopping};
use crate::server::reason;
use crate::server::reason::Reason;
use crate::server::seats::Seat;
use crate::server::shared::{Shared, refused};
use crate::settings::ConnectionSettings;
use crate::wire::{OfCaller, describe};

/// Largest piece of answers kept for one HTTP/2 stream that does not read; bytes.
const H2_SEND_BUFFER: usize = 16 * 1024;
/// Time the requests of an HTTP/2 connection get to end after the connection has grown too old.
const LAST_WORDS: Duration = Duration::from_secs(600);

/// Streams that h2 may reset by itself while a connection lives. Resets that a peer provokes spend its credit in
/// `frames.rs`; those for data that was under way when its stream was reset cost none, and are no flood.
const PROVOKED_RESETS_MAX: usize = 10_000;

/// How h2 describes the code ENHANCE_YOUR_CALM, with which it ends a connection that floods (RFC 9113 section 7).
const H2_FLOOD: &str = "detected: detected excessive load";

/// Whether the peer has taken nothing of an answer for as long as it may. Its request would hold the trigger's permit
/// for ever.
fn stalled(signs: &Signs, settings: &ConnectionSettings, now: Instant) -> bool {
    signs
        .write_since()
        .is_some_and(|since| now >= since + settings.write_timeout)
}

pub(in crate::server) async fn serve(
    stream: Box<OfCaller>,
    peer: SocketAddr,
    shared: Arc<Shared>,
    phase: watch::Receiver<Phase>,
    seat: Seat,
) {
    let frames = Frames::new();
    let credit = frames.credit().clone();
    let via = shared.connection(peer, "h2");
    let gate = Gate::new(&via);
    let blocks = Blocks::new(shared.settings.head_size_max.bytes());
    let guard = Guard::new(stream, frames, blocks, &gate);
    let line = Line::new(&shared, &gate, &guard, &credit, seat);
    let ended = live(guard, line.clone(), phase).await;
    let streams = line.malformed();
    let was_cut = line.has_too_many_resets();
    match ended {
        Some((reason, detail)) => refused(&shared, peer, reason, detail),
        // h2 resets what is malformed and reports it to nobody.
        None if streams > 0 => {
            let detail = format!("{streams} of its streams were malformed and have been reset");
            refused(&shared, peer, reason::MALFORMED_HTTP2, Some(detail));
        }
        None if was_cut => {
            let streams = line.discarding.cut_short();
            let detail =
                format!("{streams} of its bodies ended before the length that their heads announced");
            refused(&shared, peer, reason::MALFORMED_HTTP2, Some(detail));
        }
        None => {}
    }
}

/// Why a connection did not end as it should, and what happened.
type Fault = (Reason, Option<String>);

fn protocol(line: &Arc<Line>, settings: &ConnectionSettings) -> http2::Builder<Streams> {
    let head_bytes = blocks::decoded_bytes_max(settings.head_size_max.bytes());
    let frame_bytes = u32::try_from(blocks::frame_bytes_max(settings.head_size_max.bytes())).ok();
    let mut builder = http2::Builder::new(Streams(line.clone()));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.http2_streams_max)
        .initial_stream_window_size(settings.http2_stream_window.as_u32())
        .initial_connection_window_size(settings.http2_connection_window.as_u32())
        .max_send_buf_size(H2_SEND_BUFFER)
        .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
        .max_local_error_reset_streams(Some(PROVOKED_RESETS_MAX))
        .max_frame_size(frame_bytes)
        .keep_alive_interval(settings.idle_timeout)
        .keep_alive_timeout(settings.head_timeout);
    builder
}

async fn live(
    guard: Guard<Box<OfCaller>>,
    line: Arc<Line>,
    mut phase: watch::Receiver<Phase>,
) -> Option<Fault> {
    let settings = line.shared.settings.clone();
    let io = TokioIo::new(guard);
    let protocol = protocol(&line, &settings);
    let mut connection = Box::pin(protocol.serve_connection(io, Requests(line.clone())));
    let born = Instant::now();
    let mut idle_since = Instant::now();
    let mut draining = Draining::No;
    let mut is_renewed = false;
    let mut timer = Box::pin(tokio::time::sleep(settings.head_timeout));
    let mut seen = 0;
    loop {
        tokio::select! {
            biased;
            () = stopping(&mut phase, draining) => {}
            over = poll_fn(|cx| poll_gated(connection.as_mut(), &line, cx)) => {
                return over.and_then(|result| ended(&line.signs, &settings, result));
            }
            // Once the connection was polled: it is what makes it so.
            () = renewal(&line), if !is_renewed => {
                is_renewed = true;
                connection.as_mut().graceful_shutdown();
            }
            () = timer.as_mut() => {}
        }
        let now = Instant::now();
        if stalled(&line.signs, &settings, now) {
            return Some((reason::WRITE_STALLED, None));
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
            line.discarding.hurry();
        } else if draining == Draining::Yes && now >= idle_since + patience + settings.head_timeout {
            // It was asked to close, has no request in flight, and is still open.
            return (served == 0 && !stop).then_some((reason::NO_REQUEST, None));
        } else if now >= born + settings.age_max + LAST_WORDS {
            // A stream whose window the peer never opens again would go on for ever.
            return Some((reason::TOO_OLD, None));
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

/// Ends once the caller should continue on another connection.
async fn renewal(line: &Line) {
    poll_fn(|_| {
        if line.should_renew() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// Polls the connection, and once more, after its requests have had their turn, if the gate lets more pass by then. It is
/// over without a result if an unknown caller sends too much that is malformed, and none of the requests beside it makes
/// the caller known.
fn poll_gated<T>(
    connection: Pin<&mut impl Future<Output = T>>,
    line: &Line,
    cx: &mut Context<'_>,
) -> Poll<Option<T>> {
    if line.has_too_many_resets() {
        return Poll::Ready(None);
    }
    line.discarding.poll(cx);
    // Once it is open, the gate costs nothing.
    let was_known = line.via.is_known();
    if !was_known {
        line.gate.settle(line.under_way());
    }
    let polled = connection.poll(cx);
    line.discarding.poll(cx);
    if !was_known
        && polled.is_pending()
        && (line.gate.is_late(line.under_way()) || line.has_too_many_resets())
    {
        cx.waker().wake_by_ref();
    }
    polled.map(Some)
}

fn ended(signs: &Signs, settings: &ConnectionSettings, result: Result<(), hyper::Error>) -> Option<Fault> {
    let head_size_max = settings.head_size_max.bytes();
    let too_large = |size: String| {
        let detail = format!("a head of {size}; `connections.head_size_max` is {head_size_max}");
        Some((reason::HEAD_TOO_LARGE, Some(detail)))
    };
    match signs.block_defect() {
        Some(BlockDefect::TooLong { bytes }) => {
            return too_large(format!("{bytes} bytes or more, compressed"));
        }
        Some(BlockDefect::UnfoldsTooFar) => {
            let bytes = blocks::decoded_bytes_max(head_size_max);
            return too_large(format!("{bytes} bytes or more, decoded"));
        }
        Some(BlockDefect::Fragment) => {
            let detail = "the path of a request has a fragment (`#`)".to_owned();
            return Some((reason::MALFORMED_HTTP2, Some(detail)));
        }
        None => {}
    }
    if signs.is_flooded() {
        return Some((reason::HTTP2_FLOOD, None));
    }
    let error = result.err()?;
    let text = describe(&error);
    if text.contains(H2_FLOOD) {
        return Some((reason::HTTP2_FLOOD, Some(text)));
    }
    // A peer that closes or resets the connection is not news; what h2 refuses is.
    let protocol = !(error.is_closed() || error.is_canceled() || error.is_incomplete_message())
        && std::error::Error::source(&error).is_some_and(|source| !source.is::<std::io::Error>());
    let refused = protocol && !text.contains("NO_ERROR") && !text.contains("not connected");
    refused.then_some((reason::MALFORMED_HTTP2, Some(text)))
}
