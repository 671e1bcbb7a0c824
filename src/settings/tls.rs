//! Certificates and keys: parses PEM, checks that certificate and key match, and reads their names and dates.

use std::path::Path;
use std::time::Duration;

use rustls::pki_types::CertificateDer;

use crate::material::{About, Fault, Leaf, certificates_in, day, placeholder, read_leaf};
use crate::model::host::is_domain;
use crate::model::{Flaw, Secret};
use crate::outbound::{Trust, provider};
use crate::settings::check::Check;
use crate::settings::kinds::{ANY, At};
use crate::settings::scalars::DAY;
use crate::settings::serving::{Pair, Places, covers};
use crate::settings::source::{Holds, Reference};
use crate::settings::table::{Table, table};
use crate::settings::value::optional;
use crate::settings::{Certificate, CertificateSource, SecretSource, source};

/// Warn about a certificate that expires within this time: a working renewal would have replaced it earlier.
const RENEWAL: Duration = Duration::from_secs(14 * 86_400);

table! {
    /// A certificate of a listener.
    pub(crate) struct CertificateTable {
        /// PEM file with the certificate and, behind it, the intermediate certificates.
        chain: Option<At<String>> = None, ANY, Reload;
        /// Private key in PEM form, not encrypted; a reference, "file:PATH", "env:NAME" or "keyvault:ADDRESS".
        key: Option<At<String>> = None, ANY, Reload;
        /// In place of `chain`: the certificate together with its key, as PEM or PFX; a reference.
        file: Option<At<String>> = None, ANY, Reload;
        /// Password of a PFX file; a reference.
        password: Option<At<String>> = None, ANY, Reload;
        /// Names served with this certificate; default: the names in the certificate.
        names: Option<At<Vec<At<String>>>> = None, ANY, Reload;
        /// Whether it also serves callers that ask for an unknown name or none; default: the first certificate does.
        default: bool = false, ANY, Reload;
    }
}

impl Check<'_> {
    /// The certificates a connection of ours trusts: those of a file, or those of the system.
    pub(super) fn trust(&mut self, value: Option<&At<String>>) -> Trust {
        let Some(value) = value else { return Trust::System };
        let Some(path) = self.path(value) else {
            return Trust::System;
        };
        if self.environment.is_file(&path) && self.is_elsewhere(value, &path) {
            return Trust::System;
        }
        let read = self.follow(&path, source::PEM_BYTES_MAX);
        let read = read.and_then(|bytes| authorities_in(&bytes, &path));
        match self.findings.keep(value, read) {
            Some(certificates) => {
                self.fingerprint.bytes(certificates.iter().map(|der| &**der));
                Trust::Only(certificates.into())
            }
            None => Trust::System,
        }
    }

    pub(super) fn certificate(&mut self, table: &Table<CertificateTable>) -> Option<Certificate> {
        let names = self.names(table);
        let found = match &table.file {
            Some(file) => self.together(table, file).map(|places| (file, places)),
            None => self.apart(table),
        };
        let (place, places) = found?;
        let source = CertificateSource {
            places,
            names: names?,
        };
        let known: Option<Vec<_>> = source.parts().iter().map(|part| part.known().cloned()).collect();
        match known {
            Some(texts) => self.whole(table, place, source, &texts),
            None => self.in_part(table, place, source),
        }
    }

    /// The chain and the key in places of their own.
    fn apart<'t>(&mut self, table: &'t Table<CertificateTable>) -> Option<(&'t At<String>, Places)> {
        let hint = "write for example chain = \"certs/site.pem\"";
        let chain = table.require(("chain", &table.chain), hint, &mut self.findings);
        let hint = "write for example key = \"file:certs/site.key\"";
        let key = table.require(("key", &table.key), hint, &mut self.findings);
        if let Some(password) = &table.password {
            let flaw = Flaw::new("`password` opens a PFX file, and this certificate is named by `chain`");
            self.findings.mistake(
                password,
                flaw.hint("name the PFX file with `file` in place of `chain` and `key`"),
            );
        }
        let key = key.and_then(|value| self.secret_at_start("key", value));
        let value = chain?;
        let path = self.path(value)?;
        let known = match self.is_elsewhere(value, &path) {
            true => None,
            false => Some(self.findings.keep(value, source::read_chain(&path))?),
        };
        let chain = SecretSource::new(Reference::File(path), known).holding(Holds::Chain);
        Some((value, Places::Apart { chain, key: key? }))
    }

    /// Both in one place.
    fn together(&mut self, table: &CertificateTable, value: &At<String>) -> Option<Places> {
        if let Some(chain) = &table.chain {
            let flaw = Flaw::new("a certificate is named either by `file` or by `chain`, not by both");
            self.findings.clash(chain, flaw, value, "`file` here");
            return None;
        }
        let key = optional(table.key.as_ref(), |value| self.secret_at_start("key", value));
        let password = optional(table.password.as_ref(), |value| {
            self.secret_at_start("password", value)
        });
        let reference = Reference::parse(value, &self.folder).unwrap_or_else(|| {
            let flaw = Flaw::new("`file` says where the certificate is stored together with its key");
            Err(flaw.hint("write file = \"file:PATH\", \"env:NAME\" or \"keyvault:ADDRESS\""))
        });
        let reference = match self.findings.keep(value, reference)? {
            Reference::Vault(place) => Reference::Vault(place.in_pem()),
            other => other,
        };
        let (file, warning) = self.find_at_start(value, reference, Holds::Bytes)?;
        // Without the key a certificate is public.
        if let Some(flaw) = warning.filter(|_| table.key.is_none()) {
            self.findings.warn(value, flaw);
        }
        Some(Places::Together {
            file,
            key: key?,
            password: password?,
        })
    }

    /// A certificate of which every part was read.
    fn whole(
        &mut self,
        table: &CertificateTable,
        place: &At<String>,
        source: CertificateSource,
        texts: &[Secret],
    ) -> Option<Certificate> {
        let pair = source.pair(texts);
        let Pair { key, leaf } = self.keep_part((place, &table.key, &table.password), pair)?;
        self.judge_dates(place, &leaf);
        let names = self.served_names(table, place, &source, &leaf)?;
        Some(source.certificate(key, names, Some(&leaf)))
    }

    /// Keeps what was made of a certificate, or reports the part that is wrong where it is set.
    pub(super) fn keep_part<T>(
        &mut self,
        (file, key, password): (&At<String>, &Option<At<String>>, &Option<At<String>>),
        read: Result<T, Fault>,
    ) -> Option<T> {
        let fault = match read {
            Ok(value) => return Some(value),
            Err(fault) => fault,
        };
        let own = match fault.about {
            About::File => None,
            About::Key => key.as_ref(),
            About::Password => password.as_ref(),
        };
        self.findings.mistake(own.unwrap_or(file), fault.flaw);
        None
    }

    /// A certificate of which a part was not read, with an unrelated key as a placeholder.
    fn in_part(
        &mut self,
        table: &CertificateTable,
        place: &At<String>,
        source: CertificateSource,
    ) -> Option<Certificate> {
        let chain = match &source.places {
            Places::Apart { chain, .. } => chain.known().map(|text| (text, chain.place())),
            Places::Together { .. } => None,
        };
        let read = chain.map_or(Ok(Vec::new()), |(text, shown)| certificates_in(text, &shown));
        let chain = self.findings.keep(place, read)?;
        let leaf = optional(chain.first(), |leaf| self.findings.keep(place, read_leaf(leaf)))?;
        if let Some(leaf) = &leaf {
            self.judge_dates(place, leaf);
        }
        let key = self.findings.keep(place, placeholder(chain, &provider()))?;
        let names = match &leaf {
            Some(leaf) => self.served_names(table, place, &source, leaf)?,
            None => source.names.clone(),
        };
        Some(source.certificate(key, names, leaf.as_ref()))
    }

    /// The names in the settings, lower-case; nothing if one of them is wrong.
    fn names(&mut self, table: &CertificateTable) -> Option<Vec<String>> {
        let Some(values) = &table.names else {
            return Some(Vec::new());
        };
        let read: Vec<_> = values
            .iter()
            .filter_map(|value| self.findings.keep(value, check_certificate_name(value)))
            .collect();
        (read.len() == values.len()).then_some(read)
    }

    fn served_names(
        &mut self,
        table: &CertificateTable,
        place: &At<String>,
        source: &CertificateSource,
        leaf: &Leaf,
    ) -> Option<Vec<String>> {
        let given = table.names.iter().flat_map(|values| values.iter());
        for (name, value) in source.names.iter().zip(given) {
            if !leaf.names.iter().any(|own| covers(own, name)) {
                let flaw = Flaw::new(format!(
                    "the certificate is not made out to {name}; callers will refuse it"
                ));
                self.findings.warn(value, flaw);
            }
        }
        self.findings.keep(place, source.served(leaf))
    }

    fn judge_dates(&mut self, chain: &At<String>, leaf: &Leaf) {
        let now = self.environment.now();
        if leaf.not_after <= now {
            let flaw = Flaw::new(format!("the certificate expired on {}", day(leaf.not_after)));
            let hint = "renew it; callers refuse it, and `serve` counts its listener as not ready until then";
            self.findings.lapse(chain, flaw.hint(hint));
            return;
        }
        if leaf.not_before > now {
            let flaw = Flaw::new(format!(
                "the certificate is not valid before {}",
                day(leaf.not_before)
            ));
            let hint = "check the clock of this machine, or use the previous certificate until then; callers refuse this one";
            self.findings.lapse(chain, flaw.hint(hint));
            return;
        }
        if leaf.not_after > now + RENEWAL {
            return;
        }
        let days = leaf.not_after.duration_since(now).unwrap_or_default().as_secs() / DAY.as_secs();
        let flaw = Flaw::new(format!(
            "the certificate expires in {days} days, on {}",
            day(leaf.not_after)
        ));
        self.findings.warn(chain, flaw);
    }
}

fn authorities_in(bytes: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, Flaw> {
    let text = Secret::new(String::from_utf8_lossy(bytes));
    let certificates = certificates_in(&text, &format!("file {}", path.display()))?;
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

/// Reads a name that a certificate serves into lower case.
fn check_certificate_name(text: &str) -> Result<String, Flaw> {
    let name = text.to_ascii_lowercase();
    let parent = name.strip_prefix("*.").unwrap_or(&name);
    if name.parse::<std::net::IpAddr>().is_ok() || is_domain(parent) {
        return Ok(name);
    }
    Err(Flaw::new("this is not a name a certificate can serve")
        .hint("write for example \"hooks.example.com\" or \"*.example.com\""))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use rcgen::{CertificateParams, KeyPair};

    use super::covers;
    use crate::model::clock::wall;
    use crate::settings::sample::Sample;
    use crate::settings::{Certificate, Report, Severity, TlsSettings, Transport};

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
    fn a_certificate_without_names_is_to_be_made_with_some() {
        let site = made(&[]);
        let report = sample(
            &table("a.pem", "a.key", ""),
            &[("a.pem", &site.chain), ("a.key", &site.key)],
        )
        .report();
        assert!(
            report.contains("the certificate holds no names")
                && report.contains("make one with the names it serves as subjectAltName"),
            "{report}"
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
    fn certificate_and_key_may_lie_in_one_place() {
        let (site, root) = (made(&["a.example"]), made(&["root.example"]));
        let both = format!("{}{}{}", site.key, root.chain, site.chain);
        let one = |lines: &str, files: &[(&str, &str)]| {
            sample(&format!("[[listener.certificate]]\n{lines}\n"), files)
        };
        for sample in [
            one("file = \"file:both\"", &[("both", &both)]),
            one("file = \"env:BOTH\"", &[]).variable("BOTH", &both),
            one(
                "file = \"file:a\"\nkey = \"file:k\"",
                &[("a", &site.chain), ("k", &site.key)],
            ),
        ] {
            let certificate = &tls(&sample).certificates[0];
            assert_eq!(certificate.names, ["a.example"]);
            assert_eq!(certificate.key.cert.len(), 1, "strangers are left out");
        }
    }

    #[cfg(feature = "pfx")]
    #[test]
    fn certificate_and_key_may_lie_in_a_pfx_file() {
        let pfx = include_bytes!("../../tests/certificates/site.pfx");
        let lines = "[[listener.certificate]]\nfile = \"file:both.pfx\"\npassword = \"file:password\"\n";
        let with = |password: &str| sample(lines, &[("password", password)]).bytes("both.pfx", pfx);
        let certificate = &tls(&with("canary-password")).certificates[0];
        assert_eq!(certificate.names, ["hooks.example"]);
        let report = with("canary-other").report();
        assert!(
            report.contains("the password does not open the PFX file"),
            "{report}"
        );
        assert!(!report.contains("canary"), "{report}");
    }

    #[test]
    fn a_certificate_of_an_old_version_is_named_and_not_its_key() {
        let text = concat!(
            include_str!("../../tests/certificates/client.pem"),
            include_str!("../../tests/certificates/client.key")
        );
        let files = [("a", text)];
        let apart = sample(
            &table("c", "k", ""),
            &[
                ("c", include_str!("../../tests/certificates/client.pem")),
                ("k", include_str!("../../tests/certificates/client.key")),
            ],
        );
        let together = sample("[[listener.certificate]]\nfile = \"file:a\"\n", &files);
        for report in [apart.report(), together.report()] {
            assert!(
                report.contains("the certificate cannot be used with TLS"),
                "{report}"
            );
            assert!(report.contains("subjectAltName"), "{report}");
        }
    }

    #[test]
    fn what_lies_in_one_place_is_named_there_alone_and_whole() {
        let (site, other) = (made(&["a.example"]), made(&["b.example"]));
        let strange = format!("{}{}", site.chain, other.key);
        for (lines, text, reason) in [
            (
                "file = \"file:a\"\nchain = \"a\"",
                strange.as_str(),
                "either by `file` or by `chain`",
            ),
            (
                "file = \"a\"",
                &strange,
                "`file` says where the certificate is stored",
            ),
            (
                "chain = \"a\"\nkey = \"file:a\"\npassword = \"env:PEPPER\"",
                &strange,
                "`password` opens a PFX file",
            ),
            (
                "file = \"file:a\"",
                &strange,
                "the private key does not belong to the certificate",
            ),
            (
                "file = \"file:a\"",
                &site.chain,
                "a certificate without its private key",
            ),
            (
                "file = \"file:a\"",
                &site.key,
                "a private key without its certificate",
            ),
            ("file = \"file:a\"", "canary", "neither PEM nor a PFX file"),
            ("file = \"file:none\"", "canary", "does not exist"),
        ] {
            let report = sample(&format!("[[listener.certificate]]\n{lines}\n"), &[("a", text)]).report();
            assert!(report.contains(reason), "{reason}: {report}");
            assert!(!report.contains("canary"), "{report}");
        }
    }

    #[test]
    fn a_certificate_in_a_vault_is_needed_before_anything_is_served() {
        let guid = "00000000-0000-0000-0000-000000000000";
        let reader = format!(
            "name = \"reader\"\ntenant = \"{guid}\"\nclient_id = \"{guid}\"\nclient_secret = \"env:SECRET\"\n\
             [[identity]]\nname = \"contoso\"\ntenant = \"{guid}\"\nclient_id = \"{guid}\"\n\
             client_secret = \"env:SECRET\""
        );
        let lines = "[[listener.certificate]]\nnames = [\"a.example\"]\n\
                     file = \"keyvault:https://contoso.vault.azure.net/secrets/site\"\n";
        let config = sample(lines, &[])
            .with("identity", &reader)
            .with("keyvault", "identity = \"reader\"")
            .config();
        let keyvault = config.keyvault.unwrap();
        assert_eq!(keyvault.at_start.len(), 1);
        assert!(keyvault.at_start[0].query().contains("pem"));
    }

    #[test]
    fn a_certificate_outside_of_its_dates_is_a_mistake_to_check_and_a_lapse_to_serve() {
        let now = wall();
        for (begins, ends, reason, severity) in [
            (
                now - days(9),
                now - days(2),
                "the certificate expired on ",
                Severity::Lapse,
            ),
            (
                now + days(2),
                now + days(9),
                "the certificate is not valid before ",
                Severity::Lapse,
            ),
            (
                now - days(9),
                now + days(5) + Duration::from_secs(3600),
                "the certificate expires in 5 days, on ",
                Severity::Warning,
            ),
        ] {
            let site = make(&["a.example"], begins, ends);
            let sample = sample(
                &table("a.pem", "a.key", ""),
                &[("a.pem", &site.chain), ("a.key", &site.key)],
            );
            let found = sample.all_warnings();
            let [warning] = found.as_slice() else {
                panic!("{found:?}")
            };
            assert!(warning.what().starts_with(reason), "{warning}");
            assert_eq!(warning.severity(), severity);
            assert_eq!(Report::strict(found).is_err(), severity == Severity::Lapse);
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
