//! The end of a connection whose last answer has left while its caller may still be sending. A socket that is closed
//! with unread bytes is reset, and a caller that writes its whole body before it reads would never see the answer. So
//! our side is closed, and what still comes is read off the socket and thrown away: undecrypted, within bounds of
//! bytes, time and number of such connections.

use std::future::poll_fn;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::server::phase::{Draining, Phase, stopping};
use crate::server::seats::Seat;
use crate::wire;
use crate::wire::Stream;

/// A caller may send what nobody reads for so long, as with nginx's `lingering_time`: 5 MB at 1.5 Mbit/s.
pub(super) const LINGER_TIME: Duration = Duration::from_secs(30);
/// And may pause for so long, as with nginx's `lingering_timeout`.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Time where no body is on its way, where others linger already, or where the gateway stops. Over HTTP/2 it is left
/// to bodies once their connection is to end.
pub(super) const BRIEF_TIME: Duration = Duration::from_secs(2);
/// Bytes that are thrown away at most: no trigger takes a body of more than 100 MB, so no caller has a larger one to
/// send, and a quarter is room for encryption and chunks. They cost us a copy within memory, and the caller its line.
pub(super) const LINGER_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// What a caller may still be sending after its last answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// Nothing that is known of.
    Nothing,
    /// The rest of a body, or what follows a head that cannot be read.
    Rest,
}

/// Closes our side and discards what still arrives.
pub(super) async fn linger<S: Stream>(
    mut stream: S,
    unread: Unread,
    seat: &Seat,
    mut phase: watch::Receiver<Phase>,
) {
    let place = match unread {
        Unread::Rest => seat.linger(),
        Unread::Nothing => None,
    };
    let time = place.as_ref().map_or(BRIEF_TIME, |_| LINGER_TIME);
    let mut deadline = Instant::now() + time;
    let closed = timeout_at(deadline.min(Instant::now() + PAUSE_MAX), stream.shutdown()).await;
    if !matches!(closed, Ok(Ok(()))) {
        return;
    }
    let socket = stream.socket();
    let mut draining = Draining::No;
    let mut bytes = 0;
    while bytes < LINGER_BYTES_MAX {
        let until = deadline.min(Instant::now() + PAUSE_MAX);
        tokio::select! {
            biased;
            () = stopping(&mut phase, draining) => {
                draining = Draining::Yes;
                deadline = deadline.min(Instant::now() + BRIEF_TIME);
            }
            read = timeout_at(until, poll_fn(|cx| wire::poll_discard(socket, cx))) => match read {
                Ok(Ok(count)) if count > 0 => bytes += count as u64,
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::watch;
    use tokio::time::Instant;

    use super::{BRIEF_TIME, LINGER_TIME, PAUSE_MAX, Unread, linger};
    use crate::server::phase::Phase;
    use crate::server::seats::tests::seats;
    use crate::server::seats::{Counting, Seat, Seats};

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0, caller)
    }

    fn seat(seats: &Arc<Seats>) -> Seat {
        let peer = "192.0.2.1:443".parse().unwrap();
        seats.take(0, peer, Counting::ByAddress).unwrap()
    }

    /// How many seconds a connection lingers whose caller has the answer and neither sends nor closes.
    async fn silent(unread: Unread, seat: &Seat, phase: Phase) -> u64 {
        let (ours, mut caller) = pair().await;
        let (_sender, phase) = watch::channel(phase);
        tokio::time::pause();
        let began = Instant::now();
        linger(ours, unread, seat, phase).await;
        let took = began.elapsed().as_secs();
        tokio::time::resume();
        assert_eq!(caller.read(&mut [0; 8]).await.unwrap(), 0, "our side is closed");
        took
    }

    #[tokio::test]
    async fn a_silent_caller_is_waited_for_as_long_as_its_place_allows() {
        let seats = seats(8, 8, &[]);
        let (first, second) = (seat(&seats), seat(&seats));
        let (brief, pause) = (BRIEF_TIME.as_secs(), PAUSE_MAX.as_secs());
        assert_eq!(silent(Unread::Nothing, &first, Phase::Serve).await, brief);
        assert_eq!(silent(Unread::Rest, &first, Phase::Serve).await, pause);
        assert_eq!(silent(Unread::Rest, &first, Phase::Drain).await, brief);
        let _place = second.linger().unwrap();
        assert_eq!(silent(Unread::Rest, &first, Phase::Serve).await, brief);
    }

    #[tokio::test]
    async fn a_caller_that_drips_is_waited_for_no_longer_than_the_whole_time() {
        let seats = seats(8, 8, &[]);
        let seat = seat(&seats);
        let (ours, caller) = pair().await;
        let (_sender, phase) = watch::channel(Phase::Serve);
        tokio::time::pause();
        let began = Instant::now();
        let drips = tokio::spawn(async move {
            let mut pause = tokio::time::interval(Duration::from_secs(1));
            loop {
                pause.tick().await;
                if caller.try_write(b"x").is_err() {
                    return;
                }
            }
        });
        linger(ours, Unread::Rest, &seat, phase).await;
        assert_eq!(began.elapsed().as_secs(), LINGER_TIME.as_secs());
        drips.await.unwrap();
    }

    #[tokio::test]
    async fn a_caller_that_closes_ends_it() {
        let seats = seats(8, 8, &[]);
        let seat = seat(&seats);
        let (ours, caller) = pair().await;
        let (_sender, phase) = watch::channel(Phase::Serve);
        drop(caller);
        tokio::time::pause();
        let began = Instant::now();
        linger(ours, Unread::Rest, &seat, phase).await;
        assert!(began.elapsed() < BRIEF_TIME);
    }
}
