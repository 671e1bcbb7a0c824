//! The program in a process of its own: its log, and its memory.

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
        // It runs until the test ends.
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
        // The log is read to its end: the program must not wait for a reader.
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

    /// Private memory, in bytes. Memory shared with other processes of the program, above all its code, is
    /// left out: that part changes with their number.
    pub(crate) fn memory(&self) -> u64 {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()));
        let rollup = rollup.expect("the program ended");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
        let kilobytes: u64 = line.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
        kilobytes * 1024
    }
}
