//! Our own connections: questions over HTTP, which certificate authorities are trusted, and how a refused certificate is
//! explained.

mod failed;
mod fetch;
mod trust;
mod verifier;

pub(crate) use failed::{FailedBody, WORD_CHARS_MAX, is_word};
pub(crate) use fetch::{FetchFault, Fetched, Fetcher};
pub use trust::{Trust, TrustError, provider};
pub use verifier::refused_certificate;
