//! Grants in the name of an account: user name and password, refresh tokens that rotate and can be revoked,
//! the sign-in page, and device codes.

use std::collections::{HashMap, VecDeque};

use serde_json::{Value, json};

use super::super::aadsts::refusal;
use super::super::reply::Reply;
use super::super::{form, ids};
use super::{Credential, Entra, TokenRequest};

/// The grant type of a device.
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// The scopes of OpenID Connect, which name no resource.
const OPENID: &[&str] = &["offline_access", "openid", "profile", "email"];
/// Refresh tokens and codes that are remembered.
const GRANTS_MAX: usize = 1024;

/// What happens to a refresh token after its use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rotation {
    /// It stays valid beside the new one, as at Entra.
    #[default]
    Lenient,
    /// It is refused from then on, as by stricter servers.
    Strict,
}

#[derive(Clone, Debug)]
struct User {
    password: String,
    oid: String,
}

/// The sign-in behind a refresh token or a code.
#[derive(Clone, Debug)]
struct Session {
    tenant: String,
    client: String,
    user: String,
    /// The AADSTS number that it is refused with, if any.
    over: Option<u32>,
}

#[derive(Clone, Debug)]
struct Code {
    session: Session,
    redirect_uri: String,
    challenge: String,
}

#[derive(Clone, Debug)]
struct Device {
    session: Session,
    code: String,
}

/// All accounts and their grants.
#[derive(Debug, Default)]
pub(super) struct Users {
    /// Accounts by tenant and lower-case user name.
    users: HashMap<(String, String), User>,
    refresh_tokens: HashMap<String, Session>,
    rotation: Rotation,
    codes: HashMap<String, Code>,
    devices: HashMap<String, Device>,
    /// The person at the browser.
    person: String,
    /// The error that the page answers instead of a code.
    page_refuses: Option<(String, String)>,
    /// Answers to polls before the person has signed in.
    polls: VecDeque<String>,
    interval: u64,
}

impl Entra {
    /// Registers an application as a public client: it has no credential, and must not send one.
    pub fn register_public(&self, tenant: &str, client_id: &str, oid: &str) {
        self.register(tenant, client_id, oid, Credential::Public);
    }

    /// Registers an account.
    pub fn register_user(&self, tenant: &str, user: &str, password: &str, oid: &str) {
        let account = User {
            password: password.to_owned(),
            oid: oid.to_owned(),
        };
        let mut users = self.state.users.lock().unwrap();
        user.clone_into(&mut users.person);
        users.users.insert(key(tenant, user), account);
    }

    /// Creates a refresh token as a sign-in of this account would.
    pub fn refresh_token(&self, tenant: &str, client_id: &str, user: &str) -> String {
        let session = Session {
            tenant: tenant.to_owned(),
            client: client_id.to_owned(),
            user: user.to_owned(),
            over: None,
        };
        self.state.users.lock().unwrap().grant(session)
    }

    /// Refuses all refresh tokens issued so far with this number; the next sign-in is valid again.
    pub fn revoke_refresh_tokens(&self, number: u32) {
        for session in self.state.users.lock().unwrap().refresh_tokens.values_mut() {
            session.over = Some(number);
        }
    }

    /// Sets what happens to a refresh token after its use.
    pub fn rotation(&self, rotation: Rotation) {
        self.state.users.lock().unwrap().rotation = rotation;
    }

    /// The page answers the next sign-in with this error instead of a code.
    pub fn page_refuses(&self, error: &str, description: &str) {
        self.state.users.lock().unwrap().page_refuses = Some((error.to_owned(), description.to_owned()));
    }

    /// The next polls with a device code are answered with these errors, and then with a token.
    pub fn polls(&self, errors: &[&str]) {
        let mut users = self.state.users.lock().unwrap();
        users.polls = errors.iter().map(|error| (*error).to_owned()).collect();
        users.interval = 1;
    }

    /// Answers requests that are not for the token endpoint.
    pub(super) fn beside(&self, request: &TokenRequest) -> Option<Reply> {
        let tenant = request.tenant();
        if request.head.method == "GET"
            && request.head.path() == format!("/{tenant}/v2.0/.well-known/openid-configuration")
        {
            return Some(self.discovery(tenant));
        }
        let path = request
            .head
            .path()
            .strip_prefix(&format!("/{tenant}/oauth2/v2.0/"))?;
        match (request.head.method.as_str(), path) {
            ("GET", "authorize") => Some(self.page(request)),
            ("POST", "devicecode") => Some(self.device(request)),
            _ => None,
        }
    }

    /// The document with a tenant's endpoints (OpenID Connect Discovery 1.0).
    fn discovery(&self, tenant: &str) -> Reply {
        let (root, endpoints) = (
            self.authority(),
            format!("{}/{tenant}/oauth2/v2.0", self.authority()),
        );
        Reply::json(
            200,
            &json!({
                "issuer": format!("{root}/{tenant}/v2.0"),
                "authorization_endpoint": format!("{endpoints}/authorize"),
                "token_endpoint": format!("{endpoints}/token"),
                "device_authorization_endpoint": format!("{endpoints}/devicecode"),
            }),
        )
    }

    /// The sign-in page. This person agrees at once.
    fn page(&self, request: &TokenRequest) -> Reply {
        let fields = form::decode(request.head.query());
        let field = |name: &str| form::single(&fields, name).unwrap_or_default();
        let tenant = request.tenant();
        let Some(app) = self.app(tenant, field("client_id")) else {
            return Reply::html(400, "AADSTS700016: Application was not found in the directory");
        };
        drop(app);
        let redirect_uri = field("redirect_uri");
        if !is_registered(redirect_uri) {
            return Reply::html(
                400,
                "AADSTS50011: The redirect URI specified in the request does not match",
            );
        }
        let scopes: Vec<_> = field("scope").split(' ').collect();
        let wrong = [
            ("response_type", field("response_type") != "code"),
            ("response_mode", !["", "query"].contains(&field("response_mode"))),
            ("code_challenge_method", field("code_challenge_method") != "S256"),
            ("code_challenge", field("code_challenge").len() != 43),
            ("state", field("state").len() < 16),
            ("scope", !scopes.contains(&"offline_access")),
        ];
        if let Some((name, _)) = wrong.iter().find(|(_, wrong)| *wrong) {
            return Reply::html(
                400,
                &format!("AADSTS900144: The request must contain a good {name}"),
            );
        }
        let mut users = self.state.users.lock().unwrap();
        if let Some((error, description)) = users.page_refuses.take() {
            return back(
                redirect_uri,
                &[
                    ("error", &error),
                    ("error_description", &description),
                    ("state", field("state")),
                ],
            );
        }
        let code = format!("1.A{}", ids::base64url(&ids::random_bytes::<32>()));
        let session = Session {
            tenant: tenant.to_owned(),
            client: field("client_id").to_owned(),
            user: users.person.clone(),
            over: None,
        };
        if users.codes.len() < GRANTS_MAX {
            users.codes.insert(
                code.clone(),
                Code {
                    session,
                    redirect_uri: redirect_uri.to_owned(),
                    challenge: field("code_challenge").to_owned(),
                },
            );
        }
        back(
            redirect_uri,
            &[
                ("code", &code),
                ("state", field("state")),
                ("session_state", &ids::guid()),
            ],
        )
    }

    /// Issues a device code.
    fn device(&self, request: &TokenRequest) -> Reply {
        let client = request.field("client_id").unwrap_or_default();
        if self.app(request.tenant(), client).is_none() {
            return self.refuse(request, 700_016);
        }
        let code = ids::base64url(&ids::random_bytes::<32>());
        let mut users = self.state.users.lock().unwrap();
        let session = Session {
            tenant: request.tenant().to_owned(),
            client: client.to_owned(),
            user: users.person.clone(),
            over: None,
        };
        let device = Device {
            session,
            code: code.clone(),
        };
        if users.devices.len() < GRANTS_MAX {
            users.devices.insert(code.clone(), device);
        }
        let user_code = "FKLWGATE7";
        let address = "https://microsoft.com/devicelogin";
        Reply::json(
            200,
            &json!({
                "user_code": user_code,
                "device_code": code,
                "verification_uri": address,
                "expires_in": 900,
                "interval": if users.interval == 0 { 5 } else { users.interval },
                "message": format!("To sign in, use a web browser to open the page {address} and enter the code \
                                    {user_code} to authenticate."),
            }),
        )
    }

    /// Whether a grant is one of an account, and what is wrong with its request.
    pub(super) fn check_account(&self, request: &TokenRequest) -> Result<(), u32> {
        let users = self.state.users.lock().unwrap();
        let field = |name: &str| request.field(name).unwrap_or_default();
        match field("grant_type") {
            "password" => {
                let user = users
                    .users
                    .get(&key(request.tenant(), field("username")))
                    .ok_or(50034_u32)?;
                if user.password == field("password") {
                    Ok(())
                } else {
                    Err(50126)
                }
            }
            "refresh_token" => {
                let session = users
                    .refresh_tokens
                    .get(field("refresh_token"))
                    .ok_or(70008_u32)?;
                belongs(session, request)
            }
            "authorization_code" => {
                let code = users.codes.get(field("code")).ok_or(54005_u32)?;
                belongs(&code.session, request)?;
                let given =
                    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, field("code_verifier").as_bytes());
                if code.challenge != ids::base64url(given.as_ref()) {
                    return Err(501_481);
                }
                if code.redirect_uri == field("redirect_uri") {
                    Ok(())
                } else {
                    Err(500_112)
                }
            }
            DEVICE_GRANT => {
                let device = users.devices.get(field("device_code")).ok_or(70018_u32)?;
                belongs(&device.session, request)
            }
            _ => Ok(()),
        }
    }

    /// The answer to a poll instead of a token.
    pub(super) fn poll(&self, request: &TokenRequest) -> Option<Reply> {
        if request.field("grant_type") != Some(DEVICE_GRANT) {
            return None;
        }
        let error = self.state.users.lock().unwrap().polls.pop_front()?;
        let mut refusal = refusal(70016);
        refusal.error = error;
        Some(refusal.reply(super::serve::parties(request)))
    }

    /// The claims that an account adds to a token.
    pub(super) fn account_claims(&self, request: &TokenRequest) -> Option<Value> {
        let session = self.session(request)?;
        let users = self.state.users.lock().unwrap();
        let user = users.users.get(&key(&session.tenant, &session.user))?;
        Some(json!({
            "oid": user.oid, "sub": user.oid, "upn": session.user, "unique_name": session.user,
            "idtyp": "user", "scp": "User",
        }))
    }

    /// The additional tokens in an answer for an account; consumes the refresh token if rotation is strict.
    pub(super) fn account_tokens(&self, request: &TokenRequest, body: &mut Value) {
        let Some(session) = self.session(request) else {
            return;
        };
        let scopes: Vec<_> = request.field("scope").unwrap_or_default().split(' ').collect();
        let mut users = self.state.users.lock().unwrap();
        if let Some(code) = request.field("code") {
            users.codes.remove(code);
        }
        if let Some(device) = request.field("device_code") {
            users.devices.remove(device);
        }
        if let (Rotation::Strict, Some(token)) = (users.rotation, request.field("refresh_token")) {
            users.refresh_tokens.remove(token);
        }
        if scopes.contains(&"openid") {
            let oid = users
                .users
                .get(&key(&session.tenant, &session.user))
                .map(|user| user.oid.clone());
            let claims = json!({
                "preferred_username": session.user, "tid": session.tenant, "oid": oid, "aud": session.client,
            });
            let payload = ids::base64url(claims.to_string().as_bytes());
            body["id_token"] = Value::from(format!(
                "{}.{payload}.c2ln",
                ids::base64url(b"{\"alg\":\"RS256\"}")
            ));
        }
        if scopes.contains(&"offline_access") {
            body["refresh_token"] = Value::from(users.grant(session));
        }
        body["scope"] = Value::from(scopes.join(" "));
    }

    fn session(&self, request: &TokenRequest) -> Option<Session> {
        let users = self.state.users.lock().unwrap();
        let field = |name: &str| request.field(name).unwrap_or_default();
        match field("grant_type") {
            "password" => Some(Session {
                tenant: request.tenant().to_owned(),
                client: field("client_id").to_owned(),
                user: field("username").to_owned(),
                over: None,
            }),
            "refresh_token" => users.refresh_tokens.get(field("refresh_token")).cloned(),
            "authorization_code" => users.codes.get(field("code")).map(|code| code.session.clone()),
            DEVICE_GRANT => {
                let device = users
                    .devices
                    .values()
                    .find(|device| device.code == field("device_code"));
                device.map(|device| device.session.clone())
            }
            _ => None,
        }
    }
}

impl Users {
    fn grant(&mut self, session: Session) -> String {
        let token = format!("1.canary-refresh.{}", ids::base64url(&ids::random_bytes::<32>()));
        if self.refresh_tokens.len() < GRANTS_MAX {
            self.refresh_tokens.insert(token.clone(), session);
        }
        token
    }
}

/// Whether this is the name of an account grant.
pub(super) fn is_accounts(grant: &str) -> bool {
    ["password", "refresh_token", "authorization_code", DEVICE_GRANT].contains(&grant)
}

/// The resource part of a scope, without OpenID Connect's own scopes.
pub(super) fn resource_scope(scope: &str) -> String {
    let parts = scope.split(' ').filter(|part| !OPENID.contains(part));
    parts.collect::<Vec<_>>().join(" ")
}

fn belongs(session: &Session, request: &TokenRequest) -> Result<(), u32> {
    if let Some(number) = session.over {
        return Err(number);
    }
    let is_same =
        session.tenant == request.tenant() && request.field("client_id") == Some(session.client.as_str());
    if is_same { Ok(()) } else { Err(70000) }
}

/// The application has registered `http://localhost`: any port is allowed, and no path.
fn is_registered(redirect_uri: &str) -> bool {
    let port = redirect_uri
        .strip_prefix("http://localhost:")
        .map(str::parse::<u16>);
    redirect_uri == "http://localhost" || matches!(port, Some(Ok(_)))
}

fn back(redirect_uri: &str, fields: &[(&str, &str)]) -> Reply {
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| {
            let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
            format!("{name}={value}")
        })
        .collect();
    // Without a path in the redirect address Entra puts a slash before the query.
    Reply::new(302).header("Location", format!("{redirect_uri}/?{}", fields.join("&")))
}

fn key(tenant: &str, user: &str) -> (String, String) {
    (tenant.to_owned(), user.to_lowercase())
}
