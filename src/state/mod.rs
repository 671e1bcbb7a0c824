//! What the gateway keeps on disk: the trail of changes, the keys that were revoked and when keys were used last, the
//! settings that were in force. One process at a time has the folder.

mod audit;
mod enrolled;
mod folder;
mod revisions;
mod revocations;
mod uses;

use std::sync::Arc;

pub use audit::{Actor, Broken, Entry, Trail, Verified, verify};
pub use enrolled::{Enrolled, EnrolledSecret, NotEnrolled};
pub use folder::{StateError, StateFolder};
pub use revisions::{ListVersion, Revision, Revisions};
pub use revocations::{Revocations, RevokedKey};
pub use uses::{KeyUse, KeyUses};

/// What was kept, for a gateway that starts.
#[derive(Debug)]
pub struct Recalled {
    /// Keys that were revoked.
    pub revocations: Revocations,
    /// Secrets that vendors sent.
    pub enrolled: Enrolled,
    /// The trail of changes, if there is one.
    pub trail: Option<Arc<Trail>>,
    /// The number of the settings that it starts with.
    pub revision: u64,
}

impl Default for Recalled {
    fn default() -> Self {
        Self {
            revocations: Revocations::default(),
            enrolled: Enrolled::default(),
            trail: None,
            revision: 1,
        }
    }
}
