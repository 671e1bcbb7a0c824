//! How a token is asked for, one way for each kind of grant; when to ask, and for how long to remember, is decided in
//! `cache.rs`.

pub(crate) mod arc;
pub(crate) mod bar;
pub(crate) mod chain;
pub(crate) mod file;
pub(crate) mod managed;
pub(crate) mod password;
pub(crate) mod sign_in;
pub(crate) mod tries;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::entra::answer::{Granted, TokenError};
use crate::entra::endpoint::Endpoint;
use crate::entra::grants::chain::Chain;
use crate::entra::grants::file::TokenFile;
use crate::entra::grants::managed::Managed;
use crate::entra::grants::password::PasswordCall;
use crate::entra::grants::sign_in::SignInCall;
use crate::entra::proof::Proof;
use crate::entra::slots::Slots;
use crate::outbound::TrustError;
use crate::settings::{GrantSettings, IdentitySettings};

/// Asks once for a token.
pub(crate) type Fetch = Arc<dyn Fn() -> BoxFuture<'static, Result<Granted, TokenError>> + Send + Sync>;

/// Makes the function that asks for tokens of one identity for one scope. Tokens of other identities that it needs come
/// from `slots`.
///
/// # Errors
/// When there is no certificate authority to trust.
pub(crate) fn fetcher(
    identity: &IdentitySettings,
    scope: &str,
    slots: &mut Slots<'_>,
) -> Result<Fetch, TrustError> {
    match &identity.grant {
        GrantSettings::Client { endpoint, proof } => {
            let endpoint = Endpoint::new(endpoint, identity, scope)?;
            let call = Arc::new(ClientCall {
                proof: Proof::new(proof, &identity.name, slots)?,
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
        GrantSettings::Managed(managed) => {
            let managed = Arc::new(Managed::new(managed, identity.name.as_str(), scope)?);
            Ok(Arc::new(move || {
                let managed = managed.clone();
                Box::pin(async move { managed.ask().await })
            }))
        }
        GrantSettings::Default(settings) => {
            let chain = Arc::new(Chain::new(settings, identity, scope)?);
            Ok(Arc::new(move || {
                let chain = chain.clone();
                Box::pin(async move { chain.ask().await })
            }))
        }
        GrantSettings::Password {
            endpoint,
            proof,
            user,
            password,
        } => {
            let endpoint = Endpoint::new(endpoint, identity, scope)?;
            let proof = Proof::new(proof, &identity.name, slots)?;
            let call = Arc::new(PasswordCall::new(
                endpoint,
                proof,
                user,
                password,
                &identity.name,
                slots,
            )?);
            Ok(Arc::new(move || {
                let call = call.clone();
                Box::pin(async move { call.ask().await })
            }))
        }
        GrantSettings::SignIn {
            endpoint,
            proof,
            store,
            seal,
        } => {
            let endpoint = Endpoint::new(endpoint, identity, &sign_in::lasting(scope))?;
            let proof = Proof::new(proof, &identity.name, slots)?;
            let store = slots.store(&identity.name, store, seal.as_ref(), endpoint.client_id());
            let call = Arc::new(SignInCall::new(endpoint, proof, store, &identity.name));
            Ok(Arc::new(move || {
                let call = call.clone();
                Box::pin(async move { call.ask().await })
            }))
        }
    }
}

/// The client credentials grant.
pub(crate) struct ClientCall {
    pub(crate) endpoint: Endpoint,
    pub(crate) proof: Proof,
}

impl ClientCall {
    /// Asks once (RFC 6749 section 4.4.2).
    pub(crate) async fn ask(&self) -> Result<Granted, TokenError> {
        self.proof
            .ask(&self.endpoint, &[("grant_type", "client_credentials")])
            .await
    }
}
