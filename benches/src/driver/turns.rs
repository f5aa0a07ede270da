//! Which target gets the next message, and which number it has there.
//!
//! Pure, and the same wherever it is repeated: who knows how many messages were published knows how
//! many were for each target.

/// Step between one target and the next: coprime to every number of targets used, so that all are
/// visited evenly and neighbours in memory are not neighbours in time.
const STRIDE: usize = 379;

/// Targets that take turns.
#[derive(Debug)]
pub struct Turns {
    /// Messages so far, by target.
    sent: Vec<u64>,
    target: usize,
}

// === impl Turns ===

impl Turns {
    /// So many targets, none of which has had a message.
    ///
    /// # Panics
    /// If most targets would never have a turn.
    pub fn among(targets: usize) -> Self {
        let is_even = targets == 0 || !targets.is_multiple_of(STRIDE);
        assert!(is_even, "{targets} targets are a multiple of {STRIDE}");
        Self { sent: vec![0; targets], target: 0 }
    }

    /// The same after so many messages.
    #[must_use]
    pub fn after(mut self, messages: u64) -> Self {
        for _ in 0..messages {
            self.next();
        }
        self
    }

    /// The next message's target, and its number there.
    #[expect(clippy::should_implement_trait, reason = "it never ends, and nobody chains it")]
    pub fn next(&mut self) -> (usize, u64) {
        self.target = (self.target + STRIDE) % self.sent.len();
        let sent = &mut self.sent[self.target];
        *sent += 1;
        (self.target, *sent - 1)
    }

    /// Messages that a target has had.
    pub fn sent(&self, target: usize) -> u64 {
        self.sent[target]
    }

    /// Messages that all have had.
    pub fn total(&self) -> u64 {
        self.sent.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_its_turn() {
        for targets in [1, 2, 40, 1_000, 19_000] {
            let turns = Turns::among(targets).after(2 * targets as u64);
            assert!((0..targets).all(|target| turns.sent(target) == 2), "{targets}");
        }
    }

    #[test]
    fn a_target_counts_its_own_messages() {
        let mut turns = Turns::among(3).after(3);
        let (target, number) = turns.next();
        assert_eq!(number, 1);
        assert_eq!((turns.sent(target), turns.total()), (2, 4));
    }
}
