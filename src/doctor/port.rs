//! Checks the ports that serve callers: whether something accepts connections, whether it is a gateway, and
//! whether it presents the configured certificate. It sends a request without a `Host`, which every gateway
//! refuses before it looks for a route, so nothing behind it is reached.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::doctor::network::CertificateFacts;
use crate::doctor::report::Check;
use crate::doctor::running::{Running, at_home, holds, unconnected};
use crate::model::{FixedBy, Remedy};
use crate::outbound::provider;
use crate::settings::{Certificate, Config, ListenerSettings, TlsSettings, Transport};

const NAME: &str = "port";
/// Time limit; a gateway on this machine answers at once, however busy the machine is.
const TIMEOUT: Duration = Duration::from_secs(10);
/// More than the head of any refusal.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const CERTIFICATES_MAX: usize = 50;

/// A request without a `Host`, which RFC 9112 section 3.2 requires every server to refuse.
const QUESTION: &[u8] = b"GET / HTTP/1.1\r\nuser-agent: flowgate-doctor\r\nconnection: close\r\n\r\n";
/// A field of every answer of a gateway, with the value that it has when the gateway itself answers.
const MARK: &str = "x-flowgate-answer: gateway";

pub(super) async fn examine(config: &Config, running: &Running) -> Vec<Check> {
    // With port 0 the system chooses the port; only the running gateway knows which.
    let bound = running.with(config).map(|status| status.listeners.as_slice());
    let mut checks = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let address = bound.and_then(|bound| bound.get(index).copied());
        let address = address.unwrap_or(listener.address);
        if address.port() == 0 {
            let says = format!("{address}: the system chooses the port when the gateway starts");
            checks.push(
                Check::note(NAME, says)
                    .untested(format!("the listener {address} (set a port in its `address`)")),
            );
            continue;
        }
        let looked = tokio::time::timeout(TIMEOUT, look(listener, at_home(address))).await;
        let looked = looked.unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")));
        let found = looked.unwrap_or_else(PortState::Foreign);
        checks.push(judge(found, at_home(address), running, bound.is_some()));
    }
    checks
}

enum PortState {
    Nothing(String),
    /// A gateway that presents the configured certificates.
    Gateway,
    /// A gateway that presents another certificate for this name.
    Differs(String, Option<CertificateFacts>),
    /// Another program, and how that is known.
    Foreign(String),
    /// A listener whose `plain_http_from` does not include this host.
    KeptOut,
}

/// What serves there, or how it is known that another program does.
async fn look(listener: &ListenerSettings, address: SocketAddr) -> Result<PortState, String> {
    let tcp = match TcpStream::connect(address).await {
        Ok(tcp) => tcp,
        Err(error) => return Ok(PortState::Nothing(unconnected(&error))),
    };
    match &listener.transport {
        Transport::Plain { from, .. } => {
            let ours = tcp.local_addr().map(|local| local.ip().to_canonical());
            if !ours.is_ok_and(|ours| from.iter().any(|network| network.contains(&ours))) {
                return Ok(PortState::KeptOut);
            }
            question(tcp).await.map(|()| PortState::Gateway)
        }
        Transport::Tls(tls) => look_at_certificates(tls, tcp, address).await,
    }
}

/// Requests each certificate by its first name; the first connection also asks who answers.
async fn look_at_certificates(
    tls: &TlsSettings,
    tcp: TcpStream,
    address: SocketAddr,
) -> Result<PortState, String> {
    let config = looking().map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(Arc::new(config));
    let mut first = Some(tcp);
    let mut differs = None;
    for certificate in tls.certificates.iter().take(CERTIFICATES_MAX) {
        let (tcp, is_first) = match first.take() {
            Some(tcp) => (tcp, true),
            None => {
                let tcp = TcpStream::connect(address).await;
                (tcp.map_err(|error| error.to_string())?, false)
            }
        };
        let (shown_as, name) = name_of(certificate, address);
        // Boxed: the handshake's state is large.
        let stream = Box::pin(connector.connect(name, tcp)).await;
        let stream = stream.map_err(|error| format!("no TLS handshake: {error}"))?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let leaf = chain.first();
        if differs.is_none() && leaf != certificate.key.cert.first() {
            differs = Some((shown_as, leaf.and_then(CertificateFacts::read)));
        }
        if is_first {
            question(stream).await?;
        }
    }
    Ok(match differs {
        Some((name, leaf)) => PortState::Differs(name, leaf),
        None => PortState::Gateway,
    })
}

/// A name that the certificate covers, for messages and for TLS.
fn name_of(certificate: &Certificate, address: SocketAddr) -> (String, ServerName<'static>) {
    let first = certificate.names.first().map_or("", String::as_str);
    let plain = match first.strip_prefix("*.") {
        Some(parent) => format!("flowgate-doctor.{parent}"),
        None => first.to_owned(),
    };
    // Without a name the listener presents its default certificate.
    let name = ServerName::try_from(plain).unwrap_or(ServerName::IpAddress(address.ip().into()));
    (first.to_owned(), name)
}

async fn question(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), String> {
    let broken = |error: io::Error| format!("the connection broke: {error}");
    stream.write_all(QUESTION).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut head = Vec::new();
    while head.len() < HEAD_BYTES_MAX && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read_buf(&mut head).await {
            Ok(0) => break,
            Ok(_) => {}
            // A server may close without a TLS close_notify; what arrived before counts.
            Err(_) if !head.is_empty() => break,
            Err(error) => return Err(broken(error)),
        }
    }
    let head = String::from_utf8_lossy(&head);
    let is_ours = |line: &str| line.trim_end().eq_ignore_ascii_case(MARK);
    match head.lines().take_while(|line| !line.is_empty()).any(is_ours) {
        true => Ok(()),
        false if head.is_empty() => Err("it closed the connection without an answer".to_owned()),
        false => Err("its answer is not that of a Flowgate".to_owned()),
    }
}

fn judge(found: PortState, address: SocketAddr, running: &Running, is_known: bool) -> Check {
    match found {
        PortState::Gateway if is_known => Check::ok(
            NAME,
            format!("{address} is served by the gateway, as the settings say"),
        ),
        PortState::Gateway => {
            let says = format!("a Flowgate serves {address}");
            match running {
                // The check of the admin listener reports what is missing here.
                Running::Unaddressed(_) | Running::Here(..) | Running::Foreign(..) => Check::ok(NAME, says),
                Running::Silent(admin, _) => {
                    let says =
                        format!("{says}, and none at its admin address {admin}: it has other settings");
                    let what = "Restart it so that it reads these settings, or name with --config those it was started with.";
                    Check::warn(NAME, says, holds(address, what))
                }
            }
        }
        PortState::Nothing(why) => {
            let says = format!("nothing serves {address} ({why})");
            if !is_known {
                return Check::note(NAME, says).untested(format!(
                    "the listener {address} (start the gateway, then ask again)"
                ));
            }
            let what = "Look for a packet filter on this host; the gateway says that it listens there.";
            Check::fail(NAME, says, Remedy::new(FixedBy::HostAdmin, what))
        }
        PortState::Differs(name, leaf) => {
            let other = leaf.map_or_else(|| "one that cannot be read".to_owned(), |leaf| leaf.says());
            let says = format!(
                "{address} presents another certificate for {name} than the one of the settings: {other}"
            );
            let what = "A running gateway uses a new certificate from its file within a minute, and one from \
                        a variable after a restart; if this persists, look for `certificate` in its log.";
            Check::warn(NAME, says, Remedy::new(FixedBy::Operator, what))
                .untested(format!("the certificate of {address} (ask again in a minute)"))
        }
        PortState::Foreign(why) => {
            let says = format!("another program uses {address}: {why}");
            let what = "Stop that program, or set another `address` for the listener: the gateway cannot start there.";
            Check::fail(NAME, says, holds(address, what))
        }
        PortState::KeptOut => Check::note(
            NAME,
            format!("{address} serves other hosts than this one without TLS, so it was not tested"),
        )
        .untested(format!(
            "the listener {address} (ask it from a host that is in `plain_http_from`)"
        )),
    }
}

/// A TLS client that accepts every certificate, because it only inspects it: nothing confidential is sent. It
/// still verifies that the peer has the private key.
pub(crate) fn looking() -> Result<ClientConfig, rustls::Error> {
    let provider = provider();
    let verifier = Arc::new(AcceptAnyCertificate(provider.clone()));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[derive(Debug)]
struct AcceptAnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnyCertificate {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
