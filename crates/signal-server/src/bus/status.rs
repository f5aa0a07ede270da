//! The state of one link, for readiness and metrics: written by the link, read by anyone.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Where a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum LinkState {
    /// Not connected.
    Down = 0,
    /// Connected; some wanted channel is not confirmed.
    Unconfirmed = 1,
    /// Everything wanted is confirmed.
    Confirmed = 2,
}

/// The state of a link and since when; see the module.
#[derive(Debug)]
pub(crate) struct LinkStatus {
    began: Instant,
    state: AtomicU8,
    /// Milliseconds from `began` to the last change.
    since_ms: AtomicU64,
    /// Milliseconds from `began` to the last probe that came back.
    probed_ms: AtomicU64,
}

// === impl LinkState ===

impl LinkState {
    /// Its name in `/readyz` and in `signal_bus_links`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Unconfirmed => "unconfirmed",
            Self::Confirmed => "confirmed",
        }
    }
}

// === impl LinkStatus ===

impl LinkStatus {
    /// A link in `state`.
    pub(crate) fn new(state: LinkState) -> Self {
        Self {
            began: Instant::now(),
            state: AtomicU8::new(state as u8),
            since_ms: AtomicU64::new(0),
            probed_ms: AtomicU64::new(0),
        }
    }

    /// Notes the state; a repeated one keeps its beginning.
    pub(crate) fn set(&self, state: LinkState) {
        if self.state.swap(state as u8, Ordering::Relaxed) != state as u8 {
            self.since_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    /// Notes that a probe came back, or that a connection was made.
    pub(crate) fn probed(&self) {
        self.probed_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// The state and for how long it has lasted.
    pub(crate) fn get(&self) -> (LinkState, Duration) {
        let state = match self.state.load(Ordering::Relaxed) {
            0 => LinkState::Down,
            1 => LinkState::Unconfirmed,
            _ => LinkState::Confirmed,
        };
        (state, self.ago(&self.since_ms))
    }

    /// How long ago a probe came back.
    pub(crate) fn probe_age(&self) -> Duration {
        self.ago(&self.probed_ms)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn ago(&self, then_ms: &AtomicU64) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(then_ms.load(Ordering::Relaxed)))
    }
}
