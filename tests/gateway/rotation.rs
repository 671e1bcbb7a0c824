//! Client secrets that are replaced while the gateway runs: callers notice nothing, and the operator finds
//! one log line.

use std::time::Duration;

use tokio::time::Instant;

use crate::emulator::Answer as Flow;
use crate::emulator::{Trigger, TriggerHandle};
use crate::harness::{CLIENT, OID, PATIENCE, Running, SECRET, TENANT, World};
use crate::program::Program;

const SECOND: &str = "canary-client-secret~2";
const THIRD: &str = "canary-client-secret~3";

fn accepting(world: &World) -> TriggerHandle {
    world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted))
}

/// From now on Entra accepts this secret and no other.
fn rotate(world: &World, secret: &str) {
    world.emulator.entra.forget_credentials(TENANT, CLIENT);
    world.emulator.register_app(TENANT, CLIENT, secret, OID);
}

/// Base settings with these secrets of `contoso`.
fn base(world: &World, secrets: &str) -> String {
    let base = world.base();
    base.replace("client_secret = \"env:CONTOSO_SECRET\"\n", "")
        .replace("timeout = \"3s\"\n", &format!("timeout = \"3s\"\n{secrets}\n"))
}

fn start(world: &World, trigger: &TriggerHandle, secrets: &str) -> Running {
    // Generates the emulator's key beforehand: on a busy machine that takes longer than a token request may.
    world
        .emulator
        .entra
        .token_for(TENANT, CLIENT, "x", &serde_json::Value::Null);
    let route = world.route("orders", "/orders", &trigger.url(), "");
    world.start(&format!("{}{route}", base(world, secrets)))
}

/// The secrets that Entra received, oldest first.
fn shown(world: &World) -> Vec<String> {
    let requests = world.emulator.entra.requests();
    requests
        .iter()
        .map(|request| request.field("client_secret").unwrap_or_default().to_owned())
        .collect()
}

fn table(value: &str, more: &str) -> String {
    format!("[[identity.secret]]\nvalue = \"{value}\"\n{more}\n")
}

/// The date in this many days, as settings write it.
fn day(days: i64) -> String {
    let moment = jiff::Timestamp::now().as_second() + days * 86_400;
    let moment = jiff::Timestamp::from_second(moment).unwrap();
    moment.strftime("%Y-%m-%d").to_string()
}

#[tokio::test]
async fn a_secret_replaced_in_its_file_is_used_with_the_next_token() {
    let world = World::new().await;
    let trigger = accepting(&world);
    world.file("secret", SECRET);
    let gateway = start(&world, &trigger, "client_secret = \"file:secret\"");
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    rotate(&world, SECOND);
    world.file("secret", &format!("{SECOND}\n"));
    world.emulator.revoke_issued_tokens();
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    assert_eq!(shown(&world), [SECRET, SECOND]);
}

#[tokio::test]
async fn a_secret_replaced_while_it_is_sent_is_read_again_in_the_same_attempt() {
    let world = World::new().await;
    let trigger = accepting(&world);
    world.file("secret", SECRET);
    let gate = world.emulator.entra.hold();
    let gateway = start(&world, &trigger, "client_secret = \"file:secret\"");
    gate.arrived(1).await;
    rotate(&world, SECOND);
    world.file("secret", SECOND);
    gate.open();
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    assert_eq!(shown(&world), [SECRET, SECOND]);
}

#[tokio::test]
async fn a_corrected_secret_is_used_without_a_pause() {
    let world = World::new().await;
    let trigger = accepting(&world);
    world.file("secret", THIRD);
    let gateway = start(&world, &trigger, "client_secret = \"file:secret\"");
    // After the second refusal the pause is ten seconds.
    let refused = async {
        while shown(&world).len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    let corrected = Instant::now();
    world.file("secret", SECRET);
    gateway.ready().await;
    assert!(
        corrected.elapsed() < Duration::from_secs(8),
        "{:?}",
        corrected.elapsed()
    );
    assert_eq!(shown(&world), [THIRD, THIRD, SECRET]);
}

#[tokio::test]
async fn an_empty_file_takes_nothing_away() {
    let world = World::new().await;
    let trigger = accepting(&world);
    world.file("secret", SECRET);
    let gateway = start(&world, &trigger, "client_secret = \"file:secret\"");
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    for gone in [false, true] {
        if gone {
            std::fs::remove_file(world.dir().join("secret")).unwrap();
        } else {
            world.file("secret", "\n");
        }
        assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    }
    world.emulator.revoke_issued_tokens();
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    assert_eq!(shown(&world), [SECRET, SECRET]);
}

#[tokio::test]
async fn when_one_secret_is_refused_the_next_is_sent_at_once_and_from_then_on() {
    let mut world = World::new().await;
    world.secrets.push(("SECOND".into(), SECOND.into()));
    let trigger = accepting(&world);
    rotate(&world, SECOND);
    let secrets = [table("env:CONTOSO_SECRET", ""), table("env:SECOND", "")].concat();
    let gateway = start(&world, &trigger, &secrets);
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    world.emulator.revoke_issued_tokens();
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    assert_eq!(shown(&world), [SECRET, SECOND, SECOND]);
}

#[tokio::test]
async fn the_secret_that_expires_last_is_sent_first_and_an_expired_one_last() {
    let mut world = World::new().await;
    world.secrets.push(("SECOND".into(), SECOND.into()));
    world.secrets.push(("THIRD".into(), THIRD.into()));
    rotate(&world, THIRD);
    let trigger = accepting(&world);
    let secrets = [
        table("env:THIRD", &format!("expires = {}", day(-1))),
        table("env:CONTOSO_SECRET", &format!("expires = {}", day(20))),
        table("env:SECOND", &format!("expires = {}", day(400))),
    ]
    .concat();
    let gateway = start(&world, &trigger, &secrets);
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    assert_eq!(shown(&world), [SECOND, SECRET, THIRD]);
}

#[tokio::test]
async fn when_every_secret_is_refused_the_identity_says_so() {
    let mut world = World::new().await;
    world.secrets.push(("SECOND".into(), SECOND.into()));
    rotate(&world, THIRD);
    let trigger = accepting(&world);
    let secrets = [table("env:CONTOSO_SECRET", ""), table("env:SECOND", "")].concat();
    let gateway = start(&world, &trigger, &secrets);
    let answer = gateway.post("/orders", "{}").await;
    assert_eq!(answer.code(), "token-refused");
    let cause = gateway.lines.of(&answer).await["cause"].to_string();
    assert!(
        cause.contains("AADSTS7000215") && cause.contains("contoso"),
        "{cause}"
    );
    assert_eq!(shown(&world), [SECRET, SECOND]);
}

#[tokio::test]
async fn readiness_and_metrics_count_the_days_that_a_secret_has_left() {
    let mut world = World::new().await;
    world.secrets.push(("SECOND".into(), SECOND.into()));
    let trigger = accepting(&world);
    let secrets = [
        table("env:CONTOSO_SECRET", &format!("expires = {}", day(21))),
        table("env:SECOND", ""),
    ]
    .concat();
    let gateway = start(&world, &trigger, &secrets);
    let (_, body) = gateway.admin("/readyz?verbose").await;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    let credentials = &body["identities"][0]["credentials"];
    assert_eq!(credentials.as_array().unwrap().len(), 1, "{credentials}");
    assert_eq!(credentials[0]["credential"], "client-secret-1");
    assert_eq!(
        credentials[0]["days_left"], 20,
        "midnight of that day is 20 days and some hours away"
    );
    let (_, metrics) = gateway.admin("/metrics").await;
    let gauge = "flowgate_credential_days_left{identity=\"contoso\",credential=\"client-secret-1\"} 20.";
    assert!(metrics.contains(gauge), "{metrics}");
}

#[tokio::test]
async fn a_missing_source_and_a_replaced_secret_are_each_reported_once() {
    let world = World::new().await;
    world.emulator.entra.lifetime(Duration::from_secs(1));
    let trigger = accepting(&world);
    world.file("secret", SECRET);
    let route = world.route("orders", "/orders", &trigger.url(), "");
    let settings = format!("{}{route}", base(&world, "client_secret = \"file:secret\""));
    let mut program = Program::start(&world, &settings);
    let requests = world.emulator.entra.token_requests();
    requests.reached(1).await;
    world.file("secret", "");
    requests.reached(requests.get() + 3).await;
    world.emulator.register_app(TENANT, CLIENT, SECOND, OID);
    world.file("secret.new", SECOND);
    std::fs::rename(world.dir().join("secret.new"), world.dir().join("secret")).unwrap();
    let mut away = 0;
    let line = program
        .line(|line| {
            let message = line["message"].as_str().unwrap_or_default();
            away += usize::from(message.contains("cannot be read again, the last one serves on"));
            message.contains("replaced")
        })
        .await;
    let message = line["message"].as_str().unwrap();
    let ending = message
        .strip_prefix("client secret of identity contoso replaced, id ending ")
        .unwrap_or_else(|| panic!("{message}"));
    assert!(
        ending.len() == 4 && u16::from_str_radix(ending, 16).is_ok(),
        "{ending}"
    );
    assert_eq!(away, 1);
    requests.reached(requests.get() + 2).await;
    program.signal("TERM");
    let mut again = 0;
    program
        .line(|line| {
            let message = line["message"].as_str().unwrap_or_default();
            again += usize::from(message.contains("replaced") || message.contains("read again"));
            message == "drained"
        })
        .await;
    assert_eq!(again, 0);
    assert_eq!(shown(&world).last().unwrap(), SECOND);
}

#[tokio::test]
async fn the_expiry_of_a_secret_is_logged_at_the_start() {
    let world = World::new().await;
    let trigger = accepting(&world);
    for (days, part) in [
        (21, "credential client-secret-1 of identity contoso expires on"),
        (0, "credential client-secret-1 of identity contoso expired on"),
    ] {
        let date = day(days);
        let secrets = table("env:CONTOSO_SECRET", &format!("expires = {date}"));
        let route = world.route("orders", "/orders", &trigger.url(), "");
        let mut program = Program::start(&world, &format!("{}{route}", base(&world, &secrets)));
        let line = program
            .line(|line| line["message"].as_str().unwrap_or_default().contains(part))
            .await;
        assert_eq!(line["level"], "WARN", "{line}");
        assert!(line["message"].as_str().unwrap().contains(&date), "{line}");
    }
}
