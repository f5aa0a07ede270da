//! The in-process bus: one edge, nothing to install.
//!
//! A publish goes to the home of its channel, as the same envelope bytes that Redis would carry, so
//! that everything behind the bus is the same code. It owns nothing; it never waits; it is bounded by
//! the workers' queues.

use bytes::Bytes;
use signal_core::channel::Target;
use signal_core::id::ClientId;

use super::{PublishError, Published};
use crate::server::Shared;
use crate::worker::Command;
use crate::worker::hub::GroupKey;

/// Publishes to the workers of this process.
pub(crate) fn publish(
    shared: &Shared,
    target: Target<'_>,
    envelope: Bytes,
) -> Result<Published, PublishError> {
    let client = |id: &str| {
        ClientId::parse(id)
            .filter(|client| client.instance() == shared.instance.tag)
            .map(ClientId::worker)
            .filter(|worker| usize::from(*worker) < shared.queues.len())
    };
    let home = match target {
        Target::Broadcast => Some(0),
        Target::Client(id) => client(id),
        Target::Room(name) if ClientId::parse(name).is_some() => client(name),
        Target::Room(name) => shared.directory.home(&GroupKey::room(name)),
        Target::User(id) => shared.directory.home(&GroupKey::user(id)),
    };
    if let Some(home) = home {
        let bytes = envelope.len();
        let command = Command::Bus { channel: shared.names.name(target), envelope };
        shared.queues[usize::from(home)]
            .delivery(command, bytes)
            .map_err(|full| PublishError::Refused(full.to_string()))?;
    }
    // This edge is the one that listens.
    Ok(Published { receivers: Some(1) })
}
