//! Header blocks of HTTP/2 on their way to h2. A block in several frames is joined into one: h2 forgets that a request
//! is malformed if the first frame of its block ends within a field, and would serve it. Frames that are longer than
//! peers may send exist only between this file and h2. What is wrong with fields and their compression is left to h2,
//! which ends the stream or the connection; `fragment.rs` finds the one thing that it overlooks.

use crate::server::http2::fragment;

/// Length of the connection preface (RFC 9113 section 3.4).
pub(super) const PREFACE_BYTES: usize = 24;
pub(super) const HEADER_BYTES: usize = 9;
/// No peer may send frames with a longer payload, because the SETTINGS that it gets say so (RFC 9113 section 4.2).
pub(super) const PAYLOAD_BYTES_MAX: usize = 16_384;

pub(super) const HEADERS: u8 = 0x1;
pub(super) const CONTINUATION: u8 = 0x9;
pub(super) const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Of the stream dependency in front of a block (RFC 9113 section 6.2).
const PRIORITY_BYTES: usize = 5;
/// `accept-encoding: gzip, deflate` from the static table, and how much h2 counts for it: no larger field
/// takes one byte.
const FILLER: u8 = 0x80 | 16;
const FILLER_SIZE: usize = 60;

/// Set as the bytes to skip once h2 has got what ends its connection: whatever comes after that is dropped.
const NOTHING_MORE: usize = usize::MAX;

/// How many times too large a head must be for h2 to end its connection, and once more.
const FAR_TOO_LARGE: usize = 5;

/// How many bytes h2 takes for a head where heads may have so many. What is between the two is refused above h2, in
/// words.
pub(super) fn decoded_bytes_max(head_bytes_max: usize) -> usize {
    2 * head_bytes_max
}

/// The longest block that is joined where heads may have so many bytes. Nearly every encoding takes less
/// than the bytes that are counted for it.
fn block_bytes_max(head_bytes_max: usize) -> usize {
    head_bytes_max.max(PAYLOAD_BYTES_MAX)
}

/// Fields for which h2 ends the connection.
fn filler_bytes(head_bytes_max: usize) -> usize {
    FAR_TOO_LARGE * (decoded_bytes_max(head_bytes_max) / FILLER_SIZE + 1)
}

/// The longest payload that h2 is handed where heads may have so many bytes.
pub(super) fn frame_bytes_max(head_bytes_max: usize) -> usize {
    let joined = block_bytes_max(decoded_bytes_max(head_bytes_max));
    joined.max(filler_bytes(head_bytes_max))
}

/// The longest block that is joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Longest {
    /// As many bytes as a head may have.
    Head,
    /// Half as many again: nearly every head that h2 takes, compressed, and less memory than all of it.
    Most,
    /// As many as h2 takes for a head, so that the refusal is in words.
    Refused,
}

/// Why h2 ends a connection, where its own words do not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockDefect {
    /// A header block longer than is joined, as far as its length was stated.
    TooLong { bytes: usize },
    /// A header block that decodes to more than h2 takes.
    UnfoldsTooFar,
    /// A path with a fragment.
    Fragment,
}

/// Follows the frames of one connection, and holds back a block until it has come whole.
#[derive(Debug)]
pub struct Blocks {
    /// Bytes of the preface or of a payload that are still to come and are none of ours.
    skip: usize,
    /// The header of the last frame, as far as it has come, unless it passed where it stood.
    header: [u8; HEADER_BYTES],
    have: usize,
    /// Header and payload of the block that is held; empty if none is.
    held: Vec<u8>,
    /// Bytes of its last frame that are still to come.
    missing: usize,
    defect: Option<BlockDefect>,
    /// Whether h2 is to end the connection with the next frame.
    is_over: bool,
    /// What may go on.
    out: Vec<u8>,
    /// Bytes of it that h2 has got.
    handed: usize,
    head_bytes_max: usize,
    block_bytes_max: usize,
}

impl Blocks {
    /// For a connection that begins, and heads of at most so many bytes.
    pub fn new(head_bytes_max: usize) -> Self {
        Self {
            skip: PREFACE_BYTES,
            header: [0; HEADER_BYTES],
            have: 0,
            held: Vec::new(),
            missing: 0,
            defect: None,
            is_over: false,
            out: Vec::new(),
            handed: 0,
            head_bytes_max,
            block_bytes_max: block_bytes_max(decoded_bytes_max(head_bytes_max)),
        }
    }

    /// Sets the longest block that is joined from now on. A longer one ends the connection: it is not held, and h2
    /// would hold its fields until it ends.
    pub(super) fn join(&mut self, longest: Longest) {
        self.block_bytes_max = block_bytes_max(match longest {
            Longest::Head => self.head_bytes_max,
            Longest::Most => self.head_bytes_max + self.head_bytes_max / 2,
            Longest::Refused => decoded_bytes_max(self.head_bytes_max),
        });
    }

    pub(super) fn defect(&self) -> Option<BlockDefect> {
        self.defect
    }

    /// Makes h2 end the connection with ENHANCE_YOUR_CALM, because a head has decoded to more than it takes. A payload that
    /// has begun is let pass: nobody may complete what the peer has not sent.
    pub(super) fn overflow(&mut self) {
        if self.defect.is_none() {
            self.defect = Some(BlockDefect::UnfoldsTooFar);
            self.is_over = true;
            self.end_if_over();
        }
    }

    /// Between two frames, ends the connection if it is over.
    fn end_if_over(&mut self) -> bool {
        let ends = self.is_over && self.skip == 0;
        if ends {
            self.is_over = false;
            self.have = 0;
            self.missing = 0;
            self.held = vec![0, 0, 0, HEADERS, END_HEADERS, 0, 0, 0, 1];
            self.hand_filler();
        }
        ends
    }

    /// Looks at bytes from the peer while none are wanted, and returns how many may go on. The others are held, or ready.
    pub fn look(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        loop {
            if self.skip == NOTHING_MORE {
                return at;
            }
            let rest = bytes.get_mut(at..).unwrap_or_default();
            let skipped = self.skip.min(rest.len());
            self.skip -= skipped;
            at += skipped;
            if self.end_if_over() {
                return at;
            }
            let rest = rest.split_at_mut(skipped).1;
            let Some((header, after)) = rest.split_first_chunk_mut::<HEADER_BYTES>() else {
                self.fill(rest);
                return at;
            };
            let [_, _, _, kind, flags, ..] = *header;
            let length = length(header);
            if kind == HEADERS && length <= PAYLOAD_BYTES_MAX {
                let payload = after.get_mut(..length);
                let Some(payload) = payload.filter(|_| flags & END_HEADERS != 0) else {
                    self.fill(rest);
                    return at;
                };
                if refuse_fragment(payload, flags) {
                    self.defect = Some(BlockDefect::Fragment);
                }
                at += HEADER_BYTES + length;
            } else {
                refuse_length(header);
                self.skip = length;
                at += HEADER_BYTES;
            }
        }
    }

    /// Bytes that are still missing before what is held can be looked at.
    pub fn wanted(&self) -> usize {
        if self.missing > 0 {
            self.missing
        } else if self.have > 0 || !self.held.is_empty() {
            HEADER_BYTES - self.have
        } else {
            0
        }
    }

    /// Takes bytes; whatever is whole may go on.
    pub fn fill(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.skip != NOTHING_MORE {
            let most = match (self.skip, self.missing) {
                (0, 0) => HEADER_BYTES - self.have,
                (skip, missing) => skip + missing,
            };
            let (taken, rest) = bytes.split_at(most.min(bytes.len()));
            bytes = rest;
            if self.skip > 0 {
                self.skip -= taken.len();
                self.out.extend_from_slice(taken);
                self.end_if_over();
            } else if self.missing > 0 {
                self.missing -= taken.len();
                self.held.extend_from_slice(taken);
                if self.missing == 0 {
                    self.part();
                }
            } else {
                if let Some(place) = self.header.get_mut(self.have..self.have + taken.len()) {
                    place.copy_from_slice(taken);
                }
                self.have += taken.len();
                if self.have == HEADER_BYTES {
                    self.have = 0;
                    self.frame();
                }
            }
        }
    }

    /// The next bytes of what was held and may go on now, no more than so many.
    pub fn ready(&mut self, most: usize) -> &[u8] {
        if self.handed == self.out.len() && self.handed > 0 {
            // Nearly every head comes whole, so the memory is not kept.
            self.out = Vec::new();
            self.handed = 0;
        }
        let begin = self.handed;
        self.handed = self.out.len().min(begin.saturating_add(most));
        self.out.get(begin..self.handed).unwrap_or_default()
    }

    /// What is held goes on.
    fn let_go(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        if self.out.is_empty() {
            self.out = held;
        } else {
            self.out.append(&mut held);
        }
    }

    /// A frame begins whose header has not passed where it stood.
    fn frame(&mut self) {
        let [_, _, _, kind, _, stream @ ..] = self.header;
        let length = length(&self.header);
        let is_long = length > PAYLOAD_BYTES_MAX;
        if !self.held.is_empty() {
            if kind == CONTINUATION && !is_long && stream_of(&self.held) == Some(number_of(stream)) {
                self.goes_on(length);
                return;
            }
            self.break_off();
        }
        if kind == HEADERS && !is_long {
            self.held = self.header.to_vec();
            self.begin(length);
            return;
        }
        refuse_length(&mut self.header);
        self.out.extend_from_slice(&self.header);
        self.skip = length;
    }

    /// The block that is held goes on in this frame.
    fn goes_on(&mut self, length: usize) {
        let bytes = self.held.len() - HEADER_BYTES + length;
        if bytes > self.block_bytes_max {
            self.refuse_block(bytes);
            return;
        }
        self.begin(length);
    }

    /// The block is too long to be held, so h2 gets one that is far too large in its place, for which it ends the
    /// connection with ENHANCE_YOUR_CALM.
    fn refuse_block(&mut self, bytes: usize) {
        self.defect = Some(BlockDefect::TooLong { bytes });
        self.held.truncate(HEADER_BYTES);
        if let Some(flags) = self.held.get_mut(4) {
            *flags = END_HEADERS;
        }
        self.hand_filler();
    }

    /// Hands h2 a head that is far too large behind the header that is held.
    fn hand_filler(&mut self) {
        let filler = filler_bytes(self.head_bytes_max);
        self.held.resize(HEADER_BYTES + filler, FILLER);
        set_length(&mut self.held, filler);
        self.let_go();
        self.skip = NOTHING_MORE;
    }

    fn begin(&mut self, length: usize) {
        // Memory is asked for once: what a peer leaves unfinished shall not leave holes as well.
        let most = match self.header {
            [_, _, _, _, flags, ..] if flags & END_HEADERS != 0 => length,
            _ => (self.block_bytes_max + HEADER_BYTES)
                .saturating_sub(self.held.len())
                .max(length),
        };
        self.held.reserve_exact(most);
        self.missing = length;
        if length == 0 {
            self.part();
        }
    }

    /// Another frame interrupts a block, for which h2 ends the connection. Of the block it needs to know only that it
    /// began: with malformed fields h2 would forget even that.
    fn break_off(&mut self) {
        self.held.truncate(HEADER_BYTES);
        set_length(&mut self.held, 0);
        if let Some(flags) = self.held.get_mut(4) {
            *flags &= !(PADDED | PRIORITY);
        }
        self.let_go();
    }

    /// A frame that is a part of the block has come whole.
    fn part(&mut self) {
        let [_, _, _, kind, flags, ..] = self.header;
        let is_last = flags & END_HEADERS != 0;
        if kind == HEADERS && !is_last && strip(&mut self.held).is_none() {
            // h2 ends the connection.
            self.let_go();
        } else if is_last {
            self.end();
        }
    }

    /// The block is whole.
    fn end(&mut self) {
        let [_, _, _, _, flags, ..] = self.header;
        let length = self.held.len() - HEADER_BYTES;
        set_length(&mut self.held, length);
        if let Some((header, payload)) = self.held.split_first_chunk_mut::<HEADER_BYTES>() {
            let [_, _, _, _, first, ..] = header;
            *first |= flags & END_HEADERS;
            if refuse_fragment(payload, *first) {
                self.defect = Some(BlockDefect::Fragment);
            }
        }
        self.let_go();
    }
}

/// Of the payload behind a header.
pub(super) fn length(header: &[u8; HEADER_BYTES]) -> usize {
    let [high, middle, low, ..] = *header;
    usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)
}

fn set_length(frame: &mut [u8], length: usize) {
    let [_, high, middle, low] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    if let Some((place, _)) = frame.split_first_chunk_mut() {
        *place = [high, middle, low];
    }
}

/// A frame that is longer than the peer may send gets a length that h2 refuses, though it takes longer ones from us.
fn refuse_length(header: &mut [u8; HEADER_BYTES]) {
    if length(header) > PAYLOAD_BYTES_MAX {
        set_length(header, 0xff_ffff);
    }
}

/// The stream of a frame; its first bit says nothing (RFC 9113 section 4.1).
fn stream_of(frame: &[u8]) -> Option<u32> {
    let stream = frame.get(5..)?.first_chunk()?;
    Some(number_of(*stream))
}

fn number_of(stream: [u8; 4]) -> u32 {
    u32::from_be_bytes(stream) & 0x7fff_ffff
}

/// Takes the padding out of a frame of HEADERS; none if there cannot be so much of it, or no priority where one is said
/// to be.
fn strip(frame: &mut Vec<u8>) -> Option<()> {
    let (header, payload) = frame.split_first_chunk_mut::<HEADER_BYTES>()?;
    let [_, _, _, _, flags, ..] = header;
    let block = unwrapped(payload, *flags)?.len();
    if *flags & PADDED != 0 {
        let before = usize::from(*flags & PRIORITY != 0) * PRIORITY_BYTES;
        *flags &= !PADDED;
        frame.remove(HEADER_BYTES);
        frame.truncate(HEADER_BYTES + before + block);
    }
    Some(())
}

/// Makes h2 end the connection for a fragment in the block of a payload.
fn refuse_fragment(payload: &mut [u8], flags: u8) -> bool {
    unwrapped(payload, flags).is_some_and(fragment::refuse)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, proptest};

    use super::{
        BlockDefect, Blocks, CONTINUATION, END_HEADERS, FILLER, HEADERS, Longest, PADDED, PAYLOAD_BYTES_MAX,
        PREFACE_BYTES, PRIORITY,
    };

    const DATA: u8 = 0;
    const END_STREAM: u8 = 1;
    /// Bytes of the longest block that is joined.
    const LIMIT: usize = 20_000;
    /// A field of one byte.
    const FIELD: u8 = 0x80 | 57;

    fn opened() -> Blocks {
        let mut blocks = Blocks::new(LIMIT);
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
                if blocks.wanted() > 0 {
                    let (more, after) = rest.split_at(blocks.wanted().min(rest.len()));
                    blocks.fill(more);
                    rest = after;
                } else {
                    let mut bytes = rest.to_vec();
                    let passed = blocks.look(&mut bytes);
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

    /// `:method: POST`, `:scheme: https`, `:path: /orders` and a field.
    fn good() -> Vec<u8> {
        b"\x83\x87\x04\x07/orders\0\x06x-name\x05value".to_vec()
    }

    /// `:path: /#`, and the same without the entry of the static table.
    const FRAGMENT: [u8; 4] = [0x04, 2, b'/', b'#'];
    const REFUSED: [u8; 4] = [0x80, 2, b'/', b'#'];

    #[test]
    fn a_fragment_is_refused_with_its_connection() {
        let bytes = head(&[&good()[..], &FRAGMENT].concat());
        let expected = head(&[&good()[..], &REFUSED].concat());
        for size in [1, 12, 1000] {
            let (out, blocks) = through(bytes.chunks(size));
            assert_eq!(out, expected);
            assert_eq!(blocks.defect(), Some(BlockDefect::Fragment));
        }
        let (_, blocks) = through([&head(&good())[..]]);
        assert_eq!(blocks.defect(), None);
    }

    #[test]
    fn padding_and_priority_are_no_part_of_a_block() {
        for (flags, before, after) in [
            (PADDED, &[4][..], &FRAGMENT[..]),
            (PRIORITY, b"\x04\x02/#\0", b""),
            (PADDED | PRIORITY, b"\x04\0\x04\x02/#", &FRAGMENT),
        ] {
            let frame = |block: &[u8]| frame(HEADERS, flags | END_HEADERS, &[before, block, after].concat());
            assert_eq!(whole(&frame(&FRAGMENT)), frame(&REFUSED), "{flags:x}");
        }
        // More padding than there is, and no room for a priority.
        for (flags, payload) in [(PADDED, &[5, 4, 2, b'/', b'#'][..]), (PRIORITY, &FRAGMENT)] {
            let bytes = frame(HEADERS, flags | END_HEADERS, payload);
            assert_eq!(whole(&bytes), bytes);
        }
    }

    /// A block in several frames, cut at these places.
    fn split(block: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut ends = cuts.to_vec();
        ends.push(block.len());
        let mut begin = 0;
        let mut bytes = Vec::new();
        for (place, end) in ends.iter().enumerate() {
            let kind = if place == 0 { HEADERS } else { CONTINUATION };
            let flags = if place == cuts.len() { END_HEADERS } else { 0 };
            bytes.extend(frame(kind, flags, &block[begin..*end]));
            begin = *end;
        }
        bytes
    }

    #[test]
    fn a_block_in_several_frames_goes_on_in_one() {
        let block = [&good()[..], &FRAGMENT, &good()].concat();
        let expected = head(&[&good()[..], &REFUSED, &good()].concat());
        let after = frame(DATA, 0, b"{}");
        for cut in 0..=block.len() {
            for cuts in [&[cut][..], &[cut, cut], &[0, cut, block.len()]] {
                let bytes = [split(&block, cuts), after.clone()].concat();
                assert_eq!(whole(&bytes), [&expected[..], &after].concat(), "{cuts:?}");
            }
        }
        let all: Vec<usize> = (0..block.len()).collect();
        assert_eq!(whole(&split(&block, &all)), expected);
    }

    #[test]
    fn a_joined_block_has_the_flags_and_the_priority_of_its_first_frame_and_no_padding() {
        let priority = b"\0\x01X\x01X";
        let padded = |block: &[u8]| [&[7], block, &[0; 7]].concat();
        for (flags, first, expected) in [
            (END_STREAM, good(), good()),
            (PADDED, padded(&good()), good()),
            (
                PRIORITY,
                [&priority[..], &good()].concat(),
                [&priority[..], &good()].concat(),
            ),
            (
                PADDED | PRIORITY | END_STREAM,
                padded(&[&priority[..], &good()].concat()),
                [&priority[..], &good()].concat(),
            ),
            (PADDED, padded(b""), Vec::new()),
        ] {
            let bytes = [
                frame(HEADERS, flags, &first),
                // What is not defined for CONTINUATION says nothing.
                frame(CONTINUATION, END_HEADERS | PADDED | END_STREAM, &FRAGMENT),
            ]
            .concat();
            let flags = flags & !PADDED | END_HEADERS;
            let expected = frame(HEADERS, flags, &[&expected[..], &REFUSED].concat());
            assert_eq!(whole(&bytes), expected);
        }
        for (flags, payload) in [
            (PADDED, &[5, 0, 1, b'X', 1][..]),
            (PADDED, b""),
            (PRIORITY, b"\0\x01X\0"),
        ] {
            let bytes = [
                frame(HEADERS, flags, payload),
                frame(CONTINUATION, END_HEADERS, &FRAGMENT),
            ]
            .concat();
            assert_eq!(whole(&bytes), bytes, "h2 ends the connection");
        }
    }

    /// A frame of another stream.
    fn elsewhere(mut frame: Vec<u8>) -> Vec<u8> {
        frame[8] = 3;
        frame
    }

    #[test]
    fn of_a_block_that_breaks_off_h2_learns_that_it_began() {
        let begun = frame(HEADERS, 0, b"");
        let long = frame(CONTINUATION, END_HEADERS, &[FIELD; PAYLOAD_BYTES_MAX + 1]);
        for other in [
            frame(DATA, 0, b"{}"),
            head(&good()),
            elsewhere(head(&good())),
            elsewhere(frame(CONTINUATION, END_HEADERS, &good())),
            frame(6, 0, &[0; 8]),
        ] {
            for first in [
                frame(HEADERS, 0, &good()),
                frame(HEADERS, PADDED | PRIORITY, &[0; 8]),
            ] {
                let bytes = [first.clone(), frame(CONTINUATION, 0, &good()), other.clone()].concat();
                assert_eq!(whole(&bytes), [begun.clone(), other.clone()].concat());
            }
        }
        let out = whole(&[frame(HEADERS, 0, &good()), long].concat());
        assert_eq!(
            out[..13],
            [&begun[..], &[0xff, 0xff, 0xff, CONTINUATION]].concat()
        );
        // The first bit of a stream says nothing.
        let mut last = frame(CONTINUATION, END_HEADERS, &good());
        last[5] |= 0x80;
        assert_eq!(
            whole(&[frame(HEADERS, 0, &good()), last].concat()),
            head(&[good(), good()].concat())
        );
        let nothing = frame(CONTINUATION, END_HEADERS, &FRAGMENT);
        let bytes = [head(&good()), nothing.clone(), nothing].concat();
        assert_eq!(whole(&bytes), bytes);
    }

    #[test]
    fn a_block_up_to_the_limit_is_joined_and_h2_gets_a_far_too_large_one_for_a_longer_one() {
        let first = [FIELD; 15_000];
        let second = [FIELD; 2 * LIMIT - 30_000];
        let begun = [
            frame(HEADERS, 0, &first),
            frame(CONTINUATION, 0, &first),
            frame(CONTINUATION, 0, &second[..second.len() - 1]),
        ]
        .concat();
        let last = frame(CONTINUATION, END_HEADERS, &[FIELD]);
        let bytes = [begun.clone(), last].concat();
        assert_eq!(whole(&bytes), head(&[FIELD; 2 * LIMIT]));
        // Its size is known before the bytes that make it too long have come.
        let more = frame(CONTINUATION, END_HEADERS, &[FIELD; 2]);
        let bytes = [begun, more[..9].to_vec()].concat();
        let (out, blocks) = through([&bytes[..]]);
        assert_eq!(out, head(&vec![FILLER; super::filler_bytes(LIMIT)]));
        assert_eq!(
            blocks.defect(),
            Some(BlockDefect::TooLong { bytes: 2 * LIMIT + 1 })
        );
    }

    #[test]
    fn a_connection_that_is_over_ends_with_its_next_frame() {
        let far_too_large = head(&vec![FILLER; super::filler_bytes(LIMIT)]);
        let data = frame(DATA, 0, &[7; 20]);
        let ping = frame(6, 0, &[0; 8]);
        // Between frames, within a header, within a payload, within a block that is held.
        for (before, whole) in [
            (&data[..], &data[..]),
            (&[&data[..], &ping[..5]].concat(), &data),
            (&data[..15], &data),
            (&[&data[..], &frame(HEADERS, 0, &good())].concat(), &data),
        ] {
            let (mut out, mut blocks) = through([before]);
            blocks.overflow();
            assert_eq!(blocks.defect(), Some(BlockDefect::UnfoldsTooFar));
            out.extend_from_slice(blocks.ready(usize::MAX));
            let mut rest = [&data[before.len().min(data.len())..], &ping].concat();
            let passed = blocks.look(&mut rest);
            out.extend(&rest[..passed]);
            out.extend_from_slice(blocks.ready(usize::MAX));
            assert!(out.starts_with(&[whole, &far_too_large].concat()), "{out:x?}");
            assert_eq!(blocks.wanted(), 0);
        }
        // The first reason is kept.
        let (_, mut blocks) = through([&head(&FRAGMENT)[..]]);
        blocks.overflow();
        assert_eq!(blocks.defect(), Some(BlockDefect::Fragment));
    }

    #[test]
    fn a_longest_block_of_one_head_is_refused_beyond_that() {
        let mut blocks = opened();
        blocks.join(Longest::Head);
        let begun = frame(HEADERS, 0, &[FIELD; 15_000]);
        blocks.fill(&[begun, frame(CONTINUATION, 0, &[FIELD; LIMIT - 14_999])].concat());
        assert_eq!(blocks.defect(), Some(BlockDefect::TooLong { bytes: LIMIT + 1 }));
    }

    #[test]
    fn a_block_without_end_holds_no_more_than_the_limit() {
        let mut blocks = opened();
        assert_eq!(blocks.look(&mut frame(HEADERS, 0, &[FIELD; 3_000])), 0);
        let more = frame(CONTINUATION, 0, &[FIELD; 3_000]);
        let mut most = 0;
        for piece in more.repeat(100).chunks(1_024) {
            blocks.fill(piece);
            most = most.max(blocks.held.len() + blocks.out.len());
            while !blocks.ready(usize::MAX).is_empty() {}
        }
        assert!((2 * LIMIT - 3_000..2 * LIMIT + 1_024).contains(&most), "{most}");
    }

    #[test]
    fn h2_takes_the_longest_frame_that_it_is_handed() {
        for (head_bytes_max, frame_bytes_max) in [(0, 16_384), (8_192, 16_384), (1 << 20, 1 << 21)] {
            assert_eq!(super::frame_bytes_max(head_bytes_max), frame_bytes_max);
        }
    }

    #[test]
    fn other_frames_pass() {
        for kind in [DATA, 2, 3, 4, 5, 6, 7, 8, CONTINUATION, 0xbe] {
            let bytes = frame(kind, END_HEADERS, &FRAGMENT);
            let all = [&bytes[..], &head(&good()), &bytes].concat();
            assert_eq!(whole(&all), all, "{kind}");
        }
        let long = vec![FIELD; PAYLOAD_BYTES_MAX + 1];
        for kind in [HEADERS, DATA, 0xbe] {
            let bytes = frame(kind, END_HEADERS, &long);
            let expected = [&[0xff; 3], &bytes[3..]].concat();
            assert_eq!(whole(&bytes), expected, "h2 takes nobody's frame so long");
            assert_eq!(through(bytes.chunks(5)).0, expected);
        }
        for kind in [HEADERS, DATA] {
            let bytes = frame(kind, END_HEADERS, &long[1..]);
            assert_eq!(whole(&bytes), bytes);
            assert_eq!(through(bytes.chunks(5)).0, bytes);
        }
    }

    #[test]
    fn nothing_of_a_block_goes_on_before_it_is_whole() {
        let bytes = [head(&good()), frame(DATA, 0, b"{}")].concat();
        let end = head(&good()).len();
        for cut in 0..end {
            let (out, blocks) = through([&bytes[..cut]]);
            assert_eq!(out, b"");
            let wanted = match cut {
                0 => 0,
                1..9 => 9 - cut,
                _ => end - cut,
            };
            assert_eq!(blocks.wanted(), wanted, "after {cut}");
        }
        for bytes in [&bytes[..], &split(&good(), &[9])] {
            for cut in [1, 9, 1000] {
                let (_, blocks) = through(bytes.chunks(cut));
                assert_eq!((blocks.held.capacity(), blocks.out.capacity()), (0, 0));
            }
        }
    }

    /// Bytes that look like frames with blocks, more often than chance would have it.
    fn any_frames() -> impl Strategy<Value = Vec<u8>> {
        let few = proptest::collection::vec(any::<u8>(), 0..40);
        let some = proptest::sample::select(vec![good(), FRAGMENT.to_vec()]);
        let payload = proptest::strategy::Union::new([few.boxed(), some.boxed()]);
        let kind = proptest::sample::select(&[HEADERS, HEADERS, CONTINUATION, DATA][..]);
        let one = (kind, any::<u8>(), proptest::collection::vec(payload, 0..4))
            .prop_map(|(kind, flags, payload)| frame(kind, flags, &payload.concat()));
        proptest::collection::vec(one, 0..6).prop_map(|frames| frames.concat())
    }

    proptest! {
        #[test]
        fn pieces_do_not_change_what_goes_on(bytes in any_frames(), cut in 1usize..30) {
            assert_eq!(through(bytes.chunks(cut)).0, whole(&bytes));
        }

        #[test]
        fn any_bytes_become_no_more_and_what_goes_on_is_good(bytes in any_frames(), raw in proptest::collection::vec(any::<u8>(), 0..60)) {
            for bytes in [bytes, raw] {
                let out = whole(&bytes);
                assert!(out.len() <= bytes.len());
                // The beginning of a block is held again.
                assert!(out.starts_with(&whole(&out)));
            }
        }

        #[test]
        fn a_block_is_the_same_however_it_is_cut_into_frames_and_reads(
            block in proptest::collection::vec(any::<u8>(), 0..200),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 1..6),
            padding in 0u8..9,
            read in 1usize..400,
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(block.len() + 1)).collect();
            cuts.sort_unstable();
            let bytes = split(&block, &cuts);
            let first = &bytes[9..9 + cuts[0]];
            let padded = [&[padding][..], first, &vec![0; usize::from(padding)]].concat();
            let padded = [frame(HEADERS, PADDED, &padded), bytes[9 + cuts[0]..].to_vec()].concat();
            let expected = whole(&head(&block));
            for bytes in [bytes, padded] {
                assert_eq!(whole(&bytes), expected);
                assert_eq!(through(bytes.chunks(read)).0, expected);
            }
        }
    }
}
