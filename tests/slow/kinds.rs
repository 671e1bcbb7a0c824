//! The kinds of slow connections, one after the other.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use crate::crowd::{Crowd, Kind, endure, reset, rest};
use crate::emulator::Answer as Flow;
use crate::frames;
use crate::harness::KEY;

const HANDSHAKE: &[&str] = &["connections.handshake_timeout"];
const HEAD: &[&str] = &["connections.head_timeout"];
const IDLE: &[&str] = &["connections.idle_timeout"];
const WRITE: &[&str] = &["connections.write_timeout"];
const BODY: &[&str] = &["bodies.timeout"];

/// More than the sockets buffer of an unread answer.
const LONG: Flow = Flow::Stream {
    chunks: 40,
    chunk_bytes: 16 * 1024,
    gate: None,
};
const LONG_BYTES: u64 = 40 * 16 * 1024;

/// A reader without a window costs more: hyper asks for the next piece of the answer before there is room for it, so the
/// stream has one record of its flow besides the send buffer, until its deadline.
const STALLED_BYTES_MAX: u64 = 64_000;

fn kind(name: &'static str, short: &'static [&'static str]) -> Kind {
    Kind {
        name,
        short,
        times: 1,
        bytes_max: 50_000,
        flow: None,
        unread_bytes: 0,
    }
}

/// The head of an order with a body of this many bytes.
fn head(length: usize) -> String {
    format!(
        "POST /orders HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// Sends a byte at intervals, and reads until the connection ends; returns what arrived and when it ended.
async fn drip(crowd: &Crowd, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> (Vec<u8>, Instant) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let dripping = async {
        let mut next = tokio::time::interval(crowd.now_and_then());
        // It does not notice when the other side is gone.
        while writer.write_all(b"x").await.is_ok() && writer.flush().await.is_ok() {
            next.tick().await;
        }
        std::future::pending().await
    };
    tokio::select! {
        rest = rest(&mut reader) => (rest, Instant::now()),
        () = dripping => unreachable!("it drips forever"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_sends_nothing_is_cut_at_the_deadline_of_the_handshake() {
    endure(
        kind("silent", HANDSHAKE),
        |crowd: Arc<Crowd>, number| async move {
            let turn = crowd.turn().await;
            let begun = Instant::now();
            let mut tcp = crowd.tcp(number).await;
            drop(turn);
            let _established = crowd.established();
            rest(&mut tcp).await;
            (begun, Instant::now())
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_drips_has_no_more_time_than_another() {
    endure(
        kind("half a hello", HANDSHAKE),
        |crowd: Arc<Crowd>, number| async move {
            let hello = crowd.half_a_hello();
            let turn = crowd.turn().await;
            let begun = Instant::now();
            let mut tcp = crowd.tcp(number).await;
            tcp.write_all(&hello).await.unwrap();
            drop(turn);
            let _established = crowd.established();
            (begun, drip(&crowd, &mut tcp).await.1)
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_without_a_request_is_cut_at_the_deadline_of_the_head() {
    endure(kind("no request", HEAD), |crowd: Arc<Crowd>, number| async move {
        let turn = crowd.turn().await;
        let begun = Instant::now();
        let mut tls = crowd.secure(crowd.tcp(number).await).await;
        drop(turn);
        let _established = crowd.established();
        rest(&mut tls).await;
        (begun, Instant::now())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_drips_has_no_more_time_than_another() {
    endure(
        kind("dripping head", HEAD),
        |crowd: Arc<Crowd>, number| async move {
            let turn = crowd.turn().await;
            let begun = Instant::now();
            let mut tls = crowd.secure(crowd.tcp(number).await).await;
            tls.write_all(b"POST /orders HTTP/1.1\r\nHost: localhost\r\nX-Padding: ")
                .await
                .unwrap();
            drop(turn);
            let _established = crowd.established();
            let (answer, ended) = drip(&crowd, &mut tls).await;
            assert_eq!(String::from_utf8_lossy(&answer), "");
            (begun, ended)
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_body_that_drips_has_no_more_time_than_another() {
    endure(
        kind("dripping body", BODY),
        |crowd: Arc<Crowd>, number| async move {
            let turn = crowd.turn().await;
            let mut tls = crowd.secure(crowd.tcp(number).await).await;
            let begun = Instant::now();
            tls.write_all(head(1000).as_bytes()).await.unwrap();
            drop(turn);
            let _established = crowd.established();
            let (answer, ended) = drip(&crowd, &mut tls).await;
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
            (begun, ended)
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamed_body_that_stops_ends_at_its_deadline() {
    let stops = Kind {
        flow: Some(Flow::Accepted),
        ..kind("stopped body", BODY)
    };
    endure(stops, |crowd: Arc<Crowd>, number| async move {
        let turn = crowd.turn().await;
        let mut tls = crowd.secure(crowd.tcp(number).await).await;
        let begun = Instant::now();
        tls.write_all(head(1_000_000).as_bytes()).await.unwrap();
        tls.write_all(&[b'x'; 1000]).await.unwrap();
        drop(turn);
        let _established = crowd.established();
        let answer = rest(&mut tls).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        (begun, Instant::now())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_does_not_read_its_answer_is_cut_at_the_deadline() {
    let unread = Kind {
        flow: Some(LONG),
        unread_bytes: LONG_BYTES,
        ..kind("unread answer", WRITE)
    };
    endure(unread, |crowd: Arc<Crowd>, number| async move {
        let turn = crowd.turn().await;
        let mut tls = crowd.secure(crowd.narrow_tcp(number).await).await;
        let begun = Instant::now();
        tls.write_all(head(0).as_bytes()).await.unwrap();
        // It reads only the first byte, so that the answer has begun.
        tls.read_u8().await.unwrap();
        drop(turn);
        let _established = crowd.established();
        reset(tls.get_ref().0).await;
        (begun, Instant::now())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_without_a_request_on_http2_is_cut_soon_after_the_deadline_of_the_head() {
    // It is asked to close, and has the same time again to do so.
    let silent = Kind {
        times: 2,
        ..kind("silent on HTTP/2", HEAD)
    };
    endure(silent, |crowd: Arc<Crowd>, number| async move {
        let turn = crowd.turn().await;
        let begun = Instant::now();
        let mut tls = crowd.secure_h2(crowd.tcp(number).await).await;
        tls.write_all(frames::PREFACE).await.unwrap();
        tls.write_all(&frames::frame(frames::SETTINGS, 0, 0, &[]))
            .await
            .unwrap();
        drop(turn);
        let _established = crowd.established();
        rest(&mut tls).await;
        (begun, Instant::now())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_window_stays_closed_is_reset_at_the_deadline() {
    let closed = Kind {
        flow: Some(LONG),
        unread_bytes: LONG_BYTES,
        bytes_max: STALLED_BYTES_MAX,
        ..kind("closed window", WRITE)
    };
    endure(closed, |crowd: Arc<Crowd>, number| async move {
        let turn = crowd.turn().await;
        let mut tls = crowd.secure_h2(crowd.tcp(number).await).await;
        let begun = Instant::now();
        let mut bytes = frames::PREFACE.to_vec();
        bytes.extend(frames::frame(frames::SETTINGS, 0, 0, &frames::NO_WINDOW));
        bytes.extend(frames::request(1, &frames::order_block()));
        tls.write_all(&bytes).await.unwrap();
        frames::until(frames::HEADERS, &mut tls).await.unwrap();
        drop(turn);
        let _established = crowd.established();
        frames::until(frames::RST_STREAM, &mut tls).await.unwrap();
        (begun, Instant::now())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_window_is_used_up_is_reset_at_the_deadline() {
    let used_up = Kind {
        flow: Some(LONG),
        unread_bytes: LONG_BYTES,
        bytes_max: STALLED_BYTES_MAX,
        ..kind("window used up", WRITE)
    };
    endure(used_up, |crowd: Arc<Crowd>, number| async move {
        let turn = crowd.turn().await;
        let mut tls = crowd.secure_h2(crowd.tcp(number).await).await;
        let begun = Instant::now();
        let mut bytes = frames::PREFACE.to_vec();
        bytes.extend(frames::frame(frames::SETTINGS, 0, 0, &[]));
        bytes.extend(frames::request(1, &frames::order_block()));
        tls.write_all(&bytes).await.unwrap();
        frames::until(frames::HEADERS, &mut tls).await.unwrap();
        drop(turn);
        let _established = crowd.established();
        // It accepts as much as the window of 65,535 bytes allows, and extends it no further.
        frames::until(frames::RST_STREAM, &mut tls).await.unwrap();
        (begun, Instant::now())
    })
    .await;
}

/// Sends an order and reads the head of its answer, which has no body.
async fn served(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    stream.write_all(head(0).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
    }
    assert!(
        answer.starts_with(b"HTTP/1.1 202 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_ends_at_the_idle_deadline() {
    endure(kind("at rest", IDLE), |crowd: Arc<Crowd>, number| async move {
        let turn = crowd.turn().await;
        let mut tls = crowd.secure(crowd.tcp(number).await).await;
        let begun = Instant::now();
        served(&mut tls).await;
        drop(turn);
        let _established = crowd.established();
        rest(&mut tls).await;
        (begun, Instant::now())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_between_requests_do_not_prolong_the_idle_time() {
    endure(
        kind("dripping between requests", HEAD),
        |crowd: Arc<Crowd>, number| async move {
            let turn = crowd.turn().await;
            let mut tls = crowd.secure(crowd.tcp(number).await).await;
            served(&mut tls).await;
            let begun = Instant::now();
            drop(turn);
            let _established = crowd.established();
            let (answer, ended) = drip(&crowd, &mut tls).await;
            assert_eq!(String::from_utf8_lossy(&answer), "");
            (begun, ended)
        },
    )
    .await;
}
