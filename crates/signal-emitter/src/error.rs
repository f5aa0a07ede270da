//! What can go wrong between a producer and Redis.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
};

use signal_core::{json::JsonError, redis::SettingError};

/// Why nothing was published, or why it cannot be known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmitterError {
    /// A setting is not allowed.
    #[error("{0}")]
    Settings(#[from] SettingError),
    /// The password file cannot be read.
    #[error("cannot read the redis password from {}", path.display())]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The settings ask for what this emitter cannot do.
    #[error("{what} is not supported by the emitter: {instead}")]
    Unsupported {
        /// The setting.
        what: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// Redis cannot be reached, or does not let this producer in.
    #[error("cannot connect to redis at {address}")]
    Connect {
        /// Host and port.
        address: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The certificates to trust cannot be loaded.
    #[error("cannot load the certificates to trust{}", from(path.as_deref()))]
    Certificates {
        /// Their file; without one, those of the system.
        path: Option<PathBuf>,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The Redis that was reached has no edge that is alive: it is the wrong one, or no edge is up.
    #[error("no edge of signal is connected to this redis")]
    NoEdges,
    /// There are edges, and none would hear what this emitter publishes.
    #[error(
        "no edge would hear this emitter: edges on this redis use {edges}, the emitter {emitter}"
    )]
    Mismatch {
        /// Prefix and pub/sub mode of an edge.
        edges: String,
        /// Prefix and pub/sub mode of this emitter.
        emitter: String,
    },
    /// Redis did not answer in time. The message may or may not have gone out; it will not go out
    /// later.
    #[error("redis did not answer in time")]
    Timeout,
    /// Redis was away until the message's deadline. It has not gone out, and will not.
    #[error("redis was away until the message's deadline")]
    Expired,
    /// There is no connection now; the emitter goes on trying. The message has not gone out, and will
    /// not.
    #[error("not connected to redis")]
    Disconnected,
    /// The connection broke before Redis had answered. The message may or may not have gone out; it
    /// will not go out later.
    #[error("the connection to redis broke before it answered")]
    Lost {
        /// What ended it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Redis took the message, and nobody is subscribed: it is gone.
    #[error("nobody is subscribed, message {id} reached no edge")]
    NoReceivers {
        /// The message's id.
        id: String,
    },
    /// More is waiting for Redis than the emitter holds.
    #[error("too many messages are waiting for redis")]
    Overloaded,
    /// Redis refused, for instance because its ACL does not allow the channel.
    #[error("redis refused: {0}")]
    Redis(String),
    /// The data cannot be serialised.
    #[error("the data cannot be serialised")]
    Serialize(#[source] serde_json::Error),
    /// The data is not JSON, or nested more deeply than a message may be.
    #[error("the data is not valid")]
    InvalidJson(#[source] JsonError),
    /// The envelope is too large.
    #[error("the message has {bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// Bytes in the envelope.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A room, user or client without a name.
    #[error("the {0} to publish to has no name")]
    InvalidTarget(&'static str),
    /// No event was given, or an empty one.
    #[error("the message has no event")]
    NoEvent,
    /// The emitter was shut down.
    #[error("the emitter is shut down")]
    ShutDown,
}

fn from(path: Option<&Path>) -> String {
    path.map(|path| format!(" from {}", path.display())).unwrap_or_default()
}
