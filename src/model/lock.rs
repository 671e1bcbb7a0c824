//! Locks of the standard library without their poison: a thread that panicked while it held one has left values behind
//! that are good by themselves, and no other request may end for it.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
