//! A message's way through a worker: from the bus to its members' sockets.
//!
//! It owns the decoding of what the bus brought, once, and the choice of who gets it; it never parses a
//! payload, and encodes a frame once however many members there are. What other workers have members
//! for is handed to them once each, in a bounded queue; one that is full is counted as a gap. The
//! channel decides who gets a message: an envelope that says otherwise is dropped. Bad envelopes are
//! counted by reason and logged at a bounded rate, and disturb nothing else.

use std::sync::Arc;

use signal_core::channel::{Channel, Target};
use signal_core::envelope::Envelope;
use signal_core::id::ClientId;
use signal_core::message;
use tracing::warn;

use super::directory::WorkerSet;
use super::fanout::Range;
use super::hub::{GroupKey, GroupKind, Slot};
use super::{Command, State};
use crate::ws::frame::{HEADER_BYTES_MAX, Opcode, write_header};

/// A message for members on another worker.
#[derive(Debug)]
pub(crate) struct Forward {
    /// The group; `None` for everyone.
    group: Option<GroupKey>,
    exclude: Vec<ClientId>,
    event_json: Box<str>,
    data: Option<Box<str>>,
}

/// Who gets a message.
#[derive(Clone, Copy)]
enum Members<'a> {
    Everyone,
    Group(GroupKind, &'a str),
}

// === impl State ===

impl State {
    /// A message came from the bus. Returns whether it was one: `false` for this link's probe.
    pub(crate) fn bus_message(&mut self, channel: &[u8], payload: &[u8]) -> bool {
        let channel =
            std::str::from_utf8(channel).ok().and_then(|name| self.shared.names.parse(name));
        let target = match channel {
            Some(Channel::Target(target)) => target,
            Some(Channel::Probe { .. }) => return false,
            None => {
                self.bus_message_bad("unknown_channel");
                return true;
            }
        };
        self.counters.bus_messages += 1;
        if payload.len() > self.shared.config.max_bus_message {
            self.bus_message_bad("too_large");
            return true;
        }
        match Envelope::decode(payload) {
            Ok(envelope) if envelope.matches(target) => self.route(target, &envelope),
            Ok(_) => self.bus_message_bad("channel_mismatch"),
            Err(error) => self.bus_message_bad(error.reason()),
        }
        true
    }

    /// A message was over the limit, and was passed over unread.
    pub(crate) fn bus_message_oversized(&mut self, _channel: &[u8], _bytes: usize) {
        self.counters.bus_messages += 1;
        self.bus_message_bad("too_large");
    }

    fn bus_message_bad(&mut self, reason: &'static str) {
        let count = self.counters.count_decode_error(reason);
        // The first, then each power of two: a producer gone wrong must not fill the log.
        if count.is_power_of_two() {
            warn!(reason, count, "bus message dropped");
        }
    }

    fn route(&mut self, target: Target<'_>, envelope: &Envelope<'_>) {
        let event_json = &*envelope.event_json;
        let data = envelope.data;
        match target {
            Target::Client(id) => {
                if let Some(slot) = ClientId::parse(id).and_then(|client| self.find(client)) {
                    self.deliver_to(slot, event_json, data);
                }
            }
            Target::Room(name) if let Some(client) = ClientId::parse(name) => {
                let excluded =
                    envelope.exclude.iter().any(|id| ClientId::parse(id) == Some(client));
                if let Some(slot) = self.find(client)
                    && !excluded
                    && self.session(slot).in_own_room
                {
                    self.deliver_to(slot, event_json, data);
                }
            }
            Target::Room(name) => {
                let exclude = client_ids(envelope);
                self.deliver(Members::Group(GroupKind::Room, name), event_json, data, &exclude);
                self.forward(Some((GroupKind::Room, name)), envelope, exclude);
            }
            Target::User(id) => {
                self.deliver(Members::Group(GroupKind::User, id), event_json, data, &[]);
                self.forward(Some((GroupKind::User, id)), envelope, Vec::new());
            }
            Target::Broadcast => {
                let exclude = client_ids(envelope);
                self.deliver(Members::Everyone, event_json, data, &exclude);
                self.forward(None, envelope, exclude);
            }
        }
    }

    /// Hands a message to the other workers that have members.
    fn forward(
        &mut self,
        group: Option<(GroupKind, &str)>,
        envelope: &Envelope<'_>,
        exclude: Vec<ClientId>,
    ) {
        if self.shared.queues.len() == 1 {
            return;
        }
        let workers = match group {
            Some((kind, name)) => self.memberships.remotes(kind, name),
            None => WorkerSet::others(self.id, self.shared.queues.len()),
        };
        if workers.is_empty() {
            return;
        }
        let forward = Arc::new(Forward {
            group: group.map(|(kind, name)| GroupKey { kind, name: name.into() }),
            exclude,
            event_json: (*envelope.event_json).into(),
            data: envelope.data.map(Into::into),
        });
        let bytes = forward.event_json.len() + forward.data.as_ref().map_or(0, |data| data.len());
        for worker in workers.iter() {
            let command = Command::Forward(forward.clone());
            if self.shared.queues[usize::from(worker)].delivery(command, bytes).is_err() {
                self.counters.bus_gaps += 1;
                warn!(worker, "a worker's queue is full; a message is lost to its members");
            }
        }
    }

    /// A message for members here, from the home of its channel.
    pub(super) fn forwarded(&mut self, forward: &Forward) {
        let members = match &forward.group {
            None => Members::Everyone,
            Some(key) => Members::Group(key.kind, &key.name),
        };
        self.deliver(members, &forward.event_json, forward.data.as_deref(), &forward.exclude);
    }

    /// Queues a message for its members here: encoded once, no matter how many there are.
    fn deliver(
        &mut self,
        members: Members<'_>,
        event_json: &str,
        data: Option<&str>,
        exclude: &[ClientId],
    ) {
        let members = match members {
            Members::Everyone => self.hub.everyone(),
            Members::Group(kind, name) => self.hub.members(kind, name),
        };
        if members.is_empty() {
            return;
        }
        let mut excluded: Vec<Slot> = exclude
            .iter()
            .filter(|client| {
                self.sessions
                    .get(client.slot() as usize)
                    .is_some_and(|session| session.client == **client)
            })
            .map(|client| Slot(client.slot()))
            .collect();
        excluded.sort_unstable();
        let range = self.fanout.encode(|out| write_delivery_frame(out, event_json, data));
        self.fanout.queue_all(&mut self.sockets, members, &excluded, range);
        for slot in self.fanout.take_transformed() {
            self.deliver_transformed(slot, event_json, data);
        }
    }

    /// Queues a message for one connection.
    pub(super) fn deliver_to(&mut self, slot: Slot, event_json: &str, data: Option<&str>) {
        if self.sockets[slot.0 as usize].transformed {
            self.deliver_transformed(slot, event_json, data);
            return;
        }
        let range = self.encode_delivery(event_json, data);
        self.fanout.queue(&mut self.sockets, slot, range, true);
    }

    /// Queues a message in the form that the embedder's transformer gives it for this client.
    fn deliver_transformed(&mut self, slot: Slot, event_json: &str, data: Option<&str>) {
        let transform = self.shared.hooks.transform.clone().expect("set with the socket's mark");
        let event: String = serde_json::from_str(event_json).unwrap_or_default();
        let range = match transform.transform(&self.client(slot), &event, data) {
            Some(other) => {
                let event_json = message::json_string(&other.event);
                self.encode_delivery(&event_json, other.data.as_deref())
            }
            None => self.encode_delivery(event_json, data),
        };
        self.fanout.queue(&mut self.sockets, slot, range, true);
    }

    pub(super) fn encode_delivery(&mut self, event_json: &str, data: Option<&str>) -> Range {
        self.fanout.encode(|out| write_delivery_frame(out, event_json, data))
    }
}

/// Appends the frame of a delivery.
pub(crate) fn write_delivery_frame(out: &mut Vec<u8>, event_json: &str, data: Option<&str>) {
    let length = message::delivery_len(event_json, data);
    out.reserve(HEADER_BYTES_MAX + length);
    write_header(out, Opcode::Text, length);
    message::write_delivery(out, event_json, data);
}

/// The clients that a message is not for. Ids that are not Signal's are no client here.
fn client_ids(envelope: &Envelope<'_>) -> Vec<ClientId> {
    envelope.exclude.iter().filter_map(|id| ClientId::parse(id)).collect()
}
