//! Whether one client got each message once and in order.
//!
//! Pure. Numbers start at zero and grow by one. Remembers at most [`MISSING_MAX`] gaps; a client
//! that missed more has failed whatever comes later.

/// Missing numbers remembered per client, to tell a late one from a second copy.
const MISSING_MAX: usize = 4096;

/// What a number that arrived meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// New, and nothing that came before it is younger.
    InOrder,
    /// New, but after a younger one.
    Late,
    /// Seen before.
    Duplicate,
}

/// The numbers of one client.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    next: u64,
    missing: Vec<u64>,
    /// Missing numbers that were not remembered.
    forgotten: u64,
}

// === impl Sequence ===

impl Sequence {
    /// Takes note of a number.
    pub(super) fn record(&mut self, number: u64) -> Arrival {
        if number == self.next {
            self.next += 1;
            return Arrival::InOrder;
        }
        self.record_irregular(number)
    }

    /// How many of the first `sent` numbers did not arrive.
    pub(super) fn lost(&self, sent: u64) -> u64 {
        self.missing.len() as u64 + self.forgotten + sent.saturating_sub(self.next)
    }

    #[cold]
    fn record_irregular(&mut self, number: u64) -> Arrival {
        if number > self.next {
            let free = (MISSING_MAX - self.missing.len()) as u64;
            let remembered = (number - self.next).min(free);
            self.missing.extend(self.next..self.next + remembered);
            self.forgotten += number - self.next - remembered;
            self.next = number + 1;
            return Arrival::InOrder;
        }
        match self.missing.iter().position(|missing| *missing == number) {
            Some(position) => {
                self.missing.swap_remove(position);
                Arrival::Late
            }
            None => Arrival::Duplicate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(numbers: &[u64], sent: u64, lost: u64, late: usize, duplicates: usize) {
        let mut sequence = Sequence::default();
        let arrivals: Vec<_> = numbers.iter().map(|number| sequence.record(*number)).collect();
        let count = |wanted| arrivals.iter().filter(|arrival| **arrival == wanted).count();
        assert_eq!(sequence.lost(sent), lost, "{numbers:?}");
        assert_eq!(count(Arrival::Late), late, "{numbers:?}");
        assert_eq!(count(Arrival::Duplicate), duplicates, "{numbers:?}");
    }

    #[test]
    fn every_irregularity_is_told_apart() {
        check(&[0, 1, 2], 3, 0, 0, 0);
        check(&[0, 1], 3, 1, 0, 0);
        check(&[0, 2], 3, 1, 0, 0);
        check(&[0, 2, 1], 3, 0, 1, 0);
        check(&[0, 1, 1, 2], 3, 0, 0, 1);
        check(&[2, 1, 1, 0, 2], 3, 0, 2, 2);
        check(&[], 3, 3, 0, 0);
    }

    #[test]
    fn a_huge_gap_is_counted_without_being_remembered() {
        check(&[1_000_000], 1_000_001, 1_000_000, 0, 0);
    }
}
