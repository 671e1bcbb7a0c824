//! Managed identities: selects the platform's token source from the environment variables that the platform sets, and which
//! of several identities to use.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::model::entra_ids::is_guid;
use crate::model::{ClientId, Flaw, Host, Secret};
use crate::settings::check::Check;
use crate::settings::identity::{IdentityTable, ManagedTable, SourceWord};
use crate::settings::kinds::At;
use crate::settings::table::Table;
use crate::settings::value::optional;
use crate::settings::{GrantSettings, ManagedSettings, ManagedSource, Secrets, Selector};

/// The link-local address of IMDS is the same on every virtual machine.
const IMDS: &str = "http://169.254.169.254";
/// Where the agent of Azure Arc listens.
const ARC: &str = "http://localhost:40342";
/// Takes the place of an endpoint that is not known on this machine.
const PLACEHOLDER: &str = "http://localhost";

impl Check<'_> {
    pub(super) fn managed_identity(&mut self, identity: &Table<IdentityTable>) -> Option<GrantSettings> {
        self.without_token_life(identity);
        for key in ["client_id", "authority"] {
            let Some(mark) = identity.place(key) else { continue };
            let flaw = Flaw::new(format!("`{key}` has no meaning beside `managed`"));
            let flaw = match key {
                "client_id" => {
                    flaw.hint("a user-assigned identity is named by client_id under [identity.managed]")
                }
                _ => flaw.hint("a managed identity asks the platform, not Entra"),
            };
            self.findings.mistake(mark, flaw);
        }
        let found = self.managed(identity, None)?;
        self.findings
            .keep(identity.managed.as_ref()?, found)
            .map(GrantSettings::Managed)
    }

    /// The managed identity of this platform, or the reason why there is none with a hint. Nothing after a mistake that
    /// was reported. `usual` is selected when the settings select nothing.
    pub(super) fn managed(
        &mut self,
        identity: &Table<IdentityTable>,
        usual: Option<ClientId>,
    ) -> Option<Result<ManagedSettings, Flaw>> {
        let empty = ManagedTable::default();
        let table = identity.managed.as_deref().unwrap_or(&empty);
        let selector = self.selector(table);
        let endpoint = optional(table.endpoint.as_ref(), |value| {
            self.override_address(table, value)
        });
        let folder = self.arc_folder(table);
        let trust = self.trust(identity.ca_file.as_ref());
        let selector = selector?.or(usual.map(Selector::ClientId));
        let source = self.source(table, endpoint?, folder?);
        Some(source.map(|(source, origin)| ManagedSettings {
            source,
            selector,
            trust,
            timeout: identity.timeout,
            origin,
        }))
    }

    fn selector(&mut self, table: &ManagedTable) -> Option<Option<Selector>> {
        let client = table.client_id.as_ref().map(|id| {
            let selector = Selector::ClientId((**id).clone());
            ("client_id", id.span(), Ok(selector))
        });
        let object = table.object_id.as_ref().map(|id| {
            let selector = check_object_id(id).map(Selector::ObjectId);
            ("object_id", id.span(), selector)
        });
        let resource = table.resource_id.as_ref().map(|id| {
            let selector = check_resource_id(id).map(Selector::ResourceId);
            ("resource_id", id.span(), selector)
        });
        let mut given = [client, object, resource].into_iter().flatten();
        let Some((first, place, selector)) = given.next() else {
            return Some(None);
        };
        if let Some((second, second_place, _)) = given.next() {
            let flaw = Flaw::new(format!(
                "a managed identity is selected by `{first}` or by `{second}`, not by both"
            ));
            self.findings.clash(second_place, flaw, place, "selected here");
            return None;
        }
        self.findings.keep(place, selector).map(Some)
    }

    fn override_address(&mut self, table: &ManagedTable, value: &At<String>) -> Option<String> {
        let address = self.findings.keep(value, check_address(value, Behind::None));
        let hint = match table.source {
            SourceWord::Auto => "name the source as well: source = \"imds\" or source = \"arc\"",
            SourceWord::AppService => "leave it out: App Service names its endpoint in IDENTITY_ENDPOINT",
            SourceWord::Imds | SourceWord::Arc => return address,
        };
        let flaw = Flaw::new("`endpoint` is for IMDS and for the Arc agent");
        self.findings.mistake(value, flaw.hint(hint));
        None
    }

    fn arc_folder(&mut self, table: &ManagedTable) -> Option<PathBuf> {
        let Some(value) = &table.arc_token_folder else {
            return Some(self.platform_arc_folder());
        };
        if table.source != SourceWord::Arc {
            let flaw = Flaw::new("`arc_token_folder` goes with source = \"arc\" only");
            self.findings.mistake(value, flaw);
            return None;
        }
        self.path(value)
    }

    fn platform_arc_folder(&self) -> PathBuf {
        if cfg!(windows) {
            let data = self.environment.platform_variable("ProgramData");
            let data = data.as_ref().map_or("C:\\ProgramData", Secret::expose);
            return Path::new(data).join("AzureConnectedMachineAgent").join("Tokens");
        }
        PathBuf::from("/var/opt/azcmagent/tokens")
    }

    /// Whether the agent of Azure Arc is installed here; its service does not give variables to every process.
    fn has_arc_agent(&self) -> bool {
        if self.environment.secrets() == Secrets::Unresolved {
            return false;
        }
        if cfg!(windows) {
            let programs = self.environment.platform_variable("ProgramFiles");
            let programs = programs.as_ref().map_or("C:\\Program Files", Secret::expose);
            let agent = Path::new(programs).join("AzureConnectedMachineAgent");
            return agent.join("himds.exe").exists();
        }
        Path::new("/opt/azcmagent/bin/himds").exists()
    }

    fn source(
        &self,
        table: &ManagedTable,
        endpoint: Option<String>,
        token_folder: PathBuf,
    ) -> Result<(ManagedSource, String), Flaw> {
        let imds = |endpoint: Option<String>, why: &str| {
            let endpoint = endpoint.unwrap_or_else(|| IMDS.to_owned());
            Ok((
                ManagedSource::Imds { endpoint },
                format!("managed identity from IMDS: {why}"),
            ))
        };
        match table.source {
            SourceWord::Imds => imds(endpoint, "the settings say so"),
            SourceWord::AppService => self.app_service("the settings say so"),
            SourceWord::Arc => self.arc(endpoint, token_folder, "the settings say so"),
            SourceWord::Auto if self.environment.secrets() == Secrets::Unresolved => imds(
                None,
                "unless the machine that runs the gateway has another source",
            ),
            SourceWord::Auto => {
                let is_set = |name: &str| self.environment.platform_variable(name).is_some();
                if is_set("IDENTITY_ENDPOINT") && is_set("IDENTITY_HEADER") {
                    return self.app_service("IDENTITY_ENDPOINT and IDENTITY_HEADER are set");
                }
                if is_set("IDENTITY_ENDPOINT") && is_set("IMDS_ENDPOINT") {
                    return self.arc(None, token_folder, "IDENTITY_ENDPOINT and IMDS_ENDPOINT are set");
                }
                if self.has_arc_agent() {
                    return self.arc(None, token_folder, "the agent is installed on this machine");
                }
                imds(None, "no environment variable names another source")
            }
        }
    }

    fn app_service(&self, why: &str) -> Result<(ManagedSource, String), Flaw> {
        let origin = format!("managed identity from App Service: {why}");
        if self.environment.secrets() == Secrets::Unresolved {
            let source = ManagedSource::AppService {
                endpoint: PLACEHOLDER.to_owned(),
                header: Secret::new(""),
            };
            return Ok((source, origin));
        }
        if self
            .environment
            .platform_variable("IDENTITY_SERVER_THUMBPRINT")
            .is_some()
        {
            let what = "IDENTITY_SERVER_THUMBPRINT is set, so this is Service Fabric, which is not supported";
            return Err(Flaw::new(what).hint("use a client secret, a certificate or a federated token"));
        }
        let required = |name: &'static str| {
            let hint = "App Service, Functions and Container Apps set it once the app has an identity: switch one on \
                        under Identity, and restart the app";
            let missing = || Flaw::new(format!("environment variable {name} is not set")).hint(hint);
            self.environment.platform_variable(name).ok_or_else(missing)
        };
        let endpoint = required("IDENTITY_ENDPOINT")?;
        let header = required("IDENTITY_HEADER")?;
        let endpoint = check_address(endpoint.expose(), Behind::Any)
            .map_err(|flaw| in_platform_variable("IDENTITY_ENDPOINT:", &flaw.what))?;
        if !header.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            let what = "cannot be sent in a header field";
            return Err(in_platform_variable("IDENTITY_HEADER", what));
        }
        Ok((ManagedSource::AppService { endpoint, header }, origin))
    }

    fn arc(
        &self,
        endpoint: Option<String>,
        token_folder: PathBuf,
        why: &str,
    ) -> Result<(ManagedSource, String), Flaw> {
        let variable = self.environment.platform_variable("IMDS_ENDPOINT");
        let endpoint = match (endpoint, variable) {
            (Some(endpoint), _) => endpoint,
            (None, Some(variable)) => check_address(variable.expose(), Behind::None)
                .map_err(|flaw| in_platform_variable("IMDS_ENDPOINT:", &flaw.what))?,
            (None, None) => ARC.to_owned(),
        };
        let origin = format!("managed identity from the Azure Arc agent: {why}");
        Ok((
            ManagedSource::Arc {
                endpoint,
                token_folder,
            },
            origin,
        ))
    }
}

fn in_platform_variable(name: &str, what: &str) -> Flaw {
    Flaw::new(format!("environment variable {name} {what}"))
        .hint("the platform sets this variable; remove any other setting of it")
}

/// What may follow host and port in an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behind {
    None,
    Any,
}

/// Tokens travel over the address in clear text unless it has TLS, so it must not leave the machine or its host.
fn check_address(text: &str, allowed: Behind) -> Result<String, Flaw> {
    let text = text
        .strip_suffix('/')
        .filter(|_| allowed == Behind::None)
        .unwrap_or(text);
    let (is_secure, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => {
            return Err(Flaw::new("the address must start with http:// or https://")
                .hint(format!("write for example \"{IMDS}\"")));
        }
    };
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains(['@', '?', '#', '\\']) {
        return Err(Flaw::new("the address has more than scheme, host and port"));
    }
    let (authority, behind) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    if allowed == Behind::None && !behind.is_empty() {
        return Err(Flaw::new("the address has more than scheme, host and port")
            .hint("the path is always the same and is added"));
    }
    let host = Host::of_authority(authority);
    let host = host.ok_or_else(|| Flaw::new("the address has no valid host and port"))?;
    let is_near = match host.address() {
        Some(address) => is_near(address) || (allowed == Behind::Any && is_private(address)),
        None => &*host == "localhost",
    };
    if !is_secure && !is_near {
        return Err(Flaw::new(
            "without TLS the address must be a loopback or link-local one: tokens would be sent in clear text",
        ));
    }
    Ok(text.to_owned())
}

/// Whether what is sent to an address stays on this machine or between it and its host.
fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_loopback() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unicast_link_local(),
    }
}

/// Container platforms hand out endpoints in the private network between an app and its sandbox.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_private(),
        IpAddr::V6(address) => address.is_unique_local(),
    }
}

fn check_object_id(text: &str) -> Result<String, Flaw> {
    if is_guid(text) {
        return Ok(text.to_owned());
    }
    Err(Flaw::new("an object id is a GUID")
        .hint("write the Object (principal) ID that Azure shows for the managed identity"))
}

fn check_resource_id(text: &str) -> Result<String, Flaw> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.()".contains(&byte);
    let lower = text.to_ascii_lowercase();
    let is_identity = lower.starts_with("/subscriptions/")
        && lower.contains("/providers/microsoft.managedidentity/userassignedidentities/");
    if is_identity && text.len() <= 1024 && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    Err(Flaw::new("this is not the resource id of a user-assigned identity").hint(
        "write \"/subscriptions/ID/resourceGroups/GROUP/providers/Microsoft.ManagedIdentity/userAssignedIdentities/\
         NAME\"; az identity show --query id prints it",
    ))
}

#[cfg(test)]
mod tests {
    use super::{Behind, check_address, check_resource_id};
    use crate::settings::sample::Sample;
    use crate::settings::{GrantSettings, ManagedSettings, ManagedSource, Selector};

    const GUID: &str = "00000000-0000-0000-0000-000000000000";

    fn sample(lines: &str) -> Sample {
        Sample::default().with("identity", &format!("name = \"contoso\"\n{lines}"))
    }

    fn managed(lines: &str, variables: &[(&str, &str)]) -> ManagedSettings {
        let config = variables
            .iter()
            .fold(sample(lines), |sample, (name, value)| {
                sample.variable(name, value)
            })
            .config();
        match &config.identities[0].grant {
            GrantSettings::Managed(managed) => managed.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_environment_selects_the_token_source() {
        let auto = "managed = {}";
        let endpoint = ("IDENTITY_ENDPOINT", "http://127.0.0.1:41741/msi/token/");
        let header = ("IDENTITY_HEADER", "canary-header");
        assert!(matches!(
            managed(auto, &[]).source,
            ManagedSource::Imds { endpoint } if endpoint == "http://169.254.169.254"
        ));
        let found = managed(auto, &[endpoint, header]);
        assert!(!format!("{found:?}").contains("canary"));
        assert!(matches!(
            found.source,
            ManagedSource::AppService { endpoint, .. } if endpoint == "http://127.0.0.1:41741/msi/token/"
        ));
        let found = managed(auto, &[endpoint, ("IMDS_ENDPOINT", "http://localhost:40342")]);
        assert!(matches!(
            found.source,
            ManagedSource::Arc { endpoint, .. } if endpoint == "http://localhost:40342"
        ));
        assert!(found.origin.contains("IMDS_ENDPOINT"), "{}", found.origin);
        let fabric = sample(auto)
            .variable("IDENTITY_ENDPOINT", "https://10.0.0.1:2377/x")
            .variable("IDENTITY_HEADER", "canary")
            .variable("IDENTITY_SERVER_THUMBPRINT", "AB");
        assert_eq!(
            fabric.mistakes(),
            ["IDENTITY_SERVER_THUMBPRINT is set, so this is Service Fabric, which is not supported"]
        );
    }

    #[test]
    fn a_source_that_the_settings_name_must_be_there() {
        let named = sample("managed = { source = \"app-service\" }");
        assert_eq!(
            named.mistakes(),
            ["environment variable IDENTITY_ENDPOINT is not set"]
        );
        let named = sample("managed = { source = \"app-service\" }").without_secrets();
        assert!(named.mistakes().is_empty());
        let invalid = sample("managed = { source = \"app-service\" }")
            .variable("IDENTITY_ENDPOINT", "http://collector.example/msi")
            .variable("IDENTITY_HEADER", "canary");
        let report = invalid.report();
        assert!(report.contains("loopback or link-local"), "{report}");
        assert!(!report.contains("collector"), "{report}");
    }

    #[test]
    fn one_identity_is_selected_at_most() {
        let found = managed(&format!("managed = {{ object_id = \"{GUID}\" }}"), &[]);
        assert_eq!(found.selector, Some(Selector::ObjectId(GUID.to_owned())));
        assert_eq!(
            sample(&format!(
                "managed = {{ object_id = \"{GUID}\", client_id = \"{GUID}\" }}"
            ))
            .mistakes(),
            ["a managed identity is selected by `client_id` or by `object_id`, not by both"]
        );
        assert_eq!(
            sample("managed = { object_id = \"mine\" }").mistakes(),
            ["an object id is a GUID"]
        );
        let path =
            "/subscriptions/1/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/x";
        assert!(check_resource_id(path).is_ok());
        for bad in [
            "",
            "x",
            "/subscriptions/1",
            &format!("{path}?a"),
            &format!("{path} "),
        ] {
            assert!(check_resource_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_without_tls_stays_near() {
        for good in [
            "http://169.254.169.254",
            "http://127.0.0.1:8080",
            "http://localhost:40342",
            "http://[::1]:80",
            "http://[fe80::1]:80",
            "https://proxy.example:8443",
        ] {
            assert_eq!(check_address(good, Behind::None).unwrap(), good);
        }
        for bad in [
            "",
            "169.254.169.254",
            "http://10.0.0.1",
            "http://metadata.example",
            "http://169.254.169.254.example",
            "http://u:p@127.0.0.1",
            "http://127.0.0.1/metadata",
            "http://127.0.0.1?x",
            "ftp://127.0.0.1",
            "https://a b",
        ] {
            assert!(check_address(bad, Behind::None).is_err(), "{bad}");
        }
        assert!(check_address("http://10.0.0.1:4141/msi/token/", Behind::Any).is_ok());
        assert!(check_address("http://8.8.8.8/msi/token/", Behind::Any).is_err());
    }

    #[test]
    fn what_belongs_elsewhere_is_named() {
        assert_eq!(
            sample(&format!("client_id = \"{GUID}\"\nmanaged = {{}}")).mistakes(),
            ["`client_id` has no meaning beside `managed`"]
        );
        assert_eq!(
            sample("managed = { endpoint = \"http://127.0.0.1:1\" }").mistakes(),
            ["`endpoint` is for IMDS and for the Arc agent"]
        );
        assert_eq!(
            sample("managed = { source = \"imds\", arc_token_folder = \"x\" }").mistakes(),
            ["`arc_token_folder` goes with source = \"arc\" only"]
        );
        assert_eq!(
            sample("managed = {}\nfederated = {}").mistakes(),
            ["an identity has either a managed identity or a federated token, not both"]
        );
    }
}
