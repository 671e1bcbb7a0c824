//! A text that must not appear in any output: it prints masked, compares in constant time and is wiped when
//! dropped. `settings/source.rs` reads secrets.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// A secret text. Clones share one buffer, which is wiped when the last clone is dropped.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(Arc::new(Zeroizing::new(text.into())))
    }

    /// The text itself. The caller is responsible for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the secret equals `text`; the time taken depends only on the lengths.
    pub fn same_as(&self, text: &str) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.0.as_bytes(), text.as_bytes()).is_ok()
    }
}

/// In constant time, as [`Secret::same_as`].
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.same_as(other.expose())
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
