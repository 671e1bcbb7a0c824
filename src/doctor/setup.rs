//! Prints the commands that create what an identity needs in Entra and Azure, with the values of the settings
//! filled in; nothing is run. This file decides on the steps and their values; how each is written for a tool is a
//! section of a file in `setup/`.

use crate::doctor::resource::{Resource, is_for_api};
use crate::entra::FederatedToken;
use crate::model::entra_ids::is_placeholder;
use crate::model::{Cloud, fill};
use crate::settings::{
    AssertionSource, ClientProof, Config, EXCHANGE_AUDIENCE, GrantSettings, IdentitySettings,
    KeyVaultSettings, ManagedSettings, ManagedSource, Selector,
};

/// The tool that the commands are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Style {
    /// Azure CLI.
    Az,
    /// Microsoft Graph PowerShell.
    #[value(name = "powershell")]
    PowerShell,
    /// Bicep with the Microsoft Graph extension.
    Bicep,
}

impl Style {
    const fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::Az => ("az", include_str!("setup/az.txt")),
            Self::PowerShell => ("powershell", include_str!("setup/powershell.txt")),
            Self::Bicep => ("bicep", include_str!("setup/bicep.txt")),
        }
    }
}

const TITLES: &str = include_str!("setup/titles.txt");
/// Role id of Power Platform reader (Microsoft Learn, "Tutorial: Assign roles to service principals").
const PLATFORM_READER: &str = "c886ad2e-27f7-4874-8381-5849b8d8a090";
/// The version of the API that this tutorial uses.
const PLATFORM_VERSION: &str = "2024-10-01";

/// The section of this name; where there is none, that of the name without its last part.
fn section(texts: &'static str, mut name: &str) -> &'static str {
    loop {
        let mut sections = texts.split("\n[").filter_map(|section| section.split_once(']'));
        if let Some((_, text)) = sections.find(|(known, _)| *known == name) {
            return text.trim_matches('\n');
        }
        let Some((shorter, _)) = name.rsplit_once('.') else {
            return "";
        };
        name = shorter;
    }
}

/// What placeholders are filled with.
type Values = Vec<(&'static str, String)>;

/// One step of a setup, by the names of its sections. The body is written once for each of the values.
struct Step {
    title: String,
    body: String,
    values: Vec<Values>,
}

impl Step {
    fn new(title: impl Into<String>, body: impl Into<String>) -> Self {
        let (title, body, values) = (title.into(), body.into(), vec![Values::new()]);
        Self { title, body, values }
    }

    fn named(name: &str) -> Self {
        Self::new(name, name)
    }

    fn federated(token: Option<&FederatedToken>, issuer: &str, subject: &str) -> Self {
        // The claims of a token, as far as they may appear in a command.
        let plain = |text: Option<&String>, instead: &str| {
            let text = text.map_or("", |text| text.trim_matches('"'));
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/@#=+,".contains(&byte);
            let fits = !text.is_empty() && text.bytes().all(is_plain);
            if fits { text } else { instead }.to_owned()
        };
        let values = vec![vec![
            ("issuer", plain(token.map(|token| &token.issuer), issuer)),
            ("subject", plain(token.map(|token| &token.subject), subject)),
            (
                "audience",
                plain(token.map(|token| &token.audience), EXCHANGE_AUDIENCE),
            ),
        ]];
        Self {
            values,
            ..Self::named("federated")
        }
    }
}

/// Whose object id is on the trigger's list.
#[derive(Clone, Copy)]
enum PrincipalOf<'a> {
    /// The application of an earlier step.
    Application,
    /// One that only another program knows.
    Unknown,
    Account,
    Machine(&'a ManagedSettings),
}

impl<'a> PrincipalOf<'a> {
    fn of(identity: &'a IdentitySettings) -> Self {
        match &identity.grant {
            GrantSettings::Client { .. } => Self::Application,
            GrantSettings::Managed(managed) => Self::Machine(managed),
            GrantSettings::Default(chain) => match &chain.managed {
                Ok(managed) if chain.federated.is_err() => Self::Machine(managed),
                _ => Self::Application,
            },
            GrantSettings::TokenFile { .. } => Self::Unknown,
            GrantSettings::Password { .. } | GrantSettings::SignIn { .. } => Self::Account,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Unknown => "unknown",
            Self::Account => "account",
            Self::Machine(managed) => match (&managed.source, &managed.selector) {
                // Arc has only a system-assigned identity.
                (ManagedSource::Arc { .. }, _) => "arc",
                (ManagedSource::Imds { .. }, Some(_)) => "selected.imds",
                (ManagedSource::Imds { .. }, None) => "own.imds",
                (ManagedSource::AppService { .. }, Some(_)) => "selected.app-service",
                (ManagedSource::AppService { .. }, None) => "own.app-service",
            },
        }
    }

    /// What selects it in the settings, if it has to be named there.
    fn selector(self) -> Option<&'static str> {
        match self {
            Self::Application | Self::Account => Some("application"),
            Self::Unknown => Some("unknown"),
            Self::Machine(managed) if matches!(managed.source, ManagedSource::Arc { .. }) => None,
            Self::Machine(managed) => Some(match managed.selector.as_ref()? {
                Selector::ClientId(_) => "client_id",
                Selector::ObjectId(_) => "object_id",
                Selector::ResourceId(_) => "resource_id",
            }),
        }
    }
}

/// An identity with what decides on its steps.
struct Setup<'a> {
    identity: &'a IdentitySettings,
    resource: Resource<'a>,
    /// What takes the tokens: triggers of flows, which require no permission, or an API, which does.
    consumer: &'static str,
    tenant: &'a str,
    principal: PrincipalOf<'a>,
}

/// Renders the commands for one identity. If a federated token can be read, its claims are used.
pub async fn lines(identity: &IdentitySettings, config: &Config, style: Style) -> String {
    let tenant = identity.tenant.as_deref();
    let setup = Setup {
        identity,
        resource: Resource::of(&identity.audience),
        consumer: if is_for_api(identity, config) {
            "api"
        } else {
            "flow"
        },
        tenant: tenant.filter(|id| !is_placeholder(id)).unwrap_or("TENANT"),
        principal: PrincipalOf::of(identity),
    };
    let (tool, texts) = style.texts();
    let steps = setup.steps(config).await;
    let mut shared = setup.values();
    let scopes = steps
        .iter()
        .map(|step| section(texts, &format!("scope.{}", step.body)));
    let principal = section(texts, &format!("principal-id.{}", setup.principal.name()));
    shared.extend([("scopes", scopes.collect()), ("principal", principal.to_owned())]);
    let filled = |texts: &'static str, name: &str, own: &Values| {
        let values = own
            .iter()
            .chain(&shared)
            .map(|(name, value)| (*name, value.as_str()));
        fill(section(texts, name), &values.collect::<Vec<_>>())
    };
    let none = Values::new();
    let is_azure = |step: &Step| matches!(step.title.as_str(), "assign" | "vault-role" | "platform");
    let head = if steps.iter().any(is_azure) {
        "head.azure"
    } else {
        "head"
    };
    let mut text = format!("{}\n\n", filled(texts, head, &none));
    let comment = if style == Style::Bicep { "//" } else { "#" };
    for (at, step) in steps.iter().enumerate() {
        let title = filled(TITLES, &format!("{}.{tool}", step.title), &none);
        text.push_str(&format!("{comment} {}. {title}\n", at + 1));
        for values in &step.values {
            let body = filled(texts, &step.body, values);
            let end = if body.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{body}{end}"));
        }
        text.push('\n');
    }
    for line in section(TITLES, &setup.summary()).lines() {
        text.push_str(&format!("{comment} {line}\n"));
    }
    text
}

impl Setup<'_> {
    /// The values that the texts of every step may be filled with.
    fn values(&self) -> Values {
        let (identity, resource) = (self.identity, self.resource);
        let application = identity.grant.application();
        let client = application.map(|(endpoint, _)| &*endpoint.client_id);
        let client = client.filter(|id| !is_placeholder(id)).unwrap_or("CLIENT_ID");
        // Microsoft Learn, "Microsoft Graph national cloud deployments".
        let (environment, azure, graph) = match identity.cloud {
            Cloud::Public | Cloud::Gcc => ("Global", "AzureCloud", "https://graph.microsoft.com"),
            Cloud::GccHigh => ("USGov", "AzureUSGovernment", "https://graph.microsoft.us"),
            Cloud::Dod => ("USGovDoD", "AzureUSGovernment", "https://dod-graph.microsoft.us"),
            Cloud::China => (
                "China",
                "AzureChinaCloud",
                "https://microsoftgraph.chinacloudapi.cn",
            ),
        };
        let cloud = match azure {
            "AzureCloud" => String::new(),
            other => format!("az cloud set --name {other}\n"),
        };
        let api = match resource {
            Resource::PowerPlatform(address) => address,
            Resource::Flow | Resource::Graph | Resource::Other(_) => "https://api.powerplatform.com",
        };
        let user = match &identity.grant {
            GrantSettings::Password { user, .. } => user,
            _ => "USER",
        };
        let kind = match self.principal {
            PrincipalOf::Account => "User",
            _ => "ServicePrincipal",
        };
        let existing = match self.principal {
            PrincipalOf::Machine(ManagedSettings {
                selector: Some(Selector::ResourceId(id)),
                ..
            }) => id,
            _ => "$(az identity show --resource-group GROUP --name NAME --query id --output tsv)",
        };
        let texts = [
            ("name", identity.name.as_str()),
            ("tenant", self.tenant),
            ("client", client),
            ("environment", environment),
            ("azure", azure),
            ("graph", graph),
            ("api", api),
            ("user", user),
            ("kind", kind),
            ("existing", existing),
            ("selector", self.principal.selector().unwrap_or_default()),
            ("role", PLATFORM_READER),
            ("version", PLATFORM_VERSION),
        ];
        let mut values: Values = texts.map(|(name, text)| (name, text.to_owned())).into();
        values.extend([
            ("cloud", cloud),
            ("id", resource.id()),
            ("resource", resource.name()),
        ]);
        values
    }

    async fn steps(&self, config: &Config) -> Vec<Step> {
        let (consumer, principal) = (self.consumer, self.principal);
        let mut steps = Vec::new();
        if matches!(self.resource, Resource::PowerPlatform(_)) {
            // Many tenants lack it, and later steps name it.
            steps.push(Step::new("resource.platform", "resource"));
        }
        if let Some((_, proof)) = self.identity.grant.application() {
            steps.extend(self.registration(proof).await);
        }
        match (principal, &self.identity.grant) {
            (PrincipalOf::Account, grant) => {
                let account = match grant {
                    GrantSettings::SignIn { .. } => "account.sign-in",
                    _ => "account",
                };
                let delegated = Step::named(&format!("delegated.{consumer}"));
                steps.extend([delegated, Step::new("account", account)]);
            }
            (PrincipalOf::Machine(_), _) => {
                steps.push(Step::new("assign", format!("assign.{}", principal.name())));
            }
            (PrincipalOf::Unknown, _) => steps.push(Step::named("projection")),
            (PrincipalOf::Application, GrantSettings::Default(_)) => steps.extend([
                Step::new("registration", "registration.confidential"),
                Step::named("principal"),
                Step::federated(None, "ISSUER", "system:serviceaccount:NAMESPACE:ACCOUNT"),
            ]),
            (PrincipalOf::Application, _) => {}
        }
        match self.resource {
            Resource::Flow => steps.push(Step::new("resource.flow", "resource")),
            Resource::Other(_) => steps.push(Step::named("resource")),
            Resource::PowerPlatform(_) | Resource::Graph => {}
        }
        let body = format!("object-id.{}", principal.name());
        steps.push(Step::new(format!("object-id.{consumer}"), body));
        // The right that an API requires of a caller in its own name. An account has delegated permissions.
        if consumer == "api" && !matches!(principal, PrincipalOf::Account) {
            steps.push(Step::named(match self.resource {
                Resource::PowerPlatform(_) => "platform",
                _ => "app-role",
            }));
        }
        let own = |keyvault: &&KeyVaultSettings| keyvault.identity.name == self.identity.name;
        if let Some(keyvault) = config.keyvault.as_ref().filter(own) {
            let mut places: Vec<_> = keyvault.at_start.iter().chain(&keyvault.later).collect();
            places.dedup();
            let values = places.iter().enumerate().map(|(number, place)| {
                let (vault, secret) = (place.vault().to_owned(), place.name().to_owned());
                vec![
                    ("number", number.to_string()),
                    ("vault", vault),
                    ("secret", secret),
                ]
            });
            steps.push(Step {
                values: values.collect(),
                ..Step::named("vault-role")
            });
        }
        let selector = principal.selector();
        steps.extend(selector.map(|selector| Step::named(&format!("settings.{selector}"))));
        steps
    }

    /// The steps that an application needs.
    async fn registration(&self, proof: &ClientProof) -> Vec<Step> {
        let client = match (proof, &self.identity.grant) {
            (ClientProof::Public, _) => "registration.public",
            // It has a secret, and a person signs in with it.
            (_, GrantSettings::SignIn { .. }) => "registration.signs-in",
            _ => "registration.confidential",
        };
        let mut steps = vec![Step::new("registration", client), Step::named("principal")];
        match proof {
            ClientProof::Secrets(_) => steps.push(Step::named("secret")),
            ClientProof::Certificates(_) => steps.push(Step::named("certificate")),
            ClientProof::Public => {}
            ClientProof::Federated(proof) => steps.push(match &proof.source {
                AssertionSource::File(path) => {
                    let token = FederatedToken::in_file(path, self.identity.name.as_str()).await;
                    let subject = "system:serviceaccount:NAMESPACE:ACCOUNT";
                    Step::federated(token.ok().as_ref(), "ISSUER", subject)
                }
                AssertionSource::Identity { .. } => {
                    // Microsoft Learn, "Configure an application to trust a managed identity".
                    let application = self.identity.grant.application();
                    let issuer = application.map_or_else(
                        || "ISSUER".to_owned(),
                        |(endpoint, _)| format!("{}/{}/v2.0", endpoint.authority, self.tenant),
                    );
                    Step::federated(None, &issuer, "OBJECT_ID_OF_THE_MANAGED_IDENTITY")
                }
            }),
        }
        steps
    }

    /// The section that says what the identity needs, and no more.
    fn summary(&self) -> String {
        let what = match (self.principal, self.resource, &self.identity.grant) {
            (PrincipalOf::Account, ..) => "account",
            (_, _, GrantSettings::Managed(_)) if self.consumer == "flow" => "managed",
            (_, Resource::PowerPlatform(_), _) => "platform",
            _ => "",
        };
        format!("summary.{}.{what}", self.consumer)
    }
}

#[cfg(test)]
mod tests {
    use super::{Style, TITLES, section};

    /// Every step with its title and its bodies.
    const STEPS: &[(&str, &[&str])] = &[
        (
            "registration",
            &[
                "registration.confidential",
                "registration.public",
                "registration.signs-in",
            ],
        ),
        ("principal", &["principal"]),
        ("secret", &["secret"]),
        ("certificate", &["certificate"]),
        ("federated", &["federated"]),
        (
            "assign",
            &[
                "assign.arc",
                "assign.own.imds",
                "assign.selected.imds",
                "assign.own.app-service",
                "assign.selected.app-service",
            ],
        ),
        ("delegated.flow", &["delegated.flow"]),
        ("delegated.api", &["delegated.api"]),
        ("app-role", &["app-role"]),
        ("platform", &["platform"]),
        ("account", &["account", "account.sign-in"]),
        ("projection", &[]),
        ("resource.flow", &["resource"]),
        ("resource.platform", &["resource"]),
        ("resource", &["resource"]),
        (
            "object-id.flow",
            &["object-id.application", "object-id.unknown", "object-id.account"],
        ),
        (
            "object-id.api",
            &["object-id.arc", "object-id.own.imds", "object-id.selected.imds"],
        ),
        ("vault-role", &["vault-role"]),
        ("settings.application", &["settings.application"]),
        ("settings.unknown", &["settings.unknown"]),
        (
            "settings.client_id",
            &["settings.client_id", "settings.object_id", "settings.resource_id"],
        ),
    ];

    #[test]
    fn each_step_is_written_for_each_tool() {
        for style in [Style::Az, Style::PowerShell, Style::Bicep] {
            let (tool, texts) = style.texts();
            assert!(section(texts, "head").contains("{tenant}"), "{tool}");
            for (title, bodies) in STEPS {
                let title = section(TITLES, &format!("{title}.{tool}"));
                assert!(title.ends_with(['.', '"', '`']), "{tool}: {title}");
                for body in *bodies {
                    assert!(!section(texts, body).is_empty(), "{tool}: {body}");
                }
            }
        }
    }

    #[test]
    fn the_summary_is_that_of_the_identity_or_else_the_usual_one() {
        let managed = section(TITLES, "summary.flow.managed");
        assert!(managed.contains("one for the gateway alone"), "{managed}");
        for (special, usual) in [
            ("summary.flow.", "summary.flow"),
            ("summary.api.x", "summary.api"),
        ] {
            assert_eq!(section(TITLES, special), section(TITLES, usual));
        }
        assert_eq!(section(TITLES, "nowhere.at.all"), "");
    }
}
