//! What is asked over the control socket, and answered.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::control::rights::Right;

/// Longest line in either direction.
pub(super) const LINE_BYTES_MAX: usize = 256 * 1024;

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What is in force, since when and by whom.
    Status,
    /// What a reload would change.
    Plan {
        /// Another settings file to compare; otherwise that of the gateway.
        config: Option<PathBuf>,
        /// A revision to compare in its place.
        revision: Option<u64>,
    },
    /// Puts the files in force.
    Reload {
        /// Only if they have this digest.
        digest: Option<String>,
    },
    /// Puts a revision in force again; without a number, lists those that are kept.
    Rollback {
        revision: Option<u64>,
        /// Also if it lets in what is kept out now.
        readmit: bool,
    },
    /// Puts a file in force that a command has changed, if no other file has changed.
    Edited {
        file: PathBuf,
        /// SHA-256 of its content before and after, in hexadecimal digits.
        before: String,
        after: String,
    },
    /// What is known of keys.
    Keys {
        /// Whose; otherwise those of all callers.
        caller: Option<String>,
    },
    /// Has a route accept the secret that a vendor sends in its next handshake.
    Enrol { route: String, seconds: u64 },
    /// Forgets a secret that was accepted so; without a label, lists them.
    Forget { route: String, label: Option<String> },
    /// Refuses a key from now on.
    Revoke {
        /// Whose it is.
        caller: String,
        /// Its label.
        key: String,
    },
}

impl Request {
    /// Its name in the trail of changes.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Plan { .. } => "plan",
            Self::Reload { .. } => "reload",
            Self::Rollback { .. } => "rollback",
            Self::Edited { .. } => "reload-edited",
            Self::Keys { .. } => "key-list",
            Self::Enrol { .. } => "vendor-enrol",
            Self::Forget { .. } => "vendor-forget",
            Self::Revoke { .. } => "key-revoke",
        }
    }

    /// What it needs.
    pub fn needs(&self) -> Right {
        match self {
            Self::Status
            | Self::Plan { .. }
            | Self::Keys { .. }
            | Self::Forget { label: None, .. }
            | Self::Rollback { revision: None, .. } => Right::Read,
            // It lets somebody in.
            Self::Reload { .. } | Self::Edited { .. } | Self::Rollback { .. } | Self::Enrol { .. } => {
                Right::Operate
            }
            Self::Revoke { .. } | Self::Forget { .. } => Right::Keys,
        }
    }
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Exit code of the command that asked.
    pub code: u8,
    /// What it prints.
    pub text: String,
}
