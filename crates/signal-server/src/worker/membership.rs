//! What a worker listens to on the bus, because some connection here or on another worker wants it.
//!
//! The first local member of a group makes its home listen (this worker, or another one that is told);
//! the last one to leave undoes it after a linger, so that a client that reconnects finds the
//! subscription standing. A client's own channels are at home where the client is, and end with it.
//! It owns the interests of groups that are at home here, what is known of the homes of others, and who
//! waits for the bus to confirm a channel; it never does IO and never waits. Bounded by the memberships
//! of the hub, and by what clients, within their rate, give up during a linger. A home may move while word of it is under way between workers or on the bus, so only
//! what comes of the present tenure counts: from this link if the group is at home here, else from its
//! home.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;
use signal_core::id::ClientId;

use super::directory::{Tenure, WorkerId, WorkerSet};
use super::hub::{GroupKey, GroupKind, Joined, Slot};
use super::wheel::Tick;
use super::{Command, State};
use crate::bus::{ChannelKey, Link};

/// The state; see the module.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    /// Groups that are at home here.
    pub(super) interests: HashMap<GroupKey, Interest>,
    /// When to look at a group that may be given up, in about that order; each stands in it once.
    lingering: VecDeque<(Tick, GroupKey)>,
    /// Groups with members here that are at home on another worker.
    elsewhere: HashMap<GroupKey, Elsewhere>,
    /// Whose answer waits for a channel.
    waiting: HashMap<ChannelKey, Vec<Waiter>>,
    last_visit: Visit,
}

/// One time of this worker as one that has members of a group which is at home on another. It may leave
/// and come back before the home has heard of either: only word of the last time counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Visit(u64);

/// Whose answer waits for the bus to confirm a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiter {
    /// A login.
    Login(Slot),
    /// A join, by its place in the worker's table.
    Join(u32),
}

#[derive(Debug)]
struct Elsewhere {
    tenure: Tenure,
    visit: Visit,
    /// The home says that the bus has confirmed it.
    confirmed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Interest {
    pub(super) tenure: Tenure,
    /// There are members here.
    local: bool,
    /// Other workers that have members.
    pub(super) remotes: WorkerSet,
    /// The visit of each of them.
    pub(super) visits: Vec<(WorkerId, Visit)>,
    /// When the group is given up, if nobody comes back.
    until: Option<Tick>,
    /// It stands in the queue of those that linger.
    queued: bool,
}

// === impl Memberships ===

impl Memberships {
    /// Groups at home here.
    pub(super) fn interests(&self) -> usize {
        self.interests.len()
    }

    /// Entries of the queue of groups that may be given up.
    pub(super) fn lingering(&self) -> usize {
        self.lingering.len()
    }

    /// Groups with members here that are at home on another worker.
    pub(super) fn elsewhere(&self) -> usize {
        self.elsewhere.len()
    }

    /// Channels that answers wait for.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn add_waiter(&mut self, key: ChannelKey, waiter: Waiter) {
        self.waiting.entry(key).or_default().push(waiter);
    }

    pub(super) fn remove_waiter(&mut self, key: &ChannelKey, waiter: Waiter) {
        if let Some(waiters) = self.waiting.get_mut(key) {
            waiters.retain(|waiting| *waiting != waiter);
            if waiters.is_empty() {
                self.waiting.remove(key);
            }
        }
    }

    /// Other workers that have members of a group, and its tenure, if it is at home here.
    pub(super) fn at_home(&self, kind: GroupKind, name: &str) -> Option<(WorkerSet, Tenure)> {
        let interest = self.interests.get(&GroupRef { kind, name })?;
        Some((interest.remotes, interest.tenure))
    }

    /// Whether a group is at home here, in this tenure.
    pub(super) fn is_at_home(&self, key: &GroupKey, tenure: Tenure) -> bool {
        self.interests.get(key).is_some_and(|interest| interest.tenure == tenure)
    }

    /// Whether a group with members here is at home on another worker, in this tenure.
    pub(super) fn is_elsewhere(&self, key: &GroupKey, tenure: Tenure) -> bool {
        self.elsewhere.get(key).is_some_and(|elsewhere| elsewhere.tenure == tenure)
    }
}

/// A group by its parts, to look one up without building a key.
#[derive(Hash)]
struct GroupRef<'a> {
    // As in `GroupKey`, whose hash has to be the same.
    kind: GroupKind,
    name: &'a str,
}

impl hashbrown::Equivalent<GroupKey> for GroupRef<'_> {
    fn equivalent(&self, key: &GroupKey) -> bool {
        self.kind == key.kind && *self.name == *key.name
    }
}

// === impl State ===

impl State {
    /// What the first worker listens to from the start.
    pub(super) fn listen_always(&mut self) {
        if self.id == 0 {
            self.link.want(ChannelKey::Broadcast);
            self.link.want(ChannelKey::Revocations);
        }
    }

    /// A client's own channels.
    pub(super) fn listen_for_client(&mut self, slot: Slot) {
        let client = self.session(slot).client;
        for key in [ChannelKey::Client(client), ChannelKey::OwnRoom(client)] {
            if !self.link.want(key.clone()) {
                self.wait_for(slot, key);
            }
        }
    }

    /// Makes a connection a member; returns whether the bus has confirmed the group.
    pub(super) fn enter_group(&mut self, slot: Slot, kind: GroupKind, name: &str) -> bool {
        let joined = self.hub.join(slot, kind, name);
        if kind == GroupKind::Room && joined != Joined::Already {
            self.room_joined(slot, name);
        }
        match joined {
            Joined::First(key) => self.first_member(key),
            Joined::Already | Joined::Member => {
                self.is_confirmed(&GroupKey { kind, name: name.into() })
            }
        }
    }

    /// Makes a connection a member of a room, its own included; returns whether the bus has confirmed
    /// it, or `None` if it is another client's own: nobody enters that, whoever asks for it.
    pub(super) fn enter_room(&mut self, slot: Slot, room: &str) -> Option<bool> {
        match ClientId::parse(room) {
            None => Some(self.enter_group(slot, GroupKind::Room, room)),
            Some(client) if client == self.session(slot).client => {
                self.session(slot).in_own_room = true;
                Some(true)
            }
            Some(_) => {
                self.counters.joins_denied += 1;
                None
            }
        }
    }

    /// Ends a connection's membership of a room, its own included; returns whether there was one.
    pub(super) fn leave_room(&mut self, slot: Slot, room: &str) -> bool {
        if ClientId::parse(room) == Some(self.session(slot).client) {
            return std::mem::take(&mut self.session(slot).in_own_room);
        }
        let was_member = self.hub.is_member(slot, GroupKind::Room, room);
        if was_member {
            self.room_left(slot, room);
        }
        if let Some(key) = self.hub.leave(slot, GroupKind::Room, room) {
            self.last_member(key);
        }
        was_member
    }

    /// Takes a connection out of every index.
    pub(super) fn forget(&mut self, slot: Slot) {
        if !self.session(slot).is_online() {
            return;
        }
        self.stop_waiting(slot);
        self.forget_joins(slot);
        let client = self.session(slot).client;
        self.session(slot).in_own_room = false;
        self.link.unwant(&ChannelKey::Client(client));
        self.link.unwant(&ChannelKey::OwnRoom(client));
        self.forget_room_keys(slot);
        let mut emptied = Vec::new();
        self.hub.forget(slot, |key| emptied.push(key));
        for key in emptied {
            self.last_member(key);
        }
    }

    fn first_member(&mut self, key: GroupKey) -> bool {
        let (home, tenure) = self.shared.directory.enter(&key, self.id);
        if home != self.id {
            self.memberships.last_visit.0 += 1;
            let visit = self.memberships.last_visit;
            let elsewhere = Elsewhere { tenure, visit, confirmed: false };
            self.memberships.elsewhere.insert(key.clone(), elsewhere);
            let command = Command::Interest(key, tenure, self.id, visit);
            self.shared.queues[usize::from(home)].control(command);
            return false;
        }
        let interest = self.memberships.interests.entry(key.clone()).or_default();
        interest.tenure = tenure;
        interest.local = true;
        interest.until = None;
        self.link.want(ChannelKey::Group(key))
    }

    fn last_member(&mut self, key: GroupKey) {
        self.memberships.elsewhere.remove(&key);
        let home = self.shared.directory.leave(&key, self.id);
        if home != self.id {
            self.shared.queues[usize::from(home)].control(Command::Disinterest(key, self.id));
            return;
        }
        if let Some(interest) = self.memberships.interests.get_mut(&key) {
            interest.local = false;
        }
        self.linger(key);
    }

    /// Another worker has members of a group that is at home here.
    pub(super) fn interest(
        &mut self,
        key: &GroupKey,
        tenure: Tenure,
        worker: WorkerId,
        visit: Visit,
    ) {
        let interest = self.memberships.interests.get_mut(key);
        // Given up in the meantime, since those members have left again: word of that is on the way.
        let Some(interest) = interest.filter(|interest| interest.tenure == tenure) else { return };
        interest.remotes.insert(worker);
        interest.visits.retain(|(other, _)| *other != worker);
        interest.visits.push((worker, visit));
        interest.until = None;
        if self.link.want(ChannelKey::Group(key.clone())) {
            let command = Command::Confirmed(key.clone(), tenure, visit, true);
            self.shared.queues[usize::from(worker)].control(command);
        }
    }

    /// Another worker has none any more.
    pub(super) fn disinterest(&mut self, key: GroupKey, worker: WorkerId) {
        if let Some(interest) = self.memberships.interests.get_mut(&key) {
            interest.remotes.remove(worker);
            interest.visits.retain(|(other, _)| *other != worker);
        }
        self.linger(key);
    }

    /// A group that nobody wants any more is given up after a while; on the in-process bus at once.
    fn linger(&mut self, key: GroupKey) {
        let now = self.now();
        let linger = match self.link {
            Link::Memory => Duration::ZERO,
            Link::Redis(_) => self.shared.config.bus_linger,
        };
        let Some(interest) = self.memberships.interests.get_mut(&key) else { return };
        if interest.local || !interest.remotes.is_empty() {
            return;
        }
        if linger.is_zero() {
            self.give_up(&key);
            return;
        }
        let until = now.after(linger);
        interest.until = Some(until);
        // A group that is left and entered again and again stands in the queue once all the same.
        if !std::mem::replace(&mut interest.queued, true) {
            self.memberships.lingering.push_back((until, key));
        }
    }

    /// Gives up what has lingered long enough.
    pub(super) fn end_lingering(&mut self) {
        let now = self.now();
        while let Some((until, _)) = self.memberships.lingering.front()
            && *until <= now
        {
            let (_, key) = self.memberships.lingering.pop_front().expect("there is a front");
            let Some(interest) = self.memberships.interests.get_mut(&key) else { continue };
            match interest.until {
                None => interest.queued = false,
                Some(until) if until > now => self.memberships.lingering.push_back((until, key)),
                Some(_) => {
                    interest.queued = false;
                    self.give_up(&key);
                }
            }
        }
    }

    fn give_up(&mut self, key: &GroupKey) {
        // Another worker may have entered just now; its word is on the way.
        if self.shared.directory.give_up(key) {
            self.memberships.interests.remove(key);
            self.link.unwant(&ChannelKey::Group(key.clone()));
        }
    }

    /// Whether the bus has confirmed a group that has members here.
    fn is_confirmed(&mut self, key: &GroupKey) -> bool {
        if self.memberships.interests.contains_key(key) {
            return self.link.want(ChannelKey::Group(key.clone()));
        }
        self.memberships.elsewhere.get(key).is_some_and(|elsewhere| elsewhere.confirmed)
    }

    /// Has the answer to a login wait for a channel.
    pub(super) fn wait_for(&mut self, slot: Slot, key: ChannelKey) {
        self.memberships.add_waiter(key, Waiter::Login(slot));
        self.session(slot).awaiting += 1;
    }

    /// A login waits no longer.
    pub(super) fn stop_waiting(&mut self, slot: Slot) {
        if std::mem::take(&mut self.session(slot).awaiting) == 0 {
            return;
        }
        let client = self.session(slot).client;
        let groups = self.hub.groups_of(slot).cloned().map(ChannelKey::Group);
        let keys: Vec<_> =
            groups.chain([ChannelKey::Client(client), ChannelKey::OwnRoom(client)]).collect();
        for key in keys {
            self.memberships.remove_waiter(&key, Waiter::Login(slot));
        }
    }

    /// The home says whether the bus has confirmed a group.
    pub(super) fn home_confirmed(
        &mut self,
        key: GroupKey,
        tenure: Tenure,
        visit: Visit,
        confirmed: bool,
    ) {
        let elsewhere = self.memberships.elsewhere.get_mut(&key);
        let is_present =
            |elsewhere: &&mut Elsewhere| elsewhere.tenure == tenure && elsewhere.visit == visit;
        let Some(elsewhere) = elsewhere.filter(is_present) else { return };
        elsewhere.confirmed = confirmed;
        if confirmed {
            self.confirmed(&ChannelKey::Group(key));
        }
    }

    /// A channel is confirmed, here or at its home.
    pub(super) fn confirmed(&mut self, key: &ChannelKey) {
        for waiter in self.memberships.waiting.remove(key).unwrap_or_default() {
            match (waiter, key) {
                (Waiter::Login(slot), _) => self.login_confirmed(slot),
                (Waiter::Join(join), ChannelKey::Group(group)) => self.join_confirmed(join, group),
                (Waiter::Join(_), _) => unreachable!("a join waits for groups"),
            }
        }
    }

    /// The bus confirmed one of the channels that a login waits for.
    fn login_confirmed(&mut self, slot: Slot) {
        let session = self.session(slot);
        session.awaiting -= 1;
        if session.awaiting > 0 {
            return;
        }
        if session.is_login_pending {
            self.answer_login(slot);
        } else if std::mem::take(&mut session.is_degraded) {
            self.resync_client(slot, None, "confirmed");
        }
    }
}
