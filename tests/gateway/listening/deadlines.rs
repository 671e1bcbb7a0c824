//! How long a connection may take, idle and live, and how many there may be.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::harness::{KEY, PATIENCE, Running, send_h2};
use crate::listening::frames::{
    CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PING, Peer, field, frame, order_fields,
};
use crate::listening::{Talk, order, order_bytes, served};

/// An idle time after which a connection has certainly been parked.
const LONG_REST: Duration = Duration::from_millis(1200);

async fn has_line(gateway: &Running, reason: &str) {
    gateway
        .lines
        .wait_for(|line| line["kind"] == "connection" && line["reason"] == reason)
        .await;
}

fn connection_lines(gateway: &Running) -> Vec<String> {
    let mut lines = gateway.lines.all();
    lines.retain(|line| line.contains("\"kind\":\"connection\""));
    lines
}

#[tokio::test]
async fn half_a_head_is_cut_at_its_deadline() {
    let (_world, gateway, trigger) = served("[connections]\nhead_timeout = \"400ms\"\n").await;
    let mut talk = gateway.talk().await;
    let began = Instant::now();
    talk.say("POST /orders HTTP/1.1\r\nHost: local").await;
    assert_eq!(talk.rest().await, "");
    assert!(
        began.elapsed() >= Duration::from_millis(400),
        "{:?}",
        began.elapsed()
    );
    has_line(&gateway, "head-timeout").await;
    assert_eq!(trigger.request_count().get(), 0);
}

#[tokio::test]
async fn a_head_that_drips_has_no_more_time_than_another() {
    let (_world, gateway, _) = served("[connections]\nhead_timeout = \"400ms\"\n").await;
    let mut talk = gateway.talk().await;
    talk.say("POST /orders HTTP/1.1\r\nHost: localhost\r\n").await;
    drips(&mut talk, "x: y\r\n").await;
    has_line(&gateway, "head-timeout").await;
}

/// Writes this repeatedly until the gateway closes.
async fn drips<S: AsyncRead + AsyncWrite + Unpin>(talk: &mut Talk<S>, drop: &str) {
    let drip = async {
        while talk.try_say(drop).await.is_ok() {
            if tokio::time::timeout(Duration::from_millis(50), talk.more()).await == Ok(0) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, drip)
        .await
        .expect("it may drip forever");
}

#[tokio::test]
async fn a_handshake_that_drips_has_no_more_time_than_another() {
    let (_world, gateway, _) = served("[connections]\nhandshake_timeout = \"400ms\"\n").await;
    let mut talk = Talk::new(TcpStream::connect(gateway.address).await.unwrap());
    // A ClientHello of 16 kB, without the first byte after its length.
    talk.say([22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3]).await;
    drips(&mut talk, "x").await;
    has_line(&gateway, "handshake-timeout").await;
}

#[tokio::test]
async fn bytes_that_drip_after_an_answer_meet_the_deadline_of_a_head() {
    let settings = "[connections]\nhead_timeout = \"400ms\"\nidle_timeout = \"1h\"\n";
    let (_world, gateway, trigger) = served(settings).await;
    let mut talk = gateway.talk().await;
    talk.say(order_bytes("")).await;
    assert_eq!(talk.hear().await.status, 202);
    drips(&mut talk, "P").await;
    has_line(&gateway, "head-timeout").await;
    assert_eq!(trigger.runs(), 1);
}

/// Writes this repeatedly over HTTP/2 until the gateway closes.
async fn drips_h2(peer: &mut Peer, drop: &[u8]) {
    let drip = async {
        while peer.say(drop).await {
            if let Ok(None) = tokio::time::timeout(Duration::from_millis(50), peer.hear(|_| false)).await {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, drip)
        .await
        .expect("it may drip forever");
}

#[tokio::test]
async fn pings_do_not_keep_an_idle_http2_connection() {
    let settings = "[connections]\nhead_timeout = \"400ms\"\nidle_timeout = \"400ms\"\n";
    let (_world, gateway, trigger) = served(settings).await;
    for served in [false, true] {
        let mut peer = Peer::connect(&gateway).await;
        if served {
            peer.say(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &order_fields()))
                .await;
            assert!(peer.hear(|heard| heard.kind == HEADERS).await.is_some());
        }
        drips_h2(&mut peer, &frame(PING, 0, 0, &[0; 8])).await;
    }
    assert_eq!(trigger.runs(), 1);
}

#[tokio::test]
async fn a_head_that_drips_over_http2_has_an_end() {
    let settings = "[connections]\nhead_timeout = \"400ms\"\nidle_timeout = \"400ms\"\n";
    let (_world, gateway, trigger) = served(settings).await;
    let mut peer = Peer::connect(&gateway).await;
    peer.say(&frame(HEADERS, END_STREAM, 1, &order_fields())).await;
    drips_h2(&mut peer, &frame(CONTINUATION, 0, 1, &field("x", "y"))).await;
    assert_eq!(trigger.request_count().get(), 0);
}

#[tokio::test]
async fn half_a_head_after_an_answer_has_the_same_deadline() {
    let (_world, gateway, _) = served("[connections]\nhead_timeout = \"400ms\"\n").await;
    for rest in [Duration::ZERO, LONG_REST] {
        let mut talk = gateway.talk().await;
        talk.say(order_bytes("")).await;
        assert_eq!(talk.hear().await.status, 202);
        talk.silence(rest).await;
        talk.say("POST /orders HTTP/1.1\r\n").await;
        let began = Instant::now();
        assert_eq!(talk.rest().await, "");
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "that was the idle limit"
        );
    }
    gateway
        .lines
        .wait_for(|_| connection_lines(&gateway).len() == 2)
        .await;
    assert!(
        connection_lines(&gateway)
            .iter()
            .all(|line| line.contains("head-timeout"))
    );
}

#[tokio::test]
async fn a_caller_that_sends_nothing_after_the_handshake_is_cut() {
    let (_world, gateway, _) = served("[connections]\nhead_timeout = \"400ms\"\n").await;
    let mut talk = gateway.talk().await;
    assert_eq!(talk.rest().await, "");
    has_line(&gateway, "no-request").await;
}

#[tokio::test]
async fn a_caller_that_sends_nothing_on_http2_is_cut() {
    let (_world, gateway, _) = served("[connections]\nhead_timeout = \"400ms\"\n").await;
    let sender = gateway.connect_h2().await;
    let closed = async {
        while !sender.is_closed() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, closed)
        .await
        .expect("it stays forever");
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time_without_a_complaint() {
    let (_world, gateway, _) = served("[connections]\nidle_timeout = \"1s\"\n").await;
    let mut talk = gateway.talk().await;
    talk.say(order_bytes("")).await;
    assert_eq!(talk.hear().await.status, 202);
    let began = Instant::now();
    assert_eq!(talk.rest().await, "");
    let rested = began.elapsed();
    assert!(
        rested >= Duration::from_millis(900) && rested < Duration::from_secs(5),
        "{rested:?}"
    );
    assert_eq!(connection_lines(&gateway), Vec::<String>::new());
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed_after_its_time() {
    let (_world, gateway, _) = served("[connections]\nidle_timeout = \"500ms\"\n").await;
    let mut sender = gateway.connect_h2().await;
    let request = http::Request::post("https://localhost/orders").header("x-api-key", KEY);
    let request = request.body(http_body_util::Full::from("{}")).unwrap();
    assert_eq!(send_h2(&mut sender, request).await.status, 202);
    let closed = async {
        while !sender.is_closed() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, closed)
        .await
        .expect("it stays forever");
}

#[tokio::test]
async fn an_idle_connection_serves_again() {
    let (_world, gateway, trigger) = served("").await;
    let mut talk = gateway.talk().await;
    for _ in 0..3 {
        talk.say(order_bytes("")).await;
        assert_eq!(talk.hear().await.status, 202);
        talk.silence(LONG_REST).await;
    }
    // The first byte of a head wakes it; the rest may come later.
    let bytes = order_bytes("");
    let (first, rest) = bytes.split_at(1);
    talk.say(first).await;
    talk.silence(Duration::from_millis(100)).await;
    talk.say(rest).await;
    assert_eq!(talk.hear().await.status, 202);
    assert_eq!(trigger.runs(), 4);
    assert_eq!(connection_lines(&gateway), Vec::<String>::new());
}

#[tokio::test]
async fn a_long_answer_does_not_count_as_idle() {
    let (_world, gateway, trigger) =
        served("[connections]\nidle_timeout = \"200ms\"\nhead_timeout = \"200ms\"\n").await;
    let gate = trigger.hold();
    let mut talk = gateway.talk().await;
    talk.say(order_bytes("")).await;
    gate.arrived(1).await;
    talk.silence(LONG_REST).await;
    gate.release(1);
    assert_eq!(talk.hear().await.status, 202);
}

#[tokio::test]
async fn an_old_connection_ends_with_an_answer_that_says_so() {
    let (_world, gateway, trigger) = served("[connections]\nage_max = \"1s\"\n").await;
    let mut talk = gateway.talk().await;
    talk.say(order_bytes("")).await;
    let young = talk.hear().await;
    assert_eq!(young.header("connection"), None);
    let gate = trigger.hold();
    talk.say(order_bytes("")).await;
    gate.arrived(1).await;
    talk.silence(Duration::from_millis(1700)).await;
    gate.release(1);
    let old = talk.hear().await;
    assert_eq!(
        (old.status.as_u16(), old.header("connection")),
        (202, Some("close"))
    );
    assert_eq!(talk.rest().await, "");
}

#[tokio::test]
async fn an_old_idle_connection_is_closed() {
    let (_world, gateway, _) = served("[connections]\nage_max = \"1s\"\n").await;
    let mut talk = gateway.talk().await;
    talk.say(order_bytes("")).await;
    assert_eq!(talk.hear().await.status, 202);
    let began = Instant::now();
    assert_eq!(talk.rest().await, "");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn an_old_http2_connection_ends_after_its_answers() {
    let settings = "[connections]\nage_max = \"1s\"\nhead_timeout = \"300ms\"\n";
    let (_world, gateway, trigger) = served(settings).await;
    let gate = trigger.hold();
    let mut sender = gateway.connect_h2().await;
    let request = http::Request::post("https://localhost/orders").header("x-api-key", KEY);
    let request = request.body(http_body_util::Full::from("{}")).unwrap();
    let mut answer = Box::pin(send_h2(&mut sender, request));
    let early = tokio::time::timeout(Duration::from_millis(1700), &mut answer).await;
    assert!(early.is_err(), "the flow has not answered yet");
    gate.release(1);
    assert_eq!(answer.await.status, 202, "what runs is not cut");
    let closed = async {
        while !sender.is_closed() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, closed)
        .await
        .expect("it stays forever");
}

#[tokio::test]
async fn connections_beyond_the_cap_are_cut_until_one_leaves() {
    let (_world, gateway, trigger) = served("[connections]\nmax = 2\n").await;
    let mut kept = gateway.connect().await;
    assert_eq!(kept.send(order()).await.status, 202);
    let mut leaving = gateway.connect().await;
    assert_eq!(leaving.send(order()).await.status, 202);

    let mut third = Talk::new(TcpStream::connect(gateway.address).await.unwrap());
    assert_eq!(third.rest().await, "");
    has_line(&gateway, "connections-full").await;
    assert_eq!(kept.send(order()).await.status, 202, "those inside are served");

    drop(leaving);
    let left = async {
        while !gateway
            .admin("/metrics")
            .await
            .1
            .contains("\nflowgate_connections 1\n")
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, left)
        .await
        .expect("the place stays taken");
    assert_eq!(gateway.send(order()).await.status, 202);
    assert_eq!(trigger.runs(), 4);
}

#[tokio::test]
async fn many_connections_that_miss_a_deadline_are_counted_and_do_not_fill_the_log() {
    const SILENT: usize = 100;
    let (_world, gateway, _) = served("[connections]\nhead_timeout = \"400ms\"\n").await;
    let began = Instant::now();
    let mut talks = Vec::new();
    for _ in 0..SILENT {
        talks.push(gateway.talk().await);
    }
    for talk in &mut talks {
        assert_eq!(talk.rest().await, "");
    }
    let counted = format!("\nflowgate_refusals_total{{reason=\"no-request\"}} {SILENT}\n");
    let all = async {
        while !gateway.admin("/metrics").await.1.contains(&counted) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .expect("not all are counted");
    let lines = connection_lines(&gateway).len();
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!((1..=seconds + 2).contains(&lines), "{lines} lines in {seconds} s");
}
