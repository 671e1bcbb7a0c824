//! Files that are replaced as a whole, by a rename, so that a process that ends at any moment leaves the old file or the
//! new one.

use std::fs::{File, Metadata, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use crate::model::clock;

/// A draft that was cut off is removed by a later one, but not while its writer may still be at work.
const LEFTOVER_AGE: Duration = Duration::from_secs(60);
/// Most entries of the folder that are looked at for such files.
const FOLDER_ENTRIES_MAX: usize = 4096;

/// A file on its way to its place. It is removed with its owner unless it was put there.
pub(crate) struct Draft {
    folder: PathBuf,
    name: String,
    path: PathBuf,
    target: PathBuf,
    /// Whose owner the file gets: the file that it replaces, or its folder.
    model: Option<Metadata>,
}

impl Draft {
    /// A name in the same folder: only within one file system is a rename one step.
    pub(crate) fn beside(target: &Path) -> io::Result<Self> {
        let name = target.file_name();
        let name = name.ok_or_else(|| io::Error::other("its path ends in no file name"))?;
        let name = name.to_string_lossy().into_owned();
        let folder = match target.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        if !folder.is_dir() {
            let why = format!("folder {} does not exist", folder.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| io::Error::other("the system gives no random bytes"))?;
        Ok(Self {
            path: folder.join(format!(".{name}.{:016x}.new", u64::from_be_bytes(random))),
            model: fs::metadata(target).or_else(|_| fs::metadata(&folder)).ok(),
            folder,
            name,
            target: target.to_owned(),
        })
    }

    pub(crate) fn owned_like(mut self, model: &Path) -> Self {
        self.model = fs::metadata(model).ok();
        self
    }

    /// Waits until nobody else replaces the same file; the lock ends when it is dropped, or its process ends.
    pub(crate) fn lock(&self) -> io::Result<File> {
        let path = self.folder.join(format!(".{}.lock", self.name));
        let options = owners_only();
        // Who may write to the folder may have put a link there: none is followed to make a file, and only what was made
        // here changes hands.
        let file = match options.clone().create_new(true).open(&path) {
            Ok(file) => {
                self.hand_over(&file);
                Ok(file)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(&path),
            Err(error) => Err(error),
        };
        file.and_then(|file| file.lock().map(|()| file))
            .map_err(|error| named(&path, &error))
    }

    /// Writes it whole, down to the disk; only its owner has rights to it.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<File> {
        let mut options = owners_only();
        let written = options.create_new(true).open(&self.path).and_then(|mut file| {
            self.hand_over(&file);
            file.write_all(bytes)?;
            // The rename must not become lasting before what it puts in place.
            file.sync_all()?;
            Ok(file)
        });
        written.map_err(|error| named(&self.path, &error))
    }

    pub(crate) fn put(&self) -> io::Result<()> {
        fs::rename(&self.path, &self.target).map_err(|error| named(&self.target, &error))?;
        // The name is on the disk only when the folder is. Where folders cannot be opened, the system sees to it.
        if let Ok(folder) = File::open(&self.folder) {
            let _ = folder.sync_all();
        }
        Ok(())
    }

    /// Gives the file to the owner of the one before: the user that the gateway runs as is often not the one who sets it
    /// up. Only an administrator can, and for all others it is right as it is.
    #[cfg(unix)]
    fn hand_over(&self, file: &File) {
        use std::os::unix::fs::{MetadataExt, fchown};

        if let (Some(model), Ok(own)) = (&self.model, file.metadata())
            && (own.uid(), own.gid()) != (model.uid(), model.gid())
        {
            let _ = fchown(file, Some(model.uid()), Some(model.gid()));
        }
    }

    #[cfg(not(unix))]
    fn hand_over(&self, _: &File) {}

    /// Removes the drafts of writers that were cut off.
    pub(crate) fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        let start = format!(".{}.", self.name);
        for entry in entries.take(FOLDER_ENTRIES_MAX).flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let middle = name
                .strip_prefix(&start)
                .and_then(|rest| rest.strip_suffix(".new"));
            let is_ours = middle.is_some_and(|middle| {
                middle.len() == 16 && middle.bytes().all(|byte| byte.is_ascii_hexdigit())
            });
            let age = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .ok()
                .and_then(|changed| clock::wall().duration_since(changed).ok());
            if is_ours && age.is_some_and(|age| age > LEFTOVER_AGE) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Gone already when it was put in its place.
        let _ = fs::remove_file(&self.path);
    }
}

pub(super) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

pub(super) fn owners_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// What is replaced under this path. A link stays one, and what it leads to is replaced; but not one of a stranger, who could
/// have an administrator replace any file.
pub(crate) fn behind(path: &Path) -> io::Result<PathBuf> {
    let Ok(target) = fs::canonicalize(path) else {
        return Ok(path.to_owned());
    };
    if is_strangers_link(path, &target) {
        return Err(io::Error::other(
            "it is a link to a file that does not belong to the owner of the link",
        ));
    }
    Ok(target)
}

/// Whether `path` is a link that neither an administrator made nor the owner of what it leads to.
#[cfg(unix)]
fn is_strangers_link(path: &Path, target: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    let (Ok(link), Ok(target)) = (fs::symlink_metadata(path), fs::metadata(target)) else {
        return false;
    };
    link.is_symlink() && link.uid() != 0 && link.uid() != target.uid()
}

#[cfg(not(unix))]
fn is_strangers_link(_: &Path, _: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{Draft, LEFTOVER_AGE};
    use crate::model::clock;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn replace(path: &Path, text: &str) {
        let draft = Draft::beside(path).unwrap();
        draft.write(text.as_bytes()).unwrap();
        draft.put().unwrap();
        draft.sweep();
    }

    #[test]
    fn a_write_that_is_cut_off_leaves_the_old_file_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept");
        replace(&path, "old");
        // Ended before the rename, as by kill -9: nothing is tidied up.
        let draft = Draft::beside(&path).unwrap();
        draft.write(b"half").unwrap();
        let left = draft.path.clone();
        std::mem::forget(draft);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        // A young one may belong to somebody at work; an old one is swept away.
        replace(&path, "new");
        assert_eq!(names(folder.path()).len(), 2);
        let file = fs::File::options().write(true).open(&left).unwrap();
        file.set_modified(clock::wall() - 2 * LEFTOVER_AGE).unwrap();
        replace(&path, "newer");
        assert_eq!(names(folder.path()), ["kept"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "newer");
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept");
        replace(&path, "old");
        let draft = Draft::beside(&path).unwrap();
        draft.write(b"half").unwrap();
        // A name that exists already is never written through: it might be a link of somebody else's.
        assert!(draft.write(b"again").is_err());
        drop(draft);
        assert_eq!(names(folder.path()), ["kept"]);
    }
}
