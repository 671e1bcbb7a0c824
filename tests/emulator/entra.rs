//! Microsoft Entra's token endpoint: it checks the form, the tenant, the client and its credential, and
//! issues signed tokens. It counts and records requests, and refuses when the script says so. This file has
//! the handle that tests use; `entra/serve.rs` serves.

mod serve;
mod users;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

pub use self::users::Rotation;
use super::certs::{Authority, Leaf};
use super::gate::{Count, Gate};
use super::issuer::Issuer;
use super::journal::Journal;
use super::jwt::{Claims, Mint};
use super::listener::{Connection, Listener};
use super::script::{Script, Violations};
use super::tokens::TokenAnswer;
use super::wire::{Head, Wire};
use super::{form, ids, session};

/// The resources that exist in every tenant. Entra also issues tokens for the form without the last slash,
/// which is the result of the usual mistake in the scope.
const RESOURCES: &[&str] = &[
    "https://service.flow.microsoft.com/",
    "https://service.flow.microsoft.com",
    "https://gov.service.flow.microsoft.us/",
    "https://high.service.flow.microsoft.us/",
    "https://service.flow.appsplatform.us/",
    "https://service.powerautomate.cn/",
    "https://vault.azure.net",
];
/// The default lifetime of tokens.
const LIFETIME: Duration = Duration::from_secs(3599);

/// How a registered application authenticates.
#[derive(Clone, Debug)]
enum Credential {
    Secret(String),
    Certificate(CertificateDer<'static>),
    /// Any certificate with this subject under this root.
    Subject {
        name: String,
        root: CertificateDer<'static>,
    },
    Federated {
        issuer: String,
        subject: String,
    },
    /// Nothing: a public client.
    Public,
}

#[derive(Clone, Debug)]
struct App {
    oid: String,
    credentials: Vec<Credential>,
}

/// The form of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenForm {
    /// Signed JWTs.
    Jwt,
    /// Random text; the flow's side knows its claims.
    Opaque,
}

/// A request as the endpoint received it.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// The number of its connection.
    pub connection: u64,
    /// The server name in the TLS handshake of its connection.
    pub sni: Option<String>,
    /// Method, target and headers as sent.
    pub head: Head,
    /// The body as sent, before any decoding.
    pub raw: String,
    /// The decoded pairs in their order.
    pub form: Vec<(String, String)>,
}

impl TokenRequest {
    /// The decoded value of a field that was sent exactly once.
    pub fn field(&self, name: &str) -> Option<&str> {
        form::single(&self.form, name)
    }

    /// The tenant in the path.
    pub fn tenant(&self) -> &str {
        self.head.path().split('/').nth(1).unwrap_or_default()
    }
}

#[derive(Debug)]
struct Registry {
    /// Applications by tenant and client id.
    tenants: HashMap<String, HashMap<String, App>>,
    resources: HashSet<String>,
    /// Public keys by name.
    issuers: HashMap<String, Vec<u8>>,
    lifetime: Duration,
    refresh_in: Option<Duration>,
    overrides: Value,
    form: TokenForm,
}

#[derive(Debug)]
struct State {
    listener: Arc<Listener>,
    mint: Arc<Mint>,
    violations: Violations,
    registry: Mutex<Registry>,
    users: Mutex<users::Users>,
    script: Mutex<Script<TokenAnswer>>,
    journal: Mutex<Journal<TokenRequest>>,
    gate: Mutex<Option<Gate>>,
    requests: Count,
    by_client: Mutex<HashMap<String, u64>>,
    /// The `jti` of each assertion that was accepted.
    assertions: Mutex<HashSet<String>>,
    hang_ups: Count,
    clock_ahead: Mutex<i64>,
}

/// A handle on the token endpoint; clones share its state.
#[derive(Clone, Debug)]
pub struct Entra {
    state: Arc<State>,
}

impl Entra {
    pub(super) fn new(listener: Arc<Listener>, mint: Arc<Mint>, violations: Violations) -> Self {
        let registry = Registry {
            tenants: HashMap::new(),
            resources: RESOURCES.iter().map(|resource| (*resource).to_owned()).collect(),
            issuers: HashMap::new(),
            lifetime: LIFETIME,
            refresh_in: None,
            overrides: Value::Null,
            form: TokenForm::Jwt,
        };
        let state = State {
            listener,
            mint,
            violations,
            registry: Mutex::new(registry),
            users: Mutex::default(),
            script: Mutex::default(),
            journal: Mutex::default(),
            gate: Mutex::default(),
            requests: Count::new("token requests"),
            by_client: Mutex::default(),
            assertions: Mutex::default(),
            hang_ups: Count::new("token requests whose caller hung up"),
            clock_ahead: Mutex::default(),
        };
        Self {
            state: Arc::new(state),
        }
    }

    /// The authority for settings: `https://localhost:PORT`.
    pub fn authority(&self) -> String {
        format!("https://localhost:{}", self.state.listener.address().port())
    }

    /// The address that token requests of a tenant go to; also the audience of assertions.
    pub fn token_url(&self, tenant: &str) -> String {
        format!("{}/{tenant}/oauth2/v2.0/token", self.authority())
    }

    /// The listener: its counts, its certificate, its misbehaviour.
    pub fn listener(&self) -> &Listener {
        &self.state.listener
    }

    /// Registers an application with a secret; if called again with another secret, both are valid.
    pub fn register_app(&self, tenant: &str, client_id: &str, secret: &str, oid: &str) {
        self.register(tenant, client_id, oid, Credential::Secret(secret.to_owned()));
    }

    /// Registers an application that signs assertions with this certificate's RSA key.
    pub fn register_certificate(&self, tenant: &str, client_id: &str, certificate: &Leaf, oid: &str) {
        let certificate = certificate.chain[0].clone();
        self.register(tenant, client_id, oid, Credential::Certificate(certificate));
    }

    /// Registers an application whose certificates have this common name and are issued by this authority
    /// (subject name and issuer).
    pub fn register_subject(&self, tenant: &str, client_id: &str, name: &str, issuer: &Authority, oid: &str) {
        let credential = Credential::Subject {
            name: name.to_owned(),
            root: issuer.der().clone(),
        };
        self.register(tenant, client_id, oid, credential);
    }

    /// Registers an application with this certificate in DER form.
    pub fn register_der(&self, tenant: &str, client_id: &str, certificate: Vec<u8>, oid: &str) {
        self.register(
            tenant,
            client_id,
            oid,
            Credential::Certificate(certificate.into()),
        );
    }

    /// Registers an application that presents tokens of another issuer: one registered with
    /// [`Entra::trust_issuer`], or the platform that signs for managed identities.
    pub fn register_federated(&self, tenant: &str, client_id: &str, issuer: &str, subject: &str, oid: &str) {
        let credential = Credential::Federated {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
        };
        self.register(tenant, client_id, oid, credential);
    }

    /// Registers the key of an issuer. Without it the issuer cannot be reached.
    pub fn trust_issuer(&self, issuer: &Issuer) {
        self.state
            .registry
            .lock()
            .unwrap()
            .issuers
            .insert(issuer.name.clone(), issuer.public_key());
    }

    /// Removes all credentials of an application, so that old ones are refused.
    pub fn forget_credentials(&self, tenant: &str, client_id: &str) {
        let mut registry = self.state.registry.lock().unwrap();
        if let Some(app) = registry
            .tenants
            .get_mut(tenant)
            .and_then(|apps| apps.get_mut(client_id))
        {
            app.credentials.clear();
        }
    }

    /// Adds a resource that tokens can be requested for, as it appears in `aud`.
    pub fn allow_audience(&self, audience: &str) {
        self.state
            .registry
            .lock()
            .unwrap()
            .resources
            .insert(audience.to_owned());
    }

    /// Sets the lifetime of tokens, in the answer and in the token.
    pub fn lifetime(&self, lifetime: Duration) {
        self.state.registry.lock().unwrap().lifetime = lifetime;
    }

    /// Sets `refresh_in`.
    pub fn refresh_in(&self, refresh_in: Option<Duration>) {
        self.state.registry.lock().unwrap().refresh_in = refresh_in;
    }

    /// Sets claims that override those of each token: an object, in which null removes a claim.
    pub fn claims(&self, overrides: Value) {
        self.state.registry.lock().unwrap().overrides = overrides;
    }

    /// Sets the form of tokens.
    pub fn token_form(&self, form: TokenForm) {
        self.state.registry.lock().unwrap().form = form;
    }

    /// Sets the `Date` of each answer this many seconds ahead of the real clock.
    pub fn clock_ahead(&self, seconds: i64) {
        *self.state.clock_ahead.lock().unwrap() = seconds;
    }

    fn date(&self) -> String {
        let second = ids::now() + *self.state.clock_ahead.lock().unwrap();
        let moment = jiff::Timestamp::from_second(second).unwrap();
        moment.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    }

    /// Scripts the answer to the next request.
    pub fn next(&self, answer: TokenAnswer) {
        self.state.script.lock().unwrap().next(answer);
    }

    /// Scripts the answer to the next request of this client.
    pub fn next_for(&self, client_id: &str, answer: TokenAnswer) {
        self.state.script.lock().unwrap().next_for(client_id, answer);
    }

    /// Scripts the answer to all requests once the queue is empty.
    pub fn always(&self, answer: TokenAnswer) {
        self.state.script.lock().unwrap().always(answer);
    }

    /// Scripts the answer to all requests of this client once the queue is empty.
    pub fn always_for(&self, client_id: &str, answer: TokenAnswer) {
        self.state.script.lock().unwrap().always_for(client_id, answer);
    }

    /// Clears the script.
    pub fn normal(&self) {
        self.state.script.lock().unwrap().clear();
    }

    /// From now on a request without a scripted answer is a violation.
    pub fn strict(&self) {
        self.state.script.lock().unwrap().be_strict();
    }

    /// Number of scripted answers that were not used yet.
    pub fn script_left(&self) -> usize {
        self.state.script.lock().unwrap().left()
    }

    /// From now on, holds requests after they were read and recorded.
    pub fn hold(&self) -> Gate {
        let gate = Gate::closed();
        *self.state.gate.lock().unwrap() = Some(gate.clone());
        gate
    }

    /// Requests received.
    pub fn token_requests(&self) -> &Count {
        &self.state.requests
    }

    /// Requests received from this client.
    pub fn token_requests_of(&self, client_id: &str) -> u64 {
        self.state
            .by_client
            .lock()
            .unwrap()
            .get(client_id)
            .copied()
            .unwrap_or_default()
    }

    /// Callers that left while their request was held or answered.
    pub fn hang_ups(&self) -> &Count {
        &self.state.hang_ups
    }

    /// The requests received, oldest first.
    pub fn requests(&self) -> Vec<Arc<TokenRequest>> {
        self.state.journal.lock().unwrap().all()
    }

    /// The same, and forgets them.
    pub fn take_requests(&self) -> Vec<Arc<TokenRequest>> {
        self.state.journal.lock().unwrap().take()
    }

    /// The tokens issued, oldest first.
    pub fn issued(&self) -> Vec<String> {
        self.state.mint.issued()
    }

    /// Issues a token directly, for requests that a test sends to the flow itself.
    ///
    /// # Panics
    /// If the application is not registered.
    pub fn token_for(&self, tenant: &str, client_id: &str, audience: &str, overrides: &Value) -> String {
        let oid = self
            .app(tenant, client_id)
            .expect("the application is registered")
            .oid;
        self.mint(tenant, client_id, &oid, audience, overrides)
    }

    pub(super) async fn serve(self, wire: Wire, connection: Connection) {
        session::converse(&self, wire, connection, &self.state.violations).await;
    }

    fn mint(&self, tenant: &str, client: &str, oid: &str, audience: &str, overrides: &Value) -> String {
        let registry = self.state.registry.lock().unwrap();
        let now = ids::now();
        let issuer = format!("https://sts.windows.net/{tenant}/");
        let mut claims = Claims::new();
        let lifetime = i64::try_from(registry.lifetime.as_secs()).unwrap_or(i64::MAX / 2);
        lay_over(
            &mut claims,
            &json!({
                "aud": audience, "iss": issuer, "idp": issuer, "tid": tenant, "oid": oid, "sub": oid,
                "iat": now, "nbf": now, "exp": now + lifetime,
                "appid": client, "appidacr": "1", "idtyp": "app", "ver": "1.0",
                "uti": ids::base64url(&ids::random_bytes::<16>()),
            }),
        );
        lay_over(&mut claims, &registry.overrides);
        lay_over(&mut claims, overrides);
        match registry.form {
            TokenForm::Jwt => self.state.mint.token(&claims),
            TokenForm::Opaque => self.state.mint.opaque(claims),
        }
    }

    fn register(&self, tenant: &str, client_id: &str, oid: &str, credential: Credential) {
        let mut registry = self.state.registry.lock().unwrap();
        let apps = registry.tenants.entry(tenant.to_owned()).or_default();
        let app = apps.entry(client_id.to_owned()).or_insert_with(|| App {
            oid: oid.to_owned(),
            credentials: Vec::new(),
        });
        oid.clone_into(&mut app.oid);
        app.credentials.push(credential);
    }

    fn app(&self, tenant: &str, client_id: &str) -> Option<App> {
        self.state
            .registry
            .lock()
            .unwrap()
            .tenants
            .get(tenant)?
            .get(client_id)
            .cloned()
    }
}

fn lay_over(claims: &mut Claims, overrides: &Value) {
    let Some(overrides) = overrides.as_object() else {
        return;
    };
    for (name, value) in overrides {
        if value.is_null() {
            claims.remove(name);
        } else {
            claims.insert(name.clone(), value.clone());
        }
    }
}
