//! The documents are true: the shell blocks of README and docs/start.md run as they are pasted, against the
//! emulator, and every link has a target. Only names of the reader's own tenant are replaced by those of the
//! emulator.
//!
//! A block marked `sh azure` needs a tenant and is only parsed. The plain test replaces `cargo` and `curl` with stubs, and
//! `flowgate-emulator` with its code in this process; with the real programs the same blocks run in `.ci/run`, or by
//! `cargo test --test documents -- --ignored`.
#![cfg(unix)]
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
#[path = "documents/links.rs"]
mod links;
#[path = "documents/vendors.rs"]
mod vendors;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use emulator::standalone::Standalone;
use emulator::{Answer, Emulator, Trigger, TriggerHandle};
use serde_json::json;
use tokio::runtime::Runtime;

const TENANT: &str = "11111111-2222-4333-8444-555555555555";
const CLIENT: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";
const OID: &str = "99999999-8888-4777-8666-555555555555";
const SECRET: &str = "the~secret~of~the~quick~start";

/// Documents whose shell blocks run, in the order in which a reader meets them.
const PASTED: [&str; 2] = ["README.md", "docs/start.md"];
/// Commands that run until they are stopped, and what they print once they are ready.
const SERVICES: [(&str, &str); 3] = [
    ("flowgate-emulator", "Ready"),
    ("flowgate serve", "listening"),
    ("cargo run --example demo", "Ctrl-C ends the demo"),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn document(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// A fenced block of a document.
#[derive(Debug)]
struct Block {
    /// What follows the fence, such as `sh azure`.
    mark: String,
    text: String,
    line: usize,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in text.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(mark)) => {
                let (mark, line) = (mark.trim().to_owned(), number + 1);
                let text = String::new();
                open = Some(Block { mark, text, line });
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is open: {open:?}");
    found
}

/// Whether the programs that the documents use beside `flowgate` are the real ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Programs {
    StandIns,
    Real,
}

/// A program in the background, by its command; it is stopped with the test.
struct Service(String, Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.1.kill();
        let _ = self.1.wait();
    }
}

/// A reader's folder, and what the reader learned so far.
struct Reader {
    programs: Programs,
    _emulator: Emulator,
    trigger: TriggerHandle,
    folder: tempfile::TempDir,
    /// Values of the documents, with those of this reader.
    replaced: Vec<(String, String)>,
    services: Vec<Service>,
    /// In place of the program, and the threads it runs on.
    standalone: Option<(Standalone, Runtime)>,
    emulator_port: u16,
}

impl Reader {
    fn new(programs: Programs) -> Self {
        let emulator = Emulator::start_on_own_thread();
        emulator.register_app(TENANT, CLIENT, SECRET, OID);
        let answer = Answer::json(200, &json!({"accepted": true}));
        let trigger = emulator.flow.add(Trigger::any_user(TENANT).does(answer));
        let ca = emulator.ca_file();
        let authority = emulator.entra.authority();
        let tenant = format!("tenant = \"{TENANT}\"\nauthority = \"{authority}\"\nca_file = {ca:?}");
        let emulator_port = free_ports();
        let replaced = [
            ("tenant = \"<Directory (tenant) ID>\"", tenant.as_str()),
            ("<Application (client) ID>", CLIENT),
            (
                "FLOWGATE_CONTOSO_SECRET='...'",
                &format!("FLOWGATE_CONTOSO_SECRET='{SECRET}'"),
            ),
            (
                "trigger = \"https://<HTTP URL>\"",
                &format!("trigger = {:?}\nca_file = {ca:?}", trigger.url()),
            ),
            ("init --emulator", &format!("init --emulator={emulator_port}")),
            (
                "flowgate-emulator try",
                &format!("flowgate-emulator --port {emulator_port} try"),
            ),
            ("8443", &free_port()),
            ("9464", &free_port()),
        ];
        let replaced = replaced.map(|(theirs, ours)| (theirs.to_owned(), ours.to_owned()));
        Self {
            programs,
            _emulator: emulator,
            trigger,
            folder: tempfile::tempdir().unwrap(),
            replaced: replaced.into(),
            services: Vec::new(),
            standalone: None,
            emulator_port,
        }
    }

    fn ours(&self, text: &str) -> String {
        let replace = |text: String, (theirs, ours): &(String, String)| text.replace(theirs, ours);
        self.replaced.iter().fold(text.to_owned(), replace)
    }

    /// Remembers the key that `init` has printed in place of an earlier one, and gives its settings our ports and tenant.
    fn initialised(&mut self, script: &str, printed: &str) {
        let mut words = printed.split_whitespace();
        let key = words.find(|word| word.starts_with("flowgate_")).unwrap();
        let folder = match script.contains("--emulator") {
            true => "try",
            false => ".",
        };
        let curl = printed
            .lines()
            .find_map(|line| line.strip_prefix(" 4. "))
            .unwrap();
        if folder == "try" {
            let curl = curl.replace(key, "flowgate_...");
            assert!(
                document("README.md").contains(&curl),
                "README has another line than {curl}"
            );
        }
        self.replaced
            .insert(0, ("flowgate_...".to_owned(), key.to_owned()));
        let path = self.folder.path().join(folder).join("flowgate.toml");
        let settings = fs::read_to_string(&path).unwrap() + "\n[admin]\naddress = \"127.0.0.1:9464\"\n";
        fs::write(path, self.ours(&settings)).unwrap();
    }

    /// A shell in the reader's folder, with the program in `PATH`.
    fn shell(&self, script: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_flowgate")).parent().unwrap();
        let prelude = match self.programs {
            Programs::Real => "cargo() ( cd \"$REPOSITORY\"; command cargo \"$@\"; )",
            Programs::StandIns => "cargo() { echo cargo \"$@\"; }; curl() { echo curl \"$@\"; }",
        };
        let mut shell = Command::new("sh");
        shell
            .args(["-euc", &format!("PATH=\"$PROGRAM:$PATH\"\n{prelude}\n{script}")])
            .current_dir(self.folder.path())
            .env("PROGRAM", program)
            .env("REPOSITORY", root())
            .env("FLOWGATE_CONTOSO_SECRET", SECRET);
        shell
    }

    /// Runs a block to its end, with the trigger's address at hand for commands that read one, and returns its output.
    fn run(&self, script: &str) -> String {
        let mut shell = self.shell(script);
        shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        // A block that reads nothing may already have ended.
        let _ = writeln!(child.stdin.take().unwrap(), "{}", self.trigger.url());
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{script}\n{}\n{text}\n{errors}",
            output.status
        );
        text
    }

    /// Starts a service and waits until it is ready. It takes the place of an earlier gateway.
    fn start(&mut self, command: &str, ready: &str) {
        if command.starts_with("flowgate serve") {
            self.services
                .retain(|Service(earlier, _)| !earlier.starts_with("flowgate serve"));
        }
        if command.starts_with("flowgate-emulator") && self.programs == Programs::StandIns {
            let threads = Runtime::new().unwrap();
            let folder = self.folder.path().join("try");
            let starting = Standalone::start(&folder, self.emulator_port);
            self.standalone = Some((threads.block_on(starting).unwrap(), threads));
            return;
        }
        let mut shell =
            self.shell(&format!("exec {command}").replace("exec cargo", "cd \"$REPOSITORY\"; exec cargo"));
        let mut child = shell.stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        self.services.push(Service(command.to_owned(), child));
        let mut lines = out.lines().map_while(Result::ok);
        assert!(
            lines.any(|line| line.contains(ready)),
            "{command} never printed {ready:?}"
        );
        // Reads its later output, so that a full pipe does not block it.
        std::thread::spawn(move || lines.for_each(drop));
    }

    fn paste(&mut self, block: &Block) {
        let text = self.ours(&block.text);
        match block.mark.as_str() {
            "sh" => {}
            "sh azure" => {
                let parsed = Command::new("sh").args(["-n", "-c", &text]).status().unwrap();
                assert!(parsed.success(), "{text}");
                return;
            }
            mark => {
                assert!(
                    ["", "toml", "json"].contains(&mark),
                    "line {}: a block is marked {mark:?}",
                    block.line
                );
                return;
            }
        }
        let service = SERVICES.iter().find_map(|(command, ready)| {
            let line = text.lines().find(|line| line.starts_with(command))?;
            Some((line.to_owned(), *ready))
        });
        let Some((command, ready)) = service else {
            let printed = self.run(&text);
            return self.look(&text, &printed);
        };
        let before = text.replace(&command, "");
        let printed = self.run(&before);
        self.look(&before, &printed);
        if command.starts_with("flowgate") || self.programs == Programs::Real {
            self.start(&command, ready);
        }
    }

    /// Checks what a reader expects of a block.
    fn look(&mut self, script: &str, printed: &str) {
        if script.contains("flowgate init") {
            self.initialised(script, printed);
        }
        if script.contains("flowgate routes") {
            assert!(printed.contains("/orders"), "{printed}");
        }
        if script.contains("curl -i") && self.programs == Programs::Real {
            assert!(
                printed.to_lowercase().contains("x-flowgate-answer: flow"),
                "{printed}"
            );
            if script.contains("try/") {
                let status = printed.lines().next().unwrap_or_default();
                return assert!(status.contains(" 202"), "{printed}");
            }
            assert!(printed.contains("\"accepted\":true"), "{printed}");
            assert!(printed.contains("contoso"), "{printed}");
            let seen = self.trigger.last_request();
            assert_eq!(seen.header("content-type"), Some("application/json"));
            assert_eq!(seen.text(), "{\"order\": 17}");
        }
    }
}

/// Two ports in a row that nothing listens on; the first of them.
fn free_ports() -> u16 {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

/// A port that nothing listens on.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

fn read_and_paste(programs: Programs) {
    let mut reader = Reader::new(programs);
    for name in PASTED {
        for block in blocks(&document(name)) {
            reader.paste(&block);
        }
    }
    assert!(!reader.services.is_empty());
}

#[test]
fn every_command_works_as_it_is_pasted() {
    read_and_paste(Programs::StandIns);
}

#[test]
#[ignore = "needs curl, and builds the program for release: cargo test --test documents -- --ignored"]
fn every_command_works_with_the_real_programs() {
    read_and_paste(Programs::Real);
}

#[test]
fn ci_runs_the_commands_with_the_real_programs() {
    assert!(document(".ci/run").contains("cargo test --locked --test documents -- --ignored"));
}
