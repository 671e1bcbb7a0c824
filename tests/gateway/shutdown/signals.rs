//! The program itself, and the signals that the system sends it.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::emulator::Answer as Flow;
use crate::emulator::certs::server_name;
use crate::emulator::{Gate, Trigger};
use crate::harness::{TENANT, World};
use crate::listening::{Talk, order_bytes};
use crate::program::Program;
use crate::shutdown::{PROMPT, closed};

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

#[tokio::test]
async fn signals_that_do_nothing_are_logged_and_end_no_request() {
    let (_world, mut program, gate, mut talk) = busy().await;
    for (signal, advice) in [("USR1", "standard output"), ("USR2", "stop it with SIGTERM")] {
        program.signal(signal);
        let name = format!("SIG{signal}");
        let line = program.line(|line| line["signal"] == name.as_str()).await;
        let message = line["message"].as_str().unwrap();
        assert!(
            message.contains("is ignored") && message.contains(advice),
            "{message}"
        );
    }
    gate.open();
    assert_eq!(talk.hear().await.status.as_u16(), 202);
    drop(talk);
    program.signal("TERM");
    program.line(|line| line["message"] == "draining").await;
    program.signal("HUP");
    assert_eq!(program.exit().await.code(), Some(0));
}
