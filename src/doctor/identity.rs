//! Checks one identity: the connection to its authority, the clock, its credentials, and a token requested by
//! the same code that serves.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::fmt::rfc2822::DateTimeParser;
use tokio::runtime::Handle;

use crate::counters::Counters;
use crate::doctor::network::{CheckedHosts, Destination, OtherAddress, host_of};
use crate::doctor::report::{Check, Group};
use crate::doctor::{Walk, advice, credential, platform};
use crate::entra::{Identity, Token};
use crate::model::claims::{Claims, safe};
use crate::model::{FixedBy, Remedy, clock};
use crate::outbound::{FetchFault, Fetcher};
use crate::settings::{
    AssertionSource, ClientProof, Config, EndpointSettings, GrantSettings, IdentityRole, IdentitySettings,
};

/// Entra refuses assertions and tokens whose clock is further off than this.
const SKEW_MAX: Duration = Duration::from_secs(300);
/// Time limit for a token, whatever the settings say about single requests.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(90);

/// Checks an identity, and keeps its token if it gets one.
pub(super) async fn examine(settings: &IdentitySettings, config: &Config, walk: &mut Walk) {
    let mut group = Group::new("identity", settings.name.as_str());
    match &settings.grant {
        GrantSettings::Managed(managed) => platform::managed(managed, &mut group).await,
        GrantSettings::Default(chain) => platform::chain(settings, chain, walk, &mut group).await,
        GrantSettings::Client { endpoint, .. }
        | GrantSettings::Password { endpoint, .. }
        | GrantSettings::SignIn { endpoint, .. } => {
            credential::examine(settings, walk, &mut group).await;
            authority(endpoint, &mut group, &mut walk.seen).await;
        }
        GrantSettings::TokenFile { .. } => {}
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

/// Checks the connection to an authority, and compares its clock with ours.
pub(super) async fn authority(endpoint: &EndpointSettings, group: &mut Group, seen: &mut CheckedHosts) {
    if group.skips(&["dns", "tcp", "tls", "clock"]) {
        return;
    }
    let (host, port) = host_of(&endpoint.authority);
    if endpoint.authority.starts_with("http://") {
        group.aside(Check::note(
            "tls",
            "the authority is called without TLS, as the settings require",
        ));
    } else {
        let place = Destination {
            host,
            port,
            connect_to: None,
            trust: &endpoint.trust,
            timeout: endpoint.timeout,
            setting: "authority of the identity",
            other_address: OtherAddress::Refused,
        };
        seen.walk(&place, group).await;
    }
    if !group.skips(&["clock"]) {
        group.add(compare_clock(endpoint).await);
    }
}

/// Compares this host's clock with the `Date` of the authority's answers.
async fn compare_clock(endpoint: &EndpointSettings) -> Check {
    let remedy = || {
        Remedy::new(
            FixedBy::HostAdmin,
            "Synchronize this host's clock with NTP; Entra refuses requests whose time differs too much.",
        )
        .command("timedatectl status")
    };
    let date = match date_of(endpoint).await {
        Ok(date) => date,
        Err(why) => {
            let what = "Find out what answers instead of Entra: a proxy, a captive portal, a wrong \
                        authority.";
            return Check::fail(
                "clock",
                format!("the authority gave no answer: {why}"),
                Remedy::new(FixedBy::Operator, what),
            );
        }
    };
    let Some(date) = date else {
        return Check::note(
            "clock",
            "the authority sends no date, so the clock was not compared",
        );
    };
    let now = clock::wall();
    let (skew, word) = match now.duration_since(date) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let seconds = skew.as_secs();
    if skew > SKEW_MAX {
        let says = format!("this host's clock is {seconds} s {word} the authority's");
        return Check::fail("clock", says, remedy());
    }
    Check::ok("clock", format!("within {} s of the authority's", seconds.max(1)))
}

/// The `Date` of the authority's answer to a request that needs no credential.
async fn date_of(endpoint: &EndpointSettings) -> Result<Option<SystemTime>, String> {
    let fetcher = Fetcher::new(&endpoint.trust, endpoint.timeout).map_err(|error| error.to_string())?;
    let tenant = endpoint.token_url.strip_suffix("/oauth2/v2.0/token");
    let url = format!(
        "{}/v2.0/.well-known/openid-configuration",
        tenant.unwrap_or(&endpoint.authority)
    );
    let answer = fetcher.fetch(fetcher.get(&url)).await;
    let answer = answer.map_err(|error| match error.cause {
        FetchFault::Timeout(_) => format!("nothing within {:?}", endpoint.timeout),
        _ => "the connection broke".to_owned(),
    })?;
    let read = DateTimeParser::new().parse_timestamp(answer.header("date")).ok();
    Ok(read.map(SystemTime::from))
}

async fn ask(settings: &IdentitySettings, config: &Config) -> Result<Arc<Token>, Check> {
    let (all, keyvault) = (&config.identities, config.keyvault.as_ref());
    let (control, counters) = (Handle::current(), Counters::new());
    let identity = Identity::alone(settings, all, keyvault, &control, &counters).map_err(|error| {
        let remedy = Remedy::new(
            FixedBy::Operator,
            "Install certificate authorities, or set ca_file.",
        );
        Check::fail("token", error.to_string(), remedy)
    })?;
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
