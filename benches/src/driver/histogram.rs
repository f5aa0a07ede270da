//! A histogram with a bounded relative error, after HdrHistogram: counts in buckets that double in
//! width, each cut into as many parts.
//!
//! Pure. Records any number of microseconds in constant time and constant memory, and is off by less
//! than 1 % (one part in [`PARTS`]) wherever it is asked.

/// Parts of each doubling.
const PARTS: u64 = 128;
const PART_BITS: u32 = PARTS.trailing_zeros();

/// Largest value told apart: an hour, in microseconds.
const VALUE_MAX: u64 = 3_600_000_000;

/// How often which time was seen.
#[derive(Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

// === impl Histogram ===

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; place(VALUE_MAX) + 1], total: 0 }
    }
}

impl Histogram {
    /// Takes note of a time.
    pub(super) fn record(&mut self, micros: u64) {
        self.counts[place(micros.min(VALUE_MAX))] += 1;
        self.total += 1;
    }

    /// The smallest value that at least `share` of what was recorded does not exceed, to the upper end
    /// of its bucket; `None` if nothing was.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counts stay far below 2^52"
        )]
        let rank = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut passed = 0;
        let reached = self.counts.iter().position(|count| {
            passed += count;
            passed >= rank
        });
        reached.map(upper_end)
    }

    /// Adds what was recorded elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (count, other) in self.counts.iter_mut().zip(&other.counts) {
            *count += other;
        }
        self.total += other.total;
    }

    /// All that was recorded as a word, for another process to add to its own.
    pub fn to_word(&self) -> String {
        let filled = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        let buckets: Vec<String> =
            filled.map(|(place, count)| format!("{place}:{count}")).collect();
        if buckets.is_empty() { "-".to_owned() } else { buckets.join(",") }
    }

    /// Adds what another process recorded; `None` if `word` is not what [`Histogram::to_word`] makes.
    pub fn add_word(&mut self, word: &str) -> Option<()> {
        for bucket in word.split(',').filter(|bucket| *bucket != "-") {
            let (place, count) = bucket.split_once(':')?;
            let count: u64 = count.parse().ok()?;
            *self.counts.get_mut(place.parse::<usize>().ok()?)? += count;
            self.total += count;
        }
        Some(())
    }
}

/// The bucket of a value: its highest bits, and how many are below them.
fn place(value: u64) -> usize {
    let doublings = (u64::BITS - value.leading_zeros()).saturating_sub(PART_BITS + 1);
    let part = (value >> doublings) + u64::from(doublings) * PARTS;
    usize::try_from(part).expect("buckets are few")
}

/// The largest value in a bucket.
fn upper_end(place: usize) -> u64 {
    let place = place as u64;
    let doublings = (place / PARTS).saturating_sub(1);
    let part = place - doublings * PARTS;
    ((part + 1) << doublings) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_a_bucket_of_its_size() {
        let mut last = 0;
        for value in (0..100_000).chain([1 << 20, (1 << 31) - 1, VALUE_MAX]) {
            let bucket = place(value);
            assert!(bucket >= last && upper_end(bucket) >= value, "{value}");
            assert!(upper_end(bucket) - value <= value / PARTS, "{value} in {bucket}");
            last = bucket;
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        (1..=1_000).for_each(|value| histogram.record(value * 10));
        for (share, exact) in [(0.5, 5_000), (0.99, 9_900), (0.999, 9_990), (1.0, 10_000)] {
            let found = histogram.quantile(share).unwrap();
            assert!(found >= exact && found - exact <= exact / PARTS, "{share}: {found}");
        }
        let mut sum = Histogram::default();
        sum.add_word(&histogram.to_word()).unwrap();
        assert_eq!(sum, histogram);
        sum.add_word(&Histogram::default().to_word()).unwrap();
        sum.add(&Histogram::default());
        assert_eq!(sum, histogram);
        assert_eq!(sum.add_word("1:x"), None);
        assert_eq!(sum.add_word("99999999:1"), None);
        histogram.record(u64::MAX);
        assert!(histogram.quantile(1.0).unwrap() >= VALUE_MAX);
    }
}
