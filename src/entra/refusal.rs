//! The table of Entra's refusals: `error` → kind, AADSTS number → cause, who must mend it, whether time
//! helps. It reads an answer that is not a token and words it for the log; asking again, waiting and keeping
//! a refusal are left to the token cache, and the caller of the gateway learns nothing of it.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::model::{FixedBy, Outlook};

// A refusal has about one kilobyte; more is not one.
const BODY_BYTES_MAX: usize = 64 * 1024;

// The longest `error` in use has 27 characters, ids have 36.
const WORD_CHARS_MAX: usize = 64;

/// Longest wait taken over from `Retry-After`; MSAL for Python stops at the same hour, so that one odd answer
/// does not silence an identity for a day.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What kind of refusal it is: decided by `error` and HTTP status, never by an AADSTS number, because
/// Microsoft may change those at any time ("Microsoft Entra authentication and authorization error codes").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// The request was understood and is not allowed (`access_denied`).
    AccessDenied,
    /// Entra needs a person to sign in (`interaction_required` and its relatives).
    InteractionRequired,
    /// Secret, certificate or assertion was not accepted (`invalid_client`).
    InvalidClient,
    /// The account, its password or its refresh token was not accepted (`invalid_grant`).
    InvalidGrant,
    /// The request lacks something or carries too much (`invalid_request`).
    InvalidRequest,
    /// The resource is unknown in the tenant (`invalid_resource`, `invalid_target`).
    InvalidResource,
    /// The scope is malformed or unknown (`invalid_scope`).
    InvalidScope,
    /// Too many requests (status 429).
    Throttled,
    /// The application may not use this grant (`unauthorized_client`).
    UnauthorizedClient,
    /// Entra does not know or offer what was asked (`unsupported_grant_type`, `unsupported_response_type`).
    Unsupported,
    /// Entra has trouble of its own (`temporarily_unavailable`, `server_error`, any 5xx).
    Unavailable,
    /// None of these.
    Unknown,
}

/// What an `error` means without looking at numbers.
#[derive(Debug)]
pub struct ErrorRow {
    /// The value of `error`.
    pub error: &'static str,
    /// The kind of refusal.
    pub kind: RefusalKind,
    /// Who must mend it.
    pub fixed_by: FixedBy,
    /// Whether time helps.
    pub outlook: Outlook,
    /// The cause as a sentence.
    pub cause: &'static str,
}

/// What an AADSTS number adds as a hint.
#[derive(Debug)]
pub struct NumberRow {
    /// The number behind `AADSTS`.
    pub number: u32,
    /// Who must mend it.
    pub fixed_by: FixedBy,
    /// Whether time helps.
    pub outlook: Outlook,
    /// The cause as a sentence.
    pub cause: &'static str,
}

macro_rules! errors {
    ($($error:literal $kind:ident $fixed_by:ident $outlook:ident $cause:literal;)+) => {
        &[$(ErrorRow {
            error: $error,
            kind: RefusalKind::$kind,
            fixed_by: FixedBy::$fixed_by,
            outlook: Outlook::$outlook,
            cause: $cause,
        }),+]
    };
}

macro_rules! numbers {
    ($($number:literal $fixed_by:ident $outlook:ident $cause:literal;)+) => {
        &[$(NumberRow {
            number: $number,
            fixed_by: FixedBy::$fixed_by,
            outlook: Outlook::$outlook,
            cause: $cause,
        }),+]
    };
}

/// Values of `error`, sorted (RFC 6749, section 5.2; RFC 8707 for `invalid_target`; OpenID Connect Core for
/// the `_required` ones; Microsoft Learn, "Microsoft Entra authentication and authorization error codes").
pub const ERRORS: &[ErrorRow] = errors! {
    "access_denied" AccessDenied TenantAdmin AfterFix
        "Entra denies access to the resource.";
    "consent_required" InteractionRequired TenantAdmin AfterFix
        "The application lacks consent in the tenant.";
    "interaction_required" InteractionRequired TenantAdmin AfterFix
        "Entra wants a person to sign in, which a gateway cannot do; a policy asks for more than the \
         credential.";
    "invalid_client" InvalidClient Operator AfterFix
        "Entra does not accept the secret, certificate or assertion of the application.";
    "invalid_grant" InvalidGrant User AfterFix
        "Entra does not accept the account or its refresh token; it must be signed in again.";
    "invalid_request" InvalidRequest Operator AfterFix
        "Entra misses something in the token request or finds something unexpected in it.";
    "invalid_resource" InvalidResource Operator AfterFix
        "Entra does not know the resource in this tenant.";
    "invalid_scope" InvalidScope Operator AfterFix
        "The scope is not valid; for a flow it ends in //.default, with two slashes.";
    "invalid_target" InvalidResource Operator AfterFix
        "Entra does not know the resource in this tenant.";
    "login_required" InteractionRequired TenantAdmin AfterFix
        "Entra wants a person to sign in, which a gateway cannot do.";
    "server_error" Unavailable Nobody Transient
        "Entra failed by itself.";
    "temporarily_unavailable" Unavailable Nobody Transient
        "Entra is busy.";
    "unauthorized_client" UnauthorizedClient TenantAdmin AfterFix
        "The application is not allowed to request tokens in this way or in this tenant.";
    "unsupported_grant_type" Unsupported Operator AfterFix
        "The token endpoint does not offer this grant; the authority may be a wrong one.";
    "unsupported_response_type" Unsupported Operator AfterFix
        "The token endpoint does not offer this response; the authority may be a wrong one.";
};

/// AADSTS numbers, sorted. Meanings are from Microsoft Learn, "Microsoft Entra authentication and
/// authorization error codes"; those missing there are from the troubleshooting pages of
/// Azure/azure-workload-identity (70021, 90061) and the Azure SDK for Rust (7000215), from
/// AzureAD/microsoft-authentication-library-for-dotnet#4951 (700024) and from refusals shown in public
/// (650053, 700211, 7000229, 700213, 7002131, 900023, 1002012).
pub const NUMBERS: &[NumberRow] = numbers! {
    28002 Operator AfterFix
        "The scope is not valid; for a flow it ends in //.default, with two slashes.";
    50001 Operator AfterFix
        "The resource is disabled or does not exist in the tenant; compare the audience with the cloud.";
    50012 Operator AfterFix
        "The client assertion was not accepted: its signature, its certificate or the certificate's chain \
         is not the registered one.";
    50033 Nobody Transient
        "Entra has a passing trouble with its storage.";
    50034 User AfterFix
        "The account does not exist in the tenant.";
    50053 User AfterFix
        "The account is locked after too many wrong passwords, or its sign-in comes from a blocked address.";
    50055 User AfterFix
        "The account's password has expired.";
    50057 User AfterFix
        "The account is disabled.";
    50074 User AfterFix
        "The account needs multi-factor authentication, which a gateway cannot give; use an application's \
         identity.";
    50076 User AfterFix
        "The account needs multi-factor authentication, which a gateway cannot give; use an application's \
         identity.";
    50079 User AfterFix
        "The account must register for multi-factor authentication, which a gateway cannot do; use an \
         application's identity.";
    50087 Nobody Transient
        "Entra has a passing trouble while it checks the sign-in.";
    50105 TenantAdmin AfterFix
        "The application or account is not assigned to the resource, which wants assignment: add it under \
         Enterprise applications, Users and groups.";
    50126 Operator AfterFix
        "User name or password is wrong; more attempts can lock the account.";
    50173 Operator AfterFix
        "The refresh token was revoked, for example by a new password; sign in again.";
    50196 Operator BackOff
        "Entra sees the same request too often and takes it for a loop; tokens are not being kept.";
    53003 TenantAdmin AfterFix
        "A Conditional Access policy blocks the sign-in; it can apply to workload identities as well.";
    65001 TenantAdmin AfterFix
        "The application lacks consent for the resource: grant it under App registrations, API permissions.";
    70002 Operator AfterFix
        "The client secret does not match the application.";
    70008 Operator AfterFix
        "The refresh token has expired; sign in again.";
    70011 Operator AfterFix
        "The scope is not valid; for a flow it ends in //.default, with two slashes.";
    70021 TenantAdmin AfterFix
        "No federated credential of the application matches the presented token: compare issuer, subject \
         and audience letter by letter, the issuer's last slash included.";
    70043 Operator AfterFix
        "The refresh token has expired because of a sign-in frequency policy; sign in again.";
    90002 Operator AfterFix
        "The tenant does not exist at this authority; compare tenant id and cloud.";
    90006 Nobody Transient
        "Entra has a passing trouble with one of its services.";
    90012 Nobody Transient
        "The request to Entra ran out of time.";
    90024 Nobody Transient
        "Entra's budget for the request was exceeded for the moment.";
    90033 Nobody Transient
        "Entra is not available for the moment.";
    90038 Operator AfterFix
        "The tenant belongs to another national cloud; set the cloud or the authority.";
    90055 Nobody BackOff
        "Entra slows the tenant down because of too many requests.";
    90061 ClusterAdmin BackOff
        "Entra could not reach the issuer of the federated token; its discovery document and keys must be \
         public.";
    90090 Nobody Transient
        "Entra could not reach its store of keys or tenants for the moment.";
    100007 Operator AfterFix
        "The regional endpoint is not open to this kind of application; use the global authority.";
    500011 TenantAdmin AfterFix
        "The resource of the scope has no service principal in the tenant, or the audience is that of another \
         cloud.";
    500133 HostAdmin AfterFix
        "The assertion is outside its valid time; the clock of the host is wrong.";
    530032 TenantAdmin AfterFix
        "A security policy of the tenant blocks the sign-in.";
    530035 TenantAdmin AfterFix
        "The security defaults of the tenant block the sign-in.";
    650052 TenantAdmin AfterFix
        "The tenant has no subscription to the resource of the scope or has not enabled it.";
    650053 Operator AfterFix
        "The resource has no scope of this name; for a flow use //.default.";
    650056 TenantAdmin AfterFix
        "The application is misconfigured: permission or consent for the resource is missing under API \
         permissions.";
    650057 TenantAdmin AfterFix
        "The resource is not listed in the application: add it under App registrations, API permissions.";
    700016 Operator AfterFix
        "The application does not exist in the tenant; compare client id and tenant id.";
    700022 Operator AfterFix
        "The scope names several resources, and only one is allowed.";
    700023 Operator AfterFix
        "The scope names no resource; for a flow it is the audience followed by /.default.";
    700024 HostAdmin AfterFix
        "The assertion is outside its valid time; the clock of the host is wrong or a stored token has \
         grown old.";
    700025 Operator AfterFix
        "The application is a public client and must not send a secret; register it as confidential or send \
         none.";
    700027 Operator AfterFix
        "The signature of the client assertion does not fit: the certificate is not registered with the \
         application, or the private key belongs to another one.";
    700030 Operator AfterFix
        "The certificate's subject is not among those the application admits.";
    700082 Operator AfterFix
        "The refresh token has expired because it was not used for a long time; sign in again.";
    700211 TenantAdmin AfterFix
        "No federated credential of the application has the token's issuer: compare it letter by letter, \
         the last slash included.";
    700213 TenantAdmin AfterFix
        "No federated credential of the application has the token's subject: compare it letter by letter.";
    900023 Operator AfterFix
        "The tenant is neither an id nor a domain name.";
    900382 Operator AfterFix
        "A confidential client cannot request tokens across clouds; set the cloud or the authority of the \
         tenant.";
    900432 Operator AfterFix
        "A confidential client cannot request tokens across clouds; set the cloud or the authority of the \
         tenant.";
    901002 Operator AfterFix
        "The endpoint takes no resource parameter; use a scope.";
    1002012 Operator AfterFix
        "The scope must be one resource followed by /.default; an encoded-twice scope is refused like this \
         too.";
    7000112 TenantAdmin AfterFix
        "The application is disabled: enable sign-in under Enterprise applications, Properties.";
    7000215 Operator AfterFix
        "The client secret is wrong; often the secret's id was copied where its value belongs.";
    7000218 Operator AfterFix
        "The request carries neither a secret nor an assertion, and the application needs one.";
    7000222 Operator AfterFix
        "The client secret has expired: create another under App registrations, Certificates & secrets.";
    7000229 TenantAdmin AfterFix
        "The application has no service principal in the tenant: grant admin consent, or run az ad sp \
         create.";
    7002131 TenantAdmin AfterFix
        "No federated credential of the application matches the presented token: compare issuer, subject \
         and audience letter by letter.";
    9001023 Operator AfterFix
        "An application's grant needs the tenant's id or domain in place of common or consumers.";
};

/// A refusal, with what is worth keeping of it. No text of Entra's is kept, only words, numbers and ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status of the answer.
    pub status: u16,
    /// The value of `error`, if there was one that can be a code.
    pub error: Option<String>,
    /// The AADSTS number, for hints only.
    pub number: Option<u32>,
    /// What to tell Microsoft's support.
    pub correlation_id: Option<String>,
    /// What to tell Microsoft's support as well.
    pub trace_id: Option<String>,
    /// The kind, by `error` and status.
    pub kind: RefusalKind,
    /// The cause as a sentence.
    pub cause: &'static str,
    /// Who must mend it.
    pub fixed_by: FixedBy,
    /// Whether time helps.
    pub outlook: Outlook,
    /// The wait Entra asked for, at most [`RETRY_AFTER_MAX`].
    pub retry_after: Option<Duration>,
}

/// Reads an answer of the token endpoint that is not a token: JSON, plain text, HTML or nothing.
///
/// `error` and status decide the kind. A known number chooses the more exact cause and fixed_by; it chooses the
/// outlook only where the status does not speak for a passing trouble by itself.
pub fn read(status: u16, body: &[u8], retry_after: Option<Duration>) -> Refusal {
    let fields = read_fields(body);
    let description = text(&fields, "error_description").unwrap_or("");
    let error = text(&fields, "error")
        .filter(|error| is_word(error))
        .map(str::to_owned);
    let number = read_number(&fields, description);
    let base = base_of(status, error.as_deref());
    let hint = number
        .and_then(number_row)
        .filter(|_| base.kind != RefusalKind::Throttled);
    let passing = base.outlook != Outlook::AfterFix;
    Refusal {
        status,
        error,
        number,
        correlation_id: read_id(&fields, "correlation_id", description, "Correlation ID: "),
        trace_id: read_id(&fields, "trace_id", description, "Trace ID: "),
        kind: base.kind,
        cause: hint.map_or(base.cause, |row| row.cause),
        fixed_by: hint.map_or(base.fixed_by, |row| row.fixed_by),
        outlook: hint.filter(|_| !passing).map_or(base.outlook, |row| row.outlook),
        retry_after: retry_after.map(|wait| wait.min(RETRY_AFTER_MAX)),
    }
}

impl Refusal {
    /// The refusal in sentences for the operator: which identity, why, who must mend it, whether time helps.
    pub fn sentence(&self, identity: &str, tenant: &str, client_id: &str) -> String {
        let mut said = format!(
            "No token for identity {identity} (tenant {tenant}, client id {client_id}): {self}. {} {}; {}",
            self.cause,
            self.fixed_by.must_fix(),
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

impl std::error::Error for Refusal {}

/// The row of an AADSTS number.
pub fn number_row(number: u32) -> Option<&'static NumberRow> {
    let at = NUMBERS.binary_search_by_key(&number, |row| row.number).ok()?;
    NUMBERS.get(at)
}

/// What status and `error` say together. The status stands first: a throttled answer may carry any body, and
/// a failure of Entra's must not be blamed on the operator.
fn base_of(status: u16, error: Option<&str>) -> &'static ErrorRow {
    if status == 429 {
        return &THROTTLED;
    }
    if status >= 500 {
        return &FAILED;
    }
    let at = error.and_then(|error| ERRORS.binary_search_by_key(&error, |row| row.error).ok());
    if let Some(row) = at.and_then(|at| ERRORS.get(at)) {
        return row;
    }
    match status {
        // Managed identity endpoints answer 410 while they are updated, for up to 70 seconds (Microsoft
        // Learn, "How to use managed identities for Azure resources on an Azure VM to acquire an access
        // token").
        408 | 410 => &FAILED,
        404 => &NOT_FOUND,
        _ => &UNKNOWN,
    }
}

const THROTTLED: ErrorRow = ErrorRow {
    error: "",
    kind: RefusalKind::Throttled,
    fixed_by: FixedBy::Nobody,
    outlook: Outlook::BackOff,
    cause: "Entra was asked for too many tokens.",
};

const FAILED: ErrorRow = ErrorRow {
    error: "",
    kind: RefusalKind::Unavailable,
    fixed_by: FixedBy::Nobody,
    outlook: Outlook::Transient,
    cause: "Entra failed by itself or is busy.",
};

const NOT_FOUND: ErrorRow = ErrorRow {
    error: "",
    kind: RefusalKind::Unknown,
    fixed_by: FixedBy::Operator,
    outlook: Outlook::AfterFix,
    cause: "There is no token endpoint at this address; compare authority and tenant.",
};

const UNKNOWN: ErrorRow = ErrorRow {
    error: "",
    kind: RefusalKind::Unknown,
    fixed_by: FixedBy::Operator,
    outlook: Outlook::AfterFix,
    cause: "Entra refused for a reason Flowgate does not know; compare the identity with its registration.",
};

fn read_fields(body: &[u8]) -> Map<String, Value> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if body.len() > BODY_BYTES_MAX {
        return Map::new();
    }
    serde_json::from_slice(body).unwrap_or_default()
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields.get(name).and_then(Value::as_str)
}

/// The first known number, else the first one. A code without `AADSTS` in the description counts only if it
/// is known: the agent of Azure Arc puts an HTTP status among the codes.
fn read_number(fields: &Map<String, Value>, description: &str) -> Option<u32> {
    let named: Vec<u32> = description
        .split("AADSTS")
        .skip(1)
        .filter_map(leading_number)
        .collect();
    let listed = match fields.get("error_codes") {
        Some(Value::Array(list)) => list.as_slice(),
        _ => &[],
    };
    let listed = listed.iter().filter_map(|code| {
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
fn read_id(fields: &Map<String, Value>, name: &str, description: &str, label: &str) -> Option<String> {
    let own = text(fields, name).filter(|id| is_id(id));
    let told = || {
        let (_, rest) = description.split_once(label)?;
        rest.split(|found: char| !is_id_char(found))
            .next()
            .filter(|id| is_id(id))
    };
    own.or_else(told).map(str::to_owned)
}

fn is_id_char(found: char) -> bool {
    found.is_ascii_hexdigit() || found == '-'
}

fn is_id(text: &str) -> bool {
    (1..=WORD_CHARS_MAX).contains(&text.len()) && text.chars().all(is_id_char)
}

fn is_word(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=WORD_CHARS_MAX).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{ERRORS, FixedBy, NUMBERS, Outlook, RETRY_AFTER_MAX, RefusalKind, number_row, read};

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
    fn the_tables_are_sorted_and_unique() {
        assert!(NUMBERS.windows(2).all(|pair| pair[0].number < pair[1].number));
        assert!(ERRORS.windows(2).all(|pair| pair[0].error < pair[1].error));
    }

    #[test]
    fn every_cause_is_made_of_sentences() {
        let causes = NUMBERS
            .iter()
            .map(|row| row.cause)
            .chain(ERRORS.iter().map(|row| row.cause));
        for cause in causes {
            assert!(
                cause.ends_with('.') && cause.starts_with(char::is_uppercase),
                "{cause}"
            );
            assert!(!cause.contains("  "), "{cause}");
        }
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
                assert_eq!((row.fixed_by, row.outlook), (fixed_by, outlook), "{number}");
                let refusal = read(400, &body("invalid_request", *number), None);
                assert_eq!((refusal.number, refusal.cause), (Some(*number), row.cause));
                assert_eq!(
                    (refusal.fixed_by, refusal.outlook),
                    (fixed_by, outlook),
                    "{number}"
                );
            }
        }
    }

    #[test]
    fn every_error_has_its_kind_without_a_number() {
        for row in ERRORS {
            let refusal = read(400, format!("{{\"error\":\"{}\"}}", row.error).as_bytes(), None);
            assert_eq!(
                (refusal.kind, refusal.cause),
                (row.kind, row.cause),
                "{}",
                row.error
            );
            assert_eq!(
                (refusal.fixed_by, refusal.outlook),
                (row.fixed_by, row.outlook),
                "{}",
                row.error
            );
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
        assert_eq!(
            refusal.trace_id.as_deref(),
            Some("255d1aef-8c98-452f-ac51-23d051240864")
        );
    }

    #[test]
    fn a_wrong_secret_is_read_and_the_description_is_left_out() {
        let text = "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the \
                    request is the client secret value, not the client secret ID, for a secret added to app \
                    'CANARY'. Trace ID: fb3d2015-bc17-4bb9-bb85-30c5cf1aaaa7 \
                    Correlation ID: fb3d2015-bc17-4bb9-bb85-30c5cf1aaaa7 Timestamp: 2026-01-09 02:02:12Z";
        let refusal = read(401, &literal("invalid_client", text, 7000215), None);
        assert_eq!(
            (refusal.kind, refusal.fixed_by),
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
            (refusal.kind, refusal.fixed_by),
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
            (refusal.kind, refusal.fixed_by),
            (RefusalKind::InvalidRequest, FixedBy::TenantAdmin)
        );
        assert!(refusal.cause.contains("last slash"), "{}", refusal.cause);
    }

    #[test]
    fn an_unreachable_issuer_is_read() {
        let text = "AADSTS90061: Request to External OIDC endpoint failed.\r\n\
                    Trace ID: fb3d2015-bc17-4bb9-bb85-30c5cf1aaaa7";
        let refusal = read(400, &literal("invalid_request", text, 90061), None);
        assert_eq!(
            (refusal.fixed_by, refusal.outlook),
            (FixedBy::ClusterAdmin, Outlook::BackOff)
        );
        assert_eq!(
            (refusal.trace_id.as_deref(), refusal.correlation_id),
            (Some(GUID), None)
        );
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
            assert_eq!((refusal.fixed_by, refusal.retry_after), (FixedBy::Nobody, wait));
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
                (refusal.kind, refusal.fixed_by),
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
        assert_eq!(refusal.fixed_by, FixedBy::User);
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
                 answered 401 invalid_client AADSTS7000222. The client secret has expired: create another \
                 under App registrations, Certificates & secrets. The operator of the gateway must fix \
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
