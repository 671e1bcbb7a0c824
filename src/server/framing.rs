//! Where HTTP/1 messages begin and end in a stream of bytes, and which heads can be read in two ways (RFC 9112). It
//! holds no bytes and makes no requests of them: hyper parses what passes, `guard.rs` feeds both.

use memchr::memchr;

use crate::gateway::Defect;

/// Longest line of chunk extensions, bytes; nobody uses them for good.
const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Largest trailer section, bytes; it is dropped unread.
const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// What may be done with the bytes at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// So many bytes belong to the message and may go on; at least one.
    Pass(usize),
    /// A head that is not complete yet.
    Wait,
    /// A head that must not be read.
    Refuse(Defect),
    /// A body whose framing is wrong.
    Broken(&'static str),
}

/// Follows one connection's requests.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    limits: Limits,
}

/// How large a head may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes.
    pub bytes_max: usize,
    /// Header fields.
    pub fields_max: usize,
}

#[derive(Debug)]
enum State {
    Head(Head),
    /// Bytes of the body that are still to come.
    Length(u64),
    Chunks(Chunks),
    /// What was wrong; nothing after it can be told apart.
    Broken(&'static str),
}

/// What is known of a head that is still arriving.
#[derive(Debug, Default)]
struct Head {
    scanned: usize,
    line_start: usize,
    lines: usize,
    length: Option<u64>,
    chunked: Option<()>,
    old: Option<()>,
}

impl Framing {
    /// A connection before its first request.
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            state: State::Head(Head::default()),
            limits,
        }
    }

    /// Whether the next byte begins a head.
    pub(super) fn is_between(&self) -> bool {
        matches!(&self.state, State::Head(head) if head.scanned == 0)
    }

    /// Whether a head has begun and is not complete.
    pub(super) fn is_in_head(&self) -> bool {
        matches!(&self.state, State::Head(head) if head.scanned > 0)
    }

    /// Looks at the bytes at hand. For a head these are all its bytes so far; for a body the new ones.
    pub(super) fn look(&mut self, bytes: &[u8]) -> Step {
        match &mut self.state {
            State::Head(head) => match head.scan(bytes, self.limits) {
                Ok(None) => Step::Wait,
                Ok(Some(end)) => {
                    let next = head.body();
                    self.state = next;
                    Step::Pass(end)
                }
                Err(defect) => Step::Refuse(defect),
            },
            State::Length(left) => {
                let there = u64::try_from(bytes.len()).unwrap_or(u64::MAX).min(*left);
                *left -= there;
                if *left == 0 {
                    self.state = State::Head(Head::default());
                }
                Step::Pass(usize::try_from(there).unwrap_or(bytes.len()))
            }
            State::Chunks(chunks) => match chunks.scan(bytes) {
                Ok((passed, Over::No)) => Step::Pass(passed),
                Ok((passed, Over::Yes)) => {
                    self.state = State::Head(Head::default());
                    Step::Pass(passed)
                }
                Err(what) => {
                    self.state = State::Broken(what);
                    Step::Broken(what)
                }
            },
            State::Broken(what) => Step::Broken(what),
        }
    }
}

impl Head {
    /// Goes on from where the last look ended; tells where the head ends.
    fn scan(&mut self, bytes: &[u8], limits: Limits) -> Result<Option<usize>, Defect> {
        while let Some(at) = bytes.get(self.scanned..).and_then(|rest| memchr(b'\n', rest)) {
            let feed = self.scanned + at;
            if feed >= limits.bytes_max {
                return Err(Defect::TooLarge);
            }
            let line = bytes.get(self.line_start..feed).unwrap_or_default();
            let Some((b'\r', line)) = line.split_last() else {
                return Err(Defect::Malformed(
                    "a line of the head ends without a carriage return",
                ));
            };
            self.scanned = feed + 1;
            self.line_start = feed + 1;
            if line.is_empty() {
                if self.lines == 0 {
                    return Err(Defect::Malformed("there is an empty line before the head"));
                }
                self.check_whole()?;
                return Ok(Some(feed + 1));
            }
            // The first line is not a field. hyper has a limit of its own, which it answers without our words.
            if self.lines > limits.fields_max {
                return Err(Defect::TooLarge);
            }
            self.line(line)?;
            self.lines += 1;
        }
        if bytes.len() >= limits.bytes_max {
            return Err(Defect::TooLarge);
        }
        self.scanned = bytes.len();
        Ok(None)
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Defect> {
        if line
            .iter()
            .any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f)
        {
            return Err(Defect::Malformed("the head contains a control character"));
        }
        if self.lines == 0 {
            return self.request_line(line);
        }
        let Some(colon) = memchr(b':', line) else {
            return Err(Defect::Malformed("a line of the head has no colon"));
        };
        let (name, value) = line.split_at(colon);
        match (name.first(), name.last()) {
            (Some(b' ' | b'\t'), _) => {
                return Err(Defect::Malformed("a header field is folded over two lines"));
            }
            (_, Some(b' ' | b'\t')) => {
                return Err(Defect::Malformed("a header field has a space before its colon"));
            }
            (None, _) => return Err(Defect::Malformed("a header field has no name")),
            _ => {}
        }
        // Most names differ in length, so these comparisons cost next to nothing.
        if name.eq_ignore_ascii_case(b"content-length") {
            return self.content_length(value.get(1..).unwrap_or_default().trim_ascii());
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return self.transfer_encoding(value.get(1..).unwrap_or_default().trim_ascii());
        }
        Ok(())
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Defect> {
        if line.iter().any(|byte| matches!(byte, b'#' | b'\\' | 0x80..)) {
            let what = "the target contains '#', '\\' or a character that must be percent-encoded";
            return Err(Defect::Malformed(what));
        }
        if line.starts_with(b"CONNECT ") || line.starts_with(b"TRACE ") {
            return Err(Defect::Malformed("the methods CONNECT and TRACE are not served"));
        }
        if line.ends_with(b"HTTP/1.0") {
            self.old = Some(());
        }
        Ok(())
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Defect> {
        if self.length.is_some() {
            return Err(Defect::Malformed("there are two Content-Length fields"));
        }
        let canonical = !value.is_empty()
            && value.len() <= 18
            && value.iter().all(u8::is_ascii_digit)
            && (value.len() == 1 || value.first() != Some(&b'0'));
        if !canonical {
            return Err(Defect::Malformed("Content-Length is not one plain number"));
        }
        self.length = Some(
            value
                .iter()
                .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')),
        );
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Defect> {
        if self.chunked.is_some() || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Defect::Malformed(
                "Transfer-Encoding is something other than one 'chunked'",
            ));
        }
        self.chunked = Some(());
        Ok(())
    }

    fn check_whole(&self) -> Result<(), Defect> {
        if self.chunked.is_some() && self.length.is_some() {
            return Err(Defect::Malformed(
                "both Content-Length and Transfer-Encoding are there",
            ));
        }
        if self.chunked.is_some() && self.old.is_some() {
            return Err(Defect::Malformed("Transfer-Encoding does not exist in HTTP/1.0"));
        }
        Ok(())
    }

    fn body(&self) -> State {
        match (self.chunked, self.length) {
            (Some(()), _) => State::Chunks(Chunks::default()),
            (None, None | Some(0)) => State::Head(Head::default()),
            (None, Some(length)) => State::Length(length),
        }
    }
}

/// Whether a message is over.
enum Over {
    Yes,
    No,
}

/// A chunked body (RFC 9112 section 7.1), followed byte by byte but for its data.
#[derive(Debug)]
struct Chunks {
    part: Part,
    size: u64,
    digits: u8,
    line_bytes: usize,
    trailer_bytes: usize,
}

impl Default for Chunks {
    fn default() -> Self {
        Self {
            part: Part::Size,
            size: 0,
            digits: 0,
            line_bytes: 0,
            trailer_bytes: 0,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Size,
    Extension,
    SizeFeed,
    Data,
    DataReturn,
    DataFeed,
    TrailerStart,
    Trailer,
    TrailerFeed,
    LastFeed,
}

impl Chunks {
    fn scan(&mut self, bytes: &[u8]) -> Result<(usize, Over), &'static str> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at).copied() {
            if matches!(self.part, Part::Data) {
                let there = u64::try_from(bytes.len() - at).unwrap_or(u64::MAX).min(self.size);
                self.size -= there;
                at += usize::try_from(there).unwrap_or(bytes.len());
                if self.size == 0 {
                    self.part = Part::DataReturn;
                }
                continue;
            }
            at += 1;
            self.part = match (self.part, byte) {
                (Part::Size, _) => self.size_byte(byte)?,
                (Part::Extension, b'\r') => Part::SizeFeed,
                (Part::Extension, _) => self.extension(byte)?,
                (Part::SizeFeed, b'\n') => self.size_done(),
                (Part::SizeFeed, _) => return Err("a chunk size ends without a line feed"),
                (Part::DataReturn, b'\r') => Part::DataFeed,
                (Part::DataFeed, b'\n') => Part::Size,
                (Part::DataReturn | Part::DataFeed | Part::Data, _) => {
                    return Err("a chunk is longer than its size");
                }
                (Part::TrailerStart, b'\r') => Part::LastFeed,
                (Part::Trailer, b'\r') => Part::TrailerFeed,
                (Part::TrailerStart | Part::Trailer, _) => self.trailer(byte)?,
                (Part::TrailerFeed, b'\n') => Part::TrailerStart,
                (Part::TrailerFeed, _) => return Err("a trailer line ends without a line feed"),
                (Part::LastFeed, b'\n') => return Ok((at, Over::Yes)),
                (Part::LastFeed, _) => return Err("the last line of a chunked body is wrong"),
            };
        }
        Ok((at, Over::No))
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
        // Fifteen digits are an exbibyte; more could only be meant to overflow somebody's number.
        if self.digits > 15 {
            return Err("a chunk size is too long");
        }
        self.size = self.size << 4 | u64::from(digit);
        Ok(Part::Size)
    }

    fn extension(&mut self, byte: u8) -> Result<Part, &'static str> {
        self.line_bytes += 1;
        if self.line_bytes > CHUNK_LINE_BYTES_MAX || byte < 0x20 || byte == 0x7f {
            return Err("a chunk extension is too long or contains a control character");
        }
        Ok(Part::Extension)
    }

    fn size_done(&mut self) -> Part {
        self.digits = 0;
        self.line_bytes = 0;
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
        Ok(Part::Trailer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::Framing;
    use super::Limits;
    use super::Step;
    use crate::gateway::Defect;

    const HEAD_MAX: usize = 1024;
    const LIMITS: Limits = Limits {
        bytes_max: HEAD_MAX,
        fields_max: 10,
    };

    /// Feeds bytes in pieces of `size`, as a guard does, and tells what came of each message.
    fn follow(bytes: &[u8], size: usize) -> Vec<String> {
        let mut framing = Framing::new(LIMITS);
        let mut seen = Vec::new();
        let mut held: Vec<u8> = Vec::new();
        let mut passed: Vec<u8> = Vec::new();
        for piece in bytes.chunks(size.max(1)) {
            held.extend_from_slice(piece);
            while !held.is_empty() {
                match framing.look(&held) {
                    Step::Pass(count) => {
                        passed.extend(held.drain(..count));
                        if framing.is_between() {
                            seen.push(String::from_utf8_lossy(&passed).into_owned());
                            passed.clear();
                        }
                    }
                    Step::Wait => break,
                    Step::Refuse(defect) => {
                        seen.push(format!("refused: {defect:?}"));
                        return seen;
                    }
                    Step::Broken(what) => {
                        seen.push(format!("broken: {what}"));
                        return seen;
                    }
                }
            }
        }
        seen
    }

    #[test]
    fn pipelined_messages_are_told_apart() {
        let one = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
        let two = "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\n";
        let three = "GET /c HTTP/1.1\r\nHost: a\r\n\r\n";
        let all = format!("{one}{two}{three}");
        for size in [1, 2, 7, 1000] {
            assert_eq!(
                follow(all.as_bytes(), size),
                [one, two, three],
                "in pieces of {size}"
            );
        }
    }

    #[test]
    fn a_second_head_does_not_escape() {
        let all = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\nHost: a\n\n";
        let seen = follow(all.as_bytes(), 1000);
        assert_eq!(seen.len(), 2);
        assert!(seen[1].starts_with("refused"), "{seen:?}");
    }

    #[test]
    fn heads_that_can_be_read_in_two_ways_are_refused() {
        let heads = [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
            "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
            "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: -3\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 003\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0x3\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        ];
        for head in heads {
            for size in [1, 3, 1000] {
                let seen = follow(head.as_bytes(), size);
                assert!(
                    seen.len() == 1 && seen[0].starts_with("refused"),
                    "{head:?}: {seen:?}"
                );
            }
        }
    }

    #[test]
    fn chunks_with_wrong_framing_are_broken() {
        for body in [
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
        ] {
            let all = format!("POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
            let seen = follow(all.as_bytes(), 1000);
            assert!(
                seen.last().is_some_and(|last| last.starts_with("broken")),
                "{body:?}: {seen:?}"
            );
        }
    }

    #[test]
    fn a_head_has_a_limit() {
        let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(HEAD_MAX));
        for size in [1, 100, 10_000] {
            let seen = follow(long.as_bytes(), size);
            assert_eq!(seen, [format!("refused: {:?}", Defect::TooLarge)]);
        }
    }

    #[test]
    fn a_head_has_a_number_of_fields() {
        let head = |fields: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(fields));
        for size in [1, 100, 10_000] {
            assert_eq!(follow(head(10).as_bytes(), size), [head(10)]);
            let refused = format!("refused: {:?}", Defect::TooLarge);
            assert_eq!(follow(head(11).as_bytes(), size), [refused]);
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_change_what_is_seen(
            bytes in "(POST|GET) /[a-z]{0,3} HTTP/1.1\r?\n(host: a\r\n|content-length: [0-9]\r\n|transfer-encoding: chunked\r\n){0,3}\r\n[0-9a-f\r\n]{0,30}",
            size in 1usize..9,
        ) {
            assert_eq!(follow(bytes.as_bytes(), size), follow(bytes.as_bytes(), 10_000));
        }

        #[test]
        fn no_bytes_end_the_scanner(bytes in proptest::collection::vec(0u8..=255, 0..400), size in 1usize..50) {
            follow(&bytes, size);
        }
    }
}
