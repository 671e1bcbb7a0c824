//! Secrets that a vendor sends in its handshake: accepted once while a route is open, kept, used, and forgotten.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use crate::emulator::Answer as Flow;
use crate::emulator::certs::server_name;
use crate::emulator::{Trigger, TriggerHandle};
use crate::harness::{Answer, TENANT, World, post};
use crate::operating::{ended, err, flowgate, out, started, trail};
use crate::program::Program;

const SECRETS: [&str; 3] = [
    "b537207f20cbfa02357cf448134da559e8bd39d61597dcd5631b8012eae53e81",
    "canary5f7207f20cbfa02357cf448134da559e8bd39d61597dcd5631b8012eae",
    "canary6f7207f20cbfa02357cf448134da559e8bd39d61597dcd5631b8012eae",
];

/// A program with a route whose vendor is Asana, and one without.
async fn asana() -> (World, TriggerHandle, Program, String) {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let route = |name: &str, lines: &str| world.route(name, &format!("/{name}"), &trigger.url(), lines);
    let text = format!(
        "{}[state]\nfolder = \"state\"\n[[caller]]\nname = \"board\"\n[caller.signature]\npreset = \"asana\"\n{}{}",
        world.base(),
        route("tasks", "callers = [\"board\"]\nhandshakes = [\"asana\"]"),
        route("orders", "")
    );
    let program = started(&world, &text).await;
    (world, trigger, program, text)
}

async fn send(world: &World, program: &Program, request: Request<Full<Bytes>>) -> Answer {
    send_from([127, 0, 0, 1], world, program, request).await
}

async fn send_from(from: [u8; 4], world: &World, program: &Program, request: Request<Full<Bytes>>) -> Answer {
    let tls = Arc::new(world.emulator.ca.client_config(&["http/1.1"]));
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let tcp = socket.connect(program.address.unwrap()).await.unwrap();
    let stream = TlsConnector::from(tls)
        .connect(server_name("localhost"), tcp)
        .await
        .unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    Answer {
        status: head.status,
        headers: head.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

/// Sends what Asana sends when a webhook is made.
async fn handshake(world: &World, program: &Program, secret: &str) -> Answer {
    let request = post("/tasks").header("x-hook-secret", secret);
    send(world, program, request.body(Full::default()).unwrap()).await
}

/// The status of the answer to a delivery that is signed with this secret.
async fn deliver(world: &World, program: &Program, secret: &str) -> u16 {
    let body = r#"{"events": []}"#;
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
        body.as_bytes(),
    );
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let request = post("/tasks").header("x-hook-signature", hex);
    let answer = send(world, program, request.body(Full::from(body)).unwrap()).await;
    answer.status.as_u16()
}

async fn open(world: &World) {
    let done = out(&flowgate(world, &["vendor", "enrol", "tasks", "--for", "5m"]).await);
    assert!(
        done.starts_with("route tasks accepts the secret of one handshake for 300 s, for caller board"),
        "{done}"
    );
}

/// The line of the log that names an enrolment; no line before it has a secret.
async fn enrolled(program: &mut Program, label: &str) -> Value {
    let line = program.line(|line| {
        let text = line.to_string();
        assert!(SECRETS.iter().all(|secret| !text.contains(secret)), "{text}");
        line["key"] == label && line["route"] == "tasks" && line["level"] == "WARN"
    });
    line.await
}

#[tokio::test]
async fn a_secret_is_accepted_once_while_the_route_is_open_and_kept() {
    let (world, trigger, mut program, text) = asana().await;
    let [first, second, third] = SECRETS;
    let closed = handshake(&world, &program, first).await;
    assert_eq!(
        (closed.status.as_u16(), closed.code()),
        (400, "handshake-refused".to_owned())
    );
    assert_eq!(deliver(&world, &program, first).await, 401);
    let why = program
        .line(|line| {
            line["cause"]
                .as_str()
                .is_some_and(|cause| cause.contains("handshake of asana"))
        })
        .await;
    assert!(
        why["cause"]
            .as_str()
            .unwrap()
            .contains("run `flowgate vendor enrol tasks --for 10m`"),
        "{why}"
    );
    let of_delivery = |line: &Value| {
        let cause = line["cause"].as_str();
        cause.is_some_and(|cause| {
            cause.contains("caller board: no secret is enrolled for it yet; run `flowgate vendor enrol")
        })
    };
    program.line(of_delivery).await;

    open(&world).await;
    let accepted = handshake(&world, &program, first).await;
    assert_eq!((accepted.status.as_u16(), accepted.text()), (200, String::new()));
    assert_eq!(accepted.header("x-hook-secret"), Some(first));
    let line = enrolled(&mut program, "asana-1").await;
    assert!(
        line["message"].as_str().unwrap().contains("sent from 127.0.0.1"),
        "{line}"
    );
    assert_eq!(
        handshake(&world, &program, third).await.code(),
        "handshake-refused",
        "closed again"
    );
    assert_eq!(deliver(&world, &program, first).await, 202);
    assert_eq!(deliver(&world, &program, third).await, 401);

    // A second webhook, and both after a reload and a restart.
    open(&world).await;
    assert_eq!(handshake(&world, &program, second).await.status, 200);
    enrolled(&mut program, "asana-2").await;
    world.file("program.toml", &text.replace("workers = 2", "workers = 1"));
    out(&flowgate(&world, &["reload"]).await);
    for secret in [first, second] {
        assert_eq!(deliver(&world, &program, secret).await, 202);
    }
    ended(&mut program).await;
    let mut program = started(&world, &text).await;
    for secret in [first, second] {
        assert_eq!(deliver(&world, &program, secret).await, 202);
    }
    assert_eq!(trigger.runs(), 5);

    let list = out(&flowgate(&world, &["vendor", "forget", "tasks"]).await);
    assert!(
        list.contains("asana-1  of caller board, since ") && list.contains("asana-2  of caller board"),
        "{list}"
    );
    out(&flowgate(&world, &["vendor", "forget", "tasks", "asana-1"]).await);
    assert_eq!(deliver(&world, &program, first).await, 401);
    assert_eq!(deliver(&world, &program, second).await, 202);
    ended(&mut program).await;
    let mut program = started(&world, &text).await;
    assert_eq!(deliver(&world, &program, first).await, 401);
    assert_eq!(deliver(&world, &program, second).await, 202);
    ended(&mut program).await;

    let trail = trail(&world);
    let of = |action: &str| {
        let entries = trail.iter().filter(|(one, _)| one == action);
        entries.map(|(_, outcome)| outcome.as_str()).collect::<Vec<_>>()
    };
    // Each opening, and each secret that came.
    assert_eq!(of("vendor-enrol"), ["begun", "done"].repeat(4));
    assert_eq!(of("vendor-forget"), ["done"]);
    let written = std::fs::read_to_string(world.dir().join("state/audit.jsonl")).unwrap();
    assert!(
        SECRETS.iter().all(|secret| !written.contains(secret)),
        "{written}"
    );
    let file = world.dir().join("state/enrolled.jsonl");
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o077, 0);
}

#[tokio::test]
async fn a_secret_that_is_none_takes_nothing_from_an_opening_and_of_many_one_is_accepted() {
    let (world, trigger, program, _) = asana().await;
    open(&world).await;
    for bad in [
        "short",
        "<script>alert(1)</script>aaaaaaaaaaaaaaaaaaaaaaaaa",
        &"a".repeat(4000),
    ] {
        assert_eq!(
            handshake(&world, &program, bad).await.code(),
            "handshake-refused",
            "{bad}"
        );
    }
    let twice = post("/tasks")
        .header("x-hook-secret", SECRETS[0])
        .header("x-hook-secret", SECRETS[1]);
    let answer = send(&world, &program, twice.body(Full::default()).unwrap()).await;
    assert_ne!(answer.status, 200);
    // Of many at once one is accepted.
    let all = SECRETS.map(|secret| handshake(&world, &program, secret));
    let all = futures_util::future::join_all(all).await;
    assert_eq!(all.iter().filter(|answer| answer.status == 200).count(), 1);
    assert_eq!(trigger.runs(), 0);
}

#[tokio::test]
async fn what_cannot_be_opened_or_forgotten_says_why() {
    let (world, _, program, text) = asana().await;
    for (arguments, why) in [
        (&["enrol", "nothing"][..], "there is no route nothing"),
        (
            &["enrol", "orders"][..],
            "route orders lists no vendor in `handshakes` that sends a secret",
        ),
        (&["enrol", "tasks", "--for", "2d"][..], "at most 24h"),
        (&["enrol", "tasks", "--for", "0m"][..], "write how long"),
        (
            &["forget", "tasks", "asana-9"][..],
            "no caller of route tasks has an enrolled secret asana-9",
        ),
        (
            &["forget", "orders"][..],
            "route orders lists no caller whose vendor sends its secrets",
        ),
    ] {
        let refused = err(&flowgate(&world, &[&["vendor"], arguments].concat()).await);
        assert!(refused.contains(why), "{refused}");
    }
    for number in 0..8 {
        open(&world).await;
        let secret = format!("{}{number}", &SECRETS[0][1..]);
        assert_eq!(handshake(&world, &program, &secret).await.status, 200);
    }
    let full = err(&flowgate(&world, &["vendor", "enrol", "tasks"]).await);
    assert!(full.contains("caller board has 8 secrets"), "{full}");

    world.file("program.toml", &text.replace("[state]\nfolder = \"state\"\n", ""));
    let none = err(&flowgate(&world, &["vendor", "enrol", "tasks"]).await);
    assert!(none.contains("names no `folder` of [state]"), "{none}");
    let check = err(&flowgate(&world, &["check"]).await);
    assert!(
        check.contains("there is no state folder to keep it in"),
        "{check}"
    );
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_accepted_and_the_vendor_may_try_again() {
    let (world, _, program, _) = asana().await;
    open(&world).await;
    let file = world.dir().join("state/enrolled.jsonl");
    std::fs::create_dir(&file).unwrap();
    let failed = handshake(&world, &program, SECRETS[0]).await;
    assert_eq!(
        (failed.status.as_u16(), failed.header("x-hook-secret")),
        (500, None)
    );
    assert_eq!(deliver(&world, &program, SECRETS[0]).await, 401);
    std::fs::remove_dir(&file).unwrap();
    assert_eq!(handshake(&world, &program, SECRETS[0]).await.status, 200);
    assert_eq!(deliver(&world, &program, SECRETS[0]).await, 202);
}

const BOARD: &str = "[caller.signature]\npreset = \"asana\"\n";

#[tokio::test]
async fn a_secret_is_listed_and_forgotten_also_where_none_is_accepted_any_more() {
    let (world, _, program, text) = asana().await;
    open(&world).await;
    assert_eq!(handshake(&world, &program, SECRETS[0]).await.status, 200);
    world.file("program.toml", &text.replace("handshakes = [\"asana\"]", ""));
    out(&flowgate(&world, &["reload"]).await);
    let refused = err(&flowgate(&world, &["vendor", "enrol", "tasks"]).await);
    assert!(refused.contains("lists no vendor in `handshakes`"), "{refused}");
    assert_eq!(deliver(&world, &program, SECRETS[0]).await, 202, "still in force");
    let list = out(&flowgate(&world, &["vendor", "forget", "tasks"]).await);
    assert!(list.starts_with("asana-1  of caller board, since "), "{list}");
    out(&flowgate(&world, &["vendor", "forget", "tasks", "asana-1"]).await);
    assert_eq!(deliver(&world, &program, SECRETS[0]).await, 401);
}

#[tokio::test]
async fn of_two_callers_with_the_same_label_none_is_forgotten_by_guess() {
    let (world, _, mut program, text) = asana().await;
    ended(&mut program).await;
    let line = |caller: &str, secret: &str| {
        format!(
            "{{\"caller\":\"{caller}\",\"label\":\"asana-1\",\"since\":\"2026-01-01T00:00:00Z\",\"secret\":\"{secret}\"}}\n"
        )
    };
    let kept = [line("board", SECRETS[0]), line("twin", SECRETS[1])].concat();
    std::fs::write(world.dir().join("state/enrolled.jsonl"), kept).unwrap();
    let twin = format!("{BOARD}[[caller]]\nname = \"twin\"\n{BOARD}");
    let text = text
        .replace(BOARD, &twin)
        .replace("handshakes = [\"asana\"]", "")
        .replace("callers = [\"board\"]", "callers = [\"board\", \"twin\"]");
    let program = started(&world, &text).await;
    let list = out(&flowgate(&world, &["vendor", "forget", "tasks"]).await);
    assert!(
        list.contains("of caller board") && list.contains("of caller twin"),
        "{list}"
    );
    let refused = err(&flowgate(&world, &["vendor", "forget", "tasks", "asana-1"]).await);
    assert!(
        refused.contains("callers board and twin of the route both have a secret asana-1"),
        "{refused}"
    );
    for secret in &SECRETS[..2] {
        assert_eq!(deliver(&world, &program, secret).await, 202);
    }
}

#[tokio::test]
async fn a_secret_from_outside_of_the_callers_networks_is_refused_and_the_route_stays_open() {
    let (world, _, mut program, text) = asana().await;
    ended(&mut program).await;
    let text = text.replace(
        "name = \"board\"\n",
        "name = \"board\"\nnetworks = [\"127.0.0.2/32\"]\n",
    );
    let mut program = started(&world, &text).await;
    open(&world).await;
    let refused = handshake(&world, &program, SECRETS[0]).await;
    assert_eq!(refused.code(), "handshake-refused");
    let why = |line: &Value| {
        let cause = line["cause"].as_str();
        cause.is_some_and(|cause| cause.contains("caller board: 127.0.0.1 is not on the allow list"))
    };
    program.line(why).await;
    let request = post("/tasks").header("x-hook-secret", SECRETS[1]);
    let request = request.body(Full::default()).unwrap();
    let accepted = send_from([127, 0, 0, 2], &world, &program, request).await;
    assert_eq!(accepted.status, 200, "{}", accepted.text());
}

#[tokio::test]
async fn secrets_beyond_the_limit_are_logged_and_do_not_keep_the_gateway_from_starting() {
    let (world, _, mut program, text) = asana().await;
    let secret = |number: usize| format!("{}{number}", &SECRETS[0][1..]);
    for number in 1..=8 {
        open(&world).await;
        assert_eq!(handshake(&world, &program, &secret(number)).await.status, 200);
    }
    ended(&mut program).await;
    world.file("secret", SECRETS[1]);
    let text = text.replace(BOARD, &format!("{BOARD}secret = \"file:secret\"\n"));
    let mut program = Program::start(&world, &text);
    let line = program.line(|line| line["level"] == "ERROR").await;
    assert_eq!(line["caller"], "board");
    let message = line["message"].as_str().unwrap();
    assert!(
        message.contains("what is signed with asana-8 is refused"),
        "{message}"
    );
    program.address().await;
    for secret in [SECRETS[1], &secret(1), &secret(7)] {
        assert_eq!(deliver(&world, &program, secret).await, 202);
    }
    assert_eq!(deliver(&world, &program, &secret(8)).await, 401);
    // One that is forgotten makes room for it at once.
    out(&flowgate(&world, &["vendor", "forget", "tasks", "asana-1"]).await);
    assert_eq!(deliver(&world, &program, &secret(8)).await, 202);
    assert_eq!(deliver(&world, &program, &secret(1)).await, 401);
}
