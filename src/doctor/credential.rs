//! Checks the credentials of an identity: client secrets, certificates, federated tokens, sign-ins. Reports
//! whether each is present, its id in Entra and its expiry; never its value.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::doctor::advice;
use crate::doctor::network::days;
use crate::doctor::report::{Check, Group, Verdict};
use crate::doctor::walk::Walk;
use crate::entra;
use crate::entra::answer::{CREDENTIAL, NOT_SIGNED_IN};
use crate::entra::login::Protection;
use crate::entra::{AudienceFit, FederatedToken, SignedInState, StoreError};
use crate::material::SigningCertificate;
use crate::model::{FixedBy, Remedy, clock};
use crate::settings::{
    AssertionSource, ClientCertificate, ClientProof, EndpointSettings, FederatedSettings, GrantSettings,
    IdentitySettings, SecretSource,
};

/// A credential that expires within this time causes a warning.
const CREDENTIAL_RENEWAL: Duration = Duration::from_secs(60 * 86_400);
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Checks an identity's credentials without asking Entra.
pub(super) async fn examine(settings: &IdentitySettings, walk: &Walk, group: &mut Group) {
    if let Some((endpoint, proof)) = settings.grant.application() {
        match proof {
            ClientProof::Secrets(secrets) => {
                for secret in secrets {
                    let place = secret.source.place();
                    group.aside(ending(&place, secret.expires, &secret.source, endpoint));
                }
                let sources: Vec<_> = secrets.iter().map(|secret| &secret.source).collect();
                unread(&sources, walk, group);
            }
            ClientProof::Certificates(list) => certificates(list, endpoint, walk, group),
            ClientProof::Federated(proof) => federated(settings, proof, walk, group).await,
            ClientProof::Public => {}
        }
    }
    match &settings.grant {
        GrantSettings::Password { password, .. } => {
            group.aside(Check::note(
                "password",
                "it is sent to Entra once, with the token request; if the password is wrong, that counts \
                 towards the lockout of the account",
            ));
            unread(&[password], walk, group);
        }
        GrantSettings::SignIn { store, .. } if !group.skips(&["sign-in"]) => {
            // A file that hangs must not hang the doctor; the token request reports what could not be checked
            // here.
            let (own, path) = (settings.clone(), store.display().to_string());
            let looked = tokio::task::spawn_blocking(move || entra::sign_in_state(&own));
            if let Ok(Ok(Some(state))) = tokio::time::timeout(STORE_TIMEOUT, looked).await {
                group.add(sign_in(settings, &path, &state));
            }
        }
        _ => {}
    }
}

fn ending(
    place: &str,
    expires: Option<SystemTime>,
    source: &SecretSource,
    endpoint: &EndpointSettings,
) -> Check {
    let client = &endpoint.client_id;
    let Some(expires) = expires else {
        let known = match source.vault() {
            Some(_) => "its expiry is in its vault",
            None => "its expiry is not in the settings",
        };
        return Check::note(
            "secret",
            format!(
                "{place}: {known}; az ad app credential list --id {client} --query \
                 \"[].{{id:keyId, ends:endDateTime}}\" shows it"
            ),
        );
    };
    expiry("secret", place, expires, || {
        let what = "Create another client secret, add it as [[identity.secret]], and remove the old one.";
        credentials(client, what).command(format!(
            "az ad app credential reset --id {client} --append --years 1"
        ))
    })
}

fn credentials(client: &str, what: &str) -> Remedy {
    Remedy::new(FixedBy::Operator, what.to_owned()).portal(format!(
        "Microsoft Entra admin center, App registrations, {client}, Certificates & secrets"
    ))
}

pub(super) fn expiry(
    name: &'static str,
    place: &str,
    expires: SystemTime,
    remedy: impl FnOnce() -> Remedy,
) -> Check {
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

/// Reports secrets that could not be read from their vaults. It is a failure only if that is true of all of
/// them.
fn unread(sources: &[&SecretSource], walk: &Walk, group: &mut Group) {
    let whys: Vec<_> = sources
        .iter()
        .filter(|source| source.vault().is_some())
        .filter_map(|source| walk.vaults.get(source).err())
        .collect();
    let all = whys.len() == sources.len();
    for why in whys {
        match all {
            true => group.add(Check::skipped("secret", why)),
            false => group.aside(Check::skipped("secret", why)),
        }
    }
}

fn certificates(list: &[ClientCertificate], endpoint: &EndpointSettings, walk: &Walk, group: &mut Group) {
    let client = &endpoint.client_id;
    let checks: Vec<_> = list
        .iter()
        .map(|certificate| judge(certificate, client, walk))
        .collect();
    let works = |check: &Check| matches!(check.verdict, Verdict::Ok | Verdict::Warn);
    let serves = checks.iter().any(works);
    for mut check in checks {
        if !serves {
            group.add(check);
            continue;
        }
        // Another one is used until then.
        if check.verdict == Verdict::Fail {
            check.verdict = Verdict::Warn;
        }
        group.aside(check);
    }
}

/// Checks one certificate; fails if Entra cannot accept it.
fn judge(certificate: &ClientCertificate, client: &str, walk: &Walk) -> Check {
    let place = certificate.place();
    let certificate_remedy = || CREDENTIAL.remedy(&[("client_id", client)]);
    let read = match certificate.known() {
        Some(known) => Ok(known.clone()),
        None => match from_vaults(certificate, walk) {
            Ok(read) => read.map(Arc::new),
            Err(why) => return Check::skipped("certificate", why),
        },
    };
    let found: Arc<SigningCertificate> = match read {
        Ok(found) => found,
        Err(why) => return Check::fail("certificate", why, certificate_remedy()),
    };
    let (thumbprint, now) = (found.thumbprint(), clock::wall());
    let place = format!("{place}, thumbprint {thumbprint}");
    let wrong = if found.ends() <= now {
        format!("{place}: it has expired on {}", found.ends_on())
    } else if found.begins() > now {
        format!("{place}: it is not valid before {}", found.begins_on())
    } else {
        return expiry("certificate", &place, found.ends(), || {
            let what =
                "Upload another certificate, add it as [[identity.certificate]], and remove the old one.";
            credentials(client, what).command(format!(
                "az ad app credential reset --id {client} --append --cert @certificate.pem"
            ))
        });
    };
    Check::fail("certificate", wrong, certificate_remedy())
}

/// Loads a certificate of which a part is stored in a vault, or the reason why such a part could not be read.
fn from_vaults(
    certificate: &ClientCertificate,
    walk: &Walk,
) -> Result<Result<SigningCertificate, String>, String> {
    let value = |source: &SecretSource| walk.vaults.get(source);
    let file = value(&certificate.file)?;
    let key = certificate.key.as_ref().map(value).transpose()?;
    let password = certificate.password.as_ref().map(value).transpose()?;
    let read = certificate.read(&file, key.as_ref(), password.as_ref(), None);
    Ok(read.and_then(|found| found.ok_or_else(|| "it is empty".to_owned())))
}

/// Checks the federated token that replaces a secret, without asking Entra.
pub(super) async fn federated(
    settings: &IdentitySettings,
    proof: &FederatedSettings,
    walk: &Walk,
    group: &mut Group,
) {
    if group.skips(&["federated"]) {
        return;
    }
    let name = &settings.name;
    group.add(match &proof.source {
        AssertionSource::File(path) => match FederatedToken::in_file(path, name.as_str()).await {
            Ok(token) => presented(settings, &format!("file {}", path.display()), &token),
            Err(failure) => {
                let remedy = advice::of_platform(&failure, settings);
                Check::fail("federated", failure.seen, remedy)
            }
        },
        AssertionSource::Identity { name: other, scope } => match walk.held.get(other) {
            Some(held) if walk.asked.get(other) == Some(scope) => {
                let token = FederatedToken::of(held.text());
                presented(settings, &format!("managed identity {other}"), &token)
            }
            Some(_) => Check::ok("federated", format!("managed identity {other} vouches for it")),
            None => Check::skipped(
                "federated",
                format!("identity {other} has no token, see identity {other}"),
            ),
        },
    });
}

/// Lists what a federated credential must contain, so that it can be compared letter by letter.
fn presented(settings: &IdentitySettings, place: &str, token: &FederatedToken) -> Check {
    let left = match token.left {
        Some(left) => format!("{} minutes left", left.as_secs() / 60),
        None => "without an expiry".to_owned(),
    };
    let client = advice::client_of(Some(settings));
    let says = format!(
        "{place}, {left}. A federated credential of the application must contain these: issuer {}, subject \
         {}, audience {}",
        token.issuer, token.subject, token.audience
    );
    match token.fit {
        AudienceFit::Usual => Check::ok("federated", says),
        AudienceFit::Unusual => {
            let what = "Federated credentials usually want the audience api://AzureADTokenExchange: set it where the \
                        token is projected, or in the credential.";
            Check::warn(
                "federated",
                says,
                Remedy::new(FixedBy::ClusterAdmin, what)
                    .command(format!("az ad app federated-credential list --id {client}")),
            )
        }
    }
}

fn sign_in(settings: &IdentitySettings, path: &str, state: &SignedInState) -> Check {
    match state {
        Ok((account, protection)) => {
            let how = match protection {
                Protection::Sealed => "encrypted under the seal",
                Protection::OwnerOnly => "readable by its owner only",
            };
            Check::ok(
                "sign-in",
                format!("{account} signed in, kept in file {path}, {how}"),
            )
        }
        Err(StoreError::Missing) => Check::fail(
            "sign-in",
            format!("nobody has signed in yet: there is no file {path}"),
            advice::of_row(NOT_SIGNED_IN, Some(settings)),
        ),
        Err(StoreError::Unusable(why)) => {
            let mut remedy = advice::of_row(NOT_SIGNED_IN, Some(settings));
            remedy.what = format!(
                "Correct that for the user the gateway runs as, or sign in again. {}",
                remedy.what
            )
            .into();
            Check::fail("sign-in", format!("file {path} cannot be used: {why}"), remedy)
        }
    }
}
