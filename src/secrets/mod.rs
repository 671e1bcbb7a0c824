//! Secrets that may change while the gateway runs: held, looked up, followed in files and key vaults, watched until they
//! expire. Tokens for vaults are given by a closure; this room knows no identities.

mod desk;
mod expiry;
mod held;
mod owner;
mod rereading;
mod vault;

pub(crate) use desk::{Desk, Stuck};
pub use expiry::Life;
pub(crate) use expiry::{Dated, Watch, step_to};
pub(crate) use held::{Held, Renewed, SecretError, SecretName, Shown};
pub use owner::SecretOwner;
pub use rereading::{Followed, Following, Rereader, Taken, Verdict};
pub(crate) use vault::{Bearer, NoBearer, Vault};
pub use vault::{VAULT, VaultError};
