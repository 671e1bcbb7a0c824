//! What all tables of failures share: who fixes a failure, whether waiting helps, and what to do.

use std::borrow::Cow;
use std::fmt;

/// Who can fix the cause of a failure.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum FixedBy {
    /// The sender of the request.
    Caller,
    /// The operator of the gateway: its settings, its secrets.
    Operator,
    /// The owner of the flow or the Logic App.
    FlowOwner,
    /// The administrator of the tenant: Entra, key vaults, data policies.
    TenantAdmin,
    /// The administrator of the host: its clock, its network.
    HostAdmin,
    /// The administrator of the cluster that issues federated tokens.
    ClusterAdmin,
    /// The account that a delegated identity signs in with.
    User,
    /// Nobody: it is transient.
    Nobody,
}

impl FixedBy {
    /// The word for log, doctor and documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Operator => "operator",
            Self::FlowOwner => "flow-owner",
            Self::TenantAdmin => "tenant-admin",
            Self::HostAdmin => "host-admin",
            Self::ClusterAdmin => "cluster-admin",
            Self::User => "user",
            Self::Nobody => "nobody",
        }
    }

    /// The beginning of a sentence about it.
    pub const fn must_fix(self) -> &'static str {
        match self {
            Self::Caller => "The caller must fix this",
            Self::Operator => "The operator of the gateway must fix this",
            Self::FlowOwner => "The owner of the flow must fix this",
            Self::TenantAdmin => "An administrator of the tenant must fix this",
            Self::HostAdmin => "The administrator of the gateway's host must fix this",
            Self::ClusterAdmin => "The administrator of the cluster's token issuer must fix this",
            Self::User => "The account's user or its administrator must fix this",
            Self::Nobody => "Nobody needs to fix this",
        }
    }
}

impl fmt::Debug for FixedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether waiting helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outlook {
    /// It fails the same way until the cause is fixed.
    AfterFix,
    /// The same request can succeed soon.
    Transient,
    /// The same request can succeed later, and asking often makes it worse.
    BackOff,
}

impl Outlook {
    /// The end of a sentence about it.
    pub const fn clause(self) -> &'static str {
        match self {
            Self::AfterFix => "waiting does not help",
            Self::Transient => "it usually passes within minutes",
            Self::BackOff => "it passes with time, if requests become rare",
        }
    }
}

/// What to do about a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    /// Who can do it.
    pub fixed_by: FixedBy,
    /// What to do, in sentences.
    pub what: Cow<'static, str>,
    /// The page of the portal; empty if there is none.
    pub portal: Cow<'static, str>,
    /// The command; empty if there is none.
    pub command: Cow<'static, str>,
}

impl Remedy {
    /// A remedy without a page or a command.
    pub fn new(fixed_by: FixedBy, what: impl Into<Cow<'static, str>>) -> Self {
        Self {
            fixed_by,
            what: what.into(),
            portal: Cow::Borrowed(""),
            command: Cow::Borrowed(""),
        }
    }

    /// Adds the page of the portal.
    #[must_use]
    pub fn portal(mut self, page: impl Into<Cow<'static, str>>) -> Self {
        self.portal = page.into();
        self
    }

    /// Adds the command.
    #[must_use]
    pub fn command(mut self, command: impl Into<Cow<'static, str>>) -> Self {
        self.command = command.into();
        self
    }
}
