//! A share of a fleet's clients: those of one edge, whose messages another process publishes.
//!
//! Owns what a driver needs for that and no single-server turn does: a clock that is the producer's,
//! rooms of each client's own, loads that begin and end by command. Never publishes.

use std::net::Ipv4Addr;
use std::os::fd::RawFd;
use std::time::Duration;

use mio::Interest;
use mio::unix::SourceFd;

use super::histogram::Histogram;
use super::sequence::Sequence;
use super::tally::Integrity;
use super::{COMMANDS, Driver, DriverError, PATIENCE};
use crate::clock::Clock;

/// A wait for a command is cut into pieces of this length, and goes on.
const COMMAND_WAIT: Duration = Duration::from_hours(1);

// === impl Driver ===

impl Driver {
    /// Goes by the clock that the producer writes into its messages.
    pub fn follow(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// Publishes nothing from here on, and goes on if Redis goes.
    pub fn only_listen(&mut self) -> Result<(), DriverError> {
        Ok(self.poll.registry().deregister(self.publisher.stream())?)
    }

    /// Lets clients connect from this address on.
    pub fn come_from(&mut self, address: Ipv4Addr) {
        self.first_address = address;
    }

    /// Makes every client a member of rooms of its own.
    pub fn join_each(&mut self, rooms: impl Fn(usize) -> Vec<String>) -> Result<(), DriverError> {
        for (client, connection) in self.connections.iter_mut().enumerate() {
            let rooms = rooms(client).join(r#"",""#);
            connection
                .send_text(&format!(r#"{{"event":"join","data":{{"rooms":["{rooms}"]}}}}"#))?;
        }
        Ok(())
    }

    /// The clients' ids, in the order of their numbers.
    pub fn client_ids(&self) -> impl Iterator<Item = &str> {
        self.connections.iter().map(|connection| &*connection.id)
    }

    /// Expects a new load: numbers begin at zero, and the time of each message is kept.
    pub fn begin(&mut self) {
        for connection in &mut self.connections {
            connection.sequence = Sequence::default();
        }
        self.tally.progress.deliveries = 0;
        self.tally.integrity = Integrity::default();
        self.tally.record_latency();
    }

    /// Waits for the messages of a load, as long as it makes sense to, and sums it up: `sent_to` says
    /// how many were for a client.
    pub fn finish(
        &mut self,
        sent_to: impl Fn(usize) -> u64,
    ) -> Result<(u64, Integrity, Histogram), DriverError> {
        let expected: u64 = (0..self.connections.len()).map(&sent_to).sum();
        let deadline = self.clock.elapsed() + PATIENCE;
        while self.tally.progress.deliveries < expected && self.clock.elapsed() < deadline {
            self.step(deadline)?;
        }
        let clients = self.connections.iter().enumerate();
        let lost = clients.map(|(client, connection)| connection.sequence.lost(sent_to(client)));
        let integrity = Integrity { lost: lost.sum(), ..self.tally.integrity };
        let latencies = self.tally.take_histogram().unwrap_or_default();
        Ok((self.tally.progress.deliveries, integrity, latencies))
    }

    /// Lets [`Driver::await_command`] wait for something to read here.
    pub fn listen_to(&mut self, commands: RawFd) -> Result<(), DriverError> {
        Ok(self.poll.registry().register(&mut SourceFd(&commands), COMMANDS, Interest::READABLE)?)
    }

    /// Keeps the connections alive until there is a command, or the end of all commands.
    pub fn await_command(&mut self) -> Result<(), DriverError> {
        while !self.commanded {
            let end = self.clock.elapsed() + COMMAND_WAIT;
            self.step(end)?;
        }
        self.commanded = false;
        Ok(())
    }
}
