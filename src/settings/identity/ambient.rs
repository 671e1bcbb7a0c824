//! The default chain: workload identity where the platform has set it up, else a managed identity. This file rules out
//! sources that cannot work, with the reason; which of the others is available is determined when a token is requested.

use crate::model::{ClientId, Cloud, Flaw};
use crate::settings::check::Check;
use crate::settings::identity::IdentityTable;
use crate::settings::identity::federated;
use crate::settings::table::Table;
use crate::settings::{DefaultSettings, GrantSettings};

impl Check<'_> {
    pub(super) fn default_chain(
        &mut self,
        identity: &Table<IdentityTable>,
        cloud: Option<Cloud>,
    ) -> Option<GrantSettings> {
        self.without_token_life(identity);
        if let Some(name) = identity
            .federated
            .as_ref()
            .and_then(|table| table.identity.as_ref())
        {
            let flaw = Flaw::new("the default chain takes a federated token from a file only");
            self.findings.mistake(
                name,
                flaw.hint("leave `default` out if this identity shall vouch for the application"),
            );
        }
        let mistakes = self.findings.len();
        let values = self.workload_values(identity, cloud, identity.federated.as_ref());
        // The SDKs of Azure take the variable for a managed identity as well.
        let client_id = identity.client_id.as_deref().cloned().or_else(|| {
            let variable = self.environment.platform_variable(federated::CLIENT)?;
            ClientId::parse(variable.expose()).ok()
        });
        // Read before a mistake in the other source ends this, so that one pass finds the mistakes of both.
        let managed = self.managed(identity, client_id);
        let federated = match values.lacks() {
            Some(why) => Err(why),
            None => Ok(self.workload(identity, values)?),
        };
        let managed = managed?.map_err(|flaw| flaw.what);
        (self.findings.len() == mistakes)
            .then(|| GrantSettings::Default(Box::new(DefaultSettings { federated, managed })))
    }
}

#[cfg(test)]
mod tests {
    use crate::model::ClientId;
    use crate::settings::sample::Sample;
    use crate::settings::{DefaultSettings, GrantSettings, Selector};

    const GUID: &str = "00000000-0000-0000-0000-000000000000";

    fn chain(lines: &str, variables: &[(&str, &str)]) -> DefaultSettings {
        let sample = Sample::default().with(
            "identity",
            &format!("name = \"contoso\"\ndefault = true\n{lines}"),
        );
        let config = variables
            .iter()
            .fold(sample, |sample, (name, value)| sample.variable(name, value))
            .config();
        match &config.identities[0].grant {
            GrantSettings::Default(chain) => (**chain).clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn workload_identity_is_out_of_the_question_without_its_variables() {
        let chain = chain("", &[("AZURE_TENANT_ID", GUID), ("AZURE_CLIENT_ID", GUID)]);
        assert_eq!(
            chain.federated.unwrap_err(),
            "environment variable AZURE_FEDERATED_TOKEN_FILE is not set, and the settings have no token_file"
        );
        assert_eq!(
            chain.managed.unwrap().selector,
            Some(Selector::ClientId(ClientId::parse(GUID).unwrap()))
        );
    }

    #[test]
    fn workload_identity_stands_first_with_its_variables() {
        let chain = chain(
            &format!("managed.object_id = \"{GUID}\""),
            &[
                ("AZURE_TENANT_ID", GUID),
                ("AZURE_CLIENT_ID", GUID),
                ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/token"),
            ],
        );
        assert!(chain.federated.is_ok());
        assert_eq!(
            chain.managed.unwrap().selector,
            Some(Selector::ObjectId(GUID.to_owned()))
        );
    }

    #[test]
    fn a_platform_without_support_is_a_reason_and_no_mistake() {
        let chain = chain(
            "",
            &[
                ("IDENTITY_ENDPOINT", "https://localhost/x"),
                ("IDENTITY_HEADER", "canary"),
                ("IDENTITY_SERVER_THUMBPRINT", "AB"),
            ],
        );
        assert!(chain.managed.unwrap_err().contains("Service Fabric"));
    }

    #[test]
    fn mistakes_in_both_sources_are_reported_at_once() {
        let lines = format!(
            "name = \"contoso\"\ndefault = true\ntenant = \"common\"\nclient_id = \"{GUID}\"\n\
             federated.token_file = \"t\"\nmanaged.object_id = \"x\""
        );
        let sample = Sample::default().with("identity", &lines).file("t", "x");
        let mistakes = sample.mistakes();
        assert!(
            mistakes.len() == 2 && mistakes[0].starts_with("\"common\" is not a tenant"),
            "{mistakes:?}"
        );
    }

    #[test]
    fn the_chain_excludes_other_ways() {
        let lines = format!(
            "name = \"contoso\"\ndefault = true\ntenant = \"{GUID}\"\nclient_id = \"{GUID}\"\n\
             client_secret = \"env:SECRET\""
        );
        assert_eq!(
            Sample::default().with("identity", &lines).mistakes(),
            ["an identity has either a client secret or the default chain, not both"]
        );
        let lines = "name = \"contoso\"\ndefault = false";
        assert_eq!(
            Sample::default().with("identity", lines).mistakes(),
            ["the identity has nothing to get a token with"]
        );
    }
}
