//! A good order with one byte changed, left out or doubled, at every position: as many requests reach the
//! flow as were answered by it, and none after a refusal that closes.

use std::cell::Cell;

use crate::emulator::Answer as Flow;
use crate::emulator::{Trigger, TriggerHandle};
use crate::harness::{Answer, Running, TENANT, World};
use crate::listening::{Talk, order_bytes};
use crate::reading::{Case, case, each};

/// Bytes that end, separate or join what is read, and some ordinary ones.
const BYTES: &[u8] = b"\n\r \t\0:_;,#\\%\x7f\xff";

fn changes() -> Vec<Case> {
    let good = order_bytes("Connection: keep-alive\r\n").into_bytes();
    let mut cases = Vec::new();
    for at in 0..good.len() {
        let place = |what: &str, instead: &[u8]| {
            let (before, after) = (&good[..at], &good[at + 1..]);
            let what = format!("{} at {at}: {what}", good[at].escape_ascii());
            case(what, [before, instead, after].concat())
        };
        cases.push(place("left out", b""));
        cases.push(place("doubled", &[good[at], good[at]]));
        for byte in BYTES.iter().filter(|byte| **byte != good[at]) {
            cases.push(place(&format!("now {}", byte.escape_ascii()), &[*byte]));
        }
    }
    cases
}

/// A gateway with the route `/orders` and without limits on failures and rates.
async fn unlimited() -> (World, Running, TriggerHandle) {
    let world = World::new().await;
    let trigger = Trigger::any_user(TENANT).does(Flow::Accepted);
    let trigger = world.emulator.flow.add(trigger);
    let fast = "{ requests = 100000, per = \"1s\", burst = 100000 }";
    let keys = "[[caller.key]]";
    let settings = [
        format!("[limits]\ngateway = {fast}\nfailed_authentications = {fast}\n"),
        world.base().replace(keys, &format!("rate = {fast}\n{keys}")),
        world.route("orders", "/orders", &trigger.url(), &format!("rate = {fast}")),
    ];
    let gateway = world.start(&settings.concat());
    (world, gateway, trigger)
}

/// The next answer; the connection ends with it if it says so.
async fn next(talk: &mut Talk, what: &str) -> (Answer, bool) {
    let answer = talk.hear().await;
    let last = answer.header("connection") == Some("close");
    if last {
        assert_eq!(talk.rest().await, "", "{what}: something follows the last answer");
    }
    (answer, last)
}

#[tokio::test]
async fn no_changed_byte_makes_another_request_than_was_answered() {
    let (world, gateway, trigger) = unlimited().await;
    let (served, refused) = (Cell::new(0), Cell::new(0));
    each(&changes(), async |Case { what, bytes }| {
        let mut talk = gateway.talk().await;
        let behind = order_bytes("X-Behind: 1\r\n");
        // A gateway that refuses what it has read need not read the rest.
        let _ = talk.try_say([bytes, behind.as_bytes()].concat()).await;
        for _ in 0..2 {
            let (answer, last) = next(&mut talk, what).await;
            match answer.status.as_u16() {
                202 => served.set(served.get() + 1),
                400 | 401 | 404 | 405 | 417 => refused.set(refused.get() + 1),
                status => panic!("{what}: {status}"),
            }
            assert_eq!(last, answer.status == 400, "{what}: {}", answer.status);
            if last {
                break;
            }
        }
    })
    .await;
    assert!(
        served.get() > 100 && refused.get() > 1000,
        "{served:?} {refused:?}"
    );
    assert_eq!(world.emulator.flow.heads().get(), served.get());
    for seen in trigger.requests() {
        assert_eq!(seen.header("x-flowgate-caller"), Some("shop"));
        assert_eq!(seen.head.target, trigger.target());
    }
}
