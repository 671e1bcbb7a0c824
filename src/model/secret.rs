//! A text that must not appear in any output: masked when printed, compared in constant time, wiped when dropped.
//! It decides nothing about where a secret comes from; `settings/source.rs` reads them.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// A secret text. Clones share one buffer, which is wiped when the last clone is dropped.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// Takes a text over as a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Arc::new(Zeroizing::new(text.into())))
    }

    /// The text itself. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the secret equals `text`; the time taken depends on the lengths alone.
    pub fn same_as(&self, text: &str) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.0.as_bytes(), text.as_bytes()).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn a_secret_does_not_print() {
        let secret = Secret::new("canary-7f");
        assert_eq!(format!("{secret:?} {secret:#?}"), "Secret(***) Secret(***)");
    }

    #[test]
    fn secrets_compare_by_content() {
        let secret = Secret::new("one");
        assert!(secret.same_as("one"));
        assert!(!secret.same_as("two"));
        assert!(!secret.same_as("one longer"));
    }
}
