//! One request that claims to be signed: first its head, then the signature itself.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::time::SystemTime;

use aws_lc_rs::digest;

use crate::material::{decode, encode, encoding_name, signature_bytes};
use crate::model::handshake;
use crate::model::signature::{Algorithm, Content, Encoding, Place, Recipe, TimestampPlace, TimestampRecipe};
use crate::model::{BodyValues, Extent, KeyLabel, clock};
use crate::policy::proof::signature::certificate::{self, Certificate};
use crate::policy::proof::signature::content::{Parts, Pieces};
use crate::policy::proof::signature::refusal::{Checked, Unverified};
use crate::policy::proof::signature::request::{Head, bounded};
use crate::policy::proof::signature::scheme::{HeldSecret, Scheme};
use crate::policy::proof::signature::timestamp::{self, seconds};

/// A request whose head could be that of a genuine one.
#[derive(Debug)]
pub struct Claim<'a> {
    scheme: &'a Scheme,
    head: Head<'a>,
    now: SystemTime,
    found: Found<'a>,
}

/// What a valid signature proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The secret that matched.
    pub label: KeyLabel,
    /// The id of the delivery; covered by the signature only where the recipe says so.
    pub id: Option<String>,
    pub timestamp: Option<SystemTime>,
}

/// Signatures of one request, of all places together.
const SIGNATURES_MAX: usize = 8;
/// Items of one value; most of them are signatures.
const ITEMS_MAX: usize = 16;
/// Longest id of a delivery: it is remembered.
const ID_BYTES_MAX: usize = 256;

impl Scheme {
    /// Reads the head of a request.
    ///
    /// # Errors
    /// Why the request cannot be accepted, whatever its body is.
    pub fn claim<'a>(&'a self, head: Head<'a>, now: SystemTime) -> Result<Claim<'a>, Unverified> {
        let mut found = Found::default();
        let recipe = &self.recipe;
        for place in &recipe.signature {
            if let Some(value) = head.find(place)? {
                found.read(value, place, recipe)?;
            }
        }
        let in_body = |place: &Place| place.pointer().is_some();
        if !recipe.signature.iter().any(in_body) {
            found.require_signature(self)?;
        }
        if let Some(timestamp) = &recipe.timestamp {
            match &timestamp.place {
                TimestampPlace::At(place) if in_body(place) => {}
                TimestampPlace::At(place) => found.check_timestamp(head.find(place)?, timestamp, now)?,
                TimestampPlace::Beside(_) if found.signatures.is_empty() => {}
                TimestampPlace::Beside(_) => {
                    let beside = found.beside.take();
                    found.check_timestamp(beside, timestamp, now)?;
                }
            }
        }
        if let Some(place) = &recipe.id {
            match head.find(place)? {
                Some(id) => found.id = Some(bounded_id(id, place)?),
                None if self.covers_id() && !in_body(place) => {
                    return Err(Unverified::Missing(place.to_string()));
                }
                None => {}
            }
        }
        Ok(Claim {
            scheme: self,
            head,
            now,
            found,
        })
    }

    /// Checks a request whose body is there; see [`Scheme::claim`] and [`Claim::confirm`].
    pub fn verify(&self, head: Head<'_>, body: &[u8], now: SystemTime) -> Result<Verified, Unverified> {
        self.claim(head, now)?.confirm(body, None)
    }
}

impl Claim<'_> {
    /// Where the certificate is that [`Claim::confirm`] needs, if it needs one: a URL of a host that may serve it. A request
    /// that no certificate could make valid has none, so that it does not cause one to be fetched.
    ///
    /// # Errors
    /// Why the request cannot be accepted, whatever its signature is.
    pub fn certificate_url(mut self, body: &[u8]) -> Result<Option<String>, Unverified> {
        let scheme = self.scheme;
        let Some(recipe) = &scheme.recipe.certificate else {
            return Ok(None);
        };
        let values = BodyValues::read(body, &scheme.pointers, Extent::Whole)?;
        self.read_body(&values)?;
        let parts = self.parts(body, &values);
        let mut refusal = None;
        let fits = scheme.secrets.iter().any(|secret| {
            let pieces = parts.pieces(&scheme.recipe.content, &secret.secret);
            pieces.map_err(|why| refusal.get_or_insert(why)).is_ok()
        });
        if let Some(why) = refusal.filter(|_| !fits) {
            return Err(why);
        }
        let url = match &recipe.url {
            Place::Body(pointer) => values.get(pointer).map(Cow::Borrowed),
            place => self.head.find(place)?,
        };
        let url = url.ok_or_else(|| Unverified::Missing(recipe.url.to_string()))?;
        match certificate::may_serve(&url, recipe) {
            true => Ok(Some(url.into_owned())),
            false => Err(Unverified::CertificateUrl(recipe.url.to_string())),
        }
    }

    fn parts<'p>(&'p self, body: &'p [u8], values: &'p BodyValues<'p>) -> Parts<'p> {
        Parts {
            head: self.head,
            body,
            values,
            timestamp: self.found.timestamp.as_ref().map(|(text, _)| &**text),
            id: self.found.id.as_deref(),
            crc: OnceCell::new(),
        }
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// Why it is not accepted; the body is hashed once more for the text.
    pub fn confirm(mut self, body: &[u8], certificate: Option<&Certificate>) -> Result<Verified, Unverified> {
        let scheme = self.scheme;
        let values = BodyValues::read(body, &scheme.pointers, Extent::Whole)?;
        self.read_body(&values)?;
        let parts = self.parts(body, &values);
        let matches = |secret: &HeldSecret| self.matches(secret, &parts, certificate);
        // Those in force first; the others only so that a refusal can name them.
        let mut inactive = None;
        for wanted_active in [true, false] {
            for secret in &scheme.secrets {
                let why = why_inactive(secret, self.now);
                if why.is_none() == wanted_active && matches(secret)? {
                    match why {
                        None => return self.verified(secret, body),
                        Some(why) => inactive = inactive.or(Some((secret.label.clone(), why))),
                    }
                }
            }
        }
        if let Some((label, why)) = inactive {
            return Err(Unverified::Inactive { label, why });
        }
        // Only a vendor that sends its secrets has none.
        match scheme.secrets.is_empty() {
            true => Err(Unverified::NothingEnrolled),
            false => Err(Unverified::Mismatch(Box::new(self.checked(body)))),
        }
    }

    /// What the recipe places in the body.
    fn read_body(&mut self, values: &BodyValues<'_>) -> Result<(), Unverified> {
        let recipe = &self.scheme.recipe;
        let value = |place: &Place| {
            let value = place.pointer().and_then(|pointer| values.get(pointer));
            value
                .map(|value| bounded(Cow::Owned(value.to_owned()), place))
                .transpose()
        };
        for place in &recipe.signature {
            if let Some(value) = value(place)? {
                self.found.read(value, place, recipe)?;
            }
        }
        self.found.require_signature(self.scheme)?;
        if let Some(timestamp) = &recipe.timestamp
            && self.found.timestamp.is_none()
        {
            let text = match &timestamp.place {
                TimestampPlace::At(place) => value(place)?,
                TimestampPlace::Beside(_) => self.found.beside.take(),
            };
            self.found.check_timestamp(text, timestamp, self.now)?;
        }
        if let Some(place) = &recipe.id
            && let Some(id) = value(place)?
        {
            self.found.id = Some(bounded_id(id, place)?);
        }
        Ok(())
    }

    fn matches(
        &self,
        secret: &HeldSecret,
        parts: &Parts<'_>,
        certificate: Option<&Certificate>,
    ) -> Result<bool, Unverified> {
        let recipe = &self.scheme.recipe;
        let signatures = &self.found.signatures;
        match recipe.algorithm {
            Algorithm::Token => Ok(secret.key.verifies(&Pieces::new(), signatures)),
            Algorithm::RsaCertificate => {
                let certificate = certificate.ok_or(Unverified::CertificateMissing)?;
                let pieces = match parts.pieces(&recipe.content, &secret.secret) {
                    // Another secret may be for this subject.
                    Err(Unverified::OtherSubject(_)) if self.scheme.secrets.len() > 1 => return Ok(false),
                    pieces => pieces?,
                };
                let hash = parts.rsa_hash(&recipe.content);
                certificate.verifies(hash, &pieces, signatures, self.now)
            }
            _ => {
                let pieces = parts.pieces(&recipe.content, &secret.secret)?;
                let fields = recipe.signature.iter().filter_map(Place::field);
                if handshake::is_signed_for_anybody(fields, pieces.iter().map(|piece| &**piece)) {
                    return Err(Unverified::ChallengeToken);
                }
                Ok(secret.key.verifies(&pieces, signatures))
            }
        }
    }

    fn verified(self, secret: &HeldSecret, body: &[u8]) -> Result<Verified, Unverified> {
        let mut id = self.found.id;
        if let (None, Some(place), Some(pointer)) = (&id, &self.scheme.recipe.id, self.scheme.id_pointer()) {
            // Only now, so that nobody without a secret can make us read a body.
            let extent = match self.scheme.covers_body() {
                true => Extent::LastValue,
                false => Extent::Whole,
            };
            let values = BodyValues::read(body, std::slice::from_ref(pointer), extent)?;
            let value = values.get(pointer).map(|value| Cow::Owned(value.to_owned()));
            id = value.map(|id| bounded_id(id, place)).transpose()?;
        }
        Ok(Verified {
            label: secret.label.clone(),
            id: id.map(Cow::into_owned),
            timestamp: self.found.timestamp.map(|(_, at)| at),
        })
    }

    fn checked(&self, body: &[u8]) -> Checked {
        let scheme = self.scheme;
        let recipe = &scheme.recipe;
        let content = match (&recipe.content, recipe.algorithm) {
            (_, Algorithm::Token) => "nothing: it is a token".to_owned(),
            (Content::Template(template), _) => template.to_string().replace('\n', "\\n"),
            (Content::Twilio, _) => "the URL and the parameters of the form".to_owned(),
            (Content::Adyen | Content::Sns, _) => "fields of the body".to_owned(),
        };
        let hash = digest::digest(&digest::SHA256, body);
        let now = seconds(self.now);
        let timestamp = self.found.timestamp.as_ref();
        Checked {
            places: scheme.places(),
            labels: scheme
                .secrets
                .iter()
                .map(|secret| secret.label.to_string())
                .collect(),
            content,
            body_bytes: body.len(),
            body_sha256: encode(hash.as_ref(), Encoding::Hex),
            timestamp: timestamp.map(|(_, at)| clock::dated(seconds(*at), now)),
        }
    }
}

/// What was found in a request so far.
#[derive(Debug, Default)]
struct Found<'a> {
    signatures: Vec<Vec<u8>>,
    /// What is wrong with the first item that could not be read. It counts only where no other could.
    fault: Option<Unverified>,
    /// A timestamp in the value of a signature.
    beside: Option<Cow<'a, str>>,
    timestamp: Option<(Cow<'a, str>, SystemTime)>,
    id: Option<Cow<'a, str>>,
}

impl<'a> Found<'a> {
    /// Takes the signatures, and a timestamp beside them, out of one value.
    fn read(&mut self, value: Cow<'a, str>, place: &Place, recipe: &Recipe) -> Result<(), Unverified> {
        let Some(separator) = recipe.separator else {
            return self.read_item(&value, place, recipe);
        };
        let beside = match &recipe.timestamp {
            Some(TimestampRecipe {
                place: TimestampPlace::Beside(prefix),
                ..
            }) => Some(prefix.as_str()),
            _ => None,
        };
        let mut has_signature = false;
        for (number, item) in value.split(separator).enumerate() {
            let item = item.trim_matches(' ');
            if number == ITEMS_MAX {
                return Err(Unverified::TooMany(place.to_string()));
            }
            if item.is_empty() {
                return Err(Unverified::EmptyItem {
                    place: place.to_string(),
                });
            }
            if let Some(text) = beside.and_then(|prefix| without_prefix(item, prefix)) {
                if self.beside.is_some() {
                    return Err(Unverified::Doubled(format!("the timestamp in {place}")));
                }
                self.beside = Some(Cow::Owned(text.to_owned()));
            } else if without_prefix(item, &recipe.prefix).is_some() {
                has_signature = true;
                self.read_item(item, place, recipe)?;
            }
        }
        if !has_signature {
            self.note(other_prefix(place, recipe));
        }
        Ok(())
    }

    fn read_item(&mut self, item: &str, place: &Place, recipe: &Recipe) -> Result<(), Unverified> {
        let Some(text) = without_prefix(item, &recipe.prefix) else {
            self.note(other_prefix(place, recipe));
            return Ok(());
        };
        if self.signatures.len() == SIGNATURES_MAX {
            return Err(Unverified::TooMany(place.to_string()));
        }
        let place = || place.to_string();
        let Some(bytes) = decode(text, recipe.encoding) else {
            let encoding = encoding_name(recipe.encoding);
            self.note(Unverified::Encoding {
                place: place(),
                encoding,
            });
            return Ok(());
        };
        match signature_bytes(recipe.algorithm) {
            Some(expected) if expected != bytes.len() => {
                let (place, bytes) = (place(), bytes.len());
                self.note(Unverified::Length {
                    place,
                    bytes,
                    expected,
                });
            }
            _ => self.signatures.push(bytes.to_vec()),
        }
        Ok(())
    }

    fn note(&mut self, fault: Unverified) {
        self.fault.get_or_insert(fault);
    }

    fn require_signature(&mut self, scheme: &Scheme) -> Result<(), Unverified> {
        if self.signatures.is_empty() {
            let fault = self.fault.take();
            return Err(fault.unwrap_or_else(|| Unverified::Missing(scheme.places())));
        }
        Ok(())
    }

    fn check_timestamp(
        &mut self,
        text: Option<Cow<'a, str>>,
        recipe: &TimestampRecipe,
        now: SystemTime,
    ) -> Result<(), Unverified> {
        let place = match &recipe.place {
            TimestampPlace::At(place) => place.to_string(),
            TimestampPlace::Beside(prefix) => format!("{prefix} beside the signature"),
        };
        let text = text.ok_or_else(|| Unverified::Missing(place.clone()))?;
        let at = timestamp::check(&text, recipe, &place, now)?;
        self.timestamp = Some((text, at));
        Ok(())
    }
}

/// Names of schemes and hashes differ in case between implementations of a vendor, and are no secret.
fn without_prefix<'v>(value: &'v str, prefix: &str) -> Option<&'v str> {
    let (begin, rest) = value.split_at_checked(prefix.len())?;
    begin.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn other_prefix(place: &Place, recipe: &Recipe) -> Unverified {
    let (place, prefix) = (place.to_string(), recipe.prefix.clone());
    Unverified::OtherPrefix { place, prefix }
}

fn bounded_id<'v>(id: Cow<'v, str>, place: &Place) -> Result<Cow<'v, str>, Unverified> {
    let (place, bytes, max) = (place.to_string(), id.len(), ID_BYTES_MAX);
    match bytes > max {
        true => Err(Unverified::TooLong { place, bytes, max }),
        false => Ok(id),
    }
}

fn why_inactive(secret: &HeldSecret, now: SystemTime) -> Option<String> {
    let dated = |at: SystemTime| clock::dated(seconds(at), seconds(now));
    if let Some(not_before) = secret.not_before.filter(|at| now < *at) {
        return Some(format!("is valid from {}", dated(not_before)));
    }
    let expires = secret.expires.filter(|at| now >= *at)?;
    Some(format!("expired {}", dated(expires)))
}
