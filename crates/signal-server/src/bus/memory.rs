//! The in-process bus: one edge, nothing to install.
//!
//! A publish goes to the home of its channel, as the same envelope bytes that Redis would carry, so
//! that everything behind the bus is the same code. It names the home's tenure: what waits when that
//! ends is dropped, as are the messages behind it that find no home, so that whoever comes next does
//! not get the first of them without the rest. It owns nothing; it never waits; it is bounded by the
//! workers' queues.

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
    let home_of = |key| match shared.directory.home(&key) {
        Some((home, tenure)) => (Some(home), Some((key, tenure))),
        None => (None, None),
    };
    let (home, group) = match target {
        Target::Broadcast => (Some(0), None),
        Target::Client(id) => (client(id), None),
        Target::Room(name) if ClientId::parse(name).is_some() => (client(name), None),
        Target::Room(name) => home_of(GroupKey::room(name)),
        Target::User(id) => home_of(GroupKey::user(id)),
    };
    if let Some(home) = home {
        let bytes = envelope.len();
        let command = Command::Bus { channel: shared.names.name(target), envelope, group };
        shared.queues[usize::from(home)]
            .delivery(command, bytes)
            .map_err(|full| PublishError::Refused(full.to_string()))?;
    }
    // This edge is the one that listens.
    Ok(Published { receivers: Some(1) })
}
