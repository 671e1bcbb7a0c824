//! Heads of requests and answers (RFC 9112 sections 2 to 6), parsed strictly: whatever two parsers could read
//! differently is refused with a sentence.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use memchr::memchr;

use crate::wire::fields;
use crate::wire::fields::Fields;

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub bytes_max: usize,
    pub fields_max: usize,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// It is invalid or ambiguous; the text says where.
    Malformed(&'static str),
    TooLarge,
}

/// How the end of a body is determined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    None,
    /// By its length in bytes.
    Length(u64),
    Chunked,
    /// By the end of the connection; answers only.
    UntilClose,
}

const BARE_LINE_END: Defect =
    Defect::Malformed("a line of the head does not end with one carriage return and line feed");

/// Searches for the end of a head while it arrives. It remembers its position, so that a head that arrives
/// byte by byte costs no more than one that arrives whole.
#[derive(Debug, Default)]
pub struct Scan {
    scanned: usize,
    line_start: usize,
    lines: usize,
}

impl Scan {
    /// Scans the bytes of the head that have arrived so far, and returns the end of the head once it is
    /// there.
    ///
    /// # Errors
    /// Ambiguous line ends and beginnings, and a head above the limits, are reported at once.
    pub fn look(&mut self, bytes: &[u8], limits: Limits) -> Result<Option<HeadEnd>, Defect> {
        while let Some(at) = bytes.get(self.scanned..).and_then(|rest| memchr(b'\n', rest)) {
            let feed = self.scanned + at;
            if feed >= limits.bytes_max {
                return Err(Defect::TooLarge);
            }
            let line = bytes.get(self.line_start..feed).unwrap_or_default();
            // With an extra carriage return an empty line would look like a field, and the head would not
            // end.
            let ([line @ .., b'\r'], false) = (line, line.ends_with(b"\r\r")) else {
                return Err(BARE_LINE_END);
            };
            self.scanned = feed + 1;
            self.line_start = feed + 1;
            match (line.first(), self.lines) {
                (None, 0) => return Err(Defect::Malformed("there is an empty line before the head")),
                (None, _) => {
                    let fields = self.lines - 1;
                    *self = Self::default();
                    return Ok(Some(HeadEnd {
                        end: feed + 1,
                        fields,
                    }));
                }
                // The first line is not a field.
                (Some(_), lines) if lines > limits.fields_max => return Err(Defect::TooLarge),
                (Some(b' ' | b'\t'), 1..) => {
                    return Err(Defect::Malformed("a header field is folded over two lines"));
                }
                _ => self.lines += 1,
            }
        }
        if bytes.len() >= limits.bytes_max {
            return Err(Defect::TooLarge);
        }
        let rest = bytes.get(self.scanned..).unwrap_or_default();
        if memchr(b'\r', rest).is_some_and(|at| at + 1 < rest.len()) {
            return Err(BARE_LINE_END);
        }
        // A carriage return at the end is scanned again, together with what follows it.
        self.scanned = bytes.len() - usize::from(rest.last() == Some(&b'\r'));
        Ok(None)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadEnd {
    /// Its length in bytes, the empty line included.
    pub end: usize,
    /// The number of its header fields, to allocate memory for them once.
    pub fields: usize,
}

#[derive(Debug)]
pub struct RequestHead {
    /// Its method; never CONNECT or TRACE.
    pub method: Method,
    pub target: Uri,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    pub headers: HeaderMap,
    pub framing: Framing,
    /// Whether another request may follow on the connection.
    pub persists: bool,
}

#[derive(Debug)]
pub struct ResponseHead {
    /// Its status, 100 to 599.
    pub status: StatusCode,
    pub fields: Fields,
    pub framing: Framing,
    pub persists: bool,
}

/// Parses the head of a request whose end [`Scan`] has found; `fields` is their estimated number.
pub fn request(head: &Bytes, fields: usize) -> Result<RequestHead, Defect> {
    read_request(head, fields).map_err(Defect::Malformed)
}

fn read_request(head: &Bytes, fields: usize) -> Result<RequestHead, &'static str> {
    let (line, fields_start) = first_line(head);
    let (method, target, version) = request_line(head, line)?;
    let mut headers = HeaderMap::with_capacity(fields);
    let declared = each_field(head, fields_start, |name, value| {
        let name = HeaderName::from_bytes(name).map_err(|_| fields::NO_NAME)?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(value)).map_err(|_| fields::CONTROL)?;
        headers
            .try_append(name, value)
            .map_err(|_| "there are too many header fields")?;
        Ok(())
    })?;
    if declared.chunked && declared.length.is_some() {
        return Err("both Content-Length and Transfer-Encoding are there");
    }
    if declared.chunked && version == Version::HTTP_10 {
        return Err("Transfer-Encoding does not exist in HTTP/1.0");
    }
    let framing = match declared.length {
        _ if declared.chunked => Framing::Chunked,
        None | Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
    };
    Ok(RequestHead {
        method,
        target,
        persists: declared.persists(version),
        version,
        framing,
        headers,
    })
}

/// Parses the head of an answer to `method` whose end [`Scan`] has found; `fields` is their estimated number.
///
/// # Errors
/// A sentence about what is invalid or ambiguous (RFC 9112 section 6.3).
pub fn response(head: &Bytes, fields: usize, method: &Method) -> Result<ResponseHead, &'static str> {
    let (line, fields_start) = first_line(head);
    let (status, version) = status_line(line)?;
    let mut passed = Fields::of(head, fields);
    let declared = each_field(head, fields_start, |name, value| passed.add(name, value))?;
    if declared.chunked && declared.length.is_some() {
        return Err("it has both Content-Length and Transfer-Encoding");
    }
    if declared.chunked && version == Version::HTTP_10 {
        return Err("it uses a transfer coding, which does not exist in HTTP/1.0");
    }
    let bodiless = matches!(status.as_u16(), 100..=199 | 204 | 304) || method == Method::HEAD;
    let framing = match declared.length {
        _ if bodiless => Framing::None,
        _ if declared.chunked => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    };
    // A body where none is allowed: whatever was meant, the rest of the connection cannot be parsed.
    let promised = declared.chunked || declared.length.is_some_and(|length| length > 0);
    let contradicts = promised && status == StatusCode::NO_CONTENT;
    let persists = declared.persists(version) && framing != Framing::UntilClose && !contradicts;
    Ok(ResponseHead {
        status,
        persists,
        framing,
        fields: passed,
    })
}

/// The first line without its end, and the start of the next one.
fn first_line(head: &Bytes) -> (&[u8], usize) {
    let feed = memchr(b'\n', head).unwrap_or(head.len());
    let line = head.get(..feed.saturating_sub(1)).unwrap_or_default();
    (line, feed + 1)
}

fn request_line(head: &Bytes, line: &[u8]) -> Result<(Method, Uri, Version), &'static str> {
    const SHAPE: &str = "the request line is not a method, a target and HTTP/1.1, with single spaces between";
    let space = memchr(b' ', line).ok_or(SHAPE)?;
    let (method, rest) = line.split_at(space);
    let rest = rest.get(1..).unwrap_or_default();
    let space = memchr(b' ', rest).ok_or(SHAPE)?;
    let (target, version) = rest.split_at(space);
    let version = match version {
        b" HTTP/1.1" => Version::HTTP_11,
        b" HTTP/1.0" => Version::HTTP_10,
        _ => return Err(SHAPE),
    };
    if target.is_empty() {
        return Err(SHAPE);
    }
    if target
        .iter()
        .any(|byte| !matches!(byte, 0x21..=0x7e) || matches!(byte, b'#' | b'\\'))
    {
        return Err("the target contains '#', '\\' or a character that must be percent-encoded");
    }
    let method = Method::from_bytes(method).map_err(|_| "the method has characters that no method has")?;
    if matches!(method, Method::CONNECT | Method::TRACE) {
        return Err("the methods CONNECT and TRACE are not served");
    }
    let target = Uri::from_maybe_shared(head.slice_ref(target)).map_err(|_| "the target is no URL")?;
    Ok((method, target, version))
}

fn status_line(line: &[u8]) -> Result<(StatusCode, Version), &'static str> {
    const SHAPE: &str = "its first line is not HTTP/1.1 and a status of three digits";
    let (version, rest) = line.split_at_checked(9).ok_or(SHAPE)?;
    let version = match version {
        b"HTTP/1.1 " => Version::HTTP_11,
        b"HTTP/1.0 " => Version::HTTP_10,
        _ => return Err(SHAPE),
    };
    let (status, reason) = rest.split_at_checked(3).ok_or(SHAPE)?;
    if !matches!(reason.first(), None | Some(b' ')) {
        return Err(SHAPE);
    }
    if fields::has_control(reason) {
        return Err("its first line contains a control character");
    }
    // There is no class above 599 (RFC 9110 section 15).
    let status = StatusCode::from_bytes(status)
        .ok()
        .filter(|status| status.as_u16() < 600)
        .ok_or("its status is not one of 100 to 599")?;
    Ok((status, version))
}

/// What the fields of a head say about framing.
#[derive(Default)]
struct FramingFields {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

/// Passes the lines of a head after the first one to `each`, and collects those about framing.
fn each_field<'a>(
    head: &'a Bytes,
    mut at: usize,
    mut take: impl FnMut(&'a [u8], &'a [u8]) -> Result<(), &'static str>,
) -> Result<FramingFields, &'static str> {
    let mut declared = FramingFields::default();
    while let Some(rest) = head.get(at..) {
        let Some(feed) = memchr(b'\n', rest) else { break };
        let line = rest.get(..feed.saturating_sub(1)).unwrap_or_default();
        if line.is_empty() {
            break;
        }
        let (name, value) = fields::split(line)?;
        declared.note(name, value)?;
        take(name, value)?;
        at += feed + 1;
    }
    Ok(declared)
}

/// Whether every server reads the same number in a value of Content-Length.
pub fn is_plain_length(value: &[u8]) -> bool {
    // One digit more could overflow somebody's number.
    matches!(value.len(), 1..=18)
        && value.iter().all(u8::is_ascii_digit)
        && (value.len() == 1 || !value.starts_with(b"0"))
}

impl FramingFields {
    /// Compares lengths first, which decides nearly every name without a comparison.
    fn note(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value),
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.connection(value);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), &'static str> {
        if self.length.is_some() {
            return Err("there are two Content-Length fields");
        }
        if !is_plain_length(value) {
            return Err("Content-Length is not one plain number");
        }
        let digits = value.iter().map(|digit| u64::from(digit - b'0'));
        self.length = Some(digits.fold(0, |sum, digit| sum * 10 + digit));
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), &'static str> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err("Transfer-Encoding is something other than one 'chunked'");
        }
        self.chunked = true;
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        for option in value.split(|byte| *byte == b',') {
            let option = fields::trim(option);
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// RFC 9112 section 9.3.
    fn persists(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep_alive)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{Method, Version};
    use proptest::prelude::proptest;

    use super::{Defect, Framing, HeadEnd, Limits, RequestHead, ResponseHead, Scan, request, response};

    const LIMITS: Limits = Limits {
        bytes_max: 1024,
        fields_max: 10,
    };

    /// Delivers a head in pieces of `size`, as a connection does: the head, and what follows it.
    fn arrive(bytes: &[u8], size: usize) -> Result<Option<(RequestHead, Vec<u8>)>, Defect> {
        let mut scan = Scan::default();
        let mut held = Vec::new();
        for piece in bytes.chunks(size.max(1)) {
            held.extend_from_slice(piece);
            if let Some(HeadEnd { end, fields }) = scan.look(&held, LIMITS)? {
                let left = bytes[end..].to_vec();
                held.truncate(end);
                return Ok(Some((request(&Bytes::from(held), fields)?, left)));
            }
        }
        Ok(None)
    }

    fn read(head: &str) -> Result<RequestHead, Defect> {
        Ok(arrive(head.as_bytes(), 10_000)?.expect("a whole head").0)
    }

    fn answer_to(method: &Method, head: &str) -> Result<ResponseHead, &'static str> {
        response(&Bytes::copy_from_slice(head.as_bytes()), 0, method)
    }

    fn answer(head: &str) -> Result<ResponseHead, &'static str> {
        answer_to(&Method::POST, head)
    }

    #[test]
    fn a_head_is_read_and_what_follows_is_left() {
        let all =
            b"POST /a?b=c HTTP/1.1\r\nHost: a\r\nX-Two: 1\r\nx-two:\t2 \r\nContent-Length: 3\r\n\r\nabcGET";
        for size in [1, 7, 1000] {
            let (head, left) = arrive(all, size).unwrap().unwrap();
            assert_eq!((head.method, head.version), (Method::POST, Version::HTTP_11));
            assert_eq!(head.target, "/a?b=c");
            assert_eq!(head.headers["host"], "a");
            let two: Vec<_> = head.headers.get_all("x-two").iter().collect();
            assert_eq!(two, ["1", "2"]);
            assert_eq!((head.framing, head.persists), (Framing::Length(3), true));
            assert_eq!(left, b"abcGET");
        }
    }

    #[test]
    fn a_connection_persists_as_its_version_and_fields_say() {
        for (version, field, persists) in [
            ("1.1", "x: y", true),
            ("1.1", "Connection: close", false),
            ("1.1", "Connection: x, Close", false),
            ("1.0", "x: y", false),
            ("1.0", "Connection: Keep-Alive", true),
            ("1.0", "Connection: keep-alive, close", false),
        ] {
            let head = read(&format!("GET / HTTP/{version}\r\n{field}\r\n\r\n")).unwrap();
            assert_eq!(head.persists, persists, "{version} {field}");
        }
    }

    #[test]
    fn ambiguous_heads_are_refused() {
        let heads = [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nna(me: a\r\n\r\n",
            "GET / HTTP/1.1\r\nn\u{e4}me: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: \x0ca\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\u{7f}b\r\n\r\n",
            "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET / http/1.1\r\nHost: a\r\n\r\n",
            "GET /\r\nHost: a\r\n\r\n",
            "GET\r\nHost: a\r\n\r\n",
            " / HTTP/1.1\r\nHost: a\r\n\r\n",
            "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
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
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked;q=1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        ];
        for head in heads {
            for size in [1, 3, 1000] {
                let seen = arrive(head.as_bytes(), size);
                assert!(
                    matches!(seen, Err(Defect::Malformed(_))),
                    "{head:?} in pieces of {size}: {seen:?}"
                );
            }
        }
    }

    /// Why a head is refused.
    fn refusal(head: &str) -> &'static str {
        match read(head) {
            Err(Defect::Malformed(text)) => text,
            other => panic!("{head:?}: {other:?}"),
        }
    }

    #[test]
    fn a_refusal_says_what_is_wrong() {
        for (head, text) in [
            ("GET  HTTP/1.1\r\n\r\n", "the request line is not"),
            ("GET /\x7f HTTP/1.1\r\n\r\n", "the target contains"),
            ("GET / HTTP/1.1\r\nx: y\r\n z: 1\r\n\r\n", "folded"),
            ("GET / HTTP/1.1\r\nx: y\r\n\tz: 1\r\n\r\n", "folded"),
            ("GET / HTTP/1.1\r\nx : y\r\n\r\n", "a space before its colon"),
            ("GET / HTTP/1.1\r\nx\t: y\r\n\r\n", "a space before its colon"),
        ] {
            assert!(refusal(head).contains(text), "{head:?}: {}", refusal(head));
        }
        assert_eq!(read("GET /~ HTTP/1.1\r\n\r\n").unwrap().target, "/~");
    }

    #[test]
    fn a_scan_counts_fields_and_is_ready_for_the_next_head() {
        let mut scan = Scan::default();
        for (head, fields) in [
            ("GET / HTTP/1.1\r\n\r\n", 0),
            ("GET / HTTP/1.1\r\na: b\r\nc: d\r\n\r\nGET", 2),
            ("GET / HTTP/1.1\r\na: b\r\n\r\n", 1),
        ] {
            let end = head.trim_end_matches("GET").len();
            assert_eq!(
                scan.look(head.as_bytes(), LIMITS),
                Ok(Some(HeadEnd { end, fields }))
            );
        }
    }

    #[test]
    fn scanned_bytes_are_not_scanned_again() {
        let mut scan = Scan::default();
        let head = b"GET / HTTP/1.1\r\nHost: a\r";
        for (arrived, scanned) in [(5, 5), (14, 14), (15, 14), (16, 16), (20, 20), (24, 23)] {
            assert_eq!(scan.look(&head[..arrived], LIMITS), Ok(None));
            assert_eq!(scan.scanned, scanned, "after {arrived} bytes");
        }
    }

    #[test]
    fn a_line_without_an_end_has_a_limit_too() {
        let line = vec![b'y'; LIMITS.bytes_max];
        let (short, _) = line.split_at(LIMITS.bytes_max - 1);
        assert_eq!(Scan::default().look(short, LIMITS), Ok(None));
        assert_eq!(Scan::default().look(&line, LIMITS), Err(Defect::TooLarge));
    }

    #[test]
    fn a_request_says_how_its_body_ends() {
        for (field, framing) in [
            ("x: y", Framing::None),
            ("Content-Length: 0", Framing::None),
            ("Content-Length: 1", Framing::Length(1)),
            ("Content-Length: \t 42 \t", Framing::Length(42)),
            (
                "Content-Length: 123456789012345678",
                Framing::Length(123_456_789_012_345_678),
            ),
            ("Transfer-Encoding: chunked", Framing::Chunked),
            ("Transfer-Encoding: CHUNKED", Framing::Chunked),
        ] {
            let head = read(&format!("POST / HTTP/1.1\r\n{field}\r\n\r\n")).unwrap();
            assert_eq!(head.framing, framing, "{field}");
        }
        assert!(refusal("POST / HTTP/1.1\r\nContent-Length: 1234567890123456789\r\n\r\n").contains("plain"));
    }

    #[test]
    fn only_the_connection_field_speaks_of_the_connection() {
        let head = read("GET / HTTP/1.1\r\nx: close\r\n\r\n").unwrap();
        assert!(head.persists);
        let head = read("GET / HTTP/1.1\r\nconnection: \tCLOSE\t\r\n\r\n").unwrap();
        assert!(!head.persists);
        let head = read("GET / HTTP/1.0\r\nx: keep-alive\r\n\r\n").unwrap();
        assert!(!head.persists);
        // Names as long as those that frame a message, but different.
        let fields = "user-agent: close\r\naccept-charset: x\r\nif-modified-since: x";
        let head = read(&format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n")).unwrap();
        assert_eq!((head.framing, head.persists), (Framing::None, true));
        let head = answer(&format!("HTTP/1.1 204 x\r\n{fields}\r\n\r\n")).unwrap();
        assert_eq!((head.framing, head.persists), (Framing::None, true));
    }

    #[test]
    fn some_answers_have_no_body_whatever_they_say() {
        for (status, framing, persists) in [
            ("100", Framing::None, true),
            ("199", Framing::None, true),
            ("200", Framing::Length(1), true),
            ("204", Framing::None, false),
            ("304", Framing::None, true),
        ] {
            let head = answer(&format!("HTTP/1.1 {status} x\r\ncontent-length: 1\r\n\r\n")).unwrap();
            assert_eq!((head.framing, head.persists), (framing, persists), "{status}");
        }
        let head = answer("HTTP/1.1 204 x\r\ncontent-length: 0\r\n\r\n").unwrap();
        assert!(head.persists);
        let head = answer("HTTP/1.1 204 x\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
        assert_eq!((head.framing, head.persists), (Framing::None, false));
    }

    #[test]
    fn a_reason_has_no_control_characters_but_tabs() {
        for (reason, good) in [
            ("a\tb~", true),
            ("\x1f", false),
            ("\x7f", false),
            ("\u{80}", true),
        ] {
            let head = format!("HTTP/1.1 200 {reason}\r\n\r\n");
            assert_eq!(answer(&head).is_ok(), good, "{reason:?}");
        }
    }

    #[test]
    fn a_bare_line_end_is_refused_before_the_head_is_whole() {
        assert!(Scan::default().look(b"GET / HTTP/1.1\n", LIMITS).is_err());
        let mut scan = Scan::default();
        assert_eq!(scan.look(b"GET / HTTP/1.1\r", LIMITS), Ok(None));
        assert!(scan.look(b"GET / HTTP/1.1\rH", LIMITS).is_err());
    }

    #[test]
    fn a_head_has_a_limit_of_bytes_and_of_fields() {
        let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(LIMITS.bytes_max));
        let head = |fields: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(fields));
        for size in [1, 100, 10_000] {
            assert_eq!(arrive(long.as_bytes(), size).unwrap_err(), Defect::TooLarge);
            assert!(arrive(head(10).as_bytes(), size).unwrap().is_some());
            assert_eq!(arrive(head(11).as_bytes(), size).unwrap_err(), Defect::TooLarge);
        }
    }

    #[test]
    fn an_answer_says_where_it_ends() {
        for (head, framing, persists) in [
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n",
                Framing::Length(3),
                true,
            ),
            (
                "HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n",
                Framing::Length(0),
                true,
            ),
            (
                "HTTP/1.1 200 \r\ntransfer-encoding: chunked\r\n\r\n",
                Framing::Chunked,
                true,
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", Framing::UntilClose, false),
            (
                "HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\n",
                Framing::Length(3),
                false,
            ),
            ("HTTP/1.1 204 None\r\n\r\n", Framing::None, true),
            (
                "HTTP/1.1 204 None\r\ncontent-length: 3\r\n\r\n",
                Framing::None,
                false,
            ),
            (
                "HTTP/1.1 304 Same\r\ncontent-length: 3\r\n\r\n",
                Framing::None,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\n",
                Framing::Length(3),
                false,
            ),
        ] {
            let read = answer(head).unwrap();
            assert_eq!((read.framing, read.persists), (framing, persists), "{head:?}");
        }
        let head = answer_to(&Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n").unwrap();
        assert_eq!((head.framing, head.persists), (Framing::None, true));
    }

    #[test]
    fn ambiguous_answers_are_refused() {
        for head in [
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -3\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 2x0 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 600 OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/1.2 200 OK\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "HTTP/1.1 200 O\x01K\r\n\r\n",
            "HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
            "<html>\r\n\r\n",
        ] {
            assert!(answer(head).is_err(), "{head:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_change_what_is_read(
            bytes in "(POST|GET) /[a-z]{0,3} HTTP/1.1\r?\n(host: a\r\n|content-length: [0-9]\r\n|transfer-encoding: chunked\r\n){0,3}\r\n[0-9a-f\r\n]{0,30}",
            size in 1usize..9,
        ) {
            // Which of two errors a head with both gets depends on which one arrived first.
            let outcome = |seen: Result<Option<(RequestHead, Vec<u8>)>, Defect>| match seen {
                Ok(found) => format!("{:?}", found.map(|(head, _)| head)),
                Err(Defect::Malformed(_)) => "malformed".to_owned(),
                Err(Defect::TooLarge) => "too large".to_owned(),
            };
            assert_eq!(outcome(arrive(bytes.as_bytes(), size)), outcome(arrive(bytes.as_bytes(), 10_000)));
        }

        #[test]
        fn no_bytes_end_the_reader(bytes in proptest::collection::vec(0u8..=255, 0..400), size in 1usize..50) {
            let _ = arrive(&bytes, size);
            let _ = response(&Bytes::from(bytes), 0, &Method::GET);
        }

        #[test]
        fn fields_come_out_as_they_went_in(
            fields in proptest::collection::vec(("[a-z_-]{1,12}", "[!-~]([ -~]{0,20}[!-~])?"), 0..8),
        ) {
            let own = ["content-length", "transfer-encoding", "connection"];
            let fields: Vec<_> = fields.into_iter().filter(|(name, _)| !own.contains(&name.as_str())).collect();
            let text: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let head = read(&format!("GET / HTTP/1.1\r\n{text}\r\n")).unwrap();
            for (name, value) in &fields {
                assert!(head.headers.get_all(name.as_str()).iter().any(|got| got == value.as_str()));
            }
            assert_eq!(head.headers.len(), fields.len());
        }
    }
}
