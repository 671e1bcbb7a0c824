//! State that outlives settings, by name. Whatever is built from settings takes its parts from a registry and
//! keeps them alive, so that the next settings find the same state under the same name.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Parts by name. Used while settings are applied, never for a request.
#[derive(Debug)]
pub struct Registry<K, V>(Mutex<HashMap<K, Weak<V>>>);

impl<K, V> Default for Registry<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V> Registry<K, V> {
    /// The part with this name: the one in use, or a new one.
    pub fn share(&self, key: K, make: impl FnOnce() -> V) -> Arc<V> {
        // A panic in `make` leaves the table unchanged.
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(part) = parts.get(&key).and_then(Weak::upgrade) {
            return part;
        }
        let part = Arc::new(make());
        parts.insert(key, Arc::downgrade(&part));
        part
    }

    /// Forgets names whose parts nothing uses any more.
    pub fn sweep(&self) {
        self.sweep_with(|_| ());
    }

    /// The same; each is passed to `forgotten` before it can be used anew.
    pub fn sweep_with(&self, mut forgotten: impl FnMut(&K)) {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.retain(|name, part| {
            let is_used = part.strong_count() > 0;
            if !is_used {
                forgotten(name);
            }
            is_used
        });
    }

    /// The part with this name, if one is in use.
    pub fn known(&self, key: &K) -> Option<Arc<V>> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.get(key).and_then(Weak::upgrade)
    }
}

#[cfg(test)]
mod tests {
    use super::Registry;

    #[test]
    fn a_part_is_shared_while_somebody_has_it() {
        let registry = Registry::default();
        let first = registry.share("a", || 1);
        assert_eq!((*registry.share("a", || 2), *registry.share("b", || 3)), (1, 3));
        drop(first);
        assert_eq!(*registry.share("a", || 4), 4);
    }
}
