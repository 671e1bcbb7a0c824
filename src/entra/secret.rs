//! A secret that may be replaced while the gateway runs. The last good value serves while its source cannot be read;
//! a change is logged once, with the end of a digest and never a part of the value.

use std::sync::Mutex;
use std::sync::PoisonError;

use aws_lc_rs::digest;

use crate::config::SecretSource;
use crate::model::Secret;

/// A secret and its source.
pub(super) struct Held {
    identity: String,
    /// What it is called in the log: `client secret`.
    what: &'static str,
    source: SecretSource,
    shown: Shown,
    current: Mutex<Secret>,
}

/// What the log shows of a new value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// The end of a digest.
    DigestEnd,
    /// Nothing.
    Nothing,
}

/// What reading a secret again came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewed {
    /// It is another one now.
    Changed,
    /// It is the same, or could not be read.
    Same,
}

impl Held {
    pub(super) fn new(identity: &str, what: &'static str, source: &SecretSource) -> Self {
        Self {
            identity: identity.to_owned(),
            what,
            current: Mutex::new(source.known().clone()),
            source: source.clone(),
            shown: Shown::DigestEnd,
        }
    }

    /// A secret that a person chose. Even a part of its digest would help to guess it, so the log shows none.
    pub(super) fn guessable(identity: &str, what: &'static str, source: &SecretSource) -> Self {
        Self {
            shown: Shown::Nothing,
            ..Self::new(identity, what, source)
        }
    }

    /// The value that is known.
    pub(super) fn value(&self) -> Secret {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Looks whether the source has another one.
    pub(super) async fn renew(&self) -> Renewed {
        let source = self.source.clone();
        let read = tokio::task::spawn_blocking(move || source.read_again()).await;
        let (identity, what) = (&self.identity, self.what);
        let secret = match read {
            Ok(Ok(secret)) => secret,
            Ok(Err(why)) => {
                tracing::warn!(%identity, "the {what} of identity {identity} cannot be read again, the last one serves on: {why}");
                return Renewed::Same;
            }
            // The runtime is going down.
            Err(_) => return Renewed::Same,
        };
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.same_as(secret.expose()) {
            return Renewed::Same;
        }
        let ending = match self.shown {
            Shown::DigestEnd => format!(", id ending {}", ending(&secret)),
            Shown::Nothing => String::new(),
        };
        *current = secret;
        drop(current);
        tracing::info!(%identity, "{what} of identity {identity} replaced{ending}");
        Renewed::Changed
    }
}

/// The end of a digest: it tells two secrets apart and gives nothing of them away.
fn ending(secret: &Secret) -> String {
    let digest = digest::digest(&digest::SHA256, secret.expose().as_bytes());
    let end = digest.as_ref().last_chunk::<2>().copied().unwrap_or_default();
    format!("{:04x}", u16::from_be_bytes(end))
}
