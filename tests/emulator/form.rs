//! Decoding of `application/x-www-form-urlencoded`, exactly once, for token requests and for the queries of
//! triggers.

use percent_encoding::percent_decode_str;

/// The pairs in their order. A plus is a space; an escape is decoded once, so a doubly encoded value stays
/// encoded.
pub fn decode(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode_part(name), decode_part(value))
        })
        .collect()
}

/// All values with this name.
pub fn values<'a>(pairs: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    pairs
        .iter()
        .filter(|(known, _)| known == name)
        .map(|(_, value)| value.as_str())
        .collect()
}

/// The value with this name, if there is exactly one.
pub fn single<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    match values(pairs, name).as_slice() {
        [value] => Some(value),
        _ => None,
    }
}

fn decode_part(part: &str) -> String {
    percent_decode_str(&part.replace('+', " "))
        .decode_utf8_lossy()
        .into_owned()
}
