//! `flowgate doctor`: walks the way of a token and of a request step by step and names the one thing that is wrong, who
//! mends it and how. It asks only what the gateway itself would ask; nothing here starts a run unless that was asked for
//! in words.

pub mod advice;
mod audit;
mod gateway;
mod identity;
pub mod live;
mod network;
mod report;
mod route;
pub mod setup;

pub use report::Check;
pub use report::Group;
pub use report::Report;
pub use report::Verdict;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::config::Config;
use crate::config::Environment;
use crate::config::IdentitySettings;
use crate::config::Proof;
use crate::config::RouteSettings;
use crate::counters::Counters;
use crate::doctor::network::Seen;
use crate::entra::Token;
use crate::model::IdentityName;

/// What is asked of the doctor.
#[derive(Debug, Clone, Default)]
pub struct Questions {
    /// Only this route and its identity.
    pub route: Option<String>,
    /// Only this identity and its routes.
    pub identity: Option<String>,
    /// Whether triggers are called.
    pub live: Live,
    /// Whether the settings are looked through for what is open wider than needed.
    pub audit: Audit,
}

/// Whether triggers are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Live {
    /// They are not.
    #[default]
    No,
    /// With calls that cannot start a run.
    Probes,
    /// With those, and with one that starts a run.
    Run,
}

/// Whether the settings are looked through for what is open wider than needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Audit {
    /// They are not.
    #[default]
    No,
    /// They are.
    Yes,
}

/// The routes and identities that are looked at.
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
    /// Says which name the settings do not have.
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

/// Tokens by identity, as far as they could be had.
pub(crate) type Held = HashMap<IdentityName, Arc<Token>>;

/// Looks at everything that was asked for. Each step has a deadline.
///
/// # Errors
/// Says which name the settings do not have.
pub async fn examine(
    config: &Config,
    environment: &Environment,
    questions: &Questions,
) -> Result<Report, String> {
    let selection = Selection::of(config, questions)?;
    let mut report = Report::default();
    report
        .groups
        .push(gateway::examine(config, &selection, environment));
    let counters = Counters::new();
    let mut seen = Seen::default();
    let mut held = Held::new();
    for identity in &selection.identities {
        let (group, token) =
            identity::examine(identity, config, &counters, &Handle::current(), &mut seen).await;
        report.groups.push(group);
        if let Some(token) = token {
            held.insert(identity.name.clone(), token);
        }
    }
    for route in &selection.routes {
        let mut group = route::examine(config, route, &held, &mut seen).await;
        if questions.live != Live::No {
            live::examine(config, route, &held, questions.live, &mut group).await;
        }
        report.groups.push(group);
    }
    if questions.audit == Audit::Yes {
        report.groups.push(audit::examine(config, &held));
    }
    Ok(report)
}

/// The settings of the identity that a route uses.
pub(crate) fn identity_of<'a>(config: &'a Config, route: &RouteSettings) -> Option<&'a IdentitySettings> {
    let Proof::Identity(name) = &route.proof else {
        return None;
    };
    config.identities.iter().find(|identity| identity.name == *name)
}
