//! Gates, connections, certificates and the lifetime of the emulator.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::client::{
    CLIENT, OID, SCOPE, SECRET, TENANT, ask, call, call_with_token, connect, dial, dial_with, post,
    secret_form, send, started,
};
use crate::emulator::{Answer, Authority, Door, Emulator, KeepAlive, KeyKind, Leaf, Trigger};

#[tokio::test]
async fn requests_stay_behind_the_gate_until_released() {
    let emulator = started().await;
    let trigger = emulator.flow.add(Trigger::anyone());
    let gate = emulator.flow.hold();
    let mut senders = Vec::new();
    for _ in 0..2 {
        let mut sender = connect(&emulator, &emulator.flow.origin()).await;
        let request = post(&trigger.target(), &[], "{}");
        senders.push(tokio::spawn(async move {
            send(&mut sender, request).await.unwrap().status
        }));
    }
    gate.arrived(2).await;
    assert_eq!(trigger.requests().len(), 2);
    assert!(senders.iter().all(|sender| !sender.is_finished()));
    gate.release(1);
    gate.inside().settled_at(1).await;
    gate.open();
    for sender in senders {
        assert_eq!(sender.await.unwrap(), 202);
    }
    assert_eq!(
        call(&emulator, post(&trigger.target(), &[], "{}")).await.status,
        202
    );
}

#[tokio::test]
async fn a_caller_that_hangs_up_behind_the_gate_is_counted() {
    let emulator = started().await;
    let trigger = emulator.flow.add(Trigger::anyone());
    let gate = trigger.hold();
    let mut sender = connect(&emulator, &emulator.flow.origin()).await;
    let request = post(&trigger.target(), &[], "{}");
    let calling = tokio::spawn(async move { send(&mut sender, request).await });
    gate.arrived(1).await;
    calling.abort();
    emulator.flow.hang_ups().reached(1).await;
    gate.inside().settled_at(0).await;

    trigger.does(Answer::Never);
    gate.open();
    let mut sender = connect(&emulator, &emulator.flow.origin()).await;
    let request = post(&trigger.target(), &[], "{}");
    let calling = tokio::spawn(async move { send(&mut sender, request).await });
    trigger.run_count().reached(2).await;
    calling.abort();
    emulator.flow.hang_ups().reached(2).await;
    emulator.flow.listener().open().settled_at(0).await;
}

#[tokio::test]
async fn connections_are_kept_or_closed_as_configured() {
    let emulator = started().await;
    let flow = &emulator.flow;
    let trigger = flow.add(Trigger::anyone());
    let target = trigger.target();
    let mut sender = connect(&emulator, &flow.origin()).await;
    for _ in 0..3 {
        assert_eq!(
            send(&mut sender, post(&target, &[], "{}")).await.unwrap().status,
            202
        );
    }
    assert_eq!(flow.listener().connections().get(), 1);
    assert!(trigger.requests().iter().all(|request| request.connection == 1));
    flow.listener().evict();
    flow.listener().open().settled_at(0).await;

    flow.listener().keep_alive(KeepAlive::CloseAnnounced);
    assert_eq!(
        call(&emulator, post(&target, &[], "{}"))
            .await
            .header("connection"),
        Some("close")
    );
    flow.listener().keep_alive(KeepAlive::CloseSilently);
    let mut sender = connect(&emulator, &flow.origin()).await;
    assert_eq!(
        send(&mut sender, post(&target, &[], "{}"))
            .await
            .unwrap()
            .header("connection"),
        None
    );
    flow.listener().open().settled_at(0).await;
    assert_eq!(flow.listener().connections().get(), 3);
}

#[tokio::test]
async fn the_door_can_be_shut_and_opened_again() {
    let emulator = started().await;
    let listener = emulator.flow.listener();
    let origin = emulator.flow.origin();
    listener.set_door(Door::Refuse).await;
    let refused = dial(&emulator, &origin).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    listener.set_door(Door::Slam).await;
    assert!(dial(&emulator, &origin).await.is_err());
    listener.set_door(Door::Silent).await;
    let port: u16 = origin.rsplit_once(':').unwrap().1.parse().unwrap();
    let silent = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    listener.open().settled_at(1).await;
    drop(silent);
    listener.open().settled_at(0).await;
    listener.set_door(Door::Open).await;
    assert!(dial(&emulator, &origin).await.is_ok());
    assert_eq!(listener.handshake_failures().get(), 0);
}

#[tokio::test]
async fn certificates_are_refused_for_the_right_reason() {
    let emulator = started().await;
    let ca = &emulator.ca;
    let origin = emulator.flow.origin();
    let listener = emulator.flow.listener();
    let refused = async |leaf: Leaf| {
        listener.present(&leaf);
        dial(&emulator, &origin).await.unwrap_err().to_string()
    };
    let names = ["localhost"];
    assert!(
        refused(ca.expired_leaf(&names))
            .await
            .to_lowercase()
            .contains("expired")
    );
    assert!(
        refused(ca.future_leaf(&names))
            .await
            .to_lowercase()
            .contains("not valid yet")
    );
    assert!(refused(ca.wrong_name_leaf()).await.contains("not valid for name"));
    assert!(
        refused(Authority::new().leaf(&names))
            .await
            .contains("UnknownIssuer")
    );
    listener.handshake_failures().reached(4).await;
    for leaf in [
        ca.leaf_with(&names, KeyKind::Rsa2048),
        ca.intermediate().leaf(&names),
    ] {
        listener.present(&leaf);
        dial(&emulator, &origin).await.unwrap();
    }
    assert!(dial_with(ca, &origin, &["h2"]).await.is_err());
    emulator.assert_clean();
}

#[tokio::test]
async fn certificate_files_can_be_read_back() {
    let emulator = started().await;
    let files = emulator
        .ca
        .intermediate()
        .leaf(&["gateway.example"])
        .write(emulator.dir(), "gateway")
        .unwrap();
    let chain = std::fs::read_to_string(files.chain).unwrap();
    assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2);
    assert!(
        std::fs::read_to_string(files.key)
            .unwrap()
            .contains("BEGIN PRIVATE KEY")
    );
    assert_eq!(
        std::fs::read_to_string(emulator.ca_file()).unwrap(),
        emulator.ca.pem()
    );
}

#[test]
fn the_emulator_also_runs_on_a_thread_of_its_own() {
    let emulator = Emulator::start_on_own_thread();
    emulator.register_app(TENANT, CLIENT, SECRET, OID);
    let trigger = emulator
        .flow
        .add(Trigger::any_user(TENANT).does(Answer::json(200, &json!({"ok": true}))));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let gate = emulator.entra.hold();
        let asking = async {
            let got = ask(&emulator, &secret_form(SECRET, SCOPE)).await.json();
            got["access_token"].as_str().unwrap().to_owned()
        };
        let releasing = async {
            gate.arrived(1).await;
            gate.open();
        };
        let (token, ()) = tokio::join!(asking, releasing);
        assert_eq!(call_with_token(&emulator, &trigger, &token).await.status, 200);
    });
    drop(emulator);
}

#[tokio::test]
async fn the_servers_end_with_the_emulator() {
    let emulator = started().await;
    let origin = emulator.flow.origin();
    let ca = Arc::clone(&emulator.ca);
    let mut stream = dial(&emulator, &origin).await.unwrap();
    drop(emulator);
    assert!(!matches!(stream.read(&mut [0; 1]).await, Ok(1..)));
    assert!(dial_with(&ca, &origin, &["http/1.1"]).await.is_err());
}

#[tokio::test]
async fn a_connection_to_a_full_queue_hangs() {
    let emulator = started().await;
    let listener = emulator.flow.listener();
    listener.set_door(Door::Full).await;
    let hanging = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(listener.address()));
    assert!(hanging.await.is_err());
    assert_eq!(listener.connections().get(), 0);
    listener.set_door(Door::Open).await;
    assert!(dial(&emulator, &emulator.flow.origin()).await.is_ok());
}

#[tokio::test]
async fn a_plain_answer_is_no_handshake() {
    let emulator = started().await;
    emulator.flow.listener().set_door(Door::Plain).await;
    assert!(dial(&emulator, &emulator.flow.origin()).await.is_err());
    emulator.flow.listener().open().settled_at(0).await;
}
