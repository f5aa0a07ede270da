//! Where Redis is, how long to wait for it, and what to do while it is away.
//!
//! The only part of the crate that reads the environment.

use std::time::Duration;

use signal_core::{limits::BUS_MESSAGE_BYTES_MAX, redis::RedisSettings};

use crate::EmitterError;

/// Long enough for a Redis that fails over, short enough for a request that waits for it.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);

/// What an [`Emitter`](crate::Emitter) is made from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EmitterConfig {
    /// Where Redis is.
    pub redis: RedisSettings,
    /// The longest that connecting, and each call after it, may take; a message may have a
    /// [`deadline`](crate::Publish::deadline) of its own. At least a millisecond.
    /// Default: two seconds.
    pub timeout: Duration,
    /// The producer's name, which travels with each message. Default: none.
    pub name: Option<String>,
    /// The largest envelope, in bytes. Edges drop what is larger than theirs, so raise both.
    /// Default: [`BUS_MESSAGE_BYTES_MAX`].
    pub message_bytes_max: usize,
    /// What becomes of a message while Redis is away. Default: [`WhenAway::Fail`].
    pub when_away: WhenAway,
    /// Whether there must be an edge to connect. Default: [`EdgeCheck::Require`].
    pub edge_check: EdgeCheck,
}

/// What becomes of a message while Redis is away: not connected, failing over or loading its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenAway {
    /// The call fails at once, and nothing is sent later. A message is tried once.
    #[default]
    Fail,
    /// The message is held until Redis is back, but no longer than its deadline; what is held is sent
    /// in order. A message whose connection broke while it was under way is sent again with the same
    /// id, so that edges drop the repeat.
    Hold {
        /// Bytes that may be held, counting what goes with each message. Beyond: the call fails as
        /// [`EmitterError::Overloaded`].
        bytes_max: usize,
    },
}

/// Whether an emitter connects to a Redis on which it finds no edge that would hear it.
///
/// Edges keep a small record of themselves in Redis. TypeScript servers do not: without an edge of
/// Signal beside them, choose [`EdgeCheck::Warn`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EdgeCheck {
    /// Connecting fails as [`EmitterError::NoEdges`] or [`EmitterError::Mismatch`], after having looked
    /// for the emitter's timeout.
    #[default]
    Require,
    /// The same is logged as a warning, at once.
    Warn,
    /// Nobody looks.
    Off,
}

// === impl EmitterConfig ===

impl EmitterConfig {
    /// This Redis, everything else at its default.
    pub fn new(redis: RedisSettings) -> Self {
        Self {
            redis,
            timeout: TIMEOUT_DEFAULT,
            name: None,
            message_bytes_max: BUS_MESSAGE_BYTES_MAX,
            when_away: WhenAway::Fail,
            edge_check: EdgeCheck::Require,
        }
    }

    /// Reads `APP_ENV_WEBSOCKET_REDIS_*`, the same variables as the edge.
    ///
    /// # Errors
    ///
    /// [`EmitterError::Settings`] with one sentence for the operator.
    #[expect(clippy::disallowed_methods, reason = "this is where the environment is read")]
    pub fn from_env() -> Result<Self, EmitterError> {
        Ok(Self::new(RedisSettings::from_lookup(|name| std::env::var(name).ok())?))
    }
}
