//! Which keys have let somebody in since the gateway started: a bit for each, so that a hundred thousand cost 13 kB.

use std::sync::atomic::{AtomicU64, Ordering};

/// The bits of all keys of all callers.
#[derive(Debug, Default)]
pub(super) struct Usage {
    callers: Box<[Box<[AtomicU64]>]>,
}

impl Usage {
    /// Nothing is used yet. `keys` is how many each caller has.
    pub(super) fn new(keys: impl Iterator<Item = usize>) -> Self {
        let bits = |count: usize| (0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self {
            callers: keys.map(bits).collect(),
        }
    }

    pub(super) fn note(&self, caller: usize, key: usize) {
        let Some((word, bit)) = self.place(caller, key) else {
            return;
        };
        // Nearly always it is noted already, and a look leaves the memory of other workers alone.
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    pub(super) fn is_noted(&self, caller: usize, key: usize) -> bool {
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
    use super::Usage;

    #[test]
    fn each_key_of_each_caller_has_a_bit_of_its_own() {
        let usage = Usage::new([130, 0, 1].into_iter());
        for (caller, key) in [(0, 0), (0, 63), (0, 64), (0, 129), (2, 0)] {
            assert!(!usage.is_noted(caller, key), "{caller} {key}");
            usage.note(caller, key);
            usage.note(caller, key);
            assert!(usage.is_noted(caller, key), "{caller} {key}");
        }
        let noted = (0..130).filter(|key| usage.is_noted(0, *key)).count();
        assert_eq!(noted, 4);
        // Nobody's.
        usage.note(1, 0);
        usage.note(7, 0);
        assert!(!usage.is_noted(1, 0) && !usage.is_noted(7, 0));
    }
}
