//! Who a share of something limited belongs to: permits of a trigger, memory for bodies.

/// The owner of a share. Callers are counted one by one; on a route that knows no callers, client addresses are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// A caller, by its index in the settings.
    Caller(usize),
    /// A client address, or what counts as one, as a number that only its maker can read.
    Address(u64),
}
