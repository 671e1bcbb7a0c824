//! The challenge of the Azure Arc agent: it names a file that only its own group can read, and requires its content.
//! Any process that listens on the agent's port could name any file, so only files in the agent's key folder that look
//! like its keys are read (the same checks as in MSAL).

use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::entra::failure::{ARC_HUNG, ARC_IMPOSTOR, ARC_KEY_GONE, ARC_RIGHTS, Trouble};
use crate::files;
use crate::model::Secret;
use crate::secrets::Desk;

/// A key of the agent has less than a hundred bytes.
const KEY_BYTES_MAX: u64 = 4096;

pub(crate) async fn key(challenges: &[String], folder: &Path, desk: &Desk) -> Result<Secret, Trouble> {
    let path = named(challenges)?;
    let folder = folder.to_owned();
    let read = desk.work(move || read(&path, &folder)).await;
    read.unwrap_or_else(|stuck| {
        let seen = format!("the key of the agent cannot be read: {stuck}");
        Err(Trouble::new(ARC_HUNG, seen))
    })
}

/// For a key that cannot be sent.
pub(crate) fn unreadable_key() -> Trouble {
    refuse("the agent's key is not a line of text")
}

fn refuse(seen: impl Into<String>) -> Trouble {
    Trouble::new(ARC_IMPOSTOR, seen)
}

fn named(challenges: &[String]) -> Result<PathBuf, Trouble> {
    if challenges.is_empty() {
        return Err(refuse("the agent answered 401 without a challenge"));
    }
    let basic = challenges
        .iter()
        .filter_map(|challenge| challenge.split_once(' '))
        .find(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
    let realm = basic.and_then(|(_, rest)| rest.trim().strip_prefix("realm="));
    let path = realm
        .map(|realm| realm.trim().trim_matches('"'))
        .unwrap_or_default();
    if path.is_empty() {
        return Err(refuse("the challenge of the agent names no file"));
    }
    Ok(PathBuf::from(path))
}

/// Reads a key. The path itself is not repeated: it came from the other side.
fn read(path: &Path, folder: &Path) -> Result<Secret, Trouble> {
    let unread = |error: io::Error| unreadable(folder, &error);
    if path.extension().is_none_or(|extension| extension != "key") {
        return Err(refuse(
            "the challenge of the agent names a file that does not end in .key",
        ));
    }
    let outside = || {
        refuse(format!(
            "the challenge of the agent points outside of {}",
            folder.display()
        ))
    };
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err(outside());
    }
    let home = folder.canonicalize().map_err(unread)?;
    let beside = path.parent().and_then(|parent| parent.canonicalize().ok());
    if beside.as_ref() != Some(&home) {
        return Err(outside());
    }
    // A link may lead anywhere, whatever its own place is.
    let real = path.canonicalize().map_err(unread)?;
    if real.parent() != Some(home.as_path()) {
        return Err(outside());
    }
    let metadata = real.metadata().map_err(unread)?;
    if !metadata.is_file() {
        return Err(refuse(
            "the challenge of the agent names something that is no file",
        ));
    }
    let file = File::open(&real).map_err(unread)?;
    let text = files::text(&file, KEY_BYTES_MAX).map_err(unread)?;
    let text = text.ok_or_else(|| {
        refuse(format!(
            "the challenge of the agent names a file of more than {KEY_BYTES_MAX} bytes"
        ))
    })?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}

fn unreadable(folder: &Path, error: &io::Error) -> Trouble {
    let shown = folder.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => Trouble::new(
            ARC_RIGHTS,
            format!("the key of the agent in {shown} may not be read by this user"),
        ),
        io::ErrorKind::InvalidData => unreadable_key(),
        // The agent makes a key for each challenge and takes it away soon after.
        _ => Trouble::new(
            ARC_KEY_GONE,
            format!("the key of the agent in {shown} cannot be read: {}", error.kind()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::{Desk, key, named, read};

    fn seen<T>(result: Result<T, super::Trouble>) -> String {
        match result {
            Ok(_) => "read".to_owned(),
            Err(trouble) => trouble.seen,
        }
    }

    #[tokio::test]
    async fn the_key_is_what_the_named_file_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.key");
        fs::write(&path, "canary-key\n").unwrap();
        let challenge = format!("Basic realm={}", path.display());
        let challenges = ["Negotiate x".to_owned(), challenge];
        let key = key(&challenges, folder.path(), &Desk::default())
            .await
            .ok()
            .unwrap();
        assert_eq!(key.expose(), "canary-key");
    }

    #[test]
    fn a_challenge_must_name_a_file() {
        for (challenge, part) in [
            (None, "without a challenge"),
            (Some("Basic"), "names no file"),
            (Some("Basic "), "names no file"),
            (Some("Basic realm="), "names no file"),
            (Some("Basic realm=\"\""), "names no file"),
            (Some("Basic /var/opt/azcmagent/tokens/1.key"), "names no file"),
            (
                Some("Bearer realm=/var/opt/azcmagent/tokens/1.key"),
                "names no file",
            ),
        ] {
            let challenges: Vec<String> = challenge.map(str::to_owned).into_iter().collect();
            let seen = seen(named(&challenges));
            assert!(seen.contains(part), "{challenge:?}: {seen}");
        }
        let quoted = named(&["basic realm=\"/a/1.key\"".to_owned()]);
        assert_eq!(quoted.ok(), Some(PathBuf::from("/a/1.key")));
    }

    #[test]
    fn only_a_small_key_in_the_agents_own_folder_is_read() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("tokens");
        let other = root.path().join("other");
        let below = folder.join("below");
        for folder in [&folder, &other, &below] {
            fs::create_dir(folder).unwrap();
        }
        for place in [&folder, &other, &below] {
            fs::write(place.join("good.key"), "x".repeat(4096)).unwrap();
        }
        fs::write(folder.join("large.key"), "x".repeat(4097)).unwrap();
        fs::write(folder.join("binary.key"), [0xff, 0xfe]).unwrap();
        fs::write(folder.join("note.txt"), "x").unwrap();
        fs::create_dir(folder.join("folder.key")).unwrap();
        for (path, part) in [
            (folder.join("good.key"), "read"),
            (folder.join("large.key"), "more than 4096 bytes"),
            (folder.join("binary.key"), "not a line of text"),
            (folder.join("note.txt"), "does not end in .key"),
            (folder.join("good"), "does not end in .key"),
            (folder.join("folder.key"), "no file"),
            (folder.join("none.key"), "cannot be read"),
            (other.join("good.key"), "points outside"),
            (below.join("good.key"), "points outside"),
            (folder.join("..").join("other").join("good.key"), "points outside"),
            (
                folder.join("..").join("tokens").join("good.key"),
                "points outside",
            ),
            (PathBuf::from("good.key"), "points outside"),
            (root.path().join("nowhere").join("good.key"), "points outside"),
        ] {
            let seen = seen(read(&path, &folder));
            assert!(seen.contains(part), "{}: {seen}", path.display());
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_out_of_the_folder_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("tokens");
        fs::create_dir(&folder).unwrap();
        fs::write(root.path().join("secret.key"), "canary").unwrap();
        std::os::unix::fs::symlink(root.path().join("secret.key"), folder.join("1.key")).unwrap();
        let seen = seen(read(&folder.join("1.key"), &folder));
        assert!(seen.contains("points outside"), "{seen}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let seen = seen(read(
            Path::new("/nowhere/tokens/1.key"),
            Path::new("/nowhere/tokens"),
        ));
        assert!(seen.contains("/nowhere/tokens"), "{seen}");
    }
}
