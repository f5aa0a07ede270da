//! Monotonic time in microseconds since the run began.
//!
//! Owns the only use of the system's clock in this crate. Microseconds as an integer, because they
//! travel in the payload of every message. The system's clock is the same for all processes of the
//! machine, so that one may go on with the clock that another has started.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A clock that started when it was made.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// The start, on the system's clock.
    start: Duration,
}

impl Clock {
    /// Starts a clock at zero.
    pub fn start() -> Self {
        Self { start: now() }
    }

    /// The clock of another process, by its [`Clock::origin_micros`].
    pub fn continued(origin_micros: u64) -> Self {
        Self { start: Duration::from_micros(origin_micros) }
    }

    /// When the clock started, for another process to go on with it.
    pub fn origin_micros(&self) -> u64 {
        u64::try_from(self.start.as_micros()).unwrap_or(u64::MAX)
    }

    /// Microseconds since the start.
    pub fn micros(&self) -> u64 {
        u64::try_from(self.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        now().saturating_sub(self.start)
    }
}

fn now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).expect("monotonic time is not negative")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_goes_on_in_another_process() {
        let clock = Clock::start();
        let continued = Clock::continued(clock.origin_micros());
        let (first, second, third) = (clock.micros(), continued.micros(), clock.micros());
        // What was lost of the start is less than a microsecond.
        assert!(first <= second && second <= third + 1, "{first} {second} {third}");
    }
}
