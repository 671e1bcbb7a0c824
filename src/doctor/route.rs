//! Checks one route: its trigger's address, the connection to it, and the claims of its token against what
//! the trigger compares.

use crate::doctor::network::{CheckedHosts, Destination, OtherAddress};
use crate::doctor::questions::identity_of;
use crate::doctor::report::{Check, Group};
use crate::doctor::walk::HeldTokens;
use crate::entra::claims;
use crate::entra::claims::{Compared, Fit, Needs};
use crate::model::trigger::Family;
use crate::model::{FixedBy, Remedy, clock};
use crate::settings::{Config, Proof, RouteKind, RouteSettings};

/// Checks a route without calling its trigger.
pub(super) async fn examine(
    config: &Config,
    route: &RouteSettings,
    held: &HeldTokens,
    seen: &mut CheckedHosts,
) -> Group {
    let mut group = Group::new("route", route.name.as_str());
    group.add(address(route));
    let place = Destination {
        host: route.trigger.host(),
        port: route.trigger.port(),
        connect_to: route.upstream.connect_to,
        trust: &route.upstream.trust,
        timeout: route.upstream.connect_timeout,
        setting: "trigger address of the route",
        other_address: OtherAddress::Accepted,
    };
    seen.walk(&place, &mut group).await;
    if let Proof::Identity(_) = &route.proof
        && !group.skips(&["claims"])
    {
        group.add(compare(config, route, held));
    }
    group
}

fn address(route: &RouteSettings) -> Check {
    let url = &route.trigger;
    if let (RouteKind::Api(_), Proof::Identity(name)) = (&route.kind, &route.proof) {
        return Check::ok(
            "trigger",
            format!("an API at {}, with a token of {name}", url.host()),
        );
    }
    let family = match url.family() {
        Family::Consumption => "Logic Apps Consumption, or an older address of Power Automate",
        Family::PowerPlatform => "Power Automate",
        Family::PowerPlatformScaleUnit => "Power Automate with a scale unit",
        Family::Standard => "Logic Apps Standard",
        Family::Other => "an unknown family",
    };
    let mode = match &route.proof {
        Proof::Identity(name) => format!("with a token of {name}"),
        Proof::Signed => "with its own signature".to_owned(),
    };
    let says = format!(
        "{family}, cloud {}, {mode}, api-version {}",
        url.cloud().map_or("not certain", |cloud| cloud.name()),
        url.api_version().unwrap_or("none")
    );
    match url.warning() {
        Some(warning) => {
            let what = "Copy the URL from the trigger again, unless it is the address of a proxy or a test.";
            Check::warn(
                "trigger",
                format!("{says}. {warning}"),
                Remedy::new(FixedBy::Operator, what),
            )
        }
        None => Check::ok("trigger", says),
    }
}

/// Compares the claims of the route's token with what its trigger checks.
fn compare(config: &Config, route: &RouteSettings, held: &HeldTokens) -> Check {
    let Some(identity) = identity_of(config, route) else {
        return Check::skipped("claims", "the route has no identity");
    };
    let Some(token) = held.get(&identity.name) else {
        return Check::skipped("claims", format!("identity {} has no token", identity.name));
    };
    let needs = Needs::of(route, identity);
    let Some(rows) = claims::compare(token.text().expose(), &needs, clock::wall()) else {
        return Check::note("claims", "the token is opaque, so nothing can be compared here");
    };
    let failed: Vec<&Compared> = rows.iter().filter(|row| row.fit == Fit::Fails).collect();
    let mut check = match failed.as_slice() {
        [] => Check::ok("claims", "none of them conflicts with the flow"),
        failed => {
            let why: Vec<&str> = failed.iter().map(|row| row.why.as_str()).collect();
            let fix: Vec<&str> = failed.iter().map(|row| row.fix.as_str()).collect();
            let who = match failed.iter().all(|row| row.claim == "oid") {
                true => FixedBy::FlowOwner,
                false => FixedBy::Operator,
            };
            let mut remedy = Remedy::new(who, format!("{}.", fix.join("; ")));
            if who == FixedBy::FlowOwner {
                remedy = remedy.portal(
                    "https://make.powerautomate.com, My flows, the flow, Edit, trigger: Who can trigger the flow?",
                );
            }
            Check::fail("claims", why.join("; "), remedy)
        }
    };
    check.claims = rows;
    check
}
