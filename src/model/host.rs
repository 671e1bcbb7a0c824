//! Hosts as settings and addresses name them: one grammar. What a request names is judged in `policy/host.rs`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;

use crate::model::Flaw;

/// A host as it is in an address, in lower case and without port: a DNS name, an IPv4 address, or an IPv6 address in
/// brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host(Box<str>);

impl Deref for Host {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl Host {
    /// Reads a host that is not followed by anything.
    pub(crate) fn parse(text: &str) -> Result<Self, Flaw> {
        check_host(text.to_ascii_lowercase())
    }

    /// The host of an authority, whatever its port is.
    pub(crate) fn of_authority(authority: &str) -> Option<Self> {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
        (port.is_none_or(is_port) && is_host(host)).then(|| Self(host.to_ascii_lowercase().into()))
    }

    /// The address, if the host is one and no name.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.trim_matches(['[', ']']).parse().ok()
    }
}

fn check_host(host: String) -> Result<Host, Flaw> {
    if host.contains("://") || host.contains('/') {
        return Err(
            Flaw::new("a host has no scheme and no path").hint("write for example \"hooks.example.com\"")
        );
    }
    if host.contains('*') {
        return Err(
            Flaw::new("a host cannot contain a star").hint("leave the host out to answer for every host")
        );
    }
    let bare = host
        .rsplit_once(':')
        .filter(|(name, port)| is_host(name) && port.parse::<u16>().is_ok());
    if let Some((name, _)) = bare.filter(|_| !is_host(&host)) {
        return Err(Flaw::new("a host has no port here").hint(format!("write \"{name}\"")));
    }
    if let Some(name) = host.strip_suffix('.').filter(|name| is_host(name)) {
        return Err(Flaw::new("a host has no dot at its end").hint(format!("write \"{name}\"")));
    }
    if !is_host(&host) {
        return Err(Flaw::new("this is not a host name").hint("write for example \"hooks.example.com\""));
    }
    Ok(Host(host.into()))
}

fn is_host(text: &str) -> bool {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => text.parse::<Ipv4Addr>().is_ok() || is_domain(text),
    }
}

/// Whether this is a DNS name: labels of up to 63 bytes, 253 altogether (RFC 1035 section 2.3.4).
pub(crate) fn is_domain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let fits =
        |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain) && !label.starts_with('-');
    // A last label of digits would be half an IPv4 address.
    let numeric = text
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    text.len() <= 253 && text.split('.').all(fits) && !numeric
}

#[cfg(test)]
mod tests {
    use super::Host;

    #[test]
    fn a_host_is_a_name_in_lower_case_without_port() {
        for (text, read) in [
            ("Hooks.Example.com", "hooks.example.com"),
            ("localhost", "localhost"),
            ("192.0.2.1", "192.0.2.1"),
            ("[2001:db8::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(&*Host::parse(text).unwrap(), read);
        }
        for (bad, correction) in [
            ("hooks.example.com:8443", "\"hooks.example.com\""),
            ("hooks.example.com.", "\"hooks.example.com\""),
            ("https://hooks.example.com", "hooks.example.com"),
            ("*.example.com", "every host"),
            ("", "hooks.example.com"),
            ("a..b", "hooks.example.com"),
            ("2001:db8::1", "hooks.example.com"),
            ("1.2.3", "hooks.example.com"),
        ] {
            let hint = Host::parse(bad).unwrap_err().hint.unwrap();
            assert!(hint.contains(correction), "{bad}: {hint}");
        }
    }
}
