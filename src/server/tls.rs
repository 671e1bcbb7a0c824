//! Certificates by name, TLS settings of a listener, and what to say about a handshake that failed: what the peer
//! offered and one sentence on what that means.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use std::{fmt, io};

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{Acceptor, ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, Error, InvalidMessage, PeerIncompatible, ServerConfig};

use crate::gateway::{Judge, Validity};
use crate::model::{clock, locked};
use crate::outbound::provider;
use crate::secrets::{Followed, Following, Rereader, SecretOwner, Taken, Verdict};
use crate::server::reason;
use crate::server::reason::Reason;
use crate::settings::{Certificate, Http2, TlsSettings};

/// ALPN name of HTTP/2 (RFC 9113 section 3.2).
pub(super) const ALPN_H2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// The certificates of a listener: finds the one for a name, and lets others take their places.
#[derive(Debug)]
struct Certificates {
    table: ArcSwap<Table>,
    /// All of them, in the order of the settings.
    list: Mutex<Vec<Certificate>>,
    default: usize,
}

/// Which certificate serves which name.
#[derive(Debug)]
struct Table {
    by_name: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

impl Table {
    fn new(list: &[Certificate], default: usize) -> Self {
        let mut by_name = HashMap::new();
        for certificate in list {
            for name in &certificate.names {
                by_name.insert(name.clone(), certificate.key.clone());
            }
        }
        let default = list.get(default).map(|certificate| certificate.key.clone());
        Self { by_name, default }
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let Some(name) = name else {
            return self.default.clone();
        };
        let name = name.to_ascii_lowercase();
        if let Some(key) = self.by_name.get(&name) {
            return Some(key.clone());
        }
        // A wildcard covers exactly one label (RFC 6125 section 6.4.3).
        let wild = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        wild.and_then(|wild| self.by_name.get(&wild))
            .or(self.default.as_ref())
            .cloned()
    }
}

impl Certificates {
    fn new(settings: &TlsSettings) -> Arc<Self> {
        let (list, default) = (settings.certificates.clone(), settings.default_certificate);
        Arc::new(Self {
            table: ArcSwap::from_pointee(Table::new(&list, default)),
            list: Mutex::new(list),
            default,
        })
    }

    /// Has the certificate with this index serve in place of the one before, from the next handshake on.
    ///
    /// # Errors
    /// The last one serves on, and why.
    fn replace(&self, index: usize, new: Certificate, now: SystemTime) -> Result<Replaced, String> {
        let mut list = locked(&self.list);
        let others = list.iter().enumerate().filter(|(other, _)| *other != index);
        let mut taken = others.flat_map(|(_, other)| &other.names);
        if let Some(name) = taken.find(|name| new.names.contains(name)) {
            return Err(format!("another certificate of the listener serves {name}"));
        }
        let Some(current) = list.get_mut(index) else {
            return Ok(Replaced::Same);
        };
        if current.key.cert == new.key.cert {
            return Ok(Replaced::Same);
        }
        if current.is_valid(now) && !new.is_valid(now) {
            let (from, until) = (new.begins_on(), new.ends_on());
            return Err(format!("it is valid from {from} to {until}"));
        }
        *current = new;
        self.table.store(Arc::new(Table::new(&list, self.default)));
        Ok(Replaced::Yes)
    }

    /// Looks for successors of all of them for as long as the gateway runs.
    fn follow(
        self: &Arc<Self>,
        settings: &TlsSettings,
        listener: SocketAddr,
        rereader: &Rereader,
    ) -> Vec<Following> {
        let follow = |(index, certificate): (usize, &Certificate)| {
            let followed = Followed {
                holder: SecretOwner::Listener(listener),
                what: "certificate",
                credential: credential(certificate),
                until: Some(certificate.not_after),
            };
            let (all, source) = (self.clone(), certificate.source.clone());
            rereader.follow(followed, &certificate.source.parts(), move |texts| {
                match source.read(texts) {
                    Ok(new) => all.judge(index, new, listener),
                    Err(why) => Verdict::Refused(why),
                }
            })
        };
        settings.certificates.iter().enumerate().map(follow).collect()
    }

    /// Which of them callers can accept at this moment.
    fn validity(&self, now: SystemTime) -> Validity {
        let list = locked(&self.list);
        let mut found = Validity::default();
        for certificate in list.iter() {
            if certificate.is_valid(now) {
                found.valid += 1;
                continue;
            }
            let names = certificate.names.join(" ");
            found.lapsed.push(match certificate.not_before > now {
                true => format!(
                    "the certificate for {names} is not valid before {}",
                    certificate.begins_on()
                ),
                false => format!("the certificate for {names} expired on {}", certificate.ends_on()),
            });
        }
        found
    }

    fn judge(&self, index: usize, new: Certificate, listener: SocketAddr) -> Verdict {
        let (names, until) = (new.names.join(" "), new.ends_on());
        let foreign = new.foreign_names().join(" ");
        let taken = Taken {
            said: format!("certificate of listener {listener} for {names} replaced, valid until {until}"),
            until: Some(new.not_after),
            credential: Some(credential(&new)),
        };
        match self.replace(index, new, clock::wall()) {
            Ok(Replaced::Yes) => {
                if !foreign.is_empty() {
                    tracing::warn!(
                        %listener,
                        "the certificate of listener {listener} is not made out to {foreign}; callers will refuse it"
                    );
                }
                Verdict::Taken(taken)
            }
            Ok(Replaced::Same) => Verdict::Same,
            Err(why) => Verdict::Refused(why),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replaced {
    Yes,
    /// It is the one that serves.
    Same,
}

/// What a certificate is called among the credentials: its first name.
fn credential(certificate: &Certificate) -> String {
    certificate.names.first().map_or("-", String::as_str).to_owned()
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.table.load().find(hello.server_name())
    }
}

/// TLS 1.2 and 1.3 settings of a listener, whose certificates follow their sources.
///
/// # Errors
/// When the cryptography provider lacks what TLS needs, which a build of ours does not.
pub(super) fn secured(
    settings: &TlsSettings,
    listener: SocketAddr,
    rereader: &Rereader,
    earlier: Option<&Secured>,
) -> Result<Secured, Error> {
    let certificates = Certificates::new(settings);
    let following = certificates.follow(settings, listener, rereader);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificates.clone());
    // Tickets are kept by the callers: no memory here, no lock between workers. One is enough for a webhook sender.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = match earlier {
        Some(earlier) => earlier.config.ticketer.clone(),
        None => Ticketer::new()?,
    };
    config.send_tls13_tickets = 1;
    config.alpn_protocols = match settings.http2 {
        Http2::Offered => vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()],
        Http2::Off => vec![ALPN_HTTP1.to_vec()],
    };
    Ok(Secured {
        config: Arc::new(config),
        certificates,
        _following: following,
    })
}

pub(super) struct Secured {
    pub config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    _following: Vec<Following>,
}

impl Secured {
    /// What is wrong with a certificate, where those served so far are all valid.
    pub(super) fn lapse(&self, earlier: &Self) -> Option<String> {
        let now = clock::wall();
        let mut lapsed = self.certificates.validity(now).lapsed;
        let were_valid = earlier.certificates.validity(now).lapsed.is_empty();
        lapsed.pop().filter(|_| were_valid)
    }

    pub(super) fn judge(&self) -> Judge {
        let certificates = self.certificates.clone();
        Box::new(move |now| certificates.validity(now))
    }
}

/// What a peer offered in its first message.
#[derive(Debug, Default)]
pub(super) struct Offer {
    name: Option<String>,
    protocols: Vec<String>,
    suites: usize,
    tls13: Tls13,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Tls13 {
    #[default]
    Not,
    Offered,
}

impl Offer {
    /// Reads what the peer offered out of the bytes that it began with, if they say it.
    pub(super) fn read(mut said: &[u8]) -> Option<Self> {
        let mut acceptor = Acceptor::default();
        while !said.is_empty() {
            acceptor.read_tls(&mut said).ok()?;
            if let Some(accepted) = acceptor.accept().ok()? {
                return Some(Self::of(&accepted.client_hello()));
            }
        }
        None
    }

    /// Names and protocols are the peer's own words, so they are escaped and cut.
    fn of(hello: &ClientHello<'_>) -> Self {
        let clean = |text: &str| {
            text.chars()
                .take(64)
                .flat_map(char::escape_debug)
                .collect::<String>()
        };
        let protocols = hello.alpn().into_iter().flatten().take(4);
        let tls13 = hello
            .cipher_suites()
            .iter()
            .any(|suite| u16::from(*suite) >> 8 == 0x13);
        Self {
            name: hello.server_name().map(clean),
            protocols: protocols
                .map(|name| clean(&String::from_utf8_lossy(name)))
                .collect(),
            suites: hello.cipher_suites().len(),
            tls13: if tls13 { Tls13::Offered } else { Tls13::Not },
        }
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let newest = match self.tls13 {
            Tls13::Offered => "TLS 1.3",
            Tls13::Not => "TLS 1.2 or older",
        };
        write!(f, "offered {newest}, {} cipher suites", self.suites)?;
        match &self.name {
            Some(name) => write!(f, ", name {name}")?,
            None => f.write_str(", no name")?,
        }
        if !self.protocols.is_empty() {
            write!(f, ", ALPN {}", self.protocols.join(" "))?;
        }
        Ok(())
    }
}

/// The reason of a handshake that failed, and a sentence for the log.
pub(super) fn explain(error: &io::Error) -> (Reason, String) {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let Some(inner) = inner else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                (reason::PEER_GONE, reason::PEER_GONE.seen.to_owned())
            }
            _ => (
                reason::IO,
                format!("the connection failed during the handshake: {error}"),
            ),
        };
    };
    let row = match inner {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => reason::NOT_TLS,
        Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge) => reason::HANDSHAKE_TOO_LONG,
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => reason::NO_COMMON_SUITE,
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            // The extension came with TLS 1.2; a library that does not send it is older, or as good as.
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired,
        ) => reason::OLD_VERSION,
        Error::PeerIncompatible(PeerIncompatible::NoSignatureSchemesInCommon) => reason::NO_COMMON_SIGNATURE,
        Error::NoApplicationProtocol => reason::NO_COMMON_PROTOCOL,
        Error::AlertReceived(AlertDescription::UnknownCA | AlertDescription::CertificateUnknown) => reason::CERTIFICATE_DISTRUSTED,
        Error::AlertReceived(AlertDescription::CertificateExpired) => reason::CERTIFICATE_EXPIRED,
        Error::AlertReceived(AlertDescription::BadCertificate) => reason::CERTIFICATE_REFUSED,
        _ => return (reason::TLS, format!("TLS failed: {inner}")),
    };
    (row, row.seen.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::{Error, InvalidMessage};

    use super::explain;

    #[test]
    fn a_plain_request_on_the_tls_port_is_named() {
        let error = io::Error::other(Error::InvalidMessage(InvalidMessage::InvalidContentType));
        let (row, sentence) = explain(&error);
        assert_eq!(row.code, "not-tls");
        assert!(sentence.contains("https://"));
    }

    #[test]
    fn a_peer_that_goes_is_no_fault() {
        assert_eq!(
            explain(&io::Error::from(io::ErrorKind::UnexpectedEof)).0.code,
            "peer-gone"
        );
    }
}
