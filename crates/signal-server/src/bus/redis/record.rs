//! The edge's record of itself in Redis, which emitters look for when they connect.
//!
//! Owns the task that renews the record's lease, and takes the record away at the end of a drain. The
//! record says that the edge hears: it waits until the links deliver, so that what emitters
//! held while Redis was away is not sent too early. It must never affect delivery: what fails is
//! counted, logged once per change, and tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use signal_core::edges::EdgeRecord;
use signal_emitter::{Connection, EmitterError};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::bus::LinkStatuses;

/// How long a record is good without being renewed: an edge that was killed is gone after that.
const LEASE: Duration = Duration::from_secs(15);

/// Two renewals may fail before the lease is over.
const RENEW_INTERVAL: Duration = Duration::from_secs(5);

/// How often the links are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// An edge that hears only a part for longer than this, as while a master of a cluster is dead, hears
/// the rest.
const NOT_DELIVERING_MAX: Duration = Duration::from_secs(5);

/// The record; see the module.
#[derive(Debug)]
pub(crate) struct Record {
    edge: EdgeRecord,
    connection: Arc<Connection>,
    failures: Arc<AtomicU64>,
    task: AbortHandle,
}

// === impl Record ===

impl Record {
    /// Begins to write the record. Must be called within a tokio runtime, which carries it.
    pub(crate) fn start(
        connection: Arc<Connection>,
        edge: EdgeRecord,
        links: Arc<LinkStatuses>,
    ) -> Self {
        let failures = Arc::new(AtomicU64::new(0));
        let task = renew(connection.clone(), edge.clone(), links, failures.clone());
        let task = tokio::spawn(task);
        Self { edge, connection, failures, task: task.abort_handle() }
    }

    /// How often it could not be written.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Takes it away, if Redis is there.
    pub(crate) async fn remove(&self) {
        self.task.abort();
        if let Err(error) = self.connection.remove_edge(&self.edge).await {
            warn!(%error, "the edge's record in redis stays until its lease is over");
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn renew(
    connection: Arc<Connection>,
    edge: EdgeRecord,
    links: Arc<LinkStatuses>,
    failures: Arc<AtomicU64>,
) {
    let mut failing = false;
    // Since when something does not arrive.
    let mut deaf = Some(Instant::now());
    let mut due = Instant::now();
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        if !links.are_delivering() {
            let since = *deaf.get_or_insert_with(Instant::now);
            if since.elapsed() < NOT_DELIVERING_MAX {
                continue;
            }
        } else if deaf.take().is_some() {
            // Redis may have lost the record with everything else.
            due = Instant::now();
        }
        if Instant::now() < due {
            continue;
        }
        match connection.write_edge(&edge, LEASE).await {
            Ok(()) => {
                if std::mem::take(&mut failing) {
                    info!("the edge's record in redis is written again");
                }
                due = Instant::now() + RENEW_INTERVAL;
            }
            // That Redis is away is said already.
            Err(EmitterError::Disconnected) => {}
            Err(error) => {
                failures.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut failing, true) {
                    warn!(%error, "cannot write the edge's record in redis");
                }
                // What Redis has refused it will refuse again.
                if matches!(error, EmitterError::Redis(_)) {
                    due = Instant::now() + RENEW_INTERVAL;
                }
            }
        }
    }
}
