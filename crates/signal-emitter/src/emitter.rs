//! The handle that a producer holds.

use std::{borrow::Cow, fmt, sync::Arc};

use signal_core::channel::{ChannelNames, Target};

use crate::{
    EmitterConfig, EmitterError, Publish,
    connection::Connection,
    edges,
    message_id::MessageIds,
    publish::{Recipient, Settings},
};

/// Publishes to the clients of Signal through one connection to Redis.
///
/// Cheap to clone: all clones share the connection, which is closed when the last one is dropped.
/// While Redis is away calls fail at once, or are held until their deadline
/// ([`WhenAway`](crate::WhenAway)); the emitter reconnects for ever by itself.
#[derive(Clone)]
pub struct Emitter {
    pub(crate) shared: Arc<Shared>,
}

/// What all clones share.
pub(crate) struct Shared {
    pub(crate) connection: Connection,
    pub(crate) settings: Settings,
}

// === impl Emitter ===

impl Emitter {
    /// Connects to Redis and looks for an edge there, or says within the timeout (for each of the
    /// two) why that cannot be.
    ///
    /// Must be called within a tokio runtime, which then carries the connection.
    pub async fn connect(config: EmitterConfig) -> Result<Self, EmitterError> {
        let settings = Settings {
            names: ChannelNames::new(&config.redis.prefix),
            codec: config.redis.codec,
            name: config.name.clone(),
            message_bytes_max: config.message_bytes_max,
            ids: MessageIds::new(),
        };
        let connection = Connection::open(&config).await?;
        edges::check(&connection, &config).await?;
        Ok(Self { shared: Arc::new(Shared { connection, settings }) })
    }

    /// A message for the members of a room.
    pub fn to_room<'a>(&'a self, room: impl Into<Cow<'a, str>>) -> Publish<'a> {
        self.publish(Recipient::Room(room.into()))
    }

    /// A message for every connection of a user.
    pub fn to_user<'a>(&'a self, user: impl Into<Cow<'a, str>>) -> Publish<'a> {
        self.publish(Recipient::User(user.into()))
    }

    /// A message for one connection. Ids of TypeScript servers are as good as those of Signal.
    pub fn to_client<'a>(&'a self, client: impl Into<Cow<'a, str>>) -> Publish<'a> {
        self.publish(Recipient::Client(client.into()))
    }

    /// A message for every authenticated client.
    pub fn broadcast(&self) -> Publish<'_> {
        self.publish(Recipient::Broadcast)
    }

    /// Whether a message published now would go out now. In a cluster with sharded pub/sub that takes
    /// every master; one that is away is no reason not to publish to the others.
    pub fn is_connected(&self) -> bool {
        self.shared.connection.is_connected()
    }

    /// Closes the connection after what is under way has been answered, within the timeout. What is
    /// held because Redis is away has that long too.
    ///
    /// Every later call on any clone is [`EmitterError::ShutDown`]; a second shutdown does nothing.
    pub async fn shutdown(&self) -> Result<(), EmitterError> {
        self.shared.connection.shutdown().await
    }

    fn publish<'a>(&'a self, recipient: Recipient<'a>) -> Publish<'a> {
        Publish::new(&self.shared, recipient)
    }
}

impl fmt::Debug for Emitter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let broadcast = self.shared.settings.names.name(Target::Broadcast);
        formatter
            .debug_struct("Emitter")
            .field("connected", &self.is_connected())
            .field("broadcast", &broadcast)
            .finish_non_exhaustive()
    }
}
