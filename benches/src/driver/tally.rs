//! What arrived: counts, sequence checks, and the time it took.
//!
//! Pure but for its memory, which is bounded by [`LATENCIES_MAX`]. Must cost next to nothing per
//! message in order.

use super::DriverError;
use super::connection::Connection;
use super::payload;
use super::sequence::Arrival;
use super::window::Window;

/// Times kept per turn; later ones are not recorded. Ten times what a default turn has.
const LATENCIES_MAX: usize = 4_000_000;

/// How far a load has come.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Messages that reached a client, each counted once per client.
    pub deliveries: u64,
    /// Reads that brought them, so that a server that coalesces shows.
    pub reads: u64,
}

/// What went wrong with a load. All zero, or the server does not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Integrity {
    /// Deliveries that never came.
    pub lost: u64,
    /// Deliveries that came again.
    pub duplicated: u64,
    /// Deliveries that came after a younger one.
    pub reordered: u64,
}

/// The time from publishing to reading, in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    /// The median.
    pub p50_micros: u32,
    /// The 99th percentile.
    pub p99_micros: u32,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) progress: Progress,
    pub(super) integrity: Integrity,
    pub(super) window: Option<Window>,
    /// Microseconds of each delivery; `None` while they are not kept.
    latencies: Option<Vec<u32>>,
}

// === impl Integrity ===

impl Integrity {
    /// True if every message came once and in order.
    pub fn is_whole(&self) -> bool {
        *self == Self::default()
    }

    /// The two together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            lost: self.lost + other.lost,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
        }
    }
}

// === impl Tally ===

impl Tally {
    /// Takes note of a text; returns how many clients got their first marker by it.
    pub(super) fn take_text(
        &mut self,
        connection: &mut Connection,
        text: &[u8],
        now: u64,
    ) -> Result<usize, DriverError> {
        let Some((sequence, sent)) = payload::parse(text) else {
            return take_other(connection, text);
        };
        match connection.sequence.record(sequence) {
            Arrival::InOrder => {}
            Arrival::Late => self.integrity.reordered += 1,
            Arrival::Duplicate => {
                self.integrity.duplicated += 1;
                return Ok(0);
            }
        }
        self.progress.deliveries += 1;
        if let Some(window) = &mut self.window {
            window.delivered(sequence);
        }
        if let Some(latencies) = &mut self.latencies
            && latencies.len() < LATENCIES_MAX
        {
            latencies.push(u32::try_from(now.saturating_sub(sent)).unwrap_or(u32::MAX));
        }
        Ok(0)
    }

    pub(super) fn keeps_latency(&self) -> bool {
        self.latencies.is_some()
    }

    pub(super) fn record_latency(&mut self) {
        self.latencies = Some(Vec::new());
    }

    pub(super) fn take_latency(&mut self) -> Option<Latency> {
        let mut latencies = self.latencies.take().filter(|latencies| !latencies.is_empty())?;
        latencies.sort_unstable();
        let percentile = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
        Some(Latency { p50_micros: percentile(50), p99_micros: percentile(99) })
    }
}

/// A marker, or something that must not come.
fn take_other(connection: &mut Connection, text: &[u8]) -> Result<usize, DriverError> {
    // Clients of `signal.v1` are told that the link has come up; what is lost shows in the numbers.
    if text.starts_with(br#"{"event":"resync""#) {
        return Ok(0);
    }
    if !text.starts_with(br#"{"event":"marker""#) {
        return Err(DriverError::Unexpected(String::from_utf8_lossy(text).into_owned()));
    }
    let first = !connection.marked;
    connection.marked = true;
    Ok(usize::from(first))
}
