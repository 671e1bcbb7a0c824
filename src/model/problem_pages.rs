//! Where readable pages about problems are: an address of the gateway itself, to which the type of every problem leads.

use std::sync::Arc;

use crate::model::{FixedPath, Flaw, Host};

const SCHEME: &str = "https://";

/// `https://hooks.example.com/problems`: scheme, host and path. The page about a problem is at its code, below the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProblemPages {
    /// With a slash at its end.
    base: Arc<str>,
    host: Host,
    /// Where the path begins in it.
    path_at: usize,
}

impl ProblemPages {
    pub(crate) fn parse(text: &str) -> Result<Self, Flaw> {
        let invalid = || {
            Flaw::new("this is no address for pages about problems")
                .hint("write for example \"https://hooks.example.com/problems\", without a slash at the end")
        };
        let rest = text.strip_prefix(SCHEME).ok_or_else(invalid)?;
        let (authority, path) = rest.split_at(rest.find('/').ok_or_else(invalid)?);
        let host = Host::of_authority(authority).ok_or_else(invalid)?;
        FixedPath::parse(path)?;
        if path.ends_with('/') {
            return Err(invalid());
        }
        Ok(Self {
            base: format!("{text}/").into(),
            host,
            path_at: SCHEME.len() + authority.len(),
        })
    }

    /// What the code of a problem is appended to.
    pub fn base(&self) -> &Arc<str> {
        &self.base
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The path below which the pages are, with a slash at its end.
    pub fn path(&self) -> &str {
        self.base.get(self.path_at..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::ProblemPages;

    #[test]
    fn an_address_has_a_host_and_a_path() {
        let pages = ProblemPages::parse("https://Hooks.example.com:8443/a/problems").unwrap();
        assert_eq!(&**pages.base(), "https://Hooks.example.com:8443/a/problems/");
        assert_eq!(&**pages.host(), "hooks.example.com");
        assert_eq!(pages.path(), "/a/problems/");
        for bad in [
            "",
            "https://",
            "https://a.example",
            "https://a.example/",
            "https://a.example/problems/",
            "http://a.example/problems",
            "https://a.example/problems?a=b",
            "https://a.example/problems#a",
            "https://a.example/../problems",
            "https://a.example//problems",
            "https://a.example/{code}",
            "https://a.example/a\"b",
            "https://a@b.example/problems",
            "https://a b/problems",
        ] {
            assert!(ProblemPages::parse(bad).is_err(), "{bad}");
        }
    }
}
