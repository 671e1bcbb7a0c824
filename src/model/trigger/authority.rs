//! Host and port of an address.

use crate::model::host::{is_host, read_port, split_port};
use crate::model::trigger::TriggerUrlError;

const HTTPS_PORT: u16 = 443;

/// The host in lower case, an IPv6 address without its brackets, and the port.
pub(super) fn read_authority(authority: &str) -> Result<(String, u16), TriggerUrlError> {
    if authority.contains('@') {
        return Err(TriggerUrlError::UserInfo);
    }
    let (host, port) = split_port(authority);
    if host.is_empty() {
        return Err(TriggerUrlError::NoHost);
    }
    if !is_host(host) {
        return Err(TriggerUrlError::BadHost);
    }
    let port = match port {
        Some(port) => read_port(port).ok_or(TriggerUrlError::BadPort)?,
        None => HTTPS_PORT,
    };
    Ok((host.trim_matches(['[', ']']).to_ascii_lowercase(), port))
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
