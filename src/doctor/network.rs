//! Checks the connection to a host: name resolution, TCP, TLS certificate. Each step has a line of its own,
//! because each is fixed by somebody else.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::doctor::advice;
use crate::doctor::report::{Check, Group, Verdict, count};
use crate::model::claims::safe;
use crate::model::host::{read_port, split_port};
use crate::model::{FixedBy, Remedy, clock};
use crate::outbound::Trust;

/// A certificate that expires within this time causes a warning: renewals that work come earlier.
pub(super) const RENEWAL: Duration = Duration::from_secs(14 * 86_400);
const NAMES_SHOWN_MAX: usize = 6;

pub(super) struct Destination<'a> {
    pub host: &'a str,
    pub port: u16,
    /// Address to use in place of name resolution.
    pub connect_to: Option<SocketAddr>,
    pub trust: &'a Trust,
    /// Time limit for each step.
    pub timeout: Duration,
    /// The settings that name the host: `authority of the identity`.
    pub setting: &'static str,
    pub other_address: OtherAddress,
}

impl<'a> Destination<'a> {
    /// One for which no setting names another address.
    pub(super) fn of(address: &'a str, trust: &'a Trust, timeout: Duration, setting: &'static str) -> Self {
        let (host, port) = host_of(address);
        Self {
            host,
            port,
            connect_to: None,
            trust,
            timeout,
            setting,
            other_address: OtherAddress::Refused,
        }
    }
}

/// Whether the settings accept a `connect_to` for this host, as those of routes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OtherAddress {
    Accepted,
    Refused,
}

impl OtherAddress {
    /// Returns the text only if `connect_to` can be set.
    fn or_nothing(self, text: &'static str) -> &'static str {
        match self {
            Self::Accepted => text,
            Self::Refused => "",
        }
    }
}

/// A host, with everything that decides how it is reached.
type HostKey = (String, u16, Option<SocketAddr>, Vec<Vec<u8>>);

/// Hosts that were already checked, so that a fault is reported once.
#[derive(Default)]
pub(super) struct CheckedHosts(HashMap<HostKey, (String, Vec<Check>)>);

impl CheckedHosts {
    /// Checks the connection to a host. For a host that was checked before it repeats the result; a repeated
    /// failure is not counted again.
    pub(super) async fn walk(&mut self, place: &Destination<'_>, group: &mut Group) {
        let trust = match place.trust {
            Trust::System => Vec::new(),
            Trust::Only(certificates) => certificates.iter().map(|der| der.to_vec()).collect(),
        };
        let key = (place.host.to_owned(), place.port, place.connect_to, trust);
        if let Some((title, checks)) = self.0.get(&key) {
            for check in checks {
                let failed = check.verdict == Verdict::Fail;
                group.add(match failed {
                    true => Check::skipped(check.name, format!("{} failed, see {title}", check.name)),
                    false => check.clone(),
                });
            }
            return;
        }
        let before = group.checks.len();
        walk(place, group).await;
        let made = group.checks.get(before..).unwrap_or_default().to_vec();
        self.0.insert(key, (group.title(), made));
    }
}

/// Checks that a host without TLS accepts connections, without sending anything.
pub(super) async fn reach(place: &Destination<'_>) -> Result<Check, Check> {
    let (_, addresses) = resolve(place).await?;
    connect(place, &addresses).await.map(|(check, _)| check)
}

async fn walk(place: &Destination<'_>, group: &mut Group) {
    let Some(addresses) = step(resolve(place).await, group, &["tcp", "tls"]) else {
        return;
    };
    if let Some(stream) = step(connect(place, &addresses).await, group, &["tls"]) {
        group.add(handshake(place, stream).await);
    }
}

/// Adds a check; those after it are skipped if it, or an earlier one, failed.
fn step<T>(made: Result<(Check, T), Check>, group: &mut Group, later: &[&'static str]) -> Option<T> {
    let (check, found) = match made {
        Ok((check, found)) => (check, Some(found)),
        Err(check) => (check, None),
    };
    group.add(check);
    match group.skips(later) {
        true => None,
        false => found,
    }
}

async fn resolve(place: &Destination<'_>) -> Result<(Check, Vec<SocketAddr>), Check> {
    if let Some(address) = place.connect_to {
        let says = format!("connect_to names {address} in place of DNS");
        return Ok((Check::ok("dns", says), vec![address]));
    }
    let host = place.host;
    let failed = |why: String| {
        let what = format!(
            "Compare the {} letter by letter, then ask who runs DNS for this host{}.",
            place.setting,
            place
                .other_address
                .or_nothing("; behind a private endpoint set connect_to")
        );
        let remedy = Remedy::new(FixedBy::HostAdmin, what).command(format!("getent hosts {host}"));
        Check::fail(
            "dns",
            format!("the name {host} cannot be resolved: {why}"),
            remedy,
        )
    };
    let found = tokio::time::timeout(place.timeout, tokio::net::lookup_host((host, place.port))).await;
    let found: Vec<SocketAddr> = match found {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed(format!("no answer within {:?}", place.timeout))),
    };
    match found.as_slice() {
        [] => Err(failed("it has no address".to_owned())),
        [first, ..] => {
            let says = format!(
                "{host} has {}, first {}",
                count(found.len(), "address", "addresses"),
                first.ip()
            );
            Ok((Check::ok("dns", says), found))
        }
    }
}

async fn connect(place: &Destination<'_>, addresses: &[SocketAddr]) -> Result<(Check, TcpStream), Check> {
    let mut last = "no address".to_owned();
    let tries = async {
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return Some((*address, stream)),
                Err(error) => last = format!("{address}: {error}"),
            }
        }
        None
    };
    match tokio::time::timeout(place.timeout, tries).await {
        Ok(Some((address, stream))) => {
            let says = format!("{address} accepts connections");
            return Ok((Check::ok("tcp", says), stream));
        }
        Ok(None) => {}
        Err(_) => last = format!("no answer within {:?}", place.timeout),
    }
    let what = format!(
        "Let the gateway's host connect to {} port {} (the gateway uses no proxy), or correct the port in \
         the {}.",
        place.host, place.port, place.setting
    );
    let remedy =
        Remedy::new(FixedBy::HostAdmin, what).command(format!("nc -vz {} {}", place.host, place.port));
    let says = format!("no connection to {} port {}: {last}", place.host, place.port);
    Err(Check::fail("tcp", says, remedy))
}

async fn handshake(place: &Destination<'_>, stream: TcpStream) -> Check {
    let host = place.host;
    let config = match place.trust.client_config() {
        Ok(config) => config,
        Err(error) => return Check::fail("tls", error.to_string(), advice::authorities()),
    };
    let Ok(name) = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()) else {
        let remedy = Remedy::new(FixedBy::Operator, format!("Correct the {}.", place.setting));
        return Check::fail(
            "tls",
            format!("{host} is not a name that a certificate can contain"),
            remedy,
        );
    };
    let connector = TlsConnector::from(Arc::new(config));
    // Boxed: the handshake's state is large.
    let shaken = tokio::time::timeout(place.timeout, Box::pin(connector.connect(name, stream))).await;
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return refused(place, &error),
        Err(_) => {
            let what =
                "Find out what is in between: a firewall that inspects TLS, or another service at this port.";
            let says = format!("no TLS handshake with {host} within {:?}", place.timeout);
            return Check::fail("tls", says, Remedy::new(FixedBy::HostAdmin, what));
        }
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let Some(leaf) = chain.first().and_then(|leaf| CertificateFacts::read(leaf)) else {
        return Check::ok("tls", format!("{host} is trusted"));
    };
    let says = format!(
        "{host} is trusted, {}, {}",
        count(chain.len(), "certificate", "certificates"),
        leaf.says()
    );
    match leaf.left() {
        left if left <= RENEWAL => {
            let what = format!("The operator of {host} has to renew its certificate.");
            Check::warn("tls", says, Remedy::new(FixedBy::HostAdmin, what))
        }
        _ => Check::ok("tls", says),
    }
}

fn refused(place: &Destination<'_>, error: &io::Error) -> Check {
    let (host, port) = (place.host, place.port);
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let fault = match inner {
        Some(rustls::Error::InvalidCertificate(fault)) => Some(fault),
        _ => None,
    };
    let openssl = format!("openssl s_client -connect {host}:{port} -servername {host} </dev/null");
    let clock = "timedatectl status".to_owned();
    let (why, fixed_by, what, command) = match fault {
        Some(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            let (setting, also) = (place.setting, place.other_address.or_nothing(" and connect_to"));
            let why = format!("the certificate is for another name than {host}");
            let what = format!("Compare the {setting}{also}; something else answers there.");
            return Check::fail("tls", why, Remedy::new(FixedBy::Operator, what).command(openssl));
        }
        Some(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => (
            format!("the certificate of {host} has expired"),
            FixedBy::HostAdmin,
            "Compare this host's clock, then have the certificate renewed.",
            clock,
        ),
        Some(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => (
            format!("the certificate of {host} is not valid yet"),
            FixedBy::HostAdmin,
            "Compare this host's clock.",
            clock,
        ),
        Some(CertificateError::UnknownIssuer) => (
            format!("the certificate of {host} comes from an authority that is not trusted"),
            FixedBy::Operator,
            "If a firewall inspects TLS here, set ca_file to its authority; if not, something else answers.",
            openssl,
        ),
        _ => (
            format!("TLS with {host} failed: {error}"),
            FixedBy::HostAdmin,
            "Find out what answers at this address and port.",
            openssl,
        ),
    };
    Check::fail("tls", why, Remedy::new(fixed_by, what).command(command))
}

pub(super) struct CertificateFacts {
    names: Vec<String>,
    pub not_after: SystemTime,
}

impl CertificateFacts {
    pub(super) fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let extension = parsed.subject_alternative_name().ok().flatten();
        let names = extension
            .iter()
            .flat_map(|extension| &extension.value.general_names);
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(safe(name)),
            _ => None,
        });
        let moment = |seconds: i64| {
            let seconds = u64::try_from(seconds).unwrap_or(0);
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
        };
        Some(Self {
            names: names.take(NAMES_SHOWN_MAX).collect(),
            not_after: moment(parsed.validity().not_after.timestamp())?,
        })
    }

    pub(super) fn left(&self) -> Duration {
        self.not_after.duration_since(clock::wall()).unwrap_or_default()
    }

    pub(super) fn says(&self) -> String {
        format!("names {}, {}", self.names.join(" "), days(self.left()))
    }
}

/// Splits host and port from an address that begins with a scheme and that the settings have checked.
fn host_of(address: &str) -> (&str, u16) {
    let (rest, usual) = match address.strip_prefix("http://") {
        Some(rest) => (rest, 80),
        None => (address.strip_prefix("https://").unwrap_or(address), 443),
    };
    let authority = rest.split('/').next().unwrap_or(rest);
    let (host, port) = split_port(authority);
    (
        host.trim_matches(['[', ']']),
        port.and_then(read_port).unwrap_or(usual),
    )
}

pub(super) fn days(left: Duration) -> String {
    format!("{} days left", left.as_secs() / 86_400)
}

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (address, host, port) in [
            (
                "https://login.microsoftonline.com",
                "login.microsoftonline.com",
                443,
            ),
            ("https://localhost:8443", "localhost", 8443),
            ("http://127.0.0.1", "127.0.0.1", 80),
            ("http://127.0.0.1:41741/msi/token/", "127.0.0.1", 41741),
            ("contoso.vault.azure.net", "contoso.vault.azure.net", 443),
            ("localhost:8443", "localhost", 8443),
            ("https://[::1]", "::1", 443),
            ("https://[::1]:8443", "::1", 8443),
        ] {
            assert_eq!(host_of(address), (host, port), "{address}");
        }
    }
}
