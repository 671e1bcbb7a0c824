//! The state folder: made for its owner alone, and locked for as long as its process runs.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Longest line that is written to a file of the folder.
pub(super) const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// The folder of `[state]`, while this process has it.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
    /// Unlocked when it is closed, however the process ends.
    _lock: File,
}

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process has it.
    #[error(
        "the state folder {} is used by another process: stop that one, or give this gateway a folder of its own in \
         `folder` of [state]",
        .0.display()
    )]
    Taken(PathBuf),
    /// Others can read or change what is there.
    #[error("the state folder {} is open to other users: run `chmod 700` for it", .0.display())]
    Open(PathBuf),
    /// The system refuses it.
    #[error(
        "the state folder {} cannot be used: {error}; it must be a folder that the user of the gateway can write to",
        .path.display()
    )]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

impl StateFolder {
    /// Makes the folder unless it is there, and takes it.
    ///
    /// # Errors
    /// Names the folder and what to do.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let unusable = |error| StateError::Unusable {
            path: path.to_owned(),
            error,
        };
        make(path).map_err(unusable)?;
        if is_open(path).map_err(unusable)? {
            return Err(StateError::Open(path.to_owned()));
        }
        let lock = owners_file(&path.join("lock")).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(std::fs::TryLockError::WouldBlock) => Err(StateError::Taken(path.to_owned())),
            Err(std::fs::TryLockError::Error(error)) => Err(unusable(error)),
        }
    }

    /// A file in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// A file that is appended to and that only its owner can read.
pub(super) fn owners_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).append(true).read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Adds a line to a file, down to the disk, or nothing. What an earlier crash has cut off is removed.
pub(super) fn append(file: &mut File, line: &str) -> io::Result<()> {
    let end = whole_lines(file)?;
    file.set_len(end)?;
    let written = file
        .write_all(format!("{line}\n").as_bytes())
        .and_then(|()| file.sync_data());
    if written.is_err() {
        // A full disk lets a file become shorter.
        let _ = file.set_len(end);
    }
    written
}

/// Where the last whole line of a file ends.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let begin = length.saturating_sub(LINE_BYTES_MAX);
    file.seek(SeekFrom::Start(begin))?;
    let mut last = Vec::new();
    Read::by_ref(file).take(LINE_BYTES_MAX).read_to_end(&mut last)?;
    let end = last.iter().rposition(|byte| *byte == b'\n');
    Ok(end.map_or(begin, |end| begin + end as u64 + 1))
}

pub(super) fn make(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

#[cfg(unix)]
fn is_open(path: &Path) -> io::Result<bool> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0)
}

// The rights of folders are lists there, which the folder inherits.
#[cfg(not(unix))]
fn is_open(_: &Path) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::{StateError, StateFolder};

    #[test]
    fn one_process_at_a_time_has_the_folder() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let first = StateFolder::open(&path).unwrap();
        assert!(matches!(StateFolder::open(&path), Err(StateError::Taken(_))));
        drop(first);
        StateFolder::open(&path).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_others_can_enter_is_refused() {
        use std::os::unix::fs::PermissionsExt;

        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        drop(StateFolder::open(&path).unwrap());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o750)).unwrap();
        let error = StateFolder::open(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 700"), "{error}");
        std::fs::write(parent.path().join("file"), "").unwrap();
        assert!(matches!(
            StateFolder::open(&parent.path().join("file")),
            Err(StateError::Unusable { .. })
        ));
    }
}
