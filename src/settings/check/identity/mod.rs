//! Entra identities: the mistakes here cost most when they are found late, as refused tokens, so each known
//! one is named before the first request.

mod ambient;
mod certificate;
mod federated;
mod links;
mod managed;
mod password;
mod sign_in;
mod way;
mod words;

use std::time::Duration;

pub(super) use links::give_roles;

use crate::model::{Cloud, IdentityName};
use crate::settings::check::Check;
use crate::settings::check::identity::way::{Way, ways};
use crate::settings::check::identity::words::{
    check_authority, check_client_id, check_scope, check_tenant, judge_id,
};
use crate::settings::check::name::Names;
use crate::settings::check::value::{DAY, MILLISECOND, SECOND};
use crate::settings::file::{Identity, SecretTable};
use crate::settings::leaf::{At, Table};
use crate::settings::mistake::Flaw;
use crate::settings::{
    ClientProof, ClientSecret, EndpointSettings, GrantSettings, IdentityRole, IdentitySettings, SecretSource,
    defaults, mask, near,
};

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
            match near::closest(value, known.into_iter()) {
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
            defaults::TOKEN_TIMEOUT,
            MILLISECOND..=60 * SECOND,
        )
    }

    fn secrets(&mut self, identity: &Table<Identity>) -> Option<ClientProof> {
        let mut secrets = Vec::new();
        if let Some(value) = &identity.client_secret {
            let source = self.secret_source("client_secret", value);
            secrets.push(source.map(|source| {
                self.judge_secret(value, &source);
                ClientSecret {
                    source,
                    expires: None,
                }
            }));
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
        let source = self.secret_source("value", value)?;
        self.judge_secret(value, &source);
        Some(ClientSecret { source, expires })
    }

    /// Warns of a secret's id in the place of its value: Entra shows both side by side, and the value only once.
    fn judge_secret(&mut self, place: &At<String>, source: &SecretSource) {
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
        let life = self.duration(identity.token_life.as_ref(), defaults::TOKEN_LIFE, bounds);
        let path = self.path(value)?;
        self.expect_secret_file(value, &path);
        Some(GrantSettings::TokenFile { path, life })
    }
}

#[cfg(test)]
mod tests {
    use crate::model::Cloud;
    use crate::settings::check::sample::Sample;

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
