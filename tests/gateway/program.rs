//! The program itself: started with a test's settings, its log lines to wait for, its end.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;
use tokio::sync::mpsc;

use crate::harness::{PATIENCE, World};

/// The running program and the lines it writes.
pub struct Program {
    child: Option<Child>,
    id: u32,
    lines: mpsc::UnboundedReceiver<Value>,
    pub address: Option<SocketAddr>,
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It has already exited unless the test failed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Program {
    pub fn start(world: &World, settings: &str) -> Self {
        world.file("program.toml", settings);
        let mut child = Command::new(env!("CARGO_BIN_EXE_flowgate"))
            .args(["serve", "--config"])
            .arg(world.dir().join("program.toml"))
            .envs(world.secrets.iter().cloned())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            id: child.id(),
            child: Some(child),
            lines,
            address: None,
        }
    }

    /// The next matching line.
    pub async fn line(&mut self, mut fits: impl FnMut(&Value) -> bool) -> Value {
        let search = async {
            loop {
                let line = self.lines.recv().await.expect("the program ended");
                if fits(&line) {
                    return line;
                }
            }
        };
        tokio::time::timeout(PATIENCE, search)
            .await
            .expect("no such line")
    }

    pub async fn address(&mut self) -> SocketAddr {
        let line = self.line(|line| line["message"] == "listening").await;
        let address = line["address"].as_str().unwrap().parse().unwrap();
        self.address = Some(address);
        address
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.id)])
            .status();
        assert!(status.unwrap().success());
    }

    pub async fn exit(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let wait = tokio::task::spawn_blocking(move || child.wait().unwrap());
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("it does not exit")
            .unwrap()
    }
}
