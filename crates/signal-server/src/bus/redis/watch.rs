//! Follows the topology of a Redis Cluster, and tells the workers.
//!
//! It asks one node after another, beginning with those it knows, and goes on for ever; it is asked to
//! look sooner when a link breaks or Redis says that a slot has moved. It owns the merged view; it
//! never touches a link, and a node that does not answer costs it one timeout. At rest it asks once a
//! probe interval.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use signal_core::redis::RedisMode;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::{debug, info};

use super::stream::Access;
use super::topology::{Node, Topology};
use crate::server::Shared;
use crate::worker::Command;

/// Between questions while something is not as it should be.
const URGENT_INTERVAL: Duration = Duration::from_millis(500);

/// Between questions at the least, however often it is asked to look.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// What is known of a cluster by all threads.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    asked: Notify,
    /// Masters with slots that the cluster has given up on.
    failed: Mutex<Vec<Arc<Node>>>,
    /// Some node has answered.
    known: AtomicBool,
}

// === impl Watch ===

impl Watch {
    /// Asks to look soon: something has changed, or may have.
    pub(crate) fn ask(&self) {
        self.asked.notify_one();
    }

    /// Why the cluster makes an edge not ready.
    pub(crate) fn problems(&self) -> Vec<String> {
        if !self.known.load(Ordering::Relaxed) {
            return vec!["no node of the redis cluster has answered yet".to_owned()];
        }
        let failed = self.failed.lock();
        failed.iter().map(|node| format!("redis master {node} is unreachable")).collect()
    }
}

/// Follows the topology until it is aborted.
pub(crate) async fn run(shared: Arc<Shared>) {
    let Some(access) = &shared.redis else { return };
    let RedisMode::Cluster { nodes: seeds } = &access.settings().mode else { return };
    let seeds: Vec<_> = seeds
        .iter()
        .map(|(host, port)| Arc::new(Node { host: host.clone(), port: *port }))
        .collect();
    let watch = &shared.watch;
    let mut topology = Topology::unknown();
    let mut turn = 0;
    loop {
        let changed = look(access, &seeds, &mut topology, &mut turn).await;
        let is_settled = shared.links.are_delivering();
        if let Some(changed) = changed {
            watch.known.store(true, Ordering::Relaxed);
            *watch.failed.lock() = topology.failed().to_vec();
            if changed {
                info!(masters = topology.masters().len(), "redis cluster topology changed");
            }
            // Unchanged it is news too: what waits for a change tries again.
            if changed || !is_settled {
                let topology = Arc::new(topology.clone());
                for queue in &shared.queues {
                    queue.control(Command::Topology(topology.clone()));
                }
            }
        }
        let interval = if is_settled { shared.config.bus_probe_interval } else { URGENT_INTERVAL };
        tokio::time::sleep(INTERVAL_MIN).await;
        let _ = timeout(interval, watch.asked.notified()).await;
    }
}

/// Asks the next node that answers; returns whether anything is different, or `None` if none answers.
async fn look(
    access: &Access,
    seeds: &[Arc<Node>],
    topology: &mut Topology,
    turn: &mut usize,
) -> Option<bool> {
    let known = topology.masters().to_vec();
    *turn = turn.wrapping_add(1);
    let rotated = known.iter().cycle().skip(*turn % known.len().max(1)).take(known.len());
    let candidates: Vec<_> = rotated.chain(seeds).cloned().collect();
    for node in candidates {
        match access.view(&node).await {
            Ok(view) => return Some(topology.merge(&view)),
            Err(error) => debug!(%node, %error, "a node did not say what the cluster is like"),
        }
    }
    None
}
