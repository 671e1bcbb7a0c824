//! Identities that need tokens of other identities: each dependency must exist and be of a suitable kind, and there must be
//! no cycle.

use std::collections::{HashMap, HashSet};

use crate::model::Flaw;
use crate::settings::check::Check;
use crate::settings::identity::IdentityTable;
use crate::settings::kinds::At;
use crate::settings::name::Names;
use crate::settings::table::Table;
use crate::settings::{GrantSettings, IdentityRole, IdentitySettings, Proof, RouteSettings};

impl Check<'_> {
    pub(super) fn links(
        &mut self,
        list: &[Table<IdentityTable>],
        identities: &[IdentitySettings],
        names: &mut Names,
    ) {
        let edges: HashMap<&str, Vec<&str>> = identities
            .iter()
            .map(|identity| {
                let others = identity.leans_on().into_iter().map(|name| name.as_str());
                (identity.name.as_str(), others.collect())
            })
            .collect();
        let mut reported = Vec::new();
        for table in list {
            let Some(name) = &table.name else { continue };
            let place = link_of(table).map_or(name.span(), At::span);
            if let Some(circle) = circle(name.as_str(), &edges)
                && !circle.iter().any(|member| reported.contains(member))
            {
                let flaw = Flaw::new(format!(
                    "the identities need one another in a circle: {}",
                    circle.join(" → ")
                ));
                self.findings.mistake(
                    place,
                    flaw.hint("let one of them get its tokens with something of its own"),
                );
                reported.extend(circle);
            }
        }
        for table in list {
            let Some(link) = link_of(table) else { continue };
            if !names.use_of(link, &mut self.findings) || reported.contains(&link.as_str()) {
                continue;
            }
            let other = identities
                .iter()
                .find(|other| other.name.as_str() == link.as_str());
            let is_managed = |other: &IdentitySettings| matches!(other.grant, GrantSettings::Managed(_));
            if other.is_some_and(|other| !is_managed(other)) {
                let flaw = Flaw::new(format!(
                    "\"{}\" is not a managed identity, and Entra takes no other as proof",
                    link.as_str()
                ));
                self.findings.mistake(
                    link,
                    flaw.hint("give it [identity.managed] with the client_id of a user-assigned identity"),
                );
            }
        }
    }
}

/// Marks the identities that only provide tokens to other identities, and that no route names.
pub(in crate::settings) fn give_roles(identities: &mut [IdentitySettings], routes: &[RouteSettings]) {
    let serving: HashSet<_> = routes
        .iter()
        .filter_map(|route| match &route.proof {
            Proof::Identity(name) => Some(name),
            Proof::Signed => None,
        })
        .collect();
    let lending: HashSet<_> = identities
        .iter()
        .flat_map(|identity| identity.leans_on().into_iter().cloned())
        .collect();
    for identity in identities {
        if lending.contains(&identity.name) && !serving.contains(&identity.name) {
            identity.role = IdentityRole::Helps;
        }
    }
}

/// The name of the identity that vouches for this one.
fn link_of(table: &Table<IdentityTable>) -> Option<&At<String>> {
    table.federated.as_ref()?.identity.as_ref()
}

/// A cycle from an identity back to itself, with its own name at both ends. Visits each identity once.
fn circle<'a>(from: &'a str, edges: &HashMap<&'a str, Vec<&'a str>>) -> Option<Vec<&'a str>> {
    let mut paths = vec![vec![from]];
    let mut seen = Vec::new();
    while let Some(path) = paths.pop() {
        let last = path.last().copied()?;
        for next in edges.get(last).into_iter().flatten() {
            let mut longer = path.clone();
            longer.push(*next);
            if *next == from {
                return Some(longer);
            }
            if !seen.contains(next) {
                seen.push(next);
                paths.push(longer);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::circle;
    use crate::settings::IdentityRole;
    use crate::settings::sample::Sample;

    const GUID: &str = "00000000-0000-0000-0000-000000000000";

    fn app(name: &str, other: &str) -> String {
        format!(
            "name = \"{name}\"\ntenant = \"{GUID}\"\nclient_id = \"{GUID}\"\nfederated.identity = \"{other}\"\n"
        )
    }

    fn mistakes(tables: &[String]) -> Vec<String> {
        Sample::default()
            .with("identity", &tables.join("[[identity]]\n"))
            .mistakes()
    }

    #[test]
    fn a_managed_identity_may_vouch() {
        let machine = "name = \"machine\"\nmanaged = {}\n".to_owned();
        assert!(mistakes(&[app("contoso", "machine"), machine]).is_empty());
    }

    #[test]
    fn an_identity_that_only_vouches_serves_no_route() {
        let machine = "name = \"machine\"\nmanaged = {}\n".to_owned();
        let tables = [app("contoso", "machine"), machine].join("[[identity]]\n");
        let roles = |sample: Sample| {
            let identities = sample.config().identities;
            identities.iter().map(|one| one.role).collect::<Vec<_>>()
        };
        let sample = || Sample::default().with("identity", &tables);
        assert_eq!(roles(sample()), [IdentityRole::Serves, IdentityRole::Helps]);
        let both = sample().replace(
            "anonymous = true\nidentity = \"contoso\"",
            "anonymous = true\nidentity = \"machine\"",
        );
        assert_eq!(roles(both), [IdentityRole::Serves, IdentityRole::Serves]);
    }

    #[test]
    fn an_identity_that_is_not_there_is_named() {
        assert_eq!(
            mistakes(&[app("contoso", "machine")]),
            ["there is no identity \"machine\""]
        );
    }

    #[test]
    fn an_application_cannot_vouch() {
        let other = format!(
            "name = \"other\"\ntenant = \"{GUID}\"\nclient_id = \"{GUID}\"\nclient_secret = \"env:SECRET\"\n"
        );
        assert_eq!(
            mistakes(&[app("contoso", "other"), other]),
            ["\"other\" is not a managed identity, and Entra takes no other as proof"]
        );
    }

    #[test]
    fn a_circle_is_shown_once_with_its_members() {
        assert_eq!(
            mistakes(&[app("contoso", "contoso")]),
            ["the identities need one another in a circle: contoso → contoso"]
        );
        assert_eq!(
            mistakes(&[app("contoso", "b"), app("b", "c"), app("c", "contoso")]),
            ["the identities need one another in a circle: contoso → b → c → contoso"]
        );
    }

    #[test]
    fn a_way_into_a_circle_is_no_circle() {
        let edges = HashMap::from([("a", vec!["b"]), ("b", vec!["c"]), ("c", vec!["b"])]);
        assert_eq!(circle("a", &edges), None);
        assert_eq!(circle("b", &edges), Some(vec!["b", "c", "b"]));
    }
}
