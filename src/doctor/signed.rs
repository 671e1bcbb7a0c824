//! An old signed address of a trigger, to be tried.

use std::path::Path;

use crate::model::{Secret, TriggerUrl};
use crate::settings::{Environment, VaultReference};

/// An old signed address of a trigger, and its source.
#[derive(Debug, Clone)]
pub struct SignedUrl {
    /// The reference, which is not secret.
    pub(super) reference: String,
    pub(super) source: AddressSource,
}

#[derive(Debug, Clone)]
pub(super) enum AddressSource {
    Known(TriggerUrl),
    Vault(VaultReference),
}

impl SignedUrl {
    /// Reads the address behind `env:NAME` or `file:PATH`; one in a key vault is read when it is needed.
    ///
    /// # Errors
    /// If it cannot be read; the message never contains the value.
    pub fn read(reference: &str, environment: &Environment) -> Result<Self, String> {
        let source = match VaultReference::of(reference) {
            Some(place) => AddressSource::Vault(place?),
            None => AddressSource::Known(parse(&environment.secret(reference, Path::new("."))?)?),
        };
        Ok(Self {
            reference: reference.to_owned(),
            source,
        })
    }
}

pub(super) fn parse(text: &Secret) -> Result<TriggerUrl, String> {
    let url = TriggerUrl::parse(text.expose()).map_err(|error| error.to_string())?;
    url.require_signed().map_err(|error| error.to_string())?;
    Ok(url)
}
