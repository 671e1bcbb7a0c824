//! A certificate that may be replaced while the gateway runs. The last valid one is used while its replacement cannot be;
//! a change is logged once, with the thumbprint that Entra also shows.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use crate::entra::answer::{CREDENTIAL, TokenError, UNSIGNED};
use crate::entra::endpoint::Endpoint;
use crate::entra::proof::assertion::Assertion;
use crate::material::SigningCertificate;
use crate::model::{IdentityName, Secret, clock, locked};
use crate::secrets::{Dated, Desk, Held, Renewed, Stuck};
use crate::settings::ClientCertificate;

pub(crate) struct HeldCertificate {
    identity: String,
    settings: ClientCertificate,
    held: HeldParts,
    dated: Arc<Dated>,
    state: Mutex<State>,
    /// One looks at a time.
    turn: tokio::sync::Mutex<()>,
    desk: Desk,
}

pub(crate) struct HeldParts {
    pub(crate) file: Arc<Held>,
    pub(crate) key: Option<Arc<Held>>,
    pub(crate) password: Option<Arc<Held>>,
}

struct State {
    current: Option<Arc<SigningCertificate>>,
    /// What was wrong with its replacement, as logged.
    logged: Option<String>,
}

impl HeldCertificate {
    pub(crate) fn new(
        identity: &IdentityName,
        settings: &ClientCertificate,
        held: HeldParts,
        dated: Arc<Dated>,
    ) -> Self {
        let current = settings.known().cloned();
        Self {
            identity: identity.as_str().to_owned(),
            settings: settings.clone(),
            held,
            dated,
            state: Mutex::new(State {
                current,
                logged: None,
            }),
            turn: tokio::sync::Mutex::default(),
            desk: Desk::default(),
        }
    }

    /// The current certificate; nothing while it is stored in a vault that was not read yet.
    fn value(&self) -> Option<Arc<SigningCertificate>> {
        locked(&self.state).current.clone()
    }

    /// A new assertion for this endpoint, signed with the certificate as it is stored now, and that certificate. It is
    /// read each time because the old one may stay valid for years, so no refusal would reveal that it was replaced.
    pub(crate) async fn assertion(
        &self,
        endpoint: &Endpoint,
    ) -> Result<(Secret, Arc<SigningCertificate>), TokenError> {
        let looked = self.look().await;
        let Some(certificate) = self.value() else {
            return Err(looked.err().unwrap_or(UNSIGNED.into()));
        };
        let assertion = Assertion {
            client_id: endpoint.client_id(),
            audience: endpoint.url(),
            algorithm: self.settings.algorithm,
            chain: self.settings.chain,
        };
        let signed = assertion.sign(&certificate, clock::wall());
        let signed = signed.ok_or(UNSIGNED)?;
        Ok((signed, certificate))
    }

    pub(crate) fn ends(&self) -> Option<SystemTime> {
        self.value().map(|certificate| certificate.ends())
    }

    /// Whether Entra accepts it at this moment, by its own dates.
    pub(crate) fn is_valid(&self, now: SystemTime) -> bool {
        self.value()
            .is_some_and(|certificate| is_valid(&certificate, now))
    }

    /// What it is, so that it can be found in Entra: thumbprint, dates, place.
    pub(crate) fn describe(&self) -> String {
        let place = self.settings.place();
        match self.value() {
            Some(certificate) => format!(
                "the certificate with the thumbprint {}, valid from {} to {}, from {place}",
                certificate.thumbprint(),
                certificate.begins_on(),
                certificate.ends_on()
            ),
            None => format!("the certificate from {place}"),
        }
    }

    /// Looks at once whether there is another one than this; somebody else may have found it already.
    pub(crate) async fn renew(&self, last: &Arc<SigningCertificate>) -> Renewed {
        let HeldParts { file, key, password } = &self.held;
        let parts = [Some(file), key.as_ref(), password.as_ref()];
        for held in parts.into_iter().flatten() {
            held.renew().await;
        }
        // A failure was logged, and the current certificate stays.
        let _ = self.look().await;
        match self.value() {
            Some(current) if !Arc::ptr_eq(&current, last) => Renewed::Changed,
            _ => Renewed::Same,
        }
    }

    /// Takes up what its source has, as far as that can be used.
    async fn look(&self) -> Result<(), TokenError> {
        let _turn = self.turn.lock().await;
        let file = self.held.file.value().await?;
        let key = value_of(self.held.key.as_ref()).await?;
        let password = value_of(self.held.password.as_ref()).await?;
        let (settings, last) = (self.settings.clone(), self.value());
        let read = move || settings.read(&file, key.as_ref(), password.as_ref(), last.as_deref());
        // A PFX file says itself how much work it is to open.
        let read = match self.desk.work(read).await {
            Err(Stuck::Late) => Err(format!(
                "{}: it takes too long to open; convert it to PEM",
                self.settings.place()
            )),
            Err(Stuck::Over) => Ok(None),
            Ok(read) => read,
        };
        match read {
            Ok(Some(certificate)) => {
                self.take(certificate);
                Ok(())
            }
            Err(why) => {
                let identity = &self.identity;
                if self.is_news(&why) {
                    tracing::warn!(%identity, "the certificate of identity {identity} cannot be read again, the last one serves on: {why}");
                }
                Err(TokenError::own(CREDENTIAL, why))
            }
            // It is the same, or the runtime is going down.
            Ok(None) => {
                locked(&self.state).logged = None;
                Ok(())
            }
        }
    }

    /// Whether this fault of a replacement was not logged before. Without a current certificate it is the failure itself,
    /// which is logged elsewhere.
    fn is_news(&self, why: &str) -> bool {
        let mut state = locked(&self.state);
        let is_known = state.logged.as_deref() == Some(why);
        state.logged = Some(why.to_owned());
        state.current.is_some() && !is_known
    }

    fn take(&self, certificate: SigningCertificate) {
        let (identity, now) = (&self.identity, clock::wall());
        let last = self.value();
        if last.as_ref().is_some_and(|last| is_valid(last, now)) && !is_valid(&certificate, now) {
            let (from, until) = (certificate.begins_on(), certificate.ends_on());
            let place = self.settings.place();
            let why = format!("{place} is valid from {from} to {until}");
            if self.is_news(&why) {
                tracing::warn!(%identity, "the certificate of identity {identity} in {why}, the last one serves on");
            }
            return;
        }
        self.dated.set(Some(certificate.ends()));
        let mut state = locked(&self.state);
        state.current = Some(Arc::new(certificate));
        state.logged = None;
        drop(state);
        if last.is_some() {
            tracing::info!(%identity, "certificate of identity {identity} replaced, now {}", self.describe());
        }
    }
}

async fn value_of(held: Option<&Arc<Held>>) -> Result<Option<Secret>, TokenError> {
    match held {
        Some(held) => Ok(Some(held.value().await?)),
        None => Ok(None),
    }
}

fn is_valid(certificate: &SigningCertificate, now: SystemTime) -> bool {
    certificate.begins() <= now && now < certificate.ends()
}
