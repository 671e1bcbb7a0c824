//! Secrets in Azure Key Vaults: asks a vault with the token of an identity, and words what went wrong for those who must
//! mend it. When to ask again is decided in `secret.rs`; how references are written, in `settings/vault.rs`.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use http::HeaderValue;
use serde::Deserialize;

use crate::model::{FixedBy, Outlook, Secret};
use crate::outbound::{FetchFault, Fetcher, TrustError};
use crate::settings::{GrantSettings, KeyVaultSettings, VaultReference};

/// Microsoft, "Get Secret", REST API of Azure Key Vault.
const API_VERSION: &str = "2025-07-01";
/// Longest text of a vault that is repeated in the log.
const REPEATED_BYTES_MAX: usize = 100;

/// Gives the header field with a token for vaults; in place of one that was refused another one, if that is worth a try.
pub(crate) type Bearer = Arc<
    dyn Fn(Option<HeaderValue>) -> BoxFuture<'static, Result<Option<HeaderValue>, NoBearer>> + Send + Sync,
>;

/// Why there is no token to read with.
#[derive(Debug, Clone)]
pub struct NoBearer {
    /// The error of the identity that reads.
    pub error: Arc<dyn Error + Send + Sync>,
    /// Whether time helps.
    pub outlook: Outlook,
    /// Time until the next try.
    pub wait: Duration,
}

/// Why a secret in a vault cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{sentence}")]
pub struct VaultError {
    /// Names secret, vault and identity, the cause, who mends it and how.
    sentence: String,
    /// What was seen.
    pub seen: String,
    /// What has to be done.
    pub remedy: VaultRemedy,
    /// Why there is no token to read with, if that is it.
    pub no_bearer: Option<NoBearer>,
    /// Whether time helps.
    pub(crate) outlook: Outlook,
    /// The wait that the vault asks for.
    pub(crate) retry_after: Option<Duration>,
}

/// What has to be done about a failure of a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultRemedy {
    /// Who must do it.
    pub fixed_by: FixedBy,
    /// What, as a clause that names who.
    pub what: String,
    /// The page of the portal; empty where there is none.
    pub portal: String,
    /// The command; empty where there is none.
    pub command: String,
    /// What would do as well, as the rest of the clause.
    pub or: String,
}

impl VaultRemedy {
    fn new(fixed_by: FixedBy, what: impl Into<String>) -> Self {
        Self {
            fixed_by,
            what: what.into(),
            portal: String::new(),
            command: String::new(),
            or: String::new(),
        }
    }

    fn by(mut self, portal: impl Into<String>, command: impl Into<String>) -> Self {
        self.portal = portal.into();
        self.command = command.into();
        self
    }

    fn or(mut self, other: impl Into<String>) -> Self {
        self.or = other.into();
        self
    }
}

impl fmt::Display for VaultRemedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if !self.portal.is_empty() {
            write!(f, " (portal: {}; {})", self.portal, self.command)?;
        }
        f.write_str(&self.or)
    }
}

/// What a vault holds under a name.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) secret: Secret,
    /// When it expires, if the vault knows.
    pub(crate) expires: Option<SystemTime>,
    /// What is odd about the place it was found in.
    pub(crate) remark: Option<String>,
}

/// The vaults of one cloud, and who reads them.
pub(crate) struct Vault {
    fetcher: Fetcher,
    timeout: Duration,
    period: Duration,
    bearer: Bearer,
    /// Name of the identity that reads.
    identity: String,
    tenant: String,
    /// How `az` calls that identity.
    assignee: String,
}

impl Vault {
    /// Prepares the questions with tokens from `bearer`.
    ///
    /// # Errors
    /// When there is no certificate authority to trust.
    pub(crate) fn new(settings: &KeyVaultSettings, bearer: Bearer) -> Result<Self, TrustError> {
        let assignee = match &settings.identity.grant {
            GrantSettings::Client { endpoint, .. } => endpoint.client_id.clone(),
            _ => "OBJECT-ID-OF-THE-IDENTITY".to_owned(),
        };
        Ok(Self {
            fetcher: Fetcher::new(&settings.trust, settings.timeout)?,
            timeout: settings.timeout,
            period: settings.period,
            bearer,
            identity: settings.identity.name.to_string(),
            tenant: settings.identity.tenant.clone(),
            assignee,
        })
    }

    /// How often a secret is read again.
    pub(crate) fn period(&self) -> Duration {
        self.period
    }

    /// Reads a secret.
    ///
    /// # Errors
    /// Says what went wrong in a sentence for the log.
    pub(crate) async fn read(&self, place: &VaultReference) -> Result<Found, VaultError> {
        let read = async {
            let token = self.token(None).await?.ok_or(Cause::Unauthorized(None))?;
            let refused = match self.ask(place, token.clone()).await {
                Err(cause @ Cause::Unauthorized(_)) => cause,
                answer => return answer,
            };
            // A token may be withdrawn before its end, so another one is worth a try.
            match self.token(Some(token)).await? {
                Some(token) => self.ask(place, token).await,
                None => Err(refused),
            }
        };
        read.await.map_err(|cause| self.error(place, cause))
    }

    async fn token(&self, refused: Option<HeaderValue>) -> Result<Option<HeaderValue>, Cause> {
        (self.bearer)(refused).await.map_err(Cause::NoToken)
    }

    async fn ask(&self, place: &VaultReference, token: HeaderValue) -> Result<Found, Cause> {
        let url = format!("{}?api-version={API_VERSION}{}", place.url(), place.query());
        let request = self
            .fetcher
            .get(&url)
            .header("authorization", token)
            .header("accept", "application/json");
        let answer = self.fetcher.fetch(request).await.map_err(|error| error.cause)?;
        let (status, wait, body) = (answer.status, answer.retry_after(), &answer.body);
        if status < 500 && body.trim_ascii_start().starts_with(b"<") {
            return Err(Cause::WebPage(status));
        }
        match status {
            200 => found(body),
            401 => Err(unauthorized(answer.header("www-authenticate"), place.resource())),
            403 => Err(forbidden(body)),
            404 => Err(Cause::Missing),
            429 => Err(Cause::Throttled(wait)),
            500.. => Err(Cause::Trouble(status, wait)),
            _ => Err(Cause::Unexpected(status)),
        }
    }

    fn error(&self, place: &VaultReference, cause: Cause) -> VaultError {
        let (outlook, retry_after) = cause.outlook();
        let identity = &self.identity;
        let remedy = self.remedy(place, &cause);
        let seen = cause.seen(place, self.timeout, &self.tenant);
        let no_bearer = match cause {
            Cause::NoToken(why) => Some(why),
            _ => None,
        };
        VaultError {
            // Who has no token says by itself who mends that.
            sentence: match no_bearer {
                Some(_) => format!("{place} cannot be read with identity {identity}: {seen}"),
                None => format!("{place} cannot be read with identity {identity}: {seen}; {remedy}"),
            },
            seen,
            remedy,
            no_bearer,
            outlook,
            retry_after,
        }
    }

    /// Who mends it, and how.
    fn remedy(&self, place: &VaultReference, cause: &Cause) -> VaultRemedy {
        let (vault, host, name) = (place.vault(), place.authority(), place.name());
        let operator = |what: &str| VaultRemedy::new(FixedBy::Operator, what);
        let host_admin = |what: String| VaultRemedy::new(FixedBy::HostAdmin, what);
        let nobody = |what: &str| VaultRemedy::new(FixedBy::Nobody, what);
        let owner = |what: &str| VaultRemedy::new(FixedBy::TenantAdmin, what);
        match cause {
            Cause::NoToken(_) => operator("the operator must fix the identity that reads vaults first"),
            Cause::Unreachable(_) => host_admin(format!(
                "whoever runs the gateway's host must look after the way to {host}, and the operator after the vault's \
                 name"
            ))
            .by(
                "Key vaults > Overview > Vault URI",
                "az keyvault list --query [].properties.vaultUri",
            ),
            Cause::Timeout => host_admin(format!(
                "whoever runs the gateway's host must look after the way to {host}"
            )),
            Cause::Cut => nobody("nobody needs to fix this, it is asked again"),
            Cause::WebPage(_) => host_admin(format!(
                "whoever runs the gateway's network must keep proxies and portals away from {host}"
            )),
            Cause::Odd(_) => host_admin(format!(
                "whoever runs the gateway's network must look what answers for {host}"
            )),
            Cause::Elsewhere(_) => operator("the operator must write the address that the portal shows").by(
                format!("Key vaults > {vault} > Overview > Vault URI"),
                format!("az keyvault show --name {vault} --query properties.vaultUri"),
            ),
            Cause::Unauthorized(Some(tenant)) if *tenant != self.tenant => {
                operator("the operator must let an identity of the vault's tenant read it")
            }
            Cause::Unauthorized(_) => {
                operator("the operator must check that the identity belongs to the vault's tenant").by(
                    format!("Key vaults > {vault} > Overview > Directory ID"),
                    format!("az keyvault show --name {vault} --query properties.tenantId"),
                )
            }
            Cause::Firewall(address) => firewall(vault, *address),
            Cause::Forbidden => self.forbidden(vault),
            Cause::Disabled => owner("its owner must switch it on").by(
                format!("Key vaults > {vault} > Secrets > {name}"),
                format!("az keyvault secret set-attributes --vault-name {vault} --name {name} --enabled true"),
            ),
            Cause::Missing => operator("the operator must correct the name or make the secret")
                .by(
                    format!("Key vaults > {vault} > Secrets"),
                    format!("az keyvault secret list --vault-name {vault}"),
                )
                .or("; a deleted one comes back with az keyvault secret recover"),
            Cause::Throttled(_) => nobody(
                "nobody needs to fix this, it passes with time, unless something else asks this vault all the time",
            ),
            Cause::Trouble(..) => nobody("nobody needs to fix this, it is asked again"),
            Cause::Unexpected(_) => operator("the operator must compare the address with the portal").by(
                format!("Key vaults > {vault} > Secrets > {name} > Secret Identifier"),
                format!("az keyvault secret show --vault-name {vault} --name {name} --query id"),
            ),
            Cause::Empty => owner("its owner must give it one").by(
                format!("Key vaults > {vault} > Secrets > {name} > New Version"),
                format!("az keyvault secret set --vault-name {vault} --name {name} --file FILE"),
            ),
        }
    }

    fn forbidden(&self, vault: &str) -> VaultRemedy {
        let assignee = &self.assignee;
        let what =
            "an administrator of the vault must give the identity the role Key Vault Secrets User for it";
        VaultRemedy::new(FixedBy::TenantAdmin, what)
            .by(
                format!("Key vaults > {vault} > Access control (IAM)"),
                format!(
                    "az role assignment create --role \"Key Vault Secrets User\" --assignee {assignee} --scope $(az \
                     keyvault show --name {vault} --query id --output tsv)"
                ),
            )
            .or(format!(
                " or, where the vault has access policies, the permission Get for secrets (az keyvault set-policy \
                 --name {vault} --spn {assignee} --secret-permissions get); a new role takes some minutes"
            ))
    }
}

fn firewall(vault: &str, address: Option<IpAddr>) -> VaultRemedy {
    let argument = address.map_or_else(|| "ADDRESS".to_owned(), |address| address.to_string());
    VaultRemedy::new(
        FixedBy::TenantAdmin,
        "an administrator of the vault must let the gateway's address in",
    )
    .by(
        format!("Key vaults > {vault} > Networking"),
        format!("az keyvault network-rule add --name {vault} --ip-address {argument}"),
    )
    .or(", or give the gateway a private endpoint")
}

/// What went wrong with one question.
#[derive(Debug)]
enum Cause {
    NoToken(NoBearer),
    Unreachable(String),
    Timeout,
    Cut,
    WebPage(u16),
    /// Something that a vault never does.
    Odd(String),
    /// A challenge for another resource.
    Elsewhere(String),
    /// A challenge, with the tenant of the vault if it tells.
    Unauthorized(Option<String>),
    Firewall(Option<IpAddr>),
    Forbidden,
    Disabled,
    Missing,
    Throttled(Option<Duration>),
    Trouble(u16, Option<Duration>),
    Unexpected(u16),
    Empty,
}

impl Cause {
    /// What was seen, as a clause.
    fn seen(&self, place: &VaultReference, timeout: Duration, own_tenant: &str) -> String {
        match self {
            Self::NoToken(why) => format!("the identity has no token for key vaults: {}", why.error),
            Self::Unreachable(why) => format!("the vault cannot be reached: {why}"),
            Self::Timeout => format!("the vault did not answer within {timeout:?}"),
            Self::Cut => "the answer of the vault broke off".to_owned(),
            Self::WebPage(status) => {
                format!("a web page came in place of the vault's answer (status {status})")
            }
            Self::Odd(what) => format!("{what}, which no key vault does"),
            Self::Elsewhere(resource) => format!(
                "the vault asks for a token for {resource}, and {} is read with tokens for {} only",
                place.authority(),
                place.resource()
            ),
            Self::Unauthorized(Some(tenant)) if tenant != own_tenant => format!(
                "the vault does not accept its token (status 401): the vault belongs to tenant {tenant}, and the \
                 identity to tenant {own_tenant}"
            ),
            Self::Unauthorized(_) => "the vault does not accept its token (status 401)".to_owned(),
            Self::Firewall(Some(address)) => {
                format!("the vault's firewall refuses the address {address} (status 403)")
            }
            Self::Firewall(None) => {
                "the vault's firewall refuses the gateway's address (status 403)".to_owned()
            }
            Self::Forbidden => "it may not read secrets there (status 403)".to_owned(),
            Self::Disabled => "the secret is switched off".to_owned(),
            Self::Missing => "the vault has no such secret or version (status 404)".to_owned(),
            Self::Throttled(_) => "the vault has too many requests (status 429)".to_owned(),
            Self::Trouble(status, _) => format!("the vault has trouble of its own (status {status})"),
            Self::Unexpected(status) => format!("the vault answered with status {status}"),
            Self::Empty => "the secret has no value".to_owned(),
        }
    }

    fn outlook(&self) -> (Outlook, Option<Duration>) {
        match self {
            Self::NoToken(why) if why.outlook != Outlook::AfterFix => (why.outlook, Some(why.wait)),
            Self::Unreachable(_) | Self::Timeout | Self::Cut => (Outlook::Transient, None),
            Self::Throttled(wait) => (Outlook::BackOff, *wait),
            Self::Trouble(_, wait) => (Outlook::Transient, *wait),
            Self::NoToken(_)
            | Self::WebPage(_)
            | Self::Odd(_)
            | Self::Elsewhere(_)
            | Self::Unauthorized(_)
            | Self::Firewall(_)
            | Self::Forbidden
            | Self::Disabled
            | Self::Missing
            | Self::Unexpected(_)
            | Self::Empty => (Outlook::AfterFix, None),
        }
    }
}

impl From<FetchFault> for Cause {
    fn from(fault: FetchFault) -> Self {
        match fault {
            FetchFault::Timeout(_) => Self::Timeout,
            FetchFault::Unreachable(why) => Self::Unreachable(why),
            FetchFault::Cut => Self::Cut,
            FetchFault::TooLarge => Self::Odd("the answer is larger than any secret".to_owned()),
            FetchFault::Redirected(status) => Self::Odd(format!(
                "the answer is a redirect (status {status}), which is not followed"
            )),
        }
    }
}

#[derive(Deserialize)]
struct Bundle {
    value: Option<String>,
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Default, Deserialize)]
struct Attributes {
    enabled: Option<bool>,
    exp: Option<f64>,
}

/// Reads a good answer.
fn found(body: &[u8]) -> Result<Found, Cause> {
    let bundle: Bundle = serde_json::from_slice(body)
        .map_err(|_| Cause::Odd("the answer is something other than JSON with a secret".to_owned()))?;
    let value = bundle.value.map(Secret::new).ok_or(Cause::Empty)?;
    if bundle.attributes.enabled == Some(false) {
        return Err(Cause::Disabled);
    }
    // Many a secret is put there by `echo`.
    let text = value.expose().trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(Cause::Empty);
    }
    let expires = bundle.attributes.exp.and_then(|seconds| {
        let since = Duration::try_from_secs_f64(seconds).ok()?;
        UNIX_EPOCH.checked_add(since)
    });
    Ok(Found {
        secret: Secret::new(text),
        expires,
        remark: None,
    })
}

/// Reads a challenge. What it wants a token for must be the resource of the host that we asked: a vault that could name
/// another one would be given tokens for it.
fn unauthorized(challenge: &str, resource: &str) -> Cause {
    let wanted = parameter(challenge, "resource").or_else(|| parameter(challenge, "scope"));
    if let Some(wanted) = wanted {
        let bare = wanted
            .strip_suffix("/.default")
            .unwrap_or(wanted)
            .trim_end_matches('/');
        if bare != resource {
            return Cause::Elsewhere(repeatable(bare).unwrap_or("something else").to_owned());
        }
    }
    let tenant = parameter(challenge, "authorization").and_then(|address| address.rsplit('/').next());
    Cause::Unauthorized(tenant.and_then(repeatable).map(str::to_owned))
}

/// What stands behind `name="` in a challenge.
fn parameter<'a>(challenge: &'a str, name: &str) -> Option<&'a str> {
    challenge
        .split([',', ' '])
        .find_map(|part| part.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}

/// A text of the other side that may stand in the log.
fn repeatable(text: &str) -> Option<&str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":/.-_".contains(&byte);
    (!text.is_empty() && text.len() <= REPEATED_BYTES_MAX && text.bytes().all(plain)).then_some(text)
}

#[derive(Default, Deserialize)]
struct Envelope {
    #[serde(default)]
    error: Failure,
}

#[derive(Default, Deserialize)]
struct Failure {
    #[serde(default)]
    message: String,
    #[serde(default)]
    innererror: Option<Inner>,
}

#[derive(Default, Deserialize)]
struct Inner {
    #[serde(default)]
    code: String,
}

/// Tells the firewall from a missing permission.
fn forbidden(body: &[u8]) -> Cause {
    let envelope: Envelope = serde_json::from_slice(body).unwrap_or_default();
    let code = envelope.error.innererror.unwrap_or_default().code;
    let message = envelope.error.message;
    if code == "SecretDisabled" {
        return Cause::Disabled;
    }
    let outside = message.contains("is not authorized and caller is not a trusted service");
    if outside || matches!(code.as_str(), "ForbiddenByFirewall" | "ForbiddenByConnection") {
        let address = message
            .split_once("Client address (")
            .and_then(|(_, rest)| rest.split_once(')'))
            .and_then(|(address, _)| address.parse().ok());
        return Cause::Firewall(address);
    }
    Cause::Forbidden
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::proptest;

    use super::{Cause, forbidden, found, unauthorized};

    const VAULT: &str = "https://vault.azure.net";

    #[test]
    fn a_secret_comes_with_its_end() {
        let body =
            br#"{"value":"canary\n","contentType":"text/plain","id":"https://a.vault.azure.net/secrets/b/c",
            "attributes":{"enabled":true,"created":1493938410,"updated":1493938410,"exp":1893456000}}"#;
        let good = found(body).unwrap();
        assert_eq!(good.secret.expose(), "canary");
        assert_eq!(
            good.expires,
            Some(UNIX_EPOCH + Duration::from_secs(1_893_456_000))
        );
        assert!(found(br#"{"value":"a"}"#).unwrap().expires.is_none());
    }

    #[test]
    fn a_useless_answer_is_no_secret() {
        assert!(matches!(found(b"ok"), Err(Cause::Odd(_))));
        assert!(matches!(found(br#"{"id":"a"}"#), Err(Cause::Empty)));
        assert!(matches!(found(br#"{"value":"\n"}"#), Err(Cause::Empty)));
        let off = br#"{"value":"a","attributes":{"enabled":false}}"#;
        assert!(matches!(found(off), Err(Cause::Disabled)));
        for exp in ["-1", "1e300"] {
            let body = format!(r#"{{"value":"a","attributes":{{"exp":{exp}}}}}"#);
            assert!(found(body.as_bytes()).unwrap().expires.is_none(), "{exp}");
        }
    }

    #[test]
    fn a_challenge_for_another_resource_is_told_from_one_for_this_vault() {
        let login = "Bearer authorization=\"https://login.microsoftonline.com/11111111-2222\"";
        for wanted in [
            "resource=\"https://vault.azure.net\"",
            "scope=\"https://vault.azure.net/.default\"",
        ] {
            let cause = unauthorized(&format!("{login}, {wanted}"), VAULT);
            assert!(
                matches!(&cause, Cause::Unauthorized(Some(tenant)) if tenant == "11111111-2222"),
                "{cause:?}"
            );
        }
        for wanted in [
            "https://management.azure.com",
            "https://vault.azure.net.example",
            "https://vault.azure.cn",
        ] {
            let cause = unauthorized(&format!("{login}, resource=\"{wanted}\""), VAULT);
            assert!(
                matches!(&cause, Cause::Elsewhere(other) if other == wanted),
                "{cause:?}"
            );
        }
        assert!(matches!(unauthorized("", VAULT), Cause::Unauthorized(None)));
    }

    #[test]
    fn the_firewall_is_told_from_a_missing_permission() {
        let body = r#"{"error":{"code":"Forbidden","message":"Client address (203.0.113.7) is not authorized and caller is not a trusted service","innererror":{"code":"ForbiddenByFirewall"}}}"#;
        assert!(
            matches!(forbidden(body.as_bytes()), Cause::Firewall(Some(address)) if address.to_string() == "203.0.113.7")
        );
        let private = br#"{"error":{"innererror":{"code":"ForbiddenByConnection"}}}"#;
        assert!(matches!(forbidden(private), Cause::Firewall(None)));
        for body in [
            &br#"{"error":{"code":"Forbidden","message":"Caller is not authorized to perform action on resource.","innererror":{"code":"ForbiddenByRbac"}}}"#[..],
            br#"{"error":{"code":"Forbidden","innererror":null}}"#,
            b"",
        ] {
            assert!(matches!(forbidden(body), Cause::Forbidden));
        }
    }

    proptest! {
        #[test]
        fn no_answer_ends_the_reader(body in proptest::collection::vec(0u8..=255, 0..300), challenge in "[ -~]{0,200}") {
            let _ = found(&body);
            let _ = forbidden(&body);
            let _ = unauthorized(&challenge, VAULT);
        }
    }
}
