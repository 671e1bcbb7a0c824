//! The kinds of limits, one row each. The rate is a setting of the subject.

use std::time::Duration;

use crate::settings::{CallerSettings, Checks, QuotaSettings, Rate, RouteSettings};

#[derive(Debug, Clone, Copy)]
pub(super) enum Subject<'s> {
    Caller(&'s CallerSettings),
    Route(&'s RouteSettings),
    Gateway(&'s QuotaSettings),
}

impl Subject<'_> {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Caller(caller) => caller.name.as_str(),
            Self::Route(route) => route.name.as_str(),
            Self::Gateway(_) => "as a whole",
        }
    }
}

#[derive(Debug)]
pub(super) struct LimitKind {
    /// Its name in the log and in `RateLimit-Policy`.
    pub name: &'static str,
    pub rate: fn(Subject<'_>) -> Option<Rate>,
}

/// The limits of requests. All that apply to a request are tested before any is taken from.
pub(super) static KINDS: [LimitKind; 3] = [
    LimitKind {
        name: "caller",
        rate: |subject| match subject {
            Subject::Caller(caller) => caller.rate,
            _ => None,
        },
    },
    LimitKind {
        name: "route",
        rate: |subject| match subject {
            Subject::Route(route) => route.rate,
            _ => None,
        },
    },
    LimitKind {
        name: "gateway",
        rate: |subject| match subject {
            Subject::Gateway(settings) => settings.gateway,
            _ => None,
        },
    },
];

/// The limit of failed authentications. It has one state per address, and is tested before the caller is
/// known.
pub(super) const ADDRESS: &str = "address";

/// The limit of handshakes that nobody signs. It has one state per address and route: nobody has to be known for one, and
/// behind a balancer all addresses are the same.
pub(super) const HANDSHAKE: &str = "handshake";

/// Far more than a vendor sends, and few enough that answers made with a secret are worth nothing to anybody.
pub(super) const HANDSHAKE_RATE: Rate = Rate {
    requests: 60,
    per: Duration::from_secs(60),
    burst: 30,
};

/// The limit of pages about problems, which need no credential either.
pub(super) const PAGE: &str = "page";

/// More than a person reads.
pub(super) const PAGE_RATE: Rate = Rate {
    requests: 60,
    per: Duration::from_secs(60),
    burst: 30,
};

/// What requests of one address may have fetched from vendors: a vendor has a certificate or two for each of its regions, and
/// one that is known is not fetched.
pub(super) const FETCH_RATE: Rate = Rate {
    requests: 12,
    per: Duration::from_secs(60),
    burst: 6,
};

/// The same for all addresses together, for each caller whose vendor signs with a certificate: nobody can have a vendor flooded
/// from here, and who uses up what there is for one caller takes nothing from the others.
pub(super) static FETCH: LimitKind = LimitKind {
    name: "fetch",
    rate: |subject| match subject {
        Subject::Caller(caller) => {
            let recipe = &caller.signature.as_ref()?.recipe;
            recipe.certificate.as_ref().map(|_| FETCH_TOTAL_RATE)
        }
        _ => None,
    },
};

const FETCH_TOTAL_RATE: Rate = Rate {
    requests: 60,
    per: Duration::from_secs(60),
    burst: 30,
};

/// Addresses whose handshakes, pages and fetches are counted one by one; all others share a fixed number of states.
pub(super) const OPEN_ADDRESSES_MAX: usize = 4096;

/// The limit of checks: a check tests all that a request meets, and nobody needs more than one a second.
pub(super) static CHECK: LimitKind = LimitKind {
    name: "check",
    rate: |subject| match subject {
        Subject::Route(route) if route.checks == Checks::Answered => Some(CHECK_RATE),
        _ => None,
    },
};

const CHECK_RATE: Rate = Rate {
    requests: 1,
    per: Duration::from_secs(1),
    burst: 1,
};
