//! Who is where on one worker: rooms, users and the logged-in connections, as a pure index.
//!
//! It owns the indexes from names to connections and back; it never does IO, never calls a hook and
//! knows nothing of the bus: it answers which group gained its first member or lost its last one, and
//! the caller acts on it. A connection is a [`Slot`] here, given and taken back by the caller. Sizes
//! are bounded by the caller's limits on connections and on rooms per connection. After a connection
//! is forgotten nothing of it remains, and an empty group does not exist.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use slab::Slab;

/// Where a connection lives in its worker's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot(pub(crate) u32);

/// The two kinds of named groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum GroupKind {
    /// A room, joined and left.
    Room,
    /// All connections of a user.
    User,
}

/// A group by name; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GroupKey {
    /// Room or user.
    pub(crate) kind: GroupKind,
    /// The room's name or the user's id.
    pub(crate) name: Arc<str>,
}

/// What a join did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// It was a member already.
    Already,
    /// It is a member now; others were before.
    Member,
    /// It is the group's first member on this worker.
    First(GroupKey),
}

/// The index; see the module.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    hasher: DefaultHashBuilder,
    /// Positions in `groups` by kind and name.
    names: HashTable<u32>,
    groups: Slab<Group>,
    /// By slot; an entry is absent for connections that have not logged in.
    connections: Vec<Option<Box<Connection>>>,
    /// Every logged-in connection, for broadcasts.
    everyone: Vec<Slot>,
}

#[derive(Debug)]
struct Group {
    key: GroupKey,
    members: Vec<Slot>,
}

#[derive(Debug)]
struct Connection {
    /// Where this connection stands in `Hub::everyone`.
    everyone_position: u32,
    memberships: Vec<Membership>,
}

#[derive(Clone, Copy, Debug)]
struct Membership {
    group: u32,
    /// Where the connection stands in the group's members.
    position: u32,
}

// === impl GroupKey ===

impl GroupKey {
    /// A room by name.
    pub(crate) fn room(name: &str) -> Self {
        Self { kind: GroupKind::Room, name: Arc::from(name) }
    }

    /// A user by id.
    pub(crate) fn user(id: &str) -> Self {
        Self { kind: GroupKind::User, name: Arc::from(id) }
    }
}

// === impl Hub ===

impl Hub {
    /// A connection has logged in: it belongs to everyone, and may join.
    pub(crate) fn admit(&mut self, slot: Slot) {
        let index = slot.0 as usize;
        if self.connections.len() <= index {
            self.connections.resize_with(index + 1, || None);
        }
        debug_assert!(self.connections[index].is_none(), "{slot:?} is admitted twice");
        let everyone_position = position(self.everyone.len());
        self.everyone.push(slot);
        self.connections[index] =
            Some(Box::new(Connection { everyone_position, memberships: Vec::new() }));
    }

    /// Makes an admitted connection a member.
    pub(crate) fn join(&mut self, slot: Slot, kind: GroupKind, name: &str) -> Joined {
        let hash = self.hash(kind, name);
        let Some(group) = self.find(hash, kind, name) else {
            let key = GroupKey { kind, name: Arc::from(name) };
            let group = self.groups.insert(Group { key: key.clone(), members: vec![slot] });
            let group = position(group);
            let (groups, hasher) = (&self.groups, &self.hasher);
            self.names.insert_unique(hash, group, |&group| {
                hash_key(hasher, groups[group as usize].key.kind, &groups[group as usize].key.name)
            });
            self.connection_mut(slot).memberships.push(Membership { group, position: 0 });
            return Joined::First(key);
        };
        if self.membership(slot, group).is_some() {
            return Joined::Already;
        }
        let members = &mut self.groups[group as usize].members;
        let position = position(members.len());
        members.push(slot);
        self.connection_mut(slot).memberships.push(Membership { group, position });
        Joined::Member
    }

    /// Ends a membership; returns the group's key if that was its last member here. `None` also if
    /// the connection was no member.
    pub(crate) fn leave(&mut self, slot: Slot, kind: GroupKind, name: &str) -> Option<GroupKey> {
        let group = self.find(self.hash(kind, name), kind, name)?;
        let index = self.membership(slot, group)?;
        let membership = self.connection_mut(slot).memberships.swap_remove(index);
        self.end(membership)
    }

    /// Forgets a connection; calls `emptied` for each group that lost its last member here.
    pub(crate) fn forget(&mut self, slot: Slot, mut emptied: impl FnMut(GroupKey)) {
        let Some(connection) = self.connections.get_mut(slot.0 as usize).and_then(Option::take)
        else {
            return;
        };
        for membership in connection.memberships {
            if let Some(key) = self.end(membership) {
                emptied(key);
            }
        }
        self.everyone.swap_remove(connection.everyone_position as usize);
        if let Some(&moved) = self.everyone.get(connection.everyone_position as usize) {
            self.connection_mut(moved).everyone_position = connection.everyone_position;
        }
        if self.everyone.is_empty() {
            self.connections = Vec::new();
            self.everyone = Vec::new();
        }
    }

    /// The members of a group; empty if there is none of that name.
    pub(crate) fn members(&self, kind: GroupKind, name: &str) -> &[Slot] {
        self.find(self.hash(kind, name), kind, name)
            .map_or(&[], |group| &self.groups[group as usize].members)
    }

    /// Every admitted connection.
    pub(crate) fn everyone(&self) -> &[Slot] {
        &self.everyone
    }

    /// Whether the connection is a member.
    pub(crate) fn is_member(&self, slot: Slot, kind: GroupKind, name: &str) -> bool {
        self.find(self.hash(kind, name), kind, name)
            .is_some_and(|group| self.membership(slot, group).is_some())
    }

    /// The groups a connection is a member of.
    pub(crate) fn groups_of(&self, slot: Slot) -> impl Iterator<Item = &GroupKey> {
        let connection = self.connections.get(slot.0 as usize).and_then(Option::as_ref);
        connection
            .into_iter()
            .flat_map(|connection| &connection.memberships)
            .map(|membership| &self.groups[membership.group as usize].key)
    }

    /// Every group with its number of members.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&GroupKey, usize)> {
        self.groups.iter().map(|(_, group)| (&group.key, group.members.len()))
    }

    /// Takes a membership out of its group, and the group out of the index if it is empty then.
    fn end(&mut self, membership: Membership) -> Option<GroupKey> {
        let group = &mut self.groups[membership.group as usize];
        group.members.swap_remove(membership.position as usize);
        if let Some(&moved) = group.members.get(membership.position as usize) {
            // A membership that a forgotten connection still lists is not there to be updated:
            // its own entry was taken out above, so `moved` is another connection.
            let index = self
                .membership(moved, membership.group)
                .expect("a member of a group lists the group");
            self.connection_mut(moved).memberships[index].position = membership.position;
            return None;
        }
        if !group.members.is_empty() {
            return None;
        }
        let group = self.groups.remove(membership.group as usize);
        let hash = self.hash(group.key.kind, &group.key.name);
        self.names
            .find_entry(hash, |&index| index == membership.group)
            .expect("a group is listed under its name")
            .remove();
        Some(group.key)
    }

    fn membership(&self, slot: Slot, group: u32) -> Option<usize> {
        let connection = self.connections.get(slot.0 as usize)?.as_ref()?;
        connection.memberships.iter().position(|membership| membership.group == group)
    }

    fn connection_mut(&mut self, slot: Slot) -> &mut Connection {
        self.connections[slot.0 as usize].as_mut().expect("only admitted connections are members")
    }

    fn find(&self, hash: u64, kind: GroupKind, name: &str) -> Option<u32> {
        self.names
            .find(hash, |&group| {
                let key = &self.groups[group as usize].key;
                key.kind == kind && *key.name == *name
            })
            .copied()
    }

    fn hash(&self, kind: GroupKind, name: &str) -> u64 {
        hash_key(&self.hasher, kind, name)
    }
}

fn hash_key(hasher: &DefaultHashBuilder, kind: GroupKind, name: &str) -> u64 {
    let mut state = hasher.build_hasher();
    (kind == GroupKind::Room, name).hash(&mut state);
    std::hash::Hasher::finish(&state)
}

/// Positions fit 32 bits: a worker has fewer than 2^28 slots.
fn position(index: usize) -> u32 {
    u32::try_from(index).expect("a worker has fewer than 2^28 connections")
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
