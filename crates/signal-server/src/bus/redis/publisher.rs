//! The sending half: the emitter's connection, with the edge's words for what can go wrong.
//!
//! One connection for the whole edge, made again for ever when it breaks. It never waits longer than
//! the command timeout, never sends a message twice, and never starts a message that has failed later.

use std::time::Duration;

use bytes::Bytes;
use signal_core::redis::RedisSettings;
use signal_emitter::{Connection, EmitterError};

use crate::bus::{PublishError, Published};

/// A command takes no longer.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

/// The publisher; see the module.
pub(crate) struct Publisher {
    connection: Connection,
}

// === impl Publisher ===

impl Publisher {
    /// Begins to connect; Redis may be away. Must be called within a tokio runtime, which carries it.
    pub(crate) fn start(settings: &RedisSettings) -> Result<Self, EmitterError> {
        Ok(Self { connection: Connection::start(settings, COMMAND_TIMEOUT)? })
    }

    /// Whether there is a connection now.
    pub(crate) fn is_connected(&self) -> bool {
        self.connection.is_connected()
    }

    /// Sends an envelope to a channel. Calls keep the order in which they were first polled.
    pub(crate) async fn publish(
        &self,
        channel: String,
        envelope: Vec<u8>,
    ) -> Result<Published, PublishError> {
        if !self.connection.is_connected() {
            return Err(PublishError::Disconnected);
        }
        match self.connection.publish(channel, Bytes::from(envelope)).await {
            Ok(receivers) => Ok(Published { receivers }),
            Err(EmitterError::Timeout) => Err(PublishError::Timeout),
            Err(EmitterError::Disconnected { .. }) => Err(PublishError::Lost),
            Err(error) => Err(PublishError::Refused(error.to_string())),
        }
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Publisher").field("connected", &self.is_connected()).finish()
    }
}
