//! Scheme and host under which callers know a route. Vendors sign the address that they call; it is never taken from a request,
//! whose sender could name any.

use crate::model::{Flaw, Host};

const SCHEME: &str = "https://";

/// `https://hooks.example.com`, without a path; as it is written, because it is signed as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(Box<str>);

impl PublicUrl {
    pub(crate) fn parse(text: &str) -> Result<Self, Flaw> {
        let authority = text.strip_prefix(SCHEME);
        match authority.filter(|authority| Host::of_authority(authority).is_some()) {
            Some(_) => Ok(Self(text.into())),
            None => Err(Flaw::new("this is not scheme and host of a public address")
                .hint("write for example \"https://hooks.example.com\", without a path and without a slash at the end")),
        }
    }

    pub(crate) fn of_host(host: &Host) -> Self {
        Self(format!("{SCHEME}{host}").into())
    }

    /// The address of a request with this path and query.
    pub fn with(&self, path_and_query: &str) -> String {
        format!("{}{path_and_query}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::PublicUrl;

    #[test]
    fn a_public_url_is_scheme_and_host_as_they_are_written() {
        let url = PublicUrl::parse("https://Hooks.example.com:8443").unwrap();
        assert_eq!(
            url.with("/orders?a=b"),
            "https://Hooks.example.com:8443/orders?a=b"
        );
        for bad in [
            "",
            "hooks.example.com",
            "http://a.example",
            "https://",
            "https://a.example/",
            "https://a.example/x",
            "https://a b",
        ] {
            assert!(PublicUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
