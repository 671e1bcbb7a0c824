//! The stream under HTTP/2: it counts the frames that cost work and carry no request, and remembers since when the peer
//! has taken nothing of what is sent to it, and which streams were refused below us. h2 reports none of it. Header blocks
//! pass through `blocks.rs`. Bytes of the usual head, which comes whole and in one frame, are never copied.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::gateway::Standstill;
use crate::server::http2::blocks::{BlockDefect, Blocks};
use crate::server::http2::frames::Frames;
use crate::server::http2::gate::{Door, Gate};
use crate::server::http2::hello::Hello;
use crate::server::http2::resets::Resets;
use crate::server::http2::window::Window;

/// Bytes of a held header block that are read at once.
const PIECE_BYTES: usize = 1024;

/// What the guard reports to the connection.
#[derive(Debug)]
pub(super) struct Signs {
    born: Instant,
    /// Milliseconds after `born`, plus one, since which no byte could be written; 0 while writing goes on.
    write_since: AtomicU64,
    flooded: AtomicBool,
    refused_streams: AtomicU32,
    block_defect: OnceLock<BlockDefect>,
}

impl Signs {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            write_since: AtomicU64::new(0),
            flooded: AtomicBool::new(false),
            refused_streams: AtomicU32::new(0),
            block_defect: OnceLock::new(),
        })
    }

    pub(super) fn is_flooded(&self) -> bool {
        self.flooded.load(Ordering::Relaxed)
    }

    pub(super) fn block_defect(&self) -> Option<BlockDefect> {
        self.block_defect.get().copied()
    }

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

pub(super) struct Guard<S> {
    stream: S,
    frames: Frames,
    blocks: Blocks,
    hello: Hello,
    resets: Resets,
    window: Window,
    door: Door,
    signs: Arc<Signs>,
}

impl<S> Guard<S> {
    pub(super) fn new(stream: S, frames: Frames, blocks: Blocks, gate: &Arc<Gate>) -> Self {
        Self {
            stream,
            frames,
            blocks,
            hello: Hello::default(),
            resets: Resets::default(),
            window: Window::new(),
            door: Door::new(gate),
            signs: Signs::new(),
        }
    }

    pub(super) fn standstill(&self) -> &Arc<Standstill> {
        self.window.standstill()
    }

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
        cx: &Context<'_>,
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
            self.window.opened(self.resets.take_opened());
            if self.resets.take_refused_head() {
                self.blocks.overflow();
                self.note_block();
                // h2 has to read what ends the connection.
                cx.waker().wake_by_ref();
            }
        }
        self.wrote(result)
    }
}

impl<S: AsyncRead + Unpin> Guard<S> {
    /// Reads what the gate lets pass.
    fn poll_source(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let admitted = if self.door.is_holding() {
            self.door.release(out, cx)
        } else {
            let before = out.filled().len();
            std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, out))?;
            self.door.admit(out, before, cx)
        };
        self.blocks.join(self.door.longest());
        admitted.map(Ok)
    }

    /// Reads more of what is held back; 0 bytes are the end, and what is held is nothing.
    fn poll_block(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut memory = [0; PIECE_BYTES];
        let most = self.blocks.wanted().min(PIECE_BYTES);
        let mut piece = ReadBuf::new(memory.get_mut(..most).unwrap_or_default());
        std::task::ready!(self.poll_source(cx, &mut piece))?;
        let bytes = piece.filled();
        self.look(bytes)?;
        self.blocks.fill(bytes);
        self.note_block();
        Poll::Ready(Ok(bytes.len()))
    }
}

impl<S> Guard<S> {
    fn note_block(&self) {
        if let Some(defect) = self.blocks.defect() {
            self.signs.block_defect.get_or_init(|| defect);
        }
    }

    fn look(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.frames.look(bytes).is_err() {
            self.signs.flooded.store(true, Ordering::Relaxed);
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "too many HTTP/2 control frames",
            ));
        }
        self.window.used(self.frames.take_data());
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = &mut *self;
        let before = out.filled().len();
        loop {
            let ready = me.blocks.ready(out.remaining());
            if !ready.is_empty() {
                out.put_slice(ready);
                return Poll::Ready(Ok(()));
            }
            if me.blocks.wanted() > 0 {
                if std::task::ready!(me.poll_block(cx))? == 0 {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            std::task::ready!(me.poll_source(cx, out))?;
            let bytes = out.filled_mut().get_mut(before..).unwrap_or_default();
            if bytes.is_empty() {
                return Poll::Ready(Ok(()));
            }
            me.look(bytes)?;
            let passed = me.blocks.look(bytes);
            me.note_block();
            out.set_filled(before + passed);
            // Nothing at all would be the end of the stream.
            if passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let me = &mut *self;
        let result = if let Some(hello) = me.hello.instead(buf) {
            let result = Pin::new(&mut me.stream).poll_write(cx, hello);
            if let Poll::Ready(Ok(bytes)) = &result {
                me.hello.left(*bytes);
            }
            result
        } else {
            Pin::new(&mut me.stream).poll_write(cx, buf)
        };
        self.sent(result, &[io::IoSlice::new(buf)], cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.hello.is_said()
            && let Some(first) = bufs.iter().find(|piece| !piece.is_empty())
        {
            return self.poll_write(cx, first);
        }
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.sent(result, bufs, cx)
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
    use tokio::time::{Instant, advance};

    use super::Guard;
    use crate::gateway::Connection;
    use crate::server::http2::blocks::Blocks;
    use crate::server::http2::frames::Frames;
    use crate::server::http2::gate::Gate;
    use crate::settings::Peers;

    const PREFACE: [u8; 24] = [0; 24];
    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    // RST_STREAM with PROTOCOL_ERROR, and with CANCEL.
    const REFUSAL: [u8; 13] = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    const CANCEL: [u8; 13] = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8];
    // Pings that `frames.rs` lets pass at once, and the bytes sent to the peer for which it may send one more.
    const PINGS: usize = 1_000;
    const BYTES_PER_PING: usize = 2_048;

    /// A connection whose peer sends one thing over and over, and takes so many bytes of each write: none yet, without
    /// a number.
    struct Peer {
        sends: Vec<u8>,
        takes: Option<usize>,
        vectored: bool,
        closed: bool,
        /// What it sends it sends once, as much at a time as is asked for.
        once: bool,
        gone: bool,
        /// What it took of single writes.
        taken: Vec<u8>,
    }

    impl Peer {
        fn take(&self, offered: usize) -> Poll<io::Result<usize>> {
            match self.takes {
                Some(takes) => Poll::Ready(Ok(takes.min(offered))),
                None => Poll::Pending,
            }
        }
    }

    impl AsyncRead for Peer {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            out: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.once && !self.sends.is_empty() {
                let most = out.remaining().min(self.sends.len());
                out.put_slice(&self.sends.drain(..most).collect::<Vec<_>>());
                return Poll::Ready(Ok(()));
            }
            if self.gone {
                return Poll::Ready(Ok(()));
            }
            if self.sends.is_empty() {
                return Poll::Pending;
            }
            out.put_slice(&self.sends);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Peer {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let taken = self.take(buf.len());
            if let Poll::Ready(Ok(bytes)) = &taken {
                self.taken.extend_from_slice(&buf[..*bytes]);
            }
            taken
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[io::IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.take(bufs.iter().map(|piece| piece.len()).sum())
        }

        fn is_write_vectored(&self) -> bool {
            self.vectored
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.take(0).map_ok(drop)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.closed = true;
            Poll::Pending
        }
    }

    fn guard(takes: Option<usize>) -> Guard<Peer> {
        let peer = Peer {
            sends: PREFACE.to_vec(),
            takes,
            vectored: true,
            closed: false,
            once: false,
            gone: false,
            taken: Vec::new(),
        };
        let via = Connection::new(([127, 0, 0, 1], 443).into(), 0, "h2", None, Peers::Callers);
        Guard::new(peer, Frames::new(), Blocks::new(32 * 1024), &Gate::new(&via))
    }

    /// Reads once, behind what the buffer has already.
    fn read(guard: &mut Guard<Peer>) -> Poll<io::Result<Vec<u8>>> {
        let mut memory = [0; 64];
        let mut out = ReadBuf::new(&mut memory);
        out.put_slice(b"before");
        let result = Pin::new(guard).poll_read(&mut Context::from_waker(Waker::noop()), &mut out);
        result.map_ok(|()| out.filled().to_vec())
    }

    fn write(guard: &mut Guard<Peer>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(guard).poll_write(&mut Context::from_waker(Waker::noop()), bytes)
    }

    fn write_pieces(guard: &mut Guard<Peer>, pieces: &[&[u8]]) -> Poll<io::Result<usize>> {
        let pieces: Vec<_> = pieces.iter().map(|piece| io::IoSlice::new(piece)).collect();
        Pin::new(guard).poll_write_vectored(&mut Context::from_waker(Waker::noop()), &pieces)
    }

    fn flush(guard: &mut Guard<Peer>) -> Poll<io::Result<()>> {
        Pin::new(guard).poll_flush(&mut Context::from_waker(Waker::noop()))
    }

    /// Pings that pass after the preface, before the connection ends.
    fn pings(guard: &mut Guard<Peer>) -> usize {
        guard.stream.sends = PREFACE.to_vec();
        assert!(matches!(read(guard), Poll::Ready(Ok(_))));
        guard.stream.sends = PING.to_vec();
        (0..2 * PINGS)
            .take_while(|_| matches!(read(guard), Poll::Ready(Ok(_))))
            .count()
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_peer_sends_arrives() {
        let mut guard = guard(None);
        guard.stream.sends = b"PRI".to_vec();
        assert!(matches!(read(&mut guard), Poll::Ready(Ok(bytes)) if bytes == b"beforePRI"));
        guard.stream.sends.clear();
        assert!(read(&mut guard).is_pending());
        assert!(!guard.signs().is_flooded());
    }

    /// Reads until nothing more comes, into little room each time.
    fn read_all(guard: &mut Guard<Peer>) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let mut memory = [0; 7];
            let mut out = ReadBuf::new(&mut memory);
            let result = Pin::new(&mut *guard).poll_read(&mut Context::from_waker(Waker::noop()), &mut out);
            match result {
                Poll::Ready(Ok(())) if !out.filled().is_empty() => all.extend_from_slice(out.filled()),
                Poll::Ready(Err(error)) => panic!("{error}"),
                Poll::Ready(Ok(())) | Poll::Pending => return all,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_block_goes_on_whole_and_in_one_frame_however_it_is_read() {
        // `x: 1` as a literal that is not kept, in one frame and in two.
        let head = [0, 0, 5, 1, 5, 0, 0, 0, 1, 0, 1, b'x', 1, b'1'];
        let begun = [0, 0, 2, 1, 1, 0, 0, 0, 1, 0, 1];
        let rest = [0, 0, 3, 9, 4, 0, 0, 0, 1, b'x', 1, b'1'];
        let bytes = [&PREFACE[..], &begun, &rest, &PING, &head, &PING].concat();
        let expected = [&PREFACE[..], &head, &PING, &head, &PING].concat();
        for size in 1..=bytes.len() {
            let mut guard = guard(None);
            guard.stream.once = true;
            let mut read = Vec::new();
            for piece in bytes.chunks(size) {
                guard.stream.sends = piece.to_vec();
                read.extend(read_all(&mut guard));
            }
            assert_eq!(read, expected, "in pieces of {size}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn data_counts_also_where_its_header_comes_in_pieces() {
        let mut guard = guard(None);
        guard.stream.once = true;
        let data = [&[0, 0x3f, 0xff, 0, 0, 0, 0, 0, 1][..], &[0; 0x3fff]].concat();
        let bytes = [&PREFACE[..], &data, &data, &data, &data].concat();
        for piece in bytes.chunks(5) {
            guard.stream.sends = piece.to_vec();
            read_all(&mut guard);
        }
        assert!(guard.standstill().is_on());
    }

    #[tokio::test(start_paused = true)]
    async fn the_peer_may_not_send_the_long_frames_that_h2_takes() {
        let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0x80, 0];
        for takes in [1, 4, 100] {
            let mut guard = guard(Some(takes));
            let mut left = 0;
            while left < settings.len() {
                let written = write_pieces(&mut guard, &[&[], &settings[left..], b"more"]);
                let Poll::Ready(Ok(bytes)) = written else {
                    panic!("{written:?}");
                };
                left += bytes;
            }
            let expected = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0x40, 0];
            assert_eq!(guard.stream.taken, expected);
            assert!(matches!(write(&mut guard, &settings[..1]), Poll::Ready(Ok(1))));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_when_the_peer_leaves_is_dropped() {
        let head = [0, 0, 5, 1, 5, 0, 0, 0, 1, 0, 1, b'x', 1];
        let bytes = [&PREFACE[..], &head].concat();
        let mut guard = guard(None);
        guard.stream.once = true;
        guard.stream.sends = bytes;
        assert_eq!(read_all(&mut guard), PREFACE);
        guard.stream.gone = true;
        let mut memory = [0; 7];
        let mut out = ReadBuf::new(&mut memory);
        let result = Pin::new(&mut guard).poll_read(&mut Context::from_waker(Waker::noop()), &mut out);
        assert!(matches!(result, Poll::Ready(Ok(()))) && out.filled().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_stands_still_from_its_last_data_until_its_window_is_opened() {
        let mut guard = guard(Some(100));
        guard.stream.once = true;
        let mut sends = |bytes: &[u8]| {
            guard.stream.sends = bytes.to_vec();
            read_all(&mut guard);
            guard.standstill().is_on()
        };
        assert!(!sends(&PREFACE));
        // Four frames of data, and a byte less than the whole window.
        let data = [&[0, 0x3f, 0xff, 0, 0, 0, 0, 0, 1][..], &[0; 0x3fff]].concat();
        assert_eq!([0; 4].map(|_| sends(&data)), [false, false, false, true]);
        let of_stream = [0, 0, 4, 8, 0, 0, 0, 0, 1, 0, 1, 0, 0];
        let of_connection = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 1, 0, 0];
        assert!(matches!(write(&mut guard, &of_stream), Poll::Ready(Ok(13))));
        assert!(guard.standstill().is_on());
        assert!(matches!(write(&mut guard, &of_connection), Poll::Ready(Ok(13))));
        assert!(!guard.standstill().is_on());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_frames_ends_the_connection_and_is_reported() {
        let mut guard = guard(None);
        assert_eq!(pings(&mut guard), PINGS);
        assert!(guard.signs().is_flooded());
        let Poll::Ready(Err(error)) = read(&mut guard) else {
            panic!("the flood goes on");
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test(start_paused = true)]
    async fn only_bytes_that_were_sent_let_a_peer_send_more() {
        let bytes = vec![0; 16 * BYTES_PER_PING];
        let mut guard = guard(Some(5 * BYTES_PER_PING));
        assert!(matches!(write(&mut guard, &bytes), Poll::Ready(Ok(_))));
        assert!(matches!(write_pieces(&mut guard, &[&bytes]), Poll::Ready(Ok(_))));
        assert_eq!(pings(&mut guard), PINGS + 10);
    }

    #[tokio::test(start_paused = true)]
    async fn refused_streams_are_counted_once_they_have_left() {
        let mut guard = guard(Some(100));
        assert!(matches!(write(&mut guard, &CANCEL), Poll::Ready(Ok(13))));
        assert_eq!(guard.signs().refused_streams(), 0);
        assert!(matches!(write(&mut guard, &REFUSAL), Poll::Ready(Ok(13))));
        assert_eq!(guard.signs().refused_streams(), 1);
        let pieces = [&REFUSAL[..5], &REFUSAL[5..], &REFUSAL, &REFUSAL];
        guard.stream.takes = Some(13 + 12);
        assert!(matches!(write_pieces(&mut guard, &pieces), Poll::Ready(Ok(25))));
        assert_eq!(guard.signs().refused_streams(), 2);
        let pieces = [&REFUSAL[12..], &REFUSAL, &REFUSAL];
        guard.stream.takes = Some(100);
        assert!(matches!(write_pieces(&mut guard, &pieces), Poll::Ready(Ok(27))));
        assert_eq!(guard.signs().refused_streams(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_timed_from_its_first_refusal() {
        let mut guard = guard(None);
        assert_eq!(guard.signs().write_since(), None);
        let begin = Instant::now();
        assert!(write(&mut guard, b"a").is_pending());
        assert_eq!(guard.signs().write_since(), Some(begin));
        advance(Duration::from_secs(3)).await;
        assert!(write(&mut guard, b"a").is_pending());
        assert!(write_pieces(&mut guard, &[b"a"]).is_pending());
        assert!(flush(&mut guard).is_pending());
        assert_eq!(guard.signs().write_since(), Some(begin));
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_is_taken_ends_the_time() {
        type Attempt = fn(&mut Guard<Peer>) -> bool;
        let attempts: [Attempt; 3] = [
            |guard| write(guard, b"a").is_ready(),
            |guard| write_pieces(guard, &[b"a"]).is_ready(),
            |guard| flush(guard).is_ready(),
        ];
        let mut guard = guard(None);
        for attempt in attempts {
            advance(Duration::from_millis(7)).await;
            guard.stream.takes = None;
            assert!(!attempt(&mut guard));
            assert_eq!(guard.signs().write_since(), Some(Instant::now()));
            guard.stream.takes = Some(1);
            assert!(attempt(&mut guard));
            assert_eq!(guard.signs().write_since(), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_stream_is_asked_it_answers_itself() {
        let mut guard = guard(None);
        assert!(guard.is_write_vectored());
        guard.stream.vectored = false;
        assert!(!guard.is_write_vectored());
        let closing = Pin::new(&mut guard).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        assert!(closing.is_pending() && guard.stream.closed);
        assert_eq!(guard.signs().write_since(), None);
    }
}
