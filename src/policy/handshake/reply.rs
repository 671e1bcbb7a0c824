//! The answer to a challenge. Whatever is in it, no browser reads it as a page.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use serde_json::Map;

use crate::material::encode;
use crate::model::handshake::{Reply, ReplyBody, Value};
use crate::model::signature::Encoding;

/// None where a token cannot be the value of a field.
pub(super) fn build(reply: &Reply, token: &str, hmac: &[u8]) -> Option<Response<Bytes>> {
    let text = |value: Value| match value {
        Value::Token => token.to_owned(),
        Value::Fixed(text) => text.to_owned(),
        Value::HmacHex => encode(hmac, Encoding::Hex),
        Value::HmacBase64 => format!("sha256={}", encode(hmac, Encoding::Base64)),
    };
    let (kind, body) = match &reply.body {
        ReplyBody::Empty => (None, String::new()),
        ReplyBody::Text => (Some("text/plain"), token.to_owned()),
        ReplyBody::Json(members) => {
            let members = members
                .iter()
                .map(|(name, value)| ((*name).to_owned(), text(*value).into()));
            let object = serde_json::Value::Object(members.collect::<Map<_, _>>());
            (Some("application/json"), object.to_string())
        }
    };
    let mut response = Response::new(Bytes::from(body));
    let headers = response.headers_mut();
    for (name, value) in &reply.fields {
        headers.insert(name, HeaderValue::try_from(text(*value)).ok()?);
    }
    if let Some(kind) = kind {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}
