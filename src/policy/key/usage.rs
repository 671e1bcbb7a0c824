//! When each key last let somebody in, to a minute, and whether it was since the gateway started: 4 bytes for each key, so that
//! a hundred thousand cost 400 kB. No clock is read for it: somebody else advances the minute.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::model::Minute;

/// The last uses of all keys of all callers.
#[derive(Debug, Default)]
pub(super) struct LastUses {
    /// The minute that is noted now, and that the key was used since the start.
    now: AtomicU32,
    callers: Box<[Box<[AtomicU32]>]>,
}

/// Beside the minute: whether the key was used since the start.
const SINCE_START: u32 = 1;

impl LastUses {
    /// No use is known yet. `keys` is how many each caller has.
    pub(super) fn new(keys: impl Iterator<Item = usize>) -> Self {
        let none = |count: usize| (0..count).map(|_| AtomicU32::new(0)).collect();
        Self {
            now: AtomicU32::new(SINCE_START),
            callers: keys.map(none).collect(),
        }
    }

    /// What is noted from now on.
    pub(super) fn advance(&self, minute: Minute) {
        self.now
            .store(minute.number() << 1 | SINCE_START, Ordering::Relaxed);
    }

    pub(super) fn note(&self, caller: usize, key: usize) {
        let Some(last) = self.place(caller, key) else {
            return;
        };
        let now = self.now.load(Ordering::Relaxed);
        // Nearly always it is noted already, and a look leaves the memory of other workers alone.
        if last.load(Ordering::Relaxed) != now {
            last.store(now, Ordering::Relaxed);
        }
    }

    /// Notes a use of an earlier run, which is not one since the start.
    pub(super) fn recall(&self, caller: usize, key: usize, minute: Minute) {
        if let Some(last) = self.place(caller, key) {
            last.fetch_max(minute.number() << 1, Ordering::Relaxed);
        }
    }

    /// Takes over what is known of a key there.
    pub(super) fn carry_over(&self, (caller, key): (usize, usize), earlier: &Self, from: (usize, usize)) {
        let known = earlier.place(from.0, from.1);
        let known = known.map_or(0, |last| last.load(Ordering::Relaxed));
        if let Some(last) = self.place(caller, key).filter(|_| known != 0) {
            last.fetch_max(known, Ordering::Relaxed);
        }
    }

    /// Whether it was used since the gateway started.
    pub(super) fn is_noted(&self, caller: usize, key: usize) -> bool {
        self.load(caller, key) & SINCE_START != 0
    }

    pub(super) fn last(&self, caller: usize, key: usize) -> Option<Minute> {
        let minute = self.load(caller, key) >> 1;
        (minute != 0).then_some(Minute::new(minute))
    }

    fn load(&self, caller: usize, key: usize) -> u32 {
        let place = self.place(caller, key);
        place.map_or(0, |last| last.load(Ordering::Relaxed))
    }

    fn place(&self, caller: usize, key: usize) -> Option<&AtomicU32> {
        self.callers.get(caller)?.get(key)
    }
}

/// A bit for each key of each caller.
#[derive(Debug, Default)]
pub(super) struct Marks {
    callers: Box<[Box<[AtomicU64]>]>,
}

impl Marks {
    /// No key is marked yet. `keys` is how many each caller has.
    pub(super) fn new(keys: impl Iterator<Item = usize>) -> Self {
        let bits = |count: usize| (0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self {
            callers: keys.map(bits).collect(),
        }
    }

    pub(super) fn set(&self, caller: usize, key: usize) {
        if let Some((word, bit)) = self.place(caller, key) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    pub(super) fn is_set(&self, caller: usize, key: usize) -> bool {
        self.place(caller, key)
            .is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    fn place(&self, caller: usize, key: usize) -> Option<(&AtomicU64, u64)> {
        let word = self.callers.get(caller)?.get(key / 64)?;
        Some((word, 1 << (key % 64)))
    }
}

#[cfg(test)]
mod tests {
    use super::{LastUses, Marks, Minute};

    #[test]
    fn each_key_of_each_caller_has_a_bit_of_its_own() {
        let marks = Marks::new([130, 0, 1].into_iter());
        for (caller, key) in [(0, 0), (0, 63), (0, 64), (0, 129), (2, 0)] {
            assert!(!marks.is_set(caller, key), "{caller} {key}");
            marks.set(caller, key);
            marks.set(caller, key);
            assert!(marks.is_set(caller, key), "{caller} {key}");
        }
        let set = (0..130).filter(|key| marks.is_set(0, *key)).count();
        assert_eq!(set, 4);
        // Nobody's.
        marks.set(1, 0);
        marks.set(7, 0);
        assert!(!marks.is_set(1, 0) && !marks.is_set(7, 0));
    }

    #[test]
    fn a_use_has_the_minute_that_was_advanced_to() {
        let uses = LastUses::new([2, 1].into_iter());
        uses.note(0, 1);
        assert!(
            uses.is_noted(0, 1) && uses.last(0, 1).is_none(),
            "no minute is known"
        );
        uses.advance(Minute::new(70));
        uses.note(0, 1);
        uses.advance(Minute::new(71));
        uses.note(1, 0);
        assert_eq!(
            (uses.last(0, 1), uses.last(1, 0)),
            (Some(Minute::new(70)), Some(Minute::new(71)))
        );
        assert!(!uses.is_noted(0, 0) && uses.last(0, 0).is_none());
        uses.note(7, 0);
        assert!(uses.last(7, 0).is_none());
    }

    #[test]
    fn a_use_of_an_earlier_run_is_none_since_the_start() {
        let uses = LastUses::new([2].into_iter());
        uses.advance(Minute::new(70));
        uses.note(0, 0);
        uses.recall(0, 0, Minute::new(60));
        uses.recall(0, 1, Minute::new(60));
        assert_eq!(
            (uses.last(0, 0), uses.last(0, 1)),
            (Some(Minute::new(70)), Some(Minute::new(60)))
        );
        assert!(uses.is_noted(0, 0) && !uses.is_noted(0, 1));

        let later = LastUses::new([1, 2].into_iter());
        later.carry_over((1, 0), &uses, (0, 1));
        later.carry_over((1, 1), &uses, (0, 0));
        assert_eq!(
            (later.last(1, 0), later.last(1, 1)),
            (Some(Minute::new(60)), Some(Minute::new(70)))
        );
        assert!(!later.is_noted(1, 0) && later.is_noted(1, 1) && !later.is_noted(0, 0));
    }
}
