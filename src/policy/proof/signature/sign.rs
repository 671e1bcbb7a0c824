//! Signs a request as the vendor would, for samples that are sent to a route. Only what is signed with a shared secret can be
//! signed here.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::Timestamp;

use crate::material::encode;
use crate::model::signature::{Algorithm, Piece, Place, TimeUnit, TimestampPlace};
use crate::model::{BodyValues, Extent, Pointer};
use crate::policy::proof::signature::content::Parts;
use crate::policy::proof::signature::request::Head;
use crate::policy::proof::signature::scheme::Scheme;

/// A request without its signature.
#[derive(Debug, Clone, Copy)]
pub struct Unsigned<'r> {
    pub method: &'r Method,
    pub url: &'r str,
    pub headers: &'r HeaderMap,
    pub body: &'r [u8],
    /// The id of the delivery, where the vendor sends one in its head.
    pub id: &'r str,
    pub now: SystemTime,
}

/// What makes a request a signed one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addition {
    Header(HeaderName, HeaderValue),
    /// A parameter of the query, not yet percent-encoded.
    Query(String, String),
    /// A text in a JSON body.
    Body(Pointer, String),
}

impl Scheme {
    /// What to add to a request so that [`Scheme::verify`] accepts it with the first secret in force. None where only the vendor
    /// can sign, or where the signature is part of a body that it covers.
    pub fn sign(&self, request: Unsigned<'_>) -> Option<Vec<Addition>> {
        let recipe = &self.recipe;
        let secret = self.secret_in_force(request.now)?;
        let place = recipe.signature.first()?;
        let is_shared = !matches!(
            recipe.algorithm,
            Algorithm::Ed25519 | Algorithm::EcdsaP256 | Algorithm::RsaCertificate
        );
        if !is_shared || (place.pointer().is_some() && recipe.has_piece(&Piece::Body)) {
            return None;
        }
        let mut headers = request.headers.clone();
        let mut additions = Vec::new();
        let mut add = |place: &Place, value: &str| -> Option<()> {
            match place {
                Place::Header(name) => {
                    let value = HeaderValue::try_from(value).ok()?;
                    headers.insert(name, value.clone());
                    additions.push(Addition::Header(name.clone(), value));
                }
                Place::Query(name) => additions.push(Addition::Query(name.clone(), value.to_owned())),
                // What is in the body is there already.
                Place::Body(_) => {}
            }
            Some(())
        };
        let mut timestamp = None;
        let mut beside = String::new();
        if let Some(recipe) = &self.recipe.timestamp {
            let text = written(request.now, recipe.unit)?;
            match &recipe.place {
                TimestampPlace::At(place) => add(place, &text)?,
                TimestampPlace::Beside(prefix) => beside = format!("{prefix}{text}"),
            }
            timestamp = Some(text);
        }
        if let Some(place) = &recipe.id {
            add(place, request.id)?;
        }
        let values = BodyValues::read(request.body, &self.pointers, Extent::Whole).ok()?;
        let parts = Parts {
            head: Head {
                method: request.method,
                url: request.url,
                headers: &headers,
            },
            body: request.body,
            values: &values,
            timestamp: timestamp.as_deref(),
            id: Some(request.id),
            crc: OnceCell::new(),
        };
        let pieces = match recipe.algorithm {
            Algorithm::Token => Vec::<Cow<'_, [u8]>>::new(),
            _ => parts.pieces(&recipe.content, &secret.secret).ok()?,
        };
        let signature = encode(&secret.key.tag(&pieces), recipe.encoding);
        let mut value = format!("{}{signature}", recipe.prefix);
        if let Some(separator) = recipe.separator.filter(|_| !beside.is_empty()) {
            value = format!("{beside}{separator}{value}");
        }
        drop(pieces);
        add_signature(&mut additions, place, &value)?;
        Some(additions)
    }
}

fn add_signature(additions: &mut Vec<Addition>, place: &Place, value: &str) -> Option<()> {
    additions.push(match place {
        Place::Header(name) => Addition::Header(name.clone(), HeaderValue::try_from(value).ok()?),
        Place::Query(name) => Addition::Query(name.clone(), value.to_owned()),
        Place::Body(pointer) => Addition::Body(pointer.clone(), value.to_owned()),
    });
    Some(())
}

pub(super) fn written(at: SystemTime, unit: TimeUnit) -> Option<String> {
    let since = at.duration_since(UNIX_EPOCH).ok()?;
    Some(match unit {
        TimeUnit::Seconds => since.as_secs().to_string(),
        TimeUnit::Milliseconds => since.as_millis().to_string(),
        TimeUnit::Rfc3339 => format!("{:.0}", Timestamp::try_from(at).ok()?),
    })
}
