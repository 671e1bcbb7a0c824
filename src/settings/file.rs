//! The mirror of the settings file: one struct per table, every key optional, every leaf with its place in
//! the text. Unknown keys and wrong types are refused here; what values mean, and which keys must be there,
//! is for `check`. The doc comments are what an editor shows: they become the descriptions of the JSON
//! Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::settings::leaf::{At, Moment, Size, Span, Table};

type Text = Option<At<String>>;
type Texts = Option<At<Vec<At<String>>>>;
type Number = Option<At<u64>>;
type Switch = Option<At<bool>>;
type Length = Option<At<Span>>;
type Bytes = Option<At<Size>>;

/// Settings of Flowgate.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Flowgate")]
pub(super) struct File {
    /// The process as a whole.
    pub(super) gateway: Option<Table<Gateway>>,
    /// Limits and deadlines of connections.
    pub(super) connections: Option<Table<Connections>>,
    /// Limits and deadlines of bodies.
    pub(super) bodies: Option<Table<Bodies>>,
    /// Limits that belong neither to one route nor to one caller.
    pub(super) limits: Option<Table<Limits>>,
    /// The listener for health, readiness and metrics.
    pub(super) admin: Option<Table<Admin>>,
    /// What is logged, and how.
    pub(super) log: Option<Table<Log>>,
    /// What all API keys have in common.
    pub(super) keys: Option<Table<Keys>>,
    /// How secrets in Azure Key Vaults are read.
    pub(super) keyvault: Option<Table<KeyVault>>,
    /// Addresses on which callers are served; at least one.
    #[serde(default)]
    pub(super) listener: Vec<Table<Listener>>,
    /// Entra applications, or token files, whose tokens the flows accept.
    #[serde(default)]
    pub(super) identity: Vec<Table<Identity>>,
    /// Who may call.
    #[serde(default)]
    pub(super) caller: Vec<Table<Caller>>,
    /// Public addresses and the flows behind them; at least one.
    #[serde(default)]
    pub(super) route: Vec<Table<Route>>,
}

/// The process as a whole.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Gateway {
    /// Worker threads; default: one for each core.
    pub(super) workers: Number,
    /// Time running requests get to finish after the gateway was told to stop; default "30s".
    pub(super) drain_timeout: Length,
}

/// Limits and deadlines of connections.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Connections {
    /// Open connections on all listeners together; default 10000.
    pub(super) max: Number,
    /// Open connections of one address (IPv6: of one /64); default 1000.
    pub(super) per_address_max: Number,
    /// Networks whose peers may open more than that: your own load balancers and gateways; default: none.
    pub(super) per_address_exempt: Texts,
    /// Time for the TLS handshake; default "10s".
    pub(super) handshake_timeout: Length,
    /// Time from the first byte of a request head to its end; default "10s".
    pub(super) head_timeout: Length,
    /// Largest request head; default "32 KiB".
    pub(super) head_size_max: Bytes,
    /// Most header fields in a request; default 100.
    pub(super) headers_max: Number,
    /// Longest request target, path and query together; default "16 KiB", which is also the most a trigger accepts.
    pub(super) target_size_max: Bytes,
    /// Time a connection may stay open without a request; default "75s".
    pub(super) idle_timeout: Length,
    /// Time in which a caller must take some of the answer that waits for it; default "30s".
    pub(super) write_timeout: Length,
    /// Age at which a connection is closed after the request it is serving; default "1h".
    pub(super) age_max: Length,
    /// Concurrent streams of one HTTP/2 connection; default 100.
    pub(super) http2_streams_max: Number,
    /// Bytes a caller may send on one HTTP/2 stream before they are asked for; default "64 KiB".
    pub(super) http2_stream_window: Bytes,
    /// The same for all streams of a connection together; default "1 MiB".
    pub(super) http2_connection_window: Bytes,
}

/// Limits and deadlines of bodies.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Bodies {
    /// Time for a whole held body, and between two pieces of a streamed one; default "30s".
    pub(super) timeout: Length,
    /// Bytes a second that a caller must send on average while it is waited for; 0 for no such limit; default "240 B".
    pub(super) rate_min: Bytes,
    /// Time a caller may keep the gateway waiting for its body before that; default "5s".
    pub(super) rate_grace: Length,
    /// Bytes a second by which a streamed body must be whole, `rate_grace` not counted; 0 for no such limit; default
    /// "16 KiB".
    pub(super) stream_rate_min: Bytes,
    /// Bodies up to this size are read whole before the flow is called, larger ones are streamed; default "64
    /// KiB".
    pub(super) hold_size_max: Bytes,
    /// Memory for held bodies over all requests; one caller may hold as much of it as it leaves free, and those of routes
    /// without callers a quarter together; default "64 MiB".
    pub(super) held_budget: Bytes,
}

/// A rate with a burst.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RateTable {
    /// Requests allowed in each `per` on the long run.
    pub(super) requests: Number,
    /// The window, for example "1s" or "1m".
    pub(super) per: Length,
    /// Requests that may come at once; default: as many as `requests`.
    pub(super) burst: Number,
}

/// Limits that belong neither to one route nor to one caller.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    /// All requests whose caller may call, together; default 1000 per "1s", burst 2000.
    pub(super) gateway: Option<Table<RateTable>>,
    /// Failed authentications of one address (IPv6: of one /64); default 10 per "1m".
    pub(super) failed_authentications: Option<Table<RateTable>>,
    /// Addresses whose failures are remembered one by one; default 65536.
    pub(super) addresses_max: Number,
}

/// What must work before the gateway calls itself ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(super) enum Requires {
    /// At least one route can serve.
    AnyRoute,
    /// Every route can serve.
    AllRoutes,
}

/// The listener for health, readiness and metrics.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Admin {
    /// Address to listen on; default "127.0.0.1:9464".
    pub(super) address: Text,
    /// Names that it may be asked by, besides IP addresses and localhost; default: none.
    pub(super) hosts: Texts,
    /// Switches the listener off; default false.
    pub(super) off: Switch,
    /// What must work before `/readyz` answers 200: "any-route" (default) or "all-routes".
    pub(super) ready_requires: Option<At<Requires>>,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(super) enum Format {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// Text for people.
    Text,
}

/// Least level of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(super) enum Level {
    /// The gateway is at fault.
    Error,
    /// An operator must act.
    Warn,
    /// Changes of state.
    Info,
    /// Steps, for finding a mistake.
    Debug,
    /// Everything.
    Trace,
}

/// What is logged, and how.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    /// "auto" (text on a terminal, JSON elsewhere; default), "json" or "text".
    pub(super) format: Option<At<Format>>,
    /// Whether each request gets a line; default true.
    pub(super) access: Switch,
    /// Least level of the lines that are not about one request: "error", "warn", "info" (default), "debug",
    /// "trace".
    pub(super) level: Option<At<Level>>,
}

/// What all API keys have in common.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    /// Secret mixed into key digests of the form "hmac-sha256:"; a reference, "env:NAME", "file:PATH" or
    /// "keyvault:ADDRESS".
    pub(super) pepper: Text,
}

/// How secrets in Azure Key Vaults are read.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyVault {
    /// Name of the identity that reads them. Its own secrets lie elsewhere.
    pub(super) identity: Text,
    /// How often secrets are read again; default "1h".
    pub(super) period: Length,
    /// Time for one answer of a vault; default "10s".
    pub(super) timeout: Length,
    /// PEM file with the certificate authorities trusted for the vaults, in place of the system's.
    pub(super) ca_file: Text,
}

/// Why a listener speaks plain HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(super) enum PlainHttp {
    /// A load balancer before the gateway ends TLS.
    BehindTlsBalancer,
    /// All callers are in private networks.
    PrivateNetworks,
}

/// An address on which callers are served.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    /// Address to listen on, for example `0.0.0.0:8443` or `[::]:8443`.
    pub(super) address: Text,
    /// Whether HTTP/2 is offered beside HTTP/1.1; default true. Only with TLS.
    pub(super) http2: Switch,
    /// Path answered with 200 while the gateway is ready and 503 otherwise, without any check of the caller.
    pub(super) health_path: Text,
    /// Certificates, chosen by the name the caller asks for.
    #[serde(default)]
    pub(super) certificate: Vec<Table<CertificateTable>>,
    /// Plain HTTP in place of TLS: "behind-tls-balancer" or "private-networks".
    pub(super) plain_http: Option<At<PlainHttp>>,
    /// Networks whose peers are served in plain HTTP; everybody else is cut.
    pub(super) plain_http_from: Texts,
}

/// A certificate of a listener.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CertificateTable {
    /// PEM file with the certificate and, behind it, the intermediate certificates.
    pub(super) chain: Text,
    /// Private key in PEM form, not encrypted; a reference, "file:PATH", "env:NAME" or "keyvault:ADDRESS".
    pub(super) key: Text,
    /// In place of `chain`: the certificate together with its key, as PEM or PFX; a reference.
    pub(super) file: Text,
    /// Password of a PFX file; a reference.
    pub(super) password: Text,
    /// Names served with this certificate; default: the names in the certificate.
    pub(super) names: Texts,
    /// Whether it also serves callers that ask for an unknown name or none; default: the first certificate
    /// does.
    pub(super) default: Switch,
}

/// An Entra application, a managed identity or a token file, whose tokens the flows accept.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    /// Name by which routes refer to it.
    pub(super) name: Text,
    /// The cloud of the flows: "public" (default), "gcc", "gcc-high", "dod" or "china".
    pub(super) cloud: Text,
    /// Tenant: its id or one of its domains.
    pub(super) tenant: Text,
    /// Application (client) id.
    pub(super) client_id: Text,
    /// Value of the client secret; a reference, "env:NAME", "file:PATH" or "keyvault:ADDRESS". Several, or one whose end
    /// is known, are written as tables `secret`.
    pub(super) client_secret: Text,
    /// Its client secrets; the one that expires last is tried first.
    #[serde(default)]
    pub(super) secret: Vec<Table<SecretTable>>,
    /// Its certificates, in place of client secrets; the one that ends last is tried first.
    #[serde(default)]
    pub(super) certificate: Vec<Table<ClientCertificateTable>>,
    /// Where tokens are requested; default: the authority of the cloud.
    pub(super) authority: Text,
    /// Scope to ask for; default: the scope of the cloud, with its two slashes.
    pub(super) scope: Text,
    /// PEM file with the certificate authorities trusted for the authority, in place of the system's.
    pub(super) ca_file: Text,
    /// Time for one token request; default "10s".
    pub(super) timeout: Length,
    /// File with an access token that another program keeps fresh, in place of a client secret.
    pub(super) token_file: Text,
    /// Life of a token from the file whose expiry cannot be read; default "50m".
    pub(super) token_life: Length,
    /// A managed identity of the machine or platform, in place of an application's own credential.
    pub(super) managed: Option<Table<Managed>>,
    /// A token of another issuer, in place of a client secret.
    pub(super) federated: Option<Table<Federated>>,
    /// Takes workload identity, else managed identity, whichever is there; default false.
    pub(super) default: Switch,
    /// An account that signs in with its user name and password: for tenants whose flows refuse applications.
    pub(super) password: Option<Table<PasswordTable>>,
    /// An account that a person signs in once, with `flowgate login`.
    pub(super) sign_in: Option<Table<SignInTable>>,
}

/// Who hands out the tokens of a managed identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(super) enum Source {
    /// What the environment variables of the platform say, else IMDS.
    Auto,
    /// The Instance Metadata Service of virtual machines.
    Imds,
    /// App Service, Functions and Container Apps.
    AppService,
    /// The agent of Azure Arc.
    Arc,
}

/// A managed identity of the machine or platform.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Managed {
    /// Who hands its tokens out: "auto" (default), "imds", "app-service" or "arc".
    pub(super) source: Option<At<Source>>,
    /// Client id of a user-assigned identity; default: the system-assigned one.
    pub(super) client_id: Text,
    /// Object (principal) id of a user-assigned identity, in place of the client id.
    pub(super) object_id: Text,
    /// Resource id of a user-assigned identity, in place of the client id.
    pub(super) resource_id: Text,
    /// Scheme, host and port of IMDS or of the Arc agent; default: those of the platform.
    pub(super) endpoint: Text,
    /// Folder in which the Arc agent puts its keys; default: that of the platform.
    pub(super) arc_token_folder: Text,
}

/// A token of another issuer with which the application proves who it is.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Federated {
    /// File with the token; default: the environment variable AZURE_FEDERATED_TOKEN_FILE.
    pub(super) token_file: Text,
    /// Name of a managed identity of these settings whose token is taken, in place of a file.
    pub(super) identity: Text,
}

/// An account with its password.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PasswordTable {
    /// User name, for example "flows@contoso.onmicrosoft.com".
    pub(super) user: Text,
    /// Its password; a reference, "env:NAME" or "file:PATH".
    pub(super) password: Text,
    /// The risk, accepted in words; `flowgate check` says in which.
    pub(super) accept_risk: Text,
}

/// An account that a person signs in.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SignInTable {
    /// File in which `flowgate login` and the gateway keep the refresh token.
    pub(super) store: Text,
    /// Secret under which that file is encrypted, at least 16 bytes; a reference, "env:NAME" or "file:PATH".
    pub(super) seal: Text,
}

/// A client secret of an identity.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretTable {
    /// Its value; a reference, "env:NAME", "file:PATH" or "keyvault:ADDRESS".
    pub(super) value: Text,
    /// When it expires, as Entra shows it.
    pub(super) expires: Option<At<Moment>>,
}

/// A certificate with which an identity signs in.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientCertificateTable {
    /// PEM with certificate and private key, or a PFX file, binary or in base64; a reference, "env:NAME" or "file:PATH".
    pub(super) file: Text,
    /// The private key in PEM form, where it lies apart from the certificate; a reference, "env:NAME" or "file:PATH".
    pub(super) key: Text,
    /// Password of the PFX file; a reference, "env:NAME" or "file:PATH".
    pub(super) password: Text,
    /// How assertions are signed: "PS256" (default) or "RS256".
    pub(super) algorithm: Text,
    /// Whether assertions carry the certificate and its chain, for applications that trust subject name and issuer;
    /// default false.
    pub(super) send_chain: Switch,
}

/// Who may call.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Caller {
    /// Name by which routes refer to it; it appears in logs and metrics.
    pub(super) name: Text,
    /// Networks it may call from; default: any.
    pub(super) networks: Texts,
    /// File with more such networks, one a line.
    pub(super) networks_file: Text,
    /// Networks it may not call from.
    pub(super) deny_networks: Texts,
    /// File with more such networks, one a line.
    pub(super) deny_networks_file: Text,
    /// Its rate over all routes; default 75 per "1s", burst 150: half of what a route takes, so that one caller leaves
    /// room for others.
    pub(super) rate: Option<Table<RateTable>>,
    /// File with keys, one a line: LABEL DIGEST, then not_before=, expires=, enabled= as needed.
    pub(super) keys_file: Text,
    /// Its API keys.
    #[serde(default)]
    pub(super) key: Vec<Table<KeyTable>>,
}

/// An API key of a caller, by its digest.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyTable {
    /// Tells the key apart in logs.
    pub(super) label: Text,
    /// "sha256:" or "hmac-sha256:" and 64 hexadecimal digits, as `flowgate key hash` prints them.
    pub(super) digest: Text,
    /// The key is refused before this moment.
    pub(super) not_before: Option<At<Moment>>,
    /// The key is refused from this moment on.
    pub(super) expires: Option<At<Moment>>,
    /// Whether the key is accepted at all; default true.
    pub(super) enabled: Switch,
}

/// What happens to calls while a claim of the token cannot match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(super) enum OnClaimMismatch {
    /// They go to the flow all the same.
    Try,
    /// They are refused.
    Refuse,
}

/// A public address and the flow behind it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    /// Its name in logs and metrics.
    pub(super) name: Text,
    /// Host it answers for, without port; default: any.
    pub(super) host: Text,
    /// Path, for example "/orders", "/orders/{id}" or "/files/{*rest}".
    pub(super) path: Text,
    /// Methods; default ["POST"].
    pub(super) methods: Texts,
    /// Names of the callers that may call; all others are refused.
    pub(super) callers: Texts,
    /// Opens the route to everybody; in place of `callers`.
    pub(super) anonymous: Switch,
    /// Networks that may call, whoever the caller is; default: any.
    pub(super) networks: Texts,
    /// File with more such networks, one a line.
    pub(super) networks_file: Text,
    /// Networks that may not call.
    pub(super) deny_networks: Texts,
    /// File with more such networks, one a line.
    pub(super) deny_networks_file: Text,
    /// Where a key is read: "header:NAME", "authorization", "basic"; default: header:x-api-key and both
    /// others.
    pub(super) key_from: Texts,
    /// Its rate over all callers; default 150 per "1s", burst 300.
    pub(super) rate: Option<Table<RateTable>>,
    /// Largest body; default "1 MiB", at most 104857600 bytes.
    pub(super) body_size_max: Bytes,
    /// What stands behind it: "flow" (default), or "api" for an API of Microsoft's that wants a token.
    pub(super) kind: Option<At<RouteKindWord>>,
    /// Name of the identity whose token starts the flow, or is shown to the API.
    pub(super) identity: Text,
    /// Object ids on the list of a trigger set to "Specific users in my tenant"; the token's is compared with them. Default:
    /// not known.
    pub(super) object_ids: Texts,
    /// What happens to calls while a claim of the token cannot match: "try" (default) or "refuse".
    pub(super) on_claim_mismatch: Option<At<OnClaimMismatch>>,
    /// The trigger's address carries its own signature; in place of `identity`.
    pub(super) signed: Switch,
    /// Address of the trigger as the flow shows it; with a signature only as "env:NAME", "file:PATH" or
    /// "keyvault:ADDRESS".
    pub(super) trigger: Text,
    /// Address of the API, with the path before what callers ask for: `https://graph.microsoft.com/v1.0`.
    pub(super) upstream: Text,
    /// Paths of the API behind `upstream` that may be asked for, where the route's path ends in {*rest}: "/users/{id}".
    /// All others are refused.
    pub(super) paths: Texts,
    /// Path of the API, one of `paths`, that `flowgate doctor --live` asks for with GET and the token; "/" is `upstream`
    /// itself. Default: none, and the API is not asked.
    pub(super) probe: Text,
    /// Whether the rest of a path that ends in {*rest} is appended to the trigger's path; default false.
    pub(super) relative_path: Switch,
    /// Query parameters of the caller that go on: names, or ["*"] for all; default: none to a flow, all to an API.
    pub(super) query: Texts,
    /// PEM file with the certificate authorities trusted for the trigger, in place of the system's.
    pub(super) ca_file: Text,
    /// Requests to the trigger at one time, shared fairly between callers; of those whose body is still arriving three
    /// quarters, and half for one caller; default 100.
    pub(super) in_flight_max: Number,
    /// Requests that may wait for one of those; default 200.
    pub(super) waiting_max: Number,
    /// Time a request may wait; default "5s".
    pub(super) waiting_timeout: Length,
    /// Address to connect to in place of what the trigger's name resolves to, for private endpoints whose names
    /// public DNS does not know. The certificate must still carry the trigger's name.
    pub(super) connect_to: Option<At<String>>,
    /// Time for name look-up, TCP and TLS to the trigger; default "5s".
    pub(super) connect_timeout: Length,
    /// Time from the end of the request to the head of the answer, and between two pieces of its body;
    /// default "125s".
    pub(super) response_timeout: Length,
    /// Time an unused connection to the trigger is kept; default "60s".
    pub(super) upstream_idle_timeout: Length,
}

/// What stands behind a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(super) enum RouteKindWord {
    /// The trigger of a flow.
    Flow,
    /// An API that wants a token.
    Api,
}

/// The JSON Schema of the settings file, for editors.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(File).to_value()
}
