//! Entra identities: mistakes here are expensive when they surface late, as rejected tokens, so each known one is reported
//! before the first request.

mod ambient;
pub(super) mod certificate;
mod federated;
pub(super) mod grant;
mod links;
mod managed;
mod password;
pub(super) mod rows;
pub(super) mod sign_in;
mod way;
mod words;

use std::time::SystemTime;

pub(super) use links::give_roles;

use crate::model::{Cloud, Flaw, IdentityName};
use crate::settings::check::Check;
use crate::settings::identity::rows::{IdentityTable, SecretTable};
use crate::settings::identity::way::{Way, ways};
use crate::settings::identity::words::{
    check_authority, check_client_id, check_scope, check_tenant, judge_id,
};
use crate::settings::kinds::{At, Word};
use crate::settings::name::Names;
use crate::settings::table::Table;
use crate::settings::{
    ClientProof, ClientSecret, EndpointSettings, GrantSettings, IdentityRole, IdentitySettings, mask, near,
};

impl Check<'_> {
    pub(super) fn identities(
        &mut self,
        list: &[Table<IdentityTable>],
        names: &mut Names,
    ) -> Vec<IdentitySettings> {
        let identities: Vec<_> = list
            .iter()
            .filter_map(|identity| self.identity(identity, names))
            .collect();
        self.links(list, &identities, names);
        identities
    }

    fn identity(&mut self, identity: &Table<IdentityTable>, names: &mut Names) -> Option<IdentitySettings> {
        let name = self.name(identity, identity.name.as_ref(), names, IdentityName::parse);
        let cloud = match (&identity.cloud, identity.is_reported("cloud")) {
            (Some(cloud), _) => Some(**cloud),
            (None, true) => None,
            (None, false) => Some(Cloud::Public),
        };
        let tenant = identity
            .tenant
            .as_ref()
            .map(|value| self.findings.keep(value, check_tenant(value)));
        for (key, value) in [("tenant", &identity.tenant), ("client_id", &identity.client_id)] {
            if let Some((value, flaw)) = value
                .as_ref()
                .and_then(|value| Some((value, judge_id(key, value)?)))
            {
                self.findings.warn(value, flaw);
            }
        }
        let scope = self.scope(identity, cloud);
        let grant = self.grant(identity, cloud);
        let scope = scope?;
        let audience = sign_in::audience_of(&scope).to_owned();
        let tenant = match tenant {
            Some(tenant) => tenant?,
            None => self.variable_tenant(identity).unwrap_or_default(),
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

    fn scope(&mut self, identity: &IdentityTable, cloud: Option<Cloud>) -> Option<String> {
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
    fn grant(&mut self, identity: &Table<IdentityTable>, cloud: Option<Cloud>) -> Option<GrantSettings> {
        let ways = ways(identity);
        match ways.as_slice() {
            [] => {
                if !Way::ALL.iter().any(|way| identity.is_reported(way.key())) {
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
            [(first, first_mark), (second, second_mark), ..] => {
                let flaw = Flaw::new(format!(
                    "an identity has either {} or {}, not both",
                    first.words(),
                    second.words()
                ));
                self.findings
                    .clash(*second_mark, flaw, *first_mark, first.words());
                None
            }
        }
    }

    /// The client credentials grant, with the proof that `proof` reads.
    fn client(
        &mut self,
        identity: &Table<IdentityTable>,
        cloud: Option<Cloud>,
        proof: impl FnOnce(&mut Self, &Table<IdentityTable>) -> Option<ClientProof>,
    ) -> Option<GrantSettings> {
        self.without_token_life(identity);
        let proof = proof(self, identity);
        let endpoint = self.endpoint(identity, cloud);
        Some(GrantSettings::Client {
            endpoint: endpoint?,
            proof: proof?,
        })
    }

    fn without_token_life(&mut self, identity: &Table<IdentityTable>) {
        if let Some(life) = identity.place("token_life") {
            self.findings
                .mistake(life, Flaw::new("`token_life` goes with `token_file` only"));
        }
    }

    /// Where an application asks for its tokens.
    fn endpoint(
        &mut self,
        identity: &Table<IdentityTable>,
        cloud: Option<Cloud>,
    ) -> Option<EndpointSettings> {
        let hint = "write the tenant's id or one of its domains";
        let tenant = identity.require(("tenant", &identity.tenant), hint, &mut self.findings);
        let hint = "write the Application (client) ID that Entra shows for the app registration";
        let client_id = identity.require(("client_id", &identity.client_id), hint, &mut self.findings);
        let client_id = client_id.map(|value| self.findings.keep(value, check_client_id(value)));
        let authority = match &identity.authority {
            Some(value) => self.findings.keep(value, check_authority(value)),
            None => cloud.map(|cloud| cloud.authority().to_owned()),
        };
        let tenant = tenant.map(|tenant| tenant.as_str().to_owned());
        self.endpoint_of(identity, tenant, client_id.flatten(), authority)
    }

    fn endpoint_of(
        &mut self,
        identity: &Table<IdentityTable>,
        tenant: Option<String>,
        client_id: Option<String>,
        authority: Option<String>,
    ) -> Option<EndpointSettings> {
        let trust = self.trust(identity.ca_file.as_ref());
        let (tenant, authority) = (tenant?, authority?);
        Some(EndpointSettings {
            token_url: format!("{authority}/{tenant}/oauth2/v2.0/token"),
            authority,
            client_id: client_id?,
            trust,
            timeout: identity.timeout,
        })
    }

    fn secrets(&mut self, identity: &Table<IdentityTable>) -> Option<ClientProof> {
        let mut secrets = Vec::new();
        if let Some(value) = &identity.client_secret {
            secrets.push(self.client_secret("client_secret", value, None));
        }
        for table in &identity.secret {
            secrets.push(self.dated_secret(table));
        }
        let secrets: Option<Vec<_>> = secrets.into_iter().collect();
        secrets.map(ClientProof::Secrets)
    }

    fn dated_secret(&mut self, table: &Table<SecretTable>) -> Option<ClientSecret> {
        let hint = "write for example value = \"env:CONTOSO_SECRET\"";
        let value = table.require(("value", &table.value), hint, &mut self.findings)?;
        let expires = table.expires.as_deref().copied();
        if let Some(at) = table
            .expires
            .as_ref()
            .filter(|expires| ***expires <= self.environment.now())
        {
            let flaw = Flaw::new("this client secret has expired");
            self.findings
                .warn(at, flaw.hint("create a new one in Entra, and take this one out"));
        }
        self.client_secret("value", value, expires)
    }

    /// Warns of a secret's id in the place of its value: Entra shows both side by side, and the value only once.
    fn client_secret(
        &mut self,
        key: &str,
        place: &At<String>,
        expires: Option<SystemTime>,
    ) -> Option<ClientSecret> {
        let source = self.secret_source(key, place)?;
        if source
            .known()
            .is_some_and(|secret| mask::is_guid(secret.expose()))
        {
            let flaw = Flaw::new(
                "this client secret is a GUID, which is the form of a secret's id and not of its value",
            );
            let hint = "copy the column Value, which Entra shows only when the secret is made; if it was not kept, create a new secret";
            self.findings.warn(place, flaw.hint(hint));
        }
        Some(ClientSecret { source, expires })
    }

    fn token_file(&mut self, identity: &Table<IdentityTable>, value: &At<String>) -> Option<GrantSettings> {
        for key in ["client_id", "authority", "ca_file", "timeout"] {
            if let Some(mark) = identity.place(key) {
                let flaw = Flaw::new(format!("`{key}` has no meaning beside `token_file`"));
                self.findings.mistake(mark, flaw);
            }
        }
        let life = identity.token_life;
        let path = self.path(value)?;
        self.expect_secret_file(value, &path);
        Some(GrantSettings::TokenFile { path, life })
    }
}

impl Word for Cloud {
    const EXAMPLES: &'static [&'static str] = &["public", "gcc", "gcc-high", "dod", "china"];

    fn parse(text: &str) -> Result<Self, Flaw> {
        Self::from_name(text).ok_or_else(|| {
            let known = Self::ALL.map(Self::name);
            let flaw = Flaw::new("unknown cloud");
            match near::closest(text, known.into_iter()) {
                Some(meant) => flaw.hint(format!("did you mean \"{meant}\"?")),
                None => flaw.hint(format!("known are {}", known.join(", "))),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::model::Cloud;
    use crate::settings::sample::Sample;

    const GUID: &str = "00000000-0000-0000-0000-000000000000";

    #[cfg(unix)]
    #[test]
    fn a_token_file_that_others_can_read_is_worth_a_warning() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "canary").unwrap();
        // The random name of the folder is masked: it has the form of a secret.
        let what = "secret file *** can be read by other users (mode 644)";
        for (mode, expected) in [(0o600, &[] as &[&str]), (0o644, &[what])] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let identity = format!("name = \"contoso\"\ntoken_file = {path:?}");
            assert_eq!(Sample::default().with("identity", &identity).warnings(), expected);
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
        let report = sample("client_secret = \"canary-secret\"").report();
        let help = "client_secret = \"env:CLIENT_SECRET\", \"file:PATH\" or \"keyvault:ADDRESS\"";
        assert!(report.contains(help), "{report}");
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
