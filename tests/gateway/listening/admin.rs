//! The admin listener: health, readiness with reasons, metrics, and nothing else.

use std::time::Duration;

use flowgate::settings;
use flowgate::settings::Environment;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::emulator::Answer as Flow;
use crate::emulator::Trigger;
use crate::harness::{CLIENT, OID, PATIENCE, Running, SECRET, TENANT, World};
use crate::listening::{Talk, order, served};

const OTHER_CLIENT: &str = "bbbbbbbb-bbbb-4ccc-8ddd-eeeeeeeeeeee";

async fn talk(gateway: &Running) -> Talk<TcpStream> {
    Talk::new(TcpStream::connect(gateway.admin.unwrap()).await.unwrap())
}

async fn verbose(gateway: &Running) -> (u16, Value) {
    let (status, text) = gateway.admin("/readyz?verbose").await;
    (status, serde_json::from_str(&text).unwrap())
}

#[tokio::test]
async fn healthz_says_that_the_process_lives() {
    let world = World::new().await;
    let _gate = world.emulator.entra.hold();
    let gateway = world.start_with(&world.route("orders", "/orders", "https://localhost:9/", ""));
    assert_eq!(gateway.admin("/healthz").await, (200, "ok\n".to_owned()));
}

#[tokio::test]
async fn readyz_is_red_until_a_token_is_there() {
    let world = World::new().await;
    let gate = world.emulator.entra.hold();
    let gateway = world.start_with(&world.route("orders", "/orders", "https://localhost:9/", ""));
    gate.arrived(1).await;
    assert_eq!(gateway.admin("/readyz").await, (503, "no-token".to_owned()));
    let (status, report) = verbose(&gateway).await;
    assert_eq!((status, &report["status"]), (503, &Value::from("no-token")));
    assert_eq!(report["identities"][0]["name"], "contoso");
    assert_eq!(report["identities"][0]["ready"], false);
    assert_eq!(report["routes_not_ready"][0]["name"], "orders");
    assert!(
        report["routes_not_ready"][0]["why"]
            .as_str()
            .unwrap()
            .contains("contoso")
    );
    gate.open();
    gateway.ready().await;
    let (status, report) = verbose(&gateway).await;
    assert_eq!((status, &report["status"]), (200, &Value::from("ready")));
    assert_eq!(report["identities"][0]["ready"], true);
    assert!(
        report["identities"][0]["expires_in_seconds"].as_u64().unwrap() > 60,
        "{report}"
    );
    assert_eq!(report["routes_not_ready"], Value::Array(Vec::new()));
    assert_eq!(gateway.admin("/readyz").await, (200, "ready".to_owned()));
}

#[tokio::test]
async fn readyz_says_why_an_identity_has_no_token() {
    let mut world = World::new().await;
    world.secrets = vec![("CONTOSO_SECRET".into(), "canary-wrong-secret".into())];
    let gateway = world.start_with(&world.route("orders", "/orders", "https://localhost:9/", ""));
    let reported = async {
        loop {
            let (status, report) = verbose(&gateway).await;
            if let Some(why) = report["identities"][0]["why"].as_str() {
                return (status, why.to_owned());
            }
        }
    };
    let (status, why) = tokio::time::timeout(PATIENCE, reported).await.expect("no reason");
    assert_eq!(status, 503);
    assert!(why.contains("7000215"), "{why}");
    assert!(!why.contains("canary"), "{why}");
}

/// Two routes, one of which has an identity whose secret is wrong.
async fn half_ready(requires: &str) -> (World, Running) {
    let mut world = World::new().await;
    world.emulator.register_app(TENANT, OTHER_CLIENT, "right", OID);
    world.secrets = vec![
        ("CONTOSO_SECRET".into(), SECRET.into()),
        ("OTHER_SECRET".into(), "wrong".into()),
    ];
    let settings = world
        .base()
        .replace("[admin]", &format!("[admin]\nready_requires = \"{requires}\""));
    let settings = [
        settings,
        world.identity("other", TENANT, OTHER_CLIENT, "env:OTHER_SECRET"),
        world.route("good", "/good", "https://localhost:9/", ""),
        world.route("bad", "/bad", "https://localhost:9/", "identity = \"other\""),
    ]
    .concat();
    let gateway = world.start(&settings);
    let entra = world.emulator.entra.clone();
    entra.token_requests().reached(2).await;
    assert!(entra.token_requests_of(CLIENT) >= 1);
    (world, gateway)
}

#[tokio::test]
async fn one_route_that_can_serve_is_enough_to_be_ready() {
    let (_world, gateway) = half_ready("any-route").await;
    gateway.ready().await;
    let report = verbose(&gateway).await.1;
    assert_eq!(report["requires"], "any-route");
    assert_eq!(report["routes_not_ready"][0]["name"], "bad");
}

#[tokio::test]
async fn readiness_can_ask_for_every_route() {
    let (_world, gateway) = half_ready("all-routes").await;
    let settled = async {
        loop {
            let (status, report) = verbose(&gateway).await;
            assert_eq!(status, 503, "{report}");
            let identities = report["identities"].as_array().unwrap();
            if identities.iter().any(|identity| identity["ready"] == true)
                && identities.iter().any(|identity| identity["why"].is_string())
            {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, settled)
        .await
        .expect("never settles");
    assert_eq!(gateway.admin("/readyz").await.0, 503);
}

/// Whether this line is a sample of the OpenMetrics text format: name, labels in braces, a number.
fn is_sample(line: &str) -> bool {
    let Some((series, value)) = line.rsplit_once(' ') else {
        return false;
    };
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let named = name.starts_with("flowgate_")
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    named && labels.ends_with('}') && value.parse::<f64>().is_ok()
}

#[tokio::test]
async fn metrics_are_open_metrics() {
    let (_world, gateway, _) = served("").await;
    gateway.ready().await;
    assert_eq!(gateway.send(order()).await.status, 202);
    let mut talk = talk(&gateway).await;
    talk.say("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let answer = talk.hear().await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    let text = answer.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    for line in text.lines() {
        let comment = ["# HELP flowgate_", "# TYPE flowgate_", "# UNIT flowgate_"];
        let known = comment.iter().any(|start| line.starts_with(start)) || line == "# EOF";
        assert!(known || is_sample(line), "{line}");
    }
    for series in [
        "flowgate_requests_total{route=\"orders\",outcome=\"answered\"} 1",
        "flowgate_token_fetches_total{identity=\"contoso\",outcome=\"ok\"} 1",
        "flowgate_upstream_opened_total 1",
        "flowgate_flow_time_seconds_count{route=\"orders\"} 1",
        "flowgate_own_time_seconds_count 1",
        "flowgate_ready 1",
    ] {
        assert!(
            text.lines().any(|line| line == series),
            "{series} is missing in:\n{text}"
        );
    }
}

#[tokio::test]
async fn there_is_nothing_else_and_nothing_to_write() {
    let (_world, gateway, trigger) = served("").await;
    for path in ["/", "/orders", "/healthz/", "/metrics/x", "/debug"] {
        assert_eq!(gateway.admin(path).await.0, 404, "{path}");
    }
    let mut talk = talk(&gateway).await;
    for path in ["/healthz", "/readyz", "/metrics", "/orders"] {
        talk.say(format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
        let answer = talk.hear().await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("allow")),
            (405, Some("GET, HEAD")),
            "{path}"
        );
    }
    assert_eq!(trigger.request_count().get(), 0);
}

#[tokio::test]
async fn a_page_with_a_rebound_host_name_reads_nothing() {
    let world = World::new().await;
    let settings = world
        .base()
        .replace("[admin]", "[admin]\nhosts = [\"Metrics.internal\"]");
    let route = world.route("orders", "/orders", "https://localhost:9/", "");
    let gateway = world.start(&format!("{settings}{route}"));
    for path in ["/healthz", "/readyz?verbose", "/metrics", "/keys/unused", "/"] {
        let mut talk = talk(&gateway).await;
        for head in [
            format!("GET {path} HTTP/1.1\r\nHost: rebound.example:9464\r\n\r\n"),
            format!("POST {path} HTTP/1.1\r\nHost: rebound.example\r\nContent-Length: 0\r\n\r\n"),
            format!("GET http://rebound.example{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: rebound.example\r\n\r\n"),
        ] {
            talk.say(&head).await;
            let answer = talk.hear().await;
            assert_eq!(answer.status, 421, "{head}");
            assert!(answer.text().contains("`hosts` of [admin]"), "{}", answer.text());
            assert_eq!(answer.text().lines().count(), 1, "{}", answer.text());
        }
    }
    for host in ["metrics.internal:9464", "10.0.0.1:9464", "[::1]", "localhost"] {
        let mut talk = talk(&gateway).await;
        talk.say(format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        assert_eq!(talk.hear().await.status, 200, "{host}");
    }
    let mut old = talk(&gateway).await;
    old.say("GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(old.rest().await.ends_with("ok\n"), "an old probe names no host");
}

#[tokio::test]
async fn idle_connections_and_slow_heads_do_not_block_probes() {
    const CROWD: usize = 200;
    let (_world, gateway, _) = served("").await;
    let mut scraper = talk(&gateway).await;
    let mut crowd = Vec::new();
    for index in 0..CROWD {
        let mut one = talk(&gateway).await;
        match index % 3 {
            0 => {}
            1 => one.say("GET /healthz HTTP/1.1\r\nHost: loc").await,
            _ => one.say("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await,
        }
        crowd.push(one);
        // The connection in use stays, although it is the oldest.
        scraper
            .say("GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        scraper.hear().await;
    }
    // Shorter than an idle connection is kept.
    let probe = tokio::time::timeout(Duration::from_secs(8), gateway.admin("/healthz"));
    assert_eq!(probe.await.expect("no answer").0, 200);
    assert_eq!(crowd[0].rest().await, "", "the oldest is closed");
}

#[tokio::test]
async fn the_admin_listener_is_on_loopback_by_default() {
    let world = World::new().await;
    let route = world.route("orders", "/orders", "https://localhost:9/", "");
    let settings = world.base().replace("[admin]\naddress = \"127.0.0.1:0\"\n", "");
    assert!(!settings.contains("[admin]"));
    world.file("default.toml", &format!("{settings}{route}"));
    let environment = Environment::from_pairs([("CONTOSO_SECRET", SECRET)]);
    let (config, _) = settings::load(&world.dir().join("default.toml"), &environment).unwrap();
    assert!(config.admin.unwrap().address.ip().is_loopback());
}

#[tokio::test]
async fn the_admin_listener_can_be_switched_off() {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let settings = world
        .base()
        .replace("[admin]\naddress = \"127.0.0.1:0\"", "[admin]\noff = true");
    let route = world.route("orders", "/orders", &trigger.url(), "");
    let gateway = world.start(&format!("{settings}{route}"));
    assert_eq!(gateway.admin, None);
    assert_eq!(gateway.send(order()).await.status, 202);
}
