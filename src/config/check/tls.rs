//! Certificates and keys: read from PEM, held against each other, and asked for their names and dates.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use crate::config::Certificate;
use crate::config::Trust;
use crate::config::check::Check;
use crate::config::check::path;
use crate::config::check::pem::Leaf;
use crate::config::check::pem::certify;
use crate::config::check::pem::no_certificate;
use crate::config::check::pem::placeholder;
use crate::config::check::pem::read_authorities;
use crate::config::check::pem::read_certificates;
use crate::config::check::pem::read_key;
use crate::config::check::pem::read_leaf;
use crate::config::check::value::DAY;
use crate::config::file::CertificateTable;
use crate::config::leaf::At;
use crate::config::leaf::Table;
use crate::config::mistake::Flaw;
use crate::config::provider;
use crate::model::Secret;

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
