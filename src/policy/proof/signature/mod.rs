//! Signatures over the bytes of a request. A [`Scheme`] is a recipe of `model/signature` with secrets, built once. Of a
//! request it first reads the head ([`Scheme::claim`]): a signature that is missing or malformed, and a timestamp that is too
//! old, are refused before any of the body is read. [`Claim::confirm`] then checks the signature over the pieces of the
//! request, one after the other; the body is never copied, except for Ed25519, which signs one text.

mod certificate;
mod claim;
mod content;
mod refusal;
mod request;
mod sample;
mod scheme;
mod sign;
mod signer;
#[cfg(test)]
mod tests;
mod timestamp;
#[cfg(test)]
mod vectors;

pub use certificate::Certificate;
pub use claim::{Claim, Verified};
pub use refusal::{Checked, Unverified};
pub use request::Head;
pub use sample::{Sample, Unsignable};
pub use scheme::{Scheme, SchemeError};
pub use sign::{Addition, Unsigned};
pub use signer::{Signer, SignerError};
