//! A certificate for development: signed by its own key, for this machine, and valid for a few weeks only.

use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};

use crate::material::day;
use crate::model::{Secret, clock};

const DAY: Duration = Duration::from_secs(86_400);
/// Long enough for a trial, too short to be forgotten in production.
const DAYS: u32 = 90;

/// A certificate with its key, both as PEM.
#[derive(Debug)]
pub(crate) struct DevelopmentCertificate {
    pub(crate) chain: String,
    pub(crate) key: Secret,
    /// The day it expires.
    pub(crate) expires: String,
}

impl DevelopmentCertificate {
    /// Makes one for these DNS names and IP addresses.
    pub(crate) fn new(names: &[String]) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        let name = "Flowgate development certificate";
        params.distinguished_name.push(DnType::CommonName, name);
        // No key usage: some libraries then refuse it as an authority for itself.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let now = clock::wall();
        let expires = now + DAY * DAYS;
        // A caller's clock may be behind.
        params.not_before = (now - DAY).into();
        params.not_after = expires.into();
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            chain: certificate.pem(),
            key: Secret::new(key.serialize_pem()),
            expires: day(expires),
        })
    }
}
