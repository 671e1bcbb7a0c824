//! A deadline for readers of HTTP/2 streams. hyper has none, and it polls the body of an answer whose reader has closed
//! its window once and no more; so each stream runs in a future of ours, in which the body sets whose turn it is. A stream
//! that waits for the flow may wait; one that waits for its reader, and moves by not a single piece, is reset.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::rt::Executor;
use tokio::time::{Instant, Sleep};

use crate::model::clock;
use crate::server::http2::line::Line;
use crate::server::shared::PIECE_BYTES;

/// For whom a stream waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// For the flow, or for us.
    Ours,
    /// For its reader, since that was set last.
    Reader,
}

thread_local! {
    // A stream and its body are polled in one go on one thread, so this needs neither a lock nor memory of the stream's.
    static TURN: Cell<Option<Turn>> = const { Cell::new(None) };
}

/// Sets for the stream that is being polled whose turn it is now.
pub(super) fn set_turn(turn: Turn) {
    TURN.set(Some(turn));
}

/// The next piece of these bytes; the rest stays.
pub(super) fn piece(bytes: &mut Bytes) -> Bytes {
    if bytes.len() > PIECE_BYTES {
        return bytes.split_to(PIECE_BYTES);
    }
    std::mem::take(bytes)
}

/// Runs the streams of one connection.
#[derive(Clone)]
pub(super) struct Streams(pub(super) Arc<Line>);

impl<F: Future<Output = ()> + Send + Unpin + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        tokio::spawn(Paced {
            stream,
            turn: Turn::Ours,
            timer: None,
            line: self.0.clone(),
        });
    }
}

struct Paced<F> {
    stream: F,
    turn: Turn,
    /// Made when the reader is waited for: nearly no stream ever does that.
    timer: Option<Pin<Box<Sleep>>>,
    line: Arc<Line>,
}

impl<F: Future<Output = ()> + Unpin> Future for Paced<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let me = &mut *self;
        TURN.set(None);
        if clock::turn(|| Pin::new(&mut me.stream).poll(cx)).is_ready() {
            return Poll::Ready(());
        }
        let moved = TURN.take();
        me.turn = moved.unwrap_or(me.turn);
        if me.turn == Turn::Ours {
            return Poll::Pending;
        }
        let patience = me.line.shared.settings.write_timeout;
        let timer = me
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        if moved.is_some() {
            timer.as_mut().reset(Instant::now() + patience);
        }
        std::task::ready!(timer.as_mut().poll(cx));
        // Dropped, the stream is reset.
        me.line.stream_stalled();
        Poll::Ready(())
    }
}
