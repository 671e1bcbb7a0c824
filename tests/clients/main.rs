//! The most used HTTP clients see every refusal, however large a body they send with it: each of 401, 403,
//! 404, 413 and 429, with bodies of 0 B, 100 kB and 5 MB, twenty times with one client. `.ci/run` runs those
//! that are installed; elsewhere: `pip install --target target/clients requests urllib3 'httpx[http2]'
//! aiohttp`, and then `PYTHONPATH=target/clients cargo test --test clients -- --ignored`, or `--ignored node`
//! for those of one program.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    unreachable_pub,
    reason = "a test fails by panicking, and the harness has more than is needed here"
)]

#[path = "../emulator/mod.rs"]
mod emulator;
#[path = "../gateway/harness.rs"]
mod harness;
mod samples;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::emulator::{Answer, Trigger};
use crate::harness::{KEY, Running, TENANT, World};

/// How often each request is sent. Each must be answered: a refusal that is lost once in twenty times is a
/// support ticket.
const TRIES: usize = 20;
const SIZES: [usize; 3] = [0, 100_000, 5_000_000];

/// A request that is refused with this status.
struct Refusal {
    status: u16,
    path: &'static str,
    key: &'static str,
    bytes: usize,
}

/// Every refusal with every size of body that it can have.
fn plan() -> Vec<Refusal> {
    let mut plan = Vec::new();
    for (status, path, key) in [
        (401, "/orders", "guess"),
        (403, "/elsewhere", KEY),
        (404, "/nowhere", KEY),
        (413, "/small", KEY),
        (429, "/limited", KEY),
    ] {
        let sizes = SIZES.into_iter().filter(|bytes| status != 413 || *bytes > 0);
        plan.extend(sizes.map(|bytes| Refusal {
            status,
            path,
            key,
            bytes,
        }));
    }
    plan
}

/// A gateway that refuses as planned.
async fn refusing() -> (World, Running) {
    let world = World::new().await;
    let flow = &world.emulator.flow;
    let trigger = flow.add(Trigger::any_user(TENANT).does(Answer::Accepted));
    let route = |name: &str, more: &str| world.route(name, &format!("/{name}"), &trigger.url(), more);
    let routes = [
        route("orders", "body_size_max = \"20 MB\""),
        route(
            "elsewhere",
            "body_size_max = \"20 MB\"\nnetworks = [\"192.0.2.0/24\"]",
        ),
        route("small", "body_size_max = \"1 KiB\""),
        route(
            "limited",
            "body_size_max = \"20 MB\"\nrate = { requests = 1, per = \"24h\", burst = 1 }",
        ),
    ];
    let limits = "[limits]\nfailed_authentications = { requests = 100000, per = \"1s\" }\n";
    let gateway = world.start_with(&format!("{}{limits}", routes.concat()));
    // Uses up the limit.
    assert_eq!(gateway.post("/limited", "{}").await.status, 202);
    (world, gateway)
}

/// Runs a client with these arguments before those of the test, and checks what it saw.
async fn sees_every_refusal(mut client: Command, client_arguments: &[&str]) {
    let (world, gateway) = refusing().await;
    let base = format!("https://localhost:{}", gateway.address.port());
    let ca_file = world.emulator.ca_file();
    client
        .args(client_arguments)
        .arg(&base)
        .arg(&ca_file)
        .arg(TRIES.to_string())
        .env("NODE_EXTRA_CA_CERTS", &ca_file);
    let plan = plan();
    let mut lines = String::new();
    for refusal in &plan {
        writeln!(lines, "{} {} {}", refusal.path, refusal.key, refusal.bytes).unwrap();
    }
    let output = tokio::task::spawn_blocking(move || run(client, &lines))
        .await
        .unwrap();
    let mut seen = output.lines();
    let mut lost = String::new();
    for refusal in &plan {
        let Refusal { status, bytes, .. } = refusal;
        let wanted = format!("{status} {status}");
        let answers: Vec<_> = seen.by_ref().take(TRIES).collect();
        let right = answers.iter().filter(|answer| **answer == wanted).count();
        if right < TRIES {
            let first = answers.iter().find(|answer| **answer != wanted);
            writeln!(
                lost,
                "{status} with {bytes} bytes: seen {right} of {TRIES} times: {first:?}"
            )
            .unwrap();
        }
    }
    assert!(lost.is_empty(), "{lost}");
    assert_eq!(seen.next(), None);
}

/// The output of a program with this input.
fn run(mut program: Command, input: &str) -> String {
    let mut child = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program:?} cannot be started: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program:?} failed: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(name)
}

/// The folder for compiled clients.
fn built() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients/built");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

mod python {
    use super::*;

    async fn sees(library: &str) {
        let mut python = Command::new("python3");
        python.arg(script("client.py"));
        sees_every_refusal(python, &[library]).await;
    }

    #[tokio::test]
    #[ignore = "needs Python with packages: pip install --target target/clients requests urllib3 'httpx[http2]' aiohttp && PYTHONPATH=target/clients cargo test --test clients python -- --ignored"]
    async fn requests_sees_every_refusal() {
        sees("requests").await;
    }

    #[tokio::test]
    #[ignore = "needs Python with packages: pip install --target target/clients requests urllib3 'httpx[http2]' aiohttp && PYTHONPATH=target/clients cargo test --test clients python -- --ignored"]
    async fn urllib_sees_every_refusal() {
        sees("urllib").await;
    }

    #[tokio::test]
    #[ignore = "needs Python with packages: pip install --target target/clients requests urllib3 'httpx[http2]' aiohttp && PYTHONPATH=target/clients cargo test --test clients python -- --ignored"]
    async fn urllib3_sees_every_refusal() {
        sees("urllib3").await;
    }

    #[tokio::test]
    #[ignore = "needs Python with packages: pip install --target target/clients requests urllib3 'httpx[http2]' aiohttp && PYTHONPATH=target/clients cargo test --test clients python -- --ignored"]
    async fn httpx_sees_every_refusal_over_h1() {
        sees("httpx-h1").await;
    }

    #[tokio::test]
    #[ignore = "needs Python with packages: pip install --target target/clients requests urllib3 'httpx[http2]' aiohttp && PYTHONPATH=target/clients cargo test --test clients python -- --ignored"]
    async fn httpx_sees_every_refusal_over_h2() {
        sees("httpx-h2").await;
    }

    #[tokio::test]
    #[ignore = "needs Python with packages: pip install --target target/clients requests urllib3 'httpx[http2]' aiohttp && PYTHONPATH=target/clients cargo test --test clients python -- --ignored"]
    async fn aiohttp_sees_every_refusal() {
        sees("aiohttp").await;
    }
}

mod node {
    use super::*;

    async fn sees(library: &str) {
        let mut node = Command::new("node");
        node.arg(script("client.js"));
        sees_every_refusal(node, &[library]).await;
    }

    #[tokio::test]
    #[ignore = "needs Node: cargo test --test clients node -- --ignored"]
    async fn https_sees_every_refusal() {
        sees("https").await;
    }

    #[tokio::test]
    #[ignore = "needs Node: cargo test --test clients node -- --ignored"]
    async fn fetch_sees_every_refusal() {
        sees("fetch").await;
    }

    #[tokio::test]
    #[ignore = "needs Node: cargo test --test clients node -- --ignored"]
    async fn http2_sees_every_refusal_over_h2() {
        sees("http2").await;
    }
}

mod curl {
    use super::*;

    async fn sees(version: &str) {
        let mut shell = Command::new("bash");
        shell.arg(script("client.sh"));
        sees_every_refusal(shell, &[version]).await;
    }

    #[tokio::test]
    #[ignore = "needs curl: cargo test --test clients curl -- --ignored"]
    async fn curl_sees_every_refusal_over_h1() {
        sees("--http1.1").await;
    }

    #[tokio::test]
    #[ignore = "needs curl: cargo test --test clients curl -- --ignored"]
    async fn curl_sees_every_refusal_over_h2() {
        sees("--http2").await;
    }
}

mod go {
    use super::*;

    async fn sees(version: &str) {
        let program = built().join(format!("client-{version}"));
        let mut go = Command::new("go");
        go.arg("build").arg("-o").arg(&program).arg(script("client.go"));
        go.env("GO111MODULE", "off");
        run(go, "");
        sees_every_refusal(Command::new(program), &[version]).await;
    }

    #[tokio::test]
    #[ignore = "needs Go: cargo test --test clients go -- --ignored"]
    async fn go_sees_every_refusal_over_h1() {
        sees("h1").await;
    }

    #[tokio::test]
    #[ignore = "needs Go: cargo test --test clients go -- --ignored"]
    async fn go_sees_every_refusal_over_h2() {
        sees("h2").await;
    }
}

mod java {
    use super::*;

    async fn sees(version: &str) {
        let mut java = Command::new("java");
        java.arg(script("Client.java"));
        sees_every_refusal(java, &[version]).await;
    }

    #[tokio::test]
    #[ignore = "needs a JDK: cargo test --test clients java -- --ignored"]
    async fn java_sees_every_refusal_over_h1() {
        sees("h1").await;
    }

    #[tokio::test]
    #[ignore = "needs a JDK: cargo test --test clients java -- --ignored"]
    async fn java_sees_every_refusal_over_h2() {
        sees("h2").await;
    }
}
