//! Entra identities: mistakes here are expensive when they surface late, as rejected tokens, so each known one is reported
//! before the first request.

use crate::model::{Cloud, Flaw, IdentityName, Tenant};
use crate::settings::check::Check;
use crate::settings::identity::sign_in;
use crate::settings::identity::words::{check_scope, judge_id};
use crate::settings::identity::{AsksAs, CLIENT_SECRET, GrantSettings, IdentityTable, WAYS};
use crate::settings::kinds::Word;
use crate::settings::name::Names;
use crate::settings::table::Table;
use crate::settings::{AssertionSource, ClientProof, FederatedSettings, near};

/// An identity whose tokens the flow service accepts.
#[derive(Debug, Clone, PartialEq)]
pub struct IdentitySettings {
    pub name: IdentityName,
    pub grant: GrantSettings,
    /// The cloud whose presets fill authority and scope.
    pub cloud: Cloud,
    /// The scope asked for, byte for byte.
    pub scope: String,
    /// The audience a good token carries: the scope without its last `/.default`.
    pub audience: String,
    /// None where nobody names one, as beside a token file or a managed identity.
    pub tenant: Option<Tenant>,
    pub role: IdentityRole,
}

impl IdentitySettings {
    /// The identities of the same settings that this one needs tokens of.
    pub fn leans_on(&self) -> Vec<&IdentityName> {
        match &self.grant {
            GrantSettings::Client {
                proof:
                    ClientProof::Federated(FederatedSettings {
                        source: AssertionSource::Identity { name, .. },
                        ..
                    }),
                ..
            } => vec![name],
            _ => Vec::new(),
        }
    }

    /// What was found outside of the settings file, in words.
    pub fn notes(&self) -> Vec<String> {
        match &self.grant {
            GrantSettings::Client {
                proof: ClientProof::Federated(federated),
                ..
            } => federated.origins.clone(),
            GrantSettings::Managed(managed) => vec![managed.origin.clone()],
            GrantSettings::Default(chain) => {
                let federated = match &chain.federated {
                    Ok((_, federated)) => federated.origins.clone(),
                    Err(why) => vec![format!("no workload identity: {why}")],
                };
                let managed = match &chain.managed {
                    Ok(managed) => managed.origin.clone(),
                    Err(why) => format!("no managed identity: {why}"),
                };
                federated.into_iter().chain([managed]).collect()
            }
            _ => Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityRole {
    /// For routes: its token is kept fresh.
    Serves,
    /// For other identities alone: it is asked for what they need, and for nothing else.
    Helps,
}

impl Check<'_> {
    pub(in crate::settings) fn identities(
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
        let ids = [
            ("tenant", identity.tenant.as_deref().map(|id| &**id)),
            ("client_id", identity.client_id.as_deref().map(|id| &**id)),
        ];
        for (key, id) in ids {
            let flaw = id.and_then(|id| judge_id(key, id));
            if let Some((mark, flaw)) = identity.place(key).zip(flaw) {
                self.findings.warn(mark, flaw);
            }
        }
        let scope = self.scope(identity, cloud);
        let grant = self.grant(identity, cloud);
        let scope = scope?;
        let audience = sign_in::audience_of(&scope).to_owned();
        let tenant = identity.tenant.as_deref().cloned();
        Some(IdentitySettings {
            name: name?,
            grant: grant?,
            cloud: cloud?,
            scope,
            audience,
            tenant: tenant.or_else(|| self.variable_tenant(identity)),
            role: IdentityRole::Serves,
        })
    }

    fn scope(&mut self, identity: &Table<IdentityTable>, cloud: Option<Cloud>) -> Option<String> {
        let Some(value) = &identity.scope else {
            return Some(cloud?.scope().to_owned());
        };
        let mut accounts = WAYS.iter().filter(|way| way.asks_as == AsksAs::Account);
        let checked = match accounts.any(|way| (way.place)(identity).is_some()) {
            true => sign_in::check_account_scope(value),
            false => check_scope(value),
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
        let ways = WAYS.iter();
        let ways: Vec<_> = ways
            .filter_map(|way| Some((way, (way.place)(identity)?)))
            .collect();
        match ways.as_slice() {
            [] => {
                if !WAYS.iter().any(|way| identity.is_reported(way.key)) {
                    let flaw = Flaw::new("the identity has nothing to get a token with");
                    let hint = "set client_secret = \"env:NAME\", add [[identity.certificate]], or set token_file for a \
                                token that another program keeps fresh";
                    self.findings.mistake(identity, flaw.hint(hint));
                }
                None
            }
            [(way, _)] => (way.read)(self, identity, cloud),
            [(secret, _), (way, _)] if secret.key == CLIENT_SECRET && way.asks_as == AsksAs::Account => {
                (way.read)(self, identity, cloud)
            }
            [(first, first_mark), (second, second_mark), ..] => {
                let flaw = Flaw::new(format!(
                    "an identity has either {} or {}, not both",
                    first.words, second.words
                ));
                self.findings.clash(*second_mark, flaw, *first_mark, first.words);
                None
            }
        }
    }

    pub(super) fn token_file(&mut self, identity: &Table<IdentityTable>) -> Option<GrantSettings> {
        let value = identity.token_file.as_ref()?;
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
        // The random name of the folder is masked where it has the form of a secret.
        let shown = |warning: &String| warning.replace(path.to_str().unwrap(), "***");
        let what = "secret file *** can be read by other users (mode 644)";
        for (mode, expected) in [(0o600, &[] as &[&str]), (0o644, &[what])] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let identity = format!("name = \"contoso\"\ntoken_file = {path:?}");
            let warnings = Sample::default().with("identity", &identity).warnings();
            assert_eq!(warnings.iter().map(shown).collect::<Vec<_>>(), expected);
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
