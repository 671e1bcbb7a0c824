//! Callers that leave Nagle's algorithm on: the kernel sends their next small piece only after the last one was
//! acknowledged, and delays an acknowledgement that travels alone by 40 ms.

use std::sync::Arc;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::emulator::certs::server_name;
use crate::harness::{Running, World};
use crate::listening::{Talk, order_bytes, served};

/// Other load slows single tries down, and never makes one faster.
const TRIES: usize = 20;
/// Half of what one delayed acknowledgement takes.
const QUICK: Duration = Duration::from_millis(20);

fn client(world: &World, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(world.emulator.ca.roots())
        .with_no_client_auth();
    Arc::new(config)
}

/// The time of a connection's first request whose head and body are written separately.
async fn first_request(gateway: &Running, config: Arc<ClientConfig>) -> (Duration, HandshakeKind) {
    let tcp = TcpStream::connect(gateway.address).await.unwrap();
    assert!(!tcp.nodelay().unwrap(), "the caller leaves Nagle's algorithm on");
    let stream = TlsConnector::from(config).connect(server_name("localhost"), tcp);
    let stream = stream.await.unwrap();
    let handshake = stream.get_ref().1.handshake_kind().unwrap();
    let mut talk = Talk::new(stream);
    let request = order_bytes("");
    let (head, body) = request.split_at(request.len() - 2);
    let began = Instant::now();
    talk.say(head).await;
    talk.say(body).await;
    assert_eq!(talk.hear().await.status, 202);
    (began.elapsed(), handshake)
}

#[tokio::test]
async fn the_first_request_waits_for_no_delayed_acknowledgement() {
    let (world, gateway, _) = served("").await;
    gateway.ready().await;
    for version in [&TLS13, &TLS12] {
        let resuming = client(&world, version);
        let mut fastest = [Duration::MAX; 2];
        for attempt in 0..=TRIES {
            let (full, kind) = first_request(&gateway, client(&world, version)).await;
            assert_ne!(kind, HandshakeKind::Resumed);
            let (resumed, kind) = first_request(&gateway, resuming.clone()).await;
            if attempt > 0 {
                assert_eq!(kind, HandshakeKind::Resumed, "{version:?}");
                fastest = [fastest[0].min(full), fastest[1].min(resumed)];
            }
        }
        assert!(
            fastest.iter().all(|time| *time < QUICK),
            "{version:?}: full and resumed take {fastest:?}"
        );
    }
}
