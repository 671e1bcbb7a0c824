//! What was checked so far, and what that brought for later checks.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use crate::doctor::network::CheckedHosts;
use crate::doctor::report::Group;
use crate::entra::Token;
use crate::model::{IdentityName, Secret};
use crate::settings::{SecretSource, VaultReference, VaultValue};

/// The tokens by identity, of those that got one.
pub(crate) type HeldTokens = HashMap<IdentityName, Arc<Token>>;

/// The checks made so far, each once.
#[derive(Default)]
pub struct Walk {
    pub(super) groups: Vec<Group>,
    pub(super) seen: CheckedHosts,
    pub(super) held: HeldTokens,
    /// The scopes of those tokens.
    pub(super) asked: HashMap<IdentityName, String>,
    pub(super) vaults: Vaults,
    pub(super) done: HashSet<IdentityName>,
}

impl fmt::Debug for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walk")
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}

/// What was read from vaults.
#[derive(Debug, Default)]
pub(super) struct Vaults(
    /// `None` for a secret that could not be read.
    pub(super) HashMap<VaultReference, Option<VaultValue>>,
);

impl Vaults {
    /// The value of a source, wherever it is stored, or why it is missing.
    pub(super) fn get(&self, source: &SecretSource) -> Result<Secret, String> {
        let Some(place) = source.vault() else {
            let known = source.known().cloned();
            return known.ok_or_else(|| format!("{} was not read", source.place()));
        };
        self.of(place)
            .ok_or_else(|| format!("{place} could not be read, see vault {}", place.authority()))
    }

    pub(super) fn of(&self, place: &VaultReference) -> Option<Secret> {
        self.0.get(place)?.as_ref().map(|found| found.secret.clone())
    }
}
