//! Changes to a settings file that keep every other byte of it: a route more, another trigger for a route. Files are
//! replaced in one step, so that a crash leaves the old one or the new one.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Deserialize;
use toml::Spanned;

use crate::files;
use crate::files::Draft;
use crate::model::Secret;
use crate::settings::source::Reference;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TriggerPlace {
    Inline(Range<usize>),
    File(PathBuf),
    Variable(String),
    Vault(String),
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    route: Vec<Route>,
}

#[derive(Deserialize)]
struct Route {
    name: String,
    trigger: Option<Spanned<String>>,
}

/// Finds the trigger of a route in a settings file that was found right before; nothing if it has none.
pub fn trigger_of(text: &str, folder: &Path, route: &str) -> Option<TriggerPlace> {
    let document: Document = toml::from_str(text).ok()?;
    let route = document.route.into_iter().find(|known| known.name == route)?;
    let trigger = route.trigger?;
    Some(match Reference::parse(trigger.get_ref(), folder) {
        Some(Ok(Reference::Variable(name))) => TriggerPlace::Variable(name),
        Some(Ok(Reference::File(path))) => TriggerPlace::File(path),
        Some(Ok(Reference::Vault(place))) => TriggerPlace::Vault(place.to_string()),
        Some(Err(_)) => return None,
        None => TriggerPlace::Inline(trigger.span()),
    })
}

/// Whether settings have a route; also where they cannot be read.
pub fn has_routes(text: &str) -> bool {
    toml::from_str(text).map_or(true, |document: Document| !document.route.is_empty())
}

/// A text as TOML writes it.
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The text with another value at this place.
pub fn with(text: &str, place: Range<usize>, value: &str) -> Option<String> {
    let (before, after) = (text.get(..place.start)?, text.get(place.end..)?);
    Some(format!("{before}{}{after}", quoted(value)))
}

/// The text with a block behind it, an empty line between.
pub fn appended(text: &str, block: &str) -> String {
    let text = text.trim_end();
    let between = if text.is_empty() { "" } else { "\n\n" };
    format!("{text}{between}{block}")
}

/// Replaces a settings file in one step; it keeps its rights, and its owner where that is possible.
pub fn replace_settings(path: &Path, text: &str) -> io::Result<()> {
    let path = files::behind(path)?;
    let rights = fs::metadata(&path)?.permissions();
    let draft = Draft::beside(&path)?;
    draft.write(text.as_bytes())?.set_permissions(rights)?;
    draft.put()
}

/// Replaces a file of the settings in one step if it still has the text that the new one was made from. It keeps its rights and
/// its owner.
///
/// # Errors
/// Why it cannot be replaced; then it is as it was.
pub fn replace_same(path: &Path, before: &str, after: &str) -> io::Result<()> {
    let path = files::behind(path)?;
    let file = fs::File::open(&path)?;
    // The lock is that of other commands; where locks are not known, the comparison remains.
    if let Err(fs::TryLockError::WouldBlock) = file.try_lock() {
        return Err(io::Error::other("another command is changing it"));
    }
    let old = file.metadata()?;
    let draft = Draft::beside(&path)?;
    let new = draft.write(after.as_bytes())?;
    new.set_permissions(old.permissions())?;
    if !is_of_same_owner(&old, &new.metadata()?) {
        return Err(io::Error::other(
            "it belongs to another user, and the gateway might not be able to read it after that: run this command as its owner or as root",
        ));
    }
    if fs::read(&path)? != before.as_bytes() {
        return Err(io::Error::other(
            "it was changed in the meantime: run this command again",
        ));
    }
    draft.put()
}

#[cfg(unix)]
fn is_of_same_owner(old: &fs::Metadata, new: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;

    (old.uid(), old.gid()) == (new.uid(), new.gid())
}

#[cfg(not(unix))]
fn is_of_same_owner(_: &fs::Metadata, _: &fs::Metadata) -> bool {
    true
}

/// Who may read the file of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    OwnerOfSettings(u32),
    Another {
        owner: u32,
        settings: u32,
    },
    /// Files have no such owners here.
    Unknown,
}

/// Creates a secret's file or replaces it atomically, readable by its owner only. An existing owner is kept where
/// possible. A new file gets the owner of the settings, because the gateway often runs as another user than its installer.
pub fn replace_secret(path: &Path, secret: &Secret, settings: &Path) -> io::Result<Readers> {
    let path = files::behind(path)?;
    let mut draft = Draft::beside(&path)?;
    if !path.exists() {
        draft = draft.owned_like(settings);
    }
    draft.write(format!("{}\n", secret.expose()).as_bytes())?;
    draft.put()?;
    Ok(match (fs::metadata(&path), fs::metadata(settings)) {
        (Ok(secret), Ok(settings)) => readers(&secret, &settings),
        _ => Readers::Unknown,
    })
}

#[cfg(unix)]
fn readers(secret: &fs::Metadata, settings: &fs::Metadata) -> Readers {
    use std::os::unix::fs::MetadataExt;

    let (owner, settings) = (secret.uid(), settings.uid());
    match owner == settings {
        true => Readers::OwnerOfSettings(owner),
        false => Readers::Another { owner, settings },
    }
}

#[cfg(not(unix))]
fn readers(_: &fs::Metadata, _: &fs::Metadata) -> Readers {
    Readers::Unknown
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    #[cfg(unix)]
    use super::Readers;
    use super::{TriggerPlace, appended, replace_same, replace_secret, replace_settings, trigger_of, with};
    use crate::model::Secret;

    const TEXT: &str = "# kept\n[[route]]\nname = \"a\"\ntrigger = 'https://a.example/x' # kept too\n\
                        [[route]]\nname = \"b\"\nsigned = true\ntrigger = \"file:b.trigger\"\n\
                        [[route]]\nname = \"c\"\ntrigger = \"env:C\"\n[[route]]\nname = \"d\"\n";

    #[test]
    fn a_trigger_is_found_where_it_is_written() {
        let folder = Path::new("config");
        let place = |route: &str| trigger_of(TEXT, folder, route);
        let Some(TriggerPlace::Inline(span)) = place("a") else {
            panic!("{:?}", place("a"));
        };
        assert_eq!(&TEXT[span], "'https://a.example/x'");
        let file = PathBuf::from("config/b.trigger");
        assert_eq!(place("b"), Some(TriggerPlace::File(file)));
        assert_eq!(place("c"), Some(TriggerPlace::Variable("C".to_owned())));
        assert_eq!(place("d"), None);
        assert_eq!(place("e"), None);
    }

    #[test]
    fn every_other_byte_is_kept() {
        let Some(TriggerPlace::Inline(span)) = trigger_of(TEXT, Path::new(""), "a") else {
            panic!("not found");
        };
        let new = with(TEXT, span, "https://b.example/\"y\"").unwrap();
        assert!(matches!(
            trigger_of(&new, Path::new(""), "a"),
            Some(TriggerPlace::Inline(_))
        ));
        assert!(new.starts_with("# kept\n") && new.contains("# kept too"));
        let read: toml::Table = toml::from_str(&new).unwrap();
        assert_eq!(
            read["route"][0]["trigger"].as_str(),
            Some("https://b.example/\"y\"")
        );
        assert_eq!(appended("a = 1\n\n\n", "[b]\n"), "a = 1\n\n[b]\n");
        assert_eq!(appended("", "[b]\n"), "[b]\n");
    }

    #[cfg(unix)]
    #[test]
    fn files_are_replaced_whole_and_keep_their_rights() {
        use std::fs;
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let settings = folder.path().join("flowgate.toml");
        fs::write(&settings, "old").unwrap();
        fs::set_permissions(&settings, fs::Permissions::from_mode(0o640)).unwrap();
        let link = folder.path().join("link.toml");
        std::os::unix::fs::symlink(&settings, &link).unwrap();
        replace_settings(&link, "new").unwrap();
        assert_eq!(fs::read_to_string(&settings).unwrap(), "new");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&settings), 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());

        let secret = folder.path().join("a.trigger");
        fs::write(&secret, "open to all").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
        replace_secret(&secret, &Secret::new("hidden"), &settings).unwrap();
        assert_eq!(fs::read_to_string(&secret).unwrap(), "hidden\n");
        assert_eq!(mode(&secret), 0o600);
        let nowhere = folder.path().join("none/x");
        assert!(replace_secret(&nowhere, &Secret::new("hidden"), &settings).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_file_is_replaced_only_while_it_is_the_same() {
        use std::fs;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flowgate.toml");
        fs::write(&path, "old").unwrap();
        let refused = replace_same(&path, "older", "new").unwrap_err().to_string();
        assert!(refused.contains("changed in the meantime"), "{refused}");
        let other = fs::File::open(&path).unwrap();
        other.lock().unwrap();
        let refused = replace_same(&path, "old", "new").unwrap_err().to_string();
        assert!(refused.contains("another command"), "{refused}");
        drop(other);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        replace_same(&path, "old", "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_is_replaced_keeps_its_owner() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

        let folder = tempfile::tempdir().unwrap();
        let (settings, secret) = (
            folder.path().join("flowgate.toml"),
            folder.path().join("a.trigger"),
        );
        for path in [&settings, &secret] {
            std::fs::write(path, "old").unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o640)).unwrap();
            // Only an administrator can give a file away; for all others the owner is the same in any case.
            let _ = chown(path, Some(12_345), Some(23_456));
        }
        let facts = |path: &Path| {
            let metadata = std::fs::metadata(path).unwrap();
            (metadata.uid(), metadata.gid(), metadata.mode() & 0o777)
        };
        let (of_settings, of_secret) = (facts(&settings), facts(&secret));
        replace_settings(&settings, "new").unwrap();
        replace_same(&settings, "new", "newer").unwrap();
        let readers = replace_secret(&secret, &Secret::new("new"), &settings).unwrap();
        assert_eq!(readers, Readers::OwnerOfSettings(of_settings.0));
        assert_eq!(facts(&settings), of_settings);
        assert_eq!(facts(&secret), (of_secret.0, of_secret.1, 0o600));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_of_somebody_else_does_not_choose_what_is_replaced() {
        use std::os::unix::fs::{lchown, symlink};

        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let settings = folder.path().join("flowgate.toml");
        std::fs::write(&settings, "old").unwrap();
        let (link, victim) = (folder.path().join("a.trigger"), elsewhere.path().join("victim"));
        std::fs::write(&victim, "theirs").unwrap();
        symlink(&victim, &link).unwrap();
        // Only an administrator can give a link away; for all others it is their own.
        if lchown(&link, Some(12_345), None).is_ok() {
            let why = replace_secret(&link, &Secret::new("new"), &settings).unwrap_err();
            assert!(why.to_string().contains("link"), "{why}");
            replace_settings(&link, "new").unwrap_err();
            assert_eq!(std::fs::read_to_string(&victim).unwrap(), "theirs");
            lchown(&link, Some(0), None).unwrap();
        }
        replace_secret(&link, &Secret::new("new"), &settings).unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "new\n");
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[cfg(unix)]
    #[test]
    fn a_new_secret_belongs_to_the_owner_of_the_settings_or_the_reader_is_reported() {
        use std::os::unix::fs::{MetadataExt, chown};

        let folder = tempfile::tempdir().unwrap();
        let (settings, secret) = (
            folder.path().join("flowgate.toml"),
            folder.path().join("a.trigger"),
        );
        std::fs::write(&settings, "old").unwrap();
        // Only an administrator can give a file away; for all others the owner is the same in any case.
        let _ = chown(&settings, Some(12_345), Some(23_456));
        let readers = replace_secret(&secret, &Secret::new("new"), &settings).unwrap();
        let owner = |path: &Path| {
            let metadata = std::fs::metadata(path).unwrap();
            (metadata.uid(), metadata.gid())
        };
        assert_eq!(owner(&secret), owner(&settings));
        assert_eq!(readers, Readers::OwnerOfSettings(owner(&settings).0));
        // An existing file keeps its owner, which is reported.
        if chown(&secret, Some(54_321), None).is_ok() {
            let readers = replace_secret(&secret, &Secret::new("new"), &settings).unwrap();
            let (owner, settings) = (54_321, 12_345);
            assert_eq!(readers, Readers::Another { owner, settings });
        }
    }
}
