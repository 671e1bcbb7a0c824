//! The trigger address of a route: where it comes from, and whether it fits the way the route convinces the
//! flow.

use crate::model::{Flaw, TriggerUrl};
use crate::settings::check::Check;
use crate::settings::kinds::At;
use crate::settings::source::{Holds, Reference};
use crate::settings::trigger::{TokenCloud, TriggerSource, cloud_of, read_address, remarks};
use crate::settings::{IdentitySettings, Proof};

/// An address, and where it can be read again if it does not stand in the settings themselves.
pub(super) type Address = (TriggerUrl, Option<TriggerSource>);

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
    ) -> Option<Address> {
        let reference = match Reference::parse(value, &self.folder) {
            Some(reference) => Some(self.findings.keep(value, reference)?),
            None => None,
        };
        let Some(reference) = reference else {
            if mentions_signature(value) {
                self.findings.mistake(value, inline_signature(proof));
                return None;
            }
            let url = self.findings.keep(value, read_address(value, proof))?;
            let cloud = cloud_of(proof, identities);
            self.judge(value, &url, cloud.as_ref());
            return Some((url, None));
        };
        let source = self.at_start(value, reference, Holds::Text)?;
        let cloud = cloud_of(proof, identities);
        let url = match source.known() {
            Some(text) => {
                let url = self.findings.keep(value, read_address(text.expose(), proof))?;
                self.judge(value, &url, cloud.as_ref());
                url
            }
            // What has to be read from a vault is noted. The route still needs an address of a form that fits its proof.
            None if proof == Some(&Proof::Signed) => TriggerUrl::parse(SIGNED_PLACEHOLDER).ok()?,
            None => TriggerUrl::parse(PLACEHOLDER).ok()?,
        };
        let source = proof.map(|proof| TriggerSource {
            written: value.to_string(),
            source,
            proof: proof.clone(),
            cloud,
        });
        Some((url, source))
    }

    fn judge(&mut self, value: &At<String>, url: &TriggerUrl, cloud: Option<&TokenCloud>) {
        for remark in remarks(url, cloud) {
            self.findings.warn(value, Flaw::new(remark));
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
