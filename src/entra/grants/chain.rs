//! The default chain: workload identity where its variables are set, else the managed identity of the platform. Which of
//! them is there is found with the first token request, and kept: a source that only fails for the moment must not hand
//! over to another identity.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::entra::answer::{Granted, TokenError};
use crate::entra::application::Application;
use crate::entra::endpoint::Endpoint;
use crate::entra::failure::{Failure, NOTHING_THERE};
use crate::entra::grant::{Asked, Grant};
use crate::entra::grants::managed::Managed;
use crate::entra::proof::Proof;
use crate::entra::proof::federated::Federated;
use crate::outbound::TrustError;
use crate::settings::{AssertionSource, DefaultSettings, IdentitySettings};

pub(crate) struct Chain {
    identity: String,
    /// The call and where its token comes from, or why there is none.
    federated: Result<(Application, String), String>,
    managed: Result<Managed, String>,
    /// Whether a source was found.
    chosen: AtomicBool,
}

impl Chain {
    pub(crate) fn new(
        settings: &DefaultSettings,
        identity: &IdentitySettings,
        scope: &str,
    ) -> Result<Self, TrustError> {
        let name = identity.name.as_str();
        let federated = match &settings.federated {
            Ok((endpoint, federated)) => match &federated.source {
                AssertionSource::File(path) => {
                    let proof = Federated::of_file(path.clone(), name);
                    let place = proof.place();
                    let call = Application {
                        endpoint: Endpoint::new(endpoint, identity, scope)?,
                        proof: Proof::Federated(proof),
                    };
                    Ok((call, place))
                }
                AssertionSource::Identity { .. } => Err("it takes tokens from a file only".to_owned()),
            },
            Err(why) => Err(why.clone()),
        };
        let managed = match &settings.managed {
            Ok(managed) => Ok(Managed::new(managed, name, scope)?),
            Err(why) => Err(why.clone()),
        };
        Ok(Self {
            identity: name.to_owned(),
            federated,
            managed,
            chosen: AtomicBool::new(false),
        })
    }

    async fn ask_once(&self) -> Result<Granted, TokenError> {
        let absent = match &self.federated {
            // The variables say which identity this pod is meant to have. While its file is missing, the managed identity
            // of the node must not take its place.
            Ok((call, place)) => {
                let others = "managed identity comes after it and was not asked";
                self.choose(place, others);
                return call.ask().await;
            }
            Err(why) => why,
        };
        let managed = match &self.managed {
            Ok(managed) => managed,
            Err(why) => return Err(self.nothing(absent, why)),
        };
        let answer = managed.ask().await;
        match &answer {
            Err(error) if !self.chosen.load(Ordering::Relaxed) && managed.is_absent(error) => {
                Err(self.nothing(absent, &error.to_string()))
            }
            _ => {
                let why = format!("workload identity is out: {absent}");
                self.choose(&managed.place(), &why);
                answer
            }
        }
    }

    /// Keeps the source, and says once which one it is and why not another.
    fn choose(&self, place: &str, others: &str) {
        if !self.chosen.swap(true, Ordering::Relaxed) {
            let identity = &self.identity;
            tracing::info!(
                identity,
                "the default chain of identity {identity} takes the {place}; {others}"
            );
        }
    }

    fn nothing(&self, federated: &str, managed: &str) -> TokenError {
        let row = NOTHING_THERE;
        let seen = format!(
            "the default chain found no source. Workload identity: {federated}. Managed identity: {}.",
            managed.strip_suffix('.').unwrap_or(managed)
        );
        TokenError::Platform(Box::new(Failure {
            row,
            sentence: format!(
                "No token for identity {}: {seen} {} {}, unless the platform is still starting. More: flowgate explain {}.",
                self.identity,
                row.what,
                row.fixed_by.must_fix(),
                row.code
            ),
            seen,
            what: row.what.into(),
            label: row.label,
            outlook: row.outlook,
            wait: None,
        }))
    }
}

impl Grant for Chain {
    fn ask(&self) -> Asked<'_> {
        Box::pin(self.ask_once())
    }
}
