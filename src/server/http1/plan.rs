//! The head of an answer over HTTP/1: how its body is framed, and whether the connection goes on.

use http::response::Parts;
use http::{HeaderMap, StatusCode, Version, header};
use http_body::SizeHint;

use crate::gateway::Passed;
use crate::model::clock;

/// Memory asked for the head of an answer at once.
const HEAD_BYTES_USUAL: usize = 512;

/// What of a request decides how its answer is framed.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) head: bool,
    pub(super) version: Version,
}

/// How the end of an answer is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// There is no body, or it is not wanted.
    None,
    Length(u64),
    Chunked,
    /// The connection ends with it.
    Close,
}

pub(super) struct Plan {
    status: StatusCode,
    pub(super) ending: Ending,
    /// The length that is stated; also where no body follows.
    length: Option<u64>,
    pub(super) persists: bool,
    /// Whether the caller speaks HTTP/1.0: then it is answered so, with a field if the connection persists.
    old: bool,
}

impl Plan {
    pub(super) fn new(
        head: &Parts,
        stated: Option<u64>,
        size: &SizeHint,
        asked: Asked,
        reusable: bool,
    ) -> Self {
        let status = head.status;
        let bodiless = matches!(status.as_u16(), 100..=199 | 204 | 304);
        let (ending, length) = match size.exact() {
            // RFC 9110 section 8.6: what it would have been, if it is known.
            _ if status == StatusCode::NOT_MODIFIED => (Ending::None, stated),
            _ if bodiless => (Ending::None, None),
            exact if asked.head => (Ending::None, stated.or(exact.filter(|bytes| *bytes > 0))),
            Some(bytes) => (Ending::Length(bytes), Some(bytes)),
            None if asked.version == Version::HTTP_11 => (Ending::Chunked, None),
            None => (Ending::Close, None),
        };
        let closes = head
            .headers
            .get(header::CONNECTION)
            .is_some_and(|options| options == "close");
        Self {
            status,
            ending,
            length,
            persists: reusable && !closes && ending != Ending::Close,
            old: asked.version == Version::HTTP_10,
        }
    }

    /// Names and values were checked when they were read, so nothing in them can end a line.
    pub(super) fn write(&self, headers: &HeaderMap, passed: Option<&Passed>, to: &mut Vec<u8>) {
        use std::io::Write as _;
        to.reserve(HEAD_BYTES_USUAL);
        to.extend_from_slice(if self.old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
        to.extend_from_slice(self.status.as_str().as_bytes());
        to.push(b' ');
        to.extend_from_slice(self.status.canonical_reason().unwrap_or_default().as_bytes());
        to.extend_from_slice(b"\r\n");
        let mut dated = false;
        let mut field = |name: &[u8], value: &[u8]| {
            let framing = match name.len() {
                10 => name.eq_ignore_ascii_case(b"connection"),
                14 => name.eq_ignore_ascii_case(b"content-length"),
                17 => name.eq_ignore_ascii_case(b"transfer-encoding"),
                _ => false,
            };
            if framing {
                return;
            }
            dated |= name.eq_ignore_ascii_case(b"date");
            let start = to.len();
            to.extend_from_slice(name);
            if let Some(name) = to.get_mut(start..) {
                name.make_ascii_lowercase();
            }
            to.extend_from_slice(b": ");
            to.extend_from_slice(value);
            to.extend_from_slice(b"\r\n");
        };
        for (name, value) in headers {
            field(name.as_str().as_bytes(), value.as_bytes());
        }
        if let Some(passed) = passed {
            passed.each(&mut field);
        }
        if !dated {
            to.extend_from_slice(b"date: ");
            clock::date(to);
            to.extend_from_slice(b"\r\n");
        }
        if let Some(length) = self.length {
            // Writing into memory does not fail.
            let _ = write!(to, "content-length: {length}\r\n");
        }
        if self.ending == Ending::Chunked {
            to.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        if !self.persists {
            to.extend_from_slice(b"connection: close\r\n");
        } else if self.old {
            to.extend_from_slice(b"connection: keep-alive\r\n");
        }
        to.extend_from_slice(b"\r\n");
    }
}

/// The length that an answer states of itself, also where no body follows.
pub(super) fn stated_length(headers: &HeaderMap, passed: Option<&Passed>) -> Option<u64> {
    let text = match passed {
        Some(passed) => passed.fields.text("content-length"),
        None => headers.get(header::CONTENT_LENGTH)?.to_str().ok(),
    };
    text?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::{Response, StatusCode, Version};
    use http_body::SizeHint;

    use super::{Asked, Ending, Plan, stated_length};

    const GET: Asked = Asked {
        head: false,
        version: Version::HTTP_11,
    };
    const HEAD: Asked = Asked { head: true, ..GET };
    const OLD: Asked = Asked {
        version: Version::HTTP_10,
        ..GET
    };

    fn plan(status: u16, stated: Option<u64>, size: Option<u64>, asked: Asked) -> Plan {
        let (mut head, ()) = Response::new(()).into_parts();
        head.status = StatusCode::from_u16(status).unwrap();
        let size = size.map_or_else(SizeHint::default, SizeHint::with_exact);
        Plan::new(&head, stated, &size, asked, true)
    }

    #[test]
    fn an_answer_is_framed_by_its_status_its_size_and_what_was_asked() {
        for (status, stated, size, asked, ending, length) in [
            (200, None, Some(5), GET, Ending::Length(5), Some(5)),
            (200, None, Some(0), GET, Ending::Length(0), Some(0)),
            (200, None, None, GET, Ending::Chunked, None),
            (200, None, None, OLD, Ending::Close, None),
            (200, None, Some(5), HEAD, Ending::None, Some(5)),
            (200, Some(7), Some(0), HEAD, Ending::None, Some(7)),
            (200, None, Some(0), HEAD, Ending::None, None),
            (204, Some(7), Some(5), GET, Ending::None, None),
            (304, Some(7), Some(0), GET, Ending::None, Some(7)),
            (304, None, Some(0), GET, Ending::None, None),
        ] {
            let plan = plan(status, stated, size, asked);
            let what = format!("{status} {stated:?} {size:?}");
            assert_eq!((plan.ending, plan.length), (ending, length), "{what}");
            assert_eq!(plan.persists, ending != Ending::Close, "{what}");
        }
    }

    #[test]
    fn a_connection_persists_only_where_nothing_ends_it() {
        let (mut head, ()) = Response::new(()).into_parts();
        let size = SizeHint::with_exact(1);
        assert!(Plan::new(&head, None, &size, GET, true).persists);
        assert!(!Plan::new(&head, None, &size, GET, false).persists);
        head.headers.insert("connection", "close".parse().unwrap());
        assert!(!Plan::new(&head, None, &size, GET, true).persists);
    }

    /// The lines of a head, without its date.
    fn lines(plan: &Plan, fields: &[(&'static str, &str)]) -> Vec<String> {
        let mut headers = http::HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, value.parse().unwrap());
        }
        let mut to = Vec::new();
        plan.write(&headers, None, &mut to);
        let text = String::from_utf8(to).unwrap();
        let text = text.strip_suffix("\r\n\r\n").unwrap();
        let lines = text.split("\r\n").map(str::to_owned);
        lines.filter(|line| !line.starts_with("date: ")).collect()
    }

    #[test]
    fn a_head_states_its_framing_and_nobody_elses() {
        let foreign = [
            ("content-length", "9"),
            ("transfer-encoding", "gzip"),
            ("connection", "x"),
            ("x-a", "b"),
        ];
        for (plan, expected) in [
            (
                plan(200, None, Some(5), GET),
                &["HTTP/1.1 200 OK", "x-a: b", "content-length: 5"][..],
            ),
            (
                plan(200, None, None, GET),
                &["HTTP/1.1 200 OK", "x-a: b", "transfer-encoding: chunked"],
            ),
            (
                plan(204, None, Some(0), GET),
                &["HTTP/1.1 204 No Content", "x-a: b"],
            ),
            (
                plan(200, None, None, OLD),
                &["HTTP/1.0 200 OK", "x-a: b", "connection: close"],
            ),
            (
                plan(200, None, Some(1), OLD),
                &[
                    "HTTP/1.0 200 OK",
                    "x-a: b",
                    "content-length: 1",
                    "connection: keep-alive",
                ],
            ),
        ] {
            assert_eq!(lines(&plan, &foreign), expected);
        }
    }

    #[test]
    fn an_answer_has_one_date() {
        let mut to = Vec::new();
        let headers = [("date".parse().unwrap(), "then".parse().unwrap())]
            .into_iter()
            .collect();
        plan(200, None, Some(0), GET).write(&headers, None, &mut to);
        let text = String::from_utf8(to).unwrap();
        assert_eq!(text.matches("date: ").count(), 1);
        assert!(text.contains("date: then\r\n"), "{text}");
    }

    #[test]
    fn a_stated_length_is_a_number() {
        for (text, length) in [("7", Some(7)), ("x", None), ("", None)] {
            let headers = [(http::header::CONTENT_LENGTH, text.parse().unwrap())];
            assert_eq!(
                stated_length(&headers.into_iter().collect(), None),
                length,
                "{text}"
            );
        }
    }
}
