//! Secrets in Azure Key Vaults: asks a vault with the token of an identity, and names what went wrong by a row of its
//! table. When to ask again is decided in `held.rs`; how references are written, in `settings/vault.rs`.

use std::collections::HashMap;
use std::error::Error;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use http::HeaderValue;
use serde::Deserialize;
use tokio::time::Instant;

use crate::model::{FailureRow, Outlook, Page, Remedy, Secret, Tenant, clock, failures, fill, locked};
use crate::outbound::{FailedBody, FetchFault, Fetcher, TrustError};
use crate::settings::{GrantSettings, KeyVaultSettings, VaultReference, VaultValue};

/// Microsoft, "Get Secret", REST API of Azure Key Vault.
const API_VERSION: &str = "2025-07-01";
/// Longest text of a vault that is repeated in the log.
const REPEATED_BYTES_MAX: usize = 100;

/// Gives the header field with a token for vaults; in place of one that was refused another one, if that is worth a try.
pub(crate) type Bearer = Arc<
    dyn Fn(Option<HeaderValue>) -> BoxFuture<'static, Result<Option<HeaderValue>, NoBearer>> + Send + Sync,
>;

#[derive(Debug, Clone)]
pub struct NoBearer {
    /// The error of the identity that reads.
    pub error: Arc<dyn Error + Send + Sync>,
    pub outlook: Outlook,
    pub wait: Duration,
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("{sentence}")]
pub struct VaultError {
    /// Names secret, vault and identity, the cause, who fixes it and how.
    sentence: String,
    pub row: &'static FailureRow,
    pub seen: String,
    pub remedy: Remedy,
    /// Why there is no token to read with, if that is it.
    pub no_bearer: Option<NoBearer>,
    pub(crate) outlook: Outlook,
    /// The wait that the vault asks for.
    pub(crate) retry_after: Option<Duration>,
}

const URI: Page = Page::new(
    "Azure portal, Key vaults, {vault}, Overview, Vault URI",
    "az keyvault show --name {vault} --query properties.vaultUri",
);
const SECRETS: Page = Page::new(
    "Azure portal, Key vaults, {vault}, Secrets",
    "az keyvault secret list --vault-name {vault}",
);

failures! {
    /// Why a secret in a key vault cannot be read. `{detail}` is what the cause carries.
    VAULT:
    NO_TOKEN "vault-no-token" "vault" Operator AfterFix Page::NONE,
        "the identity has no token for key vaults: {detail}",
        "Fix the identity that reads vaults first.";
    UNREACHABLE "vault-unreachable" "vault" HostAdmin Transient Page::new(
        "Azure portal, Key vaults, Overview, Vault URI",
        "az keyvault list --query [].properties.vaultUri",
    ),
        "the vault cannot be reached: {detail}",
        "Check DNS, firewall and routing between the gateway's host and {host}, and the name of the vault.";
    TIMEOUT "vault-timeout" "vault" HostAdmin Transient Page::NONE,
        "the vault did not answer within {detail}",
        "Check the network between the gateway's host and {host}.";
    CUT "vault-cut" "vault" Nobody Transient Page::NONE,
        "the answer of the vault broke off",
        "The gateway asks again.";
    WEB_PAGE "vault-web-page" "vault" HostAdmin AfterFix Page::NONE,
        "a web page came instead of the vault's answer (status {detail})",
        "Keep proxies and portals of the network away from {host}.";
    INVALID "vault-invalid-answer" "vault" HostAdmin AfterFix Page::NONE,
        "{detail}, which no key vault does",
        "Find out what answers for {host}.";
    OTHER_RESOURCE "vault-other-resource" "vault" Operator AfterFix URI,
        "the vault asks for a token for {detail}, and {host} is read with tokens for {resource} only",
        "Write the address that the portal shows.";
    OTHER_TENANT "vault-other-tenant" "vault" Operator AfterFix Page::NONE,
        "the vault does not accept its token (status 401): the vault belongs to tenant {detail}, and the identity to \
         tenant {tenant}",
        "Let an identity of the vault's tenant read it.";
    UNAUTHORIZED "vault-unauthorized" "vault" Operator AfterFix Page::new(
        "Azure portal, Key vaults, {vault}, Overview, Directory ID",
        "az keyvault show --name {vault} --query properties.tenantId",
    ),
        "the vault does not accept its token (status 401)",
        "Check that the identity belongs to the vault's tenant.";
    FIREWALL "vault-firewall" "vault" TenantAdmin AfterFix Page::new(
        "Azure portal, Key vaults, {vault}, Networking",
        "az keyvault network-rule add --name {vault} --ip-address {address}",
    ),
        "the vault's firewall refuses the address {detail} (status 403)",
        "Admit the gateway's address, or give the gateway a private endpoint.";
    FORBIDDEN "vault-forbidden" "vault" TenantAdmin AfterFix Page::new(
        "Azure portal, Key vaults, {vault}, Access control (IAM)",
        "az role assignment create --role \"Key Vault Secrets User\" --assignee {assignee} --scope $(az keyvault show \
         --name {vault} --query id --output tsv)",
    ),
        "it may not read secrets there (status 403)",
        "Give the identity the role Key Vault Secrets User for the vault or, where the vault has access policies, the \
         permission Get for secrets (az keyvault set-policy --name {vault} --spn {assignee} --secret-permissions get). A \
         new role takes some minutes.";
    DISABLED "vault-secret-disabled" "vault" TenantAdmin AfterFix Page::new(
        "Azure portal, Key vaults, {vault}, Secrets, {name}",
        "az keyvault secret set-attributes --vault-name {vault} --name {name} --enabled true",
    ),
        "the secret is switched off",
        "Switch it on.";
    MISSING "vault-secret-missing" "vault" Operator AfterFix SECRETS,
        "the vault has no such secret or version (status 404)",
        "Correct the name, or create the secret; a deleted one comes back with az keyvault secret recover.";
    THROTTLED "vault-throttled" "vault" Nobody BackOff Page::NONE,
        "the vault has too many requests (status 429)",
        "The gateway waits and asks again. If this lasts, something else asks this vault all the time.";
    FAILED "vault-failed" "vault" Nobody Transient Page::NONE,
        "the vault itself failed (status {detail})",
        "The gateway asks again.";
    UNEXPECTED "vault-unexpected-status" "vault" Operator AfterFix Page::new(
        "Azure portal, Key vaults, {vault}, Secrets, {name}, Secret Identifier",
        "az keyvault secret show --vault-name {vault} --name {name} --query id",
    ),
        "the vault answered with status {detail}",
        "Compare the address with the portal.";
    EMPTY "vault-secret-empty" "vault" TenantAdmin AfterFix Page::new(
        "Azure portal, Key vaults, {vault}, Secrets, {name}, New Version",
        "az keyvault secret set --vault-name {vault} --name {name} --file FILE",
    ),
        "the secret has no value",
        "Give it one.";
}

/// The vaults of one cloud, and who reads them.
pub(crate) struct Vault {
    fetcher: Fetcher,
    period: Duration,
    bearer: Bearer,
    /// Name of the identity that reads.
    identity: String,
    tenant: Option<Tenant>,
    /// How `az` calls that identity.
    assignee: String,
    /// What was read last of each place that the settings name, and when.
    read: Mutex<HashMap<VaultReference, (Instant, VaultValue)>>,
}

impl Vault {
    pub(crate) fn new(settings: &KeyVaultSettings, bearer: Bearer) -> Result<Self, TrustError> {
        let assignee = match &settings.identity.grant {
            GrantSettings::Client { endpoint, .. } => endpoint.client_id.to_string(),
            _ => "OBJECT-ID-OF-THE-IDENTITY".to_owned(),
        };
        Ok(Self {
            fetcher: Fetcher::new(&settings.trust, settings.timeout)?,
            period: settings.period,
            bearer,
            identity: settings.identity.name.to_string(),
            tenant: settings.identity.tenant.clone(),
            assignee,
            read: Mutex::default(),
        })
    }

    /// How often a secret is read again.
    pub(crate) fn period(&self) -> Duration {
        self.period
    }

    pub(crate) async fn read(&self, place: &VaultReference) -> Result<VaultValue, VaultError> {
        let read = async {
            let token = (self.bearer)(None).await?;
            let token = token.ok_or_else(|| Cause::new(UNAUTHORIZED, ""))?;
            let refused = match self.ask(place, token.clone()).await {
                Err(cause) if cause.row == UNAUTHORIZED => cause,
                answer => return answer,
            };
            // A token may be withdrawn before its end, so another one is worth a try.
            match (self.bearer)(Some(token)).await? {
                Some(token) => self.ask(place, token).await,
                None => Err(refused),
            }
        };
        let value = read.await.map_err(|cause| self.error(place, cause))?;
        locked(&self.read).insert(place.clone(), (clock::now(), value.clone()));
        Ok(value)
    }

    /// The values that were read after this time.
    pub(crate) fn read_since(&self, time: Instant) -> HashMap<VaultReference, VaultValue> {
        let read = locked(&self.read);
        let later = read.iter().filter(|(_, (read, _))| *read > time);
        later
            .map(|(place, (_, value))| (place.clone(), value.clone()))
            .collect()
    }

    async fn ask(&self, place: &VaultReference, token: HeaderValue) -> Result<VaultValue, Cause> {
        let url = format!("{}?api-version={API_VERSION}{}", place.url(), place.query());
        let request = self
            .fetcher
            .get(&url)
            .header("authorization", token)
            .header("accept", "application/json");
        let answer = self.fetcher.fetch(request).await.map_err(|error| error.cause)?;
        let (status, wait, body) = (answer.status, answer.retry_after(), &answer.body);
        if status < 500 && body.trim_ascii_start().starts_with(b"<") {
            return Err(Cause::status(WEB_PAGE, status, None));
        }
        match status {
            200 => value_of(body),
            401 => Err(unauthorized(answer.header("www-authenticate"), place.resource())),
            403 => Err(forbidden(body)),
            404 => Err(Cause::new(MISSING, "")),
            429 => Err(Cause::status(THROTTLED, status, wait)),
            500.. => Err(Cause::status(FAILED, status, wait)),
            _ => Err(Cause::status(UNEXPECTED, status, None)),
        }
    }

    fn error(&self, place: &VaultReference, cause: Cause) -> VaultError {
        let Cause {
            row,
            detail,
            retry_after,
            no_bearer,
        } = cause;
        let is_elsewhere = |tenant: &Tenant| !detail.is_empty() && tenant.is_not(&detail);
        let row = match row == UNAUTHORIZED && self.tenant.as_ref().is_some_and(is_elsewhere) {
            true => OTHER_TENANT,
            false => row,
        };
        let (host, resource) = (place.authority(), place.resource());
        let mut values = vec![
            ("detail", detail.as_str()),
            ("host", host),
            ("vault", place.vault()),
            ("name", place.name()),
            ("resource", resource),
            ("tenant", self.tenant.as_deref().unwrap_or_default()),
            ("assignee", &self.assignee),
        ];
        // Without an address there is a word to replace.
        values.extend((detail != OWN_ADDRESS).then_some(("address", detail.as_str())));
        let mut seen = fill(row.seen, &values).into_owned();
        if row == UNAUTHORIZED && !detail.is_empty() {
            seen.push_str(&format!("; its challenge names tenant {detail}"));
        }
        let remedy = row.remedy(&values);
        let mut sentence = format!("{place} cannot be read with identity {}: {seen}", self.identity);
        // The error of the identity that has no token has its own remedy.
        if no_bearer.is_none() {
            let (who, outlook) = (row.fixed_by.must_fix(), row.outlook.clause());
            sentence.push_str(&format!(". {} {who}; {outlook}", remedy.what));
            if !remedy.portal.is_empty() {
                sentence.push_str(&format!(" (portal: {}; {})", remedy.portal, remedy.command));
            }
            sentence.push_str(&format!(". More: flowgate explain {}.", row.code));
        }
        VaultError {
            sentence,
            row,
            seen,
            remedy,
            outlook: no_bearer.as_ref().map_or(row.outlook, |why| why.outlook),
            retry_after,
            no_bearer,
        }
    }
}

/// What the firewall refuses where it does not name the address.
const OWN_ADDRESS: &str = "of the gateway";

#[derive(Debug)]
struct Cause {
    row: &'static FailureRow,
    /// Of a challenge the tenant of the vault, if it names one.
    detail: String,
    retry_after: Option<Duration>,
    no_bearer: Option<NoBearer>,
}

impl Cause {
    fn new(row: &'static FailureRow, detail: impl Into<String>) -> Self {
        Self {
            row,
            detail: detail.into(),
            retry_after: None,
            no_bearer: None,
        }
    }

    fn status(row: &'static FailureRow, status: u16, retry_after: Option<Duration>) -> Self {
        Self {
            retry_after,
            ..Self::new(row, status.to_string())
        }
    }
}

impl From<NoBearer> for Cause {
    fn from(why: NoBearer) -> Self {
        Self {
            retry_after: (why.outlook != Outlook::AfterFix).then_some(why.wait),
            no_bearer: Some(why.clone()),
            ..Self::new(NO_TOKEN, why.error.to_string())
        }
    }
}

impl From<FetchFault> for Cause {
    fn from(fault: FetchFault) -> Self {
        match fault {
            FetchFault::Timeout(timeout) => Self::new(TIMEOUT, format!("{timeout:?}")),
            FetchFault::Unreachable(why) => Self::new(UNREACHABLE, why),
            FetchFault::Cut => Self::new(CUT, ""),
            FetchFault::TooLarge => Self::new(INVALID, "the answer is larger than any secret"),
            FetchFault::Redirected(status) => {
                let detail = format!("the answer is a redirect (status {status}), which is not followed");
                Self::new(INVALID, detail)
            }
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

fn value_of(body: &[u8]) -> Result<VaultValue, Cause> {
    let bundle: Bundle = serde_json::from_slice(body)
        .map_err(|_| Cause::new(INVALID, "the answer is something other than JSON with a secret"))?;
    let value = bundle
        .value
        .map(Secret::new)
        .ok_or_else(|| Cause::new(EMPTY, ""))?;
    if bundle.attributes.enabled == Some(false) {
        return Err(Cause::new(DISABLED, ""));
    }
    // Many a secret is put there by `echo`.
    let text = value.expose().trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(Cause::new(EMPTY, ""));
    }
    let expires = bundle.attributes.exp.and_then(|seconds| {
        let since = Duration::try_from_secs_f64(seconds).ok()?;
        UNIX_EPOCH.checked_add(since)
    });
    Ok(VaultValue {
        secret: Secret::new(text),
        expires,
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
            return Cause::new(OTHER_RESOURCE, repeatable(bare).unwrap_or("something else"));
        }
    }
    let tenant = parameter(challenge, "authorization").and_then(|address| address.rsplit('/').next());
    Cause::new(UNAUTHORIZED, tenant.and_then(repeatable).unwrap_or_default())
}

/// The value of the parameter `name` in a challenge.
fn parameter<'a>(challenge: &'a str, name: &str) -> Option<&'a str> {
    challenge
        .split([',', ' '])
        .find_map(|part| part.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}

/// The text, if it is safe to log although the other side chose it.
fn repeatable(text: &str) -> Option<&str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":/.-_".contains(&byte);
    (!text.is_empty() && text.len() <= REPEATED_BYTES_MAX && text.bytes().all(plain)).then_some(text)
}

/// Distinguishes the firewall from a missing permission.
fn forbidden(body: &[u8]) -> Cause {
    let body = FailedBody::read(body);
    let (code, message) = (body.text("/error/innererror/code"), body.text("/error/message"));
    if code == "SecretDisabled" {
        return Cause::new(DISABLED, "");
    }
    let outside = message.contains("is not authorized and caller is not a trusted service");
    if outside || matches!(code, "ForbiddenByFirewall" | "ForbiddenByConnection") {
        let address = message
            .split_once("Client address (")
            .and_then(|(_, rest)| rest.split_once(')'))
            .and_then(|(address, _)| address.parse::<IpAddr>().ok());
        return Cause::new(
            FIREWALL,
            address.map_or(OWN_ADDRESS.to_owned(), |address| address.to_string()),
        );
    }
    Cause::new(FORBIDDEN, "")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::proptest;

    use super::{
        DISABLED, EMPTY, FIREWALL, FORBIDDEN, INVALID, OTHER_RESOURCE, OWN_ADDRESS, UNAUTHORIZED,
        VAULT as TABLE, forbidden, unauthorized, value_of,
    };

    const VAULT: &str = "https://vault.azure.net";

    #[test]
    fn every_row_is_sound() {
        for row in TABLE {
            row.assert_sound();
        }
    }

    #[test]
    fn a_secret_comes_with_its_end() {
        let body =
            br#"{"value":"canary\n","contentType":"text/plain","id":"https://a.vault.azure.net/secrets/b/c",
            "attributes":{"enabled":true,"created":1493938410,"updated":1493938410,"exp":1893456000}}"#;
        let good = value_of(body).unwrap();
        assert_eq!(good.secret.expose(), "canary");
        assert_eq!(
            good.expires,
            Some(UNIX_EPOCH + Duration::from_secs(1_893_456_000))
        );
        assert!(value_of(br#"{"value":"a"}"#).unwrap().expires.is_none());
    }

    #[test]
    fn a_useless_answer_is_no_secret() {
        let why = |body: &[u8]| value_of(body).unwrap_err().row;
        assert_eq!(why(b"ok"), INVALID);
        assert_eq!(why(br#"{"id":"a"}"#), EMPTY);
        assert_eq!(why(br#"{"value":"\n"}"#), EMPTY);
        let off = br#"{"value":"a","attributes":{"enabled":false}}"#;
        assert_eq!(why(off), DISABLED);
        for exp in ["-1", "1e300"] {
            let body = format!(r#"{{"value":"a","attributes":{{"exp":{exp}}}}}"#);
            assert!(value_of(body.as_bytes()).unwrap().expires.is_none(), "{exp}");
        }
    }

    #[test]
    fn a_challenge_for_another_resource_is_distinguished_from_one_for_this_vault() {
        let login = "Bearer authorization=\"https://login.microsoftonline.com/11111111-2222\"";
        for wanted in [
            "resource=\"https://vault.azure.net\"",
            "scope=\"https://vault.azure.net/.default\"",
        ] {
            let cause = unauthorized(&format!("{login}, {wanted}"), VAULT);
            assert_eq!(
                (cause.row, cause.detail.as_str()),
                (UNAUTHORIZED, "11111111-2222")
            );
        }
        for wanted in [
            "https://management.azure.com",
            "https://vault.azure.net.example",
            "https://vault.azure.cn",
        ] {
            let cause = unauthorized(&format!("{login}, resource=\"{wanted}\""), VAULT);
            assert_eq!((cause.row, cause.detail.as_str()), (OTHER_RESOURCE, wanted));
        }
        let bare = unauthorized("", VAULT);
        assert_eq!((bare.row, bare.detail.as_str()), (UNAUTHORIZED, ""));
    }

    #[test]
    fn the_firewall_is_distinguished_from_a_missing_permission() {
        let body = r#"{"error":{"code":"Forbidden","message":"Client address (203.0.113.7) is not authorized and caller is not a trusted service","innererror":{"code":"ForbiddenByFirewall"}}}"#;
        let firewall = forbidden(body.as_bytes());
        assert_eq!(
            (firewall.row, firewall.detail.as_str()),
            (FIREWALL, "203.0.113.7")
        );
        let private = br#"{"error":{"innererror":{"code":"ForbiddenByConnection"}}}"#;
        assert_eq!(
            (forbidden(private).row, forbidden(private).detail.as_str()),
            (FIREWALL, OWN_ADDRESS)
        );
        for body in [
            &br#"{"error":{"code":"Forbidden","message":"Caller is not authorized to perform action on resource.","innererror":{"code":"ForbiddenByRbac"}}}"#[..],
            br#"{"error":{"code":"Forbidden","innererror":null}}"#,
            b"",
        ] {
            assert_eq!(forbidden(body).row, FORBIDDEN);
        }
    }

    proptest! {
        #[test]
        fn no_answer_ends_the_reader(body in proptest::collection::vec(0u8..=255, 0..300), challenge in "[ -~]{0,200}") {
            let _ = value_of(&body);
            let _ = forbidden(&body);
            let _ = unauthorized(&challenge, VAULT);
        }
    }
}
