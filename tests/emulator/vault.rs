//! An Azure Key Vault: it challenges callers without a token, checks audience and permission, and stores
//! secrets with their versions. It refuses, throttles and stays silent when the script says so.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::gate::Count;
use super::jwt::Mint;
use super::listener::{Connection, Listener};
use super::reply::Reply;
use super::script::{Cue, Script, Violations};
use super::session::{Exchange, Next};
use super::wire::{Body, Broken, Head, Wire};
use super::{ids, jwt, session};

/// The audience of its tokens, byte for byte.
const RESOURCE: &str = "https://vault.azure.net";
/// Supported versions of the API.
const API_VERSIONS: &[&str] = &["7.4", "7.5", "7.6", "2025-07-01"];

/// One answer to a request for a secret.
#[derive(Clone, Debug)]
pub enum VaultAnswer {
    /// The answer of a real vault.
    Normal,
    /// 401 with a challenge that names this resource.
    Challenge(String),
    /// 403 by the firewall, for this address.
    Firewall(String),
    /// 403 because public access is off.
    PrivateOnly,
    /// 429 with this value of `Retry-After`, if any.
    Throttled(Option<String>),
    /// A page with this status.
    Html(u16),
    /// An empty answer with this status.
    Status(u16),
    /// 200 with a JSON content type and this body.
    Json(String),
    /// 200 with a value of this many bytes.
    Oversized(usize),
    /// 302 to this address.
    Redirect(String),
    /// Never answered.
    Hang,
    /// Cut before the answer.
    Cut,
}

/// A request as the vault received it.
#[derive(Clone, Debug)]
pub struct VaultRequest {
    /// Method, target and headers as sent.
    pub head: Head,
}

#[derive(Clone, Debug)]
struct Version {
    id: String,
    value: String,
    expires: Option<i64>,
    enabled: bool,
}

#[derive(Debug)]
struct State {
    listener: Arc<Listener>,
    mint: Arc<Mint>,
    violations: Violations,
    tenant: Mutex<String>,
    readers: Mutex<HashSet<String>>,
    /// The newest version comes last.
    secrets: Mutex<HashMap<String, Vec<Version>>>,
    script: Mutex<Script<VaultAnswer>>,
    requests: Mutex<Vec<VaultRequest>>,
    reads: Count,
}

/// A handle on the vault; clones share its state.
#[derive(Clone, Debug)]
pub struct Vault {
    state: Arc<State>,
}

impl Vault {
    pub(super) fn new(listener: Arc<Listener>, mint: Arc<Mint>, violations: Violations) -> Self {
        Self {
            state: Arc::new(State {
                listener,
                mint,
                violations,
                tenant: Mutex::default(),
                readers: Mutex::default(),
                secrets: Mutex::default(),
                script: Mutex::default(),
                requests: Mutex::default(),
                reads: Count::new("questions to the vault"),
            }),
        }
    }

    /// Its address: `https://localhost:PORT`.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.state.listener.address().port())
    }

    /// The reference to a secret for settings.
    pub fn reference(&self, name: &str) -> String {
        format!("keyvault:{}/secrets/{name}", self.url())
    }

    /// The listener: its counts, its certificate, its misbehaviour.
    pub fn listener(&self) -> &Listener {
        &self.state.listener
    }

    /// Sets the tenant that its challenge names.
    pub fn tenant(&self, tenant: &str) {
        tenant.clone_into(&mut self.state.tenant.lock().unwrap());
    }

    /// Lets the principal with this object id read secrets.
    pub fn allow(&self, oid: &str) {
        self.state.readers.lock().unwrap().insert(oid.to_owned());
    }

    /// Revokes that permission.
    pub fn forbid(&self, oid: &str) {
        self.state.readers.lock().unwrap().remove(oid);
    }

    /// Adds a new current version of a secret; returns its id.
    pub fn put(&self, name: &str, value: &str) -> String {
        self.put_until(name, value, None)
    }

    /// The same with an expiry, in seconds of the Unix epoch.
    pub fn put_until(&self, name: &str, value: &str, expires: Option<i64>) -> String {
        let id = ids::hex(&ids::random_bytes::<16>());
        let mut secrets = self.state.secrets.lock().unwrap();
        secrets.entry(name.to_owned()).or_default().push(Version {
            id: id.clone(),
            value: value.to_owned(),
            expires,
            enabled: true,
        });
        id
    }

    /// Disables the current version of a secret.
    pub fn disable(&self, name: &str) {
        let mut secrets = self.state.secrets.lock().unwrap();
        secrets.get_mut(name).unwrap().last_mut().unwrap().enabled = false;
    }

    /// Scripts the answer to the next request.
    pub fn next(&self, answer: VaultAnswer) {
        self.state.script.lock().unwrap().next(answer);
    }

    /// Scripts the answer to all requests once the queue is empty.
    pub fn always(&self, answer: VaultAnswer) {
        self.state.script.lock().unwrap().always(answer);
    }

    /// Clears the script.
    pub fn normal(&self) {
        self.state.script.lock().unwrap().clear();
    }

    /// Requests received.
    pub fn reads(&self) -> &Count {
        &self.state.reads
    }

    /// The requests received, oldest first.
    pub fn requests(&self) -> Vec<VaultRequest> {
        self.state.requests.lock().unwrap().clone()
    }

    pub(super) async fn serve(self, wire: Wire, connection: Connection) {
        session::converse(&self, wire, connection, &self.state.violations).await;
    }

    fn reply(&self, head: &Head, answer: VaultAnswer) -> Reply {
        match answer {
            VaultAnswer::Challenge(resource) => self.challenge(&resource),
            VaultAnswer::Firewall(address) => failure(
                403,
                "Forbidden",
                &format!("Client address ({address}) is not authorized and caller is not a trusted service"),
                "ForbiddenByFirewall",
            ),
            VaultAnswer::PrivateOnly => failure(
                403,
                "Forbidden",
                "Public network access is disabled and request is not from a trusted service nor via an approved \
                 private link.",
                "ForbiddenByConnection",
            ),
            VaultAnswer::Throttled(wait) => {
                let reply = Reply::new(429);
                match wait {
                    Some(wait) => reply.header("Retry-After", wait),
                    None => reply,
                }
            }
            VaultAnswer::Html(status) => Reply::html(status, "Sign in to the network"),
            VaultAnswer::Status(status) => Reply::new(status),
            VaultAnswer::Json(body) => {
                Reply::text(200, body).header("Content-Type", "application/json; charset=utf-8")
            }
            VaultAnswer::Oversized(bytes) => Reply::json(200, &json!({"value": "A".repeat(bytes)})),
            VaultAnswer::Redirect(location) => Reply::new(302).header("Location", location),
            // Answers without a reply are handled earlier.
            VaultAnswer::Normal | VaultAnswer::Hang | VaultAnswer::Cut => self.normal_reply(head),
        }
    }

    fn challenge(&self, resource: &str) -> Reply {
        let tenant = self.state.tenant.lock().unwrap().clone();
        Reply::json(
            401,
            &json!({"error": {"code": "Unauthorized", "message": "AKV10000: Request is missing a Bearer or PoP token."}}),
        )
        .header(
            "WWW-Authenticate",
            format!("Bearer authorization=\"https://login.microsoftonline.com/{tenant}\", resource=\"{resource}\""),
        )
    }

    fn normal_reply(&self, head: &Head) -> Reply {
        let version_asked = head.query().strip_prefix("api-version=").unwrap_or_default();
        // The only conversion that the service offers; PEM stays unchanged.
        let version_asked = version_asked
            .strip_suffix("&outContentType=application/x-pem-file")
            .unwrap_or(version_asked);
        if head.method != "GET" || !API_VERSIONS.contains(&version_asked) {
            return failure(
                400,
                "BadParameter",
                "The request URI contains an invalid api-version.",
                "",
            );
        }
        let token = head
            .header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "));
        let claims = token.and_then(|token| self.state.mint.verify(token));
        let Some(claims) = claims.filter(|claims| {
            claims.get("aud").and_then(Value::as_str) == Some(RESOURCE)
                && jwt::within_times(claims, ids::now())
        }) else {
            return self.challenge(RESOURCE);
        };
        let oid = claims.get("oid").and_then(Value::as_str).unwrap_or_default();
        if !self.state.readers.lock().unwrap().contains(oid) {
            return failure(
                403,
                "Forbidden",
                "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments or \
                 role definitions were changed recently, please observe propagation time.",
                "ForbiddenByRbac",
            );
        }
        self.secret(head.path())
    }

    fn secret(&self, path: &str) -> Reply {
        let mut parts = path.trim_start_matches('/').split('/');
        let (kind, name, wanted) = (parts.next(), parts.next().unwrap_or_default(), parts.next());
        let secrets = self.state.secrets.lock().unwrap();
        let versions = secrets.get(name).filter(|_| kind == Some("secrets"));
        let found = versions.and_then(|versions| match wanted {
            None | Some("") => versions.last(),
            Some(id) => versions.iter().find(|version| version.id == id),
        });
        let Some(version) = found else {
            return failure(
                404,
                "SecretNotFound",
                &format!("A secret with (name/id) {name} was not found in this key vault."),
                "",
            );
        };
        if !version.enabled {
            let message = "Operation get is not allowed on a disabled secret.";
            return failure(403, "Forbidden", message, "SecretDisabled");
        }
        let mut body = json!({
            "value": version.value,
            "contentType": "text/plain",
            "id": format!("{}/secrets/{name}/{}", self.url(), version.id),
            "attributes": {
                "enabled": true, "created": 1_493_938_410, "updated": 1_493_938_410,
                "recoveryLevel": "Recoverable+Purgeable",
            },
        });
        if let Some(expires) = version.expires {
            body["attributes"]["exp"] = Value::from(expires);
        }
        Reply::json(200, &body)
    }
}

impl Exchange for Vault {
    async fn exchange(&self, wire: &mut Wire, _connection: &Connection, head: Head) -> Result<Next, Broken> {
        let mut body = Body::empty();
        wire.body(head.framing()?, &mut body, |_| {}).await?;
        self.state
            .requests
            .lock()
            .unwrap()
            .push(VaultRequest { head: head.clone() });
        let answer = match self.state.script.lock().unwrap().take(head.path()) {
            Cue::Scripted(answer) => answer,
            Cue::Free | Cue::Missing => VaultAnswer::Normal,
        };
        // Last, so that a test that waited for the count finds the request.
        self.state.reads.add(1);
        match answer {
            VaultAnswer::Hang => {
                wire.gone().await;
                Ok(Next::Cut)
            }
            VaultAnswer::Cut => Ok(Next::Cut),
            answer => {
                let reply = self.reply(&head, answer);
                session::send(wire, &self.state.listener, &head, reply).await
            }
        }
    }
}

fn failure(status: u16, code: &str, message: &str, inner: &str) -> Reply {
    let mut body = json!({"error": {"code": code, "message": message}});
    if !inner.is_empty() {
        body["error"]["innererror"] = json!({"code": inner});
    }
    Reply::json(status, &body)
}
