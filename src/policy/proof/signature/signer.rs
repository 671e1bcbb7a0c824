//! What one caller signs with: a scheme, whose secrets may be replaced where they are stored.

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use http::HeaderName;

use crate::model::signature::{Place, SECRETS_MAX, SigningSecret};
use crate::model::{CallerName, KeyLabel, Secret, locked};
use crate::policy::proof::signature::scheme::{Scheme, SchemeError};
use crate::settings::{SignatureSettings, UNRESOLVED};

#[derive(Debug)]
pub struct Signer {
    scheme: ArcSwap<Scheme>,
    fields: Vec<HeaderName>,
    secrets: Mutex<Secrets>,
}

/// What the scheme is made of.
#[derive(Debug, Clone)]
struct Secrets {
    of_settings: Vec<SigningSecret>,
    /// What the vendor has sent.
    enrolled: Vec<SigningSecret>,
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
        let of_settings = labelled(settings, &secrets);
        let scheme = Scheme::build(&settings.recipe, &of_settings).map_err(|why| SignerError {
            caller: caller.clone(),
            why,
        })?;
        let fields = settings.recipe.signature.iter().filter_map(|place| match place {
            Place::Header(name) => Some(name.clone()),
            Place::Query(_) | Place::Body(_) => None,
        });
        let enrolled = Vec::new();
        Ok(Self {
            scheme: ArcSwap::from_pointee(scheme),
            fields: fields.collect(),
            secrets: Mutex::new(Secrets {
                of_settings,
                enrolled,
            }),
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

    /// Checks with these secrets of the settings from now on, in their order.
    ///
    /// # Errors
    /// What is wrong with one; those that were used before stay.
    pub fn replace(&self, settings: &SignatureSettings, secrets: &[Secret]) -> Result<(), SchemeError> {
        self.change(|held| held.of_settings = labelled(settings, secrets))
    }

    /// Checks with these secrets of the vendor as well, in place of those it had sent before: with as many as there is room
    /// for beside those of the settings. Returns the labels of the others.
    ///
    /// # Errors
    /// What is wrong with one; those that were used before stay.
    pub fn enrol(&self, mut secrets: Vec<SigningSecret>) -> Result<Vec<KeyLabel>, SchemeError> {
        let mut others = Vec::new();
        self.change(|held| {
            let room = SECRETS_MAX.saturating_sub(held.of_settings.len());
            others = secrets.split_off(room.min(secrets.len()));
            held.enrolled = secrets;
        })?;
        Ok(others.into_iter().map(|secret| secret.label).collect())
    }

    fn change(&self, change: impl FnOnce(&mut Secrets)) -> Result<(), SchemeError> {
        let mut held = locked(&self.secrets);
        let mut next = held.clone();
        change(&mut next);
        let all = [next.of_settings.as_slice(), &next.enrolled].concat();
        let scheme = Scheme::build(&self.scheme.load().recipe, &all)?;
        self.scheme.store(Arc::new(scheme));
        *held = next;
        Ok(())
    }
}

fn labelled(settings: &SignatureSettings, secrets: &[Secret]) -> Vec<SigningSecret> {
    let all = settings.secrets.iter().zip(secrets);
    all.map(|(one, secret)| SigningSecret {
        label: one.label.clone(),
        secret: secret.clone(),
        not_before: one.not_before,
        expires: one.expires,
    })
    .collect()
}
