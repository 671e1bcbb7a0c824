//! The quick start of the README works when it is pasted: commands and settings are extracted from the text,
//! and only names of the reader's own tenant are replaced by those of the emulator. It needs `bash`, `curl`
//! and `openssl`, so `.ci/run` runs it by name; elsewhere: `cargo test --test documents -- --ignored`.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking"
)]

#[path = "emulator/mod.rs"]
mod emulator;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use emulator::{Answer, Emulator, Trigger};
use serde_json::json;

const TENANT: &str = "11111111-2222-4333-8444-555555555555";
const CLIENT: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";
const OID: &str = "99999999-8888-4777-8666-555555555555";
const SECRET: &str = "the~secret~of~the~quick~start";

/// The running gateway; it stops with the test.
struct Gateway(Child);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The fenced blocks of one language after a heading, up to the next heading of that level.
fn blocks(readme: &str, heading: &str, language: &str) -> Vec<String> {
    let section = readme.split_once(&format!("\n### {heading}\n")).unwrap().1;
    let section = section.split("\n### ").next().unwrap();
    let fence = format!("```{language}\n");
    let parts = section.split(&fence).skip(1);
    parts
        .map(|part| part.split("```").next().unwrap().to_owned())
        .collect()
}

/// The line of a block that begins with this.
fn line<'a>(block: &'a str, begin: &str) -> &'a str {
    block.lines().find(|line| line.starts_with(begin)).unwrap()
}

/// Runs a line in the shell, in the reader's folder, with the program in `PATH`.
fn shell(dir: &Path, command: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_flowgate")).parent().unwrap();
    let command = format!("PATH=\"$PROGRAM:$PATH\"\n{command}");
    let mut shell = Command::new("bash");
    shell
        .args(["-euc", &command])
        .current_dir(dir)
        .env("PROGRAM", program);
    shell.env("FLOWGATE_CONTOSO_SECRET", SECRET);
    shell
}

fn well(output: Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}\n{errors}", output.status);
    text
}

/// A port that nothing listens on.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The settings of the README with the reader's tenant, trigger and key filled in.
fn settings(readme: &str, emulator: &Emulator, trigger: &str, digest: &str) -> String {
    let ca = emulator.ca_file();
    let ours = format!(
        "tenant = \"{TENANT}\"\nauthority = \"{}\"\nca_file = {ca:?}",
        emulator.entra.authority()
    );
    let text = &blocks(readme, "5. Settings", "toml")[0];
    let old_trigger = line(text, "trigger = ");
    text.replace("tenant = \"00000000-0000-0000-0000-000000000000\"", &ours)
        .replace("00000000-0000-0000-0000-000000000001", CLIENT)
        .replace("sha256:...", digest)
        .replace(old_trigger, &format!("trigger = {trigger:?}\nca_file = {ca:?}"))
}

#[test]
#[ignore = "needs bash, curl and openssl; run with --ignored"]
fn the_quick_start_works_as_it_is_pasted() {
    let readme = include_str!("../README.md");
    let emulator = Emulator::start_on_own_thread();
    emulator.register_app(TENANT, CLIENT, SECRET, OID);
    let answer = Answer::json(200, &json!({"accepted": true}));
    let trigger = emulator.flow.add(Trigger::any_user(TENANT).does(answer));
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();

    let command = &blocks(readme, "4. A key for the caller", "sh")[0];
    let printed = well(shell(dir, command).output().unwrap());
    let word = |begin: &str| {
        let mut words = printed.split(|c: char| c.is_whitespace() || c == '"');
        words.find(|word| word.starts_with(begin)).unwrap()
    };
    let (key, digest) = (word("flowgate_"), word("sha256:"));

    let certificate = &blocks(readme, "5. Settings", "sh")[0];
    well(shell(dir, certificate).output().unwrap());
    let (port, admin) = (free_port().to_string(), free_port().to_string());
    let text = settings(readme, &emulator, &trigger.url(), digest).replace("8443", &port);
    let text = format!("[admin]\naddress = \"127.0.0.1:{admin}\"\n{text}");
    std::fs::write(dir.join("flowgate.toml"), text).unwrap();

    let steps = blocks(readme, "6. Check, look, run", "sh");
    for command in ["flowgate check", "flowgate routes"] {
        well(shell(dir, line(&steps[0], command)).output().unwrap());
    }
    let serve = format!("exec {}", line(&steps[0], "flowgate serve"));
    let mut child = shell(dir, &serve).stdout(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let _gateway = Gateway(child);
    let lines = out.lines().map_while(Result::ok);
    assert!(lines.into_iter().any(|line| line.contains("listening")));

    let pasted = steps[1].replace("8443", &port).replace("9464", &admin);
    let call = line(&pasted, "curl -i");
    let assign = line(&pasted, "KEY=").replace("flowgate_...", key);
    let got = well(shell(dir, &format!("{assign}\n{call}")).output().unwrap());
    assert!(got.contains("\"accepted\":true"), "{got}");
    let seen = trigger.last_request();
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.text(), "{\"order\": 17}");
    let ready = well(shell(dir, line(&pasted, "curl 'http")).output().unwrap());
    assert!(ready.contains("contoso"), "{ready}");
}
