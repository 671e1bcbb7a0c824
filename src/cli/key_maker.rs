//! Makes keys of the operating system's randomness, and digests of them.

use std::path::Path;

use crate::cli::outcome::{FAILED, Outcome, WRONG};
use crate::model::{CallerName, KeyLabel, Secret, clock};
use crate::policy::key::generate;
use crate::settings::key_edit::{NewKey, expiry};
use crate::settings::{Environment, KeyDigest};

#[derive(Debug, clap::Args)]
pub(super) struct Pepper {
    /// Source of the pepper of `[keys]`, `env:NAME` or `file:PATH`: makes hmac-sha256 digests.
    #[arg(long, value_name = "REFERENCE")]
    pub(super) pepper: Option<String>,
}

/// A new key, and what the settings have of it.
pub(super) struct Made {
    key: Secret,
    pub(super) entry: NewKey,
}

impl Made {
    pub(super) fn new(
        label: KeyLabel,
        expires: Option<&str>,
        pepper: Option<&Secret>,
    ) -> Result<Self, Outcome> {
        let expires = expires.map(|text| {
            let read = expiry(text, clock::wall());
            read.map_err(|why| wrong(format!("--expires {text}: {why}")))
        });
        let expires = expires.transpose()?;
        let Some(key) = generate() else {
            let why = "the operating system provides no random bytes\n";
            return Err(Outcome::failed(why, FAILED));
        };
        let digest = KeyDigest::of(key.expose().as_bytes(), pepper);
        let entry = NewKey {
            label,
            digest,
            expires,
        };
        Ok(Self { key, entry })
    }

    /// The key for the person who passes it on.
    pub(super) fn shown(&self, caller: &CallerName) -> String {
        format!(
            "The key, printed only this once; pass it to {caller} over a secure channel:\n\n    {}\n\n",
            self.key.expose()
        )
    }
}

/// Today's date.
pub(super) fn label_of_today() -> String {
    clock::stamp().chars().take("2026-11-30".len()).collect()
}

pub(super) fn parse_caller(caller: &str) -> Result<CallerName, Outcome> {
    CallerName::parse(caller)
        .map_err(|error| wrong(format!("\"{caller}\" is not a valid caller name: {error}")))
}

pub(super) fn parse_label(label: &str) -> Result<KeyLabel, Outcome> {
    KeyLabel::parse(label).map_err(|error| wrong(format!("{label:?} is not a valid key label: {error}")))
}

pub(super) fn read_pepper(pepper: &Pepper) -> Result<Option<Secret>, Outcome> {
    let Some(reference) = &pepper.pepper else {
        return Ok(None);
    };
    let secret = Environment::of_process().secret(reference, Path::new(""));
    secret
        .map(Some)
        .map_err(|error| wrong(format!("--pepper: {error}")))
}

pub(super) fn wrong(text: String) -> Outcome {
    Outcome::failed(text + "\n", WRONG)
}
