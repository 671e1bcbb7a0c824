//! Checks whether a trigger that is called with a token can still be started by a signature. A known
//! signature, from an old address or from another route, is tried with a method that starts no run; if none
//! is known, a made-up one shows whether the trigger evaluates signatures at all. What the answers do not
//! show is reported as unknown.

use std::collections::HashMap;

use http::Method;

use crate::doctor::call::{Caller, LiveAnswer, Mode};
use crate::doctor::questions::{Questions, Selection, in_order};
use crate::doctor::report::{Check, Verdict};
use crate::doctor::signed::{AddressSource, parse};
use crate::doctor::walk::Walk;
use crate::doctor::{live, vault};
use crate::flow::evidence::Reading;
use crate::model::trigger::Family;
use crate::model::{FixedBy, Remedy, RouteName, Secret, TriggerUrl};
use crate::settings::{Config, Proof, RouteKind, RouteSettings, VaultReference};

const NAME: &str = "signatures";
/// As long as a real one and never valid: a digest of zero bits only.
const MADE_UP: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const CLOSED: &str = "its signature no longer works";

/// What the triggers of routes require, of those that were called.
pub(super) type Modes = HashMap<RouteName, Mode>;

/// Whether an address is that of this route's trigger.
pub(super) fn same_trigger(url: &TriggerUrl, route: &RouteSettings) -> bool {
    url.authority() == route.trigger.authority() && url.path() == route.trigger.path()
}

fn shows_token(route: &RouteSettings) -> bool {
    route.kind == RouteKind::Flow && route.proof != Proof::Signed
}

pub fn plan(config: &Config, selection: &Selection<'_>, questions: &Questions) -> Vec<String> {
    let mut lines = Vec::new();
    for route in selection.routes.iter().filter(|route| shows_token(route)) {
        if !questions.try_signatures() {
            break;
        }
        let name = &route.name;
        for other in signed_routes(config, route) {
            if let Some(method) = live::harmless_to(&[route, other]) {
                lines.push(format!(
                    "{name}: {method} {} with the signature of route {}",
                    route.trigger, other.name
                ));
            }
        }
        let Some(method) = live::harmless_to(&[route]) else {
            continue;
        };
        for signed in &questions.signed {
            let when = match &signed.source {
                AddressSource::Known(url) if !same_trigger(url, route) => continue,
                AddressSource::Known(_) => "",
                AddressSource::Vault(_) => ", if it leads there",
            };
            lines.push(format!(
                "{name}: {method} {} with the signature in {}{when}",
                route.trigger, signed.reference
            ));
        }
        lines.push(format!(
            "{name}: {method} {} with a made-up signature that is not valid, unless one was found to work",
            route.trigger
        ));
    }
    lines
}

fn signed_routes<'a>(config: &'a Config, route: &RouteSettings) -> Vec<&'a RouteSettings> {
    let signed = config.routes.iter().filter(|other| {
        other.kind == RouteKind::Flow && other.proof == Proof::Signed && same_trigger(&other.trigger, route)
    });
    signed.collect()
}

/// Tests the triggers of the selected routes that have a token and could be called.
pub(super) async fn examine(
    config: &Config,
    selection: &Selection<'_>,
    modes: &Modes,
    questions: &Questions,
    walk: &mut Walk,
) -> Vec<Check> {
    let mut checks = Vec::new();
    let known = resolve(config, questions, walk, &mut checks).await;
    for (reference, url) in &known {
        let fits = |route: &&&RouteSettings| shows_token(route) && same_trigger(url, route);
        if !selection.routes.iter().any(|route| fits(&route)) {
            let says =
                format!("{reference} is not the address of a trigger that a route here calls with a token");
            let what = "Compare it with `flowgate routes`: host and path are those of the route's trigger. An address \
                        from before the move of 2025 has another host; call it by hand.";
            checks.push(Check::warn(NAME, says, Remedy::new(FixedBy::Operator, what)));
        }
    }
    for route in selection.routes.iter().filter(|route| shows_token(route)) {
        match modes.get(&route.name) {
            Some(mode) => look(config, route, *mode, &known, walk, &mut checks).await,
            None => {
                let name = &route.name;
                let why = format!("the trigger of route {name} was not called, see route {name}");
                checks.push(Check::skipped(NAME, why));
            }
        }
    }
    checks
}

/// Resolves the given addresses, including those in key vaults.
async fn resolve(
    config: &Config,
    questions: &Questions,
    walk: &mut Walk,
    checks: &mut Vec<Check>,
) -> Vec<(String, TriggerUrl)> {
    let mut known = Vec::new();
    for signed in &questions.signed {
        let reference = signed.reference.clone();
        let url = match &signed.source {
            AddressSource::Known(url) => Ok(url.clone()),
            AddressSource::Vault(place) => of_vault(config, place, walk).await,
        };
        match url {
            Ok(url) => known.push((reference, url)),
            Err(why) => {
                let what = "Name a secret that can be read here and that contains the old signed address.";
                let says = format!("{reference}: {why}");
                checks.push(Check::fail(NAME, says, Remedy::new(FixedBy::Operator, what)));
            }
        }
    }
    known
}

async fn of_vault(config: &Config, place: &VaultReference, walk: &mut Walk) -> Result<TriggerUrl, String> {
    let Some(keyvault) = &config.keyvault else {
        return Err("the settings have no [keyvault], so no key vault can be read".to_owned());
    };
    for identity in in_order(config, &[&keyvault.identity]) {
        walk.identity(identity, config).await;
    }
    vault::examine(config, std::slice::from_ref(place), walk).await;
    let found = walk.vaults.of(place);
    parse(&found.ok_or_else(|| format!("it could not be read, see vault {}", place.authority()))?)
}

/// Tries the known signatures for a route's trigger, and a made-up one if none of them works.
async fn look(
    config: &Config,
    route: &RouteSettings,
    mode: Mode,
    known: &[(String, TriggerUrl)],
    walk: &Walk,
    checks: &mut Vec<Check>,
) {
    // The first call of this route has already reported it as a failure.
    if mode == Mode::Signature {
        let says = format!("the trigger of route {} accepts its signature only", route.name);
        checks.push(Check::note(NAME, says));
        return;
    }
    let caller = match Caller::new(config, route, &walk.held) {
        Ok(caller) => caller,
        Err(why) => {
            checks.push(Check::skipped(NAME, why));
            return;
        }
    };
    let mut works = false;
    for other in signed_routes(config, route) {
        let place = format!("in route {}", other.name);
        let method = live::harmless_to(&[route, other]);
        works |= attempt(&caller, route, method, &other.trigger, &place, checks).await;
    }
    for (reference, url) in known.iter().filter(|(_, url)| same_trigger(url, route)) {
        let method = live::harmless_to(&[route]);
        works |= attempt(&caller, route, method, url, reference, checks).await;
    }
    if works {
        return;
    }
    let Some(method) = live::harmless_to(&[route]) else {
        checks.push(not_tried(route));
        return;
    };
    let seen = caller.signed(&method, &made_up(&route.trigger)).await;
    checks.push(judge_made_up(route, mode, seen));
}

fn not_tried(route: &RouteSettings) -> Check {
    let says = format!(
        "route {} allows every method, so each could start a run: no signature was tried",
        route.name
    );
    Check::note(NAME, says)
}

/// Tries one signature; returns whether it works.
async fn attempt(
    caller: &Caller<'_>,
    route: &RouteSettings,
    method: Option<Method>,
    url: &TriggerUrl,
    place: &str,
    checks: &mut Vec<Check>,
) -> bool {
    let Some(method) = method else {
        checks.push(not_tried(route));
        return false;
    };
    let seen = caller.signed(&method, &url.exposed_path_and_query()).await;
    let check = judge_known(route, place, &method, seen);
    let works = check.verdict == Verdict::Fail;
    checks.push(check);
    works
}

fn made_up(url: &TriggerUrl) -> Secret {
    let bare = url.path_and_query_unsigned();
    let mark = if bare.contains('?') { '&' } else { '?' };
    let mut parts = url.path().split('/').skip_while(|part| *part != "triggers");
    let trigger = parts.nth(1).unwrap_or("manual");
    Secret::new(format!(
        "{bare}{mark}sp=%2Ftriggers%2F{trigger}%2Frun&sv=1.0&sig={MADE_UP}"
    ))
}

/// What the answer to a known signature means; a failure if it still works.
fn judge_known(
    route: &RouteSettings,
    place: &str,
    method: &Method,
    seen: Result<LiveAnswer, String>,
) -> Check {
    let name = &route.name;
    let note = |says: String| Check::note(NAME, format!("route {name}, {place}: {says}"));
    let works = |what: &str| {
        let says = format!("route {name}: the signature {} still works{what}", held(place));
        Check::fail(NAME, says, close(route))
    };
    let seen = match seen {
        Ok(seen) => seen,
        Err(why) => return note(format!("unknown: {why}")),
    };
    let (status, code) = match &seen.reading {
        Reading::Owner if seen.status < 400 => {
            return works(&format!(", and the trigger takes {method}, so a run has started"));
        }
        Reading::Owner => (seen.status, ""),
        Reading::Fault(fault) => (seen.status, fault.row.failure.code),
    };
    match (code, status) {
        ("TriggerRequestMethodNotValid", _) => {
            works(": anyone who has that address can start the flow without a token and without this gateway")
        }
        ("AuthorizationFailed", _) => note(format!(
            "the access rules of the workflow refuse this host ({code}), so it is unknown whether the signature \
             works elsewhere"
        )),
        (code, 401 | 403) if !code.is_empty() && !code.starts_with("http-") => {
            Check::ok(NAME, format!("route {name}, {place}: {CLOSED} ({code})"))
        }
        _ => {
            let answer = format!("{status} {code}");
            let answer = answer.trim_end();
            note(format!(
                "the answer {answer} does not show whether the signature works"
            ))
        }
    }
}

fn held(place: &str) -> String {
    match place.starts_with("in ") {
        true => place.to_owned(),
        false => format!("in {place}"),
    }
}

/// What the answer to a made-up signature means.
fn judge_made_up(route: &RouteSettings, mode: Mode, seen: Result<LiveAnswer, String>) -> Check {
    let name = &route.name;
    let seen = match seen {
        Ok(seen) => seen,
        Err(why) => return Check::note(NAME, format!("route {name}: unknown: {why}")),
    };
    let (code, wording) = match &seen.reading {
        Reading::Fault(fault) => (fault.row.failure.code, fault.row.wording),
        Reading::Owner => ("no known code", ""),
    };
    match (code, wording) {
        ("DirectApiInvalidAuthorizationScheme", "sas authentication scheme") => Check::ok(
            NAME,
            format!("route {name} is closed to signatures: a policy of the workflow disables them"),
        ),
        ("DirectApiAuthorizationRequired", "oauth authorization scheme") => Check::ok(
            NAME,
            format!(
                "route {name} is closed to signatures, judging by a made-up one: the trigger wants a token \
                 from a signed address as well"
            ),
        ),
        ("DirectApiInvalidAuthorizationSignature", _) => {
            let says = format!(
                "route {name} still accepts signatures: a made-up one was checked and found wrong. Whether \
                 anyone has a valid one is unknown here; --signed-url tries an old address"
            );
            Check::warn(NAME, says, close(route))
        }
        _ => {
            let asks = match (mode, route.trigger.family()) {
                (Mode::Token, Family::PowerPlatform | Family::PowerPlatformScaleUnit) => {
                    "the trigger asks for a token, and a flow in a tenant mode has no signed address any more"
                }
                (Mode::Token, _) => {
                    "the trigger asks for a token, and a Logic App accepts signatures beside it unless its \
                     policy disables them"
                }
                (Mode::Signature | Mode::Untold, _) => "the trigger does not say what it asks for",
            };
            let says = format!(
                "route {name}: {asks}; the answer to a made-up signature ({} {code}) shows no more; \
                 --signed-url tries an old address",
                seen.status
            );
            Check::note(NAME, says)
        }
    }
}

/// How to make a trigger refuse signatures.
fn close(route: &RouteSettings) -> Remedy {
    let workflow =
        "/subscriptions/SUBSCRIPTION/resourceGroups/GROUP/providers/Microsoft.Logic/workflows/NAME";
    match route.trigger.family() {
        Family::PowerPlatform | Family::PowerPlatformScaleUnit => Remedy::new(
            FixedBy::FlowOwner,
            "Set \"Who can trigger the flow?\" to a tenant mode and save, or regenerate the signature; there is no \
             command for it.",
        )
        .portal("https://make.powerautomate.com, My flows, the flow, Edit, trigger: Who can trigger the flow?"),
        Family::Consumption | Family::Other => Remedy::new(
            FixedBy::FlowOwner,
            "Regenerate the access keys, which invalidates every signed address, and disable signatures in \
             the access control policy of the Logic App. A flow of Power Automate: set \"Who can trigger the \
             flow?\" to a tenant mode.",
        )
        .portal("Azure portal, Logic apps, the app, Settings: Access keys, and Authorization")
        .command(format!(
            "az resource update --ids {workflow} --set \
             properties.accessControl.triggers.sasAuthenticationPolicy.state=Disabled"
        )),
        Family::Standard => Remedy::new(
            FixedBy::FlowOwner,
            "Regenerate the access keys of the workflow, and let Easy Auth of the app refuse requests \
             without a token.",
        )
        .portal("Azure portal, Logic apps, the app, Workflows, the workflow: Access keys; Authentication of the app"),
    }
}
