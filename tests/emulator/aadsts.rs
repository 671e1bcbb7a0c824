//! The refusals of Entra's token endpoint by AADSTS number: status, `error` value and message, in Entra's
//! envelope with trace and correlation ids.

use serde_json::{Value, json};

use super::ids;
use super::reply::Reply;

/// A refusal; its description may contain `{client}`, `{tenant}` and `{scope}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// The value of `error`.
    pub error: String,
    pub number: u32,
    /// The message after the number.
    pub description: String,
}

/// The values for a description's placeholders.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parties<'a> {
    /// The client id that was sent.
    pub client: &'a str,
    /// The tenant in the path.
    pub tenant: &'a str,
    /// The scope that was sent.
    pub scope: &'a str,
}

/// A row of the table: number, status, `error`, message.
type Row = (u32, u16, &'static str, &'static str);

const ROWS: &[Row] = &[
    (
        7_000_215,
        401,
        "invalid_client",
        "Invalid client secret provided. Ensure the secret being sent in the request is the client secret \
         value, not the client secret ID, for a secret added to app '{client}'.",
    ),
    (
        7_000_222,
        401,
        "invalid_client",
        "The provided client secret keys for app '{client}' are expired. Visit the Azure portal to create \
         new keys for your app, or consider using certificate credentials for added security.",
    ),
    (
        70002,
        401,
        "invalid_client",
        "Error validating credentials. The client_secret does not match.",
    ),
    (
        700_016,
        400,
        "unauthorized_client",
        "Application with identifier '{client}' was not found in the directory '{tenant}'. This can happen \
         if the application has not been installed by the administrator of the tenant or consented to by \
         any user in the tenant. You may have sent your authentication request to the wrong tenant.",
    ),
    (
        7_000_229,
        401,
        "invalid_client",
        "The client application {client} is missing service principal in the tenant {tenant}. See \
         instructions here: https://go.microsoft.com/fwlink/?linkid=2225119",
    ),
    (
        7_000_112,
        401,
        "unauthorized_client",
        "Application '{client}' is disabled.",
    ),
    (
        700_027,
        401,
        "invalid_client",
        "Client assertion failed signature validation.",
    ),
    (50012, 401, "invalid_client", "Authentication failed."),
    (
        700_030,
        401,
        "invalid_client",
        "Invalid certificate - subject name in certificate is not authorized.",
    ),
    (
        700_024,
        401,
        "invalid_client",
        "Client assertion is not within its valid time range.",
    ),
    (
        500_133,
        401,
        "invalid_client",
        "Assertion is not within its valid time range. Ensure that the access token is not expired before \
         using it for user assertion, or request a new token.",
    ),
    (
        70021,
        400,
        "invalid_request",
        "No matching federated identity record found for presented assertion.",
    ),
    (
        700_213,
        400,
        "invalid_request",
        "No matching federated identity record found for presented assertion subject.",
    ),
    (
        7_002_131,
        400,
        "invalid_request",
        "No matching federated identity record found for presented assertion audience.",
    ),
    (
        90061,
        400,
        "invalid_request",
        "Request to External OIDC endpoint failed.",
    ),
    (
        500_011,
        400,
        "invalid_resource",
        "The resource principal named {scope} was not found in the tenant named {tenant}. This can happen \
         if the application has not been installed by the administrator of the tenant or consented to by \
         any user in the tenant.",
    ),
    (
        50001,
        400,
        "invalid_resource",
        "The resource is disabled or the resource named {scope} was not found.",
    ),
    (
        70011,
        400,
        "invalid_scope",
        "The provided value for the input parameter 'scope' is not valid. The scope {scope} is not valid.",
    ),
    (
        28002,
        400,
        "invalid_scope",
        "Provided value for the input parameter scope '{scope}' isn't valid when requesting an access \
         token.",
    ),
    (
        1_002_012,
        400,
        "invalid_scope",
        "The provided value for scope {scope} is not valid. Client credential flows must have a scope \
         value with /.default suffixed to the resource identifier (application ID URI).",
    ),
    (
        700_022,
        400,
        "invalid_scope",
        "The provided value for the input parameter scope isn't valid because it contains more than one \
         resource.",
    ),
    (
        700_023,
        400,
        "invalid_scope",
        "The provided value for the input parameter scope isn't valid because it is missing the resource.",
    ),
    (
        901_002,
        400,
        "invalid_request",
        "The 'resource' request parameter is not supported.",
    ),
    (
        90002,
        400,
        "invalid_request",
        "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing \
         into the correct cloud. Check with your subscription administrator, this may happen if there are \
         no active subscriptions for the tenant.",
    ),
    (
        900_023,
        400,
        "invalid_request",
        "Specified tenant identifier '{tenant}' is neither a valid DNS name, nor a valid external domain.",
    ),
    (
        900_382,
        400,
        "invalid_request",
        "Confidential Client is not supported in Cross Cloud request.",
    ),
    (
        900_432,
        400,
        "invalid_request",
        "Confidential Client is not supported in Cross Cloud request.",
    ),
    (
        90038,
        400,
        "invalid_request",
        "Tenant '{tenant}' request is being redirected to the National Cloud.",
    ),
    (
        900_144,
        400,
        "invalid_request",
        "The request body must contain the following parameter: 'grant_type'.",
    ),
    (
        900_561,
        400,
        "invalid_request",
        "The endpoint only accepts POST requests. Received a request with another method.",
    ),
    (
        9_001_023,
        400,
        "invalid_request",
        "The grant type is not supported over the /common or /consumers endpoints. Please use the \
         /organizations or tenant-specific endpoint.",
    ),
    (
        90013,
        400,
        "invalid_request",
        "Invalid input received from the user.",
    ),
    (
        70003,
        400,
        "unsupported_grant_type",
        "The app requested an unsupported grant type.",
    ),
    (
        65001,
        400,
        "invalid_grant",
        "The user or administrator has not consented to use the application with ID '{client}'. Send an \
         interactive authorization request for this user and resource.",
    ),
    (
        650_052,
        400,
        "invalid_client",
        "The app is trying to access a service that your organization '{tenant}' lacks a service principal \
         for.",
    ),
    (
        650_053,
        400,
        "invalid_scope",
        "The application '{client}' asked for scope '{scope}' that doesn't exist on the resource.",
    ),
    (650_056, 400, "invalid_client", "Misconfigured application."),
    (
        650_057,
        400,
        "invalid_resource",
        "Invalid resource. The client has requested access to a resource which is not listed in the \
         requested permissions in the client's application registration.",
    ),
    (
        50105,
        400,
        "invalid_grant",
        "The administrator has configured the application to block users unless they are specifically \
         granted access to the application.",
    ),
    (
        53003,
        400,
        "invalid_grant",
        "Access has been blocked by Conditional Access policies. The access policy does not allow token \
         issuance.",
    ),
    (530_032, 400, "invalid_grant", "Blocked by security policy."),
    (
        530_035,
        400,
        "invalid_grant",
        "Access has been blocked by security defaults.",
    ),
    (
        50074,
        400,
        "interaction_required",
        "Strong Authentication is required.",
    ),
    (
        50076,
        400,
        "interaction_required",
        "Due to a configuration change made by your administrator, or because you moved to a new location, \
         you must use multi-factor authentication to access the resource.",
    ),
    (
        50079,
        400,
        "interaction_required",
        "Due to a configuration change made by your administrator, or because you moved to a new location, \
         you must enroll in multi-factor authentication to access the resource.",
    ),
    (
        50126,
        400,
        "invalid_grant",
        "Error validating credentials due to invalid username or password.",
    ),
    (
        50034,
        400,
        "invalid_grant",
        "The user account does not exist in the {tenant} directory.",
    ),
    (
        50053,
        400,
        "invalid_grant",
        "The account is locked, you've tried to sign in too many times with an incorrect user ID or \
         password.",
    ),
    (50055, 400, "invalid_grant", "The password is expired."),
    (50057, 400, "invalid_grant", "The user account is disabled."),
    (
        50173,
        400,
        "invalid_grant",
        "The provided grant has expired due to it being revoked, a fresh auth token is needed.",
    ),
    (
        700_082,
        400,
        "invalid_grant",
        "The refresh token has expired due to inactivity.",
    ),
    (
        70008,
        400,
        "invalid_grant",
        "The provided authorization code or refresh token has expired due to inactivity.",
    ),
    (
        70043,
        400,
        "invalid_grant",
        "The refresh token has expired or is invalid due to sign-in frequency checks by Conditional \
         Access.",
    ),
    (
        54005,
        400,
        "invalid_grant",
        "OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an existing \
         refresh token.",
    ),
    (
        501_481,
        400,
        "invalid_grant",
        "The Code_Verifier does not match the code_challenge supplied in the authorization request.",
    ),
    (
        500_112,
        400,
        "invalid_grant",
        "The return address specified in the token request does not match the one of the authorization request.",
    ),
    (
        70016,
        400,
        "authorization_pending",
        "OAuth 2.0 device flow error. Authorization is pending. Continue polling.",
    ),
    (
        70018,
        400,
        "bad_verification_code",
        "Invalid verification code due to User typing in wrong user code for device code flow.",
    ),
    (
        70000,
        400,
        "invalid_grant",
        "Provided grant is invalid or malformed.",
    ),
    (
        700_025,
        401,
        "invalid_client",
        "Client is public so neither 'client_assertion' nor 'client_secret' should be presented.",
    ),
    (
        7_000_218,
        401,
        "invalid_client",
        "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
    ),
    (
        50196,
        400,
        "invalid_grant",
        "The server terminated an operation because it encountered a client request loop. Please contact \
         your app vendor.",
    ),
    (
        90033,
        503,
        "temporarily_unavailable",
        "A transient error has occurred. Please try again.",
    ),
    (
        90006,
        503,
        "temporarily_unavailable",
        "The service is temporarily unavailable. Please retry later.",
    ),
    (
        90024,
        503,
        "temporarily_unavailable",
        "A transient error has occurred. Please try again.",
    ),
    (
        90012,
        503,
        "temporarily_unavailable",
        "A timeout has occurred. Please try again.",
    ),
    (
        50033,
        503,
        "temporarily_unavailable",
        "A transient error has occurred. Please try again.",
    ),
    (
        50087,
        503,
        "temporarily_unavailable",
        "A transient error has occurred during strong authentication. Please try again.",
    ),
    (
        90090,
        503,
        "temporarily_unavailable",
        "A transient error has occurred. Please try again.",
    ),
    (
        90055,
        429,
        "temporarily_unavailable",
        "Too many requests for the tenant '{tenant}'.",
    ),
    (
        100_007,
        400,
        "invalid_request",
        "AAD Regional ONLY supports auth either for MSIs OR for requests from MSAL using SN+I for 1P apps \
         or 3P apps in Microsoft infrastructure tenants.",
    ),
];

/// The refusal with this number; one that is not in the table becomes an `invalid_request`.
pub fn refusal(number: u32) -> Refusal {
    let row = ROWS.iter().find(|row| row.0 == number);
    let (_, status, error, description) =
        row.copied()
            .unwrap_or((number, 400, "invalid_request", "The request was refused."));
    Refusal {
        status,
        error: error.to_owned(),
        number,
        description: description.to_owned(),
    }
}

/// All numbers that have a message of their own.
pub fn numbers() -> impl Iterator<Item = u32> {
    ROWS.iter().map(|row| row.0)
}

impl Refusal {
    /// The answer with this refusal.
    pub fn reply(&self, parties: Parties<'_>) -> Reply {
        let trace = ids::guid();
        let correlation = ids::guid();
        let timestamp = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%SZ").to_string();
        let sentence = self
            .description
            .replace("{client}", parties.client)
            .replace("{tenant}", parties.tenant)
            .replace("{scope}", parties.scope);
        let number = self.number;
        let description = format!(
            "AADSTS{number}: {sentence}\r\nTrace ID: {trace}\r\nCorrelation ID: {correlation}\r\n\
             Timestamp: {timestamp}"
        );
        let mut body = json!({
            "error": self.error,
            "error_description": description,
            "error_codes": [number],
            "timestamp": timestamp,
            "trace_id": trace,
            "correlation_id": correlation,
        });
        // This refusal has been observed without the address, so no test may rely on it.
        if number != 90061 {
            body["error_uri"] = Value::from(format!("https://login.microsoftonline.com/error?code={number}"));
        }
        Reply::json(self.status, &body)
    }
}
