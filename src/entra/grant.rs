//! How a token is asked for, one way for each kind of grant; when to ask, and for how long to remember, is decided in
//! `cache.rs`.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::config::GrantSettings;
use crate::config::IdentitySettings;
use crate::config::TrustError;
use crate::entra::answer::Granted;
use crate::entra::answer::TokenError;
use crate::entra::endpoint::Endpoint;
use crate::entra::file::TokenFile;
use crate::entra::proof::Proof;

/// Asks once for a token.
pub(super) type Fetch = Arc<dyn Fn() -> BoxFuture<'static, Result<Granted, TokenError>> + Send + Sync>;

/// Makes the function that asks for tokens of one identity for one scope.
///
/// # Errors
/// When there is no certificate authority to trust.
pub(super) fn fetcher(identity: &IdentitySettings, scope: &str) -> Result<Fetch, TrustError> {
    match &identity.grant {
        GrantSettings::Client { endpoint, proof } => {
            let endpoint = Endpoint::new(endpoint, identity, scope)?;
            let call = Arc::new(ClientCall {
                proof: Proof::new(proof, identity.name.as_str()),
                endpoint,
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

/// The client credentials grant.
struct ClientCall {
    endpoint: Endpoint,
    proof: Proof,
}

impl ClientCall {
    /// Asks once (RFC 6749 section 4.4.2).
    async fn ask(&self) -> Result<Granted, TokenError> {
        self.proof
            .ask(&self.endpoint, &[("grant_type", "client_credentials")])
            .await
    }
}
