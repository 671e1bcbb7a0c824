//! One interpretation of every request: what another server on the way could read differently is refused
//! before anything of it is sent upstream. This file has what the tests of HTTP/1 share: cases, and the three
//! ways in which each is sent. The same for HTTP/2 is in `frames.rs`.

mod below;
mod blocks;
mod bodies;
mod changes;
mod frames;
mod hosts;
mod http2;
mod lengths;
mod lines;
mod lookalikes;
mod paths;
mod strict;
mod targets;
mod trailers;

use std::collections::BTreeSet;

use futures_util::{StreamExt, stream};

use crate::harness::{Answer, Running};
use crate::listening::{Talk, assert_malformed, order, order_bytes, served};

/// Cases that are tried in parallel.
const AT_ONCE: usize = 64;

/// A request on HTTP/1 that must be refused, and what is wrong with it.
struct Case {
    what: String,
    bytes: Vec<u8>,
}

fn case(what: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Case {
    Case {
        what: what.into(),
        bytes: bytes.into(),
    }
}

/// A good order in which one text is replaced by another.
fn changed(from: &str, to: &str) -> String {
    let good = order_bytes("");
    assert!(good.contains(from), "{from:?} is not in a good order");
    good.replacen(from, to, 1)
}

/// Expects our 400, a close, and nothing else.
async fn assert_last(talk: &mut Talk, what: &str) -> Answer {
    let answer = talk.hear().await;
    assert_malformed(&answer, what);
    assert_eq!(talk.rest().await, "", "{what}: something follows the refusal");
    answer
}

/// Each refusal is logged and counted.
async fn assert_logged(gateway: &Running, refusals: usize) {
    let refused = || {
        let lines = gateway.lines.all();
        lines
            .iter()
            .filter(|line| line.contains("\"kind\":\"request\"") && line.contains("\"malformed-request\""))
            .count()
    };
    gateway.lines.wait_for(|_| refused() >= refusals).await;
    assert_eq!(refused(), refusals);
    let metrics = gateway.admin("/metrics").await.1;
    let count = format!("flowgate_refusals_total{{reason=\"malformed-request\"}} {refusals}\n");
    assert!(metrics.contains(&count), "{count} is missing in:\n{metrics}");
}

/// Sends each first on its connection, followed by a good request that is never read.
async fn refused_alone(cases: &[Case]) {
    let (world, gateway, _) = served("").await;
    for Case { what, bytes } in cases {
        let mut talk = gateway.talk().await;
        let both = [bytes.as_slice(), order_bytes("").as_bytes()].concat();
        talk.say(both).await;
        let answer = assert_last(&mut talk, what).await;
        let line = gateway.lines.of(&answer).await;
        assert_eq!(
            (&line["protocol"], &line["status"]),
            (&"h1".into(), &400.into()),
            "{what}"
        );
    }
    assert_eq!(world.emulator.flow.heads().get(), 0);
    assert_logged(&gateway, cases.len()).await;
    assert_eq!(gateway.send(order()).await.status, 202);
}

/// Tries cases in parallel, each on a connection of its own.
async fn each(cases: &[Case], test: impl AsyncFn(&Case)) {
    stream::iter(cases)
        .for_each_concurrent(AT_ONCE, |case| test(case))
        .await;
}

/// Sends each in one piece after a good request, which is served.
async fn refused_after_a_good_one(cases: &[Case]) {
    let (world, gateway, trigger) = served("").await;
    each(cases, async |Case { what, bytes }| {
        let mut talk = gateway.talk().await;
        let good = order_bytes("");
        talk.say([good.as_bytes(), bytes, good.as_bytes()].concat()).await;
        assert_eq!(talk.hear().await.status, 202, "the one before {what}");
        assert_last(&mut talk, what).await;
    })
    .await;
    assert_eq!(trigger.runs(), cases.len() as u64);
    assert_eq!(world.emulator.flow.heads().get(), cases.len() as u64);
    assert_logged(&gateway, cases.len()).await;
}

/// Sends each in two pieces, cut at several places of its head: every write is a TLS record, and records are
/// read one by one even if they arrive together.
async fn refused_in_two_pieces(cases: &[Case]) {
    let (world, gateway, _) = served("").await;
    let mut sent = 0;
    for Case { what, bytes } in cases {
        for cut in cuts(bytes) {
            let (first, second) = bytes.split_at(cut);
            let mut talk = gateway.talk().await;
            talk.say(first).await;
            // The first piece may have been enough to close the connection.
            let _ = talk.try_say(second).await;
            assert_last(&mut talk, &format!("{what}, cut at {cut}")).await;
            sent += 1;
        }
    }
    assert_eq!(world.emulator.flow.heads().get(), 0);
    assert_logged(&gateway, sent).await;
}

/// After the first byte, around the first line's end, in the middle, and around the end of the head.
fn cuts(bytes: &[u8]) -> BTreeSet<usize> {
    let line = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(bytes.len(), |at| at + 1);
    let head = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map_or(bytes.len(), |at| at + 4);
    let places = [1, line - 1, line, head / 2, head - 2, head - 1, head];
    places
        .into_iter()
        .filter(|cut| (1..bytes.len()).contains(cut))
        .collect()
}

/// Three tests for a table of cases: alone, behind a good request, in two pieces.
macro_rules! refused {
    ($cases:expr; $alone:ident, $behind:ident, $pieces:ident) => {
        #[tokio::test]
        async fn $alone() {
            crate::reading::refused_alone(&$cases).await;
        }

        #[tokio::test]
        async fn $behind() {
            crate::reading::refused_after_a_good_one(&$cases).await;
        }

        #[tokio::test]
        async fn $pieces() {
            crate::reading::refused_in_two_pieces(&$cases).await;
        }
    };
}
use refused;
