//! Tokens for an account's user name and password (RFC 6749 section 4.3). A password that Entra refused is not sent again
//! before it has changed, because each try counts towards the account's lock.

use std::sync::Arc;

use crate::config::SecretSource;
use crate::config::TrustError;
use crate::entra::answer::Granted;
use crate::entra::answer::Refused;
use crate::entra::answer::TokenError;
use crate::entra::bar::Bar;
use crate::entra::endpoint::Endpoint;
use crate::entra::proof::Proof;
use crate::entra::refusal::RefusalKind;
use crate::entra::secret::Held;
use crate::entra::secret::SecretName;
use crate::entra::secret::Shown;
use crate::entra::slots::Slots;
use crate::model::IdentityName;

const PASSWORD: SecretName = SecretName {
    what: "password",
    number: 1,
    shown: Shown::Nothing,
};

/// The questions of one identity.
pub(super) struct PasswordCall {
    endpoint: Endpoint,
    proof: Proof,
    user: String,
    password: Arc<Held>,
    /// What has to happen before a refused password is sent again.
    until: String,
    bar: Bar,
}

impl PasswordCall {
    /// Prepares the questions, and says at every start what is wrong with asking in this way.
    ///
    /// # Errors
    /// When the vault of the password has no certificate authority to trust.
    pub(super) fn new(
        endpoint: Endpoint,
        proof: Proof,
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
            endpoint,
            proof,
            user: user.to_owned(),
            password: slots.held(name, PASSWORD, password, None)?,
            until,
            bar: Bar::default(),
        })
    }

    /// Asks once, unless the same password was refused a short while ago.
    pub(super) async fn ask(&self) -> Result<Granted, TokenError> {
        // A password that was changed must not be tried in its old form first: the try would count.
        self.password.renew().await;
        let password = self.password.value().await?;
        if let Some(error) = self.bar.standing(&password) {
            return Err(error);
        }
        let pairs = [
            ("grant_type", "password"),
            ("username", self.user.as_str()),
            ("password", password.expose()),
        ];
        let answer = self.proof.ask(&self.endpoint, &pairs).await;
        let Err(TokenError::Refused(refused)) = answer else {
            return answer;
        };
        if refused.refusal.kind != RefusalKind::InvalidGrant {
            return Err(TokenError::Refused(refused));
        }
        let error = TokenError::Refused(Box::new(self.last_word(*refused)));
        self.bar.raise(&password, error.clone());
        Err(error)
    }

    fn last_word(&self, refused: Refused) -> Refused {
        let Refused {
            refusal,
            mut sentence,
        } = refused;
        sentence.push_str(&format!(
            " Lest the account be locked, this password is not sent again before {} or an hour has passed.",
            self.until
        ));
        Refused { refusal, sentence }
    }
}
