//! The program as an operator meets it: commands, exit codes, words.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test fails by panicking"
)]

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

fn flowgate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flowgate"))
        .args(arguments)
        .output()
        .unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Settings that are right, with every file they name.
fn settings(dir: &Path, more: &str) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["hooks.example".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    std::fs::write(dir.join("chain.pem"), certificate.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
    std::fs::write(dir.join("secret"), "canary-secret\n").unwrap();
    let text = format!(
        r#"
[admin]
address = "127.0.0.1:0"
[[listener]]
address = "127.0.0.1:0"
[[listener.certificate]]
chain = "chain.pem"
key = "file:key.pem"
[[identity]]
name = "contoso"
tenant = "11111111-2222-4333-8444-555555555555"
client_id = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
client_secret = "file:secret"
authority = "https://127.0.0.1:9"
[[caller]]
name = "shop"
[[caller.key]]
label = "one"
digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
[[route]]
name = "orders"
host = "hooks.example"
path = "/orders"
callers = ["shop"]
identity = "contoso"
trigger = "https://prod-01.westeurope.logic.azure.com/workflows/0123456789abcdef0123456789abcdef/triggers/manual/paths/invoke?api-version=2016-06-01"
{more}
"#
    );
    let path = dir.join("flowgate.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn check_says_that_all_is_well() {
    let dir = tempfile::tempdir().unwrap();
    let output = flowgate(&["check", "--config", &settings(dir.path(), "")]);
    assert!(output.status.success(), "{}", err(&output));
    assert!(out(&output).contains("no mistakes"), "{}", out(&output));
}

#[test]
fn check_reports_every_mistake_and_exits_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let more = "[[route]]\nname = \"other\"\npath = \"/other\"\ncalers = [\"shop\"]\nidentity = \"contosso\"\n\
                trigger = \"http://prod-01.westeurope.logic.azure.com/x\"\n";
    let output = flowgate(&["check", "--config", &settings(dir.path(), more)]);
    assert_eq!(output.status.code(), Some(2));
    let report = err(&output);
    for part in [
        "calers",
        "callers",
        "contosso",
        "contoso",
        "https",
        "^",
        "flowgate.toml:",
    ] {
        assert!(report.contains(part), "{part} is missing in:\n{report}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let output = flowgate(&["check", "--config", "nowhere/flowgate.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("nowhere/flowgate.toml"), "{}", err(&output));
}

#[test]
fn a_new_key_is_printed_once_and_kept_as_a_digest() {
    let first = out(&flowgate(&["key", "new", "--caller", "shop"]));
    let second = out(&flowgate(&["key", "new", "--caller", "shop"]));
    assert_ne!(first, second);
    let key = first
        .split_whitespace()
        .find(|word| word.starts_with("flowgate_"))
        .unwrap();
    assert_eq!(first.matches(key).count(), 1);
    assert_eq!(key.len(), "flowgate_".len() + 43, "256 bits in base64url");
    let mut hash = Command::new(env!("CARGO_BIN_EXE_flowgate"))
        .args(["key", "hash"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    hash.stdin.take().unwrap().write_all(key.as_bytes()).unwrap();
    let hashed = out(&hash.wait_with_output().unwrap());
    assert!(first.contains(hashed.trim()), "{first} {hashed}");
}

#[test]
fn a_caller_needs_a_name_that_can_be_one() {
    let output = flowgate(&["key", "new", "--caller", "a b"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("a b"));
}

#[test]
fn routes_are_shown_without_secrets() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("signed"),
        "https://prod-01.westeurope.logic.azure.com/workflows/0123456789abcdef0123456789abcdef/triggers/manual/paths/invoke\
         ?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=canaryAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    )
    .unwrap();
    let more = "[[route]]\nname = \"signed\"\npath = \"/signed\"\nanonymous = true\nsigned = true\ntrigger = \"file:signed\"\n";
    let output = flowgate(&["routes", "--config", &settings(dir.path(), more)]);
    let table = out(&output);
    for part in [
        "orders",
        "https://hooks.example",
        "shop",
        "contoso",
        "everybody",
        "150 per",
    ] {
        assert!(
            table.contains(part),
            "{part} is missing in:\n{table}{}",
            err(&output)
        );
    }
    assert!(!table.contains("canary"), "{table}");
}

#[test]
fn the_schema_is_a_schema() {
    let schema: serde_json::Value = serde_json::from_slice(&flowgate(&["schema"]).stdout).unwrap();
    assert!(schema["$schema"].as_str().unwrap().contains("json-schema.org"));
    assert!(schema["properties"]["route"].is_object(), "{schema}");
}

#[test]
fn completions_are_made_for_shells() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let output = flowgate(&["completions", shell]);
        assert!(output.status.success());
        assert!(out(&output).contains("flowgate"), "{shell}");
    }
}

#[test]
fn help_tells_a_stranger_where_to_start() {
    let help = out(&flowgate(&["--help"]));
    for part in [
        "Power Automate",
        "serve",
        "check",
        "key",
        "routes",
        "schema",
        "Start here",
        "Exit codes",
    ] {
        assert!(help.contains(part), "{part} is missing in:\n{help}");
    }
}

#[cfg(unix)]
#[test]
fn serve_stops_on_sigterm_and_names_an_address_in_use() {
    use std::io::BufRead;
    use std::io::BufReader;

    let dir = tempfile::tempdir().unwrap();
    let path = settings(dir.path(), "");
    let mut serve = Command::new(env!("CARGO_BIN_EXE_flowgate"))
        .args(["serve", "--config", &path])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(serve.stdout.take().unwrap()).lines();
    let line = lines
        .find(|line| line.as_ref().unwrap().contains("admin listening"))
        .unwrap()
        .unwrap();
    assert!(line.contains("127.0.0.1:"), "{line}");
    let kill = Command::new("kill")
        .args(["-TERM", &serve.id().to_string()])
        .status()
        .unwrap();
    assert!(kill.success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(serve.wait().unwrap().success(), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("drained")), "{rest:?}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = std::fs::read_to_string(&path).unwrap().replace(
        "[[listener]]\naddress = \"127.0.0.1:0\"",
        &format!("[[listener]]\naddress = \"{address}\""),
    );
    std::fs::write(&path, text).unwrap();
    let output = flowgate(&["serve", "--config", &path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains(&address), "{}", err(&output));
}
