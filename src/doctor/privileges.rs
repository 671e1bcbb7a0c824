//! Reports what is more permissive than necessary, as far as settings and tokens show it. What they cannot
//! show is listed as unknown.

use std::collections::HashSet;

use crate::doctor::report::{Check, Group, count};
use crate::doctor::resource::{Resource, is_for_api};
use crate::doctor::walk::HeldTokens;
use crate::doctor::{advice, signature};
use crate::entra::Token;
use crate::model::claims::{Claims, safe};
use crate::model::{FixedBy, Remedy, clock};
use crate::settings::{CallersSettings, Config, IdentitySettings, KeyState, Proof, RouteKind, RouteSettings};

pub(super) fn examine(config: &Config, held: &HeldTokens, signatures: Vec<Check>) -> Group {
    let mut group = Group::new("privileges", "");
    let checks = [
        permissions(config, held),
        signatures,
        open(config),
        shared(config),
        unused(config),
        keys(config),
    ];
    for check in checks.into_iter().flatten() {
        group.aside(check);
    }
    group
}

/// The flow service asks an application for no role and no scope; an API does.
fn permissions(config: &Config, held: &HeldTokens) -> Vec<Check> {
    let tokens = config.identities.iter();
    let tokens = tokens.filter_map(|identity| Some((identity, held.get(&identity.name)?)));
    tokens
        .map(|(identity, token)| permission(config, identity, token))
        .collect()
}

fn permission(config: &Config, identity: &IdentitySettings, token: &Token) -> Check {
    let name = &identity.name;
    let Some(claims) = Claims::read(token.text().expose()) else {
        return Check::note("permissions", format!("the token of {name} is opaque"));
    };
    let Some(granted) = advice::granted(&claims) else {
        let says = format!("the token of {name} carries no role and no scope");
        return Check::ok("permissions", says);
    };
    if is_for_api(identity, config) {
        // Its routes need them; only the API's documentation says which of them a path needs.
        let says = format!(
            "the token of {name} carries {granted} for {}; grant it only what the `paths` of its routes need",
            Resource::of(&identity.audience).name()
        );
        return Check::note("permissions", says);
    }
    let client = safe(claims.text("appid").unwrap_or("CLIENT_ID"));
    let says = format!("the token of {name} carries {granted}, which no trigger asks for");
    let remedy = Remedy::new(FixedBy::TenantAdmin, "Revoke what nothing else needs.");
    Check::warn("permissions", says, advice::permissions(remedy, &client))
}

/// Reports flows with a token that can also be started by their signature, as far as that is known without a
/// call.
pub(super) fn signatures(config: &Config) -> Vec<Check> {
    let (signed, bearer): (Vec<_>, Vec<_>) = config
        .routes
        .iter()
        .filter(|route| route.kind == RouteKind::Flow)
        .partition(|route| route.proof == Proof::Signed);
    let mut checks = Vec::new();
    let mut unknown = 0;
    for route in bearer {
        let same = |other: &&&RouteSettings| signature::same_trigger(&other.trigger, route);
        let Some(other) = signed.iter().find(same) else {
            unknown += 1;
            continue;
        };
        let says = format!(
            "route {} uses a token, and route {} the signature of the same trigger",
            route.name, other.name
        );
        let what = "If the signature still works, set the trigger to a tenant mode (Power Automate) or \
                    disable SAS (Logic Apps), and remove the signed route.";
        let remedy = Remedy::new(FixedBy::FlowOwner, what);
        checks.push(Check::warn("signatures", says, remedy));
    }
    if unknown > 0 {
        let says = format!(
            "for {} with a token the settings contain no signature, so it is unknown whether one still \
             works: --privileges --live asks the triggers, and with --signed-url whether an old address \
             still works",
            count(unknown, "route", "routes")
        );
        checks.push(Check::note("signatures", says));
    }
    checks
}

fn is_open(route: &RouteSettings) -> bool {
    matches!(route.callers, CallersSettings::Anonymous)
}

fn open(config: &Config) -> Vec<Check> {
    let open = config.routes.iter().filter(|route| is_open(route));
    open.map(|route| {
        let what = "List its `callers` instead of `anonymous`, or restrict it with `networks`.";
        Check::warn(
            "anonymous",
            open_says(route),
            Remedy::new(FixedBy::Operator, what),
        )
    })
    .collect()
}

/// Describes from where an open route may be called, and what that costs.
fn open_says(route: &RouteSettings) -> String {
    let networks = |number| count(number, "network", "networks");
    let from = match (route.networks.allow.len(), route.networks.deny.len()) {
        (0, 0) => "and no networks restrict it".to_owned(),
        (0, deny) => format!("and only {} may not call", networks(deny)),
        (allow, 0) => format!("from {}", networks(allow)),
        (allow, deny) => format!("from {} except {}", networks(allow), networks(deny)),
    };
    let does = match route.kind {
        RouteKind::Flow => "starts the flow",
        RouteKind::Api(_) => "calls the API",
    };
    let shown = match &route.proof {
        Proof::Identity(name) => format!("the token of identity {name}"),
        Proof::Signed => "the signature of its trigger".to_owned(),
    };
    format!(
        "route {} is open without a key, {from}: anyone who knows its address {does} with {shown}",
        route.name
    )
}

/// Reports identities that serve routes of different trust.
fn shared(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    for identity in &config.identities {
        let mine: Vec<&RouteSettings> = config
            .routes
            .iter()
            .filter(|route| route.proof == Proof::Identity(identity.name.clone()))
            .collect();
        let (open, closed): (Vec<&RouteSettings>, Vec<&RouteSettings>) =
            mine.into_iter().partition(|route| is_open(route));
        let (Some(first), Some(other)) = (open.first(), closed.first()) else {
            continue;
        };
        let says = format!(
            "identity {} serves {} open to everybody (first {}) and {} with keys (first {})",
            identity.name,
            count(open.len(), "route", "routes"),
            first.name,
            closed.len(),
            other.name
        );
        let what = "Give the open routes an identity of their own, so that the lists of the other flows need not admit it.";
        checks.push(Check::warn("shared", says, Remedy::new(FixedBy::Operator, what)));
    }
    checks
}

/// Reports identities and callers that no route names.
fn unused(config: &Config) -> Vec<Check> {
    let mut used = HashSet::new();
    let mut called = HashSet::new();
    for route in &config.routes {
        if let Proof::Identity(name) = &route.proof {
            used.insert(name);
        }
        if let CallersSettings::Named(names) = &route.callers {
            called.extend(names);
        }
    }
    let what = "Remove it and its credential from the settings.";
    let identities = config.identities.iter().filter(|one| !used.contains(&one.name));
    let identities = identities.map(|one| format!("no route uses the identity {}", one.name));
    let callers = config.callers.iter().filter(|one| !called.contains(&one.name));
    let callers = callers.map(|one| format!("no route admits the caller {}", one.name));
    identities
        .chain(callers)
        .map(|says| Check::warn("unused", says, Remedy::new(FixedBy::Operator, what)))
        .collect()
}

/// Reports keys that can never be used again.
fn keys(config: &Config) -> Vec<Check> {
    let now = clock::wall();
    let mut checks = Vec::new();
    for caller in &config.callers {
        for key in caller.keys.iter() {
            let why = if key.state == KeyState::Disabled {
                "is disabled"
            } else if key.expires.is_some_and(|expires| expires <= now) {
                "has expired"
            } else {
                continue;
            };
            let says = format!("key {} of {} {why}", key.label, caller.name);
            let what = "Remove it from the settings once nobody asks about it any more.";
            checks.push(Check::warn("keys", says, Remedy::new(FixedBy::Operator, what)));
        }
    }
    checks
}
