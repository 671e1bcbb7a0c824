//! Follows the frames that leave over HTTP/2, to learn which streams h2 refuses by itself: it resets what is malformed
//! (RFC 9113 section 8.1.1) and reports it to nobody. It also adds up how far the connection's window is opened.

const HEADER_BYTES: usize = 9;
/// Header, and the number that is the payload of RST_STREAM and of WINDOW_UPDATE.
const NUMBERED_BYTES: usize = HEADER_BYTES + 4;
const RST_STREAM: u8 = 0x3;
const WINDOW_UPDATE: u8 = 0x8;
/// Codes by which a stream is refused for what its peer did: PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR and
/// COMPRESSION_ERROR (RFC 9113 section 7).
const BLAMING: [u32; 4] = [0x1, 0x3, 0x6, 0x9];

/// Counts the streams that were refused.
#[derive(Debug, Default)]
pub(super) struct Resets {
    /// Bytes of a payload that are still to leave.
    skip: usize,
    frame: [u8; NUMBERED_BYTES],
    have: usize,
    opened: u64,
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

    /// Whether the frame that has been read so far refuses a stream.
    fn frame_refuses(&mut self) -> bool {
        let [high, middle, low, kind, _, stream @ .., a, b, c, d] = self.frame;
        let of_connection = kind == WINDOW_UPDATE && stream == [0; 4];
        if self.have == HEADER_BYTES && kind != RST_STREAM && !of_connection {
            self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            self.have = 0;
        } else if self.have == NUMBERED_BYTES {
            self.have = 0;
            let number = u32::from_be_bytes([a, b, c, d]);
            if of_connection {
                self.opened += u64::from(number);
                return false;
            }
            return BLAMING.contains(&number);
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
