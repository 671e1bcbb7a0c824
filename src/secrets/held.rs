//! A secret that may be replaced while the gateway runs: in its file, which is looked at whenever the secret is needed, or
//! in its key vault, which is asked once in a while. The last good value serves while its source cannot be read; a change
//! is logged once, with the end of a digest and never a part of the value.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use tokio::time::Instant;

use crate::model::{Secret, locked};
use crate::secrets::desk::{Desk, Stuck};
use crate::secrets::expiry::Dated;
use crate::secrets::owner::SecretOwner;
use crate::secrets::vault::{Vault, VaultError};
use crate::settings::{SecretSource, VaultValue};

/// A vault that failed is not asked again before this time, as long as there is a value that serves.
const AWAY_PAUSE: Duration = Duration::from_secs(60);
/// How often files are looked at while Entra refuses what was read of them.
const LOOK_PERIOD: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SecretName {
    /// What it is called in the log: `client secret`.
    pub(crate) what: &'static str,
    /// Its place among those of its kind, counted from 1.
    pub(crate) number: usize,
    pub(crate) shown: Shown,
}

impl SecretName {
    /// Its name in metrics: `client-secret-1`.
    pub(crate) fn name(self) -> String {
        format!("{}-{}", self.what.replace(' ', "-"), self.number)
    }
}

pub(crate) struct Held {
    holder: SecretOwner,
    what: &'static str,
    source: SecretSource,
    shown: Shown,
    /// The reader, if it is stored in a key vault.
    vault: Option<Arc<Vault>>,
    /// Its expiry according to the settings.
    expires: Option<SystemTime>,
    dated: Option<Arc<Dated>>,
    desk: Desk,
    state: Mutex<State>,
    turn: tokio::sync::Mutex<()>,
}

struct State {
    current: Option<Secret>,
    /// When the source is to be looked at again.
    due: Instant,
    /// Whether the source could not be read last time.
    away: bool,
    /// When the value ends, where its vault knows.
    ends: Option<SystemTime>,
}

/// What the log shows of a new value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Shown {
    /// The end of a digest.
    DigestEnd,
    /// Nothing: even a part of the digest of a secret that a person chose would help to guess it.
    Nothing,
    /// Not even the change: the code that uses it logs more.
    Unsaid,
}

/// What looking for a successor came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renewed {
    Changed,
    /// There is none, or it could not be read.
    Same,
}

/// Why a source could not be read.
#[derive(Debug)]
pub(crate) enum SecretError {
    Vault(Box<VaultError>),
    Unreadable(String),
    /// The runtime is going down.
    Stopping,
}

impl Held {
    pub(crate) fn new(
        holder: SecretOwner,
        credential: SecretName,
        source: &SecretSource,
        vault: Option<Arc<Vault>>,
        expires: Option<SystemTime>,
        dated: Option<Arc<Dated>>,
    ) -> Self {
        // What was read from a vault at the start is good for a period.
        let fresh = vault.as_ref().filter(|_| source.known().is_some());
        let state = State {
            current: source.known().cloned(),
            due: Instant::now() + fresh.map_or(Duration::ZERO, |vault| vault.period()),
            away: false,
            ends: source.expires(),
        };
        Self {
            holder,
            what: credential.what,
            source: source.clone(),
            shown: credential.shown,
            vault,
            expires,
            dated,
            desk: Desk::default(),
            state: Mutex::new(state),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// The same at a desk that it shares with others.
    pub(crate) fn at(mut self, desk: Desk) -> Self {
        self.desk = desk;
        self
    }

    /// The last value that was read.
    pub(crate) fn current(&self) -> Option<Secret> {
        locked(&self.state).current.clone()
    }

    /// When the value ends, as far as it is known.
    pub(crate) fn ends(&self) -> Option<SystemTime> {
        [self.expires, locked(&self.state).ends]
            .into_iter()
            .flatten()
            .min()
    }

    pub(crate) fn is_of_vault(&self) -> bool {
        self.source.vault().is_some()
    }

    /// The value, looked up where that is due.
    pub(crate) async fn value(&self) -> Result<Secret, SecretError> {
        let mut failed = None;
        if self.is_due() {
            let _turn = self.turn.lock().await;
            // Another task may have read it while this one waited.
            if self.is_due() {
                failed = self.read().await.err();
            }
        }
        let current = locked(&self.state).current.clone();
        current.ok_or_else(|| failed.unwrap_or(SecretError::Stopping))
    }

    /// Looks at once what the source has.
    pub(crate) async fn renew(&self) {
        let _turn = self.turn.lock().await;
        // A failure was logged, and the current value stays.
        let _ = self.read().await;
    }

    /// Looks at once whether there is another one than this; somebody else may have found it already.
    pub(crate) async fn renew_from(&self, last: &Secret) -> Renewed {
        self.renew().await;
        match &locked(&self.state).current {
            Some(current) if !current.same_as(last.expose()) => Renewed::Changed,
            _ => Renewed::Same,
        }
    }

    /// Ends when the file of one of these holds something else than what was read of it last.
    pub(crate) async fn changed(all: Vec<Arc<Self>>) {
        let known: Vec<_> = all.iter().map(|held| held.current()).collect();
        loop {
            tokio::time::sleep(LOOK_PERIOD).await;
            for (held, known) in all.iter().zip(&known) {
                let Ok(value) = held.value().await else { continue };
                if known.as_ref().is_none_or(|known| !known.same_as(value.expose())) {
                    return;
                }
            }
        }
    }

    pub(crate) fn is_of_file(&self) -> bool {
        self.source.file().is_some()
    }

    fn is_due(&self) -> bool {
        let state = locked(&self.state);
        state.current.is_none() || Instant::now() >= state.due
    }

    async fn read(&self) -> Result<(), SecretError> {
        let found = match (self.source.vault(), &self.vault, self.source.file()) {
            (Some(place), Some(vault), _) => match vault.read(place).await {
                Ok(value) => Ok((value, None)),
                Err(error) => Err(SecretError::Vault(Box::new(error))),
            },
            (_, _, Some(_)) => self.read_file().await,
            // A variable of a running process cannot change.
            _ => return Ok(()),
        };
        match found {
            Ok((value, remark)) => {
                self.take(value, remark);
                Ok(())
            }
            Err(away) => {
                self.miss(&away);
                Err(away)
            }
        }
    }

    /// The content of the file, and what is unexpected about its place.
    async fn read_file(&self) -> Result<(VaultValue, Option<String>), SecretError> {
        let source = self.source.clone();
        // An empty file is an error here: it is about to be written.
        match self.desk.work(move || source.read_again()).await {
            Ok(Ok((secret, remark))) => Ok((secret.into(), remark)),
            Ok(Err(why)) => Err(SecretError::Unreadable(why)),
            Err(Stuck::Late) => Err(SecretError::Unreadable(format!(
                "{}: {}",
                self.source.place(),
                Stuck::Late
            ))),
            Err(Stuck::Over) => Err(SecretError::Stopping),
        }
    }

    fn take(&self, value: VaultValue, remark: Option<String>) {
        let (holder, what) = (&self.holder, self.what);
        let (identity, route, listener) = (holder.identity(), holder.route(), holder.listener());
        let VaultValue { secret, expires } = value;
        // The first end counts: either side may stop accepting it.
        if let Some(dated) = &self.dated {
            dated.set([self.expires, expires].into_iter().flatten().min());
        }
        let period = self.vault.as_ref().map_or(Duration::ZERO, |vault| vault.period());
        let mut state = locked(&self.state);
        state.due = Instant::now() + period;
        state.ends = expires;
        let back = std::mem::take(&mut state.away);
        let known = state.current.replace(secret.clone());
        drop(state);
        if back {
            let place = self.source.place();
            tracing::info!(identity, route, listener, "{place} can be read again");
        }
        if known.is_none_or(|known| known.same_as(secret.expose())) {
            return;
        }
        if let Some(remark) = remark {
            tracing::warn!(identity, route, listener, "{remark}");
        }
        match self.shown {
            Shown::DigestEnd => {
                let ending = ending(&secret);
                tracing::info!(identity, "{what} of {holder} replaced, id ending {ending}");
            }
            Shown::Nothing => tracing::info!(identity, "{what} of {holder} replaced"),
            Shown::Unsaid => {}
        }
    }

    fn miss(&self, away: &SecretError) {
        let mut state = locked(&self.state);
        let pause = match (&self.vault, away) {
            (Some(vault), SecretError::Vault(error)) => {
                error.retry_after.unwrap_or(AWAY_PAUSE).min(vault.period())
            }
            _ => Duration::ZERO,
        };
        state.due = Instant::now() + pause;
        // Without a value the failure becomes that of the identity, and is logged there.
        if state.current.is_none() || std::mem::replace(&mut state.away, true) {
            return;
        }
        drop(state);
        let (holder, what) = (&self.holder, self.what);
        let (identity, route, listener) = (holder.identity(), holder.route(), holder.listener());
        let why = match away {
            SecretError::Unreadable(why) => why.clone(),
            SecretError::Vault(error) => error.to_string(),
            SecretError::Stopping => return,
        };
        tracing::warn!(
            identity,
            route,
            listener,
            "the {what} of {holder} cannot be read again, the last one serves on: {why}"
        );
    }
}

/// The end of a digest: it distinguishes two secrets without revealing anything about them.
fn ending(secret: &Secret) -> String {
    let digest = digest::digest(&digest::SHA256, secret.expose().as_bytes());
    let end = digest.as_ref().last_chunk::<2>().copied().unwrap_or_default();
    format!("{:04x}", u16::from_be_bytes(end))
}
