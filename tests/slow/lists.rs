//! The memory that long lists cost, compared with short ones.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::crowd::{TURNS, world};
use crate::emulator::Answer as Flow;
use crate::emulator::Trigger;
use crate::emulator::certs::server_name;
use crate::harness::{TENANT, digest};
use crate::program::Program;

const KEYS: u32 = 100_000;
const NETWORKS: u32 = 10_000;
/// A key takes 44 bytes with its digest and label, and 9 bytes for its index; a network takes 8. That is 6
/// MB; the rest is memory that cannot be released because something in use is allocated behind it.
const BYTES_MAX: u64 = 12_000_000;

/// The memory of the program with this many keys and networks, after requests with the first and the last
/// key.
async fn memory(keys: u32, networks: u32) -> u64 {
    let world = world();
    let flow = Trigger::any_user(TENANT).unchecked().does(Flow::Accepted);
    let trigger = world.emulator.flow.add(flow);
    let lines: String = (0..keys)
        .map(|number| format!("key-{number} {}\n", digest(&number.to_string())))
        .collect();
    world.file("keys.txt", &lines);
    // No network is adjacent to another, so they cannot be merged.
    let others = (1..networks).map(|number| format!("{}/24\n", Ipv4Addr::from(0x0a00_0000 + number * 512)));
    world.file("networks.txt", &(others.collect::<String>() + "127.0.0.0/8\n"));
    let caller = "[[caller]]\nname = \"many\"\nkeys_file = \"keys.txt\"\nnetworks_file = \"networks.txt\"\n";
    let route = world.route(
        "orders",
        "/orders",
        &trigger.url(),
        "callers = [\"many\", \"shop\"]\n",
    );
    let base = world.base();
    let program = Program::start(&world, &format!("log.format = \"json\"\n{base}{caller}{route}"));
    let tls = TlsConnector::from(Arc::new(world.emulator.ca.client_config(&["http/1.1"])));
    for key in [0, keys - 1] {
        let tcp = TcpStream::connect(program.address).await.unwrap();
        let mut stream = tls.connect(server_name("localhost"), tcp).await.unwrap();
        let request = format!(
            "POST /orders HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 202 "), "{key}: {answer}");
    }
    program.memory()
}

#[tokio::test]
async fn a_hundred_thousand_keys_and_ten_thousand_networks_take_little_memory() {
    let _turn = TURNS.acquire().await.unwrap();
    let few = memory(1, 1).await;
    let many = memory(KEYS, NETWORKS).await;
    println!("long lists cost {} bytes", many.saturating_sub(few));
    assert!(
        many <= few + BYTES_MAX,
        "{many} bytes with long lists, {few} with short ones"
    );
}
