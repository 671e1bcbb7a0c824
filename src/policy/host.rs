//! Reads the value of a `Host` field or an authority: which host does the caller mean, without its port?
//! Values that two servers could read as two hosts are refused; which hosts are served is decided in
//! `route.rs`.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use crate::model::host::{NAME_BYTES_MAX, read_port, split_port};
use crate::problem::{Kind, Problem};

/// Why a value does not name one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostFault {
    /// There is nothing in it, or nothing before the port.
    #[error("the host is empty")]
    Empty,
    /// A character no host name has: user information, a path, a space, an escape.
    #[error("the host has a character that no host name has")]
    Character,
    /// An empty label, or too many characters.
    #[error("the host is not a DNS name")]
    Name,
    #[error("the host has brackets around something that is no IPv6 address")]
    Literal,
    #[error("the port after the host is not a number from 1 to 65535")]
    Port,
}

impl From<HostFault> for Problem {
    fn from(fault: HostFault) -> Self {
        Problem::from(Kind::MalformedRequest)
            .detail("The host must be a DNS name, an IPv4 address or an IPv6 address in brackets.")
            .because(fault.to_string())
    }
}

/// The host in `value` as it is written there, without its port; an IPv6 address keeps its brackets.
///
/// The grammar is that of RFC 9110 section 7.2, less what only helps to deceive: percent-encoding in the
/// name, zone ids, and a colon without a port.
pub fn parse(value: &str) -> Result<&str, HostFault> {
    if let Some(inside) = value.strip_prefix('[') {
        return parse_literal(value, inside);
    }
    let (host, port) = match value.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (value, None),
    };
    check_name(host)?;
    port.map_or(Ok(()), check_port)?;
    Ok(host)
}

/// The host in the form the route table uses: lower-case, without port and final dot; copied only if it must
/// change.
pub fn fold(host: &str) -> Cow<'_, str> {
    let (bare, _) = split_port(host);
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    if bare.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(bare.to_ascii_lowercase());
    }
    Cow::Borrowed(bare)
}

fn parse_literal<'a>(value: &'a str, inside: &str) -> Result<&'a str, HostFault> {
    let (address, after) = inside.split_once(']').ok_or(HostFault::Literal)?;
    address.parse::<Ipv6Addr>().map_err(|_| HostFault::Literal)?;
    if !after.is_empty() {
        check_port(after.strip_prefix(':').ok_or(HostFault::Literal)?)?;
    }
    value.strip_suffix(after).ok_or(HostFault::Literal)
}

fn check_name(host: &str) -> Result<(), HostFault> {
    if host.is_empty() {
        return Err(HostFault::Empty);
    }
    // The underscore is no host name letter, but names inside of companies have it.
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if !host.bytes().all(usual) {
        return Err(HostFault::Character);
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() > NAME_BYTES_MAX || name.as_bytes().split(|byte| *byte == b'.').any(<[u8]>::is_empty) {
        return Err(HostFault::Name);
    }
    Ok(())
}

fn check_port(port: &str) -> Result<(), HostFault> {
    read_port(port).map(drop).ok_or(HostFault::Port)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::net::Ipv6Addr;

    use proptest::prelude::any;
    use proptest::proptest;

    use super::{HostFault, fold, parse};
    use crate::problem::{Kind, Problem};

    #[test]
    fn a_host_loses_its_port_and_nothing_else() {
        for (value, host) in [
            ("flows.example.com", "flows.example.com"),
            ("Flows.Example.com.:8443", "Flows.Example.com."),
            ("localhost:1", "localhost"),
            ("10.0.0.1:65535", "10.0.0.1"),
            ("[::1]", "[::1]"),
            ("[2001:db8::1]:443", "[2001:db8::1]"),
            ("my_host", "my_host"),
            ("my-host.example", "my-host.example"),
        ] {
            assert_eq!(parse(value), Ok(host));
        }
    }

    #[test]
    fn what_could_be_read_as_two_hosts_is_refused() {
        for (value, fault) in [
            ("", HostFault::Empty),
            (":80", HostFault::Empty),
            ("user@host", HostFault::Character),
            ("user:secret@host", HostFault::Port),
            ("host/path", HostFault::Character),
            ("host\\path", HostFault::Character),
            ("ho st", HostFault::Character),
            (" host", HostFault::Character),
            ("host,other", HostFault::Character),
            ("h%6fst", HostFault::Character),
            ("höst", HostFault::Character),
            ("host#", HostFault::Character),
            ("host?x", HostFault::Character),
            (".", HostFault::Name),
            (".host", HostFault::Name),
            ("a..b", HostFault::Name),
            ("host..", HostFault::Name),
            ("host:", HostFault::Port),
            ("host:0", HostFault::Port),
            ("host:+80", HostFault::Port),
            ("host:80a", HostFault::Port),
            ("host:65536", HostFault::Port),
            ("host:80:80", HostFault::Port),
            ("::1", HostFault::Empty),
            ("[::1", HostFault::Literal),
            ("[host]", HostFault::Literal),
            ("[fe80::1%25eth0]", HostFault::Literal),
            ("[::1]x", HostFault::Literal),
            ("[::1]:", HostFault::Port),
            ("[::1]:8]", HostFault::Port),
            ("[]", HostFault::Literal),
        ] {
            assert_eq!(parse(value), Err(fault), "{value:?}");
        }
        assert_eq!(parse(&"a.".repeat(127)), Ok("a.".repeat(127).as_str()));
        assert_eq!(parse(&"a.".repeat(128)), Err(HostFault::Name));
        let name = "a.".repeat(126) + "a";
        assert_eq!(parse(&name), Ok(name.as_str()));
        assert_eq!(parse(&(name + "b")), Err(HostFault::Name));
    }

    #[test]
    fn a_fault_is_a_malformed_request_that_says_what_a_host_is() {
        let problem = Problem::from(HostFault::Port);
        assert_eq!(problem.kind(), Kind::MalformedRequest);
        assert!(
            problem
                .explanation()
                .unwrap()
                .starts_with("The host must be a DNS name")
        );
        assert!(problem.cause().unwrap().starts_with("the port after the host"));
    }

    #[test]
    fn hosts_are_compared_without_case_port_and_final_dot() {
        for host in [
            "a.example",
            "A.Example",
            "a.example.",
            "a.example:443",
            "A.EXAMPLE.:443",
        ] {
            assert_eq!(fold(host), "a.example");
        }
        assert!(matches!(fold("a.example.:443"), Cow::Borrowed("a.example")));
        assert_eq!(fold("[::1]"), "[::1]");
        assert_eq!(fold("[::1]:80"), "[::1]");
    }

    proptest! {
        #[test]
        fn no_value_breaks_the_parser(value in any::<String>()) {
            let _ = parse(&value);
        }

        #[test]
        fn what_was_parsed_parses_again(value in "[a-zA-Z0-9.:@/\\[\\] _-]{0,12}") {
            if let Ok(host) = parse(&value) {
                assert_eq!(parse(host), Ok(host));
                assert!(value.starts_with(host));
            }
        }

        #[test]
        fn every_address_is_a_host(address in any::<u128>(), port in 1u16..) {
            let literal = format!("[{}]", Ipv6Addr::from(address));
            assert_eq!(parse(&format!("{literal}:{port}")), Ok(literal.as_str()));
        }
    }
}
