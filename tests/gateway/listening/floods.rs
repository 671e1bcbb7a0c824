//! HTTP/2 peers that cause work without requesting anything. Each is cut off within a bounded number of
//! frames, with a log line and a count, while a good caller on the same worker keeps being answered.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::emulator::Answer as Flow;
use crate::emulator::Trigger;
use crate::harness::{Running, TENANT, World};
use crate::listening::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, Peer, RST_STREAM,
    SETTINGS, UNKNOWN, WINDOW_UPDATE, field, frame, number, order_fields, order_head, stream,
};
use crate::listening::order;

/// Three times what a peer may send at once; little of it is forgiven in the second that it takes.
const FLOOD: u32 = 3000;
/// Far above what an answer takes on a busy machine, far below the delay of a blocked worker.
const LATENCY_MAX: Duration = Duration::from_secs(3);

/// One worker, and no limit that would stop a flood of requests before it is recognized as a flood.
async fn one_worker() -> (World, Running) {
    let world = World::new().await;
    let trigger = Trigger::any_user(TENANT).does(Flow::Accepted);
    let trigger = world.emulator.flow.add(trigger);
    let rate = "rate = { requests = 1000000, per = \"1s\" }\n";
    let base = world
        .base()
        .replace("workers = 2", "workers = 1")
        .replace("name = \"shop\"\n", &format!("name = \"shop\"\n{rate}"));
    let route = world.route("orders", "/orders", &trigger.url(), rate);
    let limits = "[limits]\ngateway = { requests = 1000000, per = \"1s\" }\n";
    let gateway = world.start(&format!("{limits}{base}{route}"));
    gateway.ready().await;
    (world, gateway)
}

/// A good caller that posts orders until it is stopped, and then reports the time of the slowest.
struct Good {
    stop: oneshot::Sender<()>,
    slowest: JoinHandle<Duration>,
}

impl Good {
    async fn start(gateway: &Running) -> Self {
        let mut connection = gateway.connect().await;
        let (stop, mut stopped) = oneshot::channel();
        let slowest = tokio::spawn(async move {
            let mut slowest = Duration::ZERO;
            let mut pace = tokio::time::interval(Duration::from_millis(5));
            loop {
                pace.tick().await;
                let asked = Instant::now();
                assert_eq!(connection.send(order()).await.status, 202);
                slowest = slowest.max(asked.elapsed());
                if stopped.try_recv().is_ok() {
                    return slowest;
                }
            }
        });
        Self { stop, slowest }
    }

    async fn was_served(self) {
        self.stop.send(()).unwrap();
        let slowest = self.slowest.await.unwrap();
        assert!(slowest < LATENCY_MAX, "the good caller waited {slowest:?}");
    }
}

/// How often this reason was counted.
async fn counted(gateway: &Running, reason: &str) -> u64 {
    let (_, metrics) = gateway.admin("/metrics").await;
    let name = format!("flowgate_refusals_total{{reason=\"{reason}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
    value.map_or(0, |value| value.parse().unwrap())
}

/// Sends this many units after a beginning; the gateway must end the connection for this reason.
async fn is_cut(
    gateway: &Running,
    what: &str,
    reason: &str,
    beginning: &[u8],
    units: u32,
    unit: impl Fn(u32) -> Vec<u8>,
) {
    let good = Good::start(gateway).await;
    let before = counted(gateway, reason).await;
    let mut peer = Peer::connect(gateway).await;
    let mut bytes = beginning.to_vec();
    for number in 0..units {
        bytes.extend(unit(number));
        if bytes.len() > 16 * 1024 || number + 1 == units {
            if !peer.say(&bytes).await {
                break;
            }
            bytes.clear();
        }
    }
    peer.rest().await;
    good.was_served().await;
    let after = counted(gateway, reason).await;
    assert_eq!(after, before + 1, "{what}: {:#?}", gateway.lines.all());
    let line = gateway
        .lines
        .wait_for(|line| line["kind"] == "connection" && line["reason"] == reason)
        .await;
    assert_eq!(line["address"], "127.0.0.1", "{what}");
}

#[tokio::test]
async fn floods_of_frames_that_ask_for_nothing_are_cut() {
    let (_world, gateway) = one_worker().await;
    let one = 1u32.to_be_bytes();
    for (what, unit) in [
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("answers to no PING", frame(PING, ACK, 0, &[0; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        (
            "SETTINGS that say something",
            frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]),
        ),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0; 5])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &one)),
        ("unknown frames", frame(UNKNOWN, 0, 0, &[0; 3])),
        ("empty unknown frames", frame(UNKNOWN, 0, 1, &[])),
    ] {
        is_cut(&gateway, what, "http2-flood", &[], FLOOD, |_| unit.clone()).await;
    }
}

#[tokio::test]
async fn frames_that_nobody_may_send_end_the_connection_at_once() {
    let (_world, gateway) = one_worker().await;
    let ended = frame(HEADERS, END_HEADERS | END_STREAM, 1, &order_fields());
    for (what, beginning, unit) in [
        ("no window", Vec::new(), frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        (
            "no window of a stream",
            order_head(1),
            frame(WINDOW_UPDATE, 0, 1, &[0; 4]),
        ),
        ("a body after its end", ended, frame(DATA, 0, 1, &[0])),
    ] {
        is_cut(&gateway, what, "malformed-http2", &beginning, 1, |_| unit.clone()).await;
    }
}

#[tokio::test]
async fn a_body_of_empty_frames_is_cut() {
    let (_world, gateway) = one_worker().await;
    let empty = frame(DATA, 0, 1, &[]);
    let head = order_head(1);
    is_cut(&gateway, "empty DATA", "http2-flood", &head, FLOOD, |_| {
        empty.clone()
    })
    .await;
}

#[tokio::test]
async fn heads_without_end_are_cut() {
    let (_world, gateway) = one_worker().await;
    let begun = frame(HEADERS, 0, 1, &order_fields());
    let filler = field("x-filler", &"a".repeat(1000));
    for (what, reason, part) in [
        ("empty CONTINUATION", "http2-flood", Vec::new()),
        ("CONTINUATION", "head-too-large", filler),
    ] {
        let part = frame(CONTINUATION, 0, 1, &part);
        is_cut(&gateway, what, reason, &begun, FLOOD, |_| part.clone()).await;
    }
}

#[tokio::test]
async fn requests_that_are_cancelled_at_once_are_cut() {
    let (_world, gateway) = one_worker().await;
    is_cut(&gateway, "rapid reset", "http2-flood", &[], FLOOD, |number| {
        let reset = frame(RST_STREAM, 0, stream(number), &8u32.to_be_bytes());
        [order_head(stream(number)), reset].concat()
    })
    .await;
}

#[tokio::test]
async fn requests_that_are_cancelled_once_they_run_are_cut() {
    let (_world, gateway) = one_worker().await;
    let good = Good::start(&gateway).await;
    let mut peer = Peer::connect(&gateway).await;
    let mut begun = 0;
    // Each is accepted before it is cancelled, so h2 does not reject it.
    while peer.say(&order_head(stream(begun))).await && peer.catch_up().await {
        peer.say(&frame(RST_STREAM, 0, stream(begun), &8u32.to_be_bytes()))
            .await;
        begun += 1;
        assert!(begun < FLOOD, "it may go on forever");
    }
    good.was_served().await;
    assert_eq!(counted(&gateway, "http2-flood").await, 1);
}

#[tokio::test]
async fn resets_that_a_peer_provokes_are_cut() {
    let (_world, gateway) = one_worker().await;
    let beyond = i32::MAX.to_be_bytes();
    let fields = [order_fields(), field("content-length", "2")].concat();
    for (what, kind, payload) in [
        ("a window opened too far", WINDOW_UPDATE, beyond.to_vec()),
        ("a body longer than it said", DATA, vec![0; 3]),
    ] {
        is_cut(&gateway, what, "http2-flood", &[], FLOOD, |number| {
            let id = stream(number);
            let head = frame(HEADERS, END_HEADERS, id, &fields);
            [head, frame(kind, 0, id, &payload)].concat()
        })
        .await;
    }
}

/// A field whose name and value are added to the dynamic table (RFC 7541 section 6.2.1).
fn remembered(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = field(name, value);
    bytes[0] = 0x40;
    bytes
}

/// The newest entry of that table, in one byte.
const NEWEST: u8 = 0x80 | 62;

#[tokio::test]
async fn small_heads_that_unfold_into_large_ones_are_refused_and_at_last_cut() {
    let (_world, gateway) = one_worker().await;
    let known = [order_fields(), remembered("x-filler", &"a".repeat(3900))].concat();
    let known = frame(HEADERS, END_HEADERS | END_STREAM, 1, &known);
    // Nine times the content of the table exceeds the limit of a head.
    let bomb = [order_fields(), vec![NEWEST; 9]].concat();
    is_cut(&gateway, "large heads", "http2-flood", &known, FLOOD, |number| {
        frame(HEADERS, END_HEADERS | END_STREAM, stream(number + 1), &bomb)
    })
    .await;
    let bomb = [order_fields(), vec![NEWEST; 16_000]].concat();
    is_cut(&gateway, "one huge head", "head-too-large", &known, 1, |_| {
        frame(HEADERS, END_HEADERS | END_STREAM, 3, &bomb)
    })
    .await;
}

/// How many times a field of 3,900 bytes is repeated for a head of so many times the limit of 32 KiB.
fn unfolded(times: usize) -> usize {
    times * 32 * 1024 / 3940 + 1
}

#[tokio::test]
async fn a_head_that_unfolds_to_more_than_twice_the_limit_ends_its_connection() {
    // From eight times on h2 ends it by itself.
    for times in [2, 7, 8] {
        let (_world, gateway) = one_worker().await;
        let good = Good::start(&gateway).await;
        let mut peer = Peer::connect(&gateway).await;
        let known = [order_fields(), remembered("x-filler", &"a".repeat(3900))].concat();
        let bomb = [order_fields(), vec![NEWEST; unfolded(times)]].concat();
        peer.say(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &known))
            .await;
        peer.hear(|heard| heard.kind == HEADERS && heard.stream == 1)
            .await
            .unwrap();
        // With the beginning of another frame, which never comes whole.
        let ping = frame(PING, 0, 0, &[0; 8]);
        peer.say(&[&frame(HEADERS, END_HEADERS, 3, &bomb)[..], &ping[..5]].concat())
            .await;
        let heard = peer.rest().await;
        let goodbye = heard.iter().find(|heard| heard.kind == GOAWAY).unwrap();
        assert_eq!(
            goodbye.payload[4..8],
            [0, 0, 0, 0xb],
            "ENHANCE_YOUR_CALM for {times}"
        );
        let line = gateway
            .lines
            .wait_for(|line| line["reason"] == "head-too-large")
            .await;
        let detail = line["detail"].as_str().unwrap();
        assert!(
            detail.contains("65536 bytes or more, decoded")
                && detail.contains("`connections.head_size_max` is 32768"),
            "{detail}"
        );
        good.was_served().await;
        assert_eq!(counted(&gateway, "head-too-large").await, 1);
    }
}

#[tokio::test]
async fn a_body_under_way_gets_nothing_that_its_caller_has_not_sent_when_its_connection_ends() {
    let (world, gateway) = one_worker().await;
    let mut peer = Peer::connect(&gateway).await;
    let known = [order_fields(), remembered("x-filler", &"a".repeat(3900))].concat();
    let bomb = [order_fields(), vec![NEWEST; unfolded(3)]].concat();
    let body = frame(DATA, END_STREAM, 1, b"{\"order\":1}");
    let head = frame(HEADERS, END_HEADERS, 1, &known);
    let bomb = frame(HEADERS, END_HEADERS | END_STREAM, 3, &bomb);
    let (first, rest) = body.split_at(15);
    peer.say(&[&head[..], &bomb, first].concat()).await;
    peer.hear(|heard| heard.kind == HEADERS && heard.stream == 3)
        .await
        .unwrap();
    assert_eq!(world.emulator.flow.heads().get(), 0);
    peer.say(rest).await;
    let heard = peer.rest().await;
    let goodbye = heard.iter().find(|heard| heard.kind == GOAWAY).unwrap();
    assert_eq!(goodbye.payload[4..8], [0, 0, 0, 0xb], "ENHANCE_YOUR_CALM");
    gateway
        .lines
        .wait_for(|line| line["reason"] == "head-too-large")
        .await;
}

#[tokio::test]
async fn a_head_that_unfolds_too_far_costs_only_itself() {
    let (_world, gateway) = one_worker().await;
    let mut peer = Peer::connect(&gateway).await;
    let known = [order_fields(), remembered("x-filler", &"a".repeat(3900))].concat();
    let bomb = [order_fields(), vec![NEWEST; 9]].concat();
    peer.say(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &known))
        .await;
    peer.say(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &bomb))
        .await;
    peer.say(&frame(HEADERS, END_HEADERS | END_STREAM, 5, &order_fields()))
        .await;
    let mut open = vec![1, 3, 5];
    while !open.is_empty() {
        let answer = peer.hear(|heard| heard.kind == HEADERS).await.unwrap();
        open.retain(|id| *id != answer.stream);
    }
    assert!(peer.catch_up().await, "the connection is over");
    let line = gateway
        .lines
        .wait_for(|line| line["problem"] == "head-too-large")
        .await;
    let cause = line["cause"].as_str().unwrap();
    assert!(
        cause.contains("the head has 35") && cause.contains("`connections.head_size_max` is 32768"),
        "{cause}"
    );
}

#[tokio::test]
async fn a_table_that_is_resized_without_end_is_cut() {
    let (_world, gateway) = one_worker().await;
    let resized = [vec![0x20; 1000], order_fields()].concat();
    let mut too_large = vec![0x3f];
    number(&mut too_large, 1 << 20);
    for (what, reason, block) in [
        ("resized", "http2-flood", resized),
        ("resized over the limit", "malformed-http2", too_large),
    ] {
        is_cut(&gateway, what, reason, &[], FLOOD, |number| {
            frame(HEADERS, END_HEADERS, stream(number), &block)
        })
        .await;
    }
}

#[tokio::test]
async fn the_announced_windows_and_limits_are_those_of_the_settings() {
    let (_world, gateway) = one_worker().await;
    let mut peer = Peer::connect(&gateway).await;
    let settings = peer
        .hear(|heard| heard.kind == SETTINGS && heard.flags == 0)
        .await;
    let settings = settings.unwrap().payload;
    let announced = |id: u8| {
        let entry = settings.chunks(6).find(|entry| entry[..2] == [0, id])?;
        Some(u32::from_be_bytes(entry[2..].try_into().unwrap()))
    };
    assert_eq!(announced(3), Some(100), "streams");
    assert_eq!(announced(4).unwrap_or(65_535), 64 * 1024, "window of a stream");
    assert_eq!(announced(6), Some(32 * 1024), "largest head");
    assert_eq!(announced(5).unwrap_or(16_384), 16_384, "largest frame");
    assert_eq!(announced(1).unwrap_or(4096), 4096, "table of header fields");
    let window = peer
        .hear(|heard| heard.kind == WINDOW_UPDATE && heard.stream == 0)
        .await;
    let more = u32::from_be_bytes(window.unwrap().payload.try_into().unwrap());
    assert_eq!(more + 65_535, 1024 * 1024, "window of the connection");
}
