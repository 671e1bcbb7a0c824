//! Calls one trigger or API with the same code that serves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::time::Instant;

use crate::counters::Counters;
use crate::doctor::questions::identity_of;
use crate::doctor::walk::HeldTokens;
use crate::flow::evidence::{Evidence, Fault, Reading};
use crate::flow::{Call, Flows, Outgoing, Trigger, evidence, reply};
use crate::model::Secret;
use crate::settings::{Config, RouteSettings};

/// Time limit for a probe: a refusal comes at once.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(20);
/// How much of an answer is read; every fault of the platform is far smaller. Bytes.
const JUDGED_BYTES_MAX: usize = 64 * 1024;
const JUDGED_TIME: Duration = Duration::from_secs(10);

/// What a trigger requires, as far as its refusal of a call without a credential says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// A token: one of the tenant modes, or a policy of a Logic App.
    Token,
    /// Its signature, and nothing else.
    Signature,
    /// The refusal names neither.
    Untold,
}

impl Mode {
    pub(super) fn of(fault: &Fault) -> Self {
        match (fault.row.failure.code, fault.row.wording) {
            ("DirectApiAuthorizationRequired", "oauth authorization scheme") => Self::Token,
            ("DirectApiAuthorizationRequired", "shared access scheme") => Self::Signature,
            _ => Self::Untold,
        }
    }
}

pub(super) struct Caller<'a> {
    pub(super) config: &'a Config,
    pub(super) route: &'a RouteSettings,
    pub(super) trigger: Arc<Trigger>,
    pub(super) bearer: Option<String>,
}

pub(super) struct LiveAnswer {
    pub(super) status: u16,
    pub(super) run: Option<String>,
    pub(super) reading: Reading,
}

impl<'a> Caller<'a> {
    pub(super) fn new(
        config: &'a Config,
        route: &'a RouteSettings,
        held: &HeldTokens,
    ) -> Result<Self, String> {
        let trigger = Flows::new(1, &Counters::new()).trigger(route);
        let token = identity_of(config, route).and_then(|identity| held.get(&identity.name));
        Ok(Self {
            config,
            route,
            trigger: trigger.map_err(|error| error.to_string())?,
            bearer: token.map(|token| token.text().expose().to_owned()),
        })
    }

    /// Calls with the credential, and returns the status: the answer need not come from a flow.
    pub(super) async fn ask(&self, method: &Method, target: &str) -> Result<u16, String> {
        let seen = self.send(method, target, Sent::Credential, PROBE_TIMEOUT).await;
        seen.map(|seen| seen.status)
    }

    /// Calls the trigger at this path and query, which may contain a signature and is never shown.
    pub(super) async fn signed(&self, method: &Method, target: &Secret) -> Result<LiveAnswer, String> {
        self.send(method, target.expose(), Sent::Nothing, PROBE_TIMEOUT)
            .await
    }

    pub(super) async fn send(
        &self,
        method: &Method,
        target: &str,
        sent: Sent,
        timeout: Duration,
    ) -> Result<LiveAnswer, String> {
        let mut head = format!(
            "{method} {target} HTTP/1.1\r\nhost: {}\r\naccept: application/json\r\nuser-agent: flowgate-doctor\r\n",
            self.route.trigger.authority()
        );
        if let (Sent::Credential, Some(bearer)) = (sent, &self.bearer) {
            head.push_str(&format!("authorization: Bearer {bearer}\r\n"));
        }
        let body = if *method == Method::GET { "" } else { "{}" };
        if !body.is_empty() {
            head.push_str("content-type: application/json\r\n");
        }
        let call = Call {
            head: head.into_bytes(),
            method: method.clone(),
            body: Outgoing::Held(Bytes::from_static(body.as_bytes())),
            tracking: None,
        };
        let exchange = async {
            let lease = self
                .trigger
                .new_connection(0)
                .await
                .map_err(|error| error.to_string())?;
            let answer = self.trigger.send(lease, call, None).await;
            answer.map_err(|failed| failed.error.to_string())
        };
        let answer = tokio::time::timeout(timeout, exchange).await;
        let mut answer = answer.map_err(|_| format!("no answer within {timeout:?}"))??;
        let run = reply::run_id(&answer.fields);
        let deadline = Instant::now() + JUDGED_TIME;
        let mut body = Vec::new();
        while let Ok(Some(Ok(piece))) = tokio::time::timeout_at(deadline, answer.body.data()).await {
            body.extend_from_slice(&piece);
            if body.len() > JUDGED_BYTES_MAX {
                break;
            }
        }
        let evidence = Evidence {
            status: answer.status,
            run_id: run.as_deref(),
            www_authenticate: answer.fields.text("www-authenticate"),
            content_type: answer.fields.text("content-type"),
            body: &body,
        };
        let reading = match (evidence::classify(&evidence), sent, &self.bearer) {
            (Reading::Fault(fault), Sent::Credential, Some(_)) => Reading::Fault(fault.despite_token()),
            (reading, ..) => reading,
        };
        Ok(LiveAnswer {
            status: answer.status.as_u16(),
            reading,
            run,
        })
    }
}

/// Whether a call sends the route's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Nothing,
    Credential,
}
