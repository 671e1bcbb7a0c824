//! Hosts as settings and addresses name them: one grammar. What a request names is judged in `policy/host.rs`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::Flaw;

/// A host as it is in an address, in lower case and without port: a DNS name, an IPv4 address, or an IPv6 address in
/// brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host(Box<str>);

shown_as!(Host.0: str);

impl Host {
    /// Reads a host that is not followed by anything.
    pub(crate) fn parse(text: &str) -> Result<Self, Flaw> {
        check_host(text.to_ascii_lowercase())
    }

    /// The host of an authority, whatever its port is.
    pub(crate) fn of_authority(authority: &str) -> Option<Self> {
        let (host, port) = split_port(authority);
        let is_good = port.is_none_or(|port| read_port(port).is_some()) && is_host(host);
        is_good.then(|| Self(host.to_ascii_lowercase().into()))
    }

    /// The address, if the host is one and no name.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.trim_matches(['[', ']']).parse().ok()
    }

    /// Whether it names this machine.
    pub(crate) fn is_here(&self) -> bool {
        &**self == "localhost" || self.address().is_some_and(|address| address.is_loopback())
    }
}

/// Host and port of an authority as they are written; the colons of an IPv6 address are within its brackets.
pub(crate) fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// A port from 1 to 65535, in digits alone: `parse` would take a plus sign.
pub(crate) fn read_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|_| digits);
    port.filter(|port| *port > 0)
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

/// Whether this is a DNS name, an IPv4 address, or an IPv6 address in brackets.
pub(crate) fn is_host(text: &str) -> bool {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => text.parse::<Ipv4Addr>().is_ok() || is_domain(text),
    }
}

/// Longest DNS name, without a final dot (RFC 1035 section 2.3.4).
pub(crate) const NAME_BYTES_MAX: usize = 253;

/// Whether this is a DNS name, of labels of up to 63 bytes.
pub(crate) fn is_domain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let fits =
        |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain) && !label.starts_with('-');
    // Some parsers read a name whose last label is a number as an IPv4 address, and others do not.
    let last = text.rsplit('.').next().unwrap_or(text);
    let is_hex = last.get(..2).is_some_and(|mark| mark.eq_ignore_ascii_case("0x"));
    let is_number = is_hex || last.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= NAME_BYTES_MAX && text.split('.').all(fits) && !is_number
}

#[cfg(test)]
mod tests {
    use super::{Host, read_port, split_port};

    #[test]
    fn a_port_is_digits_behind_the_last_colon() {
        assert_eq!(split_port("a.example:443"), ("a.example", Some("443")));
        assert_eq!(split_port("[::1]:80"), ("[::1]", Some("80")));
        assert_eq!(split_port("[::1]"), ("[::1]", None));
        assert_eq!(split_port("[::1]x"), ("[::1]x", None));
        assert_eq!(read_port("65535"), Some(65535));
        for bad in ["", "0", "+1", "-1", "65536", "1a"] {
            assert_eq!(read_port(bad), None, "{bad}");
        }
        assert!(Host::of_authority("a.example:+443").is_none());
    }

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
            ("a.0x7f", "hooks.example.com"),
        ] {
            let hint = Host::parse(bad).unwrap_err().hint.unwrap();
            assert!(hint.contains(correction), "{bad}: {hint}");
        }
    }
}
