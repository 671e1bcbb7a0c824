//! Follows the frames that leave over HTTP/2, to learn which streams h2 refuses by itself: it resets what is malformed
//! (RFC 9113 section 8.1.1), answers a head that decodes to more than it takes with a bare 431, ends the connection for one
//! that decodes to four times that, and reports none of it. It also adds up how far the connection's window is opened.

use crate::server::http2::blocks::{END_HEADERS, HEADER_BYTES, HEADERS, length};
use crate::server::http2::fragment;

/// Payload of RST_STREAM and of WINDOW_UPDATE: a number.
const NUMBER_BYTES: usize = 4;
/// The longest payload of a head with nothing but a status: two changes of the table's size, and a literal.
const STATUS_BYTES_MAX: usize = 18;
/// Last stream and code of GOAWAY (RFC 9113 section 6.8).
const GOAWAY_BYTES: usize = 8;
/// What h2 says behind them for a head that is far too large.
const TOO_LARGE: &[u8] = b"header_list_way_too_large";
/// The longest payload that is looked at.
const PAYLOAD_BYTES_MAX: usize = GOAWAY_BYTES + TOO_LARGE.len();
const RST_STREAM: u8 = 0x3;
const GOAWAY: u8 = 0x7;
const WINDOW_UPDATE: u8 = 0x8;
const END_STREAM: u8 = 0x1;
/// Codes by which a stream is refused for what its peer did: PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR and
/// COMPRESSION_ERROR (RFC 9113 section 7).
const BLAMING: [u32; 4] = [0x1, 0x3, 0x6, 0x9];

/// Counts the streams that were refused.
#[derive(Debug)]
pub(super) struct Resets {
    /// Bytes of a payload that are still to leave.
    skip: usize,
    frame: [u8; HEADER_BYTES + PAYLOAD_BYTES_MAX],
    have: usize,
    opened: u64,
    refuses_head: bool,
}

impl Default for Resets {
    fn default() -> Self {
        Self {
            skip: 0,
            frame: [0; HEADER_BYTES + PAYLOAD_BYTES_MAX],
            have: 0,
            opened: 0,
            refuses_head: false,
        }
    }
}

impl Resets {
    /// Looks at bytes that have left; returns how many streams they refuse.
    pub(super) fn look(&mut self, mut bytes: &[u8]) -> u32 {
        let mut refused = 0;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((first, rest)) = bytes.split_first() else {
                break;
            };
            if let Some(place) = self.frame.get_mut(self.have) {
                *place = *first;
            }
            self.have += 1;
            bytes = rest;
            refused += u32::from(self.frame_refuses());
        }
        refused
    }

    /// By how many bytes the window of the connection was opened since this was asked last.
    pub(super) fn take_opened(&mut self) -> u64 {
        std::mem::take(&mut self.opened)
    }

    /// Whether h2 has refused a head for its size since this was asked last. Every answer of the gateway has a date beside
    /// its status, and none has trailers.
    pub(super) fn take_refused_head(&mut self) -> bool {
        std::mem::take(&mut self.refuses_head)
    }

    /// Whether the frame that has been read so far refuses a stream.
    fn frame_refuses(&mut self) -> bool {
        if self.have < HEADER_BYTES {
            return false;
        }
        let Some((header, rest)) = self.frame.split_first_chunk::<HEADER_BYTES>() else {
            return false;
        };
        let [_, _, _, kind, flags, stream @ ..] = *header;
        let length = length(header);
        let of_connection = kind == WINDOW_UPDATE && stream == [0; 4];
        let wanted = match kind {
            RST_STREAM => NUMBER_BYTES,
            WINDOW_UPDATE if of_connection => NUMBER_BYTES,
            HEADERS if flags == END_STREAM | END_HEADERS && length <= STATUS_BYTES_MAX => length,
            GOAWAY if length == PAYLOAD_BYTES_MAX => length,
            _ => {
                self.skip = length;
                self.have = 0;
                return false;
            }
        };
        if self.have < HEADER_BYTES + wanted {
            return false;
        }
        self.have = 0;
        let payload = rest.get(..wanted).unwrap_or_default();
        let number = payload
            .first_chunk()
            .map_or(0, |number| u32::from_be_bytes(*number));
        match kind {
            HEADERS => self.refuses_head |= fragment::is_single(payload),
            GOAWAY => self.refuses_head |= payload.ends_with(TOO_LARGE),
            WINDOW_UPDATE => self.opened += u64::from(number),
            _ => return BLAMING.contains(&number),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::Resets;

    fn reset(code: u8) -> Vec<u8> {
        vec![0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, code]
    }

    #[test]
    fn streams_that_are_refused_are_counted() {
        let data = [&[0, 0, 3, 0, 1, 0, 0, 0, 1][..], b"abc"].concat();
        let all = [data.clone(), reset(1), data, reset(0), reset(8), reset(6)].concat();
        for size in [1, 2, 5, 1000] {
            let mut resets = Resets::default();
            let counted: u32 = all.chunks(size).map(|piece| resets.look(piece)).sum();
            assert_eq!(counted, 2, "in pieces of {size}");
        }
    }

    #[test]
    fn the_window_of_the_connection_is_added_up_and_no_other() {
        let update =
            |stream, bytes: u32| [&[0, 0, 4, 8, 0, 0, 0, 0, stream][..], &bytes.to_be_bytes()].concat();
        let all = [
            update(0, 70_000),
            update(1, 5),
            reset(1),
            update(0, 1),
            reset(8),
            update(0x80, 9),
        ]
        .concat();
        for size in [1, 3, 1000] {
            let mut resets = Resets::default();
            let refused: u32 = all.chunks(size).map(|piece| resets.look(piece)).sum();
            assert_eq!(
                (refused, resets.take_opened(), resets.take_opened()),
                (1, 70_001, 0)
            );
        }
    }

    #[test]
    fn a_head_with_nothing_but_its_status_refuses_one_that_is_too_large() {
        let head =
            |flags: u8, block: &[u8]| [&[0, 0, block.len() as u8, 1, flags, 0, 0, 0, 1][..], block].concat();
        let ends = 0x5;
        // As a literal, and as an entry of the table.
        for (bytes, refuses) in [
            (head(ends, &[0x48, 3, b'4', b'3', b'1']), true),
            (head(ends, &[0xbe]), true),
            (head(0x4, &[0xbe]), false),
            (head(ends, &[0xbf, 0xbe]), false),
            (head(ends, &[]), false),
            (head(ends, &[&[0x5f, 0x10, 30][..], &[b'a'; 30]].concat()), false),
        ] {
            let all = [reset(1), bytes, reset(1), head(ends, &[0x88, 0xbe])].concat();
            for size in [1, 2, 5, 1000] {
                let mut resets = Resets::default();
                let refused: u32 = all.chunks(size).map(|piece| resets.look(piece)).sum();
                assert_eq!(refused, 2, "in pieces of {size}");
                assert_eq!(resets.take_refused_head(), refuses, "{all:x?}");
                assert!(!resets.take_refused_head());
            }
        }
    }

    #[test]
    fn a_goodbye_for_a_head_refuses_it() {
        for (said, refuses) in [
            (&b"header_list_way_too_large"[..], true),
            (b"too_many_internal_resets_", false),
            (b"", false),
        ] {
            let length = 8 + said.len() as u8;
            let bytes = [
                &[0, 0, length, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0xb][..],
                said,
                &reset(1),
            ]
            .concat();
            let mut resets = Resets::default();
            assert_eq!(resets.look(&bytes), 1);
            assert_eq!(resets.take_refused_head(), refuses);
        }
    }

    #[test]
    fn only_what_the_peer_did_wrong_counts() {
        let blamed: Vec<u8> = (0..=0xd)
            .filter(|code| Resets::default().look(&reset(*code)) == 1)
            .collect();
        assert_eq!(blamed, [0x1, 0x3, 0x6, 0x9]);
        assert_eq!(
            Resets::default().look(&[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 1, 0, 1]),
            0
        );
    }

    #[test]
    fn payloads_of_every_length_are_passed_over() {
        for length in [0usize, 1, 255, 256, 0x01_80, 0xff_ff, 0x01_00_00, 0x01_81_01] {
            let [high, middle, low] = [length >> 16, length >> 8 & 255, length & 255].map(|byte| byte as u8);
            let mut bytes = vec![high, middle, low, 0, 0, 0, 0, 0, 1];
            bytes.resize(9 + length, 3);
            bytes.extend(reset(1));
            assert_eq!(Resets::default().look(&bytes), 1, "{length}");
        }
    }
}
