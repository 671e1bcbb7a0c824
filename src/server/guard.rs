//! The stream under HTTP/2: it counts the frames that cost work and carry no request, and remembers since when the peer
//! has taken nothing of what is sent to it, and which streams were refused below us. h2 tells none of it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::time::Instant;

use crate::server::frames::Frames;
use crate::server::resets::Resets;

/// What the guard tells the connection.
#[derive(Debug)]
pub(super) struct Signs {
    born: Instant,
    /// Milliseconds after `born`, plus one, since which no byte could be written; 0 while writing goes on.
    write_since: AtomicU64,
    flooded: AtomicBool,
    refused_streams: AtomicU32,
}

impl Signs {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            write_since: AtomicU64::new(0),
            flooded: AtomicBool::new(false),
            refused_streams: AtomicU32::new(0),
        })
    }

    /// Whether the connection was ended because of a flood of frames.
    pub(super) fn is_flooded(&self) -> bool {
        self.flooded.load(Ordering::Relaxed)
    }

    /// Streams that h2 has refused by itself.
    pub(super) fn refused_streams(&self) -> u32 {
        self.refused_streams.load(Ordering::Relaxed)
    }

    /// Since when the peer has taken none of the bytes that wait for it.
    pub(super) fn write_since(&self) -> Option<Instant> {
        let millis = self.write_since.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.born + Duration::from_millis(millis))
    }

    fn stamp(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }
}

/// A stream that is watched.
pub(super) struct Guard<S> {
    stream: S,
    frames: Frames,
    resets: Resets,
    signs: Arc<Signs>,
}

impl<S> Guard<S> {
    /// Watches a connection from its preface on.
    pub(super) fn new(stream: S, frames: Frames) -> Self {
        Self {
            stream,
            frames,
            resets: Resets::default(),
            signs: Signs::new(),
        }
    }

    /// What the guard tells.
    pub(super) fn signs(&self) -> &Arc<Signs> {
        &self.signs
    }

    fn wrote<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let signs = &*self.signs;
        if result.is_ready() {
            signs.write_since.store(0, Ordering::Relaxed);
        } else if signs.write_since.load(Ordering::Relaxed) == 0 {
            signs.write_since.store(signs.stamp(), Ordering::Relaxed);
        }
        result
    }

    fn sent(
        &mut self,
        result: Poll<io::Result<usize>>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &result {
            self.frames.sent(*bytes);
            let mut left = *bytes;
            for piece in pieces {
                let taken = left.min(piece.len());
                left -= taken;
                let refused = self.resets.look(piece.get(..taken).unwrap_or_default());
                if refused > 0 {
                    self.signs.refused_streams.fetch_add(refused, Ordering::Relaxed);
                }
            }
        }
        self.wrote(result)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, out))?;
        let bytes = out.filled().get(before..).unwrap_or_default();
        if self.frames.look(bytes).is_err() {
            self.signs.flooded.store(true, Ordering::Relaxed);
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "too many HTTP/2 control frames",
            )));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.sent(result, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.sent(result, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.wrote(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
