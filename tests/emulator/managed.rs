//! The endpoints of managed identities: IMDS, App Service and the agent of Azure Arc, as plain HTTP on
//! loopback. Each makes the checks of the real one and answers with its literal bodies; a test may script
//! failures.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::{fs, io};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::entra::Entra;
use super::gate::Count;
use super::reply::Reply;
use super::script::{Cue, Script};
use super::wire::Head;
use super::{form, ids, wire};

/// Requests that are recorded.
const SEEN_MAX: usize = 1000;
const HEAD_BYTES_MAX: usize = 64 << 10;
/// The header value that App Service's endpoint requires.
pub const IDENTITY_HEADER: &str = "canary-identity-header-4b1d";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Platform {
    /// The Instance Metadata Service.
    Imds,
    /// App Service, Functions and Container Apps.
    AppService,
    /// The agent of Azure Arc, with the folder of its keys.
    Arc(PathBuf),
}

#[derive(Clone, Debug)]
pub enum ManagedAnswer {
    /// The answer of the real endpoint.
    Normal,
    /// This answer instead.
    Reply(Reply),
    /// Arc: 401 with this challenge, literally, or without any.
    Challenge(Option<String>),
    /// Arc: the system-assigned identity, whatever was selected, as old agents answer.
    Unselected,
    /// Never answered.
    Hang,
}

/// An identity of the machine.
#[derive(Clone, Debug)]
pub struct ManagedIdentity {
    pub tenant: String,
    pub client_id: String,
    pub oid: String,
    /// Its path in Azure Resource Manager.
    pub resource_id: String,
}

#[derive(Debug)]
struct State {
    address: SocketAddr,
    platform: Platform,
    entra: Entra,
    system: Option<ManagedIdentity>,
    assigned: Mutex<Vec<ManagedIdentity>>,
    script: Mutex<Script<ManagedAnswer>>,
    seen: Mutex<Vec<Arc<Head>>>,
    requests: Count,
    hang_ups: Count,
    /// The key that the agent requires next.
    key: Mutex<Option<String>>,
}

/// An endpoint; it stops when it is dropped.
#[derive(Debug)]
pub struct ManagedEndpoint {
    state: Arc<State>,
    task: AbortHandle,
}

impl Drop for ManagedEndpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ManagedEndpoint {
    /// Starts an endpoint on a free port of 127.0.0.1. Its tokens are issued by `entra`, in which its
    /// identities are registered.
    ///
    /// # Panics
    /// If this machine has no free port.
    pub async fn start(platform: Platform, entra: &Entra, system: Option<ManagedIdentity>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let state = Arc::new(State {
            address: listener.local_addr().unwrap(),
            platform,
            entra: entra.clone(),
            system: system.clone(),
            assigned: Mutex::default(),
            script: Mutex::default(),
            seen: Mutex::default(),
            requests: Count::new("requests to a managed identity's endpoint"),
            hang_ups: Count::new("requests to a managed identity's endpoint whose caller hung up"),
            key: Mutex::default(),
        });
        if let Some(identity) = &system {
            state.register(identity);
        }
        let task = tokio::spawn(Arc::clone(&state).run(listener)).abort_handle();
        Self { state, task }
    }

    /// Assigns an additional identity.
    pub fn assign(&self, identity: ManagedIdentity) {
        self.state.register(&identity);
        self.state.assigned.lock().unwrap().push(identity);
    }

    /// Scheme, host and port.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.state.address)
    }

    /// The value of `IDENTITY_ENDPOINT`.
    pub fn identity_endpoint(&self) -> String {
        let path = match self.state.platform {
            Platform::AppService => "/msi/token/",
            Platform::Imds | Platform::Arc(_) => PATH,
        };
        format!("{}{path}", self.endpoint())
    }

    /// Scripts the answer to the next request.
    pub fn next(&self, answer: ManagedAnswer) {
        self.state.script.lock().unwrap().next(answer);
    }

    /// Scripts the answer to all requests.
    pub fn always(&self, answer: ManagedAnswer) {
        self.state.script.lock().unwrap().always(answer);
    }

    /// Clears the script.
    pub fn normal(&self) {
        self.state.script.lock().unwrap().clear();
    }

    /// Requests received.
    pub fn requests(&self) -> &Count {
        &self.state.requests
    }

    /// Callers that left without an answer.
    pub fn hang_ups(&self) -> &Count {
        &self.state.hang_ups
    }

    /// The heads received, oldest first.
    pub fn seen(&self) -> Vec<Arc<Head>> {
        self.state.seen.lock().unwrap().clone()
    }
}

const PATH: &str = "/metadata/identity/oauth2/token";

impl State {
    fn register(&self, identity: &ManagedIdentity) {
        // A random secret: the identity can get its tokens only from this endpoint.
        let secret = ids::signature();
        self.entra
            .register_app(&identity.tenant, &identity.client_id, &secret, &identity.oid);
    }

    async fn run(self: Arc<Self>, listener: TcpListener) {
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = tasks.join_next() => {}
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        let state = Arc::clone(&self);
                        tasks.spawn(async move { drop(state.attend(stream).await) });
                    }
                }
            }
        }
    }

    /// Reads one request, answers it, and closes the connection.
    async fn attend(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut buffer = Vec::new();
        let head = loop {
            match wire::parse_head(&buffer) {
                Ok(Some((head, _))) => break head,
                Ok(None) if buffer.len() <= HEAD_BYTES_MAX => {}
                Ok(None) | Err(_) => return Ok(()),
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head = Arc::new(head);
        {
            let mut seen = self.seen.lock().unwrap();
            if seen.len() < SEEN_MAX {
                seen.push(Arc::clone(&head));
            }
        }
        self.requests.add(1);
        let cue = self.script.lock().unwrap().take("");
        let reply = match cue {
            Cue::Scripted(ManagedAnswer::Hang) => {
                let mut bin = [0; 64];
                while stream.read(&mut bin).await? > 0 {}
                self.hang_ups.add(1);
                return Ok(());
            }
            Cue::Scripted(ManagedAnswer::Reply(reply)) => reply,
            Cue::Scripted(ManagedAnswer::Challenge(challenge)) => missing_authorization(challenge),
            Cue::Scripted(ManagedAnswer::Unselected) => self.answer(&head, Selecting::Ignored),
            Cue::Scripted(ManagedAnswer::Normal) | Cue::Free | Cue::Missing => {
                self.answer(&head, Selecting::Honoured)
            }
        };
        let reply = reply.header("Connection", "close");
        stream.write_all(&reply.bytes(&head.method)).await?;
        stream.shutdown().await
    }

    fn answer(&self, head: &Head, selecting: Selecting) -> Reply {
        let (path, version, names) = match &self.platform {
            Platform::Imds => (PATH, "2018-02-01", ["client_id", "object_id", "msi_res_id"]),
            Platform::AppService => (
                "/msi/token/",
                "2019-08-01",
                ["client_id", "principal_id", "mi_res_id"],
            ),
            Platform::Arc(_) => (PATH, "2020-06-01", ["client_id", "object_id", "msi_res_id"]),
        };
        if head.path() != path || head.method != "GET" {
            return Reply::html(404, "Not Found");
        }
        if let Some(refusal) = self.unproven(head) {
            return refusal;
        }
        let query = form::decode(head.query());
        if form::single(&query, "api-version") != Some(version) {
            return refuse(
                400,
                "bad_request_101",
                "Required query variable 'api-version' is missing",
            );
        }
        let Some(resource) = form::single(&query, "resource") else {
            return refuse(
                400,
                "invalid_request",
                "Required query variable 'resource' is missing",
            );
        };
        let wanted = names.map(|name| form::single(&query, name));
        let wanted = match selecting {
            Selecting::Honoured => wanted,
            Selecting::Ignored => [None; 3],
        };
        match self.find(wanted) {
            Ok(identity) => self.success(&identity, resource),
            Err(refusal) => refusal,
        }
    }

    /// The refusal of a request without the headers that prove it comes from this machine.
    fn unproven(&self, head: &Head) -> Option<Reply> {
        match &self.platform {
            Platform::Imds if head.header("metadata") != Some("true") => Some(refuse(
                400,
                "bad_request_102",
                "Required metadata header not specified",
            )),
            Platform::Imds => None,
            Platform::AppService if head.header("x-identity-header") != Some(IDENTITY_HEADER) => {
                Some(Reply::new(401))
            }
            Platform::AppService => None,
            Platform::Arc(folder) => {
                if head.header("metadata") != Some("true") {
                    return Some(refuse(
                        400,
                        "bad_request_102",
                        "Required metadata header not specified",
                    ));
                }
                let key = self.key.lock().unwrap().take();
                if let (Some(shown), Some(key)) = (head.header("authorization"), key)
                    && shown == format!("Basic {key}")
                {
                    return None;
                }
                let key = ids::signature();
                let path = folder.join(format!("{}.key", ids::guid()));
                fs::write(&path, &key).unwrap();
                *self.key.lock().unwrap() = Some(key);
                Some(missing_authorization(Some(format!(
                    "Basic realm={}",
                    path.display()
                ))))
            }
        }
    }

    fn find(&self, [client, object, resource]: [Option<&str>; 3]) -> Result<ManagedIdentity, Reply> {
        let not_found = || refuse(400, "invalid_request", "Identity not found");
        let assigned = self.assigned.lock().unwrap();
        if client.is_none() && object.is_none() && resource.is_none() {
            return match (&self.system, assigned.as_slice()) {
                (Some(system), _) => Ok(system.clone()),
                (None, [one]) => Ok(one.clone()),
                (None, []) => Err(not_found()),
                (None, _) => Err(refuse(
                    400,
                    "invalid_request",
                    "Multiple user assigned identities exist, please specify the clientId / resourceId of the \
                     identity in the token request",
                )),
            };
        }
        let fits = |identity: &&ManagedIdentity| {
            client.is_none_or(|id| id == identity.client_id)
                && object.is_none_or(|id| id == identity.oid)
                && resource.is_none_or(|id| id == identity.resource_id)
        };
        assigned.iter().find(fits).cloned().ok_or_else(not_found)
    }

    fn success(&self, identity: &ManagedIdentity, resource: &str) -> Reply {
        let mut overrides = json!({"xms_mirid": identity.resource_id});
        if resource.starts_with("api://AzureADTokenExchange") {
            overrides["iss"] = Value::from(format!(
                "https://login.microsoftonline.com/{}/v2.0",
                identity.tenant
            ));
        }
        let token = self
            .entra
            .token_for(&identity.tenant, &identity.client_id, resource, &overrides);
        let now = ids::now();
        let body = match self.platform {
            Platform::Imds => json!({
                "access_token": token, "expires_in": "3599", "expires_on": (now + 3599).to_string(),
                "not_before": (now - 300).to_string(), "resource": resource, "token_type": "Bearer",
            }),
            Platform::AppService => json!({
                "access_token": token, "expires_on": (now + 3599).to_string(), "resource": resource,
                "token_type": "Bearer", "client_id": identity.client_id,
            }),
            Platform::Arc(_) => json!({
                "token_type": "Bearer", "expires_in": "85770", "expires_on": (now + 85770).to_string(),
                "ext_expires_in": 86399, "access_token": token, "resource": resource,
            }),
        };
        Reply::json(200, &body)
    }
}

#[derive(Clone, Copy)]
enum Selecting {
    Honoured,
    Ignored,
}

fn refuse(status: u16, error: &str, description: &str) -> Reply {
    Reply::json(status, &json!({"error": error, "error_description": description}))
}

fn missing_authorization(challenge: Option<String>) -> Reply {
    let body = json!({
        "error": "unauthorized_client", "error_description": "Missing Basic Authorization header",
        "error_codes": [401],
    });
    let reply = Reply::json(401, &body);
    match challenge {
        Some(challenge) => reply.header("WWW-Authenticate", challenge),
        None => reply,
    }
}
