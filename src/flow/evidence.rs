//! Distinguishes the platform's faults from the answers of a flow's owner, finds the row of `fault.rs` for a fault, and
//! explains a token the flow refused. It trusts nothing in an answer.

use std::fmt;
use std::time::SystemTime;

use http::StatusCode;

use crate::flow::fault::{CODES, DESPITE_TOKEN, Row, STATUSES};
use crate::model::Tenant;
use crate::model::claims::{Claims, printable, quoted};
use crate::outbound::{FailedBody, is_word};
use crate::problem::Kind;

/// Longest message kept for the log, in characters. The longest one seen in public has about 350.
pub const MESSAGE_CHARS_MAX: usize = 512;

/// What is known about an answer of the trigger when its head and the start of its body are there.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    pub status: StatusCode,
    /// Value of `x-ms-workflow-run-id`.
    pub run_id: Option<&'a str>,
    pub www_authenticate: Option<&'a str>,
    pub content_type: Option<&'a str>,
    /// The body, decoded and capped; what is longer than 64 KiB is not read for a code.
    pub body: &'a [u8],
}

#[derive(Debug)]
pub enum Reading {
    /// The flow's own answer: it passes unchanged.
    Owner,
    Fault(Fault),
}

/// A fault of the platform and what is worth keeping of it for the log.
#[derive(Debug)]
pub struct Fault {
    pub row: &'static Row,
    pub status: StatusCode,
    /// A code that is not in the table.
    pub unknown_code: Option<String>,
    /// The platform's message, safe to print and of limited length. Absent where it may quote the caller's
    /// data.
    pub message: Option<String>,
    /// The id of the run, where the message names it: the only handle for finding a run that gave no answer.
    pub tracking_id: Option<String>,
    body: BodyKind,
}

impl Fault {
    /// The same fault, of a request that carried a token.
    #[must_use]
    pub fn despite_token(mut self) -> Self {
        let means_else = |row: &&Row| {
            row.failure.code == self.row.failure.code
                && !self.row.wording.is_empty()
                && row.wording.starts_with(self.row.wording)
        };
        if let Some(row) = DESPITE_TOKEN.iter().find(means_else) {
            self.row = row;
        }
        self
    }
}

/// In sentences for the log; nothing of it is meant for callers.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status.as_u16();
        match (&self.unknown_code, self.body) {
            (Some(code), _) => write!(f, "the platform answered {status} with the unknown code {code}")?,
            (None, BodyKind::Known) => write!(f, "the platform answered {status} {}", self.row.failure.code)?,
            (None, BodyKind::Empty) => write!(f, "the platform answered {status} without a body")?,
            (None, BodyKind::Html) => write!(f, "the platform answered {status} with an HTML page")?,
            (None, BodyKind::Other) => write!(f, "the platform answered {status} without a code")?,
        }
        if let Some(id) = &self.tracking_id {
            write!(f, ", tracking id {id}")?;
        }
        write!(f, ". {}", self.row.failure.what)?;
        if let Some(message) = &self.message {
            write!(f, " It said: {message}")?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyKind {
    Known,
    Empty,
    Html,
    Other,
}

/// Decides whose answer it is, and which fault.
///
/// An answer with a run id is the owner's own, whatever it looks like, and so is any success or redirect.
/// Without a run id a known code decides, whatever the status. Without a known code the status decides for
/// 401, 403, 404, 408, 413, 429 and all 5xx; any other 4xx passes as the owner's, because an owner may choose
/// it and newer hosts are not known to send a run id always.
pub fn classify(evidence: &Evidence<'_>) -> Reading {
    let status = evidence.status;
    let has_run = evidence.run_id.is_some_and(|id| !id.trim().is_empty());
    if has_run || !(status.is_client_error() || status.is_server_error()) {
        return Reading::Owner;
    }
    let body = FailedBody::read(evidence.body);
    let (code, message) = (body.text("/error/code"), body.text("/error/message"));
    if let Some(row) = find(CODES, code, message) {
        // A message about the body quotes the caller's values, which may be personal.
        let quotes_caller = row.kind == Kind::BodyRefusedByFlow;
        let message = Some(message).filter(|text| !quotes_caller && !text.is_empty());
        return Reading::Fault(Fault {
            row,
            status,
            unknown_code: None,
            tracking_id: message.and_then(tracking_id),
            message: message.map(|text| printable(text, MESSAGE_CHARS_MAX)),
            body: BodyKind::Known,
        });
    }
    let Some(row) = find(STATUSES, status_code(status, evidence.www_authenticate), "") else {
        return Reading::Owner;
    };
    Reading::Fault(Fault {
        row,
        status,
        unknown_code: body.word("/error/code"),
        message: None,
        tracking_id: None,
        body: body_kind(evidence),
    })
}

/// The row of this code: the one whose wording the message has, else the one for all other messages.
fn find(table: &'static [Row], code: &str, message: &str) -> Option<&'static Row> {
    let start = table.partition_point(|row| row.failure.code < code);
    let rows = table
        .get(start..)?
        .iter()
        .take_while(|row| row.failure.code == code);
    let message = message.to_ascii_lowercase();
    // The empty wording is first and fits every message, so the last row that fits is the most special
    // one.
    rows.filter(|row| message.contains(row.wording)).last()
}

/// The name under which an answer without a known code is listed in [`STATUSES`].
fn status_code(status: StatusCode, www_authenticate: Option<&str>) -> &'static str {
    match (status.as_u16(), www_authenticate) {
        (401, None) => "http-401",
        (401, Some(_)) => "http-401-challenge",
        (403, None) => "http-403",
        (403, Some(_)) => "http-403-challenge",
        (404, _) => "http-404",
        (408, _) => "http-408",
        (413, _) => "http-413",
        (429, _) => "http-429",
        (500, _) => "http-500",
        (502, _) => "http-502",
        (503, _) => "http-503",
        (504, _) => "http-504",
        (505.., _) | (501, _) => "http-5xx",
        _ => "",
    }
}

fn body_kind(evidence: &Evidence<'_>) -> BodyKind {
    if evidence.body.iter().all(u8::is_ascii_whitespace) {
        return BodyKind::Empty;
    }
    let html = |media: &str| media.trim_start().to_ascii_lowercase().starts_with("text/html");
    if evidence.content_type.is_some_and(html) || evidence.body.trim_ascii_start().starts_with(b"<") {
        return BodyKind::Html;
    }
    BodyKind::Other
}

/// The id behind `Request tracking id '...'`.
fn tracking_id(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("Request tracking id '")?;
    let (id, _) = rest.split_once('\'')?;
    Some(id).filter(|id| is_word(id)).map(str::to_owned)
}

/// What the flow expects of a token, as far as the gateway knows.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The audience, letter by letter ([`crate::model::Cloud::audience`] unless the owner chose another).
    pub audience: &'a str,
    /// None if the settings name none.
    pub tenant: Option<&'a Tenant>,
    pub now: SystemTime,
}

/// Names the claim that cannot match after `MisMatchingOAuthClaims`, as sentences for the operator.
///
/// The token is decoded for this purpose only and never trusted: Microsoft reserves the right to make it
/// opaque ("Access tokens in the Microsoft identity platform"). The result names wanted and found values,
/// never the token.
pub fn explain_mismatch(token: &str, expected: &Expected<'_>) -> String {
    let Some(claims) = Claims::read(token) else {
        return format!(
            "The token cannot be read here, so no claim can be compared; the flow wants the audience {} and \
             a token of the tenant {}.",
            quoted(expected.audience),
            quoted(expected.tenant.map_or("", |tenant| tenant)),
        );
    };
    let findings: Vec<String> = [
        claims.audience_fault(expected.audience),
        claims.tenant_fault(expected.tenant),
        claims.issuer_fault(),
        claims.time_fault(expected.now),
    ]
    .into_iter()
    .flatten()
    .collect();
    if findings.is_empty() {
        return no_finding(&claims);
    }
    format!("The token cannot match: {}.", findings.join("; "))
}

fn no_finding(claims: &Claims) -> String {
    let looks = "aud, iss and tid look right, so the trigger's own list decides.";
    let Some(oid) = claims.text("oid") else {
        return format!("{looks} The token has no oid, which \"Specific users in my tenant\" needs.");
    };
    let oid = quoted(oid);
    if claims.text("idtyp") == Some("user") || claims.text("scp").is_some() {
        return format!(
            "{looks} Under \"Specific users in my tenant\" it must hold the user with object id {oid}."
        );
    }
    let appid = claims
        .text("appid")
        .map_or_else(String::new, |appid| format!(" {}", quoted(appid)));
    format!(
        "{looks} Under \"Specific users in my tenant\" it must hold the object id {oid} of the enterprise \
         application, not the application id{appid}. If it already does, try \"Any user in my tenant\": \
         some tenants were seen to refuse tokens of applications on that list."
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use http::StatusCode;
    use proptest::prelude::*;

    use super::{
        CODES, DESPITE_TOKEN, Evidence, Expected, Fault, Kind, MESSAGE_CHARS_MAX, Reading, Row, STATUSES,
        classify, explain_mismatch,
    };
    use crate::flow::fault::Credential;
    use crate::model::{Cloud, FixedBy, Tenant};
    use crate::problem::Run;

    const RUN_ID: &str = "08584290143402151988728929011CU00";
    const TENANT: &str = "11111111-2222-3333-4444-555555555555";
    const OID: &str = "99999999-2222-3333-4444-555555555555";

    fn evidence(status: u16, body: &[u8]) -> Evidence<'_> {
        Evidence {
            status: StatusCode::from_u16(status).unwrap(),
            run_id: None,
            www_authenticate: None,
            content_type: Some("application/json; charset=utf-8"),
            body,
        }
    }

    fn envelope(code: &str, message: &str) -> String {
        serde_json::json!({ "error": { "code": code, "message": message } }).to_string()
    }

    fn fault(evidence: &Evidence<'_>) -> Fault {
        match classify(evidence) {
            Reading::Fault(fault) => fault,
            Reading::Owner => panic!("taken for the owner's answer: {evidence:?}"),
        }
    }

    fn row(status: u16, code: &str, message: &str) -> &'static Row {
        let row = fault(&evidence(status, envelope(code, message).as_bytes())).row;
        assert_eq!(row.failure.code, code);
        row
    }

    fn passes(evidence: &Evidence<'_>) -> bool {
        matches!(classify(evidence), Reading::Owner)
    }

    #[test]
    fn an_answer_reaches_each_row() {
        for wanted in CODES {
            let code = wanted.failure.code;
            assert_eq!(
                row(400, code, &format!("It is {}.", wanted.wording.to_uppercase())),
                wanted
            );
        }
        for wanted in STATUSES {
            let status = wanted.failure.code.strip_prefix("http-").unwrap();
            let bare = status.strip_suffix("-challenge");
            let seen = Evidence {
                www_authenticate: bare.map(|_| "Bearer"),
                ..evidence(bare.unwrap_or(status).parse().unwrap_or(520), b"")
            };
            assert_eq!(fault(&seen).row, wanted);
        }
        let message = "The OAuth authorization scheme is required.";
        let body = envelope("DirectApiAuthorizationRequired", message);
        let despite = fault(&evidence(401, body.as_bytes())).despite_token();
        assert_eq!([despite.row], [&DESPITE_TOKEN[0]]);
    }

    #[test]
    fn more_than_one_authorization_is_read_whatever_scheme_it_quotes() {
        for (status, scheme) in [(401, "Bearer"), (400, "HMAC")] {
            let message = format!(
                "The request has SAS authentication scheme, '{scheme}' authorization scheme or internal \
                 token scheme. Only one scheme should be used."
            );
            let row = row(status, "DirectApiRequestHasMoreThanOneAuthorization", &message);
            assert_eq!(
                (row.kind, row.failure.fixed_by),
                (Kind::FlowMisconfigured, FixedBy::Operator)
            );
        }
    }

    #[test]
    fn a_refused_network_address_is_for_the_owner_to_admit() {
        let message = "The client IP address '203.0.113.7' is not in the allowed caller IP address ranges \
                       specified in the workflow access control configuration.";
        let by_address = row(401, "AuthorizationFailed", message);
        assert_eq!(
            (by_address.wording, by_address.failure.fixed_by),
            ("client ip address", FixedBy::FlowOwner)
        );
        assert_eq!(row(403, "AuthorizationFailed", "no").wording, "");
    }

    #[test]
    fn authorization_faults_do_not_blame_the_token() {
        let signature = "The provided authorization signature is not valid.";
        let scope = "The x-ms-client-scope header must not be null or empty.";
        for (status, code, message, answer) in [
            (401, "OAuthAccessPolicyNotFound", "", Kind::FlowMisconfigured),
            (
                401,
                "DirectApiInvalidAuthorizationSignature",
                signature,
                Kind::FlowMisconfigured,
            ),
            (401, "InvalidUseOfOAuthToken", "", Kind::FlowMisconfigured),
            (
                403,
                "ClientScopeAuthorizationFailed",
                scope,
                Kind::FlowMisconfigured,
            ),
            (500, "InternalServerError", "", Kind::FlowFailed),
        ] {
            let row = row(status, code, message);
            assert_eq!(
                (row.kind, row.failure.fixed_by),
                (answer, FixedBy::Operator),
                "{code}"
            );
            assert_eq!(row.credential, Credential::Sound, "{code}");
        }
    }

    #[test]
    fn the_two_wordings_of_a_required_authorization_are_told_apart() {
        let code = "DirectApiAuthorizationRequired";
        let oauth = row(
            401,
            code,
            "The OAuth authorization scheme is required. Please add authentication scheme and try again.",
        );
        let cut = row(401, code, "The OAuth authorization scheme is required.");
        let shared = row(
            401,
            code,
            "The request must be authenticated only by Shared Access scheme.",
        );
        let unseen = row(401, code, "Something new.");
        assert_eq!(
            (oauth.wording, cut.wording),
            ("oauth authorization scheme", "oauth authorization scheme")
        );
        assert_eq!((shared.wording, unseen.wording), ("shared access scheme", ""));
        for row in [oauth, shared, unseen] {
            assert_eq!(
                (row.kind, row.run),
                (Kind::FlowMisconfigured, Run::No),
                "{}",
                row.wording
            );
        }
    }

    #[test]
    fn mismatching_claims_are_the_same_fault_under_401_and_403() {
        let message = "One or more claims either missing or does not match with the open authentication \
                       access control policy.";
        let row_401 = row(401, "MisMatchingOAuthClaims", message);
        let row_403 = row(403, "MisMatchingOAuthClaims", message);
        assert_eq!(row_401, row_403);
        assert_eq!(row_401.kind, Kind::FlowRefusedToken);
        assert_eq!(row_401.credential, Credential::Sound);
    }

    #[test]
    fn the_wordings_of_an_invalid_scheme_are_told_apart() {
        let code = "DirectApiInvalidAuthorizationScheme";
        let disabled = row(
            401,
            code,
            "The request has SAS authentication scheme while it is disabled under your access control \
             policy.",
        );
        let token = row(
            401,
            code,
            "The provided authorization token is not valid. The request should have a valid authorization \
             header with 'Bearer' scheme.",
        );
        let truncated = row(401, code, "");
        assert_eq!(
            (disabled.kind, disabled.failure.fixed_by),
            (Kind::FlowMisconfigured, FixedBy::FlowOwner)
        );
        assert_eq!(
            (token.kind, token.credential),
            (Kind::FlowRefusedToken, Credential::Suspect)
        );
        assert_eq!(
            (truncated.failure.fixed_by, truncated.credential),
            (FixedBy::Operator, Credential::Sound)
        );
        assert!(
            truncated.failure.what.contains("lost its sig"),
            "{}",
            truncated.failure.what
        );
    }

    #[test]
    fn request_and_state_faults_start_no_run() {
        use Kind::{BodyRefusedByFlow, FlowGone, FlowMisconfigured, FlowOff};
        let off = |state: &str| {
            format!(
                "Could not execute workflow '{OID}' trigger 'manual' with state '{state}': trigger is not \
                 enabled."
            )
        };
        let cases = [
            (
                400,
                "MissingApiVersionParameter",
                "The api-version query parameter (?api-version=) is required for all requests.".to_owned(),
                FlowMisconfigured,
            ),
            (
                400,
                "TriggerRequestMethodNotValid",
                "... expected 'POST' and actual 'GET' ...".to_owned(),
                FlowMisconfigured,
            ),
            (
                400,
                "TriggerInputSchemaMismatch",
                "x".to_owned(),
                BodyRefusedByFlow,
            ),
            (400, "InvalidRequestContent", "x".to_owned(), BodyRefusedByFlow),
            (400, "WorkflowTriggerIsNotEnabled", off("Disabled"), FlowOff),
            (400, "WorkflowTriggerIsNotEnabled", off("Suspended"), FlowOff),
            (400, "WorkflowTriggerIsNotEnabled", off("Deleted"), FlowGone),
            (400, "WorkflowTriggerIsNotEnabled", String::new(), FlowOff),
            (400, "WorkflowDisabled", String::new(), FlowOff),
            (
                404,
                "WorkflowNotFound",
                "The workflow 'x' could not be found.".to_owned(),
                FlowGone,
            ),
            (
                404,
                "WorkflowTriggerNotFound",
                "The workflow 'x' trigger 'y' could not be found.".to_owned(),
                FlowGone,
            ),
            (
                404,
                "InvalidFlowExtensionRequestRoute",
                String::new(),
                FlowMisconfigured,
            ),
        ];
        for (status, code, message, answer) in cases {
            let row = row(status, code, &message);
            assert_eq!((row.kind, row.run), (answer, Run::No), "{code} {message}");
            assert_eq!(row.credential, Credential::Sound, "{code}");
        }
    }

    #[test]
    fn execution_faults_may_have_started_a_run() {
        for (status, code, answer, run) in [
            (502, "NoResponse", Kind::FlowNoResponse, Run::Yes),
            (504, "ResponseTimeout", Kind::FlowTimeout, Run::Yes),
            (504, "GatewayTimeout", Kind::FlowTimeout, Run::Yes),
        ] {
            let row = row(status, code, "");
            assert_eq!((row.kind, row.run), (answer, run), "{code}");
        }
    }

    #[test]
    fn a_run_that_gave_no_answer_can_be_found_by_its_tracking_id() {
        let message = format!(
            "The server did not receive a response from an upstream server. Request tracking id '{RUN_ID}'."
        );
        let found = fault(&evidence(502, envelope("NoResponse", &message).as_bytes()));
        assert_eq!(found.tracking_id.as_deref(), Some(RUN_ID));
        assert!(found.to_string().contains(RUN_ID), "{}", found.to_string());
        let without = "The server did not receive a response from an upstream server.";
        assert_eq!(
            fault(&evidence(502, envelope("NoResponse", without).as_bytes())).tracking_id,
            None
        );
    }

    #[test]
    fn values_of_the_caller_do_not_reach_the_log() {
        let message = "The input body for trigger 'When_an_HTTP_request_is_received' of type 'Request' did \
                       not match its schema definition. Error details: 'String 'CANARY' does not match \
                       regex pattern.'.";
        for code in ["TriggerInputSchemaMismatch", "InvalidRequestContent", "NeverSeen"] {
            let status = if code == "NeverSeen" { 500 } else { 400 };
            let found = fault(&evidence(status, envelope(code, message).as_bytes()));
            assert_eq!(found.message, None);
            assert!(!format!("{found:?} {found}").contains("CANARY"), "{found}");
        }
    }

    #[test]
    fn a_message_cannot_forge_a_log_line_and_has_an_end() {
        let message = format!("a\r\nlevel=error \u{1b}[31m\u{202e}\u{61c}{}", "x".repeat(2000));
        let kept = fault(&evidence(502, envelope("NoResponse", &message).as_bytes()))
            .message
            .unwrap();
        assert!(
            !kept.contains(char::is_control) && !kept.contains(['\u{202e}', '\u{61c}']),
            "{kept}"
        );
        assert!(kept.chars().count() < MESSAGE_CHARS_MAX + 50, "{}", kept.len());
    }

    #[test]
    fn a_run_id_makes_it_the_owners_answer() {
        for (status, body) in [
            (
                401,
                r#"{"error":{"code":"Unauthorized","message":"bad hook secret"}}"#,
            ),
            (502, r#"{"message":"ERP is down"}"#),
            (404, ""),
            (502, r#"{"error":{"code":"NoResponse","message":"x"}}"#),
            (
                403,
                r#"{"error":{"code":"MisMatchingOAuthClaims","message":"x"}}"#,
            ),
        ] {
            let with = Evidence {
                run_id: Some(RUN_ID),
                ..evidence(status, body.as_bytes())
            };
            assert!(passes(&with), "{status} {body}");
            let empty = Evidence {
                run_id: Some(" "),
                ..evidence(status, body.as_bytes())
            };
            assert!(!passes(&empty), "{status} {body}");
        }
    }

    #[test]
    fn success_redirect_and_unlisted_client_errors_are_the_owners() {
        let known = envelope("NoResponse", "x");
        for status in [200, 201, 202, 204, 302, 304] {
            assert!(passes(&evidence(status, known.as_bytes())), "{status}");
        }
        for status in [400, 402, 405, 406, 409, 410, 415, 418, 422, 451, 499] {
            assert!(passes(&evidence(status, b"{\"message\":\"no\"}")), "{status}");
        }
    }

    #[test]
    fn without_a_known_code_the_status_decides() {
        let bodies: [&[u8]; 4] = [
            b"",
            b"<html><body>Request Entity Too Large</body></html>",
            br#"{"error":{"code":"NeverSeen","message":"x"}}"#,
            br#"{"error":"text"}"#,
        ];
        for (status, answer, run, credential) in [
            (401, Kind::FlowRefusedToken, Run::No, Credential::Suspect),
            (403, Kind::FlowRefusedToken, Run::Unknown, Credential::Sound),
            (404, Kind::FlowGone, Run::Unknown, Credential::Sound),
            (408, Kind::FlowTimeout, Run::Yes, Credential::Sound),
            (413, Kind::BodyTooLarge, Run::No, Credential::Sound),
            (429, Kind::FlowThrottled, Run::No, Credential::Sound),
            (500, Kind::FlowFailed, Run::Unknown, Credential::Sound),
            (501, Kind::FlowFailed, Run::Unknown, Credential::Sound),
            (502, Kind::FlowFailed, Run::Unknown, Credential::Sound),
            (503, Kind::FlowFailed, Run::Unknown, Credential::Sound),
            (504, Kind::FlowTimeout, Run::Yes, Credential::Sound),
            (520, Kind::FlowFailed, Run::Unknown, Credential::Sound),
        ] {
            for body in bodies {
                let row = fault(&evidence(status, body)).row;
                assert_eq!(
                    (row.kind, row.run, row.credential),
                    (answer, run, credential),
                    "{status}"
                );
            }
        }
    }

    #[test]
    fn a_challenge_points_at_the_app_in_front_of_the_workflow() {
        for (status, code) in [(401, "http-401-challenge"), (403, "http-403-challenge")] {
            let seen = Evidence {
                www_authenticate: Some("Bearer realm=\"x\""),
                ..evidence(status, b"")
            };
            let row = fault(&seen).row;
            assert_eq!(
                (row.failure.code, row.failure.fixed_by),
                (code, FixedBy::FlowOwner)
            );
        }
        let known = envelope("MisMatchingOAuthClaims", "x");
        let both = Evidence {
            www_authenticate: Some("Bearer"),
            ..evidence(401, known.as_bytes())
        };
        assert_eq!(fault(&both).row.failure.code, "MisMatchingOAuthClaims");
    }

    #[test]
    fn the_log_sentence_says_what_the_body_was() {
        assert!(fault(&evidence(503, b" ")).to_string().contains("without a body"));
        assert!(
            fault(&evidence(503, b"<!doctype html>"))
                .to_string()
                .contains("an HTML page")
        );
        let unknown = envelope("NeverSeen", "x");
        assert!(
            fault(&evidence(503, unknown.as_bytes()))
                .to_string()
                .contains("the unknown code NeverSeen")
        );
        let unprintable = envelope("Never\nSeen", "x");
        assert!(
            fault(&evidence(503, unprintable.as_bytes()))
                .to_string()
                .contains("without a code")
        );
    }

    #[test]
    fn a_code_is_read_from_untidy_json() {
        for body in [
            "\u{feff}{\"error\":{\"code\":\"NoResponse\",\"message\":\"x\"}}",
            " {\"a\":[1],\"error\":{\"details\":[{}],\"code\":\"NoResponse\"}}",
            "{\"error\":{\"code\":\"NoResponse\",\"message\":{\"lang\":\"en\"}}}",
        ] {
            assert_eq!(
                fault(&evidence(502, body.as_bytes())).row.failure.code,
                "NoResponse",
                "{body}"
            );
        }
        let deep = format!("{{\"error\":{}", "[".repeat(60_000));
        assert_eq!(
            fault(&evidence(502, deep.as_bytes())).row.failure.code,
            "http-502"
        );
    }

    fn token(claims: &serde_json::Value) -> String {
        format!(
            "eyJhbGciOiJub25lIn0.{}.CANARY",
            URL_SAFE_NO_PAD.encode(claims.to_string())
        )
    }

    fn good() -> serde_json::Value {
        serde_json::json!({
            "aud": "https://service.flow.microsoft.com/",
            "iss": format!("https://sts.windows.net/{TENANT}/"),
            "tid": TENANT,
            "oid": OID,
            "appid": "22222222-2222-3333-4444-555555555555",
            "idtyp": "app",
            "exp": 2_000,
        })
    }

    fn explained(name: &str, value: serde_json::Value) -> String {
        let mut claims = good();
        claims[name] = value;
        let tenant = Tenant::parse(TENANT).unwrap();
        let expected = Expected {
            audience: Cloud::Public.audience(),
            tenant: Some(&tenant),
            now: UNIX_EPOCH + Duration::from_secs(1_000),
        };
        let said = explain_mismatch(&token(&claims), &expected);
        assert!(!said.contains("CANARY"), "{said}");
        assert!(said.ends_with('.'), "{said}");
        said
    }

    #[test]
    fn the_claim_that_cannot_match_is_named() {
        for (name, value, words) in [
            (
                "aud",
                "https://service.flow.microsoft.com",
                "must be \"https://service.flow.microsoft.com//.default\"",
            ),
            ("aud", "https://Service.flow.microsoft.com/", "letter by letter"),
            (
                "aud",
                "https://gov.service.flow.microsoft.us/",
                "audience of the cloud gcc",
            ),
            ("aud", "https://graph.microsoft.com", "this is Microsoft Graph"),
            (
                "aud",
                "https://api.powerplatform.com/",
                "the Power Platform management API",
            ),
            ("aud", "https://management.azure.com/", "Azure Resource Manager"),
            (
                "aud",
                "7df0a125-d3be-4c96-aa54-591f83ff541c",
                "the flow service by its id",
            ),
            (
                "aud",
                "api://x",
                "aud is \"api://x\", wanted \"https://service.flow.microsoft.com/\"",
            ),
            ("tid", OID, "the token is of another tenant"),
            ("iss", "https://idp.example/", "no issuer of Entra"),
        ] {
            let said = explained(name, value.into());
            assert!(said.contains(words), "{name} {value}: {said}");
        }
        assert!(explained("exp", 1_000.into()).contains("has expired"));
        assert!(explained("nbf", 1_001.into()).contains("not valid yet"));
        assert!(explained("aud", serde_json::Value::Null).contains("aud is missing"));
    }

    #[test]
    fn claims_that_look_right_lead_to_the_list_of_users() {
        let said = explained("ver", "1.0".into());
        assert!(
            said.contains("look right") && said.contains(OID) && said.contains("not the application id"),
            "{said}"
        );
        let user = explained("idtyp", "user".into());
        assert!(user.contains("the user with object id"), "{user}");
        let listed = explained("aud", serde_json::json!(["x", Cloud::Public.audience()]));
        assert!(listed.contains("look right"), "{listed}");
    }

    #[test]
    fn a_tenant_named_by_its_domain_is_not_compared_with_an_id() {
        let tenant = Tenant::parse("contoso.onmicrosoft.com").unwrap();
        let expected = Expected {
            audience: Cloud::Public.audience(),
            tenant: Some(&tenant),
            now: UNIX_EPOCH,
        };
        assert!(explain_mismatch(&token(&good()), &expected).contains("look right"));
    }

    #[test]
    fn an_opaque_token_is_called_opaque() {
        let expected = Expected {
            audience: "a",
            tenant: None,
            now: UNIX_EPOCH,
        };
        for opaque in ["", "CANARY", "a.CANARY.c", "a.b.c.d.CANARY", "a.W10.CANARY"] {
            let said = explain_mismatch(opaque, &expected);
            assert!(
                said.contains("cannot be read") && !said.contains("CANARY"),
                "{said}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_answer_ends_the_reader(
            status in 100u16..1000,
            run_id in proptest::option::of(".{0,5}"),
            challenge in proptest::option::of(".{0,5}"),
            body in proptest::collection::vec(any::<u8>(), 0..200),
            message in any::<String>(),
            at in 0usize..CODES.len(),
        ) {
            for body in [body, envelope(CODES[at].failure.code, &message).into_bytes()] {
                let seen = Evidence {
                    run_id: run_id.as_deref(),
                    www_authenticate: challenge.as_deref(),
                    ..evidence(status, &body)
                };
                if let Reading::Fault(fault) = classify(&seen) {
                    prop_assert!(!fault.to_string().contains(char::is_control), "{}", fault);
                }
            }
        }

        #[test]
        fn no_token_ends_the_explanation(
            token in any::<String>(),
            claim in any::<String>(),
            number in any::<f64>(),
        ) {
            let tenant = Tenant::parse(TENANT).unwrap();
            let expected = Expected { audience: &claim, tenant: Some(&tenant), now: UNIX_EPOCH };
            let _ = explain_mismatch(&token, &expected);
            let claims = serde_json::json!({
                "aud": claim, "iss": claim, "tid": claim, "oid": claim, "exp": number,
            });
            let _ = explain_mismatch(&self::token(&claims), &expected);
        }
    }
}
