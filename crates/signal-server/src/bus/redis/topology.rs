//! Which Redis node carries which partition of the bus.
//!
//! With one Redis it is all of them; in a cluster it is what `CLUSTER NODES` says, merged over time. It
//! owns the merged view and never does IO. Nodes may be asked in any order and may be behind: the
//! owner with the higher configuration epoch wins, which is the cluster's own rule, so an old view
//! never undoes a newer one. Its size is that of the cluster.

use std::fmt;
use std::sync::Arc;

use signal_core::channel::{PARTITIONS, TAGS, slot};

/// The address of a Redis.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Node {
    /// Name or address.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
}

/// The merged view; see the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topology {
    owners: Vec<Option<Owner>>,
    /// Masters that the cluster takes for reachable, sorted.
    masters: Vec<Arc<Node>>,
    /// Masters with slots that the cluster has given up on.
    failed: Vec<Arc<Node>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    node: Arc<Node>,
    /// The node's id in the cluster; addresses can move.
    id: Arc<str>,
    epoch: u64,
}

/// What one node says of the cluster.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct View {
    masters: Vec<Master>,
    /// The epoch of every node, replicas included.
    epochs: Vec<(Arc<str>, u64)>,
    /// Masters with slots that the node asked has no word from.
    pub(super) unheard: Vec<Arc<Node>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Master {
    id: Arc<str>,
    node: Arc<Node>,
    failed: bool,
    epoch: u64,
    /// First and last slot of each range.
    slots: Vec<(u16, u16)>,
}

/// An answer that is no view of a cluster.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an answer to CLUSTER NODES: {0:?}")]
pub(super) struct NotAView(String);

// === impl Node ===

impl fmt::Display for Node {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(formatter, "[{}]:{}", self.host, self.port),
            false => write!(formatter, "{}:{}", self.host, self.port),
        }
    }
}

// === impl Topology ===

impl Topology {
    /// Nothing is known yet.
    pub(crate) fn unknown() -> Self {
        Self { owners: vec![None; PARTITIONS], masters: Vec::new(), failed: Vec::new() }
    }

    /// One Redis carries everything.
    pub(crate) fn single(host: &str, port: u16) -> Self {
        let node = Arc::new(Node { host: host.to_owned(), port });
        let owner = Owner { node: node.clone(), id: "".into(), epoch: 0 };
        Self { owners: vec![Some(owner); PARTITIONS], masters: vec![node], failed: Vec::new() }
    }

    /// The node that carries a partition.
    pub(crate) fn owner(&self, partition: u8) -> Option<&Arc<Node>> {
        self.owners[usize::from(partition)].as_ref().map(|owner| &owner.node)
    }

    /// Masters that the cluster takes for reachable.
    pub(crate) fn masters(&self) -> &[Arc<Node>] {
        &self.masters
    }

    /// Masters with slots that the cluster has given up on.
    pub(crate) fn failed(&self) -> &[Arc<Node>] {
        &self.failed
    }

    /// Takes in what a node says; returns whether anything is different now.
    pub(super) fn merge(&mut self, view: &View) -> bool {
        let before = self.clone();
        for (partition, owner) in self.owners.iter_mut().enumerate() {
            let slot = slot(TAGS[partition]);
            let candidate = view.masters.iter().find(|master| master.has(slot));
            let known = owner.as_ref().map(|owner| {
                let said = view.epochs.iter().find(|(id, _)| *id == owner.id);
                (owner.epoch, said.map(|(_, epoch)| *epoch))
            });
            match (candidate, known) {
                // A view from before the present owner became it.
                (Some(candidate), Some((epoch, Some(_)))) if candidate.epoch < epoch => {}
                (None, Some((epoch, Some(said)))) if said < epoch => {}
                (candidate, _) => *owner = candidate.map(Master::owner),
            }
        }
        let select = |failed| {
            let masters = view.masters.iter().filter(move |master| master.failed == failed);
            let mut nodes: Vec<_> = masters.map(|master| master.node.clone()).collect();
            nodes.sort_unstable();
            nodes
        };
        self.masters = select(false);
        self.failed = select(true);
        *self != before
    }
}

// === impl View ===

impl View {
    /// Reads the answer to `CLUSTER NODES` of the node `asked`, which may not know its own address.
    pub(super) fn parse(text: &str, asked: &Node) -> Result<Self, NotAView> {
        let (mut masters, mut epochs, mut unheard) = (Vec::new(), Vec::new(), Vec::new());
        for line in text.lines().filter(|line| !line.is_empty()) {
            let not_a_view = || NotAView(line.chars().take(200).collect());
            let fields: Vec<&str> = line.split(' ').collect();
            let [id, address, flags, _, _, _, epoch, state, slots @ ..] = fields.as_slice() else {
                return Err(not_a_view());
            };
            let id: Arc<str> = (*id).into();
            let epoch = epoch.parse().map_err(|_| not_a_view())?;
            epochs.push((id.clone(), epoch));
            let flags: Vec<&str> = flags.split(',').collect();
            if !flags.contains(&"master") || flags.contains(&"noaddr") {
                continue;
            }
            let failed = flags.contains(&"fail");
            let slots: Option<Vec<_>> = slots
                .iter()
                // What is on its way from or to another node still belongs to its owner.
                .filter(|slots| !slots.is_empty() && !slots.starts_with('['))
                .map(|slots| parse_range(slots))
                .collect();
            let slots = slots.ok_or_else(not_a_view)?;
            if failed && slots.is_empty() {
                // Replaced by its replica.
                continue;
            }
            let node = Arc::new(parse_node(address, asked).ok_or_else(not_a_view)?);
            let is_silent = flags.contains(&"fail?") || *state == "disconnected";
            if is_silent && !slots.is_empty() && !flags.contains(&"myself") {
                unheard.push(node.clone());
            }
            masters.push(Master { id, node, failed, epoch, slots });
        }
        match masters.is_empty() {
            true => Err(NotAView(text.chars().take(200).collect())),
            false => Ok(Self { masters, epochs, unheard }),
        }
    }
}

// === impl Master ===

impl Master {
    fn has(&self, slot: u16) -> bool {
        self.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    }

    fn owner(&self) -> Owner {
        Owner { node: self.node.clone(), id: self.id.clone(), epoch: self.epoch }
    }
}

/// `host:port@busport[,hostname]`, the host of which is empty while a node does not know its own.
fn parse_node(address: &str, asked: &Node) -> Option<Node> {
    let address = address.split([',', '@']).next()?;
    let (host, port) = address.rsplit_once(':')?;
    let host = if host.is_empty() { &asked.host } else { host };
    Some(Node { host: host.to_owned(), port: port.parse().ok().filter(|port| *port != 0)? })
}

/// `first-last`, or one slot.
fn parse_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.parse().ok()?, last.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: &str = "\
        aa 127.0.0.1:7000@17000 myself,master - 0 0 1 connected 0-5460 [5461->-bb]\n\
        bb 127.0.0.1:7001@17001,host-b master - 0 1 2 connected 5461-10922\n\
        cc 127.0.0.1:7002@17002 master - 0 1 3 connected 10923-16382 16383\n\
        dd 127.0.0.1:7003@17003 slave aa 0 1 1 connected\n\
        ee :0@0 master,noaddr - 1 1 0 disconnected\n";

    fn asked() -> Node {
        Node { host: "seed".to_owned(), port: 7000 }
    }

    fn view(text: &str) -> View {
        View::parse(text, &asked()).unwrap()
    }

    fn ports(topology: &Topology) -> Vec<Option<u16>> {
        [0, 128, 255].map(|partition| topology.owner(partition).map(|node| node.port)).to_vec()
    }

    #[test]
    fn a_view_says_who_owns_what() {
        let mut topology = Topology::unknown();
        assert!(topology.merge(&view(VIEW)));
        assert_eq!(ports(&topology), [Some(7000), Some(7001), Some(7002)]);
        assert_eq!(topology.masters().len(), 3);
        assert!(!topology.merge(&view(VIEW)), "nothing is new");
    }

    #[test]
    fn a_node_that_does_not_know_its_address_has_that_by_which_it_was_asked() {
        let mut topology = Topology::unknown();
        topology.merge(&view("aa :7000@17000 myself,master - 0 0 1 connected 0-16383"));
        assert_eq!(topology.owner(7).unwrap().to_string(), "seed:7000");
        topology.merge(&view("aa ::1:7000@17000 myself,master - 0 0 1 connected 0-16383"));
        assert_eq!(topology.owner(7).unwrap().to_string(), "[::1]:7000");
    }

    #[test]
    fn a_node_says_whom_it_does_not_hear() {
        assert_eq!(view(VIEW).unheard, []);
        let cut = VIEW
            .replace("host-b master - 0 1 2 connected", "host-b master,fail? - 0 1 2 connected")
            .replace("master - 0 1 3 connected", "master - 0 1 3 disconnected");
        let ports: Vec<_> = view(&cut).unheard.iter().map(|node| node.port).collect();
        assert_eq!(ports, [7001, 7002]);
    }

    #[test]
    fn a_failover_is_not_undone_by_a_node_that_is_behind() {
        let mut topology = Topology::unknown();
        topology.merge(&view(VIEW));
        let after = VIEW
            .replace("slave aa 0 1 1 connected", "master - 0 1 4 connected 0-5460")
            .replace("myself,master - 0 0 1 connected 0-5460 [5461->-bb]", "master,fail - 0 0 1 x");
        assert!(topology.merge(&view(&after)));
        assert_eq!(ports(&topology), [Some(7003), Some(7001), Some(7002)]);
        assert_eq!(topology.failed(), [], "it owns nothing any more");
        topology.merge(&view(VIEW));
        assert_eq!(ports(&topology), [Some(7003), Some(7001), Some(7002)]);
        // The same by a view that knows the failure but not the successor.
        topology.merge(&view(&VIEW.replace("myself,master", "master,fail")));
        assert_eq!(ports(&topology), [Some(7003), Some(7001), Some(7002)]);
        assert_eq!(topology.failed().len(), 1);
    }

    #[test]
    fn a_cluster_built_anew_replaces_the_old_one() {
        let mut topology = Topology::unknown();
        topology.merge(&view(VIEW));
        topology.merge(&view("zz 127.0.0.1:7009@17009 myself,master - 0 0 0 connected 0-16383"));
        assert_eq!(ports(&topology), [Some(7009); 3]);
    }

    #[test]
    fn slots_that_their_owner_gave_up_have_none() {
        let mut topology = Topology::unknown();
        topology.merge(&view(VIEW));
        assert!(topology.merge(&view(&VIEW.replace(" 5461-10922", ""))));
        assert_eq!(ports(&topology), [Some(7000), None, Some(7002)]);
    }

    #[test]
    fn other_answers_are_errors() {
        for text in ["", "hello", "aa x master - 0 0 1 connected 0-1", "aa h:1@2 master - 0 0 e c"]
        {
            assert!(View::parse(text, &asked()).is_err(), "{text}");
        }
        assert!(View::parse("aa h:1@2 master - 0 0 1 c 0-x", &asked()).is_err());
    }
}
