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
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

pub use answer::TokenError;
pub use cache::{Forgotten, Health, Token, Unavailable};
pub use failure::{Failure, PLATFORM};
pub use grants::sign_in::SignedInState;
pub use grants::sign_in::state_of as sign_in_state;
pub use proof::federated::{AudienceFit, FederatedToken};
pub use store::StoreError;
pub use vaults::{VaultReader, VaultsError, read_vaults};

use crate::counters::{Counters, IdentityLabels};
use crate::entra::cache::Slot;
use crate::entra::claims::Inspector;
use crate::entra::seal::Seal;
use crate::entra::slots::Slots;
use crate::model::{IdentityName, Outlook};
use crate::outbound::TrustError;
use crate::problem::{Kind, Problem};
use crate::secrets::{Life, Rereader, Vault};
use crate::settings::{IdentityRole, IdentitySettings, KeyVaultSettings};

/// An identity and its token.
#[derive(Clone)]
pub struct Identity {
    slot: Arc<Slot>,
    settings: Arc<IdentitySettings>,
    /// What renews its token, once somebody serves with it; it ends with the last settings that have this identity.
    minder: Arc<OnceLock<Minder>>,
}

/// A task that ends when this is dropped.
struct Minder(AbortHandle);

impl Drop for Minder {
    fn drop(&mut self) {
        self.0.abort();
    }
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
            minder: Arc::default(),
        })
    }

    /// Fetches its token and renews it from now on.
    fn start(&self, control: &Handle) {
        let mind = || Minder(control.spawn(self.slot.clone().mind()).abort_handle());
        self.minder.get_or_init(mind);
    }

    pub fn token_at_hand(&self) -> Option<Arc<Token>> {
        self.slot.at_hand()
    }

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

    pub fn health(&self) -> Health {
        self.slot.health()
    }

    /// Compares the current token, and each one after it, with what the routes of this identity need.
    pub fn inspect(&self, inspector: Inspector) {
        self.slot.inspect(inspector);
    }

    /// Compares the current token once more, because a route of this identity needs something else of it.
    pub fn look_again(&self) {
        self.slot.look_again();
    }

    pub fn settings(&self) -> &IdentitySettings {
        &self.settings
    }
}

/// The identities of one version of the settings, with their tokens.
pub struct Tokens {
    identities: HashMap<IdentityName, Identity>,
    /// Identities that others need, and the reader of vaults.
    helpers: Vec<IdentitySettings>,
    keyvault: Option<KeyVaultSettings>,
    vaults: HashMap<String, Arc<Vault>>,
    seals: HashMap<IdentityName, Arc<Seal>>,
    rereader: Rereader,
    counters: Counters,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("identities", &self.identities)
            .finish_non_exhaustive()
    }
}

impl Tokens {
    /// Makes all identities; no token is fetched before [`start`](Self::start). An identity of `earlier` settings that is
    /// still the same keeps its token.
    pub fn build(
        settings: &[IdentitySettings],
        keyvault: Option<&KeyVaultSettings>,
        (rereader, counters): (&Rereader, &Counters),
        earlier: Option<&Self>,
    ) -> Result<Self, TrustError> {
        let control = rereader.control();
        let slots = grants::slots(settings, keyvault, control, counters);
        let mut slots = slots.watched_by(rereader.watch());
        let is_helper = |identity: &&IdentitySettings| identity.role == IdentityRole::Helps;
        let helpers: Vec<_> = settings.iter().filter(is_helper).cloned().collect();
        // An identity may need any of the helpers, and its secrets may be in a vault.
        let earlier =
            earlier.filter(|earlier| earlier.helpers == helpers && earlier.keyvault.as_ref() == keyvault);
        if let Some(earlier) = earlier {
            slots.reuse_vaults(&earlier.vaults);
        }
        let mut identities = HashMap::new();
        let mut seals = HashMap::new();
        for settings in settings {
            if settings.role == IdentityRole::Helps {
                continue;
            }
            let name = &settings.name;
            let known = earlier.and_then(|earlier| earlier.identity(name));
            let identity = match known.filter(|known| *known.settings == *settings) {
                Some(known) => {
                    let seal = earlier.and_then(|earlier| earlier.seals.get(name));
                    seals.extend(seal.map(|seal| (name.clone(), seal.clone())));
                    known.clone()
                }
                None => Identity::build(settings, &mut slots)?,
            };
            identities.insert(name.clone(), identity);
        }
        for place in keyvault.iter().flat_map(|keyvault| &keyvault.at_start) {
            slots.vault(place)?;
        }
        let made = slots.sealed();
        seals.extend(made.map(|(name, store, seal)| (name.clone(), Arc::new(Seal::new(store, seal)))));
        Ok(Self {
            identities,
            helpers,
            keyvault: keyvault.cloned(),
            vaults: slots.vaults().clone(),
            seals,
            rereader: rereader.with(slots.vaults().clone()),
            counters: counters.clone(),
        })
    }

    /// Fetches and renews the tokens from now on.
    pub fn start(&self) {
        for (name, seal) in &self.seals {
            seal.follow(name, &self.rereader);
        }
        for identity in self.identities.values() {
            if identity.minder.get().is_none() {
                let settings = &identity.settings;
                for note in settings.notes() {
                    tracing::info!(identity = %settings.name, "identity {}: {note}", settings.name);
                }
            }
            identity.start(self.rereader.control());
        }
        self.rereader.watch().look();
    }

    /// What looks at the places of certificates, addresses and other secrets for as long as the gateway runs.
    pub fn rereader(&self) -> &Rereader {
        &self.rereader
    }

    pub fn identity(&self, name: &IdentityName) -> Option<&Identity> {
        self.identities.get(name)
    }

    /// All identities, in no order.
    pub fn identities(&self) -> impl Iterator<Item = &Identity> {
        self.identities.values()
    }

    /// What the credentials of an identity have left, as far as their ends are known.
    pub fn lives(&self, name: &IdentityName) -> Vec<Life> {
        self.rereader.watch().lives(name.as_str())
    }

    /// Writes age and remaining life of every token, and what the credentials have left, into the gauges.
    pub fn gauge(&self) {
        self.rereader.watch().gauge(&self.counters);
        for identity in self.identities.values() {
            identity.slot.gauge();
        }
    }

    /// Removes the gauges of identities that `later` settings do not have.
    pub fn clear_gauges(&self, later: &Self) {
        let gone = |name: &&IdentityName| !later.identities.contains_key(*name);
        for name in self.identities.keys().filter(gone) {
            let identity = name.as_str().into();
            let labels = IdentityLabels { identity };
            self.counters.token_expires_in.remove(&labels);
            self.counters.token_age.remove(&labels);
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
