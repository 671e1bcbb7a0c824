//! The origin of a page. It is compared byte by byte with what a browser sends, so it must be written the way browsers write
//! it.

use std::fmt;

use http::HeaderValue;

use crate::model::host::{read_port, split_port};
use crate::model::{Flaw, Host};
use crate::settings::kinds::word;

/// Scheme, host in lower case, and the port unless it is the scheme's own: what a browser sends as `Origin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin {
    value: HeaderValue,
    is_encrypted: bool,
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // All of it is ASCII.
        f.write_str(self.value.to_str().unwrap_or_default())
    }
}

impl WebOrigin {
    pub fn value(&self) -> &HeaderValue {
        &self.value
    }

    /// Whether nobody on its way can change the page.
    pub(super) fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }
}

word! {
    WebOrigin: read_origin, ["https://app.example.com"];
}

fn read_origin(text: &str) -> Result<WebOrigin, Flaw> {
    let flaw = match text {
        "*" => Flaw::new("`*` would let every page of the web call the route"),
        "null" => Flaw::new("`null` is the origin of every sandboxed page and local file"),
        _ => Flaw::new("this is not an origin as browsers send it"),
    };
    let schemes = [("https://", 443), ("http://", 80)];
    let read = schemes.iter().find_map(|(scheme, usual)| {
        let (host, port) = split_port(text.strip_prefix(scheme)?);
        let is_port = |port: &str| {
            let number = read_port(port).filter(|number| number != usual);
            number.is_some_and(|number| number.to_string() == port)
        };
        let host = Host::parse(host).ok().filter(|read| **read == *host)?;
        port.is_none_or(is_port).then_some(WebOrigin {
            value: HeaderValue::from_str(text).ok()?,
            is_encrypted: *usual == 443 || host.is_here(),
        })
    });
    read.ok_or_else(|| {
        flaw.hint(
            "write scheme and host in lower case, the port only if it is not the usual one, and nothing behind it: \
             \"https://app.example.com\"",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::read_origin;

    #[test]
    fn an_origin_is_written_as_browsers_write_it() {
        for good in [
            "https://app.example.com",
            "https://app.example.com:8443",
            "http://localhost:3000",
            "http://127.0.0.1",
            "https://[2001:db8::1]:444",
        ] {
            assert_eq!(read_origin(good).unwrap().value(), good);
        }
        for bad in [
            "",
            "*",
            "null",
            "app.example.com",
            "HTTPS://app.example.com",
            "https://App.example.com",
            "https://app.example.com/",
            "https://app.example.com/page",
            "https://app.example.com:443",
            "http://app.example.com:80",
            "https://app.example.com:08443",
            "https://*.example.com",
            "https://user@app.example.com",
            "https://a.example,https://b.example",
            "https://b\u{fc}cher.example",
            "ftp://app.example.com",
        ] {
            assert!(read_origin(bad).is_err(), "{bad}");
        }
    }
}
