//! The client with which the emulator is tested, and the names that its tests share.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::emulator::{Authority, Emulator, TriggerHandle, certs, jwt};

/// The tenant of all tests.
pub(super) const TENANT: &str = "11111111-1111-1111-1111-111111111111";
/// The application of all tests.
pub(super) const CLIENT: &str = "22222222-2222-2222-2222-222222222222";
/// Its secret, with characters that must be escaped in a form.
pub(super) const SECRET: &str = "s3cret~with/odd+signs=&%";
/// The object id of its principal.
pub(super) const OID: &str = "33333333-3333-3333-3333-333333333333";
/// The scope that leads to the right audience.
pub(super) const SCOPE: &str = "https://service.flow.microsoft.com//.default";
/// The right audience.
pub(super) const AUDIENCE: &str = "https://service.flow.microsoft.com/";

/// An answer as a test sees it.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Got {
    /// The first header with this name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The body as JSON.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The platform's error code.
    pub(super) fn code(&self) -> String {
        self.json()["error"]["code"]
            .as_str()
            .unwrap_or_else(|| panic!("no code: {self:?}"))
            .to_owned()
    }

    /// The platform's error message.
    pub(super) fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap().to_owned()
    }
}

/// A TLS connection without HTTP.
pub(super) async fn dial(emulator: &Emulator, origin: &str) -> std::io::Result<TlsStream<TcpStream>> {
    dial_with(&emulator.ca, origin, &["http/1.1"]).await
}

/// The same with another trust store and other protocols.
pub(super) async fn dial_with(
    ca: &Authority,
    origin: &str,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let port: u16 = origin.rsplit_once(':').unwrap().1.parse().unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let connector = TlsConnector::from(Arc::new(ca.client_config(alpn)));
    connector.connect(certs::server_name("localhost"), stream).await
}

/// A connection that can send several requests.
pub(super) async fn connect(emulator: &Emulator, origin: &str) -> SendRequest<Full<Bytes>> {
    let stream = dial(emulator, origin).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Reads an answer to its end.
pub(super) async fn receive(response: http::Response<Incoming>) -> hyper::Result<Got> {
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Got {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
    })
}

/// Sends a request and reads the answer.
pub(super) async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> hyper::Result<Got> {
    sender.ready().await?;
    receive(sender.send_request(request).await?).await
}

/// A POST.
pub(super) fn post(target: &str, headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
    method("POST", target, headers, body)
}

/// A request with any method.
pub(super) fn method(
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header("Host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::from(body.to_owned())).unwrap()
}

/// Escapes everything but letters and digits.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The form with which a client sends its secret.
pub(super) fn secret_form(secret: &str, scope: &str) -> String {
    format!(
        "grant_type=client_credentials&client_id={CLIENT}&client_secret={}&scope={}",
        encoded(secret),
        encoded(scope)
    )
}

/// Requests a token at this path.
pub(super) async fn try_ask(emulator: &Emulator, target: &str, form: &str) -> hyper::Result<Got> {
    let mut sender = connect(emulator, &emulator.entra.authority()).await;
    let kind = [("Content-Type", "application/x-www-form-urlencoded")];
    send(&mut sender, post(target, &kind, form)).await
}

/// Requests a token.
pub(super) async fn ask(emulator: &Emulator, form: &str) -> Got {
    try_ask(emulator, &format!("/{TENANT}/oauth2/v2.0/token"), form)
        .await
        .unwrap()
}

/// An emulator with the application registered.
pub(super) async fn started() -> Emulator {
    let emulator = Emulator::start().await;
    emulator.register_app(TENANT, CLIENT, SECRET, OID);
    emulator
}

/// Sends one request to the flow, on a connection of its own.
pub(super) async fn call(emulator: &Emulator, request: Request<Full<Bytes>>) -> Got {
    let mut sender = connect(emulator, &emulator.flow.origin()).await;
    send(&mut sender, request).await.unwrap()
}

/// Starts a trigger with this token.
pub(super) async fn call_with_token(emulator: &Emulator, trigger: &TriggerHandle, token: &str) -> Got {
    call(
        emulator,
        post(
            &trigger.target(),
            &[("Authorization", &format!("Bearer {token}"))],
            "{}",
        ),
    )
    .await
}

/// A token that was not requested over the network.
pub(super) fn token(emulator: &Emulator, overrides: &Value) -> String {
    emulator.entra.token_for(TENANT, CLIENT, AUDIENCE, overrides)
}

/// The claims in a token.
pub(super) fn claims(token: &str) -> Value {
    Value::Object(jwt::unverified_claims(token).unwrap())
}
