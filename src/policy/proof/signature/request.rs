//! The head of a request as a scheme sees it, and how one value is found in it.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Method};
use percent_encoding::percent_decode_str;

use crate::model::signature::Place;
use crate::policy::proof::signature::refusal::Unverified;

#[derive(Debug, Clone, Copy)]
pub struct Head<'r> {
    pub method: &'r Method,
    /// The public URL as the sender knows it, with its query.
    pub url: &'r str,
    pub headers: &'r HeaderMap,
}

/// Longest value that is read as a signature, a timestamp or an id: eight signatures of the longest kind.
pub(super) const VALUE_BYTES_MAX: usize = 8 * 1024;

impl<'r> Head<'r> {
    /// The value at a place of the head, if it is there; twice is never accepted.
    pub(super) fn find(&self, place: &Place) -> Result<Option<Cow<'r, str>>, Unverified> {
        let value = match place {
            Place::Header(name) => self.header(name)?.map(Cow::Borrowed),
            Place::Query(name) => self.parameter(name)?,
            Place::Body(_) => None,
        };
        value.map(|value| bounded(value, place)).transpose()
    }

    fn header(&self, name: &HeaderName) -> Result<Option<&'r str>, Unverified> {
        let mut values = self.headers.get_all(name).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(Unverified::Doubled(format!("header:{name}")));
        }
        let text = value
            .to_str()
            .map_err(|_| Unverified::NotText(format!("header:{name}")))?;
        Ok(Some(text.trim_matches([' ', '\t'])))
    }

    pub(super) fn query(&self) -> &'r str {
        let url = self.url.split('#').next().unwrap_or_default();
        url.split_once('?').map_or("", |(_, query)| query)
    }

    /// A plus sign stays one: tokens and signatures in base64 have it, and none has a space.
    fn parameter(&self, name: &str) -> Result<Option<Cow<'r, str>>, Unverified> {
        let named = |pair: &'r str| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            percent_decode_str(key).eq(name.bytes()).then_some(value)
        };
        let mut values = self.query().split('&').filter_map(named);
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(Unverified::Doubled(format!("query:{name}")));
        }
        let text = percent_decode_str(value).decode_utf8();
        text.map(Some)
            .map_err(|_| Unverified::NotText(format!("query:{name}")))
    }
}

/// A value that is neither empty nor longer than anything that is read.
pub(super) fn bounded<'v>(value: Cow<'v, str>, place: &Place) -> Result<Cow<'v, str>, Unverified> {
    let bytes = value.len();
    if bytes > VALUE_BYTES_MAX {
        let (place, max) = (place.to_string(), VALUE_BYTES_MAX);
        return Err(Unverified::TooLong { place, bytes, max });
    }
    if value.is_empty() {
        return Err(Unverified::Empty(place.to_string()));
    }
    Ok(value)
}
