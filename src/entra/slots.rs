//! Slots for tokens, one for each identity and scope, made when somebody first needs one: a route its identity's own scope,
//! an application the token of the managed identity that vouches for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::runtime::Handle;

use crate::config::IdentitySettings;
use crate::config::KeyVaultSettings;
use crate::config::SecretSource;
use crate::config::TrustError;
use crate::config::VaultReference;
use crate::counters::Counters;
use crate::entra::cache::Slot;
use crate::entra::expiry::Watch;
use crate::entra::grant;
use crate::entra::secret::Held;
use crate::entra::secret::SecretName;
use crate::entra::secret::Shown;
use crate::entra::vault::Vault;
use crate::model::IdentityName;

/// Makes slots out of the settings of all identities, and what they share.
pub(super) struct Slots<'a> {
    settings: &'a [IdentitySettings],
    keyvault: Option<&'a KeyVaultSettings>,
    control: &'a Handle,
    counters: &'a Counters,
    watch: Arc<Watch>,
    made: HashMap<(IdentityName, String), Arc<Slot>>,
    vaults: HashMap<String, Arc<Vault>>,
    held: HashMap<(IdentityName, SecretName), Arc<Held>>,
}

impl<'a> Slots<'a> {
    pub(super) fn new(
        settings: &'a [IdentitySettings],
        keyvault: Option<&'a KeyVaultSettings>,
        control: &'a Handle,
        counters: &'a Counters,
    ) -> Self {
        Self {
            settings,
            keyvault,
            control,
            counters,
            watch: Arc::default(),
            made: HashMap::new(),
            vaults: HashMap::new(),
            held: HashMap::new(),
        }
    }

    /// Who watches the ends of the credentials that were made here.
    pub(super) fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// The slot for tokens of this identity and scope. It fetches when it is asked; whoever wants renewal ahead spawns
    /// its minder.
    ///
    /// # Errors
    /// When there is no certificate authority to trust.
    pub(super) fn slot(&mut self, identity: &IdentitySettings, scope: &str) -> Result<Arc<Slot>, TrustError> {
        let key = (identity.name.clone(), scope.to_owned());
        if let Some(slot) = self.made.get(&key) {
            return Ok(slot.clone());
        }
        // Whom it needs is made on the way; the check of the settings has refused circles.
        let fetch = grant::fetcher(identity, scope, self)?;
        let slot = Slot::new(
            identity.name.clone(),
            fetch,
            self.control.clone(),
            self.counters.clone(),
        );
        self.made.insert(key, slot.clone());
        Ok(slot)
    }

    /// The same for an identity of this name, if there is one.
    ///
    /// # Errors
    /// When there is no certificate authority to trust.
    pub(super) fn slot_of(
        &mut self,
        name: &IdentityName,
        scope: &str,
    ) -> Result<Option<Arc<Slot>>, TrustError> {
        let settings = self.settings;
        let Some(identity) = settings.iter().find(|identity| identity.name == *name) else {
            return Ok(None);
        };
        self.slot(identity, scope).map(Some)
    }

    /// The vaults of the cloud in which this one is; none if nobody reads vaults.
    ///
    /// # Errors
    /// When there is no certificate authority to trust.
    pub(super) fn vault(&mut self, place: &VaultReference) -> Result<Option<Arc<Vault>>, TrustError> {
        let Some(settings) = self.keyvault else {
            return Ok(None);
        };
        let scope = place.scope();
        if let Some(vault) = self.vaults.get(&scope) {
            return Ok(Some(vault.clone()));
        }
        let reader = self.slot(&settings.identity, &scope)?;
        let vault = Arc::new(Vault::new(settings, reader)?);
        self.vaults.insert(scope, vault.clone());
        Ok(Some(vault))
    }

    /// A secret of an identity, kept up to date once for all scopes.
    ///
    /// # Errors
    /// When the vault of a secret has no certificate authority to trust.
    pub(super) fn held(
        &mut self,
        identity: &IdentityName,
        credential: SecretName,
        source: &SecretSource,
        expires: Option<SystemTime>,
    ) -> Result<Arc<Held>, TrustError> {
        let key = (identity.clone(), credential);
        if let Some(held) = self.held.get(&key) {
            return Ok(held.clone());
        }
        let vault = match source.vault() {
            Some(place) => self.vault(place)?,
            None => None,
        };
        // A part of a certificate ends with it, and that is watched by itself.
        let dated = (credential.shown != Shown::Unsaid)
            .then(|| self.watch.add(identity.as_str(), &credential.name(), expires));
        let held = Held::new(identity.as_str(), credential, source, vault, expires, dated);
        let held = Arc::new(held);
        self.held.insert(key, held.clone());
        Ok(held)
    }
}
