//! One question to a token endpoint. It posts a form and hands the answer to `answer.rs` or `refusal.rs`; what is in the
//! form, and whether another proof is worth a try, is decided in `proof.rs` and the grants above it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::entra::answer::{ANSWER_BYTES_MAX, Granted, Refused, TokenError};
use crate::entra::{answer, refusal};
use crate::outbound::{Trust, TrustError, refused_certificate};
use crate::settings::{EndpointSettings, IdentitySettings};

// The bytes that application/x-www-form-urlencoded leaves as they are; a space becomes %20, which every server reads.
pub(crate) const FORM: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'*');

/// A token endpoint, asked in the name of one application.
pub(crate) struct Endpoint {
    client: reqwest::Client,
    settings: EndpointSettings,
    scope: String,
    tenant: String,
    identity: String,
    /// Whether a question may have arrived, answered or not.
    arrived: AtomicBool,
}

impl Endpoint {
    /// Prepares the questions of one identity for tokens of `scope`.
    ///
    /// # Errors
    /// When there is no certificate authority to trust.
    pub(crate) fn new(
        settings: &EndpointSettings,
        identity: &IdentitySettings,
        scope: &str,
    ) -> Result<Self, TrustError> {
        Ok(Self {
            client: client(&settings.trust, settings.timeout)?,
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

    /// The application.
    pub(crate) fn client_id(&self) -> &str {
        &self.settings.client_id
    }

    /// What is asked for.
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
        let sent = self
            .client
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(self.form(pairs))
            .send()
            .await;
        let timeout = self.settings.timeout;
        // Without a connection nothing was sent.
        if !sent.as_ref().is_err_and(reqwest::Error::is_connect) {
            self.arrived.store(true, Ordering::Relaxed);
        }
        let response = sent.map_err(|error| failed(&error, timeout))?;
        let (status, wait, body) = read(response, timeout).await?;
        if status == 200 {
            return Ok(body);
        }
        let refusal = refusal::read(status, &body, wait);
        let sentence = refusal.sentence(&self.identity, &self.tenant, &self.settings.client_id);
        Err(TokenError::Refused(Box::new(Refused { refusal, sentence })))
    }

    /// The form. Each value is encoded once: a scope encoded twice is refused with AADSTS1002012.
    fn form(&self, pairs: &[(&str, &str)]) -> String {
        let own = [
            ("client_id", self.settings.client_id.as_str()),
            ("scope", self.scope.as_str()),
        ];
        let all = pairs.iter().chain(&own);
        let all: Vec<_> = all
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, FORM)))
            .collect();
        all.join("&")
    }
}

/// A client for control calls: no proxy, no redirects, one deadline for a whole answer.
pub(crate) fn client(trust: &Trust, timeout: Duration) -> Result<reqwest::Client, TrustError> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(trust.explaining_client_config()?)
        // A token request carries the secret: it goes to the configured place or nowhere.
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(timeout)
        // Ends before the whole does, so that it is known whether anything was sent.
        .connect_timeout(timeout - timeout / 10)
        .pool_max_idle_per_host(1)
        .build()
        .map_err(|error| TrustError::Unusable(error.to_string()))
}

/// Reads an answer whole: status, the wait it asks for, body.
///
/// # Errors
/// When it redirects, breaks off, or is larger than any token answer.
pub(crate) async fn read(
    mut response: reqwest::Response,
    timeout: Duration,
) -> Result<(u16, Option<Duration>, Vec<u8>), TokenError> {
    let status = response.status();
    if status.is_redirection() {
        return Err(TokenError::Redirected(status.as_u16()));
    }
    let wait = retry_after(response.headers());
    let mut body = Vec::new();
    loop {
        let piece = response.chunk().await.map_err(|error| match error.is_timeout() {
            true => TokenError::Timeout(timeout),
            false => TokenError::Cut,
        })?;
        let Some(piece) = piece else {
            return Ok((status.as_u16(), wait, body));
        };
        if body.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err(TokenError::TooLarge);
        }
        body.extend_from_slice(&piece);
    }
}

/// Why no answer came.
pub(crate) fn failed(error: &reqwest::Error, timeout: Duration) -> TokenError {
    if error.is_timeout() {
        return TokenError::Timeout(timeout);
    }
    let place = error.url().and_then(|url| {
        let host = url.host_str()?;
        Some(format!("{host}:{}, ", url.port_or_known_default()?))
    });
    TokenError::Unreachable(format!("{}{}", place.unwrap_or_default(), innermost(error)))
}

/// The last link of an error's chain: the outer ones name the address again, and say "error sending request".
fn innermost(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner
        .downcast_ref::<io::Error>()
        .and_then(refused_certificate)
        .unwrap_or_else(|| inner.to_string())
}

/// `Retry-After` in seconds (RFC 9110 section 10.2.3); a date is left aside, because Entra sends seconds.
fn retry_after(headers: &reqwest::header::HeaderMap) -> Option<Duration> {
    let seconds = headers.get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use super::Endpoint;
    use crate::outbound::Trust;
    use crate::settings::EndpointSettings;

    #[test]
    fn the_scope_is_encoded_once_and_keeps_both_slashes() {
        let settings = EndpointSettings {
            authority: String::new(),
            token_url: String::new(),
            client_id: "11111111-2222-3333-4444-555555555555".into(),
            trust: Trust::Only([].into()),
            timeout: Duration::from_secs(1),
        };
        let endpoint = Endpoint {
            client: super::client(&settings.trust, settings.timeout).unwrap(),
            settings,
            scope: "https://service.flow.microsoft.com//.default".into(),
            tenant: String::new(),
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
