//! What every test needs: an emulator of Entra and the trigger, a gateway with the test's own settings,
//! callers that speak HTTP properly or byte by byte, and the gateway's log lines to wait for.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flowgate::counters::Counters;
use flowgate::gateway::log::{Form, Log, Sink};
use flowgate::server::Server;
use flowgate::settings;
use flowgate::settings::{Config, Environment};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::emulator::Emulator;

pub const TENANT: &str = "11111111-2222-4333-8444-555555555555";
pub const CLIENT: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";
pub const SECRET: &str = "canary-client-secret~1";
pub const OID: &str = "99999999-8888-4777-8666-555555555555";
/// The key of the caller "shop".
pub const KEY: &str = "canary-key-of-shop-0123456789";

/// Time after which anything in a test counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Log lines as they are written.
#[derive(Default)]
pub struct Lines {
    lines: Mutex<Vec<String>>,
    came: Notify,
}

impl Sink for Lines {
    fn line(&self, line: &[u8]) {
        self.lines
            .lock()
            .unwrap()
            .push(String::from_utf8_lossy(line).into_owned());
        self.came.notify_waiters();
    }
}

impl Lines {
    pub fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The first matching line, as soon as it is written.
    pub async fn wait_for(&self, fits: impl Fn(&Value) -> bool) -> Value {
        let search = async {
            loop {
                let came = self.came.notified();
                tokio::pin!(came);
                came.as_mut().enable();
                let found = self
                    .all()
                    .iter()
                    .filter_map(|line| serde_json::from_str(line).ok())
                    .find(|line| fits(line));
                if let Some(line) = found {
                    return line;
                }
                came.await;
            }
        };
        match tokio::time::timeout(PATIENCE, search).await {
            Ok(line) => line,
            Err(_) => panic!("no such line; there are: {:#?}", self.all()),
        }
    }

    /// The line of this request.
    pub async fn of(&self, answer: &Answer) -> Value {
        let id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
        self.wait_for(|line| line["request"] == id.as_str()).await
    }
}

/// An emulator, and certificates and settings for a gateway.
pub struct World {
    pub emulator: Emulator,
    pub secrets: Vec<(String, String)>,
}

impl World {
    pub async fn new() -> Self {
        let emulator = Emulator::start().await;
        emulator.register_app(TENANT, CLIENT, SECRET, OID);
        let leaf = emulator.ca.leaf(&["localhost", "hooks.example"]);
        leaf.write(emulator.dir(), "gateway").unwrap();
        Self {
            emulator,
            secrets: vec![("CONTOSO_SECRET".into(), SECRET.into())],
        }
    }

    pub fn dir(&self) -> &Path {
        self.emulator.dir()
    }

    /// Writes a file that settings can name.
    pub fn file(&self, name: &str, text: &str) {
        let mut file = std::fs::File::create(self.dir().join(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Listener, admin, identity `contoso` and caller `shop`, to which a test adds its routes.
    pub fn base(&self) -> String {
        format!(
            r#"
[gateway]
workers = 2

[admin]
address = "127.0.0.1:0"

[[listener]]
address = "127.0.0.1:0"
{LISTENER}
{identity}
{caller}
"#,
            LISTENER = self.certificate(),
            identity = self.identity("contoso", TENANT, CLIENT, "env:CONTOSO_SECRET"),
            caller = caller("shop", KEY),
        )
    }

    pub fn certificate(&self) -> String {
        let (chain, key) = certificate_files(self.dir(), "gateway");
        format!("[[listener.certificate]]\nchain = {chain:?}\nkey = \"file:{key}\"\n")
    }

    pub fn identity(&self, name: &str, tenant: &str, client: &str, secret: &str) -> String {
        format!(
            "[[identity]]\nname = \"{name}\"\ntenant = \"{tenant}\"\nclient_id = \"{client}\"\nclient_secret = \
             \"{secret}\"\nauthority = \"{}\"\nca_file = {:?}\ntimeout = \"3s\"\n",
            self.emulator.entra.authority(),
            self.emulator.ca_file()
        )
    }

    /// A route for the caller `shop` with the identity `contoso`; `more` adds keys.
    pub fn route(&self, name: &str, path: &str, trigger: &str, more: &str) -> String {
        format!(
            "[[route]]\nname = \"{name}\"\npath = \"{path}\"\ntrigger = \"{trigger}\"\nca_file = {:?}\n{}{}{more}\n",
            self.emulator.ca_file(),
            if more.contains("callers =") || more.contains("anonymous") {
                ""
            } else {
                "callers = [\"shop\"]\n"
            },
            if more.contains("identity =") || more.contains("signed") {
                ""
            } else {
                "identity = \"contoso\"\n"
            },
        )
    }

    /// Starts a gateway with these settings.
    pub fn start(&self, settings: &str) -> Running {
        let lines = Arc::new(Lines::default());
        self.start_logging(settings, lines.clone(), lines)
    }

    /// Starts a gateway with another log sink.
    pub fn start_logging(&self, settings: &str, sink: Arc<dyn Sink>, lines: Arc<Lines>) -> Running {
        let config = self.load(settings);
        let log = Log::new(sink, Form::Json);
        let server = Server::start(&config, &Counters::new(), log).unwrap();
        let admin = flowgate::admin::start(&config, server.control(), server.gateway()).unwrap();
        let address = server.addresses()[0];
        let tls = self.emulator.ca.client_config(&["http/1.1"]);
        let tls_h2 = self.emulator.ca.client_config(&["h2"]);
        Running {
            server,
            admin,
            address,
            lines,
            tls: Arc::new(tls),
            tls_h2: Arc::new(tls_h2),
        }
    }

    /// Loads settings from a file.
    pub fn load(&self, settings: &str) -> Config {
        let path = self.dir().join("flowgate.toml");
        std::fs::write(&path, settings).unwrap();
        let secrets: Vec<(&str, &str)> = self
            .secrets
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let environment = Environment::from_pairs(secrets);
        match settings::load(&path, &environment) {
            Ok((config, _warnings)) => config,
            Err(report) => panic!("{}", report.render(settings::Style::Plain)),
        }
    }

    /// Starts a gateway with the base settings and these routes.
    pub fn start_with(&self, routes: &str) -> Running {
        self.start(&format!("{}{routes}", self.base()))
    }
}

fn certificate_files(dir: &Path, name: &str) -> (String, String) {
    let mut chain = None;
    let mut key = None;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let text = path.display().to_string();
        if !path.file_name().unwrap().to_string_lossy().starts_with(name) {
            continue;
        }
        if std::fs::read_to_string(&path)
            .unwrap_or_default()
            .contains("PRIVATE KEY")
        {
            key = Some(text);
        } else {
            chain = Some(text);
        }
    }
    (chain.unwrap(), key.unwrap())
}

/// A caller with one key.
pub fn caller(name: &str, key: &str) -> String {
    format!(
        "[[caller]]\nname = \"{name}\"\n[[caller.key]]\nlabel = \"{name}-1\"\ndigest = \"{}\"\n",
        digest(key)
    )
}

pub fn digest(key: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A gateway under test.
pub struct Running {
    pub server: Server,
    pub address: SocketAddr,
    pub admin: Option<SocketAddr>,
    pub lines: Arc<Lines>,
    tls: Arc<rustls::ClientConfig>,
    tls_h2: Arc<rustls::ClientConfig>,
}

pub fn post(path: &str) -> http::request::Builder {
    Request::post(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
}

impl Running {
    pub async fn tls_stream(&self) -> TlsStream<TcpStream> {
        tls_stream(self.address, &self.tls).await
    }

    /// A TLS connection for HTTP/1 from this address of loopback.
    pub async fn tls_stream_from(&self, from: std::net::Ipv4Addr) -> TlsStream<TcpStream> {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let tcp = socket.connect(self.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        TlsConnector::from(self.tls.clone())
            .connect(name, tcp)
            .await
            .unwrap()
    }

    /// A TLS connection on which HTTP/2 was agreed.
    pub async fn tls_stream_h2(&self) -> TlsStream<TcpStream> {
        tls_stream(self.address, &self.tls_h2).await
    }

    /// Sends one request on a connection of its own.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let mut connection = self.connect().await;
        connection.send(request).await
    }

    /// Posts JSON with the key of `shop`.
    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(
            post(path)
                .header("x-api-key", KEY)
                .body(Full::from(body.to_owned()))
                .unwrap(),
        )
        .await
    }

    /// A connection for several requests, HTTP/1.1.
    pub async fn connect(&self) -> Http1 {
        let io = TokioIo::new(self.tls_stream().await);
        let (sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        Http1 { sender }
    }

    /// A connection for many requests, HTTP/2.
    pub async fn connect_h2(&self) -> http2::SendRequest<Full<Bytes>> {
        let io = TokioIo::new(self.tls_stream_h2().await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        sender
    }

    /// Writes bytes as they are and reads until the gateway closes.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.tls_stream().await;
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        // A peer that closes without a TLS goodbye is an error here and not the point of any test.
        let _ = read.expect("the gateway keeps the connection open");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Asks the admin listener.
    pub async fn admin(&self, path: &str) -> (u16, String) {
        let address = self.admin.unwrap();
        let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (mut sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        let request = Request::get(path)
            .header("host", "localhost")
            .body(Full::<Bytes>::default())
            .unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
    }

    /// Waits until the identity has a token, so that a test's own requests are the first thing that happens.
    pub async fn ready(&self) {
        let ready = async {
            while self.admin("/readyz").await.0 != 200 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, ready)
            .await
            .expect("the gateway does not get ready");
    }
}

async fn tls_stream(address: SocketAddr, tls: &Arc<rustls::ClientConfig>) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(address).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    TlsConnector::from(tls.clone()).connect(name, tcp).await.unwrap()
}

/// A connection for several requests.
pub struct Http1 {
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Http1 {
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Answer {
        let exchange = async {
            self.sender.ready().await.unwrap();
            let (head, body) = self.sender.send_request(request).await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Answer {
                status: head.status,
                headers: head.headers,
                body,
            }
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .expect("no answer in time")
    }

    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }
}

/// Sends over HTTP/2 and reads the answer to its end.
pub async fn send_h2(sender: &mut http2::SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Answer {
    let exchange = async {
        sender.ready().await.unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: head.status,
            headers: head.headers,
            body,
        }
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .expect("no answer in time")
}
