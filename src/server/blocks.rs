//! Header blocks on their way to h2. A field that its decoder cannot take ends the whole connection there, although only
//! one request is malformed (RFC 9113 section 8.1.1): a name that is empty, in upper case or of an unknown pseudo-field,
//! a control character in a value, a method that is no token. Such a field is replaced by one that h2 reads and then
//! refuses with its stream alone. What is wrong with the compression itself (RFC 7541) stays h2's, which rightly ends
//! the connection.

use crate::server::hpack;
use crate::server::hpack::Text;

/// Length of the connection preface (RFC 9113 section 3.4).
const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;
/// h2 refuses frames with a longer payload (RFC 9113 section 4.2).
const PAYLOAD_BYTES_MAX: usize = 16_384;

const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Of the stream dependency in front of a block (RFC 9113 section 6.2).
const PRIORITY_BYTES: usize = 5;

/// `transfer-encoding` from the static table, as a whole field: no request over HTTP/2 may have it (RFC 9113 section
/// 8.2.2), and h2 refuses the stream without counting the field's size.
const REFUSED: u8 = 0x80 | 57;
/// The same as the name of a literal that goes to the table of entries.
const REFUSED_NAME: u8 = 0x40 | 57;

/// Follows the frames of one connection, and holds back the part of a block that has not come whole, so that a field is
/// replaced before h2 has seen its beginning.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Bytes of the preface or of a payload that are still to come and are none of ours.
    skip: usize,
    header: [u8; HEADER_BYTES],
    have: usize,
    /// Whether the block goes on in the next frame, and the next field begins there.
    goes_on: bool,
    held: Vec<u8>,
    /// Length of the payload that is held; 0 if none is.
    whole: usize,
    /// Bytes of it that h2 has got.
    handed: usize,
}

impl Blocks {
    pub(super) fn new() -> Self {
        Self {
            skip: PREFACE_BYTES,
            header: [0; HEADER_BYTES],
            have: 0,
            goes_on: false,
            held: Vec::new(),
            whole: 0,
            handed: 0,
        }
    }

    /// Looks at bytes from the peer, changes what h2 could not take, and tells how many may go on. The others are held.
    pub(super) fn look(&mut self, bytes: &mut [u8]) -> usize {
        let all = bytes.len();
        let mut rest = bytes;
        loop {
            let skipped = self.skip.min(rest.len());
            self.skip -= skipped;
            rest = rest.split_at_mut(skipped).1;
            let taken = (HEADER_BYTES - self.have).min(rest.len());
            let (header, after) = rest.split_at_mut(taken);
            if let Some(place) = self.header.get_mut(self.have..self.have + taken) {
                place.copy_from_slice(header);
            }
            self.have += taken;
            rest = after;
            if self.have < HEADER_BYTES {
                return all;
            }
            self.have = 0;
            let length = self.frame();
            if length > rest.len() {
                self.held.extend_from_slice(rest);
                self.whole = length;
                return all - rest.len();
            }
            let (payload, after) = rest.split_at_mut(length);
            self.part(payload);
            rest = after;
        }
    }

    /// Bytes that are still missing in what is held.
    pub(super) fn missing(&self) -> usize {
        self.whole - self.held.len()
    }

    /// Takes some of them; whatever is whole may go on.
    pub(super) fn fill(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        if self.missing() == 0 {
            let mut held = std::mem::take(&mut self.held);
            self.part(&mut held);
            self.held = held;
        }
    }

    /// Lets go on what is held as it is: nothing more comes.
    pub(super) fn give_up(&mut self) {
        self.whole = self.held.len();
    }

    /// The next bytes of what was held and may go on now, no more than so many.
    pub(super) fn ready(&mut self, most: usize) -> &[u8] {
        if self.handed == self.whole && self.whole > 0 {
            // Nearly every head comes whole, so the memory is not kept.
            self.held = Vec::new();
            self.whole = 0;
            self.handed = 0;
        }
        if self.missing() > 0 {
            return &[];
        }
        let begin = self.handed;
        self.handed = self.whole.min(begin.saturating_add(most));
        self.held.get(begin..self.handed).unwrap_or_default()
    }

    /// Length of the payload if it is a part of a header block; what others have is passed over.
    fn frame(&mut self) -> usize {
        let [high, middle, low, kind, ..] = self.header;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let block = kind == HEADERS || (kind == CONTINUATION && self.goes_on);
        if block && length <= PAYLOAD_BYTES_MAX {
            return length;
        }
        self.goes_on = false;
        self.skip = length;
        0
    }

    /// The payload of a frame that is a part of a block. Only where a block ends are fields replaced: h2 forgets that a
    /// request is malformed if the first part of its block ends within a field, and ends the connection if it does not.
    /// So what is wrong before the last part ends the connection still, and so does what stands behind a field that
    /// is cut by the end of a frame. Blocks in several frames are those of heads over 16 KiB.
    fn part(&mut self, payload: &mut [u8]) {
        let [_, _, _, kind, flags, ..] = self.header;
        let begins = kind == HEADERS;
        if !begins && !self.goes_on {
            return;
        }
        self.goes_on = false;
        let block = if begins {
            unwrapped(payload, flags)
        } else {
            Some(payload)
        };
        let Some(block) = block else { return };
        let last = flags & END_HEADERS != 0;
        let mut at = 0;
        while at < block.len() {
            let Some(field) = field(block, at) else { return };
            if field.is_wrong {
                match block.get_mut(at..field.end) {
                    Some(place) if last => refuse(place),
                    _ => return,
                }
            }
            at = field.end;
        }
        self.goes_on = !last;
    }
}

/// A block without what surrounds it in its frame; none if that is wrong, which ends the connection.
fn unwrapped(payload: &mut [u8], flags: u8) -> Option<&mut [u8]> {
    let mut block = payload;
    let mut padding = 0;
    if flags & PADDED != 0 {
        let (length, rest) = block.split_first_mut()?;
        padding = usize::from(*length);
        block = rest;
    }
    if flags & PRIORITY != 0 {
        block = block.get_mut(PRIORITY_BYTES..)?;
    }
    let length = block.len().checked_sub(padding)?;
    block.get_mut(..length)
}

/// One representation of a field.
struct Represented {
    end: usize,
    /// Whether h2 could not take it.
    is_wrong: bool,
}

/// The representation that begins here (RFC 7541 section 6); none if it is not whole, or wrong in itself.
fn field(block: &[u8], at: usize) -> Option<Represented> {
    let (bits, is_literal) = match *block.get(at)? {
        0x80.. => (7, false),
        0x40..=0x7f => (6, true),
        // How large the table of entries may be.
        0x20..=0x3f => (5, false),
        _ => (4, true),
    };
    let (index, mut end) = hpack::number(block, at, bits)?;
    if !is_literal {
        return Some(Represented { end, is_wrong: false });
    }
    let value = match index {
        0 => {
            let (name, after) = Text::read(block, end)?;
            end = after;
            Value::named(name)?
        }
        _ => Value::of_entry(index),
    };
    let (text, end) = Text::read(block, end)?;
    let is_wrong = value.is_wrong(text)?;
    Some(Represented { end, is_wrong })
}

/// What h2 makes of a value, which depends on the name before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    /// A field's.
    Field,
    /// A pseudo-field's that it keeps as text.
    Text,
    /// That of `:method`.
    Method,
    /// None can stand here: the name is wrong, or it is that of an answer's pseudo-field.
    Never,
}

impl Value {
    /// By the name's place in the table of entries. Entries above the static ones (RFC 7541 appendix A) are not known
    /// here. Nearly all of them are fields, for encoders name pseudo-fields by their static entries; and whatever is
    /// wrong in a field's value is refused in a pseudo-field's as well.
    fn of_entry(index: usize) -> Self {
        match index {
            1 | 4..=7 => Self::Text,
            2 | 3 => Self::Method,
            8..=14 => Self::Never,
            _ => Self::Field,
        }
    }

    fn named(name: Text<'_>) -> Option<Self> {
        if name.is_empty() {
            return Some(Self::Never);
        }
        if name.classes()? & hpack::NOT_IN_NAMES == 0 {
            return Some(Self::Field);
        }
        Some(match &*name.said()? {
            b":authority" | b":scheme" | b":path" | b":protocol" => Self::Text,
            b":method" => Self::Method,
            _ => Self::Never,
        })
    }

    fn is_wrong(self, value: Text<'_>) -> Option<bool> {
        let seen = value.classes()?;
        Some(match self {
            Self::Field => seen & hpack::NOT_IN_VALUES != 0,
            Self::Text => seen & hpack::FOREIGN != 0 && std::str::from_utf8(&value.said()?).is_err(),
            Self::Method => seen & hpack::NOT_IN_METHODS != 0 || value.is_empty(),
            Self::Never => true,
        })
    }
}

/// Replaces a literal by fields of the same length together that h2 refuses. Where the literal went to the table of
/// entries, so does one of them, and later requests that name the entry are refused too.
///
/// That entry may have another size than the peer's encoder believes, and push older ones out sooner or later than
/// there. Entries are counted from the newest, so no request gets another field than was meant: an entry that is still
/// here is not named any more, and one that has gone too soon ends the connection like any other that nobody has.
fn refuse(literal: &mut [u8]) {
    let is_kept = literal.first().is_some_and(|first| first & 0x40 != 0);
    literal.fill(REFUSED);
    if let (true, [name, value, ..]) = (is_kept, literal) {
        *name = REFUSED_NAME;
        *value = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::Strategy;
    use proptest::prelude::any;
    use proptest::prelude::proptest;

    use super::Blocks;
    use super::CONTINUATION;
    use super::END_HEADERS;
    use super::HEADERS;
    use super::PADDED;
    use super::PAYLOAD_BYTES_MAX;
    use super::PREFACE_BYTES;
    use super::PRIORITY;
    use super::REFUSED;
    use super::REFUSED_NAME;
    use crate::server::hpack::tests::coded;

    const DATA: u8 = 0;
    const KEPT: u8 = 0x40;
    const NEVER_KEPT: u8 = 0x10;

    fn opened() -> Blocks {
        let mut blocks = Blocks::new();
        assert_eq!(blocks.look(&mut [0; PREFACE_BYTES]), PREFACE_BYTES);
        blocks
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        bytes.extend(payload);
        bytes
    }

    fn head(block: &[u8]) -> Vec<u8> {
        frame(HEADERS, END_HEADERS, block)
    }

    /// What goes on of these pieces, and what is held after them.
    fn through<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Blocks) {
        let mut blocks = opened();
        let mut out = Vec::new();
        for piece in pieces {
            let mut rest = piece;
            while !rest.is_empty() {
                if blocks.missing() > 0 {
                    let (more, after) = rest.split_at(blocks.missing().min(rest.len()));
                    blocks.fill(more);
                    rest = after;
                } else {
                    let mut bytes = rest.to_vec();
                    let passed = blocks.look(&mut bytes);
                    assert!(passed > 0, "it looks as if the peer had gone");
                    out.extend(&bytes[..passed]);
                    rest = &[];
                }
                loop {
                    let ready = blocks.ready(5);
                    if ready.is_empty() {
                        break;
                    }
                    out.extend_from_slice(ready);
                }
            }
        }
        (out, blocks)
    }

    fn whole(bytes: &[u8]) -> Vec<u8> {
        through([bytes]).0
    }

    fn plain(text: &[u8]) -> Vec<u8> {
        length(0, text)
    }

    fn huffman(text: &[u8]) -> Vec<u8> {
        length(0x80, &coded(text))
    }

    fn length(flag: u8, text: &[u8]) -> Vec<u8> {
        let length = text.len();
        let mut bytes = match length.checked_sub(0x7f) {
            None => vec![flag | length as u8],
            Some(rest @ ..0x80) => vec![flag | 0x7f, rest as u8],
            Some(rest) => vec![flag | 0x7f, rest as u8 | 0x80, (rest >> 7) as u8],
        };
        bytes.extend(text);
        bytes
    }

    /// A literal with its name.
    fn literal(kind: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
        [&[kind][..], &plain(name), &huffman(value)].concat()
    }

    /// The fields that stand instead of a literal.
    fn refused(literal: &[u8]) -> Vec<u8> {
        let mut fields = vec![REFUSED; literal.len()];
        if literal[0] & KEPT != 0 {
            fields[..2].copy_from_slice(&[REFUSED_NAME, 0]);
        }
        fields
    }

    fn good() -> Vec<u8> {
        let fields = [
            // A smaller table, `:method: POST`, `:scheme: https`, an entry of the peer's own.
            vec![0x3f, 0x01, 0x83, 0x87, 0xbe, 0xff, 0x80, 0x01],
            literal(0, b":path", b"/orders"),
            [&[KEPT | 1][..], &huffman(b"localhost")].concat(),
            [&[0x0f, 0x2f][..], &plain(b"Mot\xf6rhead\t~")].concat(),
            literal(KEPT, b"x-empty", b""),
            literal(NEVER_KEPT, b"x-api-key", &[b'k'; 300]),
        ];
        fields.concat()
    }

    /// Literals that h2 cannot take.
    fn wrong() -> Vec<Vec<u8>> {
        let names: [&[u8]; 11] = [
            b"", b"X", b"x-Upper", b"x name", b"x\0", b"x\r\ny", b"x:y", b":", b":foo", b":Path", b"\xfc",
        ];
        let values: [&[u8]; 7] = [b"\0", b"a\rb", b"a\nb", b"\x7f", b"\x1f", b"a\r\nx: y", b"\x01"];
        let mut wrong = Vec::new();
        for kind in [0, NEVER_KEPT, KEPT] {
            for text in [plain, huffman] {
                for name in names {
                    wrong.push([&[kind][..], &text(name), &text(b"1")].concat());
                    wrong.push([&[kind][..], &text(name), &text(b"")].concat());
                }
                for value in values {
                    wrong.push([&[kind][..], &text(b"x-value"), &text(value)].concat());
                    // `accept` and `cookie` from the static table, and an entry of the peer's own.
                    let name = if kind == KEPT {
                        vec![KEPT | 19]
                    } else {
                        vec![kind | 0x0f, 4]
                    };
                    wrong.push([name, text(value)].concat());
                    let name = if kind == KEPT {
                        vec![KEPT | 62]
                    } else {
                        vec![kind | 0x0f, 47]
                    };
                    wrong.push([name, text(value)].concat());
                }
                for (index, value) in [
                    (1, &b"\xff"[..]),
                    (4, b"/\xf6rders"),
                    (6, b"\xc3"),
                    (2, b""),
                    (3, b"POST /"),
                    (2, b"\xc3\xb6"),
                    (8, b"200"),
                    (14, b""),
                ] {
                    wrong.push([&[kind | index][..], &text(value)].concat());
                }
                for (name, value) in [(":path", &b"\xf6"[..]), (":method", b"a b"), (":status", b"200")] {
                    wrong.push([&[kind][..], &text(name.as_bytes()), &text(value)].concat());
                }
            }
        }
        wrong
    }

    #[test]
    fn what_h2_could_not_take_is_replaced_and_nothing_else() {
        for wrong in wrong() {
            let block = [good(), wrong.clone(), good(), wrong.clone()].concat();
            let expected = [good(), refused(&wrong), good(), refused(&wrong)].concat();
            assert_eq!(whole(&head(&block)), head(&expected), "{wrong:x?}");
        }
    }

    #[test]
    fn what_h2_refuses_by_itself_or_takes_is_left_alone() {
        let left = [
            literal(0, b":path", "/\u{f6}".as_bytes()),
            literal(KEPT, b":path", b"\0"),
            literal(0, b":authority", b""),
            literal(0, b":protocol", b"websocket"),
            literal(0, b":method", b"pUrGe!"),
            literal(0, b"connection", b"close"),
            // Wrong in themselves.
            vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            vec![0, 5, b'X'],
            vec![0, 1, b'X', 0x81, 0xff],
            vec![0, 0x81, 0xff, 1, b'\0'],
            vec![0, 1, b'X'],
            vec![0],
        ];
        for left in left {
            let bytes = head(&[good(), left.clone()].concat());
            assert_eq!(whole(&bytes), bytes, "{left:x?}");
        }
    }

    #[test]
    fn padding_and_priority_are_no_part_of_a_block() {
        let wrong = literal(KEPT, b"X", b"1");
        let expected = refused(&wrong);
        for (flags, before, after) in [
            (PADDED, &[3][..], &b"\0\x01X"[..]),
            (PRIORITY, b"\0\x01X\x01X", b""),
            (PADDED | PRIORITY, b"\x04\0\x01X\x01X", b"\0\x01XX"),
        ] {
            let frame = |block: &[u8]| frame(HEADERS, flags | END_HEADERS, &[before, block, after].concat());
            assert_eq!(whole(&frame(&wrong)), frame(&expected), "{flags:x}");
        }
        // More padding than there is, and no room for a priority.
        for (flags, payload) in [(PADDED, &[5, 0, 1, b'X', 1][..]), (PRIORITY, b"\0\x01X\0")] {
            let bytes = frame(HEADERS, flags | END_HEADERS, payload);
            assert_eq!(whole(&bytes), bytes);
        }
    }

    #[test]
    fn only_the_last_part_of_a_block_is_changed() {
        let wrong = literal(KEPT, b"X", b"1");
        let parts = |first: &[u8], second: &[u8], third: &[u8]| {
            let mut bytes = frame(HEADERS, 0, first);
            bytes.extend(frame(CONTINUATION, 0, second));
            bytes.extend(frame(CONTINUATION, END_HEADERS, third));
            bytes
        };
        let bytes = parts(&good(), &good(), &[good(), wrong.clone()].concat());
        let expected = parts(&good(), &good(), &[good(), refused(&wrong)].concat());
        assert_eq!(whole(&bytes), expected);
        let (front, back) = wrong.split_at(3);
        for bytes in [
            parts(&wrong, &good(), &good()),
            parts(&wrong, &good(), &wrong),
            parts(&good(), &wrong, &wrong),
            parts(&[good(), front.to_vec()].concat(), back, &wrong),
            [
                frame(HEADERS, 0, &good()),
                frame(DATA, 0, &[]),
                frame(CONTINUATION, END_HEADERS, &wrong),
            ]
            .concat(),
            frame(CONTINUATION, END_HEADERS, &wrong),
            [head(&good()), frame(CONTINUATION, END_HEADERS, &wrong)].concat(),
        ] {
            assert_eq!(whole(&bytes), bytes);
        }
        // And the block after such a one is looked at again.
        let bytes = [parts(&wrong, &good(), &good()), head(&wrong)].concat();
        let expected = [parts(&wrong, &good(), &good()), head(&refused(&wrong))].concat();
        assert_eq!(whole(&bytes), expected);
    }

    #[test]
    fn other_frames_pass() {
        let wrong = literal(0, b"X", b"1");
        for kind in [DATA, 2, 3, 4, 5, 6, 7, 8, 0xbe] {
            let bytes = frame(kind, END_HEADERS, &wrong);
            let all = [bytes.clone(), head(&wrong), bytes.clone()].concat();
            let expected = [bytes.clone(), head(&refused(&wrong)), bytes].concat();
            assert_eq!(whole(&all), expected, "{kind}");
        }
        let mut long = wrong.clone();
        long.resize(PAYLOAD_BYTES_MAX + 1, REFUSED);
        assert_eq!(whole(&head(&long)), head(&long));
        long.truncate(PAYLOAD_BYTES_MAX);
        assert_eq!(whole(&head(&long))[9..14], refused(&wrong)[..]);
    }

    #[test]
    fn nothing_of_a_block_goes_on_before_it_is_whole() {
        let bytes = [head(&good()), frame(DATA, 0, b"{}")].concat();
        let end = head(&good()).len();
        for cut in 0..end {
            let (out, blocks) = through([&bytes[..cut]]);
            assert_eq!(out, bytes[..cut.min(9)]);
            let missing = if cut < 9 { 0 } else { end - cut };
            assert_eq!(blocks.missing(), missing, "after {cut}");
        }
        let (out, blocks) = through([&bytes[..]]);
        assert_eq!((out, blocks.held.capacity()), (bytes, 0));
    }

    #[test]
    fn what_is_given_up_goes_on_as_it_is() {
        let bytes = head(&literal(0, b"X", b"1"));
        let (out, mut blocks) = through([&bytes[..bytes.len() - 1]]);
        assert_eq!(out, bytes[..9]);
        blocks.give_up();
        assert_eq!(blocks.ready(100), &bytes[9..bytes.len() - 1]);
        assert_eq!((blocks.ready(100).len(), blocks.missing()), (0, 0));
        let (_, mut blocks) = through([&bytes[..9]]);
        blocks.give_up();
        assert_eq!((blocks.ready(100).len(), blocks.missing()), (0, 0));
    }

    /// A literal as a good encoder would write it.
    fn a_literal() -> impl Strategy<Value = Vec<u8>> {
        let name = proptest::collection::vec(proptest::sample::select(&b"abcxyz019-_!"[..]), 1..20);
        let value = proptest::collection::vec(proptest::sample::select(&b"\t aZ09~\xf6\x80"[..]), 0..200);
        let kind = proptest::sample::select(&[0, KEPT, NEVER_KEPT][..]);
        (kind, name, value, any::<bool>()).prop_map(|(kind, name, value, is_coded)| {
            let text = if is_coded { huffman } else { plain };
            [&[kind][..], &text(&name), &text(&value)].concat()
        })
    }

    /// Bytes that look like frames with blocks, more often than chance would have it.
    fn any_frames() -> impl Strategy<Value = Vec<u8>> {
        let byte = || any::<u8>();
        let few = proptest::collection::vec(byte(), 0..40);
        let some = proptest::sample::select(wrong());
        let payload = proptest::strategy::Union::new([few.boxed(), some.boxed(), a_literal().boxed()]);
        let kind = proptest::sample::select(&[HEADERS, HEADERS, CONTINUATION, DATA][..]);
        let one = (kind, byte(), proptest::collection::vec(payload, 0..4))
            .prop_map(|(kind, flags, payload)| frame(kind, flags, &payload.concat()));
        proptest::collection::vec(one, 0..6).prop_map(|frames| frames.concat())
    }

    proptest! {
        #[test]
        fn a_good_block_passes_byte_for_byte(fields in proptest::collection::vec(a_literal(), 0..20)) {
            let bytes = head(&fields.concat());
            assert_eq!(whole(&bytes), bytes);
        }

        #[test]
        fn pieces_do_not_change_what_goes_on(bytes in any_frames(), cut in 1usize..30) {
            assert_eq!(through(bytes.chunks(cut)).0, whole(&bytes));
        }

        #[test]
        fn any_bytes_keep_their_number_and_what_was_replaced_is_good(bytes in any_frames(), raw in proptest::collection::vec(any::<u8>(), 0..60)) {
            for bytes in [bytes, raw] {
                let (out, mut blocks) = through([&bytes[..]]);
                let held = blocks.held.len();
                blocks.give_up();
                assert_eq!(out.len() + blocks.ready(usize::MAX).len(), bytes.len());
                assert_eq!(out.len() + held, bytes.len());
                assert_eq!(whole(&out), out);
            }
        }
    }
}
