//! Files that are read whole, up to a size: of a larger one no more is read than shows that.

use std::fs::{File, Metadata};
use std::io::Read;
use std::path::Path;
use std::{fs, io};

use zeroize::Zeroizing;

use crate::model::{Flaw, room};

/// The bytes of a small file that may hold a secret; none if there are more than `bytes_max`.
pub(crate) fn bytes(mut file: &File, bytes_max: u64) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    let count = Read::by_ref(&mut file)
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)?;
    Ok((count as u64 <= bytes_max).then_some(bytes))
}

/// The same as text.
///
/// # Errors
/// Those of the file system, and `InvalidData` for what is not UTF-8.
pub(crate) fn text(file: &File, bytes_max: u64) -> io::Result<Option<Zeroizing<String>>> {
    let Some(bytes) = bytes(file, bytes_max)? else {
        return Ok(None);
    };
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Some(Zeroizing::new(text.to_owned()))),
        Err(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

pub(crate) fn open(path: &Path) -> Result<File, Flaw> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Flaw::new(format!("{} is a folder, not a file", path.display())));
    }
    Ok(file)
}

pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Flaw> {
    let file = open(path)?;
    let length = file
        .metadata()
        .map_or(0, |metadata| metadata.len())
        .min(bytes_max);
    // One byte more, so that the end is found without asking for more room.
    let mut bytes = room::passing(usize::try_from(length).unwrap_or(0) + 1);
    let read = file.take(bytes_max + 1).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > bytes_max {
        return Err(Flaw::new(format!(
            "file {} is larger than {} MiB",
            path.display(),
            bytes_max >> 20
        )));
    }
    Ok(bytes)
}

pub(crate) fn read_text(path: &Path, bytes_max: u64) -> Result<String, Flaw> {
    let bytes = read(path, bytes_max)?;
    String::from_utf8(bytes).map_err(|_| Flaw::new(format!("file {} is not UTF-8 text", path.display())))
}

pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Flaw {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => Flaw::new(format!("file {shown} does not exist"))
            .hint("paths are relative to the folder of the settings file"),
        io::ErrorKind::PermissionDenied => {
            Flaw::new(format!("file {shown} may not be read by {}", current_user())).hint(
                "let that user read the file and enter its folders, for example with chown or chgrp, or run Flowgate as \
                 a user who may",
            )
        }
        io::ErrorKind::InvalidData => Flaw::new(format!("file {shown} is not UTF-8 text")),
        _ => Flaw::new(format!("file {shown} cannot be read: {error}")),
    }
}

/// The user that this process runs as, for people. Linux shows its number, and the file of users its name.
fn current_user() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    // The second number is the effective one, by which files are opened (proc_pid_status(5)).
    let numbers = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let Some(number) = numbers.and_then(|numbers| numbers.split_whitespace().nth(1)) else {
        return "the user that Flowgate runs as".to_owned();
    };
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let name = fields.find_map(|fields| match fields.as_slice() {
        [name, _, uid, ..] if *uid == number => Some((*name).to_owned()),
        _ => None,
    });
    match name {
        Some(name) if name.bytes().all(|byte| byte.is_ascii_graphic()) => {
            format!("user {name} (uid {number})")
        }
        _ => format!("uid {number}"),
    }
}

/// What others than the owner may do with a secret file.
#[cfg(unix)]
pub(crate) fn exposure(file: &Metadata, path: &Path) -> Option<Flaw> {
    use std::os::unix::fs::PermissionsExt;

    let mode = file.permissions().mode();
    if mode & 0o044 == 0 {
        return None;
    }
    let what = format!(
        "secret file {} can be read by other users (mode {:03o})",
        path.display(),
        mode & 0o777
    );
    Some(Flaw::new(what).hint("take their rights away, for example with chmod 600"))
}

#[cfg(not(unix))]
pub(crate) fn exposure(_: &Metadata, _: &Path) -> Option<Flaw> {
    None
}
