//! A route as it was checked, and its parts.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;

use crate::model::{CallerName, FixedPath, Host, PathTemplate, PublicUrl, RouteName, TriggerUrl};
use crate::outbound::Trust;
use crate::settings::bodies::BodySettings;
use crate::settings::content::ContentSettings;
use crate::settings::handshake::HandshakeSettings;
use crate::settings::kinds::{choice, switch};
use crate::settings::network::NetworkSettings;
use crate::settings::origin::WebOrigin;
use crate::settings::scalars::Rate;
use crate::settings::trigger::Proof;
use crate::settings::word::{Contact, KeyPlace};
use crate::settings::{CallerSettings, DuplicateSettings, SuccessAnswer, TriggerSource, WaitSettings, mask};

#[derive(Debug, Clone)]
pub struct RouteSettings {
    pub name: RouteName,
    pub enabled: bool,
    pub host: Option<Host>,
    /// Scheme and host under which callers know it.
    pub public_url: Option<PublicUrl>,
    pub path: PathTemplate,
    /// Methods; at least one.
    pub methods: Vec<Method>,
    pub callers: CallersSettings,
    pub networks: NetworkSettings,
    pub key_places: Vec<KeyPlace>,
    /// Origins of pages that may call it.
    pub cors_origins: Vec<WebOrigin>,
    pub success: SuccessAnswer,
    /// Whether results of runs are waited for.
    pub waiting: Option<WaitSettings>,
    /// When its senders give up, whatever presets say; zero is never.
    pub answer_within: Option<Duration>,
    pub contact: Option<Contact>,
    pub handshakes: HandshakeSettings,
    pub checks: Checks,
    pub rate: Option<Rate>,
    pub body_bytes_max: u64,
    pub content: ContentSettings,
    pub kind: RouteKind,
    pub proof: Proof,
    pub object_ids: Vec<String>,
    pub on_claim_mismatch: ClaimMismatch,
    /// Address of the trigger, or of the API; a placeholder if it was not read. Messages use
    /// [`RouteSettings::trigger_shown`].
    pub trigger: TriggerUrl,
    /// Where that address can be read again, if it is not written in the settings themselves.
    pub trigger_source: Option<TriggerSource>,
    pub relative_path: RelativePath,
    pub query: QueryPass,
    pub probe: Option<FixedPath>,
    pub upstream: UpstreamSettings,
    pub duplicates: Option<DuplicateSettings>,
}

impl RouteSettings {
    /// The largest body that is held in memory: any body where another one is compared with it.
    pub fn held_bytes_max(&self, bodies: &BodySettings) -> usize {
        let hold_max = bodies.hold_size_max.bytes();
        match self.duplicates {
            Some(_) => usize::try_from(self.body_bytes_max).map_or(hold_max, |bytes| bytes.max(hold_max)),
            None => hold_max,
        }
    }

    /// The largest body that is accepted, and what says so: no larger one than the vendors of all its callers send.
    pub fn accepted_bytes_max(&self, callers: &[CallerSettings]) -> (u64, &'static str) {
        let own = (self.body_bytes_max, "`body_size_max`");
        let CallersSettings::Named(names) = &self.callers else {
            return own;
        };
        let sends = |name: &CallerName| {
            let caller = callers.iter().find(|caller| caller.name == *name)?;
            caller.signature.as_ref()?.habits.body_bytes_max
        };
        let largest = names.iter().map(sends).collect::<Option<Vec<_>>>();
        match largest.unwrap_or_default().into_iter().max() {
            Some(largest) if largest < own.0 => (largest, "the largest body of the vendor's `preset`"),
            _ => own,
        }
    }

    /// The address of the trigger, or of the API, without its secrets; if it was not read, the reference from the
    /// settings.
    pub fn trigger_shown(&self) -> String {
        match &self.trigger_source {
            Some(source) if source.source.known().is_none() => mask::reference(&source.written),
            _ => self.trigger.to_string(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteKind {
    Flow,
    /// An API that wants a token, and what of it may be asked for: templates for what follows its own path, in matchit's
    /// form. None, where the route's path has no `{*rest}`, so that one address is all there is.
    Api(Vec<PathTemplate>),
}

#[derive(Debug, Clone)]
pub enum CallersSettings {
    Named(Vec<CallerName>),
    /// Everybody, as the settings explicitly allow; networks and limits still apply.
    Anonymous,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimMismatch {
    /// They go to the flow all the same: the token was only read, not verified.
    Try,
    /// They are refused, and the token stays here.
    Refuse,
}

/// What a request with `x-flowgate-check` gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    /// What each check says.
    Answered,
    /// A problem: its sender believes that nothing is started.
    Refused,
}

/// What happens to the trailing `{*rest}` of a route's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelativePath {
    Dropped,
    Appended,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryPass {
    None,
    Named(Vec<String>),
    /// All but the trigger's own.
    All,
}

#[derive(Debug, Clone)]
pub struct UpstreamSettings {
    pub trust: Trust,
    pub connect_to: Option<SocketAddr>,
    pub in_flight_max: usize,
    pub waiting_max: usize,
    pub waiting_timeout: Duration,
    pub connect_timeout: Duration,
    pub response_timeout: Duration,
    pub idle_timeout: Duration,
}

choice!(ClaimMismatch: Self::Try => "try", Self::Refuse => "refuse");
switch!(RelativePath: Appended = true, Dropped = false);
switch!(Checks: Answered = true, Refused = false);
