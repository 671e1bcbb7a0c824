//! Serves one request at the token endpoint.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::aadsts::{Parties, refusal};
use super::super::jwt::AssertionFault;
use super::super::listener::Connection;
use super::super::reply::Reply;
use super::super::script::Cue;
use super::super::session::{Exchange, Next};
use super::super::tokens::TokenAnswer;
use super::super::wire::{Body, Broken, Head, Wire};
use super::super::{form, ids, jwt, session, subject};
use super::{App, Credential, Entra, TokenRequest, users};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Clients that are counted individually.
const CLIENTS_MAX: usize = 1024;
/// Assertions that are remembered.
const ASSERTIONS_MAX: usize = 4096;

impl Exchange for Entra {
    async fn exchange(&self, wire: &mut Wire, connection: &Connection, head: Head) -> Result<Next, Broken> {
        let mut body = Body::empty();
        wire.body(head.framing()?, &mut body, |_| {}).await?;
        let raw = String::from_utf8_lossy(&body.stored()).into_owned();
        let request = Arc::new(TokenRequest {
            connection: connection.number,
            sni: connection.sni.clone(),
            form: form::decode(&raw),
            head,
            raw,
        });
        if request.head.path() != format!("/{}/oauth2/v2.0/token", request.tenant()) {
            let reply = self
                .beside(&request)
                .unwrap_or_else(|| Reply::html(404, "Not Found"))
                .header("Date", self.date());
            return session::send(wire, &self.state.listener, &request.head, reply).await;
        }
        self.record(&request);
        let gate = self.state.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            tokio::select! {
                () = gate.pass() => {}
                () = wire.gone() => return self.hung_up(),
            }
        }
        let answer = self.cue(request.field("client_id").unwrap_or_default());
        self.perform(wire, &request, answer).await
    }
}

impl Entra {
    fn cue(&self, client: &str) -> TokenAnswer {
        match self.state.script.lock().unwrap().take(client) {
            Cue::Scripted(answer) => answer,
            Cue::Free => TokenAnswer::Normal,
            Cue::Missing => {
                self.state.violations.note(format!(
                    "entra was asked by {client:?} for more than was scripted"
                ));
                TokenAnswer::ServerError(500)
            }
        }
    }

    async fn perform(
        &self,
        wire: &mut Wire,
        request: &TokenRequest,
        answer: TokenAnswer,
    ) -> Result<Next, Broken> {
        if matches!(answer, TokenAnswer::Hang) {
            wire.gone().await;
            return self.hung_up();
        }
        if matches!(answer, TokenAnswer::Cut) {
            let bytes = self.success(request, &Value::Null).bytes("POST");
            wire.send(&bytes[..bytes.len() - 100]).await?;
            return Ok(Next::Cut);
        }
        if let TokenAnswer::Raw(bytes) = answer {
            wire.send(&bytes).await?;
            return Ok(Next::Close);
        }
        let reply = self.reply(request, answer).header("Date", self.date());
        session::send(wire, &self.state.listener, &request.head, reply).await
    }

    fn reply(&self, request: &TokenRequest, answer: TokenAnswer) -> Reply {
        if answer.is_checked()
            && let Err(number) = self.check(request)
        {
            return self.refuse(request, number);
        }
        if answer.is_checked()
            && let Some(reply) = self.poll(request)
        {
            return reply;
        }
        match answer {
            TokenAnswer::TokenWith(overrides) => self.success(request, &overrides),
            TokenAnswer::ExpiresIn(seconds) => {
                self.changed_success(request, |body| body["expires_in"] = Value::from(seconds))
            }
            TokenAnswer::MissingAccessToken => self.changed_success(request, |body| {
                body.as_object_mut().unwrap().remove("access_token");
            }),
            TokenAnswer::NumbersAsStrings => self.changed_success(request, |body| {
                for value in body
                    .as_object_mut()
                    .unwrap()
                    .values_mut()
                    .filter(|value| value.is_number())
                {
                    *value = Value::from(value.to_string());
                }
            }),
            TokenAnswer::Refuse(refusal) => refusal.reply(parties(request)),
            TokenAnswer::Throttle { retry_after } => {
                let reply = Reply::text(429, "Too Many Requests");
                match retry_after {
                    Some(wait) => reply.header("Retry-After", wait),
                    None => reply,
                }
            }
            TokenAnswer::ServerError(status) => Reply::new(status),
            TokenAnswer::Html => Reply::html(200, "Sign in to the network"),
            TokenAnswer::Empty => Reply::new(200).header("Content-Type", "application/json; charset=utf-8"),
            TokenAnswer::NotJson => Reply::text(200, "{\"token_type\":\"Bearer\",\"expires_in\":")
                .header("Content-Type", "application/json; charset=utf-8"),
            TokenAnswer::Oversized(bytes) => Reply::json(
                200,
                &json!({"token_type": "Bearer", "expires_in": 3599, "access_token": "A".repeat(bytes)}),
            ),
            TokenAnswer::Redirect(location) => Reply::new(302).header("Location", location),
            // Answers without a reply are handled earlier.
            TokenAnswer::Normal | TokenAnswer::Hang | TokenAnswer::Cut | TokenAnswer::Raw(_) => {
                self.success(request, &Value::Null)
            }
        }
    }

    fn changed_success(&self, request: &TokenRequest, change: impl FnOnce(&mut Value)) -> Reply {
        let mut body = self.success_body(request, &Value::Null);
        change(&mut body);
        success_reply(&body)
    }

    fn success(&self, request: &TokenRequest, overrides: &Value) -> Reply {
        success_reply(&self.success_body(request, overrides))
    }

    fn success_body(&self, request: &TokenRequest, overrides: &Value) -> Value {
        let client = request.field("client_id").unwrap_or_default();
        let oid = self
            .app(request.tenant(), client)
            .map(|app| app.oid)
            .unwrap_or_default();
        let scope = users::resource_scope(request.field("scope").unwrap_or_default());
        let mut claims = self.account_claims(request).unwrap_or_else(|| json!({}));
        if let Some(more) = overrides.as_object() {
            claims.as_object_mut().unwrap().extend(more.clone());
        }
        let token = self.mint(
            request.tenant(),
            client,
            &oid,
            audience(&scope).unwrap_or_default(),
            &claims,
        );
        let registry = self.state.registry.lock().unwrap();
        let seconds = registry.lifetime.as_secs();
        let mut body = json!({
            "token_type": "Bearer",
            "expires_in": seconds,
            "ext_expires_in": seconds,
            "access_token": token,
        });
        if let Some(refresh_in) = registry.refresh_in {
            body["refresh_in"] = Value::from(refresh_in.as_secs());
        }
        drop(registry);
        self.account_tokens(request, &mut body);
        body
    }

    /// What the real endpoint would refuse, as an AADSTS number, in the order of its checks.
    fn check(&self, request: &TokenRequest) -> Result<(), u32> {
        let registry = self.state.registry.lock().unwrap();
        let tenant = request.tenant();
        let apps = match (tenant, registry.tenants.get(tenant)) {
            ("common" | "consumers", _) => return Err(9_001_023),
            (_, None) => return Err(90002),
            (_, Some(apps)) => apps,
        };
        if request.head.method != "POST" {
            return Err(900_561);
        }
        let kind = request
            .head
            .header("content-type")
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default();
        if kind.trim() != "application/x-www-form-urlencoded" {
            return Err(900_144);
        }
        let repeated = request
            .form
            .iter()
            .any(|(name, _)| form::values(&request.form, name).len() > 1);
        if repeated {
            return Err(90013);
        }
        match request.field("grant_type") {
            None => return Err(900_144),
            Some("client_credentials") => {}
            Some(grant) if users::is_accounts(grant) => {}
            Some(_) => return Err(70003),
        }
        let app = request
            .field("client_id")
            .and_then(|client| apps.get(client))
            .ok_or(700_016_u32)?;
        self.check_credential(request, app, &registry.issuers)?;
        if request.field("resource").is_some() {
            return Err(901_002);
        }
        let scope = request.field("scope").ok_or(900_144_u32)?;
        if users::is_accounts(request.field("grant_type").unwrap_or_default()) {
            check_account_scope(&users::resource_scope(scope), &registry.resources)?;
            return self.check_account(request);
        }
        check_scope(scope, &registry.resources)
    }

    fn check_credential(
        &self,
        request: &TokenRequest,
        app: &App,
        issuers: &HashMap<String, Vec<u8>>,
    ) -> Result<(), u32> {
        if app
            .credentials
            .iter()
            .any(|one| matches!(one, Credential::Public))
        {
            let has_proof = ["client_secret", "client_assertion"]
                .iter()
                .any(|name| request.field(name).is_some());
            let is_application = request.field("grant_type") == Some("client_credentials");
            return match (has_proof, is_application) {
                (true, _) => Err(700_025),
                (false, true) => Err(7_000_218),
                (false, false) => Ok(()),
            };
        }
        if let Some(secret) = request.field("client_secret") {
            let known = app
                .credentials
                .iter()
                .any(|one| matches!(one, Credential::Secret(text) if text == secret));
            return if known { Ok(()) } else { Err(7_000_215) };
        }
        let assertion = request.field("client_assertion").ok_or(7_000_218_u32)?;
        if request.field("client_assertion_type") != Some(ASSERTION_TYPE) {
            return Err(7_000_218);
        }
        let client = request.field("client_id").unwrap_or_default();
        let audience = self.token_url(request.tenant());
        let mut verdict = Err(700_027);
        for credential in &app.credentials {
            verdict = match credential {
                Credential::Secret(_) | Credential::Public => continue,
                Credential::Certificate(certificate) => {
                    self.check_assertion(assertion, certificate, client, &audience)
                }
                Credential::Subject { name, root } => {
                    let chain = jwt::chain(assertion);
                    subject::check(&chain, root, name)
                        .and_then(|leaf| self.check_assertion(assertion, leaf, client, &audience))
                }
                Credential::Federated { issuer, subject } => check_federated(assertion, issuer, subject)
                    .and_then(|()| match issuers.get(issuer) {
                        Some(key) if jwt::is_signed(assertion, key) => Ok(()),
                        Some(_) => Err(700_027),
                        None if self.state.mint.verify(assertion).is_some() => Ok(()),
                        None => Err(90061),
                    }),
            };
            if verdict.is_ok() {
                break;
            }
        }
        verdict
    }

    fn check_assertion(
        &self,
        assertion: &str,
        certificate: &[u8],
        client: &str,
        audience: &str,
    ) -> Result<(), u32> {
        let checked = jwt::check_assertion(assertion, certificate, client, audience);
        let id = checked.map_err(|fault| match fault {
            AssertionFault::Signature => 700_027_u32,
            AssertionFault::Party => 50012,
            AssertionFault::Time => 500_133,
        })?;
        let mut seen = self.state.assertions.lock().unwrap();
        if seen.len() == ASSERTIONS_MAX {
            seen.clear();
        }
        // Microsoft requires a unique `jti` and does not say what happens to a repeated one; a strict server
        // refuses it.
        if seen.insert(id) { Ok(()) } else { Err(50012) }
    }

    pub(super) fn refuse(&self, request: &TokenRequest, number: u32) -> Reply {
        refusal(number).reply(parties(request))
    }

    fn record(&self, request: &Arc<TokenRequest>) {
        if let Some(client) = request.field("client_id") {
            let mut by_client = self.state.by_client.lock().unwrap();
            if by_client.len() < CLIENTS_MAX || by_client.contains_key(client) {
                *by_client.entry(client.to_owned()).or_default() += 1;
            }
        }
        self.state
            .journal
            .lock()
            .unwrap()
            .record(request.raw.len(), Arc::clone(request));
        // Last, so that a test that waited for the count finds the request.
        self.state.requests.add(1);
    }

    fn hung_up(&self) -> Result<Next, Broken> {
        self.state.hang_ups.add(1);
        Ok(Next::Cut)
    }
}

fn success_reply(body: &Value) -> Reply {
    Reply::json(200, body)
        .header("Cache-Control", "no-store, no-cache")
        .header("Pragma", "no-cache")
        .header("x-ms-request-id", ids::guid())
        .header(
            "Set-Cookie",
            "fpc=emulator; path=/; secure; HttpOnly; SameSite=None",
        )
}

pub(super) fn parties(request: &TokenRequest) -> Parties<'_> {
    Parties {
        client: request.field("client_id").unwrap_or_default(),
        tenant: request.tenant(),
        scope: request.field("scope").unwrap_or_default(),
    }
}

/// The audience of a scope: one `/.default` is removed and nothing else is changed.
fn audience(scope: &str) -> Option<&str> {
    scope
        .strip_suffix("/.default")
        .or_else(|| scope.strip_suffix("User"))
}

fn check_scope(scope: &str, resources: &HashSet<String>) -> Result<(), u32> {
    if scope.contains(' ') {
        return Err(70011);
    }
    let audience = scope.strip_suffix("/.default").ok_or(1_002_012_u32)?;
    if audience.contains('%') {
        // A scope that was encoded twice arrives encoded once.
        return Err(1_002_012);
    }
    if resources.contains(audience) {
        Ok(())
    } else {
        Err(500_011)
    }
}

/// As for an application, or the one permission of a flow that an account may request.
fn check_account_scope(scope: &str, resources: &HashSet<String>) -> Result<(), u32> {
    match scope.strip_suffix("User") {
        Some(resource) if resources.contains(resource) => Ok(()),
        _ if scope.ends_with("/user_impersonation") => Err(650_053),
        _ => check_scope(scope, resources),
    }
}

fn check_federated(assertion: &str, issuer: &str, subject: &str) -> Result<(), u32> {
    let claims = jwt::unverified_claims(assertion).ok_or(700_027_u32)?;
    let is = |name: &str, expected: &str| claims.get(name).and_then(Value::as_str) == Some(expected);
    if !is("iss", issuer) {
        return Err(70021);
    }
    if !is("sub", subject) {
        return Err(700_213);
    }
    let audience = Value::from("api://AzureADTokenExchange");
    let fits = match claims.get("aud") {
        Some(Value::Array(list)) => list.contains(&audience),
        other => other == Some(&audience),
    };
    if !fits {
        return Err(7_002_131);
    }
    Ok(())
}
