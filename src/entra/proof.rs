//! How an application proves who it is, whatever it asks for. Where it has several proofs, the next one is tried at once
//! when Entra refuses one, so that a rotation needs no moment of luck.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use crate::config::ClientProof;
use crate::config::ClientSecret;
use crate::entra::answer::Granted;
use crate::entra::answer::TokenError;
use crate::entra::endpoint::Endpoint;
use crate::entra::refusal::RefusalKind;
use crate::entra::secret::Held;
use crate::entra::secret::Renewed;
use crate::model::clock;

/// The proof of one application.
pub(super) enum Proof {
    /// Client secrets.
    Secrets(Secrets),
}

impl Proof {
    pub(super) fn new(settings: &ClientProof, identity: &str) -> Self {
        match settings {
            ClientProof::Secrets(secrets) => Self::Secrets(Secrets::new(secrets, identity)),
        }
    }

    /// Asks for a token with these pairs and what the proof adds to them.
    pub(super) async fn ask(
        &self,
        endpoint: &Endpoint,
        pairs: &[(&str, &str)],
    ) -> Result<Granted, TokenError> {
        match self {
            Self::Secrets(secrets) => secrets.ask(endpoint, pairs).await,
        }
    }
}

/// Client secrets, the one that expires last first; one without a date counts as the newest.
pub(super) struct Secrets {
    list: Vec<(Held, Option<SystemTime>)>,
    /// The one that was accepted last.
    good: AtomicUsize,
}

impl Secrets {
    fn new(settings: &[ClientSecret], identity: &str) -> Self {
        let mut list: Vec<_> = settings
            .iter()
            .map(|secret| {
                (
                    Held::new(identity, "client secret", &secret.source),
                    secret.expires,
                )
            })
            .collect();
        list.sort_by_key(|(_, expires)| {
            let end = expires.and_then(|end| end.duration_since(SystemTime::UNIX_EPOCH).ok());
            std::cmp::Reverse(end.map_or(u64::MAX, |end| end.as_secs()))
        });
        Self {
            list,
            good: AtomicUsize::new(0),
        }
    }

    /// Asks with the secret that was good last, then with each other one. Each is read again once before it is given up.
    async fn ask(&self, endpoint: &Endpoint, pairs: &[(&str, &str)]) -> Result<Granted, TokenError> {
        let mut refused = None;
        for index in self.order() {
            let Some((held, _)) = self.list.get(index) else {
                break;
            };
            for _ in 0..2 {
                let secret = held.value();
                let mut form = vec![("client_secret", secret.expose())];
                form.extend_from_slice(pairs);
                match endpoint.ask(&form).await {
                    Err(TokenError::Refused(why)) if why.refusal.kind == RefusalKind::InvalidClient => {
                        refused = Some(TokenError::Refused(why));
                    }
                    answer => {
                        self.good.store(index, Ordering::Relaxed);
                        return answer;
                    }
                }
                if held.renew().await == Renewed::Same {
                    break;
                }
            }
        }
        Err(refused.unwrap_or(TokenError::NoToken))
    }

    /// All of them, from the one that was good last on. Those whose date has passed come at the end: the date in the
    /// settings may be wrong.
    fn order(&self) -> Vec<usize> {
        let first = self.good.load(Ordering::Relaxed);
        let count = self.list.len();
        let mut order: Vec<_> = (0..count).map(|step| (first + step) % count).collect();
        let now = clock::wall();
        order.sort_by_key(|index| {
            let expires = self.list.get(*index).and_then(|(_, expires)| *expires);
            expires.is_some_and(|end| end <= now)
        });
        order
    }
}
