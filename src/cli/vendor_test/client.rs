//! Sends one request to a gateway: to the first listener of the settings on this machine, or where it is said to be. A credential
//! leaves only after the gateway has shown a certificate of the settings, or one that this machine trusts.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::doctor::{at_home, looking, unconnected};
use crate::outbound::Trust;
use crate::settings::{Config, RouteSettings, Transport};

/// Far more than the answer to a check has.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

pub(super) struct Destination {
    /// Host and port to connect to.
    host: String,
    port: u16,
    transport: Channel,
    /// Scheme and host as callers know the route.
    base: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channel {
    Plain,
    /// Only with a certificate of the settings.
    Own,
    /// Also with one that this machine trusts.
    Elsewhere,
}

#[derive(Debug)]
pub(super) struct Received {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.transport == Channel::Plain {
            "http"
        } else {
            "https"
        };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl Destination {
    pub(super) fn of(config: &Config, route: &RouteSettings, to: Option<&str>) -> Result<Self, String> {
        let (host, port, transport) = match to {
            Some(to) => elsewhere(to)?,
            None => own(config)?,
        };
        let name = || certificate_name(config).unwrap_or_else(|| host.clone());
        let base = match &route.public_url {
            Some(url) => url.with(""),
            None => format!("https://{}", name()),
        };
        Ok(Self {
            host,
            port,
            transport,
            base,
        })
    }

    /// The address of a path as callers know it, which some vendors sign.
    pub(super) fn url_of(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Path and query of such an address.
    pub(super) fn target_of<'u>(&self, url: &'u str) -> &'u str {
        url.strip_prefix(&self.base).unwrap_or(url)
    }

    /// The value of the Host field.
    pub(super) fn host(&self) -> &str {
        self.base.strip_prefix("https://").unwrap_or(&self.base)
    }

    pub(super) async fn send(
        &self,
        config: &Config,
        request: Request<Full<Bytes>>,
    ) -> Result<Received, String> {
        match self.transport {
            Channel::Plain => exchange(self.connect().await?, request).await,
            Channel::Own | Channel::Elsewhere => exchange(self.secure(config).await?, request).await,
        }
    }

    async fn connect(&self) -> Result<TcpStream, String> {
        let host = self.host.trim_matches(['[', ']']);
        let tcp = TcpStream::connect((host, self.port)).await;
        tcp.map_err(|error| unconnected(&error))
    }

    /// A TLS connection to a peer that is the gateway of the settings, as far as its certificate says.
    async fn secure(&self, config: &Config) -> Result<TlsStream<TcpStream>, String> {
        let known = looking().map_err(|error| error.to_string())?;
        let stream = self.handshake(Arc::new(known)).await?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        match leaf.is_some_and(|leaf| leaves(config).any(|own| own == leaf)) {
            true => return Ok(stream),
            false if self.transport == Channel::Own => {
                let why = "what answers there shows another certificate than those of the settings, so nothing was sent";
                return Err(why.to_owned());
            }
            false => {}
        }
        let trusted = Trust::System.explaining_client_config();
        self.handshake(Arc::new(trusted.map_err(|error| error.to_string())?))
            .await
    }

    async fn handshake(&self, tls: Arc<rustls::ClientConfig>) -> Result<TlsStream<TcpStream>, String> {
        let authority = self.host();
        let name = match authority.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => authority,
        };
        let name = ServerName::try_from(name.trim_matches(['[', ']']).to_owned());
        let name = name.map_err(|_| format!("{authority} is no name for a certificate"))?;
        let connected = TlsConnector::from(tls).connect(name, self.connect().await?).await;
        connected.map_err(|error| format!("no TLS handshake: {error}"))
    }
}

fn leaves(config: &Config) -> impl Iterator<Item = &CertificateDer<'static>> {
    let transports = config.listeners.iter().map(|listener| &listener.transport);
    let certificates = transports.flat_map(|transport| match transport {
        Transport::Tls(tls) => tls.certificates.as_slice(),
        Transport::Plain { .. } => &[],
    });
    certificates.filter_map(|certificate| certificate.key.cert.first())
}

/// A name of a certificate of the settings, under which a route without a host is known.
fn certificate_name(config: &Config) -> Option<String> {
    config
        .listeners
        .iter()
        .find_map(|listener| match &listener.transport {
            Transport::Tls(tls) => {
                let names = tls.certificates.iter().flat_map(|certificate| &certificate.names);
                names.map(|name| name.replacen('*', "flowgate-test", 1)).next()
            }
            Transport::Plain { .. } => None,
        })
}

fn own(config: &Config) -> Result<(String, u16, Channel), String> {
    let Some(listener) = config.listeners.first() else {
        return Err("the settings have no listener".to_owned());
    };
    let address = at_home(listener.address);
    if address.port() == 0 {
        return Err(
            "the system chooses the port of the listener; name it with --to https://localhost:PORT"
                .to_owned(),
        );
    }
    let transport = match &listener.transport {
        Transport::Tls(_) => Channel::Own,
        Transport::Plain { .. } => Channel::Plain,
    };
    Ok((host_of(address), address.port(), transport))
}

fn host_of(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn elsewhere(to: &str) -> Result<(String, u16, Channel), String> {
    let invalid =
        || format!("--to \"{to}\" is no address of a gateway; write https://HOST:PORT, without a path");
    let uri: Uri = to.parse().map_err(|_| invalid())?;
    let host = uri.host().ok_or_else(invalid)?.to_owned();
    let is_bare = uri.path() == "/"
        && uri.query().is_none()
        && uri
            .authority()
            .is_some_and(|authority| !authority.as_str().contains('@'));
    if !is_bare {
        return Err(invalid());
    }
    if uri.scheme() == Some(&Scheme::HTTPS) {
        return Ok((host, uri.port_u16().unwrap_or(443), Channel::Elsewhere));
    }
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let is_here = host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
    match uri.scheme() == Some(&Scheme::HTTP) && is_here {
        true => Ok((host, uri.port_u16().unwrap_or(80), Channel::Plain)),
        false => Err(format!(
            "{}; plain http only to this machine: a credential is sent",
            invalid()
        )),
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Received, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let text = |error: hyper::Error| format!("the connection broke: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let asking = async {
        let (head, body) = sender.send_request(request).await.map_err(text)?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        Ok(Received {
            status: head.status,
            headers: head.headers,
            // What a flow answers may be larger, and is not printed.
            body: body.map(|body| body.to_bytes()).unwrap_or_default(),
        })
    };
    tokio::pin!(connection);
    tokio::pin!(asking);
    tokio::select! {
        answer = &mut asking => answer,
        // What was read before the connection ended may be complete.
        _ = &mut connection => asking.await,
    }
}
