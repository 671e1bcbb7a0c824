//! Slots for tokens, one for each identity and scope, made when somebody first needs one: a route its identity's own scope,
//! an application the token of the managed identity that vouches for it.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::config::IdentitySettings;
use crate::config::TrustError;
use crate::counters::Counters;
use crate::entra::cache::Slot;
use crate::entra::grant;
use crate::model::IdentityName;

/// Makes slots out of the settings of all identities.
pub(super) struct Slots<'a> {
    settings: &'a [IdentitySettings],
    made: HashMap<(IdentityName, String), Arc<Slot>>,
    control: &'a Handle,
    counters: &'a Counters,
}

impl<'a> Slots<'a> {
    pub(super) fn new(settings: &'a [IdentitySettings], control: &'a Handle, counters: &'a Counters) -> Self {
        Self {
            settings,
            made: HashMap::new(),
            control,
            counters,
        }
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
}
