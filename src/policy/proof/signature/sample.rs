//! A sample delivery, signed as its vendor would: everything that the recipe reads is put into the body and the address first.

use std::time::SystemTime;

use aws_lc_rs::digest;
use http::{HeaderMap, Method};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use crate::material::encode;
use crate::model::Pointer;
use crate::model::signature::{Algorithm, Content, Encoding, Piece, Place, TimestampPlace};
use crate::policy::proof::signature::content;
use crate::policy::proof::signature::scheme::Scheme;
use crate::policy::proof::signature::sign::{Addition, Unsigned, written};

/// What stands for a value that a vendor signs and a sample does not have.
const VALUE: &str = "test";

/// A request that is to be signed.
#[derive(Debug, Clone)]
pub struct Sample {
    pub method: Method,
    /// As callers know it, with path and query.
    pub url: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// The id of the delivery.
    pub id: String,
}

/// Why a request cannot be signed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsignable {
    #[error("only the vendor has the private key that signs")]
    VendorKey,
    #[error("the vendor signs with a certificate, whose private key only the vendor has")]
    Certificate,
    #[error("none of the secrets is in force now")]
    NoSecret,
    #[error("the signature belongs into the body, which is no JSON object with room for it")]
    Body,
    #[error("the signature covers what is added with it")]
    CoversItself,
}

impl Scheme {
    /// Signs a sample with the first secret that is in force, so that [`Scheme::verify`] accepts it.
    ///
    /// # Errors
    /// Why that is not possible. The sample is then changed, and of no use.
    pub fn sign_sample(&self, sample: &mut Sample, now: SystemTime) -> Result<(), Unsignable> {
        self.check_signable(now)?;
        self.fill(sample, now)?;
        if self.recipe.content == Content::Twilio {
            let hash = digest::digest(&digest::SHA256, &sample.body);
            sample.add_to_query("bodySHA256", &encode(hash.as_ref(), Encoding::Hex));
        }
        let unsigned = Unsigned {
            method: &sample.method,
            url: &sample.url,
            headers: &sample.headers,
            body: &sample.body,
            id: &sample.id,
            now,
        };
        for addition in self.sign(unsigned).ok_or(Unsignable::Body)? {
            match addition {
                Addition::Header(name, value) => drop(sample.headers.insert(name, value)),
                Addition::Query(name, value) => sample.add_to_query(&name, &value),
                Addition::Body(pointer, value) => sample.fill(&[(pointer, value)], Fill::Replace)?,
            }
        }
        Ok(())
    }

    fn check_signable(&self, now: SystemTime) -> Result<(), Unsignable> {
        let recipe = &self.recipe;
        let at = recipe
            .timestamp
            .as_ref()
            .and_then(|timestamp| match &timestamp.place {
                TimestampPlace::At(place) => Some(place),
                TimestampPlace::Beside(_) => None,
            });
        let place = recipe.signature.first();
        let mut added = place.into_iter().chain(at).chain(&recipe.id);
        let in_query = added.any(|place| matches!(place, Place::Query(_)));
        let in_body = matches!(place, Some(Place::Body(_)));
        let covers_itself = (in_query && recipe.covers_url()) || (in_body && recipe.has_piece(&Piece::Body));
        match recipe.algorithm {
            Algorithm::RsaCertificate => Err(Unsignable::Certificate),
            Algorithm::Ed25519 | Algorithm::EcdsaP256 => Err(Unsignable::VendorKey),
            _ if covers_itself => Err(Unsignable::CoversItself),
            _ if self.secret_in_force(now).is_none() => Err(Unsignable::NoSecret),
            _ => Ok(()),
        }
    }

    /// Writes what is read of the body into it: timestamp and id as they are now, other fields where they are missing.
    fn fill(&self, sample: &mut Sample, now: SystemTime) -> Result<(), Unsignable> {
        let recipe = &self.recipe;
        let mut fresh = Vec::new();
        if let Some(timestamp) = &recipe.timestamp
            && let TimestampPlace::At(Place::Body(pointer)) = &timestamp.place
        {
            let text = written(now, timestamp.unit).ok_or(Unsignable::Body)?;
            fresh.push((pointer.clone(), text));
        }
        if let Some(Place::Body(pointer)) = &recipe.id {
            fresh.push((pointer.clone(), sample.id.clone()));
        }
        let others = content::sample_pointers(&recipe.content).into_iter();
        let others: Vec<_> = others.map(|pointer| (pointer, VALUE.to_owned())).collect();
        sample.fill(&fresh, Fill::Replace)?;
        sample.fill(&others, Fill::Missing)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fill {
    Replace,
    /// Only where there is nothing.
    Missing,
}

impl Sample {
    fn add_to_query(&mut self, name: &str, value: &str) {
        let joiner = if self.url.contains('?') { '&' } else { '?' };
        let [name, value] = [name, value].map(|text| utf8_percent_encode(text, NON_ALPHANUMERIC));
        self.url.push_str(&format!("{joiner}{name}={value}"));
    }

    /// Writes texts into the body, which stays as it is where there is nothing to write.
    fn fill(&mut self, fields: &[(Pointer, String)], how: Fill) -> Result<(), Unsignable> {
        if fields.is_empty() {
            return Ok(());
        }
        let mut document = match self.body.is_empty() {
            true => Value::Object(Map::new()),
            false => serde_json::from_slice(&self.body).map_err(|_| Unsignable::Body)?,
        };
        for (pointer, text) in fields {
            put(&mut document, pointer.segments(), text, how).ok_or(Unsignable::Body)?;
        }
        self.body = serde_json::to_vec(&document).map_err(|_| Unsignable::Body)?;
        Ok(())
    }
}

/// Writes a text where a path leads, and makes the objects and lists on the way; none where something else is in the way.
fn put(value: &mut Value, path: &[String], text: &str, how: Fill) -> Option<()> {
    let Some((first, rest)) = path.split_first() else {
        if how == Fill::Replace || value.is_null() {
            *value = Value::String(text.to_owned());
        }
        return Some(());
    };
    let index = first.parse::<usize>().ok();
    if value.is_null() {
        *value = match first == "*" || index.is_some() {
            true => Value::Array(Vec::new()),
            false => Value::Object(Map::new()),
        };
    }
    match value {
        Value::Object(members) => put(members.entry(first).or_insert(Value::Null), rest, text, how),
        Value::Array(list) => {
            if list.is_empty() {
                list.push(Value::Null);
            }
            match index {
                Some(index) => put(list.get_mut(index)?, rest, text, how),
                None => list
                    .iter_mut()
                    .try_for_each(|element| put(element, rest, text, how)),
            }
        }
        _ => None,
    }
}
