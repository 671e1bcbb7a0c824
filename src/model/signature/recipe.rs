//! The recipe of one signing scheme. It is built by the settings or taken from a preset, and compiled together with secrets.

use std::time::{Duration, SystemTime};

use crate::model::signature::place::Place;
use crate::model::signature::template::{Piece, Template};
use crate::model::{KeyLabel, Secret};

/// Secrets of one scheme: a request with a wrong signature costs one hash for each.
pub const SECRETS_MAX: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Where signatures are; those of all places count. At least one.
    pub signature: Vec<Place>,
    /// What precedes each signature: `sha256=`. Compared without case. With a separator, items with another beginning are
    /// ignored, because they are signatures of another version.
    pub prefix: String,
    /// What separates the items of one value: `,` in `t=1,v1=...`.
    pub separator: Option<char>,
    pub encoding: Encoding,
    pub algorithm: Algorithm,
    pub content: Content,
    pub timestamp: Option<TimestampRecipe>,
    /// Where the id of the delivery is, by which a repetition is recognised.
    pub id: Option<Place>,
    pub key_form: KeyForm,
    /// What may precede the secret and is no part of the key: `whsec_`.
    pub key_prefix: String,
    /// Where the signing certificate is named, if there is no key of our own.
    pub certificate: Option<CertificateRecipe>,
    pub secrets: SecretOrigin,
}

/// HMAC-SHA256 in hex over the body, which is what most vendors do.
impl Default for Recipe {
    fn default() -> Self {
        Self {
            signature: Vec::new(),
            prefix: String::new(),
            separator: None,
            encoding: Encoding::Hex,
            algorithm: Algorithm::HmacSha256,
            content: Content::default(),
            timestamp: None,
            id: None,
            key_form: KeyForm::Text,
            key_prefix: String::new(),
            certificate: None,
            secrets: SecretOrigin::Settings,
        }
    }
}

/// Why a recipe is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecipeError {
    #[error("nothing says where the signature is")]
    NoPlace,
    #[error("the template has {0}, but nothing says where it is")]
    NoSource(&'static str),
    #[error("{0}")]
    Unfit(&'static str),
}

impl Recipe {
    /// Whether requests can be checked with it.
    pub fn check(&self) -> Result<(), RecipeError> {
        let is_certificate = self.algorithm == Algorithm::RsaCertificate;
        let pieces = match &self.content {
            Content::Template(template) => template.0.as_slice(),
            Content::Twilio | Content::Adyen | Content::Sns => &[],
        };
        if self.signature.is_empty() {
            return Err(RecipeError::NoPlace);
        }
        if self.algorithm != Algorithm::Token {
            if self.content == Content::Template(Default::default()) {
                return Err(RecipeError::Unfit("the template is empty"));
            }
            if self.encoding == Encoding::Plain {
                return Err(RecipeError::Unfit("a signature is encoded as hex or base64"));
            }
        }
        if is_certificate != self.certificate.is_some() {
            return Err(RecipeError::Unfit(
                "a certificate and its algorithm belong together",
            ));
        }
        if pieces.contains(&Piece::Timestamp) && self.timestamp.is_none() {
            return Err(RecipeError::NoSource("{timestamp}"));
        }
        if pieces.contains(&Piece::Id) && self.id.is_none() {
            return Err(RecipeError::NoSource("{id}"));
        }
        match self.timestamp.as_ref().map(|timestamp| &timestamp.place) {
            Some(TimestampPlace::Beside(_)) if self.separator.is_none() => Err(RecipeError::Unfit(
                "a timestamp beside the signature needs a separator",
            )),
            // Anyone could replace it and send an old request again.
            Some(place) if !pieces.is_empty() && !covers_timestamp(pieces, place) => {
                Err(RecipeError::Unfit("the template does not cover the timestamp"))
            }
            _ => Ok(()),
        }
    }

    pub fn has_piece(&self, piece: &Piece) -> bool {
        match &self.content {
            Content::Template(template) => template.0.contains(piece),
            Content::Twilio | Content::Adyen | Content::Sns => false,
        }
    }

    /// Whether the signature covers the id of a delivery, so that nobody can send it again with another one. Of the vendors
    /// that sign single fields an id in the body is taken for one of these.
    pub fn covers_id(&self) -> bool {
        let Some(place) = self.id.as_ref().filter(|_| self.algorithm != Algorithm::Token) else {
            return false;
        };
        let is_piece = self.has_piece(&Piece::Id) || self.has_piece(&Piece::At(place.clone()));
        let is_part = match place {
            Place::Body(_) => !matches!(self.content, Content::Template(_)) || self.has_piece(&Piece::Body),
            Place::Query(_) => self.covers_url(),
            Place::Header(_) => false,
        };
        is_piece || is_part
    }

    /// Whether the signature covers the address to which the request was sent, with its host.
    pub fn covers_url(&self) -> bool {
        self.content == Content::Twilio
            || [Piece::Url, Piece::UrlDecoded]
                .iter()
                .any(|piece| self.has_piece(piece))
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    HmacSha1,
    HmacSha256,
    HmacSha512,
    Ed25519,
    /// Over SHA-256, with the signature in ASN.1.
    EcdsaP256,
    /// RSA with PKCS#1 padding and the key of a certificate. The secret is what the content compares or covers.
    RsaCertificate,
    /// No signature: the value is the secret itself, and covers nothing.
    Token,
}

/// Where secrets come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretOrigin {
    Settings,
    /// The vendor sends one in its handshake for each webhook; the settings may have more.
    Handshake,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Hex,
    Base64,
    Base64Url,
    /// The bytes as they are, for tokens.
    Plain,
}

/// How a secret is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyForm {
    Text,
    Hex,
    Base64,
    /// A public key: PEM, or its DER or its bytes in base64 or hex.
    Public,
}

/// What was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Template(Template),
    /// The URL and the sorted parameters of a form, or the URL alone with a hash of the body in it.
    Twilio,
    /// Eight fields of the one notification in the body.
    Adyen,
    /// Fields of the body, which depend on its type; the secret is the ARN of the topic.
    Sns,
}

/// The body and nothing else.
impl Default for Content {
    fn default() -> Self {
        Self::Template(Template(vec![Piece::Body]))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimestampRecipe {
    pub place: TimestampPlace,
    pub unit: TimeUnit,
    /// How far it may be from the wall clock, in both directions. None where repetitions have the first timestamp.
    pub tolerance: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimestampPlace {
    At(Place),
    /// An item of the signature's own value, with this prefix: `t=`.
    Beside(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    Seconds,
    Milliseconds,
    /// A date of RFC 3339.
    Rfc3339,
}

/// Where a certificate is fetched. Its owner is proven by the host alone, so hosts are fixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRecipe {
    pub url: Place,
    /// Hosts that may serve it, with a port where it is not 443; a label `*` is the name of any region.
    pub hosts: Vec<String>,
    pub path_prefix: String,
    pub path_suffix: String,
}

/// One of the secrets of a scheme; several overlap while one replaces another.
#[derive(Debug, Clone)]
pub struct SigningSecret {
    pub label: KeyLabel,
    pub secret: Secret,
    pub not_before: Option<SystemTime>,
    pub expires: Option<SystemTime>,
}
