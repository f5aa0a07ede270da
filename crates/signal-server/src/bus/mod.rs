//! What carries messages between edges, as the edge sees it.
//!
//! The contract: a worker tells its [`Link`] which channels it wants; the link says when the bus has
//! confirmed one, hands over each message of a wanted channel once and in order, and never waits for
//! the worker. A [`Publisher`] sends an envelope to a channel and says what became of it. Behind it
//! is either [`memory`] (one edge, nothing to install) or [`redis`]. Nothing outside this module knows
//! which. Each link's state is published for `/readyz` in a [`LinkStatus`].

pub(crate) mod memory;
pub(crate) mod redis;

use signal_core::channel::Target;
use signal_core::id::ClientId;

use crate::worker::hub::{GroupKey, GroupKind};

pub(crate) use self::status::{LinkState, LinkStatus, LinkStatuses};

mod status;

/// A channel an edge listens to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ChannelKey {
    /// Everyone.
    Broadcast,
    /// Credentials that are withdrawn.
    Revocations,
    /// A probe of one of the worker's links, by number.
    Probe(u16),
    /// What is addressed to a client by its id.
    Client(ClientId),
    /// The room named like a client, which a TypeScript server's `send(clientId)` uses.
    OwnRoom(ClientId),
    /// A room or a user.
    Group(GroupKey),
}

/// What became of a publish that the bus took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// Subscribers of the channel: edges of this fleet, and TypeScript servers. Zero: nobody was
    /// there to hear it. `None`: the bus does not know, as a cluster with classic pub/sub.
    pub receivers: Option<u64>,
}

/// Why the bus did not take a publish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The bus is away; nothing was sent.
    #[error("the bus is not connected")]
    Disconnected,
    /// The connection broke meanwhile: it may have been sent or not.
    #[error("the connection to the bus broke before it answered")]
    Lost,
    /// No answer in time: it may have been sent or not.
    #[error("the bus did not answer in time")]
    Timeout,
    /// The bus refused.
    #[error("the bus refused the message: {0}")]
    Refused(String),
    /// Over the limit that edges accept.
    #[error("the envelope has {bytes} bytes, more than the {bytes_max} that edges accept")]
    TooLarge {
        /// Bytes of the envelope.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
}

/// One worker's way to listen.
#[derive(Debug)]
pub(crate) enum Link {
    /// The in-process bus: every channel is heard at once.
    Memory,
    /// Connections of its own to Redis, or to the nodes of a cluster.
    Redis(Box<redis::Links>),
}

/// How to send.
#[derive(Debug)]
pub(crate) enum Publisher {
    /// To the workers of this process.
    Memory,
    /// To Redis.
    Redis(redis::Publisher),
}

// === impl ChannelKey ===

impl ChannelKey {
    /// Calls `with` with the target that the key names; revocations and a probe have none.
    pub(crate) fn with_target<R>(&self, with: impl FnOnce(Option<Target<'_>>) -> R) -> R {
        let text;
        let id = |id: &ClientId| id.encode();
        with(match self {
            Self::Broadcast => Some(Target::Broadcast),
            Self::Revocations | Self::Probe(_) => None,
            Self::Client(client) => {
                text = id(client);
                Some(Target::Client(ascii(&text)))
            }
            Self::OwnRoom(client) => {
                text = id(client);
                Some(Target::Room(ascii(&text)))
            }
            Self::Group(GroupKey { kind: GroupKind::Room, name }) => Some(Target::Room(name)),
            Self::Group(GroupKey { kind: GroupKind::User, name }) => Some(Target::User(name)),
        })
    }
}

fn ascii(text: &[u8]) -> &str {
    std::str::from_utf8(text).expect("a client id is printed in ASCII")
}

// === impl Publisher ===

impl Publisher {
    /// How often the edge's record of itself could not be written.
    pub(crate) fn record_failures(&self) -> u64 {
        match self {
            Self::Memory => 0,
            Self::Redis(publisher) => publisher.record_failures(),
        }
    }
}

// === impl Link ===

impl Link {
    /// Begins to listen; returns whether that is confirmed already.
    pub(crate) fn want(&mut self, key: ChannelKey) -> bool {
        match self {
            Self::Memory => true,
            Self::Redis(links) => links.want(key),
        }
    }

    /// Stops listening.
    pub(crate) fn unwant(&mut self, key: &ChannelKey) {
        match self {
            Self::Memory => {}
            Self::Redis(links) => links.unwant(key),
        }
    }

    /// Channels wanted and confirmed.
    pub(crate) fn counts(&self) -> (usize, usize) {
        match self {
            Self::Memory => (0, 0),
            Self::Redis(links) => links.counts(),
        }
    }
}
