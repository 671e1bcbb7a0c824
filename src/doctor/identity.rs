//! One identity: the way to its authority, the clock, its secrets, and a token asked for by the very code that serves.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use jiff::fmt::rfc2822::DateTimeParser;
use tokio::runtime::Handle;

use crate::config::ClientProof;
use crate::config::Config;
use crate::config::EndpointSettings;
use crate::config::IdentitySettings;
use crate::counters::Counters;
use crate::doctor::advice;
use crate::doctor::advice::Remedy;
use crate::doctor::network::Place;
use crate::doctor::network::Seen;
use crate::doctor::network::days;
use crate::doctor::report::Check;
use crate::doctor::report::Group;
use crate::entra::Identity;
use crate::entra::Token;
use crate::entra::TokenError;
use crate::entra::refusal::Refusal;
use crate::model::claims::Claims;
use crate::model::claims::safe;
use crate::model::clock;

/// Entra refuses assertions and tokens that are further off than this.
const SKEW_MAX: Duration = Duration::from_secs(300);
/// Time for a token, whatever the settings say about single requests.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(90);
/// A credential that ends within this time is worth a warning.
const CREDENTIAL_RENEWAL: Duration = Duration::from_secs(60 * 86_400);

/// Looks at an identity, and gives its token if there is one.
pub(super) async fn examine(
    settings: &IdentitySettings,
    config: &Config,
    counters: &Counters,
    control: &Handle,
    seen: &mut Seen,
) -> (Group, Option<Arc<Token>>) {
    let mut group = Group::new("identity", settings.name.as_str());
    if let Some((endpoint, proof)) = settings.grant.application() {
        for check in expiries(proof, endpoint) {
            group.aside(check);
        }
        authority(endpoint, &mut group, seen).await;
    }
    if group.skips(&["token"]) {
        return (group, None);
    }
    match ask(settings, config, counters, control).await {
        Ok(token) => {
            group.add(got(settings, &token));
            (group, Some(token))
        }
        Err(check) => {
            group.add(check);
            (group, None)
        }
    }
}

fn expiries(proof: &ClientProof, endpoint: &EndpointSettings) -> Vec<Check> {
    let client = &endpoint.client_id;
    match proof {
        ClientProof::Secrets(secrets) => {
            let remedy = || {
                let what =
                    "Create another client secret, add it as [[identity.secret]], and take the old one out.";
                credentials(client, what).command(format!(
                    "az ad app credential reset --id {client} --append --years 1"
                ))
            };
            let checks = secrets.iter().map(|secret| {
                let place = secret.source.place();
                match secret.expires {
                    Some(expires) => expiry("secret", &place, expires, remedy),
                    None => Check::note(
                        "secret",
                        format!(
                            "{place}: its end is not in the settings; az ad app credential list --id {client} \
                             --query \"[].{{id:keyId, ends:endDateTime}}\" shows it"
                        ),
                    ),
                }
            });
            checks.collect()
        }
        ClientProof::Certificates(certificates) => {
            let remedy = || {
                let what = "Upload another certificate, add it as [[identity.certificate]], and take the old one out.";
                credentials(client, what).command(format!(
                    "az ad app credential reset --id {client} --append --cert @certificate.pem"
                ))
            };
            let known = certificates
                .iter()
                .filter_map(|certificate| Some((certificate.place(), certificate.known()?)));
            known
                .map(|(place, certificate)| expiry("certificate", &place, certificate.ends(), remedy))
                .collect()
        }
        ClientProof::Federated(_) | ClientProof::Public => Vec::new(),
    }
}

fn credentials(client: &str, what: &str) -> Remedy {
    Remedy::new("operator", what).portal(format!(
        "Microsoft Entra admin center, App registrations, {client}, Certificates & secrets"
    ))
}

/// What is to be said about a credential that ends.
fn expiry(name: &'static str, place: &str, expires: SystemTime, remedy: impl Fn() -> Remedy) -> Check {
    let left = expires.duration_since(clock::wall()).unwrap_or_default();
    if left.is_zero() {
        return Check::warn(name, format!("{place}: it has expired"), remedy());
    }
    let says = format!("{place}: {}", days(left));
    match left <= CREDENTIAL_RENEWAL {
        true => Check::warn(name, says, remedy()),
        false => Check::ok(name, says),
    }
}

async fn authority(endpoint: &EndpointSettings, group: &mut Group, seen: &mut Seen) {
    let (host, port) = host_of(&endpoint.authority);
    if endpoint.authority.starts_with("http://") {
        group.aside(Check::note(
            "tls",
            "the authority is asked without TLS, as the settings want it",
        ));
    } else {
        let place = Place {
            host,
            port,
            connect_to: None,
            trust: &endpoint.trust,
            timeout: endpoint.timeout,
            setting: "authority of the identity",
        };
        seen.walk(&place, group).await;
    }
    if !group.skips(&["clock"]) {
        group.add(compare_clock(endpoint).await);
    }
}

/// Host and port of an authority, which the settings have checked.
fn host_of(authority: &str) -> (&str, u16) {
    let (rest, usual) = match authority.strip_prefix("http://") {
        Some(rest) => (rest, 80),
        None => (authority.strip_prefix("https://").unwrap_or(authority), 443),
    };
    match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            (host.trim_matches(['[', ']']), port.parse().unwrap_or(usual))
        }
        _ => (rest.trim_matches(['[', ']']), usual),
    }
}

/// Compares this host's clock with what the authority puts into its answers.
async fn compare_clock(endpoint: &EndpointSettings) -> Check {
    let remedy = || {
        Remedy::new(
            "host-admin",
            "Set this host's clock by NTP; Entra refuses what seems to come from another time.",
        )
        .command("timedatectl status")
    };
    let date = match date_of(endpoint).await {
        Ok(date) => date,
        Err(why) => {
            let what = "Find out what answers in place of Entra: a proxy, a portal of the network, a wrong authority.";
            return Check::fail(
                "clock",
                format!("the authority gave no answer: {why}"),
                Remedy::new("operator", what),
            );
        }
    };
    let Some(date) = date else {
        return Check::note(
            "clock",
            "the authority tells no date, so the clock was not compared",
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

/// The `Date` of the authority's answer to a question that needs no credential.
async fn date_of(endpoint: &EndpointSettings) -> Result<Option<SystemTime>, String> {
    let tls = endpoint
        .trust
        .client_config()
        .map_err(|error| error.to_string())?;
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(endpoint.timeout)
        .build()
        .map_err(|error| error.to_string())?;
    let tenant = endpoint.token_url.strip_suffix("/oauth2/v2.0/token");
    let url = format!(
        "{}/v2.0/.well-known/openid-configuration",
        tenant.unwrap_or(&endpoint.authority)
    );
    let answer = client.get(url).send().await;
    let answer = answer.map_err(|error| match error.is_timeout() {
        true => format!("nothing within {:?}", endpoint.timeout),
        false => "the connection broke".to_owned(),
    })?;
    let date = answer.headers().get("date").and_then(|date| date.to_str().ok());
    let read = date.and_then(|date| DateTimeParser::new().parse_timestamp(date).ok());
    Ok(read.map(SystemTime::from))
}

async fn ask(
    settings: &IdentitySettings,
    config: &Config,
    counters: &Counters,
    control: &Handle,
) -> Result<Arc<Token>, Check> {
    let (all, keyvault) = (&config.identities, config.keyvault.as_ref());
    let identity = Identity::alone(settings, all, keyvault, control, counters).map_err(|error| {
        let remedy = Remedy::new("operator", "Install certificate authorities, or set ca_file.");
        Check::fail("token", error.to_string(), remedy)
    })?;
    match tokio::time::timeout(TOKEN_TIMEOUT, identity.token()).await {
        Ok(Ok(token)) => Ok(token),
        Ok(Err(unavailable)) => Err(refused(settings, &unavailable.error)),
        Err(_) => {
            let what = "Look at the network between this host and the authority.";
            let says = format!("no token within {TOKEN_TIMEOUT:?}");
            Err(Check::fail("token", says, Remedy::new("host-admin", what)))
        }
    }
}

fn refused(settings: &IdentitySettings, error: &TokenError) -> Check {
    let remedy = match error {
        TokenError::Refused(refused) => advice::of_refusal(&refused.refusal, settings),
        TokenError::File(_) | TokenError::FileExpired => Remedy::new(
            "operator",
            "Look at the program that writes the token file, and at the rights of the file.",
        ),
        TokenError::Redirected(_) | TokenError::Html => Remedy::new(
            "operator",
            "Compare the authority; a proxy or a portal of the network may answer in its place.",
        ),
        TokenError::Unreachable(_) | TokenError::Timeout(_) | TokenError::Cut => Remedy::new(
            "host-admin",
            "Look at the network between this host and the authority.",
        ),
        _ => Remedy::new(
            "operator",
            "Compare the authority: what answers there is no token endpoint of Entra, or it is in trouble.",
        ),
    };
    let says = match error {
        TokenError::Refused(refused) => said(&refused.refusal, settings),
        error => error.to_string(),
    };
    Check::fail("token", says, remedy)
}

/// What Entra said; why, and who mends it, stands in the remedy.
fn said(refusal: &Refusal, settings: &IdentitySettings) -> String {
    let mut says = refusal.to_string();
    if let Some((endpoint, _)) = settings.grant.application() {
        says.push_str(&format!(
            " to client id {} in tenant {}",
            endpoint.client_id, settings.tenant
        ));
    }
    if let Some(id) = &refusal.correlation_id {
        says.push_str(&format!(", correlation id {id}"));
    }
    says
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

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn an_authority_is_a_host_and_a_port() {
        for (authority, host, port) in [
            (
                "https://login.microsoftonline.com",
                "login.microsoftonline.com",
                443,
            ),
            ("https://localhost:8443", "localhost", 8443),
            ("http://127.0.0.1", "127.0.0.1", 80),
            ("https://[::1]", "::1", 443),
            ("https://[::1]:8443", "::1", 8443),
        ] {
            assert_eq!(host_of(authority), (host, port), "{authority}");
        }
    }
}
