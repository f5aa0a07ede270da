//! The names of a worker's channels on Redis.
//!
//! It owns the way from a [`ChannelKey`] to a name and back, and with sharded pub/sub the partition of
//! a channel and its tag. Pure; nothing is kept but the configured parts.

use std::borrow::Cow;

use signal_core::channel::{Channel, ChannelNames, TAGS, Target, partition};
use signal_core::id::ClientId;

use crate::bus::ChannelKey;
use crate::worker::directory::WorkerId;
use crate::worker::hub::GroupKey;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct WireNames {
    names: ChannelNames,
    instance: String,
    worker: WorkerId,
    sharded: bool,
}

// === impl WireNames ===

impl WireNames {
    pub(crate) fn new(
        names: ChannelNames,
        instance: &str,
        worker: WorkerId,
        sharded: bool,
    ) -> Self {
        Self { names, instance: instance.to_owned(), worker, sharded }
    }

    /// Whether channels have tags, by which a cluster spreads them.
    pub(crate) fn is_sharded(&self) -> bool {
        self.sharded
    }

    /// Writes a channel's name, without a tag, into `out`, which is emptied first.
    pub(crate) fn write(&self, key: &ChannelKey, out: &mut String) {
        out.clear();
        if let ChannelKey::Probe(number) = key {
            out.push_str(&self.probe(*number));
            return;
        }
        if *key == ChannelKey::Revocations {
            out.push_str(&self.names.revocations());
            return;
        }
        key.with_target(|target| {
            self.names.write(target.expect("only a probe and revocations have none"), out);
        });
    }

    /// The partition of a channel: 0 for all of them where there are none.
    pub(crate) fn partition(&self, key: &ChannelKey) -> u8 {
        if !self.sharded {
            return 0;
        }
        let mut name = String::new();
        self.write(key, &mut name);
        partition(&name)
    }

    /// What stands in front of the names of a partition.
    pub(crate) fn write_tag(&self, partition: u8, out: &mut String) {
        if self.sharded {
            out.push('{');
            out.push_str(TAGS[usize::from(partition)]);
            out.push('}');
        }
    }

    /// A name as it came from Redis, without its tag.
    pub(crate) fn without_tag<'a>(&self, channel: &'a [u8]) -> &'a [u8] {
        if !self.sharded {
            return channel;
        }
        let end = channel.iter().position(|byte| *byte == b'}').map_or(0, |end| end + 1);
        &channel[end..]
    }

    /// The channel of a name without its tag, if it is one that a worker may want.
    pub(crate) fn key(&self, channel: &[u8]) -> Option<ChannelKey> {
        let client = |id: &str| ClientId::parse(id);
        match self.names.parse(std::str::from_utf8(channel).ok()?)? {
            Channel::Target(Target::Broadcast) => Some(ChannelKey::Broadcast),
            Channel::Target(Target::Client(id)) => client(id).map(ChannelKey::Client),
            Channel::Target(Target::Room(name)) => Some(match client(name) {
                Some(client) => ChannelKey::OwnRoom(client),
                None => ChannelKey::Group(GroupKey::room(name)),
            }),
            Channel::Target(Target::User(id)) => Some(ChannelKey::Group(GroupKey::user(id))),
            Channel::Revocations => Some(ChannelKey::Revocations),
            Channel::Probe { instance, .. } => {
                let number = instance.strip_prefix(self.instance.as_str())?;
                match number.strip_prefix('.') {
                    None if number.is_empty() => Some(ChannelKey::Probe(0)),
                    None => None,
                    Some(number) => number.parse().ok().map(ChannelKey::Probe),
                }
            }
        }
    }

    /// The probe channel of this number. Links to several nodes need probes in slots of each.
    fn probe(&self, number: u16) -> String {
        let instance = match number {
            0 => Cow::Borrowed(&self.instance),
            number => Cow::Owned(format!("{}.{number}", self.instance)),
        };
        self.names.probe(&instance, usize::from(self.worker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_channel() {
        let client = ClientId::from_parts(1, 2, 3, 4);
        for sharded in [false, true] {
            let names = WireNames::new(ChannelNames::new("p:"), "signal-1", 3, sharded);
            for key in [
                ChannelKey::Broadcast,
                ChannelKey::Revocations,
                ChannelKey::Probe(0),
                ChannelKey::Probe(17),
                ChannelKey::Client(client),
                ChannelKey::OwnRoom(client),
                ChannelKey::Group(GroupKey::room("{a}:b")),
                ChannelKey::Group(GroupKey::user("}")),
            ] {
                let (mut tagged, mut name) = (String::new(), String::new());
                names.write(&key, &mut name);
                names.write_tag(names.partition(&key), &mut tagged);
                tagged.push_str(&name);
                let plain = names.without_tag(tagged.as_bytes());
                assert_eq!(plain, name.as_bytes());
                assert_eq!(names.key(plain).as_ref(), Some(&key));
                if sharded {
                    assert_eq!(tagged, signal_core::channel::sharded_name(&name));
                } else {
                    assert_eq!(tagged, name);
                }
            }
        }
    }

    #[test]
    fn probes_of_others_are_no_channel_of_ours() {
        let names = WireNames::new(ChannelNames::default(), "signal-1", 0, false);
        for other in ["ws:probe:signal-12:0", "ws:probe:other:0", "ws:probe:signal-1.x:0", "x"] {
            assert_eq!(names.key(other.as_bytes()), None, "{other}");
        }
    }
}
