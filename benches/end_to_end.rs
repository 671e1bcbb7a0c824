//! One request through everything: TLS in, the checks, a token, TLS out to the emulator, and back. Emulator
//! and gateway run on threads of their own; the measurement is the round trip that a caller sees on a kept
//! connection.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench ends when its own machinery fails"
)]

#[path = "../tests/emulator/mod.rs"]
mod emulator;

use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use emulator::{Answer, Emulator, Trigger};
use flowgate::counters::Counters;
use flowgate::gateway::log::Log;
use flowgate::server::Server;
use flowgate::settings;
use flowgate::settings::{Environment, KeyDigest};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const TENANT: &str = "11111111-2222-4333-8444-555555555555";
const APP: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";
const KEY: &str = "key-of-the-bench";

fn gateway(emulator: &Emulator) -> Server {
    let trigger = emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Answer::json(200, &json!({"ok": true}))));
    let leaf = emulator
        .ca
        .leaf(&["localhost"])
        .write(emulator.dir(), "gateway")
        .unwrap();
    let ca = emulator.ca_file();
    let fast = "{ requests = 1000000, per = \"1s\", burst = 1000000 }";
    let settings = format!(
        r#"
[gateway]
workers = 1
[limits]
gateway = {fast}
[admin]
off = true
[log]
access = false
[[listener]]
address = "127.0.0.1:0"
[[listener.certificate]]
chain = {:?}
key = "file:{}"
[[identity]]
name = "contoso"
tenant = "{TENANT}"
client_id = "{APP}"
client_secret = "env:SECRET"
authority = "{}"
ca_file = {ca:?}
[[caller]]
name = "shop"
rate = {fast}
[[caller.key]]
label = "bench"
digest = "{}"
[[route]]
name = "orders"
path = "/orders"
callers = ["shop"]
identity = "contoso"
trigger = "{}"
ca_file = {ca:?}
rate = {fast}
"#,
        leaf.chain,
        leaf.key.display(),
        emulator.entra.authority(),
        KeyDigest::of(KEY.as_bytes(), None).to_setting(),
        trigger.url(),
    );
    let environment = Environment::from_pairs([("SECRET", "bench-secret")]);
    let parsed = settings::parse(&settings, &emulator.dir().join("flowgate.toml"), &environment);
    let (config, _) = match parsed {
        Ok(parsed) => parsed,
        Err(report) => panic!("{}", report.render(settings::Style::Plain)),
    };
    Server::start(&config, &Counters::new(), Log::off()).unwrap()
}

async fn connect(emulator: &Emulator, server: &Server) -> http1::SendRequest<Full<Bytes>> {
    let tcp = TcpStream::connect(server.addresses()[0]).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let tls = TlsConnector::from(Arc::new(emulator.ca.client_config(&["http/1.1"])));
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let stream = tls.connect(name, tcp).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    sender
}

async fn post(sender: &mut http1::SendRequest<Full<Bytes>>, key: &str, body: Bytes) -> u16 {
    let request = Request::post("/orders")
        .header("host", "localhost")
        .header("x-api-key", key)
        .header("content-type", "application/json")
        .body(Full::new(body))
        .unwrap();
    sender.ready().await.unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    response.into_body().collect().await.unwrap();
    status
}

fn end_to_end(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let emulator = Emulator::start_on_own_thread();
    emulator.register_app(TENANT, APP, "bench-secret", "oid");
    emulator.flow.stop_recording();
    let server = gateway(&emulator);
    let sender = Arc::new(tokio::sync::Mutex::new(
        runtime.block_on(connect(&emulator, &server)),
    ));
    let body = Bytes::from(vec![b'x'; 1024]);
    for (name, key, wanted) in [("forward", KEY, 200), ("refuse", "wrong-key", 0)] {
        criterion.bench_function(name, |bench| {
            bench.to_async(&runtime).iter(|| async {
                let status = post(&mut *sender.lock().await, key, body.clone()).await;
                // A wrong key gets 401 first and 429 after a few tries: both are refusals.
                assert!(
                    status == wanted || (wanted == 0 && matches!(status, 401 | 429)),
                    "{status}"
                );
            });
        });
    }
}

criterion_group!(benches, end_to_end);
criterion_main!(benches);
