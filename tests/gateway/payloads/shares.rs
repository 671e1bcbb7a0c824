//! How much one caller, or one address on an open route, may take of shared resources: the permits of a flow,
//! its queue, and the memory for bodies.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinHandle;
use tokio::time::Interval;
use tokio_rustls::client::TlsStream;

use crate::emulator::Answer as Flow;
use crate::emulator::{Trigger, TriggerHandle};
use crate::harness::{Answer, KEY, PATIENCE, Running, TENANT, World, caller, post};
use crate::listening::Talk;
use crate::payloads::with_length;

/// The key of the caller "erp", which shares the route with "shop".
const OTHER_KEY: &str = "canary-key-of-erp-0123456789";
const BOTH: &str = "callers = [\"shop\", \"erp\"]\n";
/// At 250 bytes per second it would take more than an hour.
const SLOW_BYTES: u64 = 1024 * 1024;

/// A route for the callers "shop" and "erp" with these keys, followed by these settings.
async fn shared(keys: &str, more: &str) -> (World, Running, TriggerHandle) {
    let world = World::new().await;
    let trigger = Trigger::any_user(TENANT).does(Flow::Accepted);
    let trigger = world.emulator.flow.add(trigger);
    let route = world.route("orders", "/orders", &trigger.url(), &format!("{BOTH}{keys}"));
    let other = caller("erp", OTHER_KEY);
    let gateway = world.start(&format!("{}{other}{route}{more}", world.base()));
    (world, gateway, trigger)
}

/// An order of "erp" with this many bytes.
fn order_of_other(bytes: usize) -> Request<Full<Bytes>> {
    let request = post("/orders").header("x-api-key", OTHER_KEY);
    request.body(Full::from(vec![b'x'; bytes])).unwrap()
}

/// A body that states its length and sends 250 bytes of it per second.
struct Slow {
    left: u64,
    drops: Interval,
}

impl Body for Slow {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::ready!(self.drops.poll_tick(cx));
        self.left -= 25;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 25])))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

fn slow(left: u64) -> BoxBody<Bytes, Infallible> {
    let drops = tokio::time::interval(Duration::from_millis(100));
    Slow { left, drops }.boxed()
}

/// One HTTP/2 connection with requests of "shop".
struct Shop(SendRequest<BoxBody<Bytes, Infallible>>);

impl Shop {
    async fn connect(gateway: &Running) -> Self {
        let io = TokioIo::new(gateway.tls_stream_h2().await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        Self(sender)
    }

    async fn ask(&mut self, path: &str, body: BoxBody<Bytes, Infallible>) -> JoinHandle<Answer> {
        self.0.ready().await.unwrap();
        let request = Request::post(format!("https://localhost{path}")).header("x-api-key", KEY);
        let asked = self.0.send_request(request.body(body).unwrap());
        tokio::spawn(async move {
            let (head, body) = asked.await.unwrap().into_parts();
            Answer {
                status: head.status,
                headers: head.headers,
                body: body.collect().await.unwrap().to_bytes(),
            }
        })
    }

    /// Makes another exchange: all earlier requests have been accepted by then.
    async fn settle(&mut self) {
        let nowhere = self.ask("/nowhere", Full::default().boxed()).await;
        assert_eq!(end(nowhere).await.status, 404);
    }
}

async fn end(asked: JoinHandle<Answer>) -> Answer {
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    answer.expect("no answer in time").unwrap()
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status.as_u16(), answer.code())
}

#[tokio::test]
async fn slow_uploads_of_one_caller_leave_a_flow_to_others() {
    let limits = "in_flight_max = 8\nwaiting_max = 8\nwaiting_timeout = \"3s\"";
    let (world, gateway, _) = shared(limits, "").await;
    let mut shop = Shop::connect(&gateway).await;
    let mut uploads = Vec::new();
    for _ in 0..100 {
        uploads.push(shop.ask("/orders", slow(SLOW_BYTES)).await);
    }
    shop.settle().await;
    for bytes in [2, 100_000] {
        let answer = gateway.send(order_of_other(bytes)).await;
        assert_eq!(answer.status, 202, "{bytes} bytes: {}", answer.text());
    }
    // Its own small orders pass as well.
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    world.emulator.flow.heads().reached(4 + 3).await;
    uploads.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn slow_uploads_of_many_addresses_leave_an_open_flow_to_others() {
    let world = World::new().await;
    let trigger = Trigger::any_user(TENANT).does(Flow::Accepted);
    let trigger = world.emulator.flow.add(trigger);
    let keys = "anonymous = true\nin_flight_max = 8\nwaiting_max = 8\nwaiting_timeout = \"3s\"";
    let gateway = world.start_with(&world.route("orders", "/orders", &trigger.url(), keys));
    let mut uploads = Vec::new();
    for last in 10..26 {
        let stream = gateway.tls_stream_from(Ipv4Addr::new(127, 0, 0, last)).await;
        let mut upload = Talk::new(stream);
        upload.say(with_length(SLOW_BYTES as usize)).await;
        upload.say("x".repeat(1000)).await;
        uploads.push(upload);
    }
    world.emulator.flow.heads().reached(6).await;
    for _ in 0..3 {
        let answer = gateway.post("/orders", "{}").await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    assert_eq!(world.emulator.flow.heads().get(), 6 + 3);
}

#[tokio::test]
async fn a_turn_goes_to_the_caller_with_the_fewest_requests() {
    let limits = "in_flight_max = 2\nwaiting_max = 2\nwaiting_timeout = \"15s\"";
    let (_world, gateway, trigger) = shared(limits, "").await;
    let gate = trigger.hold();
    let mut shop = Shop::connect(&gateway).await;
    let mut asked = Vec::new();
    for number in 1..=4 {
        asked.push(shop.ask("/orders", Full::default().boxed()).await);
        match number {
            1 | 2 => gate.arrived(number).await,
            _ => shop.settle().await,
        }
    }
    // One caller fills the queue, and has the permits, too.
    let mut connection = gateway.connect().await;
    asked.push(tokio::spawn(
        async move { connection.send(order_of_other(2)).await },
    ));
    let gave_way = end(asked.remove(3)).await;
    assert_eq!(code(&gave_way), (503, "flow-busy".to_owned()));
    assert!(!gave_way.text().contains("share") && !gave_way.text().contains("shop"));
    let line = gateway.lines.of(&gave_way).await;
    let cause = line["cause"].as_str().unwrap();
    assert!(
        cause.contains("gave its waiting place") && cause.contains("the share is that of caller shop"),
        "{cause}"
    );
    gate.release(1);
    gate.arrived(3).await;
    assert_eq!(trigger.last_request().header("x-flowgate-caller"), Some("erp"));
    gate.open();
    for asked in asked {
        assert_eq!(end(asked).await.status, 202);
    }
}

/// Bodies of 1 KiB, and memory for four of them.
const NARROW: &str = "[bodies]\nhold_size_max = \"1 KiB\"\nheld_budget = \"4 KiB\"\n";

/// Waits until bodies of this many bytes are held.
async fn held(gateway: &Running, bytes: usize) {
    let line = format!("\nflowgate_held_body_bytes {bytes}\n");
    let held = async {
        while !gateway.admin("/metrics").await.1.contains(&line) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, held)
        .await
        .expect("they are not held");
}

/// A body whose last hundred bytes do not arrive.
async fn stall(mut talk: Talk<TlsStream<tokio::net::TcpStream>>) -> Talk<TlsStream<tokio::net::TcpStream>> {
    talk.say(with_length(1000)).await;
    talk.say("x".repeat(900)).await;
    talk
}

#[tokio::test]
async fn held_bodies_of_one_caller_leave_memory_to_others() {
    let (_world, gateway, _) = shared("", NARROW).await;
    let mut stalled = Vec::new();
    for number in 1..3 {
        stalled.push(stall(gateway.talk().await).await);
        held(&gateway, 900 * number).await;
    }
    let mut third = stall(gateway.talk().await).await;
    let answer = third.hear().await;
    assert_eq!(code(&answer), (503, "gateway-busy".to_owned()));
    assert!(!answer.text().contains("share"), "{}", answer.text());
    let line = gateway.lines.of(&answer).await;
    let cause = line["cause"].as_str().unwrap();
    assert!(
        cause.contains("1800 bytes") && cause.contains("the share is that of caller shop"),
        "{cause}"
    );
    let other = gateway.send(order_of_other(1000)).await;
    assert_eq!(other.status, 202, "{}", other.text());
}

#[tokio::test]
async fn held_bodies_of_unknown_callers_leave_memory_to_known_ones() {
    let world = World::new().await;
    let trigger = Trigger::any_user(TENANT).does(Flow::Accepted);
    let trigger = world.emulator.flow.add(trigger);
    let open = world.route("open", "/open", &trigger.url(), "anonymous = true");
    let known = world.route("orders", "/orders", &trigger.url(), "");
    let gateway = world.start_with(&format!("{open}{known}{NARROW}"));
    let from = async |last| {
        let stream = gateway.tls_stream_from(Ipv4Addr::new(127, 0, 0, last)).await;
        let mut talk = Talk::new(stream);
        talk.say(with_length(1000).replace("/orders", "/open")).await;
        talk.say("x".repeat(900)).await;
        talk
    };
    let _stalled = from(10).await;
    held(&gateway, 900).await;
    // A quarter of the memory is one of these bodies.
    let answer = from(11).await.hear().await;
    assert_eq!(code(&answer), (503, "gateway-busy".to_owned()));
    let line = gateway.lines.of(&answer).await;
    let cause = line["cause"].as_str().unwrap();
    assert!(
        cause.contains("unknown callers") && cause.contains("address 127.0.0.11"),
        "{cause}"
    );
    let known = gateway.post("/orders", &"x".repeat(1000)).await;
    assert_eq!(known.status, 202, "{}", known.text());
}
