//! Bytes to be sent on a stream: a head, a piece of a body, the framing of a chunk. They are sent together,
//! and what the stream does not accept waits here.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// A piece of a body up to this size is copied behind its head.
const JOINED_BYTES_MAX: usize = 2048;

#[derive(Debug, Default)]
pub struct Outbox {
    /// Bytes created here, heads and sizes of chunks, and a small piece of a body behind its head.
    head: Vec<u8>,
    head_sent: usize,
    /// Whether a piece is behind the head.
    is_joined: bool,
    /// A piece of a body as received.
    body: Bytes,
    tail: &'static [u8],
    flushed: bool,
}

impl Outbox {
    /// The buffer to write a head into. Bytes that are already in it are sent first.
    pub fn head(&mut self) -> &mut Vec<u8> {
        self.flushed = false;
        &mut self.head
    }

    /// Adds a piece of a body whose length was stated, or that ends with the connection. A small one is copied behind its head
    /// where that has room: what TLS makes one record of, it would copy with the head.
    pub fn body(&mut self, data: Bytes) {
        self.flushed = false;
        let room = (self.head.capacity() - self.head.len()).min(JOINED_BYTES_MAX);
        self.is_joined = !self.head.is_empty() && data.len() <= room;
        match self.is_joined {
            true => self.head.extend_from_slice(&data),
            false => self.body = data,
        }
    }

    pub fn chunk(&mut self, data: Bytes) {
        if data.is_empty() {
            // An empty chunk would end the body.
            return;
        }
        let mut digits = [0u8; 16];
        let mut rest = data.len();
        let mut first = digits.len();
        while rest > 0 && first > 0 {
            first -= 1;
            if let Some(place) = digits.get_mut(first) {
                *place = char::from_digit((rest & 15) as u32, 16).map_or(b'0', |digit| digit as u8);
            }
            rest >>= 4;
        }
        let head = self.head();
        head.extend_from_slice(digits.get(first..).unwrap_or_default());
        head.extend_from_slice(b"\r\n");
        self.body = data;
        self.tail = b"\r\n";
    }

    /// Adds the last piece of a body as a chunk, and the end after it.
    pub fn final_chunk(&mut self, data: Bytes) {
        if data.is_empty() {
            return self.last_chunk();
        }
        self.chunk(data);
        self.tail = b"\r\n0\r\n\r\n";
    }

    /// Adds the end of a chunked body.
    pub fn last_chunk(&mut self) {
        self.head().extend_from_slice(b"0\r\n\r\n");
    }

    /// The memory of the head, cleared for reuse.
    pub fn into_space(mut self) -> Vec<u8> {
        self.head.clear();
        self.head
    }

    /// Whether the stream has accepted everything.
    pub fn is_empty(&self) -> bool {
        self.left() == 0 && self.flushed
    }

    /// Whether another piece may be added: everything has been sent, or only a whole head waits for its first
    /// piece. Bytes that the stream has accepted but not passed on count as waiting; otherwise a peer that
    /// does not read would get piece after piece.
    pub fn takes_piece(&self) -> bool {
        let head_alone = !self.head.is_empty() && self.head_sent == 0 && self.left() == self.head.len();
        self.is_empty() || (head_alone && !self.is_joined)
    }

    /// Bytes that were not sent yet.
    pub fn left(&self) -> usize {
        self.head.len() - self.head_sent + self.body.len() + self.tail.len()
    }

    /// Passes everything to the stream; `sent` grows by what it accepts.
    pub fn poll_send(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
        sent: &mut u64,
    ) -> Poll<io::Result<()>> {
        while self.left() > 0 {
            let pieces = [
                IoSlice::new(self.head.get(self.head_sent..).unwrap_or_default()),
                IoSlice::new(&self.body),
                IoSlice::new(self.tail),
            ];
            let count = std::task::ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &pieces))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *sent += count as u64;
            self.advance(count);
        }
        if !self.flushed {
            std::task::ready!(Pin::new(stream).poll_flush(cx))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, count: usize) {
        let of_head = count.min(self.head.len() - self.head_sent);
        self.head_sent += of_head;
        if self.head_sent == self.head.len() {
            self.head.clear();
            self.head_sent = 0;
            self.is_joined = false;
        }
        let of_body = (count - of_head).min(self.body.len());
        self.body.advance(of_body);
        if self.body.is_empty() {
            // An empty handle would keep the memory alive.
            self.body = Bytes::new();
        }
        let of_tail = (count - of_head - of_body).min(self.tail.len());
        self.tail = self.tail.get(of_tail..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWrite};
    use tokio::net::{TcpListener, TcpStream};

    use super::Outbox;

    /// A stream that accepts at most three bytes at once.
    #[derive(Default)]
    struct Narrow {
        flushes: usize,
        taken: Vec<u8>,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = bytes.get(..3).unwrap_or(bytes);
            self.taken.extend_from_slice(taken);
            Poll::Ready(Ok(taken.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_is_given_is_sent_and_flushed_each_time() {
        type Step<'a> = (&'a dyn Fn(&mut Outbox), String);
        let mut stream = Narrow::default();
        let mut outbox = Outbox::default();
        let long = "x".repeat(0x1af);
        let steps: [Step<'_>; 6] = [
            (
                &|outbox| outbox.head().extend_from_slice(b"head"),
                "head".to_owned(),
            ),
            (&|outbox| outbox.body("body".into()), "body".to_owned()),
            (
                &|outbox| outbox.chunk(long.clone().into()),
                format!("1af\r\n{long}\r\n"),
            ),
            (
                &|outbox| outbox.final_chunk("0123456789".into()),
                "a\r\n0123456789\r\n0\r\n\r\n".to_owned(),
            ),
            (&|outbox| outbox.final_chunk(Bytes::new()), "0\r\n\r\n".to_owned()),
            (&|outbox| outbox.last_chunk(), "0\r\n\r\n".to_owned()),
        ];
        for (index, (give, expected)) in steps.iter().enumerate() {
            stream.taken.clear();
            give(&mut outbox);
            assert_eq!(outbox.left(), expected.len(), "{expected:?}");
            assert!(!outbox.is_empty());
            let mut sent = 0;
            poll_fn(|cx| outbox.poll_send(&mut stream, cx, &mut sent))
                .await
                .unwrap();
            assert_eq!(stream.taken, expected.as_bytes());
            assert_eq!((sent as usize, stream.flushes), (expected.len(), index + 1));
            assert!(outbox.is_empty());
        }
    }

    #[tokio::test]
    async fn a_small_piece_leaves_with_its_head_and_waits_like_any_other() {
        for (room, length) in [(5, 5), (5, 6), (5, 0), (1 << 20, 2048), (1 << 20, 2049)] {
            let mut stream = Narrow::default();
            let mut outbox = Outbox::default();
            *outbox.head() = Vec::with_capacity(4 + room);
            outbox.head().extend_from_slice(b"head");
            let fits = length <= room.min(2048);
            let data = Bytes::from(vec![b'x'; length]);
            outbox.body(data.clone());
            assert_eq!(outbox.body.is_empty(), fits, "{room} {length}");
            assert!(!outbox.takes_piece(), "{room} {length}");
            let mut sent = 0;
            poll_fn(|cx| outbox.poll_send(&mut stream, cx, &mut sent))
                .await
                .unwrap();
            assert_eq!(stream.taken, [b"head", data.as_ref()].concat());
            assert!(outbox.takes_piece());
        }
    }

    #[test]
    fn a_piece_that_waits_leaves_no_room_for_another() {
        let mut outbox = Outbox::default();
        outbox.head().extend_from_slice(b"head");
        assert!(outbox.takes_piece(), "a head may wait before it");
        outbox.chunk(Bytes::from_static(b"one"));
        assert!(!outbox.takes_piece());
        outbox.advance(b"head3\r\none".len());
        assert!(!outbox.takes_piece(), "its end has not left");
        outbox.advance(b"\r\n".len());
        assert!(!outbox.takes_piece(), "the stream has not passed it on");
        outbox.flushed = true;
        assert!(outbox.takes_piece());
        outbox.body(Bytes::from_static(b"two"));
        assert!(!outbox.takes_piece());
    }

    #[tokio::test]
    async fn everything_leaves_in_its_order() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        // More than the sockets' buffers accept at once.
        let large = Bytes::from(vec![b'x'; 8 * 1024 * 1024]);
        let mut expected = b"head\r\n800000\r\n".to_vec();
        expected.extend_from_slice(&large);
        expected.extend_from_slice(b"\r\n0\r\n\r\n");
        let sending = async {
            let mut outbox = Outbox::default();
            let mut sent = 0;
            outbox.head().extend_from_slice(b"head\r\n");
            outbox.chunk(large.clone());
            outbox.chunk(Bytes::new());
            poll_fn(|cx| outbox.poll_send(&mut stream, cx, &mut sent))
                .await
                .unwrap();
            outbox.last_chunk();
            poll_fn(|cx| outbox.poll_send(&mut stream, cx, &mut sent))
                .await
                .unwrap();
            assert!(outbox.is_empty());
            drop(stream);
            sent
        };
        let mut got = Vec::new();
        let (sent, read) = tokio::join!(sending, peer.read_to_end(&mut got));
        read.unwrap();
        assert_eq!(sent as usize, expected.len());
        assert!(got == expected, "the bytes differ");
    }
}
