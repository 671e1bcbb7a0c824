//! A certificate of an application in the settings, and where it can be read again when it has been replaced there.

use std::sync::Arc;

use crate::material::{AssertionAlgorithm, ChainShown, SigningCertificate, Texts};
use crate::model::Secret;
use crate::settings::source::SecretSource;

#[derive(Debug, Clone)]
pub struct ClientCertificate {
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
        let places = |of: &Self| (of.file.clone(), of.key.clone(), of.password.clone());
        (self.algorithm, self.chain) == (other.algorithm, other.chain) && places(self) == places(other)
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

    pub fn parts(&self) -> CertificateParts<'_> {
        CertificateParts {
            file: &self.file,
            key: self.key.as_ref(),
            password: self.password.as_ref(),
        }
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

#[derive(Debug, Clone, Copy)]
pub struct CertificateParts<'a> {
    /// The certificate, and its key unless that is stored separately.
    pub file: &'a SecretSource,
    pub key: Option<&'a SecretSource>,
    pub password: Option<&'a SecretSource>,
}
