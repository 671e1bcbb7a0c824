//! Checks one identity: the connection to its authority, the clock, its credentials, and a token requested by
//! the same code that serves.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::counters::Counters;
use crate::doctor::authority::authority;
use crate::doctor::report::{Check, Group};
use crate::doctor::walk::Walk;
use crate::doctor::{advice, credential, platform};
use crate::entra::{Identity, Token};
use crate::model::claims::{Claims, safe};
use crate::model::{FixedBy, Remedy};
use crate::settings::{AssertionSource, ClientProof, Config, GrantSettings, IdentityRole, IdentitySettings};

/// Time limit for a token, whatever the settings say about single requests.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(90);

/// Checks an identity, and keeps its token if it gets one.
pub(super) async fn examine(settings: &IdentitySettings, config: &Config, walk: &mut Walk) {
    let mut group = Group::new("identity", settings.name.as_str());
    match &settings.grant {
        GrantSettings::Managed(managed) => platform::managed(managed, &mut group).await,
        GrantSettings::Default(chain) => platform::chain(settings, chain, walk, &mut group).await,
        other => {
            if let Some((endpoint, _)) = other.application() {
                credential::examine(settings, walk, &mut group).await;
                authority(endpoint, &mut group, &mut walk.seen).await;
            }
        }
    }
    if !group.skips(&["token"]) {
        let asked = as_asked(settings, config);
        match ask(&asked, config).await {
            Ok(token) => {
                group.add(got(&asked, &token));
                walk.held.insert(settings.name.clone(), token);
                walk.asked.insert(settings.name.clone(), asked.scope);
            }
            Err(check) => group.add(check),
        }
    }
    walk.groups.push(group);
}

/// The identity with the scope that its users need: one that only serves other identities may get no token
/// for flows.
fn as_asked(settings: &IdentitySettings, config: &Config) -> IdentitySettings {
    let mut asked = settings.clone();
    if settings.role == IdentityRole::Serves {
        return asked;
    }
    let wanted = config.identities.iter().find_map(|other| match &other.grant {
        GrantSettings::Client {
            proof: ClientProof::Federated(proof),
            ..
        } => match &proof.source {
            AssertionSource::Identity { name, scope } if *name == settings.name => Some(scope),
            AssertionSource::Identity { .. } | AssertionSource::File(_) => None,
        },
        _ => None,
    });
    if let Some(scope) = wanted {
        asked.audience = scope.strip_suffix("/.default").unwrap_or(scope).to_owned();
        asked.scope.clone_from(scope);
    }
    asked
}

async fn ask(settings: &IdentitySettings, config: &Config) -> Result<Arc<Token>, Check> {
    let (all, keyvault) = (&config.identities, config.keyvault.as_ref());
    let (control, counters) = (Handle::current(), Counters::new());
    let identity = Identity::alone(settings, all, keyvault, &control, &counters)
        .map_err(|error| Check::fail("token", error.to_string(), advice::authorities()))?;
    match tokio::time::timeout(TOKEN_TIMEOUT, identity.token()).await {
        Ok(Ok(token)) => Ok(token),
        Ok(Err(unavailable)) => {
            let (says, remedy) = advice::of_token_error(&unavailable.error, settings);
            Err(Check::fail("token", says, remedy))
        }
        Err(_) => {
            let what = "Look at the network between this host and the authority.";
            let says = format!("no token within {TOKEN_TIMEOUT:?}");
            Err(Check::fail("token", says, Remedy::new(FixedBy::HostAdmin, what)))
        }
    }
}

fn got(settings: &IdentitySettings, token: &Token) -> Check {
    let who = match Claims::read(token.text().expose()) {
        Some(claims) => {
            let oid = claims.text("oid").map_or_else(|| "none".to_owned(), safe);
            format!("object id {oid}")
        }
        None => "opaque".to_owned(),
    };
    Check::ok("token", format!("there is one for {}, {who}", settings.audience))
}
