//! Events of the last ten minutes, counted by minute. Only a person who asks reads them, so counting costs
//! one atomic operation, and no memory before the first event.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Minutes that are remembered, including the current one.
pub const RECENT_MINUTES: u32 = 10;

#[derive(Debug, Default)]
pub struct Recent(OnceLock<Box<[Slot; RECENT_MINUTES as usize]>>);

/// The minute in the upper half and its count in the lower one, so that both change in one atomic operation.
#[derive(Debug, Default)]
struct Slot(AtomicU64);

const COUNT_BITS: u32 = 32;

impl Slot {
    fn add(&self, minute: u32) {
        let next = |slot: u64| {
            let count = match slot >> COUNT_BITS {
                same if same == u64::from(minute) => {
                    (slot & u64::from(u32::MAX)).min(u64::from(u32::MAX - 1)) + 1
                }
                _ => 1,
            };
            Some(u64::from(minute) << COUNT_BITS | count)
        };
        // The closure always returns a value, so this cannot fail.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// The count, if its minute is recent enough.
    fn count(&self, now: u32) -> u64 {
        let slot = self.0.load(Ordering::Relaxed);
        let minute = slot >> COUNT_BITS;
        match minute + u64::from(RECENT_MINUTES) > u64::from(now) {
            true => slot & u64::from(u32::MAX),
            false => 0,
        }
    }
}

impl Recent {
    /// Counts one event in this minute. Minutes are counted from 1.
    pub fn add(&self, minute: u32) {
        let slots = self.0.get_or_init(Box::default);
        if let Some(slot) = slots.get((minute % RECENT_MINUTES) as usize) {
            slot.add(minute);
        }
    }

    /// Events of this minute and the nine before it.
    pub fn count(&self, minute: u32) -> u64 {
        let slots = self.0.get().into_iter().flat_map(|slots| slots.iter());
        slots.map(|slot| slot.count(minute)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::Recent;

    #[test]
    fn what_happened_counts_for_ten_minutes() {
        let recent = Recent::default();
        assert_eq!(recent.count(1), 0);
        for minute in [1, 1, 2] {
            recent.add(minute);
        }
        assert_eq!((recent.count(2), recent.count(10)), (3, 3));
        assert_eq!((recent.count(11), recent.count(12)), (1, 0));
    }

    #[test]
    fn a_minute_that_comes_round_begins_at_zero() {
        let recent = Recent::default();
        for minute in 1..=100 {
            recent.add(minute);
        }
        assert_eq!(recent.count(100), 10);
        assert_eq!(recent.count(109), 1);
    }

    #[test]
    fn no_event_of_many_threads_is_lost() {
        let recent = Recent::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| recent.add(7)));
            }
        });
        assert_eq!(recent.count(7), 4000);
    }
}
