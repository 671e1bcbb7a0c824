//! Certificates of an identity: each is read with its private key and tried once, so that a certificate that Entra would
//! reject is reported before the first request.

use std::sync::Arc;

use crate::material::{AssertionAlgorithm, ChainShown, SigningCertificate, Texts};
use crate::model::{Flaw, Secret};
use crate::settings::check::Check;
use crate::settings::identity::{ClientCertificateTable, IdentityTable};
use crate::settings::kinds::At;
use crate::settings::source::{Holds, Reference};
use crate::settings::table::Table;
use crate::settings::value::optional;
use crate::settings::{ClientProof, SecretSource, Secrets, UNRESOLVED};

#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// The certificate, and its key unless that is stored separately.
    pub(crate) file: SecretSource,
    pub(crate) key: Option<SecretSource>,
    pub(crate) password: Option<SecretSource>,
    /// Nothing only where secrets are not read.
    pub(crate) known: Option<Arc<SigningCertificate>>,
    pub algorithm: AssertionAlgorithm,
    pub chain: ChainShown,
}

/// Whether both are read from the same places: what is there is followed by itself.
impl PartialEq for ClientCertificate {
    fn eq(&self, other: &Self) -> bool {
        (&self.file, &self.key, &self.password, self.algorithm, self.chain)
            == (
                &other.file,
                &other.key,
                &other.password,
                other.algorithm,
                other.chain,
            )
    }
}

impl ClientCertificate {
    /// The certificate that was read with the settings; nothing where secrets are not read, or are stored in
    /// a key vault, which is read when a token is needed.
    pub fn known(&self) -> Option<&Arc<SigningCertificate>> {
        self.known.as_ref()
    }

    pub fn place(&self) -> String {
        self.file.place()
    }

    /// Builds the certificate from the current contents of its sources; nothing if it is still `last`.
    pub fn read(
        &self,
        file: &Secret,
        key: Option<&Secret>,
        password: Option<&Secret>,
        last: Option<&SigningCertificate>,
    ) -> Result<Option<SigningCertificate>, String> {
        let texts = Texts { file, key, password };
        if last.is_some_and(|last| last.is_of(&texts)) {
            return Ok(None);
        }
        SigningCertificate::read(&texts)
            .map(Some)
            .map_err(|fault| format!("{}: {}", self.place(), fault.flaw.what))
    }
}

impl Check<'_> {
    pub(super) fn certificates(&mut self, identity: &Table<IdentityTable>) -> Option<ClientProof> {
        let tables = identity.certificate.iter();
        let read: Vec<_> = tables.map(|table| self.client_certificate(table)).collect();
        let certificates: Vec<_> = read.into_iter().collect::<Option<_>>()?;
        self.judge_validity(&identity.certificate, &certificates);
        Some(ClientProof::Certificates(certificates))
    }

    fn client_certificate(&mut self, table: &Table<ClientCertificateTable>) -> Option<ClientCertificate> {
        let key = optional(table.key.as_ref(), |value| self.secret_source("key", value));
        let password = optional(table.password.as_ref(), |value| {
            self.secret_source("password", value)
        });
        let hint = "write for example file = \"file:secrets/contoso.pem\"";
        let place = table.require(("file", &table.file), hint, &mut self.findings)?;
        let file = self.certificate_file(place, table.key.is_some());
        let (file, key, password) = (file?, key?, password?);
        let known = match (
            self.environment.secrets(),
            at_hand(&file, key.as_ref(), password.as_ref()),
        ) {
            (Secrets::Resolved, Some(texts)) => {
                let read = SigningCertificate::read(&texts);
                Some(Arc::new(
                    self.keep_part((place, &table.key, &table.password), read)?,
                ))
            }
            _ => None,
        };
        Some(ClientCertificate {
            file,
            key,
            password,
            known,
            algorithm: table.algorithm,
            chain: table.send_chain,
        })
    }

    /// The certificate file. It may be world-readable if the private key is stored separately.
    fn certificate_file(&mut self, value: &At<String>, is_public: bool) -> Option<SecretSource> {
        let reference = Reference::parse(value, &self.folder).unwrap_or_else(|| {
            let flaw = Flaw::new("`file` says where the certificate is stored");
            Err(flaw.hint("write file = \"file:PATH\" or \"env:NAME\""))
        });
        let reference = self.findings.keep(value, reference)?;
        if let Reference::Vault(place) = reference {
            let place = place.in_pem();
            self.vaults.later.push((value.into(), place.clone()));
            return Some(SecretSource::new(Reference::Vault(place), None).holding(Holds::Bytes));
        }
        if self.environment.secrets() == Secrets::Unresolved {
            let source = SecretSource::new(reference, Some(Secret::new(UNRESOLVED)));
            return Some(source.holding(Holds::Bytes));
        }
        let resolved = self.environment.resolve(&reference, Holds::Bytes);
        let resolved = self.findings.keep(value, resolved)?;
        if let Some(flaw) = resolved.warning.filter(|_| !is_public) {
            self.findings.warn(value, flaw);
        }
        Some(SecretSource::new(reference, Some(resolved.secret)).holding(Holds::Bytes))
    }

    /// Entra refuses a certificate outside its dates.
    fn judge_validity(
        &mut self,
        tables: &[Table<ClientCertificateTable>],
        certificates: &[ClientCertificate],
    ) {
        let now = self.environment.now();
        let known = || certificates.iter().map(ClientCertificate::known);
        for (table, certificate) in tables.iter().zip(known()) {
            let (Some(place), Some(certificate)) = (&table.file, certificate) else {
                continue;
            };
            if certificate.ends() <= now {
                let what = format!(
                    "the certificate expired on {}; Entra refuses it",
                    certificate.ends_on()
                );
                let flaw = Flaw::new(what).hint(
                    "upload a new one in Entra under App registrations, Certificates & secrets, and name it here",
                );
                // The rest of the gateway serves on without it.
                self.findings.warn(place, flaw);
            } else if certificate.begins() > now {
                let what = format!(
                    "the certificate is not valid before {}; Entra refuses it until then",
                    certificate.begins_on()
                );
                self.findings.warn(
                    place,
                    Flaw::new(what).hint("if that day has come, set this machine's clock"),
                );
            }
        }
    }
}

/// The texts of a certificate, unless one of them is stored in a key vault.
fn at_hand<'a>(
    file: &'a SecretSource,
    key: Option<&'a SecretSource>,
    password: Option<&'a SecretSource>,
) -> Option<Texts<'a>> {
    Some(Texts {
        file: file.known()?,
        key: optional(key, SecretSource::known)?,
        password: optional(password, SecretSource::known)?,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;
    use std::time::Duration;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use rcgen::{CertificateParams, DnType, KeyPair};

    use crate::material::{AssertionAlgorithm, ChainShown};
    use crate::model::clock::wall;
    use crate::settings::sample::Sample;
    use crate::settings::{ClientCertificate, ClientProof, GrantSettings};

    /// Made by openssl; see tests/certificates/README.md.
    const CERTIFICATE: &str = include_str!("../../../tests/certificates/client.pem");
    const KEY: &str = include_str!("../../../tests/certificates/client.key");
    const KEY_PKCS1: &str = include_str!("../../../tests/certificates/client.pkcs1.key");
    const KEY_ENCRYPTED: &str = include_str!("../../../tests/certificates/client.encrypted.key");
    const KEY_PROC_TYPE: &str = include_str!("../../../tests/certificates/client.proctype.key");
    const ROOT: &str = include_str!("../../../tests/certificates/root.pem");
    const SMALL: &str = include_str!("../../../tests/certificates/small.pem");
    const CER: &[u8] = include_bytes!("../../../tests/certificates/client.cer");
    const PFX: &[u8] = include_bytes!("../../../tests/certificates/client.pfx");
    const PFX_LEGACY: &[u8] = include_bytes!("../../../tests/certificates/client.legacy.pfx");
    const PFX_OPEN: &[u8] = include_bytes!("../../../tests/certificates/client.nopassword.pfx");
    const PFX_NO_KEY: &[u8] = include_bytes!("../../../tests/certificates/client.nokey.pfx");
    const PASSWORD: &str = "canary-password";

    const DAY: Duration = Duration::from_secs(86_400);

    /// An identity with these certificates.
    fn sample(lines: &str) -> Sample {
        let guid = "00000000-0000-0000-0000-000000000001";
        Sample::default().with(
            "identity",
            &format!("name = \"contoso\"\ntenant = \"{guid}\"\nclient_id = \"{guid}\"\n{lines}"),
        )
    }

    fn table(lines: &str) -> String {
        format!("[[identity.certificate]]\n{lines}\n")
    }

    /// An identity with one certificate in this file, and these lines beside it.
    fn one(bytes: &[u8], more: &str) -> Sample {
        sample(&table(&format!("file = \"file:a\"\n{more}"))).bytes("a", bytes)
    }

    fn certificates(sample: &Sample) -> Vec<ClientCertificate> {
        match &sample.config().identities[0].grant {
            GrantSettings::Client {
                proof: ClientProof::Certificates(certificates),
                ..
            } => certificates.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn rsa() -> &'static KeyPair {
        static KEY: OnceLock<KeyPair> = OnceLock::new();
        KEY.get_or_init(|| KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap())
    }

    /// A certificate with its key that begins and ends so many days from now.
    fn made(key: &KeyPair, begins: i32, ends: i32) -> String {
        let at = |days: i32| {
            let distance = DAY * days.unsigned_abs();
            if days < 0 {
                wall() - distance
            } else {
                wall() + distance
            }
        };
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "flowgate");
        params.not_before = at(begins).into();
        params.not_after = at(ends).into();
        format!(
            "{}{}",
            params.self_signed(key).unwrap().pem(),
            key.serialize_pem()
        )
    }

    #[test]
    fn pem_in_every_form_gives_the_same_certificate() {
        let both = format!("{KEY}{CERTIFICATE}");
        let behind_its_authority = format!("{ROOT}{CERTIFICATE}{KEY_PKCS1}");
        // What `openssl pkcs12 -nodes` writes around each part.
        let with_remarks = format!(
            "Bag Attributes\n    localKeyID: 01 02\nsubject=CN = flowgate.example\n{CERTIFICATE}Bag Attributes\n\
             Key Attributes: <No Attributes>\n{KEY}"
        );
        let samples = [
            one(both.as_bytes(), ""),
            one(with_remarks.as_bytes(), ""),
            one(behind_its_authority.as_bytes(), ""),
            one(CERTIFICATE.as_bytes(), "key = \"file:k\"").file("k", KEY),
            one(CERTIFICATE.as_bytes(), "key = \"file:k\"").file("k", KEY_PKCS1),
        ];
        for sample in samples {
            let [certificate] = certificates(&sample).try_into().unwrap();
            let known = certificate.known().unwrap();
            assert_eq!(known.chain()[0].as_ref(), CER);
            assert_eq!(certificate.algorithm, AssertionAlgorithm::Ps256);
            assert_eq!(certificate.chain, ChainShown::No);
            let shown = format!("{certificate:?}");
            assert!(
                shown.contains(&known.thumbprint()) && !shown.contains("PRIVATE"),
                "{shown}"
            );
        }
    }

    #[test]
    fn a_chain_begins_with_the_certificate_of_the_key() {
        let text = format!(
            "{}{ROOT}{CERTIFICATE}{KEY}",
            made(rsa(), -1, 90).split("-----BEGIN PRIVATE").next().unwrap()
        );
        let [certificate] = certificates(&one(text.as_bytes(), "send_chain = true"))
            .try_into()
            .unwrap();
        assert_eq!(certificate.chain, ChainShown::Yes);
        let chain = certificate.known().unwrap().chain();
        assert_eq!(chain.len(), 2, "the stranger is left out");
        assert_eq!(chain[0].as_ref(), CER);
    }

    #[cfg(feature = "pfx")]
    #[test]
    fn a_pfx_file_opens_in_every_form() {
        let packed = STANDARD.encode(PFX_OPEN);
        let folded = packed
            .as_bytes()
            .chunks(64)
            .collect::<Vec<_>>()
            .join(&b"\r\n"[..]);
        let password = "password = \"file:p\"";
        let samples = [
            one(PFX, password).file("p", PASSWORD),
            one(PFX_LEGACY, password).file("p", &format!("{PASSWORD}\n")),
            one(PFX_OPEN, ""),
            one(packed.as_bytes(), ""),
            one(&folded, ""),
        ];
        for sample in samples {
            let [certificate] = certificates(&sample).try_into().unwrap();
            assert_eq!(certificate.known().unwrap().chain()[0].as_ref(), CER);
        }
    }

    #[cfg(not(feature = "pfx"))]
    #[test]
    fn a_build_without_pfx_says_what_to_do() {
        assert_eq!(one(PFX_OPEN, "").mistakes(), ["this build cannot read PFX files"]);
    }

    /// What is wrong with one certificate, which must be one sentence that gives nothing away.
    #[track_caller]
    fn refused(sample: &Sample, reason: &str) {
        let mistakes = sample.mistakes();
        assert!(
            mistakes.len() == 1 && mistakes[0].starts_with(reason),
            "{reason}: {mistakes:?}"
        );
        let report = sample.report();
        assert!(!report.contains("canary") && !report.contains("MII"), "{report}");
    }

    #[cfg(feature = "pfx")]
    #[test]
    fn a_pfx_file_that_is_of_no_use_is_named() {
        let password = "password = \"file:p\"";
        refused(
            &one(PFX, password).file("p", "canary-wrong"),
            "the password does not open the PFX file",
        );
        refused(&one(PFX, ""), "the PFX file needs a password");
        refused(
            &one(PFX_NO_KEY, password).file("p", PASSWORD),
            "the PFX file holds no private key",
        );
        refused(
            &one(&PFX[..PFX.len() / 2], password).file("p", PASSWORD),
            "the PFX file is damaged or cut short",
        );
        refused(
            &one(PFX_OPEN, "key = \"file:k\"").file("k", KEY),
            "a PFX file holds its own private key",
        );
        refused(
            &one(PFX, "password = \"env:NOT_SET\""),
            "environment variable NOT_SET is not set",
        );
    }

    #[cfg(feature = "pfx")]
    #[test]
    fn no_damage_to_a_pfx_file_is_taken_for_a_good_one() {
        // The password is part of what is checked, so a flipped bit is detected at any offset.
        for at in (0..PFX_OPEN.len()).step_by(97) {
            let mut bytes = PFX_OPEN.to_vec();
            bytes[at] ^= 0x10;
            let damaged = one(&bytes, "").mistakes();
            assert!(damaged.len() == 1, "byte {at}: {damaged:?}");
            let cut = one(&PFX_OPEN[..at], "").mistakes();
            assert!(cut.len() == 1, "cut at {at}: {cut:?}");
        }
    }

    #[test]
    fn a_file_that_is_of_no_use_is_named() {
        refused(&one(b"", ""), "secret file");
        refused(&one(&vec![b'x'; 5 << 20], ""), "secret file");
        refused(&one(b"canary", ""), "this is neither PEM nor a PFX file");
        refused(&one(&[0xff; 100], ""), "this is neither PEM nor a PFX file");
        refused(&one(CER, ""), "this is a certificate in DER form");
        refused(
            &one(
                b"-----BEGIN CERTIFICATE-----\n*canary*\n-----END CERTIFICATE-----\n",
                "",
            ),
            "the certificate is damaged",
        );
        refused(
            &one(
                b"-----BEGIN CERTIFICATE-----\nY2FuYXJ5\n-----END CERTIFICATE-----\n",
                "key = \"file:k\"",
            )
            .file("k", KEY),
            "the certificate is damaged",
        );
        refused(
            &one(
                b"-----BEGIN PUBLIC KEY-----\nY2FuYXJ5\n-----END PUBLIC KEY-----\n",
                "",
            ),
            "there is neither a certificate nor a private key in PEM form",
        );
        let lines = table("file = \"file:none\"");
        refused(&sample(&lines), "file ");
        let inline = table("file = \"\"\"-----BEGIN PRIVATE KEY-----\ncanary\n\"\"\"");
        refused(&sample(&inline), "`file` says where the certificate is stored");
        refused(&sample(&table("")), "`file` is missing");
        refused(
            &one(format!("{CERTIFICATE}{KEY}").as_bytes(), "algorithm = \"ES256\""),
            "unknown value",
        );
    }

    #[test]
    fn a_certificate_and_a_key_that_do_not_belong_together_are_named() {
        let key = "key = \"file:k\"";
        let apart = |bytes: &str, text: &str| one(bytes.as_bytes(), key).file("k", text);
        refused(
            &one(CERTIFICATE.as_bytes(), ""),
            "there is a certificate without its private key",
        );
        refused(
            &one(KEY.as_bytes(), ""),
            "there is a private key without its certificate",
        );
        refused(
            &apart(CERTIFICATE, &rsa().serialize_pem()),
            "the private key does not belong to the certificate",
        );
        refused(
            &apart(CERTIFICATE, CERTIFICATE),
            "there is a certificate in place of the private key",
        );
        refused(
            &apart(CERTIFICATE, "canary"),
            "there is no private key in PEM form",
        );
        refused(
            &apart(&format!("{CERTIFICATE}{KEY}"), KEY),
            "the file of the certificate already holds a private key",
        );
        refused(
            &one(format!("{CERTIFICATE}{KEY}").as_bytes(), "password = \"file:p\"").file("p", PASSWORD),
            "a password goes with a PFX file",
        );
        for key in [KEY_ENCRYPTED, KEY_PROC_TYPE] {
            refused(&apart(CERTIFICATE, key), "the private key is encrypted");
            refused(
                &one(format!("{CERTIFICATE}{key}").as_bytes(), ""),
                "the private key is encrypted",
            );
        }
    }

    #[test]
    fn a_key_that_entra_does_not_take_is_named() {
        let ec = KeyPair::generate().unwrap();
        refused(
            &one(made(&ec, -1, 90).as_bytes(), ""),
            "the private key is an EC key",
        );
        refused(
            &one(SMALL.as_bytes(), ""),
            "the certificate has an RSA key of 1024 bits",
        );
    }

    #[test]
    fn an_expired_certificate_is_worth_a_warning_and_keeps_nothing_else_from_serving() {
        let expired = made(rsa(), -90, -1);
        assert_eq!(one(expired.as_bytes(), "").warnings().len(), 1);
        let two = format!("{}{}", table("file = \"file:a\""), table("file = \"file:b\""));
        let sample = sample(&two)
            .file("a", &expired)
            .file("b", &format!("{CERTIFICATE}{KEY}"));
        let warnings = sample.warnings();
        assert!(
            warnings.len() == 1 && warnings[0].starts_with("the certificate expired on "),
            "{warnings:?}"
        );
        assert_eq!(certificates(&sample).len(), 2);
    }

    #[test]
    fn a_certificate_of_the_future_is_worth_a_warning() {
        let warnings = one(made(rsa(), 2, 90).as_bytes(), "").warnings();
        assert!(
            warnings.len() == 1 && warnings[0].starts_with("the certificate is not valid before "),
            "{warnings:?}"
        );
    }

    #[test]
    fn an_identity_has_secrets_or_certificates() {
        let lines = format!("client_secret = \"env:SECRET\"\n{}", table("file = \"file:a\""));
        assert_eq!(
            sample(&lines).mistakes(),
            ["an identity has either a client secret or a certificate, not both"]
        );
    }

    #[test]
    fn without_secrets_no_certificate_is_read() {
        let lines = table("file = \"file:none\"\nkey = \"env:NONE\"\npassword = \"file:none\"");
        let certificates = certificates(&sample(&lines).without_secrets());
        assert!(certificates[0].known().is_none());
    }

    #[cfg(unix)]
    #[test]
    fn only_a_file_with_the_key_must_be_closed_to_others() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str, mode: u32| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path.display().to_string()
        };
        let (public, key) = (write("a", CERTIFICATE, 0o644), write("k", KEY, 0o600));
        let both = write("b", &format!("{CERTIFICATE}{KEY}"), 0o644);
        let apart = table(&format!("file = \"file:{public}\"\nkey = \"file:{key}\""));
        assert!(sample(&apart).warnings().is_empty());
        let warnings = sample(&table(&format!("file = \"file:{both}\""))).warnings();
        assert!(
            warnings.len() == 1 && warnings[0].contains("can be read by other users"),
            "{warnings:?}"
        );
    }
}
