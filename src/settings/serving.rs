//! The certificate of a listener, with its private key. It is read from its sources by the check of the settings, and again
//! whenever a source changes, so that both reject the same things. `server/tls.rs` decides which certificate is served; the
//! check warns about dates and names at startup.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use crate::material;
use crate::material::{
    About, DerAndParsed, Fault, Leaf, Texts, certificates_in, certify, day, no_certificate, read_key,
    read_leaf,
};
use crate::model::{Flaw, Secret};
use crate::outbound::provider;
use crate::settings::source::SecretSource;

#[derive(Debug, Clone)]
pub struct CertificateSource {
    pub(super) places: Places,
    /// The names from the settings; if empty, the names in the certificate apply.
    pub(super) names: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Places {
    /// The chain in one, the key in another.
    Apart { chain: SecretSource, key: SecretSource },
    /// Both in one, as PEM or PFX, unless the key has its own.
    Together {
        file: SecretSource,
        key: Option<SecretSource>,
        password: Option<SecretSource>,
    },
}

/// A chain and its key, which belong together.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) key: CertifiedKey,
    pub(super) leaf: Leaf,
}

impl CertificateSource {
    /// The sources, in the order in which [`Self::read`] expects their contents.
    pub fn parts(&self) -> Vec<&SecretSource> {
        match &self.places {
            Places::Apart { chain, key } => vec![chain, key],
            Places::Together { file, key, password } => {
                let beside = [key.as_ref(), password.as_ref()];
                [Some(file)].into_iter().chain(beside).flatten().collect()
            }
        }
    }

    /// Builds the certificate from the current contents of its sources.
    pub fn read(&self, texts: &[Secret]) -> Result<Certificate, String> {
        let pair = self.pair(texts).map_err(|fault| fault.flaw.what)?;
        let names = self.served(&pair.leaf).map_err(|flaw| flaw.what)?;
        Ok(self.clone().certificate(pair.key, names, Some(&pair.leaf)))
    }

    /// A certificate from here; one whose leaf was not read has no dates.
    pub(super) fn certificate(
        self,
        key: CertifiedKey,
        names: Vec<String>,
        leaf: Option<&Leaf>,
    ) -> Certificate {
        let date = |of: fn(&Leaf) -> SystemTime| leaf.map_or(SystemTime::UNIX_EPOCH, of);
        Certificate {
            key: Arc::new(key),
            names,
            not_before: date(|leaf| leaf.not_before),
            not_after: date(|leaf| leaf.not_after),
            source: Arc::new(self),
        }
    }

    /// Parses the contents of its sources and checks that they belong together.
    pub(super) fn pair(&self, texts: &[Secret]) -> Result<Pair, Fault> {
        let mut texts = texts.iter();
        let missing = || Fault::new(About::File, "a part of the certificate was not read");
        let first = texts.next().ok_or_else(missing)?;
        match &self.places {
            Places::Apart { chain, .. } => apart(first, &chain.place(), texts.next().ok_or_else(missing)?),
            Places::Together { key, password, .. } => {
                let mut beside = |part: &Option<SecretSource>| part.as_ref().and_then(|_| texts.next());
                let key = beside(key);
                let password = beside(password);
                together(&Texts {
                    file: first,
                    key,
                    password,
                })
            }
        }
    }

    /// The names that a certificate with this leaf serves.
    pub(super) fn served(&self, leaf: &Leaf) -> Result<Vec<String>, Flaw> {
        if !self.names.is_empty() {
            return Ok(self.names.clone());
        }
        if leaf.names.is_empty() {
            return Err(
                Flaw::new("the certificate holds no names").hint(
                    "make one with the names it serves as subjectAltName, because callers look nowhere else; or say with \
                     `names` which those are",
                ),
            );
        }
        Ok(leaf.names.clone())
    }
}

#[derive(Debug, Clone)]
pub struct Certificate {
    /// Chain and signing key, checked to belong together.
    pub key: Arc<CertifiedKey>,
    /// Lower-case DNS names; `*.` matches one label.
    pub names: Vec<String>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    pub source: Arc<CertificateSource>,
}

impl Certificate {
    pub fn is_valid(&self, now: SystemTime) -> bool {
        self.not_before <= now && now < self.not_after
    }

    pub fn begins_on(&self) -> String {
        day(self.not_before)
    }

    pub fn ends_on(&self) -> String {
        day(self.not_after)
    }

    /// Those of its served names that it is not made out to, so that callers refuse it.
    pub fn foreign_names(&self) -> Vec<&str> {
        let leaf = self.key.cert.first().and_then(|leaf| read_leaf(leaf).ok());
        let own = leaf.map(|leaf| leaf.names).unwrap_or_default();
        let names = self.names.iter().map(String::as_str);
        names
            .filter(|name| !own.iter().any(|own| covers(own, name)))
            .collect()
    }
}

/// Whether a name in a certificate covers a name to be served (RFC 6125 section 6.4.3: a star matches one
/// label).
pub(super) fn covers(own: &str, name: &str) -> bool {
    if own == name {
        return true;
    }
    match (own.strip_prefix("*."), name.split_once('.')) {
        (Some(parent), Some((label, rest))) => label != "*" && rest == parent,
        _ => false,
    }
}

/// The chain from one place, the server's own certificate first, and the key from another.
fn apart(chain: &Secret, place: &str, key: &Secret) -> Result<Pair, Fault> {
    let of_chain = |flaw| Fault {
        about: About::File,
        flaw,
    };
    let chain = certificates_in(chain, place).map_err(of_chain)?;
    let leaf = leaf_of(&chain).map_err(of_chain)?;
    let key = read_key(key).and_then(|key| certify(chain, &key, &provider()));
    let key = key.map_err(|flaw| Fault {
        about: About::Key,
        flaw,
    })?;
    Ok(Pair { key, leaf })
}

/// Reads both from one source, in any order.
fn together(texts: &Texts<'_>) -> Result<Pair, Fault> {
    let parts = texts.parts()?;
    let provider = provider();
    let parsed = parts
        .parsed("put the certificate into the same file, or name it with `chain` and the key with `key`")?;
    let all: Vec<DerAndParsed<'_>> = parts.certificates.iter().zip(&parsed).collect();
    let belongs = |der: &CertificateDer<'static>| {
        CertifiedKey::from_der(vec![der.clone()], parts.key.clone_key(), &provider).is_ok()
    };
    // Where none belongs the first one says why.
    let own = all.iter().find(|(der, _)| belongs(der)).or(all.first());
    let chain = own.map(|own| material::chain(*own, &all)).unwrap_or_default();
    let leaf = leaf_of(&chain).map_err(|flaw| Fault {
        about: About::File,
        flaw,
    })?;
    let key = certify(chain, &parts.key, &provider).map_err(|flaw| Fault {
        about: parts.key_about,
        flaw,
    })?;
    Ok(Pair { key, leaf })
}

fn leaf_of(chain: &[CertificateDer<'static>]) -> Result<Leaf, Flaw> {
    chain
        .first()
        .map_or(Err(no_certificate()), |leaf| read_leaf(leaf))
}
