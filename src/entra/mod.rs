//! Access tokens of every identity: get one, forget one that a trigger refused, report the state of each identity.
//! The rest of the gateway knows nothing else about Entra.

pub mod answer;
mod application;
mod bearer;
mod cache;
pub mod claims;
mod date;
mod endpoint;
mod failure;
mod grant;
mod grants;
pub mod login;
mod proof;
pub mod refusal;
pub mod refused;
mod seal;
mod slots;
mod store;
mod vaults;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

pub use answer::TokenError;
pub use cache::{Forgotten, Health, Token, Unavailable};
pub use failure::{Failure, PLATFORM};
pub use grants::sign_in::SignedInState;
pub use grants::sign_in::state_of as sign_in_state;
pub use proof::federated::{AudienceFit, FederatedToken};
pub use vaults::{VaultReader, VaultSecret, VaultsError, read_vaults};

use crate::counters::Counters;
use crate::entra::cache::Slot;
use crate::entra::claims::Inspector;
use crate::entra::slots::Slots;
use crate::model::{IdentityName, Outlook};
use crate::outbound::TrustError;
use crate::problem::{Kind, Problem};
use crate::secrets::{Life, Rereader, Watch};
use crate::settings::{IdentityRole, IdentitySettings, KeyVaultSettings};

/// An identity and its token.
#[derive(Clone)]
pub struct Identity {
    slot: Arc<Slot>,
    settings: Arc<IdentitySettings>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.settings.name)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// An identity by itself, whose token is asked for only when somebody wants it; `all` are those of the same settings,
    /// some of which it may need.
    ///
    /// # Errors
    /// When it has no certificate authority to trust.
    pub fn alone(
        settings: &IdentitySettings,
        all: &[IdentitySettings],
        keyvault: Option<&KeyVaultSettings>,
        control: &Handle,
        counters: &Counters,
    ) -> Result<Self, TrustError> {
        Self::build(settings, &mut grants::slots(all, keyvault, control, counters))
    }

    fn build(settings: &IdentitySettings, slots: &mut Slots<'_>) -> Result<Self, TrustError> {
        Ok(Self {
            slot: slots.slot(settings, &settings.scope)?,
            settings: Arc::new(settings.clone()),
        })
    }

    /// A token that has not expired, if there is one without asking.
    pub fn token_at_hand(&self) -> Option<Arc<Token>> {
        self.slot.at_hand()
    }

    /// A token that has not expired.
    ///
    /// # Errors
    /// The failure of the last try, while it is remembered.
    pub async fn token(&self) -> Result<Arc<Token>, Unavailable> {
        self.slot.token().await
    }

    /// Drops `token` because a trigger refused it; a newer one stays.
    pub fn forget(&self, token: &Arc<Token>) -> Forgotten {
        self.slot.forget(token)
    }

    /// The same because an API refused it, which may be about one request alone: if no other token can be had, others get
    /// it back.
    pub fn doubt(&self, token: &Arc<Token>) -> Forgotten {
        self.slot.doubt(token)
    }

    /// How the identity is doing.
    pub fn health(&self) -> Health {
        self.slot.health()
    }

    /// Compares the current token, and each one after it, with what the routes of this identity need. Only the first
    /// inspector is kept.
    pub fn inspect(&self, inspector: Inspector) {
        self.slot.inspect(inspector);
    }

    /// Compares the current token once more, because a route of this identity needs something else of it.
    pub fn look_again(&self) {
        self.slot.look_again();
    }

    /// Its settings.
    pub fn settings(&self) -> &IdentitySettings {
        &self.settings
    }
}

/// The tokens of all identities. Dropping it ends their renewal.
#[derive(Debug)]
pub struct Tokens {
    identities: HashMap<IdentityName, Identity>,
    minders: Vec<AbortHandle>,
    watch: Arc<Watch>,
    rereader: Rereader,
    counters: Counters,
}

impl Tokens {
    /// Makes all identities and starts to fetch and renew their tokens on `control`.
    ///
    /// # Errors
    /// When an identity has no certificate authority to trust.
    pub fn build(
        settings: &[IdentitySettings],
        keyvault: Option<&KeyVaultSettings>,
        control: &Handle,
        counters: &Counters,
    ) -> Result<Self, TrustError> {
        let mut slots = grants::slots(settings, keyvault, control, counters);
        let (mut identities, mut minders) = (HashMap::new(), Vec::new());
        for settings in settings {
            for note in settings.notes() {
                tracing::info!(identity = %settings.name, "identity {}: {note}", settings.name);
            }
            if settings.role == IdentityRole::Helps {
                continue;
            }
            let identity = Identity::build(settings, &mut slots)?;
            let minder = control.spawn(identity.slot.clone().mind());
            minders.push(minder.abort_handle());
            identities.insert(settings.name.clone(), identity);
        }
        for place in keyvault.iter().flat_map(|keyvault| &keyvault.at_start) {
            slots.vault(place)?;
        }
        let watch = slots.watch().clone();
        let rereader = Rereader::new(control.clone(), watch.clone(), slots.vaults().clone());
        for (identity, store, seal) in slots.sealed() {
            seal::follow(&rereader, identity, store, seal);
        }
        minders.push(control.spawn(watch.clone().mind()).abort_handle());
        Ok(Self {
            identities,
            minders,
            watch,
            rereader,
            counters: counters.clone(),
        })
    }

    /// What looks at the places of certificates, addresses and other secrets for as long as the gateway runs.
    pub fn rereader(&self) -> &Rereader {
        &self.rereader
    }

    /// The identity of this name.
    pub fn identity(&self, name: &IdentityName) -> Option<&Identity> {
        self.identities.get(name)
    }

    /// All identities, in no order.
    pub fn identities(&self) -> impl Iterator<Item = &Identity> {
        self.identities.values()
    }

    /// What the credentials of an identity have left, as far as their ends are known.
    pub fn lives(&self, name: &IdentityName) -> Vec<Life> {
        self.watch.lives(name.as_str())
    }

    /// Writes age and remaining life of every token, and what the credentials have left, into the gauges.
    pub fn gauge(&self) {
        self.watch.gauge(&self.counters);
        for identity in self.identities.values() {
            identity.slot.gauge();
        }
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        for minder in &self.minders {
            minder.abort();
        }
    }
}

impl From<Unavailable> for Problem {
    fn from(unavailable: Unavailable) -> Self {
        let Unavailable { error, wait } = unavailable;
        let kind = if error.outlook() == Outlook::AfterFix {
            Kind::TokenRefused
        } else {
            Kind::TokenUnavailable
        };
        let wait = wait.max(Duration::from_secs(1));
        Self::from(kind)
            .because(format!("{error} (asked again in {} s)", wait.as_secs()))
            .wait(wait)
    }
}
