//! The address of a trigger as the settings name it: whether it fits the way its route convinces the flow, and what is odd
//! about it. The check of the settings asks here, and whoever reads an address again while the gateway runs.

use crate::config::IdentitySettings;
use crate::config::Proof;
use crate::config::mistake::Flaw;
use crate::config::source::SecretSource;
use crate::model::Cloud;
use crate::model::IdentityName;
use crate::model::Secret;
use crate::model::TriggerUrl;
use crate::model::trigger::TriggerUrlError;

/// Where the address of a trigger can be read again, and what it must be to be taken.
#[derive(Debug, Clone)]
pub struct TriggerSource {
    pub(super) source: SecretSource,
    pub(super) proof: Proof,
    pub(super) cloud: Option<TokenCloud>,
}

impl TriggerSource {
    /// The place.
    pub fn source(&self) -> &SecretSource {
        &self.source
    }

    /// Reads an address from there.
    ///
    /// # Errors
    /// Says in words why the route cannot use it.
    pub fn read(&self, text: &Secret) -> Result<TriggerUrl, String> {
        read_address(text.expose(), Some(&self.proof)).map_err(|flaw| flaw.what)
    }

    /// What is odd about an address that can be used.
    pub fn remarks(&self, url: &TriggerUrl) -> Vec<String> {
        remarks(url, self.cloud.as_ref())
    }
}

/// The cloud that the tokens of a route are for.
#[derive(Debug, Clone)]
pub(super) struct TokenCloud {
    identity: IdentityName,
    cloud: Cloud,
}

/// The cloud that the tokens of this proof are for. With a scope of its own an identity may well be meant for another cloud
/// than its own.
pub(super) fn cloud_of(proof: Option<&Proof>, identities: &[IdentitySettings]) -> Option<TokenCloud> {
    let Some(Proof::Identity(name)) = proof else {
        return None;
    };
    let identity = identities.iter().find(|identity| identity.name == *name)?;
    (identity.scope == identity.cloud.scope()).then(|| TokenCloud {
        identity: identity.name.clone(),
        cloud: identity.cloud,
    })
}

/// An address that fits the way its route convinces the flow. Without a proof it is held against nothing.
pub(super) fn read_address(text: &str, proof: Option<&Proof>) -> Result<TriggerUrl, Flaw> {
    let url = TriggerUrl::parse(text).map_err(flaw_of)?;
    match proof {
        Some(Proof::Signed) => url.require_signed().map_err(flaw_of)?,
        Some(Proof::Identity(_)) => url.require_bearer().map_err(flaw_of)?,
        None => {}
    }
    Ok(url)
}

/// What is odd about an address that can be used.
pub(super) fn remarks(url: &TriggerUrl, tokens: Option<&TokenCloud>) -> Vec<String> {
    let mut remarks: Vec<_> = url.warning().into_iter().collect();
    // A token of one cloud is worth nothing in another.
    if let (Some(tokens), Some(cloud)) = (tokens, url.cloud())
        && tokens.cloud != cloud
    {
        remarks.push(format!(
            "the trigger is in the cloud \"{}\", and the tokens of \"{}\" are for \"{}\"",
            cloud.name(),
            tokens.identity,
            tokens.cloud.name()
        ));
    }
    remarks
}

fn flaw_of(error: TriggerUrlError) -> Flaw {
    Flaw {
        what: error.to_string(),
        hint: error.hint(),
    }
}
