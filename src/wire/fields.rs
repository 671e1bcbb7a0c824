//! The header fields of an answer on its way from a trigger to a caller: the text, checked once, and the
//! positions of names and values in it. Most answers are only passed through, for which building a map would
//! be wasted work.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memchr;

/// The fields as received, without those that were removed.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    text: Bytes,
    spans: Vec<FieldSpan>,
}

#[derive(Debug, Clone, Copy)]
struct FieldSpan {
    name: (u32, u32),
    value: (u32, u32),
}

pub(super) const NO_COLON: &str = "a line of the head has no colon";
pub(super) const SPACE_BEFORE_COLON: &str = "a header field has a space before its colon";
pub(super) const NO_NAME: &str = "the name of a header field is empty or has characters that no name has";
pub(super) const CONTROL: &str = "the head contains a control character";

/// Splits a line without its line end into name and value.
pub(super) fn split(line: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let colon = memchr(b':', line).ok_or(NO_COLON)?;
    let (name, value) = line.split_at(colon);
    if let Some(b' ' | b'\t') = name.last() {
        return Err(SPACE_BEFORE_COLON);
    }
    Ok((name, trim(value.get(1..).unwrap_or_default())))
}

/// Removes white space around a value: spaces and tabs, and nothing else (RFC 9110 section 5.6.3).
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Whether a text has a character that no value may contain. It has no early exit, so that it can be
/// vectorized.
pub(super) fn has_control(text: &[u8]) -> bool {
    text.iter().fold(false, |found, byte| {
        found | ((*byte < 0x20) & (*byte != b'\t')) | (*byte == 0x7f)
    })
}

/// RFC 9110 section 5.6.2. As one match it is a look-up for each byte, and names are half of a head.
pub(super) fn is_token_byte(byte: u8) -> bool {
    matches!(byte,
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.'
        | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// A head is far smaller than four gigabytes.
fn span(start: usize, end: usize) -> (u32, u32) {
    let place = |index| u32::try_from(index).unwrap_or(u32::MAX);
    (place(start), place(end))
}

impl Fields {
    /// An empty list for the fields of this head, with capacity for `count`.
    pub(super) fn of(text: &Bytes, count: usize) -> Self {
        Self {
            text: text.clone(),
            spans: Vec::with_capacity(count),
        }
    }

    /// Adds a field that is part of the head; fails if the name or the value has invalid characters.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if name.is_empty() || !name.iter().copied().all(is_token_byte) {
            return Err(NO_NAME);
        }
        if has_control(value) {
            return Err(CONTROL);
        }
        self.spans.push(FieldSpan {
            name: self.place(name),
            value: self.place(value),
        });
        Ok(())
    }

    /// One field of our own.
    pub fn one(name: &HeaderName, value: &HeaderValue) -> Self {
        let mut fields = Self::default();
        fields.set(name, value);
        fields
    }

    /// Sets a field of our own, in place of all others of its name.
    pub fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        let others = self
            .iter()
            .filter(|(other, _)| !other.eq_ignore_ascii_case(name.as_str().as_bytes()));
        let own = (name.as_str().as_bytes(), value.as_bytes());
        let mut text = Vec::new();
        let mut add = |part: &[u8]| {
            let start = text.len();
            text.extend_from_slice(part);
            span(start, text.len())
        };
        let spans = others.chain([own]).map(|(name, value)| FieldSpan {
            name: add(name),
            value: add(value),
        });
        let spans = spans.collect();
        *self = Self {
            text: text.into(),
            spans,
        };
    }

    fn place(&self, part: &[u8]) -> (u32, u32) {
        let start = (part.as_ptr().addr()).saturating_sub(self.text.as_ptr().addr());
        span(start, start + part.len())
    }

    fn part(&self, (start, end): (u32, u32)) -> &[u8] {
        self.text.get(start as usize..end as usize).unwrap_or_default()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.spans
            .iter()
            .map(|place| (self.part(place.name), self.part(place.value)))
    }

    pub fn get_all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.iter()
            .filter(move |(other, _)| other.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// The first value of a field, if it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        let value = self.get_all(name).next()?;
        value
            .is_ascii()
            .then(|| std::str::from_utf8(value).ok())
            .flatten()
    }

    pub fn retain(&mut self, mut passes: impl FnMut(&[u8], &[u8]) -> bool) {
        let mut spans = std::mem::take(&mut self.spans);
        spans.retain(|place| passes(self.part(place.name), self.part(place.value)));
        self.spans = spans;
    }

    /// Copies the fields into a map. HTTP/2 keeps values for as long as a connection lives; shared memory
    /// would keep everything alive that was read together with the head.
    pub fn append_to(&self, map: &mut HeaderMap) {
        let bytes = self.spans.iter().map(|place| self.part(place.value).len());
        let mut values = BytesMut::with_capacity(bytes.sum());
        for place in &self.spans {
            values.extend_from_slice(self.part(place.value));
        }
        let mut values = values.freeze();
        for place in &self.spans {
            let value = values.split_to(self.part(place.value).len());
            // Both were checked when they were read.
            if let (Ok(name), Ok(value)) = (
                HeaderName::from_bytes(self.part(place.name)),
                HeaderValue::from_maybe_shared(value),
            ) {
                map.append(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, header};

    use super::{Fields, split};

    fn fields(lines: &'static [&'static str]) -> (Bytes, Vec<Result<(), &'static str>>, Fields) {
        let text = Bytes::from(lines.join("\r\n"));
        let mut fields = Fields::of(&text, lines.len());
        let mut results = Vec::new();
        for line in text.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            results.push(split(line).and_then(|(name, value)| fields.add(name, value)));
        }
        (text.clone(), results, fields)
    }

    #[test]
    fn fields_are_found_whatever_their_case() {
        let (text, results, mut fields) = fields(&["Content-Type:  a/b ", "x-one: 1", "X-ONE: 2"]);
        assert_eq!(results, [Ok(()), Ok(()), Ok(())]);
        assert_eq!(fields.text("content-type"), Some("a/b"));
        assert_eq!(fields.get_all("x-one").collect::<Vec<_>>(), [b"1", b"2"]);
        fields.retain(|name, _| !name.eq_ignore_ascii_case(b"x-one"));
        let mut map = HeaderMap::new();
        fields.append_to(&mut map);
        assert_eq!(map.len(), 1);
        assert_eq!(map["content-type"], "a/b");
        let value = map["content-type"].as_bytes().as_ptr();
        assert!(
            !text.as_ptr_range().contains(&value),
            "the head stays with its value"
        );
    }

    #[test]
    fn a_field_of_our_own_is_like_a_received_one() {
        let fields = Fields::one(&header::CONTENT_TYPE, &HeaderValue::from_static("a/b"));
        assert_eq!(fields.text("content-type"), Some("a/b"));
        assert_eq!(fields.iter().count(), 1);
    }

    #[test]
    fn a_field_of_our_own_takes_the_place_of_received_ones() {
        let (_text, _, mut fields) = fields(&["x-one: 1", "Location: a", "location: b", "x-two: 2"]);
        fields.set(&header::LOCATION, &HeaderValue::from_static("/c"));
        let all: Vec<_> = fields.iter().collect();
        let expected: [(&[u8], &[u8]); 3] = [(b"x-one", b"1"), (b"x-two", b"2"), (b"location", b"/c")];
        assert_eq!(all, expected);
    }

    #[test]
    fn what_is_no_field_is_refused() {
        let (_text, results, fields) = fields(&[
            "no colon",
            "name : v",
            ": v",
            "na(me: v",
            "n\u{e4}me: v",
            "name: a\x01b",
            "name: a\x7fb",
        ]);
        assert!(results.iter().all(Result::is_err), "{results:?}");
        assert_eq!(fields.iter().count(), 0);
    }

    #[test]
    fn an_even_number_of_control_characters_is_no_better_than_one() {
        let (_text, results, fields) = fields(&[
            "name: \x01a\x01",
            "name: \x7fa\x7f",
            "name: \x01a\x7f",
            "name: \x7fa\x01",
            "name: \x01\x01\x7f\x7f",
        ]);
        assert!(results.iter().all(Result::is_err), "{results:?}");
        assert_eq!(fields.iter().count(), 0);
    }
}
