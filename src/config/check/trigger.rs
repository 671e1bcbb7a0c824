//! The trigger address of a route: where it comes from, and whether it fits the way the route convinces the
//! flow.

use crate::config::IdentitySettings;
use crate::config::Proof;
use crate::config::check::Check;
use crate::config::leaf::At;
use crate::config::mistake::Flaw;
use crate::config::source::Reference;
use crate::model::TriggerUrl;
use crate::model::trigger::TriggerUrlError;

/// What stands for an address that is not read.
const PLACEHOLDER: &str = "https://unresolved.invalid/";
/// The same for a signed route.
const SIGNED_PLACEHOLDER: &str = "https://unresolved.invalid/?sp=none&sv=none&sig=none";

impl Check<'_> {
    /// Reads the address. Without a proof, which is then already reported, it is held against nothing.
    pub(super) fn trigger(
        &mut self,
        value: &At<String>,
        proof: Option<&Proof>,
        identities: &[IdentitySettings],
    ) -> Option<TriggerUrl> {
        let reference = match Reference::parse(value, &self.folder) {
            Some(reference) => Some(self.findings.keep(value, reference)?),
            None => None,
        };
        if let Some(reference) = reference
            .as_ref()
            .filter(|reference| !self.environment.is_at_hand(reference))
        {
            // Notes what has to be read from a vault; the placeholder is of no use for an address.
            self.resolve(value, reference)?;
            let text = if proof == Some(&Proof::Signed) {
                SIGNED_PLACEHOLDER
            } else {
                PLACEHOLDER
            };
            return TriggerUrl::parse(text).ok();
        }
        let url = match &reference {
            Some(reference) => {
                let text = self.resolve(value, reference)?;
                TriggerUrl::parse(text.expose())
            }
            None if mentions_signature(value) => {
                self.findings.mistake(value, inline_signature(proof));
                return None;
            }
            None => TriggerUrl::parse(value),
        };
        let url = self.findings.keep(value, url.map_err(flaw_of))?;
        match proof {
            Some(Proof::Signed) => self.findings.keep(value, url.require_signed().map_err(flaw_of))?,
            Some(Proof::Identity(_)) => self.findings.keep(value, url.require_bearer().map_err(flaw_of))?,
            None => {}
        }
        if let Some(warning) = url.warning() {
            self.findings.warn(value, Flaw::new(warning));
        }
        self.judge_cloud(value, &url, proof, identities);
        Some(url)
    }

    /// A token of one cloud is worth nothing in another.
    fn judge_cloud(
        &mut self,
        value: &At<String>,
        url: &TriggerUrl,
        proof: Option<&Proof>,
        identities: &[IdentitySettings],
    ) {
        let (Some(Proof::Identity(name)), Some(cloud)) = (proof, url.cloud()) else {
            return;
        };
        let Some(identity) = identities.iter().find(|identity| identity.name == *name) else {
            return;
        };
        // With a scope of its own an identity may well be meant for another cloud.
        if identity.cloud != cloud && identity.scope == identity.cloud.scope() {
            let flaw = Flaw::new(format!(
                "the trigger is in the cloud \"{}\", and the tokens of \"{name}\" are for \"{}\"",
                cloud.name(),
                identity.cloud.name()
            ));
            self.findings.warn(value, flaw);
        }
    }
}

fn mentions_signature(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    ["sig=", "sig%3d"].into_iter().any(|mark| lower.contains(mark))
}

fn inline_signature(proof: Option<&Proof>) -> Flaw {
    let flaw = Flaw::new("a trigger address with a signature must not be written into the settings file");
    match proof {
        Some(Proof::Identity(_)) => flaw.hint("take sp, sv and sig off: the identity takes their place"),
        _ => flaw.hint(
            "whoever has the signature can start the flow; keep the address in an environment variable or a \
             file, and write trigger = \"env:NAME\" or \"file:PATH\" here",
        ),
    }
}

fn flaw_of(error: TriggerUrlError) -> Flaw {
    Flaw {
        what: error.to_string(),
        hint: error.hint(),
    }
}
