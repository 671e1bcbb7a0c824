//! A vendor's signing certificate. Fetching it is left to others: here is which URL may be fetched, and what a certificate
//! verifies. Its owner is proven by the host that served it over TLS, which is pinned in the recipe; the chain of the
//! certificate itself is not built.

use std::borrow::Cow;
use std::time::SystemTime;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256,
};
use http::Uri;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::parse_x509_certificate;

use crate::material::digest_of;
use crate::model::signature::CertificateRecipe;
use crate::policy::proof::signature::refusal::Unverified;
use crate::policy::proof::signature::timestamp::seconds;

/// The public key of a certificate, and when it is valid.
#[derive(Debug, Clone)]
pub struct Certificate {
    key: Box<[u8]>,
    not_before: i64,
    not_after: i64,
}

impl Certificate {
    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, &'static str> {
        let der = CertificateDer::from_pem_slice(pem).map_err(|_| "it is no certificate in PEM")?;
        let (_, read) = parse_x509_certificate(&der).map_err(|_| "it is no X.509 certificate")?;
        Ok(Self {
            key: read.public_key().raw.into(),
            not_before: read.validity().not_before.timestamp(),
            not_after: read.validity().not_after.timestamp(),
        })
    }

    /// Whether it is valid now and verifies one of the signatures.
    pub(super) fn verifies(
        &self,
        hash: &'static digest::Algorithm,
        pieces: &[Cow<'_, [u8]>],
        signatures: &[Vec<u8>],
        now: SystemTime,
    ) -> Result<bool, Unverified> {
        if !(self.not_before..=self.not_after).contains(&seconds(now)) {
            return Err(Unverified::CertificateDates);
        }
        let is_old = *hash == digest::SHA1_FOR_LEGACY_USE_ONLY;
        let algorithm = match is_old {
            true => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            false => &RSA_PKCS1_2048_8192_SHA256,
        };
        let digest = digest_of(hash, pieces);
        let Ok(key) = ParsedPublicKey::new(algorithm, &self.key) else {
            return Ok(false);
        };
        let valid = |signature: &Vec<u8>| key.verify_digest_sig(&digest, signature).is_ok();
        Ok(signatures.iter().any(valid))
    }
}

/// Whether a certificate may be fetched from this URL.
pub(super) fn may_serve(url: &str, recipe: &CertificateRecipe) -> bool {
    let Ok(uri) = url.parse::<Uri>() else {
        return false;
    };
    let (Some(authority), path) = (uri.authority(), uri.path()) else {
        return false;
    };
    // Neither a port nor a user name is left in the authority then, and no dots lead elsewhere.
    let is_plain = authority.as_str() == authority.host() && uri.query().is_none() && !path.contains("..");
    uri.scheme_str() == Some("https")
        && is_plain
        && path.starts_with(&recipe.path_prefix)
        && path.ends_with(&recipe.path_suffix)
        && recipe
            .hosts
            .iter()
            .any(|pattern| is_host(authority.host(), pattern))
}

fn is_host(host: &str, pattern: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_any = |label: &str, wanted: &str| wanted == "*" && !label.is_empty() && label.bytes().all(plain);
    let labels = host.split('.').zip(pattern.split('.'));
    host.split('.').count() == pattern.split('.').count()
        && labels
            .into_iter()
            .all(|(label, wanted)| is_any(label, wanted) || label.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::may_serve;
    use crate::model::signature::Preset;

    #[test]
    fn a_certificate_comes_from_a_pinned_host_only() {
        let recipe = Preset::named("sns").unwrap().recipe.certificate.as_ref().unwrap();
        let path = "SimpleNotificationService-0123.pem";
        for good in ["sns.eu-west-1.amazonaws.com", "sns.cn-north-1.amazonaws.com.cn"] {
            assert!(may_serve(&format!("https://{good}/{path}"), recipe), "{good}");
        }
        for bad in [
            "http://sns.eu-west-1.amazonaws.com/a.pem",
            "https://sns.eu-west-1.amazonaws.com.evil.example/a.pem",
            "https://evil.example/sns.eu-west-1.amazonaws.com/a.pem",
            "https://sns.eu-west-1.amazonaws.com@evil.example/a.pem",
            "https://evil.example#sns.eu-west-1.amazonaws.com/a.pem",
            "https://sns.eu-west-1.amazonaws.com:8443/a.pem",
            "https://sns.a.b.amazonaws.com/a.pem",
            "https://sns..amazonaws.com/a.pem",
            "https://sns.eu-west-1.amazonaws.com/a.pem?b",
            "https://sns.eu-west-1.amazonaws.com/../a.pem",
            "https://sns.eu-west-1.amazonaws.com/a.txt",
            "sns.eu-west-1.amazonaws.com",
            "",
        ] {
            assert!(!may_serve(bad, recipe), "{bad}");
        }
    }
}
