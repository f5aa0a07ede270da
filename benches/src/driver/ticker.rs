//! A periodic tick on the driver's epoll.
//!
//! Owns a timerfd, because `epoll_wait` knows whole milliseconds only and a load of 20 000 messages
//! a second in bursts of a millisecond would measure the bursts.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// A timer that ticks for ever.
#[derive(Debug)]
pub(super) struct Ticker {
    timer: OwnedFd,
}

// === impl Ticker ===

impl Ticker {
    /// Starts to tick every `interval`, and to wake `token`.
    pub(super) fn start(
        interval: Duration,
        registry: &Registry,
        token: Token,
    ) -> std::io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let interval = Timespec::try_from(interval)
            .map_err(|_| std::io::Error::other("the interval is too long for a timer"))?;
        let period = Itimerspec { it_interval: interval, it_value: interval };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &period)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { timer })
    }

    /// Ticks since the last call.
    pub(super) fn elapsed_ticks(&self) -> std::io::Result<u64> {
        let mut count = [0; 8];
        match rustix::io::read(&self.timer, &mut count) {
            Ok(_) => Ok(u64::from_ne_bytes(count)),
            Err(Errno::AGAIN) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}
