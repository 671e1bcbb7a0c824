//! What a page and a definition are made of: the route, how callers know it, and what one of them must send.

use http::{HeaderName, Method};
use serde_json::json;

use crate::model::signature::Place;
use crate::model::{CallerName, MediaRange, MediaType, Pointer};
use crate::settings::{Config, DeliveryId, KeyPlace, Rate, RouteSettings, SignatureSettings, WithoutId};

/// The body of examples, and the value by which duplicates are recognized.
pub(in crate::cli) const BODY: &str = "{\"test\": true}";
const ID: &str = "test-1";
const JSON: &str = "application/json";

/// What the page is about.
pub(super) struct Pack<'c> {
    pub(super) config: &'c Config,
    pub(super) route: &'c RouteSettings,
    pub(super) address: Address,
    pub(super) caller: Sender<'c>,
}

/// How callers know the route.
pub(super) struct Address {
    /// Scheme and host, with the port if it is not the usual one.
    pub(super) base: String,
    /// The path, with parameters in braces.
    pub(super) path: String,
    pub(super) port: u16,
}

/// Who sends, and what must be sent to be let in.
#[derive(Default)]
pub(in crate::cli) struct Sender<'c> {
    /// One caller, if it matters which.
    pub(in crate::cli) name: Option<&'c CallerName>,
    pub(in crate::cli) key: Option<&'c KeyPlace>,
    pub(in crate::cli) signature: Option<&'c SignatureSettings>,
    pub(super) rate: Option<&'c Rate>,
    pub(super) has_networks: bool,
}

/// A body that a route accepts.
pub(super) struct Example {
    pub(super) content_type: String,
    pub(super) body: String,
    pub(super) is_json: bool,
}

impl Pack<'_> {
    /// In words: where the id of a delivery is, if it is not the body itself.
    pub(super) fn delivery_id(&self) -> Option<String> {
        match &self.route.duplicates.as_ref()?.by {
            DeliveryId::Body => None,
            DeliveryId::Delivery => {
                let place = self.caller.signature?.recipe.id.as_ref()?;
                Some(format!("`{place}`"))
            }
            place @ (DeliveryId::Header(_) | DeliveryId::Json(_)) => Some(place.to_string()),
        }
    }

    pub(super) fn needs_id(&self) -> bool {
        let rules = self.route.duplicates.as_ref();
        rules.is_some_and(|rules| rules.without_id == WithoutId::Refuse)
    }

    /// The field for the id of a delivery, beside those of a signature.
    pub(super) fn id_field(&self) -> Option<&HeaderName> {
        let DeliveryId::Header(name) = &self.route.duplicates.as_ref()?.by else {
            return None;
        };
        let signed = self
            .caller
            .signature
            .and_then(|signature| signature.recipe.id.as_ref());
        Some(name).filter(|name| !matches!(signed, Some(Place::Header(known)) if known == *name))
    }

    /// Where in the body the id of a delivery is.
    fn id_in_body(&self) -> Option<&Pointer> {
        match &self.route.duplicates.as_ref()?.by {
            DeliveryId::Json(pointer) => Some(pointer),
            DeliveryId::Delivery => self.caller.signature?.recipe.id.as_ref()?.pointer(),
            DeliveryId::Header(_) | DeliveryId::Body => None,
        }
    }

    /// In words: the types that the route accepts.
    pub(super) fn content_types(&self) -> String {
        let content = &self.route.content;
        match (&content.types, &content.reading) {
            (Some(types), _) => {
                let types: Vec<_> = types.iter().map(|range| format!("`{range}`")).collect();
                format!("always set it: {}", types.join(" or "))
            }
            (None, Some(reading)) if content.replacement.is_none() && !reading.form_to_json => {
                format!("always set it: `{JSON}`")
            }
            (None, _) => format!("always set it: `{JSON}`, or what the body is"),
        }
    }

    pub(super) fn example(&self) -> Example {
        let ranges = self.route.content.types.as_deref().unwrap_or_default();
        let of = |fits: fn(&MediaType<'_>) -> bool| {
            ranges
                .iter()
                .find(|range| range.media_type().as_ref().is_some_and(fits))
        };
        let range = of(|media| media.is_json())
            .or_else(|| of(|media| media.is_form()))
            .or(ranges.first());
        let content_type = range.map_or_else(|| JSON.to_owned(), one_of);
        let media = MediaType::parse(&content_type);
        let is_json = media.is_some_and(|media| media.is_json());
        let body = match media {
            Some(media) if media.is_form() => self.form(),
            _ if is_json || self.route.content.reading.is_some() => self.json(),
            _ => "test".to_owned(),
        };
        Example {
            content_type,
            body,
            is_json,
        }
    }

    fn json(&self) -> String {
        let Some(pointer) = self.id_in_body() else {
            return BODY.to_owned();
        };
        // A step that may be an index leads to a key as well.
        let steps = pointer.segments().iter().rev();
        let body = steps.fold(json!(ID), |value, step| json!({ step: value }));
        body.to_string()
    }

    fn form(&self) -> String {
        let is_plain = |step: &String| {
            step.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        match self.id_in_body().map(Pointer::segments) {
            Some([name]) if is_plain(name) => format!("{name}={ID}"),
            _ => "test=true".to_owned(),
        }
    }
}

/// A type that a range covers.
fn one_of(range: &MediaRange) -> String {
    let text = range.to_string();
    match text.strip_suffix("/*") {
        Some("application") => JSON.to_owned(),
        Some("text") => "text/plain".to_owned(),
        Some(kind) => format!("{kind}/example"),
        None => text,
    }
}

pub(in crate::cli) fn has_body(method: &Method) -> bool {
    ![Method::GET, Method::HEAD, Method::DELETE, Method::OPTIONS].contains(method)
}
