//! Why a server's certificate is refused, in words for the operator: the names and dates in it, and who fixes it. What is
//! accepted and what is refused is webpki's decision alone.

use std::sync::Arc;
use std::{fmt, io};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::model::claims::printable;
use crate::model::clock;

/// How much of a name in a certificate is quoted. Characters.
const NAME_CHARS_MAX: usize = 128;
const NAMES_MAX: usize = 4;
const CHAIN_MAX: usize = 8;

/// Verifies as webpki does, and explains what it refuses.
#[derive(Debug)]
pub(crate) struct Explaining(pub(super) Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Explaining {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.0.verify_server_cert(leaf, intermediates, name, ocsp, now);
        verified.map_err(|error| match error {
            Error::InvalidCertificate(fault) => {
                let chain = [leaf].into_iter().chain(intermediates).take(CHAIN_MAX);
                let chain: Vec<Shown> = chain.filter_map(Shown::read).collect();
                let text = explain(&fault, &chain, &name.to_str(), now);
                let refused = OtherError(Arc::new(RefusedCertificate(text)));
                Error::InvalidCertificate(CertificateError::Other(refused))
            }
            other => other,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The explanation on its way through TLS.
#[derive(Debug)]
struct RefusedCertificate(String);

impl fmt::Display for RefusedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RefusedCertificate {}

/// Why the certificate was refused and who fixes that, if it was what a handshake failed at.
pub fn refused_certificate(error: &io::Error) -> Option<String> {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let Some(Error::InvalidCertificate(CertificateError::Other(OtherError(reason)))) = inner else {
        return None;
    };
    reason
        .downcast_ref::<RefusedCertificate>()
        .map(ToString::to_string)
}

struct Shown {
    subject: String,
    issuer: String,
    names: Vec<String>,
    /// Seconds since 1970.
    begins: i64,
    ends: i64,
}

impl Shown {
    fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, read) = X509Certificate::from_der(der).ok()?;
        let extension = read.subject_alternative_name().ok().flatten();
        let names = extension
            .iter()
            .flat_map(|extension| &extension.value.general_names);
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(printable(name, NAME_CHARS_MAX)),
            _ => None,
        });
        Some(Self {
            subject: printable(&read.subject().to_string(), NAME_CHARS_MAX),
            issuer: printable(&read.issuer().to_string(), NAME_CHARS_MAX),
            names: names.take(NAMES_MAX).collect(),
            begins: read.validity().not_before.timestamp(),
            ends: read.validity().not_after.timestamp(),
        })
    }

    fn title(&self) -> String {
        format!(
            "the certificate of `{}`, issued by `{}`,",
            self.subject, self.issuer
        )
    }
}

fn explain(fault: &CertificateError, chain: &[Shown], host: &str, now: UnixTime) -> String {
    let (Some(leaf), Some(top)) = (chain.first(), chain.last()) else {
        return format!(
            "its certificate cannot be read: {fault}. Fixed by: operator. Find out what answers at this address"
        );
    };
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    match fault {
        CertificateError::UnknownIssuer => {
            let issued = match (leaf.subject == leaf.issuer, leaf.issuer == top.issuer) {
                (true, _) => "is self-signed and not trusted".to_owned(),
                (false, true) => "comes from an authority that is not trusted".to_owned(),
                (false, false) => format!("leads to `{}`, which is not trusted", top.issuer),
            };
            format!(
                "{} {issued}. Fixed by: operator. If a firewall inspects TLS on this way, name its authority in \
                 `ca_file`; if not, find out what answers for {host}",
                leaf.title()
            )
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            let expired = chain.iter().find(|one| one.ends < seconds).unwrap_or(leaf);
            format!(
                "{} expired {}. Fixed by: host-admin. Compare the clock of this machine, then have the certificate of \
                 {host} renewed",
                expired.title(),
                clock::dated(expired.ends, seconds)
            )
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            let early = chain.iter().find(|one| one.begins > seconds).unwrap_or(leaf);
            format!(
                "{} is not valid yet: it begins {}. Fixed by: host-admin. Compare the clock of this machine, then look at \
                 the certificate of {host}",
                early.title(),
                clock::dated(early.begins, seconds)
            )
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
            "{} is valid for {}, not for {host}. Fixed by: operator. Compare the address in the settings and \
             connect_to: something else answers there",
            leaf.title(),
            match leaf.names.is_empty() {
                true => "no name".to_owned(),
                false => leaf.names.join(", "),
            }
        ),
        other => format!(
            "{} is refused: {other}. Fixed by: host-admin. Have the certificate of {host} replaced",
            leaf.title()
        ),
    }
}
