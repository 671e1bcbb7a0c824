//! The first frame that h2 sends, SETTINGS, states how long the peer's frames may be. h2 takes longer ones, but only from
//! `blocks.rs`; the peer gets the length that every peer starts with, because what comes in shorter frames can be
//! measured sooner.

use crate::server::http2::blocks::{HEADER_BYTES, PAYLOAD_BYTES_MAX, length};

const SETTINGS: u8 = 0x4;
const ACK: u8 = 0x1;
/// An entry of SETTINGS, and the name of the one that says how long frames may be (RFC 9113 section 6.5).
const ENTRY_BYTES: usize = 6;
const MAX_FRAME_SIZE: [u8; 2] = [0, 5];
const MAX_HEADER_LIST_SIZE: [u8; 2] = [0, 6];

#[derive(Debug, Default)]
pub(super) struct Hello {
    rest: Vec<u8>,
    is_said: bool,
}

impl Hello {
    pub(super) fn is_said(&self) -> bool {
        self.is_said
    }

    /// What goes to the peer instead of these bytes; they do themselves, if nothing does.
    pub(super) fn instead(&mut self, bytes: &[u8]) -> Option<&[u8]> {
        if !self.is_said && self.rest.is_empty() {
            self.rest = said(bytes).unwrap_or_default();
            self.is_said = self.rest.is_empty();
        }
        (!self.is_said).then_some(&self.rest)
    }

    /// Notes that so many bytes of it have left.
    pub(super) fn left(&mut self, bytes: usize) {
        self.rest.drain(..bytes.min(self.rest.len()));
        if self.rest.is_empty() {
            *self = Self {
                rest: Vec::new(),
                is_said: true,
            };
        }
    }
}

/// SETTINGS as the peer shall see them; none if that is not what leaves first.
fn said(bytes: &[u8]) -> Option<Vec<u8>> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let [_, _, _, kind, flags, ..] = *header;
    if kind != SETTINGS || flags & ACK != 0 {
        return None;
    }
    let mut said = bytes.get(..HEADER_BYTES + length(header))?.to_vec();
    let (entries, _) = said.get_mut(HEADER_BYTES..)?.as_chunks_mut::<ENTRY_BYTES>();
    for entry in entries {
        let [high, low, value @ ..] = entry;
        match [*high, *low] {
            MAX_FRAME_SIZE => value.copy_from_slice(&u32::try_from(PAYLOAD_BYTES_MAX).ok()?.to_be_bytes()),
            // h2 takes twice as much as a head may have.
            MAX_HEADER_LIST_SIZE => *value = (u32::from_be_bytes(*value) / 2).to_be_bytes(),
            _ => {}
        }
    }
    Some(said)
}

#[cfg(test)]
mod tests {
    use super::{ACK, Hello, SETTINGS};

    const DATA: u8 = 0;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let header = [0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 1];
        [&header[..], payload].concat()
    }

    /// SETTINGS of a server that takes frames of this length, and lists of fields of so many bytes.
    fn settings_of(length: u32, list: u32) -> Vec<u8> {
        let mut payload = vec![0, 3, 0, 0, 0, 100, 0, 5];
        payload.extend(length.to_be_bytes());
        payload.extend([0, 6]);
        payload.extend(list.to_be_bytes());
        let mut bytes = frame(SETTINGS, 0, &payload);
        bytes[8] = 0;
        bytes
    }

    fn settings(length: u32) -> Vec<u8> {
        settings_of(length, 1284)
    }

    #[test]
    fn the_peer_is_told_the_length_that_every_peer_starts_with() {
        for most in [1, 7, 20, 1000] {
            let bytes = [settings(1 << 20), settings(1 << 19)].concat();
            let mut hello = Hello::default();
            let mut out = Vec::new();
            while out.len() < bytes.len() {
                let rest = &bytes[out.len()..];
                let said = hello.instead(rest).unwrap_or(rest);
                let leaves = said[..most.min(said.len())].to_vec();
                hello.left(leaves.len());
                out.extend(leaves);
            }
            assert_eq!(out, [settings_of(16_384, 642), settings(1 << 19)].concat());
            assert!(hello.is_said());
        }
    }

    #[test]
    fn what_is_no_settings_is_said_as_it_is() {
        let acknowledged = frame(SETTINGS, ACK, &[]);
        let cut = settings(1 << 20)[..20].to_vec();
        for bytes in [
            acknowledged,
            cut,
            frame(DATA, 0, &[0, 5, 0, 1, 0, 0]),
            b"HTTP".to_vec(),
        ] {
            let mut hello = Hello::default();
            assert_eq!(hello.instead(&bytes), None);
            assert_eq!(hello.instead(&settings(1 << 20)), None);
        }
    }
}
