//! No secret in any output: canaries are planted in every place that holds one, everything fails once, and
//! whatever was written, answered or measured is searched for them.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::emulator::Answer as Flow;
use crate::emulator::{Condition, TokenAnswer, Trigger, faults};
use crate::harness::{CLIENT, KEY, Running, SECRET, TENANT, World, post};

const WRONG_KEY: &str = "canary-wrong-key-5f1c";
const COOKIE: &str = "canary-cookie-77aa";
const VENDORS: &str = "canary-vendor-token-31bb";
const QUERY: &str = "canary-query-0c0c";
const BODY: &str = "canary-body-9e9e";
const WRONG_SECRET: &str = "canary-wrong-secret-12ef";

/// Everything that this process logs through `tracing`, at every level, from every library.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Vec<u8>>>);

impl Heard {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Heard {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Captures our own lines at every level, and those of libraries from the level that the program allows.
pub fn listen() -> Heard {
    static HEARD: OnceLock<Heard> = OnceLock::new();
    let heard = HEARD.get_or_init(|| {
        let heard = Heard::default();
        let levels = Targets::new()
            .with_default(LevelFilter::WARN)
            .with_target("flowgate", LevelFilter::TRACE);
        let lines = fmt::layer().with_writer(heard.clone()).with_filter(levels);
        let subscriber = registry().with(lines);
        tracing::subscriber::set_global_default(subscriber).unwrap();
        heard
    });
    heard.clone()
}

/// A secret as it is, and in its encodings.
fn looks(secret: &str) -> Vec<String> {
    let percent =
        percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC).to_string();
    let basic = STANDARD.encode(format!("anyone:{secret}"));
    vec![secret.to_owned(), STANDARD.encode(secret), percent, basic]
}

fn search(output: &str, secrets: &[String], what: &str) {
    for secret in secrets {
        for look in looks(secret) {
            assert!(!output.contains(&look), "{what} shows {look:?}");
        }
    }
}

/// Sends one request with every canary that a caller can plant, and returns the whole answer as text.
async fn call(gateway: &Running, path: &str, key: Option<&str>) -> String {
    let mut request = post(&format!("{path}?token={QUERY}&sig={QUERY}"))
        .header("cookie", format!("session={COOKIE}"))
        .header("x-vendor", VENDORS);
    if let Some(key) = key {
        request = request.header(
            "authorization",
            format!("Basic {}", STANDARD.encode(format!("anyone:{key}"))),
        );
    }
    let answer = gateway
        .send(request.body(Full::from(format!("{{\"a\":\"{BODY}\"}}"))).unwrap())
        .await;
    format!("{} {:?} {}", answer.status, answer.headers, answer.text())
}

#[tokio::test]
async fn no_output_shows_a_secret_whatever_goes_wrong() {
    let heard = listen();
    let mut world = World::new().await;
    let flow = &world.emulator.flow;
    let good = flow.add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let signed = flow.add(Trigger::anyone().does(Flow::Accepted));
    let broken = flow.add(Trigger::anyone().does(Flow::Accepted));
    let off = flow.add(Trigger::any_user(TENANT).condition(Condition::Disabled));
    let silent = flow.add(Trigger::any_user(TENANT).does(Flow::Never));
    let listed = flow.add(Trigger::specific_users(TENANT, &["nobody"]));
    let cut = flow.add(Trigger::any_user(TENANT).does(Flow::Cut));
    let canary = "canarySigCanarySigCanarySigCanarySigCanaryS";
    let wrong_signature = broken.url().split("&sig=").next().unwrap().to_owned() + "&sig=" + canary;
    let signature = signed.url().split("&sig=").nth(1).unwrap().to_owned();
    world.secrets.push(("SIGNED".into(), signed.url()));
    world.secrets.push(("BROKEN".into(), wrong_signature));
    world.secrets.push(("WRONG".into(), WRONG_SECRET.into()));
    world
        .emulator
        .register_app(TENANT, "bbbbbbbb-bbbb-4ccc-8ddd-eeeeeeeeeeee", SECRET, "x");
    let routes = [
        world.identity(
            "refused",
            TENANT,
            "bbbbbbbb-bbbb-4ccc-8ddd-eeeeeeeeeeee",
            "env:WRONG",
        ),
        world.route("good", "/good", &good.url(), ""),
        world.route("signed", "/signed", "env:SIGNED", "signed = true"),
        world.route("broken", "/broken", "env:BROKEN", "signed = true"),
        world.route("off", "/off", &off.url(), ""),
        world.route("silent", "/silent", &silent.url(), "response_timeout = \"200ms\""),
        world.route("listed", "/listed", &listed.url(), ""),
        world.route("cut", "/cut", &cut.url(), ""),
        world.route("secret", "/secret", &good.url(), "identity = \"refused\""),
        world.route(
            "limited",
            "/limited",
            &good.url(),
            "rate = { requests = 1, per = \"1h\", burst = 1 }",
        ),
        world.route("far", "/far", &good.url(), "networks = [\"192.0.2.0/24\"]"),
    ]
    .concat();
    let gateway = world.start_with(&routes);
    gateway.ready().await;
    let mut output = String::new();
    for path in [
        "/good", "/signed", "/broken", "/off", "/silent", "/listed", "/cut", "/secret", "/limited",
        "/limited", "/far",
    ] {
        output += &call(&gateway, path, Some(KEY)).await;
        output += &call(&gateway, path, Some(WRONG_KEY)).await;
        output += &call(&gateway, path, None).await;
    }
    good.next(Flow::Fault(faults::TOKEN_INVALID));
    output += &call(&gateway, "/good", Some(KEY)).await;
    world.emulator.entra.next(TokenAnswer::Html);
    output += &call(
        &gateway,
        &format!("/nowhere/{WRONG_KEY}-in-a-long-segment"),
        Some(KEY),
    )
    .await;
    let head =
        format!("POST /good?{QUERY} HTTP/1.1\nHost: localhost\r\nAuthorization: Bearer {WRONG_KEY}\r\n\r\n");
    output += &gateway.raw(head.as_bytes()).await;
    output += &gateway.admin("/metrics").await.1;
    output += &gateway.admin("/readyz?verbose").await.1;
    output += &format!("{:?}", gateway.server);
    output += &gateway.lines.all().concat();
    output += &String::from_utf8_lossy(&heard.0.lock().unwrap());
    let mut secrets: Vec<String> = [
        KEY,
        WRONG_KEY,
        SECRET,
        WRONG_SECRET,
        COOKIE,
        VENDORS,
        QUERY,
        BODY,
        canary,
        &signature,
    ]
    .iter()
    .map(|text| (*text).to_owned())
    .collect();
    let issued = world.emulator.entra.issued();
    assert!(!issued.is_empty());
    secrets.extend(issued);
    assert!(output.len() > 10_000, "there is something to search in");
    assert!(
        output.contains("AADSTS7000215") && output.contains("token renewed"),
        "the log was heard"
    );
    search(&output, &secrets, "the gateway");
}

#[tokio::test]
async fn the_program_itself_shows_no_secret_at_its_finest_level() {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let settings = format!(
        "[log]\nlevel = \"trace\"\nformat = \"json\"\n{}{}{}",
        world.base().replace("workers = 2", "workers = 1"),
        world.identity("refused", TENANT, CLIENT, "env:WRONG_SECRET"),
        world.route("orders", "/orders", &trigger.url(), "")
    );
    let path = world.dir().join("program.toml");
    std::fs::write(&path, settings).unwrap();
    let program = Command::new(env!("CARGO_BIN_EXE_flowgate"))
        .args(["serve", "--config"])
        .arg(&path)
        .env("CONTOSO_SECRET", SECRET)
        .env("WRONG_SECRET", WRONG_SECRET)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The emulator serves on this runtime, so the test waits for the program's token requests instead of
    // blocking.
    world.emulator.entra.token_requests().reached(2).await;
    let id = program.id().to_string();
    let stopped = tokio::task::spawn_blocking(move || {
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        program.wait_with_output().unwrap()
    });
    let output = stopped.await.unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("listening"), "{text}");
    let mut secrets = vec![SECRET.to_owned(), WRONG_SECRET.to_owned()];
    secrets.extend(world.emulator.entra.issued());
    search(&text, &secrets, "the program");
}
