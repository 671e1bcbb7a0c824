//! Certificates and keys: read from PEM, held against each other, and asked for their names and dates.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::config::Certificate;
use crate::config::Trust;
use crate::config::check::Check;
use crate::config::check::path;
use crate::config::check::value::DAY;
use crate::config::file::CertificateTable;
use crate::config::leaf::At;
use crate::config::leaf::Table;
use crate::config::mistake::Flaw;
use crate::config::provider;
use crate::config::source;
use crate::model::Secret;

/// Largest PEM file: the bundle of a whole operating system is a quarter of it.
const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// A certificate that ends within this time is worth a warning: renewals that work come earlier.
const RENEWAL: Duration = Duration::from_secs(14 * 86_400);

impl Check<'_> {
    /// The certificates a connection of ours trusts: those of a file, or those of the system.
    pub(super) fn trust(&mut self, value: Option<&At<String>>) -> Trust {
        let Some(value) = value else { return Trust::System };
        let Some(path) = self.path(value).filter(|path| !self.is_elsewhere(value, path)) else {
            return Trust::System;
        };
        match self.findings.keep(value, read_authorities(&path)) {
            Some(certificates) => Trust::Only(certificates),
            None => Trust::System,
        }
    }

    pub(super) fn certificate(&mut self, table: &Table<CertificateTable>) -> Option<Certificate> {
        let hint = "write for example chain = \"certs/site.pem\"";
        if table.chain.is_none() {
            self.findings.missing(table.span(), "chain", hint);
        }
        if table.key.is_none() {
            self.findings.missing(
                table.span(),
                "key",
                "write for example key = \"file:certs/site.key\"",
            );
        }
        let secret = table
            .key
            .as_ref()
            .and_then(|value| self.secret("key", value).map(|secret| (value, secret)));
        let names = self.names(table);
        let chain = self.chain(table.chain.as_ref()?)?;
        let leaf = match &chain {
            Chain::Read(certificates) => {
                let leaf = certificates
                    .first()
                    .map_or(Err(no_certificate()), |leaf| read_leaf(leaf));
                Some(self.findings.keep(table.chain.as_ref()?, leaf)?)
            }
            Chain::Absent => None,
        };
        if let Some(leaf) = &leaf {
            self.judge_dates(table.chain.as_ref()?, leaf);
        }
        let (value, secret) = secret?;
        let key = self.certified(chain, value, &secret)?;
        let names = self.served_names(table, names?, leaf.as_ref())?;
        let not_after = leaf.map_or(SystemTime::UNIX_EPOCH, |leaf| leaf.not_after);
        Some(Certificate {
            key: Arc::new(key),
            names,
            not_after,
        })
    }

    fn chain(&mut self, value: &At<String>) -> Option<Chain> {
        let path = self.path(value)?;
        if self.is_elsewhere(value, &path) {
            return Some(Chain::Absent);
        }
        self.findings
            .keep(value, read_certificates(&path))
            .map(Chain::Read)
    }

    fn certified(&mut self, chain: Chain, value: &At<String>, secret: &Secret) -> Option<CertifiedKey> {
        let provider = provider();
        let chain = match chain {
            Chain::Read(chain) => chain,
            Chain::Absent => Vec::new(),
        };
        let made = if self.is_placeholder(value) {
            placeholder(chain, &provider)
        } else {
            read_key(secret).and_then(|key| certify(chain, &key, &provider))
        };
        self.findings.keep(value, made)
    }

    /// The names in the settings, lower-case; nothing if one of them is wrong.
    fn names(&mut self, table: &CertificateTable) -> Option<Vec<String>> {
        let Some(values) = &table.names else {
            return Some(Vec::new());
        };
        let read: Vec<_> = values
            .iter()
            .filter_map(|value| self.findings.keep(value, path::check_certificate_name(value)))
            .collect();
        (read.len() == values.len()).then_some(read)
    }

    fn served_names(
        &mut self,
        table: &Table<CertificateTable>,
        names: Vec<String>,
        leaf: Option<&Leaf>,
    ) -> Option<Vec<String>> {
        let Some(leaf) = leaf else { return Some(names) };
        for (name, value) in names
            .iter()
            .zip(table.names.iter().flat_map(|values| values.iter()))
        {
            if !leaf.names.iter().any(|own| covers(own, name)) {
                let flaw = Flaw::new(format!(
                    "the certificate is not made out to {name}; callers will refuse it"
                ));
                self.findings.warn(value, flaw);
            }
        }
        if !names.is_empty() {
            return Some(names);
        }
        if leaf.names.is_empty() {
            let flaw = Flaw::new("the certificate holds no names");
            self.findings.mistake(
                table.chain.as_ref()?,
                flaw.hint("say with `names` which names it serves"),
            );
            return None;
        }
        Some(leaf.names.clone())
    }

    fn judge_dates(&mut self, chain: &At<String>, leaf: &Leaf) {
        let now = self.environment.now();
        let date = |moment| match jiff::Timestamp::try_from(moment) {
            Ok(moment) => moment.strftime("%Y-%m-%d").to_string(),
            Err(_) => "a date far away".to_owned(),
        };
        let flaw = if leaf.not_after <= now {
            Flaw::new(format!("the certificate expired on {}", date(leaf.not_after)))
        } else if leaf.not_before > now {
            Flaw::new(format!(
                "the certificate is not valid before {}",
                date(leaf.not_before)
            ))
        } else if leaf.not_after <= now + RENEWAL {
            let days = leaf.not_after.duration_since(now).unwrap_or_default().as_secs() / DAY.as_secs();
            Flaw::new(format!(
                "the certificate expires in {days} days, on {}",
                date(leaf.not_after)
            ))
        } else {
            return;
        };
        self.findings.warn(chain, flaw);
    }
}

enum Chain {
    Read(Vec<CertificateDer<'static>>),
    /// Not on this machine, which is in order when secrets are not read either.
    Absent,
}

/// What matters of the first certificate.
struct Leaf {
    names: Vec<String>,
    not_before: SystemTime,
    not_after: SystemTime,
}

fn no_certificate() -> Flaw {
    Flaw::new("the file holds no certificate")
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Flaw> {
    let bytes = source::read(path, PEM_BYTES_MAX)?;
    let shown = path.display();
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates =
        certificates.map_err(|_| Flaw::new(format!("file {shown} is damaged: its PEM cannot be decoded")))?;
    if !certificates.is_empty() {
        return Ok(certificates);
    }
    if PrivateKeyDer::from_pem_slice(&bytes).is_ok() {
        return Err(
            Flaw::new(format!("file {shown} holds a private key and no certificate"))
                .hint("perhaps the paths of certificate and key are swapped"),
        );
    }
    Err(
        Flaw::new(format!("file {shown} holds no certificate in PEM form"))
            .hint("a certificate begins with -----BEGIN CERTIFICATE-----"),
    )
}

fn read_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, Flaw> {
    let certificates = read_certificates(path)?;
    let mut store = rustls::RootCertStore::empty();
    for (index, certificate) in certificates.iter().enumerate() {
        store.add(certificate.clone()).map_err(|_| {
            let number = index + 1;
            Flaw::new(format!(
                "certificate {number} in {} cannot be used as an authority",
                path.display()
            ))
        })?;
    }
    Ok(certificates)
}

fn read_leaf(certificate: &CertificateDer<'_>) -> Result<Leaf, Flaw> {
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

fn moment(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let moment = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    moment.unwrap_or(SystemTime::UNIX_EPOCH)
}

fn read_key(secret: &Secret) -> Result<PrivateKeyDer<'static>, Flaw> {
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

fn certify(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, Flaw> {
    let error = match CertifiedKey::from_der(chain.clone(), key.clone_key(), provider) {
        Ok(key) => return Ok(key),
        Err(error) => error,
    };
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
    Err(flaw)
}

/// A fresh key in place of one that is not read.
fn placeholder(chain: Vec<CertificateDer<'static>>, provider: &CryptoProvider) -> Result<CertifiedKey, Flaw> {
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

/// Whether a name in a certificate covers a name to be served (RFC 6125 section 6.4.3: a star stands for one
/// label).
fn covers(own: &str, name: &str) -> bool {
    if own == name {
        return true;
    }
    match (own.strip_prefix("*."), name.split_once('.')) {
        (Some(parent), Some((label, rest))) => label != "*" && rest == parent,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;
    use std::time::SystemTime;

    use rcgen::CertificateParams;
    use rcgen::KeyPair;

    use super::covers;
    use crate::config::Certificate;
    use crate::config::TlsSettings;
    use crate::config::Transport;
    use crate::config::check::sample::Sample;
    use crate::model::clock::wall;

    struct Made {
        chain: String,
        key: String,
    }

    fn make(names: &[&str], begins: SystemTime, ends: SystemTime) -> Made {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = begins.into();
        params.not_after = ends.into();
        Made {
            chain: params.self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn days(days: u64) -> Duration {
        Duration::from_secs(days * 86_400)
    }

    fn made(names: &[&str]) -> Made {
        let now = wall();
        make(names, now - days(1), now + days(90))
    }

    fn table(chain: &str, key: &str, rest: &str) -> String {
        format!("[[listener.certificate]]\nchain = \"{chain}\"\nkey = \"file:{key}\"\n{rest}\n")
    }

    fn sample(lines: &str, files: &[(&str, &str)]) -> Sample {
        let sample = Sample::default().with("listener", &format!("address = \"127.0.0.1:8443\"\n{lines}"));
        files
            .iter()
            .fold(sample, |sample, (name, text)| sample.file(name, text))
    }

    fn tls(sample: &Sample) -> TlsSettings {
        match &sample.config().listeners[0].transport {
            Transport::Tls(tls) => tls.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_certificate_serves_its_own_names() {
        let site = made(&["Hooks.Example.com", "*.example.org", "127.0.0.1"]);
        let sample = sample(
            &table("a.pem", "a.key", ""),
            &[("a.pem", &site.chain), ("a.key", &site.key)],
        );
        let Certificate { names, not_after, .. } = &tls(&sample).certificates[0];
        assert_eq!(names, &["hooks.example.com", "*.example.org", "127.0.0.1"]);
        assert!(*not_after > wall() + days(89));
        assert!(sample.warnings().is_empty(), "{:?}", sample.warnings());
    }

    #[test]
    fn given_names_stand_and_foreign_ones_give_a_warning() {
        let site = made(&["*.example.com"]);
        let lines = table("a.pem", "a.key", "names = [\"A.example.com\", \"b.example.net\"]");
        let sample = sample(&lines, &[("a.pem", &site.chain), ("a.key", &site.key)]);
        assert_eq!(
            tls(&sample).certificates[0].names,
            ["a.example.com", "b.example.net"]
        );
        assert_eq!(
            sample.warnings(),
            ["the certificate is not made out to b.example.net; callers will refuse it"]
        );
    }

    #[test]
    fn key_and_certificate_belong_together() {
        let (site, other) = (made(&["a.example"]), made(&["b.example"]));
        let sealed = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let damaged = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        let turned = format!("{}{}", other.chain, site.chain);
        for (chain, key, reason) in [
            (
                site.chain.as_str(),
                other.key.as_str(),
                "the private key does not belong to the certificate",
            ),
            (&turned, &site.key, "the server's own certificate comes first"),
            (&site.chain, sealed, "the private key is encrypted"),
            (&site.chain, "canary", "there is no private key in PEM form"),
            (
                &site.chain,
                &site.chain,
                "there is a certificate in place of the private key",
            ),
            (&site.key, &site.key, "holds a private key and no certificate"),
            ("canary", &site.key, "holds no certificate in PEM form"),
            (damaged, &site.key, "the first certificate is damaged"),
        ] {
            let report = sample(&table("a.pem", "a.key", ""), &[("a.pem", chain), ("a.key", key)]).report();
            assert!(
                report.contains(reason) && report.ends_with("\n1 mistake\n"),
                "{reason}: {report}"
            );
            assert!(!report.contains("canary"), "{report}");
        }
    }

    #[test]
    fn dates_of_certificates_give_warnings_and_no_more() {
        let now = wall();
        for (begins, ends, reason) in [
            (now - days(9), now - days(2), "the certificate expired on "),
            (
                now + days(2),
                now + days(9),
                "the certificate is not valid before ",
            ),
            (
                now - days(9),
                now + days(5) + Duration::from_secs(3600),
                "the certificate expires in 5 days, on ",
            ),
        ] {
            let site = make(&["a.example"], begins, ends);
            let sample = sample(
                &table("a.pem", "a.key", ""),
                &[("a.pem", &site.chain), ("a.key", &site.key)],
            );
            let warnings = sample.warnings();
            assert!(
                warnings.len() == 1 && warnings[0].starts_with(reason),
                "{warnings:?}"
            );
        }
    }

    #[test]
    fn a_name_has_one_certificate_and_a_listener_one_default() {
        let (first, second) = (made(&["a.example", "b.example"]), made(&["b.example"]));
        let files = [
            ("a.pem", first.chain.as_str()),
            ("a.key", &first.key),
            ("b.pem", &second.chain),
            ("b.key", &second.key),
        ];
        let both = format!("{}{}", table("a.pem", "a.key", ""), table("b.pem", "b.key", ""));
        assert_eq!(
            sample(&both, &files).mistakes(),
            ["two certificates of the listener serve b.example"]
        );
        let parted = format!(
            "{}{}",
            table("a.pem", "a.key", "names = [\"a.example\"]"),
            table("b.pem", "b.key", "default = true")
        );
        assert_eq!(tls(&sample(&parted, &files)).default_certificate, 1);
        let two = parted.replace("names", "default = true\nnames");
        assert_eq!(
            sample(&two, &files).mistakes(),
            ["only one certificate of a listener can be the default"]
        );
    }

    #[test]
    fn without_secrets_neither_key_nor_certificate_is_needed() {
        let sample = sample(&table("a.pem", "a.key", ""), &[]);
        assert_eq!(sample.mistakes().len(), 2, "{:?}", sample.mistakes());
        assert!(sample.without_secrets().mistakes().is_empty());
    }

    #[test]
    fn a_star_stands_for_one_label() {
        assert!(covers("a.example", "a.example"));
        assert!(covers("*.example.com", "a.example.com"));
        assert!(!covers("*.example.com", "a.b.example.com"));
        assert!(!covers("*.example.com", "example.com"));
        assert!(!covers("a.example.com", "*.example.com"));
    }
}
