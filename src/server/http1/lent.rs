//! The stream of an HTTP/1 connection, which belongs to the connection; a body that is still arriving borrows it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::gateway::Inbound;
use crate::model::{clock, locked};
use crate::wire::{BodyError, Decoder, Framing, Piece, Stream};

/// Bytes read at once, of heads and of bodies.
pub(super) const READ_BYTES_MAX: usize = 64 * 1024;
/// Bytes read ahead while a request is being answered: the next one, on a connection that pipelines.
const AHEAD_BYTES_MAX: usize = 4 * 1024;
/// What invites a caller to send the body it has announced (RFC 9110 section 15.2.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The stream, and what of the peer's bytes has not been read.
pub(super) struct Wire<S> {
    pub(super) stream: S,
    pub(super) held: BytesMut,
    pub(super) body: Decoder,
    /// Whether the peer waits to be asked for the body.
    pub(super) awaits_continue: bool,
    /// Since when the peer has closed its side.
    pub(super) closed_since: Option<Instant>,
    pub(super) served: bool,
}

impl<S: Stream> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
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

    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
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
pub(super) struct Lent<S>(Mutex<Option<Wire<S>>>);

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
        match &mut *locked(&self.lent.0) {
            Some(wire) => wire
                .poll_body(cx)
                .map(|piece| piece.map(|data| data.map(Frame::data))),
            None => Poll::Ready(Some(Err("the connection has gone on without it".into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        locked(&self.lent.0)
            .as_ref()
            .is_some_and(|wire| wire.body.is_done())
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Who has the stream while a request is being answered.
pub(super) enum Hands<S> {
    Own(Wire<S>),
    Lent(Arc<Lent<S>>),
}

impl<S: Stream> Hands<S> {
    /// The body of the request, and who has the stream.
    pub(super) fn open(mut wire: Wire<S>, framing: Framing, expects: bool) -> (Inbound, Self) {
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

    pub(super) fn watch(&mut self, cx: &mut Context<'_>) -> (io::Result<()>, Option<Instant>) {
        let mut watched = |wire: &mut Wire<S>| (wire.watch(cx), wire.closed_since);
        match self {
            Self::Own(wire) => watched(wire),
            Self::Lent(lent) => locked(&lent.0).as_mut().map_or((Ok(()), None), watched),
        }
    }

    pub(super) fn back(self) -> Option<Wire<S>> {
        match self {
            Self::Own(wire) => Some(wire),
            Self::Lent(lent) => locked(&lent.0).take(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tokio::net::{TcpListener, TcpStream};

    use super::{Hands, Wire};
    use crate::gateway::Inbound;
    use crate::wire::Framing;

    #[tokio::test]
    async fn a_body_is_lent_unless_it_came_whole_and_invited_unless_it_is_on_its_way() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for (framing, held, expects, whole, invited) in [
            (Framing::None, "", true, Some(""), false),
            (Framing::None, "GET /next", true, Some(""), false),
            (Framing::Length(0), "", true, Some(""), false),
            (Framing::Length(2), "{}", true, Some("{}"), false),
            (Framing::Length(2), "{}GET /next", false, Some("{}"), false),
            (Framing::Length(3), "{}", true, None, false),
            (Framing::Length(3), "", true, None, true),
            (Framing::Length(3), "", false, None, false),
            (Framing::Chunked, "", true, None, true),
            (Framing::Chunked, "2\r\n", true, None, false),
        ] {
            let mut wire = Wire::new(TcpStream::connect(address).await.unwrap());
            wire.held = BytesMut::from(held);
            let (body, hands) = Hands::open(wire, framing, expects);
            let body = match &body {
                Inbound::Whole(body) => Some(std::str::from_utf8(body).unwrap()),
                _ => None,
            };
            assert_eq!(body, whole, "{framing:?} {held}");
            assert_eq!(
                matches!(hands, Hands::Own(_)),
                whole.is_some(),
                "{framing:?} {held}"
            );
            let wire = hands.back().unwrap();
            assert_eq!(wire.awaits_continue, invited, "{framing:?} {held}");
        }
    }
}
