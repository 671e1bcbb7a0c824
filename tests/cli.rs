//! The program from an operator's point of view: commands, exit codes, messages.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and some need dates around today"
)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

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

/// Valid settings, with every file that they name.
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
    let counted = "1 listener, 1 route, 1 caller, 1 identity.";
    assert!(out(&output).contains(counted), "{}", out(&output));
}

#[test]
fn check_says_what_was_found_outside_of_the_settings() {
    let dir = tempfile::tempdir().unwrap();
    let machine = "[[identity]]\nname = \"machine\"\nmanaged = {}\n";
    let output = flowgate(&["check", "--config", &settings(dir.path(), machine)]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let said = out(&output);
    assert!(
        said.contains("identity machine: managed identity from "),
        "{said}"
    );
}

#[test]
fn check_says_how_to_sign_in_where_nobody_has() {
    let dir = tempfile::tempdir().unwrap();
    for (store, parts) in [
        (
            "kept",
            &[
                "kept is not there yet\n",
                "sign in once: flowgate login --identity flows",
            ][..],
        ),
        (
            "absent/kept",
            &[
                "kept is not there yet, and neither is its folder\n",
                "make the folder",
                "flowgate login --identity flows",
            ],
        ),
    ] {
        let flows = format!(
            "[[identity]]\nname = \"flows\"\ntenant = \"11111111-2222-4333-8444-555555555555\"\nclient_id = \
             \"aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee\"\n[identity.sign_in]\nstore = \"{store}\"\n"
        );
        let output = flowgate(&["check", "--config", &settings(dir.path(), &flows)]);
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        for part in parts {
            assert!(err(&output).contains(part), "{part}: {}", err(&output));
        }
    }
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

/// `key hash` with this on its standard input.
fn hash_keys(arguments: &[&str], keys: &str) -> Output {
    let mut hash = Command::new(env!("CARGO_BIN_EXE_flowgate"))
        .args(["key", "hash"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that refuses its arguments may exit before it reads.
    let _ = hash.stdin.take().unwrap().write_all(keys.as_bytes());
    hash.wait_with_output().unwrap()
}

#[test]
fn a_secret_that_only_begins_like_a_generated_key_gets_no_digest() {
    let output = hash_keys(&[], "flowgate_canary-secret\n");
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(2), ""));
    let said = err(&output);
    assert!(said.contains("key 1 begins with flowgate_"), "{said}");
    assert!(!said.contains("canary"), "{said}");
}

#[test]
fn a_label_for_hashed_keys_is_one_that_the_settings_take() {
    for label in [
        "two words",
        "a\u{e4}",
        "line\nbreak",
        "",
        &"x".repeat(65),
        &"x".repeat(63),
    ] {
        let output = hash_keys(&["--label", label], "canary-0123456789\n");
        assert_eq!(
            (output.status.code(), out(&output).as_str()),
            (Some(2), ""),
            "{label:?}"
        );
        let said = err(&output);
        assert!(said.contains("is not a valid key label"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let output = hash_keys(&["--label", &"x".repeat(62)], "canary-0123456789\n");
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
}

#[cfg(unix)]
#[test]
fn a_pepper_that_is_no_regular_file_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pepper");
    // Nothing writes to it, so opening it would block forever.
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reference = format!("file:{}", pipe.display());
    for arguments in [["key", "new", "--caller", "shop"].as_slice(), &["key", "hash"]] {
        let output = flowgate(&[arguments, &["--pepper", &reference]].concat());
        assert_eq!(output.status.code(), Some(2), "{}", out(&output));
        assert!(
            err(&output).contains("pepper is not a regular file"),
            "{}",
            err(&output)
        );
    }
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
fn a_trigger_that_is_not_read_is_shown_by_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let vault = "keyvault:https://contoso.vault.azure.net/secrets/paid";
    let more = format!(
        "[[route]]\nname = \"signed\"\npath = \"/signed\"\nanonymous = true\nsigned = true\ntrigger = \
         \"file:secrets/signed.trigger\"\n[[route]]\nname = \"news\"\npath = \"/news\"\nanonymous = true\nidentity = \
         \"contoso\"\ntrigger = \"env:NEWS_TRIGGER\"\n[[route]]\nname = \"paid\"\npath = \"/paid\"\nanonymous = \
         true\nsigned = true\ntrigger = \"{vault}\"\n[keyvault]\nidentity = \"contoso\"\n"
    );
    let config = settings(dir.path(), &more);
    let table = well(&flowgate(&["routes", "--config", &config]));
    for place in ["| file:secrets/signed.trigger ", "| env:NEWS_TRIGGER ", vault] {
        assert!(table.contains(place), "{place} is missing in:\n{table}");
    }
    let checked = well(&flowgate(&["check", "--without-secrets", "--config", &config]));
    assert!(
        !format!("{table}{checked}").contains("unresolved"),
        "{table}{checked}"
    );
}

#[test]
fn no_command_prints_a_secret_that_was_pasted_into_the_settings() {
    const CANARY: &str = "Zx81q7CanaryV4lue~9bQ2mTr0x";
    let dir = tempfile::tempdir().unwrap();
    let key = out(&flowgate(&["key", "new", "--caller", "shop"]));
    let key_line = key.lines().find(|line| line.contains("flowgate_")).unwrap();
    for line in [
        &format!("client_secret: {CANARY}"),
        &format!("password \"{CANARY}\""),
        &format!("x = \"\"\"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----"),
        &format!("trigger = \"https://prod-01.example/x?code={CANARY}\""),
        &format!("[{CANARY}]"),
        &format!("[[route] # {CANARY}"),
        &format!("{CANARY} = 1"),
        &format!("[keys]\npepper = \"env:{}\"", CANARY.replace('~', "_")),
        &key,
    ] {
        let path = settings(dir.path(), line);
        let secrets = [CANARY, &CANARY.replace('~', "_"), key_line.trim()];
        for command in ["check", "serve", "doctor", "routes"] {
            let output = flowgate(&[command, "--config", &path]);
            let text = format!("{}{}", out(&output), err(&output));
            assert!(
                !secrets.iter().any(|secret| text.contains(secret)),
                "{command}: {text}"
            );
            if command != "routes" {
                assert_eq!(output.status.code(), Some(2), "{command}: {line}\n{text}");
            }
        }
    }
    let more = format!(
        "[[route]]\nname = \"paid\"\npath = \"/paid\"\nanonymous = true\nsigned = true\ntrigger = \"env:{}\"\n",
        CANARY.replace('~', "_")
    );
    let table = well(&flowgate(&["routes", "--config", &settings(dir.path(), &more)]));
    assert!(table.contains("paid") && !table.contains("Canary"), "{table}");
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
fn help_shows_newcomers_where_to_start() {
    let help = out(&flowgate(&["--help"]));
    for part in [
        "Power Automate",
        "serve",
        "check",
        "doctor",
        "setup",
        "key",
        "routes",
        "schema",
        "Start here",
        "Exit codes",
    ] {
        assert!(help.contains(part), "{part} is missing in:\n{help}");
    }
}

/// Replaces the certificate of [`settings`] by one with these dates, in days from now.
fn date_certificate(dir: &Path, begins: i64, ends: i64) {
    let now = std::time::SystemTime::now();
    let at = |days: i64| {
        let distance = std::time::Duration::from_secs(days.unsigned_abs() * 86_400);
        if days < 0 { now - distance } else { now + distance }
    };
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["hooks.example".to_owned()]).unwrap();
    params.not_before = at(begins).into();
    params.not_after = at(ends).into();
    std::fs::write(dir.join("chain.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
}

#[test]
fn check_refuses_a_certificate_outside_of_its_dates() {
    let dir = tempfile::tempdir().unwrap();
    let path = settings(dir.path(), "");
    for (begins, ends, what) in [
        (-9, -2, "error: the certificate expired on 2"),
        (2, 9, "error: the certificate is not valid before 2"),
    ] {
        date_certificate(dir.path(), begins, ends);
        for arguments in [
            &["check", "--config", &path] as &[_],
            &["check", "--without-secrets", "--config", &path],
        ] {
            let output = flowgate(arguments);
            let report = err(&output);
            assert_eq!(output.status.code(), Some(2), "{report}");
            assert!(
                report.contains(what) && report.contains("\n1 mistake"),
                "{report}"
            );
            assert_eq!(out(&output), "");
        }
    }
}

#[cfg(unix)]
#[test]
fn serve_continues_with_a_certificate_outside_of_its_dates() {
    use std::io::{BufRead, BufReader};

    let dir = tempfile::tempdir().unwrap();
    let path = settings(dir.path(), "");
    date_certificate(dir.path(), -9, -2);
    let mut serve = Command::new(env!("CARGO_BIN_EXE_flowgate"))
        .args(["serve", "--config", &path])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(serve.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let said: Vec<_> = lines
        .by_ref()
        .take_while(|line| !line.contains("admin listening"))
        .collect();
    Command::new("kill")
        .args(["-TERM", &serve.id().to_string()])
        .status()
        .unwrap();
    assert!(lines.any(|line| line.contains("drained")), "{said:?}");
    assert!(serve.wait().unwrap().success());
    let error = said
        .iter()
        .find(|line| line.contains("\"ERROR\"") || line.contains("\"error\""));
    assert!(
        error.is_some_and(|line| line.contains("expired on 2")),
        "{said:?}"
    );
}

#[test]
fn ids_out_of_a_sample_are_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let path = settings(dir.path(), "");
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text
        .replace(
            "11111111-2222-4333-8444-555555555555",
            "00000000-0000-0000-0000-000000000000",
        )
        .replace(
            "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee",
            "00000000-0000-0000-0000-000000000001",
        );
    std::fs::write(&path, text).unwrap();
    let warnings = err(&flowgate(&["check", "--config", &path]));
    for key in ["tenant", "client_id"] {
        let what = format!("warning: the value of `{key}` is a placeholder");
        assert!(warnings.contains(&what), "{warnings}");
    }
}

#[test]
fn a_setup_has_no_ids_out_of_a_sample() {
    let dir = tempfile::tempdir().unwrap();
    let path = settings(dir.path(), "");
    let text = std::fs::read_to_string(&path)
        .unwrap()
        .replace("11111111-2222-4333-8444-", "00000000-0000-0000-0000-")
        .replace("aaaaaaaa-bbbb-4ccc-8ddd-", "00000000-0000-0000-0000-");
    std::fs::write(&path, text).unwrap();
    for (style, words) in [
        ("az", &["TENANT"][..]),
        ("powershell", &["TENANT"]),
        ("bicep", &["TENANT", "CLIENT_ID"]),
    ] {
        let commands = out(&flowgate(&[
            "setup",
            "--config",
            &path,
            "--identity",
            "contoso",
            "--style",
            style,
        ]));
        assert!(!commands.contains("00000000-0000"), "{commands}");
        for word in words {
            assert!(commands.contains(word), "{word}: {commands}");
        }
    }
}

#[test]
fn the_id_of_a_client_secret_is_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let path = settings(dir.path(), "");
    std::fs::write(
        dir.path().join("secret"),
        "0a1b2c3d-2222-4333-8444-555555555555\n",
    )
    .unwrap();
    let warnings = err(&flowgate(&["check", "--config", &path]));
    assert!(
        warnings.contains("warning: this client secret is a GUID"),
        "{warnings}"
    );
    assert!(!warnings.contains("0a1b2c3d"), "{warnings}");
}

#[cfg(unix)]
#[test]
fn serve_stops_on_sigterm_and_names_an_address_in_use() {
    use std::io::{BufRead, BufReader};

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
    let said = err(&output);
    let port = address.rsplit(':').next().unwrap();
    for part in [
        &format!("{address}, the `address` of [[listener]]"),
        "ss -ltnp",
        "sport = :",
        port,
    ] {
        assert!(
            !cfg!(target_os = "linux") || said.contains(part),
            "{part} is missing in {said}"
        );
    }
}

const FLOW: &str = "https://00000000000000000000000000000000.00.environment.api.powerplatform.com:443/powerautomate/automations/direct/workflows/00112233445566778899aabbccddeeff/triggers/manual/paths/invoke?api-version=1";
const SIGNATURE: &str = "canary-signature-0123456789012345678901234567";

fn signed_flow() -> String {
    format!("{FLOW}&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig={SIGNATURE}")
}

/// Runs a command that reads an address from standard input.
fn pasted(arguments: &[&str], address: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_flowgate"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(format!("{address}\n").as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

#[track_caller]
fn well(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}{}", out(output), err(output));
    assert!(
        !format!("{}{}", out(output), err(output)).contains("canary"),
        "{}",
        out(output)
    );
    out(output)
}

#[track_caller]
fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{}{}", out(output), err(output));
    assert!(
        !format!("{}{}", out(output), err(output)).contains("canary"),
        "{}",
        err(output)
    );
    assert!(err(output).contains("Nothing was changed."), "{}", err(output));
    err(output)
}

#[test]
fn an_address_becomes_a_route() {
    let folder = tempfile::tempdir().unwrap();
    let config = settings(folder.path(), "");
    let said = well(&flowgate(&[
        "import", "--config", &config, "--name", "invoices", "--caller", "shop", FLOW,
    ]));
    for part in ["Power Automate", "Cloud       public", "a token", "/invoices"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains("api.powerplatform.com/powerautomate"), "{text}");
    assert!(!text.contains(":443"), "{text}");
    let routes = well(&flowgate(&["routes", "--config", &config]));
    assert!(
        routes.contains("| invoices") && routes.contains("contoso"),
        "{routes}"
    );
    well(&flowgate(&["check", "--config", &config]));
    let again = refused(&flowgate(&[
        "import", "--config", &config, "--name", "invoices", "--caller", "shop", FLOW,
    ]));
    assert!(again.contains("flowgate relink invoices -"), "{again}");
}

#[test]
fn the_first_route_can_be_imported() {
    let folder = tempfile::tempdir().unwrap();
    let config = settings(folder.path(), "");
    let text = std::fs::read_to_string(&config).unwrap();
    let (bare, _) = text.split_once("[[route]]").unwrap();
    std::fs::write(&config, bare).unwrap();
    let import = [
        "import", "--config", &config, "--name", "invoices", "--caller", "shop", FLOW,
    ];
    well(&flowgate(&import));
    well(&flowgate(&["check", "--config", &config]));
    let text = std::fs::read_to_string(&config).unwrap();
    assert_eq!(text.matches("[[route]]").count(), 1, "{text}");
    std::fs::write(&config, bare.replace("client_id", "clientid")).unwrap();
    let message = refused(&flowgate(&import));
    assert!(message.contains("clientid"), "{message}");
}

#[test]
fn a_signature_goes_to_a_file_that_only_its_owner_reads() {
    let folder = tempfile::tempdir().unwrap();
    let config = settings(folder.path(), "");
    let arguments = [
        "import",
        "--config",
        &config,
        "--name",
        "news",
        "--anonymous",
        "-",
    ];
    well(&pasted(
        &[&arguments[..], &["--dry-run"]].concat(),
        &signed_flow(),
    ));
    assert!(!folder.path().join("news.trigger").exists());
    let said = well(&pasted(&arguments, &signed_flow()));
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(
        text.contains("trigger = \"file:news.trigger\"") && !text.contains("canary"),
        "{text}"
    );
    let kept = std::fs::read_to_string(folder.path().join("news.trigger")).unwrap();
    assert!(kept.contains(SIGNATURE));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(folder.path().join("news.trigger"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(said.contains("who owns the settings file"), "{said}");
    }
    well(&flowgate(&["check", "--config", &config]));
}

#[test]
fn an_import_opens_nothing_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let config = settings(folder.path(), "");
    let before = std::fs::read_to_string(&config).unwrap();
    for (arguments, said) in [
        (&[][..], "A route needs callers"),
        (&["--caller", "nobody"][..], "there is no caller \"nobody\""),
        (
            &["--anonymous", "--identity", "other"][..],
            "There is no identity \"other\". Known are: contoso.",
        ),
        (
            &["--anonymous", "--path", "invoices"][..],
            "a path starts with a slash",
        ),
    ] {
        let common = ["import", "--config", &config, "--name", "invoices", FLOW];
        let message = refused(&flowgate(&[&common[..], arguments].concat()));
        assert!(message.contains(said), "{said}: {message}");
    }
    let cut = refused(&flowgate(&[
        "import",
        "--config",
        &config,
        "--name",
        "x",
        "--anonymous",
        "http://a.example/",
    ]));
    assert!(cut.contains("https"), "{cut}");
    assert_eq!(std::fs::read_to_string(&config).unwrap(), before);
}

#[test]
fn an_unknown_caller_is_reported_with_its_option() {
    let folder = tempfile::tempdir().unwrap();
    let config = settings(folder.path(), "");
    let import = [
        "import", "--config", &config, "--name", "invoices", "--caller", "shop", "--caller", "erp", FLOW,
    ];
    let message = refused(&flowgate(&import));
    assert_eq!(
        message,
        "--caller erp: there is no caller \"erp\". Known are: shop.\nNothing was changed.\n"
    );
    let bare = std::fs::read_to_string(&config).unwrap();
    let (bare, _) = bare.split_once("[[caller]]").unwrap();
    std::fs::write(&config, bare).unwrap();
    let message = refused(&flowgate(&import));
    assert!(
        message.starts_with("--caller shop: ") && message.contains("add [[caller]] first"),
        "{message}"
    );
}

#[test]
fn an_import_reports_no_more_than_the_address_shows() {
    const REPLACED: &str =
        "if this is a Power Automate flow, its address was replaced in 2025: copy the new one";
    const TOKEN: &str = "Mode        the flow wants a token";
    const UNKNOWN: &str = "Mode        unknown, the address does not show it";
    let folder = tempfile::tempdir().unwrap();
    let config = settings(folder.path(), "");
    let rest =
        "workflows/0123456789abcdef0123456789abcdef/triggers/manual/paths/invoke?api-version=2016-06-01";
    let old = format!("https://prod-07.westeurope.logic.azure.com:443/{rest}");
    let own = format!("https://flows.example/{rest}");
    let unusual = "https://prod-07.westeurope.logic.azure.com/elsewhere";
    for (address, mode, is_replaced) in [
        (FLOW, TOKEN, false),
        (&old, TOKEN, true),
        (&own, UNKNOWN, false),
        (unusual, UNKNOWN, false),
    ] {
        let said = well(&flowgate(&[
            "import",
            "--config",
            &config,
            "--name",
            "invoices",
            "--caller",
            "shop",
            "--dry-run",
            address,
        ]));
        assert!(said.contains(mode), "{address}: {said}");
        assert_eq!(said.contains(REPLACED), is_replaced, "{address}: {said}");
    }
}

#[test]
fn a_route_gets_a_new_trigger_and_keeps_its_address() {
    let folder = tempfile::tempdir().unwrap();
    let config = settings(folder.path(), "");
    let import = [
        "import", "--config", &config, "--name", "invoices", "--caller", "shop", FLOW,
    ];
    well(&flowgate(&import));
    well(&pasted(
        &[
            "import",
            "--config",
            &config,
            "--name",
            "news",
            "--anonymous",
            "-",
        ],
        &signed_flow(),
    ));
    let before = std::fs::read_to_string(&config).unwrap();
    let moved = FLOW.replace(
        "00112233445566778899aabbccddeeff",
        "fedcba9876543210fedcba9876543210",
    );
    let said = well(&flowgate(&["relink", "--config", &config, "invoices", &moved]));
    assert!(said.contains("Public") && said.contains("/invoices"), "{said}");
    assert!(said.contains("flowgate reload"), "{said}");
    let after = std::fs::read_to_string(&config).unwrap();
    assert_eq!(
        after,
        before.replace(
            "00112233445566778899aabbccddeeff",
            "fedcba9876543210fedcba9876543210"
        )
    );
    let renewed = signed_flow().replace(SIGNATURE, "canary-renewed-0123456789012345678901234567");
    let said = well(&pasted(&["relink", "--config", &config, "news", "-"], &renewed));
    assert!(said.contains("A running gateway uses it"), "{said}");
    assert!(!said.contains("Restart"), "{said}");
    let kept = std::fs::read_to_string(folder.path().join("news.trigger")).unwrap();
    assert!(kept.contains("canary-renewed"));
    assert_eq!(std::fs::read_to_string(&config).unwrap(), after);
    well(&flowgate(&["check", "--config", &config]));
}

#[test]
fn a_flow_that_changed_its_mode_is_not_taken_for_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let config = settings(folder.path(), "");
    well(&flowgate(&[
        "import", "--config", &config, "--name", "invoices", "--caller", "shop", FLOW,
    ]));
    well(&pasted(
        &[
            "import",
            "--config",
            &config,
            "--name",
            "news",
            "--anonymous",
            "-",
        ],
        &signed_flow(),
    ));
    let message = refused(&pasted(
        &["relink", "--config", &config, "invoices", "-"],
        &signed_flow(),
    ));
    assert!(message.contains("the flow is set to \"Anyone\""), "{message}");
    let message = refused(&flowgate(&["relink", "--config", &config, "news", FLOW]));
    assert!(message.contains("carries no signature"), "{message}");
    let message = refused(&flowgate(&["relink", "--config", &config, "none", FLOW]));
    assert!(
        message.contains("Known are:") && message.contains("invoices"),
        "{message}"
    );
}

#[test]
fn doctor_refuses_audit_and_names_privileges() {
    let dir = tempfile::tempdir().unwrap();
    let path = settings(dir.path(), "");
    let output = flowgate(&["doctor", "--audit", "--config", &path]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("`doctor --privileges`"), "{}", err(&output));
    assert!(
        !out(&flowgate(&["doctor", "--help"])).contains("--audit"),
        "it is not offered any more"
    );
}

#[test]
fn a_code_is_explained_whatever_table_it_is_from() {
    for (code, parts) in [
        (
            "key-missing",
            &[
                "401 key-missing",
                "fixed by    caller",
                "run started no",
                "send again  no",
            ][..],
        ),
        (
            "urn:flowgate:problem:flow-busy",
            &["503 flow-busy", "send again  yes, later"],
        ),
        (
            "https://hooks.example.com/problems/flow-busy",
            &["503 flow-busy", "send again  yes, later"],
        ),
        (
            "7000215",
            &[
                "AADSTS7000215",
                "The client secret is wrong",
                "fixed by    operator",
                "waiting does not help",
                "Certificates & secrets",
                "az ad app credential reset --id CLIENT_ID",
            ],
        ),
        (
            "aadsts90033",
            &["fixed by    nobody", "it usually passes within minutes"],
        ),
        ("invalid_client", &["Refusals of Entra", "fixed by    operator"]),
        (
            "directapiauthorizationrequired",
            &[
                "message     shared access scheme",
                "message     oauth authorization scheme",
                "502 flow-misconfigured",
                "https://make.powerautomate.com",
            ],
        ),
        ("http-403", &["run started unknown", "send again  no"]),
        (
            "NoResponse",
            &["fixed by    flow-owner", "run started yes", "send again  no"],
        ),
        ("flow-cut", &["fixed by    flow-owner"]),
        (
            "Vault-Firewall",
            &[
                "fixed by    tenant-admin",
                "az keyvault network-rule add --name VAULT --ip-address ADDRESS",
            ],
        ),
        ("imds-silent", &["Outside of Azure"]),
        ("file-expired", &["fixed by    operator"]),
        ("not-tls", &["Connections", "must use https://"]),
    ] {
        let output = flowgate(&["explain", code]);
        assert_eq!(output.status.code(), Some(0), "{code}: {}", err(&output));
        let said = out(&output);
        for part in parts {
            assert!(said.contains(part), "{code}: {part}: {said}");
        }
    }
}

#[test]
fn an_unknown_code_is_refused_with_the_nearest_ones() {
    for (code, near) in [
        ("key-mising", "key-missing"),
        ("7000216", "AADSTS7000215"),
        ("\u{1b}[31m", ""),
    ] {
        let output = flowgate(&["explain", code]);
        assert_eq!(output.status.code(), Some(2), "{code}");
        assert_eq!(out(&output), "");
        let said = err(&output);
        assert!(
            said.contains("is no known code; the nearest are") && said.contains(near),
            "{said}"
        );
        assert!(!said.contains('\u{1b}'), "{said:?}");
    }
}

/// Callers that sign, beside `shop`, and a route for all.
const SIGNING: &str = r#"
[[caller]]
name = "adyen"
[caller.signature]
preset = "adyen"
secret = "env:NOT_SET"
[[caller]]
name = "github"
[caller.signature]
preset = "github"
secret = "env:NOT_SET"
[[route]]
name = "hooks"
public_url = "https://hooks.example:9443"
path = "/hooks/{id}"
methods = ["POST", "PUT", "GET"]
callers = ["shop", "github", "adyen"]
identity = "contoso"
trigger = "https://prod-01.westeurope.logic.azure.com/workflows/0123456789abcdef0123456789abcdef/triggers/manual/paths/invoke?api-version=2016-06-01"
"#;

#[test]
fn a_vendor_pack_has_what_a_caller_needs_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let config = settings(dir.path(), SIGNING);
    // No secret is read.
    std::fs::remove_file(dir.path().join("secret")).unwrap();
    for arguments in [
        &["orders"][..],
        &["hooks", "--caller", "github"],
        &["hooks", "--caller", "adyen"],
        &["orders", "--swagger"],
        &["hooks", "--caller", "shop", "--swagger"],
    ] {
        let output = flowgate(&[&["vendor-pack", "--config", &config], arguments].concat());
        let page = well(&output);
        for hidden in [
            "azure.com",
            "0123456789abcdef",
            "contoso",
            "1111-2222",
            "aaaaaaaa-",
            "ba7816bf",
            "127.0.0.1",
            "NOT_SET",
        ] {
            assert!(!page.contains(hidden), "{arguments:?} shows {hidden}: {page}");
        }
    }
    let text = std::fs::read_to_string(&config).unwrap();
    let named = "host = \"hooks.example\"\ncontact = \"mailto:ops@example.com\"\n";
    std::fs::write(&config, text.replace("host = \"hooks.example\"\n", named)).unwrap();
    let page = well(&flowgate(&["vendor-pack", "orders", "--config", &config]));
    for part in [
        "`https://hooks.example/orders`",
        "in the header field `x-api-key`",
        "1.0 MiB",
        "75 in 1 s on average",
        "curl -i 'https://hooks.example/orders' -H \"x-api-key: $KEY\"",
        "| 429 | `rate-limited` | yes |",
        "| 401 | `key-unknown` | no |",
        "`run_started`",
        "| contact | mailto:ops@example.com |",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(
        !page.contains("signature-invalid") && !page.contains("Port"),
        "{page}"
    );
}

#[test]
fn a_vendor_pack_says_how_to_sign_and_which_ports_a_vendor_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let config = settings(dir.path(), SIGNING);
    let pack = |caller| {
        well(&flowgate(&[
            "vendor-pack",
            "hooks",
            "--config",
            &config,
            "--caller",
            caller,
        ]))
    };
    let github = pack("github");
    assert!(github.contains("| written as | `sha256=SIGNATURE` |"), "{github}");
    assert!(
        github.contains("| 401 | `signature-invalid` | no |") && !github.contains("key-unknown"),
        "{github}"
    );
    assert!(github.contains("**Port 9443:** some vendors"), "{github}");
    assert!(
        github.contains("'https://hooks.example:9443/hooks/ID'"),
        "{github}"
    );
    let adyen = pack("adyen");
    assert!(
        adyen.contains("sends only to these ports: 443, 8443, 8843."),
        "{adyen}"
    );
    assert!(adyen.contains("Only the vendor can sign"), "{adyen}");
}

#[test]
fn a_vendor_pack_is_about_what_its_route_demands() {
    const ROUTE: &str = r#"
identity = "contoso"
trigger = "https://prod-01.westeurope.logic.azure.com/workflows/0123456789abcdef0123456789abcdef/triggers/manual/paths/invoke?api-version=2016-06-01"
"#;
    let dir = tempfile::tempdir().unwrap();
    let more = format!(
        r#"
[[caller]]
name = "pandadoc"
key_in_url = true
[[caller.key]]
label = "url"
digest = "sha256:1a7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
[caller.signature]
preset = "pandadoc"
secret = "env:NOT_SET"
[[route]]
name = "forms"
host = "hooks.example"
path = "/forms"
callers = ["shop"]
content_types = ["text/*", "application/x-www-form-urlencoded"]{ROUTE}
[route.duplicates]
by = "idempotency-key"
[[route]]
name = "query"
host = "hooks.example"
path = "/query"
key_from = ["query:code"]
callers = ["pandadoc"]
json_depth_max = 9
handshakes = ["dropbox"]{ROUTE}
[route.duplicates]
by = "json:/event/id"
[[route]]
name = "path"
host = "hooks.example"
path = "/path/{{key}}"
key_from = ["path"]
callers = ["pandadoc"]{ROUTE}
"#
    );
    let config = settings(dir.path(), &more);
    let pack = |arguments: &[&str]| {
        well(&flowgate(
            &[&["vendor-pack", "--config", &config], arguments].concat(),
        ))
    };
    for (route, parts) in [
        (
            "forms",
            &[
                "DELIVERY=test-$(date +%s)\n",
                "-H \"idempotency-key: $DELIVERY\" -H 'Content-Type: application/x-www-form-urlencoded' -d 'test=true'",
                "| content type | always set it: `text/*` or `application/x-www-form-urlencoded` |",
                "| id of the delivery | the header `idempotency-key`: another one",
                "`delivery-id-missing`",
                "`body-type-refused`",
            ][..],
        ),
        (
            "query",
            &[
                "curl -i \"https://hooks.example/query?code=$KEY&signature=$SIGNATURE\" ",
                r#"BODY='{"event":{"id":"test-1"}}'"#,
                "`body-invalid`",
                "`handshake-refused`",
            ],
        ),
        (
            "path",
            &["curl -i \"https://hooks.example/path/$KEY?signature=$SIGNATURE\" "],
        ),
    ] {
        let page = pack(&[route]);
        for part in parts {
            assert!(page.contains(part), "{route}: {part}: {page}");
        }
    }
    let plain = pack(&["orders"]);
    for code in [
        "handshake-refused",
        "body-invalid",
        "body-type-refused",
        "delivery-id-missing",
        "delivery-id-reused",
        "delivery-in-flight",
    ] {
        assert!(!plain.contains(code), "{code}: {plain}");
    }
    let definition: serde_json::Value = serde_json::from_str(&pack(&["forms", "--swagger"])).unwrap();
    assert_eq!(definition["consumes"][0], "application/x-www-form-urlencoded");
    let parameters = &definition["paths"]["/forms"]["post"]["parameters"];
    assert_eq!(
        (
            &parameters[0]["name"],
            &parameters[0]["in"],
            &parameters[0]["required"]
        ),
        (&"idempotency-key".into(), &"header".into(), &true.into())
    );
    assert_eq!(parameters[1]["schema"]["type"], "string");
}

#[test]
fn a_vendor_pack_names_what_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let config = settings(dir.path(), SIGNING);
    for (arguments, why) in [
        (
            &["hook"][..],
            "there is no route \"hook\"; there are: orders, hooks",
        ),
        (&["hooks"], "name one with --caller: shop, adyen, github"),
        (
            &["hooks", "--caller", "erp"],
            "caller \"erp\" may not call route \"hooks\"",
        ),
        (
            &["hooks", "--caller", "github", "--swagger"],
            "which a custom connector cannot do",
        ),
    ] {
        let output = flowgate(&[&["vendor-pack", "--config", &config], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(err(&output).contains(why), "{arguments:?}: {}", err(&output));
    }
    let nameless = std::fs::read_to_string(&config)
        .unwrap()
        .replace("host = \"hooks.example\"\n", "");
    std::fs::write(&config, nameless).unwrap();
    let output = flowgate(&["vendor-pack", "orders", "--config", &config]);
    assert!(out(&output).contains("https://HOST"), "{}", out(&output));
    assert!(
        err(&output).contains("neither `public_url` nor `host`"),
        "{}",
        err(&output)
    );
}

/// What Swagger 2.0 demands, and what an import as a custom connector adds to it.
#[test]
fn the_definition_of_a_vendor_pack_is_swagger_2() {
    let dir = tempfile::tempdir().unwrap();
    let config = settings(dir.path(), SIGNING);
    let output = flowgate(&[
        "vendor-pack",
        "hooks",
        "--config",
        &config,
        "--caller",
        "shop",
        "--swagger",
    ]);
    let definition: serde_json::Value = serde_json::from_str(&well(&output)).unwrap();
    assert_eq!(definition["swagger"], "2.0");
    assert!(definition["info"]["title"].is_string() && definition["info"]["version"].is_string());
    assert_eq!(definition["host"], "hooks.example:9443");
    assert_eq!(definition["basePath"], "/");
    let scheme = &definition["securityDefinitions"]["key"];
    assert_eq!(
        (&scheme["type"], &scheme["in"], &scheme["name"]),
        (&"apiKey".into(), &"header".into(), &"x-api-key".into())
    );
    assert_eq!(definition["security"][0]["key"], serde_json::json!([]));
    let methods = definition["paths"]["/hooks/{id}"].as_object().unwrap();
    assert_eq!(
        methods.keys().map(String::as_str).collect::<Vec<_>>(),
        ["get", "post", "put"]
    );
    let mut ids = std::collections::BTreeSet::new();
    for (method, operation) in methods {
        let id = operation["operationId"].as_str().unwrap();
        assert!(id.chars().all(char::is_alphanumeric) && ids.insert(id), "{id}");
        let parameters = operation["parameters"].as_array().unwrap();
        let placed = |place: &str| {
            parameters
                .iter()
                .filter(|parameter| parameter["in"] == place)
                .count()
        };
        assert_eq!(placed("path"), 1);
        assert!(parameters.iter().all(|parameter| parameter["required"] == true));
        assert_eq!(placed("body"), usize::from(method != "get"), "{method}");
        for response in operation["responses"].as_object().unwrap().values() {
            assert!(response["description"].is_string());
            if let Some(reference) = response["schema"]["$ref"].as_str() {
                assert!(
                    definition.pointer(reference.trim_start_matches('#')).is_some(),
                    "{reference}"
                );
            }
        }
    }
}
