//! A scheme: the recipe of a vendor and the secrets it is used with, compiled once.

use std::time::SystemTime;

use crate::material::WebhookKey;
use crate::model::signature::{
    Algorithm, Content, Piece, Place, Recipe, RecipeError, SECRETS_MAX, SecretOrigin, SigningSecret,
    TimestampPlace,
};
use crate::model::{KeyLabel, Pointer, Secret};
use crate::policy::proof::signature::{certificate, content};

#[derive(Debug)]
pub struct Scheme {
    pub(super) recipe: Recipe,
    pub(super) secrets: Vec<HeldSecret>,
    /// What is read of the body before a signature can be checked.
    pub(super) pointers: Vec<Pointer>,
}

#[derive(Debug)]
pub(super) struct HeldSecret {
    pub label: KeyLabel,
    pub key: WebhookKey,
    pub secret: Secret,
    pub not_before: Option<SystemTime>,
    pub expires: Option<SystemTime>,
}

/// Why a recipe and its secrets are no scheme.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemeError {
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    #[error("there is no secret")]
    NoSecret,
    #[error("there are more than {SECRETS_MAX} secrets")]
    TooManySecrets,
    #[error("the secret `{label}` {what}")]
    Secret { label: KeyLabel, what: &'static str },
}

impl Scheme {
    pub fn build(recipe: &Recipe, secrets: &[SigningSecret]) -> Result<Self, SchemeError> {
        recipe.check()?;
        if secrets.is_empty() && recipe.secrets == SecretOrigin::Settings {
            return Err(SchemeError::NoSecret);
        }
        if secrets.len() > SECRETS_MAX {
            return Err(SchemeError::TooManySecrets);
        }
        let hold = |secret: &SigningSecret| {
            let key = WebhookKey::build(
                &secret.secret,
                recipe.algorithm,
                recipe.key_form,
                &recipe.key_prefix,
            );
            let label = secret.label.clone();
            Ok(HeldSecret {
                key: key.map_err(|what| SchemeError::Secret {
                    label: label.clone(),
                    what,
                })?,
                label,
                secret: secret.secret.clone(),
                not_before: secret.not_before,
                expires: secret.expires,
            })
        };
        Ok(Self {
            secrets: secrets.iter().map(hold).collect::<Result<_, SchemeError>>()?,
            pointers: pointers(recipe),
            recipe: recipe.clone(),
        })
    }

    /// Whether a request can be confirmed only with its body.
    pub fn needs_body(&self) -> bool {
        let is_token = self.recipe.algorithm == Algorithm::Token;
        !is_token || !self.pointers.is_empty() || self.id_pointer().is_some()
    }

    /// Whether the key of a signature is in a certificate of the vendor's.
    pub fn has_certificate(&self) -> bool {
        self.recipe.certificate.is_some()
    }

    /// Whether this is a host of the vendor's, with its port if that is not 443.
    pub(in crate::policy) fn is_vendors(&self, authority: &str) -> bool {
        let recipe = self.recipe.certificate.as_ref();
        recipe.is_some_and(|recipe| certificate::is_vendors(authority, recipe))
    }

    /// Whether a signature covers every byte of the body. A token covers none, and some vendors sign single fields.
    pub fn covers_body(&self) -> bool {
        let is_signed = self.recipe.algorithm != Algorithm::Token;
        let is_whole = self.recipe.content == Content::Twilio || self.recipe.has_piece(&Piece::Body);
        is_signed && is_whole
    }

    pub(super) fn covers_id(&self) -> bool {
        self.recipe.has_piece(&Piece::Id)
    }

    /// The header fields and parameters of the query that are credentials: they are neither logged nor passed on. Signatures
    /// are among them because one in a query would be logged with it.
    pub fn credentials(&self) -> &[Place] {
        &self.recipe.signature
    }

    /// Where the id of a delivery is in the body, if it is there.
    pub(super) fn id_pointer(&self) -> Option<&Pointer> {
        self.recipe.id.as_ref().and_then(Place::pointer)
    }

    /// HMAC-SHA256 of a text with the secret of this label, or with the first that is in force. None where no secret is for
    /// that.
    pub(in crate::policy) fn hmac_sha256(
        &self,
        label: Option<&KeyLabel>,
        text: &str,
        now: SystemTime,
    ) -> Option<Vec<u8>> {
        // The key of a token would be the answer itself.
        if self.recipe.algorithm != Algorithm::HmacSha256 {
            return None;
        }
        let secret = match label {
            Some(label) => self.secrets.iter().find(|secret| secret.label == *label)?,
            None => self.secret_in_force(now)?,
        };
        Some(secret.key.tag(&[text.as_bytes().into()]))
    }

    /// The first secret that is valid at this moment.
    pub(super) fn secret_in_force(&self, now: SystemTime) -> Option<&HeldSecret> {
        let is_in_force = |secret: &&HeldSecret| {
            secret.not_before.is_none_or(|from| now >= from) && secret.expires.is_none_or(|end| now < end)
        };
        self.secrets.iter().find(is_in_force)
    }

    pub fn places(&self) -> String {
        let places = self.recipe.signature.iter().map(Place::to_string);
        places.collect::<Vec<_>>().join(" or ")
    }
}

/// Everything of the body that is read, each once.
fn pointers(recipe: &Recipe) -> Vec<Pointer> {
    let timestamp = recipe
        .timestamp
        .as_ref()
        .and_then(|timestamp| match &timestamp.place {
            TimestampPlace::At(place) => Some(place),
            TimestampPlace::Beside(_) => None,
        });
    let signed_id = recipe.id.as_ref().filter(|_| recipe.has_piece(&Piece::Id));
    let certificate = recipe.certificate.as_ref().map(|certificate| &certificate.url);
    let places = recipe
        .signature
        .iter()
        .chain(timestamp)
        .chain(signed_id)
        .chain(certificate);
    let named = places.filter_map(Place::pointer).cloned();
    let mut all: Vec<Pointer> = Vec::new();
    for pointer in named.chain(content::pointers(&recipe.content)) {
        if !all.contains(&pointer) {
            all.push(pointer);
        }
    }
    all
}
