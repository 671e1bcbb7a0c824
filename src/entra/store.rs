//! The file that stores a refresh token. It is only replaced as a whole, by a rename, so that a process that dies at any
//! moment leaves the old file or the new one; and only while it still contains the token that was exchanged for the new
//! one, so that two gateways, or a gateway and `flowgate login`, do not overwrite each other's work. Without a seal only
//! its owner may have access to it; with one it is encrypted (AES-256-GCM under a key derived with HKDF-SHA-256).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::files;
use crate::files::Draft;
use crate::model::{Secret, locked};
use crate::settings::SecretSource;

/// Largest store that is read: a token, a name and an id, encrypted and written as text.
const STORE_BYTES_MAX: u64 = 64 * 1024;
const SEALED: &str = "flowgate-sealed-1:";
/// Bound into the key, so that the same seal makes other keys elsewhere.
const PURPOSE: &[u8] = b"flowgate sign-in store 1";
/// What is wrong where the secret behind `seal` was not read.
const SEAL_UNKNOWN: &str =
    "its seal is not known: it is stored in a key vault, and only `flowgate serve` reads those";
/// Seals beside the current one with which a store may still be sealed.
const SEALS_MAX: usize = 4;
/// How often it is written under a new seal, if others replace it at the same moment.
const RESEALS_MAX: usize = 3;
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    Missing,
    Unusable(String),
}

#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) token: Secret,
    /// Who signed in, for people.
    pub(crate) account: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Encrypted under the seal of the settings.
    Sealed,
    /// By the rights of the file.
    OwnerOnly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replaced {
    Yes,
    /// Another process replaced it first; its token is kept.
    ByAnother,
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    client_id: &'a str,
    account: &'a str,
    refresh_token: &'a str,
}

#[derive(Deserialize)]
struct StoredSignIn {
    version: u32,
    client_id: String,
    account: String,
    refresh_token: String,
}

/// What keeps others from reading a store.
enum Cover {
    Rights,
    Key(Box<LessSafeKey>),
    /// A seal that is not known here: nothing is read or written under it.
    Unknown,
}

pub(crate) struct Store {
    path: PathBuf,
    covers: Mutex<Covers>,
    /// Nudged when it is sealed with something that is not known here.
    seal_wanted: Arc<Notify>,
    client_id: String,
}

/// What keeps others from reading a store, now and before.
struct Covers {
    current: Arc<Cover>,
    /// What else it may be sealed with: somebody else may be quicker to take a new seal up, or slower.
    others: Vec<Arc<Cover>>,
    /// A seal that is to take the place of the current one, and did not yet.
    next: Option<Arc<Cover>>,
}

impl From<Cover> for Covers {
    fn from(cover: Cover) -> Self {
        Self {
            current: Arc::new(cover),
            others: Vec::new(),
            next: None,
        }
    }
}

impl Store {
    pub(crate) fn new(path: &Path, seal: Option<&SecretSource>, client_id: &str) -> Self {
        let cover = match seal.map(SecretSource::known) {
            Some(Some(seal)) => cover(seal),
            Some(None) => Cover::Unknown,
            None => Cover::Rights,
        };
        Self {
            path: path.to_owned(),
            covers: Mutex::new(cover.into()),
            seal_wanted: Arc::default(),
            client_id: client_id.to_owned(),
        }
    }

    /// Who looks for another seal waits here.
    pub(crate) fn seal_wanted(&self) -> &Arc<Notify> {
        &self.seal_wanted
    }

    fn cover(&self) -> Arc<Cover> {
        locked(&self.covers).current.clone()
    }

    /// Opens a sealed text with any seal that is known.
    fn open(&self, sealed: &str) -> Option<Zeroizing<Vec<u8>>> {
        let covers = locked(&self.covers);
        let all = [Some(&covers.current), covers.next.as_ref()]
            .into_iter()
            .flatten();
        let all = all.chain(&covers.others);
        all.filter_map(|cover| match &**cover {
            Cover::Key(key) => open(key, sealed),
            Cover::Rights | Cover::Unknown => None,
        })
        .next()
    }

    /// Takes another seal, and writes what it keeps anew under that. Blocks on the file and on others who replace it.
    pub(crate) fn reseal(&self, seal: &Secret) -> Result<(), String> {
        let new = Arc::new(cover(seal));
        locked(&self.covers).next = Some(new.clone());
        for _ in 0..RESEALS_MAX {
            let kept = match self.read() {
                Ok(kept) => kept,
                Err(StoreError::Missing) => {
                    self.switch(new);
                    return Ok(());
                }
                Err(StoreError::Unusable(why)) => return Err(why),
            };
            if self.write(&kept, Some(&kept.token), &new)? == Replaced::Yes {
                self.switch(new);
                return Ok(());
            }
        }
        Err("somebody else replaces it all the time".to_owned())
    }

    fn switch(&self, new: Arc<Cover>) {
        let mut covers = locked(&self.covers);
        covers.next = None;
        let old = std::mem::replace(&mut covers.current, new);
        covers.others.insert(0, old);
        covers.others.truncate(SEALS_MAX);
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn protection(&self) -> Protection {
        match *self.cover() {
            Cover::Key(_) => Protection::Sealed,
            Cover::Rights | Cover::Unknown => Protection::OwnerOnly,
        }
    }

    /// Reads it. Blocks on the file.
    pub(crate) fn read(&self) -> Result<Kept, StoreError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::Missing),
            Err(error) => return Err(unusable(format!("it cannot be read: {error}"))),
        };
        if matches!(*self.cover(), Cover::Rights) && !is_owners(&file) {
            return Err(unusable(
                "it is open to other users; take their rights away with chmod 600",
            ));
        }
        let text = files::text(&file, STORE_BYTES_MAX);
        let text = text.map_err(|error| unusable(format!("it cannot be read: {error}")))?;
        let text = text.ok_or_else(|| unusable(format!("it is larger than {STORE_BYTES_MAX} bytes")))?;
        self.parse(&text)
    }

    fn parse(&self, text: &str) -> Result<Kept, StoreError> {
        let opened = match (text.trim().strip_prefix(SEALED), &*self.cover()) {
            (Some(sealed), Cover::Key(_)) => self.open(sealed).ok_or_else(|| {
                unusable(
                    "its seal does not fit: the secret behind `seal` is another one, or the file was changed",
                )
            })?,
            (None, Cover::Rights) => Zeroizing::new(text.as_bytes().to_vec()),
            (Some(_), Cover::Rights) => {
                return Err(unusable("it is sealed, and the settings name no `seal`"));
            }
            (None, Cover::Key(_)) => {
                return Err(unusable("it is not sealed, and the settings name a `seal`"));
            }
            (_, Cover::Unknown) => return Err(unusable(SEAL_UNKNOWN)),
        };
        let found: StoredSignIn = serde_json::from_slice(&opened)
            .map_err(|_| unusable("it holds something other than a sign-in"))?;
        let token = Secret::new(found.refresh_token);
        if found.version != 1 || token.expose().is_empty() {
            return Err(unusable(
                "it holds something other than a sign-in of this version",
            ));
        }
        if !found.client_id.eq_ignore_ascii_case(&self.client_id) {
            return Err(unusable("the sign-in in it belongs to another client id"));
        }
        Ok(Kept {
            token,
            account: found.account,
        })
    }

    fn print(&self, kept: &Kept, cover: &Cover) -> Result<Zeroizing<String>, String> {
        let written = Written {
            version: 1,
            client_id: &self.client_id,
            account: &kept.account,
            refresh_token: kept.token.expose(),
        };
        let text = serde_json::to_string(&written)
            .map(Zeroizing::new)
            .map_err(|error| error.to_string())?;
        match cover {
            Cover::Key(key) => seal(key, &text).map(Zeroizing::new),
            Cover::Rights => Ok(text),
            Cover::Unknown => Err(SEAL_UNKNOWN.to_owned()),
        }
    }

    /// Replaces what it keeps: whatever that is, or this refresh token only. Blocks on the file and on others who replace
    /// it at the same moment.
    pub(crate) fn replace(&self, kept: &Kept, over: Option<&Secret>) -> Result<Replaced, String> {
        self.write(kept, over, &self.cover())
    }

    fn write(&self, kept: &Kept, over: Option<&Secret>, cover: &Cover) -> Result<Replaced, String> {
        let draft = self.draft()?;
        let lock = draft.lock().map_err(said)?;
        if let Some(old) = over {
            match self.read() {
                Ok(now) if now.token.same_as(old.expose()) => {}
                // A store that was taken away was taken away on purpose.
                Ok(_) | Err(StoreError::Missing) => return Ok(Replaced::ByAnother),
                // Nobody knows whose it is, and the old token may be good no more.
                Err(StoreError::Unusable(why)) => return Err(why),
            }
        }
        let text = self.print(kept, cover)?;
        draft
            .write(text.as_bytes())
            .and_then(|_| draft.put())
            .map_err(said)?;
        drop(lock);
        draft.sweep();
        Ok(Replaced::Yes)
    }

    /// Whether a sign-in could be stored, before anybody takes the trouble.
    pub(crate) fn probe(&self) -> Result<(), String> {
        if matches!(*self.cover(), Cover::Unknown) {
            return Err(SEAL_UNKNOWN.to_owned());
        }
        self.draft()?.write(b"").map(|_| ()).map_err(said)
    }

    /// What a write replaces. The rename would replace a link in place of what it points to, so links are followed.
    fn draft(&self) -> Result<Draft, String> {
        let target = files::behind(&self.path);
        let target = target.map_err(|error| format!("{}: {error}", self.path.display()))?;
        Draft::beside(&target).map_err(said)
    }
}

fn unusable(why: impl Into<String>) -> StoreError {
    StoreError::Unusable(why.into())
}

fn said(error: io::Error) -> String {
    error.to_string()
}

#[cfg(unix)]
fn is_owners(file: &File) -> bool {
    use std::os::unix::fs::PermissionsExt;

    file.metadata()
        .is_ok_and(|metadata| metadata.permissions().mode() & 0o077 == 0)
}

#[cfg(not(unix))]
fn is_owners(_: &File) -> bool {
    true
}

fn cover(seal: &Secret) -> Cover {
    if seal.expose().is_empty() {
        return Cover::Unknown;
    }
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"flowgate");
    let random = salt.extract(seal.expose().as_bytes());
    match random.expand(&[PURPOSE], &AES_256_GCM) {
        Ok(expanded) => Cover::Key(Box::new(LessSafeKey::new(UnboundKey::from(expanded)))),
        Err(_) => Cover::Unknown,
    }
}

fn seal(key: &LessSafeKey, text: &str) -> Result<String, String> {
    let failed = |_| "the system gives no random bytes".to_owned();
    // Written once an hour, random nonces do not repeat within any number of years.
    let mut nonce = [0; NONCE_LEN];
    aws_lc_rs::rand::fill(&mut nonce).map_err(failed)?;
    let mut bytes = text.as_bytes().to_vec();
    key.seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::from(PURPOSE),
        &mut bytes,
    )
    .map_err(|_| "it cannot be encrypted".to_owned())?;
    let mut sealed = nonce.to_vec();
    sealed.append(&mut bytes);
    Ok(format!("{SEALED}{}\n", STANDARD_NO_PAD.encode(sealed)))
}

fn open(key: &LessSafeKey, sealed: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(STANDARD_NO_PAD.decode(sealed.trim()).ok()?);
    let (nonce, rest) = bytes.split_at_mut_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let opened = key.open_in_place(nonce, Aad::from(PURPOSE), rest).ok()?;
    Some(Zeroizing::new(opened.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use proptest::prelude::{any, proptest};

    use super::{Cover, Kept, Replaced, Store, StoreError, cover, open, seal};
    use crate::model::Secret;

    const CLIENT: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";

    fn store(path: &Path, seal: Option<&str>) -> Store {
        Store {
            path: path.to_owned(),
            covers: Mutex::new(
                seal.map_or(Cover::Rights, |seal| cover(&Secret::new(seal)))
                    .into(),
            ),
            seal_wanted: Arc::default(),
            client_id: CLIENT.to_owned(),
        }
    }

    fn kept(token: &str) -> Kept {
        Kept {
            token: Secret::new(token),
            account: "flows@contoso.example".to_owned(),
        }
    }

    fn key() -> Box<aws_lc_rs::aead::LessSafeKey> {
        match cover(&Secret::new("canary-seal-of-20-bytes")) {
            Cover::Key(key) => key,
            Cover::Rights | Cover::Unknown => panic!("no key can be made of it"),
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with(".lock"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn another_seal_takes_the_store_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept");
        let (old, new) = ("canary-seal-of-20-bytes", "canary-seal-that-is-another");
        let changing = store(&path, Some(old));
        let unaware = store(&path, Some(old));
        changing.replace(&kept("one"), None).unwrap();
        changing.reseal(&Secret::new(new)).unwrap();
        let started = store(&path, Some(new));
        assert_eq!(started.read().unwrap().token.expose(), "one");
        assert!(unaware.read().is_err(), "the old seal is of no use any more");
        // Somebody who was slower to hear of it.
        unaware.replace(&kept("two"), None).unwrap();
        assert_eq!(changing.read().unwrap().token.expose(), "two");
        changing.replace(&kept("three"), None).unwrap();
        assert_eq!(started.read().unwrap().token.expose(), "three");
    }

    #[cfg(unix)]
    #[test]
    fn a_store_that_cannot_be_written_keeps_its_seal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept");
        let old = store(&path, Some("canary-seal-of-20-bytes"));
        old.replace(&kept("one"), None).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(folder.path().join(".kept.lock")).unwrap();
        // A folder in place of the lock file prevents locking.
        std::fs::create_dir(folder.path().join(".kept.lock")).unwrap();
        old.reseal(&Secret::new("canary-seal-that-is-another"))
            .unwrap_err();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        assert_eq!(old.read().unwrap().token.expose(), "one");
        std::fs::remove_dir(folder.path().join(".kept.lock")).unwrap();
        old.replace(&kept("two"), None).unwrap();
        let restarted = store(&path, Some("canary-seal-of-20-bytes"));
        assert_eq!(restarted.read().unwrap().token.expose(), "two");
    }

    #[cfg(unix)]
    #[test]
    fn a_store_that_cannot_be_read_now_is_not_taken_for_anothers() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept");
        let store = store(&path, None);
        store.replace(&kept("old"), None).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let old = Secret::new("old");
        let why = store.replace(&kept("new"), Some(&old)).unwrap_err();
        assert!(why.contains("open to other users"), "{why}");
    }

    #[test]
    fn under_a_seal_that_is_not_known_nothing_is_read_or_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept");
        let unknown = store(&path, Some(""));
        assert!(unknown.probe().unwrap_err().contains("key vault"));
        unknown.replace(&kept("a"), None).unwrap_err();
        assert!(!path.exists());
        store(&path, Some("canary-seal-of-20-bytes"))
            .replace(&kept("a"), None)
            .unwrap();
        let StoreError::Unusable(why) = unknown.read().unwrap_err() else {
            panic!("it is there");
        };
        assert!(why.contains("key vault"), "{why}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_place_of_the_lock_makes_no_file_and_gives_none_away() {
        use std::os::unix::fs::{MetadataExt, chown, symlink};

        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = store(&folder.path().join("kept"), None);
        let lock = folder.path().join(".kept.lock");
        let victim = elsewhere.path().join("victim");
        symlink(&victim, &lock).unwrap();
        store.replace(&kept("a"), None).unwrap_err();
        assert!(!victim.exists(), "a file was made at the end of the link");
        std::fs::write(&victim, "theirs").unwrap();
        let owner = std::fs::metadata(&victim).unwrap().uid();
        // Only an administrator can give a folder away; for all others the rest says nothing.
        let _ = chown(folder.path(), Some(owner + 1), None);
        store.replace(&kept("a"), None).unwrap();
        assert_eq!(
            std::fs::metadata(&victim).unwrap().uid(),
            owner,
            "it was given away"
        );
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "theirs");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_of_somebody_else_does_not_choose_what_is_replaced() {
        use std::os::unix::fs::{lchown, symlink};

        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (path, victim) = (folder.path().join("kept"), elsewhere.path().join("victim"));
        std::fs::write(&victim, "theirs").unwrap();
        symlink(&victim, &path).unwrap();
        let store = store(&path, None);
        // Only an administrator can give a link away.
        if lchown(&path, Some(12_345), None).is_ok() {
            let why = store.replace(&kept("a"), None).unwrap_err();
            assert!(why.contains("link"), "{why}");
            store.probe().unwrap_err();
            assert_eq!(std::fs::read_to_string(&victim).unwrap(), "theirs");
            lchown(&path, Some(0), None).unwrap();
        }
        store.replace(&kept("a"), None).unwrap();
        assert!(
            std::fs::read_to_string(&victim)
                .unwrap()
                .contains("refresh_token")
        );
        assert!(std::fs::symlink_metadata(&path).unwrap().is_symlink());
    }

    #[test]
    fn what_was_stored_is_read_with_a_seal_and_without() {
        for with in [None, Some("canary-seal-of-20-bytes")] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("kept");
            let store = store(&path, with);
            assert_eq!(store.read().unwrap_err(), StoreError::Missing);
            store.replace(&kept("canary-token"), None).unwrap();
            let read = store.read().unwrap();
            assert_eq!(read.token.expose(), "canary-token");
            assert_eq!(read.account, "flows@contoso.example");
            assert_eq!(names(folder.path()), ["kept"]);
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text.contains("canary"), with.is_none(), "{with:?}");
            assert!(!format!("{read:?}").contains("canary"));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_store_is_its_owners_alone_and_is_refused_when_it_is_not() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept");
        let plain = store(&path, None);
        plain.replace(&kept("a"), None).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let StoreError::Unusable(why) = plain.read().unwrap_err() else {
            panic!("a store that others can read is missing");
        };
        assert!(why.contains("chmod 600"), "{why}");
    }

    #[test]
    fn a_store_that_is_of_no_use_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept");
        let (plain, sealed) = (store(&path, None), store(&path, Some("canary-seal-of-20-bytes")));
        let why = |store: &Store| match store.read().unwrap_err() {
            StoreError::Unusable(why) => why,
            StoreError::Missing => panic!("it is there"),
        };
        plain.replace(&kept("canary"), None).unwrap();
        assert!(why(&sealed).contains("not sealed"));
        let mut other = store(&path, None);
        other.client_id = "another".to_owned();
        assert!(why(&other).contains("another client id"));
        sealed.replace(&kept("canary"), None).unwrap();
        assert!(why(&plain).contains("name no `seal`"));
        assert!(why(&store(&path, Some("another-seal-of-20-bytes"))).contains("does not fit"));
        for text in ["", "{}", "canary", "{\"version\":2}", "flowgate-sealed-1:canary"] {
            std::fs::write(&path, text).unwrap();
            assert!(!why(&plain).contains("canary"), "{text}");
        }
        std::fs::write(&path, "x".repeat(64 * 1024 + 1)).unwrap();
        assert!(why(&plain).contains("larger than"));
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(why(&plain).contains("cannot be read"));
    }

    #[test]
    fn a_store_in_no_folder_says_so() {
        let folder = tempfile::tempdir().unwrap();
        assert!(store_in_no_folder(folder.path()).contains("does not exist"));
    }

    fn store_in_no_folder(folder: &Path) -> String {
        let store = store(&folder.join("none/kept"), None);
        assert_eq!(store.probe(), store.replace(&kept("a"), None).map(|_| ()));
        store.probe().unwrap_err()
    }

    #[test]
    fn a_token_takes_the_place_of_the_one_it_came_from_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept");
        let store = store(&path, None);
        let (old, other) = (Secret::new("old"), Secret::new("other"));
        store.replace(&kept("old"), None).unwrap();
        assert_eq!(store.replace(&kept("new"), Some(&old)).unwrap(), Replaced::Yes);
        assert_eq!(
            store.replace(&kept("late"), Some(&other)).unwrap(),
            Replaced::ByAnother
        );
        assert_eq!(store.read().unwrap().token.expose(), "new");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            store.replace(&kept("late"), Some(&old)).unwrap(),
            Replaced::ByAnother
        );
        assert_eq!(store.read().unwrap_err(), StoreError::Missing);
    }

    #[test]
    fn of_two_who_replace_the_same_token_at_once_one_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = Arc::new(folder.path().join("kept"));
        store(&path, None).replace(&kept("old"), None).unwrap();
        let writers: Vec<_> = (0..8)
            .map(|number| {
                let path = path.clone();
                std::thread::spawn(move || {
                    let old = Secret::new("old");
                    store(&path, None)
                        .replace(&kept(&format!("new-{number}")), Some(&old))
                        .unwrap()
                })
            })
            .collect();
        let done: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        assert_eq!(
            done.iter().filter(|done| **done == Replaced::Yes).count(),
            1,
            "{done:?}"
        );
        assert!(
            store(&path, None)
                .read()
                .unwrap()
                .token
                .expose()
                .starts_with("new-")
        );
        assert_eq!(names(folder.path()), ["kept"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_store_behind_a_link_is_replaced_where_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        store(&real, None).replace(&kept("old"), None).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        store(&link, None).replace(&kept("new"), None).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(store(&real, None).read().unwrap().token.expose(), "new");
    }

    #[test]
    fn the_same_text_is_sealed_differently_each_time() {
        let key = key();
        assert_ne!(seal(&key, "a").unwrap(), seal(&key, "a").unwrap());
    }

    proptest! {
        #[test]
        fn a_sealed_text_opens_whole_or_not_at_all(text in ".{0,100}", at in any::<usize>(), bit in 0u8..7) {
            let key = key();
            let sealed = seal(&key, &text).unwrap();
            let sealed = sealed.strip_prefix(super::SEALED).unwrap().trim().to_owned();
            assert_eq!(open(&key, &sealed).unwrap().as_slice(), text.as_bytes());
            let mut bytes = sealed.clone().into_bytes();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(changed.trim() != changed || open(&key, &changed).is_none(), "{changed}");
            }
        }

        #[test]
        fn no_file_ends_the_reader(text in ".{0,200}") {
            let store = store(Path::new("kept"), Some("canary-seal-of-20-bytes"));
            assert!(store.parse(&text).is_err());
            assert!(store.parse(&format!("{}{text}", super::SEALED)).is_err());
        }
    }
}
