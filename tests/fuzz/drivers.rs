//! What each fuzz target checks: one function per target, which takes any bytes and panics if a promise is
//! broken. The targets and the test of the seeds share them. An input is data in the form in which it would
//! arrive, so that seeds are readable; its bytes also choose whatever else varies.

#[path = "drivers/body.rs"]
mod body;
#[path = "drivers/http2.rs"]
mod http2;
#[path = "drivers/policy.rs"]
mod policy;
#[path = "drivers/signature.rs"]
mod signature;
#[path = "drivers/texts.rs"]
mod texts;
#[path = "drivers/wire.rs"]
mod wire;

pub(crate) use body::body;
pub(crate) use http2::blocks;
pub(crate) use policy::{header_policy, target};
pub(crate) use signature::signature;
pub(crate) use texts::{entra_answer, fault_body, pfx, settings, trigger_url};
pub(crate) use wire::{chunks, request_head, response_head};

/// The ways in which bytes may arrive: one by one, and in pieces whose sizes the bytes themselves choose.
fn arrivals(data: &[u8]) -> [Vec<&[u8]>; 2] {
    let mut pieces = Vec::new();
    let mut rest = data;
    while let Some(first) = rest.first() {
        let size = usize::from(first % 23) + 1;
        let (piece, after) = rest.split_at(size.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    [data.chunks(1).collect(), pieces]
}

/// Long words with letters and digits that occur in `whole` once. If one of them appears in a message, it was
/// copied from `part`, for no message of ours has such a word.
fn distinctive_words<'a>(part: &'a str, whole: &str) -> Vec<&'a str> {
    let word = |found: char| found.is_ascii_alphanumeric() || found == '_' || found == '-';
    part.split(|found| !word(found))
        .filter(|text| text.len() >= 10)
        .filter(|text| text.bytes().any(|byte| byte.is_ascii_digit()))
        .filter(|text| text.bytes().any(|byte| byte.is_ascii_alphabetic()))
        .filter(|text| whole.matches(text).count() == 1)
        .collect()
}

/// Whether a text fits into one log line without breaking it or changing its display order.
fn is_one_line(text: &str) -> bool {
    let reorders = |found: char| matches!(found, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !text.chars().any(|found| found.is_control() || reorders(found))
}
