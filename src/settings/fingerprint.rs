//! The digest that shows whether a running gateway was started with the current contents of its settings files. It covers
//! the settings file, lists of networks and keys, and trusted certificate authorities.
//!
//! It covers no secret: the settings contain only references to secrets, and of the digest of a caller's key only the first
//! 16 bits are included. That still detects a changed key, and does not confirm a guessed one.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};

/// Hexadecimal digits of a key's digest that count.
const KEY_DIGITS: usize = 4;
/// How the digest of a key begins, with or without `hmac-` before it.
const KEY_MARK: &str = "sha256:";

/// Digest of the settings, in 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsDigest(String);

impl fmt::Display for SettingsDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) struct Fingerprint(Context);

impl Default for Fingerprint {
    fn default() -> Self {
        Self::new()
    }
}

impl Fingerprint {
    pub(super) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Adds a text, without its comments and empty lines.
    pub(super) fn text(&mut self, text: &str) {
        for line in text.lines().map(str::trim) {
            if !line.is_empty() && !line.starts_with('#') {
                self.line(line);
            }
        }
        self.end();
    }

    fn line(&mut self, mut rest: &str) {
        while let Some((before, behind)) = rest.split_once(KEY_MARK) {
            self.add(before);
            self.add(KEY_MARK);
            let digits = behind.bytes().take_while(u8::is_ascii_hexdigit).count();
            let (digits, behind) = behind.split_at_checked(digits).unwrap_or((behind, ""));
            self.add(digits.get(..KEY_DIGITS).unwrap_or(digits));
            rest = behind;
        }
        self.add(rest);
        self.0.update(b"\n");
    }

    /// Adds certificates or other values that are no secret.
    pub(super) fn bytes<'a>(&mut self, values: impl IntoIterator<Item = &'a [u8]>) {
        for value in values {
            self.0.update(&(value.len() as u64).to_be_bytes());
            self.0.update(value);
        }
        self.end();
    }

    fn add(&mut self, text: &str) {
        self.0.update(text.as_bytes());
    }

    /// Two texts are not the text that they make together.
    fn end(&mut self) {
        self.0.update(b"\0");
    }

    pub(super) fn finish(self) -> SettingsDigest {
        let digest = self.0.finish();
        SettingsDigest(digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::Fingerprint;

    fn of(texts: &[&str]) -> String {
        let mut digest = Fingerprint::new();
        for text in texts {
            digest.text(text);
        }
        digest.finish().to_string()
    }

    #[test]
    fn comments_and_empty_lines_change_nothing_and_values_do() {
        let text = "[[route]]\nname = \"orders\"";
        assert_eq!(
            of(&[text]),
            of(&["# why\n\n[[route]]\r\n  name = \"orders\"  \n"])
        );
        assert_ne!(of(&[text]), of(&["[[route]]\nname = \"order\""]));
        assert_ne!(of(&["a\nb"]), of(&["a", "b"]));
        assert_eq!(of(&[text]).len(), 64);
    }

    #[test]
    fn of_a_keys_digest_only_the_beginning_counts() {
        let key = |digits: &str| of(&[&format!("one hmac-sha256:{digits} expires=2027-01-01")]);
        let first = key(&format!("abcd{}", "0".repeat(60)));
        assert_eq!(
            first,
            key(&format!("abcd{}", "1".repeat(60))),
            "the rest stays unknown"
        );
        assert_ne!(
            first,
            key(&format!("abce{}", "0".repeat(60))),
            "another key is seen"
        );
        let later = format!("one hmac-sha256:abcd{} expires=2028-01-01", "0".repeat(60));
        assert_ne!(first, of(&[&later]), "what follows counts");
    }
}
