//! Where Redis is and how long to wait for it.
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
    /// The longest that connecting, and each call after it, may take. At least a millisecond.
    /// Default: two seconds.
    pub timeout: Duration,
    /// The producer's name, which travels with each message. Default: none.
    pub name: Option<String>,
    /// The largest envelope, in bytes. Edges drop what is larger than theirs, so raise both.
    /// Default: [`BUS_MESSAGE_BYTES_MAX`].
    pub message_bytes_max: usize,
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
