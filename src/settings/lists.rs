//! Key digests and dates, one by one, and lists of keys and networks, files with one entry a line. It decides what an entry
//! means; which lists there are, and whether two entries clash, is for `check`.

use std::ops::Range;
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};

use crate::model::{Flaw, KeyLabel, Network};
use crate::settings::{KeyDigest, KeySettings, KeyState, mask};

/// Largest list file: 100,000 keys take 10 MB.
pub(super) const LIST_BYTES_MAX: u64 = 256 * 1024 * 1024;

pub(super) const HOW_TO_MAKE: &str =
    "`flowgate key new` prints one for a new key, `flowgate key hash` for an existing one";

pub(super) fn digest(text: &str) -> Result<KeyDigest, Flaw> {
    let (hex, make): (&str, fn([u8; 32]) -> KeyDigest) = if let Some(hex) = text.strip_prefix("sha256:") {
        (hex, KeyDigest::Sha256)
    } else if let Some(hex) = text.strip_prefix("hmac-sha256:") {
        (hex, KeyDigest::HmacSha256)
    } else {
        return Err(
            Flaw::new("this is not the digest of a key; keys themselves must not be in settings")
                .hint(HOW_TO_MAKE),
        );
    };
    let bytes = unhex(hex)
        .ok_or_else(|| Flaw::new("a digest has 64 hexadecimal digits behind its prefix").hint(HOW_TO_MAKE))?;
    Ok(make(bytes))
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    // `from_str_radix` alone would take a plus sign.
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Parses an RFC 3339 timestamp or a date; a date means midnight UTC at its start.
pub(super) fn moment(text: &str) -> Result<SystemTime, Flaw> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment.into());
    }
    if text.len() == "2027-01-31".len()
        && let Ok(date) = text.parse::<Date>()
        && let Ok(moment) = date.at(0, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC)
    {
        return Ok(moment.timestamp().into());
    }
    if text.parse::<DateTime>().is_ok() {
        return Err(Flaw::new("the moment has no time zone")
            .hint("put Z for UTC or an offset behind it, for example 2027-01-31T12:00:00Z"));
    }
    Err(Flaw::new("this is neither a date nor a moment")
        .hint("write a date such as 2027-01-31, or a moment such as 2027-01-31T12:00:00Z"))
}

/// A line of a list: what it says, or what is wrong, with the place of the word that it is about.
pub(super) type Line<T> = Result<(T, Range<usize>), (Flaw, Range<usize>)>;

/// The networks of a file: one a line, `#` begins a comment.
pub(super) fn networks(text: &str) -> impl Iterator<Item = Line<Network>> {
    entries(text).map(|(start, line)| {
        let words = mask::words(line);
        let span = span_of(start, words.first());
        if let Some(word) = words.get(1) {
            let flaw = Flaw::new("a line holds one network");
            return Err((flaw, span_of(start, Some(word))));
        }
        match line.trim().parse() {
            Ok(value) => Ok((value, span)),
            Err(flaw) => Err((flaw, span)),
        }
    })
}

/// A key, and where its digest is.
type KeyLine = (KeySettings, Range<usize>);

/// The keys of a file: `LABEL DIGEST [not_before=..] [expires=..] [enabled=false]` a line, `#` begins a
/// comment.
pub(super) fn keys(text: &str) -> impl Iterator<Item = Line<KeyLine>> {
    entries(text).map(|(start, line)| key(start, line))
}

fn key(start: usize, line: &str) -> Line<KeyLine> {
    let words = mask::words(line);
    let misplaced = |word: Option<&(usize, &str)>, flaw| (flaw, span_of(start, word));
    let [first @ (_, label), rest @ ..] = words.as_slice() else {
        return Err(misplaced(None, Flaw::new("the line is empty")));
    };
    let [second @ (_, text), options @ ..] = rest else {
        let flaw = Flaw::new("a line holds the label of a key and its digest").hint("write LABEL sha256:...");
        return Err(misplaced(Some(first), flaw));
    };
    let digest = digest(text).map_err(|flaw| misplaced(Some(second), flaw))?;
    let label =
        KeyLabel::parse(label).map_err(|error| misplaced(Some(first), Flaw::new(error.to_string())))?;
    let mut key = KeySettings::new(label, digest);
    let mut seen = Vec::new();
    for option @ (_, text) in options {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        if seen.contains(&name) {
            return Err(misplaced(Some(option), Flaw::new("the option is given twice")));
        }
        seen.push(name);
        set(&mut key, name, value).map_err(|flaw| misplaced(Some(option), flaw))?;
    }
    Ok(((key, span_of(start, Some(second))), span_of(start, Some(first))))
}

fn set(key: &mut KeySettings, name: &str, value: &str) -> Result<(), Flaw> {
    match (name, value) {
        ("not_before", _) => key.not_before = Some(moment(value)?),
        ("expires", _) => key.expires = Some(moment(value)?),
        ("enabled", "true") => key.state = KeyState::Enabled,
        ("enabled", "false") => key.state = KeyState::Disabled,
        ("enabled", _) => return Err(Flaw::new("`enabled` is either true or false")),
        _ => {
            return Err(Flaw::new("unknown option behind the digest")
                .hint("known are not_before=, expires= and enabled="));
        }
    }
    Ok(())
}

/// The most keys that a text of this form can hold: one a line, and none without a label and a digest.
pub(super) fn keys_max(text: &str) -> usize {
    const KEY_BYTES_MIN: usize = "x sha256:".len() + 64;
    let lines = memchr::memchr_iter(b'\n', text.as_bytes()).count() + 1;
    lines.min(text.len() / KEY_BYTES_MIN)
}

/// Lines that say something, without their comments, and the byte each begins at.
fn entries(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut from = 0;
    // Editors on Windows may put a byte order mark before the first line.
    let lines = text.split_inclusive('\n').map(move |line| {
        let start = from;
        from += line.len();
        (start, line)
    });
    lines.filter_map(|(start, line)| {
        let (start, line) = line
            .strip_prefix('\u{feff}')
            .map_or((start, line), |line| (start + 3, line));
        let content = line.split('#').next().unwrap_or(line);
        (!content.trim().is_empty()).then_some((start, content))
    })
}

fn span_of(start: usize, word: Option<&(usize, &str)>) -> Range<usize> {
    word.map_or(start..start, |(at, word)| start + at..start + at + word.len())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::{digest, keys, keys_max, moment, networks};
    use crate::settings::KeyState;

    #[test]
    fn a_date_is_midnight_utc_and_a_moment_needs_a_zone() {
        let day = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        for text in [
            "1970-01-02",
            "1970-01-02T00:00:00Z",
            "1970-01-02T02:00:00+02:00",
            "1970-01-02 00:00:00Z",
        ] {
            assert_eq!(moment(text).unwrap(), day, "{text}");
        }
        assert_eq!(
            moment("1970-01-02T00:00:00").unwrap_err().what,
            "the moment has no time zone"
        );
        for bad in ["", "tomorrow", "1970-13-01", "1970-01-02T25:00:00Z"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_digest_has_a_prefix_and_64_digits() {
        let hex = "0123456789abcdefABCDEF0123456789".repeat(2);
        assert!(digest(&format!("sha256:{hex}")).is_ok());
        assert!(digest(&format!("hmac-sha256:{hex}")).is_ok());
        for bad in [
            hex.clone(),
            format!("sha256:{hex}0"),
            "sha256:".to_owned(),
            format!("md5:{hex}"),
        ] {
            let flaw = digest(&bad).unwrap_err();
            assert!(flaw.hint.unwrap().contains("flowgate key hash"), "{bad}");
        }
    }

    #[test]
    fn a_key_line_has_a_label_a_digest_and_options() {
        let hex = "0a".repeat(32);
        let text = format!(
            "\u{feff}# all keys\n\nerp sha256:{hex}\r\n\
               old hmac-sha256:{hex} expires=2020-01-01 enabled=false # x\n"
        );
        let keys: Vec<_> = keys(&text).map(|entry| entry.ok().unwrap().0.0).collect();
        assert_eq!(keys.len(), 2);
        assert_eq!(keys_max(&text), 2);
        assert_eq!((keys_max(""), keys_max(&"\n".repeat(73))), (0, 1));
        assert_eq!(keys_max(&format!("x sha256:{hex}")), 1);
        assert_eq!(keys[0].label.as_str(), "erp");
        assert_eq!(keys[1].state, KeyState::Disabled);
        assert!(keys[1].expires.is_some() && keys[1].not_before.is_none());
    }

    #[test]
    fn a_wrong_line_says_which_word_is_wrong() {
        let hex = "0a".repeat(32);
        for (line, word) in [
            ("erp".to_owned(), "erp"),
            ("erp plain".to_owned(), "plain"),
            (format!("e/rp sha256:{hex}"), "e/rp"),
            (format!("erp sha256:{hex} until=1"), "until=1"),
            (format!("erp sha256:{hex} enabled=no"), "enabled=no"),
            (format!("erp sha256:{hex} expires=x"), "expires=x"),
            (
                format!("erp sha256:{hex} enabled=true enabled=true"),
                "enabled=true",
            ),
        ] {
            let text = format!("# first\n{line}\n");
            let (_, span) = keys(&text).next().unwrap().err().unwrap();
            assert_eq!(&text[span], word);
        }
        let text = "10.0.0.0/8\n10.1.0.0/16 10.2.0.0/16\n";
        assert_eq!(
            &text[networks(text).nth(1).unwrap().err().unwrap().1],
            "10.2.0.0/16"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_or_a_mistake_in_it(text in any::<String>()) {
            prop_assert!(keys(&text).filter(Result::is_ok).count() <= keys_max(&text));
            for (_, span) in keys(&text).filter_map(Result::err) {
                prop_assert!(text.get(span).is_some());
            }
            for (_, span) in networks(&text).filter_map(Result::err) {
                prop_assert!(text.get(span).is_some());
            }
            let _ = moment(&text);
        }
    }
}
