//! `cargo run --example demo`: the emulator of Entra and the trigger and a real gateway in one process. Real
//! requests go through real TLS sockets; each row of the table compares the answer with what is promised. Then a key is
//! revoked, and settings are reloaded, while calls run. Without `--once` both keep running afterwards, with ready-made
//! `curl` commands to try, and the log line of each call is printed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a demo prints, and ends when its own machinery fails"
)]

#[path = "mod.rs"]
mod emulator;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::hmac;
use comfy_table::{Table, presets};
use emulator::{Answer, Condition, Count, Emulator, Trigger};
use flowgate::counters::Counters;
use flowgate::doctor::Questions;
use flowgate::gateway::Wanted;
use flowgate::gateway::log::{Form, Log, Sink};
use flowgate::model::{CallerName, KeyLabel};
use flowgate::server::Server;
use flowgate::settings::{Config, Environment};
use flowgate::{doctor, settings};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;

const TENANT: &str = "11111111-2222-4333-8444-555555555555";
const APP: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";
const OID: &str = "99999999-8888-4777-8666-555555555555";
const SECRET: &str = "the-demo-secret";
const KEY: &str = "demo-key-of-the-shop";
/// A second key of the same caller, which is revoked.
const LOST_KEY: &str = "lost-key-of-the-shop";
const GITHUB_SECRET: &str = "the-secret-of-the-webhook";
const SLACK_SECRET: &str = "the-signing-secret-of-the-app";
const STRIPE_SECRET: &str = "whsec_the_secret_of_the_endpoint";
/// Calls at one time while something changes, and how many are answered before and after each change.
const CROWD: usize = 8;
const CALLS: u64 = 100;
const RELOADS: usize = 3;

/// Log lines of the gateway, as an operator would read them.
#[derive(Default)]
struct Lines {
    lines: Mutex<Vec<String>>,
    came: Notify,
}

impl Sink for Lines {
    fn line(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(line).trim_end().to_owned();
        self.lines.lock().unwrap().push(line);
        self.came.notify_waiters();
    }
}

impl Lines {
    /// All that came; waits if there is none.
    async fn take(&self) -> Vec<String> {
        loop {
            let came = self.came.notified();
            tokio::pin!(came);
            came.as_mut().enable();
            let lines = std::mem::take(&mut *self.lines.lock().unwrap());
            if !lines.is_empty() {
                return lines;
            }
            came.await;
        }
    }

    async fn of(&self, request: &str) -> Value {
        loop {
            let came = self.came.notified();
            tokio::pin!(came);
            came.as_mut().enable();
            let lines = self.lines.lock().unwrap().clone();
            let mut lines = lines.iter().filter_map(|line| serde_json::from_str(line).ok());
            if let Some(line) = lines.find(|line: &Value| line["request"] == request) {
                return line;
            }
            came.await;
        }
    }
}

/// One row: what is sent, and which answer is promised.
struct Row {
    what: &'static str,
    path: &'static str,
    key: Option<&'static str>,
    /// What a vendor sends with its signature.
    fields: Vec<(&'static str, String)>,
    body: String,
    status: u16,
    /// `flow`, `gateway` for an answer of its own, or the code of a problem.
    answer: &'static str,
}

fn row(
    what: &'static str,
    path: &'static str,
    key: Option<&'static str>,
    status: u16,
    answer: &'static str,
) -> Row {
    Row {
        what,
        path,
        key,
        fields: Vec::new(),
        body: json!({"order": 17}).to_string(),
        status,
        answer,
    }
}

/// A delivery that GitHub signs with this secret.
fn github(what: &'static str, secret: &str, status: u16, answer: &'static str) -> Row {
    let row = row(what, "/github", None, status, answer);
    let signature = format!("sha256={}", hmac_sha256(secret, &row.body));
    let delivery = "72d3162e-cc78-11e3-81ab-4c9367dc0958".to_owned();
    Row {
        fields: vec![
            ("x-hub-signature-256", signature),
            ("x-github-delivery", delivery),
        ],
        ..row
    }
}

fn stripe(what: &'static str, status: u16, answer: &'static str) -> Row {
    let row = row(what, "/stripe", None, status, answer);
    let now = now();
    let signature = hmac_sha256(STRIPE_SECRET, &format!("{now}.{}", row.body));
    Row {
        fields: vec![("stripe-signature", format!("t={now},v1={signature}"))],
        ..row
    }
}

/// The challenge that Slack sends when an address is entered.
fn slack(what: &'static str, status: u16, answer: &'static str) -> Row {
    let challenge = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P";
    let body = json!({"type": "url_verification", "challenge": challenge}).to_string();
    let now = now();
    let signature = hmac_sha256(SLACK_SECRET, &format!("v0:{now}:{body}"));
    Row {
        fields: vec![
            ("x-slack-request-timestamp", now.to_string()),
            ("x-slack-signature", format!("v0={signature}")),
        ],
        body,
        ..row(what, "/slack", None, status, answer)
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    let now = flowgate::model::clock::wall();
    now.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn hmac_sha256(secret: &str, text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hex(hmac::sign(&key, text.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn rows() -> Vec<Row> {
    let large = "x".repeat(2 * 1024 * 1024);
    vec![
        row("a call that is accepted", "/orders", Some(KEY), 200, "flow"),
        row("no key", "/orders", None, 401, "key-missing"),
        row("a wrong key", "/orders", Some("guessed"), 401, "key-unknown"),
        row(
            "an address not on the list",
            "/internal",
            Some(KEY),
            403,
            "address-refused",
        ),
        slack("the challenge of Slack, before it sends anything", 200, "gateway"),
        github("a delivery that GitHub has signed", GITHUB_SECRET, 202, "flow"),
        github("the same delivery again", GITHUB_SECRET, 202, "flow"),
        github(
            "one signed with another secret",
            "guessed",
            401,
            "signature-invalid",
        ),
        stripe("a delivery that Stripe has signed", 202, "flow"),
        row("in time", "/slow-lane", Some(KEY), 202, "flow"),
        row("too fast", "/slow-lane", Some(KEY), 429, "rate-limited"),
        Row {
            body: large,
            ..row("a body too large", "/orders", Some(KEY), 413, "body-too-large")
        },
        row(
            "a flow that wants OAuth, called without",
            "/signed",
            Some(KEY),
            502,
            "flow-misconfigured",
        ),
        row(
            "a token whose claims do not match",
            "/mismatch",
            Some(KEY),
            502,
            "flow-refused-token",
        ),
        row("a flow that is switched off", "/off", Some(KEY), 503, "flow-off"),
        row(
            "a flow that never answers",
            "/silent",
            Some(KEY),
            504,
            "flow-timeout",
        ),
        row(
            "Entra refuses the secret",
            "/secret",
            Some(KEY),
            502,
            "token-refused",
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "one line for each thing the demo needs")]
fn settings(emulator: &Emulator) -> String {
    let flow = &emulator.flow;
    let answer = Answer::json(200, &json!({"accepted": true}));
    let orders = flow.add(Trigger::any_user(TENANT).does(answer));
    let lane = flow.add(Trigger::any_user(TENANT).does(Answer::Accepted));
    let picky = flow.add(Trigger::any_user(TENANT).does(Answer::Accepted));
    let off = flow.add(Trigger::any_user(TENANT).condition(Condition::Disabled));
    let silent = flow.add(Trigger::any_user(TENANT).does(Answer::Never));
    // The owner has switched this flow from "Anyone" to "Any user in my tenant"; the gateway has the old
    // address.
    let switched = format!(
        "{}&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        flow.add(Trigger::any_user(TENANT)).url()
    );
    std::fs::write(emulator.dir().join("signed-trigger"), switched).unwrap();
    let ca = emulator.ca_file();
    let leaf = emulator
        .ca
        .leaf(&["localhost"])
        .write(emulator.dir(), "gateway")
        .unwrap();
    let identity = |name: &str, secret: &str, more: &str| {
        format!(
            "[[identity]]\nname = \"{name}\"\ntenant = \"{TENANT}\"\nclient_id = \"{APP}\"\n\
             client_secret = \"env:{secret}\"\nauthority = \"{}\"\nca_file = {ca:?}\n{more}\n",
            emulator.entra.authority()
        )
    };
    let route = |name: &str, trigger: &str, more: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\npath = \"/{name}\"\ncallers = [\"shop\"]\ntrigger = {trigger:?}\n\
             ca_file = {ca:?}\n{more}\n"
        )
    };
    let vendor = |name: &str, secret: &str, more: &str| {
        let caller = format!(
            "[[caller]]\nname = \"{name}\"\n[caller.signature]\npreset = \"{name}\"\nsecret = \"env:{secret}\"\n"
        );
        let route = route(name, &lane.url(), &format!("identity = \"contoso\"\n{more}"));
        (caller, route.replace("\"shop\"", &format!("\"{name}\"")))
    };
    let once = "[route.duplicates]\nby = \"delivery\"";
    let (github, github_route) = vendor("github", "DEMO_GITHUB_SECRET", once);
    let (stripe, stripe_route) = vendor("stripe", "DEMO_STRIPE_SECRET", "");
    let (slack, slack_route) = vendor("slack", "DEMO_SLACK_SECRET", "handshakes = [\"slack\"]");
    let mine = "identity = \"contoso\"";
    let fast = "rate = { requests = 10000, per = \"1s\" }";
    [
        format!(
            "[admin]\naddress = \"127.0.0.1:0\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
             [[listener.certificate]]\nchain = {:?}\nkey = \"file:{}\"\n",
            leaf.chain,
            leaf.key.display()
        ),
        identity("contoso", "DEMO_SECRET", ""),
        identity(
            "wrong-audience",
            "DEMO_SECRET",
            "scope = \"https://graph.microsoft.com/.default\"",
        ),
        identity("wrong-secret", "DEMO_WRONG_SECRET", ""),
        format!(
            "[[caller]]\nname = \"shop\"\n{fast}\n[[caller.key]]\nlabel = \"demo\"\ndigest = \"{}\"\n\
             [[caller.key]]\nlabel = \"lost\"\ndigest = \"{}\"\n",
            digest(KEY),
            digest(LOST_KEY)
        ),
        github,
        stripe,
        slack,
        route("orders", &orders.url(), &format!("{mine}\n{fast}")),
        github_route,
        stripe_route,
        slack_route,
        route(
            "internal",
            &orders.url(),
            &format!("{mine}\nnetworks = [\"192.0.2.0/24\"]"),
        ),
        route(
            "slow-lane",
            &lane.url(),
            &format!("{mine}\nrate = {{ requests = 1, per = \"1m\", burst = 1 }}"),
        ),
        route("signed", "file:signed-trigger", "signed = true"),
        route("mismatch", &picky.url(), "identity = \"wrong-audience\""),
        route("off", &off.url(), mine),
        route(
            "silent",
            &silent.url(),
            &format!("{mine}\nresponse_timeout = \"1s\""),
        ),
        route("secret", &orders.url(), "identity = \"wrong-secret\""),
    ]
    .concat()
}

fn digest(key: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
    format!("sha256:{}", hex(digest.as_ref()))
}

fn load(dir: &Path, settings: &str) -> (Config, Environment) {
    let path = dir.join("flowgate.toml");
    std::fs::write(&path, settings).unwrap();
    let environment = Environment::from_pairs([
        ("DEMO_SECRET", SECRET),
        ("DEMO_WRONG_SECRET", "expired"),
        ("DEMO_GITHUB_SECRET", GITHUB_SECRET),
        ("DEMO_STRIPE_SECRET", STRIPE_SECRET),
        ("DEMO_SLACK_SECRET", SLACK_SECRET),
    ]);
    match settings::load(&path, &environment) {
        Ok((config, _)) => (config, environment),
        Err(report) => panic!("{}", report.render(settings::Style::Plain)),
    }
}

fn start(config: &Config, lines: Arc<Lines>) -> (Server, SocketAddr) {
    let server = Server::start(config, &Counters::new(), Log::new(lines, Form::Json)).unwrap();
    let admin = flowgate::admin::start(config, server.control(), server.gateway()).unwrap();
    (server, admin.unwrap())
}

/// Sends one request, and returns its status, who answered, and the gateway's log line.
async fn call(client: &reqwest::Client, address: &str, row: &Row, lines: &Lines) -> (u16, String, Value) {
    let mut request = client
        .post(format!("{address}{}", row.path))
        .header("content-type", "application/json")
        .body(row.body.clone());
    if let Some(key) = row.key {
        request = request.header("x-api-key", key);
    }
    for (field, value) in &row.fields {
        request = request.header(*field, value);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let from_flow = response.headers()["x-flowgate-answer"] == "flow";
    let body = response.bytes().await.unwrap();
    let problem = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    let code = match problem["code"].as_str() {
        _ if from_flow => "flow",
        code => code.unwrap_or("gateway"),
    };
    let code = code.to_owned();
    (status, code, lines.of(&id).await)
}

/// The first sentences of the cause in the log.
fn explained(line: &Value) -> String {
    let field = |name: &str| line[name].as_str();
    if let Some(first) = field("duplicate_of") {
        return format!("no second run; the answer is that of request {first}");
    }
    if let Some(vendor) = field("handshake") {
        return format!("no run; handshake of {vendor}");
    }
    match (field("run"), field("cause")) {
        (Some(run), _) => format!("run {run}"),
        (None, Some(cause)) => cause.to_owned(),
        (None, None) => "-".to_owned(),
    }
}

async fn show(client: &reqwest::Client, address: &str, lines: &Lines) -> usize {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_width(150);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_header(["what is sent", "status", "answer", "kept", "what the log reports"]);
    let mut broken = 0;
    for row in rows() {
        let (status, answer, line) = call(client, address, &row, lines).await;
        let kept = status == row.status && answer == row.answer;
        broken += usize::from(!kept);
        let verdict = if kept {
            "yes".to_owned()
        } else {
            format!("NO: {} {}", row.status, row.answer)
        };
        table.add_row([
            row.what.to_owned(),
            status.to_string(),
            answer,
            verdict,
            explained(&line),
        ]);
    }
    println!("{table}");
    broken
}

/// What the doctor must find for each route: the one thing that is wrong, or nothing.
const DIAGNOSES: [(&str, Option<&str>); 3] = [
    ("orders", None),
    ("secret", Some("identity wrong-secret: token")),
    ("mismatch", Some("route mismatch: claims")),
];

/// Runs `flowgate doctor` on a healthy identity and on broken ones.
async fn examine(config: &Config, environment: &Environment) -> usize {
    let mut broken = 0;
    for (route, promised) in DIAGNOSES {
        let questions = Questions {
            route: Some(route.to_owned()),
            ..Questions::default()
        };
        let report = doctor::examine(config, environment, &questions).await.unwrap();
        println!("\n$ flowgate doctor --route {route}\n\n{}", report.text());
        let found: Vec<String> = report
            .failures()
            .map(|(title, check)| format!("{title}: {}", check.name))
            .collect();
        let promised: Vec<&str> = promised.into_iter().collect();
        if found != promised {
            println!("NOT KEPT: promised is {promised:?}, found was {found:?}");
            broken += 1;
        }
    }
    broken
}

/// Calls that run one after another in several connections, until they are stopped.
struct Crowd {
    calls: Count,
    failed: Count,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Crowd {
    fn gather(client: &reqwest::Client, address: &str) -> Self {
        let mut crowd = Self {
            calls: Count::new("answered calls"),
            failed: Count::new("failed calls"),
            stop: Arc::default(),
            tasks: JoinSet::new(),
        };
        for _ in 0..CROWD {
            let (client, address) = (client.clone(), address.to_owned());
            let (calls, failed, stop) = (crowd.calls.clone(), crowd.failed.clone(), crowd.stop.clone());
            crowd.tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    if status(&client, &address, "/orders", KEY).await != 200 {
                        failed.add(1);
                    }
                    calls.add(1);
                }
            });
        }
        crowd
    }

    /// Waits until more of them were answered.
    async fn go_on(&self) {
        self.calls.reached(self.calls.get() + CALLS).await;
    }

    /// Ends them: how many there were, and how many failed.
    async fn end(mut self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        (self.calls.get(), self.failed.get())
    }
}

/// The status of one call; 0 if there is no answer.
async fn status(client: &reqwest::Client, address: &str, path: &str, key: &str) -> u16 {
    let request = client.post(format!("{address}{path}")).header("x-api-key", key);
    let answer = request.body("{}").send().await;
    answer.map_or(0, |answer| answer.status().as_u16())
}

/// Revokes a key while calls run with another one.
async fn revoke(server: &Server, client: &reqwest::Client, address: &str) -> usize {
    let crowd = Crowd::gather(client, address);
    crowd.go_on().await;
    let before = status(client, address, "/orders", LOST_KEY).await;
    let (caller, label) = (CallerName::parse("shop"), KeyLabel::parse("lost"));
    // The error says that without a state folder it counts until the end only.
    let _ = server.gateway().revoke(&caller.unwrap(), &label.unwrap());
    let after = status(client, address, "/orders", LOST_KEY).await;
    crowd.go_on().await;
    let (calls, failed) = crowd.end().await;
    println!(
        "  a key is revoked    {before} before, {after} after; {calls} calls with another key, {failed} failed"
    );
    usize::from((before, after, failed) != (200, 401, 0))
}

/// Reloads while calls run: a route comes, and goes again; the key that was revoked stays so.
async fn reload(
    server: &mut Server,
    client: &reqwest::Client,
    address: &str,
    (now, next): (Config, Config),
) -> usize {
    let (now, next) = (Arc::new(now), Arc::new(next));
    let crowd = Crowd::gather(client, address);
    crowd.go_on().await;
    let mut broken = 0;
    let mut statuses = vec![status(client, address, "/returns", KEY).await];
    for turn in 0..RELOADS {
        let config = [&next, &now][turn % 2];
        broken += usize::from(server.reload(config, Wanted::ByOperator).await.is_err());
        statuses.push(status(client, address, "/returns", KEY).await);
        crowd.go_on().await;
    }
    let lost = status(client, address, "/orders", LOST_KEY).await;
    let (calls, failed) = crowd.end().await;
    println!(
        "  {RELOADS} reloads           a route that comes and goes: {statuses:?}; the revoked key: {lost}; \
         {calls} calls, {failed} failed"
    );
    broken + usize::from((statuses.as_slice(), lost, failed) != (&[404, 200, 404, 200], 401, 0))
}

fn try_it(emulator: &Emulator, address: &str) {
    let ca = emulator.ca_file();
    let ca = ca.display();
    println!("\nTry it yourself; the log line of each call appears here (Ctrl-C ends the demo):\n");
    println!("  curl -i --cacert {ca} {address}/orders -H 'X-API-Key: {KEY}' -d '{{\"order\": 18}}'");
    println!("  curl -i --cacert {ca} {address}/orders -u anyone:{KEY} -d '{{\"order\": 19}}'");
    println!("  curl -i --cacert {ca} {address}/orders -H 'X-API-Key: guessed' -d '{{}}'");
    println!("  curl -i --cacert {ca} {address}/off -H 'X-API-Key: {KEY}' -d '{{}}'\n");
}

/// Prints the log lines of the reader's calls.
async fn follow(lines: &Lines) {
    loop {
        for line in lines.take().await {
            println!("{line}");
        }
    }
}

async fn demo() -> ExitCode {
    let once = std::env::args().any(|argument| argument == "--once");
    let emulator = Emulator::start().await;
    emulator.register_app(TENANT, APP, SECRET, OID);
    emulator.entra.allow_audience("https://graph.microsoft.com");
    let lines = Arc::new(Lines::default());
    let text = settings(&emulator);
    let (config, environment) = load(emulator.dir(), &text);
    let (mut server, admin) = start(&config, lines.clone());
    let address = format!("https://localhost:{}", server.addresses()[0].port());
    println!("The gateway listens on {address}, its admin listener on http://{admin}/readyz?verbose\n");
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(emulator.ca.client_config(&["http/1.1"]))
        .no_proxy()
        .timeout(Duration::from_secs(30))
        .build()
        .unwrap();
    let mut broken = show(&client, &address, &lines).await + examine(&config, &environment).await;
    println!("\nWhile calls run:\n");
    broken += revoke(&server, &client, &address).await;
    let orders = text.split("[[route]]").nth(1).unwrap();
    let (next, _) = load(
        emulator.dir(),
        &format!("{text}[[route]]{}", orders.replace("orders", "returns")),
    );
    broken += reload(&mut server, &client, &address, (config, next)).await;
    if !once {
        // What was logged so far is about the demo's own calls.
        lines.lines.lock().unwrap().clear();
        try_it(&emulator, &address);
        // An error means that the signal is not available; then there is nothing to wait for.
        tokio::select! {
            () = follow(&lines) => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    }
    server.stop(std::future::ready(())).await;
    if broken > 0 {
        println!("{broken} promises were not kept");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

#[tokio::main]
async fn main() -> ExitCode {
    demo().await
}
