//! Tokens of a managed identity: one question to IMDS, App Service or the Azure Arc agent, and what its answer means. When
//! to ask again is said in `failure.rs`; the key that the Arc agent wants to see is read in `arc.rs`.

use std::path::Path;
use std::time::Duration;

use http::HeaderValue;
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;

use crate::entra::answer::{Granted, TokenError};
use crate::entra::date::Clocks;
use crate::entra::endpoint::FORM;
use crate::entra::failure::{
    APP_SERVICE_SILENT, ARC_REFUSED, ARC_SILENT, ARC_UNSELECTED, FAILED, FORBIDDEN, IMDS_SILENT, NO_HEADER,
    NO_IDENTITY, NOT_ASSIGNED, NOT_FOUND, OTHER, REDIRECTS, RESTART, SEVERAL, THROTTLED, Trouble, UNKNOWN,
    UPDATED,
};
use crate::entra::grant::{Asked, Grant};
use crate::entra::grants::arc;
use crate::entra::refusal::RefusalKind;
use crate::entra::refused::Refusal;
use crate::entra::{answer, refused};
use crate::model::clock::Steady;
use crate::model::{FailureRow, clock};
use crate::outbound::{FetchFault, Fetched, Fetcher, Trust, TrustError};
use crate::secrets::Desk;
use crate::settings::{ManagedSettings, ManagedSource, Selector};

pub(crate) struct Managed {
    fetcher: Fetcher,
    settings: ManagedSettings,
    url: String,
    identity: String,
    clock: Steady,
    desk: Desk,
}

impl Managed {
    pub(crate) fn new(settings: &ManagedSettings, identity: &str, scope: &str) -> Result<Self, TrustError> {
        let is_plain = settings.source.endpoint().starts_with("http://");
        // A machine without any authorities still has its endpoint.
        let trust = if is_plain {
            &Trust::Only([].into())
        } else {
            &settings.trust
        };
        Ok(Self {
            fetcher: Fetcher::near(trust, settings.timeout)?,
            url: url(settings, scope),
            settings: settings.clone(),
            identity: identity.to_owned(),
            clock: Steady::from(clock::wall()),
            desk: Desk::default(),
        })
    }

    /// Where tokens come from, for people.
    pub(crate) fn place(&self) -> String {
        let source = &self.settings.source;
        let which = match &self.settings.selector {
            Some(selector) => selector.to_string(),
            None => "system-assigned".to_owned(),
        };
        format!(
            "managed identity from {} at {}, {which}",
            source.name(),
            host(source.endpoint())
        )
    }

    /// Whether a failure means that nobody is there at all: only IMDS may be missing, the others have announced
    /// themselves.
    pub(crate) fn is_absent(&self, error: &TokenError) -> bool {
        matches!(self.settings.source, ManagedSource::Imds { .. })
            && matches!(error.label(), "unreachable" | "timeout")
    }

    fn failed(&self, trouble: Trouble, wait: Option<Duration>) -> TokenError {
        let wait = wait.map(|wait| wait.min(refused::RETRY_AFTER_MAX));
        TokenError::Platform(Box::new(trouble.of(&self.identity, &self.place(), wait)))
    }

    async fn answer(&self) -> Result<Fetched, Trouble> {
        match &self.settings.source {
            ManagedSource::Imds { .. } => self.send(("metadata", plain("true")), None).await,
            ManagedSource::AppService { header, .. } => {
                let value = sensitive(header.expose()).ok_or_else(|| {
                    let seen = "IDENTITY_HEADER cannot be sent in a header field";
                    Trouble::new(RESTART, seen)
                })?;
                self.send(("x-identity-header", value), None).await
            }
            ManagedSource::Arc { token_folder, .. } => self.answer_of_arc(token_folder).await,
        }
    }

    /// The Azure Arc agent answers callers that can read a file that it names.
    async fn answer_of_arc(&self, folder: &Path) -> Result<Fetched, Trouble> {
        let first = self.send(("metadata", plain("true")), None).await?;
        if first.status != 401 {
            return Ok(first);
        }
        let challenges = first.headers.get_all("www-authenticate").iter();
        let challenges: Vec<_> = challenges
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect();
        let key = arc::key(&challenges, folder, &self.desk).await?;
        let value = sensitive(&format!("Basic {}", key.expose())).ok_or_else(arc::unreadable_key)?;
        self.send(("metadata", plain("true")), Some(value)).await
    }

    async fn send(
        &self,
        (name, value): (&'static str, HeaderValue),
        authorization: Option<HeaderValue>,
    ) -> Result<Fetched, Trouble> {
        let mut request = self.fetcher.get(&self.url).header(name, value);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let answer = self.fetcher.fetch(request).await;
        answer.map_err(|error| self.silence(error.cause))
    }

    /// No answer, or none that could be read.
    fn silence(&self, fault: FetchFault) -> Trouble {
        let row = match (&fault, &self.settings.source) {
            (FetchFault::Redirected(_), _) => REDIRECTS,
            (FetchFault::TooLarge, _) => OTHER,
            (_, ManagedSource::Imds { .. }) => IMDS_SILENT,
            (_, ManagedSource::AppService { .. }) => APP_SERVICE_SILENT,
            (_, ManagedSource::Arc { .. }) => ARC_SILENT,
        };
        unread(row, &fault.into())
    }

    fn read(&self, answer: &Fetched) -> Result<Granted, Trouble> {
        if answer.status != 200 {
            return Err(self.refused(answer));
        }
        let granted = answer::read_dated(&answer.body, Some(Clocks::read(&self.clock)));
        let granted = granted.map_err(|error| unread(OTHER, &error))?;
        if let (ManagedSource::Arc { .. }, Some(selector)) = (&self.settings.source, &self.settings.selector)
            && !is_confirmed(selector, &answer.body, granted.token.expose())
        {
            return Err(ARC_UNSELECTED.into());
        }
        Ok(granted)
    }

    fn refused(&self, answer: &Fetched) -> Trouble {
        let refusal = refused::read(answer.status, &answer.body, None);
        let seen = refusal.to_string().replacen("entra", "it", 1);
        Trouble::new(self.verdict(&refusal, &answer.body), seen)
    }

    /// What a status other than 200 means (Microsoft Learn, "How to use managed identities for Azure resources on an
    /// Azure VM to acquire an access token", error handling).
    fn verdict(&self, refusal: &Refusal, body: &[u8]) -> &'static FailureRow {
        match refusal.status {
            410 => return UPDATED,
            404 => return NOT_FOUND,
            429 => return THROTTLED,
            408 | 500.. => return FAILED,
            _ => {}
        }
        let says = |part: &str| {
            let body = body.to_ascii_lowercase();
            memchr::memmem::find(&body, part.as_bytes()).is_some()
        };
        if refusal.error.as_deref() == Some("bad_request_102") {
            return NO_HEADER;
        }
        if says("multiple user assigned") {
            return SEVERAL;
        }
        if says("identity not found") || says("no user assigned") || says("no managed identity") {
            return if self.settings.selector.is_some() {
                NOT_ASSIGNED
            } else {
                NO_IDENTITY
            };
        }
        if refusal.kind == RefusalKind::InvalidResource || refusal.number.is_some() {
            return refusal.row;
        }
        match (&self.settings.source, refusal.status) {
            (ManagedSource::AppService { .. }, 401 | 403) => RESTART,
            (ManagedSource::Arc { .. }, 401 | 403) => ARC_REFUSED,
            (ManagedSource::Imds { .. }, 403) => FORBIDDEN,
            _ => UNKNOWN,
        }
    }
}

impl Grant for Managed {
    fn ask(&self) -> Asked<'_> {
        Box::pin(async {
            match self.answer().await {
                Ok(answer) => self
                    .read(&answer)
                    .map_err(|trouble| self.failed(trouble, answer.retry_after())),
                Err(trouble) => Err(self.failed(trouble, None)),
            }
        })
    }
}

/// The row with what was seen, counted as what it is.
fn unread(row: &'static FailureRow, error: &TokenError) -> Trouble {
    Trouble::new(row, error.seen()).labelled(error.label())
}

fn plain(value: &'static str) -> HeaderValue {
    HeaderValue::from_static(value)
}

fn sensitive(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Scheme, host and port; the rest of the URL must not be logged.
fn host(endpoint: &str) -> &str {
    let from = endpoint.find("://").map_or(0, |at| at + 3);
    let end = endpoint.get(from..).and_then(|rest| rest.find('/'));
    end.and_then(|end| endpoint.get(..from + end)).unwrap_or(endpoint)
}

/// The whole address of the question. Managed identities take a resource in place of a scope; what is left of the flow
/// service's has one slash at its end.
fn url(settings: &ManagedSettings, scope: &str) -> String {
    let resource = scope.strip_suffix("/.default").unwrap_or(scope);
    let (path, version, names) = match &settings.source {
        ManagedSource::Imds { .. } => (PATH, "2018-02-01", ["client_id", "object_id", "msi_res_id"]),
        ManagedSource::AppService { .. } => ("", "2019-08-01", ["client_id", "principal_id", "mi_res_id"]),
        ManagedSource::Arc { .. } => (PATH, "2020-06-01", ["client_id", "object_id", "msi_res_id"]),
    };
    let [client_id, object_id, resource_id] = names;
    let encoded = |value| utf8_percent_encode(value, FORM).to_string();
    let selected = match &settings.selector {
        None => String::new(),
        Some(Selector::ClientId(id)) => format!("&{client_id}={}", encoded(id)),
        Some(Selector::ObjectId(id)) => format!("&{object_id}={}", encoded(id)),
        Some(Selector::ResourceId(id)) => format!("&{resource_id}={}", encoded(id)),
    };
    let endpoint = settings.source.endpoint();
    format!(
        "{endpoint}{path}?api-version={version}&resource={}{selected}",
        encoded(resource)
    )
}

const PATH: &str = "/metadata/identity/oauth2/token";

/// What an answer, or the token in it, says about whose it is.
#[derive(Debug, Default, Deserialize)]
struct Owner {
    #[serde(alias = "appid")]
    client_id: Option<String>,
    #[serde(alias = "oid")]
    object_id: Option<String>,
    #[serde(alias = "xms_mirid", alias = "mi_res_id")]
    msi_res_id: Option<String>,
}

impl Owner {
    fn named(&self, selector: &Selector) -> Option<bool> {
        let (actual, wanted): (_, &str) = match selector {
            Selector::ClientId(id) => (&self.client_id, id),
            Selector::ObjectId(id) => (&self.object_id, id),
            Selector::ResourceId(id) => (&self.msi_res_id, id),
        };
        actual.as_ref().map(|actual| actual.eq_ignore_ascii_case(wanted))
    }
}

/// Whether answer or token name the identity that was asked for, and neither another one.
fn is_confirmed(selector: &Selector, body: &[u8], token: &str) -> bool {
    let echo: Owner = serde_json::from_slice(body).unwrap_or_default();
    let claims: Owner = answer::payload(token).unwrap_or_default();
    let matches = [claims.named(selector), echo.named(selector)];
    matches.contains(&Some(true)) && !matches.contains(&Some(false))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::{Fetched, Managed, host, is_confirmed, url};
    use crate::model::{ClientId, Outlook, Secret};
    use crate::outbound::Trust;
    use crate::settings::{ManagedSettings, ManagedSource, Selector};

    const FLOW: &str = "https://service.flow.microsoft.com//.default";
    const GUID: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";

    fn imds() -> ManagedSource {
        ManagedSource::Imds {
            endpoint: "http://169.254.169.254".into(),
        }
    }

    fn app_service() -> ManagedSource {
        ManagedSource::AppService {
            endpoint: "http://127.0.0.1:41741/msi/token/".into(),
            header: Secret::new("canary"),
        }
    }

    fn arc() -> ManagedSource {
        ManagedSource::Arc {
            endpoint: "http://localhost:40342".into(),
            token_folder: PathBuf::new(),
        }
    }

    fn settings(source: ManagedSource, selector: Option<Selector>) -> ManagedSettings {
        ManagedSettings {
            source,
            selector,
            trust: Trust::System,
            timeout: Duration::from_secs(1),
            origin: String::new(),
        }
    }

    fn judged(
        source: ManagedSource,
        selector: Option<Selector>,
        status: u16,
        body: &str,
    ) -> (String, Outlook) {
        let managed = Managed::new(&settings(source, selector), "contoso", FLOW).unwrap();
        let answer = Fetched {
            status,
            headers: http::HeaderMap::new(),
            body: body.into(),
        };
        let trouble = managed.read(&answer).err().unwrap();
        let failure = trouble.of("contoso", &managed.place(), None);
        (failure.sentence, failure.outlook)
    }

    #[test]
    fn the_question_is_what_each_source_documents() {
        let resource = "resource=https%3A%2F%2Fservice.flow.microsoft.com%2F";
        assert_eq!(
            url(&settings(imds(), None), FLOW),
            format!(
                "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&{resource}"
            )
        );
        assert_eq!(
            url(&settings(app_service(), None), FLOW),
            format!("http://127.0.0.1:41741/msi/token/?api-version=2019-08-01&{resource}")
        );
        assert_eq!(
            url(&settings(arc(), None), FLOW),
            format!(
                "http://localhost:40342/metadata/identity/oauth2/token?api-version=2020-06-01&{resource}"
            )
        );
    }

    #[test]
    fn each_source_has_its_own_names_for_a_selector() {
        let (client, object, resource) = (
            Selector::ClientId(ClientId::parse(GUID).unwrap()),
            Selector::ObjectId(GUID.into()),
            Selector::ResourceId("/subscriptions/x".into()),
        );
        for (source, names) in [
            (imds(), ["client_id", "object_id", "msi_res_id"]),
            (app_service(), ["client_id", "principal_id", "mi_res_id"]),
            (arc(), ["client_id", "object_id", "msi_res_id"]),
        ] {
            for (selector, name) in [&client, &object, &resource].into_iter().zip(names) {
                let url = url(&settings(source.clone(), Some(selector.clone())), FLOW);
                let value = if name.ends_with("res_id") {
                    "%2Fsubscriptions%2Fx"
                } else {
                    GUID
                };
                assert!(url.ends_with(&format!("&{name}={value}")), "{url}");
            }
        }
    }

    #[test]
    fn other_resources_keep_their_form() {
        for (scope, resource) in [
            (
                "api://AzureADTokenExchange/.default",
                "api%3A%2F%2FAzureADTokenExchange",
            ),
            (
                "https://vault.azure.net/.default",
                "https%3A%2F%2Fvault.azure.net",
            ),
        ] {
            let url = url(&settings(imds(), None), scope);
            assert!(url.ends_with(&format!("&resource={resource}")), "{url}");
        }
    }

    #[test]
    fn each_status_has_its_outlook_and_its_words() {
        for (status, body, part, outlook) in [
            (410, "", "70 seconds", Outlook::Transient),
            (404, "<html>", "being updated", Outlook::Transient),
            (429, "Too Many Requests", "too many tokens", Outlook::BackOff),
            (408, "", "failed by itself", Outlook::Transient),
            (500, "", "failed by itself", Outlook::Transient),
            (503, "<html>", "failed by itself", Outlook::Transient),
            (
                400,
                r#"{"error":"bad_request_102","error_description":"Required metadata header not specified"}"#,
                "Metadata",
                Outlook::AfterFix,
            ),
            (
                400,
                r#"{"error":"invalid_request","error_description":"Identity not found"}"#,
                "No identity is assigned here",
                Outlook::AfterFix,
            ),
            (
                400,
                r#"{"error":"invalid_request","error_description":"Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request"}"#,
                "set client_id, object_id or resource_id",
                Outlook::AfterFix,
            ),
            (
                400,
                r#"{"error":"invalid_resource","error_description":"AADSTS500011: The resource principal named x was not found"}"#,
                "no service principal in the tenant",
                Outlook::AfterFix,
            ),
            (403, "", "through a proxy", Outlook::AfterFix),
            (418, "canary", "does not know", Outlook::AfterFix),
        ] {
            let (sentence, judged) = judged(imds(), None, status, body);
            assert_eq!(judged, outlook, "{sentence}");
            for part in [part, "identity contoso", "169.254.169.254", &status.to_string()] {
                assert!(sentence.contains(part), "{part}: {sentence}");
            }
            assert!(!sentence.contains("canary"), "{sentence}");
        }
    }

    #[test]
    fn an_identity_that_is_not_assigned_is_named_by_its_selector() {
        let body = r#"{"error":"invalid_request","error_description":"Identity not found"}"#;
        let selector = Selector::ClientId(ClientId::parse(GUID).unwrap());
        let (sentence, _) = judged(imds(), Some(selector), 400, body);
        assert!(
            sentence.contains("not assigned here") && sentence.contains(GUID),
            "{sentence}"
        );
    }

    #[test]
    fn app_service_and_arc_have_words_of_their_own_for_401() {
        let (sentence, _) = judged(app_service(), None, 401, "");
        assert!(
            sentence.contains("restart the app") && !sentence.contains("canary"),
            "{sentence}"
        );
        let (sentence, _) = judged(arc(), None, 401, "");
        assert!(sentence.contains("the key it asked for"), "{sentence}");
    }

    #[test]
    fn an_answer_that_is_no_token_passes() {
        for body in ["", "<html>", "ok", "{}"] {
            let (_, outlook) = judged(imds(), None, 200, body);
            assert_eq!(outlook, Outlook::Transient, "{body}");
        }
    }

    #[test]
    fn a_selected_identity_must_be_confirmed_by_answer_or_token() {
        let selector = Selector::ClientId(ClientId::parse(GUID).unwrap());
        let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let own = token(&format!(r#"{{"appid":"{}"}}"#, GUID.to_uppercase()));
        let other = token(r#"{"appid":"11111111-bbbb-4ccc-8ddd-eeeeeeeeeeee"}"#);
        let echo = format!(r#"{{"client_id":"{GUID}"}}"#);
        assert!(is_confirmed(&selector, b"{}", &own));
        assert!(is_confirmed(&selector, echo.as_bytes(), "opaque"));
        assert!(!is_confirmed(&selector, b"{}", "opaque"));
        assert!(!is_confirmed(&selector, echo.as_bytes(), &other));
        assert!(!is_confirmed(&selector, br#"{"client_id":"x"}"#, &own));
        let body = format!(r#"{{"access_token":"{other}","expires_in":"60"}}"#);
        let (sentence, _) = judged(arc(), Some(selector), 200, &body);
        assert!(sentence.contains("update the agent"), "{sentence}");
    }

    #[test]
    fn an_address_is_shown_without_its_path() {
        assert_eq!(host("http://127.0.0.1:1/msi/token?x"), "http://127.0.0.1:1");
        assert_eq!(host("http://169.254.169.254"), "http://169.254.169.254");
    }
}
