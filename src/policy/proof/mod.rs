//! How a caller proves who it is: one file a kind of proof, and here the one place that knows all of them.
//!
//! A kind that needs the body (a signature) returns a pending result, which `gateway/admission.rs` confirms once the body was
//! read; the limits of such a caller are taken after that, or anybody could spend them in its name.

mod anyone;
mod key;
mod network;
mod pending;
mod shown;
pub mod signature;
mod signed;

use std::sync::Arc;

pub use pending::{CertificateWanted, NoCertificate, Pending};
pub(super) use shown::Proof;
pub use shown::{Guesses, Identity, Shown};

use crate::policy::caller::Callers;
use crate::policy::proof::anyone::Anyone;
use crate::policy::proof::key::ByKey;
use crate::policy::proof::network::ByNetwork;
use crate::policy::proof::signed::BySignature;
use crate::settings::{CallerSettings, CallersSettings, KeyPlace};

/// The kinds that a route accepts, in the order in which they are asked; never none. A listed name that no caller has lets
/// nobody in, and so does a caller without keys and signature whose networks are not narrowed down. `settings` are those of
/// which `callers` were made.
pub(super) fn accepted(
    listed: &CallersSettings,
    places: &[KeyPlace],
    settings: &[CallerSettings],
    callers: &Arc<Callers>,
) -> Vec<Box<dyn Proof>> {
    let names = match listed {
        CallersSettings::Anonymous => return vec![Box::new(Anyone::new())],
        CallersSettings::Named(names) => callers.named(names),
    };
    let mut proofs: Vec<Box<dyn Proof>> = Vec::new();
    if let Some(by_key) = ByKey::build(&names, places, callers) {
        proofs.push(Box::new(by_key));
    }
    if let Some(by_signature) = BySignature::build(&names, callers) {
        proofs.push(Box::new(by_signature));
    }
    proofs.push(Box::new(ByNetwork::build(&names, settings, callers)));
    proofs
}
