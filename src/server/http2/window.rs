//! How much the peer may still send over an HTTP/2 connection, all streams together (RFC 9113 section 5.2). h2 opens the
//! window again when a body is taken; while triggers take none it stays shut, and no caller behind it can send.

use std::sync::Arc;

use crate::gateway::Standstill;

/// What it is at first, whatever is set.
const FIRST_BYTES: i64 = 65_535;
/// With less than this, nobody can send at a rate that could be held against him. While bodies are taken it is so small
/// for moments only: h2 opens the window again before half of it is used.
const SHUT_BYTES: i64 = 4 * 1024;

#[derive(Debug)]
pub(super) struct Window {
    bytes: i64,
    is_shut: bool,
    standstill: Arc<Standstill>,
}

impl Window {
    pub(super) fn new() -> Self {
        Self {
            bytes: FIRST_BYTES,
            is_shut: false,
            standstill: Arc::default(),
        }
    }

    pub(super) fn standstill(&self) -> &Arc<Standstill> {
        &self.standstill
    }

    pub(super) fn used(&mut self, bytes: u64) {
        self.changed(-i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Notes by how much the peer was allowed to send more.
    pub(super) fn opened(&mut self, bytes: u64) {
        self.changed(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn changed(&mut self, bytes: i64) {
        self.bytes = self.bytes.saturating_add(bytes);
        let is_shut = self.bytes < SHUT_BYTES;
        match (self.is_shut, is_shut) {
            (false, true) => self.standstill.begin(),
            (true, false) => self.standstill.end(),
            (true, true) | (false, false) => {}
        }
        self.is_shut = is_shut;
    }
}

#[cfg(test)]
mod tests {
    use super::Window;

    #[tokio::test(start_paused = true)]
    async fn it_is_shut_from_its_last_bytes_until_it_is_opened() {
        let mut window = Window::new();
        for (used, opened, is_shut) in [
            (0, 1_000_000, false),
            (1_000_000, 0, false),
            (61_439, 0, false),
            (1, 0, true),
            (4_095, 0, true),
            (0, 4_095, true),
            (0, 1, false),
            (1, 0, true),
            (0, 1_000_000, false),
        ] {
            window.used(used);
            window.opened(opened);
            assert_eq!(window.is_shut, is_shut, "{window:?}");
        }
    }
}
