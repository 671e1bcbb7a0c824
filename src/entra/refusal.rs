//! The table of Entra's refusals: `error` → kind and cause, AADSTS number → cause; who fixes it, whether waiting helps,
//! and where. `refused.rs` reads an answer with it; a new number is one row here.

use crate::model::{FailureRow, FixedBy, Outlook, Page};

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
    Unknown,
}

/// What an `error` means without looking at numbers.
#[derive(Debug)]
pub struct ErrorRow {
    pub kind: RefusalKind,
    /// Its code is the value of `error`.
    pub failure: FailureRow,
}

/// What an AADSTS number adds as a hint.
#[derive(Debug)]
pub struct NumberRow {
    pub number: u32,
    /// Its code is `AADSTS` and the number.
    pub failure: FailureRow,
}

const fn row(
    code: &'static str,
    fixed_by: FixedBy,
    outlook: Outlook,
    page: Page,
    what: &'static str,
) -> FailureRow {
    FailureRow {
        code,
        label: "refused",
        seen: "",
        fixed_by,
        outlook,
        page,
        what,
    }
}

macro_rules! errors {
    ($($error:literal $kind:ident $fixed_by:ident $outlook:ident $what:literal;)+) => {
        &[$(ErrorRow {
            kind: RefusalKind::$kind,
            failure: row($error, FixedBy::$fixed_by, Outlook::$outlook, Page::NONE, $what),
        }),+]
    };
}

macro_rules! numbers {
    ($($($number:literal)|+ $fixed_by:ident $outlook:ident $page:ident $what:literal;)+) => {
        &[$($(NumberRow {
            number: $number,
            failure: row(concat!("AADSTS", $number), FixedBy::$fixed_by, Outlook::$outlook, $page, $what),
        },)+)+]
    };
}

const NONE: Page = Page::NONE;
const SECRETS: Page = Page::new(
    "Microsoft Entra admin center, App registrations, {client_id}, Certificates & secrets",
    "az ad app credential reset --id {client_id} --append --query password --output tsv",
);
const CERTIFICATES: Page = Page::new(
    SECRETS.portal,
    "az ad app credential list --id {client_id} --cert",
);
const APPLICATIONS: Page = Page::new(
    "Microsoft Entra admin center, App registrations, All applications",
    "az ad app show --id {client_id} --query appId",
);
const TENANT: Page = Page::new(
    "Microsoft Entra admin center, Overview: Tenant ID",
    "az account show --query \"{tenant:tenantId, cloud:environmentName}\"",
);
const PRINCIPAL: Page = Page::new(
    "Microsoft Entra admin center, Enterprise applications",
    "az ad sp create --id {client_id}",
);
const PROPERTIES: Page = Page::new(
    "Microsoft Entra admin center, Enterprise applications, {client_id}, Properties",
    "az ad sp update --id {client_id} --set accountEnabled=true",
);
const CLOCK: Page = Page::command("timedatectl status");
const FEDERATED: Page = Page::new(
    "Microsoft Entra admin center, App registrations, {client_id}, Certificates & secrets, Federated credentials",
    "az ad app federated-credential list --id {client_id}",
);
const ISSUER: Page = Page::command("curl --fail ISSUER/.well-known/openid-configuration");
const RESOURCE: Page = Page::new(
    "Microsoft Entra admin center, Enterprise applications: {resource}",
    "{create}",
);
const CHECK: Page = Page::command("flowgate check --config FILE");
const PERMISSIONS: Page = Page::new(
    "Microsoft Entra admin center, App registrations, {client_id}, API permissions",
    "az ad app permission admin-consent --id {client_id}",
);
const ASSIGNMENT: Page =
    Page::portal("Microsoft Entra admin center, Enterprise applications, the resource, Users and groups");
const POLICIES: Page = Page::portal(
    "Microsoft Entra admin center, Protection, Conditional Access; Identity, Monitoring, Sign-in logs",
);
const ACCOUNT: Page = Page::new(
    "Microsoft Entra admin center, Users, the account, Sign-in logs",
    "az ad user show --id USER --query accountEnabled",
);
const LOGIN: Page = Page::LOGIN;
const PUBLIC: Page = Page::new(
    "Microsoft Entra admin center, App registrations, {client_id}, Authentication",
    "az ad app update --id {client_id} --is-fallback-public-client false",
);
const METRICS: Page = Page::command("curl http://127.0.0.1:9464/metrics");
const STATUS: Page = Page::portal("https://azure.status.microsoft");

/// Values of `error` (RFC 6749, section 5.2; RFC 8707 for `invalid_target`; OpenID Connect Core for the `_required`
/// ones; Microsoft Learn, "Microsoft Entra authentication and authorization error codes").
pub const ERRORS: &[ErrorRow] = errors! {
    "access_denied" AccessDenied TenantAdmin AfterFix
        "Entra denies access to the resource. Look at the sign-in logs of the tenant for the rule that denies it.";
    "consent_required" InteractionRequired TenantAdmin AfterFix
        "The application lacks consent in the tenant. Grant it under App registrations, API permissions.";
    "interaction_required" InteractionRequired TenantAdmin AfterFix
        "Entra wants a person to sign in, which a gateway cannot do: a policy asks for more than the credential. \
         Exclude the identity from that policy, or use an application's identity.";
    "invalid_client" InvalidClient Operator AfterFix
        "Entra does not accept the secret, certificate or assertion of the application. Replace it.";
    "invalid_grant" InvalidGrant User AfterFix
        "Entra does not accept the account or its refresh token. Sign in with the account again.";
    "invalid_request" InvalidRequest Operator AfterFix
        "Entra finds something missing or unexpected in the token request. Correct the settings of the identity.";
    "invalid_resource" InvalidResource Operator AfterFix
        "Entra does not know the resource in this tenant. Compare the scope of the identity with the tenant and cloud.";
    "invalid_scope" InvalidScope Operator AfterFix
        "The scope is not valid. For a flow it ends in //.default, with two slashes.";
    "invalid_target" InvalidResource Operator AfterFix
        "Entra does not know the resource in this tenant. Compare the scope of the identity with the tenant and cloud.";
    "login_required" InteractionRequired TenantAdmin AfterFix
        "Entra wants a person to sign in, which a gateway cannot do. Use an application's identity.";
    "server_error" Unavailable Nobody Transient
        "Entra itself failed. The gateway asks again.";
    "temporarily_unavailable" Unavailable Nobody Transient
        "Entra is busy. The gateway asks again.";
    "unauthorized_client" UnauthorizedClient TenantAdmin AfterFix
        "The application is not allowed to request tokens in this way or in this tenant. Allow it in the application's \
         registration.";
    "unsupported_grant_type" Unsupported Operator AfterFix
        "The token endpoint does not offer this grant. Check the authority of the identity.";
    "unsupported_response_type" Unsupported Operator AfterFix
        "The token endpoint does not offer this response. Check the authority of the identity.";
};

macro_rules! statuses {
    ($($name:ident $code:literal $kind:ident $fixed_by:ident $outlook:ident $page:ident $what:literal;)+) => {
        $(pub(super) const $name: &ErrorRow = &ErrorRow {
            kind: RefusalKind::$kind,
            failure: row($code, FixedBy::$fixed_by, Outlook::$outlook, $page, $what),
        };)+
        /// Answers without a known `error`, by their status.
        pub const BY_STATUS: &[&ErrorRow] = &[$($name),+];
    };
}

statuses! {
    THROTTLED "entra-throttled" Throttled Nobody BackOff STATUS
        "Entra was asked for too many tokens. The gateway waits and asks again.";
    FAILED "entra-failed" Unavailable Nobody Transient STATUS
        "Entra itself failed or is busy. The gateway asks again.";
    NOT_FOUND "no-token-endpoint" Unknown Operator AfterFix NONE
        "There is no token endpoint at this address. Compare authority and tenant.";
    UNKNOWN "refused-unknown" Unknown Operator AfterFix NONE
        "Entra refused for a reason that Flowgate does not know. Compare the identity with its registration.";
}

/// AADSTS numbers. Meanings are from Microsoft Learn, "Microsoft Entra authentication and
/// authorization error codes"; those missing there are from the troubleshooting pages of
/// Azure/azure-workload-identity (70021, 90061) and the Azure SDK for Rust (7000215), from
/// AzureAD/microsoft-authentication-library-for-dotnet#4951 (700024) and from refusals shown in public
/// (650053, 700211, 7000229, 700213, 7002131, 900023, 1002012).
pub const NUMBERS: &[NumberRow] = numbers! {
    28002 | 70011 Operator AfterFix CHECK
        "The scope is not valid. For a flow it ends in //.default, with two slashes.";
    50001 Operator AfterFix RESOURCE
        "The resource is disabled or does not exist in the tenant. Compare the audience with the cloud.";
    50012 Operator AfterFix CERTIFICATES
        "Entra does not accept the client assertion: its signature, its certificate or the certificate's chain is not \
         the registered one. Upload the certificate to the application, or name the right file.";
    50033 Nobody Transient STATUS
        "Entra has a transient problem with its storage. The gateway asks again.";
    50034 User AfterFix ACCOUNT
        "The account does not exist in the tenant. Compare its name with the tenant.";
    50053 User AfterFix ACCOUNT
        "The account is locked after too many wrong passwords, or its sign-in comes from a blocked address. Ask the \
         account's administrator, or use an application's identity.";
    50055 User AfterFix ACCOUNT
        "The account's password has expired. Set a new one.";
    50057 User AfterFix ACCOUNT
        "The account is disabled. Ask the account's administrator, or use an application's identity.";
    50074 | 50076 User AfterFix ACCOUNT
        "The account needs multi-factor authentication, which a gateway cannot give. Use an application's identity.";
    50079 User AfterFix ACCOUNT
        "The account must register for multi-factor authentication, which a gateway cannot do. Use an application's \
         identity.";
    50087 Nobody Transient STATUS
        "Entra has a transient problem while it checks the sign-in. The gateway asks again.";
    50105 TenantAdmin AfterFix ASSIGNMENT
        "The application or account is not assigned to the resource, which requires assignment. Add it under \
         Enterprise applications, Users and groups.";
    50126 Operator AfterFix ACCOUNT
        "User name or password is wrong, and more attempts can lock the account. Correct the secret.";
    50173 Operator AfterFix LOGIN
        "The refresh token was revoked, for example by a new password. Sign in again.";
    50196 Operator BackOff METRICS
        "Entra sees the same request too often and takes it for a loop: tokens are not being kept. Look at \
         flowgate_token_fetches in the metrics, and whether many gateways share this identity.";
    53003 TenantAdmin AfterFix POLICIES
        "A Conditional Access policy blocks the sign-in; it can apply to workload identities as well. Exclude the \
         identity from the policy, or admit the gateway's address.";
    65001 TenantAdmin AfterFix PERMISSIONS
        "The application lacks consent for the resource. Grant it under App registrations, API permissions.";
    70002 Operator AfterFix SECRETS
        "The client secret does not match the application. Create another one, or correct the client id.";
    70008 Operator AfterFix LOGIN
        "The refresh token has expired. Sign in again.";
    70021 TenantAdmin AfterFix FEDERATED
        "No federated credential of the application matches the presented token. Compare issuer, subject and audience \
         letter by letter, the issuer's last slash included.";
    70043 Operator AfterFix LOGIN
        "The refresh token has expired because of a sign-in frequency policy. Sign in again.";
    90002 Operator AfterFix TENANT
        "The tenant does not exist at this authority. Compare tenant id and cloud.";
    90006 Nobody Transient STATUS
        "Entra has a transient problem with one of its services. The gateway asks again.";
    90012 Nobody Transient STATUS
        "The request to Entra ran out of time. The gateway asks again.";
    90024 Nobody Transient STATUS
        "Entra's budget for the request is exceeded for the moment. The gateway asks again.";
    90033 Nobody Transient STATUS
        "Entra is not available for the moment. The gateway asks again.";
    90038 Operator AfterFix TENANT
        "The tenant belongs to another national cloud. Set the cloud or the authority.";
    90055 Nobody BackOff STATUS
        "Entra throttles the tenant because of too many requests. The gateway waits and asks again.";
    90061 ClusterAdmin BackOff ISSUER
        "Entra could not reach the issuer of the federated token. Its discovery document and keys must be public.";
    90090 Nobody Transient STATUS
        "Entra could not reach its store of keys or tenants for the moment. The gateway asks again.";
    100007 Operator AfterFix CHECK
        "The regional endpoint is not open to this kind of application. Use the global authority.";
    500011 TenantAdmin AfterFix RESOURCE
        "The resource of the scope has no service principal in the tenant, or the audience is that of another cloud. \
         Create the service principal, or correct the scope.";
    500133 HostAdmin AfterFix CLOCK
        "The assertion is outside its valid time: the clock of the host is wrong. Set it by NTP.";
    530032 TenantAdmin AfterFix POLICIES
        "A security policy of the tenant blocks the sign-in. Exclude the identity from the policy.";
    530035 TenantAdmin AfterFix POLICIES
        "The security defaults of the tenant block the sign-in. Use an application's identity.";
    650052 TenantAdmin AfterFix RESOURCE
        "The tenant has no subscription to the resource of the scope or has not enabled it. Enable it.";
    650053 Operator AfterFix CHECK
        "The resource has no scope of this name. For a flow use //.default.";
    650056 TenantAdmin AfterFix PERMISSIONS
        "The application is misconfigured: permission or consent for the resource is missing. Add it under API \
         permissions.";
    650057 TenantAdmin AfterFix PERMISSIONS
        "The resource is not listed in the application. Add it under App registrations, API permissions.";
    700016 Operator AfterFix APPLICATIONS
        "The application does not exist in the tenant. Compare client id and tenant id.";
    700022 Operator AfterFix CHECK
        "The scope names several resources, and only one is allowed. Remove the others.";
    700023 Operator AfterFix CHECK
        "The scope names no resource. For a flow it is the audience followed by /.default.";
    700024 HostAdmin AfterFix CLOCK
        "The assertion is outside its valid time: the clock of the host is wrong, or a stored token is too old. Set \
         the clock by NTP.";
    700025 Operator AfterFix PUBLIC
        "The application is a public client and must not send a secret. Register it as confidential, or remove the \
         secret.";
    700027 Operator AfterFix CERTIFICATES
        "The signature of the client assertion does not match: the certificate is not registered with the application, \
         or the private key belongs to another one. Upload the certificate, or name the right file.";
    700030 Operator AfterFix CERTIFICATES
        "The certificate's subject is not among those the application admits. Use a certificate with an admitted \
         subject.";
    700082 Operator AfterFix LOGIN
        "The refresh token has expired because it was not used for a long time. Sign in again.";
    700211 TenantAdmin AfterFix FEDERATED
        "No federated credential of the application has the token's issuer. Compare it letter by letter, the last \
         slash included.";
    700213 TenantAdmin AfterFix FEDERATED
        "No federated credential of the application has the token's subject. Compare it letter by letter.";
    900023 Operator AfterFix TENANT
        "The tenant is neither an id nor a domain name. Correct `tenant`.";
    900382 | 900432 Operator AfterFix TENANT
        "A confidential client cannot request tokens across clouds. Set the cloud or the authority of the tenant.";
    901002 Operator AfterFix CHECK
        "The endpoint takes no resource parameter. Use a scope.";
    1002012 Operator AfterFix CHECK
        "The scope must be one resource followed by /.default; a scope that is encoded twice is refused with this \
         number too.";
    7000112 TenantAdmin AfterFix PROPERTIES
        "The application is disabled. Enable sign-in under Enterprise applications, Properties.";
    7000215 Operator AfterFix SECRETS
        "The client secret is wrong; often the secret's id was copied instead of its value. Correct the secret.";
    7000218 Operator AfterFix SECRETS
        "The request carries neither a secret nor an assertion, and the application needs one. Add one to the identity.";
    7000222 Operator AfterFix SECRETS
        "The client secret has expired. Create another one under App registrations, Certificates & secrets.";
    7000229 TenantAdmin AfterFix PRINCIPAL
        "The application has no service principal in the tenant. Grant admin consent, or create the service principal.";
    7002131 TenantAdmin AfterFix FEDERATED
        "No federated credential of the application matches the presented token. Compare issuer, subject and audience \
         letter by letter.";
    9001023 Operator AfterFix TENANT
        "The grant of an application needs the tenant's id or domain instead of common or consumers. Correct `tenant`.";
};

pub fn number_row(number: u32) -> Option<&'static NumberRow> {
    NUMBERS.iter().find(|row| row.number == number)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{BY_STATUS, ERRORS, NUMBERS};
    use crate::model::{FixedBy, Outlook, Page};

    #[test]
    fn the_tables_are_unique_and_made_of_sentences() {
        let rows = NUMBERS.iter().map(|row| &row.failure);
        let rows = rows.chain(ERRORS.iter().map(|row| &row.failure));
        let rows: Vec<_> = rows.chain(BY_STATUS.iter().map(|row| &row.failure)).collect();
        let codes: HashSet<_> = rows.iter().map(|row| row.code).collect();
        assert_eq!(codes.len(), rows.len());
        for row in rows {
            row.assert_sound();
            let passes = row.fixed_by == FixedBy::Nobody;
            assert!(!passes || row.outlook != Outlook::AfterFix, "{}", row.code);
        }
    }

    #[test]
    fn every_number_names_a_page_or_a_command() {
        for row in NUMBERS {
            assert_ne!(row.failure.page, Page::NONE, "{}", row.number);
        }
    }
}
