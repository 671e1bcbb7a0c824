//! Enrolment: a vendor sends the secret of a webhook once, in a handshake that nobody has signed. It is accepted only while an
//! operator has opened the route for that, and the first one closes it again.

use std::time::Duration;

use crate::gateway::current::Gateway;
use crate::gateway::estate::Estate;
use crate::gateway::snapshot::{Route, Snapshot};
use crate::model::signature::SECRETS_MAX;
use crate::model::{CallerName, KeyLabel, RouteName, Secret, clock};
use crate::policy::Origin;
use crate::problem::{Kind, Problem};
use crate::state::EnrolledSecret;

/// Why nothing is enrolled or forgotten.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    #[error("there is no route {0} in the settings in force")]
    NoRoute(RouteName),
    #[error("route {0} lists no vendor in `handshakes` that sends a secret, such as \"asana\"")]
    NoHandshake(RouteName),
    #[error("route {0} lists no caller whose vendor sends its secrets, such as one with preset \"asana\"")]
    NoneEnrolled(RouteName),
    #[error("there is no state folder to keep a secret in; set `folder` of [state] and restart the gateway")]
    NoFolder,
    #[error(
        "caller {0} has {SECRETS_MAX} secrets, and more are not tried; forget one with `flowgate vendor forget`"
    )]
    Full(CallerName),
    #[error(
        "no caller of route {0} has an enrolled secret {1}; `flowgate vendor forget` without a label lists them"
    )]
    NoSecret(RouteName, KeyLabel),
    #[error(
        "callers {0} and {1} of the route both have a secret {2}; name a route that lists only one of them, or have this route \
         list only one and reload"
    )]
    Ambiguous(CallerName, CallerName, KeyLabel),
    #[error(
        "the secret is refused until the gateway is restarted, but it could not be removed from its file: {0}"
    )]
    NotRemoved(std::io::Error),
}

/// Accepts the secret of a handshake if the route is open for one.
pub(super) async fn accept(
    (estate, snapshot): (&Estate, &Snapshot),
    route: &Route,
    (vendor, caller): (&'static str, &CallerName),
    secret: Secret,
    origin: Origin,
) -> Result<(), Problem> {
    let refused =
        |why: &str| Problem::from(Kind::HandshakeRefused).because(format!("handshake of {vendor}: {why}"));
    // A secret from elsewhere would let in nobody, and takes nothing from the opening.
    if let Err(outside) = snapshot.callers.admit(caller, origin) {
        return Err(refused(&format!("caller {caller}: {outside}")));
    }
    let name = &route.name;
    let Some(until) = estate.enrolments.close(name) else {
        let why = format!(
            "route {name} is not open for a secret; run `flowgate vendor enrol {name} --for 10m`, then have the vendor create \
             the webhook"
        );
        return Err(refused(&why));
    };
    let max = route.enrols.as_ref().map_or(0, |(_, max)| *max);
    let (enrolments, caller, route) = (estate.enrolments.clone(), caller.clone(), name.clone());
    let (opened, label_of) = (route.clone(), caller.clone());
    let enrolling = move || enrolments.enrol((&route, &caller), secret, (vendor, max), origin);
    let enrolled = tokio::task::spawn_blocking(enrolling).await;
    let enrolled = enrolled.unwrap_or_else(|_| Err("the gateway is stopping".to_owned()));
    match enrolled {
        Ok(label) => {
            tracing::warn!(
                route = %opened, caller = %label_of, key = %label,
                "a secret of {vendor} was enrolled as {label}, sent from {origin}; the route is closed again"
            );
            Ok(())
        }
        Err(why) => {
            // The vendor may try again at once.
            estate.enrolments.open(opened, until);
            Err(Problem::from(Kind::Internal)
                .because(format!("handshake of {vendor}: its secret was not kept: {why}")))
        }
    }
}

impl Gateway {
    /// Has a route accept the secret of one handshake for so long. Returns the caller whose it will be.
    pub fn open_enrolment(&self, route: &RouteName, period: Duration) -> Result<CallerName, NotOpened> {
        let found = self.route(route, |route| route.enrols.clone())?;
        let (caller, max) = found.ok_or_else(|| NotOpened::NoHandshake(route.clone()))?;
        let enrolments = &self.estate.enrolments;
        if !enrolments.kept.has_place() {
            return Err(NotOpened::NoFolder);
        }
        if enrolments.kept.of(&caller).len() >= max {
            return Err(NotOpened::Full(caller));
        }
        enrolments.open(route.clone(), clock::now() + period);
        Ok(caller)
    }

    /// The secrets that were enrolled for callers of a route, also if it accepts none any more: they still let somebody in.
    pub fn enrolled(&self, route: &RouteName) -> Result<Vec<EnrolledSecret>, NotOpened> {
        let callers = self.route(route, |route| route.enrolled.clone())?;
        if callers.is_empty() {
            return Err(NotOpened::NoneEnrolled(route.clone()));
        }
        let kept = &self.estate.enrolments.kept;
        Ok(callers.iter().flat_map(|caller| kept.of(caller)).collect())
    }

    /// Forgets a secret that was enrolled: what is signed with it is refused from now on.
    pub fn forget_enrolled(&self, route: &RouteName, label: &KeyLabel) -> Result<CallerName, NotOpened> {
        let unknown = || NotOpened::NoSecret(route.clone(), label.clone());
        let mut found = self
            .enrolled(route)?
            .into_iter()
            .filter(|kept| kept.label == *label);
        let caller = found.next().ok_or_else(unknown)?.caller;
        if let Some(other) = found.next() {
            return Err(NotOpened::Ambiguous(caller, other.caller, label.clone()));
        }
        let enrolments = &self.estate.enrolments;
        let removed = enrolments.kept.remove(&caller, label);
        enrolments.spread(&caller);
        match removed {
            Ok(true) => Ok(caller),
            Ok(false) => Err(unknown()),
            Err(error) => Err(NotOpened::NotRemoved(error)),
        }
    }

    /// Something of a route in the settings in force.
    fn route<T>(&self, name: &RouteName, what: impl FnOnce(&Route) -> T) -> Result<T, NotOpened> {
        let snapshot = self.snapshot();
        let route = snapshot.routes.iter().find(|route| route.name == *name);
        let route = route.ok_or_else(|| NotOpened::NoRoute(name.clone()))?;
        Ok(what(route))
    }
}
