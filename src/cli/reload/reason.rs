//! Why other settings come into force, and what their files must be like.

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::load::Whole;
use crate::gateway::Wanted;
use crate::settings::Watched;
use crate::state::Actor;

/// Time from one build to the next.
const BUILD_PERIOD: Duration = Duration::from_secs(2);
/// The same for a command, whose effect somebody waits for.
const COMMAND_PERIOD: Duration = Duration::from_millis(500);

/// Why other settings come into force.
#[derive(Debug, Clone)]
pub(in crate::cli) enum Reason {
    Operator(Actor),
    /// A command has changed one file, and nothing else is meant.
    Edit(Actor),
    /// Back to a revision that is kept.
    Rollback {
        by: Actor,
        to: u64,
    },
    /// A file was changed. Of list files only, the settings file counts as it was read last.
    Files(Watched),
}

impl Reason {
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Operator(Actor::Signal { .. }) => "SIGHUP",
            Self::Operator(_) | Self::Edit(_) => "a command",
            Self::Rollback { .. } => "a rollback",
            Self::Files(Watched::All) => "a settings file",
            Self::Files(_) => "a list file",
        }
    }

    /// Its name in the trail of changes.
    pub(in crate::cli) fn action(&self) -> &'static str {
        match self {
            Self::Operator(_) | Self::Edit(_) | Self::Files(_) => "reload",
            Self::Rollback { .. } => "rollback",
        }
    }

    pub(in crate::cli) fn actor(&self) -> Actor {
        match self {
            Self::Operator(by) | Self::Edit(by) | Self::Rollback { by, .. } => by.clone(),
            Self::Files(_) => Actor::Gateway,
        }
    }

    pub(super) fn is_of_lists(&self) -> bool {
        matches!(self, Self::Files(Watched::Lists))
    }

    pub(super) fn wanted(&self) -> Wanted {
        match self {
            Self::Edit(_) | Self::Files(Watched::Lists) => Wanted::ByItself,
            Self::Operator(_) | Self::Rollback { .. } | Self::Files(_) => Wanted::ByOperator,
        }
    }

    pub(super) fn period(&self) -> Duration {
        match self {
            Self::Operator(Actor::User { .. }) | Self::Edit(_) => COMMAND_PERIOD,
            Self::Operator(_) | Self::Rollback { .. } | Self::Files(_) => BUILD_PERIOD,
        }
    }
}

/// What files must be like to be put in force.
pub(in crate::cli) enum Expected {
    Anything,
    /// What `plan` saw, by its digest.
    Digest(String),
    /// Each file, with the SHA-256 of its content.
    Files(Vec<(PathBuf, String)>),
}

impl Expected {
    pub(super) fn fits(&self, whole: &Whole) -> bool {
        match self {
            Self::Anything => true,
            Self::Digest(digest) => *digest == whole.digest(),
            Self::Files(files) => {
                let read = whole.config.files.iter();
                read.map(|file| (file.path().to_owned(), file.sha256()))
                    .eq(files.iter().cloned())
            }
        }
    }
}
