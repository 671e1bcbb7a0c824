//! What the doctor is asked to check, and which routes and identities that concerns.

use crate::doctor::signed::SignedUrl;
use crate::settings::{Config, IdentitySettings, Proof, RouteSettings, VaultReference};

#[derive(Debug, Clone, Default)]
pub struct Questions {
    /// Only this route and its identity.
    pub route: Option<String>,
    /// Only this identity and its routes.
    pub identity: Option<String>,
    pub live: Live,
    pub privileges: Privileges,
    /// Old signed addresses of triggers, to be tried if `live` and `privileges` are both set.
    pub signed: Vec<SignedUrl>,
}

impl Questions {
    /// Whether to test if triggers accept signatures where routes send tokens.
    pub(crate) fn try_signatures(&self) -> bool {
        self.privileges == Privileges::Yes && self.live != Live::No
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Live {
    #[default]
    No,
    /// With calls that cannot start a run.
    Probes,
    /// With those, and with one that starts a run.
    Run,
}

/// Whether to report settings that are more permissive than necessary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Privileges {
    #[default]
    No,
    Yes,
}

#[derive(Debug)]
pub struct Selection<'a> {
    /// Identities, in the order of the settings.
    pub identities: Vec<&'a IdentitySettings>,
    /// Routes, in the order of the settings.
    pub routes: Vec<&'a RouteSettings>,
}

impl<'a> Selection<'a> {
    /// Picks what the questions name.
    pub fn of(config: &'a Config, questions: &Questions) -> Result<Self, String> {
        let known = |kind: &str, wanted: &Option<String>, names: Vec<&str>| match wanted {
            Some(name) if !names.contains(&name.as_str()) => {
                let names = names.join(", ");
                Err(format!("there is no {kind} \"{name}\"; known are {names}"))
            }
            _ => Ok(()),
        };
        let names = config.identities.iter().map(|one| one.name.as_str());
        known("identity", &questions.identity, names.collect())?;
        let names = config.routes.iter().map(|one| one.name.as_str());
        known("route", &questions.route, names.collect())?;
        let wanted = |route: &&RouteSettings| {
            let named = questions.route.as_deref();
            let through = questions.identity.as_deref();
            named.is_none_or(|name| route.name.as_str() == name)
                && through.is_none_or(|name| uses(route, name))
        };
        let routes: Vec<_> = config.routes.iter().filter(wanted).collect();
        let identities = config.identities.iter().filter(|identity| {
            let name = identity.name.as_str();
            match (&questions.identity, &questions.route) {
                (Some(wanted), _) => name == wanted,
                (None, Some(_)) => routes.iter().any(|route| uses(route, name)),
                (None, None) => true,
            }
        });
        Ok(Self {
            identities: identities.collect(),
            routes,
        })
    }
}

pub(super) fn uses(route: &RouteSettings, identity: &str) -> bool {
    matches!(&route.proof, Proof::Identity(name) if name.as_str() == identity)
}

pub(super) fn places_of(identity: &IdentitySettings) -> Vec<VaultReference> {
    let sources = identity.grant.secret_sources();
    sources
        .iter()
        .filter_map(|source| source.vault().cloned())
        .collect()
}

/// These identities and all that they depend on, dependencies first.
pub(super) fn in_order<'a>(config: &'a Config, wanted: &[&'a IdentitySettings]) -> Vec<&'a IdentitySettings> {
    let mut order = Vec::new();
    for identity in wanted {
        visit(config, identity, &mut order);
    }
    order
}

/// Terminates because the check of the settings refuses circles.
fn visit<'a>(config: &'a Config, identity: &'a IdentitySettings, order: &mut Vec<&'a IdentitySettings>) {
    if order.iter().any(|one| one.name == identity.name) {
        return;
    }
    for need in needs(config, identity) {
        visit(config, need, order);
    }
    order.push(identity);
}

/// The identities without which this one gets no token.
fn needs<'a>(config: &'a Config, identity: &IdentitySettings) -> Vec<&'a IdentitySettings> {
    let mut names = identity.leans_on();
    if let (Some(keyvault), false) = (&config.keyvault, places_of(identity).is_empty()) {
        names.push(&keyvault.identity.name);
    }
    let named = |one: &&IdentitySettings| names.contains(&&one.name);
    config.identities.iter().filter(named).collect()
}

pub(crate) fn identity_of<'a>(config: &'a Config, route: &RouteSettings) -> Option<&'a IdentitySettings> {
    let Proof::Identity(name) = &route.proof else {
        return None;
    };
    config.identities.iter().find(|identity| identity.name == *name)
}
