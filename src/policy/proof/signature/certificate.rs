//! A vendor's signing certificate. Fetching it is left to others: here is which URL may be fetched, and what a certificate
//! verifies. Its owner is proven by the host that served it over TLS, which is pinned in the recipe; the chain of the
//! certificate itself is not built.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256,
};
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

    /// Whether it is valid at this time.
    pub fn is_valid(&self, now: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&seconds(now))
    }

    /// How long it is valid from now on.
    pub fn rest(&self, now: SystemTime) -> Duration {
        let seconds = self.not_after.saturating_sub(seconds(now));
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    }

    /// Whether it is valid now and verifies one of the signatures.
    pub(super) fn verifies(
        &self,
        hash: &'static digest::Algorithm,
        pieces: &[Cow<'_, [u8]>],
        signatures: &[Vec<u8>],
        now: SystemTime,
    ) -> Result<bool, Unverified> {
        if !self.is_valid(now) {
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

/// Longest URL of a certificate: it is logged.
const URL_BYTES_MAX: usize = 256;

/// Whether a certificate may be fetched from this URL.
pub(super) fn may_serve(url: &str, recipe: &CertificateRecipe) -> bool {
    // Whatever another reader of URLs would see otherwise is refused: no escapes, no backslashes, no user names.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/:".contains(&byte);
    if url.len() > URL_BYTES_MAX || !url.bytes().all(plain) || url.contains("..") {
        return false;
    }
    let Some((authority, path)) = url
        .strip_prefix("https://")
        .and_then(|rest| rest.split_at_checked(rest.find('/')?))
    else {
        return false;
    };
    path.starts_with(&recipe.path_prefix)
        && path.ends_with(&recipe.path_suffix)
        && is_vendors(authority, recipe)
}

/// Whether a host, with its port if it is not 443, is one of the vendor's.
pub(super) fn is_vendors(authority: &str, recipe: &CertificateRecipe) -> bool {
    let fits = |pattern: &String| {
        let labels = authority.split('.').zip(pattern.split('.'));
        authority.split('.').count() == pattern.split('.').count()
            && labels
                .into_iter()
                .all(|(label, wanted)| label == wanted || wanted == "*" && is_region(label))
    };
    recipe.hosts.iter().any(fits)
}

/// A region of Amazon, `eu-west-1` or `us-gov-west-1`. Anything looser would let others in: `sns.s3.amazonaws.com` and
/// `sns.s3-eu-west-1.amazonaws.com` are a bucket of anyone.
fn is_region(label: &str) -> bool {
    let Some((words, number)) = label.rsplit_once('-') else {
        return false;
    };
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number && words.contains('-') && words.split('-').all(is_word)
}

#[cfg(test)]
mod tests {
    use super::may_serve;
    use crate::model::signature::Preset;

    #[test]
    fn a_certificate_comes_from_a_pinned_host_only() {
        let recipe = Preset::named("sns").unwrap().recipe.certificate.as_ref().unwrap();
        let path = "SimpleNotificationService-0123.pem";
        for good in [
            "sns.eu-west-1.amazonaws.com",
            "sns.us-gov-east-1.amazonaws.com",
            "sns.cn-north-1.amazonaws.com.cn",
        ] {
            assert!(may_serve(&format!("https://{good}/{path}"), recipe), "{good}");
        }
        let long = "a".repeat(300);
        for bad in [
            "sns.s3.amazonaws.com",
            "sns.s3-eu-west-1.amazonaws.com",
            "sns.s3-website-eu-west-1.amazonaws.com",
            "sns.west-1.amazonaws.com",
            "sns.eu-west-1a.amazonaws.com",
            "sns.eu--1.amazonaws.com",
            "SNS.eu-west-1.amazonaws.com",
            "user@sns.eu-west-1.amazonaws.com",
            "sns.eu-west-1.amazonaws.com:443",
            "sns.eu-west-1.amazonaws.com.",
            "evil.example\\.sns.eu-west-1.amazonaws.com",
            &long,
        ] {
            assert!(!may_serve(&format!("https://{bad}/{path}"), recipe), "{bad}");
        }
        for bad in [
            "http://sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem",
            "https://sns.eu-west-1.amazonaws.com.evil.example/SimpleNotificationService-a.pem",
            "https://evil.example/sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem",
            "https://sns.eu-west-1.amazonaws.com@evil.example/SimpleNotificationService-a.pem",
            "https://evil.example#sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem",
            "https://sns.eu-west-1.amazonaws.com:8443/SimpleNotificationService-a.pem",
            "https://sns.a.b.amazonaws.com/SimpleNotificationService-a.pem",
            "https://sns..amazonaws.com/SimpleNotificationService-a.pem",
            "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem?b",
            "https://sns.eu-west-1.amazonaws.com/../SimpleNotificationService-a.pem",
            "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-/../a.pem",
            "https://sns.eu-west-1.amazonaws.com/a.txt",
            "https://sns.eu-west-1.amazonaws.com/other/SimpleNotificationService-0123.pem",
            "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-%2e%2e/a.pem",
            "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-\\a.pem",
            "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-a.pem#a.pem",
            "HTTPS://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123.pem",
            "sns.eu-west-1.amazonaws.com",
            "",
        ] {
            assert!(!may_serve(bad, recipe), "{bad}");
        }
    }
}
