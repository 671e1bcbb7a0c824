//! The configuration of a trigger: who may call it, how it can be reached, what it does. Also its addresses,
//! in all the forms that the platform has used.

use super::answer::Answer;
use super::ids;

/// The audience that flows compare byte for byte.
pub const AUDIENCE: &str = "https://service.flow.microsoft.com/";

/// Who may start the flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Anyone who has the signature in the address.
    Anyone,
    /// Everybody in the tenant.
    AnyUser,
    /// These object ids; an empty list means everybody in the tenant.
    SpecificUsers(Vec<String>),
}

/// What a trigger that accepts tokens does with the signature in an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signatures {
    /// It requires a token all the same, as a flow in a tenant mode.
    Ignored,
    /// It accepts the right one, as a Logic App with an authorization policy.
    Accepted,
    /// It refuses them explicitly, as a Logic App with signatures disabled.
    Disabled,
}

/// The form of the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Family {
    /// `/workflows/…`, as on logic.azure.com.
    LogicApps,
    /// `/powerautomate/automations/direct/…`, with `cu/NN` when there is a scale unit.
    PowerPlatform { scale_unit: Option<String> },
    /// `/api/…`, as a Standard resource uses it.
    Standard,
}

/// Whether the flow can be started at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Enabled,
    Disabled,
    /// It was deleted, but the platform still knows its name.
    Deleted,
}

/// Which headers an answer of the platform carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlatformHeaders {
    /// All that have been observed, with the id of the run if there is one.
    Full,
    /// None, as may happen on hosts without a published dump, or behind another proxy.
    Absent,
}

/// Whether requests are checked before they are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checks {
    /// As the platform does.
    All,
    /// Not at all, for load runs that measure something else.
    Skipped,
}

/// A trigger's configuration. Created by one of the first three functions, refined by the others.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// The workflow: 32 hexadecimal digits, or a name in the Standard family.
    pub workflow: String,
    pub name: String,
    /// Who may start it.
    pub mode: Mode,
    /// The tenant that tokens must come from.
    pub tenant: String,
    /// The audience that tokens must have, byte for byte.
    pub audience: String,
    /// The methods that it accepts.
    pub methods: Vec<String>,
    pub family: Family,
    /// Top-level properties that the schema requires; empty means no schema.
    pub required: Vec<String>,
    pub condition: Condition,
    /// What it does.
    pub behaviour: Answer,
    /// The status for tokens that do not match: 403, or 401 as fewer sources report.
    pub mismatch_status: u16,
    /// The largest body it reads.
    pub body_bytes_max: u64,
    pub platform_headers: PlatformHeaders,
    pub checks: Checks,
    /// The signature in the address; checked only in Anyone mode, or where signatures are accepted beside
    /// tokens.
    pub signature: String,
    pub signatures: Signatures,
}

impl Trigger {
    /// A trigger that is protected by the signature in its address.
    pub fn anyone() -> Self {
        Self::with_mode(Mode::Anyone, "")
    }

    /// A trigger for all tokens of a tenant.
    pub fn any_user(tenant: &str) -> Self {
        Self::with_mode(Mode::AnyUser, tenant)
    }

    /// A trigger for these object ids of a tenant.
    pub fn specific_users(tenant: &str, oids: &[&str]) -> Self {
        Self::with_mode(
            Mode::SpecificUsers(oids.iter().map(|oid| (*oid).to_owned()).collect()),
            tenant,
        )
    }

    /// Sets the workflow id, which is random by default.
    #[must_use]
    pub fn workflow(self, workflow: &str) -> Self {
        Self {
            workflow: workflow.to_owned(),
            ..self
        }
    }

    /// Sets the name, `manual` by default.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..self
        }
    }

    /// Sets the audience, the public cloud's by default.
    #[must_use]
    pub fn audience(self, audience: &str) -> Self {
        Self {
            audience: audience.to_owned(),
            ..self
        }
    }

    /// Sets the methods, POST by default.
    #[must_use]
    pub fn methods(self, methods: &[&str]) -> Self {
        Self {
            methods: methods.iter().map(|method| (*method).to_owned()).collect(),
            ..self
        }
    }

    /// Sets the form of the address; by default the new one without scale unit.
    #[must_use]
    pub fn family(self, family: Family) -> Self {
        Self { family, ..self }
    }

    /// Requires these top-level properties by schema.
    #[must_use]
    pub fn requires(self, properties: &[&str]) -> Self {
        Self {
            required: properties.iter().map(|name| (*name).to_owned()).collect(),
            ..self
        }
    }

    /// Sets the condition, enabled by default.
    #[must_use]
    pub fn condition(self, condition: Condition) -> Self {
        Self { condition, ..self }
    }

    /// Sets the behaviour, 202 without a body by default.
    #[must_use]
    pub fn does(self, behaviour: Answer) -> Self {
        Self { behaviour, ..self }
    }

    /// Sets the status for tokens that do not match.
    #[must_use]
    pub fn mismatch_status(self, mismatch_status: u16) -> Self {
        Self {
            mismatch_status,
            ..self
        }
    }

    /// Sets the body limit, the platform's 100 MiB by default.
    #[must_use]
    pub fn body_bytes_max(self, body_bytes_max: u64) -> Self {
        Self {
            body_bytes_max,
            ..self
        }
    }

    /// Answers without any header of the platform.
    #[must_use]
    pub fn without_platform_headers(self) -> Self {
        Self {
            platform_headers: PlatformHeaders::Absent,
            ..self
        }
    }

    /// Sets what happens to signatures.
    #[must_use]
    pub fn signatures(self, signatures: Signatures) -> Self {
        Self { signatures, ..self }
    }

    /// The query with the signature, whatever the mode.
    pub fn signed_query(&self) -> String {
        let anyone = Self {
            mode: Mode::Anyone,
            ..self.clone()
        };
        anyone.query()
    }

    /// Disables checks, for load runs.
    #[must_use]
    pub fn unchecked(self) -> Self {
        Self {
            checks: Checks::Skipped,
            ..self
        }
    }

    pub fn path(&self) -> String {
        let Self { workflow, name, .. } = self;
        match &self.family {
            Family::LogicApps => format!("/workflows/{workflow}/triggers/{name}/paths/invoke"),
            Family::PowerPlatform { scale_unit } => {
                let unit = scale_unit
                    .as_ref()
                    .map_or_else(String::new, |unit| format!("cu/{unit}/"));
                format!(
                    "/powerautomate/automations/direct/{unit}workflows/{workflow}/triggers/{name}/paths/\
                     invoke"
                )
            }
            Family::Standard => format!("/api/{workflow}/triggers/{name}/invoke"),
        }
    }

    pub fn query(&self) -> String {
        let version = match self.family {
            Family::LogicApps => "2016-06-01",
            Family::PowerPlatform { .. } => "1",
            Family::Standard => "2022-05-01",
        };
        match self.mode {
            Mode::Anyone => format!(
                "api-version={version}&sp=%2Ftriggers%2F{}%2Frun&sv=1.0&sig={}",
                self.name, self.signature
            ),
            Mode::AnyUser | Mode::SpecificUsers(_) => format!("api-version={version}"),
        }
    }

    fn with_mode(mode: Mode, tenant: &str) -> Self {
        Self {
            workflow: ids::workflow_id(),
            name: "manual".to_owned(),
            mode,
            tenant: tenant.to_owned(),
            audience: AUDIENCE.to_owned(),
            methods: vec!["POST".to_owned()],
            family: Family::PowerPlatform { scale_unit: None },
            required: Vec::new(),
            condition: Condition::Enabled,
            behaviour: Answer::Accepted,
            mismatch_status: 403,
            body_bytes_max: 100 << 20,
            platform_headers: PlatformHeaders::Full,
            checks: Checks::All,
            signature: ids::signature(),
            signatures: Signatures::Ignored,
        }
    }
}

/// The parts of a request's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggerPath {
    pub family: Family,
    pub workflow: String,
    pub trigger: String,
    /// The rest, without its first slash.
    pub relative: String,
}

impl TriggerPath {
    /// Parses a path as it was sent, without decoding: the platform's own names contain nothing to decode.
    pub fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        let place = |family, workflow: &str, trigger: &str, relative: &[&str]| {
            let named = !workflow.is_empty() && !trigger.is_empty();
            named.then(|| Self {
                family,
                workflow: workflow.to_owned(),
                trigger: trigger.to_owned(),
                relative: relative.join("/"),
            })
        };
        let new = |scale_unit: Option<&str>| Family::PowerPlatform {
            scale_unit: scale_unit.map(str::to_owned),
        };
        match parts.as_slice() {
            [
                "workflows",
                workflow,
                "triggers",
                trigger,
                "paths",
                "invoke",
                relative @ ..,
            ] => place(Family::LogicApps, workflow, trigger, relative),
            ["powerautomate", "automations", "direct", rest @ ..] => match rest {
                [
                    "workflows",
                    workflow,
                    "triggers",
                    trigger,
                    "paths",
                    "invoke",
                    relative @ ..,
                ] => place(new(None), workflow, trigger, relative),
                [
                    "cu",
                    unit,
                    "workflows",
                    workflow,
                    "triggers",
                    trigger,
                    "paths",
                    "invoke",
                    relative @ ..,
                ] => place(new(Some(unit)), workflow, trigger, relative),
                _ => None,
            },
            ["api", workflow, "triggers", trigger, "invoke", relative @ ..] => {
                place(Family::Standard, workflow, trigger, relative)
            }
            _ => None,
        }
    }
}
