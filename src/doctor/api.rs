//! The probe of an API: one GET to the path that the settings name, with the route's token. No call of an
//! unknown API is known to be harmless, so without such a path nothing is sent.

use http::Method;

use crate::doctor::advice;
use crate::doctor::call::Caller;
use crate::doctor::questions::identity_of;
use crate::doctor::report::{Check, Group};
use crate::doctor::walk::HeldTokens;
use crate::model::claims::Claims;
use crate::model::{FixedBy, Remedy};
use crate::settings::{Config, IdentitySettings, RouteSettings};

const NAME: &str = "api";

/// Describes what will be sent, before anything is.
pub(super) fn plan(route: &RouteSettings) -> Option<String> {
    let probe = route.probe.as_ref()?;
    Some(format!(
        "{}: GET {}{} with the route's token, as its `probe` says",
        route.name,
        route.trigger,
        behind(probe)
    ))
}

/// Describes the path that is appended to the API's address.
fn behind(probe: &str) -> &str {
    if probe == "/" { "" } else { probe }
}

/// Calls the API, unless an earlier check failed.
pub(super) async fn examine(config: &Config, route: &RouteSettings, held: &HeldTokens, group: &mut Group) {
    let Some(probe) = &route.probe else {
        let says = "not tested: no call of an unknown API is certain to be harmless. Set probe = \"/PATH\" \
                    on the route, one of its `paths` that may be called with GET";
        let untested = format!("the API of route {} (set `probe` on it)", route.name);
        group.aside(Check::note(NAME, says).untested(untested));
        return;
    };
    if group.skips(&[NAME]) {
        return;
    }
    let seen = match (
        Caller::new(config, route, held),
        route.trigger.with_relative(probe),
    ) {
        (Ok(caller), Ok(target)) => caller.ask(&Method::GET, target.as_str()).await,
        (Err(why), _) => Err(why),
        (_, Err(error)) => Err(error.to_string()),
    };
    let check = match seen {
        Ok(status) => judge(route, probe, identity_of(config, route), held, status),
        Err(why) => {
            let what = "Look at the network between this host and the API, and at the API's health.";
            Check::fail(NAME, why, Remedy::new(FixedBy::HostAdmin, what))
        }
    };
    group.add(check);
}

fn judge(
    route: &RouteSettings,
    probe: &str,
    identity: Option<&IdentitySettings>,
    held: &HeldTokens,
    status: u16,
) -> Check {
    let says = format!("GET {}{} was answered {status}", route.trigger, behind(probe));
    let name = identity.map_or("-", |identity| identity.name.as_str());
    let application = advice::client_of(identity);
    let (seen, fixed_by, what) = match status {
        200..300 => return Check::ok(NAME, says),
        429 => {
            return Check::note(
                NAME,
                format!("{says}: the API limits the rate of calls; try again later"),
            );
        }
        401 => {
            let audience = identity.map_or("-", |identity| identity.audience.as_str());
            let what = format!(
                "Compare `scope` of identity {name} with the API: its token is for {audience}, and the API \
                 wants one for itself. If that is right, check that its tenant is the API's."
            );
            (": the token is not accepted".to_owned(), FixedBy::Operator, what)
        }
        403 => {
            let what = format!(
                "Give the application of identity {name} the permission that the API documents for this path (an app role, \
                 and admin consent for it). A managed identity gets it as an app role assignment of its service principal."
            );
            let seen = format!(": a permission is missing; {}", rights(identity, held));
            (seen, FixedBy::TenantAdmin, what)
        }
        _ => {
            let (fixed_by, what) = match status {
                404 | 405 => (
                    FixedBy::Operator,
                    "Set `probe` to a path that the API answers with GET; this one does not exist.",
                ),
                500.. => (
                    FixedBy::Nobody,
                    "The API itself failed; check its health and try again.",
                ),
                _ => (
                    FixedBy::Operator,
                    "Compare `upstream` and `probe` with the API's documentation; 200 was expected.",
                ),
            };
            (String::new(), fixed_by, what.to_owned())
        }
    };
    let (says, remedy) = (format!("{says}{seen}"), Remedy::new(fixed_by, what));
    match status {
        403 => Check::fail(NAME, says, advice::permissions(remedy, application)),
        401 | 500.. => Check::fail(NAME, says, remedy),
        _ => Check::warn(NAME, says, remedy),
    }
}

fn rights(identity: Option<&IdentitySettings>, held: &HeldTokens) -> String {
    let token = identity.and_then(|identity| held.get(&identity.name));
    let Some(claims) = token.and_then(|token| Claims::read(token.text().expose())) else {
        return "the token is opaque".to_owned();
    };
    match advice::granted(&claims) {
        Some(granted) => format!("the token carries {granted}"),
        None => "the token carries no role and no scope".to_owned(),
    }
}
