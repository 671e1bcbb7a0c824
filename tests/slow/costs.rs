//! The memory of one request in progress: at most ten times its size, plus 64 KiB.

use std::fmt::Write as _;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::crowd::{TURNS, world};
use crate::emulator::Answer as Flow;
use crate::emulator::certs::server_name;
use crate::emulator::{Trigger, TriggerHandle};
use crate::frames;
use crate::harness::{KEY, TENANT, World};
use crate::program::Program;

/// Requests at one time, all of them inside of the flow.
const COUNT: u64 = 64;
/// Requests sent before the measurement: they touch the code and the memory that all share.
const WARM_UP: u64 = 2;

/// The program, and a flow that holds requests until it is released.
struct Site {
    world: World,
    program: Program,
    trigger: TriggerHandle,
}

impl Site {
    fn new(settings: &str) -> Self {
        let world = world();
        let trigger = world
            .emulator
            .flow
            .add(Trigger::any_user(TENANT).unchecked().does(Flow::Accepted));
        let plenty = "rate = { requests = 100000, per = \"1s\" }\n";
        let base = world.base().replace("workers = 2", "workers = 1");
        let route = world.route("orders", "/orders", &trigger.url(), plenty);
        let program = Program::start(&world, &format!("log.format = \"json\"\n{settings}{base}{route}"));
        Self {
            world,
            program,
            trigger,
        }
    }

    async fn connect(&self, protocol: &str) -> TlsStream<TcpStream> {
        let tls = TlsConnector::from(Arc::new(self.world.emulator.ca.client_config(&[protocol])));
        let tcp = TcpStream::connect(self.program.address).await.unwrap();
        tls.connect(server_name("localhost"), tcp).await.unwrap()
    }

    /// Sends this many, each on a connection of its own, and waits until the flow has them.
    async fn send(&self, request: &[u8], count: u64) -> Vec<TlsStream<TcpStream>> {
        let gate = self.trigger.hold();
        let mut all = Vec::new();
        for _ in 0..count {
            let mut stream = self.connect("http/1.1").await;
            stream.write_all(request).await.unwrap();
            stream.flush().await.unwrap();
            all.push(stream);
        }
        gate.arrived(count).await;
        all
    }
}

fn assert_bounded(name: &str, before: u64, after: u64, size: usize) {
    let each = after.saturating_sub(before) / COUNT;
    println!("{name}: {size} bytes cost {each}");
    let most = 10 * size as u64 + 64 * 1024;
    assert!(
        each <= most,
        "{name}: a request of {size} bytes costs {each}, more than {most}"
    );
}

/// Measures a request over HTTP/1 that is `size` bytes large.
async fn costs(name: &str, settings: &str, request: String, size: usize) {
    let _turn = TURNS.acquire().await.unwrap();
    let site = Site::new(settings);
    drop(site.send(request.as_bytes(), WARM_UP).await);
    let before = site.program.memory();
    let all = site.send(request.as_bytes(), COUNT).await;
    assert_bounded(name, before, site.program.memory(), size);
    drop(all);
}

/// An order with these lines in its head and without a body.
fn order(target: &str, lines: &str) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: 0\r\n{lines}\r\n"
    )
}

fn fields(count: usize, value: &str) -> String {
    (0..count).fold(String::new(), |mut lines, number| {
        write!(lines, "x{number:x}:{value}\r\n").unwrap();
        lines
    })
}

#[tokio::test]
async fn a_small_request_takes_little_memory() {
    let request = order("/orders", "");
    let size = request.len();
    costs("small", "", request, size).await;
}

#[tokio::test]
async fn a_large_head_of_many_fields_is_bounded() {
    // 32 KiB and 100 fields are the limits.
    let request = order("/orders", &fields(96, &"v".repeat(330)));
    let size = request.len();
    assert!((32_000..32_768).contains(&size), "{size}");
    costs("large head", "", request, size).await;
}

#[tokio::test]
async fn many_small_fields_are_bounded() {
    let request = order("/orders", &fields(96, ""));
    let size = request.len();
    costs("small fields", "", request, size).await;
}

#[tokio::test]
async fn as_many_fields_as_can_be_allowed_are_bounded() {
    let request = order("/orders", &fields(296, ""));
    let size = request.len();
    costs("296 fields", "connections.headers_max = 300\n", request, size).await;
}

#[tokio::test]
async fn a_long_target_is_bounded() {
    let request = order(&format!("/orders?{}", "q=%20&".repeat(2_700)), "");
    let size = request.len();
    costs("long target", "", request, size).await;
}

#[tokio::test]
async fn a_held_body_in_chunks_of_one_byte_is_bounded() {
    const BODY: usize = 64 * 1024;
    let mut request = order("/orders", "").replace("Content-Length: 0", "Transfer-Encoding: chunked");
    request += &"1\r\nx\r\n".repeat(BODY);
    request += "0\r\n\r\n";
    costs("small chunks", "", request, BODY).await;
}

/// Reads until the flow's answer has arrived; its content does not matter.
async fn answered(stream: &mut TlsStream<TcpStream>) {
    frames::until(frames::HEADERS, stream).await.unwrap();
}

#[tokio::test]
async fn fields_that_unfold_on_http2_are_bounded() {
    let _turn = TURNS.acquire().await.unwrap();
    let site = Site::new("");
    let mut stream = site.connect("h2").await;
    stream.write_all(frames::PREFACE).await.unwrap();
    let hello = frames::frame(frames::SETTINGS, 0, 0, &[]);
    stream.write_all(&hello).await.unwrap();
    // Stored by the other side under the first free index, 62 (RFC 7541 sections 2.3.3 and 6.2.1).
    let mut kept = frames::order_block();
    kept.push(0x40);
    frames::text(&mut kept, "x-bomb");
    frames::text(&mut kept, &"b".repeat(4_000));
    stream.write_all(&frames::request(1, &kept)).await.unwrap();
    answered(&mut stream).await;
    let before = site.program.memory();
    let gate = site.trigger.hold();
    let mut bomb = frames::order_block();
    bomb.extend([0x80 | 62; 7]);
    for number in 1..=COUNT {
        let stream_id = u8::try_from(2 * number + 1).unwrap();
        stream
            .write_all(&frames::request(stream_id, &bomb))
            .await
            .unwrap();
    }
    stream.flush().await.unwrap();
    gate.arrived(COUNT).await;
    let size = frames::request(1, &bomb).len();
    assert_bounded("unfolding fields", before, site.program.memory(), size);
    let seen = site.trigger.last_request();
    let bombs = seen
        .head
        .headers
        .iter()
        .filter(|(name, _)| name == "x-bomb")
        .count();
    assert_eq!(bombs, 7);
}
