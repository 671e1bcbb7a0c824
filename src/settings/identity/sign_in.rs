//! An account that a person signs in once: where its refresh token is stored, under which seal, and which scopes may be
//! requested for an account. `entra` reads and writes the file itself.

#[cfg(unix)]
use std::fs;
use std::path::{Path, PathBuf};

use crate::model::{Cloud, Flaw, Secret};
use crate::settings::check::Check;
use crate::settings::identity::words::{DEFAULT, check_scope, is_near};
use crate::settings::identity::{IdentityTable, SignInTable};
use crate::settings::kinds::At;
use crate::settings::table::Table;
use crate::settings::value::optional;
use crate::settings::{GrantSettings, SecretSource, Secrets};

/// Anyone who has the sealed store must not be able to guess the seal.
const SEAL_BYTES_MIN: usize = 16;

/// Whether a store may be sealed with this secret: asked at the start, and whenever the secret is replaced.
pub fn check_seal(seal: &Secret) -> Result<(), &'static str> {
    if seal.expose().len() < SEAL_BYTES_MIN {
        return Err("the seal has fewer than 16 bytes and could be guessed");
    }
    Ok(())
}

impl Check<'_> {
    pub(super) fn sign_in(
        &mut self,
        identity: &Table<IdentityTable>,
        cloud: Option<Cloud>,
    ) -> Option<GrantSettings> {
        let table = identity.sign_in.as_ref()?;
        self.without_token_life(identity);
        let seal = optional(table.seal.as_ref(), |value| self.seal(value));
        let hint = "name a file in a folder that the gateway may write to";
        let store = table.require(("store", &table.store), hint, &mut self.findings);
        let store = store.and_then(|value| self.store(value, identity, table));
        let proof = self.proof_beside(identity);
        let endpoint = self.endpoint(identity, cloud);
        Some(GrantSettings::SignIn {
            endpoint: endpoint?,
            proof: proof?,
            store: store?,
            seal: seal?,
        })
    }

    fn seal(&mut self, value: &At<String>) -> Option<SecretSource> {
        // The placeholder for unread secrets is public, so a store must never be sealed with it: an unread seal has no
        // value at all.
        let seal = self.secret_at_start("seal", value)?;
        if let Some(known) = seal.known() {
            let checked = check_seal(known)
                .map_err(|what| Flaw::new(what).hint("make one with: openssl rand -base64 32"));
            self.findings.keep(value, checked)?;
        }
        Some(seal)
    }

    fn store(
        &mut self,
        value: &At<String>,
        identity: &IdentityTable,
        table: &SignInTable,
    ) -> Option<PathBuf> {
        let path = self.path(value)?;
        if self.environment.secrets() == Secrets::Resolved && !path.exists() {
            self.findings.warn(value, not_signed_in(&path, identity));
        }
        let is_plain = table.seal.is_none() && self.environment.secrets() == Secrets::Resolved;
        if is_plain && !is_owners(&path) {
            let flaw = Flaw::new(format!(
                "file {} holds a sign-in and is open to other users",
                path.display()
            ));
            let hint = "take their rights away with chmod 600, or set `seal` so that the file is encrypted";
            self.findings.mistake(value, flaw.hint(hint));
        }
        Some(path)
    }
}

/// A store without a sign-in: somebody has to sign in, and into a folder that is there.
fn not_signed_in(path: &Path, identity: &IdentityTable) -> Flaw {
    let name = identity.name.as_ref().map_or("NAME", |name| name.as_str());
    let login = format!("flowgate login --identity {name}");
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    if folder.is_dir() {
        return Flaw::new(format!("file {} is not there yet", path.display()))
            .hint(format!("sign in once: {login}"));
    }
    let what = format!(
        "file {} is not there yet, and neither is its folder",
        path.display()
    );
    Flaw::new(what).hint(format!(
        "make the folder, in which the gateway's user must be allowed to write, and sign in once: {login}"
    ))
}

/// Whether only its owner has rights to a file; one that is not there yet is made so.
#[cfg(unix)]
fn is_owners(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;

    fs::metadata(path).map_or(true, |metadata| metadata.permissions().mode() & 0o077 == 0)
}

#[cfg(not(unix))]
fn is_owners(_: &Path) -> bool {
    true
}

/// What may be asked for in the name of an account: all that an application may ask for, and single scopes.
pub(super) fn check_account_scope(text: &str) -> Result<(), Flaw> {
    let is_wrong_default = Cloud::ALL.into_iter().any(|cloud| is_near(text, cloud));
    if text.ends_with(DEFAULT) || is_wrong_default {
        return check_scope(text);
    }
    if Cloud::ALL
        .into_iter()
        .any(|cloud| text.starts_with(cloud.audience()) && text.ends_with("/user_impersonation"))
    {
        return Err(
            Flaw::new("the flow service has no scope user_impersonation").hint(format!(
                "write \"{}User\", or leave the scope out; Entra would answer AADSTS650053",
                Cloud::Public.audience()
            )),
        );
    }
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    let named = text.rsplit_once('/').is_some_and(|(resource, name)| {
        resource.contains(':') && !resource.ends_with('/') && !name.is_empty()
    });
    if !plain || !named {
        return Err(
            Flaw::new("a scope is a resource with the name of a permission behind it").hint(format!(
                "write for example \"{}User\", or leave the scope out",
                Cloud::Public.audience()
            )),
        );
    }
    Ok(())
}

/// The audience of tokens for a scope. Entra cuts the permission off; the audience of a flow keeps its last slash.
pub(super) fn audience_of(scope: &str) -> &str {
    if let Some(resource) = scope.strip_suffix(DEFAULT) {
        return resource;
    }
    let of_a_flow = Cloud::ALL
        .into_iter()
        .map(Cloud::audience)
        .find(|audience| scope.starts_with(audience));
    let resource = scope.rsplit_once('/').map_or(scope, |(resource, _)| resource);
    of_a_flow.unwrap_or(resource)
}

#[cfg(test)]
mod tests {
    use super::{audience_of, check_account_scope};
    use crate::model::Cloud;
    use crate::settings::sample::Sample;
    use crate::settings::{ClientProof, GrantSettings};

    const GUID: &str = "00000000-0000-0000-0000-000000000000";

    fn sample(more: &str, lines: &str) -> Sample {
        Sample::default().file("kept", "canary\n").file("short", "canary\n").with(
            "identity",
            &format!(
                "name = \"contoso\"\ntenant = \"{GUID}\"\nclient_id = \"{GUID}\"\n{more}\n[identity.sign_in]\n{lines}"
            ),
        )
    }

    #[test]
    fn a_sign_in_names_its_store() {
        assert_eq!(sample("", "").mistakes(), ["`store` is missing"]);
        let config = sample("", "store = \"kept\"").config();
        let GrantSettings::SignIn {
            store, seal, proof, ..
        } = &config.identities[0].grant
        else {
            panic!("{config:?}");
        };
        assert!(store.ends_with("kept") && seal.is_none() && matches!(proof, ClientProof::Public));
    }

    #[test]
    fn a_seal_is_long_enough_to_be_no_guess() {
        let lines = "store = \"kept\"\nseal = \"file:short\"";
        assert_eq!(
            sample("", lines).mistakes(),
            ["the seal has fewer than 16 bytes and could be guessed"]
        );
        sample("", lines).without_secrets().config();
        sample("", "store = \"kept\"\nseal = \"env:PEPPER\"").config();
        let written = sample("", "store = \"kept\"\nseal = \"canary-seal-of-20-bytes\"").report();
        assert!(!written.contains("canary"), "{written}");
    }

    #[test]
    fn a_seal_that_was_not_read_seals_nothing() {
        let vault = format!(
            "store = \"kept\"\nseal = \"keyvault:https://contoso.vault.azure.net/secrets/seal\"\n[[identity]]\n\
             name = \"reader\"\ntenant = \"{GUID}\"\nclient_id = \"{GUID}\"\nclient_secret = \"env:SECRET\""
        );
        let vault = sample("", &vault).with("keyvault", "identity = \"reader\"");
        for config in [
            vault.config(),
            sample("", "store = \"kept\"\nseal = \"env:PEPPER\"")
                .without_secrets()
                .config(),
        ] {
            let GrantSettings::SignIn { seal, .. } = &config.identities[0].grant else {
                panic!("{config:?}");
            };
            assert!(seal.as_ref().unwrap().known().is_none());
        }
    }

    #[test]
    fn a_store_that_is_not_there_yet_gets_a_warning() {
        let warnings = sample("", "store = \"later\"").warnings();
        assert!(warnings[0].ends_with("is not there yet"), "{warnings:?}");
    }

    #[cfg(unix)]
    #[test]
    fn a_store_that_others_can_read_is_refused_unless_it_is_sealed() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept");
        std::fs::write(&path, "canary").unwrap();
        let lines = format!("store = {path:?}");
        let sealed = format!("{lines}\nseal = \"env:PEPPER\"");
        for (mode, mistakes) in [(0o600, 0), (0o640, 1), (0o604, 1), (0o660, 1)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(sample("", &lines).mistakes().len(), mistakes, "{mode:o}");
            assert!(sample("", &sealed).mistakes().is_empty(), "{mode:o}");
        }
        let report = sample("", &lines).report();
        assert!(
            report.contains("open to other users") && report.contains("chmod 600"),
            "{report}"
        );
    }

    #[test]
    fn an_account_may_ask_for_one_permission() {
        for cloud in Cloud::ALL {
            let user = format!("{}User", cloud.audience());
            assert!(check_account_scope(&user).is_ok(), "{user}");
            assert_eq!(audience_of(&user), cloud.audience());
            assert!(check_account_scope(cloud.scope()).is_ok());
            assert_eq!(audience_of(cloud.scope()), cloud.audience());
            assert!(check_account_scope(cloud.audience()).is_err());
            assert!(check_account_scope(&format!("{}user_impersonation", cloud.audience())).is_err());
        }
        assert_eq!(audience_of("api://app/Flows.Run"), "api://app");
        assert!(check_account_scope("api://app/Flows.Run").is_ok());
        for bad in [
            "",
            "User",
            "a b/User",
            "https://a.example//User",
            "https://a.example/ ",
        ] {
            assert!(check_account_scope(bad).is_err(), "{bad}");
        }
    }
}
