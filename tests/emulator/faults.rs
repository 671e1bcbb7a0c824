//! The failures that the flow's platform reports: one table with status, code and message, and the answers
//! made from it. Messages that were only observed cut off are completed in the same style; no test may rely
//! on them.

use serde_json::json;

use super::reply::Reply;

/// A failure. Its message may contain `{workflow}`, `{trigger}`, `{scheme}`, `{expected}`, `{actual}`,
/// `{details}` and `{tracking}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlatformFault {
    /// The value of `error.code`.
    pub code: &'static str,
    pub status: u16,
    /// The value of `error.message` before the placeholders are filled in.
    pub message: &'static str,
    /// Whether a run exists when the platform reports this.
    pub run: RunStarted,
}

/// Whether a run was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunStarted {
    /// Work may have been done.
    Yes,
    /// Nothing was done.
    No,
}

/// The values for a message's placeholders.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub workflow: String,
    pub trigger: String,
    /// The authorization scheme of the request.
    pub scheme: String,
    /// The method the trigger wants.
    pub expected: String,
    /// The method of the request.
    pub actual: String,
    /// What a schema check found.
    pub details: String,
    /// The id under which the run can be found.
    pub tracking: String,
}

const fn before_run(code: &'static str, status: u16, message: &'static str) -> PlatformFault {
    PlatformFault {
        code,
        status,
        message,
        run: RunStarted::No,
    }
}

const fn in_run(code: &'static str, status: u16, message: &'static str) -> PlatformFault {
    PlatformFault {
        code,
        status,
        message,
        run: RunStarted::Yes,
    }
}

/// Anyone mode without a signature.
pub const SHARED_ACCESS_REQUIRED: PlatformFault = before_run(
    "DirectApiAuthorizationRequired",
    401,
    "The request must be authenticated only by Shared Access scheme.",
);
/// Tenant mode without a token.
pub const OAUTH_REQUIRED: PlatformFault = before_run(
    "DirectApiAuthorizationRequired",
    401,
    "The OAuth authorization scheme is required. Please add authentication scheme and try again.",
);
/// Wrong audience, tenant or object id.
pub const CLAIMS_MISMATCH: PlatformFault = before_run(
    "MisMatchingOAuthClaims",
    403,
    "One or more claims either missing or does not match with the open authentication access control \
     policy.",
);
/// The same with a status that fewer sources report.
pub const CLAIMS_MISMATCH_401: PlatformFault = CLAIMS_MISMATCH.with_status(401);
/// A signature and an `Authorization` header, or a header of another scheme.
pub const MORE_THAN_ONE: PlatformFault = before_run(
    "DirectApiRequestHasMoreThanOneAuthorization",
    401,
    "The request has SAS authentication scheme, '{scheme}' authorization scheme or internal token scheme. \
     Only one scheme should be used.",
);
/// A signature where signatures are disabled.
pub const SAS_DISABLED: PlatformFault = before_run(
    "DirectApiInvalidAuthorizationScheme",
    401,
    "The request has SAS authentication scheme while it is disabled under your access control policy.",
);
/// A token that is invalid, expired or revoked.
pub const TOKEN_INVALID: PlatformFault = before_run(
    "DirectApiInvalidAuthorizationScheme",
    401,
    "The provided authorization token is not valid. The request should have a valid authorization header \
     with 'Bearer' scheme.",
);
/// A token for a flow in Anyone mode.
pub const NO_OAUTH_POLICY: PlatformFault = before_run(
    "OAuthAccessPolicyNotFound",
    401,
    "The workflow '{workflow}' has no open authentication access policy.",
);
/// A wrong signature.
pub const SIGNATURE_INVALID: PlatformFault = before_run(
    "DirectApiInvalidAuthorizationSignature",
    401,
    "The provided authorization signature is not valid.",
);
/// A caller outside the allowed addresses.
pub const ADDRESS_REFUSED: PlatformFault = before_run(
    "AuthorizationFailed",
    403,
    "The client IP address '203.0.113.7' is not in the allowed caller IP address ranges specified in the \
     workflow access control configuration.",
);
/// A query without `api-version`.
pub const API_VERSION_MISSING: PlatformFault = before_run(
    "MissingApiVersionParameter",
    400,
    "The api-version query parameter (?api-version=) is required for all requests.",
);
/// A method other than the trigger's.
pub const METHOD_NOT_VALID: PlatformFault = before_run(
    "TriggerRequestMethodNotValid",
    400,
    "The workflow '{workflow}' trigger '{trigger}' request method is not valid: expected '{expected}' and \
     actual '{actual}'.",
);
/// A body that violates the schema.
pub const SCHEMA_MISMATCH: PlatformFault = before_run(
    "TriggerInputSchemaMismatch",
    400,
    "The input body for trigger '{trigger}' of type 'Request' did not match its schema definition. Error \
     details: '{details}'.",
);
/// A flow that is switched off.
pub const DISABLED: PlatformFault = before_run(
    "WorkflowTriggerIsNotEnabled",
    400,
    "Could not execute workflow '{workflow}' trigger '{trigger}' with state 'Disabled': trigger is not \
     enabled.",
);
/// A flow that was deleted.
pub const DELETED: PlatformFault = before_run(
    "WorkflowTriggerIsNotEnabled",
    400,
    "Could not execute workflow '{workflow}' trigger '{trigger}' with state 'Deleted': trigger is not \
     enabled.",
);
/// No such workflow.
pub const WORKFLOW_NOT_FOUND: PlatformFault = before_run(
    "WorkflowNotFound",
    404,
    "The workflow '{workflow}' could not be found.",
);
/// No such trigger in the workflow.
pub const TRIGGER_NOT_FOUND: PlatformFault = before_run(
    "WorkflowTriggerNotFound",
    404,
    "The workflow '{workflow}' trigger '{trigger}' could not be found.",
);
/// The run ended without an answer; includes the id of the run.
pub const NO_RESPONSE: PlatformFault = in_run(
    "NoResponse",
    502,
    "The server did not receive a response from an upstream server. Request tracking id '{tracking}'.",
);
/// The same as some dumps have it, without the id.
pub const NO_RESPONSE_UNTRACKED: PlatformFault = in_run(
    "NoResponse",
    502,
    "The server did not receive a response from an upstream server.",
);
/// The result of a token for the management service.
pub const INTERNAL_ERROR: PlatformFault = before_run(
    "InternalServerError",
    500,
    "Encountered internal server error. The tracking Id is '{tracking}'.",
);
/// The refusal of a management call, which a trigger never sends.
pub const CLIENT_SCOPE: PlatformFault = before_run(
    "ClientScopeAuthorizationFailed",
    403,
    "The x-ms-client-scope header must not be null or empty.",
);
/// The time for an answer ran out; the code is a guess, since no dump of it is public.
pub const GATEWAY_TIMEOUT: PlatformFault = in_run(
    "GatewayTimeout",
    504,
    "The gateway did not receive a response from 'Microsoft.Logic' within the specified time period.",
);
/// An unlisted code, for answers that must be recognized by their status alone.
pub const UNLISTED: PlatformFault = before_run(
    "CodeThatStandsInNoList",
    429,
    "This message is in no list either.",
);

/// All failures, with each wording and status that has been observed.
pub const PLATFORM_FAULTS: &[PlatformFault] = &[
    SHARED_ACCESS_REQUIRED,
    OAUTH_REQUIRED,
    CLAIMS_MISMATCH,
    CLAIMS_MISMATCH_401,
    MORE_THAN_ONE,
    SAS_DISABLED,
    TOKEN_INVALID,
    NO_OAUTH_POLICY,
    SIGNATURE_INVALID,
    ADDRESS_REFUSED,
    API_VERSION_MISSING,
    METHOD_NOT_VALID,
    SCHEMA_MISMATCH,
    DISABLED,
    DELETED,
    WORKFLOW_NOT_FOUND,
    TRIGGER_NOT_FOUND,
    NO_RESPONSE,
    NO_RESPONSE_UNTRACKED,
    INTERNAL_ERROR,
    CLIENT_SCOPE,
    GATEWAY_TIMEOUT,
];

/// Status and body of each wording of a code, with plausible values filled in.
pub fn platform_fault(code: &str) -> Vec<(u16, String)> {
    let names = Names {
        workflow: "0123456789abcdef0123456789abcdef".to_owned(),
        trigger: "manual".to_owned(),
        scheme: "Bearer".to_owned(),
        expected: "POST".to_owned(),
        actual: "GET".to_owned(),
        details: "Required properties are missing from object: item.".to_owned(),
        tracking: "08584290143402151988728929011CU00".to_owned(),
    };
    let rows = PLATFORM_FAULTS.iter().filter(|fault| fault.code == code);
    rows.map(|fault| (fault.status, fault.body(&names))).collect()
}

impl PlatformFault {
    /// The same failure with another status.
    #[must_use]
    pub const fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// The envelope as text.
    pub fn body(&self, names: &Names) -> String {
        json!({"error": {"code": self.code, "message": self.sentence(names)}}).to_string()
    }

    /// The answer without the platform's headers.
    pub fn reply(&self, names: &Names) -> Reply {
        Reply::new(self.status)
            .header("Content-Type", "application/json; charset=utf-8")
            .body(self.body(names))
    }

    fn sentence(&self, names: &Names) -> String {
        // Most messages have no placeholder, and load runs answer with some of them.
        if !self.message.contains('{') {
            return self.message.to_owned();
        }
        self.message
            .replace("{workflow}", &names.workflow)
            .replace("{trigger}", &names.trigger)
            .replace("{scheme}", &names.scheme)
            .replace("{expected}", &names.expected)
            .replace("{actual}", &names.actual)
            .replace("{details}", &names.details)
            .replace("{tracking}", &names.tracking)
    }
}
