//! `[limits]`: limits that belong neither to one route nor to one caller, and the rates of those that set none.

use crate::settings::kinds::ANY;
use crate::settings::scalars::{Rate, Size, secs};
use crate::settings::table::table;

table! {
    /// Limits that do not belong to one route or caller.
    pub struct QuotaSettings {
        /// All requests whose caller may call, together.
        gateway: Option<Rate> = Some(Rate { requests: 1000, per: secs(1), burst: 2000 }), ANY, Reload;
        // A person who mistypes a key needs a few tries, a guesser needs millions.
        /// Failed authentications of one address (IPv6: of one /64).
        failed_authentications: Rate = Rate { requests: 10, per: secs(60), burst: 10 }, ANY, Reload;
        // Some 100 bytes each.
        /// Addresses whose failures are remembered one by one.
        addresses_max: usize = 65_536, 1..=100_000_000, Restart;
        // Some 600 bytes each. At least a few for each part of the table.
        /// Answered deliveries that routes with `duplicates` remember, all together; over it the caller with the most loses
        /// its oldest.
        deliveries_max: usize = 100_000, 1_000..=10_000_000, Reload;
        // 160 bytes each for as many: most answers to webhooks are shorter.
        /// Memory for their answers; over it the oldest of the caller with the most keep their status only, as does an answer of
        /// more than a sixteenth of it.
        delivery_answers_budget: Size = Size::kib(16 * 1024), Size::new(0)..=Size::new(1 << 40), Reload;
    }
}

/// The rate of a route that sets none. The flow platform takes 45,000 requests in 5 minutes for one trigger.
pub(super) const ROUTE_RATE: Rate = Rate {
    requests: 150,
    per: secs(1),
    burst: 300,
};

/// The rate of a caller that sets none: half of a route's, so that no caller alone uses it up.
pub(super) const CALLER_RATE: Rate = Rate {
    requests: ROUTE_RATE.requests / 2,
    burst: ROUTE_RATE.burst / 2,
    ..ROUTE_RATE
};
