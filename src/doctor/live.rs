//! Calls triggers. The probes cannot start a run: the first sends no credential, the second uses a method
//! that the route does not allow, which a trigger refuses only after it has accepted the credential. A call
//! that starts a run is made only if it was asked for explicitly. [`plan`] describes beforehand what will be
//! sent.

use http::Method;

use crate::doctor::call::{Caller, Mode, PROBE_TIMEOUT, Sent};
use crate::doctor::questions::{Live, Selection, identity_of};
use crate::doctor::report::{Check, Group, Verdict};
use crate::doctor::walk::HeldTokens;
use crate::doctor::{advice, api};
use crate::entra::claims::wanted_audience;
use crate::flow::evidence;
use crate::flow::evidence::{Expected, Fault, Reading};
use crate::model::trigger::Family;
use crate::model::{FixedBy, Remedy, clock};
use crate::problem::Kind;
use crate::settings::{Config, Proof, RouteKind, RouteSettings};

/// The words that allow a run to be started.
pub const RUN_WORDS: &str = "yes, start a run";

/// What a command says that was given other words; `options` are what they belong to.
pub(crate) fn not_allowed(options: &str) -> String {
    format!("a run is started only with {options} \"{RUN_WORDS}\"\n")
}

const FIRST: &str = "no key";
const SECOND: &str = "credential";
const RUN: &str = "run";

pub fn plan(selection: &Selection<'_>, live: Live) -> Vec<String> {
    let mut lines = Vec::new();
    for route in selection.routes.iter().filter(|_| live != Live::No) {
        if route.kind != RouteKind::Flow {
            lines.extend(api::plan(route));
            continue;
        }
        let name = &route.name;
        let first = first_method(route);
        lines.push(format!(
            "{name}: {first} {} without any credential, which no trigger accepts",
            route.trigger
        ));
        match harmless(route) {
            Some(method) => lines.push(format!(
                "{name}: {method} {} with the route's credential; the route allows {}, so a trigger that \
                 matches it refuses this method and starts no run",
                route.trigger,
                methods(route)
            )),
            None => lines.push(format!(
                "{name}: no second call, because the route allows every method"
            )),
        }
        if live == Live::Run {
            let method = run_method(route);
            lines.push(format!(
                "{name}: {method} {} with the route's credential and the body {{}}: THIS STARTS A RUN",
                route.trigger
            ));
        }
    }
    lines
}

fn methods(route: &RouteSettings) -> String {
    let methods: Vec<&str> = route.methods.iter().map(Method::as_str).collect();
    methods.join(", ")
}

/// A method that the route does not allow. A trigger accepts one method, so it is not this one.
fn harmless(route: &RouteSettings) -> Option<Method> {
    harmless_to(&[route])
}

pub(super) fn harmless_to(routes: &[&RouteSettings]) -> Option<Method> {
    let all = [
        Method::GET,
        Method::DELETE,
        Method::PUT,
        Method::PATCH,
        Method::POST,
    ];
    all.into_iter()
        .find(|method| routes.iter().all(|route| !route.methods.contains(method)))
}

/// The method for the call without a credential. The trigger's own method is certain to be refused only if
/// the address is certain to be a flow's.
fn first_method(route: &RouteSettings) -> Method {
    let own = run_method(route);
    match route.trigger.family() {
        Family::Other => harmless(route).unwrap_or(own),
        _ => own,
    }
}

fn run_method(route: &RouteSettings) -> Method {
    route.methods.first().cloned().unwrap_or(Method::POST)
}

/// Calls the trigger of a route, unless an earlier check failed.
pub(super) async fn examine(
    config: &Config,
    route: &RouteSettings,
    held: &HeldTokens,
    live: Live,
    group: &mut Group,
) -> Option<Mode> {
    if route.kind != RouteKind::Flow {
        api::examine(config, route, held, group).await;
        return None;
    }
    let later: &[&str] = match live {
        Live::Run => &[SECOND, RUN],
        Live::No | Live::Probes => &[SECOND],
    };
    if group.skips(&[FIRST]) {
        group.skips(later);
        return None;
    }
    let caller = match Caller::new(config, route, held) {
        Ok(caller) => caller,
        Err(why) => {
            let remedy = Remedy::new(FixedBy::Operator, "Correct the trigger address.");
            group.add(Check::fail(FIRST, why, remedy));
            group.skips(later);
            return None;
        }
    };
    let (first, mode) = caller.first().await;
    group.add(first);
    if !group.skips(&[SECOND]) {
        let second = caller.second().await;
        let untested = format!(
            "the credential of route {} (add --run, which starts a run)",
            route.name
        );
        group.add(match (second.verdict, live) {
            // A run sends the credential as well.
            (Verdict::Note, Live::No | Live::Probes) => second.untested(untested),
            _ => second,
        });
    }
    if live == Live::Run && !group.skips(&[RUN]) {
        group.add(caller.run().await);
    }
    Some(mode)
}

impl Caller<'_> {
    /// Calls without a credential, which reveals the trigger's mode.
    async fn first(&self) -> (Check, Mode) {
        let method = first_method(self.route);
        let target = self.route.trigger.path_and_query_unsigned();
        let seen = match self.send(&method, &target, Sent::Nothing, PROBE_TIMEOUT).await {
            Ok(seen) => seen,
            Err(why) => return (silent(FIRST, why), Mode::Untold),
        };
        let fault = match seen.reading {
            Reading::Fault(fault) => fault,
            Reading::Owner => return (open(seen.status, &method), Mode::Untold),
        };
        let mode = Mode::of(&fault);
        (self.explain_refusal(&fault, mode), mode)
    }

    fn explain_refusal(&self, fault: &Fault, mode: Mode) -> Check {
        let signed = self.route.proof == Proof::Signed;
        match (mode, fault.row.failure.code, fault.row.wording) {
            (Mode::Token, ..) if !signed => Check::ok(
                FIRST,
                "refused, and the trigger asks for a token: one of the tenant modes",
            ),
            (Mode::Signature, ..) if signed => Check::ok(
                FIRST,
                "refused, and the trigger asks for its signature: \"Anyone\"",
            ),
            (_, "DirectApiAuthorizationRequired", "")
            | (_, "TriggerRequestMethodNotValid" | "MissingApiVersionParameter", _)
            | (_, "DirectApiInvalidAuthorizationScheme" | "http-401" | "http-401-challenge", _)
            | (_, "http-403" | "http-403-challenge", _) => Check::note(
                FIRST,
                format!(
                    "refused with {}, which does not show the mode",
                    fault.row.failure.code
                ),
            ),
            _ => self.failed(FIRST, fault),
        }
    }

    /// Calls with the credential and a method that the route does not allow.
    async fn second(&self) -> Check {
        let Some(method) = harmless(self.route) else {
            return Check::note(
                SECOND,
                "not tested: the route allows every method, so each could start a run",
            );
        };
        let target = self.route.trigger.exposed_path_and_query();
        let seen = match self
            .send(&method, target.expose(), Sent::Credential, PROBE_TIMEOUT)
            .await
        {
            Ok(seen) => seen,
            Err(why) => return silent(SECOND, why),
        };
        match seen.reading {
            Reading::Fault(fault) if fault.row.failure.code == "TriggerRequestMethodNotValid" => Check::ok(
                SECOND,
                format!("accepted; the flow is on and refuses {method}, so no run was started"),
            ),
            Reading::Fault(fault) => self.failed(SECOND, &fault),
            Reading::Owner if seen.status < 400 => {
                let what =
                    format!("Compare methods of the route with the trigger's own method: it takes {method}.");
                let says = format!(
                    "the trigger answered {} to {method}, so a run has started",
                    seen.status
                );
                Check::fail(SECOND, says, Remedy::new(FixedBy::Operator, what))
            }
            Reading::Owner => {
                let what =
                    "Check what answers at the trigger address; a working flow refuses the method by name.";
                let says = format!(
                    "the trigger answered {} to {method} without a known code",
                    seen.status
                );
                Check::warn(SECOND, says, Remedy::new(FixedBy::Operator, what))
            }
        }
    }

    async fn run(&self) -> Check {
        let method = run_method(self.route);
        let target = self.route.trigger.exposed_path_and_query();
        let timeout = self.trigger.response_timeout() + PROBE_TIMEOUT;
        let seen = match self
            .send(&method, target.expose(), Sent::Credential, timeout)
            .await
        {
            Ok(seen) => seen,
            Err(why) => return silent(RUN, why),
        };
        let run = seen.run.as_deref().unwrap_or("without an id");
        match seen.reading {
            Reading::Fault(fault) => self.failed(RUN, &fault),
            Reading::Owner if seen.status < 400 => {
                Check::ok(RUN, format!("the flow answered {}, run {run}", seen.status))
            }
            Reading::Owner => {
                let what = "Open the run in the run history; the flow itself gave this answer.";
                let says = format!("the flow answered {}, run {run}", seen.status);
                Check::warn(RUN, says, Remedy::new(FixedBy::FlowOwner, what))
            }
        }
    }

    fn failed(&self, name: &'static str, fault: &Fault) -> Check {
        let identity = identity_of(self.config, self.route);
        let code = match &fault.unknown_code {
            Some(code) => format!("with the unknown code {code}"),
            None => fault.row.failure.code.to_owned(),
        };
        let mut says = format!("the platform answered {} {code}", fault.status.as_u16());
        if let (Kind::FlowRefusedToken, Some(identity), Some(bearer)) =
            (fault.row.kind, identity, &self.bearer)
        {
            let expected = Expected {
                audience: wanted_audience(&self.route.trigger, identity),
                tenant: identity.tenant.as_ref(),
                now: clock::wall(),
            };
            says.push_str(&format!(". {}", evidence::explain_mismatch(bearer, &expected)));
        }
        Check::fail(name, says, advice::of_row(&fault.row.failure, identity))
    }
}

fn silent(name: &'static str, why: String) -> Check {
    let what = "Look at the network between this host and the trigger, and at the platform's health.";
    let remedy = Remedy::new(FixedBy::HostAdmin, what)
        .portal("https://admin.powerplatform.microsoft.com, Service health");
    Check::fail(name, why, remedy)
}

/// The flow answered a call without a credential.
fn open(status: u16, method: &Method) -> Check {
    if status < 400 {
        let what = "Close the flow: set \"Who can trigger the flow?\" in its trigger.";
        let says =
            format!("the trigger answered {status} to {method} without any credential: anybody can start it");
        return Check::fail(FIRST, says, Remedy::new(FixedBy::FlowOwner, what));
    }
    Check::note(
        FIRST,
        format!("refused with {status}, which does not show the mode"),
    )
}
