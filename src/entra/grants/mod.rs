//! The grants: a file for each way to get tokens, and the one place that chooses.

mod arc;
mod bar;
mod chain;
mod file;
mod managed;
mod password;
pub(crate) mod sign_in;
pub(crate) mod tries;

use tokio::runtime::Handle;

use crate::counters::Counters;
use crate::entra::application::Application;
use crate::entra::grant::Grant;
use crate::entra::grants::chain::Chain;
use crate::entra::grants::file::TokenFile;
use crate::entra::grants::managed::Managed;
use crate::entra::grants::password::PasswordCall;
use crate::entra::grants::sign_in::SignInCall;
use crate::entra::slots::Slots;
use crate::outbound::TrustError;
use crate::settings::{GrantSettings, IdentitySettings, KeyVaultSettings};

pub(crate) fn slots<'a>(
    identities: &'a [IdentitySettings],
    keyvault: Option<&'a KeyVaultSettings>,
    control: &'a Handle,
    counters: &'a Counters,
) -> Slots<'a> {
    Slots::new(grant, identities, keyvault, control, counters)
}

/// The grant of an identity for one scope. What it needs of other identities comes from `slots`.
fn grant(
    identity: &IdentitySettings,
    scope: &str,
    slots: &mut Slots<'_>,
) -> Result<Box<dyn Grant>, TrustError> {
    let name = &identity.name;
    Ok(match &identity.grant {
        GrantSettings::Client { endpoint, proof } => {
            Box::new(Application::new(endpoint, proof, identity, scope, slots)?)
        }
        GrantSettings::TokenFile { path, life } => Box::new(TokenFile::new(path.clone(), *life)),
        GrantSettings::Managed(managed) => Box::new(Managed::new(managed, name.as_str(), scope)?),
        GrantSettings::Default(chain) => Box::new(Chain::new(chain, identity, scope)?),
        GrantSettings::Password {
            endpoint,
            proof,
            user,
            password,
        } => {
            let application = Application::new(endpoint, proof, identity, scope, slots)?;
            Box::new(PasswordCall::new(application, user, password, name, slots)?)
        }
        GrantSettings::SignIn {
            endpoint,
            proof,
            store,
            seal,
        } => {
            let scope = sign_in::lasting(scope);
            let application = Application::new(endpoint, proof, identity, &scope, slots)?;
            let store = slots.store(name, store, seal.as_ref(), application.endpoint.client_id());
            Box::new(SignInCall::new(application, store, name))
        }
    })
}
