//! How a token is asked for, one way for each kind of grant. It sends one request and hands the answer to
//! `answer.rs` or `refusal.rs`; when to ask, and for how long to remember, is decided in `cache.rs`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use percent_encoding::AsciiSet;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;

use crate::config::GrantSettings;
use crate::config::IdentitySettings;
use crate::config::TrustError;
use crate::entra::answer;
use crate::entra::answer::ANSWER_BYTES_MAX;
use crate::entra::answer::Granted;
use crate::entra::answer::Refused;
use crate::entra::answer::TokenError;
use crate::entra::file::TokenFile;
use crate::entra::refusal;
use crate::model::Secret;

/// Asks once for a token.
pub(super) type Fetch = Arc<dyn Fn() -> BoxFuture<'static, Result<Granted, TokenError>> + Send + Sync>;

// The bytes that application/x-www-form-urlencoded leaves as they are; a space becomes %20, which every server reads.
const FORM: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'*');

/// Makes the function that asks for tokens of one identity.
///
/// # Errors
/// When there is no certificate authority to trust.
pub(super) fn fetcher(identity: &IdentitySettings) -> Result<Fetch, TrustError> {
    match &identity.grant {
        GrantSettings::ClientSecret {
            token_url,
            client_id,
            secret,
            trust,
            timeout,
        } => {
            let client = client(trust.client_config()?, *timeout)?;
            let call = Arc::new(SecretCall {
                client,
                token_url: token_url.clone(),
                client_id: client_id.clone(),
                secret: secret.clone(),
                scope: identity.scope.clone(),
                tenant: identity.tenant.clone(),
                identity: identity.name.as_str().into(),
                timeout: *timeout,
            });
            Ok(Arc::new(move || {
                let call = call.clone();
                Box::pin(async move { call.ask().await })
            }))
        }
        GrantSettings::TokenFile { path, life } => {
            let file = Arc::new(TokenFile::new(path.clone(), *life));
            Ok(Arc::new(move || {
                let file = file.clone();
                Box::pin(async move { file.read().await })
            }))
        }
    }
}

fn client(tls: rustls::ClientConfig, timeout: Duration) -> Result<reqwest::Client, TrustError> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        // A token request carries the secret: it goes to the configured place or nowhere.
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(timeout)
        .pool_max_idle_per_host(1)
        .build()
        .map_err(|error| TrustError::Unusable(error.to_string()))
}

struct SecretCall {
    client: reqwest::Client,
    token_url: String,
    client_id: String,
    secret: Secret,
    scope: String,
    tenant: String,
    identity: String,
    timeout: Duration,
}

impl SecretCall {
    /// The form of the client credentials grant (RFC 6749 section 4.4.2). Each value is encoded once: a scope encoded
    /// twice is refused with AADSTS1002012.
    fn form(&self) -> String {
        let pairs = [
            ("grant_type", "client_credentials"),
            ("client_id", self.client_id.as_str()),
            ("client_secret", self.secret.expose()),
            ("scope", self.scope.as_str()),
        ];
        let pairs = pairs.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, FORM)));
        pairs.join("&")
    }

    async fn ask(&self) -> Result<Granted, TokenError> {
        let sent = self
            .client
            .post(&self.token_url)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(self.form())
            .send()
            .await;
        let mut response = sent.map_err(|error| self.failed(&error))?;
        let status = response.status();
        if status.is_redirection() {
            return Err(TokenError::Redirected(status.as_u16()));
        }
        let wait = retry_after(response.headers());
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.broken(&error))? {
            if body.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(TokenError::TooLarge);
            }
            body.extend_from_slice(&piece);
        }
        if status.as_u16() == 200 {
            return answer::read(&body);
        }
        let refusal = refusal::read(status.as_u16(), &body, wait);
        let sentence = refusal.sentence(&self.identity, &self.tenant, &self.client_id);
        Err(TokenError::Refused(Box::new(Refused { refusal, sentence })))
    }

    fn failed(&self, error: &reqwest::Error) -> TokenError {
        if error.is_timeout() {
            return TokenError::Timeout(self.timeout);
        }
        TokenError::Unreachable(innermost(error))
    }

    fn broken(&self, error: &reqwest::Error) -> TokenError {
        if error.is_timeout() {
            return TokenError::Timeout(self.timeout);
        }
        TokenError::Cut
    }
}

/// The last link of an error's chain: the outer ones name the address again, and say "error sending request".
fn innermost(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// `Retry-After` in seconds (RFC 9110 section 10.2.3); a date is left aside, because Entra sends seconds.
fn retry_after(headers: &reqwest::header::HeaderMap) -> Option<Duration> {
    let seconds = headers.get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::SecretCall;
    use crate::model::Secret;

    #[test]
    fn the_scope_is_encoded_once_and_keeps_both_slashes() {
        let call = SecretCall {
            client: reqwest::Client::builder()
                .no_proxy()
                .tls_backend_preconfigured(crate::config::Trust::Only(Vec::new()).client_config().unwrap())
                .build()
                .unwrap(),
            token_url: String::new(),
            client_id: "11111111-2222-3333-4444-555555555555".into(),
            secret: Secret::new("a+b/c=&~ü"),
            scope: "https://service.flow.microsoft.com//.default".into(),
            tenant: String::new(),
            identity: String::new(),
            timeout: Duration::from_secs(1),
        };
        let form = call.form();
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
