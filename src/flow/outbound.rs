//! The head that leaves for the trigger: which fields of the caller pass, which never do, and what the gateway sets
//! itself. Flows branch on what vendors send, so everything end-to-end passes unless there is a reason against it.

use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::model::claims::printable;
use crate::model::{CallerName, KeyLabel, RequestId};
use crate::problem::{Kind, Problem};

/// Fields the gateway sets for the flow; a caller cannot send any `x-flowgate-` field.
pub const CALLER: &str = "x-flowgate-caller";
pub const KEY_ID: &str = "x-flowgate-key-id";
/// Address the caller was judged by.
pub const ORIGIN: &str = "x-flowgate-origin";
pub const REQUEST_ID: &str = "x-flowgate-request-id";
/// Becomes the run's client tracking id, so that a run is found by a request id (Azure Monitor for Logic Apps).
pub const TRACKING_ID: &str = "x-ms-client-tracking-id";
/// The id of a request by which Microsoft's APIs are asked about it (Microsoft Learn, "Microsoft Graph error responses").
pub const CLIENT_REQUEST_ID: &str = "client-request-id";
pub const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// How much is quoted of a field's name, which may be as long as a whole head. Characters.
const NAME_CHARS_MAX: usize = 64;

/// What is known about the caller of an admitted request.
#[derive(Debug)]
pub struct Introduction {
    pub request: RequestId,
    pub caller: CallerName,
    /// Label of its key, if it showed one.
    pub key: Option<KeyLabel>,
    pub origin: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pass,
    Drop,
}

/// Judges a field by its lower-case name. By length first: nearly every name is decided without a comparison.
fn fate(name: &str) -> Fate {
    let dropped = match name.len() {
        // Hop-by-hop (RFC 9110 section 7.6.1) and framing, which the next hop gets from us.
        2 => name == "te",
        // The trigger gets its own host.
        4 => name == "host",
        // Cookies are for browsers.
        6 => matches!(name, "expect" | "cookie"),
        7 => matches!(name, "trailer" | "upgrade" | "cookie2"),
        // The origin is stated by us; a caller's own claims about addresses would be believed by some flows.
        9 => matches!(name, "forwarded" | "x-real-ip"),
        // Set by us, with the caller's trace in it when it has a valid one.
        10 => matches!(name, "connection" | "keep-alive" | "tracestate"),
        11 => name == "traceparent",
        // The trigger accepts one authorization scheme, and it is ours.
        13 => name == "authorization",
        14 => matches!(name, "content-length" | "http2-settings"),
        // A compressed fault could not be read, and a compressed answer could not be distinguished from one.
        15 => name == "accept-encoding",
        16 => name == "proxy-connection",
        17 => name == "transfer-encoding",
        18 => name == "proxy-authenticate",
        19 => name == "proxy-authorization",
        _ => false,
    };
    let dropped = dropped || (name.starts_with("x-") && dropped_extension(name));
    if dropped { Fate::Drop } else { Fate::Pass }
}

fn dropped_extension(name: &str) -> bool {
    name.starts_with("x-forwarded-")
        || name.starts_with("x-flowgate-")
        || (name.starts_with("x-ms-") && !name.starts_with("x-ms-dynamics-"))
}

/// Refuses fields whose name becomes one that is read, dropped or set here once `_` is taken for `-`, as CGI-like
/// servers take it.
pub fn refuse_lookalikes(headers: &HeaderMap, credentials: &[HeaderName]) -> Result<(), Problem> {
    for name in headers.keys().filter(|name| name.as_str().contains('_')) {
        let read_as = name.as_str().replace('_', "-");
        let ours = fate(&read_as) == Fate::Drop || credentials.iter().any(|place| place.as_str() == read_as);
        if ours {
            let [name, read_as] = [name.as_str(), &read_as].map(|name| printable(name, NAME_CHARS_MAX));
            let detail = format!("the header field {name} could be read as {read_as}");
            return Err(Problem::from(Kind::MalformedRequest).detail(detail));
        }
    }
    Ok(())
}

/// What the request to a trigger is made of.
#[derive(Debug, Clone, Copy)]
pub struct Parcel<'a> {
    pub method: &'a Method,
    /// Path and query at the trigger.
    pub target: &'a PathAndQuery,
    pub from: &'a HeaderMap,
    /// Fields in which callers show keys; they end here.
    pub credentials: &'a [HeaderName],
    pub host: &'a HeaderValue,
    /// Value of the authorization field, if the trigger wants one.
    pub bearer: Option<&'a HeaderValue>,
    /// The type of the body, if it is not the one that the caller states.
    pub content_type: Option<&'a HeaderValue>,
    pub who: &'a Introduction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// A flow, which learns who calls.
    Flow,
    /// An API, which is no concern of the caller's and only learns an id for support.
    Api,
}

/// Writes request line and fields for the trigger, without those that give the length and without the empty line.
///
/// It goes into the memory of `to`. Names and values were checked when they were read, so nothing in them can end a line.
pub fn head(parcel: &Parcel<'_>, audience: Audience, mut to: Vec<u8>) -> Vec<u8> {
    let Parcel { from, who, .. } = *parcel;
    let bearer_bytes = parcel.bearer.map_or(0, HeaderValue::len);
    to.clear();
    to.reserve(HEAD_BYTES_USUAL + bearer_bytes);
    to.extend_from_slice(parcel.method.as_str().as_bytes());
    to.push(b' ');
    to.extend_from_slice(parcel.target.as_str().as_bytes());
    to.extend_from_slice(b" HTTP/1.1\r\n");
    field(&mut to, "host", parcel.host.as_bytes());
    let listed = connection_listed(from);
    for (name, value) in from {
        let listed = listed
            .iter()
            .any(|other| other.eq_ignore_ascii_case(name.as_str().as_bytes()));
        let replaced = (audience == Audience::Api && name == CLIENT_REQUEST_ID)
            || (parcel.content_type.is_some() && name == header::CONTENT_TYPE);
        let dropped = fate(name.as_str()) == Fate::Drop || is_claim(name.as_str());
        if dropped || listed || replaced || parcel.credentials.contains(name) {
            continue;
        }
        field(&mut to, name.as_str(), value.as_bytes());
    }
    if let Some(content_type) = parcel.content_type {
        field(&mut to, "content-type", content_type.as_bytes());
    }
    if let Some(bearer) = parcel.bearer {
        field(&mut to, "authorization", bearer.as_bytes());
    }
    let mut space = [0; 36];
    let id = who.request.encode(&mut space).as_bytes();
    if audience == Audience::Api {
        field(&mut to, CLIENT_REQUEST_ID, id);
        trace(from, who.request, &mut to);
        return to;
    }
    field(&mut to, TRACKING_ID, id);
    field(&mut to, REQUEST_ID, id);
    field(&mut to, CALLER, who.caller.as_str().as_bytes());
    if let Some(key) = &who.key {
        field(&mut to, KEY_ID, key.as_str().as_bytes());
    }
    field(&mut to, ORIGIN, who.origin.as_bytes());
    trace(from, who.request, &mut to);
    to
}

/// Whether a field claims what only a proxy in front of a server may say, and what servers and flows would
/// believe: the address of the caller, or another method (OData, ASP.NET), host or path (IIS, App Service)
/// than those of the request line, by which alone a route decides. With `_` for `-` as well: such a field
/// goes no further, but vendors have fields like `client_ip` of their own, so it is no reason to refuse the
/// request.
fn is_claim(name: &str) -> bool {
    if name.contains('_') {
        return is_claim(&name.replace('_', "-"));
    }
    match name.len() {
        6 => name == "x-host",
        9 => name == "client-ip",
        11 => matches!(
            name,
            "remote-addr" | "x-client-ip" | "x-forwarded" | "x-remote-ip"
        ),
        13 => matches!(
            name,
            "forwarded-for" | "x-http-method" | "x-remote-addr" | "x-rewrite-url"
        ),
        14 => matches!(
            name,
            "cf-pseudo-ipv4"
                | "disguised-host"
                | "true-client-ip"
                | "x-original-uri"
                | "x-original-url"
                | "x-proxyuser-ip"
        ),
        15 => matches!(name, "proxy-client-ip" | "x-original-host"),
        16 => matches!(
            name,
            "cf-connecting-ip"
                | "fastly-client-ip"
                | "x-arr-clientcert"
                | "x-azure-clientip"
                | "x-azure-socketip"
                | "x-originating-ip"
        ),
        17 => matches!(name, "x-method-override" | "x-original-method"),
        18 => matches!(name, "cf-connecting-ipv6" | "wl-proxy-client-ip"),
        19 => matches!(name, "x-appengine-user-ip" | "x-cluster-client-ip"),
        20 => matches!(name, "x-http-host-override" | "x-waws-unencoded-url"),
        22 => name == "x-http-method-override",
        24 => matches!(name, "x-envoy-external-address" | "x-original-forwarded-for"),
        _ => false,
    }
}

fn field(to: &mut Vec<u8>, name: &str, value: &[u8]) {
    to.extend_from_slice(name.as_bytes());
    to.extend_from_slice(b": ");
    to.extend_from_slice(value);
    to.extend_from_slice(b"\r\n");
}

/// Memory asked for at once for a head without the token, and for a small body, which is sent with it.
const HEAD_BYTES_USUAL: usize = 2048;

pub fn format_id(id: RequestId) -> HeaderValue {
    // A UUID is plain ASCII, so the fallback is never taken.
    HeaderValue::from_str(id.encode(&mut [0; 36])).unwrap_or(HeaderValue::from_static("-"))
}

/// Names in the `Connection` field: hop-by-hop for this request (RFC 9110 section 7.6.1). A name that is none beside
/// them does not save them. The two that most callers send name no field that passes, and are left out because most
/// requests then need no memory for the list.
fn connection_listed(from: &HeaderMap) -> Vec<&[u8]> {
    let fields = from.get_all(header::CONNECTION).iter();
    fields
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !matches!(*name, b"close" | b"keep-alive"))
        .collect()
}

/// Continues the caller's trace, or starts one whose trace id is the request id (W3C Trace Context section 3.2).
fn trace(from: &HeaderMap, request: RequestId, to: &mut Vec<u8>) {
    let sent = from
        .get(TRACEPARENT)
        .and_then(|value| value.to_str().ok())
        .filter(|text| is_traceparent(text));
    let own = request.as_bytes();
    let mut text = [b'-'; TRACEPARENT_BYTES];
    match sent {
        Some(sent) => copy(&mut text, sent.as_bytes()),
        None => {
            copy(&mut text, b"00");
            hex(text.get_mut(3..), own);
            hex(text.get_mut(53..), &[0]);
        }
    }
    // The last eight bytes of a version 7 UUID are random but for two bits, and that is all a span id needs.
    hex(text.get_mut(36..), own.split_at(8).1);
    field(to, TRACEPARENT, &text);
    if sent.is_some() {
        for state in from.get_all(TRACESTATE) {
            field(to, TRACESTATE, state.as_bytes());
        }
    }
}

/// Length of a version 00 `traceparent`.
const TRACEPARENT_BYTES: usize = 55;

fn copy(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

fn hex(to: Option<&mut [u8]>, bytes: &[u8]) {
    // Computed, not looked up, so that it can be vectorized.
    let digit = |nibble: u8| nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
    let (pairs, _) = to.unwrap_or_default().as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
}

/// Whether a text is a version 00 `traceparent`.
fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str| {
        part.bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
    };
    let zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let mut parts = text.split('-');
    let (Some("00"), Some(trace), Some(span), Some(flags), None) = (
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
    ) else {
        return false;
    };
    let lengths = (trace.len(), span.len(), flags.len()) == (32, 16, 2);
    lengths && hex(trace) && hex(span) && hex(flags) && !zero(trace) && !zero(span)
}

#[cfg(test)]
mod tests {
    use http::uri::PathAndQuery;
    use http::{HeaderMap, HeaderName, HeaderValue, Method};
    use proptest::prelude::proptest;

    use super::{Audience, Introduction, Parcel, head, is_traceparent, refuse_lookalikes};
    use crate::model::{CallerName, KeyLabel, RequestId};
    use crate::wire;

    fn introduction() -> Introduction {
        let request = RequestId::new();
        Introduction {
            request,
            caller: CallerName::parse("shop").unwrap(),
            key: Some(KeyLabel::parse("2026").unwrap()),
            origin: "192.0.2.7".into(),
        }
    }

    fn sent(fields: &[(&str, &str)]) -> HeaderMap {
        let mut from = HeaderMap::new();
        for (name, value) in fields {
            from.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            );
        }
        let bearer = HeaderValue::from_static("Bearer ours");
        let credentials = [HeaderName::from_static("x-api-key")];
        let mut text = head(
            &Parcel {
                method: &Method::POST,
                target: &PathAndQuery::from_static("/run?a=b"),
                from: &from,
                credentials: &credentials,
                host: &HeaderValue::from_static("flow.example"),
                bearer: Some(&bearer),
                content_type: None,
                who: &introduction(),
            },
            Audience::Flow,
            Vec::new(),
        );
        text.extend_from_slice(b"\r\n");
        let read = wire::request(&text.into(), 0).unwrap();
        assert_eq!(
            (read.method, read.target),
            (Method::POST, "/run?a=b".parse().unwrap())
        );
        read.headers
    }

    #[test]
    fn nothing_of_an_earlier_head_is_left_in_its_memory() {
        let parcel = Parcel {
            method: &Method::GET,
            target: &PathAndQuery::from_static("/run"),
            from: &HeaderMap::new(),
            credentials: &[],
            host: &HeaderValue::from_static("flow.example"),
            bearer: None,
            content_type: None,
            who: &introduction(),
        };
        let earlier = b"POST /other HTTP/1.1\r\nauthorization: Bearer other\r\n".repeat(40);
        assert_eq!(
            head(&parcel, Audience::Flow, earlier),
            head(&parcel, Audience::Flow, Vec::new())
        );
    }

    #[test]
    fn what_vendors_send_reaches_the_flow() {
        let to = sent(&[
            ("content-type", "application/json"),
            ("x-github-event", "push"),
            ("x-ms-dynamics-organization", "org"),
            ("x-hub-signature-256", "sha256=ab"),
            ("user-agent", "Hook/1"),
            ("x_custom", "1"),
        ]);
        for name in [
            "content-type",
            "x-github-event",
            "x-ms-dynamics-organization",
            "x-hub-signature-256",
            "user-agent",
            "x_custom",
        ] {
            assert!(to.contains_key(name), "{name}");
        }
    }

    #[test]
    fn what_must_not_travel_does_not() {
        let names = [
            "authorization",
            "cookie",
            "x-api-key",
            "accept-encoding",
            "x-forwarded-for",
            "forwarded",
            "x-real-ip",
            "x-ms-client-scope",
            "x-ms-workflow-run-id",
            "x-flowgate-admin",
            "connection",
            "x-hop",
            "te",
            "transfer-encoding",
            "content-length",
            "expect",
            "proxy-authorization",
            "host",
            "trailer",
            "upgrade",
            "cookie2",
            "keep-alive",
            "http2-settings",
            "proxy-connection",
            "proxy-authenticate",
        ];
        let fields: Vec<_> = names
            .map(|name| {
                (
                    name,
                    if name == "connection" {
                        "X-Hop, close"
                    } else {
                        "forged"
                    },
                )
            })
            .to_vec();
        let to = sent(&fields);
        for (name, value) in &to {
            assert_ne!(value, "forged", "{name}");
        }
        assert!(!to.contains_key("connection"));
        assert_eq!(to["authorization"], "Bearer ours");
        assert_eq!(to["host"], "flow.example");
    }

    #[test]
    fn claims_about_address_host_path_and_method_do_not_travel() {
        for name in [
            "cf-connecting-ip",
            "cf-connecting-ipv6",
            "cf-pseudo-ipv4",
            "client-ip",
            "disguised-host",
            "fastly-client-ip",
            "forwarded-for",
            "proxy-client-ip",
            "remote-addr",
            "true-client-ip",
            "wl-proxy-client-ip",
            "x-appengine-user-ip",
            "x-arr-clientcert",
            "x-azure-clientip",
            "x-azure-socketip",
            "x-client-ip",
            "x-cluster-client-ip",
            "x-envoy-external-address",
            "x-forwarded",
            "x-host",
            "x-http-host-override",
            "x-http-method",
            "x-http-method-override",
            "x-method-override",
            "x-original-forwarded-for",
            "x-original-host",
            "x-original-method",
            "x-original-uri",
            "x-original-url",
            "x-originating-ip",
            "x-proxyuser-ip",
            "x-remote-addr",
            "x-remote-ip",
            "x-rewrite-url",
            "x-waws-unencoded-url",
        ] {
            let lookalike = name.replace('-', "_");
            let other = format!("{name}s");
            let to = sent(&[(name, "1"), (&lookalike, "1"), (&other, "1")]);
            assert!(!to.contains_key(name), "{name}");
            assert!(!to.contains_key(lookalike.as_str()), "{lookalike}");
            assert!(to.contains_key(other.as_str()), "{other}");
        }
    }

    #[test]
    fn what_a_connection_lists_beside_garbage_does_not_travel() {
        let to = sent(&[
            ("connection", "X-Hop, caf\u{e9}"),
            ("x-hop", "1"),
            ("x-other", "2"),
        ]);
        assert!(!to.contains_key("x-hop") && to.contains_key("x-other"), "{to:?}");
    }

    #[test]
    fn what_a_connection_lists_does_not_travel_and_all_else_does() {
        let to = sent(&[
            ("connection", "X-One, x-two"),
            ("connection", ",keep-alive,x-three\t"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("x-four", "4"),
        ]);
        for name in ["x-one", "x-two", "x-three"] {
            assert!(!to.contains_key(name), "{name}");
        }
        assert_eq!(to["x-four"], "4");
    }

    #[test]
    fn nobody_forges_who_calls() {
        let to = sent(&[
            ("x-flowgate-caller", "admin"),
            ("x-flowgate-origin", "10.0.0.1"),
            ("x-ms-client-tracking-id", "mine"),
        ]);
        assert_eq!(
            to.get_all("x-flowgate-caller").iter().collect::<Vec<_>>(),
            ["shop"]
        );
        assert_eq!(to["x-flowgate-origin"], "192.0.2.7");
        assert_eq!(to["x-flowgate-key-id"], "2026");
        assert_eq!(to["x-ms-client-tracking-id"], to["x-flowgate-request-id"]);
    }

    #[test]
    fn a_name_that_could_be_read_as_ours_is_refused() {
        let credentials = ["x-api-key", "x-functions-key"].map(HeaderName::from_static);
        for name in [
            "x_flowgate_caller",
            "x-api_key",
            "x_functions_key",
            "transfer_encoding",
            "x_forwarded_for",
            "content_length",
        ] {
            let mut from = HeaderMap::new();
            from.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_static("1"));
            assert!(refuse_lookalikes(&from, &credentials).is_err(), "{name}");
        }
        let mut from = HeaderMap::new();
        from.insert("my_field", HeaderValue::from_static("1"));
        assert!(refuse_lookalikes(&from, &credentials).is_ok());
    }

    #[test]
    fn a_trace_goes_on_with_our_span() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let to = sent(&[("traceparent", trace), ("tracestate", "a=1")]);
        let text = to["traceparent"].to_str().unwrap();
        assert!(is_traceparent(text), "{text}");
        assert_eq!(&text[..36], &trace[..36]);
        assert_ne!(&text[36..52], &trace[36..52]);
        assert_eq!(&text[52..], "-01");
        assert_eq!(to["tracestate"], "a=1");
        let to = sent(&[("traceparent", "garbage"), ("tracestate", "a=1")]);
        assert!(is_traceparent(to["traceparent"].to_str().unwrap()));
        assert!(!to.contains_key("tracestate"));
    }

    #[test]
    fn a_new_trace_has_the_request_id() {
        let to = sent(&[]);
        let id = to["x-flowgate-request-id"].to_str().unwrap().replace('-', "");
        let (_, span) = id.split_at(16);
        assert_eq!(to["traceparent"], format!("00-{id}-{span}-00").as_str());
    }

    #[test]
    fn only_traces_of_the_first_version_are_continued() {
        let (trace, span) = ("0123456789abcdef0123456789abcdef", "00000000000000f0");
        assert!(is_traceparent(&format!("00-{trace}-{span}-01")));
        for wrong in [
            format!("01-{trace}-{span}-01"),
            format!("00-{trace}-{span}-01-00"),
            format!("00-{trace}-{span}"),
            format!("00-{trace}0-{span}-01"),
            format!("00-{trace}-{span}0-01"),
            format!("00-{trace}-{span}-1"),
            format!("00-{trace}-{span}-001"),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{trace}-{}-01", span.to_uppercase()),
            format!("00-{trace}-{span}-0F"),
            format!("00-{trace}-{span}-0`"),
            format!("00-{trace}-{span}-0g"),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
        ] {
            assert!(!is_traceparent(&wrong), "{wrong}");
        }
        assert!(is_traceparent(&format!("00-{trace}-{span}-00")));
    }

    proptest! {
        #[test]
        fn no_traceparent_ends_the_reader(text in "[ -~]{0,60}") {
            let to = sent(&[("traceparent", &text)]);
            assert!(is_traceparent(to["traceparent"].to_str().unwrap()));
        }
    }
}
