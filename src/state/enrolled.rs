//! Secrets that vendors sent in their handshakes and nobody can look up again. They are kept in one file that only its owner can
//! read; it is replaced as a whole.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::files;
use crate::files::Draft;
use crate::model::{CallerName, KeyLabel, Secret, clock, locked};

/// Callers have eight secrets at most, and only those that enrol have any here.
const BYTES_MAX: u64 = 1024 * 1024;

/// A secret that a vendor has sent.
#[derive(Debug, Clone)]
pub struct EnrolledSecret {
    /// Whose deliveries are signed with it.
    pub caller: CallerName,
    pub label: KeyLabel,
    pub secret: Secret,
    /// When it came.
    pub since: String,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    caller: String,
    label: String,
    since: String,
    secret: String,
}

/// Why a secret is not kept.
#[derive(Debug, thiserror::Error)]
pub enum NotEnrolled {
    #[error("there is no state folder to keep it in; set `folder` of [state]")]
    NoFolder,
    #[error("caller {0} has as many secrets as there may be; forget one with `flowgate vendor forget`")]
    Full(CallerName),
    #[error("it cannot be kept: {0}")]
    Unwritten(#[from] io::Error),
}

/// All of them.
#[derive(Debug, Default)]
pub struct Enrolled {
    /// Where they are kept, if anywhere.
    path: Option<PathBuf>,
    /// Held while the file is replaced.
    writing: Mutex<()>,
    secrets: Mutex<Vec<EnrolledSecret>>,
}

impl Enrolled {
    /// Those in this file, which need not be there.
    ///
    /// # Errors
    /// When it cannot be read, or has a line that is none of ours: deliveries would be refused.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let secrets = match path.try_exists()? {
            true => read(&path)?,
            false => Vec::new(),
        };
        Ok(Self {
            path: Some(path),
            writing: Mutex::default(),
            secrets: Mutex::new(secrets),
        })
    }

    /// Whether they can be kept.
    pub fn has_place(&self) -> bool {
        self.path.is_some()
    }

    /// Those of a caller, the oldest first.
    pub fn of(&self, caller: &CallerName) -> Vec<EnrolledSecret> {
        let secrets = locked(&self.secrets);
        let mine = secrets.iter().filter(|kept| kept.caller == *caller);
        mine.cloned().collect()
    }

    /// Keeps a secret of a caller that has fewer than this many, under a new label that begins with this. The disk comes first:
    /// the vendor never sends it again.
    ///
    /// # Errors
    /// When it is not on the disk; then it does not count.
    pub fn add(
        &self,
        caller: &CallerName,
        secret: Secret,
        (prefix, max): (&str, usize),
    ) -> Result<KeyLabel, NotEnrolled> {
        let path = self.path.as_ref().ok_or(NotEnrolled::NoFolder)?;
        let _writing = locked(&self.writing);
        let mut secrets = locked(&self.secrets).clone();
        let mine = secrets.iter().filter(|kept| kept.caller == *caller);
        let taken: Vec<KeyLabel> = mine.map(|kept| kept.label.clone()).collect();
        let labels = (1..).map(|number| KeyLabel::parse(&format!("{prefix}-{number}")));
        let mut free = labels
            .map_while(Result::ok)
            .filter(|label| !taken.contains(label));
        let label = free.next().filter(|_| taken.len() < max);
        let label = label.ok_or_else(|| NotEnrolled::Full(caller.clone()))?;
        secrets.push(EnrolledSecret {
            caller: caller.clone(),
            label: label.clone(),
            secret,
            since: clock::stamp(),
        });
        write(path, &secrets)?;
        *locked(&self.secrets) = secrets;
        Ok(label)
    }

    /// Forgets a secret, in memory first: whatever the disk does, nothing that is signed with it is accepted. Returns whether
    /// there was one.
    ///
    /// # Errors
    /// When the file still has it: it counts again after a restart.
    pub fn remove(&self, caller: &CallerName, label: &KeyLabel) -> io::Result<bool> {
        let _writing = locked(&self.writing);
        let (left, is_found) = {
            let mut secrets = locked(&self.secrets);
            let before = secrets.len();
            secrets.retain(|kept| kept.caller != *caller || kept.label != *label);
            (secrets.clone(), secrets.len() < before)
        };
        if let Some(path) = self.path.as_ref().filter(|_| is_found) {
            write(path, &left)?;
        }
        Ok(is_found)
    }
}

fn read(path: &Path) -> io::Result<Vec<EnrolledSecret>> {
    let text = files::read_text(path, BYTES_MAX).map_err(|flaw| io::Error::other(flaw.what))?;
    let parse = |(number, line): (usize, &str)| {
        let read = serde_json::from_str(line).ok().and_then(|line: Line| {
            Some(EnrolledSecret {
                caller: CallerName::parse(&line.caller).ok()?,
                label: KeyLabel::parse(&line.label).ok()?,
                secret: Secret::new(line.secret),
                since: line.since,
            })
        });
        read.ok_or_else(|| {
            let (number, path) = (number + 1, path.display());
            io::Error::other(format!(
                "line {number} of {path} is no secret of a vendor; correct or remove it"
            ))
        })
    };
    text.lines().enumerate().map(parse).collect()
}

fn write(path: &Path, secrets: &[EnrolledSecret]) -> io::Result<()> {
    let mut text = zeroize::Zeroizing::new(String::new());
    for kept in secrets {
        let line = Line {
            caller: kept.caller.to_string(),
            label: kept.label.to_string(),
            since: kept.since.clone(),
            secret: kept.secret.expose().to_owned(),
        };
        text.push_str(&serde_json::to_string(&line)?);
        text.push('\n');
    }
    let draft = Draft::beside(path)?;
    draft.write(text.as_bytes())?;
    draft.put()?;
    draft.sweep();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Enrolled, NotEnrolled};
    use crate::model::{CallerName, KeyLabel, Secret};

    fn caller(name: &str) -> CallerName {
        CallerName::parse(name).unwrap()
    }

    fn labels(enrolled: &Enrolled, name: &str) -> Vec<String> {
        let kept = enrolled.of(&caller(name)).into_iter();
        kept.map(|kept| kept.label.to_string()).collect()
    }

    #[test]
    fn what_was_enrolled_is_there_after_a_restart_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("enrolled.jsonl");
        let enrolled = Enrolled::open(path.clone()).unwrap();
        let add = |name: &str, secret: &str| {
            let added = enrolled.add(&caller(name), Secret::new(secret), ("asana", 2));
            added.map(|label| label.to_string())
        };
        assert_eq!(add("board", "canary-1").unwrap(), "asana-1");
        assert_eq!(add("board", "canary-2").unwrap(), "asana-2");
        assert_eq!(add("other", "canary-3").unwrap(), "asana-1");
        assert!(matches!(add("board", "canary-4"), Err(NotEnrolled::Full(_))));
        let again = Enrolled::open(path.clone()).unwrap();
        assert_eq!(labels(&again, "board"), ["asana-1", "asana-2"]);
        assert_eq!(again.of(&caller("other"))[0].secret.expose(), "canary-3");
        let first = KeyLabel::parse("asana-1").unwrap();
        assert!(enrolled.remove(&caller("board"), &first).unwrap());
        assert!(!enrolled.remove(&caller("board"), &first).unwrap());
        assert_eq!(add("board", "canary-5").unwrap(), "asana-1", "a free label");
        let again = Enrolled::open(path.clone()).unwrap();
        assert_eq!(labels(&again, "board"), ["asana-2", "asana-1"]);
        assert!(!format!("{again:?}").contains("canary"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{mode:o}");
        }
        std::fs::write(&path, "canary\n").unwrap();
        let why = Enrolled::open(path).unwrap_err().to_string();
        assert!(why.contains("line 1") && !why.contains("canary"), "{why}");
    }

    #[test]
    fn what_cannot_be_kept_does_not_count_and_what_is_forgotten_does_neither() {
        let none = Enrolled::default();
        let added = none.add(&caller("board"), Secret::new("a"), ("asana", 2));
        assert!(matches!(added, Err(NotEnrolled::NoFolder)));
        let folder = tempfile::tempdir().unwrap();
        let enrolled = Enrolled::open(folder.path().join("enrolled.jsonl")).unwrap();
        let add = || enrolled.add(&caller("board"), Secret::new("a"), ("asana", 2));
        let label = add().unwrap();
        std::fs::remove_dir_all(folder.path()).unwrap();
        assert!(matches!(add(), Err(NotEnrolled::Unwritten(_))));
        assert_eq!(labels(&enrolled, "board"), ["asana-1"]);
        assert!(enrolled.remove(&caller("board"), &label).is_err());
        assert!(labels(&enrolled, "board").is_empty());
    }
}
