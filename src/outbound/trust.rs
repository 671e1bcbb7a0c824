//! Which certificate authorities our own connections trust, and the TLS client settings made from that. The system's
//! authorities are read once a process, because reading them costs milliseconds and a megabyte.

use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

use crate::outbound::verifier::Explaining;

/// Which certificate authorities a connection of ours trusts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Those of the operating system.
    System,
    /// Only these, which all who were given them share.
    Only(Arc<[CertificateDer<'static>]>),
}

/// Why no TLS client can be made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TrustError {
    /// The operating system offers no certificate authority.
    #[error(
        "this machine has no certificate authorities; install its ca-certificates package or set ca_file"
    )]
    NoneOnSystem,
    /// A certificate of `ca_file` cannot serve as an authority.
    #[error("a certificate in ca_file cannot be used as an authority: {0}")]
    Unusable(String),
}

/// The one cryptography provider of the gateway.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| Arc::new(aws_lc_rs::default_provider()))
        .clone()
}

fn system_roots() -> Result<Arc<RootCertStore>, TrustError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    if roots.is_empty() {
        return Err(TrustError::NoneOnSystem);
    }
    Ok(roots.clone())
}

impl Trust {
    /// TLS 1.2 and 1.3 client settings that trust these authorities, without ALPN.
    ///
    /// # Errors
    /// Fails when there is nothing to trust.
    pub fn client_config(&self) -> Result<ClientConfig, TrustError> {
        Ok(builder()?
            .with_root_certificates(self.roots()?)
            .with_no_client_auth())
    }

    /// The same settings, with which a refused certificate is explained: see [`crate::outbound::refused_certificate`].
    ///
    /// # Errors
    /// Fails when there is nothing to trust.
    pub fn explaining_client_config(&self) -> Result<ClientConfig, TrustError> {
        let roots = self.roots()?;
        if roots.is_empty() {
            // Where nothing is trusted, as for an endpoint without TLS, there is nothing to explain either.
            return self.client_config();
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| TrustError::Unusable(error.to_string()))?;
        Ok(builder()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Explaining(verifier)))
            .with_no_client_auth())
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, TrustError> {
        Ok(match self {
            Self::System => system_roots()?,
            Self::Only(certificates) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates.iter() {
                    roots
                        .add(certificate.clone())
                        .map_err(|error| TrustError::Unusable(error.to_string()))?;
                }
                Arc::new(roots)
            }
        })
    }
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TrustError> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TrustError::Unusable(error.to_string()))
}
