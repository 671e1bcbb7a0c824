//! The owner of a share of a limited resource: permits of a trigger, memory for bodies.

use std::collections::HashMap;

/// What each holder has. Addresses come from strangers, so the hash has a random key, too.
pub type Holders<V> = HashMap<Holder, V, ahash::RandomState>;

/// The owner of a share. Shares are counted by caller, or by client address on a route without callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// A caller, by its index in the settings.
    Caller(usize),
    /// A client address or address range, as a number that only its creator can interpret.
    Address(u64),
}
