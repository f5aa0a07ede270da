//! The states of links, for readiness and metrics: each written by its link, read by anyone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
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

/// The states of all links of an edge. The list is touched when a link is opened or closed.
#[derive(Debug)]
pub(crate) struct LinkStatuses {
    /// Each has one link at least, once it has begun.
    workers: usize,
    links: Mutex<Vec<Arc<LinkStatus>>>,
}

/// The state of a link and since when; see the module.
#[derive(Debug)]
pub(crate) struct LinkStatus {
    worker: usize,
    /// What it links to, for people.
    name: String,
    began: Instant,
    state: AtomicU8,
    /// All arrives that Redis lets anybody have: what it refuses is all that is not confirmed.
    delivering: AtomicBool,
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

// === impl LinkStatuses ===

impl LinkStatuses {
    /// Of an edge with so many workers, none of which has begun.
    pub(crate) fn new(workers: usize) -> Self {
        Self { workers, links: Mutex::default() }
    }

    /// A worker opens a link.
    pub(crate) fn open(&self, worker: usize, name: String, state: LinkState) -> Arc<LinkStatus> {
        let status = Arc::new(LinkStatus::new(worker, name, state));
        self.links.lock().push(status.clone());
        status
    }

    /// A link is closed for good.
    pub(crate) fn close(&self, status: &Arc<LinkStatus>) {
        self.links.lock().retain(|open| !Arc::ptr_eq(open, status));
    }

    /// Every link there is.
    pub(crate) fn get(&self) -> Vec<Arc<LinkStatus>> {
        self.links.lock().clone()
    }

    /// Whether all arrives that Redis lets anybody have.
    pub(crate) fn are_delivering(&self) -> bool {
        let links = self.links.lock();
        links.len() >= self.workers
            && links.iter().all(|link| link.delivering.load(Ordering::Relaxed))
    }

    /// Why the links make the edge not ready; see [`LinkStatus::problem`].
    pub(crate) fn problems(
        &self,
        unconfirmed_max: Duration,
        probe_age_max: Duration,
    ) -> Vec<String> {
        let links = self.links.lock();
        if links.len() < self.workers {
            return vec!["workers are starting".to_owned()];
        }
        links.iter().filter_map(|link| link.problem(unconfirmed_max, probe_age_max)).collect()
    }
}

// === impl LinkStatus ===

impl LinkStatus {
    fn new(worker: usize, name: String, state: LinkState) -> Self {
        Self {
            worker,
            name,
            began: Instant::now(),
            state: AtomicU8::new(state as u8),
            delivering: AtomicBool::new(state == LinkState::Confirmed),
            since_ms: AtomicU64::new(0),
            probed_ms: AtomicU64::new(0),
        }
    }

    /// Why the link makes the edge not ready, in one sentence; nothing if it does not. It may be
    /// unconfirmed for as long as `unconfirmed_max`, and its probe as old as `probe_age_max`.
    pub(crate) fn problem(
        &self,
        unconfirmed_max: Duration,
        probe_age_max: Duration,
    ) -> Option<String> {
        let (state, lasted) = self.get();
        let (worker, name) = (self.worker, &self.name);
        match state {
            LinkState::Unconfirmed if lasted <= unconfirmed_max => None,
            LinkState::Down | LinkState::Unconfirmed => Some(format!(
                "bus link {worker} is {} for {} s ({name})",
                state.name(),
                lasted.as_secs()
            )),
            LinkState::Confirmed if self.probe_age() > probe_age_max => {
                Some(format!("bus link {worker} probe is late ({name})"))
            }
            LinkState::Confirmed => None,
        }
    }

    /// Notes the state, and whether the link delivers; a repeated state keeps its beginning.
    pub(crate) fn set(&self, state: LinkState, delivering: bool) {
        self.delivering.store(delivering, Ordering::Relaxed);
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
