//! Records settings and list files at load time, so that a running gateway can report whether they have changed since. Only
//! a digest is kept, never content.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fmt, io};

use aws_lc_rs::digest::{Context, Digest, SHA256};

use crate::files;
use crate::settings::lists;

const PIECE_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone)]
pub struct FileInForce {
    path: PathBuf,
    digest: Digest,
}

/// What no look is like, so that the first one is reason to compare.
pub const UNSEEN: Look = Look(Some((u64::MAX, None, 0)));

/// Size, time of the last change and number of a file: what changes with its content, also where a link is set anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look(Option<(u64, Option<SystemTime>, u64)>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileState {
    Same,
    Differs,
    Unreadable(String),
}

impl FileInForce {
    pub(super) fn new(path: &Path, content: &[u8]) -> Self {
        Self {
            path: path.to_owned(),
            digest: aws_lc_rs::digest::digest(&SHA256, content),
        }
    }

    /// The digest of its content.
    pub fn digest(&self) -> &[u8] {
        self.digest.as_ref()
    }

    /// The same in hexadecimal digits.
    pub fn sha256(&self) -> String {
        hex(self.digest())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file has this digest now. It blocks.
    pub fn is_now(&self, sha256: &str) -> bool {
        let digest = digest_of(&self.path).ok().flatten();
        digest.is_some_and(|digest| hex(digest.as_ref()) == sha256)
    }

    /// Whether it is the file at this path, also over links.
    pub fn is_at(&self, path: &Path) -> bool {
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        self.path == path || real(path).is_some_and(|path| real(&self.path) == Some(path))
    }

    /// Whether the other one is the same file with the same content.
    pub fn is_same(&self, other: &Self) -> bool {
        self.path == other.path && self.digest.as_ref() == other.digest.as_ref()
    }

    /// How the file looks from outside; another look is reason to compare it. Nothing where there is none.
    pub fn look(&self) -> Look {
        Look(std::fs::metadata(&self.path).ok().map(|metadata| {
            #[cfg(unix)]
            let number = std::os::unix::fs::MetadataExt::ino(&metadata);
            #[cfg(not(unix))]
            let number = 0;
            (metadata.len(), metadata.modified().ok(), number)
        }))
    }

    /// Compares the file as it is now with what is in force. It blocks: a list may have many megabytes.
    pub fn compare(&self) -> FileState {
        match digest_of(&self.path) {
            Ok(Some(digest)) if digest.as_ref() == self.digest.as_ref() => FileState::Same,
            Ok(_) => FileState::Differs,
            Err(why) => FileState::Unreadable(why),
        }
    }
}

impl fmt::Display for FileInForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// The digest of a text, as that of its file.
pub fn sha256_of(text: &str) -> String {
    hex(aws_lc_rs::digest::digest(&SHA256, text.as_bytes()).as_ref())
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Nothing for a file that is larger than any that can be in force.
fn digest_of(path: &Path) -> Result<Option<Digest>, String> {
    // Opening a pipe would wait for a writer, and what came out of one at the start cannot be read again.
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(format!("{} is not a file that can be read again", path.display()));
    }
    let file = files::open(path).map_err(|flaw| flaw.what)?;
    let mut file = file.take(lists::LIST_BYTES_MAX + 1);
    let mut context = Context::new(&SHA256);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => context.update(piece.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("file {} cannot be read: {error}", path.display())),
        }
    }
    Ok((file.limit() > 0).then(|| context.finish()))
}

#[cfg(test)]
mod tests {
    use super::{FileInForce, FileState, sha256_of};

    #[test]
    fn a_file_is_compared_with_what_was_read_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        std::fs::write(&path, "one\n").unwrap();
        let file = FileInForce::new(&path, b"one\n");
        assert_eq!(file.compare(), FileState::Same);
        assert!(file.is_now(&file.sha256()) && file.sha256() == sha256_of("one\n"));
        assert!(file.is_at(&folder.path().join(".").join("list")) && !file.is_at(folder.path()));
        std::fs::write(&path, "two\n").unwrap();
        assert_eq!(file.compare(), FileState::Differs);
        std::fs::write(&path, "one\n").unwrap();
        assert_eq!(file.compare(), FileState::Same);
        std::fs::remove_file(&path).unwrap();
        let FileState::Unreadable(why) = file.compare() else {
            panic!("a file that is not there");
        };
        assert!(why.ends_with("does not exist"), "{why}");
    }
}
