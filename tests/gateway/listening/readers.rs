//! Callers that read their answers slowly, or not at all.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;

use crate::emulator::Answer as Flow;
use crate::emulator::{Gate, Reply, Trigger, TriggerHandle};
use crate::harness::{KEY, PATIENCE, Running, TENANT, World, send_h2};
use crate::listening::frames::Peer;
use crate::listening::{Talk, frames, order_bytes};

type Caller = http2::SendRequest<Full<Bytes>>;

/// A gateway with a flow of long answers at `/long`, one at a time, and one of short answers at `/orders`.
async fn long_answers(
    write_timeout: &str,
    chunks: usize,
    gate: Option<Gate>,
) -> (World, Running, TriggerHandle) {
    long_answers_with(&format!("write_timeout = \"{write_timeout}\""), chunks, gate).await
}

/// The same with these settings of connections.
async fn long_answers_with(
    connections: &str,
    chunks: usize,
    gate: Option<Gate>,
) -> (World, Running, TriggerHandle) {
    let world = World::new().await;
    let long = Flow::Stream {
        chunks,
        chunk_bytes: 65_536,
        gate,
    };
    let long = world.emulator.flow.add(Trigger::any_user(TENANT).does(long));
    let short = Trigger::any_user(TENANT).does(Flow::Accepted);
    let short = world.emulator.flow.add(short);
    let gateway = world.start(&format!(
        "[connections]\n{connections}\n{}{}{}",
        world.base(),
        world.route(
            "long",
            "/long",
            &long.url(),
            "in_flight_max = 1\nwaiting_timeout = \"15s\""
        ),
        world.route("orders", "/orders", &short.url(), ""),
    ));
    gateway.ready().await;
    (world, gateway, long)
}

/// A caller whose streams have a window of this size.
async fn caller(gateway: &Running, window: u32) -> Caller {
    let io = TokioIo::new(gateway.tls_stream_h2().await);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(window);
    let (sender, connection) = builder.handshake(io).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    sender
}

fn request(path: &str) -> Request<Full<Bytes>> {
    Request::post(format!("https://localhost{path}"))
        .header("x-api-key", KEY)
        .body(Full::from("{}"))
        .unwrap()
}

async fn head(caller: &mut Caller) -> Response<Incoming> {
    caller.ready().await.unwrap();
    let answer = tokio::time::timeout(PATIENCE, caller.send_request(request("/long"))).await;
    answer.expect("no head in time").unwrap()
}

/// Whether an answer was cut off.
async fn is_reset(body: Incoming) -> bool {
    let read = tokio::time::timeout(PATIENCE, body.collect()).await;
    read.expect("the stream stays forever").is_err()
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_reset_and_the_others_live() {
    for window in [0, 65_535] {
        let (_world, gateway, long) = long_answers("500ms", 1024, None).await;
        let mut caller = caller(&gateway, window).await;
        let unread = head(&mut caller).await;
        long.does(Flow::Accepted);
        gateway
            .lines
            .wait_for(|line| line["kind"] == "connection" && line["reason"] == "write-stalled")
            .await;
        let cut = gateway.lines.wait_for(|line| line["route"] == "long").await;
        assert_eq!(cut["end"], "caller-gone", "{cut}");
        // The permit is free again, and the connection is still usable.
        assert_eq!(send_h2(&mut caller, request("/long")).await.status, 202);
        assert_eq!(send_h2(&mut caller, request("/orders")).await.status, 202);
        assert!(is_reset(unread.into_body()).await);
        let (_, metrics) = gateway.admin("/metrics").await;
        assert!(
            metrics.contains("flowgate_refusals_total{reason=\"write-stalled\"} 1"),
            "{metrics}"
        );
    }
}

#[tokio::test]
async fn a_slow_flow_is_not_taken_for_a_slow_reader() {
    let gate = Gate::closed();
    let (_world, gateway, long) = long_answers("300ms", 2, Some(gate.clone())).await;
    let before = long.hold();
    let mut caller = caller(&gateway, 65_535).await;
    caller.ready().await.unwrap();
    let mut answer = Box::pin(caller.send_request(request("/long")));
    let early = tokio::time::timeout(Duration::from_secs(1), &mut answer).await;
    assert!(early.is_err(), "the flow has not answered yet");
    before.open();
    let mut body = answer.await.unwrap().into_body();
    let mut read = 0;
    while read < 65_536 {
        read += body.frame().await.unwrap().unwrap().into_data().unwrap().len();
    }
    let early = tokio::time::timeout(Duration::from_secs(1), body.frame()).await;
    assert!(early.is_err(), "the flow has not gone on yet");
    gate.open();
    let rest = tokio::time::timeout(PATIENCE, body.collect()).await;
    assert_eq!(rest.unwrap().unwrap().to_bytes().len(), 65_536);
}

/// A request for a long answer on the first stream.
fn long_request() -> Vec<u8> {
    // The method POST and the scheme https are in the static table (RFC 7541 appendix A).
    let mut block = vec![0x83, 0x87];
    for (name, value) in [
        (":path", "/long"),
        (":authority", "localhost"),
        ("x-api-key", KEY),
    ] {
        block.extend(frames::field(name, value));
    }
    let flags = frames::END_HEADERS | frames::END_STREAM;
    frames::frame(frames::HEADERS, flags, 1, &block)
}

/// SETTINGS with this initial window size.
fn windows(bytes: u32) -> Vec<u8> {
    frames::frame(
        frames::SETTINGS,
        0,
        0,
        &[&[0, 4], &bytes.to_be_bytes()[..]].concat(),
    )
}

/// A WINDOW_UPDATE of this size for a stream, or for the connection.
fn more(stream: u32, bytes: u32) -> Vec<u8> {
    frames::frame(frames::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

#[tokio::test]
async fn an_answer_whose_window_opens_late_arrives_whole() {
    for opened in [more(1, 100_000), windows(100_000)] {
        let (_world, gateway, _) = long_answers("10s", 1, None).await;
        let mut peer = Peer::connect(&gateway).await;
        peer.say(&[windows(0), more(0, 100_000), long_request()].concat())
            .await;
        peer.hear(|heard| heard.kind == frames::HEADERS).await.unwrap();
        assert!(peer.catch_up().await);
        peer.say(&opened).await;
        let mut read = 0;
        loop {
            let data = peer.hear(|heard| heard.kind == frames::DATA).await.unwrap();
            read += data.payload.len();
            if data.flags & frames::END_STREAM != 0 {
                break;
            }
        }
        assert_eq!(read, 65_536);
    }
}

#[tokio::test]
async fn an_answer_of_one_piece_is_taken_from_the_flow_though_its_window_is_closed() {
    let (_world, gateway, long) = long_answers("5m", 1, None).await;
    long.does(Flow::Respond(Reply::json(200, &Value::from("short"))));
    let mut caller = caller(&gateway, 0).await;
    let _unread = head(&mut caller).await;
    // There is one permit.
    assert_eq!(gateway.post("/long", "{}").await.status, 200);
}

/// The pace of a reader that pauses at each step and never for long.
fn steady() -> tokio::time::Interval {
    let mut pace = tokio::time::interval(Duration::from_millis(150));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    pace
}

#[tokio::test]
async fn a_reader_that_is_slow_but_steady_gets_everything() {
    let (_world, gateway, _) = long_answers("1500ms", 5, None).await;
    let mut caller = caller(&gateway, 65_535).await;
    let mut body = head(&mut caller).await.into_body();
    let began = tokio::time::Instant::now();
    let mut read = 0;
    let mut pace = steady();
    while let Some(frame) = body.frame().await {
        let before = read / 16_384;
        read += frame.unwrap().into_data().unwrap().len();
        if read / 16_384 > before {
            pace.tick().await;
        }
    }
    assert_eq!(read, 5 * 65_536);
    assert!(
        began.elapsed() > Duration::from_secs(2),
        "too quick to show anything"
    );
}

#[tokio::test]
async fn an_answer_arrives_whole_in_frames_of_ordinary_size() {
    let (_world, gateway, _) = long_answers("10s", 20, None).await;
    let mut caller = caller(&gateway, 1 << 20).await;
    let mut body = head(&mut caller).await.into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        assert!(data.len() <= 16 * 1024, "{}", data.len());
        read += data.len();
    }
    assert_eq!(read, 20 * 65_536);
}

#[tokio::test]
async fn a_stream_whose_reader_lets_single_bytes_come_is_reset() {
    let (_world, gateway, long) = long_answers("1s", 1024, None).await;
    let mut peer = Peer::connect(&gateway).await;
    peer.say(&[windows(0), more(0, 100_000), long_request()].concat())
        .await;
    peer.hear(|heard| heard.kind == frames::HEADERS).await.unwrap();
    let mut pace = steady();
    let dripping = async {
        loop {
            pace.tick().await;
            assert!(peer.say(&more(1, 1)).await, "the connection lives");
        }
    };
    let stalled = |line: &Value| line["kind"] == "connection" && line["reason"] == "write-stalled";
    tokio::select! {
        _ = gateway.lines.wait_for(stalled) => {}
        () = dripping => {}
    }
    let cut = gateway.lines.wait_for(|line| line["route"] == "long").await;
    assert_eq!(cut["end"], "caller-gone", "{cut}");
    // The permit is free again.
    long.does(Flow::Accepted);
    assert_eq!(gateway.post("/long", "{}").await.status, 202);
}

/// Asks for a long answer over HTTP/1.
async fn ask(talk: &mut Talk) {
    talk.say(order_bytes("").replace("/orders", "/long")).await;
}

#[tokio::test]
async fn an_http1_caller_that_does_not_read_is_cut() {
    let times = "write_timeout = \"500ms\"\nidle_timeout = \"500ms\"";
    let (_world, gateway, long) = long_answers_with(times, 1024, None).await;
    let mut unread = gateway.talk().await;
    ask(&mut unread).await;
    let stalled = |line: &Value| line["kind"] == "connection" && line["reason"] == "write-stalled";
    gateway.lines.wait_for(stalled).await;
    let cut = gateway.lines.wait_for(|line| line["route"] == "long").await;
    assert_eq!(cut["end"], "caller-gone", "{cut}");
    // The permit is free again.
    long.does(Flow::Accepted);
    assert_eq!(gateway.post("/long", "{}").await.status, 202);
    let (_, metrics) = gateway.admin("/metrics").await;
    assert!(
        metrics.contains("flowgate_refusals_total{reason=\"write-stalled\"} 1"),
        "{metrics}"
    );
    // The part that it received does not look complete.
    assert!(!unread.rest().await.ends_with("0\r\n\r\n"));
}

#[tokio::test]
async fn an_http1_caller_that_is_slow_but_steady_gets_everything() {
    const STEP: usize = 2 * 1024 * 1024;
    const STEPS: usize = 20;
    let times = "write_timeout = \"1500ms\"\nidle_timeout = \"1500ms\"";
    let (_world, gateway, _) = long_answers_with(times, STEPS * STEP / 65_536, None).await;
    let mut talk = gateway.talk().await;
    let began = tokio::time::Instant::now();
    ask(&mut talk).await;
    let mut pace = steady();
    for _ in 0..STEPS {
        talk.skip(STEP).await;
        pace.tick().await;
    }
    talk.hear_until("\r\n0\r\n\r\n").await;
    assert!(
        began.elapsed() > Duration::from_secs(2),
        "too quick to show anything"
    );
}
