//! Percent encoding in the parts of an address.

/// Decodes two hexadecimal digits; returns the byte and the rest.
pub(super) fn unescape(text: &[u8]) -> Option<(u8, &[u8])> {
    let [high, low, rest @ ..] = text else {
        return None;
    };
    let high = char::from(*high).to_digit(16)?;
    let low = char::from(*low).to_digit(16)?;
    u8::try_from(high * 16 + low).ok().map(|byte| (byte, rest))
}

/// Whether an encoded `%` is followed by two hexadecimal digits. A lone `%25`, as in `%25%23`, is a plain
/// percent sign.
pub(super) fn is_twice_encoded(text: &str) -> bool {
    text.match_indices("%25").any(|(at, mark)| {
        let rest = text.as_bytes().get(at + mark.len()..).unwrap_or(&[]);
        unescape(rest).is_some()
    })
}
