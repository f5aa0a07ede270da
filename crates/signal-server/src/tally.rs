//! What is counted outside of any worker: rare events, in atomics of their own.

use std::sync::atomic::{AtomicU64, Ordering};

use signal_core::envelope::Kind;
use signal_core::revocation::Subject;
use tokio::time::Instant;

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No upgrade, or a malformed one.
    Malformed,
    /// A page of another site.
    Origin,
    /// The edge drains.
    Draining,
    /// At the connection cap.
    Cap,
    /// Too many connections have not logged in yet.
    Unauthenticated,
    /// Too many of them are of one address.
    PerAddress,
    /// Too many upgrades in this second.
    AcceptRate,
    /// The TLS handshake failed.
    Tls,
    /// The TLS handshake, or the requests, took too long.
    TooSlow,
    /// The request's head is too large.
    HeadTooLarge,
}

/// What became of a publish.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PublishResult {
    /// The bus has it, and somebody listens.
    Taken,
    /// The bus has it, and nobody listens.
    Unheard,
    /// The bus is away; this edge's clients have it.
    LocalOnly,
    /// The bus did not take it.
    Failed,
}

/// To whom a publish went, and what became of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PublishCase(pub(crate) Kind, pub(crate) PublishResult);

/// A counter for each of some cases.
#[derive(Debug)]
pub(crate) struct Tally<const CASES: usize>([AtomicU64; CASES]);

/// A bucket of requests that refills with time.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// Requests it holds, or `None` for as many as it may.
    left: Option<f64>,
    refilled: Instant,
}

// === impl Refusal ===

impl Refusal {
    pub(crate) const ALL: [&str; 10] = [
        "malformed",
        "origin",
        "draining",
        "at_cap",
        "unauthenticated",
        "per_address",
        "accept_rate",
        "tls",
        "too_slow",
        "head_too_large",
    ];
}

impl PublishResult {
    pub(crate) const ALL: [&str; 4] = ["taken", "unheard", "local_only", "failed"];
}

impl From<Refusal> for usize {
    fn from(refusal: Refusal) -> Self {
        refusal as Self
    }
}

impl PublishCase {
    pub(crate) const KINDS: [Kind; 4] = [Kind::Broadcast, Kind::Room, Kind::User, Kind::Client];
    pub(crate) const COUNT: usize = Self::KINDS.len() * PublishResult::ALL.len();
}

impl From<PublishCase> for usize {
    fn from(PublishCase(kind, result): PublishCase) -> Self {
        kind as Self * PublishResult::ALL.len() + result as Self
    }
}

/// What revocations are of, in the order in which they are counted.
pub(crate) const SUBJECTS: [&str; 3] = ["user", "client", "token"];

/// The place of a revocation among [`SUBJECTS`].
pub(crate) fn subject_case(subject: &Subject<'_>) -> usize {
    match subject {
        Subject::User(_) => 0,
        Subject::Client(_) => 1,
        Subject::Token(_) => 2,
    }
}

// === impl Tally ===

impl<const CASES: usize> Default for Tally<CASES> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const CASES: usize> Tally<CASES> {
    pub(crate) fn count(&self, case: impl Into<usize>) {
        self.0[case.into()].fetch_add(1, Ordering::Relaxed);
    }

    /// The counts, in the order of the cases.
    pub(crate) fn get(&self) -> [u64; CASES] {
        std::array::from_fn(|case| self.0[case].load(Ordering::Relaxed))
    }
}

// === impl Allowance ===

impl Allowance {
    pub(crate) fn full() -> Self {
        Self { left: None, refilled: Instant::now() }
    }

    /// Takes `count` requests, if there are as many; the bucket holds `rate`, and refills with `rate` a
    /// second.
    pub(crate) fn take(&mut self, count: usize, rate: u32) -> bool {
        let rate = f64::from(rate);
        let now = Instant::now();
        let refill = (now - self.refilled).as_secs_f64() * rate;
        let left = self.left.map_or(rate, |left| (left + refill).min(rate));
        self.refilled = now;
        let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let enough = count <= left;
        self.left = Some(if enough { left - count } else { left });
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_refills_at_its_rate() {
        let mut allowance = Allowance::full();
        assert!(allowance.take(10, 10) && !allowance.take(1, 10), "a burst of one second");
        for _ in 0..50 {
            tokio::time::advance(Duration::from_millis(200)).await;
            assert!(allowance.take(2, 10), "ten a second");
            assert!(!allowance.take(1, 10), "and no more");
        }
        tokio::time::advance(Duration::from_mins(1)).await;
        assert!(allowance.take(10, 10) && !allowance.take(1, 10), "it does not run over");
    }
}
