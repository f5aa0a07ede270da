//! How many messages a connection may send: a bucket that refills with time.
//!
//! Kept as the one moment at which the bucket is full again, in whole nanoseconds: eight bytes a
//! connection, and no rounding that adds up over a long life.

use super::wheel::{TICK, Tick};

const NANOSECONDS: u64 = 1_000_000_000;

/// The bucket; see the module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MessageAllowance {
    /// On the worker's clock. In the past: it is full.
    full_at: u64,
}

impl MessageAllowance {
    /// Takes one message, if there is one; the bucket holds `burst`, and refills with `rate` a second.
    pub(super) fn spend(&mut self, now: Tick, rate: u32, burst: u32) -> bool {
        let tick = u64::try_from(TICK.as_nanos()).expect("a tick is short");
        let now = u64::from(now.0) * tick;
        let period = NANOSECONDS / u64::from(rate);
        let full_at = self.full_at.max(now) + period;
        let enough = full_at - now <= period * u64::from(burst);
        if enough {
            self.full_at = full_at;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks in a second.
    const SECOND: u32 = 10;

    fn spent(allowance: &mut MessageAllowance, now: u32, rate: u32, burst: u32) -> u32 {
        let mut count = 0;
        while allowance.spend(Tick(now), rate, burst) {
            count += 1;
        }
        count
    }

    #[test]
    fn a_bucket_of_n_a_second_refills_at_n_a_second() {
        for (rate, burst) in [(1, 1), (1, 10), (10, 10), (200, 1000), (300, 50), (1, 1 << 20)] {
            let mut allowance = MessageAllowance::default();
            assert_eq!(spent(&mut allowance, 0, rate, burst), burst, "full at first");
            let mut count = 0;
            for tick in 1..=1000 * SECOND {
                count += spent(&mut allowance, tick, rate, burst);
            }
            assert_eq!(count, 1000 * rate, "{rate} a second, {burst} at once");
            let later = 2_000_000_000;
            assert_eq!(spent(&mut allowance, later, rate, burst), burst, "it does not run over");
        }
    }

    #[test]
    fn who_keeps_to_the_rate_is_never_refused() {
        let mut allowance = MessageAllowance::default();
        for tick in 0..1000 * SECOND {
            // Twenty a tick are two hundred a second.
            assert!((0..20).all(|_| allowance.spend(Tick(tick), 200, 20)), "at tick {tick}");
        }
    }

    #[test]
    fn the_largest_settings_do_not_overflow() {
        for (rate, burst) in [(1, 1 << 24), (1 << 24, 1 << 24)] {
            let mut allowance = MessageAllowance::default();
            assert!(allowance.spend(Tick(u32::MAX), rate, burst));
        }
    }
}
