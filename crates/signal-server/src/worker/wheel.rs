//! One hashed timer wheel for all connections of a worker.
//!
//! It owns bare slots in buckets, one entry per connection, and never the deadlines themselves: what
//! fires is asked again when it is next due, so that activity costs nothing and an entry that came too
//! early (or belongs to a connection that is gone) is simply put back or dropped by the caller.
//! It reads no clock. An insert and a firing are O(1); its size is bounded by the entries inserted.

use std::time::Duration;

use super::hub::Slot;

/// The resolution of everything a connection waits for.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// Buckets, hence ticks before an entry comes by for the first time at the latest: 51 s, beyond the
/// default intervals, so that most entries are touched once.
const BUCKETS: u32 = 512;

/// A point in time, in ticks since the worker began. Wraps after 13 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(pub(crate) u32);

/// The wheel; see the module.
#[derive(Debug)]
pub(crate) struct Wheel {
    buckets: Vec<Vec<Slot>>,
    /// The last tick that was fired.
    now: Tick,
}

// === impl Tick ===

impl Tick {
    /// This point plus a duration, rounded up to whole ticks: never early.
    #[must_use]
    pub(crate) fn after(self, duration: Duration) -> Self {
        let ticks = duration.as_millis().div_ceil(TICK.as_millis());
        // One more, since a point may lie anywhere within its tick.
        Self(self.0.saturating_add(u32::try_from(ticks).unwrap_or(u32::MAX)).saturating_add(1))
    }

    /// This point less a duration.
    #[must_use]
    pub(crate) fn before(self, duration: Duration) -> Self {
        let ticks = duration.as_millis() / TICK.as_millis();
        Self(self.0.saturating_sub(u32::try_from(ticks).unwrap_or(u32::MAX)))
    }

    /// The time from `earlier` to this point; zero if it is not earlier.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        TICK * self.0.saturating_sub(earlier.0)
    }
}

// === impl Wheel ===

impl Default for Wheel {
    fn default() -> Self {
        Self { buckets: vec![Vec::new(); BUCKETS as usize], now: Tick(0) }
    }
}

impl Wheel {
    /// The last tick that was fired.
    pub(crate) fn now(&self) -> Tick {
        self.now
    }

    /// Has `slot` fired at `at`, or after one turn of the wheel if that is sooner, or at the next
    /// tick if `at` is past. Returns the tick at which it will fire.
    pub(crate) fn insert(&mut self, slot: Slot, at: Tick) -> Tick {
        let at = at.max(Tick(self.now.0 + 1)).min(Tick(self.now.0 + BUCKETS));
        self.buckets[(at.0 % BUCKETS) as usize].push(slot);
        at
    }

    /// Moves to `to` and calls `fire` with each entry due at or before it.
    pub(crate) fn advance(&mut self, to: Tick, mut fire: impl FnMut(&mut Self, Slot, Tick)) {
        while self.now < to {
            self.now.0 += 1;
            let due = std::mem::take(&mut self.buckets[(self.now.0 % BUCKETS) as usize]);
            for slot in due {
                fire(self, slot, self.now);
            }
        }
    }

    /// Entries in the wheel.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.buckets.iter().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_entry_fires_once_when_due_or_after_a_turn(
            entries in proptest::collection::vec((0_u32..2000, 0_u32..2000), 0..50),
        ) {
            let mut wheel = Wheel::default();
            let mut fired = vec![None; entries.len()];
            let mut expected = vec![None; entries.len()];
            for tick in 0..4000 {
                wheel.advance(Tick(tick), |_, slot, at| {
                    let place: &mut Option<Tick> = &mut fired[slot.0 as usize];
                    assert!(place.replace(at).is_none(), "fired twice");
                });
                for (index, &(inserted, at)) in entries.iter().enumerate() {
                    if inserted == tick {
                        let slot = Slot(u32::try_from(index).unwrap());
                        let due = wheel.insert(slot, Tick(at));
                        assert!(due > Tick(tick) && due <= Tick(tick + BUCKETS));
                        expected[index] = Some(due);
                    }
                }
            }
            prop_assert_eq!(fired, expected);
            prop_assert_eq!(wheel.len(), 0);
        }
    }

    #[test]
    fn a_duration_is_never_cut_short() {
        assert_eq!(Tick(10).after(Duration::from_millis(100)), Tick(12));
        assert_eq!(Tick(10).after(Duration::from_millis(101)), Tick(13));
        assert_eq!(Tick(10).after(Duration::MAX), Tick(u32::MAX));
        assert_eq!(Tick(3).since(Tick(10)), Duration::ZERO);
    }
}
