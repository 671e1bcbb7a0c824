//! `flowgate vendor test`: sends a delivery of a route's vendor, signed here, to the gateway that runs, and prints what each check
//! says. Nothing reaches the flow unless the words that allow a run are given.

mod client;
mod sample;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use http::{HeaderMap, HeaderValue};
use serde_json::Value;

use crate::cli::doctor::announce;
use crate::cli::load::{Given, SettingsFile, load_for, rendered, runtime};
use crate::cli::outcome::{FAILED, Outcome, WELL, WRONG};
use crate::cli::vendor_enrol;
use crate::cli::vendor_enrol::{Enrol, Forget};
use crate::cli::vendor_pack::{route_named, sender, wrong};
use crate::cli::vendor_test::client::{Destination, Received};
use crate::doctor::live::{RUN_WORDS, not_allowed};
use crate::model::Secret;
use crate::model::claims::printable;
use crate::problem::Kind;
use crate::settings::Checks;

/// Asks the gateway for a check.
const CHECK: &str = "x-flowgate-check";
/// Time for a check, which may fetch a token.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of a text in an answer is printed. Characters.
const TEXT_CHARS_MAX: usize = 512;
/// Largest key file and body that are read.
const KEY_BYTES_MAX: u64 = 16 * 1024;
const BODY_BYTES_MAX: u64 = 100 * 1024 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum VendorCommand {
    /// Send a sample delivery, signed with the secret of the settings, to the gateway that runs, and print what each check says.
    /// The flow is not started. Needs `checks = true` on the route.
    Test(VendorTest),
    /// Have a route accept the secret that a vendor sends once, in the handshake of a new webhook.
    Enrol(Enrol),
    /// Forget a secret that was accepted so: what is signed with it is refused from now on. Without a label, list them.
    Forget(Forget),
}

#[derive(Debug, clap::Args)]
pub(super) struct VendorTest {
    #[command(flatten)]
    settings: SettingsFile,
    /// The route.
    route: String,
    /// The caller in whose name it is sent. It can be left out where the route has one, or where none signs its requests.
    #[arg(long, value_name = "NAME")]
    caller: Option<String>,
    /// File with the caller's key, or "-" for standard input: the settings have digests only.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// File with the body to send; default: a small JSON object.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Type of the body.
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    content_type: String,
    /// Path and query to send to; default: those of the route, with a word for each parameter.
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Where the gateway is: `https://HOST:PORT`; default: the first listener of the settings, on this machine.
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// Start the flow: send the delivery without asking for a check. The value must be "yes, start a run".
    #[arg(long, value_name = "WORDS")]
    run: Option<String>,
}

/// What is done with the delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Check,
    Run,
}

pub(super) fn run(command: &VendorCommand) -> Result<Outcome, Outcome> {
    let task = match command {
        VendorCommand::Test(task) => task,
        VendorCommand::Enrol(task) => return vendor_enrol::enrol(task),
        VendorCommand::Forget(task) => return Ok(vendor_enrol::forget(task)),
    };
    let purpose = match task.run.as_deref() {
        None => Purpose::Check,
        Some(RUN_WORDS) => Purpose::Run,
        Some(_) => return Err(Outcome::failed(not_allowed("--run"), WRONG)),
    };
    let runtime = runtime()?;
    let outcome = runtime.block_on(test(task, purpose));
    // A pending name lookup must not delay the exit.
    runtime.shutdown_background();
    outcome
}

async fn test(task: &VendorTest, purpose: Purpose) -> Result<Outcome, Outcome> {
    let whole = load_for(&task.settings.config, Given::default(), "test a vendor").await?;
    let config = &whole.config;
    let route = route_named(config, &task.route)?;
    if purpose == Purpose::Check && route.checks == Checks::Refused {
        return Err(wrong(&format!(
            "route \"{}\" answers no checks: set `checks = true` for it and reload the gateway, or start the flow with --run \
             \"{RUN_WORDS}\"",
            route.name
        )));
    }
    let sender = sender(config, route, task.caller.as_deref())?;
    let key = match (sender.key, &task.key_file) {
        (Some(_), Some(file)) => Some(read_key(file)?),
        (Some(_), None) => {
            return Err(wrong(
                "this caller has a key, and the settings have its digest only: give the key with --key-file FILE, or with \
                 --key-file - on standard input",
            ));
        }
        (None, _) => None,
    };
    let body = task
        .body
        .as_deref()
        .map(|file| read(file, BODY_BYTES_MAX))
        .transpose()?;
    let content_type = HeaderValue::try_from(&task.content_type)
        .map_err(|_| wrong("--content-type is no value of a header field"))?;
    let delivery = sample::Delivery {
        route,
        sender: &sender,
        key: key.as_ref(),
        body,
        content_type,
        path: task.path.as_deref(),
    };
    let destination = Destination::of(config, route, task.to.as_deref()).map_err(|why| wrong(&why))?;
    let (mut request, signed) = delivery.request(&destination).map_err(|why| wrong(&why))?;
    if purpose == Purpose::Check {
        request
            .headers_mut()
            .insert(CHECK, HeaderValue::from_static("true"));
    }
    let (method, path) = (request.method(), route.path.to_string());
    let sent = format!("{}: {method} {path} to {destination}, {signed}", route.name);
    let timeout = match purpose {
        Purpose::Check => CHECK_TIMEOUT,
        Purpose::Run => {
            announce(&[format!("{sent}: THIS STARTS A RUN")]);
            CHECK_TIMEOUT + route.upstream.response_timeout
        }
    };
    let received = tokio::time::timeout(timeout, destination.send(config, request)).await;
    let received = received.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")));
    let mut outcome = match received {
        Ok(received) => report(&sent, &received, purpose),
        Err(why) => {
            let hint = "is the gateway running? `flowgate status` and `flowgate doctor` show it; --to names another place";
            Outcome::failed(format!("flowgate: {destination}: {why}\n{hint}\n"), FAILED)
        }
    };
    outcome.err.insert_str(0, &rendered(&whole.warnings));
    Ok(outcome)
}

fn report(sent: &str, received: &Received, purpose: Purpose) -> Outcome {
    let document = serde_json::from_slice::<Value>(&received.body).unwrap_or_default();
    let mut out = format!("{sent}\n");
    let result = header(&received.headers, CHECK);
    let code = match (purpose, result) {
        (Purpose::Check, Some(result)) => {
            out.push_str("This was a check: nothing was started.\n\n");
            let checks = document.get("checks").and_then(Value::as_array);
            checks
                .into_iter()
                .flatten()
                .for_each(|check| out.push_str(&line(check)));
            out.push_str(&format!("\n{}\n", shown(result)));
            if result == "passed" { WELL } else { FAILED }
        }
        _ => {
            let by = header(&received.headers, "x-flowgate-answer").unwrap_or("no gateway");
            out.push_str(&format!("answered {} by {}", received.status, shown(by)));
            let problem = problem(&document);
            out.push_str(&format!(
                "{}\n",
                problem.map(|text| format!(": {text}")).unwrap_or_default()
            ));
            out.push_str(&advice(&document, purpose));
            match received.status.is_success() && purpose == Purpose::Run {
                true => WELL,
                false => FAILED,
            }
        }
    };
    if let Some(id) = header(&received.headers, "x-request-id") {
        out.push_str(&format!("request {} in the access log\n", shown(id)));
    }
    Outcome {
        out,
        code,
        ..Outcome::default()
    }
}

/// One check, with the problem that the vendor would have got.
fn line(check: &Value) -> String {
    let text = |name: &str| shown(check.get(name).and_then(Value::as_str).unwrap_or("?"));
    let problem = check.get("problem").and_then(problem);
    let line = format!(
        "{:<12}  {:<7}  {}",
        text("name"),
        text("result"),
        problem.unwrap_or_default()
    );
    format!("{}\n", line.trim_end())
}

/// A problem in one line.
fn problem(document: &Value) -> Option<String> {
    let code = document.get("code")?.as_str()?;
    let status = document.get("status").and_then(Value::as_u64).unwrap_or_default();
    let text = document.get("detail").or(document.get("title"));
    let text = text.and_then(Value::as_str).unwrap_or_default();
    Some(format!("{} ({status}): {}", shown(code), shown(text)))
}

/// What to do about an answer that is none to a check.
fn advice(document: &Value, purpose: Purpose) -> String {
    let code = document.get("code").and_then(Value::as_str);
    let known = Kind::ALL.iter().find(|kind| Some(kind.row().code) == code);
    match (known, purpose) {
        (Some(Kind::ChecksOff), _) => {
            "The gateway that runs has other settings: put these in force with `flowgate reload`.\n"
                .to_owned()
        }
        (Some(kind), _) => format!("{}\n", kind.row().fix),
        (None, Purpose::Check) => {
            "This is no answer to a check: another program answers there, or a gateway of another version.\n"
                .to_owned()
        }
        (None, Purpose::Run) => String::new(),
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn shown(text: &str) -> String {
    printable(text, TEXT_CHARS_MAX)
}

fn read_key(file: &Path) -> Result<Secret, Outcome> {
    let bytes = match file.as_os_str() == "-" {
        true => limited(std::io::stdin().lock(), KEY_BYTES_MAX, "standard input")?,
        false => read(file, KEY_BYTES_MAX)?,
    };
    let text = String::from_utf8(bytes).map(Secret::new);
    let text = text.map_err(|_| wrong("the key is not UTF-8 text"))?;
    match text.expose().trim() {
        "" => Err(wrong("there is no key in --key-file")),
        key => Ok(Secret::new(key)),
    }
}

fn read(file: &Path, bytes_max: u64) -> Result<Vec<u8>, Outcome> {
    let name = file.display();
    let opened = std::fs::File::open(file);
    let opened = opened.map_err(|error| wrong(&format!("{name} cannot be read: {error}")))?;
    limited(opened, bytes_max, &name.to_string())
}

fn limited(from: impl Read, bytes_max: u64, name: &str) -> Result<Vec<u8>, Outcome> {
    let mut bytes = Vec::new();
    let read = from.take(bytes_max + 1).read_to_end(&mut bytes);
    read.map_err(|error| wrong(&format!("{name} cannot be read: {error}")))?;
    match bytes.len() as u64 > bytes_max {
        true => Err(wrong(&format!("{name} has more than {bytes_max} bytes"))),
        false => Ok(bytes),
    }
}
