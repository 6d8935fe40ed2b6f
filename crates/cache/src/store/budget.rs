//! The bytes that a store may hold, as one number that all shards share.

use std::sync::atomic::{AtomicU64, Ordering};

pub(super) struct Budget {
    used: AtomicU64,
    limit: AtomicU64,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Self {
        Self { used: AtomicU64::new(0), limit: AtomicU64::new(limit) }
    }

    pub(super) fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn is_exceeded(&self) -> bool {
        self.used() > self.limit()
    }

    /// Takes the bytes if they fit. Never more than the limit is taken, whoever else takes at the same time.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let limit = self.limit();
        let sum = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok()
    }

    pub(super) fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_the_limit_is_taken() {
        let budget = Budget::new(10);
        assert!(budget.take(4) && budget.take(6));
        assert!(!budget.take(1));
        assert!(!budget.take(u64::MAX));
        budget.give_back(4);
        assert!(!budget.take(5));
        assert!(budget.take(4));
        budget.set_limit(9);
        assert!(budget.is_exceeded());
    }
}
