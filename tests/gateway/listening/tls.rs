//! Versions, certificates by name, protocols by ALPN.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ProtocolVersion, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::emulator::certs::server_name;
use crate::emulator::{KeyKind, Leaf};
use crate::harness::{Running, World};
use crate::listening::{Talk, order_bytes, served};

async fn connect(gateway: &Running, config: ClientConfig, name: ServerName<'static>) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(gateway.address).await.unwrap();
    let tls = TlsConnector::from(Arc::new(config));
    tls.connect(name, tcp).await.unwrap()
}

/// A client that supports only this version.
fn only(world: &World, version: &'static SupportedProtocolVersion) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(world.emulator.ca.roots())
        .with_no_client_auth()
}

/// The certificate that a client gets for this name.
async fn shown(world: &World, gateway: &Running, name: ServerName<'static>) -> CertificateDer<'static> {
    let stream = connect(gateway, world.emulator.ca.client_config(&["http/1.1"]), name).await;
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    chain[0].clone().into_owned()
}

/// The settings of a certificate for these names; none means those in the certificate.
fn block(world: &World, leaf: &Leaf, file: &str, keys: &str) -> String {
    let files = leaf.write(world.dir(), file).unwrap();
    let key = files.key.display();
    format!(
        "[[listener.certificate]]\nchain = {:?}\nkey = \"file:{key}\"\n{keys}\n",
        files.chain
    )
}

/// A gateway whose listener has these certificates instead of the usual one.
fn start(world: &World, certificates: &str) -> Running {
    let settings = world.base().replace(&world.certificate(), certificates);
    let route = world.route("orders", "/orders", "https://localhost:9/", "");
    world.start(&format!("{settings}{route}"))
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken() {
    let (world, gateway, trigger) = served("").await;
    let versions = [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ];
    for (version, name) in versions {
        let stream = connect(&gateway, only(&world, version), server_name("localhost")).await;
        assert_eq!(stream.get_ref().1.protocol_version(), Some(name));
        let mut talk = Talk::new(stream);
        talk.say(order_bytes("")).await;
        assert_eq!(talk.hear().await.status, 202, "{name:?}");
    }
    assert_eq!(trigger.runs(), 2);
}

#[tokio::test]
async fn rsa_and_ecdsa_certificates_serve_in_both_versions() {
    let world = World::new().await;
    for (kind, file) in [(KeyKind::Rsa2048, "rsa"), (KeyKind::EcdsaP256, "ecdsa")] {
        let leaf = world.emulator.ca.leaf_with(&["localhost"], kind);
        let gateway = start(&world, &block(&world, &leaf, file, ""));
        for version in [&TLS12, &TLS13] {
            let stream = connect(&gateway, only(&world, version), server_name("localhost")).await;
            let shown = stream.get_ref().1.peer_certificates().unwrap();
            assert_eq!(shown[0], leaf.chain[0], "{kind:?} {version:?}");
        }
    }
}

#[tokio::test]
async fn intermediate_certificates_are_sent_along() {
    let world = World::new().await;
    let leaf = world.emulator.ca.intermediate().leaf(&["localhost"]);
    let gateway = start(&world, &block(&world, &leaf, "chain", ""));
    let config = world.emulator.ca.client_config(&[]);
    let stream = connect(&gateway, config, server_name("localhost")).await;
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap(), leaf.chain);
}

#[tokio::test]
async fn each_name_gets_its_certificate_and_strangers_the_default() {
    let world = World::new().await;
    let others = [
        "other.example",
        "127.0.0.1",
        "a.wild.example",
        "b.a.wild.example",
        "wild.example",
    ];
    let one = world.emulator.ca.leaf(&[&["one.example"][..], &others].concat());
    let two = world.emulator.ca.leaf(&[&["two.example"][..], &others].concat());
    let wild = world.emulator.ca.leaf(&["*.wild.example"]);
    let gateway = start(
        &world,
        &[
            block(&world, &one, "one", "names = [\"one.example\"]"),
            block(&world, &two, "two", "names = [\"two.example\"]\ndefault = true"),
            block(&world, &wild, "wild", ""),
        ]
        .concat(),
    );
    for (name, leaf) in [
        ("one.example", &one),
        ("ONE.example", &one),
        ("two.example", &two),
        ("other.example", &two),
        ("a.wild.example", &wild),
        // A wildcard matches exactly one label.
        ("b.a.wild.example", &two),
        ("wild.example", &two),
    ] {
        let shown = shown(&world, &gateway, server_name(name)).await;
        assert_eq!(shown, leaf.chain[0], "{name}");
    }
    // A client that connects to an IP address sends no name.
    let number = ServerName::from(gateway.address.ip());
    assert_eq!(shown(&world, &gateway, number).await, two.chain[0]);
}

#[tokio::test]
async fn the_first_certificate_is_the_default_unless_another_says_so() {
    let world = World::new().await;
    let one = world.emulator.ca.leaf(&["one.example", "other.example"]);
    let two = world.emulator.ca.leaf(&["two.example", "other.example"]);
    let gateway = start(
        &world,
        &[
            block(&world, &one, "one", "names = [\"one.example\"]"),
            block(&world, &two, "two", "names = [\"two.example\"]"),
        ]
        .concat(),
    );
    let shown = shown(&world, &gateway, server_name("other.example")).await;
    assert_eq!(shown, one.chain[0]);
}

/// The protocol agreed with a client that offers these.
async fn agreed(world: &World, gateway: &Running, offered: &[&str]) -> Option<String> {
    let config = world.emulator.ca.client_config(offered);
    let stream = connect(gateway, config, server_name("localhost")).await;
    let protocol = stream.get_ref().1.alpn_protocol()?;
    Some(String::from_utf8(protocol.to_vec()).unwrap())
}

#[tokio::test]
async fn the_protocol_is_agreed_on_by_alpn() {
    let (world, gateway, _) = served("").await;
    for (offered, expected) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        assert_eq!(
            agreed(&world, &gateway, offered).await.as_deref(),
            expected,
            "{offered:?}"
        );
    }
}

#[tokio::test]
async fn without_alpn_http_1_is_spoken() {
    let (world, gateway, _) = served("").await;
    let config = world.emulator.ca.client_config(&[]);
    let mut talk = Talk::new(connect(&gateway, config, server_name("localhost")).await);
    talk.say(order_bytes("")).await;
    let answer = talk.hear().await;
    assert_eq!(answer.status, 202);
    assert_eq!(gateway.lines.of(&answer).await["protocol"], "h1");
}

#[tokio::test]
async fn the_http2_preface_without_alpn_is_not_taken_for_http2() {
    let (world, gateway, trigger) = served("").await;
    let config = world.emulator.ca.client_config(&["http/1.1"]);
    let mut talk = Talk::new(connect(&gateway, config, server_name("localhost")).await);
    talk.say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await;
    let heard = talk.rest().await;
    assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 4"), "{heard:?}");
    assert_eq!(trigger.request_count().get(), 0);
}

#[tokio::test]
async fn http2_can_be_switched_off() {
    let world = World::new().await;
    let settings = world.base().replace(
        "[[listener.certificate]]",
        "http2 = false\n[[listener.certificate]]",
    );
    let route = world.route("orders", "/orders", "https://localhost:9/", "");
    let gateway = world.start(&format!("{settings}{route}"));
    assert_eq!(
        agreed(&world, &gateway, &["h2", "http/1.1"]).await.as_deref(),
        Some("http/1.1")
    );
}
