//! A request that is on its way when the gateway stops is answered: on an idle connection, on one that is
//! being established, and on one that was not accepted yet.

use std::sync::{Arc, Mutex, mpsc};

use flowgate::gateway::log::Sink;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;

use crate::emulator::Answer as Flow;
use crate::emulator::Trigger;
use crate::emulator::certs::server_name;
use crate::harness::{Lines, PATIENCE, TENANT, World};
use crate::listening::frames::{
    ACK, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, Peer, frame, order_fields,
};
use crate::listening::{Talk, order_bytes, served};
use crate::shutdown::{PROMPT, Stopping};

const PLAIN: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\nplain_http = \"private-networks\"\n\
                     plain_http_from = [\"127.0.0.0/8\"]\n";

/// A log that blocks the worker at each line until the test releases it.
struct Stopper {
    reached: Notify,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl Sink for Stopper {
    fn line(&self, _: &[u8]) {
        self.reached.notify_one();
        // Once the test has dropped the other end, nothing blocks any more.
        let _ = self.go_on.lock().unwrap().recv();
    }
}

async fn assert_last_answer<S: AsyncRead + AsyncWrite + Unpin>(mut talk: Talk<S>, what: &str) {
    let answer = talk.hear().await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("connection")),
        (202, Some("close")),
        "{what}"
    );
    assert_eq!(talk.rest().await, "", "{what}");
}

#[tokio::test]
async fn what_has_reached_a_busy_worker_before_the_stop_is_answered() {
    let world = World::new().await;
    let flow = &world.emulator.flow;
    let trigger = flow.add(Trigger::any_user(TENANT).does(Flow::Accepted));
    let (go_on, waits) = mpsc::channel();
    let stopper = Arc::new(Stopper {
        reached: Notify::new(),
        go_on: Mutex::new(waits),
    });
    let settings = world.base().replace("workers = 2", "workers = 1");
    let route = world.route("orders", "/orders", &trigger.url(), "");
    let gateway = world.start_logging(
        &format!("{settings}{route}{PLAIN}"),
        stopper.clone(),
        Arc::new(Lines::default()),
    );
    let plain = gateway.server.addresses()[1];

    let mut idle = gateway.talk().await;
    go_on.send(()).unwrap();
    idle.say(order_bytes("")).await;
    assert_eq!(idle.hear().await.status, 202);
    stopper.reached.notified().await;
    let mut busy = gateway.talk().await;
    busy.say(order_bytes("")).await;
    tokio::time::timeout(PATIENCE, stopper.reached.notified())
        .await
        .expect("nothing stops the worker");

    idle.say(order_bytes("")).await;
    let mut unaccepted = Talk::new(TcpStream::connect(plain).await.unwrap());
    unaccepted.say(order_bytes("")).await;
    let stopping = Stopping::start(gateway).await;
    stopping.says("/readyz", (503, "not-serving")).await;
    drop(go_on);

    assert_last_answer(idle, "the next request of an idle connection").await;
    assert_last_answer(unaccepted, "a connection that nobody had accepted").await;
    drop(busy);
    assert!(stopping.ended().await < PROMPT);
}

#[tokio::test]
async fn a_connection_that_is_being_made_is_served_once() {
    let (world, gateway, _) = served("").await;
    let shaken = gateway.talk().await;
    let connected = TcpStream::connect(gateway.address).await.unwrap();
    let stopping = Stopping::start(gateway).await;
    stopping.draining().await;

    let mut talk = shaken;
    talk.say(order_bytes("")).await;
    assert_last_answer(talk, "its handshake was done").await;
    let tls = TlsConnector::from(Arc::new(world.emulator.ca.client_config(&["http/1.1"])));
    let mut talk = Talk::new(tls.connect(server_name("localhost"), connected).await.unwrap());
    talk.say(order_bytes("")).await;
    assert_last_answer(talk, "its handshake was under way").await;
    assert!(stopping.ended().await < PROMPT);
}

/// Sends an order that does not know of the stop; it must be answered, and the goodbye must count it as processed.
async fn assert_served_over_h2(mut peer: Peer, what: &str) {
    let order = frame(HEADERS, END_HEADERS | END_STREAM, 1, &order_fields());
    peer.say(&order).await;
    let mut is_answered = false;
    let mut processed = None;
    while let Some(heard) = peer
        .hear(|heard| [HEADERS, PING, GOAWAY].contains(&heard.kind))
        .await
    {
        match heard.kind {
            HEADERS => is_answered |= heard.stream == 1,
            GOAWAY => {
                assert_eq!(heard.payload[4..8], [0; 4], "{what}: NO_ERROR");
                processed = Some(heard.payload[..4].to_vec());
            }
            _ if heard.flags & ACK == 0 => {
                peer.say(&frame(PING, ACK, 0, &heard.payload)).await;
            }
            _ => {}
        }
    }
    assert!(is_answered, "{what}");
    assert_eq!(processed, Some(vec![0, 0, 0, 1]), "{what}");
}

#[tokio::test]
async fn the_first_request_of_an_http2_connection_that_is_being_made_is_served() {
    let (world, gateway, trigger) = served("").await;
    let mut greeted = Peer::connect(&gateway).await;
    assert!(greeted.catch_up().await);
    let shaken = gateway.tls_stream_h2().await;
    let connected = TcpStream::connect(gateway.address).await.unwrap();
    let stopping = Stopping::start(gateway).await;
    stopping.draining().await;

    assert_served_over_h2(greeted, "its preface was read").await;
    assert_served_over_h2(Peer::over(shaken).await, "its handshake was done").await;
    let tls = TlsConnector::from(Arc::new(world.emulator.ca.client_config(&["h2"])));
    let late = tls.connect(server_name("localhost"), connected).await.unwrap();
    assert_served_over_h2(Peer::over(late).await, "its handshake was under way").await;
    assert!(stopping.ended().await < PROMPT);
    assert_eq!(trigger.runs(), 3);
}
