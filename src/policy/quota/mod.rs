//! How often: the limits of address, caller, route and gateway. Who calls and for which route is known before.

mod kinds;
mod limits;
mod rate;
mod table;

pub use limits::{LimitStates, Quotas, Taken};
