//! Reads an answer of the token endpoint that is not a token, and words it for the log with the table of `refusal.rs`.
//! Asking again, waiting and keeping a refusal are left to the token cache.

use std::fmt;
use std::time::Duration;

use crate::entra::refusal::{
    ERRORS, ErrorRow, FAILED, NOT_FOUND, RefusalKind, THROTTLED, UNKNOWN, number_row,
};
use crate::model::{FailureRow, Outlook};
use crate::outbound::{FailedBody, WORD_CHARS_MAX};

/// Longest wait taken over from `Retry-After`; MSAL for Python stops at the same hour, so that one invalid answer
/// does not silence an identity for a day.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// A refusal, with what is worth keeping of it. No text of Entra's is kept, only words, numbers and ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// The value of `error`, if there was one that can be a code.
    pub error: Option<String>,
    /// The AADSTS number, for hints only.
    pub number: Option<u32>,
    /// The identifier that Microsoft's support asks for.
    pub correlation_id: Option<String>,
    pub kind: RefusalKind,
    pub row: &'static FailureRow,
    /// Whether waiting helps: not always as the row has it, because a status may show that it does.
    pub outlook: Outlook,
    /// The wait Entra asked for, at most [`RETRY_AFTER_MAX`].
    pub retry_after: Option<Duration>,
}

/// Reads an answer of the token endpoint that is not a token: JSON, plain text, HTML or nothing.
///
/// `error` and status decide the kind. A known number chooses the more exact row; it chooses the
/// outlook only where the status does not speak for a passing trouble by itself.
pub fn read(status: u16, body: &[u8], retry_after: Option<Duration>) -> Refusal {
    let body = FailedBody::read(body);
    let description = body.text("/error_description");
    let error = body.word("/error");
    let number = read_number(&body, description);
    let base = base_of(status, error.as_deref());
    let hint = number
        .and_then(number_row)
        .filter(|_| base.kind != RefusalKind::Throttled);
    let hint = hint.map(|row| &row.failure);
    let passing = base.failure.outlook != Outlook::AfterFix;
    Refusal {
        status,
        error,
        number,
        correlation_id: read_id(body.text("/correlation_id"), description, "Correlation ID: "),
        kind: base.kind,
        row: hint.unwrap_or(&base.failure),
        outlook: hint.filter(|_| !passing).unwrap_or(&base.failure).outlook,
        retry_after: retry_after.map(|wait| wait.min(RETRY_AFTER_MAX)),
    }
}

impl Refusal {
    /// The refusal in sentences for the operator: which identity, why, who fixes it, whether waiting helps.
    pub fn sentence(&self, identity: &str, tenant: &str, client_id: &str) -> String {
        let mut said = format!(
            "No token for identity {identity} (tenant {tenant}, client id {client_id}): {self}. {} {}; {}",
            self.row.what,
            self.row.fixed_by.must_fix(),
            self.outlook.clause(),
        );
        if let Some(wait) = self.retry_after {
            said.push_str(&format!(", and Entra asks for a pause of {} s", wait.as_secs()));
        }
        said.push('.');
        if let Some(id) = &self.correlation_id {
            said.push_str(&format!(" Correlation id {id}."));
        }
        said
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entra answered {}", self.status)?;
        if let Some(error) = &self.error {
            write!(f, " {error}")?;
        }
        match self.number {
            Some(number) => write!(f, " AADSTS{number}"),
            None => Ok(()),
        }
    }
}

/// The row for a status and `error`. The status takes precedence: a throttled answer may carry any body, and a failure
/// of Entra must not be blamed on the operator.
fn base_of(status: u16, error: Option<&str>) -> &'static ErrorRow {
    if status == 429 {
        return THROTTLED;
    }
    if status >= 500 {
        return FAILED;
    }
    if let Some(row) = ERRORS.iter().find(|row| Some(row.failure.code) == error) {
        return row;
    }
    match status {
        // Managed identity endpoints answer 410 while they are updated, for up to 70 seconds (Microsoft
        // Learn, "How to use managed identities for Azure resources on an Azure VM to acquire an access
        // token").
        408 | 410 => FAILED,
        404 => NOT_FOUND,
        _ => UNKNOWN,
    }
}

/// The first known number, else the first one. A code without `AADSTS` in the description counts only if it
/// is known: the agent of Azure Arc puts an HTTP status among the codes.
fn read_number(body: &FailedBody, description: &str) -> Option<u32> {
    let named: Vec<u32> = description
        .split("AADSTS")
        .skip(1)
        .filter_map(leading_number)
        .collect();
    let listed = body.list("/error_codes").iter().filter_map(|code| {
        code.as_u64()
            .map_or_else(|| leading_number(code.as_str()?), |code| code.try_into().ok())
    });
    let known = |number: &u32| number_row(*number).is_some();
    named
        .iter()
        .copied()
        .chain(listed)
        .find(known)
        .or_else(|| named.first().copied())
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text
        .find(|found: char| !found.is_ascii_digit())
        .unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

/// An id from its own member, else from the end of the description.
fn read_id(own: &str, description: &str, label: &str) -> Option<String> {
    let own = Some(own).filter(|id| is_id(id));
    let described = || {
        let (_, rest) = description.split_once(label)?;
        rest.split(|found: char| !is_id_char(found))
            .next()
            .filter(|id| is_id(id))
    };
    own.or_else(described).map(str::to_owned)
}

fn is_id_char(found: char) -> bool {
    found.is_ascii_hexdigit() || found == '-'
}

fn is_id(text: &str) -> bool {
    (1..=WORD_CHARS_MAX).contains(&text.len()) && text.chars().all(is_id_char)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{ERRORS, Outlook, RETRY_AFTER_MAX, RefusalKind, number_row, read};
    use crate::model::FixedBy;

    const GUID: &str = "fb3d2015-bc17-4bb9-bb85-30c5cf1aaaa7";

    fn body(error: &str, number: u32) -> Vec<u8> {
        serde_json::json!({
            "error": error,
            "error_description": format!("AADSTS{number}: CANARY\r\nCorrelation ID: {GUID}"),
            "error_codes": [number],
            "timestamp": "2016-01-09 02:02:12Z",
            "trace_id": GUID,
            "correlation_id": GUID,
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn every_number_met_in_practice_has_a_row() {
        use FixedBy::{ClusterAdmin, HostAdmin, Nobody, Operator, TenantAdmin, User};
        use Outlook::{AfterFix, BackOff, Transient};
        let groups: [(&[u32], FixedBy, Outlook); 8] = [
            (
                &[
                    7000215, 7000222, 70002, 700016, 700027, 50012, 700030, 50001, 70011, 28002,
                ],
                Operator,
                AfterFix,
            ),
            (
                &[
                    1002012, 700022, 700023, 901002, 90002, 900023, 900382, 900432, 90038,
                ],
                Operator,
                AfterFix,
            ),
            (
                &[
                    650053, 50126, 50173, 700082, 70008, 70043, 700025, 7000218, 100007,
                ],
                Operator,
                AfterFix,
            ),
            (
                &[7000229, 7000112, 70021, 700211, 700213, 7002131, 500011, 65001],
                TenantAdmin,
                AfterFix,
            ),
            (
                &[650052, 650056, 650057, 50105, 53003, 530032, 530035],
                TenantAdmin,
                AfterFix,
            ),
            (&[500133, 700024], HostAdmin, AfterFix),
            (&[50076, 50074, 50079, 50034, 50057, 50055, 50053], User, AfterFix),
            (
                &[90033, 90006, 90024, 90012, 50033, 50087, 90090],
                Nobody,
                Transient,
            ),
        ];
        let singles: [(&[u32], FixedBy, Outlook); 3] = [
            (&[50196], Operator, BackOff),
            (&[90055], Nobody, BackOff),
            (&[90061], ClusterAdmin, BackOff),
        ];
        for (numbers, fixed_by, outlook) in groups.into_iter().chain(singles) {
            for number in numbers {
                let row = number_row(*number).unwrap_or_else(|| panic!("{number} has no row"));
                let row = &row.failure;
                assert_eq!((row.fixed_by, row.outlook), (fixed_by, outlook), "{number}");
                let refusal = read(400, &body("invalid_request", *number), None);
                assert_eq!((refusal.number, refusal.row), (Some(*number), row));
                assert_eq!(refusal.outlook, outlook, "{number}");
            }
        }
    }

    #[test]
    fn every_error_has_its_kind_without_a_number() {
        for row in ERRORS {
            let code = row.failure.code;
            let refusal = read(400, format!("{{\"error\":\"{code}\"}}").as_bytes(), None);
            assert_eq!((refusal.kind, refusal.row), (row.kind, &row.failure), "{code}");
            assert_eq!(refusal.outlook, row.failure.outlook, "{code}");
            assert_eq!(refusal.number, None);
        }
    }

    /// A body as Entra sends it, without the members that repeat the description.
    fn literal(error: &str, description: &str, number: u32) -> Vec<u8> {
        serde_json::json!({
            "error": error,
            "error_description": description,
            "error_codes": [number],
            "timestamp": "2022-01-20 22:54:42Z",
            "error_uri": format!("https://login.microsoftonline.com/error?code={number}"),
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn an_invalid_scope_is_read() {
        let text = "AADSTS70011: The provided value for the input parameter 'scope' is not valid. ...\r\n\
                    Trace ID: 255d1aef-8c98-452f-ac51-23d051240864\r\n\
                    Correlation ID: fb3d2015-bc17-4bb9-bb85-30c5cf1aaaa7\r\nTimestamp: 2016-01-09 02:02:12Z";
        let refusal = read(400, &literal("invalid_scope", text, 70011), None);
        assert_eq!(
            (refusal.kind, refusal.number),
            (RefusalKind::InvalidScope, Some(70011))
        );
        assert_eq!(refusal.correlation_id.as_deref(), Some(GUID));
    }

    #[test]
    fn a_wrong_secret_is_read_and_the_description_is_left_out() {
        let text = "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the \
                    request is the client secret value, not the client secret ID, for a secret added to app \
                    'CANARY'. Trace ID: fb3d2015-bc17-4bb9-bb85-30c5cf1aaaa7 \
                    Correlation ID: fb3d2015-bc17-4bb9-bb85-30c5cf1aaaa7 Timestamp: 2026-01-09 02:02:12Z";
        let refusal = read(401, &literal("invalid_client", text, 7000215), None);
        assert_eq!(
            (refusal.kind, refusal.row.fixed_by),
            (RefusalKind::InvalidClient, FixedBy::Operator)
        );
        assert_eq!(refusal.correlation_id.as_deref(), Some(GUID));
        assert!(!format!("{refusal:?} {refusal} {}", refusal.sentence("a", "b", "c")).contains("CANARY"));
    }

    #[test]
    fn a_missing_service_principal_is_read() {
        let text = "AADSTS7000229: The client application <app> is missing service principal in the tenant \
                    <tenant>. See instructions here: https://go.microsoft.com/fwlink/?linkid=2225119 ...";
        let refusal = read(401, &literal("invalid_client", text, 7000229), None);
        assert_eq!(
            (refusal.kind, refusal.row.fixed_by),
            (RefusalKind::InvalidClient, FixedBy::TenantAdmin)
        );
    }

    #[test]
    fn a_federated_token_without_a_record_is_read() {
        let text = "AADSTS70021: No matching federated identity record found for presented assertion. \
                    Assertion Issuer: 'https://oidc.prod-aks.azure.com/0a1b2c3d/'. Assertion Subject: \
                    'system:serviceaccount:default:workload-identity-sa'. Assertion Audience: \
                    'api://AzureADTokenExchange'.\r\nTrace ID: fb3d2015-bc17-4bb9-bb85-30c5cf1aaaa7\r\n\
                    Correlation ID: fb3d2015-bc17-4bb9-bb85-30c5cf1aaaa7\r\nTimestamp: 2022-01-20 22:54:42Z";
        let refusal = read(400, &literal("invalid_request", text, 70021), None);
        assert_eq!(
            (refusal.kind, refusal.row.fixed_by),
            (RefusalKind::InvalidRequest, FixedBy::TenantAdmin)
        );
        assert!(refusal.row.what.contains("last slash"), "{}", refusal.row.what);
    }

    #[test]
    fn an_unreachable_issuer_is_read() {
        let text = "AADSTS90061: Request to External OIDC endpoint failed.\r\n\
                    Trace ID: fb3d2015-bc17-4bb9-bb85-30c5cf1aaaa7";
        let refusal = read(400, &literal("invalid_request", text, 90061), None);
        assert_eq!(
            (refusal.row.fixed_by, refusal.outlook),
            (FixedBy::ClusterAdmin, Outlook::BackOff)
        );
        assert_eq!(refusal.correlation_id, None);
    }

    #[test]
    fn a_scope_without_default_is_read() {
        let text = "AADSTS1002012: The provided value for scope <scope> is not valid. Client credential \
                    flows must have a scope value with /.default suffixed to the resource identifier \
                    (application ID URI). ...";
        let refusal = read(400, &literal("invalid_scope", text, 1002012), None);
        assert_eq!(
            (refusal.kind, refusal.number),
            (RefusalKind::InvalidScope, Some(1002012))
        );
    }

    #[test]
    fn a_throttled_answer_is_known_by_its_status_alone() {
        let wait = Some(Duration::from_secs(60));
        for text in [
            b"Too Many Requests".to_vec(),
            Vec::new(),
            body("invalid_client", 7000215),
        ] {
            let refusal = read(429, &text, wait);
            assert_eq!(
                (refusal.kind, refusal.outlook),
                (RefusalKind::Throttled, Outlook::BackOff)
            );
            assert_eq!(
                (refusal.row.fixed_by, refusal.retry_after),
                (FixedBy::Nobody, wait)
            );
        }
        let endless = read(429, b"", Some(Duration::MAX));
        assert_eq!(endless.retry_after, Some(RETRY_AFTER_MAX));
    }

    #[test]
    fn a_failure_of_entra_is_transient_whatever_its_body() {
        for status in [500, 502, 503, 504, 599] {
            for text in [
                b"<html>oops</html>".to_vec(),
                Vec::new(),
                body("invalid_client", 7000215),
            ] {
                let refusal = read(status, &text, None);
                assert_eq!(
                    (refusal.kind, refusal.outlook),
                    (RefusalKind::Unavailable, Outlook::Transient)
                );
            }
        }
        assert_eq!(read(410, b"", None).outlook, Outlook::Transient);
    }

    #[test]
    fn an_answer_without_an_error_is_for_the_operator() {
        for (status, text) in [
            (400, &b"<html>"[..]),
            (404, b""),
            (403, b"[]"),
            (400, b"{\"error\":{}}"),
            (200, b""),
        ] {
            let refusal = read(status, text, None);
            assert_eq!(
                (refusal.kind, refusal.row.fixed_by),
                (RefusalKind::Unknown, FixedBy::Operator),
                "{status}"
            );
            assert_eq!(refusal.error, None);
        }
    }

    #[test]
    fn a_number_not_seen_before_leaves_the_error_to_decide() {
        let refusal = read(400, &body("invalid_grant", 9999999), None);
        assert_eq!(
            (refusal.kind, refusal.number),
            (RefusalKind::InvalidGrant, Some(9999999))
        );
        assert_eq!(refusal.row.fixed_by, FixedBy::User);
        let arc = literal("unauthorized_client", "Missing Basic Authorization header", 401);
        assert_eq!(read(401, &arc, None).number, None);
    }

    #[test]
    fn the_sentence_names_identity_cause_who_fixes_it_and_outlook() {
        let refusal = read(
            401,
            &body("invalid_client", 7000222),
            Some(Duration::from_secs(5)),
        );
        let said = refusal.sentence("orders", "contoso.onmicrosoft.com", "22222222");
        assert_eq!(
            said,
            format!(
                "No token for identity orders (tenant contoso.onmicrosoft.com, client id 22222222): entra \
                 answered 401 invalid_client AADSTS7000222. The client secret has expired. Create another \
                 one under App registrations, Certificates & secrets. The operator of the gateway must fix \
                 this; waiting does not help, and Entra asks for a pause of 5 s. Correlation id {GUID}."
            )
        );
    }

    proptest! {
        #[test]
        fn no_answer_ends_the_reader(
            status in any::<u16>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            error in any::<String>(),
            description in any::<String>(),
            codes in proptest::collection::vec(any::<u64>(), 0..4),
        ) {
            let json = serde_json::json!({
                "error": error,
                "error_description": format!("AADSTS{description} Trace ID: {error}"),
                "error_codes": codes,
                "correlation_id": description,
            });
            for body in [bytes, json.to_string().into_bytes()] {
                let said = read(status, &body, None).sentence("i", "t", "c");
                prop_assert!(!said.contains(char::is_control), "{}", said);
            }
        }
    }
}
