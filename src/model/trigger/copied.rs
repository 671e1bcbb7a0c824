//! Detects copying mistakes in an address: quotes around it, escapes of another language, fragments of two
//! addresses.

use crate::model::trigger::escape::is_twice_encoded;
use crate::model::trigger::{Family, TriggerUrlError};

/// Longest address that a trigger accepts, in characters (Microsoft Learn, "Limits of automated, scheduled,
/// and instant flows", and the same number for Logic Apps).
pub const ADDRESS_CHARS_MAX: usize = 16_384;

/// Checks for stray characters around the address.
pub(super) fn check_surroundings(text: &str) -> Result<(), TriggerUrlError> {
    let (Some(first), Some(last)) = (text.chars().next(), text.chars().next_back()) else {
        return Err(TriggerUrlError::Empty);
    };
    if text.chars().all(char::is_whitespace) {
        return Err(TriggerUrlError::Empty);
    }
    let chars = text.chars().count();
    if chars > ADDRESS_CHARS_MAX {
        return Err(TriggerUrlError::TooLong { chars });
    }
    if let Some(found) = [first, last].into_iter().find(|found| is_wrapping(*found)) {
        return Err(TriggerUrlError::Wrapped { found });
    }
    if first == '<' {
        return Err(TriggerUrlError::Wrapped { found: first });
    }
    // With an opening bracket inside, the last one closes a placeholder, which has an error of its own.
    if last == '>' && !text.contains('<') {
        return Err(TriggerUrlError::Wrapped { found: last });
    }
    Ok(())
}

fn is_wrapping(found: char) -> bool {
    // By code point: typographic quotes, and the invisible characters that editors and chats put around a
    // link.
    found.is_whitespace()
        || matches!(found, '"' | '\'' | '`' | '(' | '[' | '\u{ab}' | '\u{bb}')
        || matches!(found, '\u{2018}'..='\u{201f}' | '\u{200b}'..='\u{200f}' | '\u{feff}')
}

pub(super) fn after_scheme(text: &str) -> Result<&str, TriggerUrlError> {
    let starts_with = |scheme: &str| {
        text.get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    if starts_with("http://") {
        return Err(TriggerUrlError::PlainHttp);
    }
    if !starts_with("https://") {
        return Err(TriggerUrlError::NotHttps);
    }
    Ok(text.get("https://".len()..).unwrap_or(""))
}

/// Checks for copying mistakes inside of the address.
pub(super) fn check_copy(text: &str) -> Result<(), TriggerUrlError> {
    if let Some(found) = text.chars().find(|found| !found.is_ascii()) {
        return Err(TriggerUrlError::NotAscii { found });
    }
    let lower = text.to_ascii_lowercase();
    for spelling in ["&amp;", "&#38;", "&#038;", "&#x26;", "\\u0026"] {
        if lower.contains(spelling) {
            return Err(TriggerUrlError::EscapedAmpersand { spelling });
        }
    }
    // Checked before white space, because a placeholder may contain spaces.
    if text.contains(['<', '>', '{', '}']) {
        return Err(TriggerUrlError::Placeholder);
    }
    if text.contains([' ', '\t', '\r', '\n']) {
        return Err(TriggerUrlError::Whitespace);
    }
    if text.contains(|found: char| found.is_ascii_control()) {
        return Err(TriggerUrlError::Control);
    }
    if text.contains('#') {
        return Err(TriggerUrlError::Fragment);
    }
    Ok(())
}

pub(super) fn check_single(target: &str) -> Result<(), TriggerUrlError> {
    let lower = target.to_ascii_lowercase();
    // An address may be the value of a parameter; directly after other text it was pasted by mistake.
    let glued = |at: usize| lower.as_bytes().get(at.wrapping_sub(1)) != Some(&b'=');
    if lower.match_indices("https://").any(|(at, _)| glued(at)) {
        return Err(TriggerUrlError::TwoAddresses);
    }
    Ok(())
}

pub(super) fn check_path(path: &str, shape: Family) -> Result<(), TriggerUrlError> {
    let lower = path.to_ascii_lowercase();
    if lower.contains("%3fapi-version") || lower.contains("%26sig") {
        return Err(TriggerUrlError::TwiceEncoded);
    }
    // The path is printed, so an address with a signature in its path is refused.
    if ["sig=", "sig%3d", "sig%25", "api-version"]
        .into_iter()
        .any(|trace| lower.contains(trace))
    {
        return Err(TriggerUrlError::QuestionMarkLost);
    }
    if shape == Family::Other {
        return Ok(());
    }
    let dots = |segment: &str| matches!(segment, "." | "..");
    if path.contains("//") || path.split('/').any(dots) {
        return Err(TriggerUrlError::BadPath);
    }
    if is_twice_encoded(path) {
        return Err(TriggerUrlError::TwiceEncoded);
    }
    Ok(())
}
