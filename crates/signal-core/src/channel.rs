//! Redis channel names, plain and with a hash tag.
//!
//! Owns the mapping between a target and its channel, both ways. It must never decide who may
//! publish or subscribe. Names are as long as what they are made of; nothing is cached.

mod shard;

use std::fmt::Write as _;

pub use shard::{PARTITIONS, TAGS, partition, sharded_name, slot, unsharded_name};

const BROADCAST: &str = "ws:broadcast";
const ROOM: &str = "ws:room:";
const USER: &str = "ws:user:";
const CLIENT: &str = "ws:client:";
const PROBE: &str = "ws:probe:";
const REVOKE: &str = "ws:revoke";

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target<'a> {
    /// Every authenticated client.
    Broadcast,
    /// The members of a room.
    Room(&'a str),
    /// The connections of a user.
    User(&'a str),
    /// One connection.
    Client(&'a str),
}

/// What a channel name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel<'a> {
    /// Messages for this target.
    Target(Target<'a>),
    /// Credentials that are withdrawn.
    Revocations,
    /// The channel on which a link of an edge hears itself.
    Probe {
        /// The edge's instance name.
        instance: &'a str,
        /// The worker whose link it is.
        worker: usize,
    },
}

/// Writes and reads channel names under one prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelNames {
    /// In front of every name. Pub/sub ignores the database number, so this is what keeps two
    /// environments on one Redis apart.
    prefix: String,
}

// === impl ChannelNames ===

impl ChannelNames {
    /// Names that begin with `prefix`, which may be empty.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The prefix in front of every name.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The channel of `target`.
    pub fn name(&self, target: Target<'_>) -> String {
        let mut name = String::new();
        self.write(target, &mut name);
        name
    }

    /// Appends the channel of `target` to `out`, so that a caller can reuse one buffer.
    pub fn write(&self, target: Target<'_>, out: &mut String) {
        let (kind, rest) = match target {
            Target::Broadcast => (BROADCAST, ""),
            Target::Room(room) => (ROOM, room),
            Target::User(user) => (USER, user),
            Target::Client(client) => (CLIENT, client),
        };
        out.reserve(self.prefix.len() + kind.len() + rest.len());
        out.push_str(&self.prefix);
        out.push_str(kind);
        out.push_str(rest);
    }

    /// The channel of revocations, which every edge listens to.
    pub fn revocations(&self) -> String {
        format!("{}{REVOKE}", self.prefix)
    }

    /// The probe channel of one link.
    pub fn probe(&self, instance: &str, worker: usize) -> String {
        let mut name = format!("{}{PROBE}{instance}:", self.prefix);
        write!(name, "{worker}").expect("writing to a String cannot fail");
        name
    }

    /// What `channel` means, or `None` if it is no channel of Signal under this prefix.
    ///
    /// A sharded name goes through [`unsharded_name`] first. A target without a name is no target.
    pub fn parse<'a>(&self, channel: &'a str) -> Option<Channel<'a>> {
        // Without a prefix, the rule, nothing is compared: a masked load at the dangling address of
        // an empty string costs ten times what the rest of this function does.
        let name = match self.prefix.as_str() {
            "" => channel,
            prefix => channel.strip_prefix(prefix)?,
        };
        if name == BROADCAST {
            return Some(Channel::Target(Target::Broadcast));
        }
        if name == REVOKE {
            return Some(Channel::Revocations);
        }
        let target = if let Some(room) = name.strip_prefix(ROOM) {
            Target::Room(room)
        } else if let Some(client) = name.strip_prefix(CLIENT) {
            Target::Client(client)
        } else if let Some(user) = name.strip_prefix(USER) {
            Target::User(user)
        } else {
            let (instance, worker) = name.strip_prefix(PROBE)?.rsplit_once(':')?;
            return Some(Channel::Probe { instance, worker: parse_worker(worker)? });
        };
        let named = !matches!(target, Target::Room("") | Target::Client("") | Target::User(""));
        named.then_some(Channel::Target(target))
    }
}

/// Digits only, and in the one form that [`ChannelNames::probe`] writes.
fn parse_worker(text: &str) -> Option<usize> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_fleet() {
        let names = ChannelNames::new("");
        assert_eq!(names.name(Target::Broadcast), "ws:broadcast");
        assert_eq!(names.name(Target::Room("branch:12")), "ws:room:branch:12");
        assert_eq!(names.name(Target::User("u-7")), "ws:user:u-7");
        assert_eq!(names.name(Target::Client("c")), "ws:client:c");
        assert_eq!(names.probe("edge-1", 3), "ws:probe:edge-1:3");
        assert_eq!(names.revocations(), "ws:revoke");
        assert_eq!(names.parse("ws:revoke"), Some(Channel::Revocations));
        let prefixed = ChannelNames::new("test:");
        assert_eq!(prefixed.name(Target::Broadcast), "test:ws:broadcast");
        assert_eq!(prefixed.probe("edge-1", 0), "test:ws:probe:edge-1:0");
        assert_eq!(prefixed.prefix(), "test:");
        assert_eq!(prefixed.revocations(), "test:ws:revoke");
        assert_eq!(prefixed.parse("test:ws:revoke"), Some(Channel::Revocations));
    }

    #[test]
    fn a_probe_keeps_colons_in_the_instance() {
        let names = ChannelNames::default();
        let probe = Channel::Probe { instance: "[::1]:80", worker: 12 };
        assert_eq!(names.parse(&names.probe("[::1]:80", 12)), Some(probe));
    }

    #[test]
    fn what_is_no_channel() {
        let names = ChannelNames::new("p:");
        for other in [
            "",
            "p:",
            "ws:broadcast",
            "p:ws:broadcasts",
            "ws:revoke",
            "p:ws:revoke:",
            "p:ws:revoked",
            "p:ws:room:",
            "p:ws:user:",
            "p:ws:client:",
            "p:ws:room",
            "p:ws:probe:edge",
            "p:ws:probe:edge:",
            "p:ws:probe:edge:x",
            "p:ws:probe:edge:+1",
            "p:ws:probe:edge:01",
            "p:ws:probe:edge:99999999999999999999999",
            "P:ws:broadcast",
        ] {
            assert_eq!(names.parse(other), None, "{other}");
        }
    }
}
