//! When keys were used last, in a file that is replaced as a whole. Of a key it has the beginning of its digest: enough to find it
//! again, in half the room. Losing the file loses no more than that, so whatever is wrong with it never stops the gateway.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use aws_lc_rs::digest::{Digest, SHA256, digest};
use jiff::Timestamp;

use crate::files;
use crate::files::Draft;
use crate::model::{Minute, locked};

/// The first line: what the file is, and the version of its lines.
const HEAD: &str = "flowgate key uses 1";
/// Keys whose last use is kept; of more, the first of the settings.
const KEYS_MAX: usize = 1_000_000;
/// A line is 32 digits and `2026-11-30T02:24Z`.
const LINE_BYTES: usize = 51;
const BYTES_MAX: u64 = (HEAD.len() + 1 + KEYS_MAX * LINE_BYTES) as u64;
const FORM: &str = "%Y-%m-%dT%H:%MZ";

/// When a key was used last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyUse {
    /// The first bytes of its digest.
    pub digest_start: [u8; 16],
    pub last: Minute,
}

/// The file.
#[derive(Debug)]
pub struct KeyUses {
    path: PathBuf,
    /// Of what it has, so that the same is not written again.
    written: Mutex<Option<Digest>>,
}

impl KeyUses {
    /// The file at this path, which need not be there.
    pub fn new(path: PathBuf) -> Self {
        let written = Mutex::new(None);
        Self { path, written }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What an earlier run has left.
    ///
    /// # Errors
    /// When the file cannot be read, or is not as it was written.
    pub fn read(&self) -> io::Result<Vec<KeyUse>> {
        if !self.path.try_exists()? {
            return Ok(Vec::new());
        }
        let text = files::read_text(&self.path, BYTES_MAX).map_err(|flaw| io::Error::other(flaw.what))?;
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return Err(io::Error::other(format!("its first line is not \"{HEAD}\"")));
        }
        let read = |(number, line)| {
            parse(line).ok_or_else(|| io::Error::other(format!("line {} is damaged", number + 2)))
        };
        lines.enumerate().map(read).collect()
    }

    /// Replaces the file, unless it has all of this.
    ///
    /// # Errors
    /// When it cannot be written; the old file is whole then.
    pub fn write(&self, uses: &[KeyUse]) -> io::Result<()> {
        let mut text = format!("{HEAD}\n");
        for line in uses.iter().take(KEYS_MAX).filter_map(line) {
            text.push_str(&line);
        }
        let mut written = locked(&self.written);
        let content = digest(&SHA256, text.as_bytes());
        if written.is_some_and(|written| written.as_ref() == content.as_ref()) {
            return Ok(());
        }
        let draft = Draft::beside(&self.path)?;
        draft.write(text.as_bytes())?;
        draft.put()?;
        draft.sweep();
        *written = Some(content);
        Ok(())
    }
}

fn line(known: &KeyUse) -> Option<String> {
    let mut line = String::with_capacity(LINE_BYTES);
    for byte in known.digest_start {
        let _ = write!(line, "{byte:02x}");
    }
    let last = Timestamp::try_from(SystemTime::UNIX_EPOCH + known.last.begin()).ok()?;
    let _ = writeln!(line, " {}", last.strftime(FORM));
    Some(line)
}

fn parse(line: &str) -> Option<KeyUse> {
    let (hex, last) = line.split_once(' ')?;
    if hex.len() != 32 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let last: Timestamp = last.parse().ok()?;
    Some(KeyUse {
        digest_start: u128::from_str_radix(hex, 16).ok()?.to_be_bytes(),
        last: Minute::of(last.into()),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::{HEAD, KeyUse, KeyUses, LINE_BYTES, line, parse};
    use crate::model::Minute;

    fn known(start: u8, minute: u32) -> KeyUse {
        KeyUse {
            digest_start: [start; 16],
            last: Minute::new(minute),
        }
    }

    #[test]
    fn what_was_written_is_read_again_and_the_same_is_not_written_twice() {
        let folder = tempfile::tempdir().unwrap();
        let uses = KeyUses::new(folder.path().join("key-uses"));
        assert!(uses.read().unwrap().is_empty(), "no file is no fault");
        let all = [known(1, 29_833_344), known(0xfe, 29_833_345)];
        uses.write(&all).unwrap();
        assert_eq!(uses.read().unwrap(), all);
        let text = fs::read_to_string(uses.path()).unwrap();
        assert!(text.ends_with(" 2026-09-21T14:25Z\n"), "{text}");
        fs::remove_file(uses.path()).unwrap();
        uses.write(&all).unwrap();
        assert!(!uses.path().exists());
        uses.write(&all[..1]).unwrap();
        assert_eq!(uses.read().unwrap(), all[..1]);
    }

    #[test]
    fn a_damaged_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let uses = KeyUses::new(folder.path().join("key-uses"));
        uses.write(&[known(1, 7), known(2, 8)]).unwrap();
        let text = fs::read_to_string(uses.path()).unwrap();
        for (damaged, why) in [
            (text.replace("key uses", "key-uses"), "first line"),
            (text[..text.len() - 5].to_owned(), "line 3 is damaged"),
            (text.replacen("01", "x1", 1), "line 2 is damaged"),
            (String::new(), "first line"),
        ] {
            fs::write(uses.path(), damaged).unwrap();
            let error = uses.read().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        fs::write(uses.path(), [0xff; 40]).unwrap();
        assert!(uses.read().is_err());
        fs::remove_file(uses.path()).unwrap();
        fs::create_dir(uses.path()).unwrap();
        assert!(uses.read().is_err() && uses.write(&[]).is_err());
    }

    proptest! {
        #[test]
        fn a_line_reads_as_what_it_was_written_from(start in any::<[u8; 16]>(), minute in 0u32..1_000_000_000) {
            let known = KeyUse { digest_start: start, last: Minute::new(minute) };
            let written = line(&known).unwrap();
            prop_assert_eq!(written.len(), LINE_BYTES);
            prop_assert_eq!(parse(written.trim_end()), Some(known));
        }

        #[test]
        fn any_text_is_a_line_or_none(text in any::<String>()) {
            let _ = parse(&text);
            prop_assert!(parse(HEAD).is_none());
        }
    }
}
