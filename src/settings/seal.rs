//! Validates the secret that seals the store of a sign-in, at startup and whenever the secret is replaced.

use crate::model::Secret;

/// Minimum length of a seal: anyone who has the sealed store must not be able to guess it.
const SEAL_BYTES_MIN: usize = 16;

/// Whether a store may be sealed with this secret.
pub fn check_seal(seal: &Secret) -> Result<(), &'static str> {
    if seal.expose().len() < SEAL_BYTES_MIN {
        return Err("the seal has fewer than 16 bytes and could be guessed");
    }
    Ok(())
}
