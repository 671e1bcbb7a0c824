//! Settings that were in force, kept so that they can be put in force again. They contain no secret: settings name the
//! places of secrets, and comments are left out. Lists are stored once for all revisions that have them.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::files;
use crate::files::Draft;
use crate::model::clock;
use crate::state::audit::{Actor, hash};
use crate::state::folder::make;

/// Revisions that are kept, besides one that is pinned.
const KEPT_MAX: usize = 10;
/// Largest file of a revision, and of a list: settings and lists are smaller when they are loaded.
const FILE_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// The version of the file of a revision.
const VERSION: u8 = 1;

/// Settings that were in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    v: u8,
    /// Counts all settings that this state folder has seen in force.
    pub number: u64,
    /// When they came into force, and by whom.
    pub time: String,
    pub by: Actor,
    /// What differed from the revision before.
    pub changes: Vec<String>,
    /// The settings file without comments.
    pub settings: String,
    pub lists: Vec<ListVersion>,
}

/// A list as a revision has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListVersion {
    pub path: PathBuf,
    /// SHA-256 of its content in hexadecimal digits, by which it is stored.
    pub sha256: String,
}

impl Revision {
    /// One that comes into force now.
    pub fn new(number: u64, by: Actor, settings: String, lists: Vec<ListVersion>) -> Self {
        Self {
            v: VERSION,
            number,
            time: clock::stamp(),
            by,
            changes: Vec::new(),
            settings,
            lists,
        }
    }

    /// Whether both decide the same.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.settings, &self.lists) == (&other.settings, &other.lists)
    }
}

/// All revisions that are kept.
#[derive(Debug)]
pub struct Revisions {
    folder: PathBuf,
}

impl Revisions {
    /// Those in this folder, which need not be there.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn file(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number}.json"))
    }

    fn list(&self, sha256: &str) -> PathBuf {
        self.folder.join(format!("{sha256}.list"))
    }

    fn pin_file(&self) -> PathBuf {
        self.folder.join("pinned")
    }

    /// The numbers that are kept, the oldest first.
    pub fn numbers(&self) -> BTreeSet<u64> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let number = |entry: fs::DirEntry| {
            let name = entry.file_name();
            name.to_str()?.strip_suffix(".json")?.parse().ok()
        };
        entries.filter_map(number).collect()
    }

    /// The one with this number.
    ///
    /// # Errors
    /// Why there is none.
    pub fn read(&self, number: u64) -> Result<Revision, String> {
        if !self.numbers().contains(&number) {
            return Err(format!(
                "revision {number} is not kept; `flowgate rollback` lists those that are"
            ));
        }
        let path = self.file(number);
        let text = files::read_text(&path, FILE_BYTES_MAX).map_err(|flaw| flaw.what)?;
        let revision: Result<Revision, _> = serde_json::from_str(&text);
        let read = revision
            .ok()
            .filter(|read| read.v == VERSION && read.number == number);
        read.ok_or_else(|| format!("{} is damaged, or was written by another version", path.display()))
    }

    /// The last one, if it can be read.
    pub fn last(&self) -> Option<Revision> {
        self.read(*self.numbers().last()?).ok()
    }

    /// The content of its lists.
    ///
    /// # Errors
    /// Names the list that cannot be read.
    pub fn lists(&self, revision: &Revision) -> Result<HashMap<PathBuf, String>, String> {
        let lists = revision.lists.iter().map(|list| {
            let text = files::read_text(&self.list(&list.sha256), FILE_BYTES_MAX);
            let text = text.map_err(|flaw| flaw.what)?;
            let content = hash(text.as_bytes());
            match content == list.sha256 {
                true => Ok((list.path.clone(), text)),
                false => Err(format!("{} is damaged", self.list(&list.sha256).display())),
            }
        });
        lists.collect()
    }

    /// Keeps one, and forgets the oldest. A list is read from its place unless it is here already.
    ///
    /// # Errors
    /// Why it cannot be kept; the others stay.
    pub fn keep(&self, revision: &Revision) -> io::Result<()> {
        make(&self.folder)?;
        for list in &revision.lists {
            let kept = self.list(&list.sha256);
            if kept.exists() {
                continue;
            }
            let text =
                files::read_text(&list.path, FILE_BYTES_MAX).map_err(|flaw| io::Error::other(flaw.what))?;
            if hash(text.as_bytes()) != list.sha256 {
                let path = list.path.display();
                return Err(io::Error::other(format!("{path} has changed since it was read")));
            }
            put(&kept, text.as_bytes())?;
        }
        let last = self
            .last()
            .filter(|last| last.is_same(revision) && last.number != revision.number);
        put(&self.file(revision.number), &serde_json::to_vec(revision)?)?;
        // Reloads without a change must not push out those that there is a way back to.
        if let Some(last) = last.filter(|last| self.pinned() != Ok(Some(last.number))) {
            let _ = fs::remove_file(self.file(last.number));
        }
        self.forget();
        Ok(())
    }

    /// Removes what is too old, and lists that no revision has any more.
    fn forget(&self) {
        let numbers = self.numbers();
        let surplus = numbers.len().saturating_sub(KEPT_MAX);
        let pinned = self.pinned().ok().flatten();
        for number in numbers
            .iter()
            .take(surplus)
            .filter(|number| Some(**number) != pinned)
        {
            // What cannot be removed is tried again with the next one.
            let _ = fs::remove_file(self.file(*number));
        }
        let mut needed = BTreeSet::new();
        for number in self.numbers() {
            // A revision that cannot be read may need any list.
            let Ok(revision) = self.read(number) else { return };
            needed.extend(revision.lists.into_iter().map(|list| list.sha256));
        }
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let list = name.to_str().and_then(|name| name.strip_suffix(".list"));
            if list.is_some_and(|list| !needed.contains(list)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// The revision that a start takes in place of the settings file.
    ///
    /// # Errors
    /// When the pin cannot be read: it may be there for a good reason.
    pub fn pinned(&self) -> Result<Option<u64>, String> {
        let path = self.pin_file();
        match fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(format!("{} contains no number of a revision", path.display())),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
        }
    }

    /// Has a start take this revision; without one the settings file counts again.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn pin(&self, number: Option<u64>) -> io::Result<()> {
        match number {
            Some(number) => put(&self.pin_file(), format!("{number}\n").as_bytes()),
            None => match fs::remove_file(self.pin_file()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                // A removal lasts once the folder is on the disk.
                _ => fs::File::open(&self.folder).map_or(Ok(()), |folder| folder.sync_all()),
            },
        }
    }

    /// Where the pin is, for messages.
    pub fn pin_path(&self) -> PathBuf {
        self.pin_file()
    }
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = Draft::beside(path)?;
    draft.sweep();
    draft.write(bytes)?;
    draft.put()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{KEPT_MAX, ListVersion, Revision, Revisions};
    use crate::state::audit::{Actor, hash};

    fn revision(number: u64, settings: &str, lists: &[(&Path, &str)]) -> Revision {
        let lists = lists.iter().map(|(path, text)| ListVersion {
            path: (*path).to_owned(),
            sha256: hash(text.as_bytes()),
        });
        Revision::new(number, Actor::Gateway, settings.to_owned(), lists.collect())
    }

    #[test]
    fn what_was_kept_comes_back_with_its_lists_also_when_they_have_changed() {
        let folder = tempfile::tempdir().unwrap();
        let revisions = Revisions::at(folder.path().join("revisions"));
        let list = folder.path().join("partners");
        fs::write(&list, "10.0.0.0/8\n").unwrap();
        let first = revision(1, "a = 1\n", &[(&list, "10.0.0.0/8\n")]);
        revisions.keep(&first).unwrap();
        fs::write(&list, "0.0.0.0/0\n").unwrap();

        let read = revisions.read(1).unwrap();
        assert_eq!(read, first);
        assert_eq!(revisions.lists(&read).unwrap()[&list], "10.0.0.0/8\n");
        // A list that changed between its use and now is not the one that was in force.
        let error = revisions
            .keep(&revision(2, "a = 2\n", &[(&list, "other")]))
            .unwrap_err();
        assert!(error.to_string().contains("has changed since"), "{error}");
        assert_eq!(revisions.numbers().len(), 1);
    }

    #[test]
    fn the_last_ten_stay_and_the_pinned_one() {
        let folder = tempfile::tempdir().unwrap();
        let revisions = Revisions::at(folder.path().join("revisions"));
        let list = folder.path().join("partners");
        for number in 1..=KEPT_MAX as u64 + 5 {
            let text = format!("10.0.0.{number}\n");
            fs::write(&list, &text).unwrap();
            revisions.keep(&revision(number, "", &[(&list, &text)])).unwrap();
            if number == 2 {
                revisions.pin(Some(2)).unwrap();
            }
        }
        let numbers: Vec<_> = revisions.numbers().into_iter().collect();
        assert_eq!(numbers[..2], [2, 6]);
        assert_eq!(numbers.len(), KEPT_MAX + 1);
        let lists = fs::read_dir(folder.path().join("revisions"))
            .unwrap()
            .filter(|entry| {
                let name = entry.as_ref().unwrap().file_name();
                name.to_str().unwrap().ends_with(".list")
            });
        assert_eq!(lists.count(), numbers.len());
        assert_eq!(revisions.pinned(), Ok(Some(2)));
        revisions.pin(None).unwrap();
        revisions.pin(None).unwrap();
        assert_eq!(revisions.pinned(), Ok(None));
    }

    #[test]
    fn settings_that_stay_the_same_are_kept_once() {
        let folder = tempfile::tempdir().unwrap();
        let revisions = Revisions::at(folder.path().join("revisions"));
        for (number, settings) in [(1, "a = 1\n"), (2, "a = 2\n"), (3, "a = 2\n"), (4, "a = 2\n")] {
            revisions.keep(&revision(number, settings, &[])).unwrap();
        }
        assert_eq!(revisions.numbers().into_iter().collect::<Vec<_>>(), [1, 4]);
    }

    #[test]
    fn what_is_damaged_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let revisions = Revisions::at(folder.path().join("revisions"));
        let list = folder.path().join("partners");
        fs::write(&list, "10.0.0.0/8\n").unwrap();
        let kept = revision(1, "", &[(&list, "10.0.0.0/8\n")]);
        revisions.keep(&kept).unwrap();
        fs::write(revisions.list(&kept.lists[0].sha256), "0.0.0.0/0\n").unwrap();
        assert!(revisions.lists(&kept).unwrap_err().ends_with("is damaged"));
        fs::write(revisions.file(1), "{}").unwrap();
        assert!(revisions.read(1).unwrap_err().contains("1.json is damaged"));
        assert!(revisions.read(2).unwrap_err().contains("revision 2 is not kept"));
        fs::write(revisions.pin_file(), "x").unwrap();
        assert!(
            revisions
                .pinned()
                .unwrap_err()
                .contains("no number of a revision")
        );
    }
}
