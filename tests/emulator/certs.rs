//! A certificate authority created at run time, and the certificates it signs: valid ones, expired ones, ones
//! for another name, with ECDSA or RSA keys. Also the TLS configurations of the emulator's servers and of
//! test clients.

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::ids;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The kind of key a leaf has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256: quick to generate, the default.
    EcdsaP256,
    Rsa2048,
}

/// A certificate authority that lives as long as the test.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    root_pem: String,
    /// The intermediate certificates between a leaf and the root.
    between: Vec<(CertificateDer<'static>, String)>,
    /// Number of RSA keys that its leaves use.
    rsa_keys: AtomicUsize,
}

impl Authority {
    /// A new root.
    pub fn new() -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        Self::of(&unique("Emulator Root"), key)
    }

    /// The root of this folder: its key and its certificate are kept there, so that a client that trusts it still does after a
    /// restart.
    ///
    /// # Errors
    /// If a file cannot be read or written, or has no key.
    pub fn kept_in(folder: &Path) -> io::Result<Self> {
        let path = folder.join("ca.key");
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let certificate = folder.join("ca.pem");
        let mut is_written = certificate.exists();
        let key = match fs::read_to_string(&path) {
            Ok(pem) => KeyPair::from_pem(&pem).map_err(|error| named(io::Error::other(error)))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
                owners_file(&path)
                    .and_then(|mut file| file.write_all(key.serialize_pem().as_bytes()))
                    .map_err(named)?;
                is_written = false;
                key
            }
            Err(error) => return Err(named(error)),
        };
        // The name and the key are what is trusted.
        let id = ids::sha256(key.public_key_pem().as_bytes());
        let authority = Self::of(&format!("Flowgate emulator {}", &id[..16]), key);
        if !is_written {
            fs::write(&certificate, authority.pem()).map_err(named)?;
        }
        Ok(authority)
    }

    fn of(name: &str, key: KeyPair) -> Self {
        let params = authority_params(name);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            root: certificate.der().clone(),
            root_pem: certificate.pem(),
            issuer: Issuer::new(params, key),
            between: Vec::new(),
            rsa_keys: AtomicUsize::new(0),
        }
    }

    /// An intermediate authority below this one; its leaves come with a chain of two certificates.
    pub fn intermediate(&self) -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let params = authority_params(&unique("Emulator Intermediate"));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let mut between = vec![(certificate.der().clone(), certificate.pem())];
        between.extend(self.between.iter().cloned());
        Self {
            issuer: Issuer::new(params, key),
            root: self.root.clone(),
            root_pem: self.root_pem.clone(),
            between,
            rsa_keys: AtomicUsize::new(0),
        }
    }

    /// A server certificate for these DNS names and addresses.
    pub fn leaf(&self, names: &[&str]) -> Leaf {
        self.leaf_with(names, KeyKind::EcdsaP256)
    }

    /// A server certificate with a chosen kind of key.
    pub fn leaf_with(&self, names: &[&str], kind: KeyKind) -> Leaf {
        self.sign(leaf_params(names, ExtendedKeyUsagePurpose::ServerAuth), kind)
    }

    /// A server certificate that expires in this many days.
    pub fn leaf_for(&self, names: &[&str], days: u32) -> Leaf {
        let mut params = leaf_params(names, ExtendedKeyUsagePurpose::ServerAuth);
        params.not_after = (SystemTime::now() + DAY * days).into();
        self.sign(params, KeyKind::EcdsaP256)
    }

    /// A server certificate that expired yesterday.
    pub fn expired_leaf(&self, names: &[&str]) -> Leaf {
        let mut params = leaf_params(names, ExtendedKeyUsagePurpose::ServerAuth);
        let now = SystemTime::now();
        params.not_before = (now - 10 * DAY).into();
        params.not_after = (now - DAY).into();
        self.sign(params, KeyKind::EcdsaP256)
    }

    /// A server certificate that becomes valid tomorrow.
    pub fn future_leaf(&self, names: &[&str]) -> Leaf {
        let mut params = leaf_params(names, ExtendedKeyUsagePurpose::ServerAuth);
        let now = SystemTime::now();
        params.not_before = (now + DAY).into();
        params.not_after = (now + 10 * DAY).into();
        self.sign(params, KeyKind::EcdsaP256)
    }

    /// A valid server certificate for a name that is not used on this machine.
    pub fn wrong_name_leaf(&self) -> Leaf {
        self.leaf(&["somewhere-else.example"])
    }

    /// A client certificate whose common name and DNS name are `name`.
    pub fn client_leaf(&self, name: &str) -> Leaf {
        self.sign(
            leaf_params(&[name], ExtendedKeyUsagePurpose::ClientAuth),
            KeyKind::EcdsaP256,
        )
    }

    /// A client certificate with a chosen kind of key.
    pub fn client_leaf_with(&self, name: &str, kind: KeyKind) -> Leaf {
        self.sign(leaf_params(&[name], ExtendedKeyUsagePurpose::ClientAuth), kind)
    }

    /// A client certificate with an RSA key, with this validity in days from now.
    pub fn client_leaf_between(&self, name: &str, begins: i32, ends: i32) -> Leaf {
        let mut params = leaf_params(&[name], ExtendedKeyUsagePurpose::ClientAuth);
        let at = |days: i32| {
            let distance = DAY * days.unsigned_abs();
            let now = SystemTime::now();
            if days < 0 { now - distance } else { now + distance }
        };
        params.not_before = at(begins).into();
        params.not_after = at(ends).into();
        self.sign(params, KeyKind::Rsa2048)
    }

    /// The root certificate as PEM.
    pub fn pem(&self) -> &str {
        &self.root_pem
    }

    /// The root certificate as DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// A store that trusts only this root.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        roots
    }

    /// TLS settings of a test client that trusts this root and offers these protocols.
    pub fn client_config(&self, alpn: &[&str]) -> ClientConfig {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        config.alpn_protocols = protocols(alpn);
        config
    }

    /// As [`Authority::client_config`], for a client that also presents a certificate.
    pub fn client_config_with(&self, alpn: &[&str], identity: &Leaf) -> ClientConfig {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
            .unwrap();
        config.alpn_protocols = protocols(alpn);
        config
    }

    fn sign(&self, params: CertificateParams, kind: KeyKind) -> Leaf {
        let key = match kind {
            KeyKind::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap(),
            KeyKind::Rsa2048 => rsa_key(self.rsa_keys.fetch_add(1, Ordering::Relaxed)),
        };
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let mut chain = vec![certificate.der().clone()];
        let mut chain_pem = certificate.pem();
        for (der, pem) in &self.between {
            chain.push(der.clone());
            chain_pem.push_str(pem);
        }
        Leaf {
            chain,
            chain_pem,
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            key_pem: key.serialize_pem(),
        }
    }
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Leaf {
    /// The certificate and the authorities up to, but without, the root.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    /// The chain as PEM, leaf first.
    pub chain_pem: String,
    /// The private key as PEM (PKCS #8).
    pub key_pem: String,
}

impl Leaf {
    /// Writes `<name>.pem` and `<name>.key` into a folder.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn write(&self, folder: &Path, name: &str) -> io::Result<LeafFiles> {
        let files = LeafFiles {
            chain: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        };
        fs::write(&files.chain, &self.chain_pem)?;
        fs::write(&files.key, &self.key_pem)?;
        Ok(files)
    }

    /// TLS settings of a server that presents this leaf and speaks these protocols.
    pub fn server_config(&self, alpn: &[&str]) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .unwrap();
        config.alpn_protocols = protocols(alpn);
        config
    }
}

/// The files that [`Leaf::write`] has written.
#[derive(Clone, Debug)]
pub struct LeafFiles {
    /// The PEM file with the chain.
    pub chain: PathBuf,
    /// The PEM file with the key.
    pub key: PathBuf,
}

/// The name a test client asks for when it connects to `host`.
pub fn server_name(host: &str) -> ServerName<'static> {
    ServerName::try_from(host.to_owned()).unwrap()
}

/// An RSA key that no other leaf of the same authority uses. Generating one takes a noticeable part of a
/// second, so the authorities of one process share theirs.
fn rsa_key(index: usize) -> KeyPair {
    static KEYS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
    let mut keys = KEYS.lock().unwrap();
    while keys.len() <= index {
        let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        keys.push(key.serialize_der());
    }
    KeyPair::try_from(keys[index].as_slice()).unwrap()
}

/// The provider is always given explicitly: a process default can be set only once, and not by a library of
/// helpers.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn protocols(alpn: &[&str]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect()
}

fn owners_file(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.write(true).create_new(true).open(path)
}

/// Two authorities must not share a name: an unknown authority's leaf would fail by its signature instead of
/// its issuer.
fn unique(name: &str) -> String {
    format!("{name} {}", ids::hex(&ids::random_bytes::<8>()))
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_now(&mut params);
    params
}

fn leaf_params(names: &[&str], purpose: ExtendedKeyUsagePurpose) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let common_name = names.iter().find(|name| name.parse::<IpAddr>().is_err()).cloned();
    let mut params = CertificateParams::new(names).unwrap();
    if let Some(name) = common_name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.extended_key_usages = vec![purpose];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    valid_now(&mut params);
    params
}

fn valid_now(params: &mut CertificateParams) {
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + 30 * DAY).into();
}
