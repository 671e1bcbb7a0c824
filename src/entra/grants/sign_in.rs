//! Tokens for the refresh token of an account that a person signed in (RFC 6749 section 6). The store is read before each
//! question, so a new sign-in is taken up without a restart; each new refresh token goes into it before the old one is
//! forgotten.

use std::sync::{Arc, Mutex};

use crate::entra::answer::{Granted, NO_TOKEN, NOT_SIGNED_IN, TokenError};
use crate::entra::application::Application;
use crate::entra::grant::{Asked, Grant};
use crate::entra::grants::bar::Bar;
use crate::entra::refusal::RefusalKind;
use crate::entra::refused::Refusal;
use crate::entra::store::{Kept, Protection, Replaced, Store, StoreError};
use crate::model::claims::printable;
use crate::model::{IdentityName, Outlook, locked};
use crate::secrets::Desk;
use crate::settings::{GrantSettings, IdentitySettings};

/// Refresh tokens tried for one request: another gateway or a new sign-in may replace the stored one in between.
const TRIES_MAX: usize = 3;
const ACCOUNT_CHARS_MAX: usize = 200;

/// Who signed in, and how that is protected, or why there is nothing to be had.
pub type SignedInState = Result<(String, Protection), StoreError>;

/// Looks into the store of an identity, if it has one, without using what it finds. Blocks on the file.
pub fn state_of(identity: &IdentitySettings) -> Option<SignedInState> {
    let GrantSettings::SignIn {
        endpoint,
        store,
        seal,
        ..
    } = &identity.grant
    else {
        return None;
    };
    let store = Store::new(store, seal.as_ref(), &endpoint.client_id);
    let account = |kept: Kept| printable(&kept.account, ACCOUNT_CHARS_MAX);
    Some(store.read().map(|kept| (account(kept), store.protection())))
}

/// The scope that also asks for a refresh token (OpenID Connect Core section 11).
pub(crate) fn lasting(scope: &str) -> String {
    format!("{scope} offline_access")
}

pub(crate) struct SignInCall {
    application: Application,
    store: Arc<Store>,
    reads: Desk,
    /// Apart from reading: only a write waits for a lock that somebody else may hold.
    writes: Desk,
    identity: String,
    bar: Bar,
    unwritten: Mutex<Option<Unwritten>>,
}

#[derive(Clone)]
struct Unwritten {
    new: Kept,
    /// What the store still holds. When it holds something else, somebody signed in anew.
    stored: Kept,
}

impl SignInCall {
    pub(crate) fn new(application: Application, store: Arc<Store>, name: &IdentityName) -> Self {
        Self {
            application,
            store,
            reads: Desk::default(),
            writes: Desk::default(),
            identity: name.as_str().to_owned(),
            bar: Bar::default(),
            unwritten: Mutex::new(None),
        }
    }

    /// Asks with what is stored, and again when it is refused and something else is stored by then.
    async fn ask_once(&self) -> Result<Granted, TokenError> {
        let mut last = None;
        for _ in 0..TRIES_MAX {
            let stored = self.stored().await?;
            let unwritten = self.unwritten(&stored);
            let used = unwritten.as_ref().map_or(&stored, |unwritten| &unwritten.new);
            if let Some(error) = self.bar.standing(&used.token) {
                return Err(error);
            }
            let pairs = [
                ("grant_type", "refresh_token"),
                ("refresh_token", used.token.expose()),
            ];
            match self.application.ask_with(&pairs).await {
                Ok(granted) => {
                    self.keep(&granted, used, &stored).await;
                    return Ok(granted);
                }
                Err(TokenError::Refused(mut refused)) if is_over(&refused.refusal) => {
                    refused.sentence.push_str(&format!(" {}", self.remedy()));
                    let error = TokenError::Refused(refused);
                    self.bar.raise(&used.token, error.clone());
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or(NO_TOKEN.into()))
    }

    async fn stored(&self) -> Result<Kept, TokenError> {
        let store = self.store.clone();
        let why = match self.reads.work(move || store.read()).await {
            Ok(Ok(kept)) => return Ok(kept),
            Ok(Err(StoreError::Missing)) => "nobody has signed in yet".to_owned(),
            Ok(Err(StoreError::Unusable(why))) => {
                // Another gateway may have taken up a new seal before this one.
                self.store.seal_wanted().notify_one();
                why
            }
            Err(stuck) => stuck.to_string(),
        };
        let (identity, path, remedy) = (&self.identity, self.store.path().display(), self.remedy());
        let why = format!(
            "No token for identity {identity}: its sign-in is kept in file {path}, and {why}. {remedy}"
        );
        Err(TokenError::own(NOT_SIGNED_IN, why))
    }

    fn unwritten(&self, stored: &Kept) -> Option<Unwritten> {
        let mut unwritten = locked(&self.unwritten);
        let is_last = unwritten
            .as_ref()
            .is_some_and(|unwritten| unwritten.stored.token.same_as(stored.token.expose()));
        if !is_last {
            *unwritten = None;
        }
        unwritten.clone()
    }

    /// Puts a new refresh token into the store; Entra may leave it out, and then the old one stays good.
    async fn keep(&self, granted: &Granted, used: &Kept, stored: &Kept) {
        let token = granted.refresh_token.as_ref().unwrap_or(&used.token);
        if token.same_as(stored.token.expose()) {
            return;
        }
        let new = Kept {
            token: token.clone(),
            account: used.account.clone(),
        };
        let (store, writing, old) = (self.store.clone(), new.clone(), stored.clone());
        let write = move || store.replace(&writing, Some(&old.token));
        let why = match self.writes.work(write).await {
            Ok(Ok(Replaced::Yes)) => None,
            Ok(Ok(Replaced::ByAnother)) => {
                let identity = &self.identity;
                tracing::info!(
                    %identity,
                    "the sign-in of identity {identity} was replaced by another process; the \
                     replacement is kept"
                );
                None
            }
            Ok(Err(why)) => Some(why),
            Err(stuck) => Some(stuck.to_string()),
        };
        let mut unwritten = locked(&self.unwritten);
        let Some(why) = why else {
            *unwritten = None;
            return;
        };
        *unwritten = Some(Unwritten {
            new,
            stored: stored.clone(),
        });
        drop(unwritten);
        let (identity, path) = (&self.identity, self.store.path().display());
        tracing::warn!(
            %identity,
            "the new refresh token of identity {identity} cannot be written to {path}: {why}; this process goes on with \
             it, but after a restart somebody may have to sign in again: the operator must make the folder writable"
        );
    }

    fn remedy(&self) -> String {
        format!("Sign in again with: flowgate login --identity {}", self.identity)
    }
}

impl Grant for SignInCall {
    fn ask(&self) -> Asked<'_> {
        Box::pin(self.ask_once())
    }
}

/// Whether the sign-in is over: a person has to sign in again.
fn is_over(refusal: &Refusal) -> bool {
    let needs_person = matches!(
        refusal.kind,
        RefusalKind::InvalidGrant | RefusalKind::InteractionRequired
    );
    needs_person && refusal.outlook == Outlook::AfterFix
}
