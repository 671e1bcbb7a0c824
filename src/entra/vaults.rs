//! Key vaults that are read with the token of an identity by somebody who does not serve: the doctor, and the start.

use std::collections::HashMap;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::counters::Counters;
use crate::entra::grants;
use crate::entra::slots::Slots;
use crate::model::Outlook;
use crate::outbound::TrustError;
use crate::secrets::{Vault, VaultError};
use crate::settings::{IdentitySettings, KeyVaultSettings, VaultReference, VaultValue};

/// A vault that is away for a moment does not keep the gateway from starting.
const START_TRIES: u32 = 3;
const START_PAUSE: Duration = Duration::from_secs(2);

/// Reads secrets one by one, each once and without patience.
pub struct VaultReader<'a> {
    slots: Slots<'a>,
}

impl<'a> VaultReader<'a> {
    pub fn new(
        settings: &'a KeyVaultSettings,
        identities: &'a [IdentitySettings],
        control: &'a Handle,
        counters: &'a Counters,
    ) -> Self {
        Self {
            slots: grants::slots(identities, Some(settings), control, counters),
        }
    }

    /// Reads a secret; nothing if nobody reads vaults.
    pub async fn read(&mut self, place: &VaultReference) -> Result<Option<VaultValue>, VaultsError> {
        let Some(vault) = self.slots.vault(place)? else {
            return Ok(None);
        };
        Ok(Some(vault.read(place).await?))
    }
}

/// Why the secrets that are needed at the start could not be read.
#[derive(Debug, thiserror::Error)]
pub enum VaultsError {
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// Reads the secrets that are required before anything can be served. Transient failures are retried a few times.
pub async fn read_vaults(
    settings: &KeyVaultSettings,
    identities: &[IdentitySettings],
    held: &HashMap<VaultReference, VaultValue>,
) -> Result<HashMap<VaultReference, VaultValue>, VaultsError> {
    let control = Handle::current();
    let counters = Counters::new();
    let mut slots = grants::slots(identities, Some(settings), &control, &counters);
    let mut values = HashMap::new();
    for place in &settings.at_start {
        if values.contains_key(place) {
            continue;
        }
        let Some(vault) = slots.vault(place)? else { break };
        let value = match (read_patiently(&vault, place).await, held.get(place)) {
            (Ok(value), _) => value,
            (Err(error), Some(held)) if error.outlook != Outlook::AfterFix => {
                tracing::warn!("{error}; the value that was read before stays in use");
                held.clone()
            }
            (Err(error), _) => return Err(error.into()),
        };
        values.insert(place.clone(), value);
    }
    Ok(values)
}

async fn read_patiently(vault: &Vault, place: &VaultReference) -> Result<VaultValue, VaultError> {
    let mut tries = 1;
    loop {
        match vault.read(place).await {
            Err(error) if error.outlook != Outlook::AfterFix && tries < START_TRIES => {
                tries += 1;
                tokio::time::sleep(START_PAUSE).await;
            }
            answer => return answer,
        }
    }
}
