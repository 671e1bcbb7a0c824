//! Routes to an API: the token is added, paths that are not listed stay closed, and the API's own answers
//! pass.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::harness::{Answer, CLIENT, KEY, PATIENCE, Running, TENANT, World};

const GRAPH: &str = "https://graph.microsoft.com";

/// A request as the API received it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    pub target: String,
    pub headers: HeaderMap,
}

/// An API behind TLS on loopback. It answers each request with the next scripted answer, or with 200.
pub struct Api {
    pub port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

type Script = Arc<Mutex<Vec<Response<Full<Bytes>>>>>;

impl Api {
    pub async fn start(world: &World, answers: Vec<Response<Full<Bytes>>>) -> Self {
        let (api, listener) = Self::closed().await;
        api.open(world, listener, answers);
        api
    }

    /// An API that accepts connections but does not answer.
    async fn closed() -> (Self, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::default();
        (Self { port, asked }, listener)
    }

    fn open(&self, world: &World, listener: TcpListener, mut answers: Vec<Response<Full<Bytes>>>) {
        let leaf = world.emulator.ca.leaf(&["localhost"]);
        let acceptor = TlsAcceptor::from(Arc::new(leaf.server_config(&["http/1.1"])));
        answers.reverse();
        let (log, script): (_, Script) = (self.asked.clone(), Arc::new(Mutex::new(answers)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, log, script) = (acceptor.clone(), log.clone(), script.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(move |request: Request<Incoming>| {
                        let answer = script.lock().unwrap().pop();
                        log.lock().unwrap().push(Asked {
                            method: request.method().clone(),
                            target: request.uri().to_string(),
                            headers: request.headers().clone(),
                        });
                        let answer = answer.unwrap_or_else(|| Response::new(Full::from("{\"ok\":true}")));
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let connection = hyper::server::conn::http1::Builder::new();
                    drop(connection.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// A gateway with a route `/graph/{*rest}` to this API.
fn gateway(world: &World, api: &Api, more: &str) -> Running {
    world.emulator.entra.allow_audience(GRAPH);
    let identity = world.identity("graph", TENANT, CLIENT, "env:CONTOSO_SECRET");
    let route = format!(
        "[[route]]\nname = \"graph\"\nkind = \"api\"\npath = \"/graph/{{*rest}}\"\nmethods = [\"GET\", \"POST\"]\n\
         callers = [\"shop\"]\nidentity = \"graph\"\nupstream = \"https://localhost:{}/v1.0\"\nca_file = {:?}\n\
         paths = [\"/users/{{id}}\", \"/me\"]\n{more}",
        api.port,
        world.emulator.ca_file(),
    );
    world.start_with(&format!("{identity}scope = \"{GRAPH}/.default\"\n{route}"))
}

async fn get(gateway: &Running, target: &str) -> Answer {
    let request = Request::get(target)
        .header("host", "localhost")
        .header("x-api-key", KEY)
        .body(Full::default())
        .unwrap();
    gateway.send(request).await
}

fn refused(challenge: &str) -> Response<Full<Bytes>> {
    Response::builder()
        .status(StatusCode::UNAUTHORIZED)
        .header("www-authenticate", challenge)
        .body(Full::from(
            "{\"error\":{\"code\":\"InvalidAuthenticationToken\"}}",
        ))
        .unwrap()
}

fn audience(asked: &Asked) -> String {
    use base64::Engine;
    let token = asked.headers["authorization"].to_str().unwrap();
    let payload = token.split('.').nth(1).unwrap();
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(payload)
        .unwrap();
    let claims: Value = serde_json::from_slice(&json).unwrap();
    claims["aud"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_is_asked_with_the_token_for_it_and_the_query_of_the_caller() {
    let world = World::new().await;
    let api = Api::start(&world, vec![]).await;
    let gateway = gateway(&world, &api, "");
    let answer = get(&gateway, "/graph/users/ann?$select=id&api-version=2&sig=x").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.text(), "{\"ok\":true}");
    let asked = api.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].method, Method::GET);
    assert_eq!(asked[0].target, "/v1.0/users/ann?$select=id&api-version=2&sig=x");
    assert_eq!(audience(&asked[0]), GRAPH);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_learns_nothing_about_the_caller() {
    let world = World::new().await;
    let api = Api::start(&world, vec![]).await;
    let gateway = gateway(&world, &api, "");
    let request = Request::get("/graph/me")
        .header("host", "localhost")
        .header("x-api-key", KEY)
        .header("client-request-id", "the-callers-own")
        .header("x-forwarded-for", "192.0.2.1")
        .header("cookie", "a=b")
        .header("consistencylevel", "eventual")
        .body(Full::default())
        .unwrap();
    let answer = gateway.send(request).await;
    let id = answer.header("x-request-id").unwrap();
    let headers = &api.asked()[0].headers;
    assert_eq!(headers["client-request-id"], id);
    assert_eq!(headers.get_all("client-request-id").iter().count(), 1);
    assert_eq!(headers["consistencylevel"], "eventual");
    for name in headers.keys() {
        let name = name.as_str();
        let ours =
            name.starts_with("x-flowgate-") || name.starts_with("x-forwarded") || name.starts_with("x-ms-");
        assert!(!ours && !matches!(name, "x-api-key" | "cookie"), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_field_makes_a_request_to_an_api_another_one() {
    let world = World::new().await;
    let api = Api::start(&world, vec![]).await;
    let gateway = gateway(&world, &api, "");
    let request = Request::post("/graph/me")
        .header("host", "localhost")
        .header("x-api-key", KEY)
        .header("x-http-method", "DELETE")
        .header("X-HTTP-Method-Override", "DELETE")
        .header("x_http_method_override", "DELETE")
        .header("x-method-override", "DELETE")
        .header("x-original-url", "/v1.0/users")
        .header("x-rewrite-url", "/v1.0/users")
        .header("x-custom", "1")
        .body(Full::default())
        .unwrap();
    assert_eq!(gateway.send(request).await.status, StatusCode::OK);
    let headers = &api.asked()[0].headers;
    assert_eq!(headers["x-custom"], "1");
    for (name, value) in headers {
        assert!(value != "DELETE" && value != "/v1.0/users", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_listed_is_closed_however_it_is_spelled() {
    let world = World::new().await;
    let api = Api::start(&world, vec![]).await;
    let gateway = gateway(&world, &api, "");
    for target in [
        "/graph/users",
        "/graph/users/ann/messages",
        "/graph/$batch",
        "/graph/Me",
        "/graph/m%65",
        "/graph/me/",
        "/graph/me/..",
        "/graph/users/..%2f$batch",
        "/graph/users/%2e%2e",
        "/graph//me",
        "/graph/me%2f..%2f$batch",
    ] {
        let answer = get(&gateway, target).await;
        assert!(
            matches!(answer.code().as_str(), "route-unknown" | "malformed-request"),
            "{target}: {}",
            answer.text()
        );
    }
    let request = Request::delete("/graph/me")
        .header("host", "localhost")
        .header("x-api-key", KEY)
        .body(Full::default())
        .unwrap();
    assert_eq!(gateway.send(request).await.code(), "method-not-allowed");
    assert!(api.asked().is_empty(), "{:?}", api.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_while_a_connection_opens_is_replaced_by_a_valid_one_or_by_none() {
    let world = World::new().await;
    world.emulator.entra.lifetime(Duration::from_secs(4));
    let (api, listener) = Api::closed().await;
    let gateway = Arc::new(gateway(&world, &api, "on_claim_mismatch = \"refuse\""));
    gateway.ready().await;
    let end = Instant::now() + Duration::from_secs(4);
    world.emulator.entra.claims(json!({"aud": "api://another"}));
    let pending = tokio::spawn({
        let gateway = gateway.clone();
        async move { get(&gateway, "/graph/me").await }
    });
    let renewed = async { while !gateway.admin("/readyz?verbose").await.1.contains("api://another") {} };
    tokio::time::timeout(PATIENCE, renewed)
        .await
        .expect("the token is not renewed");
    // Waits for the first token to expire: no event reports that.
    tokio::time::timeout_at(end, std::future::pending::<()>())
        .await
        .unwrap_err();
    api.open(&world, listener, vec![]);
    let answer = pending.await.unwrap();
    assert_eq!(answer.code(), "token-unfit", "{}", answer.text());
    assert_eq!(api.asked().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_never_reaches_an_api() {
    let world = World::new().await;
    let api = Api::start(&world, vec![]).await;
    let gateway = gateway(&world, &api, "");
    let request = Request::get("/graph/me")
        .header("host", "localhost")
        .header("authorization", "Bearer somebodys-own-token")
        .body(Full::default())
        .unwrap();
    assert_eq!(gateway.send(request).await.code(), "key-unknown");
    assert!(api.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_the_api_passes_unchanged() {
    let world = World::new().await;
    // A body that the fault table of triggers would match.
    let body = "{\"error\":{\"code\":\"MisMatchingOAuthClaims\",\"message\":\"x\"}}";
    let forbidden = Response::builder()
        .status(StatusCode::FORBIDDEN)
        .header("x-ms-ags-diagnostic", "{}")
        .header("request-id", "1")
        .header("set-cookie", "a=b")
        .header("x-flowgate-answer", "forged")
        .body(Full::from(body))
        .unwrap();
    let api = Api::start(&world, vec![forbidden]).await;
    let gateway = gateway(&world, &api, "");
    let answer = get(&gateway, "/graph/me").await;
    assert_eq!(
        (answer.status, answer.text()),
        (StatusCode::FORBIDDEN, body.to_owned())
    );
    assert_eq!(answer.header("x-ms-ags-diagnostic"), Some("{}"));
    assert_eq!(answer.header("request-id"), Some("1"));
    assert_eq!(answer.header("set-cookie"), None);
    assert_eq!(answer.header("x-flowgate-answer"), Some("api"));
    assert_eq!(api.asked().len(), 1);
    let line = gateway.lines.of(&answer).await;
    assert_eq!(
        (&line["answer"], &line["run_started"]),
        (&"api".into(), &Value::Null)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_replaced_once_and_the_request_goes_again() {
    let world = World::new().await;
    let api = Api::start(&world, vec![refused("Bearer error=\"invalid_token\"")]).await;
    let gateway = gateway(&world, &api, "");
    let answer = get(&gateway, "/graph/me").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let asked = api.asked();
    assert_eq!(asked.len(), 2);
    assert_ne!(
        asked[0].headers["authorization"],
        asked[1].headers["authorization"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_refused_twice_is_the_operators_and_the_log_says_what_the_api_said() {
    let world = World::new().await;
    let wrong = "Bearer error=\"invalid_token\", error_description=\"The audience is invalid\"";
    let api = Api::start(&world, vec![refused(wrong), refused(wrong), refused(wrong)]).await;
    let gateway = gateway(&world, &api, "");
    let answer = get(&gateway, "/graph/me").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(answer.code(), "api-refused-token");
    assert_eq!(answer.header("www-authenticate"), None);
    let line = gateway.lines.of(&answer).await;
    let cause = line["cause"].as_str().unwrap();
    for word in ["identity graph", GRAPH, "The audience is invalid", "operator"] {
        assert!(cause.contains(word), "{word}: {cause}");
    }
    assert_eq!(api.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_named_parameters_pass_where_they_are_named() {
    let world = World::new().await;
    let api = Api::start(&world, vec![]).await;
    let gateway = gateway(&world, &api, "query = [\"$top\", \"api-version\"]\n");
    get(&gateway, "/graph/me?$top=1&$filter=x&api-version=7").await;
    assert_eq!(api.asked()[0].target, "/v1.0/me?$top=1&api-version=7");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_the_query_of_a_caller_never_reaches_an_api() {
    let world = World::new().await;
    let api = Api::start(&world, vec![]).await;
    let gateway = gateway(&world, &api, "");
    get(&gateway, "/graph/me?access_token=canary&$top=1").await;
    assert_eq!(api.asked()[0].target, "/v1.0/me?$top=1");
}
