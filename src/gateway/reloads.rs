//! How the last try to put other settings in force ended.

use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::model::{clock, locked};

/// A try to put other settings in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LastReload {
    /// When it ended, as a date and time.
    pub time: String,
    /// Why those in force stayed; nothing if the new ones are in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

#[derive(Debug)]
pub enum ReloadOutcome {
    InForce,
    Refused(String),
}

/// The last of them, once there was one, and the revision that was rolled back to.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    last: Mutex<Option<LastReload>>,
    pinned: Mutex<Option<u64>>,
}

impl Reloads {
    pub(super) fn note(&self, outcome: ReloadOutcome) {
        *locked(&self.last) = Some(LastReload {
            time: clock::stamp(),
            refused: match outcome {
                ReloadOutcome::InForce => None,
                ReloadOutcome::Refused(why) => Some(why),
            },
        });
    }

    pub(super) fn last(&self) -> Option<LastReload> {
        locked(&self.last).clone()
    }

    /// Notes that files are not followed because of this revision, or that they are.
    pub(super) fn pin(&self, revision: Option<u64>) {
        *locked(&self.pinned) = revision;
    }

    pub(super) fn pinned(&self) -> Option<u64> {
        *locked(&self.pinned)
    }
}
