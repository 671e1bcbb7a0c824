//! One question to a token endpoint. It posts a form and hands the answer to `answer.rs` or `refusal.rs`; what is in the
//! form, and whether another proof is worth a try, is decided in `proof.rs` and the grants above it.

use std::sync::atomic::{AtomicBool, Ordering};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::entra::answer::{Granted, RefusedToken, TokenError};
use crate::entra::refused::Refusal;
use crate::entra::{answer, refused};
use crate::model::Tenant;
use crate::outbound::{Fetcher, TrustError};
use crate::settings::{EndpointSettings, IdentitySettings};

// The bytes that application/x-www-form-urlencoded leaves as they are; a space becomes %20, which every server reads.
pub(crate) const FORM: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'*');

pub(crate) struct Endpoint {
    fetcher: Fetcher,
    settings: EndpointSettings,
    scope: String,
    tenant: Option<Tenant>,
    identity: String,
    /// Whether a question may have arrived, answered or not.
    arrived: AtomicBool,
}

impl Endpoint {
    pub(crate) fn new(
        settings: &EndpointSettings,
        identity: &IdentitySettings,
        scope: &str,
    ) -> Result<Self, TrustError> {
        Ok(Self {
            fetcher: Fetcher::new(&settings.trust, settings.timeout)?,
            settings: settings.clone(),
            scope: scope.to_owned(),
            tenant: identity.tenant.clone(),
            identity: identity.name.as_str().to_owned(),
            arrived: AtomicBool::new(false),
        })
    }

    /// Where tokens are asked for; also the audience of an assertion (Microsoft, "Microsoft identity platform
    /// application authentication certificate credentials").
    pub(crate) fn url(&self) -> &str {
        &self.settings.token_url
    }

    pub(crate) fn client_id(&self) -> &str {
        &self.settings.client_id
    }

    pub(crate) fn scope(&self) -> &str {
        &self.scope
    }

    /// The address of another endpoint of the same tenant, such as `authorize`.
    pub(crate) fn beside(&self, name: &str) -> String {
        let url = &self.settings.token_url;
        format!("{}{name}", url.strip_suffix("token").unwrap_or(url))
    }

    /// Whether a question may have arrived since this was asked last. Good for one that asks at a time.
    pub(crate) fn take_arrived(&self) -> bool {
        self.arrived.swap(false, Ordering::Relaxed)
    }

    /// Asks once. The scope and the client id are added to the pairs.
    pub(crate) async fn ask(&self, pairs: &[(&str, &str)]) -> Result<Granted, TokenError> {
        let body = self.post(&self.settings.token_url, pairs).await?;
        answer::read(&body)
    }

    /// Posts a form, with the scope and the client id in it, and reads the body of a 200.
    pub(crate) async fn post(&self, url: &str, pairs: &[(&str, &str)]) -> Result<Vec<u8>, TokenError> {
        let request = self
            .fetcher
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(self.form(pairs));
        let answer = self.fetcher.fetch(request).await;
        if answer.as_ref().map_or_else(|error| error.is_sent, |_| true) {
            self.arrived.store(true, Ordering::Relaxed);
        }
        let answer = answer.map_err(|error| error.cause)?;
        if answer.status == 200 {
            return Ok(answer.body);
        }
        let refusal = refused::read(answer.status, &answer.body, answer.retry_after());
        let sentence = self.sentence(&refusal);
        Err(TokenError::Refused(Box::new(RefusedToken { refusal, sentence })))
    }

    pub(crate) fn sentence(&self, refusal: &Refusal) -> String {
        let tenant = self.tenant.as_deref().unwrap_or_default();
        refusal.sentence(&self.identity, tenant, &self.settings.client_id)
    }

    /// The form. Each value is encoded once: a scope encoded twice is refused with AADSTS1002012.
    fn form(&self, pairs: &[(&str, &str)]) -> String {
        let own = [
            ("client_id", &*self.settings.client_id),
            ("scope", self.scope.as_str()),
        ];
        let encoded = |(name, value): &(&str, &str)| format!("{name}={}", utf8_percent_encode(value, FORM));
        pairs
            .iter()
            .chain(&own)
            .map(encoded)
            .collect::<Vec<_>>()
            .join("&")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use super::Endpoint;
    use crate::model::ClientId;
    use crate::outbound::{Fetcher, Trust};
    use crate::settings::EndpointSettings;

    #[test]
    fn the_scope_is_encoded_once_and_keeps_both_slashes() {
        let settings = EndpointSettings {
            authority: String::new(),
            token_url: String::new(),
            client_id: ClientId::parse("11111111-2222-3333-4444-555555555555").unwrap(),
            trust: Trust::Only([].into()),
            timeout: Duration::from_secs(1),
        };
        let endpoint = Endpoint {
            fetcher: Fetcher::new(&settings.trust, settings.timeout).unwrap(),
            settings,
            scope: "https://service.flow.microsoft.com//.default".into(),
            tenant: None,
            identity: String::new(),
            arrived: AtomicBool::new(false),
        };
        let form = endpoint.form(&[
            ("grant_type", "client_credentials"),
            ("client_secret", "a+b/c=&~ü"),
        ]);
        assert!(
            form.ends_with("scope=https%3A%2F%2Fservice.flow.microsoft.com%2F%2F.default"),
            "{form}"
        );
        assert!(
            form.contains("&client_secret=a%2Bb%2Fc%3D%26%7E%C3%BC&"),
            "{form}"
        );
    }
}
