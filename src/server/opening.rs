//! Whether an HTTP/2 peer lets anything of an answer's body come yet. It may begin with streams whose window is closed
//! (RFC 9113 section 6.9.2), and hyper asks for a piece of the body all the same, which then waits for the peer in memory
//! with the flow's connection beside it. h2 tells no window, so the frames tell: until the first of them can have opened
//! one, on whatever stream, nothing needs to be read from a flow.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;
const WINDOW_UPDATE: u8 = 0x8;
/// An entry of SETTINGS, and the name of the one that says how large windows are at first (RFC 9113 section 6.5).
const ENTRY_BYTES: usize = 6;
const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];

/// What the bodies of a connection see of it.
#[derive(Debug, Default)]
pub(super) struct Opening {
    is_shut: AtomicBool,
    opened: Arc<Notify>,
}

impl Opening {
    /// Whether every window is closed, and was from the beginning.
    pub(super) fn is_shut(&self) -> bool {
        self.is_shut.load(Ordering::Relaxed)
    }

    /// Ends when that is over.
    pub(super) fn opened(&self) -> Pin<Box<OwnedNotified>> {
        Box::pin(self.opened.clone().notified_owned())
    }

    fn shut(&self) {
        self.is_shut.store(true, Ordering::Relaxed);
    }

    fn open(&self) {
        self.is_shut.store(false, Ordering::Relaxed);
        self.opened.notify_waiters();
    }
}

/// Follows the frames of one peer until a window can be open; for nearly every peer that is its first request.
#[derive(Debug, Default)]
pub(super) struct Windows {
    opening: Arc<Opening>,
    is_over: bool,
    has_streams: bool,
    begins_shut: bool,
    in_settings: bool,
    /// The entry of SETTINGS that is arriving.
    entry: [u8; ENTRY_BYTES],
    have: usize,
}

impl Windows {
    pub(super) fn opening(&self) -> &Arc<Opening> {
        &self.opening
    }

    /// Notes that a frame of this kind begins.
    pub(super) fn frame(&mut self, kind: u8, stream: [u8; 4]) {
        if self.is_over {
            return;
        }
        self.in_settings = kind == SETTINGS;
        self.have = 0;
        match kind {
            HEADERS if self.begins_shut => {
                self.has_streams = true;
                self.opening.shut();
            }
            HEADERS => self.over(),
            // The first bit says nothing; stream 0 is the connection (RFC 9113 section 6.9).
            WINDOW_UPDATE if u32::from_be_bytes(stream) << 1 != 0 => self.over(),
            _ => {}
        }
    }

    /// Takes the next bytes of its payload.
    pub(super) fn payload(&mut self, bytes: &[u8]) {
        if self.is_over || !self.in_settings {
            return;
        }
        for byte in bytes {
            if let Some(place) = self.entry.get_mut(self.have) {
                *place = *byte;
            }
            self.have += 1;
            if self.have == ENTRY_BYTES {
                self.have = 0;
                self.setting();
            }
        }
    }

    fn setting(&mut self) {
        let [high, low, value @ ..] = self.entry;
        if [high, low] != INITIAL_WINDOW_SIZE {
            return;
        }
        self.begins_shut = value == [0; 4];
        // Streams that are there get the difference (RFC 9113 section 6.9.2).
        if self.has_streams && !self.begins_shut {
            self.over();
        }
    }

    fn over(&mut self) {
        self.is_over = true;
        self.opening.open();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;
    use std::task::Waker;

    use super::HEADERS;
    use super::SETTINGS;
    use super::WINDOW_UPDATE;
    use super::Windows;

    const CLOSED: (u8, u8, &[u8]) = (SETTINGS, 0, &[0, 4, 0, 0, 0, 0]);
    const ONE_BYTE: (u8, u8, &[u8]) = (SETTINGS, 0, &[0, 4, 0, 0, 0, 1]);
    const OTHER: (u8, u8, &[u8]) = (SETTINGS, 0, &[0, 3, 0, 0, 0, 0]);
    const ACKNOWLEDGED: (u8, u8, &[u8]) = (SETTINGS, 0, &[]);
    const REQUEST: (u8, u8, &[u8]) = (HEADERS, 1, &[0, 4, 0, 0, 0, 1]);
    const CONNECTION_OPENS: (u8, u8, &[u8]) = (WINDOW_UPDATE, 0, &[0, 0, 0, 1]);
    const STREAM_OPENS: (u8, u8, &[u8]) = (WINDOW_UPDATE, 1, &[0, 0, 0, 1]);
    const BOTH: (u8, u8, &[u8]) = (SETTINGS, 0, &[0, 4, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1]);

    fn feed(windows: &mut Windows, frames: &[(u8, u8, &[u8])], cut: usize) {
        for (kind, stream, payload) in frames {
            windows.frame(*kind, [0x80, 0, 0, *stream]);
            payload.chunks(cut).for_each(|piece| windows.payload(piece));
        }
    }

    #[test]
    fn it_is_shut_while_no_frame_can_have_opened_a_window() {
        for (frames, is_shut) in [
            (&[][..], false),
            (&[ACKNOWLEDGED, REQUEST], false),
            (&[OTHER, REQUEST], false),
            (&[CLOSED, REQUEST], true),
            (&[CLOSED, OTHER, ACKNOWLEDGED, REQUEST, REQUEST], true),
            (&[ONE_BYTE, CLOSED, REQUEST], true),
            (&[CLOSED, ONE_BYTE, REQUEST], false),
            (&[BOTH, REQUEST], false),
            (&[CLOSED, REQUEST, BOTH], false),
            (
                &[CLOSED, REQUEST, CLOSED, OTHER, ACKNOWLEDGED, CONNECTION_OPENS],
                true,
            ),
            (&[CLOSED, REQUEST, STREAM_OPENS], false),
            (&[CLOSED, STREAM_OPENS, REQUEST], false),
            (&[CLOSED, REQUEST, ONE_BYTE], false),
            (&[REQUEST, CLOSED, REQUEST], false),
            (&[CLOSED, REQUEST, STREAM_OPENS, CLOSED, REQUEST], false),
        ] {
            for cut in [1, 4, 100] {
                let mut windows = Windows::default();
                feed(&mut windows, frames, cut);
                assert_eq!(windows.opening().is_shut(), is_shut, "{frames:?}");
            }
        }
    }

    #[test]
    fn whoever_waits_is_told_when_a_window_opens() {
        let mut windows = Windows::default();
        let mut cx = Context::from_waker(Waker::noop());
        feed(&mut windows, &[CLOSED, REQUEST], 100);
        let mut both = [windows.opening().opened(), windows.opening().opened()];
        for waiting in &mut both {
            assert!(waiting.as_mut().poll(&mut cx).is_pending());
        }
        feed(&mut windows, &[STREAM_OPENS], 100);
        for waiting in &mut both {
            assert!(waiting.as_mut().poll(&mut cx).is_ready());
        }
    }
}
