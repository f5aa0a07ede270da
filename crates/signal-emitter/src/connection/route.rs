//! Which server takes a message: the one there is, or the one that the cluster says.

use std::sync::Arc;

use signal_core::redis::{PubSub, RedisMode};
use tokio::time::Instant;

use super::{
    access::Access,
    cluster::Cluster,
    node::{Log, Node},
    slots::Address,
};
use crate::EmitterError;

/// The way to Redis.
pub(super) enum Route {
    /// One server.
    Single(Arc<Node>),
    /// A cluster.
    Cluster(Box<Cluster>),
}

// === impl Route ===

impl Route {
    /// Begins to connect. Must be called within a tokio runtime, which carries it.
    pub(super) fn start(access: Arc<Access>) -> Result<Arc<Self>, EmitterError> {
        let settings = access.settings();
        match &settings.mode {
            RedisMode::None => Err(EmitterError::Unsupported {
                what: "redis mode none",
                instead: "there is nothing to publish to, set APP_ENV_WEBSOCKET_REDIS_MODE to \
                          single or cluster",
            }),
            RedisMode::Single { host, port } => {
                let node = Node::start(&access, Address::new(host.clone(), *port), Log::Changes);
                Ok(Arc::new(Self::Single(Arc::new(node))))
            }
            RedisMode::Cluster { nodes } => {
                let seeds = nodes.iter().map(|(host, port)| Address::new(host.clone(), *port));
                let (seeds, pubsub) = (seeds.collect(), settings.pubsub);
                let cluster = Cluster::new(access, seeds, pubsub);
                let route = Arc::new(Self::Cluster(Box::new(cluster)));
                if let Self::Cluster(cluster) = &*route {
                    cluster.watch(&route);
                }
                Ok(route)
            }
        }
    }

    /// Waits for a connection, no longer than until then.
    pub(super) async fn connected(&self, until: Instant) -> Result<(), EmitterError> {
        match self {
            Self::Single(node) => node.connected(until).await,
            Self::Cluster(cluster) => {
                let connected = tokio::time::timeout_at(until, cluster.connected()).await;
                // A master that is away is for the failover to replace, not for a producer to wait for.
                match connected {
                    Err(late) if !cluster.is_any_connected() => {
                        Err(EmitterError::Connect { address: cluster.seeds(), source: late.into() })
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    /// The server that takes messages on a channel, connected or not; `None` while nobody knows.
    pub(super) fn node(&self, channel: &str) -> Option<Arc<Node>> {
        match self {
            Self::Single(node) => Some(node.clone()),
            Self::Cluster(cluster) => cluster.node(channel),
        }
    }

    /// The server that owns a key, likewise.
    pub(super) fn owner(&self, key: &str) -> Option<Arc<Node>> {
        match self {
            Self::Single(node) => Some(node.clone()),
            Self::Cluster(cluster) => cluster.owner(key),
        }
    }

    /// A server has said that another one owns a slot.
    pub(super) fn moved(&self, text: &str, address: Address) {
        if let Self::Cluster(cluster) = self {
            cluster.moved(text, address);
        }
    }

    pub(super) fn pubsub(&self) -> PubSub {
        match self {
            Self::Single(_) => PubSub::Classic,
            Self::Cluster(cluster) => cluster.pubsub(),
        }
    }

    pub(super) fn is_sharded(&self) -> bool {
        self.pubsub() == PubSub::Sharded
    }

    /// The receivers of a message, if the server's number is all of them: with classic pub/sub, a
    /// server of a cluster counts its own alone.
    pub(super) fn counted(&self, receivers: u64) -> Option<u64> {
        (self.is_sharded() || matches!(self, Self::Single(_))).then_some(receivers)
    }

    pub(super) fn counts_receivers(&self) -> bool {
        self.counted(0).is_some()
    }

    pub(super) fn is_connected(&self) -> bool {
        match self {
            Self::Single(node) => node.is_connected(),
            Self::Cluster(cluster) => cluster.is_connected(),
        }
    }

    /// Ends all connections, each after what is under way on it has been answered.
    pub(super) async fn quit(&self) {
        match self {
            Self::Single(node) => node.quit().await,
            Self::Cluster(cluster) => cluster.quit().await,
        }
    }

    /// Ends all connections at once.
    pub(super) fn abort(&self) {
        match self {
            Self::Single(node) => node.abort(),
            Self::Cluster(cluster) => cluster.abort(),
        }
    }
}
