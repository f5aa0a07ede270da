//! A message's way through a worker: from the bus to its members' sockets.
//!
//! It owns the decoding of what the bus brought, once, and the choice of who gets it; it never parses a
//! payload, and encodes a frame once however many members there are. What other workers have members
//! for is handed to them once each, in a bounded queue; one that is full is counted as a gap. The
//! channel decides who gets a message: an envelope that says otherwise is dropped. So is what a link
//! still brings for a group that is at home elsewhere by now, and what an earlier home has handed on:
//! the present home hands on the same. Bad envelopes are counted by reason and logged at a bounded rate,
//! and disturb nothing else.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use signal_core::channel::{Channel, Target};
use signal_core::crypto::RoomKey;
use signal_core::envelope::Envelope;
use signal_core::id::ClientId;
use signal_core::v1::{Outgoing, To, Variant};
use signal_core::{json, message};
use tracing::warn;

use super::directory::{Tenure, WorkerSet};
use super::encryption::{Form, Privacy, write_room_frame};
use super::fanout::Range;
use super::hub::{GroupKey, GroupKind, Slot};
use super::resync::ResyncReason;
use super::{Command, State};
use crate::hooks::HookError;
use crate::ws::frame::{HEADER_BYTES_MAX, Opcode, write_header};

/// A message for members on another worker.
#[derive(Debug)]
pub(crate) struct Forward {
    /// The group, and in which tenure of its home; `None` for everyone.
    group: Option<(GroupKey, Tenure)>,
    exclude: Vec<ClientId>,
    event_json: Box<str>,
    data: Option<Box<str>>,
    /// The producer's id of the message.
    id: Option<Box<str>>,
}

/// What is delivered.
#[derive(Clone, Copy)]
pub(super) struct Delivery<'a> {
    pub(super) event_json: &'a str,
    pub(super) data: Option<&'a str>,
    /// The producer's id of the message, as it is.
    id: Option<&'a str>,
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
            Some(Channel::Revocations) => {
                self.bus_revocation(payload);
                return true;
            }
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
            Ok(envelope) if envelope.matches(target) => {
                if self.is_repeat(target, &envelope) {
                    return true;
                }
                self.lags.extend(envelope.ts);
                let _span = envelope.trace.as_deref().map(crate::trace::fan_out);
                self.route(target, &envelope);
            }
            Ok(_) => self.bus_message_bad("channel_mismatch"),
            Err(error) => self.bus_message_bad(error.reason()),
        }
        true
    }

    /// Whether a message has come before. Only those with an id are told apart.
    fn is_repeat(&mut self, target: Target<'_>, envelope: &Envelope<'_>) -> bool {
        let now = self.now();
        let Some(id) = &envelope.id else { return false };
        let is_repeat = self.repeats.is_repeat(target, id, now);
        self.counters.bus_repeats += u64::from(is_repeat);
        is_repeat
    }

    /// The turn's messages are written: notes how long each took from its producer.
    pub(super) fn note_lags(&mut self) {
        if self.lags.is_empty() {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for ts in self.lags.drain(..) {
            // A producer whose clock is ahead counts as no lag.
            self.counters.bus_lag.observe(now.saturating_sub(Duration::from_millis(ts)));
        }
    }

    /// A message was over the limit, and was passed over unread.
    pub(crate) fn bus_message_oversized(&mut self) {
        self.counters.bus_messages += 1;
        self.bus_message_bad("too_large");
    }

    pub(super) fn bus_message_bad(&mut self, reason: &'static str) {
        let count = self.counters.count_decode_error(reason);
        // The first, then each power of two: a producer gone wrong must not fill the log.
        if count.is_power_of_two() {
            warn!(reason, count, "bus message dropped");
        }
    }

    fn route(&mut self, target: Target<'_>, envelope: &Envelope<'_>) {
        let delivery = Delivery {
            event_json: &envelope.event_json,
            data: envelope.data,
            id: envelope.id.as_deref(),
        };
        match target {
            Target::Client(id) => {
                if let Some(slot) = ClientId::parse(id).and_then(|client| self.find(client)) {
                    self.deliver_to(slot, To::Client, &delivery);
                }
            }
            Target::Room(name) if let Some(client) = ClientId::parse(name) => {
                let excluded =
                    envelope.exclude.iter().any(|id| ClientId::parse(id) == Some(client));
                if let Some(slot) = self.find(client)
                    && !excluded
                    && self.session(slot).in_own_room
                {
                    self.deliver_to(slot, To::Client, &delivery);
                }
            }
            Target::Room(name) => {
                self.route_group(GroupKind::Room, name, &delivery, client_ids(envelope));
            }
            Target::User(id) => self.route_group(GroupKind::User, id, &delivery, Vec::new()),
            Target::Broadcast => {
                let exclude = client_ids(envelope);
                self.deliver(Members::Everyone, &delivery, &exclude);
                let others = WorkerSet::others(self.id, self.shared.queues.len());
                self.forward(others, None, &delivery, exclude);
            }
        }
    }

    /// A message for a group goes to its members here and to the other workers that have some, if the
    /// group is at home here.
    fn route_group(
        &mut self,
        kind: GroupKind,
        name: &str,
        delivery: &Delivery<'_>,
        exclude: Vec<ClientId>,
    ) {
        if self.shared.queues.len() == 1 {
            return self.deliver(Members::Group(kind, name), delivery, &exclude);
        }
        let Some((workers, tenure)) = self.memberships.at_home(kind, name) else { return };
        self.deliver(Members::Group(kind, name), delivery, &exclude);
        let group = || (GroupKey { kind, name: name.into() }, tenure);
        self.forward(workers, (!workers.is_empty()).then(group), delivery, exclude);
    }

    /// Hands a message to other workers that have members.
    fn forward(
        &mut self,
        workers: WorkerSet,
        group: Option<(GroupKey, Tenure)>,
        delivery: &Delivery<'_>,
        exclude: Vec<ClientId>,
    ) {
        if workers.is_empty() {
            return;
        }
        let forward = Arc::new(Forward {
            group,
            exclude,
            event_json: delivery.event_json.into(),
            data: delivery.data.map(Into::into),
            id: delivery.id.map(Into::into),
        });
        let bytes = forward.event_json.len() + forward.data.as_ref().map_or(0, |data| data.len());
        for worker in workers.iter() {
            let command = Command::Forward(forward.clone());
            if self.shared.queues[usize::from(worker)].delivery(command, bytes).is_err() {
                self.counters.bus_gaps += 1;
                warn!(worker, "a worker's queue is full; a message is lost to its members");
                let group = forward.group.as_ref().map(|(key, _)| key.clone());
                let lost = Command::Resync(group, ResyncReason::Overflow);
                self.shared.queues[usize::from(worker)].control(lost);
            }
        }
    }

    /// A message for members here, from the home of its channel.
    pub(super) fn forwarded(&mut self, forward: &Forward) {
        let members = match &forward.group {
            None => Members::Everyone,
            Some((key, tenure)) if self.memberships.is_elsewhere(key, *tenure) => {
                Members::Group(key.kind, &key.name)
            }
            Some(_) => return,
        };
        let delivery = Delivery {
            event_json: &forward.event_json,
            data: forward.data.as_deref(),
            id: forward.id.as_deref(),
        };
        self.deliver(members, &delivery, &forward.exclude);
    }

    /// Queues a message for its members here: encoded once, no matter how many there are.
    fn deliver(&mut self, members: Members<'_>, delivery: &Delivery<'_>, exclude: &[ClientId]) {
        let (members, to) = match members {
            Members::Everyone => (self.hub.everyone(), To::All),
            Members::Group(GroupKind::Room, name) => {
                self.prepare_room_key(name);
                (self.hub.members(GroupKind::Room, name), To::Room(name))
            }
            Members::Group(GroupKind::User, id) => {
                (self.hub.members(GroupKind::User, id), To::User)
            }
        };
        if members.is_empty() {
            return;
        }
        let mut room_key = match to {
            To::Room(name) => self.room_keys.key(name),
            To::All | To::User | To::Client => None,
        };
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
        let is_keyed = room_key.is_some();
        let counters = &mut self.counters;
        self.fanout.queue_all(&mut self.sockets, members, &excluded, is_keyed, |form, out| {
            match form {
                Form::Clear(variant) => delivery.write_frame(variant, to, out),
                Form::Keyed(variant) => {
                    let key = room_key.as_mut().expect("it is keyed by this one");
                    counters.sealed_for_rooms += 1;
                    delivery.write_room_frame(key, variant, to, out);
                }
            }
        });
        let alone = self.fanout.take_alone();
        let id = delivery.id.filter(|_| !alone.is_empty()).map(message::json_string);
        for &slot in &alone {
            self.say(slot, &delivery.outgoing(Some(to), id.as_deref()));
            self.fanout.relieve(&mut self.sockets);
        }
        self.fanout.give_back_alone(alone);
    }

    /// Queues a message for one connection.
    pub(super) fn deliver_to(&mut self, slot: Slot, to: To<'_>, delivery: &Delivery<'_>) {
        let is_v1 = self.sockets[slot.0 as usize].variant.is_v1();
        let id = delivery.id.filter(|_| is_v1).map(message::json_string);
        self.say(slot, &delivery.outgoing(Some(to), id.as_deref()));
    }

    /// Queues anything for one connection.
    pub(super) fn say(&mut self, slot: Slot, outgoing: &Outgoing<'_>) {
        let socket = &self.sockets[slot.0 as usize];
        let variant = socket.variant;
        let range = match socket.privacy {
            Privacy::Clear => self.fanout.encode(|out| write_message_frame(out, variant, outgoing)),
            Privacy::Sealed => self.encode_sealed(slot, variant, outgoing),
            Privacy::Transformed => {
                let Some(range) = self.encode_transformed(slot, variant, outgoing) else { return };
                range
            }
        };
        self.fanout.queue(&mut self.sockets, slot, range, true);
    }

    /// Encodes a message in the form that the embedder's transformer gives it for this client. One that
    /// panics costs its client the connection: nothing may go out in clear in its place, and nothing be
    /// missing in what goes on.
    fn encode_transformed(
        &mut self,
        slot: Slot,
        variant: Variant,
        plain: &Outgoing<'_>,
    ) -> Option<Range> {
        let transform = self.shared.hooks.transform.clone().expect("set with the socket's mark");
        let event = json::unescape(plain.event_json).unwrap_or_default();
        let client = self.client(slot);
        let transformed = std::panic::catch_unwind(AssertUnwindSafe(|| {
            transform.transform(&client, &event, plain.data)
        }));
        let Ok(transformed) = transformed else {
            self.hook_failed("outbound transformer", &HookError::from("the hook panicked"));
            self.cut(slot);
            return None;
        };
        let Some(other) = transformed else {
            return Some(self.fanout.encode(|out| write_message_frame(out, variant, plain)));
        };
        let event_json = message::json_string(&other.event);
        let outgoing = Outgoing { event_json: &event_json, data: other.data.as_deref(), ..*plain };
        Some(self.fanout.encode(|out| write_message_frame(out, variant, &outgoing)))
    }
}

// === impl Delivery ===

impl<'a> Delivery<'a> {
    /// Without a producer's id.
    pub(super) fn new(event_json: &'a str, data: Option<&'a str>) -> Self {
        Self { event_json, data, id: None }
    }

    fn outgoing<'b>(&self, to: Option<To<'b>>, id: Option<&'b str>) -> Outgoing<'b>
    where
        'a: 'b,
    {
        Outgoing { event_json: self.event_json, data: self.data, to, id }
    }

    /// Appends the frame for clients of a variant.
    fn write_frame(&self, variant: Variant, to: To<'_>, out: &mut Vec<u8>) {
        let id = self.id.filter(|_| variant.is_v1()).map(message::json_string);
        write_message_frame(out, variant, &self.outgoing(Some(to), id.as_deref()));
    }

    /// Appends the frame for clients of a variant that have the room's key.
    fn write_room_frame(&self, key: &mut RoomKey, variant: Variant, to: To<'_>, out: &mut Vec<u8>) {
        let id = self.id.map(message::json_string);
        write_room_frame(out, key, variant, &self.outgoing(Some(to), id.as_deref()));
    }
}

/// Appends the frame of a message.
pub(crate) fn write_message_frame(out: &mut Vec<u8>, variant: Variant, outgoing: &Outgoing<'_>) {
    if variant == Variant::Plain {
        // The length is known beforehand, so the header goes first and nothing is copied twice.
        let length = message::delivery_len(outgoing.event_json, outgoing.data);
        out.reserve(HEADER_BYTES_MAX + length);
        write_header(out, Opcode::Text, length);
        variant.write(out, outgoing);
        return;
    }
    let mut payload = Vec::new();
    variant.write(&mut payload, outgoing);
    let opcode = if variant.is_binary() { Opcode::Binary } else { Opcode::Text };
    out.reserve(HEADER_BYTES_MAX + payload.len());
    write_header(out, opcode, payload.len());
    out.extend_from_slice(&payload);
}

/// The clients that a message is not for. Ids that are not Signal's are no client here.
fn client_ids(envelope: &Envelope<'_>) -> Vec<ClientId> {
    envelope.exclude.iter().filter_map(|id| ClientId::parse(id)).collect()
}
