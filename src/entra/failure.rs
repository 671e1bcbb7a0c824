//! The table of failures of what the platform gives: endpoints of managed identities, files with federated tokens. Each
//! becomes a sentence that names the identity, the place, the reason and who fixes it.

use std::borrow::Cow;
use std::time::Duration;

use crate::model::{FailureRow, Outlook, Page, Values, failures, fill};

const IDENTITY: Page = Page::portal("Azure portal, the virtual machine or app, Identity");
const ARC: Page = Page::new("Azure portal, Azure Arc, Machines, the machine", "azcmagent show");
const POD: Page = Page::command("kubectl get pod POD --output yaml");

failures! {
    /// Failures of what the platform gives.
    PLATFORM:
    IMDS_SILENT "imds-silent" "unreachable" HostAdmin Transient IDENTITY, "",
        "Outside of Azure there is no IMDS; inside, a firewall or the network of a container may keep it from the \
         gateway.";
    APP_SERVICE_SILENT "app-service-silent" "unreachable" HostAdmin Transient IDENTITY, "",
        "The platform restarts the endpoint together with the app.";
    ARC_SILENT "arc-silent" "unreachable" HostAdmin Transient ARC, "",
        "The agent may not be running: azcmagent show reports it, and systemctl restart himdsd starts it.";
    REDIRECTS "identity-endpoint-redirects" "redirected" Operator AfterFix IDENTITY, "",
        "This is no answer of a managed identity: something else seems to be at this address. Correct `endpoint`.";
    OTHER "identity-endpoint-invalid" "not-json" HostAdmin Transient IDENTITY, "",
        "This is no answer of a managed identity: something else seems to be at this address. Find out what answers.";
    UPDATED "identity-endpoint-updating" "refused" Nobody Transient IDENTITY, "",
        "The endpoint is being updated, which takes up to 70 seconds.";
    NOT_FOUND "identity-endpoint-missing" "refused" Nobody Transient IDENTITY, "",
        "The endpoint is being updated, or it is no endpoint of managed identities: if this stays, compare `source` and \
         `endpoint` with the platform.";
    THROTTLED "identity-endpoint-throttled" "refused" Nobody BackOff IDENTITY, "",
        "The endpoint was asked for too many tokens by the programs of this machine.";
    FAILED "identity-endpoint-failed" "refused" Nobody Transient IDENTITY, "",
        "The endpoint failed by itself.";
    NO_HEADER "imds-header-missing" "refused" HostAdmin AfterFix IDENTITY, "",
        "The header field Metadata did not arrive: something between the gateway and IMDS takes it out.";
    SEVERAL "identity-ambiguous" "refused" Operator AfterFix IDENTITY, "",
        "Several user-assigned identities are assigned here, and the settings name none: set client_id, object_id or \
         resource_id under [identity.managed].";
    NOT_ASSIGNED "identity-not-assigned" "refused" Operator AfterFix IDENTITY, "",
        "The identity that the settings select is not assigned here: assign it under Identity, User assigned (az vm \
         identity assign, az webapp identity assign), or correct the selector.";
    NO_IDENTITY "identity-missing" "refused" HostAdmin AfterFix IDENTITY, "",
        "No identity is assigned here: switch one on under Identity, System assigned (az vm identity assign, az webapp \
         identity assign), or select a user-assigned one.";
    RESTART "app-service-header-refused" "refused" Operator AfterFix IDENTITY, "",
        "App Service does not take the value of IDENTITY_HEADER: restart the app, so that the gateway starts with the \
         present one.";
    FORBIDDEN "imds-forbidden" "refused" HostAdmin AfterFix IDENTITY, "",
        "IMDS refuses requests that came through a proxy or another machine.";
    UNKNOWN "identity-endpoint-refuses" "refused" Operator AfterFix IDENTITY, "",
        "The endpoint refuses for a reason Flowgate does not know; compare source, selector and scope with the identity.";
    ARC_UNSELECTED "arc-selector-ignored" "refused" HostAdmin AfterFix ARC,
        "the agent gave a token without naming it as this identity's",
        "Agents that know no user-assigned identities answer with the machine's own: update the agent, or remove the \
         selector from the settings.";
    ARC_REFUSED "arc-key-refused" "refused" HostAdmin AfterFix ARC, "",
        "The agent does not take the key it asked for: restart it with systemctl restart himdsd.";
    ARC_IMPOSTOR "arc-challenge-invalid" "refused" HostAdmin AfterFix ARC, "",
        "The agent's keys are nowhere else, so this may not be the agent: find out what listens at this address.";
    ARC_HUNG "arc-key-stuck" "refused" HostAdmin Transient ARC, "",
        "Check the disk on which the agent keeps its keys.";
    ARC_RIGHTS "arc-key-unreadable" "refused" HostAdmin AfterFix ARC, "",
        "Only members of the agent's group can read its keys: usermod -a -G himds USER on Linux, the group Hybrid agent \
         extension applications on Windows, and then restart the gateway.";
    ARC_KEY_GONE "arc-key-gone" "refused" HostAdmin Transient ARC, "",
        "The agent makes its keys when it is asked, so the next one may be there.";
    FILE_MISSING "federated-file-missing" "file" ClusterAdmin AfterFix POD,
        "the file is not there",
        "The platform mounts it into pods whose service account is switched on for workload identity: the pod needs the \
         label azure.workload.identity/use: \"true\".";
    FILE_INVALID "federated-file-invalid" "file" Operator AfterFix POD, "",
        "It must hold the one token that the platform's issuer writes, and nothing else: compare `token_file` with the \
         volume that the platform mounts.";
    FILE_UNREADABLE "federated-file-unreadable" "file" HostAdmin AfterFix POD, "",
        "The user of the gateway needs the right to read it.";
    FILE_HUNG "federated-file-stuck" "file" HostAdmin Transient POD, "",
        "The volume of the file hangs: check what it is mounted from.";
    FILE_EXPIRED "federated-token-expired" "file-expired" ClusterAdmin AfterFix POD,
        "the token in the file has expired",
        "The platform renews the file long before that: check whether its token projection still runs, and the clock of \
         the host.";
    VOUCHER_MISSING "voucher-missing" "refused" Operator AfterFix Page::NONE, "",
        "Name an identity of the settings that vouches for this one.";
    VOUCHER_FAILED "voucher-failed" "" Operator AfterFix Page::NONE,
        "it has none",
        "Fix the managed identity that vouches for this one first.";
    NOTHING_THERE "no-source" "nothing-there" Operator Transient IDENTITY, "",
        "Give the machine an identity, or the identity of the settings a credential of its own.";
    PASSWORD_WAITS "password-waits" "timeout" HostAdmin Transient Page::NONE, "",
        "Each of them may count as a wrong password, and Entra locks an account after some, so the password is not sent \
         again for {minutes} min. Check the network between this host and {authority}.";
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The row of the table; of a refusal by Entra itself, that of Entra's.
    pub row: &'static FailureRow,
    pub sentence: String,
    pub seen: String,
    /// What it means and what to do, in sentences.
    pub what: Cow<'static, str>,
    pub label: &'static str,
    pub outlook: Outlook,
    pub wait: Option<Duration>,
}

/// What went wrong, without the identity it happened to.
pub(crate) struct Trouble {
    row: &'static FailureRow,
    label: &'static str,
    pub(crate) seen: String,
    what: Cow<'static, str>,
}

impl Trouble {
    /// A row, with what was seen where the row does not have it.
    pub(crate) fn new(row: &'static FailureRow, seen: impl Into<String>) -> Self {
        Self {
            row,
            label: row.label,
            seen: seen.into(),
            what: fill(row.what, &[]),
        }
    }

    pub(crate) fn labelled(mut self, label: &'static str) -> Self {
        self.label = label;
        self
    }

    pub(crate) fn filled(mut self, values: &Values<'_>) -> Self {
        self.what = fill(self.row.what, values);
        self
    }

    pub(crate) fn of(self, identity: &str, place: &str, wait: Option<Duration>) -> Failure {
        let Self {
            row,
            label,
            seen,
            what,
        } = self;
        let sentence = format!(
            "No token for identity {identity} ({place}): {seen}. {what} {}; {}. More: flowgate explain {}.",
            row.fixed_by.must_fix(),
            row.outlook.clause(),
            row.code,
        );
        Failure {
            row,
            sentence,
            seen: format!("{place}: {seen}"),
            what,
            label,
            outlook: row.outlook,
            wait,
        }
    }
}

impl From<&'static FailureRow> for Trouble {
    fn from(row: &'static FailureRow) -> Self {
        Self::new(row, row.seen)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_row_is_sound() {
        for row in super::PLATFORM {
            row.assert_sound();
        }
    }
}
