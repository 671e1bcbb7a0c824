//! The program in a process of its own: what it says, and what memory it takes.

use std::collections::HashMap;
use std::io::BufRead;
use std::io::BufReader;
use std::net::SocketAddr;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;

use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::harness::PATIENCE;
use crate::harness::SECRET;
use crate::harness::World;

/// The program. It runs until this is dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) address: SocketAddr,
    cut: Arc<Cut>,
}

impl Drop for Program {
    fn drop(&mut self) {
        // It runs until the test is over.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The connections it has cut, by their address, and when it said so.
#[derive(Default)]
struct Cut {
    moments: Mutex<HashMap<String, (String, Instant)>>,
    came: Notify,
}

impl Program {
    pub(crate) fn start(world: &World, settings: &str) -> Self {
        world.file("program.toml", settings);
        let mut child = Command::new(env!("CARGO_BIN_EXE_flowgate"))
            .args(["serve", "--config"])
            .arg(world.dir().join("program.toml"))
            .env("CONTOSO_SECRET", SECRET)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let cut = Arc::new(Cut::default());
        let (sender, listening) = mpsc::channel();
        std::thread::spawn({
            let cut = cut.clone();
            move || {
                for line in out.lines().map_while(Result::ok) {
                    let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                    if line["message"] == "listening" {
                        // Nobody waits for a second one.
                        let _ = sender.send(line["address"].as_str().unwrap().parse().unwrap());
                    }
                    cut.note(&line);
                }
            }
        });
        let address = listening.recv_timeout(PATIENCE).expect("it does not listen");
        Self { child, address, cut }
    }

    /// When it cut the connection of this address, as soon as it has, and the word for it.
    pub(crate) async fn cut(&self, address: &str) -> (String, Instant) {
        loop {
            let came = self.cut.came.notified();
            tokio::pin!(came);
            came.as_mut().enable();
            if let Some(cut) = self.cut.moments.lock().unwrap().get(address) {
                return cut.clone();
            }
            came.await;
        }
    }

    /// Memory of its own, bytes. What it shares with others of its kind, its code above all, is left out: that part
    /// changes with their number.
    pub(crate) fn memory(&self) -> u64 {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()));
        let rollup = rollup.expect("the program ended");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
        let kilobytes: u64 = line.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
        kilobytes * 1024
    }
}

impl Cut {
    fn note(&self, line: &Value) {
        if line["kind"] != "connection" {
            return;
        }
        if let (Some(address), Some(reason)) = (line["address"].as_str(), line["reason"].as_str()) {
            let cut = (reason.to_owned(), Instant::now());
            self.moments.lock().unwrap().insert(address.to_owned(), cut);
            self.came.notify_waiters();
        }
    }
}
