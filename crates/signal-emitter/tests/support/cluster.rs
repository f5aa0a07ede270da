//! A real Redis Cluster of three masters and three replicas, each a process of the test's own.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use signal_core::channel::{sharded_name, slot};
use signal_emitter::redis::{PubSub, RedisMode, RedisSettings};
use tokio::time::Instant;

use super::{Reply, Socket, free_port};

const MASTERS: usize = 3;
const NODES: usize = 2 * MASTERS;
const SLOTS: u16 = 16_384;

/// Longer than anything takes; only a test that hangs sees it.
const PATIENCE: Duration = Duration::from_mins(2);

/// Short, so that a failover does not take long; not so short that a busy machine looks dead.
const NODE_TIMEOUT_MS: &str = "1500";

/// Six servers are enough for the machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The cluster; its servers end with this value. The first three nodes begin as masters, each followed
/// by the one three further on.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    folder: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

struct Node {
    port: u16,
    bus_port: u16,
    process: Option<Child>,
}

// === impl Cluster ===

impl Cluster {
    pub(crate) fn start() -> Self {
        let turn = ONE_AT_A_TIME.lock();
        let folder = std::env::temp_dir().join(format!(
            "signal-cluster-{}-{}",
            std::process::id(),
            free_port()
        ));
        let nodes = (0..NODES)
            .map(|_| Node { port: free_port(), bus_port: free_port(), process: None })
            .collect();
        let mut cluster = Self { nodes, folder, _turn: turn };
        for index in 0..NODES {
            cluster.restart(index);
        }
        cluster.join();
        cluster
    }

    fn join(&self) {
        let share = SLOTS / 3;
        for master in 0..MASTERS {
            let from = share * u16::try_from(master).unwrap();
            let to = if master + 1 == MASTERS { SLOTS - 1 } else { from + share - 1 };
            let range = ["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()];
            assert_eq!(self.call(master, &range), ok());
        }
        let mut asked = 0_u32;
        until("all know each other", || {
            // On a busy machine an introduction may take too long, and is forgotten.
            if asked.is_multiple_of(50) {
                self.introduce();
            }
            asked += 1;
            (0..NODES).all(|node| self.info(node).contains("cluster_known_nodes:6"))
        });
        for replica in MASTERS..NODES {
            let master = self.id(replica - MASTERS);
            until("a replica knows its master", || {
                self.call(replica, &["CLUSTER", "REPLICATE", &master]) == ok()
            });
        }
        self.is_whole();
        until("the replicas are connected", || {
            (MASTERS..NODES).all(|node| {
                let Reply::Bytes(info) = self.call(node, &["INFO", "replication"]) else {
                    return false;
                };
                String::from_utf8(info).unwrap().contains("master_link_status:up")
            })
        });
    }

    /// Has the first node meet the others, which then hear of each other.
    fn introduce(&self) {
        for node in &self.nodes[1..] {
            let (port, bus_port) = (node.port.to_string(), node.bus_port.to_string());
            assert_eq!(self.call(0, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port]), ok());
        }
    }

    /// Waits until every server that runs says that the cluster is well.
    pub(crate) fn is_whole(&self) {
        until("the cluster is well", || {
            (0..NODES)
                .filter(|node| self.nodes[*node].process.is_some())
                .all(|node| self.info(node).contains("cluster_state:ok"))
        });
    }

    /// Starts a server on its port, with what it remembers.
    pub(crate) fn restart(&mut self, index: usize) {
        let folder = self.folder.join(index.to_string());
        fs::create_dir_all(&folder).unwrap();
        let node = &mut self.nodes[index];
        let process = Command::new("redis-server")
            .args(["--port", &node.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--cluster-enabled", "yes", "--cluster-port", &node.bus_port.to_string()])
            .args(["--cluster-node-timeout", NODE_TIMEOUT_MS, "--save", "", "--appendonly", "no"])
            .args(["--cluster-replica-validity-factor", "0", "--dir"])
            .arg(&folder)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        node.process = Some(process);
        let port = node.port;
        until("redis answers", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
    }

    /// Kills a server, as a crash would.
    pub(crate) fn kill(&mut self, index: usize) {
        let mut process = self.nodes[index].process.take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Sends a server a signal by its name.
    pub(crate) fn signal(&self, index: usize, signal: &str) {
        let pid = self.nodes[index].process.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Waits until a server is a master with slots.
    pub(crate) fn is_master(&self, index: usize) {
        until("a replica is promoted", || {
            let Reply::Array(role) = self.call(index, &["ROLE"]) else { return false };
            role[0] == Reply::Bytes(b"master".to_vec())
        });
    }

    /// Moves a slot, which holds no keys, from one master to another: `between` comes when the new one
    /// knows and the old one does not.
    pub(crate) fn move_slot(&self, slot: u16, from: usize, to: usize, between: impl FnOnce()) {
        let (slot, source, target) = (slot.to_string(), self.id(from), self.id(to));
        let set = |node, arguments: &[&str]| {
            let command = [&["CLUSTER", "SETSLOT", &slot], arguments].concat();
            assert_eq!(self.call(node, &command), ok());
        };
        set(to, &["IMPORTING", &source]);
        set(from, &["MIGRATING", &target]);
        set(to, &["NODE", &target]);
        between();
        set(from, &["NODE", &target]);
    }

    pub(crate) fn settings(&self, pubsub: PubSub) -> RedisSettings {
        let nodes = self.nodes.iter().map(|node| ("127.0.0.1".to_owned(), node.port)).collect();
        RedisSettings { mode: RedisMode::Cluster { nodes }, pubsub, ..RedisSettings::default() }
    }

    pub(crate) fn socket(&self, index: usize) -> Socket {
        Socket::connect(self.nodes[index].port)
    }

    fn call(&self, index: usize, command: &[&str]) -> Reply {
        self.socket(index).call(command)
    }

    fn info(&self, index: usize) -> String {
        let Reply::Bytes(info) = self.call(index, &["CLUSTER", "INFO"]) else { panic!() };
        String::from_utf8(info).unwrap()
    }

    fn id(&self, index: usize) -> String {
        let Reply::Bytes(id) = self.call(index, &["CLUSTER", "MYID"]) else { panic!() };
        String::from_utf8(id).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut process) = node.process.take() {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A room whose channel belongs to a master, as the slots are at the start.
pub(crate) fn room_of(master: usize) -> String {
    let is_here = |room: &String| {
        let slot = slot(&channel_of(room));
        usize::from(slot / (SLOTS / 3)).min(MASTERS - 1) == master
    };
    let mut rooms = (0..10_000).map(|number| format!("room-{number}"));
    rooms.find(is_here).expect("a third of them is")
}

/// The sharded channel of a room.
pub(crate) fn channel_of(room: &str) -> String {
    sharded_name(&format!("ws:room:{room}"))
}

fn ok() -> Reply {
    Reply::Text("OK".to_owned())
}

fn until(what: &str, mut ask: impl FnMut() -> bool) {
    let began = Instant::now();
    while !ask() {
        assert!(began.elapsed() < PATIENCE, "in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
