//! The form of keys: how long one may be, and by what generated ones are recognised.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::model::Secret;

/// Longest key that is looked up. A longer one is unknown without being hashed, so that the work for a guess
/// is bounded.
pub const KEY_BYTES_MAX: usize = 1024;

/// What every generated key begins with, so that people and secret scanners recognise one.
pub const GENERATED_PREFIX: &str = "flowgate_";
/// Characters behind the prefix: 256 random bits in base64url.
const GENERATED_CHARS: usize = 43;
const GENERATED_BYTES: usize = 32;

/// A new key; none if the operating system provides no random bytes.
pub fn generate() -> Option<Secret> {
    let mut random = [0; GENERATED_BYTES];
    aws_lc_rs::rand::fill(&mut random).ok()?;
    Some(Secret::new(format!(
        "{GENERATED_PREFIX}{}",
        URL_SAFE_NO_PAD.encode(random)
    )))
}

/// Whether a key has the form that `flowgate key new` gives to keys. Nobody can guess 256 random bits, so
/// such a key is looked up however many wrong ones its address has presented. `flowgate key hash` takes no
/// other key with this prefix, so that no digest of a secret that can be guessed belongs to this form.
pub fn is_generated(key: &[u8]) -> bool {
    let random = key.strip_prefix(GENERATED_PREFIX.as_bytes());
    random.is_some_and(|random| {
        let is_base64url = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        random.len() == GENERATED_CHARS && random.iter().all(is_base64url)
    })
}
