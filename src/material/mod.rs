//! Keys and certificates as bytes: read from PEM and PFX, held against each other, ready to sign. No file is read here.

mod development;
mod fault;
mod pem;
mod pfx;
mod signing;
mod webhook_key;

pub(crate) use development::DevelopmentCertificate;
pub(crate) use fault::{About, Fault};
pub(crate) use pem::{Leaf, certificates_in, certify, no_certificate, placeholder, read_key, read_leaf};
pub use signing::{AssertionAlgorithm, ChainShown, SigningCertificate};
pub(crate) use signing::{DerAndParsed, Texts, chain, day};
pub(crate) use webhook_key::{WebhookKey, decode, digest_of, encode, encoding_name, signature_bytes};
