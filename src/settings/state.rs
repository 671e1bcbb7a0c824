//! `[state]`: what is kept on disk.

use std::path::{Path, PathBuf};

use crate::settings::kinds::{ANY, At};
use crate::settings::table::table;

table! {
    /// What is kept on disk.
    pub(crate) struct StateTable {
        /// Folder for the trail of changes, revoked keys and the control socket; default: nothing is kept.
        folder: Option<At<String>> = None, ANY, Restart;
    }
}

/// The folder that these settings name, also where they have mistakes elsewhere.
pub fn state_folder(text: &str, path: &Path) -> Option<PathBuf> {
    let table: toml::Table = text.parse().ok()?;
    let folder = table.get("state")?.get("folder")?.as_str()?;
    Some(path.parent().unwrap_or(Path::new("")).join(folder))
}
