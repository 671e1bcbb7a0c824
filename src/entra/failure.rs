//! Failures of what the platform gives: endpoints of managed identities, files with federated tokens. Each is a whole
//! sentence that names the identity, the place, the reason and who mends it.

use std::time::Duration;

use crate::model::{FixedBy, Outlook};

/// Why the platform gives no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The sentence for the log.
    pub sentence: String,
    /// What was seen, and where.
    pub seen: String,
    /// What it means and what to do, in sentences.
    pub cause: String,
    /// Who must mend it.
    pub fixed_by: FixedBy,
    /// A word for metrics.
    pub label: &'static str,
    /// Whether time helps.
    pub outlook: Outlook,
    /// The wait that was asked for.
    pub wait: Option<Duration>,
}

/// What went wrong, without the identity it happened to.
pub(crate) struct Trouble {
    /// A word for metrics.
    pub(crate) label: &'static str,
    /// What was seen.
    pub(crate) seen: String,
    /// What it means and what to do, in sentences.
    pub(crate) cause: String,
    /// Who must mend it.
    pub(crate) fixed_by: FixedBy,
    /// Whether time helps.
    pub(crate) outlook: Outlook,
}

impl Trouble {
    /// Whether somebody has to mend something; with the cause in sentences.
    pub(crate) fn lasting(
        label: &'static str,
        seen: impl Into<String>,
        cause: impl Into<String>,
        fixed_by: FixedBy,
    ) -> Self {
        Self {
            label,
            seen: seen.into(),
            cause: cause.into(),
            fixed_by,
            outlook: Outlook::AfterFix,
        }
    }

    /// Something that passes by itself, as a rule.
    pub(crate) fn passing(
        label: &'static str,
        seen: impl Into<String>,
        cause: impl Into<String>,
        fixed_by: FixedBy,
    ) -> Self {
        Self {
            outlook: Outlook::Transient,
            ..Self::lasting(label, seen, cause, fixed_by)
        }
    }

    /// The failure of `identity` at `place`.
    pub(crate) fn of(self, identity: &str, place: &str, wait: Option<Duration>) -> Failure {
        let sentence = format!(
            "No token for identity {identity} ({place}): {}. {} {}; {}.",
            self.seen,
            self.cause,
            self.fixed_by.must_fix(),
            self.outlook.clause()
        );
        Failure {
            sentence,
            seen: format!("{place}: {}", self.seen),
            cause: self.cause,
            fixed_by: self.fixed_by,
            label: self.label,
            outlook: self.outlook,
            wait,
        }
    }
}
