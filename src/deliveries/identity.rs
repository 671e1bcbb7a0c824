//! Which delivery a request is: the id that its sender gave it, bound to route and caller, and a digest of what the flow
//! would get.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use aws_lc_rs::digest::{Context, SHA256};
use http::{HeaderMap, HeaderName, Method};

use crate::deliveries::{Delivery, Digest};
use crate::model::{BodyFault, BodyValues, CallerName, Extent, Pointer, RequestId, RouteName};
use crate::problem::{Kind, Problem};
use crate::settings::{DeliveryId, DuplicateSettings, WithoutId};

/// Longest id. Those of vendors are UUIDs or shorter than 100 characters.
const ID_BYTES_MAX: usize = 512;

/// A request as far as it decides what a run gets.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'a> {
    pub method: &'a Method,
    /// What goes on of the path.
    pub path: Option<&'a str>,
    /// What goes on of the query.
    pub query: &'a str,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
    /// The id that the signature of the caller has.
    pub delivery: Option<&'a str>,
}

/// The delivery that a request is; none where it has no id and may go on without one.
///
/// # Errors
/// [`Kind::DeliveryIdMissing`].
pub fn identify(
    settings: &DuplicateSettings,
    (route, caller): (&RouteName, &CallerName),
    request: RequestId,
    sent: &Sent<'_>,
) -> Result<Option<Delivery>, Problem> {
    let content = digest(&[
        sent.method.as_str().as_bytes(),
        sent.path.unwrap_or_default().as_bytes(),
        sent.query.as_bytes(),
        sent.body,
    ]);
    let id = match &settings.by {
        DeliveryId::Body => Some(Cow::Borrowed(&content[..])),
        DeliveryId::Delivery => sent.delivery.map(|id| Cow::Borrowed(id.as_bytes())),
        DeliveryId::Header(name) => header(sent.headers, name)?.map(Cow::Borrowed),
        DeliveryId::Json(pointer) => json(sent.body, pointer)?.map(Cow::Owned),
    };
    let Some(id) = id.filter(|id| !id.is_empty()) else {
        return match settings.without_id {
            WithoutId::Pass => Ok(None),
            WithoutId::Refuse => Err(unusable(format!("{} is missing", settings.by))),
        };
    };
    if id.len() > ID_BYTES_MAX {
        let what = format!("{} has more than {ID_BYTES_MAX} bytes", settings.by);
        return Err(unusable(what));
    }
    let mut sender = DefaultHasher::new();
    (route, caller).hash(&mut sender);
    Ok(Some(Delivery {
        key: digest(&[route.as_str().as_bytes(), caller.as_str().as_bytes(), &id]),
        content,
        sender: sender.finish(),
        request,
    }))
}

/// A value of the body, which nobody can read as another one. What is no JSON has none.
fn json(body: &[u8], pointer: &Pointer) -> Result<Option<Vec<u8>>, Problem> {
    match BodyValues::read(body, std::slice::from_ref(pointer), Extent::Whole) {
        Ok(values) => Ok(values.id(pointer).map(|id| id.as_bytes().to_vec())),
        Err(BodyFault::Invalid { .. }) => Ok(None),
        Err(fault) => Err(unusable(format!("the body {fault}"))),
    }
}

/// The value of a field that is there once.
fn header<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h [u8]>, Problem> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.any(|other| Some(other) != first) {
        return Err(unusable(format!(
            "the header `{name}` is there with different values"
        )));
    }
    Ok(first.map(|value| value.as_bytes().trim_ascii()))
}

fn unusable(what: String) -> Problem {
    Problem::from(Kind::DeliveryIdMissing).detail(what)
}

/// Of parts whose lengths count as well, so that no two lists have the same bytes.
fn digest(parts: &[&[u8]]) -> Digest {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut digest = Digest::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderValue, Method};

    use super::{Sent, identify};
    use crate::deliveries::Delivery;
    use crate::model::{CallerName, Pointer, RequestId, RouteName};
    use crate::problem::Problem;
    use crate::settings::{DeliveryId, DuplicateSettings, InFlight, UnknownOutcome, WithoutId};

    fn by(by: DeliveryId) -> DuplicateSettings {
        DuplicateSettings {
            by,
            window: Duration::from_secs(60),
            in_flight: InFlight::Wait,
            unknown: UnknownOutcome::Problem,
            without_id: WithoutId::Refuse,
        }
    }

    fn header(name: &'static str) -> DuplicateSettings {
        by(DeliveryId::Header(http::HeaderName::from_static(name)))
    }

    fn of(
        settings: &DuplicateSettings,
        (route, caller): (&str, &str),
        headers: &[(&'static str, &str)],
        body: &str,
    ) -> Result<Option<Delivery>, Problem> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let sent = Sent {
            method: &Method::POST,
            path: None,
            query: "",
            headers: &map,
            body: body.as_bytes(),
            delivery: None,
        };
        let (route, caller) = (
            RouteName::parse(route).unwrap(),
            CallerName::parse(caller).unwrap(),
        );
        identify(settings, (&route, &caller), RequestId::new(), &sent)
    }

    /// A delivery with this id and content.
    pub(in crate::deliveries) fn delivery(caller: &str, id: &str, content: &str) -> Delivery {
        let settings = header("x-id");
        of(&settings, ("orders", caller), &[("x-id", id)], content)
            .unwrap()
            .unwrap()
    }

    fn key(settings: &DuplicateSettings, headers: &[(&'static str, &str)], body: &str) -> [u8; 32] {
        of(settings, ("orders", "shop"), headers, body)
            .unwrap()
            .unwrap()
            .key
    }

    #[test]
    fn a_delivery_is_bound_to_route_and_caller() {
        let settings = header("x-id");
        let of = |route: &str, caller: &str| {
            let found = of(&settings, (route, caller), &[("x-id", "1")], "{}");
            found.unwrap().unwrap().key
        };
        assert_eq!(of("a", "b"), of("a", "b"));
        assert_ne!(of("a", "b"), of("a", "c"));
        assert_ne!(of("a", "b"), of("c", "b"));
        // The border between two parts counts.
        assert_ne!(of("ab", "c"), of("a", "bc"));
    }

    #[test]
    fn an_id_is_read_where_the_settings_say() {
        let settings = header("x-id");
        let one = key(&settings, &[("x-id", "1")], "{}");
        assert_eq!(one, key(&settings, &[("x-id", " 1 "), ("x-id", " 1 ")], "{}"));
        assert_eq!(one, key(&settings, &[("x-id", "1")], "[]"));
        assert_ne!(one, key(&settings, &[("x-id", "2")], "{}"));

        let settings = by(DeliveryId::Json(Pointer::of("/event/id")));
        let one = key(&settings, &[], r#"{"event": {"id": "1"}}"#);
        assert_eq!(one, key(&settings, &[], r#"{"event": {"id": "1"}, "try": 2}"#));
        assert_ne!(one, key(&settings, &[], r#"{"event": {"id": "2"}}"#));

        let settings = by(DeliveryId::Body);
        assert_eq!(key(&settings, &[], "{}"), key(&settings, &[], "{}"));
        assert_ne!(key(&settings, &[], "{}"), key(&settings, &[], "[]"));
    }

    #[test]
    fn a_request_without_a_usable_id_is_refused_with_the_reason() {
        let long = "x".repeat(513);
        for (settings, headers, body, why) in [
            (header("x-id"), vec![], "{}", "the header `x-id` is missing"),
            (
                header("x-id"),
                vec![("x-id", "")],
                "{}",
                "the header `x-id` is missing",
            ),
            (
                header("x-id"),
                vec![("x-id", "1"), ("x-id", "2")],
                "{}",
                "the header `x-id` is there with different values",
            ),
            (
                header("x-id"),
                vec![("x-id", long.as_str())],
                "{}",
                "the header `x-id` has more than 512 bytes",
            ),
            (
                by(DeliveryId::Json(Pointer::of("/a~1b"))),
                vec![],
                "no JSON",
                "the value at `/a~1b` of the JSON body is missing",
            ),
            (
                by(DeliveryId::Json(Pointer::of("/id"))),
                vec![],
                "{\"id\": 18446744073709551616}",
                "the value at `/id` of the JSON body is missing",
            ),
            (
                by(DeliveryId::Json(Pointer::of("/id"))),
                vec![],
                "{\"id\": 1, \"id\": 2}",
                "the body has the key `id` twice",
            ),
        ] {
            let problem = of(&settings, ("orders", "shop"), &headers, body).unwrap_err();
            assert_eq!(problem.explanation(), Some(why));
        }
    }

    #[test]
    fn a_request_without_an_id_may_go_on_where_the_settings_say_so() {
        let settings = DuplicateSettings {
            without_id: WithoutId::Pass,
            ..header("x-id")
        };
        assert!(of(&settings, ("orders", "shop"), &[], "{}").unwrap().is_none());
        // An id that cannot be used is none that is missing.
        let two = [("x-id", "1"), ("x-id", "2")];
        assert!(of(&settings, ("orders", "shop"), &two, "{}").is_err());
    }
}
