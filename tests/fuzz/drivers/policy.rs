//! Targets and fields: what is checked is what is forwarded, and nothing of ours can be forged or duplicated.

use std::sync::LazyLock;

use bytes::Bytes;
use flowgate::flow::outbound::{Audience, Introduction, Parcel};
use flowgate::flow::{outbound, reply};
use flowgate::model::{CallerName, KeyLabel, RequestId, TriggerUrl};
use flowgate::policy::{Matching, Routes};
use flowgate::problem::Kind;
use flowgate::wire;
use flowgate::wire::{Fields, Limits, RequestHead, Scan};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

const LIMITS: Limits = Limits {
    bytes_max: 64 * 1024,
    fields_max: 1000,
};

fn read(text: &[u8]) -> Option<(RequestHead, usize)> {
    let found = Scan::default().look(text, LIMITS).ok()??;
    let head = wire::request(&Bytes::copy_from_slice(&text[..found.end]), found.fields).ok()?;
    Some((head, found.end))
}

/// Open routes around guarded ones: a path that led to another route than the one it was checked for would be
/// noticed.
static ROUTES: LazyLock<Routes<&'static str>> = LazyLock::new(|| {
    let methods = [Method::POST];
    let paths = [
        "/open/{*rest}",
        "/open/secret",
        "/item/{id}",
        "/secret",
        "/secret/{*rest}",
        "/",
        "/a:b/c",
    ];
    let matching = paths.map(|path| Matching {
        host: None,
        path,
        methods: &methods,
        unlisted: &[],
    });
    Routes::build(matching.into_iter().zip(paths)).unwrap()
});

static TRIGGER: LazyLock<TriggerUrl> = LazyLock::new(|| {
    TriggerUrl::parse(
        "https://prod-00.westeurope.logic.azure.com/workflows/00000000000000000000000000000000/triggers/manual/paths/invoke?api-version=2016-10-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=placeholder",
    )
    .unwrap()
});

/// The characters that a path may contain unencoded (RFC 3986 section 3.3).
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b':')
    .remove(b'@')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=');

/// A path that finds a route finds the same one however a server in between reads it, and its rest is
/// forwarded byte for byte.
pub(crate) fn target(data: &[u8]) {
    let text = [b"POST ", data, b" HTTP/1.1\r\nHost: a.example\r\n\r\n"].concat();
    let Some((head, _)) = read(&text) else { return };
    let path = head.target.path();
    let found = match ROUTES.find("a.example", path, &Method::POST) {
        Ok(found) => found,
        Err(problem) => {
            assert!(matches!(
                problem.kind(),
                Kind::MalformedRequest | Kind::RouteUnknown
            ));
            if problem.kind() == Kind::MalformedRequest {
                return;
            }
            for reading in readings(path) {
                let other = ROUTES.find("a.example", &reading, &Method::POST);
                assert!(other.is_err(), "{path} has no route, read as {reading} it has");
            }
            return;
        }
    };
    for reading in readings(path) {
        match ROUTES.find("a.example", &reading, &Method::POST) {
            Ok(other) => assert_eq!(other.value, found.value, "{path} read as {reading}"),
            Err(problem) => panic!("{path} read as {reading}: {:?}", problem.cause()),
        }
    }
    let Some(rest) = found.rest else { return };
    let stem = found.value.split_once("{*rest}").unwrap().0;
    assert_eq!(format!("{stem}{rest}"), path, "the rest is what was received");
    let Ok(sent) = TRIGGER.with_relative(rest) else {
        return;
    };
    let whole = TRIGGER.path_and_query();
    assert_eq!(sent.path(), format!("{}/{rest}", whole.path()));
    assert_eq!(sent.query(), whole.query(), "nobody adds to what is signed");
    let forwarded = forward(&HeaderMap::new(), &sent);
    assert_eq!(forwarded.target, sent.as_str());
}

/// A path as other servers interpret it, written again as it would be forwarded.
fn readings(path: &str) -> Vec<String> {
    let once = percent_decode_str(path).decode_utf8_lossy().into_owned();
    let twice = percent_decode_str(&once).decode_utf8_lossy().into_owned();
    let mut readings = vec![once, twice];
    readings.extend(readings.clone().iter().map(|path| path.replace('\\', "/")));
    readings.extend(readings.clone().iter().map(|path| merged(path)));
    readings.extend(readings.clone().iter().map(|path| without_dots(path)));
    let sent = readings.iter().map(|path| utf8_percent_encode(path, PATH));
    sent.map(|path| path.to_string()).collect()
}

fn merged(path: &str) -> String {
    let mut path = path.to_owned();
    while path.contains("//") {
        path = path.replace("//", "/");
    }
    path
}

fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment.split(';').next().unwrap_or_default() {
            "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

const CREDENTIALS: [HeaderName; 2] = [
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-vendor-token"),
];

/// Whether a caller's field ends at the gateway, decided independently of the product.
fn never_passes(name: &str) -> bool {
    const NAMES: [&str; 23] = [
        "te",
        "host",
        "expect",
        "cookie",
        "cookie2",
        "trailer",
        "upgrade",
        "forwarded",
        "x-real-ip",
        "connection",
        "keep-alive",
        "traceparent",
        "tracestate",
        "authorization",
        "content-length",
        "http2-settings",
        "accept-encoding",
        "proxy-connection",
        "transfer-encoding",
        "proxy-authenticate",
        "proxy-authorization",
        "x-api-key",
        "x-vendor-token",
    ];
    NAMES.contains(&name)
        || name.starts_with("x-forwarded-")
        || name.starts_with("x-flowgate-")
        || (name.starts_with("x-ms-") && !name.starts_with("x-ms-dynamics-"))
}

/// Fields that only a proxy in front of the flow may set. They are left out in either spelling.
fn is_claim(name: &str) -> bool {
    const NAMES: [&str; 35] = [
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
    ];
    NAMES.contains(&name.replace('_', "-").as_str())
}

/// Names listed in a `Connection` field (RFC 9110 section 7.6.1).
fn listed(headers: &HeaderMap) -> Vec<HeaderName> {
    let fields = headers.get_all(header::CONNECTION).iter();
    let names = fields.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    names
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| !matches!(name.as_str(), "close" | "keep-alive"))
        .collect()
}

fn introduction() -> Introduction {
    Introduction {
        request: RequestId::new(),
        caller: CallerName::parse("shop").unwrap(),
        key: Some(KeyLabel::parse("2026").unwrap()),
        origin: "192.0.2.7".into(),
    }
}

/// What a trigger parses from a head that was written for it.
fn forward(from: &HeaderMap, target: &PathAndQuery) -> RequestHead {
    let who = introduction();
    let mut text = outbound::head(
        &Parcel {
            method: &Method::POST,
            target,
            from,
            credentials: &CREDENTIALS,
            host: &HeaderValue::from_static("flow.example"),
            bearer: Some(&HeaderValue::from_static("Bearer ours")),
            content_type: None,
            who: &who,
        },
        Audience::Flow,
        Vec::new(),
    );
    text.extend_from_slice(b"\r\n");
    let (head, end) = read(&text).expect("the written head can be read");
    assert_eq!(end, text.len(), "a line was injected");
    assert_eq!(head.method, Method::POST);
    head
}

/// The head for a trigger has the caller's fields that may pass, and ours, once; the head for the caller has
/// the flow's fields that may pass.
pub(crate) fn header_policy(data: &[u8]) {
    let text = [b"POST /orders HTTP/1.1\r\n", data, b"\r\n\r\n"].concat();
    let Some((head, _)) = read(&text) else { return };
    outbound_policy(&head.headers);
    let text = [b"HTTP/1.1 200 OK\r\n", data, b"\r\n\r\n"].concat();
    for status in [StatusCode::OK, StatusCode::ACCEPTED, StatusCode::FOUND] {
        if let Some(fields) = answered(&text) {
            reply_policy(status, fields);
        }
    }
}

fn outbound_policy(from: &HeaderMap) {
    let reads_as_ours = |name: &HeaderName| {
        let name = name.as_str();
        name.contains('_') && never_passes(&name.replace('_', "-"))
    };
    let refused = outbound::refuse_lookalikes(from, &CREDENTIALS).is_err();
    assert_eq!(refused, from.keys().any(reads_as_ours), "{from:?}");
    if refused {
        return;
    }
    let mut sent = forward(from, &PathAndQuery::from_static("/run?a=b")).headers;
    let trace: Vec<_> = sent.get_all("traceparent").iter().collect();
    assert!(
        trace.len() == 1 && is_trace(trace[0].as_bytes()),
        "{trace:?} {from:?}"
    );
    let states: Vec<_> = sent.get_all("tracestate").iter().collect();
    let all: Vec<_> = from.get_all("tracestate").iter().collect();
    assert!(states.is_empty() || states == all, "{states:?} {from:?}");
    sent.remove("traceparent");
    sent.remove("tracestate");

    let listed = listed(from);
    let mut expected = HeaderMap::new();
    for (name, value) in from {
        let passes = !never_passes(name.as_str()) && !is_claim(name.as_str());
        if passes && !listed.contains(name) {
            expected.append(name.clone(), value.clone());
        }
    }
    let id = sent["x-flowgate-request-id"].clone();
    assert_eq!(id.len(), 36, "{id:?}");
    for (name, value) in [
        ("host", HeaderValue::from_static("flow.example")),
        ("authorization", HeaderValue::from_static("Bearer ours")),
        ("x-ms-client-tracking-id", id.clone()),
        ("x-flowgate-request-id", id),
        ("x-flowgate-caller", HeaderValue::from_static("shop")),
        ("x-flowgate-key-id", HeaderValue::from_static("2026")),
        ("x-flowgate-origin", HeaderValue::from_static("192.0.2.7")),
    ] {
        expected.append(name, value);
    }
    assert_eq!(sent, expected, "{from:?}");
}

/// `00-`, 32 digits, 16 digits, two digits (W3C Trace Context section 3.2).
fn is_trace(text: &[u8]) -> bool {
    let hex = |part: &[u8]| {
        part.iter()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte))
    };
    text.len() == 55
        && text.starts_with(b"00-")
        && hex(&text[3..35])
        && text[35] == b'-'
        && hex(&text[36..52])
        && text[52] == b'-'
        && hex(&text[53..])
}

/// Whether a field of an answer ends at the gateway, decided independently of the product.
fn never_returns(name: &str) -> bool {
    const NAMES: [&str; 15] = [
        "te",
        "server",
        "trailer",
        "upgrade",
        "alt-svc",
        "connection",
        "keep-alive",
        "set-cookie",
        "x-powered-by",
        "x-request-id",
        "proxy-connection",
        "x-aspnet-version",
        "transfer-encoding",
        "proxy-authenticate",
        "strict-transport-security",
    ];
    NAMES.contains(&name) || name.starts_with("x-ms-") || name.starts_with("x-flowgate-")
}

/// The fields of an answer.
fn answered(text: &[u8]) -> Option<Fields> {
    let found = Scan::default().look(text, LIMITS).ok()??;
    let head = Bytes::copy_from_slice(&text[..found.end]);
    Some(wire::response(&head, found.fields, &Method::HEAD).ok()?.fields)
}

fn reply_policy(status: StatusCode, mut fields: Fields) {
    let mut from = HeaderMap::new();
    fields.append_to(&mut from);
    let from = &from;
    let names = from.get_all(header::CONNECTION).iter();
    let names = names.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let listed: Vec<_> = names
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    reply::head(status, &mut fields, &TRIGGER);
    let mut sent = HeaderMap::new();
    fields.append_to(&mut sent);
    let mut expected = HeaderMap::new();
    for (name, value) in from {
        if !never_returns(name.as_str()) && !listed.contains(name) {
            expected.append(name.clone(), value.clone());
        }
    }
    for place in [header::LOCATION, header::CONTENT_LOCATION] {
        for value in sent.get_all(&place) {
            let text = value.to_str().unwrap().to_ascii_lowercase();
            assert_ne!(status, StatusCode::ACCEPTED);
            assert!(!text.contains(TRIGGER.host()) && !text.contains("sig="), "{text}");
            assert!(text != "/workflows" && !text.starts_with("/workflows/"), "{text}");
        }
        // Which addresses pass is checked above; here only that nothing else changes.
        sent.remove(&place);
        expected.remove(&place);
    }
    assert_eq!(sent, expected, "{from:?}");
}
