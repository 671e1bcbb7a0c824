//! What the admin listener answers, and by which hosts it may be asked.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Serialize;

use crate::gateway::Gateway;
use crate::model::Host;
use crate::policy::host;

/// Whether a host is one that a request may name. A browser can be made to ask here by a name that was pointed at this
/// address (DNS rebinding), and lets the page under that name read the answer. It cannot be made to do so by address.
fn is_ours(host: &str, hosts: &[Host]) -> bool {
    let Ok(host) = host::parse(host) else {
        return false;
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let named = |name: &str| host.eq_ignore_ascii_case(name);
    named("localhost") || address.parse::<IpAddr>().is_ok() || hosts.iter().any(|name| named(name))
}

pub(super) fn answer(
    gateway: &Gateway,
    hosts: &[Host],
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    // Without any host there is no browser: it is an old probe.
    let fields = request.headers().get_all(header::HOST).iter();
    let fields = fields.map(|value| value.to_str().unwrap_or_default());
    let mut named = fields.chain(request.uri().authority().map(|authority| authority.as_str()));
    if !named.all(|host| is_ours(host, hosts)) {
        return text(
            StatusCode::MISDIRECTED_REQUEST,
            "the admin listener is asked by IP address, as localhost, or by a name in `hosts` of [admin]\n",
        );
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n");
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => ready(gateway, request.uri().query()),
        "/metrics" => metrics(gateway),
        "/status" => json(StatusCode::OK, &gateway.status()),
        "/keys/unused" => json(StatusCode::OK, &gateway.key_usage()),
        _ => text(
            StatusCode::NOT_FOUND,
            "try /healthz, /readyz, /readyz?verbose, /metrics, /status or /keys/unused\n",
        ),
    }
}

fn ready(gateway: &Gateway, query: Option<&str>) -> Response<Full<Bytes>> {
    let readiness = gateway.readiness();
    let status = if readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    if query.is_some_and(|query| query.split('&').any(|part| part.starts_with("verbose"))) {
        return json(status, &readiness);
    }
    text(status, readiness.status)
}

fn json(status: StatusCode, what: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec_pretty(what).unwrap_or_default();
    reply(status, "application/json", body)
}

fn metrics(gateway: &Gateway) -> Response<Full<Bytes>> {
    gateway.gauge();
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    reply(StatusCode::OK, kind, gateway.counters().render())
}

fn text(status: StatusCode, words: &'static str) -> Response<Full<Bytes>> {
    reply(status, "text/plain; charset=utf-8", words)
}

fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::is_ours;
    use crate::model::Host;

    #[test]
    fn addresses_localhost_and_configured_names_are_ours() {
        let hosts = ["metrics.internal", "flowgate"].map(|name| Host::parse(name).unwrap());
        for host in [
            "127.0.0.1",
            "127.0.0.1:9464",
            "10.1.2.3:9464",
            "[::1]",
            "[2001:db8::1]:9464",
            "localhost",
            "LocalHost:9464",
            "localhost.",
            "metrics.internal:9464",
            "Flowgate:9464",
        ] {
            assert!(is_ours(host, &hosts), "{host}");
        }
        for host in [
            "",
            "rebound.example",
            "rebound.example:9464",
            "localhost.rebound.example",
            "127.0.0.1.rebound.example",
            "x.metrics.internal",
            "2130706433",
            "127.1",
            "user@127.0.0.1",
            "127.0.0.1/",
            "[::1",
        ] {
            assert!(!is_ours(host, &hosts), "{host}");
        }
        assert!(!is_ours("flowgate", &[]));
    }
}
