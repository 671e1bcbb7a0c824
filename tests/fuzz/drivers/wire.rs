//! Heads and bodies of HTTP/1: the result is the same in pieces as at once, and the same as that of another
//! parser of the RFC.

use bytes::{Bytes, BytesMut};
use flowgate::wire;
use flowgate::wire::{Decoder, Framing, Limits, Piece, Scan};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};

use super::arrivals;

const LIMITS: Limits = Limits {
    bytes_max: 2048,
    fields_max: 20,
};

/// The result for a head.
#[derive(Debug, PartialEq)]
enum Verdict<H> {
    Open,
    Refused,
    Read { head: H, end: usize },
}

fn arrive<H>(pieces: &[&[u8]], read: impl Fn(&Bytes, usize) -> Option<H>) -> Verdict<H> {
    let mut scan = Scan::default();
    let mut held = Vec::new();
    for piece in pieces {
        held.extend_from_slice(piece);
        let found = match scan.look(&held, LIMITS) {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            Err(_) => return Verdict::Refused,
        };
        assert!(found.fields <= LIMITS.fields_max, "{found:?}");
        let head = Bytes::copy_from_slice(&held[..found.end]);
        return match read(&head, found.fields) {
            Some(head) => Verdict::Read { head, end: found.end },
            None => Verdict::Refused,
        };
    }
    Verdict::Open
}

/// The verdict on a head, which does not depend on how it arrives.
fn judge<H: PartialEq + std::fmt::Debug>(
    data: &[u8],
    read: impl Fn(&Bytes, usize) -> Option<H>,
) -> Option<(H, usize)> {
    let whole = arrive(&[data], &read);
    for pieces in arrivals(data) {
        let split = arrive(&pieces, &read);
        if whole == Verdict::Open && split == Verdict::Refused {
            // A bare carriage return is noticed at the end of a piece, or else when the head is parsed.
            let ended = [data, b"\r\n\r\n"].concat();
            assert_eq!(arrive(&[&ended], &read), Verdict::Refused, "{pieces:?}");
        } else {
            assert_eq!(split, whole, "{pieces:?}");
        }
    }
    match whole {
        Verdict::Read { head, end } => Some((head, end)),
        Verdict::Open | Verdict::Refused => None,
    }
}

#[derive(Debug, PartialEq)]
struct Request {
    method: Method,
    target: Uri,
    version: Version,
    headers: HeaderMap,
    framing: Framing,
    persists: bool,
}

fn read_request(head: &Bytes, fields: usize) -> Option<Request> {
    let head = wire::request(head, fields).ok()?;
    Some(Request {
        method: head.method,
        target: head.target,
        version: head.version,
        headers: head.headers,
        framing: head.framing,
        persists: head.persists,
    })
}

/// A request head is parsed in one way, whatever pieces it arrives in, and httparse agrees.
pub(crate) fn request_head(data: &[u8]) {
    let Some((head, end)) = judge(data, read_request) else {
        return;
    };
    let mut space = [httparse::EMPTY_HEADER; LIMITS.fields_max];
    let mut other = httparse::Request::new(&mut space);
    assert_eq!(other.parse(data), Ok(httparse::Status::Complete(end)));
    assert_eq!(other.method, Some(head.method.as_str()));
    assert_eq!(other.path.unwrap().parse::<Uri>().unwrap(), head.target);
    assert_eq!(other.version, Some(u8::from(head.version == Version::HTTP_11)));
    assert_eq!(map(other.headers), head.headers);
    assert!(!matches!(head.method, Method::CONNECT | Method::TRACE));
    let declared = declared(&head.headers);
    let framing = match declared {
        Declared::Nothing | Declared::Length(0) => Framing::None,
        Declared::Length(length) => Framing::Length(length),
        Declared::Chunked => Framing::Chunked,
    };
    assert_eq!(head.framing, framing);
    assert!(declared != Declared::Chunked || head.version == Version::HTTP_11);
    assert!(!head.persists || !names_close(&head.headers));
}

#[derive(Debug, PartialEq)]
struct Response {
    status: StatusCode,
    headers: HeaderMap,
    framing: Framing,
    persists: bool,
}

/// The head of an answer is parsed in one way, whatever pieces it arrives in, and httparse agrees.
pub(crate) fn response_head(data: &[u8]) {
    for method in [Method::POST, Method::HEAD] {
        let read = |head: &Bytes, fields: usize| {
            let head = wire::response(head, fields, &method).ok()?;
            let mut headers = HeaderMap::new();
            head.fields.append_to(&mut headers);
            Some(Response {
                status: head.status,
                headers,
                framing: head.framing,
                persists: head.persists,
            })
        };
        let Some((head, end)) = judge(data, read) else {
            continue;
        };
        let mut space = [httparse::EMPTY_HEADER; LIMITS.fields_max];
        let mut other = httparse::Response::new(&mut space);
        assert_eq!(other.parse(data), Ok(httparse::Status::Complete(end)));
        assert_eq!(other.code, Some(head.status.as_u16()));
        assert_eq!(map(other.headers), head.headers);
        let bodiless = method == Method::HEAD || matches!(head.status.as_u16(), 100..=199 | 204 | 304);
        let framing = match declared(&head.headers) {
            _ if bodiless => Framing::None,
            Declared::Nothing => Framing::UntilClose,
            Declared::Length(length) => Framing::Length(length),
            Declared::Chunked => Framing::Chunked,
        };
        assert_eq!(head.framing, framing);
        assert!(!head.persists || (framing != Framing::UntilClose && !names_close(&head.headers)));
    }
}

fn map(fields: &[httparse::Header<'_>]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_bytes(field.value).unwrap());
    }
    map
}

#[derive(Debug, PartialEq)]
enum Declared {
    Nothing,
    Length(u64),
    Chunked,
}

/// What the fields of an accepted head say about its body: one thing, once.
fn declared(headers: &HeaderMap) -> Declared {
    let all = |name| headers.get_all(name).iter().collect::<Vec<_>>();
    match (
        all(header::CONTENT_LENGTH).as_slice(),
        all(header::TRANSFER_ENCODING).as_slice(),
    ) {
        ([], []) => Declared::Nothing,
        ([], [coding]) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Declared::Chunked,
        ([length], []) => {
            let text = length.to_str().unwrap();
            let number: u64 = text.parse().unwrap();
            assert_eq!(number.to_string(), text, "a length has one spelling");
            Declared::Length(number)
        }
        other => panic!("a head was accepted with the framing {other:?}"),
    }
}

fn names_close(headers: &HeaderMap) -> bool {
    let mut fields = headers.get_all(header::CONNECTION).iter();
    fields.any(|value| {
        let mut options = value.as_bytes().split(|byte| *byte == b',');
        options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
    })
}

/// How decoding a body ended.
#[derive(Debug, PartialEq)]
enum End {
    Open,
    Over { left: Vec<u8> },
    Wrong,
}

fn decode(framing: Framing, pieces: &[&[u8]]) -> (Vec<u8>, End) {
    let mut decoder = Decoder::new(framing);
    let mut held = BytesMut::new();
    let mut body = Vec::new();
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            match decoder.next(&mut held) {
                Ok(Piece::Data(data)) => {
                    assert!(!data.is_empty(), "an empty piece would be sent on as an end");
                    body.extend_from_slice(&data);
                }
                Ok(Piece::More | Piece::End) => break,
                Err(_) => return (body, End::Wrong),
            }
        }
    }
    if decoder.is_done() {
        assert_eq!(decoder.ended(), Ok(()));
        return (body, End::Over { left: held.to_vec() });
    }
    assert!(decoder.ended().is_err(), "a cut body would look whole");
    (body, End::Open)
}

/// A chunked body is decoded the same, whatever pieces it arrives in, and as a simple decoder does; any body
/// that is encoded as chunks is decoded again.
pub(crate) fn chunks(data: &[u8]) {
    let (body, end) = decode(Framing::Chunked, &[data]);
    for pieces in arrivals(data) {
        let (split, split_end) = decode(Framing::Chunked, &pieces);
        assert_eq!(split_end, end, "{pieces:?}");
        if end == End::Wrong {
            // Data in the same piece as the error may have been dropped with it: the body is cut either way.
            assert!(split.starts_with(&body) || body.starts_with(&split), "{pieces:?}");
        } else {
            assert_eq!(split, body, "{pieces:?}");
        }
    }
    if let End::Over { left } = &end {
        assert_eq!(plainly(data), Some((body, data.len() - left.len())));
    }
    wrap(data);
    let length = data.len() / 2;
    let (inside, after) = data.split_at(length);
    for pieces in arrivals(data) {
        let (body, end) = decode(Framing::Length(length as u64), &pieces);
        assert_eq!(body, inside);
        assert_eq!(end, End::Over { left: after.to_vec() });
    }
}

fn wrap(data: &[u8]) {
    let mut sent = Vec::new();
    for (index, piece) in arrivals(data)[1].iter().enumerate() {
        let extension = if index % 3 == 1 { ";a=\"b\"" } else { "" };
        sent.extend_from_slice(format!("{:x}{extension}\r\n", piece.len()).as_bytes());
        sent.extend_from_slice(piece);
        sent.extend_from_slice(b"\r\n");
    }
    sent.extend_from_slice(b"0\r\nX-Sum: 1\r\n\r\nGET");
    let left = b"GET".to_vec();
    let over = (data.to_vec(), End::Over { left });
    // Extensions are limited for a whole body, far above what 4 KiB of input can have.
    assert_eq!(decode(Framing::Chunked, &[&sent]), over);
    for pieces in arrivals(&sent) {
        assert_eq!(decode(Framing::Chunked, &pieces), over);
    }
}

/// The body and the length of its encoding, decoded without states and without limits.
fn plainly(data: &[u8]) -> Option<(Vec<u8>, usize)> {
    let line = |at: usize| {
        let rest = data.get(at..)?;
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        Some((&rest[..end], at + end + 2))
    };
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let (size, next) = line(at)?;
        let digits = size.split(|byte| *byte == b';').next()?;
        let digits = std::str::from_utf8(digits).ok()?;
        let size = usize::from_str_radix(digits, 16).ok()?;
        at = next;
        if size == 0 {
            break;
        }
        body.extend_from_slice(data.get(at..at + size)?);
        at += size;
        if data.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
    }
    loop {
        let (trailer, next) = line(at)?;
        at = next;
        if trailer.is_empty() {
            return Some((body, at));
        }
    }
}
