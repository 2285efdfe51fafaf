//! How many bytes of records may be under way between the poll thread and the last user of them.
//!
//! The poll thread takes what a batch weighs *after* it was polled, so the bound is the limit plus one batch; the
//! [`Permit`] travels with the batch and gives the bytes back when it is dropped.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: Mutex<usize>,
    /// Signalled when bytes come back, and by [`Budget::wake`].
    changed: Condvar,
}

/// The bytes of a batch, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    bytes: usize,
    budget: Arc<Budget>,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: Mutex::new(0), changed: Condvar::new() })
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        *self.used() >= self.limit
    }

    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Permit {
        let mut used = self.used();
        *used = used.saturating_add(bytes);
        Permit { bytes, budget: Arc::clone(self) }
    }

    /// While exhausted, waits until something is given back, [`wake`](Self::wake) is called, or `patience` has passed.
    pub(crate) fn wait(&self, patience: Duration) {
        let used = self.used();
        if *used >= self.limit {
            drop(self.changed.wait_timeout(used, patience).unwrap_or_else(PoisonError::into_inner));
        }
    }

    pub(crate) fn wake(&self) {
        // Under the lock, so that a waiter that has just looked does not miss it.
        let _used = self.used();
        self.changed.notify_all();
    }

    fn used(&self) -> MutexGuard<'_, usize> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The bytes it stands for.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut used = self.budget.used();
        *used = used.saturating_sub(self.bytes);
        self.budget.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_permit_gives_its_bytes_back() {
        let budget = Budget::new(10);
        let first = budget.take(6);
        assert!(!budget.is_exhausted());
        let second = budget.take(6);
        assert!(budget.is_exhausted(), "the last batch may overdraw");
        drop(first);
        assert!(!budget.is_exhausted());
        drop(second);
        assert_eq!(*budget.used(), 0);
    }

    #[test]
    fn a_waiter_wakes_when_bytes_come_back() {
        let budget = Budget::new(1);
        let permit = budget.take(1);
        let waiter = {
            let budget = Arc::clone(&budget);
            std::thread::spawn(move || {
                while budget.is_exhausted() {
                    budget.wait(Duration::from_secs(60));
                }
            })
        };
        drop(permit);
        waiter.join().unwrap();
    }
}
