//! Prints the commands that create what an identity needs in Entra and Azure, with the values of the settings
//! filled in; nothing is run. This file decides on the steps, `setup/words.rs` how each is written.

mod facts;
mod rights;
mod words;

pub use facts::Style;

use crate::doctor::resource::{Resource, is_for_api};
use crate::doctor::setup::facts::{Client, Consumer, Facts, Permission, Presented, PrincipalOf, Step};
use crate::entra::FederatedToken;
use crate::settings::{
    AssertionSource, ClientProof, Config, GrantSettings, IdentitySettings, ManagedSettings, ManagedSource,
    UNRESOLVED,
};

/// Renders the commands for one identity. If a federated token can be read, its claims are used.
pub async fn lines(identity: &IdentitySettings, config: &Config, style: Style) -> String {
    let application = identity.grant.application();
    let facts = Facts {
        identity,
        tenant: match identity.tenant.as_str() {
            "" | UNRESOLVED => "TENANT",
            tenant => tenant,
        },
        client: match application.map(|(endpoint, _)| endpoint.client_id.as_str()) {
            None | Some(UNRESOLVED) => "CLIENT_ID",
            Some(client) => client,
        },
        resource: Resource::of(&identity.audience),
        consumer: match is_for_api(identity, config) {
            true => Consumer::Api,
            false => Consumer::Flow,
        },
    };
    let comment = if style == Style::Bicep { "//" } else { "#" };
    let steps = steps(identity, config, &facts).await;
    let mut text = words::head(style, &facts, &steps);
    for (at, step) in steps.iter().enumerate() {
        let title = words::title(style, step, &facts);
        let body = match style {
            Style::Az => words::az(step, &facts),
            Style::PowerShell => words::powershell(step, &facts),
            Style::Bicep => words::bicep(step, &facts),
        };
        text.push_str(&format!("{comment} {}. {title}\n{body}\n", at + 1));
    }
    for line in rights::summary(&facts) {
        text.push_str(&format!("{comment} {line}\n"));
    }
    text
}

async fn steps<'a>(identity: &'a IdentitySettings, config: &'a Config, facts: &Facts<'_>) -> Vec<Step<'a>> {
    let mut steps = Vec::new();
    if matches!(facts.resource, Resource::PowerPlatform(_)) {
        // Many tenants lack it, and later steps name it.
        steps.push(Step::Resource);
    }
    let principal = match &identity.grant {
        GrantSettings::Client { proof, .. } => {
            register(identity, proof, Client::Confidential, facts, &mut steps).await;
            PrincipalOf::Application
        }
        GrantSettings::Password { proof, user, .. } => {
            register(identity, proof, Client::Confidential, facts, &mut steps).await;
            steps.extend([Step::Permission(Permission::Delegated), Step::Account(user)]);
            PrincipalOf::Account(user)
        }
        GrantSettings::SignIn { proof, .. } => {
            register(identity, proof, Client::SignsIn, facts, &mut steps).await;
            steps.extend([Step::Permission(Permission::Delegated), Step::Account("USER")]);
            PrincipalOf::Account("USER")
        }
        GrantSettings::Managed(managed) => {
            steps.push(Step::Assign(managed));
            PrincipalOf::Machine(managed)
        }
        GrantSettings::Default(chain) => match &chain.managed {
            Ok(managed) if chain.federated.is_err() => {
                steps.push(Step::Assign(managed));
                PrincipalOf::Machine(managed)
            }
            _ => {
                let presented = Presented::of(None, "ISSUER", "system:serviceaccount:NAMESPACE:ACCOUNT");
                steps.extend([
                    Step::Registration(Client::Confidential),
                    Step::Principal,
                    Step::Federated(presented),
                ]);
                PrincipalOf::Application
            }
        },
        GrantSettings::TokenFile { .. } => {
            steps.push(Step::Projection);
            PrincipalOf::Unknown
        }
    };
    if matches!(facts.resource, Resource::Flow | Resource::Other(_)) {
        steps.push(Step::Resource);
    }
    steps.push(Step::ObjectId(principal));
    steps.extend(right(principal, facts).map(Step::Permission));
    let vaults = config.keyvault.as_ref();
    let reads = vaults.filter(|keyvault| keyvault.identity.name == identity.name);
    if let Some(keyvault) = reads {
        let mut places: Vec<_> = keyvault.at_start.iter().chain(&keyvault.later).collect();
        places.dedup();
        steps.push(Step::VaultRole(principal, places));
    }
    match principal {
        // A machine has one system-assigned identity, which needs no name.
        PrincipalOf::Machine(ManagedSettings { selector: None, .. }) => {}
        // Arc has only a system-assigned identity.
        PrincipalOf::Machine(ManagedSettings {
            source: ManagedSource::Arc { .. },
            ..
        }) => {}
        _ => steps.push(Step::Settings(principal)),
    }
    steps
}

/// The right that an API requires of a caller in its own name. An account has delegated permissions.
fn right<'a>(principal: PrincipalOf<'a>, facts: &Facts<'_>) -> Option<Permission<'a>> {
    match (facts.consumer, principal, facts.resource) {
        (Consumer::Flow, ..) | (Consumer::Api, PrincipalOf::Account(_), _) => None,
        (Consumer::Api, _, Resource::PowerPlatform(_)) => Some(Permission::Platform),
        (Consumer::Api, _, _) => Some(Permission::AppRole(principal)),
    }
}

async fn register(
    identity: &IdentitySettings,
    proof: &ClientProof,
    client: Client,
    facts: &Facts<'_>,
    steps: &mut Vec<Step<'_>>,
) {
    let client = match proof {
        ClientProof::Public => Client::Public,
        _ => client,
    };
    steps.extend([Step::Registration(client), Step::Principal]);
    match proof {
        ClientProof::Secrets(_) => steps.push(Step::Secret),
        ClientProof::Certificates(_) => steps.push(Step::Certificate),
        ClientProof::Public => {}
        ClientProof::Federated(proof) => steps.push(Step::Federated(match &proof.source {
            AssertionSource::File(path) => {
                let token = FederatedToken::in_file(path, identity.name.as_str()).await;
                let subject = "system:serviceaccount:NAMESPACE:ACCOUNT";
                Presented::of(token.ok().as_ref(), "ISSUER", subject)
            }
            AssertionSource::Identity { .. } => {
                // Microsoft Learn, "Configure an application to trust a managed identity".
                let issuer = match identity.grant.application() {
                    Some((endpoint, _)) => format!("{}/{}/v2.0", endpoint.authority, facts.tenant),
                    None => "ISSUER".to_owned(),
                };
                Presented::of(None, &issuer, "OBJECT_ID_OF_THE_MANAGED_IDENTITY")
            }
        })),
    }
}
