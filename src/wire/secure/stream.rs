//! A secure connection as a stream of bytes.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::wire::secure::{CARRIED_MAX, OfCaller, SPACE, Secure, Side, Space};
use crate::wire::stream::Stream;

impl Stream for Box<OfCaller> {
    fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut BytesMut,
        _max: usize,
    ) -> Poll<io::Result<usize>> {
        (**self).poll_more(cx, into)
    }

    fn socket(&self) -> &TcpStream {
        self.tcp()
    }

    fn is_silent(&self) -> bool {
        !self.has_unread() && self.tcp().is_silent()
    }
}

impl<T: Side> AsyncRead for Secure<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        if me.unread.is_empty() {
            SPACE.with_borrow_mut(|Space { arrived, read, .. }| {
                read.clear();
                while read.is_empty() && !me.ended {
                    std::task::ready!(me.poll_record(cx, arrived, read))?;
                }
                let now = read.len().min(out.remaining());
                let (now, later) = read.split_at(now);
                out.put_slice(now);
                me.unread.extend_from_slice(later);
                Poll::Ready(Ok(()))
            })
        } else {
            let now = me.unread.len().min(out.remaining());
            out.put_slice(&me.unread.split_to(now));
            if me.unread.is_empty() {
                me.unread = BytesMut::new();
            }
            Poll::Ready(Ok(()))
        }
    }
}

impl<T: Side> AsyncWrite for Secure<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        if me.refusal.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        std::task::ready!(me.poll_room(cx))?;
        SPACE.with_borrow_mut(|Space { plain, leaving, .. }| {
            let first = pieces.iter().position(|piece| !piece.is_empty());
            let Some(first) = first.and_then(|first| pieces.get(first..)) else {
                return Poll::Ready(Ok(0));
            };
            let bytes = match first {
                [one, rest @ ..] if one.len() >= CARRIED_MAX || rest.iter().all(|piece| piece.is_empty()) => {
                    one.get(..CARRIED_MAX).unwrap_or(one)
                }
                _ => {
                    plain.clear();
                    for piece in first {
                        let room = CARRIED_MAX - plain.len();
                        plain.extend_from_slice(piece.get(..room).unwrap_or(piece));
                    }
                    plain
                }
            };
            me.seal(cx, leaving, Some(bytes))?;
            Poll::Ready(Ok(bytes.len()))
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_leave(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        std::task::ready!(me.poll_room(cx))?;
        if !me.gone && me.refusal.is_none() {
            me.gone = true;
            SPACE.with_borrow_mut(|space| me.seal(cx, &mut space.leaving, None))?;
            std::task::ready!(me.poll_leave(cx))?;
        }
        Pin::new(&mut me.tcp).poll_shutdown(cx)
    }
}
