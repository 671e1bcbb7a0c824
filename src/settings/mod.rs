//! The checked settings as plain data, and the one way to get them: [`load`]. Values here cannot be wrong any more;
//! machines are built from them one floor up, and no setting is looked up by text after that.

mod check;
mod defaults;
mod digest;
pub mod edit;
mod file;
mod files;
mod fingerprint;
mod identity;
mod keys;
mod leaf;
mod lists;
mod mask;
mod mistake;
mod near;
mod pem;
mod pfx;
mod room;
#[cfg(feature = "pfx")]
mod rounds;
mod seal;
mod serving;
mod signing;
mod source;
mod trigger;
mod trust;
mod vault;
mod verifier;
mod workload;

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderName, Method};
use ipnet::IpNet;
use rustls::sign::CertifiedKey;

pub use check::{load, parse};
pub use digest::KeyDigest;
pub use file::schema;
pub use files::{FileInForce, FileState};
pub use fingerprint::SettingsDigest;
pub use identity::{
    ClientProof, ClientSecret, EndpointSettings, GrantSettings, IdentityRole, IdentitySettings,
};
pub use keys::{Dates, KeyList, Terms};
pub use mistake::{Mistake, Report, Severity, Style};
pub use seal::check_seal;
pub use serving::CertificateSource;
pub use signing::{AssertionAlgorithm, ChainShown, ClientCertificate, SigningCertificate};
pub use source::{Environment, SecretSource, Secrets, VaultValue};
pub use trigger::TriggerSource;
pub use trust::{Trust, TrustError, provider};
pub use vault::{KeyVaultSettings, VaultReference};
pub use verifier::refused_certificate;
pub use workload::{
    AssertionSource, DefaultSettings, EXCHANGE_AUDIENCE, FederatedSettings, ManagedSettings, ManagedSource,
    Selector, UNRESOLVED,
};

use crate::model::{CallerName, IdentityName, KeyLabel, RouteName, Secret, TriggerUrl};

/// Everything the settings say, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Public listeners; at least one.
    pub listeners: Vec<ListenerSettings>,
    /// The admin listener, unless it is switched off.
    pub admin: Option<AdminSettings>,
    /// Worker threads, one runtime each.
    pub workers: usize,
    /// Limits and deadlines of connections.
    pub connections: ConnectionSettings,
    /// Limits and deadlines of bodies.
    pub bodies: BodySettings,
    /// Limits that do not belong to one route or caller.
    pub quotas: QuotaSettings,
    /// What is logged, and how.
    pub log: LogSettings,
    /// Secret mixed into key digests of the form `hmac-sha256:`.
    pub key_pepper: Option<Secret>,
    /// Where the pepper can be read again.
    pub key_pepper_source: Option<SecretSource>,
    /// How secrets in key vaults are read, if there are any.
    pub keyvault: Option<KeyVaultSettings>,
    /// Entra identities.
    pub identities: Vec<IdentitySettings>,
    /// Callers.
    pub callers: Vec<CallerSettings>,
    /// Routes; at least one.
    pub routes: Vec<RouteSettings>,
    /// By what two readings of the settings are compared.
    pub digest: SettingsDigest,
    /// The settings file and the list files that these settings were read from.
    pub files: Vec<FileInForce>,
}

/// One address on which callers are served.
#[derive(Debug, Clone)]
pub struct ListenerSettings {
    /// Address to bind.
    pub address: SocketAddr,
    /// TLS or, when asked for in so many words, plain HTTP.
    pub transport: Transport,
    /// Path answered with 200 while the gateway is ready and 503 otherwise, without any check of the caller.
    pub health_path: Option<String>,
}

/// What a listener speaks.
#[derive(Debug, Clone)]
pub enum Transport {
    /// TLS 1.2 and 1.3; HTTP by ALPN.
    Tls(TlsSettings),
    /// HTTP/1.1 without TLS, for peers of these networks only.
    Plain {
        /// Networks whose peers are served; everybody else is cut at once.
        from: Vec<IpNet>,
        /// Who these peers are.
        peers: Peers,
    },
}

/// Who connects to a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peers {
    /// Callers themselves: the address of the peer is the caller's.
    Callers,
    /// A load balancer that ends TLS: all callers have its address.
    Balancer,
}

/// Certificates and protocols of a TLS listener.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// Certificates; the first with `default` set, or else the first of all, serves unknown names.
    pub certificates: Vec<Certificate>,
    /// Index in `certificates` of the one that serves unknown names and callers without SNI.
    pub default_certificate: usize,
    /// Whether HTTP/2 is offered by ALPN beside HTTP/1.1.
    pub http2: Http2,
}

/// Whether HTTP/2 is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http2 {
    /// Offered by ALPN, preferred over HTTP/1.1.
    Offered,
    /// Not offered.
    Off,
}

/// A certificate chain with its key and the names it serves.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Chain and signing key, checked to belong together.
    pub key: Arc<CertifiedKey>,
    /// Lower-case DNS names; `*.` stands for one label.
    pub names: Vec<String>,
    /// Start of validity of the leaf.
    pub not_before: SystemTime,
    /// End of validity of the leaf.
    pub not_after: SystemTime,
    /// Where it can be read again.
    pub source: Arc<CertificateSource>,
}

/// The listener for health, readiness and metrics.
#[derive(Debug, Clone)]
pub struct AdminSettings {
    /// Address to bind; loopback unless set otherwise.
    pub address: SocketAddr,
    /// Names that it may be asked by, in lower case, besides IP addresses and `localhost`.
    pub hosts: Arc<[String]>,
    /// What `/readyz` asks for.
    pub ready_requires: ReadyRequires,
}

/// What must work before the gateway calls itself ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadyRequires {
    /// At least one route can serve.
    AnyRoute,
    /// Every route can serve.
    AllRoutes,
}

/// Limits and deadlines of connections.
#[derive(Debug, Clone)]
pub struct ConnectionSettings {
    /// Open connections on all listeners together.
    pub connections_max: usize,
    /// Open connections of one address (IPv6: of one /64).
    pub per_address_max: usize,
    /// Networks whose peers may open more than that.
    pub per_address_exempt: Vec<IpNet>,
    /// Time for the TLS handshake.
    pub handshake_timeout: Duration,
    /// Time from the first byte of a request head to its end.
    pub head_timeout: Duration,
    /// Largest request head in bytes.
    pub head_bytes_max: usize,
    /// Longest request target in bytes.
    pub target_bytes_max: usize,
    /// Most header fields in a request head.
    pub headers_max: usize,
    /// Time a connection may stay open without a request.
    pub idle_timeout: Duration,
    /// Time in which a peer must take some of an answer that waits for it.
    pub write_timeout: Duration,
    /// Age at which a connection is closed after the request it is serving.
    pub age_max: Duration,
    /// Concurrent HTTP/2 streams of one connection.
    pub streams_max: u32,
    /// Receive window of an HTTP/2 stream; bytes.
    pub stream_window: u32,
    /// Receive window of an HTTP/2 connection; bytes.
    pub connection_window: u32,
    /// Time running requests get to finish after the gateway was told to stop.
    pub drain_timeout: Duration,
}

/// Limits and deadlines of bodies.
#[derive(Debug, Clone)]
pub struct BodySettings {
    /// Time for a whole held body, and between two pieces of a streamed one.
    pub timeout: Duration,
    /// Least bytes a second that a caller must send on average, if there is such a limit.
    pub rate_min: Option<NonZeroU64>,
    /// Time a caller may keep the gateway waiting before that.
    pub rate_grace: Duration,
    /// Bytes a second by which a streamed body must be whole, if there is such a limit.
    pub stream_rate_min: Option<NonZeroU64>,
    /// Bodies up to this size are read whole before an upstream connection is taken; bytes.
    pub hold_bytes_max: usize,
    /// Bytes of held bodies in memory at one time, over all requests.
    pub held_bytes_budget: usize,
}

/// A rate with a burst (generic cell rate algorithm).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests allowed in each `per` on the long run; at least 1.
    pub requests: u32,
    /// The window in which `requests` are allowed; above zero.
    pub per: Duration,
    /// Requests that may come at once; at least 1.
    pub burst: u32,
}

/// Limits that do not belong to one route or caller.
#[derive(Debug, Clone)]
pub struct QuotaSettings {
    /// All requests whose caller may call, together.
    pub gateway: Option<Rate>,
    /// Failed authentications of one address (IPv6: of one /64).
    pub failed_authentications: Rate,
    /// Addresses whose failures are remembered one by one; more share a fixed number of cells.
    pub addresses_max: usize,
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// Form of the lines.
    pub format: LogFormat,
    /// Whether each request gets its line.
    pub access: AccessLog,
    /// Least level of the lines that are not about one request.
    pub level: tracing::Level,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// Text for people.
    Text,
}

/// Whether each request gets its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    /// One line a request.
    On,
    /// None; connection lines and changes of state are still logged.
    Off,
}

/// Who calls.
#[derive(Debug, Clone)]
pub struct CallerSettings {
    /// Its name in limits, log and headers.
    pub name: CallerName,
    /// Its keys; a caller without any is known by its networks alone.
    pub keys: Arc<KeyList>,
    /// Networks it may call from.
    pub networks: NetworkSettings,
    /// Its rate over all routes.
    pub rate: Option<Rate>,
}

/// One key of a caller.
#[derive(Debug, Clone)]
pub struct KeySettings {
    /// Tells it apart in log and headers.
    pub label: KeyLabel,
    /// Digest of the key.
    pub digest: KeyDigest,
    /// It is refused before this moment.
    pub not_before: Option<SystemTime>,
    /// It is refused from this moment on.
    pub expires: Option<SystemTime>,
    /// Whether it is accepted at all.
    pub state: KeyState,
}

/// Whether a key is accepted at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Accepted within its dates.
    Enabled,
    /// Refused, and named in the log when it is shown.
    Disabled,
}

/// Networks that are let in and kept out. Denial wins; an empty `allow` lets in every address not denied.
#[derive(Debug, Clone, Default)]
pub struct NetworkSettings {
    /// Let in.
    pub allow: Vec<IpNet>,
    /// Kept out.
    pub deny: Vec<IpNet>,
}

/// A public address and the flow behind it.
#[derive(Debug, Clone)]
pub struct RouteSettings {
    /// Its name in limits, log and metrics.
    pub name: RouteName,
    /// Host it answers for, lower-case, without port; every host when absent.
    pub host: Option<String>,
    /// Path template in matchit's form: `/orders/{id}`, `/files/{*rest}`.
    pub path: String,
    /// Methods; at least one.
    pub methods: Vec<Method>,
    /// Who may call.
    pub callers: CallersSettings,
    /// Networks that may call, whoever the caller is.
    pub networks: NetworkSettings,
    /// Places a key is read from.
    pub key_places: Vec<KeyPlace>,
    /// Its rate over all callers.
    pub rate: Option<Rate>,
    /// Largest body in bytes.
    pub body_bytes_max: u64,
    /// What stands behind it.
    pub kind: RouteKind,
    /// How the trigger is convinced.
    pub proof: Proof,
    /// Object ids on the trigger's list, as far as they are known.
    pub object_ids: Vec<String>,
    /// What happens to calls while a claim of the token cannot match.
    pub on_claim_mismatch: ClaimMismatch,
    /// Address of the trigger, or of the API. For people there is [`RouteSettings::trigger_shown`]: a placeholder stands
    /// here for one that was not read.
    pub trigger: TriggerUrl,
    /// Where that address can be read again, if it does not stand in the settings themselves.
    pub trigger_source: Option<TriggerSource>,
    /// Whether the rest of the public path becomes the trigger's relative path.
    pub relative_path: RelativePath,
    /// Query parameters of the caller that go on.
    pub query: QueryPass,
    /// What of an API may be asked for to see whether it answers.
    pub probe: Option<String>,
    /// Upstream connections.
    pub upstream: UpstreamSettings,
}

impl RouteSettings {
    /// The address of the trigger, or of the API, without its secrets; where it lies, as the settings say it, if it was
    /// not read.
    pub fn trigger_shown(&self) -> String {
        match &self.trigger_source {
            Some(source) if source.source().known().is_none() => mask::reference(source.written()),
            _ => self.trigger.to_string(),
        }
    }
}

/// What stands behind a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteKind {
    /// The trigger of a flow.
    Flow,
    /// An API that wants a token, and what of it may be asked for: templates for what follows its own path, in matchit's
    /// form. None, where the route's path has no `{*rest}`, so that one address is all there is.
    Api(Vec<String>),
}

/// Who may call a route.
#[derive(Debug, Clone)]
pub enum CallersSettings {
    /// Only these.
    Named(Vec<CallerName>),
    /// Everybody, as the settings say in so many words; networks and limits still hold.
    Anonymous,
}

/// A place where a key is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPlace {
    /// The whole value of a header field.
    Header(HeaderName),
    /// `Authorization` with any scheme or none: what follows the scheme.
    Authorization,
    /// `Authorization: Basic` (RFC 7617): the password.
    Basic,
}

/// How the trigger is convinced to start a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A bearer token of this identity.
    Identity(IdentityName),
    /// The signature in the trigger's own address.
    Signed,
}

/// What happens to calls while a claim of the token cannot match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimMismatch {
    /// They go to the flow all the same: the token was only read, not verified.
    Try,
    /// They are refused, and the token stays here.
    Refuse,
}

/// What happens to the trailing `{*rest}` of a route's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelativePath {
    /// It only selects the route.
    Dropped,
    /// It is appended to the trigger's path.
    Appended,
}

/// Query parameters of the caller that go on to the trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryPass {
    /// None.
    None,
    /// These names.
    Named(Vec<String>),
    /// All but the trigger's own.
    All,
}

/// Connections to one trigger.
#[derive(Debug, Clone)]
pub struct UpstreamSettings {
    /// Certificates trusted for the trigger.
    pub trust: Trust,
    /// Address to connect to in place of what the trigger's name resolves to.
    pub connect_to: Option<SocketAddr>,
    /// Requests to the trigger at one time.
    pub in_flight_max: usize,
    /// Requests that may wait for one of those.
    pub waiting_max: usize,
    /// Time a request may wait.
    pub waiting_timeout: Duration,
    /// Time for name look-up, TCP and TLS together.
    pub connect_timeout: Duration,
    /// Time from the last byte of the request to the head of the answer, and between two pieces of its body.
    pub response_timeout: Duration,
    /// Time an unused connection is kept.
    pub idle_timeout: Duration,
}
