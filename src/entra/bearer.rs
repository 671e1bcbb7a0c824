//! What the secrets room gets from an identity, a token for key vaults, and what it gives back, a secret or an error.

use std::sync::Arc;

use crate::entra::answer::{TokenError, UNREACHABLE};
use crate::entra::cache::{Forgotten, Slot};
use crate::secrets::{Bearer, NoBearer, SecretError};

pub(crate) fn bearer(slot: Arc<Slot>) -> Bearer {
    Arc::new(move |refused| {
        let slot = slot.clone();
        Box::pin(async move {
            if let Some(token) = slot.at_hand()
                && refused.is_some_and(|refused| refused == *token.header())
                && slot.forget(&token) == Forgotten::TooSoon
            {
                return Ok(None);
            }
            match slot.token().await {
                Ok(token) => Ok(Some(token.header().clone())),
                Err(unavailable) => Err(NoBearer {
                    outlook: unavailable.error.outlook(),
                    error: unavailable.error,
                    wait: unavailable.wait,
                }),
            }
        })
    })
}

impl From<SecretError> for TokenError {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::Vault(error) => Self::Vault(error),
            SecretError::Unreadable(why) => Self::own(UNREACHABLE, why),
            SecretError::Stopping => Self::own(UNREACHABLE, "the gateway is stopping"),
        }
    }
}
