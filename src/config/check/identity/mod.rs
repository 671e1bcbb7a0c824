//! Entra identities: the mistakes here cost most when they are found late, as refused tokens, so each known
//! one is named before the first request.

mod ambient;
mod certificate;
mod federated;
mod links;
mod managed;
mod password;
mod sign_in;

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

pub(super) use links::give_roles;

use crate::config::ClientProof;
use crate::config::ClientSecret;
use crate::config::EndpointSettings;
use crate::config::GrantSettings;
use crate::config::IdentityRole;
use crate::config::IdentitySettings;
use crate::config::check::Check;
use crate::config::check::name::Names;
use crate::config::check::path;
use crate::config::check::tree;
use crate::config::check::value::DAY;
use crate::config::check::value::MILLISECOND;
use crate::config::check::value::SECOND;
use crate::config::file;
use crate::config::file::Identity;
use crate::config::file::SecretTable;
use crate::config::leaf::At;
use crate::config::leaf::Table;
use crate::config::mask;
use crate::config::mistake::Flaw;
use crate::model::Cloud;
use crate::model::IdentityName;

/// What every scope for an application ends in.
const DEFAULT: &str = "/.default";

impl Check<'_> {
    pub(super) fn identities(
        &mut self,
        list: &[Table<Identity>],
        names: &mut Names,
    ) -> Vec<IdentitySettings> {
        let identities: Vec<_> = list
            .iter()
            .filter_map(|identity| self.identity(identity, names))
            .collect();
        self.links(list, &identities, names);
        identities
    }

    fn identity(&mut self, identity: &Table<Identity>, names: &mut Names) -> Option<IdentitySettings> {
        let name = self.name(
            identity.span(),
            identity.name.as_ref(),
            names,
            IdentityName::parse,
        );
        let cloud = self.cloud(identity.cloud.as_ref());
        let tenant = identity
            .tenant
            .as_ref()
            .map(|value| self.findings.keep(value, check_tenant(value)));
        let scope = self.scope(identity, cloud);
        let grant = self.grant(identity, cloud);
        let scope = scope?;
        let audience = sign_in::audience_of(&scope).to_owned();
        let tenant = match tenant {
            Some(tenant) => tenant?,
            None => self.told_tenant(identity).unwrap_or_default(),
        };
        Some(IdentitySettings {
            name: name?,
            grant: grant?,
            cloud: cloud?,
            scope,
            audience,
            tenant,
            role: IdentityRole::Serves,
        })
    }

    fn cloud(&mut self, value: Option<&At<String>>) -> Option<Cloud> {
        let Some(value) = value else {
            return Some(Cloud::Public);
        };
        let read = Cloud::from_name(value).ok_or_else(|| {
            let known = Cloud::ALL.map(Cloud::name);
            let flaw = Flaw::new("unknown cloud");
            match tree::closest(value, known.into_iter()) {
                Some(meant) => flaw.hint(format!("did you mean \"{meant}\"?")),
                None => flaw.hint(format!("known are {}", known.join(", "))),
            }
        });
        self.findings.keep(value, read)
    }

    fn scope(&mut self, identity: &Identity, cloud: Option<Cloud>) -> Option<String> {
        let Some(value) = &identity.scope else {
            return Some(cloud?.scope().to_owned());
        };
        let checked = if identity.password.is_some() || identity.sign_in.is_some() {
            sign_in::check_account_scope(value)
        } else {
            check_scope(value)
        };
        let read = checked.map(|()| value.as_str().to_owned());
        let scope = self.findings.keep(value, read)?;
        let cloud = cloud?;
        let foreign = Cloud::ALL
            .into_iter()
            .find(|other| *other != cloud && other.scope() == scope);
        if let Some(other) = foreign {
            let flaw = Flaw::new(format!(
                "this is the scope of the cloud \"{}\", and the identity is in \"{}\"",
                other.name(),
                cloud.name()
            ));
            self.findings.warn(
                value,
                flaw.hint(format!(
                    "leave the scope out, or set cloud = \"{}\"",
                    other.name()
                )),
            );
        }
        Some(scope)
    }

    /// The one way in which an identity gets its tokens.
    fn grant(&mut self, identity: &Table<Identity>, cloud: Option<Cloud>) -> Option<GrantSettings> {
        let ways = ways(identity);
        match ways.as_slice() {
            [] => {
                if !Way::ALL
                    .iter()
                    .any(|way| self.findings.was_reported(identity.span(), way.key()))
                {
                    let flaw = Flaw::new("the identity has nothing to get a token with");
                    let hint = "set client_secret = \"env:NAME\", add [[identity.certificate]], or set token_file for a \
                                token that another program keeps fresh";
                    self.findings.mistake(identity, flaw.hint(hint));
                }
                None
            }
            [(Way::Secret, _)] => self.client(identity, cloud, Self::secrets),
            [(Way::Certificate, _)] => self.client(identity, cloud, Self::certificates),
            [(Way::TokenFile, _)] => {
                let file = identity.token_file.as_ref()?;
                self.token_file(identity, file)
            }
            [(Way::Managed, _)] => self.managed_identity(identity),
            [(Way::Federated, _)] => self.federated_identity(identity, cloud),
            [(Way::Default, _)] => self.default_chain(identity, cloud),
            [(Way::Password, _)] | [(Way::Secret, _), (Way::Password, _)] => {
                let table = identity.password.as_ref()?;
                self.password(identity, table, cloud)
            }
            [(Way::SignIn, _)] | [(Way::Secret, _), (Way::SignIn, _)] => {
                let table = identity.sign_in.as_ref()?;
                self.sign_in(identity, table, cloud)
            }
            [(first, first_span), (second, second_span), ..] => {
                let flaw = Flaw::new(format!(
                    "an identity has either {} or {}, not both",
                    first.words(),
                    second.words()
                ));
                self.findings
                    .clash(second_span.clone(), flaw, first_span.clone(), first.words());
                None
            }
        }
    }

    /// The client credentials grant, with the proof that `proof` reads.
    fn client(
        &mut self,
        identity: &Table<Identity>,
        cloud: Option<Cloud>,
        proof: impl FnOnce(&mut Self, &Table<Identity>) -> Option<ClientProof>,
    ) -> Option<GrantSettings> {
        self.without_token_life(identity);
        let proof = proof(self, identity);
        let endpoint = self.endpoint(identity, cloud);
        Some(GrantSettings::Client {
            endpoint: endpoint?,
            proof: proof?,
        })
    }

    fn without_token_life(&mut self, identity: &Table<Identity>) {
        if let Some(life) = &identity.token_life {
            self.findings
                .mistake(life, Flaw::new("`token_life` goes with `token_file` only"));
        }
    }

    /// Where an application asks for its tokens.
    fn endpoint(&mut self, identity: &Table<Identity>, cloud: Option<Cloud>) -> Option<EndpointSettings> {
        if identity.tenant.is_none() {
            self.findings.missing(
                identity.span(),
                "tenant",
                "write the tenant's id or one of its domains",
            );
        }
        if identity.client_id.is_none() {
            let hint = "write the Application (client) ID that Entra shows for the app registration";
            self.findings.missing(identity.span(), "client_id", hint);
        }
        let client_id = identity
            .client_id
            .as_ref()
            .map(|value| self.findings.keep(value, check_client_id(value)));
        let authority = match &identity.authority {
            Some(value) => self.findings.keep(value, check_authority(value)),
            None => cloud.map(|cloud| cloud.authority().to_owned()),
        };
        let tenant = identity.tenant.as_ref().map(|tenant| tenant.as_str().to_owned());
        self.endpoint_of(identity, tenant, client_id.flatten(), authority)
    }

    fn endpoint_of(
        &mut self,
        identity: &Table<Identity>,
        tenant: Option<String>,
        client_id: Option<String>,
        authority: Option<String>,
    ) -> Option<EndpointSettings> {
        let trust = self.trust(identity.ca_file.as_ref());
        let timeout = self.token_timeout(identity);
        let (tenant, authority) = (tenant?, authority?);
        Some(EndpointSettings {
            token_url: format!("{authority}/{tenant}/oauth2/v2.0/token"),
            authority,
            client_id: client_id?,
            trust,
            timeout,
        })
    }

    fn token_timeout(&mut self, identity: &Table<Identity>) -> Duration {
        self.duration(
            identity.timeout.as_ref(),
            file::TOKEN_TIMEOUT,
            MILLISECOND..=60 * SECOND,
        )
    }

    fn secrets(&mut self, identity: &Table<Identity>) -> Option<ClientProof> {
        let mut secrets = Vec::new();
        if let Some(value) = &identity.client_secret {
            secrets.push(
                self.secret_source("client_secret", value)
                    .map(|source| ClientSecret {
                        source,
                        expires: None,
                    }),
            );
        }
        for table in &identity.secret {
            secrets.push(self.client_secret(table));
        }
        let secrets: Option<Vec<_>> = secrets.into_iter().collect();
        secrets.map(ClientProof::Secrets)
    }

    fn client_secret(&mut self, table: &Table<SecretTable>) -> Option<ClientSecret> {
        let Some(value) = &table.value else {
            let hint = "write for example value = \"env:CONTOSO_SECRET\"";
            self.findings.missing(table.span(), "value", hint);
            return None;
        };
        let expires = self.moment(table.expires.as_ref());
        if let (Some(expires), Some(at)) = (expires, &table.expires)
            && expires <= self.environment.now()
        {
            let flaw = Flaw::new("this client secret has expired");
            self.findings
                .warn(at, flaw.hint("create a new one in Entra, and take this one out"));
        }
        Some(ClientSecret {
            source: self.secret_source("value", value)?,
            expires,
        })
    }

    fn token_file(&mut self, identity: &Table<Identity>, value: &At<String>) -> Option<GrantSettings> {
        let idle = [
            ("client_id", identity.client_id.as_ref().map(At::span)),
            ("authority", identity.authority.as_ref().map(At::span)),
            ("ca_file", identity.ca_file.as_ref().map(At::span)),
            ("timeout", identity.timeout.as_ref().map(At::span)),
        ];
        for (key, span) in idle {
            if let Some(span) = span {
                self.findings.mistake(
                    span,
                    Flaw::new(format!("`{key}` has no meaning beside `token_file`")),
                );
            }
        }
        // A shorter life would run out between two writes of the file, a longer one outlives every token of
        // Entra.
        let bounds = Duration::from_secs(60)..=DAY;
        let life = self.duration(identity.token_life.as_ref(), file::TOKEN_LIFE, bounds);
        let path = self.path(value)?;
        self.expect_file(value, &path);
        Some(GrantSettings::TokenFile { path, life })
    }
}

/// A way to get tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Secret,
    Certificate,
    TokenFile,
    Managed,
    Federated,
    Default,
    Password,
    SignIn,
}

impl Way {
    const ALL: [Self; 8] = [
        Self::Secret,
        Self::Certificate,
        Self::TokenFile,
        Self::Managed,
        Self::Federated,
        Self::Default,
        Self::Password,
        Self::SignIn,
    ];

    /// Its key in the settings.
    fn key(self) -> &'static str {
        match self {
            Self::Secret => "client_secret",
            Self::Certificate => "certificate",
            Self::TokenFile => "token_file",
            Self::Managed => "managed",
            Self::Federated => "federated",
            Self::Default => "default",
            Self::Password => "password",
            Self::SignIn => "sign_in",
        }
    }

    /// Its name in a sentence.
    fn words(self) -> &'static str {
        match self {
            Self::Secret => "a client secret",
            Self::Certificate => "a certificate",
            Self::TokenFile => "a token file",
            Self::Managed => "a managed identity",
            Self::Federated => "a federated token",
            Self::Default => "the default chain",
            Self::Password => "a user name and password",
            Self::SignIn => "a person's sign-in",
        }
    }

    /// Where the settings of an identity ask for it.
    fn place(self, identity: &Identity) -> Option<Range<usize>> {
        match self {
            Self::Secret => {
                let short = identity.client_secret.as_ref().map(At::span);
                short.or_else(|| identity.secret.first().map(Table::span))
            }
            Self::Certificate => identity.certificate.first().map(Table::span),
            Self::TokenFile => identity.token_file.as_ref().map(At::span),
            // Beside the default chain these tables say more about its links.
            Self::Managed | Self::Federated if is_default(identity) => None,
            Self::Managed => identity.managed.as_ref().map(Table::span),
            Self::Federated => identity.federated.as_ref().map(Table::span),
            Self::Default => identity
                .default
                .as_ref()
                .filter(|default| ***default)
                .map(At::span),
            Self::Password => identity.password.as_ref().map(Table::span),
            Self::SignIn => identity.sign_in.as_ref().map(Table::span),
        }
    }
}

fn is_default(identity: &Identity) -> bool {
    identity.default.as_deref() == Some(&true)
}

/// The ways that the settings of an identity ask for.
fn ways(identity: &Identity) -> Vec<(Way, Range<usize>)> {
    let places = Way::ALL.into_iter();
    places
        .filter_map(|way| Some((way, way.place(identity)?)))
        .collect()
}

fn check_tenant(text: &str) -> Result<String, Flaw> {
    if matches!(
        text.to_ascii_lowercase().as_str(),
        "common" | "consumers" | "organizations"
    ) {
        // Entra refuses such a request with AADSTS9001023.
        return Err(Flaw::new(format!(
            "\"{text}\" is not a tenant, and an application must name its own"
        ))
        .hint("write the tenant's id or one of its domains; Entra would answer AADSTS9001023"));
    }
    if mask::is_guid(text) || (text.contains('.') && path::is_domain(text)) {
        return Ok(text.to_owned());
    }
    let flaw = Flaw::new("a tenant is its id or one of its domains");
    Err(match text.trim_matches(['{', '}', ' ']) {
        id if mask::is_guid(id) => flaw.hint(format!("write \"{id}\"")),
        _ => flaw
            .hint("write for example \"contoso.onmicrosoft.com\", or the id that Entra shows for the tenant"),
    })
}

fn check_client_id(text: &str) -> Result<String, Flaw> {
    if mask::is_guid(text) {
        return Ok(text.to_owned());
    }
    let flaw = Flaw::new("a client id is a GUID");
    if mask::looks_like_entra_secret(text) {
        return Err(
            Flaw::new("a client id is a GUID, and this looks like the value of a client secret").hint(
                "put the Application (client) ID here, and the secret behind client_secret = \"env:NAME\"",
            ),
        );
    }
    Err(match text.trim_matches(['{', '}', ' ']) {
        id if mask::is_guid(id) => flaw.hint(format!("write it without braces and blanks, \"{id}\"")),
        _ => flaw.hint("write the Application (client) ID that Entra shows for the app registration"),
    })
}

fn check_scope(text: &str) -> Result<(), Flaw> {
    if let Some(cloud) = Cloud::ALL.into_iter().find(|cloud| is_near(text, *cloud)) {
        // Entra cuts one slash off and the flow compares the rest letter by letter.
        return Err(Flaw::new(
            "with this scope the flow refuses the token: its audience must keep its last slash",
        )
        .hint(format!(
            "write \"{}\", with two slashes, or leave the scope out",
            cloud.scope()
        )));
    }
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain || !text.ends_with(DEFAULT) || text.len() == DEFAULT.len() {
        return Err(
            Flaw::new("a scope for an application ends in /.default").hint(format!(
                "write for example \"{}\", or leave the scope out",
                Cloud::Public.scope()
            )),
        );
    }
    Ok(())
}

/// Whether this is the scope or the audience of a flow with too few slashes.
fn is_near(text: &str, cloud: Cloud) -> bool {
    let audience = cloud.audience();
    let bare = audience.strip_suffix('/').unwrap_or(audience);
    text == audience || text == bare || text.strip_suffix(DEFAULT) == Some(bare)
}

fn check_authority(text: &str) -> Result<String, Flaw> {
    let (is_secure, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => {
            return Err(Flaw::new("an authority must start with https://")
                .hint(format!("write for example \"{}\"", Cloud::Public.authority())));
        }
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return Err(Flaw::new("an authority carries no user name"));
    }
    if rest.contains(['/', '?', '#']) {
        return Err(
            Flaw::new("an authority is a host without a path").hint("the tenant belongs into `tenant`")
        );
    }
    let host = host_of(rest).ok_or_else(|| Flaw::new("the authority has no valid host and port"))?;
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    let is_here = host == "localhost" || address.is_some_and(|address| address.is_loopback());
    if !is_secure && !is_here {
        return Err(Flaw::new(
            "an authority must start with https://: the client secret would be sent in clear text",
        ));
    }
    let scheme = if is_secure { "https" } else { "http" };
    Ok(format!("{scheme}://{rest}"))
}

fn host_of(authority: &str) -> Option<&str> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return None;
    }
    path::is_host(host).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::check_authority;
    use super::check_client_id;
    use super::check_scope;
    use super::check_tenant;
    use crate::config::check::sample::Sample;
    use crate::model::Cloud;

    const GUID: &str = "00000000-0000-0000-0000-000000000000";

    #[test]
    fn a_tenant_is_an_id_or_a_domain_of_its_own() {
        for good in [GUID, "contoso.onmicrosoft.com"] {
            assert!(check_tenant(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "contoso",
            "common",
            "Organizations",
            "consumers",
            "a b.example",
            "a/b.example",
            "x.",
        ] {
            assert!(check_tenant(bad).is_err(), "{bad}");
        }
        assert!(
            check_tenant("common")
                .unwrap_err()
                .hint
                .unwrap()
                .contains("AADSTS9001023")
        );
    }

    #[test]
    fn a_client_id_is_a_guid() {
        assert!(check_client_id(GUID).is_ok());
        let hint = check_client_id(&format!("{{{GUID}}}")).unwrap_err().hint.unwrap();
        assert!(hint.contains(&format!("\"{GUID}\"")), "{hint}");
        let flaw = check_client_id("abc8Q~canarycanarycanarycanarycanary1234").unwrap_err();
        assert!(
            flaw.what.contains("client secret") && !format!("{flaw:?}").contains("canary"),
            "{flaw:?}"
        );
        assert!(check_client_id("my-app").is_err());
    }

    #[test]
    fn a_scope_with_one_slash_is_corrected_in_every_cloud() {
        for cloud in Cloud::ALL {
            assert!(check_scope(cloud.scope()).is_ok());
            let single = cloud.scope().replace("//.default", "/.default");
            let hint = check_scope(&single).unwrap_err().hint.unwrap();
            assert!(hint.contains(&format!("\"{}\"", cloud.scope())), "{hint}");
            assert!(
                check_scope(cloud.audience())
                    .unwrap_err()
                    .hint
                    .unwrap()
                    .contains(cloud.scope())
            );
        }
        for bad in [
            "",
            "/.default",
            "api://app/Flows.Run",
            "a b/.default",
            "https://a.example/.default ",
        ] {
            assert!(check_scope(bad).is_err(), "{bad}");
        }
        assert!(check_scope("api://00000000-0000-0000-0000-000000000000/.default").is_ok());
    }

    #[test]
    fn an_authority_is_https_or_on_this_machine() {
        for (text, read) in [
            (
                "https://login.microsoftonline.us",
                "https://login.microsoftonline.us",
            ),
            ("https://login.example/", "https://login.example"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://localhost", "http://localhost"),
        ] {
            assert_eq!(check_authority(text).unwrap(), read);
        }
        for bad in [
            "login.example",
            "http://login.example",
            "https://login.example/tenant",
            "https://u:p@login.example",
            "https://login.example:0",
            "https://login.example:x",
            "https://",
            "https://login example",
            "http://127.evil.example",
        ] {
            assert!(check_authority(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_identity_gets_its_presets_from_its_cloud() {
        let sample = Sample::default().with(
            "identity",
            &format!(
                "name = \"contoso\"\ncloud = \"gcc-high\"\ntenant = \"{GUID}\"\nclient_id = \"{GUID}\"\n\
             client_secret = \"env:SECRET\""
            ),
        );
        let config = sample.config();
        let identity = &config.identities[0];
        assert_eq!(identity.scope, Cloud::GccHigh.scope());
        assert_eq!(identity.audience, Cloud::GccHigh.audience());
        let grant = format!("{:?}", identity.grant);
        assert!(
            grant.contains(&format!(
                "https://login.microsoftonline.us/{GUID}/oauth2/v2.0/token"
            )),
            "{grant}"
        );
        assert!(!grant.contains("canary"));
    }

    #[test]
    fn an_identity_has_exactly_one_source_of_tokens() {
        let common = format!("name = \"contoso\"\ntenant = \"{GUID}\"\nclient_id = \"{GUID}\"\n");
        let sample = |lines: &str| Sample::default().with("identity", &format!("{common}{lines}"));
        assert_eq!(
            sample("").mistakes(),
            ["the identity has nothing to get a token with"]
        );
        assert_eq!(
            sample("client_secret = \"env:SECRET\"\ntoken_file = \"token\"").mistakes(),
            ["an identity has either a client secret or a token file, not both"]
        );
        assert_eq!(
            sample("client_secret = \"canary-secret\"").mistakes(),
            ["`client_secret` must not be written into the settings file"]
        );
        assert_eq!(
            sample("token_file = \"token\"").mistakes(),
            ["`client_id` has no meaning beside `token_file`"]
        );
    }

    #[test]
    fn a_foreign_scope_is_worth_a_warning() {
        let sample = Sample::default().with(
            "identity",
            &format!(
                "name = \"contoso\"\ntenant = \"{GUID}\"\nclient_id = \"{GUID}\"\n\
             client_secret = \"env:SECRET\"\n\
             scope = \"{}\"",
                Cloud::China.scope()
            ),
        );
        assert_eq!(
            sample.warnings(),
            ["this is the scope of the cloud \"china\", and the identity is in \"public\""]
        );
    }
}
