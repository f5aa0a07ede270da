//! A worker's links to the nodes of Redis, and which of them carries which channel.
//!
//! With one Redis, or with classic pub/sub in a cluster (which copies every message to every node),
//! one link carries everything; with sharded pub/sub there is a link to each master that owns a
//! partition. It owns the tables of the links and moves channels between them when the topology
//! changes: the new owner is asked first, and the old one keeps a channel until the new one has
//! confirmed it. What the old one brings after that counts for nothing: it may be a replica by now, which
//! hands on what its master hands on too, and later, so that messages would come twice or behind younger
//! ones. A master that is known to have become a replica keeps nothing. What is missed by a move is
//! announced. With classic
//! pub/sub the old link goes first, and what was missed meanwhile is announced. Channels without an
//! owner wait in the table of a link to nowhere, which is down, so that nothing of it looks well. It
//! does no IO and spawns nothing: the caller opens links and is told what moved.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use signal_core::channel::PARTITIONS;
use slab::Slab;
use tokio::task::AbortHandle;

use super::Subscriptions;
use super::names::WireNames;
use super::topology::{Node, Topology};
use crate::bus::{ChannelKey, LinkState, LinkStatus, LinkStatuses};

/// A link of a worker; the place is used again when the link is gone.
pub(crate) type LinkId = usize;

/// With classic pub/sub in a cluster, a link that has been down for longer goes to another master.
const CHANGE_AFTER: Duration = Duration::from_secs(1);

/// Numbers tried to find a probe in a slot of a node: a node with one partition of 256 is missed by
/// all of them once in 10^14 times.
const PROBE_NUMBERS: u16 = 8192;

/// The links; see the module.
#[derive(Debug)]
pub(crate) struct Links {
    names: WireNames,
    /// The worker's number, by which workers spread over masters.
    worker: usize,
    open: Slab<Link>,
    /// The link of each partition.
    carriers: Vec<LinkId>,
    /// Channels that their new link has not confirmed, and the earlier one that still has them.
    kept: HashMap<ChannelKey, LinkId>,
    /// Some link may have nothing to do any more.
    may_be_idle: bool,
    /// Where the links' states are published.
    statuses: Arc<LinkStatuses>,
}

#[derive(Debug)]
struct Link {
    /// `None`: nowhere.
    node: Option<Arc<Node>>,
    table: Subscriptions,
    status: Arc<LinkStatus>,
    /// The probe that is wanted, if any.
    probe: Option<u16>,
    task: Option<AbortHandle>,
    /// Partitions that it carries.
    partitions: usize,
    /// Channels that it keeps for others.
    kept: usize,
    /// Channels have moved away from it, and may still be on their way out.
    lets_go: bool,
}

/// What a new topology changed.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// Links to open.
    pub(crate) opened: Vec<(LinkId, Arc<Node>)>,
    /// Channels of which messages may be missed until they are confirmed again.
    pub(crate) moved: Vec<ChannelKey>,
}

// === impl Links ===

impl Links {
    /// Without a topology yet: everything waits.
    pub(crate) fn new(names: WireNames, worker: usize, statuses: Arc<LinkStatuses>) -> Self {
        let mut links = Self {
            names,
            worker,
            open: Slab::new(),
            carriers: vec![0; PARTITIONS],
            kept: HashMap::new(),
            may_be_idle: false,
            statuses,
        };
        let nowhere = links.link_to(None, &mut Applied::default());
        links.open[nowhere].partitions = PARTITIONS;
        links
    }

    /// The names of channels.
    pub(crate) fn names(&self) -> &WireNames {
        &self.names
    }

    /// Begins to listen; returns whether that is confirmed already.
    pub(crate) fn want(&mut self, key: ChannelKey) -> bool {
        let partition = self.names.partition(&key);
        self.open[self.carriers[usize::from(partition)]].table.want(key, partition)
    }

    /// Stops listening.
    pub(crate) fn unwant(&mut self, key: &ChannelKey) {
        let carrier = self.carrier(key);
        self.open[carrier].table.unwant(key);
        self.release(key);
    }

    /// Channels wanted and confirmed.
    pub(crate) fn counts(&self) -> (usize, usize) {
        self.open.iter().fold((0, 0), |(wanted, confirmed), (_, link)| {
            let counts = link.table.counts();
            (wanted + counts.0, confirmed + counts.1)
        })
    }

    /// The link that carries a channel.
    pub(crate) fn carrier(&self, key: &ChannelKey) -> LinkId {
        self.carriers[usize::from(self.names.partition(key))]
    }

    /// The table of a link.
    pub(crate) fn table(&mut self, link: LinkId) -> &mut Subscriptions {
        &mut self.open[link].table
    }

    /// The published state of a link.
    pub(crate) fn status(&self, link: LinkId) -> &Arc<LinkStatus> {
        &self.open[link].status
    }

    /// Whether a channel, named without its tag, has moved away from a link: what it still brings comes
    /// too late.
    pub(crate) fn has_let_go(&mut self, link: LinkId, channel: &[u8]) -> bool {
        let link = &mut self.open[link];
        // Nothing is on its way out any more.
        link.lets_go &= link.table.state() != LinkState::Confirmed;
        link.lets_go && self.names.key(channel).is_some_and(|key| link.table.has_let_go(&key))
    }

    /// The number of the probe that a link is to send.
    pub(crate) fn probe(&self, link: LinkId) -> Option<ChannelKey> {
        self.open[link].probe.map(ChannelKey::Probe)
    }

    /// The task that drives a link; it ends with the link.
    pub(crate) fn set_task(&mut self, link: LinkId, task: AbortHandle) {
        self.open[link].task = Some(task);
    }

    /// Publishes where a link stands.
    pub(crate) fn note_state(&self, link: LinkId) {
        self.open[link].note_state();
    }

    /// A link's node has confirmed a channel; returns whether anybody is to be told, which is not so
    /// if the link only keeps it for another.
    pub(crate) fn confirmed(&mut self, link: LinkId, key: &ChannelKey) -> bool {
        if self.carrier(key) != link {
            return false;
        }
        self.release(key);
        true
    }

    /// A link's connection is gone.
    pub(crate) fn lost(&mut self, link: LinkId) {
        self.open[link].table.disconnected();
        self.note_state(link);
        self.may_be_idle |= self.open[link].partitions == 0;
    }

    /// Follows a new topology.
    pub(crate) fn apply(&mut self, topology: &Topology) -> Applied {
        let mut applied = Applied::default();
        let classic = (!self.names.is_sharded()).then(|| self.choose(topology));
        let mut carriers = Vec::with_capacity(PARTITIONS);
        for partition in 0..=u8::MAX {
            let node = match &classic {
                Some(node) => node.clone(),
                None => topology.owner(partition).cloned(),
            };
            carriers.push(self.link_to(node, &mut applied));
        }
        let earlier = std::mem::replace(&mut self.carriers, carriers);
        for (_, link) in &mut self.open {
            link.partitions = 0;
        }
        for carrier in &self.carriers {
            self.open[*carrier].partitions += 1;
        }
        self.move_channels(&earlier, topology, &mut applied.moved);
        self.choose_probes();
        self.may_be_idle = true;
        self.close_idle();
        for (_, link) in &mut self.open {
            link.table.retry_postponed();
            link.note_state();
        }
        applied
    }

    /// The one node of classic pub/sub: the present one, as long as it is a master that answers.
    fn choose(&self, topology: &Topology) -> Option<Arc<Node>> {
        let masters = topology.masters();
        let present = &self.open[self.carriers[0]];
        if let Some(node) = &present.node {
            let (state, lasted) = present.status.get();
            let is_down = state == LinkState::Down && lasted > CHANGE_AFTER && masters.len() > 1;
            if masters.contains(node) && !is_down {
                return Some(node.clone());
            }
            let next = masters.iter().position(|master| master == node).map_or(0, |at| at + 1);
            return masters.get(next % masters.len().max(1)).cloned();
        }
        masters.get(self.worker % masters.len().max(1)).cloned()
    }

    /// The link to a node, opened if there is none.
    fn link_to(&mut self, node: Option<Arc<Node>>, applied: &mut Applied) -> LinkId {
        if let Some((id, _)) = self.open.iter().find(|(_, link)| link.node == node) {
            return id;
        }
        let name = node.as_ref().map_or_else(|| "no master".to_owned(), ToString::to_string);
        let status = self.statuses.open(self.worker, name, LinkState::Down);
        let id = self.open.insert(Link {
            node: node.clone(),
            table: Subscriptions::default(),
            status,
            probe: None,
            task: None,
            partitions: 0,
            kept: 0,
            lets_go: false,
        });
        applied.opened.extend(node.map(|node| (id, node)));
        id
    }

    /// Moves what is wanted from the earlier carriers of partitions to the present ones.
    fn move_channels(
        &mut self,
        earlier: &[LinkId],
        topology: &Topology,
        moved: &mut Vec<ChannelKey>,
    ) {
        let leaves = |partition: u8, from| {
            let partition = usize::from(partition);
            earlier[partition] == from && self.carriers[partition] != from
        };
        let mut leaving: Vec<(LinkId, ChannelKey, u8)> = Vec::new();
        for (from, link) in &self.open {
            let wanted = link.table.wanted(|partition| leaves(partition, from));
            leaving.extend(
                wanted
                    .filter(|(key, _)| !matches!(key, ChannelKey::Probe(_)))
                    .map(|(key, partition)| (from, key.clone(), partition)),
            );
        }
        for (from, key, partition) in leaving {
            let to = self.carriers[usize::from(partition)];
            let link = &mut self.open[from];
            let is_master =
                link.node.as_ref().is_some_and(|node| topology.masters().contains(node));
            if is_master && self.names.is_sharded() && link.table.is_confirmed(&key) {
                self.kept.insert(key.clone(), from);
                self.open[from].kept += 1;
            } else {
                self.open[from].let_go(&key);
            }
            if self.kept.get(&key) == Some(&to) {
                // Moved back before it was let go.
                self.kept.remove(&key);
                self.open[to].kept -= 1;
            }
            let was_somewhere = self.open[from].node.is_some();
            if self.open[to].table.want(key.clone(), partition) {
                self.release(&key);
            }
            if was_somewhere {
                moved.push(key);
            }
        }
    }

    /// The earlier link of a channel lets it go.
    fn release(&mut self, key: &ChannelKey) {
        let Some(keeper) = self.kept.remove(key) else { return };
        let link = &mut self.open[keeper];
        link.kept -= 1;
        link.let_go(key);
        self.may_be_idle |= link.kept == 0 && link.partitions == 0;
    }

    /// Each link probes on a channel that its node carries.
    fn choose_probes(&mut self) {
        for (id, link) in &mut self.open {
            let carried = |number: u16| {
                let partition = self.names.partition(&ChannelKey::Probe(number));
                (self.carriers[usize::from(partition)] == id).then_some((number, partition))
            };
            if link.partitions == 0 || link.node.is_none() || link.probe.and_then(carried).is_some()
            {
                continue;
            }
            if let Some(number) = link.probe.take() {
                link.table.unwant(&ChannelKey::Probe(number));
            }
            if let Some((number, partition)) = (0..PROBE_NUMBERS).find_map(carried) {
                link.probe = Some(number);
                link.table.want(ChannelKey::Probe(number), partition);
            }
        }
    }

    /// Ends links that carry nothing and keep nothing. Never called by what drives a link.
    pub(crate) fn close_idle(&mut self) {
        if !std::mem::take(&mut self.may_be_idle) {
            return;
        }
        let statuses = &self.statuses;
        self.open.retain(|_, link| {
            let is_down = link.table.state() == LinkState::Down;
            if link.partitions > 0 || (link.kept > 0 && !is_down) {
                return true;
            }
            if let Some(task) = link.task.take() {
                task.abort();
            }
            statuses.close(&link.status);
            false
        });
        let open = &self.open;
        self.kept.retain(|_, keeper| open.contains(*keeper));
    }
}

// === impl Link ===

impl Link {
    fn let_go(&mut self, key: &ChannelKey) {
        self.table.unwant(key);
        self.lets_go = true;
    }

    fn note_state(&self) {
        self.status.set(self.table.state(), self.table.is_delivering());
    }
}

#[cfg(test)]
#[path = "links_tests.rs"]
mod tests;
