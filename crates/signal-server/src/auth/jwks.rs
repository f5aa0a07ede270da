//! Keys that change while the edge runs: read from files anew, or fetched again and again.
//!
//! It owns the keys in use and the task that fetches a JSON Web Key Set. A new set takes the old one's
//! place whole; one that is garbage, or does not come, leaves the last good one in use. A token signed
//! with a key that is not known waits for the next fetch, which begins at most [`FETCH_PAUSE`] after
//! the last one: so a rotated key works at once, and nobody can make an edge ask more often. No login
//! waits longer than [`WAIT_MAX`], no fetch takes longer than [`FETCH_TIMEOUT`], and no worker is ever
//! held up: fetches run on the runtime that carries the edge.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::AuthCounts;
use super::keys::{KeyError, KeySet};
use crate::http::client::{Client, ClientError};

/// A fetch that takes longer has failed.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two fetches at least, whoever asks for them.
const FETCH_PAUSE: Duration = Duration::from_secs(5);

/// Between two fetches that nobody asks for: how long a key that is withdrawn may still be good.
const FETCH_INTERVAL: Duration = Duration::from_mins(5);

/// The same while the last fetch has failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(15);

/// A login waits no longer for a key: a pause and a fetch, which is less than a login may take.
const WAIT_MAX: Duration = Duration::from_secs(10);
const _: () = assert!(
    WAIT_MAX.as_secs() >= FETCH_PAUSE.as_secs() + FETCH_TIMEOUT.as_secs(),
    "a wait covers a fetch"
);

/// Bytes of a set: 64 keys with certificate chains have less.
const SET_BYTES_MAX: usize = 256 * 1024;

/// The keys in use; see the module.
#[derive(Debug)]
pub(crate) struct Keys {
    state: watch::Sender<State>,
    /// Somebody needs a key that is not there.
    wanted: Notify,
}

#[derive(Clone, Debug)]
struct State {
    set: Arc<KeySet>,
    /// When the last fetch that is over began, and whether it brought a set.
    fetch: Option<(Instant, bool)>,
}

/// Why a fetch brought no keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error(transparent)]
    Http(#[from] ClientError),
    #[error("no answer within {FETCH_TIMEOUT:?}")]
    Timeout,
    #[error("the answer is {0}")]
    Status(StatusCode),
    #[error(transparent)]
    Keys(#[from] KeyError),
}

/// A key is not known, and could not be asked for.
#[derive(Debug, thiserror::Error)]
#[error("the keys could not be fetched")]
pub(crate) struct KeysUnavailable;

// === impl Keys ===

impl Keys {
    pub(crate) fn new(set: KeySet) -> Arc<Self> {
        let state = State { set: Arc::new(set), fetch: None };
        Arc::new(Self { state: watch::Sender::new(state), wanted: Notify::new() })
    }

    pub(crate) fn set(&self) -> Arc<KeySet> {
        self.state.borrow().set.clone()
    }

    /// Puts other keys in the place of those in use.
    pub(crate) fn replace(&self, set: KeySet) {
        self.state.send_modify(|state| state.set = Arc::new(set));
    }

    /// Has the set fetched as soon as may be.
    pub(crate) fn want(&self) {
        self.wanted.notify_one();
    }

    /// The keys after a fetch that began from now on, or once there is one of this name.
    ///
    /// # Cancel safety
    ///
    /// The fetch goes on without it.
    pub(crate) async fn fetched(&self, id: Option<&str>) -> Result<Arc<KeySet>, KeysUnavailable> {
        let now = Instant::now();
        let mut states = self.state.subscribe();
        self.want();
        let mut has_failed = false;
        let arrived = states.wait_for(|state| {
            let fetch = state.fetch.filter(|(began, _)| *began >= now);
            has_failed = fetch.is_some_and(|(_, succeeded)| !succeeded);
            fetch.is_some() || id.is_some_and(|id| state.set.has(id))
        });
        let arrived = timeout(WAIT_MAX, arrived).await;
        let state = arrived.map_err(|_| KeysUnavailable)?.map_err(|_| KeysUnavailable)?.clone();
        match has_failed {
            true => Err(KeysUnavailable),
            false => Ok(state.set),
        }
    }

    /// Fetches the set, for ever.
    pub(crate) async fn keep_fetching(self: Arc<Self>, client: Client, counts: Arc<AuthCounts>) {
        loop {
            let began = Instant::now();
            let outcome = match timeout(FETCH_TIMEOUT, fetch(&client)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(FetchError::Timeout),
            };
            let succeeded = outcome.is_ok();
            counts.fetches.count(usize::from(!succeeded));
            match &outcome {
                Ok(set) if set.len() != self.set().len() => {
                    info!(keys = set.len(), "keys of tokens fetched");
                }
                Ok(_) => {}
                Err(error) => {
                    let kept = self.set().len();
                    warn!(error = error as &dyn std::error::Error, kept, "no keys of tokens came");
                }
            }
            self.state.send_modify(|state| {
                state.fetch = Some((began, succeeded));
                if let Ok(set) = outcome {
                    state.set = Arc::new(set);
                }
            });
            let ended = Instant::now();
            // A tenth is left to chance, so that edges that start together do not ask together.
            let interval = if succeeded { FETCH_INTERVAL } else { RETRY_INTERVAL };
            let interval = interval.mul_f64(1.0 - 0.1 * crate::random::fraction());
            tokio::select! {
                () = sleep_until(ended + interval) => {}
                () = self.wanted.notified() => sleep_until(began + FETCH_PAUSE).await,
            }
        }
    }
}

async fn fetch(client: &Client) -> Result<KeySet, FetchError> {
    let answer = client.get(SET_BYTES_MAX).await?;
    match answer.status {
        StatusCode::OK => Ok(KeySet::from_jwks(&answer.body)?),
        status => Err(FetchError::Status(status)),
    }
}
