//! The row that all tables of failures are made of: what happened, who fixes it, whether waiting helps, and where. Log,
//! problem, doctor, `flowgate explain` and docs/failures.md read it, so that each failure is defined once.

use std::borrow::Cow;
use std::fmt;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum FixedBy {
    Caller,
    /// The operator of the gateway: its settings, its secrets.
    Operator,
    FlowOwner,
    /// The administrator of the tenant: Entra, key vaults, data policies.
    TenantAdmin,
    /// The administrator of the host: its clock, its network.
    HostAdmin,
    /// The administrator of the cluster that issues federated tokens.
    ClusterAdmin,
    /// The account that a delegated identity signs in with.
    User,
    Nobody,
}

impl FixedBy {
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

/// Where something is fixed: the page of a portal and the command; empty where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    pub portal: &'static str,
    pub command: &'static str,
}

impl Page {
    pub const NONE: Self = Self::new("", "");
    /// Where an account signs in again.
    pub const LOGIN: Self = Self::command("flowgate login --config FILE --identity {identity}");

    pub const fn new(portal: &'static str, command: &'static str) -> Self {
        Self { portal, command }
    }

    pub const fn portal(portal: &'static str) -> Self {
        Self::new(portal, "")
    }

    pub const fn command(command: &'static str) -> Self {
        Self::new("", command)
    }
}

/// One failure: all that is known of it before it happens. Its texts have `{placeholders}`.
#[derive(Debug, PartialEq, Eq)]
pub struct FailureRow {
    /// The word that finds it: `AADSTS7000215`, `vault-firewall`.
    pub code: &'static str,
    /// The word under which metrics count it; empty where they count the problem that the caller gets.
    pub label: &'static str,
    /// What was seen, as a clause; empty where `what` has it all.
    pub seen: &'static str,
    pub fixed_by: FixedBy,
    pub outlook: Outlook,
    pub page: Page,
    /// What happened and what is to be done, in sentences.
    pub what: &'static str,
}

/// The values of placeholders, by name.
pub type Values<'a> = [(&'a str, &'a str)];

impl FailureRow {
    pub fn remedy(&self, values: &Values<'_>) -> Remedy {
        Remedy::new(self.fixed_by, fill(self.what, values))
            .portal(fill(self.page.portal, values))
            .command(fill(self.page.command, values))
    }

    #[cfg(test)]
    pub(crate) fn assert_sound(&self) {
        let Self { code, what, .. } = self;
        assert!(
            what.ends_with('.') && what.starts_with(char::is_uppercase),
            "{code}: {what}"
        );
        assert!(
            !what.contains("  ") && !self.seen.ends_with('.'),
            "{code}: {what}"
        );
    }
}

/// The text with these values; a placeholder without one becomes a word in capitals, for people to replace.
pub fn fill(text: &'static str, values: &Values<'_>) -> Cow<'static, str> {
    let mut rest = text;
    let mut filled = String::new();
    while let Some((before, after)) = rest.split_once('{') {
        let name = after.split_once('}').filter(|(name, _)| {
            let letter = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            !name.is_empty() && name.bytes().all(letter)
        });
        filled.push_str(before);
        let Some((name, behind)) = name else {
            filled.push('{');
            rest = after;
            continue;
        };
        match values.iter().find(|(known, _)| *known == name) {
            Some((_, value)) => filled.push_str(value),
            None => filled.push_str(&name.to_ascii_uppercase()),
        }
        rest = behind;
    }
    if filled.is_empty() {
        return Cow::Borrowed(text);
    }
    filled.push_str(rest);
    Cow::Owned(filled)
}

/// A table of failures: a constant for each row, and one for all of them.
macro_rules! failures {
    ($(#[$doc:meta])* $table:ident: $($name:ident $code:literal $label:literal $fixed_by:ident $outlook:ident $page:expr,
        $seen:literal, $what:expr;)+) => {
        $(pub(crate) const $name: &$crate::model::FailureRow = &$crate::model::FailureRow {
            code: $code,
            label: $label,
            seen: $seen,
            fixed_by: $crate::model::FixedBy::$fixed_by,
            outlook: $crate::model::Outlook::$outlook,
            page: $page,
            what: $what,
        };)+
        $(#[$doc])*
        pub const $table: &[&$crate::model::FailureRow] = &[$($name),+];
    };
}
pub(crate) use failures;

/// What to do about a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    pub fixed_by: FixedBy,
    pub what: Cow<'static, str>,
    pub portal: Cow<'static, str>,
    pub command: Cow<'static, str>,
}

impl Remedy {
    pub fn new(fixed_by: FixedBy, what: impl Into<Cow<'static, str>>) -> Self {
        Self {
            fixed_by,
            what: what.into(),
            portal: Cow::Borrowed(""),
            command: Cow::Borrowed(""),
        }
    }

    #[must_use]
    pub fn portal(mut self, page: impl Into<Cow<'static, str>>) -> Self {
        self.portal = page.into();
        self
    }

    #[must_use]
    pub fn command(mut self, command: impl Into<Cow<'static, str>>) -> Self {
        self.command = command.into();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn placeholders_have_their_value_or_a_word_to_replace() {
        let text = "az {client_id} --query \"{tenant:id, x}\" {} {name";
        let filled = fill(text, &[("client_id", "{name}")]);
        assert_eq!(filled, "az {name} --query \"{tenant:id, x}\" {} {name");
        assert_eq!(fill("az {client_id}", &[]), "az CLIENT_ID");
        assert_eq!(fill("none", &[]), "none");
    }
}
