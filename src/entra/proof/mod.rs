//! How an application proves who it is, whatever it asks for. Where it has several proofs, the next one is tried at once
//! when Entra refuses one, so that a rotation needs no moment of luck.

pub(crate) mod assertion;
pub(crate) mod certificate;
pub(crate) mod federated;

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use crate::entra::answer::{Granted, NO_TOKEN, RefusedToken, TokenError};
use crate::entra::endpoint::Endpoint;
use crate::entra::proof::certificate::HeldCertificate;
use crate::entra::proof::federated::Federated;
use crate::entra::refusal::RefusalKind;
use crate::entra::slots::Slots;
use crate::material::SigningCertificate;
use crate::model::{IdentityName, Secret, clock};
use crate::outbound::TrustError;
use crate::secrets::{Held, Renewed, SecretName, Shown};
use crate::settings::{ClientProof, ClientSecret};

pub(crate) enum Proof {
    Rotation(Rotation),
    Federated(Federated),
    /// None: the application is a public client.
    Public,
}

impl Proof {
    pub(crate) fn new(
        settings: &ClientProof,
        identity: &IdentityName,
        slots: &mut Slots<'_>,
    ) -> Result<Self, TrustError> {
        let mut list = Vec::new();
        match settings {
            ClientProof::Federated(federated) => {
                return Ok(Self::Federated(Federated::new(
                    federated,
                    identity.as_str(),
                    slots,
                )?));
            }
            ClientProof::Public => return Ok(Self::Public),
            ClientProof::Secrets(secrets) => {
                for (index, ClientSecret { source, expires }) in secrets.iter().enumerate() {
                    let name = SecretName {
                        what: "client secret",
                        number: index + 1,
                        shown: Shown::DigestEnd,
                    };
                    list.push(Credential::Secret {
                        held: slots.held(identity, name, source, *expires)?,
                        expires: *expires,
                    });
                }
            }
            ClientProof::Certificates(certificates) => {
                for (index, settings) in certificates.iter().enumerate() {
                    let held = slots.certificate(identity, index + 1, settings)?;
                    list.push(Credential::Certificate(held));
                }
            }
        }
        Ok(Self::Rotation(Rotation::new(list, identity.as_str())))
    }

    pub(crate) async fn ask(
        &self,
        endpoint: &Endpoint,
        pairs: &[(&str, &str)],
    ) -> Result<Granted, TokenError> {
        match self {
            Self::Rotation(rotation) => rotation.ask(endpoint, pairs).await,
            Self::Federated(federated) => federated.ask(endpoint, pairs).await,
            Self::Public => endpoint.ask(pairs).await,
        }
    }
}

/// One thing that proves who the application is, until Entra refuses it.
enum Credential {
    Secret {
        held: Arc<Held>,
        /// From the settings, which may be wrong.
        expires: Option<SystemTime>,
    },
    Certificate(Arc<HeldCertificate>),
}

/// What a credential was when it was shown.
enum Own {
    Secret(Secret),
    Assertion(Secret, Arc<SigningCertificate>),
}

impl Own {
    fn pairs(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Secret(secret) => vec![("client_secret", secret.expose())],
            Self::Assertion(signed, _) => vec![
                ("client_assertion_type", assertion::TYPE),
                ("client_assertion", signed.expose()),
            ],
        }
    }
}

impl Credential {
    /// What is shown of it. A change is taken up before it is used.
    async fn own(&self, endpoint: &Endpoint) -> Result<Own, TokenError> {
        match self {
            Self::Secret { held, .. } => Ok(Own::Secret(held.value().await?)),
            Self::Certificate(held) => {
                let (signed, certificate) = held.assertion(endpoint).await?;
                Ok(Own::Assertion(signed, certificate))
            }
        }
    }

    /// Seconds of its end; what has none counts as the newest.
    fn end(&self) -> u64 {
        let end = match self {
            Self::Secret { expires, .. } => *expires,
            Self::Certificate(held) => held.ends(),
        };
        let end = end.and_then(|end| end.duration_since(SystemTime::UNIX_EPOCH).ok());
        end.map_or(u64::MAX, |end| end.as_secs())
    }

    fn is_valid(&self, now: SystemTime) -> bool {
        match self {
            Self::Secret { expires, .. } => expires.is_none_or(|end| now < end),
            Self::Certificate(held) => held.is_valid(now),
        }
    }

    /// Looks whether it has been replaced since it was shown. It is shared by all scopes of the identity, so another
    /// question may have met the successor first.
    async fn renew(&self, shown: &Own) -> Renewed {
        match (self, shown) {
            (Self::Secret { held, .. }, Own::Secret(secret)) => held.renew_from(secret).await,
            (Self::Certificate(held), Own::Assertion(_, certificate)) => held.renew(certificate).await,
            _ => Renewed::Same,
        }
    }

    /// The refusal with what the operator needs to find the credential.
    fn explain(&self, mut why: Box<RefusedToken>) -> Box<RefusedToken> {
        if let Self::Certificate(held) = self {
            why.sentence
                .push_str(&format!(" Entra was shown {}.", held.describe()));
        }
        why
    }

    fn describe(&self) -> String {
        match self {
            Self::Secret { .. } => "a client secret".to_owned(),
            Self::Certificate(held) => held.describe(),
        }
    }
}

/// Several credentials, the one that ends last first.
pub(crate) struct Rotation {
    identity: String,
    list: Vec<Credential>,
    /// The one that was accepted last.
    good: AtomicUsize,
}

impl Rotation {
    fn new(mut list: Vec<Credential>, identity: &str) -> Self {
        list.sort_by_key(|credential| Reverse(credential.end()));
        Self {
            identity: identity.to_owned(),
            list,
            good: AtomicUsize::new(0),
        }
    }

    /// Asks with the credential that was good last, then with each other one. Each is read again once before it is
    /// given up.
    async fn ask(&self, endpoint: &Endpoint, pairs: &[(&str, &str)]) -> Result<Granted, TokenError> {
        let mut refused: Option<(Box<RefusedToken>, usize)> = None;
        let mut failed = None;
        for index in self.order() {
            let Some(credential) = self.list.get(index) else {
                break;
            };
            for _ in 0..2 {
                let own = match credential.own(endpoint).await {
                    Ok(own) => own,
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                };
                let mut form = own.pairs();
                form.extend_from_slice(pairs);
                match endpoint.ask(&form).await {
                    Err(TokenError::Refused(why)) if why.refusal.kind == RefusalKind::InvalidClient => {
                        refused = Some((credential.explain(why), index));
                    }
                    answer => {
                        self.good.store(index, Ordering::Relaxed);
                        if let (Ok(_), Some((why, before))) = (&answer, &refused)
                            && *before != index
                        {
                            self.warn_of_refusal(why, *before);
                        }
                        return answer;
                    }
                }
                if credential.renew(&own).await == Renewed::Same {
                    break;
                }
            }
        }
        let refused = refused.map(|(why, _)| TokenError::Refused(why));
        Err(refused.or(failed).unwrap_or(NO_TOKEN.into()))
    }

    /// A credential that is refused while another works would go unnoticed until that one expires, too.
    fn warn_of_refusal(&self, why: &RefusedToken, before: usize) {
        let identity = &self.identity;
        let what = self
            .list
            .get(before)
            .map(Credential::describe)
            .unwrap_or_default();
        let (refusal, cause) = (&why.refusal, why.refusal.row.what);
        tracing::warn!(%identity, "another credential of identity {identity} serves, because {what} was refused: {refusal}. {cause}");
    }

    /// All of them, from the one that was good last on. Those outside their dates come at the end: the date in the
    /// settings, or our clock, may be wrong.
    fn order(&self) -> Vec<usize> {
        let first = self.good.load(Ordering::Relaxed);
        let count = self.list.len();
        let mut order: Vec<_> = (0..count).map(|step| (first + step) % count).collect();
        let now = clock::wall();
        order.sort_by_key(|index| {
            let credential = self.list.get(*index);
            credential.is_some_and(|credential| !credential.is_valid(now))
        });
        order
    }
}
