//! The program in a process of its own: what it says, and what memory it takes.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use serde_json::Value;

use crate::harness::{PATIENCE, SECRET, World};

/// The program. It runs until this is dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Drop for Program {
    fn drop(&mut self) {
        // It runs until the test is over.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
        let (sender, listening) = mpsc::channel();
        // It goes on to the end: the program must not wait for a reader of its log.
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if !line.contains("listening") {
                    continue;
                }
                let line: Value = serde_json::from_str(&line).unwrap();
                if line["message"] == "listening" {
                    // Nobody waits for a second one.
                    let _ = sender.send(line["address"].as_str().unwrap().parse().unwrap());
                }
            }
        });
        let address = listening.recv_timeout(PATIENCE).expect("it does not listen");
        Self { child, address }
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
