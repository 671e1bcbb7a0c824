//! `[keyvault]`: who reads key vaults, and that its own secrets are stored elsewhere.

use std::time::Duration;

use crate::model::Flaw;
use crate::outbound::Trust;
use crate::settings::check::Check;
use crate::settings::findings::Mark;
use crate::settings::kinds::{ANY, At};
use crate::settings::name::Names;
use crate::settings::scalars::{HOUR, MILLISECOND, SECOND, secs};
use crate::settings::table::{Table, table};
use crate::settings::{GrantSettings, IdentitySettings, VaultReference};

const HINT: &str = "write identity = \"NAME\", the name of an identity that may read the vaults";

table! {
    /// How secrets in Azure Key Vaults are read.
    pub(crate) struct KeyVaultTable {
        /// Name of the identity that reads them. Its own secrets are stored elsewhere.
        identity: Option<At<String>> = None, ANY, Reload;
        // A rotated secret is known within the hour; one that Entra refuses is read again at once in any case.
        /// How often secrets are read again.
        period: Duration = HOUR, SECOND..=secs(30 * 86_400), Reload;
        // A vault answers within a second; the rest is for lost packets.
        /// Time for one answer of a vault.
        timeout: Duration = secs(10), MILLISECOND..=secs(60), Reload;
        /// PEM file with the certificate authorities trusted for the vaults, in place of the system's.
        ca_file: Option<At<String>> = None, ANY, Reload;
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct KeyVaultSettings {
    pub identity: Box<IdentitySettings>,
    pub period: Duration,
    pub timeout: Duration,
    pub trust: Trust,
    /// Secrets that must be there before anything can be served; they are read again as well.
    pub at_start: Vec<VaultReference>,
    /// Secrets of identities, read when a token is asked for.
    pub later: Vec<VaultReference>,
}

impl Check<'_> {
    /// Reads the table, which is required when a secret is stored in a vault.
    pub(super) fn keyvault(
        &mut self,
        table: Option<&Table<KeyVaultTable>>,
        identities: &[IdentitySettings],
        names: &mut Names,
    ) -> Option<KeyVaultSettings> {
        let Some(table) = table else {
            self.without_reader();
            return None;
        };
        let trust = self.trust(table.ca_file.as_ref());
        let value = table.require(("identity", &table.identity), HINT, &mut self.findings)?;
        if !names.use_of(value, &mut self.findings) {
            return None;
        }
        let reader = identities
            .iter()
            .find(|identity| identity.name.as_str() == value.as_str())?;
        self.judge_reader(value, reader);
        let references =
            |uses: &[(Mark, VaultReference)]| uses.iter().map(|(_, place)| place.clone()).collect();
        Some(KeyVaultSettings {
            identity: Box::new(reader.clone()),
            period: table.period,
            timeout: table.timeout,
            trust,
            at_start: references(&self.vaults.at_start),
            later: references(&self.vaults.later),
        })
    }

    /// One mistake for all of them: the table is missing once.
    fn without_reader(&mut self) {
        let mut uses = self.vaults.at_start.iter().chain(&self.vaults.later);
        let Some((mark, _)) = uses.next().cloned() else {
            return;
        };
        let flaw = Flaw::new("this secret is stored in a key vault, and nothing says who reads it");
        self.findings.mistake(
            mark,
            flaw.hint(
                "add [keyvault] with identity = \"NAME\", the name of an identity that may read the vault",
            ),
        );
    }

    fn judge_reader(&mut self, value: &At<String>, reader: &IdentitySettings) {
        if matches!(reader.grant, GrantSettings::TokenFile { .. }) {
            let flaw = Flaw::new(
                "a token file holds tokens for one resource, so this identity cannot read key vaults",
            );
            self.findings.mistake(
                value,
                flaw.hint("name an identity that asks Entra itself, such as one with a client secret"),
            );
            return;
        }
        let name = &reader.name;
        if let GrantSettings::SignIn { seal: Some(seal), .. } = &reader.grant
            && seal.vault().is_some()
        {
            let flaw = Flaw::new(format!(
                "a cycle: the seal of identity \"{name}\" is stored in a key vault, and key vaults are read with identity \
                 \"{name}\""
            ));
            self.findings.mistake(
                value,
                flaw.hint(
                    "keep the seal of this identity in a file, or let another identity read the vaults",
                ),
            );
            return;
        }
        let sources = reader.grant.secret_sources();
        let Some(place) = sources.iter().find_map(|source| source.vault()) else {
            return;
        };
        let flaw = Flaw::new(format!(
            "a cycle: identity \"{name}\" needs {place}, and key vaults are read with identity \"{name}\""
        ))
        .hint("keep the secret of this identity in a file, or let another identity read the vaults");
        let own = self.vaults.later.iter().find(|(_, used)| used == place);
        match own.map(|(mark, _)| *mark) {
            Some(mark) => self.findings.clash(value, flaw, mark, "which is set here"),
            None => self.findings.mistake(value, flaw),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::settings::sample::Sample;

    const GUID: &str = "00000000-0000-0000-0000-000000000000";
    const PLACE: &str = "keyvault:https://contoso.vault.azure.net/secrets/flow";

    fn identity(name: &str, secret: &str) -> String {
        format!(
            "name = \"{name}\"\ntenant = \"{GUID}\"\nclient_id = \"{GUID}\"\nclient_secret = \"{secret}\"\n"
        )
    }

    /// Identity `contoso` with its secret in a vault, read by identity `reader`.
    fn sample(keyvault: &str) -> Sample {
        let both = format!(
            "{}\n[[identity]]\n{}",
            identity("contoso", PLACE),
            identity("reader", "env:SECRET")
        );
        Sample::default()
            .with("identity", &both)
            .with("keyvault", keyvault)
    }

    #[test]
    fn a_secret_of_an_identity_is_read_later() {
        let config = sample("identity = \"reader\"\nperiod = \"2h\"").config();
        let keyvault = config.keyvault.unwrap();
        assert_eq!(keyvault.identity.name.as_str(), "reader");
        assert_eq!(
            (keyvault.period, keyvault.timeout),
            (Duration::from_secs(7200), Duration::from_secs(10))
        );
        assert_eq!((keyvault.at_start.len(), keyvault.later.len()), (0, 1));
        assert!(config.identities[0].grant.secret_sources()[0].known().is_none());
    }

    #[test]
    fn what_is_needed_to_serve_is_read_at_the_start() {
        let keys = sample("identity = \"reader\"").with("keys", &format!("pepper = \"{PLACE}\""));
        assert_eq!(keys.config().keyvault.unwrap().at_start.len(), 1);
        let trigger = format!(
            "name = \"orders\"\npath = \"/orders\"\nanonymous = true\nsigned = true\ntrigger = \"{PLACE}\""
        );
        let signed = sample("identity = \"reader\"").with("route", &trigger);
        assert_eq!(signed.config().keyvault.unwrap().at_start.len(), 1);
        assert_eq!(
            signed.without_secrets().config().keyvault.unwrap().at_start.len(),
            1
        );
    }

    #[test]
    fn a_secret_in_a_vault_needs_a_reader() {
        let lone = Sample::default().with("identity", &identity("contoso", PLACE));
        assert_eq!(
            lone.mistakes(),
            ["this secret is stored in a key vault, and nothing says who reads it"]
        );
        assert_eq!(sample("").mistakes(), ["`identity` is missing"]);
        assert_eq!(
            sample("identity = \"raeder\"").mistakes(),
            ["there is no identity \"raeder\""]
        );
    }

    #[test]
    fn a_reader_whose_own_secret_lies_in_a_vault_is_a_cycle_with_names() {
        assert_eq!(
            sample("identity = \"contoso\"").mistakes(),
            [
                "a cycle: identity \"contoso\" needs secret flow of key vault contoso.vault.azure.net, and key vaults \
              are read with identity \"contoso\""
            ]
        );
    }

    #[test]
    fn a_reader_whose_seal_lies_in_a_vault_is_a_cycle() {
        let sealed = format!(
            "name = \"contoso\"\ntenant = \"{GUID}\"\nclient_id = \"{GUID}\"\n[identity.sign_in]\nstore = \"kept\"\n\
             seal = \"{PLACE}\""
        );
        let sample = Sample::default()
            .with("identity", &sealed)
            .with("keyvault", "identity = \"contoso\"");
        assert_eq!(
            sample.mistakes(),
            [
                "a cycle: the seal of identity \"contoso\" is stored in a key vault, and key vaults are read with identity \
              \"contoso\""
            ]
        );
    }

    #[test]
    fn a_token_file_reads_no_vault() {
        let both = format!(
            "{}\n[[identity]]\nname = \"reader\"\ntoken_file = \"token\"",
            identity("contoso", PLACE)
        );
        let sample = Sample::default()
            .with("identity", &both)
            .with("keyvault", "identity = \"reader\"")
            .file("token", "a");
        assert_eq!(
            sample.mistakes(),
            ["a token file holds tokens for one resource, so this identity cannot read key vaults"]
        );
    }
}
