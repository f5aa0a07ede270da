//! Follows the topology of a Redis Cluster, and tells the workers.
//!
//! It asks one node after another, beginning with those it knows, and goes on for ever; it is asked to
//! look sooner when a link breaks or Redis says that a slot has moved. It owns the merged view; it
//! never touches a link, and a node that does not answer costs it one timeout. At rest it asks once a
//! probe interval. With classic pub/sub, where the nodes hand messages to one another, it asks every
//! master whom it hears: no link notices when one does not hear another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use signal_core::redis::{PubSub, RedisMode};
use signal_emitter::connection::access::{Access, LinkError};
use signal_emitter::connection::resp;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::{debug, info};

use super::topology::{Node, NotAView, Topology, View};
use crate::server::Shared;
use crate::worker::{Command, ResyncReason};

/// Between questions while something is not as it should be.
const URGENT_INTERVAL: Duration = Duration::from_millis(500);

/// Asking one node takes no longer than this, connecting included.
const VIEW_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes of an answer to `CLUSTER NODES`: a thousand nodes with scattered slots stay below.
const VIEW_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Between questions at the least, however often it is asked to look.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// What is known of a cluster by all threads.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    asked: Notify,
    problems: Mutex<Vec<String>>,
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
        self.problems.lock().clone()
    }
}

/// Why a node did not say what the cluster is like.
#[derive(Debug, thiserror::Error)]
enum Unseen {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    NotAView(#[from] NotAView),
}

/// What asking the cluster brought.
#[derive(Default)]
struct Look {
    /// Whether anything is different; `None` if no node answers.
    changed: Option<bool>,
    /// Which node does not hear which master.
    unheard: Vec<(Arc<Node>, Arc<Node>)>,
}

/// Follows the topology until it is aborted.
pub(crate) async fn run(shared: Arc<Shared>) {
    let Some(access) = &shared.redis else { return };
    let RedisMode::Cluster { nodes: seeds } = &access.settings().mode else { return };
    let seeds: Vec<_> = seeds
        .iter()
        .map(|(host, port)| Arc::new(Node { host: host.clone(), port: *port }))
        .collect();
    let is_classic = access.settings().pubsub == PubSub::Classic;
    let watch = &shared.watch;
    let mut topology = Topology::unknown();
    let (mut turn, mut was_cut) = (0, false);
    loop {
        let mut look = Look::default();
        if is_classic {
            look = look_at_all(access, &mut topology).await;
        }
        if look.changed.is_none() {
            look = look_at_one(access, &seeds, &mut topology, &mut turn).await;
        }
        let is_settled = shared.links.are_delivering();
        if let Some(changed) = look.changed {
            watch.known.store(true, Ordering::Relaxed);
            if changed {
                info!(masters = topology.masters().len(), "redis cluster topology changed");
            }
            // Unchanged it is news too: what waits for a change tries again.
            if changed || !is_settled {
                tell(&shared, || Command::Topology(Arc::new(topology.clone())));
            }
        }
        let is_cut = is_classic && !look.unheard.is_empty();
        if was_cut && !is_cut && look.changed.is_some() {
            tell(&shared, || Command::Resync(None, ResyncReason::Bus));
        }
        was_cut = is_cut || (was_cut && look.changed.is_none());
        *watch.problems.lock() = problems(&topology, is_classic, &look);
        let interval = match is_settled && !is_cut {
            true => shared.config.bus_probe_interval,
            false => URGENT_INTERVAL,
        };
        tokio::time::sleep(INTERVAL_MIN).await;
        let _ = timeout(interval, watch.asked.notified()).await;
    }
}

fn tell(shared: &Shared, command: impl Fn() -> Command) {
    for queue in &shared.queues {
        queue.control(command());
    }
}

fn problems(topology: &Topology, is_classic: bool, look: &Look) -> Vec<String> {
    let failed = topology.failed().iter().map(|node| format!("redis master {node} is unreachable"));
    let unheard = look.unheard.iter().filter(|_| is_classic);
    let unheard = unheard.map(|(node, other)| format!("redis {node} does not hear {other}"));
    failed.chain(unheard).collect()
}

/// Asks the next node that answers.
async fn look_at_one(
    access: &Access,
    seeds: &[Arc<Node>],
    topology: &mut Topology,
    turn: &mut usize,
) -> Look {
    let known = topology.masters().to_vec();
    *turn = turn.wrapping_add(1);
    let rotated = known.iter().cycle().skip(*turn % known.len().max(1)).take(known.len());
    for node in rotated.chain(seeds) {
        match view(access, node).await {
            Ok(view) => return Look { changed: Some(topology.merge(&view)), unheard: Vec::new() },
            Err(error) => debug!(%node, %error, "a node did not say what the cluster is like"),
        }
    }
    Look::default()
}

/// Asks a node.
async fn view(access: &Access, node: &Node) -> Result<View, Unseen> {
    let asked = async {
        let mut stream = access.connect(&node.host, node.port).await?;
        let answer = stream.call(&[b"CLUSTER", b"NODES"], VIEW_BYTES_MAX).await?;
        Ok(View::parse(resp::text(&answer).unwrap_or_default(), node)?)
    };
    timeout(VIEW_TIMEOUT, asked).await.unwrap_or(Err(Unseen::Link(LinkError::ConnectTimeout)))
}

/// Asks every master at once.
async fn look_at_all(access: &Access, topology: &mut Topology) -> Look {
    let masters = topology.masters().to_vec();
    let views = masters.iter().map(|node| view(access, node));
    let mut look = Look::default();
    for (node, view) in masters.iter().zip(join_all(views).await) {
        match view {
            Ok(view) => {
                look.changed = Some(topology.merge(&view) | look.changed.unwrap_or(false));
                let unheard = view.unheard.iter().map(|other| (node.clone(), other.clone()));
                look.unheard.extend(unheard);
            }
            Err(error) => debug!(%node, %error, "a node did not say what the cluster is like"),
        }
    }
    look
}
