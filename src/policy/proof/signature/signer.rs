//! What one caller signs with: a scheme, whose secrets may be replaced where they are stored.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderName;

use crate::model::signature::{Place, SigningSecret};
use crate::model::{CallerName, Secret};
use crate::policy::proof::signature::scheme::{Scheme, SchemeError};
use crate::settings::{SignatureSettings, UNRESOLVED};

#[derive(Debug)]
pub struct Signer {
    scheme: ArcSwap<Scheme>,
    fields: Vec<HeaderName>,
}

/// Why requests of a caller cannot be checked.
#[derive(Debug, thiserror::Error)]
#[error("caller {caller}: {why}")]
pub struct SignerError {
    caller: CallerName,
    why: SchemeError,
}

impl Signer {
    /// # Errors
    /// What is wrong with a secret, without a part of it.
    pub fn build(caller: &CallerName, settings: &SignatureSettings) -> Result<Self, SignerError> {
        let secrets = settings.secrets.iter().map(|one| one.source.known().cloned());
        let secrets: Vec<_> = secrets
            .map(|secret| secret.unwrap_or_else(|| Secret::new(UNRESOLVED)))
            .collect();
        let scheme = scheme(settings, &secrets).map_err(|why| SignerError {
            caller: caller.clone(),
            why,
        })?;
        let fields = settings.recipe.signature.iter().filter_map(|place| match place {
            Place::Header(name) => Some(name.clone()),
            Place::Query(_) | Place::Body(_) => None,
        });
        Ok(Self {
            scheme: ArcSwap::from_pointee(scheme),
            fields: fields.collect(),
        })
    }

    pub fn scheme(&self) -> Arc<Scheme> {
        self.scheme.load_full()
    }

    /// The header fields with signatures: they prove something here, and nothing behind the gateway.
    pub fn fields(&self) -> &[HeaderName] {
        &self.fields
    }

    pub fn signs_in(&self, place: &Place) -> bool {
        self.scheme.load().credentials().contains(place)
    }

    /// Checks with these secrets from now on, in the order of the settings.
    ///
    /// # Errors
    /// What is wrong with one; those that were used before stay.
    pub fn replace(&self, settings: &SignatureSettings, secrets: &[Secret]) -> Result<(), SchemeError> {
        self.scheme.store(Arc::new(scheme(settings, secrets)?));
        Ok(())
    }
}

fn scheme(settings: &SignatureSettings, secrets: &[Secret]) -> Result<Scheme, SchemeError> {
    let secrets = settings
        .secrets
        .iter()
        .zip(secrets)
        .map(|(one, secret)| SigningSecret {
            label: one.label.clone(),
            secret: secret.clone(),
            not_before: one.not_before,
            expires: one.expires,
        });
    Scheme::build(&settings.recipe, &secrets.collect::<Vec<_>>())
}
