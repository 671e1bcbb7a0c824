//! What the gateway that runs does about `vendor enrol` and `vendor forget`, and the lines that they leave in the trail.

use std::time::Duration;

use crate::cli::noted::{record, reply};
use crate::cli::outcome::{FAILED, WELL, WRONG};
use crate::control::{Reply, Request};
use crate::gateway::{ENROLMENT, Gateway, NotOpened};
use crate::model::{KeyLabel, RouteName};
use crate::state::{Actor, Trail};

/// Longest time for which a route is open: an operator is there, and the vendor sends at once.
pub(super) const PERIOD_MAX: Duration = Duration::from_secs(24 * 3600);

/// Carries out one of the two; none if it is another.
pub(super) fn carry_out(
    gateway: &Gateway,
    trail: Option<&Trail>,
    by: &Actor,
    request: &Request,
) -> Option<Reply> {
    match request {
        Request::Enrol { route, seconds } => Some(open(gateway, trail, by, (route, *seconds))),
        Request::Forget { route, label } => Some(remove(gateway, trail, by, (route, label.as_deref()))),
        _ => None,
    }
}

/// Opens a route. What cannot be recorded is not done.
fn open(gateway: &Gateway, trail: Option<&Trail>, by: &Actor, (route, seconds): (&str, u64)) -> Reply {
    let Ok(name) = RouteName::parse(route) else {
        return reply(WRONG, "flowgate: this is no name of a route");
    };
    let period = Duration::from_secs(seconds).min(PERIOD_MAX);
    let what = [format!("route {name} for {} s", period.as_secs())];
    if let Err(why) = record(trail, by, ENROLMENT, "begun", &what) {
        return reply(FAILED, &format!("flowgate: not opened: {why}"));
    }
    match gateway.open_enrolment(&name, period) {
        Ok(caller) => {
            if let Err(why) = record(trail, by, ENROLMENT, "done", &what) {
                tracing::error!("{why}");
            }
            tracing::warn!(route = %name, "{by} has opened the route for {} s: it accepts the secret of the first handshake", period.as_secs());
            reply(
                WELL,
                &format!(
                    "route {name} accepts the secret of one handshake for {} s, for caller {caller}: have the vendor create the \
                     webhook now. The log says what was enrolled.",
                    period.as_secs()
                ),
            )
        }
        Err(why) => refused(trail, by, ENROLMENT, &why),
    }
}

/// Forgets a secret, or lists them.
fn remove(
    gateway: &Gateway,
    trail: Option<&Trail>,
    by: &Actor,
    (route, label): (&str, Option<&str>),
) -> Reply {
    const FORGET: &str = "vendor-forget";
    let Ok(name) = RouteName::parse(route) else {
        return reply(WRONG, "flowgate: this is no name of a route");
    };
    let Some(label) = label else {
        return match gateway.enrolled(&name) {
            Ok(kept) if kept.is_empty() => reply(WELL, "no secret is enrolled"),
            Ok(kept) => {
                let lines = kept.iter().map(|kept| {
                    format!(
                        "{}  of caller {}, since {}\n",
                        kept.label, kept.caller, kept.since
                    )
                });
                reply(WELL, &lines.collect::<String>())
            }
            Err(why) => reply(WRONG, &format!("flowgate: {why}")),
        };
    };
    let Ok(label) = KeyLabel::parse(label) else {
        return reply(WRONG, "flowgate: this is no label of a secret");
    };
    match gateway.forget_enrolled(&name, &label) {
        Ok(caller) => {
            let what = format!("secret {label} of caller {caller}");
            tracing::warn!(%caller, key = %label, "{what} was forgotten: what is signed with it is refused from now on");
            let noted = record(trail, by, FORGET, "done", std::slice::from_ref(&what));
            match noted {
                Ok(()) => reply(
                    WELL,
                    &format!("{what} is forgotten; delete its webhook at the vendor"),
                ),
                Err(why) => reply(FAILED, &format!("{what} is forgotten, but {why}")),
            }
        }
        Err(why) => refused(trail, by, FORGET, &why),
    }
}

fn refused(trail: Option<&Trail>, by: &Actor, action: &str, why: &NotOpened) -> Reply {
    if let Err(unwritten) = record(trail, by, action, &format!("refused: {why}"), &[]) {
        tracing::error!("{unwritten}");
    }
    let code = match why {
        NotOpened::NotRemoved(_) => FAILED,
        _ => WRONG,
    };
    reply(code, &format!("flowgate: {why}"))
}
