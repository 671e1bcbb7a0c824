//! Header compression as far as it must be read to know which literals h2 could not take (RFC 7541): numbers, and which
//! classes of bytes a string holds. Nothing is kept: neither what a string says nor the table of entries.

/// No byte of a field's name in lower case (RFC 9113 section 8.2.1).
pub const NOT_IN_NAMES: u8 = 1;
/// No byte of a field's value: a control character other than the tab.
pub const NOT_IN_VALUES: u8 = 2;
/// No byte of a method.
pub const NOT_IN_METHODS: u8 = 4;
/// Not ASCII.
pub const FOREIGN: u8 = 8;
/// What begins a fragment, which no path may have (RFC 9113 section 8.3.1). The http crate would cut it off.
pub const FRAGMENT: u8 = 16;

static CLASSES: [u8; 256] = classes();

#[expect(clippy::indexing_slicing, reason = "a mistake here does not compile")]
const fn classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        let mark = matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        );
        let token = mark || byte.is_ascii_alphanumeric();
        if !token || byte.is_ascii_uppercase() {
            classes[at] |= NOT_IN_NAMES;
        }
        if !token {
            classes[at] |= NOT_IN_METHODS;
        }
        if byte.is_ascii_control() && byte != b'\t' {
            classes[at] |= NOT_IN_VALUES;
        }
        if !byte.is_ascii() {
            classes[at] |= FOREIGN;
        }
        if byte == b'#' {
            classes[at] |= FRAGMENT;
        }
        at += 1;
    }
    classes
}

/// The code of Huffman (RFC 7541 appendix B): it is canonical, so the lengths of the codes and the order of the bytes
/// that have each tell all of it. The last code of 30 bits is the mark of the end, which no string may hold.
const CODE: [(u32, &[u8]); 21] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\x00$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\\xc3\xd0"),
    (20, b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2"),
    (21, b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6"),
    (
        22,
        b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9",
    ),
    (
        23,
        b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\
          \xc5\xe7\xef",
    ),
    (24, b"\x09\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed"),
    (25, b"\xc7\xcf\xea\xeb"),
    (26, b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff"),
    (
        27,
        b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe",
    ),
    (
        28,
        b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\
          \x7f\xdc\xf9",
    ),
    (30, b"\x0a\x0d\x16"),
];

/// All codes of one length, as the upper bits of a word.
#[derive(Clone, Copy)]
struct Level {
    length: u32,
    first: u32,
    /// Where the codes of this length end.
    end: u32,
    bytes: &'static [u8],
}

static LEVELS: [Level; CODE.len()] = levels();

#[expect(clippy::indexing_slicing, reason = "a mistake here does not compile")]
const fn levels() -> [Level; CODE.len()] {
    let none = Level {
        length: 0,
        first: 0,
        end: 0,
        bytes: &[],
    };
    let mut levels = [none; CODE.len()];
    let mut first = 0;
    let mut at = 0;
    while at < CODE.len() {
        let (length, bytes) = CODE[at];
        let end = first + ((bytes.len() as u32) << (32 - length));
        levels[at] = Level {
            length,
            first,
            end,
            bytes,
        };
        first = end;
        at += 1;
    }
    levels
}

/// Bits that are looked up at once: two letters or digits, mostly.
const STEP_BITS: u32 = 12;

/// For each such bits, how many of them are whole codes, and above these eight bits the classes of their bytes. None
/// are where a longer code begins.
static STEPS: [u16; 1 << STEP_BITS] = steps();

#[expect(clippy::indexing_slicing, reason = "a mistake here does not compile")]
const fn steps() -> [u16; 1 << STEP_BITS] {
    let levels = levels();
    let classes = classes();
    let mut steps = [0; 1 << STEP_BITS];
    let mut at = 0;
    while at < steps.len() {
        let mut bits = (at as u32) << (32 - STEP_BITS);
        let mut used = 0;
        let mut seen = 0;
        let mut level = 0;
        while level < levels.len() && used + levels[level].length <= STEP_BITS {
            let Level {
                length,
                first,
                end,
                bytes,
            } = levels[level];
            level += 1;
            if bits < end {
                seen |= classes[bytes[((bits - first) >> (32 - length)) as usize] as usize];
                used += length;
                bits <<= length;
                level = 0;
            }
        }
        steps[at] = used as u16 | (seen as u16) << 8;
        at += 1;
    }
    steps
}

/// A number whose first byte has so many bits of it (RFC 7541 section 5.1), and where it ends. h2 reads no more than
/// five bytes of one.
pub fn number(block: &[u8], at: usize, bits: u32) -> Option<(usize, usize)> {
    let most = (1 << bits) - 1;
    let first = usize::from(*block.get(at)?) & most;
    if first < most {
        return Some((first, at + 1));
    }
    let mut number = most;
    for (place, byte) in block.get(at + 1..)?.iter().take(4).enumerate() {
        number += usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((number, at + 2 + place));
        }
    }
    None
}

/// A string as it is sent (RFC 7541 section 5.2).
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    bytes: &'a [u8],
    is_coded: bool,
}

impl<'a> Text<'a> {
    /// The string that begins here, and where it ends.
    pub fn read(block: &'a [u8], at: usize) -> Option<(Self, usize)> {
        let is_coded = block.get(at)? & 0x80 != 0;
        let (length, begin) = number(block, at, 7)?;
        let end = begin + length;
        let bytes = block.get(begin..end)?;
        Some((Self { bytes, is_coded }, end))
    }

    pub(super) fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// The classes of all its bytes; none if its code is wrong.
    pub fn classes(self) -> Option<u8> {
        if !self.is_coded {
            return Some(self.bytes.iter().fold(0, |seen, byte| seen | class(*byte)));
        }
        let mut bits = Bits::of(self.bytes);
        let mut seen = 0;
        loop {
            bits.fill();
            if let Some(classes) = bits.step() {
                seen |= classes;
                continue;
            }
            match bits.symbol() {
                Symbol::Byte(byte) => seen |= class(byte),
                Symbol::End => return Some(seen),
                Symbol::Wrong => return None,
            }
        }
    }

    /// What it says, for the few whose classes do not tell enough.
    pub fn said(self) -> Option<Vec<u8>> {
        if !self.is_coded {
            return Some(self.bytes.to_vec());
        }
        let mut bits = Bits::of(self.bytes);
        let mut said = Vec::new();
        loop {
            bits.fill();
            match bits.symbol() {
                Symbol::Byte(byte) => said.push(byte),
                Symbol::End => return Some(said),
                Symbol::Wrong => return None,
            }
        }
    }
}

fn class(byte: u8) -> u8 {
    CLASSES.get(usize::from(byte)).copied().unwrap_or_default()
}

/// What comes next in a coded string.
enum Symbol {
    Byte(u8),
    End,
    Wrong,
}

/// Bits of a coded string.
struct Bits<'a> {
    rest: &'a [u8],
    /// The next ones are the upper bits; below those that are there, all are zero.
    next: u64,
    have: u32,
}

impl<'a> Bits<'a> {
    fn of(rest: &'a [u8]) -> Self {
        Self {
            rest,
            next: 0,
            have: 0,
        }
    }

    /// Sees to it that the longest code is there, if the string goes on for so long.
    fn fill(&mut self) {
        if self.have >= 32 {
            return;
        }
        if let Some((word, rest)) = self.rest.split_first_chunk() {
            self.next |= u64::from(u32::from_be_bytes(*word)) << (32 - self.have);
            self.have += 32;
            self.rest = rest;
            return;
        }
        while let [byte, rest @ ..] = self.rest
            && self.have < 32
        {
            self.next |= u64::from(*byte) << (56 - self.have);
            self.have += 8;
            self.rest = rest;
        }
    }

    fn skip(&mut self, bits: u32) {
        self.next <<= bits;
        self.have -= bits;
    }

    /// The classes of the next bytes, if their codes are short and the string does not end here.
    fn step(&mut self) -> Option<u8> {
        if self.have < STEP_BITS {
            return None;
        }
        let place = usize::try_from(self.next >> (64 - STEP_BITS)).ok()?;
        let [used, seen] = STEPS.get(place)?.to_le_bytes();
        if used == 0 {
            return None;
        }
        self.skip(u32::from(used));
        Some(seen)
    }

    fn symbol(&mut self) -> Symbol {
        // Behind its end a string is filled up with ones, the beginning of the mark of the end.
        let missing = u32::MAX.checked_shr(self.have).unwrap_or(0);
        let word = (self.next >> 32) as u32 | missing;
        let found = LEVELS.iter().find(|level| word < level.end);
        if let Some(level) = found.filter(|level| level.length <= self.have) {
            let place = (word - level.first) >> (32 - level.length);
            self.skip(level.length);
            return match level.bytes.get(place as usize) {
                Some(byte) => Symbol::Byte(*byte),
                None => Symbol::Wrong,
            };
        }
        // A whole byte of filling is one too much.
        if word == u32::MAX && self.have < 8 {
            Symbol::End
        } else {
            Symbol::Wrong
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use http::{HeaderName, HeaderValue, Method};
    use proptest::prelude::{any, proptest};

    use super::{FOREIGN, LEVELS, NOT_IN_METHODS, NOT_IN_NAMES, NOT_IN_VALUES, Text, class, number};

    /// A string in the code of Huffman, without its length.
    pub(in crate::server) fn coded(text: &[u8]) -> Vec<u8> {
        let mut bits = String::new();
        for byte in text {
            let level = LEVELS.iter().find(|level| level.bytes.contains(byte)).unwrap();
            let place = level.bytes.iter().position(|own| own == byte).unwrap() as u32;
            let code = level.first + (place << (32 - level.length));
            bits.push_str(&format!("{code:032b}")[..level.length as usize]);
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        let byte = |bits: &[u8]| u8::from_str_radix(std::str::from_utf8(bits).unwrap(), 2).unwrap();
        bits.as_bytes().chunks(8).map(byte).collect()
    }

    fn text(bytes: &[u8]) -> Text<'_> {
        Text {
            bytes,
            is_coded: true,
        }
    }

    #[test]
    fn the_classes_are_those_of_the_libraries_behind_us() {
        for byte in 0..=255 {
            let is = |flag| class(byte) & flag != 0;
            // The http crate takes a quote for a part of a name, which no token may have (RFC 9110 section 5.6.2).
            let is_no_name = HeaderName::from_lowercase(&[byte]).is_err() || byte == b'"';
            assert_eq!(is(NOT_IN_NAMES), is_no_name, "{byte}");
            assert_eq!(
                is(NOT_IN_VALUES),
                HeaderValue::from_bytes(&[byte]).is_err(),
                "{byte}"
            );
            assert_eq!(is(NOT_IN_METHODS), Method::from_bytes(&[byte]).is_err(), "{byte}");
            assert_eq!(is(FOREIGN), byte > 0x7f, "{byte}");
        }
    }

    #[test]
    fn the_code_is_that_of_the_appendix() {
        // The first, the last and odd ones of RFC 7541 appendix B.
        for (byte, code, length) in [
            (0, 0x1ff8, 13),
            (1, 0x7f_ffd8, 23),
            (b'\n', 0x3fff_fffc, 30),
            (22, 0x3fff_fffe, 30),
            (b' ', 0x14, 6),
            (b'0', 0x0, 5),
            (b'A', 0x21, 6),
            (b'X', 0xfc, 8),
            (b'\\', 0x7_fff0, 19),
            (b'a', 0x3, 5),
            (b'z', 0x7b, 7),
            (127, 0xfff_fffc, 28),
            (128, 0xf_ffe6, 20),
            (199, 0x1ff_ffec, 25),
            (249, 0xfff_fffe, 28),
            (255, 0x3ff_ffee, 26),
        ] {
            let level = LEVELS.iter().find(|level| level.bytes.contains(&byte)).unwrap();
            let place = level.bytes.iter().position(|own| *own == byte).unwrap() as u32;
            let own = (level.first >> (32 - level.length)) + place;
            assert_eq!((own, level.length), (code, length), "{byte}");
        }
        let bytes: usize = LEVELS.iter().map(|level| level.bytes.len()).sum();
        assert_eq!((bytes, LEVELS[20].end), (256, 0xffff_fffc));
        // RFC 7541 appendix C.4.1.
        let www = [
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ];
        assert_eq!(coded(b"www.example.com"), www);
        assert_eq!(text(&www).said().unwrap(), b"www.example.com");
    }

    #[test]
    fn only_ones_fill_up_a_string_and_fewer_than_eight() {
        for wrong in [
            &[0xff][..],
            &[0x07, 0xff],
            &[0x00],
            &[0xff; 4],
            &[0x1f, 0xff],
            &[0x18],
        ] {
            assert_eq!(text(wrong).classes(), None, "{wrong:x?}");
            assert_eq!(text(wrong).said(), None, "{wrong:x?}");
        }
        assert_eq!(text(&[0x1f]).said().unwrap(), b"a");
        assert_eq!(text(&[]).classes(), Some(0));
    }

    #[test]
    fn numbers_have_five_bytes_at_most() {
        for (bytes, bits, expected) in [
            (&[0x0a][..], 5, Some((10, 1))),
            (&[0x1f, 0x9a, 0x0a], 5, Some((1337, 3))),
            (&[0x2a], 8 - 1, Some((42, 1))),
            (&[0x7f, 0x00], 7, Some((127, 2))),
            (&[0x7f, 0xff, 0xff, 0xff, 0x7f], 7, Some((127 + (1 << 28) - 1, 5))),
            (&[0x7f, 0x80, 0x80, 0x80, 0x80, 0x00], 7, None),
            (&[0x7f, 0x80], 7, None),
            (&[0x7f], 7, None),
            (&[], 7, None),
        ] {
            assert_eq!(number(bytes, 0, bits), expected, "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn a_coded_string_says_what_the_plain_one_does(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let coded = coded(&bytes);
            let plain = Text { bytes: &bytes, is_coded: false };
            assert_eq!(text(&coded).said().unwrap(), bytes);
            assert_eq!(text(&coded).classes(), plain.classes());
        }

        #[test]
        fn any_bytes_have_classes_where_they_say_something(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let said = text(&bytes).said();
            let classes = said.map(|said| said.iter().fold(0, |seen, byte| seen | class(*byte)));
            assert_eq!(text(&bytes).classes(), classes);
        }
    }
}
