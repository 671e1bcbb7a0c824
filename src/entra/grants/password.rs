//! Tokens for an account's user name and password (RFC 6749 section 4.3). A password that Entra refused is not sent again
//! before it has changed, because each try counts towards the account's lock; nor is one whose tries have no answer.

use std::sync::Arc;

use crate::entra::answer::{Granted, TokenError};
use crate::entra::application::Application;
use crate::entra::failure::{PASSWORD_WAITS, Trouble};
use crate::entra::grant::{Asked, Grant};
use crate::entra::grants::bar::Bar;
use crate::entra::grants::tries::{Account, Unheard};
use crate::entra::refusal::RefusalKind;
use crate::entra::refused::Refusal;
use crate::entra::slots::Slots;
use crate::model::{FixedBy, IdentityName};
use crate::outbound::TrustError;
use crate::secrets::{Held, SecretName, Shown};
use crate::settings::SecretSource;

const PASSWORD: SecretName = SecretName {
    what: "password",
    number: 1,
    shown: Shown::Nothing,
};

pub(crate) struct PasswordCall {
    application: Application,
    user: String,
    password: Arc<Held>,
    /// What has to happen before a refused password is sent again.
    until: String,
    identity: String,
    account: Arc<Account>,
    /// What was refused to the application in front of a good password, which others may use for the account.
    own: Bar,
}

impl PasswordCall {
    /// Prepares the questions, and says at every start what is wrong with asking in this way.
    pub(crate) fn new(
        application: Application,
        user: &str,
        password: &SecretSource,
        name: &IdentityName,
        slots: &mut Slots<'_>,
    ) -> Result<Self, TrustError> {
        tracing::warn!(
            identity = %name,
            "identity {name} signs in with a user name and password: the gateway holds the password, the account can \
             have no second factor, and Microsoft discourages this grant; prefer an application's identity, or \
             `flowgate login`"
        );
        let until = match password.file().is_some() || password.vault().is_some() {
            true => format!("{} holds another one", password.place()),
            false => "the gateway is started with another one".to_owned(),
        };
        Ok(Self {
            identity: name.as_str().to_owned(),
            account: slots.account(application.endpoint.url(), user),
            own: Bar::default(),
            application,
            user: user.to_owned(),
            password: slots.held(name, PASSWORD, password, None)?,
            until,
        })
    }

    /// Asks once, unless the same password was refused a short while ago, or the last tries had no answer.
    async fn ask_once(&self) -> Result<Granted, TokenError> {
        let _turn = self.account.turn().await;
        // A password that was changed must not be tried in its old form first: the try would count.
        self.password.renew().await;
        let password = self.password.value().await?;
        let mut bars = [&self.account.bar, &self.own].into_iter();
        if let Some(error) = bars.find_map(|bar| bar.standing(&password)) {
            return Err(error);
        }
        if let Some(unheard) = self.account.unheard() {
            return Err(self.waiting(unheard));
        }
        let pairs = [
            ("grant_type", "password"),
            ("username", self.user.as_str()),
            ("password", password.expose()),
        ];
        self.application.endpoint.take_arrived();
        let answer = self.application.ask_with(&pairs).await;
        let arrived = self.application.endpoint.take_arrived();
        match &answer {
            // It was never sent.
            _ if !arrived => {}
            Err(error) if error.is_silence() => {
                self.account.lost();
                if let Some(unheard) = self.account.unheard() {
                    return Err(self.waiting(unheard));
                }
            }
            _ => self.account.heard(),
        }
        let Err(TokenError::Refused(mut refused)) = answer else {
            return answer;
        };
        if refused.refusal.kind != RefusalKind::InvalidGrant {
            return Err(TokenError::Refused(refused));
        }
        let bar = match is_of_application(&refused.refusal) {
            true => &self.own,
            false => &self.account.bar,
        };
        refused.sentence.push_str(&format!(
            " Lest the account be locked, this password is not sent again before {} or an hour has passed.",
            self.until
        ));
        let error = TokenError::Refused(refused);
        bar.raise(&password, error.clone());
        Err(error)
    }

    fn waiting(&self, unheard: Unheard) -> TokenError {
        let seen = format!("{} tries in a row had no answer", unheard.tries);
        let minutes = (unheard.pause.as_secs() / 60).to_string();
        let values = [
            ("minutes", minutes.as_str()),
            ("authority", self.application.endpoint.url()),
        ];
        let trouble = Trouble::new(PASSWORD_WAITS, seen).filled(&values);
        let failure = trouble.of(&self.identity, "password of its account", Some(unheard.left));
        TokenError::Platform(Box::new(failure))
    }
}

impl Grant for PasswordCall {
    fn ask(&self) -> Asked<'_> {
        Box::pin(self.ask_once())
    }
}

/// Whether a refusal is about the application that asks, or about what is asked for: another one may be let in with the same
/// password. What is not known is taken for the account's.
fn is_of_application(refusal: &Refusal) -> bool {
    // A policy that wants a second factor is one for some applications.
    refusal.row.fixed_by == FixedBy::TenantAdmin || matches!(refusal.number, Some(50074 | 50076 | 50079))
}
