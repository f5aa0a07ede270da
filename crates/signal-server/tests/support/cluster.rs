//! A real Redis Cluster, three masters and three replicas on ports of their own, which tests may kill,
//! restart and cut up.

use std::path::PathBuf;

use signal_core::channel::{TAGS, partition, sharded_name, slot};
use signal_core::redis::{PubSub, RedisMode, RedisSettings};

use super::{Redis, until};

/// Masters; as many replicas follow.
pub const MASTERS: usize = 3;

/// Slots of the cluster.
const SLOTS: usize = 16384;

/// Until the cluster gives up on a node.
const NODE_TIMEOUT_MS: &str = "1500";

/// The cluster; it ends with this value.
#[derive(Debug)]
pub struct Cluster {
    /// Masters at first, then the replicas in the same order.
    pub nodes: Vec<Redis>,
    /// The nodes' ports for TLS, where they speak it.
    pub tls_ports: Vec<u16>,
    directory: PathBuf,
}

// === impl Cluster ===

impl Cluster {
    /// Starts one and waits until it is whole.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With further arguments for every node.
    pub async fn with(arguments: &[&str]) -> Self {
        Self::build(arguments, false).await
    }

    /// With further arguments for every node, each of which has a port for TLS beside its own.
    pub async fn with_tls(arguments: &[&str]) -> Self {
        Self::build(arguments, true).await
    }

    async fn build(arguments: &[&str], tls: bool) -> Self {
        let directory = std::env::temp_dir().join(format!("signal-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&directory).expect("a temporary directory");
        let (mut nodes, mut tls_ports) = (Vec::new(), Vec::new());
        for index in 0..2 * MASTERS {
            let bus_port = Redis::stopped(&[]).port.to_string();
            if tls {
                tls_ports.push(Redis::stopped(&[]).port);
            }
            let tls_port = tls_ports.last().copied().unwrap_or(0).to_string();
            let file = format!("nodes-{index}.conf");
            let own = [
                "--cluster-enabled",
                "yes",
                "--cluster-config-file",
                &file,
                "--cluster-node-timeout",
                NODE_TIMEOUT_MS,
                "--cluster-port",
                &bus_port,
                "--dir",
                directory.to_str().expect("a path in UTF-8"),
                // A replica is synchronised at once, and takes over whatever it has.
                "--repl-diskless-sync-delay",
                "0",
                "--cluster-replica-validity-factor",
                "0",
            ];
            let tls_port = ["--tls-port", &tls_port];
            nodes.push((Redis::with(&[&own[..], &tls_port, arguments].concat()).await, bus_port));
        }
        for (index, (node, _)) in nodes.iter().enumerate() {
            node.ok(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]).await;
            if index < MASTERS {
                let range = [index * SLOTS / MASTERS, (index + 1) * SLOTS / MASTERS - 1];
                let [from, to] = range.map(|slot| slot.to_string());
                node.ok(&["CLUSTER", "ADDSLOTSRANGE", &from, &to]).await;
            }
        }
        let meet: Vec<(String, String)> = nodes
            .iter()
            .enumerate()
            .skip(1)
            // Nodes meet by the port that they speak on with each other.
            .map(|(index, (node, bus_port))| {
                (tls_ports.get(index).unwrap_or(&node.port).to_string(), bus_port.clone())
            })
            .collect();
        let nodes = nodes.into_iter().map(|(node, _)| node).collect();
        let cluster = Self { nodes, tls_ports, directory };
        let mut asked = 0_u32;
        until("all nodes know each other", async || {
            if asked.is_multiple_of(200) {
                // On a busy machine an introduction may take too long, and is forgotten.
                for (port, bus_port) in &meet {
                    cluster.nodes[0].ok(&["CLUSTER", "MEET", "127.0.0.1", port, bus_port]).await;
                }
            }
            asked += 1;
            for node in &cluster.nodes {
                let info = node.command(&["CLUSTER", "INFO"]).await;
                if !info.contains("cluster_known_nodes:6") {
                    return false;
                }
            }
            true
        })
        .await;
        for index in MASTERS..2 * MASTERS {
            let master = cluster.id(index - MASTERS).await;
            until("a replica knows its master", async || {
                let replica = &cluster.nodes[index];
                replica.command(&["CLUSTER", "REPLICATE", &master]).await.starts_with("+OK")
            })
            .await;
        }
        cluster.whole().await;
        cluster
    }

    /// Waits until every running node sees a whole cluster, and every replica follows its master.
    pub async fn whole(&self) {
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            until("the cluster is whole", async || {
                let info = node.command(&["CLUSTER", "INFO"]).await;
                let replication = node.command(&["INFO", "replication"]).await;
                info.contains("cluster_state:ok")
                    && info.contains("cluster_slots_fail:0")
                    && (replication.contains("role:master")
                        || replication.contains("master_link_status:up"))
            })
            .await;
        }
    }

    /// Has a master and its replica change places, as before an upgrade of the master.
    pub async fn fail_over(&self, master: usize, replica: usize) {
        let is_done = async || {
            let role = self.nodes[master].command(&["INFO", "replication"]).await;
            role.contains("role:slave")
        };
        while !is_done().await {
            // Refused or given up while the replica has not caught up; Redis gives up after 5 s.
            self.nodes[replica].command(&["CLUSTER", "FAILOVER"]).await;
            let done = until("the replica is the master", is_done);
            let _ = tokio::time::timeout(std::time::Duration::from_secs(6), done).await;
        }
    }

    /// How edges reach it, by two of its nodes.
    pub fn settings(&self, pubsub: PubSub) -> RedisSettings {
        let nodes = [0, MASTERS].map(|index| ("127.0.0.1".to_owned(), self.nodes[index].port));
        RedisSettings {
            mode: RedisMode::Cluster { nodes: nodes.to_vec() },
            pubsub,
            ..RedisSettings::default()
        }
    }

    /// A node's id in the cluster.
    pub async fn id(&self, index: usize) -> String {
        let answer = self.nodes[index].command(&["CLUSTER", "MYID"]).await;
        answer.lines().nth(1).expect("an id").to_owned()
    }

    /// The running node that a channel's partition belongs to, as that node itself sees it.
    pub async fn owner(&self, channel: &str) -> usize {
        let slot = slot(TAGS[usize::from(partition(channel))]);
        for (index, node) in self.nodes.iter().enumerate() {
            if node.is_running() && owns(&node.command(&["CLUSTER", "NODES"]).await, slot) {
                return index;
            }
        }
        panic!("nobody owns slot {slot}");
    }

    /// Moves the slots of all partitions of one node to another, as resharding does.
    pub async fn move_slots(&self, from: usize, to: usize) {
        let view = self.nodes[from].command(&["CLUSTER", "NODES"]).await;
        for slot in TAGS.iter().map(|tag| slot(tag)).filter(|slot| owns(&view, *slot)) {
            self.move_slot(slot, from, to).await;
        }
    }

    /// Moves slots until each of the first masters has its share of partitions again.
    pub async fn spread(&self) {
        for (partition, tag) in TAGS.iter().enumerate() {
            let slot = slot(tag);
            let to = partition * MASTERS / TAGS.len();
            for from in 0..MASTERS {
                let view = self.nodes[from].command(&["CLUSTER", "NODES"]).await;
                if from != to && owns(&view, slot) {
                    self.move_slot(slot, from, to).await;
                }
            }
        }
    }

    async fn move_slot(&self, slot: u16, from: usize, to: usize) {
        let (source, target) = (self.id(from).await, self.id(to).await);
        let slot = slot.to_string();
        let (to, from) = (&self.nodes[to], &self.nodes[from]);
        to.ok(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]).await;
        from.ok(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]).await;
        to.ok(&["CLUSTER", "SETSLOT", &slot, "NODE", &target]).await;
        from.ok(&["CLUSTER", "SETSLOT", &slot, "NODE", &target]).await;
    }

    /// Whether so many edges are subscribed to a sharded channel at the node that owns it.
    pub async fn is_heard(&self, channel: &str, edges: usize) -> bool {
        let (name, slot) = (sharded_name(channel), slot(TAGS[usize::from(partition(channel))]));
        let expected = format!(":{edges}");
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            if owns(&node.command(&["CLUSTER", "NODES"]).await, slot) {
                let answer = node.command(&["PUBSUB", "SHARDNUMSUB", &name]).await;
                return answer.lines().last() == Some(&expected);
            }
        }
        false
    }

    /// What any client is subscribed to on any running node, sorted, without probes.
    pub async fn channels(&self) -> Vec<String> {
        let mut channels = Vec::new();
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            for list in ["CHANNELS", "SHARDCHANNELS"] {
                let answer = node.command(&["PUBSUB", list]).await;
                let found = answer.lines().filter(|line| line.contains("ws:"));
                channels
                    .extend(found.filter(|line| !line.contains("ws:probe:")).map(str::to_owned));
            }
        }
        channels.sort();
        channels
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.clear();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Whether the node that printed this view owns a slot.
fn owns(view: &str, slot: u16) -> bool {
    let own = view.lines().find(|line| line.contains("myself")).expect("a node sees itself");
    own.split(' ').skip(8).filter(|range| !range.starts_with('[')).any(|range| {
        let (first, last) = range.trim().split_once('-').unwrap_or((range.trim(), range.trim()));
        (first.parse().unwrap_or(u16::MAX)..=last.parse().unwrap_or(0)).contains(&slot)
    })
}
