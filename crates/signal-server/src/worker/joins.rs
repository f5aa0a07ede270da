//! Joins of `signal.v1` clients that wait for the bus before they are acknowledged.
//!
//! An acknowledgement promises that nothing published after it is missed, so it waits until the bus
//! has confirmed every room of the join; but no longer than a bound, after which it says `degraded`,
//! and a `resync` of those rooms follows when they are confirmed. It owns the waiting joins and when
//! they are due; it is bounded by the requests of connections, and forgets those of one that ends.

use std::collections::VecDeque;
use std::time::Duration;

use slab::Slab;

use super::State;
use super::hub::{GroupKey, Slot};
use super::membership::Waiter;
use super::wheel::Tick;
use crate::bus::ChannelKey;
use signal_core::message::json_string;

/// A join is acknowledged after this long even if the bus has not confirmed it.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_millis(800);

/// The waiting joins; see the module.
#[derive(Debug, Default)]
pub(super) struct Joins {
    waiting: Slab<Join>,
    /// When each is due, in order.
    due: VecDeque<(Tick, u32, u64)>,
    /// Tells one join from a later one in the same place.
    serial: u64,
}

/// What came of a join.
#[derive(Debug, Default)]
pub(super) struct Joined {
    pub(super) rooms: Vec<String>,
    pub(super) denied: Vec<String>,
    /// Those of the rooms that the bus has not confirmed.
    pub(super) unconfirmed: Vec<GroupKey>,
}

#[derive(Debug)]
struct Join {
    slot: Slot,
    id: Box<str>,
    serial: u64,
    joined: Joined,
    /// It was acknowledged as degraded.
    is_answered: bool,
}

// === impl Joins ===

impl Joins {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

// === impl State ===

impl State {
    /// Acknowledges a join as soon as the bus has confirmed it.
    pub(super) fn acknowledge_join(&mut self, slot: Slot, id: Option<Box<str>>, joined: Joined) {
        let Some(id) = id.filter(|_| self.sockets[slot.0 as usize].variant.is_v1()) else { return };
        if joined.unconfirmed.is_empty() {
            self.acknowledge(slot, &Some(id), &acknowledgement(&joined, false));
            return;
        }
        let until = self.now().after(CONFIRMATION_TIMEOUT);
        self.joins.serial += 1;
        let serial = self.joins.serial;
        let entry = self.joins.waiting.vacant_entry();
        let key = u32::try_from(entry.key()).expect("fewer joins wait than memory holds");
        for group in &joined.unconfirmed {
            self.memberships.add_waiter(ChannelKey::Group(group.clone()), Waiter::Join(key));
        }
        entry.insert(Join { slot, id, serial, joined, is_answered: false });
        self.joins.due.push_back((until, key, serial));
        self.session(slot).details().joins.push(key);
    }

    /// The bus has confirmed one room of a join.
    pub(super) fn join_confirmed(&mut self, key: u32, group: &GroupKey) {
        let join = &mut self.joins.waiting[key as usize];
        join.joined.unconfirmed.retain(|unconfirmed| unconfirmed != group);
        if !join.joined.unconfirmed.is_empty() {
            return;
        }
        let join = self.joins.waiting.remove(key as usize);
        self.session(join.slot).details().joins.retain(|waiting| *waiting != key);
        if join.is_answered {
            self.resync_client(join.slot, Some(&join.joined.rooms), "confirmed");
        } else {
            self.acknowledge(join.slot, &Some(join.id), &acknowledgement(&join.joined, false));
        }
    }

    /// Acknowledges, as degraded, the joins that have waited for long enough.
    pub(super) fn end_waiting_joins(&mut self) {
        let now = self.now();
        while let Some(&(until, key, serial)) = self.joins.due.front()
            && until <= now
        {
            self.joins.due.pop_front();
            let Some(join) = self.joins.waiting.get_mut(key as usize) else { continue };
            if join.serial == serial && !join.is_answered {
                join.is_answered = true;
                let (slot, id) = (join.slot, join.id.clone());
                let data = acknowledgement(&join.joined, true);
                self.acknowledge(slot, &Some(id), &data);
            }
        }
    }

    /// A connection ends, and its joins with it.
    pub(super) fn forget_joins(&mut self, slot: Slot) {
        let Some(details) = &mut self.session(slot).details else { return };
        for key in std::mem::take(&mut details.joins) {
            let join = self.joins.waiting.remove(key as usize);
            for group in join.joined.unconfirmed {
                self.memberships.remove_waiter(&ChannelKey::Group(group), Waiter::Join(key));
            }
        }
    }
}

fn acknowledgement(joined: &Joined, degraded: bool) -> String {
    let list =
        |rooms: &[String]| rooms.iter().map(|room| json_string(room)).collect::<Vec<_>>().join(",");
    let degraded = if degraded { ",\"degraded\":true" } else { "" };
    format!(
        "{{\"rooms\":[{}],\"denied\":[{}]{degraded}}}",
        list(&joined.rooms),
        list(&joined.denied)
    )
}
