//! Keeps a refused credential from being shown again: a wrong password would lock its account, and a refresh token that
//! has ended never comes back. Another credential passes at once.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::entra::answer::TokenError;
use crate::model::{Secret, locked};

/// How long a refused credential is kept back. Entra's smart lockout begins at ten wrong passwords and starts with a
/// minute; one try an hour stays far below both ("Protect user accounts from attacks with Microsoft Entra smart
/// lockout").
pub(crate) const BAR_PAUSE: Duration = Duration::from_secs(3600);

#[derive(Default)]
pub(crate) struct Bar {
    refused: Mutex<Option<RefusedCredential>>,
}

struct RefusedCredential {
    credential: Secret,
    error: TokenError,
    until: Instant,
}

impl Bar {
    /// Why this credential must not be shown now.
    pub(crate) fn standing(&self, credential: &Secret) -> Option<TokenError> {
        let refused = locked(&self.refused);
        let refused = refused.as_ref()?;
        let applies = Instant::now() < refused.until && refused.credential.same_as(credential.expose());
        applies.then(|| refused.error.clone())
    }

    /// Keeps this credential back for [`BAR_PAUSE`].
    pub(crate) fn raise(&self, credential: &Secret, error: TokenError) {
        let mut refused = locked(&self.refused);
        *refused = Some(RefusedCredential {
            credential: credential.clone(),
            error,
            until: Instant::now() + BAR_PAUSE,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{BAR_PAUSE, Bar};
    use crate::entra::answer::EMPTY;
    use crate::model::Secret;

    #[tokio::test(start_paused = true)]
    async fn a_refused_credential_is_kept_back_for_an_hour_and_another_one_is_not() {
        let bar = Bar::default();
        let (old, new) = (Secret::new("old"), Secret::new("new"));
        assert!(bar.standing(&old).is_none());
        bar.raise(&old, EMPTY.into());
        assert!(bar.standing(&old).is_some());
        assert!(bar.standing(&new).is_none());
        tokio::time::advance(BAR_PAUSE - Duration::from_secs(1)).await;
        assert!(bar.standing(&old).is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(bar.standing(&old).is_none());
        assert!(BAR_PAUSE >= Duration::from_secs(3600));
    }
}
