//! Authentication by subject name and issuer: the registration names a subject and an authority instead of
//! one certificate. The assertion includes its certificate.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;

/// The certificate that signs, if its chain ends at `root` and its common name is `name`.
///
/// # Errors
/// The AADSTS number of what is wrong.
pub fn check<'a>(chain: &'a [Vec<u8>], root: &CertificateDer<'static>, name: &str) -> Result<&'a [u8], u32> {
    // An assertion without its certificate counts as one by an unknown certificate.
    let (leaf, between) = chain.split_first().ok_or(700_027_u32)?;
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let between: Vec<_> = between.iter().cloned().map(CertificateDer::from).collect();
    verifier
        .verify_client_cert(&CertificateDer::from(leaf.as_slice()), &between, UnixTime::now())
        .map_err(|_| 50012_u32)?;
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|_| 50012_u32)?;
    let is_named = parsed
        .subject()
        .iter_common_name()
        .any(|own| own.as_str() == Ok(name));
    if is_named { Ok(leaf) } else { Err(700_030) }
}
