//! `flowgate doctor`: checks each step of a token and of a request, and names the one thing that is wrong,
//! who fixes it and how. It makes only the calls that the gateway itself would make; nothing here starts a
//! run unless that was asked for explicitly.

pub mod advice;
mod api;
mod credential;
mod gateway;
mod identity;
pub mod live;
mod network;
mod platform;
mod port;
mod privileges;
mod report;
mod resource;
mod route;
mod running;
pub mod setup;
pub mod signature;
mod usage;
mod vault;

pub(crate) use report::count;
pub use report::{Check, Group, Report, Verdict};
pub use signature::SignedUrl;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use crate::doctor::live::Mode;
use crate::doctor::network::CheckedHosts;
use crate::doctor::running::Running;
use crate::doctor::vault::Vaults;
use crate::entra::Token;
use crate::model::{IdentityName, RouteName, Secret};
use crate::settings::{Config, Environment, IdentitySettings, Proof, RouteSettings, VaultReference};

/// What the doctor is asked to check.
#[derive(Debug, Clone, Default)]
pub struct Questions {
    /// Only this route and its identity.
    pub route: Option<String>,
    /// Only this identity and its routes.
    pub identity: Option<String>,
    /// Whether triggers are called.
    pub live: Live,
    /// Whether to report settings that are more permissive than necessary.
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

/// Whether triggers are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Live {
    /// No calls.
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
    /// They are not reported.
    #[default]
    No,
    /// They are reported.
    Yes,
}

/// The routes and identities that are checked.
#[derive(Debug)]
pub struct Selection<'a> {
    /// Identities, in the order of the settings.
    pub identities: Vec<&'a IdentitySettings>,
    /// Routes, in the order of the settings.
    pub routes: Vec<&'a RouteSettings>,
}

impl<'a> Selection<'a> {
    /// Picks what the questions name.
    ///
    /// # Errors
    /// If a name is not in the settings.
    pub fn of(config: &'a Config, questions: &Questions) -> Result<Self, String> {
        let known = |list: Vec<&str>| list.join(", ");
        if let Some(name) = &questions.identity
            && !config.identities.iter().any(|one| one.name.as_str() == name)
        {
            let names = config.identities.iter().map(|one| one.name.as_str()).collect();
            return Err(format!(
                "there is no identity \"{name}\"; known are {}",
                known(names)
            ));
        }
        if let Some(name) = &questions.route
            && !config.routes.iter().any(|one| one.name.as_str() == name)
        {
            let names = config.routes.iter().map(|one| one.name.as_str()).collect();
            return Err(format!(
                "there is no route \"{name}\"; known are {}",
                known(names)
            ));
        }
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

fn uses(route: &RouteSettings, identity: &str) -> bool {
    matches!(&route.proof, Proof::Identity(name) if name.as_str() == identity)
}

/// The tokens by identity, of those that got one.
pub(crate) type HeldTokens = HashMap<IdentityName, Arc<Token>>;

/// What the triggers of routes require, of those that were called.
type Modes = HashMap<RouteName, Mode>;

/// The checks made so far, each once.
#[derive(Default)]
pub struct Walk {
    groups: Vec<Group>,
    seen: CheckedHosts,
    held: HeldTokens,
    /// The scopes of those tokens.
    asked: HashMap<IdentityName, String>,
    vaults: Vaults,
    done: HashSet<IdentityName>,
}

impl fmt::Debug for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Walk")
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}

impl Walk {
    /// Checks the key vaults that are needed to load the settings, and the identities that read them.
    pub async fn begin(config: &Config) -> Self {
        let mut walk = Self::default();
        if let Some(keyvault) = &config.keyvault
            && !keyvault.at_start.is_empty()
        {
            for identity in in_order(config, &[&keyvault.identity]) {
                walk.identity(identity, config).await;
            }
            vault::examine(config, &keyvault.at_start, &mut walk).await;
        }
        walk
    }

    /// The values of those secrets; `None` if one could not be read.
    pub fn values(&self, config: &Config) -> Option<HashMap<VaultReference, Secret>> {
        let places = config.keyvault.iter().flat_map(|keyvault| &keyvault.at_start);
        let value = |place: &VaultReference| Some((place.clone(), self.vaults.of(place)?));
        places.map(value).collect()
    }

    /// Ends the walk because the settings cannot be loaded.
    ///
    /// # Errors
    /// If a name is not in the settings.
    pub fn stop(mut self, config: &Config, questions: &Questions) -> Result<Report, String> {
        let selection = Selection::of(config, questions)?;
        let identities = selection.identities.iter();
        let left = identities.filter(|identity| !self.done.contains(&identity.name));
        let mut titles = vec![("gateway", String::new())];
        titles.extend(left.map(|identity| ("identity", identity.name.to_string())));
        titles.extend(
            selection
                .routes
                .iter()
                .map(|route| ("route", route.name.to_string())),
        );
        for (kind, name) in titles {
            let mut group = Group::new(kind, name);
            let why = "the settings need secrets that could not be read, see the vaults above";
            group.add(Check::skipped("settings", why));
            self.groups.push(group);
        }
        Ok(Report {
            groups: self.groups,
            unasked: Vec::new(),
        })
    }

    /// Checks everything that was asked for. Each step has a deadline.
    ///
    /// # Errors
    /// If a name is not in the settings.
    pub async fn finish(
        mut self,
        config: &Config,
        environment: &Environment,
        questions: &Questions,
    ) -> Result<Report, String> {
        let selection = Selection::of(config, questions)?;
        let running = Running::ask(config).await;
        let mut group = gateway::examine(config, &selection, environment);
        let ports = port::examine(config, &running).await;
        let found = running.checks(config).into_iter().chain(ports);
        found.for_each(|check| group.aside(check));
        self.groups.push(group);
        for identity in in_order(config, &selection.identities) {
            self.identity(identity, config).await;
        }
        let mut modes = Modes::new();
        for route in &selection.routes {
            let mut group = route::examine(config, route, &self.held, &mut self.seen).await;
            if questions.live != Live::No {
                let mode = live::examine(config, route, &self.held, questions.live, &mut group).await;
                modes.extend(mode.map(|mode| (route.name.clone(), mode)));
            }
            if let Some(calls) = running.calls(route.name.as_str()) {
                group.aside(calls);
            }
            self.groups.push(group);
        }
        if questions.privileges == Privileges::Yes {
            let signatures = match questions.try_signatures() {
                true => signature::examine(config, &selection, &modes, questions, &mut self).await,
                false => privileges::signatures(config),
            };
            let mut group = privileges::examine(config, &self.held, signatures);
            usage::examine(config)
                .await
                .into_iter()
                .for_each(|check| group.aside(check));
            self.groups.push(group);
        }
        let unasked = match questions.live {
            Live::No => vec!["calls of the triggers (add --live; none of them starts a run)".to_owned()],
            Live::Probes | Live::Run => Vec::new(),
        };
        Ok(Report {
            groups: self.groups,
            unasked,
        })
    }

    /// Checks an identity, after the vaults that its secrets are stored in.
    async fn identity(&mut self, identity: &IdentitySettings, config: &Config) {
        if !self.done.insert(identity.name.clone()) {
            return;
        }
        vault::examine(config, &places_of(identity), self).await;
        identity::examine(identity, config, self).await;
    }
}

fn places_of(identity: &IdentitySettings) -> Vec<VaultReference> {
    let sources = identity.secret_sources();
    sources
        .iter()
        .filter_map(|source| source.vault().cloned())
        .collect()
}

/// These identities and all that they depend on, dependencies first.
fn in_order<'a>(config: &'a Config, wanted: &[&'a IdentitySettings]) -> Vec<&'a IdentitySettings> {
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

/// Checks everything that was asked for, in settings that load without a key vault.
///
/// # Errors
/// If a name is not in the settings.
pub async fn examine(
    config: &Config,
    environment: &Environment,
    questions: &Questions,
) -> Result<Report, String> {
    Walk::default().finish(config, environment, questions).await
}

/// The identity that a route uses.
pub(crate) fn identity_of<'a>(config: &'a Config, route: &RouteSettings) -> Option<&'a IdentitySettings> {
    let Proof::Identity(name) = &route.proof else {
        return None;
    };
    config.identities.iter().find(|identity| identity.name == *name)
}
