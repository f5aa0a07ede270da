//! A producer without clients: publishes at a rate of its own to whoever listens, on one Redis or on
//! all masters of a cluster.
//!
//! Owns its connections, several to each server. Never waits for a reply; what Redis does not take is
//! bounded by the publishers.

use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use signal_core::channel::{TAGS, Target, partition, sharded_name, slot};

use super::publisher::Publisher;
use super::ticker::Ticker;
use super::{DriverError, READ_BYTES, loopback, payload};
use crate::clock::Clock;
use crate::resp;

/// Connections to each server, as of so many services: what they send together, Redis reads one by one.
const SERVICES: usize = 8;

/// Replies and ticks handled per `epoll_wait`.
const EVENTS_MAX: usize = 64;

/// Slots of a Redis Cluster.
const SLOTS: usize = 16384;

const TICKER: Token = Token(usize::MAX);

/// Where a channel is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// On the one Redis, at this port.
    Single(u16),
    /// On the master that has the channel's slot, at one of these ports.
    Sharded(Vec<u16>),
}

/// A producer.
#[derive(Debug)]
pub struct Producer {
    poll: Poll,
    events: Events,
    /// Those to one server after those to another.
    publishers: Vec<Publisher>,
    /// Whose turn it is.
    service: usize,
    route: Route,
    clock: Clock,
    buffer: Box<[u8]>,
}

// === impl Route ===

impl Route {
    /// The ports of all servers.
    pub fn ports(&self) -> &[u16] {
        match self {
            Self::Single(port) => std::slice::from_ref(port),
            Self::Sharded(ports) => ports,
        }
    }

    /// The first and the last slot of a master, if each of `masters` has its share.
    pub fn slots(master: usize, masters: usize) -> (usize, usize) {
        (master * SLOTS / masters, (master + 1) * SLOTS / masters - 1)
    }

    /// The place of a channel's server among [`Route::ports`], and the command there.
    fn publish(&self, channel: &str, message: &str) -> (usize, Vec<u8>) {
        let (place, name, word) = match self {
            Self::Single(_) => (0, channel.to_owned(), "PUBLISH"),
            Self::Sharded(ports) => {
                let slot = usize::from(slot(TAGS[usize::from(partition(channel))]));
                let is_home = |master: &usize| slot <= Self::slots(*master, ports.len()).1;
                let master = (0..ports.len()).find(is_home).expect("the last has the last slot");
                (master, sharded_name(channel), "SPUBLISH")
            }
        };
        let mut command = Vec::new();
        let parts = [word.as_bytes(), name.as_bytes(), message.as_bytes()];
        resp::write_command(&mut command, parts.into_iter());
        (place, command)
    }
}

// === impl Producer ===

impl Producer {
    /// Connects to every server of a route.
    pub fn connect(route: Route, clock: Clock) -> Result<Self, DriverError> {
        let poll = Poll::new()?;
        let mut publishers = Vec::new();
        for port in route.ports().iter().flat_map(|port| [*port; SERVICES]) {
            let mut publisher = Publisher::connect(loopback(port))?;
            let (both, token) = (Interest::READABLE | Interest::WRITABLE, Token(publishers.len()));
            poll.registry().register(publisher.stream(), token, both)?;
            publishers.push(publisher);
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            publishers,
            service: 0,
            route,
            clock,
            buffer: vec![0; READ_BYTES].into(),
        })
    }

    /// Publishes a measured message.
    pub fn publish(&mut self, target: Target<'_>, sequence: u64) -> Result<(), DriverError> {
        let data = payload::data(sequence, self.clock.micros());
        let (channel, envelope) = payload::addressed(target, "bench", &data);
        let (place, command) = self.route.publish(&channel, &envelope);
        self.service = (self.service + 1) % SERVICES;
        let publisher = &mut self.publishers[place * SERVICES + self.service];
        publisher.publish(&command);
        publisher.flush()
    }

    /// Calls `publish` so often every `interval` for a while; returns how often in all.
    pub fn run(
        &mut self,
        (interval, messages): (Duration, u64),
        duration: Duration,
        mut publish: impl FnMut(&mut Self) -> Result<(), DriverError>,
    ) -> Result<u64, DriverError> {
        let ticker = Ticker::start(interval, self.poll.registry(), TICKER)?;
        let end = self.clock.elapsed() + duration;
        let mut published = 0;
        while self.clock.elapsed() < end {
            for _ in 0..ticker.elapsed_ticks()? * messages {
                publish(self)?;
                published += 1;
            }
            self.step(end)?;
        }
        Ok(published)
    }

    /// Waits for events until `deadline` at most, and handles them.
    fn step(&mut self, deadline: Duration) -> Result<(), DriverError> {
        let timeout = deadline.saturating_sub(self.clock.elapsed());
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                return Err(error.into());
            }
            _ => {}
        }
        for event in &self.events {
            if let Some(publisher) = self.publishers.get_mut(event.token().0) {
                if event.is_readable() {
                    publisher.read_replies(&mut self.buffer)?;
                }
                publisher.flush()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_redis_gets_everything() {
        let (place, command) = Route::Single(1).publish("ws:broadcast", "{}");
        assert_eq!(place, 0);
        assert_eq!(command, b"*3\r\n$7\r\nPUBLISH\r\n$12\r\nws:broadcast\r\n$2\r\n{}\r\n");
    }

    #[test]
    fn every_master_gets_its_share_of_channels() {
        let route = Route::Sharded(vec![1, 2, 3]);
        let mut shares = [0; 3];
        for user in 0..3_000 {
            let (place, command) = route.publish(&format!("ws:user:u{user}"), "{}");
            assert!(command.starts_with(b"*3\r\n$8\r\nSPUBLISH\r\n"));
            shares[place] += 1;
        }
        assert!(shares.iter().all(|share| (800..1_200).contains(share)), "{shares:?}");
    }

    #[test]
    fn the_masters_have_all_slots_once() {
        for masters in [1, 3, 6, 7] {
            let slots: Vec<_> = (0..masters).map(|master| Route::slots(master, masters)).collect();
            assert_eq!((slots[0].0, slots[masters - 1].1), (0, SLOTS - 1));
            assert!(slots.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{slots:?}");
        }
    }
}
