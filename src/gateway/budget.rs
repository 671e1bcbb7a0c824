//! Memory for held bodies, over all routes, and who may use how much of it. A caller may hold as much as it leaves
//! free, so alone it gets half; the addresses of routes that know no callers get a quarter together, and one of them
//! as much of that as it leaves free. One body of the largest size that is held fits into any share.

use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::counters::Counters;
use crate::flow::outbound::Introduction;
use crate::model::{Holder, Holders, locked};
use crate::problem::{Kind, Problem};

/// Addresses of unknown callers may use one part in so many.
const UNKNOWN_PART: usize = 4;

/// Whose share a request uses, and the name of that for the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    pub holder: Holder,
    pub who: &'a Introduction,
}

impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.holder {
            Holder::Caller(_) => write!(f, "caller {}", self.who.caller),
            Holder::Address(_) => write!(f, "address {}", self.who.origin),
        }
    }
}

#[derive(Debug)]
pub(super) struct Budget {
    uses: Mutex<(Limits, Uses)>,
    counters: Counters,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    bytes_max: usize,
    unknown_bytes_max: usize,
    body_bytes_max: usize,
}

/// What is in use; bytes.
#[derive(Debug, Default)]
struct Uses {
    all: usize,
    unknown: usize,
    /// At most one entry for each request whose body is held.
    holders: Holders<usize>,
}

/// Why there is no room; bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Full {
    #[error("{used} of {max} bytes for held bodies are in use")]
    All { used: usize, max: usize },
    #[error("{used} of the {max} bytes for held bodies of unknown callers are in use")]
    Unknown { used: usize, max: usize },
    #[error(
        "the share of held bodies is full: it has {used} bytes and may have as many as it leaves free, {max}"
    )]
    Share { used: usize, max: usize },
}

impl Limits {
    fn new(bytes_max: usize, body_bytes_max: usize) -> Self {
        Self {
            bytes_max,
            unknown_bytes_max: (bytes_max / UNKNOWN_PART).max(body_bytes_max).min(bytes_max),
            body_bytes_max,
        }
    }

    /// Whether a holder that has `own` bytes may have so many more.
    fn check(&self, uses: &Uses, holder: Holder, own: usize, bytes: usize) -> Result<(), Full> {
        let all = uses.all.saturating_add(bytes);
        let Some(free) = self.bytes_max.checked_sub(all) else {
            return Err(Full::All {
                used: uses.all,
                max: self.bytes_max,
            });
        };
        let free = match holder {
            Holder::Caller(_) => free,
            Holder::Address(_) => {
                let unknown = uses.unknown.saturating_add(bytes);
                self.unknown_bytes_max.checked_sub(unknown).ok_or(Full::Unknown {
                    used: uses.unknown,
                    max: self.unknown_bytes_max,
                })?
            }
        };
        let max = free.max(self.body_bytes_max);
        match own.saturating_add(bytes) > max {
            true => Err(Full::Share { used: own, max }),
            false => Ok(()),
        }
    }
}

impl Budget {
    pub(super) fn new(bytes_max: usize, body_bytes_max: usize, counters: Counters) -> Arc<Self> {
        Arc::new(Self {
            uses: Mutex::new((Limits::new(bytes_max, body_bytes_max), Uses::default())),
            counters,
        })
    }

    /// Changes how many bytes there are; bodies that are held stay.
    pub(super) fn resize(&self, bytes_max: usize, body_bytes_max: usize) {
        locked(&self.uses).0 = Limits::new(bytes_max, body_bytes_max);
    }

    fn take(&self, holder: Holder, bytes: usize) -> Result<(), Full> {
        let mut guard = locked(&self.uses);
        let (limits, uses) = &mut *guard;
        let own = uses.holders.get(&holder).copied().unwrap_or_default();
        limits.check(uses, holder, own, bytes)?;
        uses.holders.insert(holder, own + bytes);
        uses.all += bytes;
        if let Holder::Address(_) = holder {
            uses.unknown += bytes;
        }
        Ok(())
    }

    fn give_back(&self, holder: Holder, bytes: usize) {
        let mut guard = locked(&self.uses);
        let (_, uses) = &mut *guard;
        if let Entry::Occupied(mut own) = uses.holders.entry(holder) {
            *own.get_mut() = own.get().saturating_sub(bytes);
            if *own.get() == 0 {
                own.remove();
            }
        }
        uses.all = uses.all.saturating_sub(bytes);
        if let Holder::Address(_) = holder {
            uses.unknown = uses.unknown.saturating_sub(bytes);
        }
    }
}

/// A part of the budget, returned when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    holder: Holder,
    bytes: usize,
}

impl Reservation {
    /// Nothing yet.
    pub(super) fn of(budget: &Arc<Budget>, holder: Holder) -> Self {
        Self {
            budget: budget.clone(),
            holder,
            bytes: 0,
        }
    }

    /// Takes as much more as it has less than so many bytes.
    pub(super) fn grow_to(&mut self, bytes: usize, owner: impl fmt::Display) -> Result<(), Problem> {
        self.grow(bytes.saturating_sub(self.bytes), owner)
    }

    /// Gives back what it has beyond so many bytes.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        let spare = self.bytes.saturating_sub(bytes);
        if spare > 0 {
            self.budget.give_back(self.holder, spare);
            self.budget.counters.held_bytes.dec_by(spare as i64);
            self.bytes -= spare;
        }
    }

    pub(super) fn grow(&mut self, bytes: usize, owner: impl fmt::Display) -> Result<(), Problem> {
        if bytes == 0 {
            return Ok(());
        }
        self.budget.take(self.holder, bytes).map_err(|full| {
            Problem::from(Kind::GatewayBusy)
                .because(format!("{full}; the share is that of {owner}"))
                .wait(Duration::from_secs(1))
        })?;
        self.bytes += bytes;
        self.budget.counters.held_bytes.inc_by(bytes as i64);
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        self.budget.give_back(self.holder, self.bytes);
        self.budget.counters.held_bytes.dec_by(self.bytes as i64);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Budget, Full, Reservation};
    use crate::counters::Counters;
    use crate::model::{Holder, locked};

    const BODY: usize = 10;
    const ALL: usize = 64 * BODY;

    fn budget() -> Arc<Budget> {
        Budget::new(ALL, BODY, Counters::new())
    }

    /// Takes bodies until there is no room, and returns how many bytes that were.
    fn fill(budget: &Budget, holder: Holder) -> usize {
        std::iter::from_fn(|| budget.take(holder, BODY).ok()).count() * BODY
    }

    #[test]
    fn a_caller_alone_gets_half_and_the_next_one_half_of_the_rest() {
        let budget = budget();
        let got: Vec<usize> = (0..3).map(|index| fill(&budget, Holder::Caller(index))).collect();
        assert_eq!(got, [ALL / 2, ALL / 4, ALL / 8]);
        assert!(matches!(
            budget.take(Holder::Caller(0), BODY),
            Err(Full::Share { .. })
        ));
    }

    #[test]
    fn one_body_fits_into_any_share() {
        let budget = budget();
        for index in 0..5 {
            fill(&budget, Holder::Caller(index));
        }
        assert_eq!(locked(&budget.uses).1.all, ALL - 2 * BODY);
        assert_eq!(fill(&budget, Holder::Caller(5)), BODY);
        for holder in [Holder::Caller(0), Holder::Address(0)] {
            let narrow = Budget::new(BODY, BODY, Counters::new());
            assert_eq!(narrow.take(holder, BODY), Ok(()));
        }
    }

    #[test]
    fn unknown_callers_get_a_quarter_together_and_one_address_half_of_it() {
        let budget = budget();
        assert_eq!(fill(&budget, Holder::Address(0)), ALL / 8);
        for address in 1..100 {
            fill(&budget, Holder::Address(address));
        }
        assert_eq!(locked(&budget.uses).1.unknown, ALL / 4);
        assert_eq!(
            budget.take(Holder::Address(100), BODY),
            Err(Full::Unknown {
                used: ALL / 4,
                max: ALL / 4
            })
        );
        assert!(fill(&budget, Holder::Caller(0)) > ALL / 3);
    }

    #[test]
    fn a_reservation_changes_with_what_is_held() {
        let budget = budget();
        let used = || locked(&budget.uses).1.all;
        let mut reservation = Reservation::of(&budget, Holder::Caller(0));
        reservation.grow(4, "x").unwrap();
        reservation.grow_to(BODY, "x").unwrap();
        reservation.grow_to(2, "x").unwrap();
        assert_eq!(used(), BODY);
        assert!(reservation.grow_to(ALL, "x").is_err());
        reservation.shrink_to(20);
        reservation.shrink_to(3);
        assert_eq!((used(), budget.counters.held_bytes.get()), (3, 3));
        drop(reservation);
        assert_eq!((used(), budget.counters.held_bytes.get()), (0, 0));
    }

    #[test]
    fn what_is_given_back_leaves_nothing_behind() {
        let budget = budget();
        for holder in [Holder::Caller(0), Holder::Address(0)] {
            let bytes = fill(&budget, holder);
            budget.give_back(holder, bytes);
        }
        let uses = &locked(&budget.uses).1;
        assert_eq!((uses.all, uses.unknown, uses.holders.len()), (0, 0, 0));
    }
}
