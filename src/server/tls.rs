//! Certificates by name, TLS settings of a listener, and what to say about a handshake that failed: what the peer
//! offered and one sentence on what that means.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::AlertDescription;
use rustls::Error;
use rustls::InvalidMessage;
use rustls::PeerIncompatible;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::Acceptor;
use rustls::server::ClientHello;
use rustls::server::NoServerSessionStorage;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;

use crate::config::Http2;
use crate::config::TlsSettings;
use crate::config::provider;

/// ALPN name of HTTP/2 (RFC 9113 section 3.2).
pub(super) const ALPN_H2: &[u8] = b"h2";
const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Finds the certificate for a name.
#[derive(Debug)]
struct Certificates {
    by_name: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    fn new(settings: &TlsSettings) -> Self {
        let mut by_name = HashMap::new();
        for certificate in &settings.certificates {
            for name in &certificate.names {
                by_name.insert(name.clone(), certificate.key.clone());
            }
        }
        let default = settings.certificates.get(settings.default_certificate);
        Self {
            by_name,
            default: default.map(|certificate| certificate.key.clone()),
        }
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let Some(name) = name else {
            return self.default.clone();
        };
        let name = name.to_ascii_lowercase();
        if let Some(key) = self.by_name.get(&name) {
            return Some(key.clone());
        }
        // A wildcard stands for exactly one label (RFC 6125 section 6.4.3).
        let wild = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        wild.and_then(|wild| self.by_name.get(&wild))
            .or(self.default.as_ref())
            .cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}

/// TLS 1.2 and 1.3 settings of a listener.
///
/// # Errors
/// When the cryptography provider lacks what TLS needs, which a build of ours does not.
pub(super) fn server_config(settings: &TlsSettings) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Certificates::new(settings)));
    // Tickets are kept by the callers: no memory here, no lock between workers. One is enough for a webhook sender.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Ticketer::new()?;
    config.send_tls13_tickets = 1;
    config.alpn_protocols = match settings.http2 {
        Http2::Offered => vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()],
        Http2::Off => vec![ALPN_HTTP1.to_vec()],
    };
    Ok(Arc::new(config))
}

/// What a peer offered in its first message.
#[derive(Debug, Default)]
pub(super) struct Offer {
    name: Option<String>,
    protocols: Vec<String>,
    suites: usize,
    tls13: Tls13,
}

/// Whether a peer offered TLS 1.3.
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

/// A word for metrics and a sentence for the log about a handshake that failed.
pub(super) fn explain(error: &io::Error) -> (&'static str, String) {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let Some(inner) = inner else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => (
                "peer-gone",
                "the peer closed the connection during the handshake".to_owned(),
            ),
            _ => (
                "io",
                format!("the connection failed during the handshake: {error}"),
            ),
        };
    };
    let (word, sentence) = match inner {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => (
            "not-tls",
            "the peer does not speak TLS; it must use https:// for this port",
        ),
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => (
            "no-common-suite",
            "the peer offers no cipher suite of today; its TLS library must be renewed",
        ),
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            // The extension came with TLS 1.2; a library that does not send it is older, or as good as.
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired,
        ) => (
            "old-version",
            "the peer offers no TLS version from 1.2 on; its TLS library must be renewed",
        ),
        Error::PeerIncompatible(PeerIncompatible::NoSignatureSchemesInCommon) => (
            "no-common-signature",
            "the peer cannot check the kind of key this listener's certificate has",
        ),
        Error::NoApplicationProtocol => (
            "no-common-protocol",
            "the peer offers neither h2 nor http/1.1 by ALPN",
        ),
        Error::AlertReceived(AlertDescription::UnknownCA | AlertDescription::CertificateUnknown) => (
            "certificate-distrusted",
            "the peer does not trust this listener's certificate or its chain is incomplete",
        ),
        Error::AlertReceived(AlertDescription::CertificateExpired) => (
            "certificate-expired",
            "the peer says that this listener's certificate has expired",
        ),
        Error::AlertReceived(AlertDescription::BadCertificate) => (
            "certificate-refused",
            "the peer refuses this listener's certificate; does it carry the name it called?",
        ),
        _ => return ("tls", format!("TLS failed: {inner}")),
    };
    (word, sentence.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::Error;
    use rustls::InvalidMessage;

    use super::explain;

    #[test]
    fn a_plain_request_on_the_tls_port_is_named() {
        let error = io::Error::other(Error::InvalidMessage(InvalidMessage::InvalidContentType));
        let (word, sentence) = explain(&error);
        assert_eq!(word, "not-tls");
        assert!(sentence.contains("https://"));
    }

    #[test]
    fn a_peer_that_goes_is_no_fault() {
        assert_eq!(
            explain(&io::Error::from(io::ErrorKind::UnexpectedEof)).0,
            "peer-gone"
        );
    }
}
