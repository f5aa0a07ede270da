//! Keys under which a room's messages are sealed once, for all its members here that encrypt.
//!
//! A *holder* is a member of a room that speaks `signal.v1` and whose session is encrypted. For each
//! room with holders on this worker this owns how many there are, and the key that all of them were
//! handed, if there is one. It never does IO, never sees a socket, and makes no key before a message
//! needs one. The caller hands a key over, sealed under the holder's session key, when it is told to.
//!
//! **Invariant:** nothing is sealed under a key that a present holder was not handed before, nor under one
//! that somebody holds who is no member any more. So the key ends with the first leave, and a thousand
//! leaves cost one new key, with the next message. It also ends with its age and with the messages
//! sealed under it. Workers share nothing, so each has keys of its own: a message to a room is sealed
//! once per worker (and variant) that has holders, and no key ever has to be agreed on between threads.
//! Bounded by the memberships of the hub: a room without holders is forgotten.

use std::time::Duration;

use hashbrown::HashMap;
use signal_core::crypto::RoomKey;

use super::directory::{WORKERS_MAX, WorkerId};
use super::wheel::Tick;

/// A key is used for this long, so that a stolen one opens little; a new one costs each holder one
/// message.
const KEY_AGE_MAX: Duration = Duration::from_mins(15);

/// Messages sealed under one key, far below the 2^32 of NIST SP 800-38D.
const KEY_MESSAGES_MAX: u64 = 1 << 20;

/// The rooms with holders; see the module.
#[derive(Debug)]
pub(crate) struct RoomKeys {
    worker: WorkerId,
    messages_max: u64,
    /// Keys made, which numbers them.
    made: u64,
    rooms: HashMap<Box<str>, Room>,
}

#[derive(Debug, Default)]
struct Room {
    holders: usize,
    key: Option<Current>,
}

#[derive(Debug)]
struct Current {
    key: RoomKey,
    made: Tick,
}

/// What there is to seal a room's next message under.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// The room has no holders.
    NoHolders,
    /// The key that all holders have.
    Ready,
    /// A new key, of which this is the handover: first it goes to every holder, of which there are so
    /// many.
    Fresh { handover: Box<str>, holders: usize },
}

// === impl RoomKeys ===

impl RoomKeys {
    /// No rooms.
    pub(crate) fn new(worker: WorkerId) -> Self {
        Self { worker, messages_max: KEY_MESSAGES_MAX, made: 0, rooms: HashMap::new() }
    }

    /// Rooms with holders.
    pub(crate) fn len(&self) -> usize {
        self.rooms.len()
    }

    /// Keys made so far.
    pub(crate) fn made(&self) -> u64 {
        self.made
    }

    /// A holder has joined; returns what has to be handed to it now, if there is a key.
    pub(crate) fn joined(&mut self, room: &str) -> Option<Box<str>> {
        let room = self.rooms.entry_ref(room).or_default();
        room.holders += 1;
        room.key.as_ref().map(|current| current.key.handover().into())
    }

    /// A holder is a member no more: what it holds is of no use from here on.
    pub(crate) fn left(&mut self, room: &str) {
        let entry = self.rooms.get_mut(room).expect("it was counted when it joined");
        entry.key = None;
        entry.holders -= 1;
        if entry.holders == 0 {
            self.rooms.remove(room);
            if self.rooms.is_empty() {
                self.rooms = HashMap::new();
            }
        }
    }

    /// Sees to it that the room's next message has a key to be sealed under.
    pub(crate) fn prepare(&mut self, room: &str, now: Tick) -> Readiness {
        let Some(entry) = self.rooms.get_mut(room) else { return Readiness::NoHolders };
        let messages_max = self.messages_max;
        let is_good = |current: &Current| {
            now.since(current.made) < KEY_AGE_MAX && current.key.sealed() < messages_max
        };
        if entry.key.as_ref().is_some_and(is_good) {
            return Readiness::Ready;
        }
        let kid = self.made * WORKERS_MAX as u64 + u64::from(self.worker);
        self.made += 1;
        let key = RoomKey::new(room, kid);
        let handover = key.handover().into();
        entry.key = Some(Current { key, made: now });
        Readiness::Fresh { handover, holders: entry.holders }
    }

    /// The key that was prepared.
    pub(crate) fn key(&mut self, room: &str) -> Option<&mut RoomKey> {
        Some(&mut self.rooms.get_mut(room)?.key.as_mut()?.key)
    }
}

#[cfg(test)]
#[path = "room_keys_tests.rs"]
mod tests;
