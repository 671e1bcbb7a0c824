//! Single values in the head of a request that may be a challenge. What is there twice is never read: another reader could
//! take the other one.

use std::borrow::Cow;

use http::HeaderName;
use http::request::Parts;
use percent_encoding::percent_decode_str;

use crate::model::signature::Place;

/// The value at a place of the head.
pub(super) fn value<'r>(head: &'r Parts, place: &Place) -> Result<Option<Cow<'r, str>>, String> {
    match place {
        Place::Header(name) => Ok(field(head, name)?.map(Cow::Borrowed)),
        Place::Query(name) => parameter(head, name),
        Place::Body(_) => Ok(None),
    }
}

fn field<'r>(head: &'r Parts, name: &HeaderName) -> Result<Option<&'r str>, String> {
    let mut values = head.headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(format!("header:{name} is there more than once"));
    }
    let text = value.to_str();
    text.map(Some)
        .map_err(|_| format!("header:{name} has characters other than printable ASCII"))
}

/// A parameter of the query, in which a plus sign is a space: Microsoft writes its tokens so.
pub(super) fn parameter<'r>(head: &'r Parts, name: &str) -> Result<Option<Cow<'r, str>>, String> {
    let named = |pair: &'r str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        percent_decode_str(key).eq(name.bytes()).then_some(value)
    };
    let query = head.uri.query().unwrap_or_default();
    let mut values = query.split('&').filter_map(named);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(format!("query:{name} is there more than once"));
    }
    let no_text = |_| format!("query:{name} is no text");
    if !value.contains('+') {
        return percent_decode_str(value).decode_utf8().map(Some).map_err(no_text);
    }
    let spaced = value.replace('+', " ");
    let text = percent_decode_str(&spaced).decode_utf8();
    text.map(|text| Some(Cow::Owned(text.into_owned())))
        .map_err(no_text)
}
