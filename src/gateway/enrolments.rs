//! The secrets that vendors sent in handshakes, and the routes that are open for one. Which secrets there are is a matter of the
//! estate: settings come and go, the vendor never sends one again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::time::Instant;

use crate::model::signature::{SECRETS_MAX, SigningSecret};
use crate::model::{CallerName, KeyLabel, RouteName, Secret, clock, locked};
use crate::policy::Origin;
use crate::policy::signature::Signer;
use crate::state::{Actor, Enrolled, Trail};

/// What the trail names it.
pub const ENROLMENT: &str = "vendor-enrol";

#[derive(Debug, Default)]
pub(super) struct Enrolments {
    pub kept: Enrolled,
    trail: Option<Arc<Trail>>,
    /// Until when a route accepts a secret; one entry for a route.
    open: Mutex<HashMap<RouteName, Instant>>,
    /// What checks with the secrets of a caller, in all settings that are in force or will be.
    signers: Mutex<HashMap<CallerName, Vec<Weak<Signer>>>>,
}

impl Enrolments {
    pub(super) fn new(kept: Enrolled, trail: Option<Arc<Trail>>) -> Self {
        Self {
            kept,
            trail,
            ..Self::default()
        }
    }

    /// Has the signer of a caller use what is enrolled, now and later.
    pub(super) fn follow(&self, caller: &CallerName, signer: &Arc<Signer>) {
        let mut signers = locked(&self.signers);
        let mine = signers.entry(caller.clone()).or_default();
        mine.retain(|signer| signer.strong_count() > 0);
        mine.push(Arc::downgrade(signer));
        self.supply(caller, signer);
    }

    /// Has all signers of a caller use what is enrolled now.
    pub(super) fn spread(&self, caller: &CallerName) {
        let signers = locked(&self.signers);
        let mine = signers.get(caller).into_iter().flatten();
        for signer in mine.filter_map(Weak::upgrade) {
            self.supply(caller, &signer);
        }
    }

    /// Has a signer use what is enrolled. What it cannot use must not keep the gateway from starting with settings that are
    /// right by themselves.
    fn supply(&self, caller: &CallerName, signer: &Signer) {
        match signer.enrol(self.secrets(caller)) {
            Ok(others) if others.is_empty() => {}
            Ok(others) => {
                let others: Vec<_> = others.iter().map(KeyLabel::as_str).collect();
                let others = others.join(", ");
                tracing::error!(
                    %caller,
                    "caller {caller} has more than {SECRETS_MAX} secrets, together with those of the settings, and what is \
                     signed with {others} is refused; remove one from the settings, or forget one with `flowgate vendor forget`"
                );
            }
            Err(why) => tracing::error!(
                %caller,
                "the secrets that were enrolled for caller {caller} are not used: {why}; correct its [caller.signature]"
            ),
        }
    }

    fn secrets(&self, caller: &CallerName) -> Vec<SigningSecret> {
        let kept = self.kept.of(caller).into_iter();
        kept.map(|kept| SigningSecret {
            label: kept.label,
            secret: kept.secret,
            not_before: None,
            expires: None,
        })
        .collect()
    }

    /// Has a route accept one secret until then.
    pub(super) fn open(&self, route: RouteName, until: Instant) {
        locked(&self.open).insert(route, until);
    }

    /// Takes the opening of a route, if it is open: nobody else gets it.
    pub(super) fn close(&self, route: &RouteName) -> Option<Instant> {
        let until = locked(&self.open).remove(route)?;
        (clock::now() < until).then_some(until)
    }

    /// Records, keeps and uses a secret. It may block.
    pub(super) fn enrol(
        &self,
        (route, caller): (&RouteName, &CallerName),
        secret: Secret,
        (vendor, max): (&str, usize),
        origin: Origin,
    ) -> Result<KeyLabel, String> {
        let what = format!("a secret of {vendor} for caller {caller}, sent to route {route} from {origin}");
        let record = |outcome: &str| match &self.trail {
            Some(trail) => trail.record(&Actor::Gateway, ENROLMENT, outcome, std::slice::from_ref(&what)),
            None => Ok(()),
        };
        let unwritten = |error| format!("the trail of changes cannot be written: {error}");
        record("begun").map_err(unwritten)?;
        let added = self.kept.add(caller, secret, (vendor, max));
        let label = added.map_err(|why| {
            let why = why.to_string();
            let _ = record(&format!("refused: {why}"));
            why
        })?;
        self.spread(caller);
        if let Err(error) = record("done") {
            tracing::error!("{}; the enrolment of {what} is not noted there", unwritten(error));
        }
        Ok(label)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::Enrolments;
    use crate::model::{RouteName, clock};

    #[tokio::test(start_paused = true)]
    async fn an_opening_is_for_one_and_ends_in_time() {
        let enrolments = Enrolments::default();
        let route = RouteName::parse("tasks").unwrap();
        let period = Duration::from_secs(60);
        assert!(enrolments.close(&route).is_none());
        enrolments.open(route.clone(), clock::now() + period);
        assert!(enrolments.close(&route).is_some());
        assert!(enrolments.close(&route).is_none());
        enrolments.open(route.clone(), clock::now() + period);
        advance(period).await;
        assert!(enrolments.close(&route).is_none());
    }
}
