//! The one reader of the body of a failed answer, given by a token endpoint, a platform, a key vault or a trigger.
//! Which member means what is said by the table of each. Nothing in a body is trusted: it is read up to a bound, and a
//! member that is no text is as good as absent.

use serde_json::Value;

/// A refusal has about one kilobyte; more is not one.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Codes in use are shorter than 50 characters; ids of runs, requests and traces have up to 36.
pub(crate) const WORD_CHARS_MAX: usize = 64;

pub(crate) struct FailedBody(Value);

impl FailedBody {
    /// Reads a body; one that is no JSON has no members. serde_json ends a document that nests too deep.
    pub(crate) fn read(body: &[u8]) -> Self {
        // Some .NET writers put a byte order mark before JSON, which RFC 8259 lets a reader ignore.
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        match body.len() > BODY_BYTES_MAX {
            true => Self(Value::Null),
            false => Self(serde_json::from_slice(body).unwrap_or_default()),
        }
    }

    /// The text at this place (a JSON pointer, RFC 6901); empty where there is none.
    pub(crate) fn text(&self, place: &str) -> &str {
        self.0.pointer(place).and_then(Value::as_str).unwrap_or_default()
    }

    /// The same where it can be a code or an id, and is safe to print.
    pub(crate) fn word(&self, place: &str) -> Option<String> {
        Some(self.text(place))
            .filter(|text| is_word(text))
            .map(str::to_owned)
    }

    pub(crate) fn list(&self, place: &str) -> &[Value] {
        let list = self.0.pointer(place).and_then(Value::as_array);
        list.map_or(&[], Vec::as_slice)
    }
}

pub(crate) fn is_word(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=WORD_CHARS_MAX).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::{BODY_BYTES_MAX, FailedBody};

    #[test]
    fn members_are_texts_or_absent() {
        let body =
            FailedBody::read(b"\xef\xbb\xbf{\"error\":{\"code\":\"A-b_1.c\",\"message\":7},\"codes\":[1]}");
        assert_eq!(body.word("/error/code").as_deref(), Some("A-b_1.c"));
        assert_eq!((body.text("/error/message"), body.text("/error")), ("", ""));
        assert_eq!((body.list("/codes").len(), body.list("/error").len()), (1, 0));
        for unsafe_code in ["", "a b", "a\u{1b}[0m", &"a".repeat(65)] {
            let body = serde_json::json!({"error": unsafe_code}).to_string();
            assert_eq!(
                FailedBody::read(body.as_bytes()).word("/error"),
                None,
                "{unsafe_code}"
            );
        }
    }

    #[test]
    fn a_body_that_is_too_large_or_no_json_has_no_members() {
        let large = format!("{{\"error\":\"a\"{}}}", " ".repeat(BODY_BYTES_MAX));
        for body in [large.as_bytes(), b"", b"<html>", &b"[".repeat(60_000)] {
            assert_eq!(FailedBody::read(body).word("/error"), None);
        }
    }
}
