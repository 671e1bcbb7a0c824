//! A trigger as its owner sets it up: who may call it, how it can be reached, what it does. Also its
//! addresses, in all the shapes the platform has had.

use super::answer::Answer;
use super::ids;

/// The audience that flows compare letter by letter.
pub const AUDIENCE: &str = "https://service.flow.microsoft.com/";

/// Who may start the flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Whoever has the signature in the address.
    Anyone,
    /// Everybody in the tenant.
    AnyUser,
    /// These object ids; an empty list means everybody in the tenant.
    SpecificUsers(Vec<String>),
}

/// What a trigger that takes tokens does with the signature in an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signatures {
    /// It wants a token all the same, as a flow in a tenant mode.
    Ignored,
    /// It accepts the right one, as a Logic App with an authorization policy.
    Accepted,
    /// It refuses them by name, as a Logic App that has switched them off.
    Disabled,
}

/// The shape of the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Family {
    /// `/workflows/…`, as on logic.azure.com.
    LogicApps,
    /// `/powerautomate/automations/direct/…`, with `cu/NN` when there is a scale unit.
    PowerPlatform {
        /// Two digits.
        scale_unit: Option<String>,
    },
    /// `/api/…`, as a Standard resource has it.
    Standard,
}

/// Whether the flow can be started at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It runs.
    Enabled,
    /// It is switched off.
    Disabled,
    /// It was deleted, but the platform still knows its name.
    Deleted,
}

/// Which headers an answer of the platform carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlatformHeaders {
    /// All that have been seen, with the id of the run where there is one.
    Full,
    /// None, as it may be on hosts nobody has published a dump of, or behind another proxy.
    Absent,
}

/// Whether requests are looked at before they are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checks {
    /// As the platform does.
    All,
    /// Not at all, for load runs that measure somebody else.
    Skipped,
}

/// How a trigger is set up. Made by one of the first three functions, refined by the others.
#[derive(Clone, Debug)]
pub struct Trigger {
    /// The workflow: 32 hexadecimal digits, or a name in the Standard family.
    pub workflow: String,
    /// The trigger's name.
    pub name: String,
    /// Who may start it.
    pub mode: Mode,
    /// The tenant that tokens must come from.
    pub tenant: String,
    /// The audience tokens must have, to the letter.
    pub audience: String,
    /// The methods it takes.
    pub methods: Vec<String>,
    /// The shape of its address.
    pub family: Family,
    /// Top-level properties that the schema demands; no schema when empty.
    pub required: Vec<String>,
    /// Whether it can be started.
    pub condition: Condition,
    /// What it does.
    pub behaviour: Answer,
    /// The status for tokens that do not fit: 403, or 401 as fewer sources say.
    pub mismatch_status: u16,
    /// The largest body it reads.
    pub body_bytes_max: u64,
    /// What its answers carry.
    pub platform_headers: PlatformHeaders,
    /// Whether requests are checked.
    pub checks: Checks,
    /// The signature in the address; only looked at in Anyone mode, or where signatures are accepted beside tokens.
    pub signature: String,
    /// What becomes of signatures where tokens are taken.
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

    /// Another workflow id than a random one.
    #[must_use]
    pub fn workflow(self, workflow: &str) -> Self {
        Self {
            workflow: workflow.to_owned(),
            ..self
        }
    }

    /// Another name than `manual`.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..self
        }
    }

    /// Another audience than the public cloud's.
    #[must_use]
    pub fn audience(self, audience: &str) -> Self {
        Self {
            audience: audience.to_owned(),
            ..self
        }
    }

    /// Other methods than POST.
    #[must_use]
    pub fn methods(self, methods: &[&str]) -> Self {
        Self {
            methods: methods.iter().map(|method| (*method).to_owned()).collect(),
            ..self
        }
    }

    /// Another address shape than the new one without scale unit.
    #[must_use]
    pub fn family(self, family: Family) -> Self {
        Self { family, ..self }
    }

    /// A schema that demands these top-level properties.
    #[must_use]
    pub fn requires(self, properties: &[&str]) -> Self {
        Self {
            required: properties.iter().map(|name| (*name).to_owned()).collect(),
            ..self
        }
    }

    /// Another condition than enabled.
    #[must_use]
    pub fn condition(self, condition: Condition) -> Self {
        Self { condition, ..self }
    }

    /// Another behaviour than 202 without a body.
    #[must_use]
    pub fn does(self, behaviour: Answer) -> Self {
        Self { behaviour, ..self }
    }

    /// Another status for tokens that do not fit.
    #[must_use]
    pub fn mismatch_status(self, mismatch_status: u16) -> Self {
        Self {
            mismatch_status,
            ..self
        }
    }

    /// Another limit than the platform's 100 MiB.
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

    /// Does something else with signatures.
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

    /// No checks, for load runs.
    #[must_use]
    pub fn unchecked(self) -> Self {
        Self {
            checks: Checks::Skipped,
            ..self
        }
    }

    /// The path of the address.
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

    /// The query of the address.
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

/// Where a request's path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The shape of the path.
    pub family: Family,
    /// The workflow in it.
    pub workflow: String,
    /// The trigger in it.
    pub trigger: String,
    /// What follows, without its first slash.
    pub relative: String,
}

impl Place {
    /// Reads a path as it was sent, without decoding: the platform's own names have nothing to decode.
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
