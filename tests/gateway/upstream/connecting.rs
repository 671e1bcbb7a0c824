//! Triggers to which no connection can be established. Nothing was sent, so the caller may retry.

use super::Stand;
use super::Verdict::Refused;
use super::caller::{Caller, Protocol};
use crate::emulator::{Door, Emulator, Leaf};

const UNREACHABLE: &str = "flow-unreachable";

/// Calls while connections fail, and once more when they work again.
async fn at_the_door(door: Door, code: &'static str, words: &[&str]) {
    let stand = Stand::new("connect_timeout = \"1s\"").await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut caller = Caller::connect(&stand.gateway, protocol).await;
        stand.world.emulator.flow.listener().set_door(door).await;
        refused(&stand, &mut caller, protocol, code, words).await;
        stand.world.emulator.flow.listener().set_door(Door::Open).await;
        served(&stand, &mut caller).await;
    }
}

/// Calls a host with an invalid certificate, and once more when it has its own again.
async fn with_certificate(leaf: impl AsyncFn(&Stand) -> Leaf, words: &[&str]) {
    let stand = Stand::new("").await;
    let listener = stand.world.emulator.flow.listener();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut caller = Caller::connect(&stand.gateway, protocol).await;
        let failures = listener.handshake_failures().get();
        listener.present(&leaf(&stand).await);
        refused(&stand, &mut caller, protocol, UNREACHABLE, words).await;
        listener.handshake_failures().reached(failures + 1).await;
        listener.present(&stand.world.emulator.ca.leaf(&["localhost"]));
        served(&stand, &mut caller).await;
    }
}

async fn refused(stand: &Stand, caller: &mut Caller, protocol: Protocol, code: &'static str, words: &[&str]) {
    let requests = stand.trigger.requests().len();
    let seen = caller.send(&stand.gateway, "POST", b"{}").await;
    let outcome = Refused(code).check(&seen, protocol);
    let line = stand.line(&seen, protocol).await;
    outcome.check_line(&line, words);
    assert_eq!(stand.trigger.requests().len(), requests, "something was sent");
}

/// A proper answer now; then the connection is closed, so that the next request needs a new one.
async fn served(stand: &Stand, caller: &mut Caller) {
    stand.ordinary(caller, "after").await;
    let listener = stand.world.emulator.flow.listener();
    listener.evict();
    listener.open().settled_at(0).await;
}

#[tokio::test]
async fn a_refused_connection_is_reported() {
    at_the_door(
        Door::Refuse,
        UNREACHABLE,
        &["refused (os error 111). fixed by: operator. let this machine out"],
    )
    .await;
}

#[tokio::test]
async fn a_connection_that_waits_before_a_full_queue_is_given_up() {
    at_the_door(
        Door::Full,
        "flow-connect-timeout",
        &["within 1s, the time for name, tcp and tls together. fixed by: operator"],
    )
    .await;
}

#[tokio::test]
async fn a_handshake_that_is_never_answered_is_given_up() {
    at_the_door(
        Door::Silent,
        "flow-connect-timeout",
        &["within 1s, the time for name, tcp and tls together. fixed by: operator"],
    )
    .await;
}

#[tokio::test]
async fn a_connection_closed_before_the_handshake_is_reported() {
    at_the_door(Door::Slam, UNREACHABLE, &["tls"]).await;
}

#[tokio::test]
async fn a_plain_answer_instead_of_a_handshake_is_reported() {
    at_the_door(Door::Plain, UNREACHABLE, &["tls"]).await;
}

#[tokio::test]
async fn a_certificate_for_another_name_proves_nothing() {
    let leaf = async |stand: &Stand| stand.world.emulator.ca.wrong_name_leaf();
    let words = "is valid for somewhere-else.example, not for localhost. fixed by: operator";
    with_certificate(leaf, &[words]).await;
}

#[tokio::test]
async fn a_certificate_that_has_expired_proves_nothing() {
    let leaf = async |stand: &Stand| stand.world.emulator.ca.expired_leaf(&["localhost"]);
    with_certificate(leaf, &["(1 day ago). fixed by: host-admin"]).await;
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_yet_proves_nothing() {
    let leaf = async |stand: &Stand| stand.world.emulator.ca.future_leaf(&["localhost"]);
    with_certificate(leaf, &["is not valid yet: it begins 2"]).await;
}

#[tokio::test]
async fn a_certificate_of_a_stranger_proves_nothing() {
    let leaf = async |_: &Stand| Emulator::start().await.ca.leaf(&["localhost"]);
    let words = "comes from an authority that is not trusted. fixed by: operator";
    with_certificate(leaf, &[words]).await;
}
