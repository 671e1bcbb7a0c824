//! The program itself, and the signals it gets from the system.

use std::io::BufRead;
use std::io::BufReader;
use std::net::SocketAddr;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Arc;

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::emulator::Answer as Flow;
use crate::emulator::Gate;
use crate::emulator::Trigger;
use crate::emulator::certs::server_name;
use crate::harness::PATIENCE;
use crate::harness::SECRET;
use crate::harness::TENANT;
use crate::harness::World;
use crate::listening::Talk;
use crate::listening::order_bytes;
use crate::shutdown::PROMPT;
use crate::shutdown::closed;

/// The program with one request inside the flow.
struct Program {
    child: Option<Child>,
    id: u32,
    lines: mpsc::UnboundedReceiver<Value>,
    address: Option<SocketAddr>,
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It has ended already unless the test failed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Program {
    fn start(world: &World, settings: &str) -> Self {
        world.file("program.toml", settings);
        let mut child = Command::new(env!("CARGO_BIN_EXE_flowgate"))
            .args(["serve", "--config"])
            .arg(world.dir().join("program.toml"))
            .env("CONTOSO_SECRET", SECRET)
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

    /// The next line that fits.
    async fn line(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
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

    async fn address(&mut self) -> SocketAddr {
        let line = self.line(|line| line["message"] == "listening").await;
        let address = line["address"].as_str().unwrap().parse().unwrap();
        self.address = Some(address);
        address
    }

    fn signal(&self, name: &str) {
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.id)])
            .status();
        assert!(status.unwrap().success());
    }

    async fn exit(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let wait = tokio::task::spawn_blocking(move || child.wait().unwrap());
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("it does not exit")
            .unwrap()
    }
}

async fn busy() -> (World, Program, Gate, Talk) {
    let world = World::new().await;
    let trigger = world
        .emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let route = world.route("orders", "/orders", &trigger.url(), "");
    let gate = trigger.hold();
    let mut program = Program::start(&world, &format!("{}{route}", world.base()));
    let tcp = TcpStream::connect(program.address().await).await.unwrap();
    let tls = TlsConnector::from(Arc::new(world.emulator.ca.client_config(&["http/1.1"])));
    let mut talk = Talk::new(tls.connect(server_name("localhost"), tcp).await.unwrap());
    talk.say(order_bytes("")).await;
    gate.arrived(1).await;
    (world, program, gate, talk)
}

#[tokio::test]
async fn sigterm_and_ctrl_c_let_running_requests_finish() {
    for signal in ["TERM", "INT"] {
        let (_world, mut program, gate, mut talk) = busy().await;
        program.signal(signal);
        program.line(|line| line["message"] == "draining").await;
        closed(program.address.unwrap()).await;
        gate.open();
        let answer = talk.hear().await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("connection")),
            (202, Some("close"))
        );
        drop(talk);
        let line = program.line(|line| line["kind"] == "request").await;
        assert_eq!((&line["status"], &line["end"]), (&202.into(), &"complete".into()));
        assert_eq!(program.exit().await.code(), Some(0), "{signal}");
    }
}

#[tokio::test]
async fn a_second_sigterm_ends_it_at_once() {
    let (_world, mut program, _gate, mut talk) = busy().await;
    program.signal("TERM");
    program.line(|line| line["message"] == "draining").await;
    let began = Instant::now();
    program.signal("TERM");
    let line = program.line(|line| line["kind"] == "request").await;
    assert_eq!(line["end"], "stopped");
    let status = program.exit().await;
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
    assert!(status.code().is_some(), "it did not end by itself: {status}");
    assert_eq!(talk.rest().await, "");
}
