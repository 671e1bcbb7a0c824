//! A certificate with which an application proves who it is: read from PEM or PFX, its private key compared with it by a
//! probe signature, ready to sign. What is signed is decided in `entra/proof/assertion.rs`; whether its dates are good, and
//! what is logged about them, by the code that read it.

use std::fmt;
use std::time::SystemTime;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{KeyPair, RsaEncoding, RsaKeyPair, UnparsedPublicKey};
use aws_lc_rs::{digest, signature};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use zeroize::{Zeroize, Zeroizing};

use crate::material::fault::{About, Fault};
use crate::material::pem::moment;
use crate::material::pfx;
use crate::model::Secret;

/// Shorter RSA keys can be broken (NIST SP 800-131A), and no library here signs with them.
const KEY_BITS_MIN: usize = 2048;
/// Algorithm identifier of elliptic curve keys in DER (RFC 5480), which is near the start of a PKCS#8 key.
const EC_KEY: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssertionAlgorithm {
    /// RSA-PSS with SHA-256, what Microsoft documents today.
    Ps256,
    /// RSA PKCS#1 v1.5 with SHA-256, what older documents and libraries use.
    Rs256,
}

impl AssertionAlgorithm {
    /// Its name in the header of a JWT (RFC 7518 section 3.1).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ps256 => "PS256",
            Self::Rs256 => "RS256",
        }
    }

    fn encoding(self) -> &'static dyn RsaEncoding {
        match self {
            Self::Ps256 => &signature::RSA_PSS_SHA256,
            Self::Rs256 => &signature::RSA_PKCS1_SHA256,
        }
    }
}

/// Whether assertions carry certificates beside the thumbprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainShown {
    /// The thumbprint alone: Entra knows the certificate.
    No,
    /// The certificate and its chain: Entra knows its subject and its issuer.
    Yes,
}

pub(crate) struct Texts<'a> {
    pub(crate) file: &'a Secret,
    pub(crate) key: Option<&'a Secret>,
    pub(crate) password: Option<&'a Secret>,
}

/// The certificates and the key that were found, before anybody knows whether they belong together.
pub(crate) struct Parts {
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    /// The text in which the key was.
    pub(crate) key_about: About,
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Parts {
    /// The certificates, of which there is at least one; `hint` says where one belongs.
    pub(crate) fn parsed(&self, hint: &str) -> Result<Vec<X509Certificate<'_>>, Fault> {
        let certificates = self.certificates.iter();
        let parsed = certificates.map(|der| X509Certificate::from_der(der).map(|(_, parsed)| parsed));
        match parsed.collect::<Result<Vec<_>, _>>() {
            Ok(none) if none.is_empty() => {
                let what = "there is a private key without its certificate";
                Err(Fault::new(About::File, what).hint(hint))
            }
            Ok(parsed) => Ok(parsed),
            Err(_) => {
                let what = "the certificate is damaged: it is not X.509";
                Err(Fault::new(About::File, what))
            }
        }
    }
}

impl Texts<'_> {
    /// Whether any of them has changed.
    fn digest(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        for text in [Some(self.file), self.key, self.password] {
            let text = text.map_or("", Secret::expose);
            context.update(&text.len().to_be_bytes());
            context.update(text.as_bytes());
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        bytes
    }

    /// The certificates and the key in them.
    pub(crate) fn parts(&self) -> Result<Parts, Fault> {
        if self.file.expose().contains("-----BEGIN ") {
            return self.pem();
        }
        let packed: Zeroizing<Vec<u8>> = Zeroizing::new(
            self.file
                .expose()
                .bytes()
                .filter(|byte| !byte.is_ascii_whitespace())
                .collect(),
        );
        let der = STANDARD.decode(packed.as_slice()).map(Zeroizing::new).ok();
        let der = der.filter(|der| der.first() == Some(&0x30)).ok_or_else(|| {
            Fault::new(About::File, "this is neither PEM nor a PFX file")
                .hint("a certificate in PEM form begins with -----BEGIN CERTIFICATE-----")
        })?;
        if X509Certificate::from_der(&der).is_ok() {
            return Err(Fault::new(
                About::File,
                "this is a certificate in DER form, without its private key",
            )
            .hint(
                "take the PFX file, or turn it into PEM with `openssl x509 -inform der` and name its `key`",
            ));
        }
        self.pfx(&der)
    }

    fn pfx(&self, der: &[u8]) -> Result<Parts, Fault> {
        if self.key.is_some() {
            let hint = "leave `key` out";
            return Err(Fault::new(About::Key, "a PFX file holds its own private key").hint(hint));
        }
        let mut opened = pfx::open(der, self.password)?;
        if opened.keys.len() > 1 {
            opened.keys.iter_mut().for_each(Zeroize::zeroize);
            return Err(Fault::new(
                About::File,
                "the PFX file holds several private keys, and one is needed",
            ));
        }
        let Some(key) = opened.keys.pop() else {
            return Err(Fault::new(About::File, "the PFX file holds no private key")
                .hint("export it again together with its private key"));
        };
        Ok(Parts {
            certificates: opened.certificates,
            key,
            key_about: About::File,
        })
    }

    fn pem(&self) -> Result<Parts, Fault> {
        if self.password.is_some() {
            return Err(Fault::new(
                About::Password,
                "a password goes with a PFX file, and the certificate is PEM",
            )
            .hint("leave `password` out"));
        }
        // First, because the header lines of an old encrypted key are taken for damage below.
        refuse_encrypted(self.file, About::File)?;
        let text = self.file.expose().as_bytes();
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
        let certificates = certificates.map_err(|_| {
            Fault::new(
                About::File,
                "the certificate is damaged: its PEM cannot be decoded",
            )
        })?;
        let within = key_in(self.file, About::File)?;
        let apart = match self.key {
            Some(key) => Some(key_in(key, About::Key)?.ok_or_else(|| no_key(key))?),
            None => None,
        };
        let (key, key_about) = match (within, apart) {
            (Some(mut within), Some(mut apart)) => {
                within.zeroize();
                apart.zeroize();
                return Err(Fault::new(
                    About::Key,
                    "the file of the certificate already holds a private key",
                )
                .hint("leave `key` out, or take the key out of that file"));
            }
            (Some(key), None) => (key, About::File),
            (None, Some(key)) => (key, About::Key),
            (None, None) => return Err(lonely(&certificates)),
        };
        Ok(Parts {
            certificates,
            key,
            key_about,
        })
    }
}

/// An old PEM key keeps its usual label when it is encrypted and says so in a header line.
fn refuse_encrypted(text: &Secret, about: About) -> Result<(), Fault> {
    let text = text.expose();
    if !text.contains("BEGIN ENCRYPTED PRIVATE KEY") && !text.contains("Proc-Type: 4,ENCRYPTED") {
        return Ok(());
    }
    let hint = "decrypt it, for example with `openssl pkey -in OLD -out NEW`, and protect the file by its mode; or \
                take a PFX file with a password";
    Err(Fault::new(about, "the private key is encrypted").hint(hint))
}

/// The private key of a PEM text, if there is one.
fn key_in(text: &Secret, about: About) -> Result<Option<PrivateKeyDer<'static>>, Fault> {
    refuse_encrypted(text, about)?;
    match PrivateKeyDer::from_pem_slice(text.expose().as_bytes()) {
        Ok(key) => Ok(Some(key)),
        Err(pem::Error::NoItemsFound) => Ok(None),
        Err(_) => Err(Fault::new(
            about,
            "the private key is damaged: its PEM cannot be decoded",
        )),
    }
}

/// Why there is no key where one was named.
fn no_key(text: &Secret) -> Fault {
    if text.expose().contains("-----BEGIN CERTIFICATE-----") {
        return Fault::new(About::Key, "there is a certificate in place of the private key")
            .hint("perhaps the paths of certificate and key are swapped");
    }
    Fault::new(About::Key, "there is no private key in PEM form")
        .hint("a key begins with -----BEGIN PRIVATE KEY-----")
}

/// Why a PEM text without a private key is not enough.
fn lonely(certificates: &[CertificateDer<'_>]) -> Fault {
    if certificates.is_empty() {
        return Fault::new(
            About::File,
            "there is neither a certificate nor a private key in PEM form",
        )
        .hint("a certificate begins with -----BEGIN CERTIFICATE-----");
    }
    Fault::new(About::File, "there is a certificate without its private key")
        .hint("name the key with key = \"file:PATH\", or put both into one file")
}

pub struct SigningCertificate {
    key: RsaKeyPair,
    /// The certificate, and behind it those above it.
    chain: Vec<CertificateDer<'static>>,
    begins: SystemTime,
    ends: SystemTime,
    origin: [u8; 32],
}

impl fmt::Debug for SigningCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningCertificate")
            .field("thumbprint", &self.thumbprint())
            .finish_non_exhaustive()
    }
}

impl SigningCertificate {
    pub(crate) fn read(texts: &Texts<'_>) -> Result<Self, Fault> {
        let parts = texts.parts()?;
        let parsed = parts.parsed(
            "put the certificate into the same file, or name it with `file` and the key with `key`",
        )?;
        let key = rsa_key(&parts, parsed.first())?;
        let public = key.public_key().as_ref();
        let all = || parts.certificates.iter().zip(&parsed);
        let own = all().find(|(_, parsed)| parsed.public_key().subject_public_key.data == public);
        let Some((der, own)) = own.filter(|(_, own)| probe(&key, own)) else {
            return Err(Fault::new(
                parts.key_about,
                "the private key does not belong to the certificate",
            )
            .hint("take the key that the certificate was made with"));
        };
        Ok(Self {
            chain: chain((der, own), &all().collect::<Vec<_>>()),
            begins: moment(own.validity().not_before.timestamp()),
            ends: moment(own.validity().not_after.timestamp()),
            origin: texts.digest(),
            key,
        })
    }

    /// The certificate, and behind it those above it, each in DER form.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    pub fn begins(&self) -> SystemTime {
        self.begins
    }

    pub fn ends(&self) -> SystemTime {
        self.ends
    }

    pub fn ends_on(&self) -> String {
        day(self.ends)
    }

    pub fn begins_on(&self) -> String {
        day(self.begins)
    }

    /// A digest of the certificate (RFC 7515 sections 4.1.7 and 4.1.8).
    pub fn digest(&self, algorithm: &'static digest::Algorithm) -> digest::Digest {
        digest::digest(algorithm, self.chain.first().map_or(&[], |own| own.as_ref()))
    }

    /// The thumbprint as Entra and Windows show it.
    pub fn thumbprint(&self) -> String {
        let digest = self.digest(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
    }

    /// Whether it was read from these texts.
    pub(crate) fn is_of(&self, texts: &Texts<'_>) -> bool {
        texts.digest() == self.origin
    }

    /// Signs a message; nothing if the machine has no random numbers.
    pub fn sign(&self, algorithm: AssertionAlgorithm, message: &[u8]) -> Option<Vec<u8>> {
        sign(&self.key, algorithm, message)
    }
}

/// The private key, if it is one that Entra takes.
fn rsa_key(parts: &Parts, first: Option<&X509Certificate<'_>>) -> Result<RsaKeyPair, Fault> {
    let read = match &parts.key {
        PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()).ok(),
        PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).ok(),
        _ => None,
    };
    if let Some(key) = read {
        return Ok(key);
    }
    let is_ec = match &parts.key {
        PrivateKeyDer::Sec1(_) => true,
        PrivateKeyDer::Pkcs8(key) => {
            let start = key.secret_pkcs8_der().get(..32).unwrap_or_default();
            start.windows(EC_KEY.len()).any(|window| window == EC_KEY)
        }
        _ => false,
    };
    if is_ec {
        return Err(Fault::new(
            parts.key_about,
            "the private key is an EC key, and Entra takes RSA keys only",
        )
        .hint("make a certificate with an RSA key of 2048 bits or more"));
    }
    if let Some(Ok(PublicKey::RSA(public))) = first.map(|first| first.public_key().parsed())
        && public.key_size() < KEY_BITS_MIN
    {
        let what = format!(
            "the certificate has an RSA key of {} bits, and {KEY_BITS_MIN} is the least that is safe",
            public.key_size()
        );
        let hint = "make a certificate with an RSA key of 2048 bits or more";
        return Err(Fault::new(About::File, what).hint(hint));
    }
    Err(Fault::new(
        parts.key_about,
        "the private key is damaged, or no RSA key of 2048 to 8192 bits",
    ))
}

fn sign(key: &RsaKeyPair, algorithm: AssertionAlgorithm, message: &[u8]) -> Option<Vec<u8>> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(
        algorithm.encoding(),
        &SystemRandom::new(),
        message,
        &mut signature,
    )
    .ok()?;
    Some(signature)
}

/// Whether what the key signs is verified by the certificate.
fn probe(key: &RsaKeyPair, own: &X509Certificate<'_>) -> bool {
    let message = b"probe";
    let public = &own.public_key().subject_public_key.data;
    sign(key, AssertionAlgorithm::Ps256, message).is_some_and(|signature| {
        UnparsedPublicKey::new(&signature::RSA_PSS_2048_8192_SHA256, public)
            .verify(message, &signature)
            .is_ok()
    })
}

/// A certificate in DER form, and what was read from it.
pub(crate) type DerAndParsed<'a> = (&'a CertificateDer<'static>, &'a X509Certificate<'a>);

/// The certificate and those above it, in whatever order they lay in the file; strangers are left out.
pub(crate) fn chain(own: DerAndParsed<'_>, all: &[DerAndParsed<'_>]) -> Vec<CertificateDer<'static>> {
    let (der, mut last) = own;
    let mut chain = vec![der.clone()];
    while last.issuer().as_raw() != last.subject().as_raw() {
        let issuer = all
            .iter()
            .find(|(der, other)| other.subject().as_raw() == last.issuer().as_raw() && !chain.contains(der));
        let Some((der, issuer)) = issuer else { break };
        chain.push((*der).clone());
        last = issuer;
    }
    chain
}

pub(crate) fn day(moment: SystemTime) -> String {
    match jiff::Timestamp::try_from(moment) {
        Ok(moment) => moment.strftime("%Y-%m-%d").to_string(),
        Err(_) => "a date far away".to_owned(),
    }
}
