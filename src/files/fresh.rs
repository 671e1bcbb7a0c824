//! New files that are made together: either all of them are there afterwards or none, and no file that was there before
//! is touched.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::files::draft::{named, owners_only};

/// Who may read a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// As the umask has it.
    Usual,
    Owner,
}

/// Files and folders that were made so far. They are removed with this value unless they are kept.
#[derive(Debug, Default)]
pub(crate) struct Fresh(Vec<PathBuf>);

impl Fresh {
    /// Makes a folder unless it is there.
    pub(crate) fn folder(&mut self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        fs::create_dir(path).map_err(|error| named(path, &error))?;
        self.0.push(path.to_owned());
        Ok(())
    }

    /// Makes a file; one that is there already is an error.
    pub(crate) fn file(&mut self, path: &Path, text: &str, access: Access) -> io::Result<()> {
        let mut options = match access {
            Access::Owner => owners_only(),
            Access::Usual => fs::OpenOptions::new(),
        };
        let file = options.write(true).create_new(true).open(path);
        let mut file = file.map_err(|error| named(path, &error))?;
        self.0.push(path.to_owned());
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        written.map_err(|error| named(path, &error))
    }

    pub(crate) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        for path in self.0.drain(..).rev() {
            // A folder in which somebody else has put a file by now stays.
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Access, Fresh};

    #[test]
    fn what_is_not_kept_is_removed_and_what_was_there_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let (folder, theirs) = (parent.path().join("new"), parent.path().join("theirs"));
        fs::write(&theirs, "theirs").unwrap();
        let mut fresh = Fresh::default();
        fresh.folder(&folder).unwrap();
        fresh.file(&folder.join("a"), "a", Access::Usual).unwrap();
        let why = fresh.file(&theirs, "ours", Access::Owner).unwrap_err();
        assert!(why.to_string().contains("theirs"), "{why}");
        drop(fresh);
        assert!(!folder.exists());
        assert_eq!(fs::read_to_string(&theirs).unwrap(), "theirs");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_for_its_owner_is_closed_to_others() {
        use std::os::unix::fs::PermissionsExt;

        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("key");
        let mut fresh = Fresh::default();
        fresh.file(&path, "key", Access::Owner).unwrap();
        fresh.keep();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
