//! Sends an answer over HTTP/1, at the pace of its reader.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;

use crate::model::clock;
use crate::server::http1::end::End;
use crate::server::http1::plan::Ending;
use crate::server::shared::PIECE_BYTES;
use crate::wire::{Outbox, Stream, Timer};

/// Sends the head that is in the outbox, and the body after it. The reader has `timeout` for each 16 KiB; time in which
/// the flow is waited for does not count.
pub(super) async fn pour<B: Body<Data = Bytes> + Unpin>(
    stream: &mut impl Stream,
    mut outbox: Outbox,
    body: B,
    ending: Ending,
    timer: &mut Timer,
    timeout: Duration,
) -> Result<(), End> {
    let mut rest = Some(body);
    let mut sent = 0;
    // Since when the reader is waited for, and what had been sent by then.
    let mut blocked = None;
    poll_fn(|cx| {
        loop {
            // The first piece leaves with the head; each other one when what came before it has left.
            if outbox.takes_piece()
                && let Err(end) = refill(&mut outbox, &mut rest, ending, cx)
            {
                return Poll::Ready(Err(end));
            }
            if outbox.is_empty() {
                // Now the flow is waited for.
                blocked = None;
                return if rest.is_some() {
                    Poll::Pending
                } else {
                    Poll::Ready(Ok(()))
                };
            }
            match outbox.poll_send(stream, cx, &mut sent) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(End::Gone)),
                Poll::Pending => {
                    // Its request would hold the trigger's permit for ever, also if single bytes were taken.
                    if blocked.is_some_and(|(_, from)| sent - from >= PIECE_BYTES as u64) {
                        blocked = None;
                    }
                    let (since, _) = *blocked.get_or_insert_with(|| (clock::now(), sent));
                    std::task::ready!(timer.poll_until(cx, since + timeout));
                    return Poll::Ready(Err(End::Stalled));
                }
            }
        }
    })
    .await
}

/// Puts the next piece of the answer into the outbox, if it is there.
fn refill<B: Body<Data = Bytes> + Unpin>(
    outbox: &mut Outbox,
    rest: &mut Option<B>,
    ending: Ending,
    cx: &mut Context<'_>,
) -> Result<(), End> {
    while let Some(body) = rest {
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Pending => return Ok(()),
            // Ends visibly: the peer must not take a part for the whole.
            Poll::Ready(Some(Err(_))) => return Err(End::Cut),
            Poll::Ready(None) => {
                *rest = None;
                if ending == Ending::Chunked {
                    outbox.last_chunk();
                }
            }
            Poll::Ready(Some(Ok(frame))) => {
                let over = body.is_end_stream();
                if over {
                    *rest = None;
                }
                let Ok(data) = frame.into_data() else { continue };
                match ending {
                    Ending::None => continue,
                    Ending::Length(_) | Ending::Close => outbox.body(data),
                    Ending::Chunked if over => outbox.final_chunk(data),
                    Ending::Chunked => outbox.chunk(data),
                }
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use bytes::Bytes;
    use http_body::{Body, Frame};
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpSocket, TcpStream};
    use tokio::time::{Instant, MissedTickBehavior};

    use super::{End, Ending, pour};
    use crate::wire::{Outbox, Timer};

    const PATIENCE: Duration = Duration::from_secs(20);
    const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

    /// So many pieces of one size, each of them there at once.
    struct Pieces {
        bytes: usize,
        left: usize,
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            self.left -= 1;
            Poll::Ready(Some(Ok(Frame::data(vec![b'x'; self.bytes].into()))))
        }
    }

    /// A gateway's side and a caller's between which the kernel keeps so little that it takes 6 KiB at once.
    async fn narrow_pair() -> (TcpStream, TcpStream) {
        let listener = TcpSocket::new_v4().unwrap();
        listener.set_send_buffer_size(4096).unwrap();
        listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listener.listen(1).unwrap();
        let caller = TcpSocket::new_v4().unwrap();
        caller.set_recv_buffer_size(4096).unwrap();
        let caller = caller.connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0, caller)
    }

    /// How an answer to a reader ends that takes so many bytes every 150 ms.
    async fn poured(body: Pieces, step: usize) -> Result<(), End> {
        let (mut ours, mut caller) = narrow_pair().await;
        let mut pace = tokio::time::interval(Duration::from_millis(150));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut space = vec![0; step];
        let reading = async {
            loop {
                caller.read_exact(&mut space).await.unwrap();
                pace.tick().await;
            }
        };
        let mut timer = Timer::default();
        let outbox = Outbox::default();
        let pouring = pour(&mut ours, outbox, body, Ending::Close, &mut timer, WRITE_TIMEOUT);
        tokio::select! {
            end = tokio::time::timeout(PATIENCE, pouring) => end.expect("it is poured for ever"),
            () = reading => unreachable!(),
        }
    }

    #[tokio::test]
    async fn a_reader_that_takes_a_few_bytes_now_and_then_is_cut() {
        // Small pieces have left the gateway as a whole again and again.
        for bytes in [65_536, 512] {
            let left = (64 << 20) / bytes;
            let end = poured(Pieces { bytes, left }, 1500).await;
            assert!(matches!(end, Err(End::Stalled)), "{bytes}");
        }
    }

    #[tokio::test]
    async fn a_reader_that_takes_16_kib_in_its_time_gets_everything() {
        let began = Instant::now();
        for bytes in [65_536, 512] {
            let left = 4 * 65_536 / bytes;
            let end = poured(Pieces { bytes, left }, 16 * 1024).await;
            assert!(end.is_ok(), "{bytes}");
        }
        assert!(began.elapsed() > 2 * WRITE_TIMEOUT, "too quick to show anything");
    }
}
