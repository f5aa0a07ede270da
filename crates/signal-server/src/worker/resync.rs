//! Telling `signal.v1` clients that they may have missed something.
//!
//! Whenever messages may have been lost between bus and client, a `resync` says so as soon as delivery
//! is guaranteed again: after a link came back or a slot moved, once every link of the edge delivers
//! all that Redis lets it have; after a full queue, at the next tick. It owns what is to be announced,
//! merged so that an outage is one announcement per client, and never announces while the loss may go
//! on. Plain clients get nothing.

use hashbrown::{HashMap, HashSet};
use signal_core::id::ClientId;
use signal_core::message::json_string;

use super::State;
use super::hub::{GroupKey, GroupKind, Slot};

/// Why messages may have been lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ResyncReason {
    /// A queue was full.
    Overflow,
    /// A link was down or has only just come up, or a channel has moved to another node.
    Bus,
}

/// What is to be announced; see the module.
#[derive(Debug, Default)]
pub(super) struct Resyncs {
    /// To everyone, for everything they listen to.
    everyone: Option<ResyncReason>,
    /// To the members of these groups, and why; an outage outweighs a full queue.
    groups: HashMap<GroupKey, ResyncReason>,
    /// To these clients, for everything they listen to.
    clients: HashSet<ClientId>,
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
                let known = self.resyncs.groups.entry(group).or_insert(reason);
                *known = reason.max(*known);
            }
            // Who logs in from now on waits for the bus, or is told then: it has missed nothing yet.
            None if self.hub.everyone().is_empty() => {}
            None => self.resyncs.everyone = Some(reason),
        }
    }

    /// Messages for one client may have been lost on their way here.
    pub(super) fn resync_client_later(&mut self, client: ClientId) {
        self.resyncs.clients.insert(client);
    }

    /// Announces what is to be announced, if delivery is guaranteed again.
    pub(super) fn announce_resyncs(&mut self) {
        let is_idle = self.resyncs.everyone.is_none()
            && self.resyncs.groups.is_empty()
            && self.resyncs.clients.is_empty();
        if is_idle || !self.shared.links.are_delivering() {
            return;
        }
        let Resyncs { everyone, groups, clients } = std::mem::take(&mut self.resyncs);
        if let Some(reason) = everyone {
            for slot in self.hub.everyone().to_vec() {
                self.resync_client(slot, None, reason.name());
            }
            return;
        }
        for client in &clients {
            if let Some(slot) = self.find(*client) {
                self.resync_client(slot, None, ResyncReason::Bus.name());
            }
        }
        for (group, reason) in groups {
            let rooms = [group.name.to_string()];
            // What comes by user is not in any room: those clients reload everything.
            let rooms = (group.kind == GroupKind::Room).then_some(&rooms[..]);
            for slot in self.hub.members(group.kind, &group.name).to_vec() {
                // Who reloads everything has heard already.
                if !clients.contains(&self.session(slot).client) {
                    self.resync_client(slot, rooms, reason.name());
                }
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
