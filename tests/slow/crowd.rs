//! Many slow connections of one kind at once, each from another address of this machine, and the measurements
//! beside them.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, Interest};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::emulator::Answer as Flow;
use crate::emulator::certs::server_name;
use crate::emulator::{Emulator, Trigger};
use crate::good::{Good, Met};
use crate::harness::{CLIENT, OID, PATIENCE, SECRET, TENANT, World};
use crate::program::Program;

/// Connections of each kind by default.
const COUNT: usize = 200;
/// Tests that run at one time: more would only wait for each other. A large run has the machine for itself.
pub(crate) static TURNS: Semaphore = Semaphore::const_new(2);
const TURNS_ALL: u32 = 2;
/// Time to open one connection: all must be open before the first one ends.
const EACH: Duration = Duration::from_millis(4);
/// Connections that are opened at one time.
const OPENING_MAX: usize = 32;
/// Connections opened before the measurement: they touch the code and the memory that all share.
const WARM_UP: usize = 8;
/// How late an end may be noticed on a busy machine.
pub(crate) const SLACK: Duration = Duration::from_secs(2);
/// How long a good caller may wait beside the crowd on a busy machine.
const GOOD_WAIT_MAX: Duration = Duration::from_secs(5);
/// Memory that ending a crowd may use in addition: log lines, and code that only then runs.
const AT_THE_END_BYTES_MAX: u64 = 256 * 1024;
/// Interval between two memory readings.
const LOOK_PERIOD: Duration = Duration::from_millis(25);
/// The same for many connections: a reading halts a large process for a while.
const LARGE_LOOK_PERIOD: Duration = Duration::from_millis(500);
/// Receive buffer of a narrow connection, as the kernel counts it.
const NARROW_BYTES: u64 = 8192;
/// The kernel counts its memory for TCP in pages.
const PAGE_BYTES: u64 = 4096;
/// File descriptors for everything but the slow connections.
const OTHER_DESCRIPTORS: usize = 200;
/// Deadlines, some of which a test shortens.
const DEADLINES: [&str; 6] = [
    "connections.handshake_timeout",
    "connections.head_timeout",
    "connections.idle_timeout",
    "connections.write_timeout",
    "bodies.timeout",
    // A body that drips also ends by its rate, which is another test's matter.
    "bodies.rate_grace",
];

/// One kind of slow connection.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// The deadlines that are short.
    pub(crate) short: &'static [&'static str],
    /// How often the short deadline may pass before the end.
    pub(crate) times: u32,
    /// Most memory that one of them may cost, bytes.
    pub(crate) bytes_max: u64,
    /// What the flow behind `/orders` does; with `Some`, each connection has one upstream as well.
    pub(crate) flow: Option<Flow>,
    /// Bytes of an unread answer, which wait in the kernel.
    pub(crate) unread_bytes: u64,
}

/// The shared state of slow connections.
pub(crate) struct Crowd {
    _world: World,
    pub(crate) program: Program,
    pub(crate) deadline: Duration,
    tls: TlsConnector,
    tls_h2: TlsConnector,
    opening: Semaphore,
    standing: watch::Sender<usize>,
}

/// An established slow connection.
pub(crate) struct Established(Arc<Crowd>);

impl Drop for Established {
    fn drop(&mut self) {
        self.0.standing.send_modify(|standing| *standing -= 1);
    }
}

/// Number of connections of each kind.
pub(crate) fn count() -> usize {
    #[expect(
        clippy::disallowed_methods,
        reason = "no setting of the program: it only says how much is tested"
    )]
    let given = std::env::var("FLOWGATE_SLOW");
    given.map_or(COUNT, |count| count.parse().expect("FLOWGATE_SLOW is a number"))
}

/// File descriptors that this process, and so the program, may have.
fn descriptors() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let soft = line.unwrap().split_whitespace().nth(3).unwrap();
    soft.parse().unwrap_or(usize::MAX)
}

/// How many answers of this size may wait in the kernel before it runs short of memory for TCP. Beyond that
/// it accepts and releases data irregularly, and a caller that reads nothing seems to make progress.
fn unread_room(bytes: u64) -> usize {
    let numbers = |name: &str| -> Option<Vec<u64>> {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok()?;
        Some(
            text.split_whitespace()
                .map(|number| number.parse().unwrap())
                .collect(),
        )
    };
    let (Some(memory), Some(sent), Some(arrived)) =
        (numbers("tcp_mem"), numbers("tcp_wmem"), numbers("tcp_rmem"))
    else {
        // A network namespace of its own does not show the limit for all of them together.
        return usize::MAX;
    };
    // The program and the flow have send buffers, the program and the caller receive buffers.
    let buffers = 2 * sent[2] + arrived[2] + NARROW_BYTES;
    // The kernel's own data come on top.
    let each = buffers.min(bytes + bytes / 4).max(1);
    usize::try_from(memory[1] * PAGE_BYTES / each).unwrap()
}

/// An emulator on a thread of its own.
pub(crate) fn world() -> World {
    let emulator = Emulator::start_on_own_thread();
    emulator.register_app(TENANT, CLIENT, SECRET, OID);
    let leaf = emulator.ca.leaf(&["localhost"]);
    leaf.write(emulator.dir(), "gateway").unwrap();
    World {
        emulator,
        secrets: Vec::new(),
    }
}

impl Crowd {
    fn start(kind: &Kind, count: usize) -> Self {
        let world = world();
        world.emulator.flow.stop_recording();
        let deadline = Duration::from_secs(2) + count as u32 * EACH;
        let program = Program::start(&world, &settings(&world, kind, deadline));
        let tls = |alpn| TlsConnector::from(Arc::new(world.emulator.ca.client_config(&[alpn])));
        Self {
            program,
            deadline,
            tls: tls("http/1.1"),
            tls_h2: tls("h2"),
            opening: Semaphore::new(OPENING_MAX),
            standing: watch::Sender::new(0),
            _world: world,
        }
    }

    /// Waits for a turn to connect.
    pub(crate) async fn turn(&self) -> SemaphorePermit<'_> {
        self.opening.acquire().await.unwrap()
    }

    /// Notes that a connection is established.
    pub(crate) fn established(self: &Arc<Self>) -> Established {
        self.standing.send_modify(|standing| *standing += 1);
        Established(self.clone())
    }

    /// The address of a slow connection.
    pub(crate) fn source(number: usize) -> Ipv4Addr {
        let [.., high, low] = u32::try_from(number).unwrap().to_be_bytes();
        Ipv4Addr::new(127, 1 + (number >> 16) as u8, high, low)
    }

    pub(crate) async fn tcp(&self, number: usize) -> TcpStream {
        self.tcp_of(number, TcpSocket::new_v4().unwrap()).await
    }

    /// A connection with a small receive buffer.
    pub(crate) async fn narrow_tcp(&self, number: usize) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        // The send buffer grows with the size of segments, and those of loopback are large.
        SockRef::from(&socket).set_tcp_mss(536).unwrap();
        self.tcp_of(number, socket).await
    }

    async fn tcp_of(&self, number: usize, socket: TcpSocket) -> TcpStream {
        socket.bind((Self::source(number), 0).into()).unwrap();
        let tcp = socket.connect(self.program.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp
    }

    pub(crate) async fn secure(&self, tcp: TcpStream) -> TlsStream<TcpStream> {
        self.tls.connect(server_name("localhost"), tcp).await.unwrap()
    }

    pub(crate) async fn secure_h2(&self, tcp: TcpStream) -> TlsStream<TcpStream> {
        self.tls_h2.connect(server_name("localhost"), tcp).await.unwrap()
    }

    /// The first half of a ClientHello.
    pub(crate) fn half_a_hello(&self) -> Vec<u8> {
        let config = self.tls.config().clone();
        let mut client = rustls::ClientConnection::new(config, server_name("localhost")).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        hello.truncate(hello.len() / 2);
        hello
    }

    /// A small part of the deadline, for connections that send a byte at intervals.
    pub(crate) fn now_and_then(&self) -> Duration {
        self.deadline / 8
    }
}

fn settings(world: &World, kind: &Kind, deadline: Duration) -> String {
    let mut text = "connections.max = 100000\nlog.format = \"json\"\n".to_owned();
    for key in DEADLINES {
        let time = match kind.short.contains(&key) {
            true => format!("{}ms", deadline.as_millis()),
            false => "5m".to_owned(),
        };
        text += &format!("{key} = \"{time}\"\n");
    }
    let plenty = "rate = { requests = 100000, per = \"1s\" }\n";
    text += &format!("limits.gateway = {}", plenty.trim_start_matches("rate = "));
    text += &world
        .base()
        .replace("name = \"shop\"\n", &format!("name = \"shop\"\n{plenty}"));
    let flows = [
        ("good", Flow::Accepted),
        ("orders", kind.flow.clone().unwrap_or(Flow::Accepted)),
    ];
    for (name, flow) in flows {
        let trigger = world.emulator.flow.add(Trigger::any_user(TENANT).does(flow));
        let keys = format!("{plenty}body_size_max = \"10 MiB\"\nin_flight_max = 100000");
        text += &world.route(name, &format!("/{name}"), &trigger.url(), &keys);
    }
    text
}

/// The measurements of a crowd.
struct Cost {
    base: u64,
    peak: u64,
    at_once: usize,
}

impl Cost {
    fn each(&self) -> u64 {
        self.peak.saturating_sub(self.base) / self.at_once.max(1) as u64
    }
}

/// Opens all connections of one kind. `slow` returns two times: each connection must end within its limit
/// after the first one, and has ended at the second one.
pub(crate) async fn endure<S, F>(kind: Kind, slow: S)
where
    S: Fn(Arc<Crowd>, usize) -> F,
    F: Future<Output = (Instant, Instant)> + Send + 'static,
{
    let mut count = count();
    let turns = if count > COUNT { TURNS_ALL } else { 1 };
    let _turn = TURNS.acquire_many(turns).await.unwrap();
    let each = if kind.flow.is_some() { 2 } else { 1 };
    let room = descriptors().saturating_sub(OTHER_DESCRIPTORS) / each;
    let rooms = [
        (room, "`ulimit -n`"),
        (unread_room(kind.unread_bytes), "the kernel's memory for TCP"),
    ];
    for (room, what) in rooms {
        if count > room {
            println!(
                "{}: {room} in place of {count}, for {what} leaves no more",
                kind.name
            );
            count = room;
        }
    }
    let crowd = Arc::new(Crowd::start(&kind, count));
    let good = Good::start(crowd.program.address, crowd.tls.clone());
    warm_up(&crowd, &slow).await;
    let mut cost = Cost {
        base: crowd.program.memory(),
        peak: 0,
        at_once: 0,
    };
    let mut all = JoinSet::new();
    for number in 0..count {
        all.spawn(slow(crowd.clone(), number));
    }
    let patience = crowd.deadline * (kind.times + 1) + count as u32 * EACH * 10 + PATIENCE;
    let ends = tokio::time::timeout(patience, watch(&crowd, all, &mut cost)).await;
    let ends = ends.expect("some connections stay forever");
    let after = crowd.program.memory();
    let met = good.stop().await;
    let range = ends.iter().min().unwrap().as_secs_f64()..ends.iter().max().unwrap().as_secs_f64();
    println!(
        "{}: {} of {count} at once, {} bytes each; ended {range:.3?} s after they began, deadline {:?}; \
         memory {} before, {} at most, {after} after; the good caller: {} requests, {:?} at worst",
        kind.name,
        cost.at_once,
        cost.each(),
        crowd.deadline,
        cost.base,
        cost.peak,
        met.requests,
        met.worst
    );
    judge(&kind, &crowd, &cost, after, &ends, &met, count);
}

fn judge(kind: &Kind, crowd: &Crowd, cost: &Cost, after: u64, ends: &[Duration], met: &Met, count: usize) {
    let name = kind.name;
    assert!(
        met.failures.is_empty(),
        "{name}: the good caller: {:#?}",
        met.failures
    );
    assert!(
        met.worst <= GOOD_WAIT_MAX,
        "{name}: the good caller waited {:?}",
        met.worst
    );
    let allowed: Range<Duration> = crowd.deadline..crowd.deadline * kind.times + SLACK;
    let wrong: Vec<_> = ends.iter().filter(|end| !allowed.contains(*end)).collect();
    assert!(
        wrong.is_empty(),
        "{name}: {} not within {allowed:?}: {wrong:?}",
        wrong.len()
    );
    assert!(
        cost.at_once > count / 2,
        "{name}: only {} at once: that shows nothing",
        cost.at_once
    );
    assert!(
        cost.each() <= kind.bytes_max,
        "{name}: {} bytes each",
        cost.each()
    );
    assert!(
        after <= cost.peak + AT_THE_END_BYTES_MAX,
        "{name}: {after} bytes afterwards, {} before",
        cost.peak
    );
}

async fn warm_up<S, F>(crowd: &Arc<Crowd>, slow: &S)
where
    S: Fn(Arc<Crowd>, usize) -> F,
    F: Future<Output = (Instant, Instant)> + Send + 'static,
{
    let mut first = JoinSet::new();
    for number in 0..WARM_UP {
        first.spawn(slow(crowd.clone(), number + (1 << 16)));
    }
    let mut standing = crowd.standing.subscribe();
    tokio::time::timeout(PATIENCE, standing.wait_for(|standing| *standing >= WARM_UP))
        .await
        .expect("they do not come to stand")
        .unwrap();
    first.shutdown().await;
}

/// Waits until all have ended, while measuring the memory.
async fn watch(crowd: &Crowd, mut all: JoinSet<(Instant, Instant)>, cost: &mut Cost) -> Vec<Duration> {
    let period = if all.len() > COUNT {
        LARGE_LOOK_PERIOD
    } else {
        LOOK_PERIOD
    };
    let mut look = tokio::time::interval(period);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut ends = Vec::new();
    loop {
        tokio::select! {
            _ = look.tick() => {
                cost.at_once = cost.at_once.max(*crowd.standing.borrow());
                cost.peak = cost.peak.max(crowd.program.memory());
            }
            ended = all.join_next() => match ended {
                Some(ended) => {
                    let (begun, ended) = ended.unwrap();
                    ends.push(ended.duration_since(begun));
                }
                None => return ends,
            },
        }
    }
}

/// Waits until a connection is reset, without reading.
pub(crate) async fn reset(tcp: &TcpStream) {
    loop {
        tcp.ready(Interest::ERROR).await.unwrap();
        if let Some(error) = tcp.take_error().unwrap() {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            return;
        }
        let error = tcp.try_io(Interest::ERROR, || Err::<(), _>(ErrorKind::WouldBlock.into()));
        assert!(error.is_err());
    }
}

/// Reads until the connection ends in any way, and returns what arrived.
pub(crate) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    while stream.read_buf(&mut all).await.is_ok_and(|count| count > 0) {}
    all
}
