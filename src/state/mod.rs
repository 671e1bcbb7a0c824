//! What the gateway keeps on disk: the trail of changes and the keys that were revoked. One process at a time has the folder.

mod audit;
mod folder;
mod revocations;

pub use audit::{Actor, Broken, Entry, Trail, Verified, verify};
pub use folder::{StateError, StateFolder};
pub use revocations::{Revocations, RevokedKey};
