//! An application at its token endpoint, with what proves who it is. By itself it asks for tokens in its own name, the
//! client credentials grant (RFC 6749 section 4.4); other grants ask with pairs of their own.

use crate::entra::answer::{Granted, TokenError};
use crate::entra::endpoint::Endpoint;
use crate::entra::grant::{Asked, Grant};
use crate::entra::proof::Proof;
use crate::entra::slots::Slots;
use crate::outbound::TrustError;
use crate::settings::{ClientProof, EndpointSettings, IdentitySettings};

pub(crate) struct Application {
    pub(crate) endpoint: Endpoint,
    pub(crate) proof: Proof,
}

impl Application {
    pub(crate) fn new(
        endpoint: &EndpointSettings,
        proof: &ClientProof,
        identity: &IdentitySettings,
        scope: &str,
        slots: &mut Slots<'_>,
    ) -> Result<Self, TrustError> {
        Ok(Self {
            endpoint: Endpoint::new(endpoint, identity, scope)?,
            proof: Proof::new(proof, &identity.name, slots)?,
        })
    }

    /// Asks for a token with these pairs and what the proof adds to them.
    pub(crate) async fn ask_with(&self, pairs: &[(&str, &str)]) -> Result<Granted, TokenError> {
        self.proof.ask(&self.endpoint, pairs).await
    }
}

impl Grant for Application {
    fn ask(&self) -> Asked<'_> {
        Box::pin(self.ask_with(&[("grant_type", "client_credentials")]))
    }
}
