//! Pages of other origins (CORS, in the WHATWG Fetch standard): which of them may read a route's answers, and what their
//! browsers learn before a call. Who may call is decided elsewhere: CORS binds browsers, and nobody else.
//!
//! No answer allows credentials of the browser's own, cookies for instance, so that a page can do nothing in the name of its
//! visitor; a key travels in a field that the page sets.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};

use crate::settings::RouteSettings;
use crate::wire::Fields;

/// Longest list of fields that a page may ask to send: some thirty names. It is the only part of a request that an answer
/// repeats.
const ASKED_BYTES_MAX: usize = 1024;
/// How long browsers need not ask again, in seconds: so long a page may meet settings of before. Chromium keeps two hours at
/// most.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

#[derive(Debug)]
pub(super) struct Cors {
    origins: Box<[HeaderValue]>,
    /// The methods of the route.
    methods: HeaderValue,
}

impl Cors {
    pub(super) fn build(settings: &RouteSettings) -> Option<Self> {
        let origins = settings.cors_origins.iter();
        let origins: Box<[_]> = origins.map(|origin| origin.value().clone()).collect();
        let methods: Vec<_> = settings.methods.iter().map(Method::as_str).collect();
        (!origins.is_empty()).then_some(Self {
            origins,
            // The type of a method rules out what is no header value.
            methods: HeaderValue::try_from(methods.join(", ")).ok()?,
        })
    }

    /// Lets a page of a listed origin read an answer of the route. Caches learn that others get another answer.
    pub(super) fn permit(&self, asked: &HeaderMap, answer: &mut HeaderMap) {
        answer.append(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = self.listed(asked) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            // All that any other caller gets to see.
            answer.insert(
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static("*"),
            );
        }
    }

    /// The answer to a preflight of a listed origin for one of the methods of the route, or of the address of a run.
    pub(super) fn preflight(&self, asked: &HeaderMap, of: Option<&HeaderValue>) -> Option<Response<Bytes>> {
        self.listed(asked)?;
        let mut answer = Response::new(Bytes::new());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let headers = answer.headers_mut();
        self.permit(asked, headers);
        let methods = of.unwrap_or(&self.methods).clone();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        if let Some(names) = sole(asked, &header::ACCESS_CONTROL_REQUEST_HEADERS)
            && is_list_of_names(names.as_bytes())
        {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        Some(answer)
    }

    /// Takes what a flow says about pages out of its answer: this route has its own.
    pub(super) fn replace(fields: &mut Fields) {
        const BEGIN: &[u8] = b"access-control-";
        fields.retain(|name, _| {
            let begin = name.get(..BEGIN.len());
            !begin.is_some_and(|begin| begin.eq_ignore_ascii_case(BEGIN))
        });
    }

    /// The origin of the page, if it is listed.
    fn listed(&self, asked: &HeaderMap) -> Option<&HeaderValue> {
        let origin = sole(asked, &header::ORIGIN)?;
        self.origins.iter().find(|known| *known == origin)
    }
}

/// The method that a preflight asks for; none if the request is no preflight.
pub(super) fn asked_method(head: &Parts) -> Option<Method> {
    if head.method != Method::OPTIONS {
        return None;
    }
    let method = sole(&head.headers, &header::ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(method.as_bytes()).ok()
}

/// The value of a field that is there once.
fn sole<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Whether a list has nothing but names of fields, and is not longer than any that a page needs.
fn is_list_of_names(list: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_, ".contains(byte);
    list.len() <= ASKED_BYTES_MAX && list.iter().all(plain)
}
