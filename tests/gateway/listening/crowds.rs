//! Many connections at once: how many one address may have, what a flood of refused ones leaves behind, and
//! how connections are spread over the workers.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::{PATIENCE, Running};
use crate::listening::{Talk, order, served};

/// A connection from another address of this machine.
async fn connect_from(address: &str, gateway: &Running) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
    socket.connect(gateway.address).await.unwrap()
}

/// The current value of a metric.
async fn figure(gateway: &Running, name: &str) -> u64 {
    let (_, text) = gateway.admin("/metrics").await;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

async fn until(gateway: &Running, name: &str, value: u64) {
    let come = async {
        while figure(gateway, name).await != value {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, come)
        .await
        .unwrap_or_else(|_| panic!("{name} does not become {value}"));
}

fn refused(gateway: &Running, reason: &str) -> usize {
    let reason = format!("\"reason\":\"{reason}\"");
    let lines = gateway.lines.all();
    lines.iter().filter(|line| line.contains(&reason)).count()
}

/// Whether the gateway closes a new connection without sending anything.
async fn is_turned_away(mut tcp: TcpStream) -> bool {
    let read = tcp.read_u8();
    tokio::time::timeout(PATIENCE, read)
        .await
        .is_ok_and(|read| read.is_err())
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn one_address_cannot_take_the_seats_of_others() {
    let (_world, gateway, trigger) = served("[connections]\nper_address_max = 2\n").await;
    let mut kept = gateway.connect().await;
    assert_eq!(kept.send(order()).await.status, 202);
    let mut leaving = gateway.connect().await;
    assert_eq!(leaving.send(order()).await.status, 202);

    assert!(is_turned_away(TcpStream::connect(gateway.address).await.unwrap()).await);
    let line = gateway
        .lines
        .wait_for(|line| line["reason"] == "connections-full-address")
        .await;
    assert_eq!(
        (&line["kind"], &line["address"]),
        (&"connection".into(), &"127.0.0.1".into())
    );
    let counted = "flowgate_refusals_total{reason=\"connections-full-address\"}";
    assert_eq!(figure(&gateway, counted).await, 1);

    let stranger = connect_from("127.0.0.2", &gateway).await;
    until(&gateway, "flowgate_connections", 3).await;
    assert_eq!(kept.send(order()).await.status, 202, "those inside are served");
    drop((leaving, stranger));
    until(&gateway, "flowgate_connections", 1).await;
    assert_eq!(gateway.send(order()).await.status, 202);
    assert_eq!(trigger.runs(), 4);
}

#[tokio::test]
async fn an_exempt_network_is_not_counted() {
    let settings = "[connections]\nper_address_max = 1\nper_address_exempt = [\"127.0.0.0/8\"]\n";
    let (_world, gateway, _) = served(settings).await;
    let mut first = gateway.connect().await;
    let mut second = gateway.connect().await;
    for connection in [&mut first, &mut second] {
        assert_eq!(connection.send(order()).await.status, 202);
    }
}

#[tokio::test]
async fn peers_of_a_plain_listener_are_not_counted() {
    let plain = "[connections]\nper_address_max = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\nplain_http = \
                 \"behind-tls-balancer\"\nplain_http_from = [\"127.0.0.0/8\"]\n";
    let (_world, gateway, _) = served(plain).await;
    let address = gateway.server.addresses()[1];
    let mut talks = Vec::new();
    for _ in 0..3 {
        let mut talk = Talk::new(TcpStream::connect(address).await.unwrap());
        talk.say(crate::listening::order_bytes("")).await;
        assert_eq!(talk.hear().await.status, 202);
        talks.push(talk);
    }
}

#[tokio::test]
async fn a_flood_of_refused_connections_is_counted_and_does_not_fill_the_log() {
    const FLOOD: u64 = 300;
    let (_world, gateway, _) = served("[connections]\nmax = 1\n").await;
    let mut kept = gateway.connect().await;
    assert_eq!(kept.send(order()).await.status, 202);
    let began = tokio::time::Instant::now();
    for _ in 0..FLOOD {
        assert!(is_turned_away(TcpStream::connect(gateway.address).await.unwrap()).await);
    }
    let counted = "flowgate_refusals_total{reason=\"connections-full\"}";
    assert_eq!(figure(&gateway, counted).await, FLOOD);
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    let lines = refused(&gateway, "connections-full");
    assert!((1..=seconds + 2).contains(&lines), "{lines} lines in {seconds} s");
    assert_eq!(kept.send(order()).await.status, 202);
}

#[tokio::test]
async fn few_long_connections_are_spread_evenly_over_the_workers() {
    let (_world, gateway, _) = served("").await;
    // The kernel alone spreads eight this evenly in seven of ten cases, and ten times in a row in one of
    // thirty.
    for _ in 0..10 {
        let mut connections = Vec::new();
        for _ in 0..8 {
            let mut connection = gateway.connect().await;
            assert_eq!(connection.send(order()).await.status, 202);
            connections.push(connection);
        }
        let first = figure(&gateway, "flowgate_worker_connections{worker=\"0\"}").await;
        let second = figure(&gateway, "flowgate_worker_connections{worker=\"1\"}").await;
        assert_eq!(first + second, 8);
        assert!(first.abs_diff(second) <= 2, "{first} and {second}");
        drop(connections);
        until(&gateway, "flowgate_connections", 0).await;
    }
}
