//! The body of an answer over HTTP/2, handed to hyper piece by piece.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::gateway::AnswerBody;
use crate::server::http2::line::Running;
use crate::server::http2::pace;
use crate::server::http2::pace::Turn;
use crate::server::shared::PIECE_BYTES;
use crate::wire::BodyError;

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
    pub(super) fn new(body: AnswerBody, running: Running) -> Self {
        // Before it asks for the first piece, HTTP/2 waits for the reader's window.
        pace::set_turn(Turn::Reader);
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
            pace::set_turn(Turn::Reader);
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
            pace::set_turn(Turn::Ours);
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
