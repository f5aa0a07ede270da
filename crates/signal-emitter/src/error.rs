//! What can go wrong between a producer and Redis.

use std::{error::Error, io, path::PathBuf};

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
    /// Redis did not answer in time. The message may or may not have gone out; it will not go out
    /// later.
    #[error("redis did not answer in time")]
    Timeout,
    /// There is no connection now; the emitter goes on trying. A message that was under way may or
    /// may not have gone out.
    #[error("not connected to redis")]
    Disconnected {
        /// What ended the connection, or the attempt to use it.
        source: Box<dyn Error + Send + Sync>,
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
