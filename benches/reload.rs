//! What a reload costs: latency of calls while settings are reloaded again and again, the time to build 100,000 keys, and memory
//! after many reloads. Callers, emulator and gateway share the machine, so the figures with reloads are put beside those
//! without, from the same run. `cargo bench --bench reload`; with `--test` a short run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench ends when its own machinery fails, and prints"
)]

#[path = "../tests/emulator/mod.rs"]
mod emulator;

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use emulator::{Answer, Emulator, Trigger};
use flowgate::counters::Counters;
use flowgate::gateway::Wanted;
use flowgate::gateway::log::Log;
use flowgate::server::Server;
use flowgate::settings;
use flowgate::settings::{Config, Environment, KeyDigest};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

const TENANT: &str = "11111111-2222-4333-8444-555555555555";
const APP: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";
const KEY: &str = "key-of-the-bench";
const CALLERS: usize = 4;

/// How much of everything is done.
struct Size {
    seconds: u64,
    reloads: usize,
    keys: usize,
    many: usize,
}

fn text(emulator: &Emulator, trigger: &str, leaf: &str) -> String {
    let ca = emulator.ca_file();
    let fast = "{ requests = 1000000, per = \"1s\", burst = 1000000 }";
    let key = KeyDigest::of(KEY.as_bytes(), None).to_setting();
    format!(
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
{leaf}
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
digest = "{key}"
[[caller]]
name = "others"
keys_file = "keys"
[[route]]
name = "orders"
path = "/orders"
callers = ["shop", "others"]
identity = "contoso"
trigger = "{trigger}"
ca_file = {ca:?}
rate = {fast}
"#,
        emulator.entra.authority(),
    )
}

/// Settings with so many keys, the first of which differs from one round to the next.
fn load(emulator: &Emulator, text: &str, keys: usize, round: usize) -> Arc<Config> {
    let mut list = String::new();
    for number in 0..keys {
        let key = format!("{}-{number}", if number == 0 { round } else { 0 });
        let digest = KeyDigest::of(key.as_bytes(), None).to_setting();
        writeln!(list, "k{number} {digest}").unwrap();
    }
    std::fs::write(emulator.dir().join("keys"), list).unwrap();
    let environment = Environment::from_pairs([("SECRET", "bench-secret")]);
    match settings::parse(text, &emulator.dir().join("flowgate.toml"), &environment) {
        Ok((config, _)) => Arc::new(config),
        Err(report) => panic!("{}", report.render(settings::Style::Plain)),
    }
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

/// Calls until it is done, with a pause after each call; the latency of each.
async fn call(
    mut sender: http1::SendRequest<Full<Bytes>>,
    pause: Duration,
    done: Arc<AtomicBool>,
) -> Vec<Duration> {
    let mut latencies = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let request = Request::post("/orders")
            .header("host", "localhost")
            .header("x-api-key", KEY)
            .body(Full::new(Bytes::from_static(b"{}")))
            .unwrap();
        let began = Instant::now();
        sender.ready().await.unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200, "a request failed");
        response.into_body().collect().await.unwrap();
        latencies.push(began.elapsed());
        tokio::time::sleep(pause).await;
    }
    latencies
}

/// Calls from all callers while `work` runs.
async fn under_load<T>(
    emulator: &Emulator,
    server: &mut Server,
    pause: Duration,
    work: impl AsyncFnOnce(&mut Server) -> T,
) -> (T, Vec<Duration>) {
    let done = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for _ in 0..CALLERS {
        callers.push(tokio::spawn(call(
            connect(emulator, server).await,
            pause,
            done.clone(),
        )));
    }
    let result = work(server).await;
    done.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for caller in callers {
        latencies.extend(caller.await.unwrap());
    }
    latencies.sort();
    (result, latencies)
}

fn shown(what: &str, latencies: &[Duration]) {
    let at = |part: usize| latencies[(latencies.len() * part / 1000).min(latencies.len() - 1)];
    println!(
        "{what}: {} calls, p50 {:?}, p99 {:?}, p99.9 {:?}",
        latencies.len(),
        at(500),
        at(990),
        at(999)
    );
}

fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kb = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    kb.unwrap_or_default()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let size = if std::env::args().any(|argument| argument == "--test") {
        Size {
            seconds: 1,
            reloads: 5,
            keys: 1_000,
            many: 20,
        }
    } else {
        Size {
            seconds: 5,
            reloads: 100,
            keys: 100_000,
            many: 1_000,
        }
    };
    let emulator = Emulator::start_on_own_thread();
    emulator.register_app(TENANT, APP, "bench-secret", "oid");
    emulator.flow.stop_recording();
    let trigger = emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Answer::json(200, &json!({"ok": true}))));
    let leaf = emulator
        .ca
        .leaf(&["localhost"])
        .write(emulator.dir(), "gateway")
        .unwrap();
    let leaf = format!(
        "[[listener.certificate]]\nchain = {:?}\nkey = \"file:{}\"",
        leaf.chain,
        leaf.key.display()
    );
    let text = text(&emulator, &trigger.url(), &leaf);
    let thousand: Vec<_> = (0..2).map(|round| load(&emulator, &text, 1_000, round)).collect();
    let mut server = Server::start(&thousand[0], &Counters::new(), Log::off()).unwrap();

    let pause = latencies(&size, &emulator, &mut server, &thousand).await;
    many_keys(&size, &emulator, &mut server, (&text, pause)).await;
    memory(&size, &mut server, &thousand).await;
    swaps(&size, &emulator, &server, &text).await;
}

/// Calls with and without reloads; the pause after a call that makes half of the full load.
async fn latencies(
    size: &Size,
    emulator: &Emulator,
    server: &mut Server,
    thousand: &[Arc<Config>],
) -> Duration {
    let period = Duration::from_secs(size.seconds);
    let wait = async |_: &mut Server| tokio::time::sleep(period).await;
    let (_, full) = under_load(emulator, server, Duration::ZERO, wait).await;
    shown("as fast as it goes", &full);
    // As long again as a call takes: half of that load.
    let pause = period * u32::try_from(CALLERS).unwrap() / u32::try_from(full.len()).unwrap();
    let (_, alone) = under_load(emulator, server, pause, wait).await;
    shown("half of that", &alone);
    let reloads = async |server: &mut Server| {
        let mut took = Vec::new();
        for round in 1..=size.reloads {
            let began = Instant::now();
            server
                .reload(&thousand[round % 2], Wanted::ByOperator)
                .await
                .unwrap();
            took.push(began.elapsed());
            tokio::time::sleep(period / u32::try_from(size.reloads).unwrap()).await;
        }
        took
    };
    let (mut took, with) = under_load(emulator, server, pause, reloads).await;
    shown(&format!("with {} reloads of 1,000 keys", size.reloads), &with);
    took.sort();
    println!("a reload of 1,000 keys: {:?} (median)", took[took.len() / 2]);

    pause
}

async fn many_keys(size: &Size, emulator: &Emulator, server: &mut Server, (text, pause): (&str, Duration)) {
    let period = Duration::from_secs(size.seconds);
    let began = Instant::now();
    let large = load(emulator, text, size.keys, 0);
    println!(
        "{} keys: hashed, written, read and checked in {:?}",
        size.keys,
        began.elapsed()
    );
    let once = async |server: &mut Server| {
        tokio::time::sleep(period / 4).await;
        let began = Instant::now();
        server.reload(&large, Wanted::ByOperator).await.unwrap();
        let took = began.elapsed();
        tokio::time::sleep(period / 4).await;
        took
    };
    let (took, latencies) = under_load(emulator, server, pause, once).await;
    println!("{} keys: built and put in force in {took:?}", size.keys);
    shown("calls around it", &latencies);
}

async fn memory(size: &Size, server: &mut Server, thousand: &[Arc<Config>]) {
    let mut after_ten = 0;
    for round in 1..=size.many {
        server
            .reload(&thousand[round % 2], Wanted::ByOperator)
            .await
            .unwrap();
        if round % 10 == 0 {
            // What was in force is dropped by then.
            tokio::time::sleep(Duration::from_millis(1100)).await;
        }
        if round == 10 {
            after_ten = resident_kb();
        }
    }
    println!(
        "memory: {after_ten} kB after 10 reloads, {} kB after {}",
        resident_kb(),
        size.many
    );
}

/// How long it takes to put a snapshot in force that is built already. Workers go on while it lasts.
async fn swaps(size: &Size, emulator: &Emulator, server: &Server, text: &str) {
    let large = load(emulator, text, size.keys, 1);
    let gateway = server.gateway().clone();
    let mut took = Vec::new();
    for _ in 0..10 {
        let prepared = gateway.prepare(&large, Wanted::ByOperator).unwrap();
        let began = Instant::now();
        let (_, retired) = gateway.put_in_force(prepared, &large);
        took.push(began.elapsed());
        gateway.clone().release(retired).await;
    }
    took.sort();
    println!(
        "{} keys: swapped in {:?} (median of 10), at most {:?}",
        size.keys, took[5], took[9]
    );
}
