//! Callers that send very slowly: a body has a minimum rate, and only the time that its caller takes counts.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Interval;

use crate::emulator::Answer as Flow;
use crate::emulator::Trigger;
use crate::harness::{Answer, KEY, PATIENCE, Running, TENANT, World, send_h2};
use crate::listening::served;
use crate::payloads::leaving::settle;
use crate::payloads::{Bare, LAST_CHUNK, chunk, chunked, with_length};

/// One byte per interval is half of what [`RATE`] asks for.
const DRIP: Duration = Duration::from_millis(20);
/// Bodies without a pause that a timeout would notice; data sent earlier buys a second at most. That they
/// must be complete within the time for their size is another test's matter.
const RATE: &str = "[bodies]\nrate_min = \"100 B\"\nrate_grace = \"300ms\"\nhold_size_max = \"1 KiB\"\n\
                    timeout = \"1s\"\nstream_rate_min = 0\n";
/// The same with enough time for a whole held body.
const HELD_RATE: &str = "[bodies]\nrate_min = \"100 B\"\nrate_grace = \"300ms\"\n";

fn assert_too_slow(answer: &Answer) {
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (408, "body-timeout"),
        "{}",
        answer.text()
    );
    let problem = answer.json();
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("100 bytes per second"), "{detail}");
}

/// Sends the start, drips after it, and reads the answer.
async fn drip_h1(gateway: &Running, start: &str, drop: &str) -> Answer {
    let mut talk = gateway.talk().await;
    talk.say(start).await;
    let drip = async {
        loop {
            // It may have closed; then the answer has arrived.
            let _ = talk.try_say(drop).await;
            if let Ok(answer) = tokio::time::timeout(DRIP, talk.hear()).await {
                return answer;
            }
        }
    };
    tokio::time::timeout(PATIENCE, drip)
        .await
        .expect("it may drip forever")
}

/// A body that drips after its start, forever.
struct Drip {
    start: Bytes,
    drops: Interval,
}

impl Body for Drip {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if !self.start.is_empty() {
            let start = std::mem::take(&mut self.start);
            return Poll::Ready(Some(Ok(Frame::data(start))));
        }
        let data = Bytes::from_static(b"x");
        self.drops.poll_tick(cx).map(|_| Some(Ok(Frame::data(data))))
    }
}

/// The same over HTTP/2.
async fn drip_h2(gateway: &Running, start: usize) -> Answer {
    let io = TokioIo::new(gateway.tls_stream_h2().await);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let body = Drip {
        start: vec![b'x'; start].into(),
        drops: tokio::time::interval(DRIP),
    };
    let request = Request::post("https://localhost/orders")
        .header("x-api-key", KEY)
        .body(body)
        .unwrap();
    let exchange = async {
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
        .expect("it may drip forever")
}

#[tokio::test]
async fn a_small_body_that_drips_is_refused_by_its_rate() {
    let (world, gateway, _) = served(HELD_RATE).await;
    for (start, drop) in [
        (with_length(60_000), "x".to_owned()),
        (chunked(), chunk("x")),
        // The framing of a chunk is not part of the body.
        (format!("{}1;", chunked()), "extension".to_owned()),
    ] {
        let answer = drip_h1(&gateway, &start, &drop).await;
        assert_too_slow(&answer);
        assert_eq!(answer.header("connection"), Some("close"));
    }
    assert_eq!(world.emulator.flow.heads().get(), 0);
}

#[tokio::test]
async fn a_small_body_that_drips_over_http2_is_refused_by_its_rate() {
    let (world, gateway, _) = served(HELD_RATE).await;
    assert_too_slow(&drip_h2(&gateway, 1).await);
    assert_eq!(world.emulator.flow.heads().get(), 0);
}

#[tokio::test]
async fn a_large_body_that_drips_is_ended_on_both_sides_by_its_rate() {
    let (world, gateway, trigger) = served(RATE).await;
    let large = "x".repeat(2048);
    for (start, drop) in [
        (format!("{}{large}", with_length(100_000)), "x".to_owned()),
        (format!("{}{}", chunked(), chunk(&large)), chunk("x")),
    ] {
        let answer = drip_h1(&gateway, &start, &drop).await;
        assert_too_slow(&answer);
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(gateway.lines.of(&answer).await["problem"], "body-timeout");
    }
    world.emulator.flow.broken_bodies().reached(2).await;
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn a_large_body_that_drips_over_http2_is_ended_on_both_sides_by_its_rate() {
    let (world, gateway, trigger) = served(RATE).await;
    let answer = drip_h2(&gateway, 2048).await;
    assert_too_slow(&answer);
    world.emulator.flow.broken_bodies().reached(1).await;
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn a_streamed_body_that_is_not_whole_in_the_time_of_its_size_is_ended_on_both_sides() {
    const BODIES: &str = "[bodies]\nrate_min = 0\nrate_grace = \"300ms\"\nstream_rate_min = \"100 KiB\"\n\
                          hold_size_max = \"1 KiB\"\n";
    let (world, gateway, trigger) = served(BODIES).await;
    let half = "x".repeat(2048);
    for start in [
        format!("{}{half}", with_length(4096)),
        format!("{}{}", chunked(), chunk(&half)),
    ] {
        let mut talk = gateway.talk().await;
        talk.say(start).await;
        let answer = talk.hear().await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (408, "body-timeout")
        );
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        for part in ["102400 bytes per second", "0.3 s besides", "send it faster"] {
            assert!(detail.contains(part), "{detail}");
        }
        assert_eq!(answer.header("connection"), Some("close"));
    }
    let answer = drip_h2(&gateway, 2048).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (408, "body-timeout")
    );
    world.emulator.flow.broken_bodies().reached(3).await;
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn a_large_body_that_comes_in_time_may_come_slowly() {
    // Far more than the grace period, and less than the eight seconds that its size allows beyond it.
    const BODIES: &str = "[bodies]\nrate_min = 0\nrate_grace = \"100ms\"\nstream_rate_min = \"500 B\"\n\
                          hold_size_max = \"1 KiB\"\n";
    let (_world, gateway, trigger) = served(BODIES).await;
    let mut talk = gateway.talk().await;
    talk.say(with_length(4000)).await;
    for _ in 0..3 {
        talk.say("x".repeat(1000)).await;
        talk.silence(Duration::from_millis(500)).await;
    }
    talk.say("x".repeat(1000)).await;
    assert_eq!(talk.hear().await.status, 202);
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_held_body_that_stalls_gives_its_memory_back_after_the_grace() {
    // What it sent before would last for minutes at this rate.
    let rate = "[bodies]\nrate_min = \"100 B\"\nrate_grace = \"300ms\"\ntimeout = \"1h\"\n";
    let (_world, gateway, trigger) = served(rate).await;
    let mut talk = gateway.talk().await;
    talk.say(with_length(60_000)).await;
    talk.say("x".repeat(50_000)).await;
    let answer = talk.hear().await;
    assert_too_slow(&answer);
    let metrics = gateway.admin("/metrics").await.1;
    assert!(metrics.contains("\nflowgate_held_body_bytes 0\n"), "{metrics}");
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn a_body_that_keeps_the_rate_may_take_longer_than_the_grace() {
    let (_world, gateway, trigger) = served("[bodies]\nrate_min = \"10 B\"\nrate_grace = \"1s\"\n").await;
    let mut talk = gateway.talk().await;
    talk.say(chunked()).await;
    let began = tokio::time::Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        // Each buys more time than it takes, even on a busy machine.
        talk.say(chunk(&"x".repeat(20))).await;
        talk.silence(DRIP).await;
    }
    talk.say(LAST_CHUNK).await;
    assert_eq!(talk.hear().await.status, 202);
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_flow_that_takes_its_time_does_not_get_its_caller_cut() {
    const BODY: usize = 8_000_000;
    const OK: &str = "HTTP/1.1 200 OK\r\nx-ms-workflow-run-id: 08580000000000000000000000001CU00\r\n\
                      Content-Length: 2\r\n\r\nok";
    let world = World::new().await;
    let flow = Bare::new(&world);
    let limit = "body_size_max = \"100 MiB\"";
    let route = world.route("orders", "/orders", &flow.url(), limit);
    // The time that a caller may keep us waiting is over long before the flow continues, and over the whole
    // time the rate is far below the minimum.
    let gateway = world.start_with(&format!(
        "{route}[bodies]\nrate_min = \"1 MiB\"\nrate_grace = \"3s\"\ntimeout = \"3s\"\n"
    ));
    let (mut reading, mut writing) = tokio::io::split(gateway.tls_stream().await);
    writing.write_all(with_length(BODY).as_bytes()).await.unwrap();
    let caller = tokio::spawn(async move {
        // What TLS keeps while the socket is full leaves only with a flush, and nothing is written after it.
        let sent = match writing.write_all(&vec![b'x'; BODY]).await {
            Ok(()) => writing.flush().await,
            failed => failed,
        };
        (writing, sent)
    });
    let mut upstream = flow.accept().await;
    upstream.hear_until("\r\n\r\n").await;
    let mut answer = [0; 15];
    let early = tokio::time::timeout(Duration::from_secs(5), reading.read_exact(&mut answer)).await;
    assert!(early.is_err(), "{}", String::from_utf8_lossy(&answer));
    upstream.skip(BODY).await;
    upstream.say(OK).await;
    tokio::time::timeout(PATIENCE, reading.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    caller.await.unwrap().1.unwrap();
}

/// An order over HTTP/2 with this many bytes.
fn large_order(bytes: usize) -> Request<Full<Bytes>> {
    Request::post("https://localhost/orders")
        .header("x-api-key", KEY)
        .body(Full::from(vec![b'x'; bytes]))
        .unwrap()
}

#[tokio::test]
async fn a_caller_behind_bodies_that_are_not_taken_is_not_held_to_its_rate() {
    const WINDOW: usize = 64 * 1024;
    let world = World::new().await;
    let trigger = Trigger::any_user(TENANT).does(Flow::Accepted);
    let trigger = world.emulator.flow.add(trigger);
    // One body fills the window of its connection, and nobody reads it before there is a token.
    let tokens = world.emulator.entra.hold();
    let route = world.route("orders", "/orders", &trigger.url(), "");
    let windows = "[connections]\nhttp2_stream_window = \"1 MiB\"\nhttp2_connection_window = \"64 KiB\"\n";
    let bodies = "[bodies]\nrate_min = \"100 B\"\nrate_grace = \"1s\"\nhold_size_max = \"1 KiB\"\n";
    let gateway = world.start_with(&format!("{route}{windows}{bodies}"));
    let mut sender = gateway.connect_h2().await;
    let ask = |sender: &SendRequest<Full<Bytes>>, order| {
        let mut sender = sender.clone();
        tokio::spawn(async move { send_h2(&mut sender, order).await })
    };
    let large = ask(&sender, large_order(4 * WINDOW));
    tokens.arrived(1).await;
    settle(&mut sender).await;
    let small = ask(&sender, large_order(2));
    settle(&mut sender).await;
    // Another connection, on which only the caller is waited for, shows when the grace period is over.
    let mut witness = gateway.talk().await;
    witness.say(with_length(2)).await;
    assert_too_slow(&witness.hear().await);
    assert!(!small.is_finished() && !large.is_finished());
    tokens.open();
    for order in [small, large] {
        let answer = tokio::time::timeout(PATIENCE, order).await.unwrap().unwrap();
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    assert_eq!(trigger.runs(), 2);
}
