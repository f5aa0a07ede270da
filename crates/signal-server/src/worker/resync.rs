//! Telling `signal.v1` clients that they may have missed something.
//!
//! Whenever messages may have been lost between bus and client, a `resync` says so as soon as delivery
//! is guaranteed again: after a link came back, once every link of the edge is confirmed; after a full
//! queue, at the next tick. It owns what is to be announced, merged so that an outage is one
//! announcement per client, and never announces while the loss may go on. Plain clients get nothing.

use hashbrown::HashSet;
use signal_core::message::json_string;

use super::State;
use super::hub::{GroupKey, GroupKind, Slot};
use crate::bus::LinkState;

/// Why messages may have been lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResyncReason {
    /// A link was down, or has only just come up.
    Bus,
    /// A queue was full.
    Overflow,
}

/// What is to be announced; see the module.
#[derive(Debug, Default)]
pub(super) struct Resyncs {
    /// To everyone, for everything they listen to.
    everyone: Option<ResyncReason>,
    /// To the members of these groups.
    groups: HashSet<GroupKey>,
}

impl ResyncReason {
    const fn name(self) -> &'static str {
        match self {
            Self::Bus => "bus",
            Self::Overflow => "overflow",
        }
    }
}

// === impl State ===

impl State {
    /// Messages for a group, or for everyone, may have been lost on their way here.
    pub(super) fn resync_later(&mut self, group: Option<GroupKey>, reason: ResyncReason) {
        match group {
            Some(group) => {
                self.resyncs.groups.insert(group);
            }
            None => self.resyncs.everyone = Some(reason),
        }
    }

    /// Announces what is to be announced, if delivery is guaranteed again.
    pub(super) fn announce_resyncs(&mut self) {
        let is_idle = self.resyncs.everyone.is_none() && self.resyncs.groups.is_empty();
        if is_idle || self.shared.links.iter().any(|link| link.get().0 != LinkState::Confirmed) {
            return;
        }
        let groups = std::mem::take(&mut self.resyncs.groups);
        if let Some(reason) = self.resyncs.everyone.take() {
            for slot in self.hub.everyone().to_vec() {
                self.resync_client(slot, None, reason.name());
            }
            return;
        }
        let reason = ResyncReason::Overflow.name();
        for group in groups {
            let rooms = [group.name.to_string()];
            // What comes by user is not in any room: those clients reload everything.
            let rooms = (group.kind == GroupKind::Room).then_some(&rooms[..]);
            for slot in self.hub.members(group.kind, &group.name).to_vec() {
                self.resync_client(slot, rooms, reason);
            }
        }
    }

    /// Tells one client; `None` is everything it listens to.
    pub(super) fn resync_client(&mut self, slot: Slot, rooms: Option<&[String]>, reason: &str) {
        if !self.sockets[slot.0 as usize].variant.is_v1() {
            return;
        }
        let rooms = match rooms {
            None => "null".to_owned(),
            Some(rooms) => {
                let rooms: Vec<_> = rooms.iter().map(|room| json_string(room)).collect();
                format!("[{}]", rooms.join(","))
            }
        };
        self.counters.resyncs += 1;
        self.notify(slot, "\"resync\"", &format!("{{\"rooms\":{rooms},\"reason\":\"{reason}\"}}"));
    }
}
