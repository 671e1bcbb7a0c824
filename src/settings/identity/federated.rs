//! Workload identity federation: an application that authenticates with a token of another issuer. Values missing from the
//! settings come from the variables that the webhook of azure-workload-identity sets, and the origin of each is reported.

use std::path::PathBuf;

use crate::model::{ClientId, Cloud, Flaw, IdentityName, Tenant};
use crate::settings::check::Check;
use crate::settings::identity::grant;
use crate::settings::identity::words::check_authority;
use crate::settings::identity::{FederatedTable, IdentityTable};
use crate::settings::kinds::At;
use crate::settings::table::Table;
use crate::settings::{
    AssertionSource, ClientProof, EndpointSettings, FederatedSettings, GrantSettings, Secrets,
};

/// The variables of azure-workload-identity.
const TENANT: &str = "AZURE_TENANT_ID";
pub(super) const CLIENT: &str = "AZURE_CLIENT_ID";
const AUTHORITY: &str = "AZURE_AUTHORITY_HOST";
const FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";

/// Stands for any of their values that only another machine knows; nobody has this id.
const UNREAD: &str = "00000000-0000-0000-0000-000000000000";

/// How the webhook is made to set them.
const HINT: &str = "write it here, or let azure-workload-identity set the variable: the pod needs the label \
                    azure.workload.identity/use: \"true\" and a service account that it is switched on for";

/// Workload identity values, from the settings or the environment variables.
#[derive(Debug, Default)]
pub(super) struct WorkloadValues {
    pub(super) tenant: Option<Tenant>,
    pub(super) client_id: Option<ClientId>,
    authority: Option<String>,
    file: Option<PathBuf>,
    origins: Vec<String>,
    /// The first required variable that is not set.
    lacking: Option<(&'static str, &'static str)>,
}

impl Check<'_> {
    pub(super) fn federated_identity(
        &mut self,
        identity: &Table<IdentityTable>,
        cloud: Option<Cloud>,
    ) -> Option<GrantSettings> {
        let table = identity.federated.as_ref()?;
        if let Some(name) = &table.identity {
            if let Some(file) = &table.token_file {
                let flaw =
                    Flaw::new("a federated token comes from a file or from an identity, not from both");
                self.findings.clash(name, flaw, file.span(), "from this file");
                return None;
            }
            return self.client(identity, cloud, |check, _| check.vouched(name, cloud));
        }
        self.without_token_life(identity);
        let mistakes = self.findings.len();
        let values = self.workload_values(identity, cloud, Some(table));
        if let Some((key, variable)) = values.lacking {
            let place = if key == "token_file" {
                table.span()
            } else {
                identity.span()
            };
            let flaw = Flaw::new(format!(
                "`{key}` is missing, and environment variable {variable} is not set"
            ));
            self.findings.mistake(place, flaw.hint(HINT));
        }
        let (endpoint, federated) = self.workload(identity, values)?;
        (self.findings.len() == mistakes).then_some(GrantSettings::Client {
            endpoint,
            proof: ClientProof::Federated(federated),
        })
    }

    fn vouched(&mut self, name: &At<String>, cloud: Option<Cloud>) -> Option<ClientProof> {
        // Mistakes in the name are reported where the links are checked.
        Some(ClientProof::Federated(FederatedSettings {
            source: AssertionSource::Identity {
                name: IdentityName::parse(name).ok()?,
                scope: grant::exchange_scope(cloud?),
            },
            origins: Vec::new(),
        }))
    }

    /// Endpoint and token file, if both are known.
    pub(super) fn workload(
        &mut self,
        identity: &Table<IdentityTable>,
        values: WorkloadValues,
    ) -> Option<(EndpointSettings, FederatedSettings)> {
        let endpoint = self.endpoint_of(
            identity,
            values.tenant.as_ref(),
            values.client_id.as_ref(),
            values.authority,
        );
        let federated = FederatedSettings {
            source: AssertionSource::File(values.file?),
            origins: values.origins,
        };
        Some((endpoint?, federated))
    }

    /// Collects the workload identity values from the settings, then from the environment variables.
    pub(super) fn workload_values(
        &mut self,
        identity: &Table<IdentityTable>,
        cloud: Option<Cloud>,
        table: Option<&Table<FederatedTable>>,
    ) -> WorkloadValues {
        let mut values = WorkloadValues::default();
        values.tenant = match identity.tenant.as_deref() {
            Some(tenant) => Some(tenant.clone()),
            None if identity.is_reported("tenant") => None,
            None => self.borrowed(identity, ("tenant", TENANT), &mut values, Tenant::parse),
        };
        values.client_id = match identity.client_id.as_deref() {
            Some(id) => Some(id.clone()),
            None if identity.is_reported("client_id") => None,
            None => self.borrowed(identity, ("client_id", CLIENT), &mut values, ClientId::parse),
        };
        values.authority = self.workload_authority(identity, cloud, &mut values);
        values.file = match table.and_then(|table| table.token_file.as_ref()) {
            Some(value) => self.path(value).inspect(|path| self.expect_file(value, path)),
            None if table.is_some_and(|table| table.is_reported("token_file")) => None,
            None => self.borrowed(
                identity,
                ("token_file", FILE),
                &mut values,
                |text| Ok(text.into()),
            ),
        };
        values
    }

    fn workload_authority(
        &mut self,
        identity: &Table<IdentityTable>,
        cloud: Option<Cloud>,
        values: &mut WorkloadValues,
    ) -> Option<String> {
        if let Some(value) = &identity.authority {
            return self.findings.keep(value, check_authority(value));
        }
        // A configured cloud already determines the authority.
        let variable = self
            .environment
            .platform_variable(AUTHORITY)
            .filter(|_| identity.cloud.is_none());
        let Some(variable) = variable else {
            return cloud.map(|cloud| cloud.authority().to_owned());
        };
        values
            .origins
            .push(format!("authority from environment variable {AUTHORITY}"));
        let read = check_authority(variable.expose());
        self.findings
            .keep(identity, read.map_err(|flaw| in_variable(AUTHORITY, flaw)))
    }

    /// A value from an environment variable, for a key that the settings leave out.
    fn borrowed<V>(
        &mut self,
        identity: &Table<IdentityTable>,
        (key, variable): (&'static str, &'static str),
        values: &mut WorkloadValues,
        parse: fn(&str) -> Result<V, Flaw>,
    ) -> Option<V> {
        if self.environment.secrets() == Secrets::Unresolved {
            return parse(UNREAD).ok();
        }
        let Some(value) = self.environment.platform_variable(variable) else {
            values.lacking.get_or_insert((key, variable));
            return None;
        };
        values
            .origins
            .push(format!("{key} from environment variable {variable}"));
        let read = parse(value.expose()).map_err(|flaw| in_variable(variable, flaw));
        self.findings.keep(identity, read)
    }

    /// The tenant of an identity that takes it from the environment variable.
    pub(super) fn variable_tenant(&self, identity: &Table<IdentityTable>) -> Option<Tenant> {
        let from_file = identity
            .federated
            .as_ref()
            .is_some_and(|table| table.identity.is_none());
        if !from_file && !identity.default {
            return None;
        }
        let value = self.environment.platform_variable(TENANT)?;
        Tenant::parse(value.expose()).ok()
    }
}

impl WorkloadValues {
    /// Why this is not workload identity.
    pub(super) fn lacks(&self) -> Option<String> {
        let (key, variable) = self.lacking?;
        Some(format!(
            "environment variable {variable} is not set, and the settings have no {key}"
        ))
    }
}

fn in_variable(variable: &str, flaw: Flaw) -> Flaw {
    let named = Flaw::new(format!("environment variable {variable}: {}", flaw.what));
    match flaw.hint {
        Some(hint) => named.hint(hint),
        None => named,
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::sample::Sample;
    use crate::settings::{AssertionSource, ClientProof, GrantSettings};

    const GUID: &str = "00000000-0000-0000-0000-000000000000";
    const OTHER: &str = "00000000-0000-0000-0000-000000000001";

    fn sample(lines: &str) -> Sample {
        Sample::default().with("identity", &format!("name = \"contoso\"\n{lines}"))
    }

    fn webhook(sample: Sample) -> Sample {
        sample
            .variable("AZURE_TENANT_ID", GUID)
            .variable("AZURE_CLIENT_ID", OTHER)
            .variable("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us/")
            .variable("AZURE_FEDERATED_TOKEN_FILE", "/var/run/token")
    }

    #[test]
    fn what_the_settings_leave_out_comes_from_the_variables_and_is_said() {
        let config = webhook(sample("federated = {}")).config();
        let identity = &config.identities[0];
        assert_eq!(identity.tenant.as_deref(), Some(GUID));
        let GrantSettings::Client { endpoint, proof } = &identity.grant else {
            panic!("{identity:?}");
        };
        assert_eq!(&*endpoint.client_id, OTHER);
        assert_eq!(
            endpoint.token_url,
            format!("https://login.microsoftonline.us/{GUID}/oauth2/v2.0/token")
        );
        assert!(matches!(
            proof,
            ClientProof::Federated(federated)
                if matches!(&federated.source, AssertionSource::File(path) if path.ends_with("token"))
        ));
        assert_eq!(
            identity.notes(),
            [
                "tenant from environment variable AZURE_TENANT_ID",
                "client_id from environment variable AZURE_CLIENT_ID",
                "authority from environment variable AZURE_AUTHORITY_HOST",
                "token_file from environment variable AZURE_FEDERATED_TOKEN_FILE",
            ]
        );
    }

    #[test]
    fn what_the_settings_say_stands_before_the_variables() {
        let lines = format!(
            "tenant = \"{OTHER}\"\nclient_id = \"{GUID}\"\ncloud = \"public\"\nfederated.token_file = \"t\""
        );
        let config = webhook(sample(&lines)).file("t", "x").config();
        let identity = &config.identities[0];
        assert_eq!(identity.notes(), Vec::<String>::new());
        let grant = format!("{:?}", identity.grant);
        assert!(
            grant.contains(&format!("https://login.microsoftonline.com/{OTHER}/")),
            "{grant}"
        );
    }

    #[test]
    fn what_neither_says_is_named_with_its_variable() {
        assert_eq!(
            sample("federated = {}").mistakes(),
            ["`tenant` is missing, and environment variable AZURE_TENANT_ID is not set"]
        );
        let lines = format!("tenant = \"{GUID}\"\nclient_id = \"{GUID}\"\nfederated = {{}}");
        assert_eq!(
            sample(&lines).mistakes(),
            ["`token_file` is missing, and environment variable AZURE_FEDERATED_TOKEN_FILE is not set"]
        );
        assert!(sample("federated = {}").without_secrets().mistakes().is_empty());
    }

    #[test]
    fn a_wrong_value_of_the_settings_is_not_called_missing() {
        let lines = format!("tenant = \"common\"\nclient_id = \"{GUID}\"\nfederated.token_file = \"t\"");
        let mistakes = sample(&lines).file("t", "x").mistakes();
        assert!(
            mistakes.len() == 1 && mistakes[0].starts_with("\"common\" is not a tenant"),
            "{mistakes:?}"
        );
        let lines = format!("tenant = \"{GUID}\"\nclient_id = \"{GUID}\"\nfederated.token_file = 5");
        let mistakes = sample(&lines).mistakes();
        assert!(
            mistakes.len() == 1 && !mistakes[0].contains("missing"),
            "{mistakes:?}"
        );
    }

    #[test]
    fn a_variable_with_nonsense_is_named() {
        let invalid = webhook(sample("federated = {}")).variable("AZURE_TENANT_ID", "common");
        assert_eq!(
            invalid.mistakes(),
            [
                "environment variable AZURE_TENANT_ID: \"common\" is not a tenant, and an application must name its \
                 own"
            ]
        );
        let invalid =
            webhook(sample("federated = {}")).variable("AZURE_AUTHORITY_HOST", "http://login.example");
        assert!(invalid.mistakes()[0].starts_with("environment variable AZURE_AUTHORITY_HOST: "));
    }
}
