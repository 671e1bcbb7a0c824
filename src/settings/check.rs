//! The state of a check of the settings; each table's rules are in the file of the table.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::model::Network;
use crate::settings::files::FileInForce;
use crate::settings::findings::{Findings, Mark};
use crate::settings::fingerprint::Fingerprint;
use crate::settings::{Environment, FileSchema, VaultReference};

pub(super) struct Check<'a> {
    pub(super) findings: Findings,
    pub(super) environment: &'a Environment,
    /// Where relative paths start.
    pub(super) folder: PathBuf,
    /// Network lists that were read: a list used twice is read, and its mistakes reported, once. `None` marks a list with
    /// mistakes.
    pub(super) lists: HashMap<PathBuf, Option<Vec<Network>>>,
    /// The same of schemas of bodies.
    pub(super) schemas: HashMap<PathBuf, Option<Arc<FileSchema>>>,
    pub(super) vaults: VaultUses,
    /// Of everything that was read and is no secret.
    pub(super) fingerprint: Fingerprint,
    /// The lists and schemas that were read.
    pub(super) files: Vec<FileInForce>,
}

/// Where the settings name secrets in key vaults.
#[derive(Debug, Default)]
pub(super) struct VaultUses {
    /// Needed before anything can be served.
    pub(super) at_start: Vec<(Mark, VaultReference)>,
    /// Needed when an identity asks for a token.
    pub(super) later: Vec<(Mark, VaultReference)>,
}
