//! Bytes that wait for Redis, bounded.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::EmitterError;

/// What calls may hold together.
#[derive(Clone, Debug)]
pub(super) struct Allowance {
    taken: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// Gives its bytes back when it goes, however that comes about.
#[derive(Debug)]
pub(super) struct Claim {
    bytes: usize,
    taken: Arc<AtomicUsize>,
}

// === impl Allowance ===

impl Allowance {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { taken: Arc::default(), bytes_max }
    }

    pub(super) fn claim(&self, bytes: usize) -> Result<Claim, EmitterError> {
        let before = self.taken.fetch_add(bytes, Ordering::Relaxed);
        // Made first, so that a refused claim is given back too.
        let claim = Claim { bytes, taken: self.taken.clone() };
        match before.saturating_add(bytes) > self.bytes_max {
            true => Err(EmitterError::Overloaded),
            false => Ok(claim),
        }
    }
}

// === impl Claim ===

impl Drop for Claim {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_bounded_and_given_back() {
        let allowance = Allowance::new(100);
        let large = allowance.claim(100).unwrap();
        assert!(matches!(allowance.claim(1), Err(EmitterError::Overloaded)));
        drop(large);
        let rest = [allowance.claim(60).unwrap(), allowance.claim(40).unwrap()];
        assert!(matches!(allowance.claim(usize::MAX), Err(EmitterError::Overloaded)));
        drop(rest);
        assert_eq!(allowance.taken.load(Ordering::Relaxed), 0);
    }
}
