//! A certificate that may be replaced while the gateway runs. The last good one serves while what lies in its place
//! cannot be used; a change is logged once, with the thumbprint that Entra shows as well.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::SystemTime;

use crate::config::ClientCertificate;
use crate::config::SigningCertificate;
use crate::entra::answer::TokenError;
use crate::entra::assertion::Assertion;
use crate::entra::endpoint::Endpoint;
use crate::entra::secret::Renewed;
use crate::model::Secret;
use crate::model::clock;

/// A certificate and its source.
pub(super) struct HeldCertificate {
    identity: String,
    settings: ClientCertificate,
    current: Mutex<Option<Arc<SigningCertificate>>>,
}

impl HeldCertificate {
    pub(super) fn new(identity: &str, settings: &ClientCertificate) -> Self {
        Self {
            identity: identity.to_owned(),
            current: Mutex::new(settings.known().cloned()),
            settings: settings.clone(),
        }
    }

    /// The certificate that is known; nothing where the settings were read without their secrets.
    fn value(&self) -> Option<Arc<SigningCertificate>> {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A fresh assertion for this endpoint.
    pub(super) fn assertion(&self, endpoint: &Endpoint) -> Result<Secret, TokenError> {
        let assertion = Assertion {
            client_id: endpoint.client_id(),
            audience: endpoint.url(),
            algorithm: self.settings.algorithm,
            chain: self.settings.chain,
        };
        let signed = self
            .value()
            .and_then(|certificate| assertion.sign(&certificate, clock::wall()));
        signed.ok_or(TokenError::Unsigned)
    }

    /// When Entra stops accepting it.
    pub(super) fn ends(&self) -> Option<SystemTime> {
        self.value().map(|certificate| certificate.ends())
    }

    /// Whether Entra accepts it at this moment, by its own dates.
    pub(super) fn is_valid(&self, now: SystemTime) -> bool {
        self.value()
            .is_some_and(|certificate| is_valid(&certificate, now))
    }

    /// What it is, so that it can be found in Entra: thumbprint, dates, place.
    pub(super) fn describe(&self) -> String {
        let place = self.settings.place();
        match self.value() {
            Some(certificate) => format!(
                "the certificate with the thumbprint {}, valid from {} to {}, from {place}",
                certificate.thumbprint(),
                certificate.begins_on(),
                certificate.ends_on()
            ),
            None => format!("the certificate from {place}"),
        }
    }

    /// Looks whether its source has another one.
    pub(super) async fn renew(&self) -> Renewed {
        let Some(last) = self.value() else {
            return Renewed::Same;
        };
        let (settings, known) = (self.settings.clone(), last.clone());
        let read = tokio::task::spawn_blocking(move || settings.read_again(&known)).await;
        let identity = &self.identity;
        let certificate = match read {
            Ok(Ok(Some(certificate))) => certificate,
            Ok(Err(why)) => {
                tracing::warn!(%identity, "the certificate of identity {identity} cannot be read again, the last one serves on: {why}");
                return Renewed::Same;
            }
            // It is the same, or the runtime is going down.
            Ok(Ok(None)) | Err(_) => return Renewed::Same,
        };
        let now = clock::wall();
        if is_valid(&last, now) && !is_valid(&certificate, now) {
            let (from, until) = (certificate.begins_on(), certificate.ends_on());
            let place = self.settings.place();
            tracing::warn!(%identity, "the certificate of identity {identity} in {place} is valid from {from} to {until}, the last one serves on");
            return Renewed::Same;
        }
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certificate));
        tracing::info!(%identity, "certificate of identity {identity} replaced, now {}", self.describe());
        Renewed::Changed
    }
}

fn is_valid(certificate: &SigningCertificate, now: SystemTime) -> bool {
    certificate.begins() <= now && now < certificate.ends()
}
