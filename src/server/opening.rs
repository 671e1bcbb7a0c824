//! How much of an answer an HTTP/2 peer can have let come on one stream (RFC 9113 section 5.2). hyper asks a body for its
//! next piece before it looks at the window, and keeps that piece for a reader who takes nothing; h2 tells no window. So
//! the frames tell how large any of them can be at most, all streams taken for one, and a body that has handed on so much
//! asks its flow for nothing more. It is never too little, or an answer would wait for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;
const WINDOW_UPDATE: u8 = 0x8;
/// An entry of SETTINGS, and the name of the one that says how large windows are at first (RFC 9113 section 6.5).
const ENTRY_BYTES: usize = 6;
const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];
/// All that WINDOW_UPDATE holds.
const INCREMENT_BYTES: usize = 4;
/// How large windows are as long as nothing is said.
const FIRST_BYTES: u64 = 65_535;

/// What the bodies of a connection see of it.
#[derive(Debug, Default)]
pub(super) struct Opening {
    bytes: AtomicU64,
    is_awaited: AtomicBool,
    opened: Arc<Notify>,
}

impl Opening {
    /// The most bytes that a stream may have room for after so many.
    pub(super) fn room_after(&self, bytes: u64) -> u64 {
        self.bytes.load(Ordering::Relaxed).saturating_sub(bytes)
    }

    /// Ends when there may be more room.
    pub(super) fn opened(&self) -> OwnedNotified {
        self.is_awaited.store(true, Ordering::Relaxed);
        self.opened.clone().notified_owned()
    }

    fn open(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        if self.is_awaited.load(Ordering::Relaxed) {
            self.is_awaited.store(false, Ordering::Relaxed);
            self.opened.notify_waiters();
        }
    }
}

/// Follows the frames of one peer.
#[derive(Debug)]
pub(super) struct Windows {
    opening: Arc<Opening>,
    /// What a stream that begins now has.
    first: u64,
    /// The most that any has begun with, or was given by a later word about all.
    most: u64,
    has_streams: bool,
    /// What streams were given on top.
    more: u64,
    /// What all of them may have together.
    connection: u64,
    /// The frame that is arriving, where it is one of interest.
    kind: u8,
    stream: u32,
    part: [u8; ENTRY_BYTES],
    have: usize,
}

impl Windows {
    pub(super) fn new() -> Self {
        Self {
            opening: Arc::default(),
            first: FIRST_BYTES,
            most: 0,
            has_streams: false,
            more: 0,
            connection: FIRST_BYTES,
            kind: 0,
            stream: 0,
            part: [0; ENTRY_BYTES],
            have: 0,
        }
    }

    pub(super) fn opening(&self) -> &Arc<Opening> {
        &self.opening
    }

    /// Notes that a frame of this kind begins.
    pub(super) fn frame(&mut self, kind: u8, stream: [u8; 4]) {
        self.kind = kind;
        self.have = 0;
        // The first bit says nothing (RFC 9113 section 4.1).
        self.stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        if kind == HEADERS {
            self.has_streams = true;
            self.begin();
        }
    }

    /// Takes the next bytes of its payload.
    pub(super) fn payload(&mut self, bytes: &[u8]) {
        let size = match self.kind {
            SETTINGS => ENTRY_BYTES,
            WINDOW_UPDATE => INCREMENT_BYTES,
            _ => return,
        };
        for byte in bytes {
            if let Some(place) = self.part.get_mut(self.have) {
                *place = *byte;
            }
            self.have += 1;
            if self.have == size {
                self.have = 0;
                self.whole();
            }
        }
    }

    fn whole(&mut self) {
        let [a, b, c, d, e, f] = self.part;
        if self.kind == WINDOW_UPDATE {
            let bytes = u64::from(u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff);
            let room = match self.stream {
                0 => &mut self.connection,
                _ => &mut self.more,
            };
            *room = room.saturating_add(bytes);
            self.tell();
        } else if [a, b] == INITIAL_WINDOW_SIZE {
            self.first = u64::from(u32::from_be_bytes([c, d, e, f]));
            // Streams that are there get the difference (RFC 9113 section 6.9.2).
            if self.has_streams {
                self.begin();
            }
        }
    }

    fn begin(&mut self) {
        if self.first > self.most {
            self.most = self.first;
            self.tell();
        }
    }

    fn tell(&self) {
        let stream = self.most.saturating_add(self.more);
        self.opening.open(stream.min(self.connection));
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::{HEADERS, SETTINGS, WINDOW_UPDATE, Windows};

    type Frame = (u8, u8, &'static [u8]);

    const NONE: Frame = (SETTINGS, 0, &[0, 4, 0, 0, 0, 0]);
    const FIVE: Frame = (SETTINGS, 0, &[0, 4, 0, 0, 0, 5]);
    const PLENTY: Frame = (SETTINGS, 0, &[0, 4, 0, 1, 0x86, 0xa0]);
    const FIVE_THEN_NONE: Frame = (SETTINGS, 0, &[0, 4, 0, 0, 0, 5, 0, 4, 0, 0, 0, 0]);
    const OTHER: Frame = (SETTINGS, 0, &[0, 3, 0, 0, 0, 9]);
    const ACKNOWLEDGED: Frame = (SETTINGS, 0, &[]);
    const REQUEST: Frame = (HEADERS, 1, &[0, 4, 0, 0, 0, 1]);
    const UNKNOWN: Frame = (0xbe, 1, &[0, 0, 0, 7, 0, 7]);
    const STREAM_GETS_7: Frame = (WINDOW_UPDATE, 1, &[0x80, 0, 0, 7]);
    const CONNECTION_GETS_7: Frame = (WINDOW_UPDATE, 0, &[0, 0, 0, 7]);

    fn feed(windows: &mut Windows, frames: &[Frame], cut: usize) {
        for (kind, stream, payload) in frames {
            windows.frame(*kind, [0x80, 0, 0, *stream]);
            payload.chunks(cut).for_each(|piece| windows.payload(piece));
        }
    }

    #[test]
    fn a_stream_has_the_largest_window_there_was_and_what_was_added() {
        for (frames, room) in [
            (&[][..], 0),
            (&[ACKNOWLEDGED, REQUEST], 65_535),
            (&[OTHER, REQUEST, UNKNOWN], 65_535),
            (&[NONE, REQUEST, NONE, OTHER, ACKNOWLEDGED, UNKNOWN], 0),
            (&[NONE, REQUEST, CONNECTION_GETS_7], 0),
            (&[NONE, REQUEST, STREAM_GETS_7, STREAM_GETS_7], 14),
            (&[NONE, STREAM_GETS_7, REQUEST], 7),
            (&[FIVE, NONE, REQUEST], 0),
            (&[FIVE_THEN_NONE, REQUEST], 0),
            (&[NONE, FIVE, REQUEST, STREAM_GETS_7], 12),
            (&[NONE, REQUEST, FIVE], 5),
            (&[NONE, REQUEST, FIVE_THEN_NONE], 5),
            (&[FIVE, REQUEST, NONE, REQUEST], 5),
            (&[REQUEST, NONE, REQUEST], 65_535),
            // The connection gives no more.
            (&[PLENTY, REQUEST], 65_535),
            (&[PLENTY, REQUEST, STREAM_GETS_7, CONNECTION_GETS_7], 65_542),
        ] {
            for cut in [1, 4, 100] {
                let mut windows = Windows::new();
                feed(&mut windows, frames, cut);
                let opening = windows.opening();
                assert_eq!(opening.room_after(room), 0, "{frames:?}");
                assert!(room == 0 || opening.room_after(room - 1) == 1, "{frames:?}");
            }
        }
    }

    #[test]
    fn whoever_waits_is_told_when_there_is_more() {
        let mut windows = Windows::new();
        let mut cx = Context::from_waker(Waker::noop());
        feed(&mut windows, &[NONE, REQUEST], 100);
        for more in [STREAM_GETS_7, CONNECTION_GETS_7, FIVE] {
            let mut one = pin!(windows.opening().opened());
            let mut other = pin!(windows.opening().opened());
            assert!(one.as_mut().poll(&mut cx).is_pending());
            assert!(other.as_mut().poll(&mut cx).is_pending());
            feed(&mut windows, &[more], 100);
            assert!(one.as_mut().poll(&mut cx).is_ready());
            assert!(other.as_mut().poll(&mut cx).is_ready());
        }
    }
}
