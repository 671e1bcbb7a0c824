//! The doctor queries the running gateway: whether it is a gateway and has these settings, how its calls
//! ended, and which program occupies the port. The report lists what was not tested, and calls healthy only
//! what was tested completely.

use std::sync::atomic::{AtomicU16, Ordering};

use super::{
    Check, Questions, Report, Verdict, accepting, examine, find, live, patient, program, the_one, whole,
};
use crate::emulator::TriggerHandle;
use crate::harness::{KEY, Running, World, caller, post};
use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const OTHER_KEY: &str = "canary-key-of-other-0123456789";

/// A loopback address that no other test or process listens on.
fn own_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    format!("127.{}.{}.7:{port}", process >> 8 & 0xff, process & 0xff)
}

/// Settings with one route, an admin listener at one address and a listener at another.
struct Ports {
    admin: String,
    listener: String,
    text: String,
}

fn place(world: &World, trigger: &TriggerHandle, more: &str) -> Ports {
    let (admin, listener) = (own_address(), own_address());
    let base = world
        .base()
        .replacen("127.0.0.1:0", &admin, 1)
        .replacen("127.0.0.1:0", &listener, 1);
    let route = world.route("orders", "/orders", &trigger.url(), "");
    let other = caller("other", OTHER_KEY);
    Ports {
        admin,
        listener,
        text: patient(&format!("{base}{other}{route}{more}")),
    }
}

async fn start(world: &World, text: &str) -> Running {
    let gateway = world.start(text);
    gateway.ready().await;
    gateway
}

/// Posts with this key, and waits until the request is counted.
async fn call(gateway: &Running, key: &str) -> u16 {
    let request = post("/orders").header("x-api-key", key);
    let answer = gateway
        .send(request.body(Full::<Bytes>::from("{}")).unwrap())
        .await;
    gateway.lines.of(&answer).await;
    answer.status.as_u16()
}

fn untested(report: &Report) -> String {
    report.untested().join("; ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_gateway_is_called_healthy_once_its_triggers_were_called() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let place = place(&world, &trigger, "");
    let gateway = start(&world, &place.text).await;
    assert_eq!(call(&gateway, KEY).await, 202);
    let report = examine(&world, &place.text, &live()).await;
    assert!(report.is_healthy(), "{}", report.text());
    assert!(report.summary().starts_with("Healthy: "), "{}", report.summary());
    for (title, name) in [
        ("gateway", "running"),
        ("gateway", "port"),
        ("route orders", "calls"),
    ] {
        assert_eq!(
            find(&report, title, name).verdict,
            Verdict::Ok,
            "{}",
            report.text()
        );
    }
    assert_eq!(trigger.runs(), 1, "the look starts no run");

    let report = examine(&world, &place.text, &Questions::default()).await;
    assert!(!report.has_failed() && !report.is_healthy(), "{}", report.text());
    assert!(report.summary().contains("--live"), "{}", report.summary());
    assert!(!report.text().contains("Healthy"), "{}", report.text());
    assert_eq!(report.json()["healthy"], false);
}

#[tokio::test]
async fn without_a_gateway_the_last_line_says_that_none_runs() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let place = place(&world, &trigger, "");
    let output = program(&world, &place.text, &["doctor", "--live"]).await;
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "nothing failed: {shown}");
    let last = shown.lines().last().unwrap();
    assert!(!shown.contains("Healthy"), "{shown}");
    for part in [
        "Nothing failed in",
        "Not tested:",
        "flowgate serve",
        &place.listener,
    ] {
        assert!(last.contains(part), "{part}: {last}");
    }
    assert!(shown.contains(&place.admin), "{shown}");
}

/// A program that answers every connection to the listener's address with these bytes.
async fn impostor(address: &str, tls: Option<TlsAcceptor>, answer: &'static [u8]) {
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                return;
            };
            let tls = tls.clone();
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                match tls {
                    Some(tls) => {
                        let Ok(mut stream) = tls.accept(stream).await else {
                            return;
                        };
                        let _ = stream.read(&mut bytes).await;
                        let _ = stream.write_all(answer).await;
                        let _ = stream.shutdown().await;
                    }
                    None => {
                        let _ = stream.read(&mut bytes).await;
                        let _ = stream.write_all(answer).await;
                    }
                }
            });
        }
    });
}

fn names_the_port(check: &Check, address: &str) {
    let message = whole(check);
    let (_, port) = address.rsplit_once(':').unwrap();
    for part in ["another program uses", address, "ss -ltnp", port] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[tokio::test]
async fn another_program_on_the_port_is_named() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let leaf = world.emulator.ca.leaf(&["localhost"]);
    let tls = TlsAcceptor::from(std::sync::Arc::new(leaf.server_config(&["http/1.1"])));
    let bad = b"HTTP/1.1 400 Bad Request\r\nserver: nginx\r\ncontent-length: 0\r\n\r\n";
    for tls in [None, Some(tls)] {
        let place = place(&world, &trigger, "");
        impostor(&place.listener, tls, bad).await;
        let report = examine(&world, &place.text, &live()).await;
        assert!(report.has_failed() && !report.is_healthy(), "{}", report.text());
        let failed: Vec<_> = report.failures().collect();
        assert_eq!(
            (failed.len(), failed[0].0.as_str(), failed[0].1.name),
            (1, "gateway", "port"),
            "{}",
            report.text()
        );
        names_the_port(failed[0].1, &place.listener);
    }
}

#[tokio::test]
async fn another_program_on_the_admin_port_is_named() {
    let world = World::new().await;
    let trigger = accepting(&world);
    for answer in [
        &b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ] {
        let place = place(&world, &trigger, "");
        impostor(&place.admin, None, answer).await;
        let report = examine(&world, &place.text, &live()).await;
        let failed: Vec<_> = report.failures().collect();
        assert_eq!(
            (failed.len(), failed[0].1.name),
            (1, "running"),
            "{}",
            report.text()
        );
        assert!(whole(failed[0].1).contains(&place.admin), "{}", report.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_on_which_every_call_ends_in_403_is_what_is_wrong() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let place = place(&world, &trigger, "");
    let gateway = start(&world, &place.text).await;
    for _ in 0..3 {
        assert_eq!(call(&gateway, OTHER_KEY).await, 403);
    }
    let report = examine(&world, &place.text, &live()).await;
    let check = the_one(&report, "route orders", "calls");
    for part in [
        "3 calls",
        "none answered",
        "3 caller-not-allowed (403)",
        "`callers`",
    ] {
        assert!(whole(check).contains(part), "{part}: {}", whole(check));
    }
    assert_eq!(call(&gateway, KEY).await, 202);
    let report = examine(&world, &place.text, &live()).await;
    assert!(report.is_healthy(), "one call got through: {}", report.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_other_settings_is_not_called_healthy() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let place = place(&world, &trigger, "");
    let _gateway = start(&world, &place.text).await;
    let changed = place.text.replacen("path = \"/orders\"", "path = \"/order\"", 1);
    assert_ne!(changed, place.text);
    let report = examine(&world, &changed, &live()).await;
    assert!(!report.has_failed() && !report.is_healthy(), "{}", report.text());
    let check = find(&report, "gateway", "running");
    assert_eq!(check.verdict, Verdict::Warn);
    assert!(
        whole(check).contains("other settings") && whole(check).contains("flowgate reload"),
        "{}",
        whole(check)
    );
    let commented = format!("# a remark\n\n{}", place.text);
    let report = examine(&world, &commented, &live()).await;
    assert!(
        report.is_healthy(),
        "a remark is no other setting: {}",
        report.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_admin_listener_the_port_alone_is_looked_at() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let place = place(&world, &trigger, "");
    let text = place
        .text
        .replacen(&format!("address = \"{}\"", place.admin), "off = true", 1);
    assert!(text.contains("off = true"));
    let _gateway = world.start(&text);
    let report = examine(&world, &text, &live()).await;
    assert!(!report.has_failed() && !report.is_healthy(), "{}", report.text());
    assert_eq!(find(&report, "gateway", "port").verdict, Verdict::Ok);
    assert_eq!(find(&report, "gateway", "running").verdict, Verdict::Note);
    assert!(
        untested(&report).contains("remove `off` from [admin]"),
        "{}",
        untested(&report)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_other_than_the_one_of_the_settings_is_seen() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let place = place(&world, &trigger, "");
    let _gateway = world.start(&place.text);
    let leaf = world.emulator.ca.leaf(&["localhost", "hooks.example"]);
    leaf.write(world.dir(), "renewed").unwrap();
    let text = place
        .text
        .replace("gateway.", "renewed.")
        .replace("gateway-", "renewed-");
    assert_ne!(text, place.text);
    let report = examine(&world, &text, &live()).await;
    let check = find(&report, "gateway", "port");
    assert_eq!(check.verdict, Verdict::Warn, "{}", report.text());
    assert!(
        check.says.contains("another certificate for localhost") && !report.is_healthy(),
        "{}",
        report.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_counts_the_ends_of_recent_requests_by_route() {
    let world = World::new().await;
    let trigger = accepting(&world);
    let place = place(&world, &trigger, "");
    let gateway = start(&world, &place.text).await;
    assert_eq!(call(&gateway, KEY).await, 202);
    assert_eq!(call(&gateway, "wrong").await, 401);
    assert_eq!(call(&gateway, OTHER_KEY).await, 403);
    let nowhere = post("/nowhere").body(Full::default()).unwrap();
    let answer = gateway.send(nowhere).await;
    gateway.lines.of(&answer).await;
    let (status, text) = gateway.admin("/status").await;
    assert_eq!(status, 200);
    let message: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(message["service"], "flowgate");
    assert_eq!(message["listeners"], json!([place.listener]));
    assert_eq!(
        (&message["minutes"], &message["without_route"]),
        (&json!(10), &json!(1))
    );
    assert_eq!(
        message["routes"],
        json!([{
            "route": "orders",
            "answered": 1,
            "failed": [{"code": "key-unknown", "count": 1}, {"code": "caller-not-allowed", "count": 1}],
        }])
    );
    assert_eq!(message["settings"].as_str().unwrap().len(), 64);
}
