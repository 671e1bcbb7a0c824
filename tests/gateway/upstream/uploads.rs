//! Answers that arrive before our request is sent completely.

use super::caller::{Caller, End, Protocol, Seen, Wire};
use super::{Stand, bytes};
use crate::emulator::{After, Gate, Steps};
use crate::harness::PATIENCE;

/// A body that no window and no buffer on the way can hold.
const LARGE: usize = 24 << 20;
const REFUSAL: &str =
    "HTTP/1.1 422 Unprocessable\r\nx-ms-workflow-run-id: 0858CU00\r\nContent-Length: 3\r\n\r\nno!";

/// Uploads a large body, or the first part of it, to a trigger that answers at its head.
async fn uploaded(steps: Steps, protocol: Protocol, check: impl Fn(&Seen)) -> Stand {
    let stand = Stand::new("").await;
    let mut caller = Caller::connect(&stand.gateway, protocol).await;
    let before = stand.ordinary(&mut caller, "before").await;
    stand.trigger.next(steps.at_head().into());
    let seen = match protocol {
        Protocol::Http2 => caller.send(&stand.gateway, "POST", &vec![b'x'; LARGE]).await,
        Protocol::Http1 => {
            let mut wire = Wire::new(&stand.gateway).await;
            wire.ask("POST", LARGE, &vec![b'x'; 100_000]).await;
            tokio::time::timeout(PATIENCE, wire.hear("POST"))
                .await
                .expect("the answer waits for the upload")
        }
    };
    check(&seen);
    assert_eq!(stand.trigger.last_request().connection, before);
    assert_ne!(stand.ordinary(&mut caller, "after").await, before);
    stand.world.emulator.assert_script_done();
    stand
}

/// The same, and the connection is closed at once.
async fn uploaded_and_closed(steps: Steps, protocol: Protocol, check: impl Fn(&Seen)) {
    let stand = uploaded(steps, protocol, check).await;
    stand.world.emulator.flow.listener().open().settled_at(1).await;
}

/// The answer arrives although the upload has not ended and the trigger reads no more of it.
async fn passes(steps: Steps, protocol: Protocol) {
    let check = |seen: &Seen| {
        assert_eq!((seen.status, &seen.end), (Some(422), &End::Whole), "{seen:?}");
        assert_eq!(seen.text(), "no!");
    };
    uploaded(steps, protocol, check).await;
}

#[tokio::test]
async fn an_early_answer_passes_over_http1() {
    passes(bytes(REFUSAL).pass(&Gate::closed()), Protocol::Http1).await;
}

#[tokio::test]
async fn an_early_answer_passes_over_http2() {
    passes(bytes(REFUSAL).pass(&Gate::closed()), Protocol::Http2).await;
}

#[tokio::test]
async fn an_early_answer_and_the_end_pass_over_http1() {
    passes(bytes(REFUSAL).then(After::Linger), Protocol::Http1).await;
}

#[tokio::test]
async fn an_early_answer_and_the_end_pass_over_http2() {
    passes(bytes(REFUSAL).then(After::Linger), Protocol::Http2).await;
}

/// The trigger closes during the body, without an answer: part of the request was sent, so it is not retried.
async fn left(then: After, protocol: Protocol) {
    let check = |seen: &Seen| {
        assert!(seen.is_problem(), "{seen:?}");
        assert_eq!(seen.code(), "flow-connection-lost", "{seen:?}");
        assert_eq!(seen.json()["retryable"], false, "{seen:?}");
    };
    uploaded_and_closed(Steps::new().then(then), protocol, check).await;
}

#[tokio::test]
async fn a_reset_in_the_middle_of_an_upload_is_reported_over_http1() {
    left(After::Reset, Protocol::Http1).await;
}

#[tokio::test]
async fn a_reset_in_the_middle_of_an_upload_is_reported_over_http2() {
    left(After::Reset, Protocol::Http2).await;
}

#[tokio::test]
async fn an_invalid_early_answer_is_reported_over_http1() {
    let check = |seen: &Seen| assert_eq!(seen.code(), "flow-answer-invalid", "{seen:?}");
    uploaded(
        bytes("garbage\r\n\r\n").then(After::Stall),
        Protocol::Http1,
        check,
    )
    .await;
}

#[tokio::test]
async fn an_invalid_early_answer_is_reported_over_http2() {
    let check = |seen: &Seen| assert_eq!(seen.code(), "flow-answer-invalid", "{seen:?}");
    uploaded(
        bytes("garbage\r\n\r\n").then(After::Stall),
        Protocol::Http2,
        check,
    )
    .await;
}
