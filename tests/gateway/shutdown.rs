//! Graceful shutdown: running requests may finish, idle connections are closed, and nothing takes longer than
//! its limit.

mod arriving;
#[cfg(unix)]
mod signals;

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use flowgate::counters::Counters;
use flowgate::gateway::log::Log;
use flowgate::server::Server;
use flowgate::settings;
use flowgate::settings::Environment;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::emulator::Answer as Flow;
use crate::emulator::{Gate, Trigger, TriggerHandle};
use crate::harness::{KEY, Lines, PATIENCE, Running, SECRET, TENANT, World, send_h2};
use crate::listening::{Talk, order_bytes, served};

/// Far above the time of a stop that waits for nothing, far below every deadline that it could wait for.
const PROMPT: Duration = Duration::from_secs(5);

/// A gateway that is shutting down.
struct Stopping {
    address: SocketAddr,
    admin: SocketAddr,
    lines: Arc<Lines>,
    hurry: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    began: Instant,
}

impl Stopping {
    /// Stops a gateway, and waits until it reports the shutdown.
    async fn start(gateway: Running) -> Self {
        let Running {
            server,
            admin,
            address,
            lines,
            ..
        } = gateway;
        let admin = admin.unwrap();
        let (hurry, hurried) = oneshot::channel();
        let began = Instant::now();
        let task = tokio::spawn(server.stop(async move {
            if hurried.await.is_err() {
                pending::<()>().await;
            }
        }));
        Self {
            address,
            admin,
            lines,
            hurry: Some(hurry),
            task,
            began,
        }
    }

    /// Polls the admin listener until it gives this answer.
    async fn says(&self, path: &str, expected: (u16, &str)) {
        let says = async {
            loop {
                let (status, text) = get(self.admin, path).await;
                if (status, text.as_str()) == expected {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, says)
            .await
            .expect("it never says so");
    }

    /// Waits until the workers have noticed: their sockets are closed then.
    async fn draining(&self) {
        closed(self.address).await;
    }

    /// Waits for the end and returns how long it took.
    async fn ended(self) -> Duration {
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("it does not stop")
            .unwrap();
        self.began.elapsed()
    }
}

/// Waits until nothing listens there any more.
async fn closed(address: SocketAddr) {
    let closed = async { while TcpStream::connect(address).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, closed)
        .await
        .expect("the port stays open");
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = http1::handshake(io).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let request = Request::get(path)
        .header("host", "localhost")
        .body(Full::<bytes::Bytes>::default())
        .unwrap();
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
}

/// A gateway with one request inside of the flow, sent over this connection.
async fn busy(drain_timeout: &str) -> (World, Running, TriggerHandle, Gate, Talk) {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let base = world.base().replace(
        "[gateway]",
        &format!("[gateway]\ndrain_timeout = \"{drain_timeout}\""),
    );
    let route = world.route("orders", "/orders", &trigger.url(), "");
    let gateway = world.start(&format!("{base}{route}"));
    let gate = trigger.hold();
    let mut talk = gateway.talk().await;
    talk.say(order_bytes("")).await;
    gate.arrived(1).await;
    (world, gateway, trigger, gate, talk)
}

fn h2_order() -> Request<Full<bytes::Bytes>> {
    let request = Request::post("https://localhost/orders").header("x-api-key", KEY);
    request.body(Full::from("{}")).unwrap()
}

#[tokio::test]
async fn a_running_request_finishes_and_its_answer_announces_the_close() {
    let (_world, gateway, trigger, gate, mut talk) = busy("30s").await;
    let stopping = Stopping::start(gateway).await;
    stopping.draining().await;
    gate.release(1);
    let answer = talk.hear().await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("connection")),
        (202, Some("close"))
    );
    assert_eq!(talk.rest().await, "");
    drop(talk);
    let line = stopping.lines.of(&answer).await;
    assert_eq!(line["end"], "complete");
    assert!(stopping.ended().await < PROMPT);
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_running_request_on_http2_finishes_and_the_connection_ends() {
    let (_world, gateway, trigger) = served("").await;
    let gate = trigger.hold();
    let mut sender = gateway.connect_h2().await;
    let running = tokio::spawn({
        let mut sender = sender.clone();
        async move { send_h2(&mut sender, h2_order()).await }
    });
    gate.arrived(1).await;
    let stopping = Stopping::start(gateway).await;
    stopping.says("/readyz", (503, "not-serving")).await;
    // GOAWAY informs the caller that this connection accepts no new requests, while the running request
    // continues.
    let announced = async {
        loop {
            let nowhere = Request::get("https://localhost/nowhere").body(Full::default());
            if sender.send_request(nowhere.unwrap()).await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, announced)
        .await
        .expect("the caller gets no GOAWAY");
    assert!(!running.is_finished());
    gate.open();
    assert_eq!(running.await.unwrap().status, 202);
    assert!(stopping.ended().await < PROMPT);
}

#[tokio::test]
async fn connections_without_a_request_are_closed_soon() {
    let (_world, gateway, _) = served("").await;
    let mut parked = gateway.talk().await;
    parked.say(order_bytes("")).await;
    assert_eq!(parked.hear().await.status, 202);
    parked.silence(Duration::from_millis(1200)).await;
    let mut idle = gateway.talk().await;
    idle.say(order_bytes("")).await;
    assert_eq!(idle.hear().await.status, 202);
    let mut fresh = gateway.talk().await;
    let mut greeting = Talk::new(TcpStream::connect(gateway.address).await.unwrap());
    greeting.say(b"\x16\x03\x01").await;
    let idle_h2 = gateway.connect_h2().await;
    let lines = gateway.lines.clone();

    let stopping = Stopping::start(gateway).await;
    for (what, talk) in [
        ("parked", &mut parked),
        ("idle", &mut idle),
        ("fresh", &mut fresh),
    ] {
        assert_eq!(talk.rest().await, "", "{what}");
    }
    // The alert close_notify.
    assert_eq!(greeting.rest().await, "\x15\x03\x03\0\x02\x01\0");
    assert!(stopping.ended().await < PROMPT);
    assert!(idle_h2.is_closed());
    let complaints: Vec<_> = lines
        .all()
        .into_iter()
        .filter(|line| line.contains("\"kind\":\"connection\""))
        .collect();
    assert_eq!(complaints, Vec::<String>::new());
}

#[tokio::test]
async fn no_new_run_starts_while_draining() {
    let (_world, gateway, trigger, gate, mut talk) = busy("30s").await;
    let stopping = Stopping::start(gateway).await;
    stopping.draining().await;
    gate.open();
    assert_eq!(talk.hear().await.status, 202);
    drop(talk);
    stopping.ended().await;
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_draining_gateway_lives_but_is_not_ready() {
    let (_world, gateway, _trigger, gate, talk) = busy("30s").await;
    gateway.ready().await;
    let stopping = Stopping::start(gateway).await;
    stopping.says("/readyz", (503, "not-serving")).await;
    stopping.says("/healthz", (200, "ok\n")).await;
    let (status, report) = get(stopping.admin, "/readyz?verbose").await;
    assert_eq!(status, 503);
    assert!(report.contains("\"not-serving\""), "{report}");
    let metrics = get(stopping.admin, "/metrics").await.1;
    assert!(metrics.contains("\nflowgate_ready 0\n"), "{metrics}");
    gate.open();
    drop(talk);
    stopping.ended().await;
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_after_the_drain_time_and_logged() {
    let (_world, gateway, _trigger, _gate, mut talk) = busy("400ms").await;
    let lines = gateway.lines.clone();
    let stopping = Stopping::start(gateway).await;
    assert_eq!(talk.rest().await, "");
    let took = stopping.ended().await;
    assert!(took >= Duration::from_millis(400) && took < PROMPT, "{took:?}");
    let line = lines.wait_for(|line| line["route"] == "orders").await;
    assert_eq!(
        (&line["end"], &line["caller"]),
        (&"stopped".into(), &"shop".into())
    );
    assert!(line["status"].is_null(), "{line}");
}

#[tokio::test]
async fn an_answer_that_never_ends_is_cut_visibly_and_logged() {
    let world = World::new().await;
    let gate = Gate::closed();
    let stream = Flow::Stream {
        chunks: 2,
        chunk_bytes: 1000,
        gate: Some(gate.clone()),
    };
    let trigger = world.emulator.flow.add(Trigger::any_user(TENANT).does(stream));
    let base = world
        .base()
        .replace("[gateway]", "[gateway]\ndrain_timeout = \"400ms\"");
    let gateway = world.start(&format!(
        "{base}{}",
        world.route("orders", "/orders", &trigger.url(), "")
    ));
    let mut talk = gateway.talk().await;
    talk.say(order_bytes("")).await;
    talk.hear_until(&"x".repeat(1000)).await;
    let lines = gateway.lines.clone();
    let stopping = Stopping::start(gateway).await;
    assert_eq!(talk.rest().await, "\r\n", "the last chunk must not come");
    assert!(stopping.ended().await < PROMPT);
    let line = lines.wait_for(|line| line["route"] == "orders").await;
    assert_eq!((&line["end"], &line["status"]), (&"stopped".into(), &200.into()));
    assert_eq!(line["bytes_out"], 1000);
}

#[tokio::test]
async fn a_second_signal_ends_the_drain() {
    let (_world, gateway, _trigger, _gate, mut talk) = busy("30s").await;
    let lines = gateway.lines.clone();
    let mut stopping = Stopping::start(gateway).await;
    stopping.says("/readyz", (503, "not-serving")).await;
    stopping.hurry.take().unwrap().send(()).unwrap();
    assert_eq!(talk.rest().await, "");
    assert!(stopping.ended().await < PROMPT);
    let line = lines.wait_for(|line| line["route"] == "orders").await;
    assert_eq!(line["end"], "stopped");
}

#[tokio::test]
async fn a_call_whose_caller_has_left_is_awaited_too() {
    let (_world, gateway, trigger) = served("").await;
    let gate = trigger.hold();
    let mut sender = gateway.connect_h2().await;
    let leaving = tokio::spawn(async move { send_h2(&mut sender, h2_order()).await });
    gate.arrived(1).await;
    leaving.abort();
    let lines = gateway.lines.clone();
    let stopping = Stopping::start(gateway).await;
    stopping.draining().await;
    gate.open();
    assert!(stopping.ended().await < PROMPT);
    let line = lines.wait_for(|line| line["route"] == "orders").await;
    // Either the answer or the caller's departure may be noticed first; in both cases the request was
    // awaited.
    assert_ne!(line["end"], "stopped", "{line}");
    assert_eq!(line["status"], 202);
    assert_eq!(line["run"].as_str(), trigger.last_request().run.as_deref());
}

#[tokio::test]
async fn a_gateway_without_connections_stops_at_once() {
    let (_world, gateway, _) = served("").await;
    assert!(Stopping::start(gateway).await.ended().await < PROMPT);
}

#[tokio::test]
async fn a_gateway_can_be_started_again_on_its_address() {
    let (world, gateway, trigger) = served("").await;
    let address = gateway.address;
    Stopping::start(gateway).await.ended().await;
    let settings = world.base().replace(
        "[[listener]]\naddress = \"127.0.0.1:0\"",
        &format!("[[listener]]\naddress = \"{address}\""),
    );
    let route = world.route("orders", "/orders", &trigger.url(), "");
    let gateway = world.start(&format!("{settings}{route}"));
    assert_eq!(gateway.address, address);
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
}

#[tokio::test]
async fn a_start_that_fails_names_the_address_and_leaves_nothing_behind() {
    let (world, first, _) = served("").await;
    let taken = first.admin.unwrap();
    let settings = world.base().replace(
        "[admin]\naddress = \"127.0.0.1:0\"",
        &format!("[admin]\naddress = \"{taken}\""),
    );
    let route = world.route("orders", "/orders", "https://localhost:9/", "");
    world.file("second.toml", &format!("{settings}{route}"));
    let environment = Environment::from_pairs([("CONTOSO_SECRET", SECRET)]);
    let (config, _) = settings::load(&world.dir().join("second.toml"), &environment).unwrap();
    let second = Server::start(&config, &Counters::new(), Log::off()).unwrap();
    let error = flowgate::admin::start(&config, second.control(), second.gateway()).unwrap_err();
    drop(second);
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
    assert_eq!(first.admin("/healthz").await.0, 200);
}
