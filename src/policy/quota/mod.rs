//! Rate limits of address, caller, route and gateway. Caller and route are known before.

mod kinds;
mod limits;
mod rate;
mod table;

pub use limits::{LimitStates, Quotas, Taken};
