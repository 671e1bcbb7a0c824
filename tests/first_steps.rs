//! `flowgate init`: what it writes loads, runs, and with the emulator gives a first answer; what it cannot write it says,
//! and then nothing is there.
//!
//! With `--features emulator` the emulator is the program that a newcomer starts, else its code in this process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test fails by panicking"
)]

#[path = "emulator/mod.rs"]
mod emulator;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

fn flowgate(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowgate"));
    command.args(arguments).current_dir(folder).output().unwrap()
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{}", err(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A program that runs until this is dropped, and its first line with some text.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    fn start(command: &mut Command, ready: &str) -> (Self, String) {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let program = Self(child);
        let line = lines.find(|line| line.contains(ready));
        // The rest is read so that a full pipe does not block it.
        std::thread::spawn(move || lines.for_each(drop));
        (program, line.expect("it is never ready"))
    }
}

/// Two ports in a row that nothing listens on.
fn free_ports() -> u16 {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

/// What `init` has printed behind `begin`.
fn word(printed: &str, begin: &str) -> String {
    let words = printed.split([' ', '\'', '\n']);
    let mut words = words.filter(|word| word.starts_with(begin));
    words.next().unwrap().to_owned()
}

/// A folder of `flowgate init --emulator`, with the gateway on ports of its own.
fn with_emulator(parent: &Path) -> (PathBuf, u16, String) {
    let port = free_ports();
    let printed = out(&flowgate(parent, &["init", &format!("--emulator={port}"), "try"]));
    let folder = parent.join("try");
    let path = folder.join("flowgate.toml");
    let text = fs::read_to_string(&path).unwrap();
    let ours = text.replace("127.0.0.1:8443", "127.0.0.1:0");
    assert_ne!(ours, text);
    fs::write(&path, ours + "\n[admin]\naddress = \"127.0.0.1:0\"\n").unwrap();
    (folder, port, printed)
}

/// Sends what the printed `curl` line sends, and returns the status.
async fn call(folder: &Path, gateway: SocketAddr, host: &str, key: &str) -> u16 {
    let certificate = CertificateDer::from_pem_file(folder.join("certs/development.pem")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .resolve(host, gateway)
        .build()
        .unwrap();
    let request = client.post(format!("https://{host}:{}/orders", gateway.port()));
    let request = request.header("x-api-key", key).body("{\"order\": 17}");
    request.send().await.unwrap().status().as_u16()
}

/// The emulator, for as long as this is kept.
#[cfg(not(feature = "emulator"))]
async fn emulate(folder: &Path, port: u16) -> impl Sized {
    emulator::standalone::Standalone::start(folder, port)
        .await
        .unwrap()
}

#[cfg(feature = "emulator")]
async fn emulate(folder: &Path, port: u16) -> impl Sized {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowgate-emulator"));
    command.args(["--port", &port.to_string()]).arg(folder);
    Program::start(&mut command, "Ready")
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_emulator_the_first_call_is_accepted() {
    let parent = tempfile::tempdir().unwrap();
    let (folder, port, printed) = with_emulator(parent.path());
    let emulator = emulate(&folder, port).await;
    let checked = flowgate(parent.path(), &["check", "--config", "try/flowgate.toml"]);
    assert!(out(&checked).contains("no mistakes"));
    let mut serve = Command::new(env!("CARGO_BIN_EXE_flowgate"));
    serve
        .args(["serve", "--config"])
        .arg(folder.join("flowgate.toml"));
    let (_gateway, line) = Program::start(&mut serve, "\"listening\"");
    let line: Value = serde_json::from_str(&line).unwrap();
    let gateway = line["address"].as_str().unwrap().parse().unwrap();
    assert!(printed.contains("curl -i --cacert try/certs/development.pem https://localhost:8443/orders"));
    let key = word(&printed, "flowgate_");
    assert_eq!(call(&folder, gateway, "localhost", &key).await, 202);
    assert_eq!(call(&folder, gateway, "localhost", "guessed").await, 401);
    if cfg!(feature = "emulator") {
        // Its authority outlives it. Its tokens do not, so the gateway fetches another one.
        drop(emulator);
        assert_eq!(call(&folder, gateway, "localhost", &key).await, 502);
        let _emulator = emulate(&folder, port).await;
        assert_eq!(call(&folder, gateway, "localhost", &key).await, 202);
    }
}

#[test]
fn without_the_emulator_check_asks_for_what_only_the_operator_knows() {
    let parent = tempfile::tempdir().unwrap();
    let printed = out(&flowgate(parent.path(), &["init"]));
    assert_eq!(names(parent.path()), ["certs", "flowgate.toml"]);
    let settings = fs::read_to_string(parent.path().join("flowgate.toml")).unwrap();
    let key = word(&printed, "flowgate_");
    assert_eq!(key.len(), "flowgate_".len() + 43);
    assert!(!settings.contains(&key), "only its digest is stored");
    let report = err(&flowgate(parent.path(), &["check"]));
    for (setting, asked_for) in [
        ("tenant = ", "id that Entra shows for the tenant"),
        ("client_id = ", "Application (client) ID"),
        ("client_secret = ", "FLOWGATE_CONTOSO_SECRET is not set"),
        ("trigger = ", "placeholder"),
    ] {
        let line = settings
            .lines()
            .position(|line| line.starts_with(setting))
            .unwrap()
            + 1;
        assert!(
            report.contains(&format!("flowgate.toml:{line}:")),
            "{setting}: {report}"
        );
        assert!(report.contains(asked_for), "{asked_for}: {report}");
    }
    assert!(report.contains("4 mistakes"), "{report}");
    // With these four it is whole.
    let trigger = "https://prod-01.westeurope.logic.azure.com/workflows/0123456789abcdef0123456789abcdef/triggers/\
                   manual/paths/invoke?api-version=2016-06-01";
    let filled = settings
        .replace("<Directory (tenant) ID>", "11111111-2222-4333-8444-555555555555")
        .replace(
            "<Application (client) ID>",
            "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee",
        )
        .replace("https://<HTTP URL>", trigger);
    fs::write(parent.path().join("flowgate.toml"), filled).unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_flowgate"));
    check.arg("check").current_dir(parent.path());
    let checked = check.env("FLOWGATE_CONTOSO_SECRET", "canary~secret").output();
    assert!(out(&checked.unwrap()).contains("no mistakes"));
}

#[test]
fn the_certificate_is_for_this_machine_and_says_what_it_is_for() {
    let parent = tempfile::tempdir().unwrap();
    let printed = out(&flowgate(
        parent.path(),
        &["init", "--host", "Hooks.example", "one"],
    ));
    let der = CertificateDer::from_pem_file(parent.path().join("one/certs/development.pem")).unwrap();
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert!(certificate.subject().to_string().contains("development"));
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let names: Vec<_> = names
        .value
        .general_names
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(
        names[0].contains("localhost") && names[3].contains("hooks.example"),
        "{names:?}"
    );
    let settings = fs::read_to_string(parent.path().join("one/flowgate.toml")).unwrap();
    for text in [&printed, &settings] {
        assert!(text.contains("FOR DEVELOPMENT ONLY"), "{text}");
        assert!(
            text.contains("localhost, 127.0.0.1, ::1, hooks.example"),
            "{text}"
        );
    }
    // A name that is in it already is not there twice.
    let printed = out(&flowgate(parent.path(), &["init", "--host", "localhost", "two"]));
    assert!(
        printed.contains("certificate for localhost, 127.0.0.1, ::1; "),
        "{printed}"
    );
}

#[cfg(unix)]
#[test]
fn secrets_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;

    let parent = tempfile::tempdir().unwrap();
    out(&flowgate(parent.path(), &["init", "--emulator"]));
    for secret in ["certs/development.key", "flowgate-emulator/client-secret"] {
        let mode = fs::metadata(parent.path().join(secret))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
}

#[test]
fn no_file_is_overwritten_and_none_is_left_beside_it() {
    for taken in ["flowgate.toml", "certs/development.key"] {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join(taken);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "theirs").unwrap();
        let output = flowgate(parent.path(), &["init"]);
        assert_eq!(output.status.code(), Some(1));
        let why = err(&output);
        assert_eq!(why.lines().count(), 1, "{why}");
        assert!(why.contains(&format!("{taken} exists already")), "{why}");
        assert!(
            why.contains("flowgate init FOLDER") && why.contains("nothing was written"),
            "{why}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
        assert_eq!(names(parent.path()).len(), 1);
    }
}

#[test]
fn a_folder_with_other_files_is_used() {
    let parent = tempfile::tempdir().unwrap();
    fs::write(parent.path().join("README"), "theirs").unwrap();
    out(&flowgate(parent.path(), &["init"]));
    assert_eq!(names(parent.path()), ["README", "certs", "flowgate.toml"]);
}

#[test]
fn a_folder_that_cannot_be_made_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    fs::write(parent.path().join("file"), "theirs").unwrap();
    // Also refused to administrators.
    for (folder, named) in [
        ("none/try", "none/try"),
        ("file", "file"),
        ("file/try", "file/try"),
    ] {
        let output = flowgate(parent.path(), &["init", folder]);
        assert_eq!(output.status.code(), Some(1), "{folder}");
        let why = err(&output);
        assert!(
            why.contains(named) && why.contains("nothing was written"),
            "{why}"
        );
        assert_eq!(why.lines().count(), 1, "{why}");
    }
    // The folder of the certificates is taken by a file, which is found when the folder was made already.
    fs::create_dir(parent.path().join("late")).unwrap();
    fs::write(parent.path().join("late/flowgate-emulator"), "theirs").unwrap();
    let output = flowgate(parent.path(), &["init", "--emulator", "late"]);
    assert!(
        err(&output).contains("late/flowgate-emulator"),
        "{}",
        err(&output)
    );
    assert_eq!(names(&parent.path().join("late")), ["flowgate-emulator"]);
}

#[cfg(unix)]
#[test]
fn a_folder_without_the_right_to_write_is_named() {
    use std::os::unix::fs::PermissionsExt;

    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("closed");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o500)).unwrap();
    // Rights do not bind an administrator.
    if fs::write(folder.join("probe"), "").is_ok() {
        return;
    }
    let output = flowgate(parent.path(), &["init", "closed"]);
    assert_eq!(output.status.code(), Some(1));
    let why = err(&output);
    assert!(why.contains("closed/certs: Permission denied"), "{why}");
}

#[test]
fn a_name_that_no_certificate_can_carry_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    for (name, part) in [
        ("https://hooks.example", "no scheme"),
        ("hooks.example:8443", "no port"),
        ("two words", "not a host name"),
        ("h\u{f6}\u{f6}ks", "not a host name"),
    ] {
        let output = flowgate(parent.path(), &["init", "--host", name]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        let why = err(&output);
        assert!(why.contains("--host") && why.contains(part), "{why}");
        assert_eq!(names(parent.path()), [""; 0]);
    }
}

#[test]
fn settings_for_the_emulator_say_what_is_missing_before_it_runs() {
    let parent = tempfile::tempdir().unwrap();
    let (folder, ..) = with_emulator(parent.path());
    let report = err(&flowgate(&folder, &["check"]));
    assert!(
        report.contains("flowgate-emulator/ca.pem does not exist"),
        "{report}"
    );
}

#[test]
fn ports_and_paths_are_printed_as_a_shell_takes_them() {
    let parent = tempfile::tempdir().unwrap();
    let printed = out(&flowgate(
        parent.path(),
        &["init", "--emulator=19443", "it's here"],
    ));
    assert!(
        printed.contains("flowgate-emulator --port 19443 'it'\\''s here'\n"),
        "{printed}"
    );
    assert!(
        printed.contains("--cacert 'it'\\''s here/certs/development.pem'"),
        "{printed}"
    );
    let printed = out(&flowgate(parent.path(), &["init", "--emulator"]));
    assert!(printed.contains("flowgate-emulator .\n"), "{printed}");
    assert_eq!(
        flowgate(parent.path(), &["init", "--emulator=65535", "x"])
            .status
            .code(),
        Some(2)
    );
}

#[cfg(feature = "emulator")]
mod program {
    use std::fs;
    use std::net::TcpListener;
    use std::process::{Command, Output};

    use super::{err, free_ports, with_emulator};

    fn emulator(arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowgate-emulator"));
        command.args(arguments).output().unwrap()
    }

    #[test]
    fn the_emulator_names_a_port_that_is_taken() {
        let parent = tempfile::tempdir().unwrap();
        let (folder, ..) = with_emulator(parent.path());
        let port = free_ports();
        // The second of its ports.
        let _taken = TcpListener::bind(("127.0.0.1", port + 1)).unwrap();
        let output = emulator(&["--port", &port.to_string(), folder.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        let why = err(&output);
        assert_eq!(why.lines().count(), 1, "{why}");
        assert!(why.contains(&format!("127.0.0.1:{}: ", port + 1)), "{why}");
        assert!(
            why.contains("--port PORT") && why.contains("--emulator=PORT"),
            "{why}"
        );
    }

    #[test]
    fn the_emulator_says_how_its_folder_is_made() {
        let parent = tempfile::tempdir().unwrap();
        let output = emulator(&[parent.path().join("none").to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            err(&output).contains("flowgate init --emulator "),
            "{}",
            err(&output)
        );
        fs::create_dir_all(parent.path().join("none/flowgate-emulator")).unwrap();
        fs::write(parent.path().join("none/flowgate-emulator/ca.key"), "no key").unwrap();
        let output = emulator(&[parent.path().join("none").to_str().unwrap()]);
        assert!(err(&output).contains("ca.key"), "{}", err(&output));
    }
}
