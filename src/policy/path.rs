//! Which request paths are let in at all: those that every router, proxy and flow on the way reads as the
//! same path. A path that decoding, merging of slashes or removal of dot segments would turn into another one
//! is refused here; which route a path leads to is decided in `route.rs`, which calls this module first.

use std::borrow::Cow;

use crate::problem::{Kind, Problem};

/// Why a path could be read as another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    #[error("the path does not start with a slash")]
    NotAbsolute,
    /// A segment between two slashes is empty, or nothing but parameters after `;`.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// A segment is `.` or `..`, however it is spelled.
    #[error("the path has a dot segment")]
    DotSegment,
    /// A backslash, which some servers take for a slash.
    #[error("the path has a backslash")]
    Backslash,
    /// `%2f`: a slash for some, a letter for others.
    #[error("the path has an encoded slash")]
    EncodedSlash,
    /// A control character, plain or encoded.
    #[error("the path has a control character")]
    Control,
    /// A character that must be percent-encoded in a path (RFC 3986 section 3.3).
    #[error("the path has a character that must be percent-encoded")]
    Unencoded,
    #[error("the path has a broken percent-encoding")]
    BrokenEncoding,
    /// What is decoded once can be decoded again.
    #[error("the path is percent-encoded twice")]
    EncodedTwice,
    /// The encoded bytes are not UTF-8; this includes overlong spellings of ASCII.
    #[error("the path is not UTF-8 when decoded")]
    NotUtf8,
    /// As written it leads to one route, decoded to another.
    #[error("the path leads elsewhere when it is decoded")]
    Disguised,
}

impl From<PathFault> for Problem {
    fn from(fault: PathFault) -> Self {
        let text = match fault {
            PathFault::NotAbsolute => "The path must start with a slash.",
            PathFault::EmptySegment => "The path must not contain empty segments.",
            PathFault::DotSegment => "The path must not contain '.' or '..' segments.",
            PathFault::Backslash => "The path must not contain backslashes.",
            PathFault::EncodedSlash => "The path must not contain encoded slashes.",
            PathFault::Control => "The path must not contain control characters.",
            PathFault::Unencoded => {
                "Characters like spaces and letters beyond ASCII must be percent-encoded."
            }
            PathFault::BrokenEncoding => {
                "A percent sign in the path must be followed by two hexadecimal digits."
            }
            PathFault::EncodedTwice => "The path must not be percent-encoded twice.",
            PathFault::NotUtf8 => "The path must be UTF-8 when decoded.",
            PathFault::Disguised => {
                "Letters, digits and marks that need no percent-encoding must be written plainly."
            }
        };
        Problem::from(Kind::MalformedRequest)
            .detail(text)
            .because(fault.to_string())
    }
}

/// Lets a raw path through that can be read in one way only.
pub fn check(raw: &str) -> Result<&str, PathFault> {
    decode(raw).map(|_| raw)
}

/// Checks a raw path and decodes it once; a path without percent signs comes back as it is, without a copy.
pub(super) fn decode(raw: &str) -> Result<Cow<'_, str>, PathFault> {
    let mut encoded = false;
    for byte in raw.bytes() {
        match byte {
            b'%' => encoded = true,
            b'\\' => return Err(PathFault::Backslash),
            b' ' | b'#' | b'?' | 0x80.. => return Err(PathFault::Unencoded),
            ..0x20 | 0x7f => return Err(PathFault::Control),
            _ => {}
        }
    }
    let decoded = if encoded {
        Cow::Owned(decode_once(raw)?)
    } else {
        Cow::Borrowed(raw)
    };
    check_segments(&decoded)?;
    Ok(decoded)
}

fn decode_once(raw: &str) -> Result<String, PathFault> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let (Some(high), Some(low)) = (bytes.next().and_then(digit), bytes.next().and_then(digit)) else {
            return Err(PathFault::BrokenEncoding);
        };
        match high << 4 | low {
            b'/' => return Err(PathFault::EncodedSlash),
            b'\\' => return Err(PathFault::Backslash),
            ..0x20 | 0x7f => return Err(PathFault::Control),
            plain => decoded.push(plain),
        }
    }
    // Looked for after decoding: in `%25%32%66` the second layer is itself encoded.
    let hex = |byte: &u8| byte.is_ascii_hexdigit();
    if decoded
        .windows(3)
        .any(|window| matches!(window, [b'%', high, low] if hex(high) && hex(low)))
    {
        return Err(PathFault::EncodedTwice);
    }
    String::from_utf8(decoded).map_err(|_| PathFault::NotUtf8)
}

fn digit(byte: u8) -> Option<u8> {
    u8::try_from(char::from(byte).to_digit(16)?).ok()
}

fn check_segments(decoded: &str) -> Result<(), PathFault> {
    let Some(relative) = decoded.strip_prefix('/') else {
        return Err(PathFault::NotAbsolute);
    };
    let mut segments = relative.split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        // Servlet containers cut `;parameters` off before they look at the name: to them `..;x` is `..`.
        let name = segment.split_once(';').map_or(segment, |(name, _)| name);
        match name {
            "." | ".." => return Err(PathFault::DotSegment),
            "" if !(last && segment.is_empty()) => return Err(PathFault::EmptySegment),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::any;
    use proptest::proptest;

    use super::{PathFault, check, decode};
    use crate::problem::{Kind, Problem};

    #[test]
    fn plain_paths_pass_untouched() {
        for path in [
            "/",
            "/orders",
            "/orders/",
            "/orders/42/lines",
            "/a.b/c..d/...",
            "/a;v=1/b",
            "/~user/_x-y",
            "/50%25",
            "/50%25/zz",
            "/50%25az",
            "/50%25za",
            "/caf%C3%A9/a%20b",
            "/a:b@c!$&'()*+,=",
            "/{raw}|^`\"<>[]",
        ] {
            assert_eq!(check(path), Ok(path), "{path}");
        }
    }

    #[test]
    fn every_second_reading_is_refused() {
        for (path, fault) in [
            ("", PathFault::NotAbsolute),
            ("*", PathFault::NotAbsolute),
            ("orders", PathFault::NotAbsolute),
            ("%2forders", PathFault::EncodedSlash),
            ("//", PathFault::EmptySegment),
            ("//orders", PathFault::EmptySegment),
            ("/orders//", PathFault::EmptySegment),
            ("/a//b", PathFault::EmptySegment),
            ("/;x/orders", PathFault::EmptySegment),
            ("/a/;x", PathFault::EmptySegment),
            ("/a/%3bx/b", PathFault::EmptySegment),
            ("/.", PathFault::DotSegment),
            ("/a/..", PathFault::DotSegment),
            ("/a/./b", PathFault::DotSegment),
            ("/a/%2e%2E/b", PathFault::DotSegment),
            ("/a/.%2e/b", PathFault::DotSegment),
            ("/a/%2e", PathFault::DotSegment),
            ("/a/..;/b", PathFault::DotSegment),
            ("/a/..;x=1/b", PathFault::DotSegment),
            ("/a/..;x;y/b", PathFault::DotSegment),
            ("/a/..%3bx/b", PathFault::DotSegment),
            ("/a/%2e;x", PathFault::DotSegment),
            ("/a\\b", PathFault::Backslash),
            ("/a%5cb", PathFault::Backslash),
            ("/a%5Cb", PathFault::Backslash),
            ("/a%2fb", PathFault::EncodedSlash),
            ("/a%2Fb", PathFault::EncodedSlash),
            ("/a\0b", PathFault::Control),
            ("/a\tb", PathFault::Control),
            ("/a\x7fb", PathFault::Control),
            ("/a%00b", PathFault::Control),
            ("/a%1fb", PathFault::Control),
            ("/a%0d%0ab", PathFault::Control),
            ("/a%7fb", PathFault::Control),
            ("/a b", PathFault::Unencoded),
            ("/a#b", PathFault::Unencoded),
            ("/a?b", PathFault::Unencoded),
            ("/ä", PathFault::Unencoded),
            ("/a%", PathFault::BrokenEncoding),
            ("/a%4", PathFault::BrokenEncoding),
            ("/a%zz", PathFault::BrokenEncoding),
            ("/a%4g", PathFault::BrokenEncoding),
            ("/a%g4", PathFault::BrokenEncoding),
            ("/a%+1", PathFault::BrokenEncoding),
            ("/a%u002f", PathFault::BrokenEncoding),
            ("/a%252eb", PathFault::EncodedTwice),
            ("/a%252Fb", PathFault::EncodedTwice),
            ("/a%25252fb", PathFault::EncodedTwice),
            ("/a%25%32%66b", PathFault::EncodedTwice),
            ("/a%252%66b", PathFault::EncodedTwice),
            ("/a%c0%afb", PathFault::NotUtf8),
            ("/a%c0%ae", PathFault::NotUtf8),
            ("/a%fcb", PathFault::NotUtf8),
            ("/a%e0%80%afb", PathFault::NotUtf8),
        ] {
            assert_eq!(check(path), Err(fault), "{path:?}");
        }
    }

    #[test]
    fn a_fault_is_a_malformed_request_that_says_what_is_wrong() {
        let problem = Problem::from(PathFault::EncodedSlash);
        assert_eq!(problem.kind(), Kind::MalformedRequest);
        assert_eq!(problem.cause(), Some("the path has an encoded slash"));
        assert_eq!(
            problem.explanation(),
            Some("The path must not contain encoded slashes.")
        );
    }

    #[test]
    fn a_path_without_percent_signs_is_not_copied() {
        assert!(matches!(decode("/orders/42"), Ok(Cow::Borrowed("/orders/42"))));
    }

    proptest! {
        #[test]
        fn no_path_breaks_the_check(path in any::<String>()) {
            let _ = check(&path);
        }

        #[test]
        fn an_accepted_path_decodes_to_a_path_that_means_itself(
            path in "/([a-c./;\\\\]|%2[0-9a-fA-F]|%5[0-9c]|%[36]1|%25){0,8}"
        ) {
            if let Ok(decoded) = decode(&path) {
                assert_eq!(path.matches('/').count(), decoded.matches('/').count(), "{path}");
                assert!(!decoded.contains(['\\', '\0']) && !decoded.contains("//"), "{path}");
                assert!(!decoded.split('/').any(|segment| matches!(segment, "." | "..")), "{path}");
                let again = percent_encoding::percent_decode_str(&decoded).decode_utf8_lossy();
                assert_eq!(again, decoded, "{path}");
            }
        }
    }
}
