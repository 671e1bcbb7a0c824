//! The stream under HTTP: it lets hyper see only whole request heads that can be read in one way, tells the connection
//! when it is idle, and remembers since when a head has been arriving. What hyper itself would accept silently is
//! refused here.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;

use bytes::Buf;
use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::time::Instant;

use crate::gateway::Defect;
use crate::server::frames::Frames;
use crate::server::framing::Framing;
use crate::server::framing::Limits;
use crate::server::framing::Step;

/// What hyper gets to read in place of a head that was refused; the service answers it with the defect.
///
/// Its method is a dash, because that of the refused head is not known for certain.
const STAND_IN: &[u8] = b"- / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// Bytes read at once while a head is incomplete.
const HEAD_READ_BYTES: usize = 4 * 1024;

/// What the guard tells the connection and the service.
#[derive(Debug)]
pub(super) struct Signs {
    born: Instant,
    defect: OnceLock<Defect>,
    /// Milliseconds after `born`, plus one, at which an incomplete head began; 0 without one.
    head_since: AtomicU64,
    between: AtomicBool,
    read_blocked: AtomicBool,
    write_blocked: AtomicBool,
    /// Milliseconds after `born`, plus one, since which no byte could be written; 0 while writing goes on.
    write_since: AtomicU64,
    /// Milliseconds after `born`, plus one, at which the peer closed its side; 0 while it is open.
    closed_since: AtomicU64,
    answering: AtomicBool,
    flooded: AtomicBool,
}

/// Whether a request is being answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answering {
    /// One is.
    Yes,
    /// None is.
    No,
}

impl Signs {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            defect: OnceLock::new(),
            head_since: AtomicU64::new(0),
            between: AtomicBool::new(true),
            read_blocked: AtomicBool::new(false),
            write_blocked: AtomicBool::new(false),
            write_since: AtomicU64::new(0),
            closed_since: AtomicU64::new(0),
            answering: AtomicBool::new(false),
            flooded: AtomicBool::new(false),
        })
    }

    /// What was wrong with the head that was refused, if one was.
    pub(super) fn defect(&self) -> Option<Defect> {
        self.defect.get().copied()
    }

    /// Whether the connection was ended because of a flood of HTTP/2 frames.
    pub(super) fn is_flooded(&self) -> bool {
        self.flooded.load(Ordering::Relaxed)
    }

    /// Since when a head has been arriving.
    pub(super) fn head_since(&self) -> Option<Instant> {
        let millis = self.head_since.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.born + std::time::Duration::from_millis(millis))
    }

    /// Since when the peer has taken none of the bytes that wait for it.
    pub(super) fn write_since(&self) -> Option<Instant> {
        let millis = self.write_since.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.born + std::time::Duration::from_millis(millis))
    }

    /// Notes whether a request is being answered.
    pub(super) fn answering(&self, now: Answering) {
        self.answering.store(now == Answering::Yes, Ordering::Relaxed);
    }

    /// Whether a whole request has been read and its answer has not left.
    fn is_mid_answer(&self) -> bool {
        self.between.load(Ordering::Relaxed) && self.answering.load(Ordering::Relaxed)
    }

    /// Since when the peer has closed its side.
    pub(super) fn closed_since(&self) -> Option<Instant> {
        let millis = self.closed_since.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.born + std::time::Duration::from_millis(millis))
    }

    fn stamp(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// Whether nothing of a request is under way in the stream: not read, not to be written.
    pub(super) fn is_quiet(&self) -> bool {
        self.between.load(Ordering::Relaxed)
            && self.read_blocked.load(Ordering::Relaxed)
            && !self.write_blocked.load(Ordering::Relaxed)
    }

    fn note(&self, framing: &Framing) {
        self.between.store(framing.is_between(), Ordering::Relaxed);
        if !framing.is_in_head() {
            self.head_since.store(0, Ordering::Relaxed);
        } else if self.head_since.load(Ordering::Relaxed) == 0 {
            self.head_since.store(self.stamp(), Ordering::Relaxed);
        }
    }
}

/// What is done with the bytes that pass.
enum Watch {
    /// HTTP/1: heads are held back until they are whole.
    Http1(Framing),
    /// HTTP/2 frames pass and are counted; h2 itself refuses malformed requests stream by stream.
    Http2(Frames),
}

/// A stream that is watched.
pub(super) struct Guard<S> {
    stream: S,
    watch: Watch,
    held: BytesMut,
    /// Bytes at the front of `held` that may pass.
    cleared: usize,
    signs: Arc<Signs>,
}

impl<S> Guard<S> {
    /// Watches an HTTP/1 connection.
    pub(super) fn http1(stream: S, limits: Limits) -> Self {
        let watch = Watch::Http1(Framing::new(limits));
        Self {
            stream,
            watch,
            held: BytesMut::new(),
            cleared: 0,
            signs: Signs::new(),
        }
    }

    /// Watches an HTTP/2 connection.
    pub(super) fn http2(stream: S) -> Self {
        Self {
            stream,
            watch: Watch::Http2(Frames::new()),
            held: BytesMut::new(),
            cleared: 0,
            signs: Signs::new(),
        }
    }

    /// What the guard tells.
    pub(super) fn signs(&self) -> &Arc<Signs> {
        &self.signs
    }

    /// The stream itself.
    pub(super) fn stream(&self) -> &S {
        &self.stream
    }

    /// The stream itself, to be used without the guard once HTTP is over.
    pub(super) fn into_stream(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> Guard<S> {
    /// Hands on what was held back and may pass.
    fn deliver(&mut self, out: &mut ReadBuf<'_>) {
        let count = self.cleared.min(out.remaining());
        out.put_slice(self.held.get(..count).unwrap_or_default());
        self.held.advance(count);
        self.cleared -= count;
        if self.held.is_empty() {
            // An idle connection keeps no buffer.
            self.held = BytesMut::new();
        }
    }

    fn stand_in(&mut self, defect: Defect, out: &mut ReadBuf<'_>) {
        // The first defect stands; after it nothing more is read.
        let _ = self.signs.defect.set(defect);
        self.signs.head_since.store(0, Ordering::Relaxed);
        self.held = BytesMut::from(STAND_IN);
        self.cleared = STAND_IN.len();
        self.deliver(out);
    }

    /// Takes back what hyper has read and not used.
    pub(super) fn unread(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut held = BytesMut::from(bytes);
        held.extend_from_slice(&self.held);
        self.held = held;
        self.cleared += bytes.len();
    }

    /// Reads on, to have a whole head.
    fn read_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [0u8; HEAD_READ_BYTES];
        let mut more = ReadBuf::new(&mut space);
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut more))?;
        self.held.extend_from_slice(more.filled());
        Poll::Ready(Ok(more.filled().len()))
    }

    /// Reads on only to learn that the peer has closed its side. What comes instead is the next request: it is kept
    /// unread until the answer has left and hyper asks again.
    fn wait_for_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.held.is_empty() {
            return Poll::Pending;
        }
        match std::task::ready!(self.read_more(cx))? {
            0 => self.ended(),
            _ => Poll::Pending,
        }
    }

    /// The peer has closed its side. While its request is being answered hyper must not hear of it: the answer is still
    /// wanted, perhaps, and hyper would drop the request. It asks again when the answer has left.
    fn ended(&self) -> Poll<io::Result<()>> {
        let signs = &*self.signs;
        if signs.is_mid_answer() {
            if signs.closed_since.load(Ordering::Relaxed) == 0 {
                signs.closed_since.store(signs.stamp(), Ordering::Relaxed);
            }
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read_http1(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.cleared == 0 && self.signs.defect().is_some() {
            // hyper answers and closes; it must not see another byte.
            return Poll::Pending;
        }
        if self.cleared == 0 && self.signs.is_mid_answer() {
            return self.wait_for_answer(cx);
        }
        let Watch::Http1(framing) = &mut self.watch else {
            return Poll::Pending;
        };
        if self.cleared == 0 && self.held.is_empty() {
            let before = out.filled().len();
            std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, out))?;
            let bytes = out.filled().get(before..).unwrap_or_default();
            if bytes.is_empty() {
                return self.ended();
            }
            let verdict = clear(framing, bytes);
            self.signs.note(framing);
            let cleared = verdict?;
            let keep = match cleared {
                Cleared::Bytes(count) => count,
                Cleared::Refused(_) => 0,
            };
            self.held.extend_from_slice(bytes.get(keep..).unwrap_or_default());
            out.set_filled(before + keep);
            match cleared {
                Cleared::Refused(defect) => {
                    self.stand_in(defect, out);
                    return Poll::Ready(Ok(()));
                }
                Cleared::Bytes(0) => {}
                Cleared::Bytes(_) => return Poll::Ready(Ok(())),
            }
        }
        self.poll_held(cx, out)
    }

    fn poll_read_http2(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, out))?;
        let Watch::Http2(frames) = &mut self.watch else {
            return Poll::Ready(Ok(()));
        };
        if frames
            .look(out.filled().get(before..).unwrap_or_default())
            .is_err()
        {
            self.signs.flooded.store(true, Ordering::Relaxed);
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "too many HTTP/2 control frames",
            )));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_held(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.cleared > 0 {
                self.deliver(out);
                return Poll::Ready(Ok(()));
            }
            let Watch::Http1(framing) = &mut self.watch else {
                return Poll::Pending;
            };
            let verdict = clear(framing, &self.held);
            self.signs.note(framing);
            match verdict? {
                Cleared::Refused(defect) => {
                    self.stand_in(defect, out);
                    return Poll::Ready(Ok(()));
                }
                Cleared::Bytes(0) => {
                    if std::task::ready!(self.read_more(cx))? == 0 {
                        return self.ended();
                    }
                }
                Cleared::Bytes(count) => self.cleared = count,
            }
        }
    }
}

/// How much may go on.
enum Cleared {
    /// So many bytes: up to the end of the message at most.
    Bytes(usize),
    /// A head that must not be read.
    Refused(Defect),
}

/// Looks at bytes up to the end of the message they belong to. The next message waits until hyper asks for it, so
/// that hyper's own buffer never holds a byte of it.
fn clear(framing: &mut Framing, bytes: &[u8]) -> io::Result<Cleared> {
    let mut cleared = 0;
    while let Some(rest) = bytes.get(cleared..).filter(|rest| !rest.is_empty()) {
        match framing.look(rest) {
            Step::Pass(count) => cleared += count,
            Step::Wait => break,
            Step::Refuse(defect) => return Ok(Cleared::Refused(defect)),
            // What came before it passes first: a head in the same bytes is a request, to be answered and logged.
            Step::Broken(_) if cleared > 0 => break,
            Step::Broken(what) => return Err(io::Error::new(io::ErrorKind::InvalidData, what)),
        }
        if framing.is_between() {
            break;
        }
    }
    Ok(Cleared::Bytes(cleared))
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = match self.watch {
            Watch::Http1(_) => self.poll_read_http1(cx, out),
            Watch::Http2(_) => self.poll_read_http2(cx, out),
        };
        self.signs
            .read_blocked
            .store(result.is_pending(), Ordering::Relaxed);
        result
    }
}

impl<S> Guard<S> {
    fn wrote<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let signs = &*self.signs;
        signs.write_blocked.store(result.is_pending(), Ordering::Relaxed);
        if result.is_ready() {
            signs.write_since.store(0, Ordering::Relaxed);
        } else if signs.write_since.load(Ordering::Relaxed) == 0 {
            signs.write_since.store(signs.stamp(), Ordering::Relaxed);
        }
        result
    }
}

impl<S> Guard<S> {
    fn sent(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Watch::Http2(frames), Poll::Ready(Ok(bytes))) = (&mut self.watch, &result) {
            frames.sent(*bytes);
        }
        self.wrote(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.sent(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.sent(result)
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
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;

    use super::Guard;
    use super::STAND_IN;
    use crate::gateway::Defect;
    use crate::server::framing::Limits;

    const LIMITS: Limits = Limits {
        bytes_max: 1024,
        fields_max: 100,
    };

    /// Feeds pieces and reads what hyper would see, with a small buffer so that nothing fits at once.
    async fn seen(pieces: &[&[u8]], buffer: usize) -> (Vec<u8>, Option<Defect>) {
        let (mut peer, stream) = tokio::io::duplex(64);
        let mut guard = Guard::http1(stream, LIMITS);
        let signs = guard.signs().clone();
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let writer = tokio::spawn(async move {
            for piece in pieces {
                peer.write_all(&piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut all = Vec::new();
        let mut space = vec![0; buffer];
        while signs.defect().is_none() {
            match guard.read(&mut space).await {
                Ok(0) | Err(_) => break,
                Ok(count) => all.extend_from_slice(&space[..count]),
            }
        }
        writer.abort();
        (all, signs.defect())
    }

    #[tokio::test]
    async fn a_good_head_passes_however_it_arrives() {
        let head =
            b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for buffer in [64, 8192] {
            assert_eq!(seen(&[head], buffer).await, (head.to_vec(), None));
            let bytes: Vec<&[u8]> = head.chunks(1).collect();
            assert_eq!(seen(&bytes, buffer).await, (head.to_vec(), None));
        }
    }

    #[tokio::test]
    async fn a_bad_head_is_never_seen() {
        let (all, defect) = seen(&[b"GET / HT", b"TP/1.1\nHost: a\n\n"], 8192).await;
        assert_eq!(all, STAND_IN);
        assert!(matches!(defect, Some(Defect::Malformed(_))));
    }

    #[tokio::test]
    async fn a_bad_head_behind_a_good_one_is_never_seen() {
        let good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let bad = b"GET /b HTTP/1.1\r\nHost : a\r\n\r\n";
        let (all, defect) = seen(&[&[good.as_slice(), bad].concat()], 8192).await;
        assert_eq!(all, [good.as_slice(), STAND_IN].concat());
        assert!(defect.is_some());
    }

    #[tokio::test]
    async fn a_wrong_chunk_is_an_error_of_the_body() {
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (mut peer, stream) = tokio::io::duplex(1024);
        peer.write_all(&[head.as_slice(), b"+3\r\nabc\r\n"].concat())
            .await
            .unwrap();
        let mut guard = Guard::http1(stream, LIMITS);
        let mut space = vec![0; 8192];
        // The head is whole and passes; only what follows it does not.
        let count = guard.read(&mut space).await.unwrap();
        assert_eq!(&space[..count], head);
        for _ in 0..2 {
            assert!(guard.read(&mut space).await.is_err());
        }
    }
}
