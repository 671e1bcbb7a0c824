//! Records that arrive and leave.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{Error, InvalidMessage};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::wire::secure::alert::hello_version;
use crate::wire::secure::{Progress, READ_BYTES, RECORD_HEAD, Refusal, SPACE, Secure, Side, broken, encode};

impl<T: Side> Secure<T> {
    /// Adds what arrives to `into`: one record, or a few small ones; 0 at the end.
    ///
    /// # Errors
    /// Those of the socket and of TLS; an end without TLS's own goodbye is an error.
    pub fn poll_more(&mut self, cx: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        let before = into.len();
        if !self.unread.is_empty() {
            into.unsplit(std::mem::take(&mut self.unread));
        }
        while into.len() == before && !self.ended {
            std::task::ready!(SPACE.with_borrow_mut(|space| self.poll_record(cx, &mut space.arrived, into)))?;
        }
        Poll::Ready(Ok(into.len() - before))
    }

    /// Reads once, and takes in what is whole.
    pub(super) fn poll_record(
        &mut self,
        cx: &mut Context<'_>,
        space: &mut [u8],
        into: &mut BytesMut,
    ) -> Poll<io::Result<()>> {
        if self.refusal.is_some() {
            return self.poll_refuse(cx).map(Err);
        }
        let taken = std::task::ready!(self.poll_take(cx, space, into, |_| {}));
        if T::LINGERS && self.alerted {
            self.refusal = taken.err().map(Refusal::of);
            return self.poll_refuse(cx).map(Err);
        }
        // A peer that is sent an alert waits for no record.
        let may_wait = self.patient && taken.is_ok();
        let sent = if self.leaving.is_empty() || may_wait {
            Ok(())
        } else {
            // What TLS itself has to say. It leaves with the next bytes, if the socket takes none now.
            match self.poll_leave(cx) {
                Poll::Ready(sent) => sent,
                Poll::Pending => Ok(()),
            }
        };
        // What is wrong with the peer explains more than that it does not listen any more.
        Poll::Ready(taken.and(sent))
    }

    /// The same, and keeps what TLS has to say. Whatever is read is shown to `see` first.
    pub(super) fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        space: &mut [u8],
        into: &mut BytesMut,
        see: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<Progress>> {
        let have = self.arrived.len();
        let too_long = have >= space.len();
        let Some(begun) = space.get_mut(..have).filter(|_| !too_long) else {
            let error = Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge);
            self.alert(&error, None, have);
            return Poll::Ready(Err(broken(error)));
        };
        begun.copy_from_slice(&self.arrived);
        // The head of the next record comes with a large one, so that a long answer takes one look at the socket for each.
        let end = match record_bytes(&self.arrived) {
            Some(bytes) if bytes > READ_BYTES.max(have) => bytes + RECORD_HEAD,
            _ => have + READ_BYTES,
        };
        let end = end.min(space.len());
        let mut read = ReadBuf::new(space.get_mut(have..end).unwrap_or_default());
        std::task::ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut read))?;
        let count = read.filled().len();
        if count == 0 {
            let what = "the peer closed the connection without the goodbye of TLS";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, what)));
        }
        see(read.filled());
        let bytes = space.get_mut(..have + count).unwrap_or_default();
        let (used, progress) = self.digest(bytes, into);
        self.keep(bytes.get(used..).unwrap_or_default());
        Poll::Ready(progress)
    }

    /// Keeps the beginning of a record, in no more memory than that takes.
    fn keep(&mut self, rest: &[u8]) {
        self.arrived.clear();
        if self.arrived.capacity() > rest.len() + RECORD_HEAD {
            self.arrived = Vec::new();
        }
        self.arrived.extend_from_slice(rest);
    }

    /// Processes what has arrived: the plain text is appended to `into`, what TLS answers is queued. Returns how many bytes
    /// were consumed.
    pub(super) fn digest(&mut self, bytes: &mut [u8], into: &mut BytesMut) -> (usize, io::Result<Progress>) {
        let mut used = 0;
        loop {
            let rest = bytes.get_mut(used..).unwrap_or_default();
            let version = hello_version(rest);
            let UnbufferedStatus { mut discard, state } = self.tls.process(rest);
            let progress = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                discard += record.discard;
                                into.extend_from_slice(record.payload);
                            }
                            Err(error) => return (used, Err(broken(error))),
                        }
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    if let Err(error) = encode(data, &mut self.leaving) {
                        return (used, Err(broken(error)));
                    }
                    None
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.ended = true;
                    None
                }
                Ok(ConnectionState::BlockedHandshake) => Some(Progress::Handshake),
                Ok(ConnectionState::WriteTraffic(_) | ConnectionState::Closed) => Some(Progress::Traffic),
                Ok(_) => return (used, Err(broken("a state of TLS that was not asked for"))),
                Err(error) => {
                    used += discard;
                    self.alert(&error, version, bytes.len().saturating_sub(used));
                    return (used, Err(broken(error)));
                }
            };
            used += discard;
            if let Some(progress) = progress {
                return (used, Ok(progress));
            }
        }
    }

    /// Sends what waits to leave.
    pub(super) fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.leaving.get(self.left..)
            && !rest.is_empty()
        {
            let count = std::task::ready!(Pin::new(&mut self.tcp).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.left += count;
        }
        self.leaving = Vec::new();
        self.left = 0;
        self.patient = false;
        Poll::Ready(Ok(()))
    }

    /// Sends what waits to leave, unless it may go with the next record.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.patient {
            return Poll::Ready(Ok(()));
        }
        self.poll_leave(cx)
    }

    /// Makes a record, or the goodbye, and hands it to the socket with what waited for it; what that does not take waits.
    pub(super) fn seal(
        &mut self,
        cx: &mut Context<'_>,
        space: &mut [u8],
        plain: Option<&[u8]>,
    ) -> io::Result<()> {
        // A part of it may have left, if somebody flushed since.
        let waiting = self.leaving.get(self.left..).unwrap_or_default();
        let waited = waiting.len();
        if let Some(first) = space.get_mut(..waited) {
            first.copy_from_slice(waiting);
        }
        self.leaving = Vec::new();
        self.left = 0;
        self.patient = false;
        let room = space.get_mut(waited..).unwrap_or_default();
        // What has arrived of a record is what TLS expects to see again.
        let count = match self.tls.process(&mut self.arrived).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => match plain {
                Some(plain) => traffic.encrypt(plain, room),
                None => traffic.queue_close_notify(room),
            }
            .map_err(broken)?,
            // Whatever else TLS had to say or to read was taken care of as it came.
            Ok(_) => return Err(io::ErrorKind::BrokenPipe.into()),
            Err(error) => return Err(broken(error)),
        };
        let record = space.get(..waited + count).unwrap_or_default();
        let sent = match Pin::new(&mut self.tcp).poll_write(cx, record) {
            Poll::Ready(sent) => sent?,
            Poll::Pending => 0,
        };
        self.leaving
            .extend_from_slice(record.get(sent..).unwrap_or_default());
        Ok(())
    }
}

/// The length of the record that begins like this, with its head.
fn record_bytes(begun: &[u8]) -> Option<usize> {
    let length = begun.get(3..RECORD_HEAD)?;
    let length = u16::from_be_bytes(length.try_into().ok()?);
    Some(RECORD_HEAD + usize::from(length))
}
