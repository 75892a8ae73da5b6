//! A number that one thread counts and others may read.

use std::sync::atomic::{AtomicU64, Ordering};

/// The number. It has one writer: an addition is a load and a store, which costs no more than
/// that of a plain number, and of two writers at once one would lose.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds `n`.
    #[inline]
    pub(super) fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    /// Its value.
    #[inline]
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
