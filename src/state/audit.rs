//! The trail of changes: who or what changed something, when, and what. Each line carries the hash of the line before it, so
//! that a line that was changed or removed shows. Anyone who can write the file can also write all of it anew: compare the hash of
//! the last line, which `flowgate audit verify` prints, with one that was kept elsewhere.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::model::{clock, locked};
use crate::state::folder::{LINE_BYTES_MAX, append, owners_file};

/// The version of a line.
const VERSION: u8 = 1;
/// What the first line has in place of the hash of one before it.
const NO_LINE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Who or what changed something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Actor {
    /// The process by itself: its start and stop, a file that was changed.
    Gateway,
    /// A signal of the system, which does not say who sent it.
    Signal {
        /// Its name.
        name: String,
    },
    /// A user of this machine, over the control socket.
    User {
        /// Number of the user.
        uid: u32,
        /// Its name, where the system knows one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Number of the process that asked.
        #[serde(skip_serializing_if = "Option::is_none")]
        pid: Option<i32>,
    },
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway => f.write_str("the gateway"),
            Self::Signal { name } => f.write_str(name),
            Self::User { uid, name: None, .. } => write!(f, "user {uid}"),
            Self::User {
                uid,
                name: Some(name),
                ..
            } => write!(f, "user {name} ({uid})"),
        }
    }
}

/// One line of the trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    v: u8,
    seq: u64,
    time: String,
    /// `start`, `stop`, `reload`, `key-revoke`.
    action: String,
    by: Actor,
    /// `done`, or why it was refused.
    outcome: String,
    /// What changed, in words without secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    what: Vec<String>,
    prev: String,
}

/// The trail, open for more lines.
#[derive(Debug)]
pub struct Trail {
    path: PathBuf,
    end: Mutex<End>,
}

/// Where the trail goes on.
#[derive(Debug)]
struct End {
    seq: u64,
    prev: String,
}

impl Trail {
    /// Opens the trail in this file; one that is there goes on.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let mut end = End {
            seq: 0,
            prev: NO_LINE.to_owned(),
        };
        let mut lines = BufReader::new(owners_file(&path)?);
        // A line that a crash cut off never counted.
        while let Some(line) = next_line(&mut lines)?.filter(|line| line.is_whole) {
            let entry: Option<Entry> = serde_json::from_slice(&line.bytes).ok();
            end.seq = entry.map_or(end.seq + 1, |entry| entry.seq);
            end.prev = hash(&line.bytes);
        }
        Ok(Self {
            path,
            end: Mutex::new(end),
        })
    }

    /// Adds a line, down to the disk.
    ///
    /// # Errors
    /// When it cannot be written; then whatever it reports must not happen.
    pub fn record(&self, by: &Actor, action: &str, outcome: &str, what: &[String]) -> io::Result<()> {
        let mut end = locked(&self.end);
        let entry = Entry {
            v: VERSION,
            seq: end.seq + 1,
            time: clock::stamp(),
            action: action.to_owned(),
            by: by.clone(),
            outcome: outcome.to_owned(),
            what: what.to_vec(),
            prev: end.prev.clone(),
        };
        let line = serde_json::to_string(&entry)?;
        // Opened each time: a trail that was moved away goes on in a new file, whose first line follows from its last.
        append(&mut owners_file(&self.path)?, &line)?;
        end.seq = entry.seq;
        end.prev = hash(line.as_bytes());
        Ok(())
    }
}

struct Line {
    bytes: Vec<u8>,
    is_whole: bool,
}

fn next_line(lines: &mut impl BufRead) -> io::Result<Option<Line>> {
    let mut bytes = Vec::new();
    let count = io::Read::take(lines, LINE_BYTES_MAX).read_until(b'\n', &mut bytes)?;
    if count == 0 {
        return Ok(None);
    }
    let is_whole = bytes.pop_if(|last| *last == b'\n').is_some();
    Ok(Some(Line { bytes, is_whole }))
}

pub(super) fn hash(line: &[u8]) -> String {
    let digest = digest(&SHA256, line);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A trail without a break.
#[derive(Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many lines it has.
    pub lines: u64,
    /// Hash of the last one.
    pub last: String,
}

/// Why a trail is not what was written.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// A line is not the one that was written there.
    #[error("line {line} {why}")]
    Line {
        /// Its number, from 1 on.
        line: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
}

/// Checks a trail from its first line on.
///
/// # Errors
/// The first line that does not follow from the one before it.
pub fn verify(path: &Path) -> Result<Verified, Broken> {
    let mut lines = BufReader::new(File::open(path)?);
    let mut verified = Verified {
        lines: 0,
        last: NO_LINE.to_owned(),
    };
    while let Some(line) = next_line(&mut lines)? {
        let number = verified.lines + 1;
        let broken = |why| Broken::Line { line: number, why };
        if !line.is_whole {
            return Err(broken("was cut off"));
        }
        let entry: Entry =
            serde_json::from_slice(&line.bytes).map_err(|_| broken("is no line of the trail"))?;
        if entry.prev != verified.last {
            return Err(broken(
                "does not follow from the line before it: one of both was changed, or lines between them were removed",
            ));
        }
        if entry.seq != number {
            return Err(broken("has another number than its place"));
        }
        verified = Verified {
            lines: number,
            last: hash(&line.bytes),
        };
    }
    Ok(verified)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Actor, Broken, Trail, verify};

    fn written(path: &std::path::Path, lines: usize) {
        let trail = Trail::open(path.to_owned()).unwrap();
        for number in 0..lines {
            let what = [format!("change {number}")];
            trail.record(&Actor::Gateway, "reload", "done", &what).unwrap();
        }
    }

    fn broken_at(path: &std::path::Path) -> u64 {
        match verify(path) {
            Err(Broken::Line { line, .. }) => line,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_trail_goes_on_where_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        written(&path, 2);
        written(&path, 3);
        assert_eq!(verify(&path).unwrap().lines, 5);
    }

    #[test]
    fn a_line_that_was_changed_removed_or_cut_shows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        written(&path, 4);
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();

        fs::write(&path, text.replace("change 1", "change 7")).unwrap();
        assert_eq!(broken_at(&path), 3);
        fs::write(&path, format!("{}\n{}\n{}\n", lines[0], lines[2], lines[3])).unwrap();
        assert_eq!(broken_at(&path), 2);
        fs::write(&path, format!("{}\n{}\n", lines[1], lines[2])).unwrap();
        assert_eq!(broken_at(&path), 1);
        fs::write(&path, format!("{text}{{\"v\"")).unwrap();
        assert_eq!(broken_at(&path), 5);
        // A line that was never whole goes with the next one.
        written(&path, 1);
        assert_eq!(verify(&path).unwrap().lines, 5);
    }
}
