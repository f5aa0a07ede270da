//! Which server owns which slots of a cluster: the answer to `CLUSTER SLOTS`, read.
//!
//! Pure. What an answer says is taken as it is or not at all; nothing is merged with an earlier one.

use std::{collections::BTreeSet, fmt};

use redis_protocol::resp3::types::OwnedFrame;

use super::resp;

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

/// Who owns what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Slots {
    /// First and last slot of each range and its master, sorted.
    ranges: Vec<(u16, u16, Address)>,
    /// Every server that was named, replicas included.
    servers: BTreeSet<Address>,
}

// === impl Address ===

impl Address {
    pub(super) fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// Reads `host:port`; a server that does not know its own name leaves the host out, and means the
    /// one that was asked.
    pub(super) fn parse(text: &str, asked: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.split('@').next()?.parse().ok()?;
        Some(Self::new(if is_unknown(host) { &asked.host } else { host }, port))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.host, self.port)
    }
}

// === impl Slots ===

impl Slots {
    /// Reads the answer of the server that was asked; `None` if it is none.
    pub(super) fn read(answer: &OwnedFrame, asked: &Address) -> Option<Self> {
        let mut slots = Self::default();
        let OwnedFrame::Array { data: ranges, .. } = answer else { return None };
        for range in ranges {
            let OwnedFrame::Array { data: parts, .. } = range else { return None };
            let [first, last, servers @ ..] = parts.as_slice() else { return None };
            let (first, last) = (number(first)?, number(last)?);
            let mut servers = servers.iter().map(|server| server_of(server, asked));
            slots.ranges.push((first, last, servers.next()??));
            // A replica that cannot be read is of no use, and does no harm.
            slots.servers.extend(servers.flatten());
        }
        slots.ranges.sort();
        slots.servers.extend(slots.ranges.iter().map(|(_, _, master)| master.clone()));
        (!slots.ranges.is_empty()).then_some(slots)
    }

    /// The master of a slot, if it has one.
    pub(super) fn owner(&self, slot: u16) -> Option<&Address> {
        let index = self.ranges.partition_point(|(_, last, _)| *last < slot);
        let (first, _, master) = self.ranges.get(index)?;
        (*first <= slot).then_some(master)
    }

    /// Servers that own slots.
    pub(super) fn masters(&self) -> BTreeSet<&Address> {
        self.ranges.iter().map(|(_, _, master)| master).collect()
    }

    /// Whether the server is part of the cluster.
    pub(super) fn has(&self, server: &Address) -> bool {
        self.servers.contains(server)
    }
}

fn server_of(server: &OwnedFrame, asked: &Address) -> Option<Address> {
    let OwnedFrame::Array { data: parts, .. } = server else { return None };
    let [host, port, ..] = parts.as_slice() else { return None };
    let host = resp::text(host).unwrap_or_default();
    let host = if is_unknown(host) { &asked.host } else { host };
    Some(Address::new(host, number(port)?))
}

fn is_unknown(host: &str) -> bool {
    host.is_empty() || host == "?"
}

fn number(value: &OwnedFrame) -> Option<u16> {
    u16::try_from(resp::number(value)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(data: Vec<OwnedFrame>) -> OwnedFrame {
        OwnedFrame::Array { data, attributes: None }
    }

    fn text(text: &str) -> OwnedFrame {
        OwnedFrame::BlobString { data: text.as_bytes().to_vec(), attributes: None }
    }

    fn integer(data: i64) -> OwnedFrame {
        OwnedFrame::Number { data, attributes: None }
    }

    fn server(host: &str, port: i64) -> OwnedFrame {
        array(vec![text(host), integer(port), text("id")])
    }

    fn range(first: i64, last: i64, servers: Vec<OwnedFrame>) -> OwnedFrame {
        array([vec![integer(first), integer(last)], servers].concat())
    }

    #[test]
    fn owners_are_found_by_slot() {
        let asked = Address::new("seed", 1);
        let answer = array(vec![
            range(5461, 10922, vec![server("b", 2), server("c", 3)]),
            range(0, 5460, vec![server("a", 1)]),
            range(16000, 16000, vec![server("", 4)]),
        ]);
        let slots = Slots::read(&answer, &asked).unwrap();
        let owner = |slot| slots.owner(slot).map(ToString::to_string);
        assert_eq!(owner(0).unwrap(), "a:1");
        assert_eq!(owner(5460).unwrap(), "a:1");
        assert_eq!(owner(5461).unwrap(), "b:2");
        assert_eq!(owner(10922).unwrap(), "b:2");
        assert_eq!(owner(10923), None);
        assert_eq!(owner(16000).unwrap(), "seed:4");
        assert_eq!(owner(16383), None);
        assert_eq!(slots.masters().len(), 3);
        assert!(slots.has(&Address::new("c", 3)));
        assert!(!slots.has(&Address::new("d", 3)));
    }

    #[test]
    fn what_is_no_answer_is_none() {
        let asked = Address::new("seed", 1);
        for answer in [
            OwnedFrame::Null,
            array(Vec::new()),
            array(vec![OwnedFrame::Null]),
            array(vec![range(0, 1, Vec::new())]),
            array(vec![range(-1, 1, vec![server("a", 1)])]),
            array(vec![range(0, 1, vec![server("a", 70_000)])]),
        ] {
            assert_eq!(Slots::read(&answer, &asked), None, "{answer:?}");
        }
    }

    #[test]
    fn addresses_are_read_as_redis_writes_them() {
        let asked = Address::new("seed", 1);
        for (text, expected) in [
            ("10.0.0.1:7000", "10.0.0.1:7000"),
            (":7000", "seed:7000"),
            ("?:7000", "seed:7000"),
            ("::1:7000@17000", "::1:7000"),
        ] {
            assert_eq!(Address::parse(text, &asked).unwrap().to_string(), expected);
        }
        for text in ["", "10.0.0.1", "10.0.0.1:", "10.0.0.1:x"] {
            assert_eq!(Address::parse(text, &asked), None, "{text}");
        }
    }
}
