//! `flowgate login` from a person's point of view. The test acts as the browser: it opens the address that
//! the command prints, and follows redirects.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_rustls::TlsConnector;

use crate::accounts::{
    PASSWORD, PUBLIC, USER, USER_OID, asked, by_password, private, settings, signed_in, world,
};
use crate::harness::{PATIENCE, SECRET, TENANT, World};
use crate::program::Program;

const SEALED: &str = "[identity.sign_in]\nstore = \"kept\"\nseal = \"file:seal\"";

/// A running command.
struct Running {
    child: Child,
    lines: UnboundedReceiver<String>,
    said: String,
}

/// How it ended.
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Running {
    fn start(world: &World, settings: &str, arguments: &[&str]) -> Self {
        Self::start_in(world, settings, arguments, None)
    }

    /// Starts the command with this folder first in `PATH`.
    fn start_in(world: &World, settings: &str, arguments: &[&str], programs: Option<&Path>) -> Self {
        let path = world.dir().join("flowgate.toml");
        std::fs::write(&path, settings).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowgate"));
        if let Some(programs) = programs {
            command.env("PATH", format!("{}:/usr/bin:/bin", programs.display()));
        }
        let mut child = command
            .args(arguments)
            .arg("--config")
            .arg(path)
            .env("CONTOSO_SECRET", SECRET)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = tokio::sync::mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            lines,
            said: String::new(),
        }
    }

    /// The next line that contains this text.
    async fn line_with(&mut self, part: &str) -> String {
        let search = async {
            while let Some(line) = self.lines.recv().await {
                self.said.push_str(&line);
                self.said.push('\n');
                if line.contains(part) {
                    return line;
                }
            }
            panic!("it ended without {part:?}: {}", self.said);
        };
        tokio::time::timeout(PATIENCE, search)
            .await
            .unwrap_or_else(|_| panic!("it does not say {part:?}"))
            .trim()
            .to_owned()
    }

    /// Waits for its end.
    async fn end(mut self) -> Ended {
        let rest = async {
            while let Some(line) = self.lines.recv().await {
                self.said.push_str(&line);
                self.said.push('\n');
            }
        };
        tokio::time::timeout(PATIENCE, rest)
            .await
            .expect("it does not end");
        let mut err = String::new();
        let mut pipe = self.child.stderr.take().unwrap();
        pipe.read_to_string(&mut err).unwrap();
        Ended {
            code: self.child.wait().unwrap().code(),
            out: std::mem::take(&mut self.said),
            err,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has already exited if the test succeeded.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin, target: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    // A peer that closes without close_notify is not what is tested here.
    let _ = read.expect("no answer in time");
    String::from_utf8(answer).unwrap()
}

/// Opens Entra's page and returns the answer.
async fn page(world: &World, address: &str) -> String {
    let target = address.strip_prefix(&world.emulator.entra.authority()).unwrap();
    let port = world.emulator.entra.listener().address();
    let tcp = TcpStream::connect(port).await.unwrap();
    let tls = Arc::new(world.emulator.ca.client_config(&["http/1.1"]));
    let name = ServerName::try_from("localhost").unwrap();
    get(TlsConnector::from(tls).connect(name, tcp).await.unwrap(), target).await
}

/// The address to which the page redirects the browser.
async fn sent_to(world: &World, address: &str) -> String {
    let answer = page(world, address).await;
    let location = answer
        .lines()
        .find_map(|line| line.strip_prefix("Location: "))
        .unwrap_or_else(|| panic!("no redirect: {answer}"));
    location.to_owned()
}

/// Opens an address on this machine.
async fn local(address: &str) -> String {
    let rest = address.strip_prefix("http://localhost:").unwrap();
    let (port, target) = rest.split_once('/').unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port.parse().unwrap()))
        .await
        .unwrap();
    get(stream, &format!("/{target}")).await
}

const BROWSER: &[&str] = &["login", "--identity", "account", "--no-browser"];
const DEVICE: &[&str] = &["login", "--identity", "account", "--device-code"];

#[tokio::test]
async fn a_person_signs_in_with_a_browser_and_the_gateway_serves() {
    let (world, trigger) = world().await;
    private(&world, "seal", "canary-seal-of-20-bytes");
    let settings = settings(&world, &trigger, PUBLIC, "", SEALED);
    let mut login = Running::start(&world, &settings, BROWSER);
    let address = login.line_with("https://").await;
    let answer = local(&sent_to(&world, &address).await).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("Signed in"),
        "{answer}"
    );
    let ended = login.end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    for part in [USER, USER_OID, TENANT, "kept", "encrypted under the seal"] {
        assert!(ended.out.contains(part), "{part}: {}", ended.out);
    }
    for canary in ["canary", "eyJ"] {
        assert!(
            !ended.out.contains(canary) && !ended.err.contains(canary),
            "{canary}: {}",
            ended.out
        );
    }
    let text = std::fs::read_to_string(world.dir().join("kept")).unwrap();
    assert!(
        text.starts_with("flowgate-sealed-1:") && !text.contains(USER),
        "{text}"
    );
    let request = &asked(&world, PUBLIC)[0];
    assert_eq!(request.field("grant_type"), Some("authorization_code"));
    assert!(
        request
            .field("code_verifier")
            .is_some_and(|verifier| verifier.len() == 43)
    );
    let gateway = world.start(&settings);
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
}

/// What the opener was given.
#[cfg(target_os = "linux")]
async fn seen_in(programs: &Path) -> String {
    let seen = async {
        loop {
            if let Ok(seen) = std::fs::read_to_string(programs.join("seen")) {
                return seen;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, seen)
        .await
        .expect("nothing was opened")
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_the_opener_gets_as_argument_leads_to_the_page_once_and_holds_no_state() {
    use std::os::unix::fs::PermissionsExt;

    let (world, trigger) = world().await;
    let programs = world.dir().join("programs");
    std::fs::create_dir(&programs).unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$#:$*\" > {0}/new\nmv {0}/new {0}/seen\n",
        programs.display()
    );
    std::fs::write(programs.join("xdg-open"), script).unwrap();
    std::fs::set_permissions(programs.join("xdg-open"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let open = &["login", "--identity", "account"];
    let mut login = Running::start_in(&world, &signed_in(&world, &trigger, ""), open, Some(&programs));
    let shown = login.line_with("https://").await;
    let seen = seen_in(&programs).await;
    let opening = seen.trim().strip_prefix("1:").unwrap();
    let state = shown.split_once("state=").unwrap().1.split('&').next().unwrap();
    for part in ["state", "challenge", "https", state] {
        assert!(!opening.contains(part), "{part}: {opening}");
    }
    let led = local(opening).await;
    assert!(led.starts_with("HTTP/1.1 302"), "{led}");
    let location = led
        .lines()
        .find_map(|line| line.strip_prefix("location: "))
        .unwrap();
    assert_eq!(location, shown);
    let answer = local(&sent_to(&world, location).await).await;
    assert!(answer.contains("Signed in"), "{answer}");
    assert_eq!(login.end().await.code, Some(0));
    // The one that opens it first could sign in with another account, so a second opening ends the sign-in.
    std::fs::remove_file(programs.join("seen")).unwrap();
    let mut login = Running::start_in(&world, &signed_in(&world, &trigger, ""), open, Some(&programs));
    login.line_with("https://").await;
    let seen = seen_in(&programs).await;
    let opening = seen.trim().strip_prefix("1:").unwrap();
    assert!(local(opening).await.starts_with("HTTP/1.1 302"));
    assert!(local(opening).await.starts_with("HTTP/1.1 410"));
    assert_eq!(login.end().await.code, Some(1));
}

#[tokio::test]
async fn a_new_seal_is_put_on_the_store_at_once_so_that_a_restart_finds_it() {
    let (world, trigger) = world().await;
    private(&world, "seal", "canary-seal-of-20-bytes");
    let settings = settings(&world, &trigger, PUBLIC, "", SEALED);
    let mut login = Running::start(&world, &settings, BROWSER);
    let address = login.line_with("https://").await;
    local(&sent_to(&world, &address).await).await;
    assert_eq!(login.end().await.code, Some(0));
    let gateway = world.start(&settings);
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
    let kept = || std::fs::read_to_string(world.dir().join("kept")).unwrap();
    let before = kept();
    private(&world, "seal", "canary-seal-that-is-another");
    let written = async {
        while kept() == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, written)
        .await
        .expect("the store keeps its old seal");
    drop(gateway);
    let gateway = world.start(&settings);
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
}

#[tokio::test]
async fn a_gateway_looks_for_the_new_seal_when_another_was_quicker_to_put_it_on() {
    let (mut world, trigger) = world().await;
    world.emulator.entra.lifetime(Duration::from_secs(3));
    let (first, second) = ("canary-seal-of-20-bytes", "canary-seal-that-is-another");
    private(&world, "seal", first);
    let quick = settings(&world, &trigger, PUBLIC, "", SEALED);
    let mut login = Running::start(&world, &quick, BROWSER);
    let address = login.line_with("https://").await;
    local(&sent_to(&world, &address).await).await;
    assert_eq!(login.end().await.code, Some(0));
    // The other identity reads its seal from a vault, which it asks once an hour.
    let (reader, secret) = ("dddddddd-aaaa-4ccc-8ddd-eeeeeeeeeeee", "canary-reader-secret~9");
    world.emulator.register_app(TENANT, reader, secret, "reader-oid");
    world.secrets.push(("READER_SECRET".into(), secret.into()));
    let vault = &world.emulator.vault;
    vault.tenant(TENANT);
    vault.allow("reader-oid");
    vault.put("seal", first);
    let reading = format!(
        "{}scope = \"https://vault.azure.net/.default\"\n[keyvault]\nidentity = \"reader\"\nca_file = {:?}\n",
        world.identity("reader", TENANT, reader, "env:READER_SECRET"),
        world.emulator.ca_file()
    );
    let slow = format!(
        "{reading}{}",
        quick.replace("\"file:seal\"", &format!("\"{}\"", vault.reference("seal")))
    );
    let mut slow = Program::start(&world, &slow);
    slow.address().await;
    let quick = world.start(&quick);
    vault.put("seal", second);
    private(&world, "seal", second);
    let replaced = "seal of identity account replaced";
    slow.line(|line| line["message"].as_str().unwrap_or_default().contains(replaced))
        .await;
    assert_eq!(quick.post("/orders", "{}").await.status, 202);
}

#[tokio::test]
async fn an_answer_with_a_wrong_state_is_refused_and_the_right_one_is_waited_for() {
    let (world, trigger) = world().await;
    let mut login = Running::start(&world, &signed_in(&world, &trigger, ""), BROWSER);
    let address = login.line_with("https://").await;
    let good = sent_to(&world, &address).await;
    let (before, _) = good.split_once("state=").unwrap();
    for (forged, status) in [
        (format!("{before}state=forged"), "400"),
        (before.trim_end_matches('&').to_owned(), "400"),
        (good.replace("/?", "/favicon.ico?"), "404"),
    ] {
        let answer = local(&forged).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    assert_eq!(asked(&world, PUBLIC).len(), 0, "nothing was taken from them");
    assert!(local(&good).await.starts_with("HTTP/1.1 200"));
    let ended = login.end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.out.contains("readable by its owner only"), "{}", ended.out);
}

#[tokio::test]
async fn a_refusal_of_the_page_is_explained() {
    let (world, trigger) = world().await;
    world.emulator.entra.page_refuses(
        "consent_required",
        "AADSTS65001: The user or administrator has not consented to use the application.",
    );
    let mut login = Running::start(&world, &signed_in(&world, &trigger, ""), BROWSER);
    let address = login.line_with("https://").await;
    let answer = local(&sent_to(&world, &address).await).await;
    assert!(answer.contains("refused"), "{answer}");
    let ended = login.end().await;
    assert_eq!(ended.code, Some(1));
    for part in [
        "consent_required",
        "AADSTS65001",
        "lacks consent",
        "administrator",
    ] {
        assert!(ended.err.contains(part), "{part}: {}", ended.err);
    }
    assert!(!world.dir().join("kept").exists());
}

#[tokio::test]
async fn a_person_signs_in_on_another_device() {
    let (world, trigger) = world().await;
    world
        .emulator
        .entra
        .polls(&["authorization_pending", "authorization_pending", "slow_down"]);
    let settings = signed_in(&world, &trigger, "");
    let mut login = Running::start(&world, &settings, DEVICE);
    login.line_with("FKLWGATE7").await;
    assert_eq!(
        login.line_with("https://").await,
        "https://microsoft.com/devicelogin"
    );
    let ended = login.end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(
        ended.out.contains(USER) && !ended.out.contains("canary"),
        "{}",
        ended.out
    );
    assert_eq!(asked(&world, PUBLIC).len(), 4);
    let gateway = world.start(&settings);
    assert_eq!(gateway.post("/orders", "{}").await.status, 202);
}

#[tokio::test]
async fn a_device_code_that_leads_nowhere_ends_with_a_reason() {
    for (error, part) in [
        ("authorization_declined", "declined"),
        ("expired_token", "has expired"),
        ("bad_verification_code", "bad_verification_code"),
    ] {
        let (world, trigger) = world().await;
        world.emulator.entra.polls(&[error]);
        let mut login = Running::start(&world, &signed_in(&world, &trigger, ""), DEVICE);
        login.line_with("FKLWGATE7").await;
        let ended = login.end().await;
        assert_eq!(ended.code, Some(1));
        assert!(ended.err.contains(part), "{}", ended.err);
        assert!(!world.dir().join("kept").exists());
    }
}

#[tokio::test]
async fn a_sign_in_that_could_lead_nowhere_is_not_begun() {
    let (world, trigger) = world().await;
    let good = signed_in(&world, &trigger, "");
    private(&world, "password", PASSWORD);
    let lost = good.replace("store = \"kept\"", "store = \"none/kept\"");
    for (settings, arguments, part) in [
        (
            &good,
            &["login", "--identity", "acount", "--no-browser"],
            "contoso, account",
        ),
        (
            &good,
            &["login", "--identity", "contoso", "--no-browser"],
            "nobody signs in",
        ),
        (
            &by_password(&world, &trigger, PUBLIC, ""),
            &["login", "--identity", "account", "--no-browser"],
            "nobody signs in",
        ),
        (
            &lost,
            &["login", "--identity", "account", "--no-browser"],
            "does not exist",
        ),
    ] {
        let ended = Running::start(&world, settings, arguments).end().await;
        assert_eq!(ended.code, Some(2), "{part}");
        assert!(ended.err.contains(part), "{part}: {}", ended.err);
    }
}

#[tokio::test]
async fn every_start_warns_of_an_identity_with_a_password() {
    let (world, trigger) = world().await;
    private(&world, "password", PASSWORD);
    for _ in 0..2 {
        let mut serve = Running::start(&world, &by_password(&world, &trigger, PUBLIC, ""), &["serve"]);
        let line = serve.line_with("second factor").await;
        for part in ["WARN", "account", "Microsoft discourages"] {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
}
