//! Path and query of an address: the allowed characters, and the keys by which a trigger is addressed and
//! signed.

use percent_encoding::percent_decode_str;

use crate::model::trigger::TriggerUrlError;
use crate::model::trigger::escape::{is_twice_encoded, unescape};

// An api-version is a date or a small number; a longer value has another parameter appended to it.
const API_VERSION_CHARS_MAX: usize = 32;

/// What the query contains of a shared access signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signature {
    Whole,
    /// `sp` or `sv` without `sig`.
    Torn,
    Absent,
}

/// The characters of path and query (RFC 3986, sections 3.3 and 3.4).
pub(super) fn check_target(target: &str) -> Result<(), TriggerUrlError> {
    let invalid = |found: &char| !(is_path_byte(*found as u8) || *found == '?');
    if let Some(found) = target.chars().find(invalid) {
        return Err(TriggerUrlError::Character { found });
    }
    let mut rest = target.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let (byte, tail) = unescape(rest).ok_or(TriggerUrlError::Escape)?;
            if byte.is_ascii_control() {
                return Err(TriggerUrlError::Control);
            }
            rest = tail;
        }
    }
    let junk = |found: &char| matches!(found, '&' | '?' | ',' | ';' | ':' | '.' | ')' | '\'' | '!' | '*');
    if let Some(found) = target.chars().next_back().filter(junk) {
        return Err(TriggerUrlError::TrailingJunk { found });
    }
    if target.ends_with("%20") {
        return Err(TriggerUrlError::TrailingJunk { found: ' ' });
    }
    Ok(())
}

/// A byte that is allowed in a path, including `%` and `/`.
pub(super) fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%' | b'/' | b':' | b'@')
        || matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        )
}

/// The key of one pair as the trigger reads it: decoded, and without regard to case.
pub(super) fn key_of(pair: &str) -> String {
    let key = pair.split_once('=').map_or(pair, |(key, _)| key);
    percent_decode_str(key).decode_utf8_lossy().to_ascii_lowercase()
}

/// The values of the keys that Flowgate knows, unchanged.
#[derive(Default)]
pub(super) struct Keys<'a> {
    api_version: Option<&'a str>,
    sp: Option<&'a str>,
    sv: Option<&'a str>,
    sig: Option<&'a str>,
}

impl<'a> Keys<'a> {
    pub(super) fn read(query: &'a str) -> Result<Self, TriggerUrlError> {
        let mut keys = Self::default();
        for pair in query.split('&') {
            let value = pair.split_once('=').map_or("", |(_, value)| value);
            let (slot, key) = match key_of(pair).as_str() {
                "api-version" => (&mut keys.api_version, "api-version"),
                "sp" => (&mut keys.sp, "sp"),
                "sv" => (&mut keys.sv, "sv"),
                "sig" => (&mut keys.sig, "sig"),
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(TriggerUrlError::RepeatedKey { key });
            }
            if value.is_empty() {
                return Err(TriggerUrlError::EmptyValue { key });
            }
        }
        Ok(keys)
    }

    /// Checks a target whose path is that of a trigger, whatever the host.
    pub(super) fn check_trigger(&self, target: &str) -> Result<(), TriggerUrlError> {
        let lower = target.to_ascii_lowercase();
        if ["api-version%3d", "%26sp%3d", "%26sig%3d"]
            .into_iter()
            .any(|trace| lower.contains(trace))
        {
            return Err(TriggerUrlError::TwiceEncoded);
        }
        let values = [self.api_version, self.sp, self.sv, self.sig];
        if values.into_iter().flatten().any(is_twice_encoded) {
            return Err(TriggerUrlError::TwiceEncoded);
        }
        if self.api_version.is_none() {
            return Err(TriggerUrlError::MissingApiVersion);
        }
        if self.plain_api_version().is_none() {
            return Err(TriggerUrlError::BadApiVersion);
        }
        Ok(())
    }

    /// The value of `api-version` if it can only be a version, so that printing it reveals nothing.
    pub(super) fn plain_api_version(&self) -> Option<&'a str> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        self.api_version
            .filter(|value| value.len() <= API_VERSION_CHARS_MAX && value.bytes().all(plain))
    }

    pub(super) fn signature(&self) -> Signature {
        if self.sig.is_some() {
            return Signature::Whole;
        }
        if self.sp.is_some() || self.sv.is_some() {
            return Signature::Torn;
        }
        Signature::Absent
    }
}
