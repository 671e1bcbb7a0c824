//! The remedies of the doctor: a row of a table of failures with the names of the identity that met it, and what no table
//! has.

use std::path::Path;

use crate::doctor::resource::Resource;
use crate::entra::refusal::RefusalKind;
use crate::entra::refused::Refusal;
use crate::entra::{Failure, TokenError};
use crate::model::claims::Claims;
use crate::model::{FailureRow, FixedBy, Page, Remedy, fill};
use crate::secrets::VaultError;
use crate::settings::{GrantSettings, IdentitySettings, ManagedSource};

/// Placeholder for the settings file in commands.
const SETTINGS: &str = "--config FILE";

/// A text with commands, in which the settings file has its name, as a shell reads it.
pub fn with_settings(text: &str, path: &Path) -> String {
    let shown = path.display().to_string();
    let is_plain = |letter: char| letter.is_alphanumeric() || "-._/\\:+@,=".contains(letter);
    let quoted = match !shown.is_empty() && shown.chars().all(is_plain) {
        true => shown,
        false => format!("'{}'", shown.replace('\'', "'\\''")),
    };
    text.replace(SETTINGS, &format!("--config {quoted}"))
}

pub(super) fn client_of(identity: Option<&IdentitySettings>) -> &str {
    let application = identity.and_then(|identity| identity.grant.application());
    application.map_or("CLIENT_ID", |(endpoint, _)| &endpoint.client_id)
}

/// What was seen of a failure to get a token, and what to do about it.
pub(super) fn of_token_error(error: &TokenError, identity: &IdentitySettings) -> (String, Remedy) {
    match error {
        TokenError::Refused(refused) => (
            said(&refused.refusal, identity),
            of_refusal(&refused.refusal, identity),
        ),
        TokenError::Platform(failure) => (error.seen(), of_platform(failure, identity)),
        TokenError::Vault(error) => of_vault(error, identity),
        _ => (error.seen(), of_row(error.row(), Some(identity))),
    }
}

pub(super) fn of_platform(failure: &Failure, identity: &IdentitySettings) -> Remedy {
    let remedy = Remedy::new(failure.row.fixed_by, failure.what.clone());
    let source = match &identity.grant {
        GrantSettings::Managed(managed) => Some(&managed.source),
        GrantSettings::Default(chain) if chain.federated.is_err() => {
            chain.managed.as_ref().ok().map(|managed| &managed.source)
        }
        _ => None,
    };
    match source {
        Some(source) => at_source(remedy, source),
        // A file with a federated token: the platform mounts it into the pod.
        None => remedy.command("kubectl get pod POD --output yaml"),
    }
}

/// The roles and scopes that a token carries, if it carries any.
pub(super) fn granted(claims: &Claims) -> Option<String> {
    let mut granted = claims.words("roles");
    granted.extend(claims.words("scp"));
    (!granted.is_empty()).then(|| granted.join(", "))
}

/// Where the permissions of an application are looked at.
pub(super) fn permissions(remedy: Remedy, client: &str) -> Remedy {
    remedy
        .portal(format!(
            "Microsoft Entra admin center, App registrations, {client}, API permissions"
        ))
        .command(format!("az ad app permission list --id {client}"))
}

/// What to do where there is no certificate authority to trust.
pub(super) fn authorities() -> Remedy {
    Remedy::new(
        FixedBy::Operator,
        "Install certificate authorities, or set ca_file.",
    )
}

/// Where the managed identities of a platform are looked at.
pub(super) fn at_source(remedy: Remedy, source: &ManagedSource) -> Remedy {
    match source {
        ManagedSource::Imds { .. } => remedy
            .portal("Azure portal, the virtual machine, Security, Identity")
            .command("az vm identity show --resource-group GROUP --name VM"),
        ManagedSource::AppService { .. } => remedy
            .portal("Azure portal, the app, Settings, Identity")
            .command("az webapp identity show --resource-group GROUP --name APP"),
        ManagedSource::Arc { .. } => remedy
            .portal("Azure portal, Azure Arc, Machines, the machine")
            .command("azcmagent show"),
    }
}

/// What was observed of a key vault failure, and its remedy; `reader` is the identity that reads vaults, or the one whose
/// secret is stored there.
pub(super) fn of_vault(error: &VaultError, reader: &IdentitySettings) -> (String, Remedy) {
    let no_bearer = error.no_bearer.as_ref();
    if let Some(why) = no_bearer.and_then(|why| why.error.downcast_ref()) {
        return of_token_error(why, reader);
    }
    (error.seen.clone(), error.remedy.clone())
}

/// What Entra answered; the reason, and who fixes it, are in the remedy.
fn said(refusal: &Refusal, identity: &IdentitySettings) -> String {
    let mut says = refusal.to_string();
    if let Some((endpoint, _)) = identity.grant.application() {
        says.push_str(&format!(
            " to client id {} in tenant {}",
            endpoint.client_id,
            identity.tenant.as_deref().unwrap_or_default()
        ));
    }
    if let Some(id) = &refusal.correlation_id {
        says.push_str(&format!(", correlation id {id}"));
    }
    says
}

pub(super) fn of_refusal(refusal: &Refusal, identity: &IdentitySettings) -> Remedy {
    let remedy = of_row(refusal.row, Some(identity));
    // Without a number, a refused grant of an account that signed in is one that has ended.
    let is_over = matches!(
        refusal.kind,
        RefusalKind::InvalidGrant | RefusalKind::InteractionRequired
    );
    match identity.grant {
        GrantSettings::SignIn { .. } if is_over && refusal.row.page == Page::NONE => {
            remedy.command(fill(Page::LOGIN.command, &[("identity", identity.name.as_str())]))
        }
        _ => remedy,
    }
}

/// What to do about a failure of this identity, or of a route without one.
pub(super) fn of_row(row: &FailureRow, identity: Option<&IdentitySettings>) -> Remedy {
    let resource = identity.map_or(Resource::Flow, |identity| Resource::of(&identity.audience));
    let mut values = vec![("client_id", client_of(identity).to_owned())];
    values.extend(identity.map(|identity| ("identity", identity.name.to_string())));
    values.extend([("resource", resource.name()), ("create", resource.create())]);
    let values: Vec<_> = values
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    row.remedy(&values)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::with_settings;
    use crate::model::{Page, fill};

    #[test]
    fn the_settings_file_is_named_as_a_shell_reads_it() {
        for (path, shown) in [
            ("/etc/flowgate.toml", "/etc/flowgate.toml"),
            ("my settings.toml", "'my settings.toml'"),
            ("it's;.toml", r"'it'\''s;.toml'"),
        ] {
            let command = with_settings(
                &fill(Page::LOGIN.command, &[("identity", "one")]),
                Path::new(path),
            );
            assert_eq!(command, format!("flowgate login --config {shown} --identity one"));
        }
    }
}
