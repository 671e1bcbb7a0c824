//! The chunked coding (RFC 9112 section 7.1), parsed byte by byte except for the data. Extensions and
//! trailers are discarded, up to a limit.

use bytes::{Buf, BytesMut};

use crate::wire::fields::is_token_byte;
use crate::wire::piece::{Piece, take};

/// Longest extension of one chunk, bytes; no legitimate sender uses them.
const EXTENSION_BYTES_MAX: usize = 256;
/// Longest sum of a body's extensions, bytes.
const EXTENSIONS_BYTES_MAX: usize = 16 * 1024;
/// Largest trailer section, bytes.
const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// Data of a chunk that is passed on without a copy; smaller pieces are collected. Bytes.
const WORTH_BYTES: usize = 2 * 1024;

#[derive(Debug, Default)]
pub struct Chunks {
    part: Part,
    size: u64,
    digits: u8,
    extension_bytes: usize,
    extensions_bytes: usize,
    trailer_bytes: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Size,
    Extension,
    Quoted,
    SizeFeed,
    Data,
    DataReturn,
    DataFeed,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerFeed,
    LastFeed,
    Over,
}

impl Chunks {
    pub(super) fn next(&mut self, held: &mut BytesMut) -> Result<Piece, &'static str> {
        let mut joined = BytesMut::new();
        loop {
            self.framing(held)?;
            if self.part == Part::Over && joined.is_empty() {
                return Ok(Piece::End);
            }
            let there = usize::try_from(self.size).unwrap_or(usize::MAX).min(held.len());
            if self.part != Part::Data || there == 0 {
                break;
            }
            let alone = there == held.len() || there >= WORTH_BYTES;
            if alone && !joined.is_empty() {
                // The collected data goes first; the next call continues here.
                break;
            }
            self.size -= there as u64;
            if self.size == 0 {
                self.part = Part::DataReturn;
            }
            if alone {
                return Ok(Piece::Data(take(held, there)));
            }
            joined.extend_from_slice(held.get(..there).unwrap_or_default());
            held.advance(there);
        }
        if joined.is_empty() {
            return Ok(Piece::More);
        }
        Ok(Piece::Data(joined.freeze()))
    }

    /// Parses up to the next data or the end, or until nothing is left.
    fn framing(&mut self, held: &mut BytesMut) -> Result<(), &'static str> {
        let mut read = 0;
        for byte in held.iter().copied() {
            if matches!(self.part, Part::Data | Part::Over) {
                break;
            }
            read += 1;
            self.part = self.step(byte)?;
        }
        held.advance(read);
        if held.is_empty() {
            *held = BytesMut::new();
        }
        Ok(())
    }

    fn step(&mut self, byte: u8) -> Result<Part, &'static str> {
        Ok(match (self.part, byte) {
            (Part::Size, _) => self.size_byte(byte)?,
            (Part::Extension, b'\r') => Part::SizeFeed,
            (Part::Extension | Part::Quoted, _) => self.extension(byte)?,
            (Part::SizeFeed, b'\n') => self.size_done(),
            (Part::SizeFeed, _) => return Err("a chunk size ends without a line feed"),
            (Part::DataReturn, b'\r') => Part::DataFeed,
            (Part::DataFeed, b'\n') => Part::Size,
            (Part::DataReturn | Part::DataFeed, _) => return Err("a chunk is longer than its size"),
            (Part::TrailerStart, b'\r') => Part::LastFeed,
            (Part::TrailerName, b':') => Part::TrailerValue,
            (Part::TrailerValue, b'\r') => Part::TrailerFeed,
            (Part::TrailerStart | Part::TrailerName | Part::TrailerValue, _) => self.trailer(byte)?,
            (Part::TrailerFeed, b'\n') => Part::TrailerStart,
            (Part::TrailerFeed, _) => return Err("a trailer line ends without a line feed"),
            (Part::LastFeed, b'\n') => Part::Over,
            (Part::LastFeed, _) => return Err("the last line of a chunked body is wrong"),
            // Unreachable: data and the end are handled by the caller.
            (Part::Data | Part::Over, _) => self.part,
        })
    }

    fn size_byte(&mut self, byte: u8) -> Result<Part, &'static str> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b';' if self.digits > 0 => return Ok(Part::Extension),
            b'\r' if self.digits > 0 => return Ok(Part::SizeFeed),
            _ => return Err("a chunk size is not a plain hexadecimal number"),
        };
        self.digits += 1;
        // Fifteen digits are an exbibyte; more could only be an attempt to overflow a number.
        if self.digits > 15 {
            return Err("a chunk size is too long");
        }
        self.size = self.size << 4 | u64::from(digit);
        Ok(Part::Size)
    }

    fn extension(&mut self, byte: u8) -> Result<Part, &'static str> {
        self.extension_bytes += 1;
        self.extensions_bytes += 1;
        // Parsers that support quoted strings would let a backslash hide a quote, and accept a line end as
        // text.
        let plain = matches!(byte, b'\t' | 0x20..=0x7e) && byte != b'\\';
        let long = self.extension_bytes > EXTENSION_BYTES_MAX || self.extensions_bytes > EXTENSIONS_BYTES_MAX;
        if long || !plain {
            return Err("chunk extensions are too long or contain a character that none has");
        }
        Ok(match (self.part, byte) {
            (Part::Extension, b'"') => Part::Quoted,
            (Part::Quoted, b'"') => Part::Extension,
            (part, _) => part,
        })
    }

    fn size_done(&mut self) -> Part {
        self.digits = 0;
        self.extension_bytes = 0;
        if self.size == 0 {
            Part::TrailerStart
        } else {
            Part::Data
        }
    }

    fn trailer(&mut self, byte: u8) -> Result<Part, &'static str> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX || (byte < 0x20 && byte != b'\t') || byte == 0x7f {
            return Err("the trailer is too long or contains a control character");
        }
        if self.part == Part::TrailerValue {
            return Ok(Part::TrailerValue);
        }
        if !is_token_byte(byte) {
            return Err("a line of the trailer is no header field");
        }
        Ok(Part::TrailerName)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::proptest;

    use super::Chunks;
    use crate::wire::Piece;

    /// Feeds bytes in pieces of `size`: the body, whether it is complete, and the rest; or the error.
    fn decode(bytes: &[u8], size: usize) -> Result<(Vec<u8>, bool, Vec<u8>), &'static str> {
        let mut chunks = Chunks::default();
        let mut held = BytesMut::new();
        let mut body = Vec::new();
        let mut over = false;
        for piece in bytes.chunks(size.max(1)) {
            held.extend_from_slice(piece);
            while !over {
                match chunks.next(&mut held)? {
                    Piece::Data(data) => body.extend_from_slice(&data),
                    Piece::More => break,
                    Piece::End => over = true,
                }
            }
        }
        Ok((body, over, held.to_vec()))
    }

    #[test]
    fn a_body_is_taken_out_of_its_chunks() {
        let sent = b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\nGET";
        for size in [1, 2, 7, 1000] {
            let (body, over, left) = decode(sent, size).unwrap();
            assert_eq!((body.as_slice(), over), (&b"abc0123456789"[..], true));
            assert_eq!(left, b"GET", "in pieces of {size}");
        }
    }

    #[test]
    fn small_chunks_are_copied_together() {
        let sent = b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n";
        let mut held = BytesMut::from(&sent[..]);
        let mut chunks = Chunks::default();
        assert_eq!(chunks.next(&mut held), Ok(Piece::Data("abc".into())));
        assert_eq!(chunks.next(&mut held), Ok(Piece::End));
    }

    #[test]
    fn invalid_framing_is_refused() {
        for sent in [
            "+3\r\nabc\r\n0\r\n\r\n",
            "0x3\r\nabc\r\n0\r\n\r\n",
            "3\nabc\r\n0\r\n\r\n",
            "3\r\nabcd\r\n0\r\n\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "\r\nabc\r\n0\r\n\r\n",
            ";x\r\nabc\r\n0\r\n\r\n",
            "fffffffffffffffff\r\nabc",
            "3 \r\nabc\r\n0\r\n\r\n",
            "3;\n\r\nabc\r\n0\r\n\r\n",
            "0\r\nT: a\nb\r\n\r\n",
            "0\r\n\rX",
            "3;x=\"\r\nabc\r\n0\r\n\r\n",
            "0\r\nX-T\r\n\r\n",
            "0\r\n: 1\r\n\r\n",
            "0\r\nX-T : 1\r\n\r\n",
            "0\r\nX-T: 1\r\n 2\r\n\r\n",
        ] {
            for size in [1, 3, 1000] {
                assert!(
                    decode(sent.as_bytes(), size).is_err(),
                    "{sent:?} in pieces of {size}"
                );
            }
        }
    }

    #[test]
    fn extensions_and_trailers_have_bounds() {
        let extension = format!("1;{}\r\na\r\n", "x".repeat(300));
        assert!(decode(extension.as_bytes(), 64).is_err());
        assert!(decode("1;x=y\r\na\r\n".repeat(17_000).as_bytes(), 64).is_err());
        assert!(decode(b"2;x=y;z=\"1\"\r\n{}\r\n0;last\r\n\r\n", 64).is_ok());
        let trailer = format!("0\r\n{}\r\n", "t: v\r\n".repeat(3000));
        assert!(decode(trailer.as_bytes(), 64).is_err());
    }

    fn is_read(sent: &str) -> bool {
        matches!(decode(sent.as_bytes(), 64), Ok((_, true, left)) if left.is_empty())
    }

    #[test]
    fn quotes_count_as_bytes_of_an_extension() {
        assert!(!is_read(&format!("1;{}\r\na\r\n0\r\n\r\n", "\"".repeat(258))));
    }

    #[test]
    fn a_chunk_size_has_one_to_fifteen_digits() {
        for sent in [
            "\r\n\r\n",
            ";x\r\n\r\n",
            "1\r\na\r\n\r\n\r\n",
            "1\r\na\r\n;x\r\n\r\n",
            "0000000000000001\r\na\r\n0\r\n\r\n",
        ] {
            assert!(decode(sent.as_bytes(), 64).is_err(), "{sent:?}");
        }
        assert!(is_read(
            "000000000000001\r\na\r\n00000000000000F\r\n0123456789abcde\r\n0\r\n\r\n"
        ));
        let (_, over, _) = decode(b"fffffffffffffff\r\nabc", 64).unwrap();
        assert!(!over);
    }

    #[test]
    fn bounds_are_met_to_the_byte() {
        let extended = |bytes: usize| format!("1;{}\r\na\r\n", "x".repeat(bytes));
        let body = |chunks: &str| format!("{chunks}0\r\n\r\n");
        assert!(is_read(&body(&extended(256))));
        assert!(!is_read(&body(&extended(257))));
        // Sixty-four times the limit of one is the limit of all.
        let all = extended(256).repeat(64);
        assert!(is_read(&body(&all)));
        assert!(!is_read(&body(&(all + &extended(1)))));
        let trailer = |bytes: usize| format!("0\r\nt:{}\r\n\r\n", "v".repeat(bytes - 1));
        assert!(is_read(&trailer(8192)));
        assert!(!is_read(&trailer(8193)));
    }

    #[test]
    fn extensions_and_trailers_have_visible_characters_and_white_space() {
        for (byte, extension, trailer) in [
            ('\t', true, true),
            (' ', true, true),
            ('~', true, true),
            ('\\', false, true),
            ('\x1f', false, false),
            ('\x7f', false, false),
        ] {
            let sent = format!("1;x{byte}\r\na\r\n0\r\n\r\n");
            assert_eq!(is_read(&sent), extension, "{sent:?}");
            let sent = format!("0\r\nt: {byte}\r\n\r\n");
            assert_eq!(is_read(&sent), trailer, "{sent:?}");
        }
    }

    #[test]
    fn a_large_chunk_is_handed_on_by_itself() {
        for (bytes, first) in [(2047, 2048), (2048, 2048), (2049, 2049)] {
            let sent = format!("{bytes:x}\r\n{}\r\n1\r\nb\r\n0\r\n\r\n", "a".repeat(bytes));
            let mut held = BytesMut::from(sent.as_bytes());
            let mut chunks = Chunks::default();
            match chunks.next(&mut held) {
                Ok(Piece::Data(data)) => {
                    assert_eq!(data.len(), first);
                    assert_eq!(data.ends_with(b"b"), bytes < 2048, "{bytes}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn no_memory_is_held_while_nothing_is() {
        let mut held = BytesMut::with_capacity(1024);
        held.extend_from_slice(b"3\r\n");
        let mut chunks = Chunks::default();
        assert_eq!(chunks.next(&mut held), Ok(Piece::More));
        assert_eq!(held.capacity(), 0);
    }

    proptest! {
        #[test]
        fn pieces_do_not_change_what_is_read(bytes in "[0-9a-f;\r\nxT: ]{0,60}", size in 1usize..9) {
            let whole = decode(bytes.as_bytes(), 10_000);
            assert_eq!(decode(bytes.as_bytes(), size).is_err(), whole.is_err());
            if let Ok(whole) = whole {
                assert_eq!(decode(bytes.as_bytes(), size).unwrap(), whole);
            }
        }

        #[test]
        fn what_is_put_into_chunks_comes_out(
            chunks in proptest::collection::vec(proptest::collection::vec(0u8..=255, 1..5000), 0..6),
            size in 1usize..9000,
        ) {
            let mut sent = Vec::new();
            for chunk in &chunks {
                sent.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                sent.extend_from_slice(chunk);
                sent.extend_from_slice(b"\r\n");
            }
            sent.extend_from_slice(b"0\r\n\r\n");
            let (body, over, left) = decode(&sent, size).unwrap();
            assert_eq!(body, chunks.concat());
            assert!(over && left.is_empty());
        }
    }
}
