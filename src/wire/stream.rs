//! Streams that callers speak HTTP/1 over: TLS (`secure.rs`) and plain sockets, read without a buffer of their own, so
//! that an idle connection holds none.

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes read from a plain socket at once.
const PLAIN_READ_BYTES: usize = 16 * 1024;

/// A stream of bytes over a socket.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Adds what arrives to `into`, at most `max` bytes or what one record of TLS holds; 0 at the end. Memory is asked for
    /// only when bytes are there.
    ///
    /// # Errors
    /// Those of the socket and of TLS; an end without TLS's own goodbye is an error.
    fn poll_more(&mut self, cx: &mut Context<'_>, into: &mut BytesMut, max: usize)
    -> Poll<io::Result<usize>>;

    /// The socket underneath.
    fn socket(&self) -> &TcpStream;

    /// Whether nothing waits to be read, here or in the socket. The runtime may not have noticed what this finds.
    fn is_silent(&self) -> bool;
}

thread_local! {
    /// Where plain sockets are read into: one for each worker, not one for each connection.
    static SPACE: RefCell<Vec<u8>> = RefCell::new(vec![0; PLAIN_READ_BYTES]);
}

/// Reads once and throws away what has arrived; 0 at the end.
///
/// # Errors
/// Those of the socket.
pub fn poll_discard(socket: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    SPACE.with_borrow_mut(|space| {
        loop {
            std::task::ready!(socket.poll_read_ready(cx))?;
            match socket.try_read(space) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    })
}

impl Stream for TcpStream {
    fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut BytesMut,
        max: usize,
    ) -> Poll<io::Result<usize>> {
        SPACE.with_borrow_mut(|space| {
            let end = max.min(space.len());
            let mut read = ReadBuf::new(space.get_mut(..end).unwrap_or_default());
            std::task::ready!(Pin::new(self).poll_read(cx, &mut read))?;
            into.extend_from_slice(read.filled());
            Poll::Ready(Ok(read.filled().len()))
        })
    }

    fn socket(&self) -> &TcpStream {
        self
    }

    fn is_silent(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        // What is not there yet is an error, and the end has no bytes.
        SockRef::from(self).peek(&mut byte).unwrap_or_default() == 0
    }
}
