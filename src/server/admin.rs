//! The listener for health, readiness, metrics and keys that nobody uses: four read-only paths without authentication, therefore on loopback
//! unless the settings say otherwise.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::gateway::Gateway;

/// Connections at one time; scrapers need a few.
const CONNECTIONS_MAX: usize = 64;
/// Time for a request head, and between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a whole connection: a scraper comes back, a stuck one goes.
const AGE_MAX: Duration = Duration::from_secs(300);

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, gateway: Arc<Gateway>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: trying again at once would only burn time.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let gateway = gateway.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&gateway, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            // Whatever ends it, there is nobody to tell.
            let _ = tokio::time::timeout(AGE_MAX, connection).await;
            drop(permit);
        });
    }
}

fn answer(gateway: &Gateway, request: &Request<Incoming>) -> Response<Full<Bytes>> {
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
