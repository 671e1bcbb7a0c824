//! `flowgate doctor`: checks each step of a token and of a request, and names the one thing that is wrong,
//! who fixes it and how. It makes only the calls that the gateway itself would make; nothing here starts a
//! run unless that was asked for explicitly.

pub mod advice;
mod api;
mod authority;
mod call;
mod credential;
mod gateway;
mod identity;
pub mod live;
mod network;
mod platform;
mod port;
mod privileges;
mod questions;
mod report;
mod resource;
mod route;
mod running;
pub mod setup;
pub mod signature;
mod signed;
mod usage;
mod vault;
mod walk;

pub(crate) use port::looking;
pub use questions::{Live, Privileges, Questions, Selection};
pub(crate) use report::count;
pub use report::{Check, Group, Report, Verdict};
pub(crate) use running::{at_home, unconnected};
pub use signed::SignedUrl;
pub use walk::Walk;

use std::collections::HashMap;

use crate::doctor::questions::{in_order, places_of};
use crate::doctor::running::Running;
use crate::doctor::signature::Modes;
use crate::model::Secret;
use crate::settings::{Config, Environment, IdentitySettings, VaultReference};

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

/// Checks everything that was asked for, in settings that load without a key vault.
pub async fn examine(
    config: &Config,
    environment: &Environment,
    questions: &Questions,
) -> Result<Report, String> {
    Walk::default().finish(config, environment, questions).await
}
