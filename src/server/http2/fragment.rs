//! Finds a fragment in the `:path` of a header block. No request may have one (RFC 9113 section 8.3.1), but the http
//! crate cuts it off without a word, and a query with an unescaped `#` would reach the flow without its end. This reads
//! as much of HPACK (RFC 7541) as that takes. A path whose name is an entry of the peer's own table is not looked at:
//! encoders name it by the static entry.

/// `:path` as a literal, plain and in the Huffman code.
const NAMES: [(&[u8], bool); 2] = [(b":path", false), (b"\xb9\x58\xd3\x3f", true)];
/// Entry 0 of the table, which does not exist: h2 ends the connection.
const INVALID: u8 = 0x80;

/// Where the codes of each length end, as the upper bits of a word, and their length (RFC 7541 appendix B). Longer codes
/// are of bytes that no path may have, which the gateway refuses itself.
const CODE_ENDS: [(u32, u32); 10] = [
    (0x5000_0000, 5),
    (0xb800_0000, 6),
    (0xf800_0000, 7),
    (0xfe00_0000, 8),
    (0xff40_0000, 10),
    (0xffa0_0000, 11),
    (0xffc0_0000, 12),
    (0xfff0_0000, 13),
    (0xfff8_0000, 14),
    (0xfffe_0000, 15),
];
/// `#` in this code.
const FRAGMENT: u32 = 0xffa;
const FRAGMENT_BITS: u32 = 12;

/// Makes a block invalid whose `:path` has a fragment, and returns whether it has one.
pub(super) fn refuse(block: &mut [u8]) -> bool {
    let mut at = 0;
    while let Some(field) = Field::read(block, at) {
        if field.has_fragment {
            if let Some(first) = block.get_mut(at) {
                *first = INVALID;
            }
            return true;
        }
        at = field.end;
    }
    false
}

/// Whether a block has a single field, besides changes of the table's size.
pub(super) fn is_single(block: &[u8]) -> bool {
    let mut at = 0;
    let mut fields = 0;
    while let Some(field) = Field::read(block, at) {
        fields += usize::from(!matches!(block.get(at), Some(0x20..=0x3f)));
        at = field.end;
    }
    fields == 1 && at == block.len()
}

/// One representation of a field, or a change of the table's size (RFC 7541 section 6).
struct Field {
    end: usize,
    has_fragment: bool,
}

impl Field {
    /// The one that begins here; none if it is not whole or invalid, for which h2 ends the connection.
    fn read(block: &[u8], at: usize) -> Option<Self> {
        let (bits, is_literal) = match *block.get(at)? {
            INVALID => return None,
            0x81.. => (7, false),
            0x40..=0x7f => (6, true),
            0x20..=0x3f => (5, false),
            _ => (4, true),
        };
        let (index, mut end) = number(block, at, bits)?;
        let mut is_path = matches!(index, 4 | 5);
        if !is_literal {
            return Some(Self {
                end,
                has_fragment: false,
            });
        }
        if index == 0 {
            let (name, after) = Text::read(block, end)?;
            is_path = NAMES.contains(&(name.bytes, name.is_coded));
            end = after;
        }
        let (value, end) = Text::read(block, end)?;
        let has_fragment = is_path && value.has_fragment();
        Some(Self { end, has_fragment })
    }
}

/// A string (RFC 7541 section 5.2).
struct Text<'a> {
    bytes: &'a [u8],
    is_coded: bool,
}

impl<'a> Text<'a> {
    fn read(block: &'a [u8], at: usize) -> Option<(Self, usize)> {
        let is_coded = block.get(at)? & 0x80 != 0;
        let (length, begin) = number(block, at, 7)?;
        let end = begin + length;
        let bytes = block.get(begin..end)?;
        Some((Self { bytes, is_coded }, end))
    }

    fn has_fragment(&self) -> bool {
        if !self.is_coded {
            return self.bytes.contains(&b'#');
        }
        let mut bytes = self.bytes.iter();
        let mut word = 0u64;
        let mut have = 0;
        loop {
            while have <= 32
                && let Some(byte) = bytes.next()
            {
                word |= u64::from(*byte) << (56 - have);
                have += 8;
            }
            let is_within = |(end, _): &&(u32, u32)| word >> 32 < u64::from(*end);
            let Some((_, length)) = CODE_ENDS.iter().find(is_within).filter(|code| code.1 <= have) else {
                return false;
            };
            if *length == FRAGMENT_BITS && word >> (64 - FRAGMENT_BITS) == u64::from(FRAGMENT) {
                return true;
            }
            word <<= length;
            have -= length;
        }
    }
}

/// A number whose first byte has so many bits of it, and where it ends (RFC 7541 section 5.1). h2 takes five bytes at
/// most.
fn number(block: &[u8], at: usize, bits: u32) -> Option<(usize, usize)> {
    let mask = (1 << bits) - 1;
    let mut number = usize::from(*block.get(at)?) & mask;
    if number < mask {
        return Some((number, at + 1));
    }
    for more in 0..4 {
        let byte = *block.get(at + 1 + more)?;
        number += usize::from(byte & 0x7f) << (7 * more);
        if byte & 0x80 == 0 {
            return Some((number, at + 2 + more));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::{INVALID, is_single, refuse};

    /// `/orders?a=1#b`, `#`, and texts without it: in the last two its bits go across codes.
    const CODED: [(&[u8], bool); 4] = [
        (b"\x60\xf6\x48\x5b\x11\xfe\x0e\x00\xff\xd4\x7f", true),
        (b"\xff\xaf", true),
        // `/it't?a=Z'`, and one of each length of code.
        (b"\x60\xc9\xff\x49\xff\x07\x07\xef\xfa", false),
        (
            b"\x60\xff\xf7\xff\xdf\xff\x3f\xff\x7f\xfc\xff\xfb\xfe\x83\xfe\xbf\x7f\xcf\x3f",
            false,
        ),
    ];

    fn text(flag: u8, bytes: &[u8]) -> Vec<u8> {
        [&[flag | bytes.len() as u8], bytes].concat()
    }

    fn refused(block: &[u8]) -> bool {
        let mut changed = block.to_vec();
        let is_refused = refuse(&mut changed);
        assert_eq!(changed != block, is_refused, "{block:x?}");
        is_refused
    }

    #[test]
    fn a_fragment_is_found_however_the_path_is_written() {
        let plain: [(&[u8], bool); 4] = [(b"/a#b", true), (b"#", true), (b"/a?b", false), (b"", false)];
        let values = plain.map(|(value, is_refused)| (text(0, value), is_refused));
        let coded = CODED.map(|(value, is_refused)| (text(0x80, value), is_refused));
        for (value, is_refused) in values.iter().chain(&coded) {
            for name in [
                vec![0x44],
                vec![0x05],
                vec![0x14],
                [&[0x40][..], &text(0, b":path")].concat(),
                [&[0x00][..], &text(0x80, b"\xb9\x58\xd3\x3f")].concat(),
            ] {
                // `:method: POST`, a larger table, and a long value that is no path.
                let before = [
                    &[0x83, 0x3f, 0xe1, 0x1f, 0x0f, 0x2f, 0x7f, 0x80, 0x01][..],
                    &[b'#'; 255],
                ]
                .concat();
                let block = [before, name, value.clone(), vec![0x87]].concat();
                assert_eq!(refused(&block), *is_refused, "{block:x?}");
            }
        }
    }

    #[test]
    fn what_is_not_whole_or_no_path_is_left_alone() {
        for block in [
            &[][..],
            &[0x84],
            &[0x44],
            &[0x44, 2, b'#'],
            &[INVALID, 0x44, 1, b'#'],
            &[0x40, 5, b'#', b'#', b'#', b'#', b'#', 1, b'#'],
            &[0x41, 1, b'#'],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x44, 1, b'#'],
        ] {
            assert!(!refused(block), "{block:x?}");
        }
        let mut block = [0x44, 1, b'#'];
        assert!(refuse(&mut block));
        assert_eq!(block[0], INVALID);
    }

    #[test]
    fn a_single_field_is_one_whatever_its_form() {
        // 431 as a literal, plain and coded, as an entry of the table near and far, and after two changes of its size.
        for block in [
            &[0x48, 3, b'4', b'3', b'1'][..],
            &[0x48, 0x83, 0x69, 0x90, 0x9f],
            &[0xbe],
            &[0xff, 0x05],
            &[0x20, 0x3f, 0xe1, 0x1f, 0xbe],
        ] {
            assert!(is_single(block), "{block:x?}");
            assert!(!is_single(&[block, &[0xbf]].concat()), "{block:x?}");
        }
        for block in [
            &[][..],
            &[0x20],
            &[0x48, 3, b'4'],
            &[0xbe, 0x48],
            &[0xbe, INVALID],
        ] {
            assert!(!is_single(block), "{block:x?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            refused(&bytes);
        }
    }
}
