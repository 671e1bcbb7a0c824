//! The listener for health, readiness, metrics and keys that nobody uses: four read-only paths without authentication,
//! therefore on loopback unless the settings say otherwise, and not for web pages.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::gateway::Gateway;
use crate::policy::host;

/// Connections at one time; scrapers and probes need a few. One more closes the one that was used least recently, so
/// that connections at rest and slow heads keep no probe out.
const CONNECTIONS_MAX: usize = 64;
/// Time for a request head, and between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a whole connection: a scraper comes back, a stuck one goes.
const AGE_MAX: Duration = Duration::from_secs(300);

/// An open connection.
struct Open {
    /// When it was used last, on a clock that counts connections and requests.
    used: Arc<AtomicU64>,
    task: AbortHandle,
}

/// Closes the connection that was used least recently if there is no room for another one.
fn make_room(open: &mut Vec<Open>) {
    open.retain(|open| !open.task.is_finished());
    if open.len() < CONNECTIONS_MAX {
        return;
    }
    let oldest = open.iter().enumerate();
    let oldest = oldest.min_by_key(|(_, open)| open.used.load(Ordering::Relaxed));
    if let Some((index, _)) = oldest {
        open.swap_remove(index).task.abort();
    }
}

/// Serves until it is dropped. `hosts` are names that it may be asked by, in lower case.
pub(super) async fn serve(listener: TcpListener, gateway: Arc<Gateway>, hosts: Arc<[String]>) {
    let mut open = Vec::with_capacity(CONNECTIONS_MAX);
    let clock = Arc::new(AtomicU64::new(0));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: trying again at once would only burn time.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        make_room(&mut open);
        let (gateway, hosts, clock) = (gateway.clone(), hosts.clone(), clock.clone());
        let used = Arc::new(AtomicU64::new(clock.fetch_add(1, Ordering::Relaxed)));
        let last = used.clone();
        let task = tokio::spawn(async move {
            let service = service_fn(move |request| {
                last.store(clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
                let answer = answer(&gateway, &hosts, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            // Whatever ends it, there is nobody to tell.
            let _ = tokio::time::timeout(AGE_MAX, connection).await;
        });
        let task = task.abort_handle();
        open.push(Open { used, task });
    }
}

/// Whether a host is one that a request may name. A browser can be made to ask here by a name that was pointed at this
/// address (DNS rebinding), and lets the page under that name read the answer. It cannot be made to do so by address.
fn is_ours(host: &str, hosts: &[String]) -> bool {
    let Ok(host) = host::parse(host) else {
        return false;
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let named = |name: &str| host.eq_ignore_ascii_case(name);
    named("localhost") || address.parse::<IpAddr>().is_ok() || hosts.iter().any(|name| named(name))
}

fn answer(gateway: &Gateway, hosts: &[String], request: &Request<Incoming>) -> Response<Full<Bytes>> {
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
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn metrics(gateway: &Gateway) -> Response<Full<Bytes>> {
    gateway.gauge();
    let mut response = Response::new(Full::new(Bytes::from(gateway.counters().render())));
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn text(status: StatusCode, words: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(words.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::is_ours;

    #[test]
    fn addresses_localhost_and_configured_names_are_ours() {
        let hosts = ["metrics.internal".to_owned(), "flowgate".to_owned()];
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
