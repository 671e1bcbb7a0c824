//! THE table of what the platform under a flow reports: fault code → problem, who fixes it, whether a run started, whether
//! a fresh token may help, and where to look. `evidence.rs` finds the row of an answer; repeating belongs to `gateway`.

use crate::model::{FailureRow, FixedBy, Outlook, Page};
use crate::problem::{Again, Kind, Run};

/// Whether the token itself is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Credential {
    /// A fresh token may be accepted: forget this one, fetch another, send the same bytes once more.
    Suspect,
    /// The flow, the scheme or the request is at fault; another token of the same kind changes nothing.
    Sound,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// Its code is the platform's `error.code`, or a name such as `http-429` for an answer without a known code.
    pub failure: FailureRow,
    /// A lower-case part of the message that distinguishes rows of one code; empty in the row for all other messages.
    pub wording: &'static str,
    pub kind: Kind,
    pub run: Run,
    pub credential: Credential,
}

impl Row {
    /// Whether the caller may send the same request again.
    pub const fn again(&self) -> Again {
        match self.run {
            Run::No => self.kind.row().again,
            Run::Yes | Run::Unknown => Again::No,
        }
    }
}

const fn outlook(kind: Kind, fixed_by: FixedBy) -> Outlook {
    match (kind, fixed_by) {
        (Kind::FlowThrottled, _) => Outlook::BackOff,
        (_, FixedBy::Nobody) => Outlook::Transient,
        _ => Outlook::AfterFix,
    }
}

macro_rules! faults {
    ($($code:literal $wording:literal $kind:ident $fixed_by:ident $run:ident $credential:ident $page:ident
        $what:literal;)+) => {
        &[$(Row {
            failure: FailureRow {
                code: $code,
                label: "",
                seen: "",
                fixed_by: FixedBy::$fixed_by,
                outlook: outlook(Kind::$kind, FixedBy::$fixed_by),
                page: $page,
                what: $what,
            },
            wording: $wording,
            kind: Kind::$kind,
            run: Run::$run,
            credential: Credential::$credential,
        }),+]
    };
}

const NONE: Page = Page::NONE;
const TRIGGER: Page = Page::portal(
    "https://make.powerautomate.com, My flows, the flow, Edit, trigger \"When an HTTP request is received\"",
);
const ADMITTED: Page = Page::new(
    TRIGGER.portal,
    "az ad sp show --id {client_id} --query id --output tsv",
);
const ACCESS: Page = Page::new(
    "Azure portal, the Logic App, Settings, Workflow settings, Access control configuration",
    "az logic workflow show --resource-group GROUP --name WORKFLOW --query accessControl",
);
const EASY_AUTH: Page = Page::new(
    "Azure portal, the Logic App (Standard), Settings, Authentication",
    "az webapp auth show --resource-group GROUP --name APP",
);
const WORKFLOW_URL: Page =
    Page::portal("Azure portal, the Logic App (Standard), Workflows, the workflow, Overview: Workflow URL");
const SWITCH: Page = Page::portal("https://make.powerautomate.com, My flows, the flow, Turn on");
const RUNS: Page = Page::portal("https://make.powerautomate.com, My flows, the flow, 28-day run history");
const ANALYTICS: Page = Page::portal("https://make.powerautomate.com, My flows, the flow, Analytics");
const HEALTH: Page = Page::portal("https://admin.powerplatform.microsoft.com, Service health");
const DATA_POLICIES: Page =
    Page::portal("https://admin.powerplatform.microsoft.com, Policies, Data policies");

/// Faults by `error.code`, sorted by code and wording.
///
/// Microsoft documents the rules behind them ("Add OAuth authentication for HTTP request triggers", "Secure
/// access and data in Azure Logic Apps", "Troubleshoot common issues with triggers") but hardly any code;
/// codes and wordings are those of answers shown in public, for example in MicrosoftDocs/azure-docs#60706,
/// SharePoint/sp-dev-docs#9396, Azure/logicapps#1157 and caronc/apprise#1161.
pub const CODES: &[Row] = faults! {
    "AuthorizationFailed" "" FlowMisconfigured FlowOwner No Sound ACCESS
        "The access rules of the workflow refused the request. The flow's owner must check its access control \
         configuration.";
    "AuthorizationFailed" "client ip address" FlowMisconfigured FlowOwner No Sound ACCESS
        "The Logic App admits certain networks only, and the gateway's outbound address is not among them. \
         Its owner must add that address under Workflow settings, Access control configuration, Trigger.";
    "ClientScopeAuthorizationFailed" "" FlowMisconfigured Operator No Sound TRIGGER
        "The address belongs to the management interface, not to a trigger. The operator must copy the URL \
         shown by the trigger \"When an HTTP request is received\".";
    "DirectApiAuthorizationRequired" "" FlowMisconfigured Operator No Sound TRIGGER
        "The trigger found no authorization of the scheme that it requires. The operator must compare the route with \
         \"Who can trigger the flow?\" in the trigger: \"Anyone\" needs the whole signed URL, the other \
         choices need an identity.";
    "DirectApiAuthorizationRequired" "oauth authorization scheme" FlowMisconfigured Operator No Sound TRIGGER
        "The flow requires a token and the request carried none. The operator must give the route an identity, \
         or its owner must set \"Who can trigger the flow?\" to \"Anyone\" and hand out the new signed URL.";
    "DirectApiAuthorizationRequired" "shared access scheme" FlowMisconfigured Operator No Sound TRIGGER
        "The flow accepts its signed URL only, and the request had no valid signature. The operator must \
         copy the whole URL from the trigger again, up to the end of sig, or its owner must admit users of \
         the tenant.";
    "DirectApiInvalidAuthorizationScheme" "" FlowMisconfigured Operator No Sound TRIGGER
        "The trigger does not accept the scheme of the request; a signed URL that lost its sig is reported \
         like this too. The operator must copy the URL from the trigger again and compare it with the \
         route's identity.";
    "DirectApiInvalidAuthorizationScheme" "sas authentication scheme" FlowMisconfigured FlowOwner No Sound TRIGGER
        "Signed URLs are disabled in the access control policy of the workflow. Its owner must enable them \
         again, or the operator must give the route an identity and remove sp, sv and sig from its address.";
    "DirectApiInvalidAuthorizationScheme" "token is not valid" FlowRefusedToken FlowOwner No Suspect TRIGGER
        "The app did not accept the token: it has expired, or authentication (Easy Auth) is not switched on \
         for the Standard app. Its owner must check Settings, Authentication of the app in the Azure portal.";
    "DirectApiInvalidAuthorizationSignature" "" FlowMisconfigured Operator No Sound TRIGGER
        "The signature in the trigger address is not valid: the URL was changed or its key was regenerated. \
         The operator must copy the URL from the trigger again.";
    "DirectApiRequestHasMoreThanOneAuthorization" "" FlowMisconfigured Operator No Sound TRIGGER
        "The request carried a signature and an Authorization header, and a trigger accepts one scheme \
         only. The operator must remove sp, sv and sig from the address or the identity from the route.";
    "GatewayTimeout" "" FlowTimeout FlowOwner Yes Sound RUNS
        "The flow did not reach its Response action within the platform's 120 seconds. Its owner must \
         answer earlier, or answer 202 and continue afterwards.";
    "InternalServerError" "" FlowFailed Operator Unknown Sound HEALTH
        "The platform itself failed. If it happens every time, the operator must check the audience of \
         the token: one for https://api.powerplatform.com is answered like this.";
    "InvalidFlowExtensionRequestRoute" "" FlowMisconfigured Operator No Sound WORKFLOW_URL
        "The Standard app has no such route. The operator must copy the URL from the trigger again; it \
         ends in /triggers/<trigger>/invoke.";
    "InvalidRequestContent" "" BodyRefusedByFlow Caller No Sound TRIGGER
        "The platform could not read the body in the form that its Content-Type announces. The caller must send \
         what it announces.";
    "InvalidUseOfOAuthToken" "" FlowMisconfigured Operator Unknown Sound TRIGGER
        "The trigger does not accept a token where it was sent. The operator must compare the route's \
         identity with \"Who can trigger the flow?\" in the trigger.";
    "MisMatchingOAuthClaims" "" FlowRefusedToken Operator No Sound ADMITTED
        "A claim of the token does not match the trigger's policy. The operator must compare audience (last \
         slash included), tenant and cloud; the flow's owner must compare the list under \"Specific users \
         in my tenant\", which needs the object id of the enterprise application.";
    "MissingApiVersionParameter" "" FlowMisconfigured Operator No Sound TRIGGER
        "The api-version is missing from the address. The operator must copy the URL from the trigger \
         again, with everything after its question mark.";
    "NoResponse" "" FlowNoResponse FlowOwner Yes Sound RUNS
        "The flow started but ended, or ran out of time, without an answer. Its owner must open the run in \
         the run history and see why the Response action was not reached or failed.";
    "OAuthAccessPolicyNotFound" "" FlowMisconfigured Operator No Sound TRIGGER
        "The flow is open to \"Anyone\" and has no policy for tokens. The operator must remove the identity \
         from the route and use the whole signed URL, or its owner must admit users of the tenant.";
    "ResponseTimeout" "" FlowTimeout FlowOwner Yes Sound RUNS
        "The flow did not reach its Response action within the platform's 120 seconds. Its owner must \
         answer earlier, or answer 202 and continue afterwards.";
    "TriggerInputSchemaMismatch" "" BodyRefusedByFlow Caller No Sound TRIGGER
        "The body does not match the schema in the trigger. The caller must send what the schema describes, \
         or the flow's owner must relax it: a generated schema refuses null and missing fields.";
    "TriggerRequestMethodNotValid" "" FlowMisconfigured Operator No Sound TRIGGER
        "The trigger expects another method than the route let through. The operator must set the route's \
         methods to the one the trigger shows, which is POST unless its owner chose another.";
    "WorkflowDisabled" "" FlowOff FlowOwner No Sound SWITCH
        "The flow is switched off. Its owner must turn it on; the address stays the same.";
    "WorkflowNotFound" "" FlowGone Operator No Sound TRIGGER
        "There is no workflow at this address. The operator must copy the URL from the trigger again.";
    "WorkflowRunActionThrottled" "" FlowThrottled Nobody No Sound ANALYTICS
        "The platform throttles the flow because it used up its share. It passes by itself; if it returns, the \
         flow's owner must check the limits of the plan.";
    "WorkflowTriggerIsNotEnabled" "" FlowOff FlowOwner No Sound SWITCH
        "The flow is not switched on. Its owner must open it in Power Automate and turn it on; the address \
         stays the same.";
    "WorkflowTriggerIsNotEnabled" "'deleted'" FlowGone FlowOwner No Sound SWITCH
        "The flow was deleted. Its owner must restore or rebuild it, and the operator must put its new URL \
         into the route.";
    "WorkflowTriggerIsNotEnabled" "'disabled'" FlowOff FlowOwner No Sound SWITCH
        "The flow is switched off, by hand or by the platform after 14 days of failures or 90 days without \
         a call. Its owner must open it in Power Automate and turn it on; the address stays the same.";
    "WorkflowTriggerIsNotEnabled" "'suspended'" FlowOff TenantAdmin No Sound DATA_POLICIES
        "The flow is suspended, as a data policy of the tenant does it. The tenant's administrator must \
         check the data policies for the HTTP trigger in the Power Platform admin center.";
    "WorkflowTriggerNotFound" "" FlowGone Operator No Sound TRIGGER
        "The workflow exists but has no trigger of this name. The operator must copy the URL from the \
         trigger again.";
};

/// Faults that mean something else where the request did carry a token. The trigger is in order, so there is no page.
pub const DESPITE_TOKEN: &[Row] = faults! {
    "DirectApiAuthorizationRequired" "oauth authorization scheme, although a token was sent" FlowMisconfigured Operator
        No Sound NONE
        "The flow reports that the call carried no token, although the gateway sent one. Something between them \
         removed the Authorization header (a firewall that inspects TLS, a proxy at connect_to, API Management \
         or a front door before the flow), or the token is not one that the platform can read. The \
         operator must have the header passed on, and compare where the identity's token comes from.";
};

/// Answers without a known code and without a run id, by their status: HTML pages, empty bodies, codes not
/// seen before. `-challenge` marks a `WWW-Authenticate` header, as App Service authentication sends it.
pub const STATUSES: &[Row] = faults! {
    "http-401" "" FlowRefusedToken Operator No Suspect ADMITTED
        "The trigger refused the request without a known reason; the token may have expired or been \
         revoked. If a fresh one is refused too, the operator must compare the route with \"Who can trigger \
         the flow?\".";
    "http-401-challenge" "" FlowRefusedToken FlowOwner No Suspect EASY_AUTH
        "Something before the workflow, such as App Service authentication, refused the token. The owner of \
         the app must compare its allowed audiences, issuer and client applications under Settings, \
         Authentication.";
    "http-403" "" FlowRefusedToken Operator Unknown Sound ADMITTED
        "The trigger does not admit the identity, or a firewall before it refuses the gateway. The operator \
         must ask the flow's owner who is admitted.";
    "http-403-challenge" "" FlowRefusedToken FlowOwner No Sound EASY_AUTH
        "Something before the workflow, such as App Service authentication, does not admit the identity. \
         The owner of the app must add it under Settings, Authentication.";
    "http-404" "" FlowGone Operator Unknown Sound TRIGGER
        "There is nothing at the trigger's address. The operator must copy the URL from the trigger again; \
         addresses under logic.azure.com of Power Automate flows were replaced in 2025.";
    "http-408" "" FlowTimeout FlowOwner Yes Sound RUNS
        "The flow did not answer within the platform's time. Its owner must answer earlier, or answer 202 \
         and continue afterwards.";
    "http-413" "" BodyTooLarge Caller No Sound NONE
        "The body is larger than the platform accepts, which is 100 MB for a flow. The caller must send \
         less.";
    "http-429" "" FlowThrottled Nobody No Sound ANALYTICS
        "The platform throttles the flow because it used up its share. It passes by itself; if it returns, the \
         flow's owner must check the limits of the plan.";
    "http-500" "" FlowFailed Nobody Unknown Sound HEALTH
        "The platform itself failed. If it happens every time, the operator must check the audience of \
         the token.";
    "http-502" "" FlowFailed Nobody Unknown Sound RUNS
        "Something between the gateway and the flow failed. A run may exist; the flow's owner finds it in the run \
         history.";
    "http-503" "" FlowFailed Nobody Unknown Sound HEALTH
        "The platform or the app under the flow is not available. It usually passes; a Standard app may be \
         stopped.";
    "http-504" "" FlowTimeout FlowOwner Yes Sound RUNS
        "The flow did not answer within the platform's time. Its owner must answer earlier, or answer 202 \
         and continue afterwards.";
    "http-5xx" "" FlowFailed Nobody Unknown Sound RUNS
        "The platform answered with an unusual failure. A run may exist; the flow's owner finds it in the \
         run history.";
};

pub fn rows() -> impl Iterator<Item = &'static Row> {
    CODES.iter().chain(DESPITE_TOKEN).chain(STATUSES)
}

#[cfg(test)]
mod tests {
    use super::{CODES, Credential, STATUSES, rows};
    use crate::model::FixedBy;
    use crate::problem::{Kind, Run};

    #[test]
    fn the_tables_are_sorted_unique_and_complete() {
        for table in [CODES, STATUSES] {
            let keys: Vec<_> = table.iter().map(|row| (row.failure.code, row.wording)).collect();
            assert!(keys.is_sorted(), "{keys:?}");
            for (code, wording) in &keys {
                let same = keys.iter().filter(|key| **key == (*code, *wording)).count();
                assert_eq!(same, 1, "{code} {wording}");
                assert!(
                    keys.contains(&(*code, "")),
                    "{code} has no row for other messages"
                );
                assert_eq!(*wording, wording.to_ascii_lowercase(), "{code}");
            }
        }
    }

    #[test]
    fn every_row_is_made_of_sentences() {
        for row in rows() {
            row.failure.assert_sound();
        }
    }

    #[test]
    fn a_caller_is_blamed_only_for_what_a_caller_can_fix() {
        for row in rows() {
            let blamed = matches!(row.kind, Kind::BodyRefusedByFlow | Kind::BodyTooLarge);
            assert_eq!(
                blamed,
                row.failure.fixed_by == FixedBy::Caller,
                "{}",
                row.failure.code
            );
        }
    }

    #[test]
    fn a_token_is_suspected_only_where_no_run_can_have_started() {
        for row in rows() {
            assert!(
                row.credential == Credential::Sound || row.run == Run::No,
                "{}",
                row.failure.code
            );
        }
    }

    #[test]
    fn a_throttled_flow_started_no_run() {
        for row in rows().filter(|row| row.kind == Kind::FlowThrottled) {
            assert_eq!(row.run, Run::No, "{}", row.failure.code);
        }
    }
}
