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

/// The settings without their comments: what is kept of them must have no secret, and a comment may have one.
pub fn without_comments(text: &str) -> String {
    let table: Result<toml::Table, _> = text.parse();
    table.map(|table| table.to_string()).unwrap_or_default()
}

/// The folder that these settings name, also where they have mistakes elsewhere: what is there may be needed most then.
pub fn state_folder(text: &str, path: &Path) -> Option<PathBuf> {
    path_in(text, path, "state", "folder")
}

/// A path in a table of settings that may have mistakes elsewhere.
pub(super) fn path_in(text: &str, path: &Path, table: &str, key: &str) -> Option<PathBuf> {
    let all = text.parse().ok().unwrap_or_else(|| table_alone(text, table));
    let found = all.get(table)?.get(key)?.as_str()?;
    Some(path.parent().unwrap_or(Path::new("")).join(found))
}

/// A table of a file that is no TOML as a whole.
fn table_alone(text: &str, table: &str) -> toml::Table {
    let header = format!("[{table}]");
    let is_other = |line: &&str| !line.trim_start().starts_with('[');
    let lines = text.lines().skip_while(|line| line.trim() != header).skip(1);
    let lines: Vec<_> = lines.take_while(is_other).collect();
    format!("{header}\n{}", lines.join("\n"))
        .parse()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{state_folder, without_comments};

    #[test]
    fn the_folder_is_found_in_a_file_that_is_no_toml() {
        let found = |text: &str| state_folder(text, Path::new("etc/flowgate.toml"));
        let state = "[state]\n# Here.\nfolder = \"state\" # Backed up.\n";
        let broken = format!("[gateway\n{state}\n[[route]]\nname = \"orders\n");
        for text in [state.to_owned(), broken] {
            assert_eq!(found(&text), Some(PathBuf::from("etc/state")), "{text}");
        }
        for text in [
            "",
            "[other]\nfolder = \"state\"\n[",
            "[state]\nfolder = 7\n[",
            "[state]\n[",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn comments_are_left_out_and_values_stay() {
        let text = "# canary-secret\n[state] # canary-secret\nfolder = \"a # b\"\n";
        let kept = without_comments(text);
        assert!(!kept.contains("canary") && kept.contains("a # b"), "{kept}");
        assert_eq!(without_comments(&kept), kept);
    }
}
