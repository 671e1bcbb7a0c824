//! Validates the address of a trigger from the settings: whether it fits the way its route authenticates to the flow, and
//! what to warn about. Used by the check of the settings, and whenever an address is read again at run time.

use crate::model::trigger::TriggerUrlError;
use crate::model::{Cloud, Flaw, IdentityName, Secret, TriggerUrl};
use crate::settings::IdentitySettings;
use crate::settings::check::Check;
use crate::settings::kinds::At;
use crate::settings::source::{Holds, Reference, SecretSource};
use crate::settings::value::optional;

/// How a route authenticates to its trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A bearer token of this identity.
    Identity(IdentityName),
    /// The signature in the trigger's own address.
    Signed,
}

/// Where the address of a trigger can be read again, and what it must be to be taken.
#[derive(Debug, Clone)]
pub struct TriggerSource {
    /// As written in the settings.
    pub(super) written: String,
    pub(crate) source: SecretSource,
    proof: Proof,
    cloud: Option<TokenCloud>,
}

impl TriggerSource {
    /// Reads the address that takes the place of `current`. A token follows only to the same host and port,
    /// or from one host of Microsoft's flow service to another of the same cloud: anyone can have an app
    /// under `azurewebsites.net`, and nobody sees the warning about other hosts that the start gives.
    pub fn succeed(&self, text: &Secret, current: &TriggerUrl) -> Result<TriggerUrl, String> {
        let url = read_address(text.expose(), Some(&self.proof)).map_err(|flaw| flaw.what)?;
        self.check_move(&url, current)?;
        Ok(url)
    }

    /// Checks that `next` may take the place of `current` although nobody asked for it.
    ///
    /// # Errors
    /// Why it may not, in words.
    pub fn check_move(&self, next: &TriggerUrl, current: &TriggerUrl) -> Result<(), String> {
        let takes_token = matches!(self.proof, Proof::Identity(_));
        if takes_token && !may_follow(next, current) {
            return Err(format!(
                "a token would be sent there: {} is neither {}, where it is sent now, nor another host of \
                 Microsoft's flow service in the same cloud; if that is meant, send SIGHUP or restart the gateway",
                next.authority(),
                current.authority()
            ));
        }
        Ok(())
    }

    pub fn remarks(&self, url: &TriggerUrl) -> Vec<String> {
        remarks(url, self.cloud.as_ref())
    }
}

/// Whether a token may go to `next` in place of `current` although nobody has looked at it.
fn may_follow(next: &TriggerUrl, current: &TriggerUrl) -> bool {
    if next.authority() == current.authority() {
        return true;
    }
    let is_same_cloud = match (next.cloud(), current.cloud()) {
        (Some(next), Some(current)) => next == current,
        // `logic.azure.us` serves the clouds of the government of the United States.
        (None, Some(cloud)) | (Some(cloud), None) => !matches!(cloud, Cloud::Public | Cloud::China),
        (None, None) => true,
    };
    next.is_on_flow_service() && current.is_on_flow_service() && is_same_cloud
}

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

/// Parses an address, and checks that it fits the proof of its route, if that is known.
pub(super) fn read_address(text: &str, proof: Option<&Proof>) -> Result<TriggerUrl, Flaw> {
    let url = TriggerUrl::parse(text).map_err(flaw_of)?;
    match proof {
        Some(Proof::Signed) => url.require_signed().map_err(flaw_of)?,
        Some(Proof::Identity(_)) => url.require_bearer().map_err(flaw_of)?,
        None => {}
    }
    Ok(url)
}

/// Warnings about a usable address.
pub(super) fn remarks(url: &TriggerUrl, tokens: Option<&TokenCloud>) -> Vec<String> {
    let mut remarks: Vec<_> = url.warning().into_iter().collect();
    // A token of one cloud is not valid in another.
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

/// An address, and where it can be read again if it is not written in the settings themselves.
pub(super) type Address = (TriggerUrl, Option<TriggerSource>);

/// Placeholder for an address that is not read.
const PLACEHOLDER: &str = "https://unresolved.invalid/";
/// The same for a signed route.
const SIGNED_PLACEHOLDER: &str = "https://unresolved.invalid/?sp=none&sv=none&sig=none";

impl Check<'_> {
    /// Reads the address. If there is no proof to check it against, that is already reported.
    pub(super) fn trigger(
        &mut self,
        value: &At<String>,
        proof: Option<&Proof>,
        identities: &[IdentitySettings],
    ) -> Option<Address> {
        let reference = Reference::parse(value, &self.folder);
        let reference = optional(reference, |reference| self.findings.keep(value, reference))?;
        let cloud = cloud_of(proof, identities);
        let Some(reference) = reference else {
            if mentions_signature(value) {
                self.findings.mistake(value, inline_signature(proof));
                return None;
            }
            let url = self.findings.keep(value, read_address(value, proof))?;
            self.judge(value, &url, cloud.as_ref());
            return Some((url, None));
        };
        let source = self.at_start(value, reference, Holds::Text)?;
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
            "anyone who has the signature can start the flow; keep the address in an environment variable or a \
             file, and write trigger = \"env:NAME\" or \"file:PATH\" here",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::TriggerSource;
    use crate::model::{IdentityName, Secret, TriggerUrl};
    use crate::settings::Proof;
    use crate::settings::source::{Reference, SecretSource};

    const REST: &str = "/workflows/0/triggers/manual/paths/invoke?api-version=1";
    const SIGNED: &str = "/workflows/0/triggers/manual/paths/invoke?api-version=1&sp=a&sv=1.0&sig=b";

    fn succeeds(proof: Proof, current: &str, next: &str) -> bool {
        let reference = Reference::File(PathBuf::from("trigger"));
        let source = TriggerSource {
            written: "file:trigger".to_owned(),
            source: SecretSource::new(reference, None),
            proof,
            cloud: None,
        };
        let current = TriggerUrl::parse(current).unwrap();
        source.succeed(&Secret::new(next), &current).is_ok()
    }

    #[test]
    fn a_token_moves_to_hosts_of_flows_only_or_stays_where_it_is() {
        let old = format!("https://prod-00.westeurope.logic.azure.com{REST}");
        let new =
            format!("https://0.00.environment.api.powerplatform.com/powerautomate/automations/direct{REST}");
        let own = format!("https://flows.example:8443{REST}");
        let moved = format!("https://flows.example{REST}");
        let app = format!("https://app.azurewebsites.net{REST}");
        let other_app = format!("https://other.azurewebsites.net{REST}");
        let app_key = app.replace("/0/", "/1/");
        let other_port = old.replace(".com/", ".com:8443/");
        let (us, gov) = (
            format!("https://prod-03.usgovtexas.logic.azure.us{REST}"),
            format!(
                "https://0.00.environment.api.gov.powerplatform.microsoft.us/powerautomate/automations/direct\
                 {REST}"
            ),
        );
        let china = format!("https://prod-01.chinaeast2.logic.azure.cn{REST}");
        let lookalike = format!("https://prod-00.logic.azure.com.example{REST}");
        let other = format!("https://other.example{REST}");
        let identity = || Proof::Identity(IdentityName::parse("contoso").unwrap());
        for (current, next, may) in [
            (&old, &new, true),
            (&old, &old.replace("prod-00.westeurope", "prod-01.westus"), true),
            (&us, &gov, true),
            (&app, &app_key, true),
            (&own, &own.replace("/0/", "/1/"), true),
            (&own, &new, false),
            (&own, &moved, false),
            (&old, &own, false),
            (&old, &app, false),
            (&app, &other_app, false),
            (&app, &old, false),
            (&old, &other_port, false),
            (&other_port, &old, false),
            (&old, &us, false),
            (&old, &china, false),
            (&us, &china, false),
            (&old, &lookalike, false),
            (&own, &other, false),
        ] {
            assert_eq!(succeeds(identity(), current, next), may, "{current} {next}");
        }
        let (own, other) = (own.replace(REST, SIGNED), other.replace(REST, SIGNED));
        assert!(
            succeeds(Proof::Signed, &own, &other),
            "a signature is worth nothing elsewhere"
        );
    }
}
