//! A scheme: the recipe of a vendor and the secrets it is used with, compiled once.

use std::time::SystemTime;

use crate::model::signature::{
    Algorithm, Content, Encoding, Piece, Place, Pointer, Recipe, SigningSecret, TimestampPlace,
};
use crate::model::{KeyLabel, Secret};
use crate::policy::proof::signature::content;
use crate::policy::proof::signature::key::Key;

/// Secrets of one scheme. A request with a wrong signature costs one hash for each.
const SECRETS_MAX: usize = 8;

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
    pub key: Key,
    pub secret: Secret,
    pub not_before: Option<SystemTime>,
    pub expires: Option<SystemTime>,
}

/// Why a recipe and its secrets are no scheme.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemeError {
    #[error("there is no place of a signature")]
    NoPlace,
    #[error("there is no secret")]
    NoSecret,
    #[error("there are more than {SECRETS_MAX} secrets")]
    TooManySecrets,
    #[error("the secret `{label}` {what}")]
    Secret { label: KeyLabel, what: &'static str },
    #[error("the template has {0}, but nothing says where it is")]
    NoSource(&'static str),
    #[error("{0}")]
    Unfit(&'static str),
}

impl Scheme {
    pub fn build(recipe: &Recipe, secrets: &[SigningSecret]) -> Result<Self, SchemeError> {
        check(recipe)?;
        if secrets.is_empty() {
            return Err(SchemeError::NoSecret);
        }
        if secrets.len() > SECRETS_MAX {
            return Err(SchemeError::TooManySecrets);
        }
        let hold = |secret: &SigningSecret| {
            let key = Key::build(
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
            secrets: secrets.iter().map(hold).collect::<Result<_, _>>()?,
            pointers: pointers(recipe),
            recipe: recipe.clone(),
        })
    }

    /// Whether a request can be confirmed only with its body.
    pub fn needs_body(&self) -> bool {
        let is_token = self.recipe.algorithm == Algorithm::Token;
        !is_token || !self.pointers.is_empty() || self.id_pointer().is_some()
    }

    /// Whether a signature covers every byte of the body. A token covers none, and some vendors sign single fields.
    pub fn covers_body(&self) -> bool {
        let is_signed = self.recipe.algorithm != Algorithm::Token;
        let is_whole = self.recipe.content == Content::Twilio || has_piece(&self.recipe, &Piece::Body);
        is_signed && is_whole
    }

    pub(super) fn covers_id(&self) -> bool {
        has_piece(&self.recipe, &Piece::Id)
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

    pub(super) fn places(&self) -> String {
        let places = self.recipe.signature.iter().map(Place::to_string);
        places.collect::<Vec<_>>().join(" or ")
    }
}

fn has_piece(recipe: &Recipe, piece: &Piece) -> bool {
    match &recipe.content {
        Content::Template(template) => template.0.contains(piece),
        Content::Twilio | Content::Adyen | Content::Sns => false,
    }
}

fn check(recipe: &Recipe) -> Result<(), SchemeError> {
    let is_certificate = recipe.algorithm == Algorithm::RsaCertificate;
    let pieces = match &recipe.content {
        Content::Template(template) => template.0.as_slice(),
        Content::Twilio | Content::Adyen | Content::Sns => &[],
    };
    if recipe.signature.is_empty() {
        return Err(SchemeError::NoPlace);
    }
    if recipe.algorithm != Algorithm::Token {
        if recipe.content == Content::Template(Default::default()) {
            return Err(SchemeError::Unfit("the template is empty"));
        }
        if recipe.encoding == Encoding::Plain {
            return Err(SchemeError::Unfit("a signature is encoded as hex or base64"));
        }
    }
    if is_certificate != recipe.certificate.is_some() {
        return Err(SchemeError::Unfit(
            "a certificate and its algorithm belong together",
        ));
    }
    if pieces.contains(&Piece::Timestamp) && recipe.timestamp.is_none() {
        return Err(SchemeError::NoSource("{timestamp}"));
    }
    if pieces.contains(&Piece::Id) && recipe.id.is_none() {
        return Err(SchemeError::NoSource("{id}"));
    }
    match recipe.timestamp.as_ref().map(|timestamp| &timestamp.place) {
        Some(TimestampPlace::Beside(_)) if recipe.separator.is_none() => Err(SchemeError::Unfit(
            "a timestamp beside the signature needs a separator",
        )),
        // Anyone could replace it and send an old request again.
        Some(place) if !pieces.is_empty() && !covers_timestamp(pieces, place) => {
            Err(SchemeError::Unfit("the template does not cover the timestamp"))
        }
        _ => Ok(()),
    }
}

fn covers_timestamp(pieces: &[Piece], place: &TimestampPlace) -> bool {
    pieces.iter().any(|piece| match (piece, place) {
        (Piece::Timestamp, _) => true,
        (Piece::Body, TimestampPlace::At(place)) => place.pointer().is_some(),
        (Piece::At(covered), TimestampPlace::At(place)) => covered == place,
        _ => false,
    })
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
    let signed_id = recipe.id.as_ref().filter(|_| has_piece(recipe, &Piece::Id));
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
