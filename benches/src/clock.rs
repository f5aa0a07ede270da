//! Monotonic time in microseconds since the run began.
//!
//! Owns the only use of the system's clock in this crate. Microseconds as an integer, because they
//! travel in the payload of every message.

use std::time::Duration;

#[expect(
    clippy::disallowed_types,
    reason = "the measurement is of real time, and there is no runtime whose clock could be paused"
)]
type Instant = std::time::Instant;

/// A clock that started when it was made.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts a clock at zero.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Microseconds since the start.
    pub fn micros(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}
