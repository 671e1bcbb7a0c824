//! The steps of admission once a caller is known, and what becomes of a problem at one of them: a request that is to start a
//! flow ends there, one that only asks for a check goes on, so that its sender learns of all of them at once.

use http::request::Parts;
use http::{HeaderName, HeaderValue};

use crate::gateway::snapshot::Route;
use crate::policy::{Quotas, Taken};
use crate::problem::{Kind, Problem};
use crate::settings::Checks;

/// Asks for a check in a request, and marks the answer to it.
pub(super) const CHECK: HeaderName = HeaderName::from_static("x-flowgate-check");

macro_rules! steps {
    ($($(#[$doc:meta])* $step:ident $name:literal;)+) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Step {
            $($(#[$doc])* $step,)+
        }

        impl Step {
            /// All of them, in their order.
            pub(super) const ALL: &'static [Self] = &[$(Self::$step),+];

            /// Its name in the answer to a check.
            pub(super) const fn name(self) -> &'static str {
                match self {
                    $(Self::$step => $name,)+
                }
            }
        }
    };
}

steps! {
    /// All that the route demands of a caller: key, signature, network. A check without them is refused as any request.
    Credentials "credentials";
    /// The route is switched on.
    Enabled "enabled";
    /// The limits of caller, route and gateway.
    Limits "limits";
    /// The stated length of the body.
    BodyLength "body-length";
    /// Path and query, of which the target at the flow is made.
    Target "target";
    /// The body arrived, in time and memory.
    Body "body";
    /// Type, JSON, schema.
    BodyRules "body-rules";
    /// The id by which a delivery is recognized.
    Delivery "delivery-id";
    /// The token of the identity, and whether it can be what the trigger compares with.
    Token "token";
    /// A free permit of the trigger.
    Permit "permit";
}

/// What the steps of a check came to.
#[derive(Debug)]
pub(super) struct Findings(Vec<(Step, Option<Problem>)>);

#[derive(Debug)]
pub(super) enum Steps {
    /// The request is to start a flow: the first problem is the answer.
    Serving,
    /// It only asks.
    Checking(Findings),
}

impl Steps {
    /// The steps of a request whose caller is known. A check takes from the limit of checks and from no other.
    ///
    /// # Errors
    /// [`Kind::ChecksOff`]: the sender believes that nothing starts, so nothing may. [`Kind::MalformedRequest`] where the field is
    /// anything but `true`, and [`Kind::RateLimited`].
    pub(super) fn of(head: &Parts, route: &Route, quotas: &Quotas) -> Result<Self, Problem> {
        let mut values = head.headers.get_all(CHECK).iter();
        let Some(value) = values.next() else {
            return Ok(Self::Serving);
        };
        if route.checks == Checks::Refused {
            let why = format!("`checks = true` of route {} answers {CHECK}", route.name);
            return Err(Problem::from(Kind::ChecksOff).because(why));
        }
        if values.next().is_some() || value != HeaderValue::from_static("true") {
            let detail = format!("{CHECK} must be there once, as `true`");
            return Err(Problem::from(Kind::MalformedRequest).detail(detail));
        }
        quotas.take_check(route.index)?;
        let mut findings = Findings(Vec::with_capacity(Step::ALL.len()));
        findings.note(Step::Credentials, None);
        Ok(Self::Checking(findings))
    }

    /// What a step came to; none where it failed and only a check goes on.
    pub(super) fn pass<T>(&mut self, step: Step, result: Result<T, Problem>) -> Result<Option<T>, Problem> {
        match self {
            Self::Serving => result.map(Some),
            Self::Checking(findings) => Ok(findings.pass(step, result)),
        }
    }

    /// Takes a request from its limits. A check only tests them, so it never has what an admitted request needs.
    pub(super) fn take(
        &mut self,
        quotas: &Quotas,
        caller: Option<usize>,
        route: usize,
    ) -> Result<Option<Taken>, Problem> {
        match self {
            Self::Serving => quotas.take(caller, route).map(Some),
            Self::Checking(findings) => {
                findings.pass(Step::Limits, quotas.test(caller, route));
                Ok(None)
            }
        }
    }
}

impl Findings {
    /// Notes what a step came to.
    pub(super) fn pass<T>(&mut self, step: Step, result: Result<T, Problem>) -> Option<T> {
        let (value, problem) = match result {
            Ok(value) => (Some(value), None),
            Err(problem) => (None, Some(problem)),
        };
        self.note(step, problem);
        value
    }

    pub(super) fn has_passed(&self, step: Step) -> bool {
        self.0
            .iter()
            .any(|(noted, problem)| *noted == step && problem.is_none())
    }

    fn note(&mut self, step: Step, problem: Option<Problem>) {
        self.0.push((step, problem));
    }

    /// All steps in their order, with what they came to; none for one that could not be made because an earlier one failed.
    pub(super) fn into_all(mut self) -> impl Iterator<Item = (Step, Option<Result<(), Problem>>)> {
        Step::ALL.iter().map(move |step| {
            let found = self.0.iter().position(|(noted, _)| noted == step);
            let found = found.map(|index| self.0.swap_remove(index).1);
            (*step, found.map(|problem| problem.map_or(Ok(()), Err)))
        })
    }
}
