//! Media types (RFC 9110 section 8.3.1), as settings list them and as requests state them.

use std::fmt;

use http::HeaderValue;

use crate::model::Flaw;

/// Types that settings accept: one, or all of a kind, such as `text/*`. In lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaRange(Box<str>);

impl MediaRange {
    pub(crate) fn parse(text: &str) -> Result<Self, Flaw> {
        let flaw = || Flaw::new("this is not a media type");
        if text.contains(';') {
            return Err(flaw().hint("write it without parameters; any are accepted"));
        }
        let (kind, subtype) = text.split_once('/').unwrap_or((text, ""));
        if !is_token(kind) || !is_token(subtype) || kind == "*" {
            let hint = "write for example \"application/json\", or \"text/*\" for all of a kind";
            return Err(flaw().hint(hint));
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    pub fn covers(&self, media: &MediaType<'_>) -> bool {
        match self.0.strip_suffix('*') {
            Some(kind) => {
                let start = media.essence.get(..kind.len());
                start.is_some_and(|start| start.eq_ignore_ascii_case(kind))
            }
            None => media.essence.eq_ignore_ascii_case(&self.0),
        }
    }

    /// The type itself, unless it is all of a kind.
    pub fn media_type(&self) -> Option<MediaType<'_>> {
        MediaType::parse(&self.0).filter(|media| !media.essence.ends_with("/*"))
    }
}

impl fmt::Display for MediaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a `Content-Type` states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaType<'a> {
    essence: &'a str,
    /// Whether `charset` is UTF-8 or a part of it, or is not stated.
    pub is_utf8: bool,
}

impl<'a> MediaType<'a> {
    /// Nothing for a value that is not a media type.
    pub fn parse(value: &'a str) -> Option<Self> {
        let (essence, mut rest) = value.split_once(';').unwrap_or((value, ""));
        let essence = essence.trim_matches([' ', '\t']);
        let (kind, subtype) = essence.split_once('/')?;
        if !is_token(kind) || !is_token(subtype) {
            return None;
        }
        let mut is_utf8 = true;
        while let Some((name, value, more)) = parameter(rest)? {
            if name.eq_ignore_ascii_case("charset") {
                let known = ["utf-8", "utf8", "us-ascii"];
                is_utf8 &= known.iter().any(|known| value.eq_ignore_ascii_case(known));
            }
            rest = more;
        }
        Some(Self { essence, is_utf8 })
    }

    pub fn essence(&self) -> &'a str {
        self.essence
    }

    /// Whether it is JSON by its name (RFC 8259, RFC 6839 section 3.1).
    pub fn is_json(&self) -> bool {
        let (_, subtype) = self.essence.split_once('/').unwrap_or_default();
        let suffix = subtype.len().checked_sub("+json".len());
        let suffix = suffix.and_then(|at| subtype.get(at..));
        subtype.eq_ignore_ascii_case("json")
            || suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case("+json"))
    }

    pub fn is_form(&self) -> bool {
        self.essence.eq_ignore_ascii_case(FORM)
    }
}

/// The type of what an HTML form sends.
pub const FORM: &str = "application/x-www-form-urlencoded";

/// Longest type that is sent; those that are registered are shorter.
const CONTENT_TYPE_BYTES_MAX: usize = 128;

/// A media type with its parameters, as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentType(HeaderValue);

impl ContentType {
    pub(crate) fn parse(text: &str) -> Result<Self, Flaw> {
        let flaw = || Flaw::new("this is not a media type").hint("write for example \"application/json\"");
        let media = MediaType::parse(text).ok_or_else(flaw)?;
        if media.essence.contains('*') || text.trim() != text || text.len() > CONTENT_TYPE_BYTES_MAX {
            return Err(flaw());
        }
        HeaderValue::try_from(text).map(Self).map_err(|_| flaw())
    }

    pub fn is_json(&self) -> bool {
        let text = self.0.to_str().ok();
        let media = text.and_then(MediaType::parse);
        media.is_some_and(|media| media.is_json() && media.is_utf8)
    }

    pub fn as_header(&self) -> &HeaderValue {
        &self.0
    }
}

/// The next parameter and what follows it; nothing where it is malformed, and no parameter at the end.
fn parameter(rest: &str) -> Option<Option<(&str, &str, &str)>> {
    let rest = rest.trim_start_matches([' ', '\t', ';']);
    if rest.is_empty() {
        return Some(None);
    }
    let (name, rest) = rest.split_once('=')?;
    let (value, rest) = match rest.strip_prefix('"') {
        // An escape within quotes is taken as it is: no charset has one.
        Some(quoted) => {
            let mut escaped = false;
            let end = quoted.find(|found: char| {
                let ends = found == '"' && !escaped;
                escaped = found == '\\' && !escaped;
                ends
            })?;
            quoted
                .split_at_checked(end)
                .and_then(|(value, rest)| Some((value, rest.get(1..)?)))?
        }
        None => rest.split_at_checked(rest.find(';').unwrap_or(rest.len()))?,
    };
    let rest = rest.trim_start_matches([' ', '\t']);
    let is_whole = rest.is_empty() || rest.starts_with(';');
    (is_token(name) && is_whole).then(|| Some((name, value.trim_end_matches([' ', '\t']), rest)))
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    let tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(tchar)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ContentType, MediaRange, MediaType};

    fn media(value: &str) -> MediaType<'_> {
        MediaType::parse(value).unwrap_or_else(|| panic!("{value}"))
    }

    #[test]
    fn a_type_is_read_without_its_parameters() {
        for value in [
            "application/json",
            "Application/JSON;charset=UTF-8",
            "application/json ; charset=\"utf-8\"; profile=\"a;\\\"b\"",
            "application/json;",
            "application/vnd.shop+json; version=1",
            "text/json",
        ] {
            assert!(media(value).is_json() && media(value).is_utf8, "{value}");
        }
        for value in [
            "application/json; charset=utf-16",
            "text/json; charset=utf-8; CharSet=latin1",
        ] {
            assert!(!media(value).is_utf8, "{value}");
        }
        for value in ["application/jsonp", "json/text", "application/x-json"] {
            assert!(!media(value).is_json(), "{value}");
        }
        assert!(media("application/X-WWW-form-urlencoded; charset=utf-8").is_form());
    }

    #[test]
    fn what_is_no_type_is_not_read_as_one() {
        for value in [
            "",
            "json",
            "application/",
            "/json",
            "a b/json",
            "application/json, text/html",
            "application/json; charset",
            "application/json; charset=\"utf-8",
            "application/json; charset=\"utf-8\" x",
            "application/json; a b=c",
        ] {
            assert_eq!(MediaType::parse(value), None, "{value}");
        }
    }

    #[test]
    fn a_range_covers_a_type_or_all_of_a_kind() {
        let covers = |range, value| MediaRange::parse(range).unwrap().covers(&media(value));
        assert!(covers("Application/json", "application/JSON; charset=utf-8"));
        assert!(covers("text/*", "TEXT/plain"));
        for (range, value) in [
            ("text/*", "application/json"),
            ("text/*", "textile/a"),
            ("a/b", "a/bc"),
        ] {
            assert!(!covers(range, value), "{range} {value}");
        }
        for bad in [
            "",
            "json",
            "*/*",
            "text/",
            "application/json; charset=utf-8",
            "a/b/c",
        ] {
            assert!(MediaRange::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_type_that_is_sent_is_one_type() {
        assert!(
            ContentType::parse("application/json; charset=utf-8")
                .unwrap()
                .is_json()
        );
        assert!(
            !ContentType::parse("application/json; charset=utf-16")
                .unwrap()
                .is_json()
        );
        let long = format!("a/{}", "b".repeat(127));
        for bad in [
            "",
            "/",
            "text/*",
            "json",
            " a/b",
            "a/b\n",
            "a/b\r\nx: y",
            "a/\u{e4}",
            "a/b; c",
            "text/<b>x y",
            &long,
        ] {
            assert!(ContentType::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_type_or_none(text in "[a-z/*;=\"\\\\ ,\u{e4}]{0,24}") {
            if let Some(media) = MediaType::parse(&text) {
                prop_assert!(text.contains(media.essence()));
            }
            let _ = MediaRange::parse(&text).map(|range| range.covers(&media("text/plain")));
            let _ = ContentType::parse(&text);
        }
    }
}
