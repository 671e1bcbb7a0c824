//! Our own connections: which certificate authorities they trust, and how a refused certificate is explained.

mod trust;
mod verifier;

pub use trust::{Trust, TrustError, provider};
pub use verifier::refused_certificate;
