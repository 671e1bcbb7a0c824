//! Streams for HTTP/1: TLS (`secure.rs`) and plain sockets. Neither has a read buffer of its own, so an idle
//! connection holds none.

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

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Appends what arrives to `into`, at most `max` bytes or the content of one TLS record; 0 at the end.
    /// Memory is allocated only when bytes have arrived.
    ///
    /// # Errors
    /// Those of the socket and of TLS; an end without close_notify is an error.
    fn poll_more(&mut self, cx: &mut Context<'_>, into: &mut BytesMut, max: usize)
    -> Poll<io::Result<usize>>;

    fn socket(&self) -> &TcpStream;

    /// Whether nothing waits to be read, here or in the socket. The socket is asked directly: the runtime may
    /// not have noticed yet.
    fn is_silent(&self) -> bool;
}

thread_local! {
    /// The read buffer for plain sockets: one for each worker, not one for each connection.
    static SPACE: RefCell<Vec<u8>> = RefCell::new(vec![0; PLAIN_READ_BYTES]);
}

/// Reads once and discards what has arrived; 0 at the end.
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
        // No data yet is an error, and the end of the stream has no bytes.
        SockRef::from(self).peek(&mut byte).unwrap_or_default() == 0
    }
}
