//! Payload encryption that is built in: keys of sessions and rooms, put to use.
//!
//! It owns the agreement on a session's key at login, what goes out sealed under it, what comes in so,
//! and the handing over of room keys. What a client sent sealed is handled as if it had come in clear;
//! what does not open ends the connection. An embedder's handshake or transformer replaces all of it.
//! Nothing waits here; a login costs two operations on the curve, bounded by the rate of logins.

use signal_core::close::CloseCode;
use signal_core::crypto::{Agreement, RoomKey, inner_variant};
use signal_core::message;
use signal_core::v1::{ErrorCode, Outgoing, Variant};
use tracing::debug;

use super::State;
use super::answer::RequestId;
use super::fanout::{Range, Socket};
use super::hub::{GroupKey, GroupKind, Slot};
use super::room_keys::Readiness;
use crate::config::Encryption;
use crate::hooks::{Credentials, Grant, HandshakeAnswer};
use crate::ws::frame::{Opcode, header};

/// The event of a sealed message, either way.
const ENCRYPTED: &str = "encrypted";

/// Who besides its client may read what a socket gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privacy {
    /// Whoever sees the bytes.
    Clear,
    /// The embedder's transformer decides, message by message.
    Transformed,
    /// Only who has the session's key, or the room's.
    Sealed,
}

/// In what form members get a message that they share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it is.
    Clear(Variant),
    /// Sealed under the room's key.
    Keyed(Variant),
}

/// What the credentials have for the client's public key.
enum PublicKey {
    Absent,
    Text(String),
    /// Something that is no text.
    Bad,
}

impl PublicKey {
    fn of(credentials: &Credentials) -> Self {
        let members = credentials.parse::<serde_json::Map<String, serde_json::Value>>();
        match members.ok().and_then(|mut members| members.remove("publicKey")) {
            None | Some(serde_json::Value::Null) => Self::Absent,
            Some(serde_json::Value::String(text)) if text.is_empty() => Self::Absent,
            Some(serde_json::Value::String(text)) => Self::Text(text),
            Some(_) => Self::Bad,
        }
    }
}

// === impl Socket ===

impl Socket {
    /// Whether it gets what is sealed under room keys.
    fn is_holder(&self) -> bool {
        self.privacy == Privacy::Sealed && self.variant.is_v1()
    }
}

// === impl State ===

impl State {
    /// Agrees on the session's key, if the client sent its half, and goes on with the login.
    pub(super) fn agree(
        &mut self,
        slot: Slot,
        grant: Grant,
        credentials: &Credentials,
        id: RequestId,
    ) {
        let required = self.shared.config.encryption == Encryption::Required;
        let agreement = match PublicKey::of(credentials) {
            PublicKey::Absent if required => {
                self.counters.logins_rejected += 1;
                let error = Some(ErrorCode::EncryptionFailed);
                return self.refuse(slot, &id, error, CloseCode::EncryptionRequired);
            }
            PublicKey::Absent => return self.log_in(slot, grant, None, id),
            PublicKey::Text(key) => Agreement::with(&key).ok(),
            PublicKey::Bad => None,
        };
        let Some(Agreement { server_public_key, salt, key }) = agreement else {
            debug!(client = %self.session(slot).client, "the client's public key is none");
            self.counters.logins_rejected += 1;
            let error = Some(ErrorCode::AuthenticationError);
            return self.refuse(slot, &id, error, CloseCode::AuthenticationFailed);
        };
        self.session(slot).details().session_key = Some(Box::new(key));
        self.log_in(slot, grant, Some(HandshakeAnswer { server_public_key, salt }), id);
    }

    /// `connected` is queued, or will go first: whatever follows it is sealed, if that was agreed on.
    pub(super) fn begin_privacy(&mut self, slot: Slot, has_shaken_hands: bool) {
        let details = self.session(slot).details.as_ref();
        let is_sealed = details.is_some_and(|details| details.session_key.is_some());
        self.sockets[slot.0 as usize].privacy = match is_sealed {
            true => Privacy::Sealed,
            false if has_shaken_hands && self.shared.hooks.transform.is_some() => {
                Privacy::Transformed
            }
            false => Privacy::Clear,
        };
        if self.sockets[slot.0 as usize].is_holder() {
            let groups = self.hub.groups_of(slot).filter(|key| key.kind == GroupKind::Room);
            let rooms: Vec<GroupKey> = groups.cloned().collect();
            for room in rooms {
                self.room_joined(slot, &room.name);
            }
        }
    }

    /// Encodes a message under the client's session key.
    pub(super) fn encode_sealed(
        &mut self,
        slot: Slot,
        variant: Variant,
        outgoing: &Outgoing<'_>,
    ) -> Range {
        self.counters.sealed_for_sessions += 1;
        let details = self.sessions[slot.0 as usize].details.as_mut();
        let key = details.and_then(|details| details.session_key.as_mut());
        let key = key.expect("set with the socket's mark");
        self.fanout.encode(|out| {
            let start = out.len();
            inner_variant(variant).write(out, outgoing);
            key.seal(out, start, variant, |length| header(opcode(variant), length));
        })
    }

    /// A client that encrypts sent `encrypted`.
    pub(super) fn on_encrypted(&mut self, slot: Slot, data: Option<&str>) {
        let details = self.sessions[slot.0 as usize].details.as_ref();
        let key = details.and_then(|details| details.session_key.as_ref());
        let text = match key.expect("set with the socket's mark").open(data.unwrap_or("null")) {
            Ok(text) => text,
            Err(error) => {
                debug!(client = %self.session(slot).client, %error, "a message does not open");
                return self.refuse_encrypted(slot);
            }
        };
        match message::parse(&text) {
            // Sealed once is enough; more would be depth without a bound.
            Ok(message) if message.event == ENCRYPTED => self.refuse_encrypted(slot),
            message => self.on_message(slot, message),
        }
    }

    fn refuse_encrypted(&mut self, slot: Slot) {
        self.counters.decryptions_failed += 1;
        self.fail(slot, &None, ErrorCode::DecryptionFailed);
        self.begin_close(slot, CloseCode::ProtocolViolation);
    }

    /// Whether a message is one that was sealed under this client's key.
    pub(super) fn is_encrypted(&self, slot: Slot, event: &str) -> bool {
        event == ENCRYPTED && self.sockets[slot.0 as usize].privacy == Privacy::Sealed
    }

    // === Rooms ===

    /// A connection has become a member of a room, and has the present key before anything under it.
    pub(super) fn room_joined(&mut self, slot: Slot, room: &str) {
        if self.sockets[slot.0 as usize].is_holder()
            && let Some(handover) = self.room_keys.joined(room)
        {
            self.notify(slot, "\"roomkey\"", &handover);
        }
    }

    /// A connection is no member of a room any more.
    pub(super) fn room_left(&mut self, slot: Slot, room: &str) {
        if self.sockets[slot.0 as usize].is_holder() {
            self.room_keys.left(room);
        }
    }

    /// A connection is about to be no member of anything.
    pub(super) fn forget_room_keys(&mut self, slot: Slot) {
        if self.sockets[slot.0 as usize].is_holder() {
            for group in self.hub.groups_of(slot).filter(|key| key.kind == GroupKind::Room) {
                self.room_keys.left(&group.name);
            }
        }
    }

    /// Sees to it that every holder has the key of a room's next message.
    pub(super) fn prepare_room_key(&mut self, room: &str) {
        let now = self.now();
        let (handover, holders) = match self.room_keys.prepare(room, now) {
            Readiness::NoHolders | Readiness::Ready => return,
            Readiness::Fresh { handover, holders } => (handover, holders),
        };
        let mut handed = 0;
        for slot in self.hub.members(GroupKind::Room, room).to_vec() {
            if self.sockets[slot.0 as usize].is_holder() {
                self.notify(slot, "\"roomkey\"", &handover);
                self.fanout.relieve(&mut self.sockets);
                handed += 1;
            }
        }
        debug_assert_eq!(handed, holders, "every holder is counted, and no one else");
    }
}

/// Appends the frame of a message that is sealed under its room's key.
pub(super) fn write_room_frame(
    out: &mut Vec<u8>,
    key: &mut RoomKey,
    variant: Variant,
    outgoing: &Outgoing<'_>,
) {
    let start = out.len();
    inner_variant(variant).write(out, outgoing);
    key.seal(out, start, variant, |length| header(opcode(variant), length));
}

fn opcode(variant: Variant) -> Opcode {
    if variant.is_binary() { Opcode::Binary } else { Opcode::Text }
}
