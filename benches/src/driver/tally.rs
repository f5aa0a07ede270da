//! What arrived: counts, sequence checks, and the time it took.
//!
//! Pure, in bounded memory. Must cost next to nothing per message in order.

use super::DriverError;
use super::connection::Connection;
use super::dialect::{self, Dialect};
use super::histogram::Histogram;
use super::payload;
use super::sequence::Arrival;
use super::window::Window;

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
    pub p50_micros: u64,
    /// The 99th percentile.
    pub p99_micros: u64,
    /// One in a thousand takes longer.
    pub p999_micros: u64,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) progress: Progress,
    pub(super) integrity: Integrity,
    pub(super) window: Option<Window>,
    /// Microseconds of the deliveries; `None` while they are not kept.
    latencies: Option<Histogram>,
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

// === impl Latency ===

impl Latency {
    /// What a histogram comes to; `None` if nothing is in it.
    pub fn of(histogram: &Histogram) -> Option<Self> {
        Some(Self {
            p50_micros: histogram.quantile(0.5)?,
            p99_micros: histogram.quantile(0.99)?,
            p999_micros: histogram.quantile(0.999)?,
        })
    }
}

// === impl Tally ===

impl Tally {
    /// Takes note of a text; returns how many clients got their first marker by it.
    pub(super) fn take_text(
        &mut self,
        connection: &mut Connection,
        text: &[u8],
        dialect: Dialect,
        now: u64,
    ) -> Result<usize, DriverError> {
        let message = match dialect {
            Dialect::Signal => payload::parse(text),
            _ => payload::find(text),
        };
        let Some((sequence, sent)) = message else {
            return take_other(connection, text, dialect);
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
        if let Some(latencies) = &mut self.latencies {
            latencies.record(now.saturating_sub(sent));
        }
        Ok(0)
    }

    pub(super) fn keeps_latency(&self) -> bool {
        self.latencies.is_some()
    }

    pub(super) fn record_latency(&mut self) {
        self.latencies = Some(Histogram::default());
    }

    pub(super) fn take_latency(&mut self) -> Option<Latency> {
        Latency::of(&self.take_histogram()?)
    }

    pub(super) fn take_histogram(&mut self) -> Option<Histogram> {
        self.latencies.take()
    }
}

/// A marker, or something that must not come.
fn take_other(
    connection: &mut Connection,
    text: &[u8],
    dialect: Dialect,
) -> Result<usize, DriverError> {
    if dialect != Dialect::Signal && !dialect::contains(text, b"\"marker\"") {
        // Others also answer requests, and ask whether a client is alive.
        if let Some(answer) = dialect.answer(text) {
            connection.send_text(answer)?;
        }
        return Ok(0);
    }
    // Clients of `signal.v1` are told that the link has come up; what is lost shows in the numbers.
    if text.starts_with(br#"{"event":"resync""#) {
        return Ok(0);
    }
    if dialect == Dialect::Signal && !text.starts_with(br#"{"event":"marker""#) {
        return Err(DriverError::Unexpected(String::from_utf8_lossy(text).into_owned()));
    }
    let first = !connection.marked;
    connection.marked = true;
    Ok(usize::from(first))
}
