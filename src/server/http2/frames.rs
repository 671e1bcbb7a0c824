//! Counts what a peer sends over HTTP/2 without asking for anything (RFC 9113 section 10.5): frames that cost work and
//! lead to no answer. h2 ends some floods by itself; pings, settings, priorities, window updates and unknown frames it
//! answers or drops without end, and requests that it refuses itself, or that are cancelled once they run, it does not
//! count at all. So frames spend, and answers earn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::server::http2::blocks::{HEADER_BYTES, PREFACE_BYTES, length};

/// Such frames a peer may send at once.
const BURST: u32 = 1_000;
/// And in each second after that.
const PER_SECOND: u32 = 100;
/// Further ones for each request that reaches us and is answered: its own head, and the windows it needs. A request that
/// is dropped before, by its caller or because of what its caller sent, takes them back.
const PER_REQUEST: u32 = 9;
/// Further ones for so many bytes sent to it: a reader opens its window again about once in 16 KiB.
const BYTES_PER_FRAME: u64 = 2 * 1024;

/// However well a peer has behaved, its flood ends after so many.
const CREDIT_MAX: u32 = 10_000;

const DATA: u8 = 0x0;

/// How many such frames a peer may send. Its requests and the frames of its connection share it.
#[derive(Debug)]
pub(super) struct Credit(AtomicU32);

impl Credit {
    fn earn(&self, frames: u32) {
        let credit = self.0.load(Ordering::Relaxed).saturating_add(frames);
        self.0.store(credit.min(CREDIT_MAX), Ordering::Relaxed);
    }

    /// Takes one, if there is one.
    fn spend(&self) -> bool {
        let credit = self.0.load(Ordering::Relaxed);
        self.0.store(credit.saturating_sub(1), Ordering::Relaxed);
        credit > 0
    }

    pub(super) fn request(&self) {
        self.earn(PER_REQUEST);
    }

    /// Notes that such a request was dropped before its answer was whole.
    pub(super) fn dropped(&self) {
        let credit = self.0.load(Ordering::Relaxed);
        self.0
            .store(credit.saturating_sub(PER_REQUEST), Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes of the preface or of a payload that are still to come.
    skip: usize,
    header: [u8; HEADER_BYTES],
    have: usize,
    credit: Arc<Credit>,
    counted: Instant,
    /// Bytes of DATA frames whose header was seen since they were asked for.
    data: u64,
    /// Bytes sent to the peer that have not become credit yet.
    sent: u64,
}

/// The peer has sent too many of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flood;

impl Frames {
    pub(super) fn new() -> Self {
        Self {
            skip: PREFACE_BYTES,
            header: [0; HEADER_BYTES],
            have: 0,
            credit: Arc::new(Credit(AtomicU32::new(BURST))),
            counted: Instant::now(),
            data: 0,
            sent: 0,
        }
    }

    pub(super) fn credit(&self) -> &Arc<Credit> {
        &self.credit
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        if self.sent >= BYTES_PER_FRAME {
            let frames = u32::try_from(self.sent / BYTES_PER_FRAME).unwrap_or(u32::MAX);
            self.sent %= BYTES_PER_FRAME;
            self.credit.earn(frames);
        }
    }

    /// How much data the peer has begun to send since this was asked last, padding included; bytes.
    pub(super) fn take_data(&mut self) -> u64 {
        std::mem::take(&mut self.data)
    }

    pub(super) fn look(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((first, rest)) = bytes.split_first() else {
                break;
            };
            if let Some(place) = self.header.get_mut(self.have) {
                *place = *first;
            }
            self.have += 1;
            bytes = rest;
            if self.have == HEADER_BYTES {
                self.have = 0;
                self.frame()?;
            }
        }
        Ok(())
    }

    fn frame(&mut self) -> Result<(), Flood> {
        let [_, _, _, kind, ..] = self.header;
        self.skip = length(&self.header);
        match (kind, self.skip) {
            (DATA, 1..) => {
                self.data += self.skip as u64;
                Ok(())
            }
            _ => self.spend(),
        }
    }

    fn spend(&mut self) -> Result<(), Flood> {
        if self.credit.spend() {
            return Ok(());
        }
        self.refill();
        if self.credit.spend() { Ok(()) } else { Err(Flood) }
    }

    /// The clock is asked only when the credit is gone.
    fn refill(&mut self) {
        let passed = self.counted.elapsed().min(Duration::from_secs(10));
        let earned = passed.as_millis() * u128::from(PER_SECOND) / 1000;
        let earned = u32::try_from(earned).unwrap_or(BURST).min(BURST);
        if earned > 0 {
            self.credit.earn(earned);
            self.counted = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use proptest::prelude::proptest;

    use super::{BURST, CREDIT_MAX, Flood, Frames, PREFACE_BYTES};

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, 0, 0, 0, 0, 0];
        bytes.extend(std::iter::repeat_n(0, payload));
        bytes
    }

    fn opened() -> Frames {
        let mut frames = Frames::new();
        frames.look(&[0; PREFACE_BYTES]).unwrap();
        frames
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_of_flood_ends() {
        // HEADERS that become no request, PRIORITY, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION, unknown, empty DATA.
        for (kind, payload) in [
            (1, 30),
            (2, 5),
            (3, 4),
            (4, 0),
            (6, 8),
            (8, 4),
            (9, 3),
            (0xbe, 7),
            (0, 0),
        ] {
            let mut frames = opened();
            let one = frame(kind, payload);
            let good = (0..).take_while(|_| frames.look(&one).is_ok()).count();
            assert_eq!(good, BURST as usize, "frame type {kind}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_works_is_not_a_flood() {
        let mut frames = opened();
        for _ in 0..10_000 {
            frames.look(&frame(1, 100)).unwrap();
            frames.credit().request();
            frames.look(&frame(0, 1000)).unwrap();
            frames.look(&frame(3, 4)).unwrap();
        }
        let mut frames = opened();
        for _ in 0..100_000 {
            frames.sent(16 * 1024);
            frames.look(&frame(8, 4)).unwrap();
            frames.look(&frame(8, 4)).unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_are_dropped_are_a_flood() {
        let mut frames = opened();
        let begun = (0..).take_while(|_| {
            let head = frames.look(&frame(1, 100));
            frames.credit().request();
            let reset = frames.look(&frame(3, 4));
            frames.credit().dropped();
            head.and(reset).is_ok()
        });
        let begun = begun.count();
        assert!((400..600).contains(&begun), "{begun}");
    }

    #[tokio::test(start_paused = true)]
    async fn good_behaviour_is_not_saved_up_for_ever() {
        let mut frames = opened();
        for _ in 0..1_000_000 {
            frames.credit().request();
        }
        let ping = frame(6, 8);
        let good = (0..).take_while(|_| frames.look(&ping).is_ok()).count();
        assert_eq!(good, CREDIT_MAX as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn time_forgives() {
        let mut frames = opened();
        let ping = frame(6, 8);
        while frames.look(&ping).is_ok() {}
        tokio::time::advance(Duration::from_secs(1)).await;
        let good = (0..).take_while(|_| frames.look(&ping).is_ok()).count();
        assert!((90..=110).contains(&good), "{good}");
        assert_eq!(frames.look(&ping), Err(Flood));
    }

    #[tokio::test(start_paused = true)]
    async fn a_preface_and_payloads_of_every_length_are_passed_over() {
        for payload in [0, 1, 255, 256, 0x01_80, 0xff_ff, 0x01_00_00, 0x01_81_01] {
            let mut frames = Frames::new();
            frames.look(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
            frames.look(&frame(6, payload)).unwrap();
            frames.look(&frame(6, 8)).unwrap();
            let state = (frames.credit.0.load(Ordering::Relaxed), frames.skip, frames.have);
            assert_eq!(state, (BURST - 2, 0, 0), "{payload}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_were_sent_become_credit_once() {
        let mut frames = opened();
        let credit = |frames: &Frames| frames.credit.0.load(Ordering::Relaxed);
        for (bytes, earned) in [(2047, 0), (1, 1), (2047, 1), (4096, 3), (1, 4)] {
            frames.sent(bytes);
            assert_eq!(credit(&frames), BURST + earned, "after {bytes} more");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn data_costs_nothing() {
        let mut frames = opened();
        let one = frame(0, 1);
        for _ in 0..2 * CREDIT_MAX {
            frames.look(&one).unwrap();
        }
        assert_eq!(frames.credit.0.load(Ordering::Relaxed), BURST);
    }

    #[tokio::test(start_paused = true)]
    async fn data_is_told_once_and_nothing_else_is_data() {
        let mut frames = opened();
        for kind in 0..12 {
            frames.look(&frame(kind, 300)).unwrap();
        }
        frames.look(&frame(0, 7)[..10]).unwrap();
        assert_eq!((frames.take_data(), frames.take_data()), (307, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn time_forgives_no_more_than_a_burst() {
        let mut frames = opened();
        let ping = frame(6, 8);
        while frames.look(&ping).is_ok() {}
        tokio::time::advance(Duration::from_secs(3600)).await;
        let good = (0..).take_while(|_| frames.look(&ping).is_ok()).count();
        assert_eq!(good, BURST as usize);
    }

    proptest! {
        #[test]
        fn pieces_do_not_change_the_count(sizes in proptest::collection::vec((0u8..12, 0usize..40), 1..50), cut in 1usize..20) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let bytes: Vec<u8> = sizes.iter().flat_map(|(kind, payload)| frame(*kind, *payload)).collect();
                let mut whole = opened();
                let mut pieces = opened();
                whole.look(&bytes).unwrap();
                for piece in bytes.chunks(cut) {
                    pieces.look(piece).unwrap();
                }
                let state = |frames: &Frames| (frames.credit.0.load(Ordering::Relaxed), frames.skip, frames.have);
                assert_eq!(state(&whole), state(&pieces));
            });
        }
    }
}
