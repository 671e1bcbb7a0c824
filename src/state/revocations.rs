//! Keys that were revoked while the gateway ran. They stay refused whatever the settings say: after a reload, and after a
//! restart if there is a state folder.

use std::collections::HashSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::model::{clock, locked};
use crate::state::folder::{append, owners_file};

/// A key that was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedKey {
    /// Its digest, as settings write it.
    pub digest: String,
    /// Whose it was.
    pub caller: String,
    /// Its label.
    pub label: String,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    key: &'a RevokedKey,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Revocations {
    /// Where they are kept, if anywhere.
    path: Option<PathBuf>,
    digests: Mutex<HashSet<String>>,
}

impl Revocations {
    /// Those in this file, to which more are added.
    ///
    /// # Errors
    /// When it cannot be read, or has a line that is none of ours: a key might be let in again.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let mut digests = HashSet::new();
        let text = read_lines(&path)?;
        for (number, line) in text.lines().enumerate() {
            let key: RevokedKey = serde_json::from_str(line).map_err(|_| {
                io::Error::other(format!(
                    "line {} of {} is no revoked key; correct or remove it",
                    number + 1,
                    path.display()
                ))
            })?;
            digests.insert(key.digest);
        }
        Ok(Self {
            path: Some(path),
            digests: Mutex::new(digests),
        })
    }

    /// Whether the key with this digest, as settings write it, was revoked.
    pub fn has(&self, digest: &str) -> bool {
        locked(&self.digests).contains(digest)
    }

    /// Whether any key was revoked.
    pub fn is_empty(&self) -> bool {
        locked(&self.digests).is_empty()
    }

    /// Adds a key, in memory only: whatever the disk does, it is refused.
    pub fn insert(&self, key: &RevokedKey) {
        locked(&self.digests).insert(key.digest.clone());
    }

    /// Writes a key down that was inserted.
    ///
    /// # Errors
    /// When it is not on the disk: after a restart it counts again unless the settings have it no more.
    pub fn write(&self, key: &RevokedKey) -> io::Result<()> {
        let Some(path) = &self.path else {
            return Err(io::Error::other("there is no state folder to keep it in"));
        };
        let known = format!("\"digest\":\"{}\"", key.digest);
        if read_lines(path)?.lines().any(|line| line.contains(&known)) {
            return Ok(());
        }
        let time = clock::stamp();
        let line = serde_json::to_string(&Line { time, key })?;
        append(&mut owners_file(path)?, &line)
    }
}

/// The lines that were written whole: the rest of one that a crash cut off is no key.
fn read_lines(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    owners_file(path)?.read_to_string(&mut text)?;
    text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::{Revocations, RevokedKey};

    fn add(revoked: &Revocations, key: &RevokedKey) -> std::io::Result<()> {
        revoked.insert(key);
        revoked.write(key)
    }

    fn key(digest: &str) -> RevokedKey {
        RevokedKey {
            digest: digest.to_owned(),
            caller: "shop".to_owned(),
            label: "first".to_owned(),
        }
    }

    #[test]
    fn what_was_revoked_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revoked.jsonl");
        let revoked = Revocations::open(path.clone()).unwrap();
        assert!(revoked.is_empty());
        add(&revoked, &key("sha256:00")).unwrap();
        add(&revoked, &key("sha256:01")).unwrap();
        let again = Revocations::open(path.clone()).unwrap();
        assert!(again.has("sha256:00") && again.has("sha256:01") && !again.has("sha256:02"));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}{{\"digest")).unwrap();
        assert!(
            Revocations::open(path.clone()).unwrap().has("sha256:01"),
            "a cut line is no key"
        );
        std::fs::write(&path, "sha256:00\n").unwrap();
        assert!(
            Revocations::open(path)
                .unwrap_err()
                .to_string()
                .contains("line 1")
        );
    }

    #[test]
    fn without_a_disk_it_is_revoked_all_the_same() {
        let revoked = Revocations::default();
        assert!(add(&revoked, &key("sha256:00")).is_err());
        assert!(revoked.has("sha256:00"));
    }
}
