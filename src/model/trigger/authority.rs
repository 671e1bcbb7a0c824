//! Host and port of an address.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::model::trigger::TriggerUrlError;

const HTTPS_PORT: u16 = 443;

pub(super) fn read_authority(authority: &str) -> Result<(String, u16), TriggerUrlError> {
    if authority.contains('@') {
        return Err(TriggerUrlError::UserInfo);
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(TriggerUrlError::BadHost)?;
            host.parse::<Ipv6Addr>().map_err(|_| TriggerUrlError::BadHost)?;
            (host, port)
        }
        None => {
            let cut = authority.find(':').unwrap_or(authority.len());
            let (host, port) = authority.split_at_checked(cut).unwrap_or((authority, ""));
            check_name(host)?;
            (host, port)
        }
    };
    Ok((host.to_ascii_lowercase(), read_port(port)?))
}

fn read_port(text: &str) -> Result<u16, TriggerUrlError> {
    if text.is_empty() {
        return Ok(HTTPS_PORT);
    }
    let digits = text.strip_prefix(':').ok_or(TriggerUrlError::BadHost)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(TriggerUrlError::BadPort);
    }
    match digits.parse::<u16>() {
        Ok(0) | Err(_) => Err(TriggerUrlError::BadPort),
        Ok(port) => Ok(port),
    }
}

fn check_name(host: &str) -> Result<(), TriggerUrlError> {
    if host.is_empty() {
        return Err(TriggerUrlError::NoHost);
    }
    // 253 and 63 are the limits of a name and of a label in DNS (RFC 1035, section 2.3.4).
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let fits = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
    if host.len() > 253 || !host.split('.').all(fits) {
        return Err(TriggerUrlError::BadHost);
    }
    // Some parsers read a name whose last label is a number as an IPv4 address, and others do not.
    let last = host.rsplit('.').next().unwrap_or(host);
    let is_hex = last.get(..2).is_some_and(|mark| mark.eq_ignore_ascii_case("0x"));
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit()) || is_hex;
    if numeric && host.parse::<Ipv4Addr>().is_err() {
        return Err(TriggerUrlError::BadHost);
    }
    Ok(())
}

pub(super) fn print_authority(host: &str, port: u16) -> String {
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    if port == HTTPS_PORT {
        return host;
    }
    format!("{host}:{port}")
}
