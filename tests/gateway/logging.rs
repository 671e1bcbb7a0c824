//! What the program logs when others try to make it log: few lines, short ones, and no path of the build
//! machine. What it does when the log cannot be written.

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::emulator::Answer as Flow;
use crate::emulator::Trigger;
use crate::emulator::certs::server_name;
use crate::harness::{PATIENCE, SECRET, TENANT, World, post};
use crate::listening::frames::{ACK, PING, SETTINGS, frame};
use crate::listening::{Talk, order_bytes};
use crate::program::Program;

async fn settings(world: &World) -> String {
    let trigger = Trigger::any_user(TENANT).does(Flow::Accepted);
    let trigger = world.emulator.flow.add(trigger);
    let route = world.route(
        "orders",
        "/orders",
        &trigger.url(),
        "rate = { requests = 100000, per = \"1s\" }\n",
    );
    let base = world.base().replace(
        "name = \"shop\"\n",
        "name = \"shop\"\nrate = { requests = 100000, per = \"1s\" }\n",
    );
    format!("[log]\nformat = \"json\"\nlevel = \"LEVEL\"\n{base}{route}")
}

/// The first bytes of a TLS handshake for a name that is not a host name.
fn hello_for_no_name(world: &World) -> Vec<u8> {
    let config = Arc::new(world.emulator.ca.client_config(&["http/1.1"]));
    let mut client = rustls::ClientConnection::new(config, server_name("localhost")).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let at = hello.windows(9).position(|bytes| bytes == b"localhost").unwrap();
    hello[at..at + 9].copy_from_slice(b".\x1b[31m\n..");
    hello
}

/// Writes bytes and reads until the gateway closes.
async fn say(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
}

/// All lines from here to the end of the program.
async fn rest(program: &mut Program) -> Vec<Value> {
    program.signal("TERM");
    let mut lines = Vec::new();
    let mut last = false;
    while !last {
        let line = program.line(|_| true).await;
        last = line["message"] == "drained";
        lines.push(line);
    }
    lines
}

fn of_libraries(lines: &[Value]) -> Vec<&Value> {
    let foreign = |line: &&Value| {
        let target = line["target"].as_str();
        line.is_string() || target.is_some_and(|target| !target.starts_with("flowgate"))
    };
    lines.iter().filter(foreign).collect()
}

#[tokio::test]
async fn a_flood_that_makes_a_library_log_has_a_few_short_lines() {
    const FLOOD: usize = 200;
    let world = World::new().await;
    let hello = hello_for_no_name(&world);
    let settings = settings(&world).await.replace("LEVEL", "info");
    let mut program = Program::start(&world, &settings);
    let address = program.address().await;
    let began = Instant::now();
    for _ in 0..FLOOD {
        say(address, &hello).await;
    }
    let lines = rest(&mut program).await;
    let lines = of_libraries(&lines);
    assert!(!lines.is_empty(), "the library has logged nothing");
    // A few at once, and one per second after that.
    let most = 10 + began.elapsed().as_secs();
    assert!(lines.len() as u64 <= most, "{} lines", lines.len());
    let suppressed = lines.iter().filter_map(|line| line["suppressed"].as_u64());
    let heard = suppressed.sum::<u64>() + lines.len() as u64;
    assert!(heard <= 2 * FLOOD as u64, "{heard} lines of {FLOOD} handshakes");
    for line in lines {
        let text = line.to_string();
        assert!(text.len() < 1024, "{text}");
        assert!(!text.contains("cargo") && !text.contains("/src/"), "{text}");
        assert!(
            line["message"].as_str().unwrap().contains("Illegal SNI"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_flood_of_answers_to_no_ping_ends_and_logs_a_few_lines() {
    // More than the credit of a connection, so the flood does not end by itself.
    const FLOOD: usize = 50_000;
    let world = World::new().await;
    let settings = settings(&world).await.replace("LEVEL", "info");
    let mut program = Program::start(&world, &settings);
    let address = program.address().await;
    let connect = async |protocol: &str| {
        let tls = TlsConnector::from(Arc::new(world.emulator.ca.client_config(&[protocol])));
        let tcp = TcpStream::connect(address).await.unwrap();
        tls.connect(server_name("localhost"), tcp).await.unwrap()
    };
    let mut good = Talk::new(connect("http/1.1").await);
    let (mut reader, mut writer) = tokio::io::split(connect("h2").await);
    let began = Instant::now();
    let flood = tokio::spawn(async move {
        let hello = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            &frame(SETTINGS, 0, 0, &[])[..],
        ]
        .concat();
        writer.write_all(&hello).await.unwrap();
        let some = frame(PING, ACK, 0, b"12345678").repeat(100);
        for _ in 0..FLOOD / 100 {
            if writer.write_all(&some).await.is_err() {
                return;
            }
        }
        // It may have been cut after the last byte fit into the socket.
        let _ = writer.flush().await;
    });
    let over = async {
        // Cut, with or without a goodbye.
        let _ = reader.read_to_end(&mut Vec::new()).await;
    };
    tokio::time::timeout(PATIENCE, over)
        .await
        .expect("the flood goes on");
    flood.await.unwrap();
    good.say(order_bytes("")).await;
    assert_eq!(good.hear().await.status, 202);
    let lines = rest(&mut program).await;
    let floods = lines
        .iter()
        .filter(|line| line["reason"] == "http2-flood")
        .count();
    assert_eq!(floods, 1, "{lines:#?}");
    // Those of the one code location: a few at once, and one per second after that.
    let lines = of_libraries(&lines);
    assert!(!lines.is_empty(), "the library has logged nothing");
    let most = 10 + began.elapsed().as_secs();
    assert!(lines.len() as u64 <= most, "{} lines", lines.len());
    for line in lines {
        let text = line.to_string();
        assert!(text.contains("PING ack") && text.len() < 1024, "{text}");
    }
}

#[tokio::test]
async fn libraries_are_silent_where_only_errors_are_logged() {
    let world = World::new().await;
    let hello = hello_for_no_name(&world);
    let (address, admin) = (free_address(), free_address());
    let settings = settings(&world)
        .await
        .replace("LEVEL", "error")
        .replacen("127.0.0.1:0", &admin.to_string(), 1)
        .replacen("127.0.0.1:0", &address.to_string(), 1);
    let mut program = Program::start(&world, &settings);
    dropped(admin).await;
    say(address, &hello).await;
    // A connection line ends the search: it is written after those of the handshake.
    let mut lines = Vec::new();
    loop {
        let line = program.line(|_| true).await;
        let over = line["kind"] == "connection";
        lines.push(line);
        if over {
            break;
        }
    }
    assert_eq!(of_libraries(&lines), Vec::<&Value>::new());
}

#[tokio::test]
async fn a_long_field_name_is_cut_in_the_answer_and_in_the_log() {
    let world = World::new().await;
    let gateway = world.start(&settings(&world).await.replace("LEVEL", "info"));
    let name = format!("x-flowgate_{}", "a".repeat(16_000));
    let request = post("/orders").header(name, "1").body(Full::<Bytes>::default());
    let answer = gateway.send(request.unwrap()).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.body.len() < 1024, "{} bytes", answer.body.len());
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("x-flowgate_aaa") && detail.contains("x-flowgate-aaa"),
        "{detail}"
    );
    let line = gateway.lines.of(&answer).await.to_string();
    assert!(line.len() < 1024, "{line}");
}

/// Heads with one long part each, which is invalid.
fn long_heads() -> Vec<String> {
    let long = "a".repeat(12_000);
    let usual = "host: localhost\r\nconnection: close\r\n";
    let lines = [
        format!("GET /{long} HTTP/1.1\r\n{usual}"),
        format!("GET /orders/../{long} HTTP/1.1\r\n{usual}"),
        format!("GET /{} HTTP/1.1\r\n{usual}", "a/".repeat(6000)),
        format!("GET /%zz{long} HTTP/1.1\r\n{usual}"),
        format!("GET /?{long} HTTP/1.1\r\n{usual}"),
        format!("GET http://{long}/ HTTP/1.1\r\n{usual}"),
        format!("{long} /orders HTTP/1.1\r\n{usual}"),
        format!("GET /orders HTTP/{long}\r\n{usual}"),
        format!("GET /orders HTTP/1.1\r\nhost: {long}\r\n"),
    ];
    let fields = [
        format!("x_flowgate_{long}: 1"),
        format!("{long}\u{1}: 1"),
        format!("x-api-key: {long}"),
        format!("authorization: Bearer {long}"),
        format!("authorization: Basic {long}"),
        format!("expect: {long}"),
        format!("connection: {long}"),
        format!("content-length: {}", "9".repeat(12_000)),
        format!("transfer-encoding: {long}"),
        format!("content-type: {long}"),
    ];
    let fields = fields.map(|field| format!("POST /orders HTTP/1.1\r\n{usual}{field}\r\n"));
    lines
        .into_iter()
        .chain(fields)
        .map(|head| head + "\r\n")
        .collect()
}

#[tokio::test]
async fn no_long_part_of_a_head_makes_an_answer_or_a_line_long() {
    let world = World::new().await;
    let gateway = world.start(&settings(&world).await.replace("LEVEL", "info"));
    let heads = long_heads();
    for head in &heads {
        let answer = gateway.raw(head.as_bytes()).await;
        let shown = &head[..head.len().min(100)];
        assert!(answer.starts_with("HTTP/1.1 4"), "{shown}: {answer}");
        assert!(
            answer.len() < 1500,
            "{shown}: {} bytes of an answer",
            answer.len()
        );
        let id = answer
            .split("x-request-id: ")
            .nth(1)
            .unwrap()
            .split('\r')
            .next()
            .unwrap();
        let line = gateway
            .lines
            .wait_for(|line| line["request"] == id)
            .await
            .to_string();
        assert!(line.len() < 1500, "{shown}: {} bytes of a line", line.len());
    }
    // Other lines, of connections for example.
    for line in gateway.lines.all() {
        assert!(line.len() < 1500, "{} bytes of a line", line.len());
    }
}

fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// The number of lost lines, as soon as the program answers.
async fn dropped(admin: SocketAddr) -> u64 {
    let ask = async {
        loop {
            let Ok(mut stream) = TcpStream::connect(admin).await else {
                tokio::task::yield_now().await;
                continue;
            };
            let request = format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
            let mut text = String::new();
            if stream.write_all(request.as_bytes()).await.is_err()
                || stream.read_to_string(&mut text).await.is_err()
            {
                continue;
            }
            let figure = text
                .lines()
                .find_map(|line| line.strip_prefix("flowgate_log_lines_dropped "));
            return figure.unwrap().parse().unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, ask)
        .await
        .expect("it does not start")
}

/// The program with its log in a file that cannot grow beyond 16 KiB, as on a full disk.
struct Confined(Child);

impl Drop for Confined {
    fn drop(&mut self) {
        // It runs until the test ends.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Confined {
    fn start(world: &World, settings: &str) -> Self {
        world.file("program.toml", settings);
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(world.dir().join("log"))
            .unwrap();
        let confined = "trap '' XFSZ; ulimit -f 16; exec \"$0\" serve --config \"$1\"";
        let child = Command::new("bash")
            .args(["-c", confined, env!("CARGO_BIN_EXE_flowgate")])
            .arg(world.dir().join("program.toml"))
            .env("CONTOSO_SECRET", SECRET)
            .stdout(log)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }
}

#[tokio::test]
async fn a_full_disk_is_reported_once_and_the_lost_lines_when_there_is_room() {
    let world = World::new().await;
    let (address, admin) = (free_address(), free_address());
    let settings = settings(&world)
        .await
        .replace("LEVEL", "info")
        .replacen("127.0.0.1:0", &admin.to_string(), 1)
        .replacen("127.0.0.1:0", &address.to_string(), 1);
    let mut program = Confined::start(&world, &settings);
    let log = world.dir().join("log");
    dropped(admin).await;
    let tls = TlsConnector::from(Arc::new(world.emulator.ca.client_config(&["http/1.1"])));
    let tcp = TcpStream::connect(address).await.unwrap();
    let mut caller = Talk::new(tls.connect(server_name("localhost"), tcp).await.unwrap());

    while dropped(admin).await < 20 {
        caller.say(order_bytes("")).await;
        caller.hear().await;
    }
    std::fs::File::options()
        .write(true)
        .open(&log)
        .unwrap()
        .set_len(0)
        .unwrap();
    let found = async {
        loop {
            caller.say(order_bytes("")).await;
            assert_eq!(caller.hear().await.status, 202);
            let text = std::fs::read_to_string(&log).unwrap();
            if let Some(line) = text.lines().find(|line| line.contains("\"lost\":")) {
                return line.to_owned();
            }
        }
    };
    let notice = tokio::time::timeout(PATIENCE, found)
        .await
        .expect("no line says it");
    let notice: Value = serde_json::from_str(&notice).unwrap();
    assert!(notice["lost"].as_u64().unwrap() >= 20, "{notice}");
    assert_eq!(notice["lost"], dropped(admin).await);
    assert_eq!(notice["level"], "WARN");

    program.0.kill().unwrap();
    let mut complaints = String::new();
    program
        .0
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut complaints)
        .unwrap();
    assert_eq!(
        complaints.matches("the log cannot be written").count(),
        1,
        "{complaints}"
    );
}
