//! The memory that an HTTP/2 connection can cost before a credential was accepted, with the most expensive
//! known sequences of frames: the largest of them determines the default of `connections.max`.

use std::net::Ipv4Addr;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::crowd::{TURNS, count, world};
use crate::emulator::Trigger;
use crate::emulator::certs::server_name;
use crate::frames;
use crate::frames::{HEADERS, SETTINGS};
use crate::harness::{PATIENCE, TENANT};
use crate::program::Program;

/// Most memory that one such connection may cost.
const BYTES_MAX: u64 = 100_000;
/// Connections opened before the measurement: they touch the code and the memory that all share.
const WARM_UP: usize = 8;
/// Memory readings without growth before the measurement ends.
const CALM_LOOKS: usize = 40;
const LOOK_PERIOD: std::time::Duration = std::time::Duration::from_millis(25);

const DATA: u8 = 0;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The longest payload of a frame, and the usual limit of a head.
const FRAME_BYTES: usize = 16_384;
const HEAD_BYTES: usize = 32 * 1024;

/// A frame of any stream and any length.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn field(kind: u8, name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![kind];
    frames::text(&mut bytes, name);
    frames::text(&mut bytes, value);
    bytes
}

/// The fields of a request without a key, followed by `more`.
fn fields(more: &[u8]) -> Vec<u8> {
    let mut block = vec![0x83, 0x87];
    block.extend(field(0, ":path", "/nowhere"));
    block.extend(field(0, ":authority", "localhost"));
    block.extend(more);
    block
}

/// Small fields that count for this many bytes together.
fn many(bytes: usize) -> Vec<u8> {
    let one = |number: usize| field(0, &format!("x{number:03}"), "1");
    (0..bytes / (4 + 1 + 32)).flat_map(one).collect()
}

/// A head in as many frames as necessary.
fn head(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    let mut pieces = block.chunks(FRAME_BYTES).peekable();
    let mut bytes = Vec::new();
    let mut kind = HEADERS;
    while let Some(piece) = pieces.next() {
        let end = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        let own = if kind == HEADERS { flags } else { 0 };
        bytes.extend(frame(kind, own | end, stream, piece));
        kind = CONTINUATION;
    }
    bytes
}

/// A head of this many bytes whose last frame never comes.
fn unfinished(stream: u32, bytes: usize) -> Vec<u8> {
    let block = fields(&field(0, "x-long", &"a".repeat(bytes - 100)));
    let mut all = Vec::new();
    for (number, piece) in block.chunks(FRAME_BYTES).enumerate() {
        let kind = if number == 0 { HEADERS } else { CONTINUATION };
        all.extend(frame(kind, 0, stream, piece));
    }
    all
}

/// Entries that fill the dynamic table.
fn table() -> Vec<u8> {
    (0..110)
        .flat_map(|number| field(0x40, &format!("y{number:02}"), ""))
        .collect()
}

fn hello(window: u32) -> Vec<u8> {
    let settings = [&[0, 4][..], &window.to_be_bytes()].concat();
    [frames::PREFACE.to_vec(), frame(SETTINGS, 0, 0, &settings)].concat()
}

fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| 2 * number + 1)
}

/// A body that fills the window of its stream.
fn body(stream: u32) -> Vec<u8> {
    let piece = frame(DATA, 0, stream, &[b'x'; FRAME_BYTES]);
    piece.repeat(4)
}

/// Requests whose bodies end early, each as soon as it was answered.
fn early(count: u32) -> Vec<Vec<u8>> {
    let fields = fields(&field(0, "content-length", "13"));
    let mut parts = vec![Vec::new()];
    for id in streams(count) {
        parts.last_mut().unwrap().extend(head(id, 0, &fields));
        parts.push(frame(DATA, END_STREAM, id, b""));
    }
    parts
}

/// The sequences, with the window size of their streams. What follows a part is sent once that part was answered.
fn sequences() -> Vec<(&'static str, u32, Vec<Vec<u8>>)> {
    let rest = [
        head(21, END_STREAM, &fields(&table())),
        head(23, END_STREAM, &large_fields()),
        unfinished(401, HEAD_BYTES - 16),
    ];
    let mut after_early = early(4);
    after_early.last_mut().unwrap().extend(rest.concat());
    let in_parts = [
        ("bodies that end early", 65_535, early(4)),
        ("these, a full table and half a head", 65_535, after_early),
    ];
    let at_once = at_once().into_iter();
    at_once
        .map(|(name, window, bytes)| (name, window, vec![bytes]))
        .chain(in_parts)
        .collect()
}

/// The fields of more than a head may have, so that it is refused, and as much as is read of one.
fn large_fields() -> Vec<u8> {
    fields(&many(2 * HEAD_BYTES - 1024))
}

/// The sequences that wait for no answer.
fn at_once() -> Vec<(&'static str, u32, Vec<u8>)> {
    let ends = END_STREAM;
    let large = large_fields();
    let each = |from: usize, to: u32, what: &dyn Fn(u32) -> Vec<u8>| -> Vec<u8> {
        streams(to).skip(from).flat_map(what).collect()
    };
    let small = |id| head(id, ends, &fields(&[]));
    let upload = |id| [head(id, 0, &fields(&[])), frame(DATA, 0, id, b"x")].concat();
    let full = |id| [head(id, 0, &fields(&[])), body(id)].concat();
    let malformed = |id| head(id, ends, &field(0, ":path", ""));
    let begun = [
        head(1, ends, &fields(&table())),
        head(3, ends, &large),
        each(2, 4, &malformed),
    ]
    .concat();
    let half = unfinished(401, HEAD_BYTES - 16);
    vec![
        ("nothing", 65_535, Vec::new()),
        ("unread answers", 0, each(0, 100, &small)),
        (
            "unread answers to large heads",
            0,
            each(0, 100, &|id| head(id, ends, &large)),
        ),
        ("bodies that never end", 65_535, each(0, 100, &upload)),
        ("bodies as large as windows", 65_535, each(0, 15, &full)),
        (
            "unread answers to bodies that never end",
            0,
            each(0, 100, &upload),
        ),
        ("malformed heads", 65_535, each(0, 400, &malformed)),
        (
            "a first head that is refused for its size, and does not end",
            65_535,
            unfinished(1, HEAD_BYTES + HEAD_BYTES / 2 - 16),
        ),
        ("half a head", 65_535, half.clone()),
        (
            "a full table, malformed heads, half a head",
            65_535,
            [begun.clone(), half.clone()].concat(),
        ),
        (
            "these and bodies that never end",
            65_535,
            [begun.clone(), each(10, 110, &upload), half.clone()].concat(),
        ),
        (
            "these and unread answers",
            0,
            [begun.clone(), each(10, 110, &small), half.clone()].concat(),
        ),
        (
            "these and unread answers to bodies",
            0,
            [begun, each(10, 110, &upload), half].concat(),
        ),
    ]
}

async fn connect(program: &Program, tls: &TlsConnector, number: usize) -> TlsStream<TcpStream> {
    let [.., high, low] = u32::try_from(number).unwrap().to_be_bytes();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 3, high, low), 0).into()).unwrap();
    let tcp = socket.connect(program.address).await.unwrap();
    tls.connect(server_name("localhost"), tcp).await.unwrap()
}

/// Sends these parts, each once the one before was answered, and keeps the connection.
async fn say(mut stream: TlsStream<TcpStream>, parts: Vec<Vec<u8>>) {
    for (number, bytes) in parts.iter().enumerate() {
        if number > 0 {
            frames::until(HEADERS, &mut stream).await.unwrap();
        }
        // Data that the gateway does not read may not fit into the socket.
        let _ = stream.write_all(bytes).await;
        let _ = stream.flush().await;
    }
    std::future::pending::<()>().await;
    drop(stream);
}

/// The memory once it no longer grows.
async fn settled(program: &Program) -> u64 {
    let settle = async {
        let mut look = tokio::time::interval(LOOK_PERIOD);
        let mut most = 0;
        let mut calm = 0;
        while calm < CALM_LOOKS {
            look.tick().await;
            let now = program.memory();
            calm = if now > most { 0 } else { calm + 1 };
            most = most.max(now);
        }
        most
    };
    tokio::time::timeout(PATIENCE, settle)
        .await
        .expect("it grows on and on")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_a_credential_costs_no_more_than_is_documented() {
    let _turn = TURNS.acquire().await.unwrap();
    let count = count();
    let world = world();
    let mut config = world.emulator.ca.client_config(&["h2"]);
    config.resumption = rustls::client::Resumption::disabled();
    let tls = TlsConnector::from(std::sync::Arc::new(config));
    let trigger = world.emulator.flow.add(Trigger::any_user(TENANT));
    let route = world.route("orders", "/orders", &trigger.url(), "");
    let mut settings = "connections.max = 100000\nlog.access = false\n".to_owned();
    for key in ["head_timeout", "idle_timeout", "write_timeout"] {
        settings += &format!("connections.{key} = \"5m\"\n");
    }
    let settings = format!("{settings}{}{route}", world.base());
    let mut dearest = 0;
    for (name, window, parts) in sequences() {
        let program = Program::start(&world, &settings);
        let mut all = Vec::new();
        let mut before = 0;
        for number in 0..WARM_UP + count {
            if number == WARM_UP {
                before = settled(&program).await;
            }
            let mut stream = connect(&program, &tls, number).await;
            stream.write_all(&hello(window)).await.unwrap();
            stream.flush().await.unwrap();
            // From here on the connection's window is as configured.
            frames::until(WINDOW_UPDATE, &mut stream).await.unwrap();
            all.push(tokio::spawn(say(stream, parts.clone())));
        }
        let after = settled(&program).await;
        let each = after.saturating_sub(before) / count as u64;
        println!("{name}: {each} bytes each, {count} at once");
        dearest = dearest.max(each);
        for task in all {
            task.abort();
        }
    }
    assert!(dearest <= BYTES_MAX, "{dearest} bytes each");
}
