//! The program when the system runs out of file descriptors or of space for its log, and what it logs there
//! when request lines are off.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::emulator::Answer as Flow;
use crate::emulator::Trigger;
use crate::emulator::certs::server_name;
use crate::harness::{Answer, CLIENT, PATIENCE, SECRET, TENANT, World};
use crate::listening::{Talk, order_bytes};

/// File descriptors of the program: enough to serve, and few enough to exhaust.
const DESCRIPTORS: usize = 64;
/// Processor time in a second of idleness, in ticks of 10 ms; retrying without a pause would take a hundred
/// on each worker.
const REST_TICKS_MAX: u64 = 30;

/// The program, with its standard output redirected.
struct Program {
    child: Child,
}

impl Drop for Program {
    fn drop(&mut self) {
        // It runs until the test ends.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    fn start(world: &World, settings: &str, out: Stdio) -> Self {
        world.file("program.toml", settings);
        let limited = format!("ulimit -n {DESCRIPTORS}; exec \"$0\" serve --config \"$1\"");
        let child = Command::new("bash")
            .args(["-c", &limited, env!("CARGO_BIN_EXE_flowgate")])
            .arg(world.dir().join("program.toml"))
            .env("CONTOSO_SECRET", SECRET)
            .stdout(out)
            .spawn()
            .unwrap();
        Self { child }
    }

    /// Its log lines.
    fn lines(&mut self) -> mpsc::UnboundedReceiver<Value> {
        let out = BufReader::new(self.child.stdout.take().unwrap());
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        lines
    }

    /// Its processor time, in ticks.
    fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name of the program is in parentheses and may contain spaces.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

async fn line(lines: &mut mpsc::UnboundedReceiver<Value>, fits: impl Fn(&Value) -> bool) -> Value {
    let search = async {
        loop {
            let line = lines.recv().await.expect("the program ended");
            if fits(&line) {
                return line;
            }
        }
    };
    tokio::time::timeout(PATIENCE, search)
        .await
        .expect("no such line")
}

async fn talk(world: &World, address: SocketAddr) -> Talk<TlsStream<TcpStream>> {
    let tls = TlsConnector::from(Arc::new(world.emulator.ca.client_config(&["http/1.1"])));
    let connect = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        tls.connect(server_name("localhost"), tcp).await.unwrap()
    };
    let stream = tokio::time::timeout(PATIENCE, connect).await;
    Talk::new(stream.expect("no new connection is served"))
}

async fn post(talk: &mut Talk<TlsStream<TcpStream>>, path: &str) -> Answer {
    talk.say(order_bytes("").replace("/orders", path)).await;
    talk.hear().await
}

/// Posts until the answer has this status.
async fn until(talk: &mut Talk<TlsStream<TcpStream>>, path: &str, status: u16) {
    let come = async {
        while post(talk, path).await.status != status {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, come)
        .await
        .unwrap_or_else(|_| panic!("{path} never has {status}"));
}

/// Three routes: one whose flow has a connection, one whose flow has none, one whose token is in a file.
fn settings(world: &World) -> String {
    // Connections are shared by all triggers of a host, so the second flow needs another name.
    let flow = |name: &str, path: &str, host: &str, more: &str| {
        let trigger = Trigger::any_user(TENANT).does(Flow::Accepted);
        let trigger = world.emulator.flow.add(trigger);
        world.route(
            name,
            path,
            &trigger.url_on(host),
            &format!("rate = {{ requests = 100000, per = \"1s\" }}\n{more}"),
        )
    };
    let base = world.base().replace("workers = 2", "workers = 1").replace(
        "name = \"shop\"\n",
        "name = \"shop\"\nrate = { requests = 100000, per = \"1s\" }\n",
    );
    format!(
        "[connections]\nhandshake_timeout = \"5m\"\n[log]\nformat = \"json\"\n{base}[[identity]]\nname = \
         \"file\"\ntenant = \"{TENANT}\"\ntoken_file = \"token\"\n{}{}{}",
        flow("orders", "/orders", "localhost", ""),
        flow("others", "/others", "127.0.0.1", ""),
        flow("filed", "/filed", "localhost", "identity = \"file\""),
    )
}

#[tokio::test]
async fn without_file_descriptors_it_serves_open_connections_pauses_and_recovers() {
    let world = World::new().await;
    let mut program = Program::start(&world, &settings(&world), Stdio::piped());
    let mut lines = program.lines();
    let listening = line(&mut lines, |line| line["message"] == "listening").await;
    let address: SocketAddr = listening["address"].as_str().unwrap().parse().unwrap();
    let mut kept = talk(&world, address).await;
    until(&mut kept, "/orders", 202).await;

    let mut flood = Vec::new();
    for _ in 0..2 * DESCRIPTORS {
        flood.push(TcpStream::connect(address).await.unwrap());
    }
    line(&mut lines, |line| {
        line["message"] == "cannot accept connections at the moment"
    })
    .await;
    assert_eq!(
        post(&mut kept, "/orders").await.status,
        202,
        "an open connection is served"
    );
    let other = post(&mut kept, "/others").await;
    assert_eq!(
        (other.status.as_u16(), other.code().as_str()),
        (502, "flow-unreachable")
    );

    let claims = json!({"oid": "filed"});
    let audience = "https://service.flow.microsoft.com/";
    let token = world.emulator.entra.token_for(TENANT, CLIENT, audience, &claims);
    world.file("token", &token);
    let unread = async {
        loop {
            let answer = post(&mut kept, "/filed").await;
            assert!(answer.code().starts_with("token-"), "{}", answer.text());
            let id = answer.header("x-request-id").unwrap().to_owned();
            let line = line(&mut lines, |line| line["request"] == id.as_str()).await;
            if line["cause"].as_str().unwrap().contains("os error 24") {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, unread)
        .await
        .expect("the file is read without a descriptor");

    let before = program.ticks();
    kept.silence(Duration::from_secs(1)).await;
    let ticks = program.ticks() - before;
    assert!(ticks <= REST_TICKS_MAX, "{ticks} ticks in a second of rest");

    drop(flood);
    let mut newcomer = talk(&world, address).await;
    until(&mut newcomer, "/orders", 202).await;
    until(&mut newcomer, "/others", 202).await;
    until(&mut newcomer, "/filed", 202).await;
}

/// An address that nobody listens on.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// A metric of the program; `None` before it listens.
async fn figure(admin: SocketAddr, name: &str) -> Option<u64> {
    let mut stream = TcpStream::connect(admin).await.ok()?;
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Some(value?.parse().unwrap())
}

#[tokio::test]
async fn without_room_for_its_log_it_serves_and_counts_what_is_lost() {
    let world = World::new().await;
    let (address, admin) = (free_address(), free_address());
    let settings = settings(&world)
        .replacen("127.0.0.1:0", &admin.to_string(), 1)
        .replacen("127.0.0.1:0", &address.to_string(), 1);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let _program = Program::start(&world, &settings, full.into());
    started(admin).await;
    let mut caller = talk(&world, address).await;
    until(&mut caller, "/orders", 202).await;
    let before = figure(admin, "flowgate_log_lines_dropped").await.unwrap();
    for _ in 0..50 {
        assert_eq!(post(&mut caller, "/orders").await.status, 202);
    }
    dropped(admin, before + 50).await;
}

async fn started(admin: SocketAddr) {
    let started = async {
        while figure(admin, "flowgate_ready").await.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, started)
        .await
        .expect("it does not start");
}

/// Waits until this many lines are lost.
async fn dropped(admin: SocketAddr, count: u64) {
    let counted = async {
        while figure(admin, "flowgate_log_lines_dropped").await.unwrap() < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, counted)
        .await
        .expect("lost lines are not counted");
}

/// Writes bytes to the TLS port that are not TLS.
async fn not_tls(address: SocketAddr) {
    let mut talk = Talk::new(TcpStream::connect(address).await.unwrap());
    talk.say("GET / HTTP/1.1\r\n\r\n").await;
    talk.rest().await;
}

const NO_ACCESS_LOG: (&str, &str) = ("[log]\n", "[log]\naccess = false\n");

#[tokio::test]
async fn without_lines_of_requests_those_of_connections_are_written() {
    let world = World::new().await;
    let settings = settings(&world).replace(NO_ACCESS_LOG.0, NO_ACCESS_LOG.1);
    let mut program = Program::start(&world, &settings, Stdio::piped());
    let mut lines = program.lines();
    let listening = line(&mut lines, |line| line["message"] == "listening").await;
    let address: SocketAddr = listening["address"].as_str().unwrap().parse().unwrap();
    let mut caller = talk(&world, address).await;
    until(&mut caller, "/orders", 202).await;
    not_tls(address).await;
    let logged = line(&mut lines, |line| !line["kind"].is_null()).await;
    assert_eq!(
        (&logged["kind"], &logged["reason"]),
        (&"connection".into(), &"not-tls".into())
    );
}

#[tokio::test]
async fn without_lines_of_requests_a_lost_one_of_a_connection_is_counted() {
    let world = World::new().await;
    let (address, admin) = (free_address(), free_address());
    let settings = settings(&world)
        .replace(NO_ACCESS_LOG.0, NO_ACCESS_LOG.1)
        .replacen("127.0.0.1:0", &admin.to_string(), 1)
        .replacen("127.0.0.1:0", &address.to_string(), 1);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let _program = Program::start(&world, &settings, full.into());
    started(admin).await;
    let before = figure(admin, "flowgate_log_lines_dropped").await.unwrap();
    not_tls(address).await;
    dropped(admin, before + 1).await;
}
