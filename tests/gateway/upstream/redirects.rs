//! Redirects: passed or translated, never followed, and without revealing the trigger's address.

use super::Stand;
use super::caller::{Caller, End, Protocol, Seen};
use crate::emulator::Answer as Flow;
use crate::emulator::Reply;

const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];

/// The trigger redirects to this location, once for each status and protocol.
async fn redirected(location: impl Fn(&Stand) -> String) -> Vec<Seen> {
    let stand = Stand::new("").await;
    let location = location(&stand);
    let mut all = Vec::new();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut caller = Caller::connect(&stand.gateway, protocol).await;
        for status in STATUSES {
            let before = stand.trigger.requests().len();
            let reply = Reply::new(status).header("Location", location.clone());
            stand.trigger.next(Flow::Platform(reply));
            let seen = caller.send(&stand.gateway, "POST", b"{}").await;
            assert_eq!(seen.end, End::Whole, "{seen:?}");
            assert!(seen.is_problem() || seen.status == Some(status), "{seen:?}");
            assert_eq!(
                stand.world.emulator.flow.requests().len(),
                before + 1,
                "it was followed"
            );
            stand.ordinary(&mut caller, "next").await;
            all.push(seen);
        }
    }
    assert_eq!(stand.world.emulator.flow.listener().connections().get(), 1);
    stand.world.emulator.assert_script_done();
    all
}

/// Nothing that the caller saw reveals the trigger.
fn reveals_nothing(seen: &[Seen]) {
    for seen in seen {
        let text = format!("{:?} {}", seen.headers, seen.text()).to_lowercase();
        assert_eq!(seen.header("location"), None, "{text}");
        assert!(!text.contains("sig=") && !text.contains("workflows"), "{text}");
    }
}

#[tokio::test]
async fn a_redirect_on_the_triggers_host_is_not_followed_and_reveals_nothing() {
    reveals_nothing(&redirected(|stand| stand.trigger.url()).await);
}

#[tokio::test]
async fn a_redirect_with_a_signature_reveals_nothing() {
    let signed = |_: &Stand| "https://elsewhere.example/workflows/1?sp=%2F&sig=canary".to_owned();
    reveals_nothing(&redirected(signed).await);
}

#[tokio::test]
async fn a_redirect_to_the_triggers_host_in_capitals_reveals_nothing() {
    let shouted = |stand: &Stand| {
        stand
            .trigger
            .url()
            .replace("https://localhost", "HTTPS://LOCALHOST")
    };
    reveals_nothing(&redirected(shouted).await);
}

#[tokio::test]
async fn a_redirect_without_a_scheme_reveals_nothing() {
    let bare = |stand: &Stand| stand.trigger.url().replace("https:", "");
    reveals_nothing(&redirected(bare).await);
}

/// A reference without a host refers to the trigger's host, so it means nothing on ours.
#[tokio::test]
async fn a_redirect_within_the_triggers_host_reveals_nothing() {
    reveals_nothing(&redirected(|stand| stand.trigger.target()).await);
}

#[tokio::test]
async fn a_redirect_to_elsewhere_is_passed_and_not_followed() {
    let elsewhere = "https://shop.example/orders/7";
    for seen in redirected(|_| elsewhere.to_owned()).await {
        assert_eq!(seen.header("location"), Some(elsewhere), "{seen:?}");
    }
}
