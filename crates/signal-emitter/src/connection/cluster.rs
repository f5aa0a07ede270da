//! A Redis Cluster: one connection to each master, and the table of who owns which slots.
//!
//! Each master has a client of its own, so that one that is dead holds nobody else up. (The client's
//! own cluster mode serves no master while it cannot connect to one of them.) The table is what
//! `CLUSTER SLOTS` of some server said last, and what `MOVED` has said since; it is asked for again
//! every few seconds, and several times a second while something is wrong. Bounded by the masters
//! that a server names.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use parking_lot::Mutex;
use signal_core::{channel::slot, redis::PubSub};
use tokio::{
    sync::Notify,
    task::{AbortHandle, JoinSet},
    time::Instant,
};
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    access::Access,
    link::spread,
    node::{Failure, Log, Node},
    route::Route,
    slots::{Address, Slots},
};

/// While all is well; `MOVED` and lost connections are acted on at once.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

/// While a master is away or its successor unknown.
const REFRESH_INTERVAL_AWAY: Duration = Duration::from_millis(250);

/// While no server answers, the interval grows to this.
const REFRESH_INTERVAL_LOST: Duration = Duration::from_secs(2);

/// After `MOVED`: many messages say the same.
const REFRESH_DELAY: Duration = Duration::from_millis(20);

/// How often the state of connecting is looked at.
const CONNECT_POLL: Duration = Duration::from_millis(5);

/// A cluster; see the module.
pub(super) struct Cluster {
    access: Arc<Access>,
    seeds: Vec<Address>,
    pubsub: PubSub,
    table: Mutex<Table>,
    /// The table may be out of date.
    stale: Notify,
    /// Which server to ask, or to publish to, first: emitters spread over the servers.
    turn: AtomicUsize,
    /// No server answers; said once.
    lost: AtomicBool,
    watching: Mutex<Option<AbortHandle>>,
}

#[derive(Default)]
struct Table {
    slots: Slots,
    /// What `MOVED` has said since.
    moved: HashMap<u16, Address>,
    /// The masters.
    nodes: HashMap<Address, Arc<Node>>,
    /// With classic pub/sub, the server that takes everything: any one reaches all subscribers, and
    /// staying with one keeps the order.
    home: Option<Arc<Node>>,
}

// === impl Cluster ===

impl Cluster {
    pub(super) fn new(access: Arc<Access>, seeds: Vec<Address>, pubsub: PubSub) -> Self {
        let [turn, ..] = Uuid::new_v4().into_bytes();
        Self {
            access,
            seeds,
            pubsub,
            table: Mutex::default(),
            stale: Notify::new(),
            turn: AtomicUsize::new(usize::from(turn)),
            lost: AtomicBool::new(false),
            watching: Mutex::default(),
        }
    }

    /// Keeps the table up to date until [`Cluster::abort`].
    pub(super) fn watch(&self, route: &Arc<Route>) {
        let task = tokio::spawn(watch(route.clone()));
        *self.watching.lock() = Some(task.abort_handle());
    }

    pub(super) fn pubsub(&self) -> PubSub {
        self.pubsub
    }

    pub(super) fn seeds(&self) -> String {
        let seeds: Vec<_> = self.seeds.iter().map(ToString::to_string).collect();
        seeds.join(",")
    }

    /// Waits until everything is connected that can be: no attempt is under way, and one has worked.
    pub(super) async fn connected(&self) {
        loop {
            {
                let table = self.table.lock();
                let mut nodes = table.nodes.values();
                if nodes.any(|node| node.is_connected())
                    && !table.nodes.values().any(|node| node.is_connecting())
                {
                    return;
                }
            }
            tokio::time::sleep(CONNECT_POLL).await;
        }
    }

    pub(super) fn node(&self, channel: &str) -> Option<Arc<Node>> {
        match self.pubsub {
            PubSub::Classic => self.home(),
            PubSub::Sharded => self.owner(channel),
        }
    }

    /// The master of a key's slot.
    pub(super) fn owner(&self, key: &str) -> Option<Arc<Node>> {
        let slot = slot(key);
        let table = self.table.lock();
        let address = table.moved.get(&slot).or_else(|| table.slots.owner(slot));
        let node = address.and_then(|address| table.nodes.get(address)).cloned();
        if !node.as_ref().is_some_and(|node| node.is_connected()) {
            self.stale.notify_one();
        }
        node
    }

    fn home(&self) -> Option<Arc<Node>> {
        let mut table = self.table.lock();
        if let Some(home) = &table.home
            && home.is_connected()
        {
            return Some(home.clone());
        }
        if table.home.is_some() {
            self.stale.notify_one();
        }
        let connected: Vec<_> =
            table.nodes.values().filter(|node| node.is_connected()).cloned().collect();
        if !connected.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            table.home = Some(connected[turn % connected.len()].clone());
        }
        table.home.clone()
    }

    /// `MOVED slot address`: the slot is there now.
    pub(super) fn moved(&self, text: &str, address: Address) {
        self.stale.notify_one();
        let Some(slot) = text.split(' ').nth(1).and_then(|slot| slot.parse().ok()) else { return };
        let mut table = self.table.lock();
        if !table.nodes.contains_key(&address) {
            let node = Node::start(&self.access, address.clone(), Log::Changes);
            table.nodes.insert(address.clone(), Arc::new(node));
        }
        table.moved.insert(slot, address);
    }

    /// Whether messages can go out: with sharded pub/sub to every owner of slots, else to any server.
    pub(super) fn is_connected(&self) -> bool {
        if self.pubsub == PubSub::Classic {
            return self.is_any_connected();
        }
        let table = self.table.lock();
        let is_connected =
            |address| table.nodes.get(address).is_some_and(|node| node.is_connected());
        let masters = table.slots.masters();
        !masters.is_empty() && masters.into_iter().all(is_connected)
    }

    /// Whether any server is connected.
    pub(super) fn is_any_connected(&self) -> bool {
        self.table.lock().nodes.values().any(|node| node.is_connected())
    }

    /// Ends the connections and the watch over them.
    pub(super) fn abort(&self) {
        if let Some(watching) = self.watching.lock().take() {
            watching.abort();
        }
        let table = self.table.lock();
        table.nodes.values().chain(&table.home).for_each(|node| node.abort());
    }

    pub(super) async fn quit(&self) {
        if let Some(watching) = self.watching.lock().take() {
            watching.abort();
        }
        let nodes: Vec<_> = {
            let mut table = self.table.lock();
            let home = table.home.take();
            table.nodes.drain().map(|(_, node)| node).chain(home).collect()
        };
        join_all(nodes.iter().map(|node| node.quit())).await;
    }

    /// Asks for the table; returns whether a server gave it.
    async fn refresh(&self) -> bool {
        let mut nodes: Vec<_> = {
            let table = self.table.lock();
            table.nodes.values().filter(|node| node.is_connected()).cloned().collect()
        };
        if !nodes.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % nodes.len();
            nodes.rotate_left(turn);
        }
        for node in nodes {
            if let Some(slots) = ask(&node).await {
                self.apply(slots);
                return true;
            }
        }
        self.ask_seeds().await
    }

    /// All at once: the first that answers is as good as any.
    async fn ask_seeds(&self) -> bool {
        let mut asked = JoinSet::new();
        for seed in &self.seeds {
            let node = Node::start(&self.access, seed.clone(), Log::Nothing);
            let until = Instant::now() + self.access.timeout();
            asked.spawn(async move {
                if !node.settled(until).await {
                    return None;
                }
                ask(&node).await
            });
        }
        while let Some(answer) = asked.join_next().await {
            if let Ok(Some(slots)) = answer {
                self.apply(slots);
                return true;
            }
        }
        false
    }

    /// Takes a table over: connects to masters that are new, and lets go of those that are none.
    fn apply(&self, slots: Slots) {
        let mut table = self.table.lock();
        let masters = slots.masters();
        table.nodes.retain(|address, _| masters.contains(address));
        for master in masters {
            if table.nodes.contains_key(master) {
                continue;
            }
            let node = Node::start(&self.access, master.clone(), Log::Changes);
            table.nodes.insert(master.clone(), Arc::new(node));
        }
        // One that is a replica now still reaches everybody; one that has left reaches nobody.
        if table.home.as_ref().is_some_and(|home| !slots.has(home.address())) {
            table.home = None;
        }
        table.moved.clear();
        table.slots = slots;
    }

    /// Says once that no server answers, and that one does again.
    fn note(&self, fresh: bool) {
        let lost = self.lost.swap(!fresh, Ordering::Relaxed);
        match (lost, fresh) {
            (false, false) => warn!(seeds = self.seeds(), "no server of the redis cluster answers"),
            (true, true) => info!("the redis cluster answers again"),
            _ => {}
        }
    }
}

async fn ask(node: &Node) -> Option<Slots> {
    let answer = node.command("CLUSTER", vec!["SLOTS".to_owned()]).await;
    match answer {
        Ok(answer) => Slots::read(&answer, node.address()),
        Err(Failure::Refused(error)) => {
            warn!(error, server = %node.address(), "redis does not tell its cluster's slots");
            None
        }
        Err(_) => None,
    }
}

/// Refreshes for ever.
async fn watch(route: Arc<Route>) {
    let Route::Cluster(cluster) = &*route else { return };
    let mut pause = REFRESH_INTERVAL_AWAY;
    loop {
        let fresh = cluster.refresh().await;
        cluster.note(fresh);
        pause = match (fresh, cluster.is_connected()) {
            (true, true) => REFRESH_INTERVAL,
            (true, false) => REFRESH_INTERVAL_AWAY,
            (false, _) => REFRESH_INTERVAL_LOST.min(2 * pause),
        };
        tokio::select! {
            () = tokio::time::sleep(spread(pause)) => {}
            () = cluster.stale.notified() => tokio::time::sleep(REFRESH_DELAY).await,
        }
    }
}
