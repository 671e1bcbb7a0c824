//! Certificates and keys as they are read from PEM files, and what a certificate says about itself.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::model::{Flaw, Secret};

/// What matters of the first certificate.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) names: Vec<String>,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

pub(crate) fn no_certificate() -> Flaw {
    Flaw::new("the file holds no certificate")
}

/// The certificates of a text in PEM form from this place.
pub(crate) fn certificates_in(text: &Secret, place: &str) -> Result<Vec<CertificateDer<'static>>, Flaw> {
    let bytes = text.expose().as_bytes();
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let certificates =
        certificates.map_err(|_| Flaw::new(format!("{place} is damaged: its PEM cannot be decoded")))?;
    if !certificates.is_empty() {
        return Ok(certificates);
    }
    if PrivateKeyDer::from_pem_slice(bytes).is_ok() {
        return Err(
            Flaw::new(format!("{place} holds a private key and no certificate"))
                .hint("perhaps the paths of certificate and key are swapped"),
        );
    }
    Err(Flaw::new(format!("{place} holds no certificate in PEM form"))
        .hint("a certificate begins with -----BEGIN CERTIFICATE-----"))
}

pub(crate) fn read_leaf(certificate: &CertificateDer<'_>) -> Result<Leaf, Flaw> {
    let damaged = || Flaw::new("the first certificate is damaged: it is not X.509");
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| damaged())?;
    let names = parsed.subject_alternative_name().map_err(|_| damaged())?;
    let names = names.map(|extension| {
        extension
            .value
            .general_names
            .iter()
            .filter_map(read_name)
            .collect()
    });
    let validity = parsed.validity();
    Ok(Leaf {
        names: names.unwrap_or_default(),
        not_before: moment(validity.not_before.timestamp()),
        not_after: moment(validity.not_after.timestamp()),
    })
}

fn read_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            let short = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            short
                .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
                .ok()
                .map(|address| address.to_string())
        }
        _ => None,
    }
}

pub(crate) fn moment(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let moment = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    moment.unwrap_or(SystemTime::UNIX_EPOCH)
}

pub(crate) fn read_key(secret: &Secret) -> Result<PrivateKeyDer<'static>, Flaw> {
    let text = secret.expose();
    if let Ok(key) = PrivateKeyDer::from_pem_slice(text.as_bytes()) {
        // An old PEM key keeps its usual label when it is encrypted and says so in a header line.
        if !text.contains("Proc-Type: 4,ENCRYPTED") {
            return Ok(key);
        }
    }
    if text.contains("ENCRYPTED") {
        return Err(Flaw::new("the private key is encrypted").hint(
            "decrypt it, for example with `openssl pkey -in OLD -out NEW`, and protect the file by its mode",
        ));
    }
    if text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(Flaw::new("there is a certificate in place of the private key")
            .hint("perhaps the paths of certificate and key are swapped"));
    }
    Err(Flaw::new("there is no private key in PEM form")
        .hint("a key begins with -----BEGIN PRIVATE KEY-----"))
}

pub(crate) fn certify(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, Flaw> {
    let error = match CertifiedKey::from_der(chain.clone(), key.clone_key(), provider) {
        Ok(key) => return Ok(key),
        Err(error) => error,
    };
    if matches!(error, rustls::Error::InvalidCertificate(_)) {
        let flaw =
            Flaw::new("the certificate cannot be used with TLS: it is damaged or older than X.509 version 3");
        return Err(flaw.hint("make a new one with the names it serves as subjectAltName"));
    }
    if !matches!(error, rustls::Error::InconsistentKeys(_)) {
        return Err(Flaw::new("the private key cannot be used with TLS").hint(
            "use an RSA key of at least 2048 bits, an ECDSA key (P-256, P-384, P-521) or an Ed25519 key",
        ));
    }
    let flaw = Flaw::new("the private key does not belong to the certificate");
    let belongs = |other: &CertificateDer<'static>| {
        CertifiedKey::from_der(vec![other.clone()], key.clone_key(), provider).is_ok()
    };
    if chain.iter().skip(1).any(belongs) {
        return Err(
            flaw.hint("it belongs to a later one of the chain; the server's own certificate comes first")
        );
    }
    Err(flaw.hint(
        "compare both: `openssl x509 -in CHAIN -noout -pubkey` and `openssl pkey -in KEY -pubout` must print the same; \
         use the key that was made for the request of this certificate",
    ))
}

/// A fresh key in place of one that is not read.
pub(crate) fn placeholder(
    chain: Vec<CertificateDer<'static>>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, Flaw> {
    let failed = || Flaw::new("no placeholder could be made for the private key");
    let random = aws_lc_rs::rand::SystemRandom::new();
    let kind = &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
    let key = aws_lc_rs::signature::EcdsaKeyPair::generate_pkcs8(kind, &random).map_err(|_| failed())?;
    let key = PrivateKeyDer::Pkcs8(key.as_ref().to_vec().into());
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|_| failed())?;
    Ok(CertifiedKey::new(chain, key))
}
