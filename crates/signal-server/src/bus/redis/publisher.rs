//! The sending half: the emitter's connection, with the edge's words for what can go wrong.
//!
//! One for the whole edge, made again for ever when it breaks. It never waits longer than the command
//! timeout, never sends a message twice, and never starts a message that has failed later. Beside
//! messages it carries the edge's [`Record`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use signal_core::edges::EdgeRecord;
use signal_core::redis::RedisSettings;
use signal_emitter::{Connection, EmitterError};

use super::record::Record;
use crate::bus::{LinkStatuses, PublishError, Published};

/// A command takes no longer.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

/// At the end of a drain, which has a bound of its own.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(1);

/// The publisher; see the module.
pub(crate) struct Publisher {
    connection: Arc<Connection>,
    record: Record,
}

// === impl Publisher ===

impl Publisher {
    /// Begins to connect, and to say that there is an edge of this name once its links hear; Redis may
    /// be away. Must be called within a tokio runtime, which carries it.
    pub(crate) fn start(
        settings: &RedisSettings,
        instance: &str,
        links: &Arc<LinkStatuses>,
    ) -> Result<Self, EmitterError> {
        let connection = Connection::start(settings, COMMAND_TIMEOUT)?;
        let connection = Arc::new(connection);
        let edge = EdgeRecord::new(instance, env!("CARGO_PKG_VERSION"), settings);
        let record = Record::start(connection.clone(), edge, links.clone());
        Ok(Self { connection, record })
    }

    /// Whether everything would go out now.
    pub(crate) fn is_connected(&self) -> bool {
        self.connection.is_connected()
    }

    /// How often the edge's record could not be written.
    pub(crate) fn record_failures(&self) -> u64 {
        self.record.failures()
    }

    /// Takes the edge's record away: emitters find this edge no more.
    pub(crate) async fn retire(&self) {
        let _ = tokio::time::timeout(RETIRE_TIMEOUT, self.record.remove()).await;
    }

    /// Sends an envelope to a channel. Calls keep the order in which they were first polled.
    pub(crate) async fn publish(
        &self,
        channel: String,
        envelope: Bytes,
    ) -> Result<Published, PublishError> {
        match self.connection.publish(channel, envelope, None).await {
            Ok(receivers) => Ok(Published { receivers }),
            Err(EmitterError::Disconnected | EmitterError::Expired) => {
                Err(PublishError::Disconnected)
            }
            Err(EmitterError::Timeout) => Err(PublishError::Timeout),
            Err(EmitterError::Lost { .. }) => Err(PublishError::Lost),
            Err(error) => Err(PublishError::Refused(error.to_string())),
        }
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Publisher").field("connected", &self.is_connected()).finish()
    }
}
