//! One fleet of one size: its processes, what they are put through, and what that costs.
//!
//! Owns the processes of the fleet; all end with it. Rates stay far below what the machine can do, so
//! that costs are measured and not queues; what the fleet needs without a load is measured first, and
//! taken off.

use std::path::Path;
use std::time::Duration;

use super::bus::{self, Bus};
use super::clients::{self, Clients, Received};
use super::edge::{Counts, Edge};
use super::layout::{Layout, ROOM_MEMBERS};
use super::load;
use super::reading::{Cost, Growth, LoadReading, Reading, RestReading, Storm};
use crate::clock::Clock;
use crate::driver::{DriverError, Producer};
use crate::process::{self, ProcessError};
use crate::turn::{TurnError, settle_all};

/// Rooms that every client is in unasked, with default settings.
const DEFAULT_ROOMS: usize = 2;

/// Load before usage is read.
const WARM_UP: Duration = Duration::from_millis(500);

/// Messages to everybody, one after the other: each is as many deliveries as there are clients.
const BROADCASTS: u64 = 3;

/// Between pings, where they would be in the way of what is measured: beyond the end of it.
const PING_NEVER: Duration = Duration::from_hours(1);

/// The longest that the edges may take until everything is confirmed.
const CONFIRM_PATIENCE: Duration = Duration::from_mins(1);

/// Between two questions whether it is.
const CONFIRM_RETRY: Duration = Duration::from_millis(20);

/// What all steps have in common.
#[derive(Debug)]
pub struct Setting<'a> {
    /// The edge's binary, and this program.
    pub signal: &'a Path,
    /// See `signal`.
    pub own: &'a Path,
    /// Cores, as `taskset` lists them.
    pub cores: &'a str,
    /// Clients of each edge.
    pub per_edge: usize,
    /// Messages a second to single clients and users.
    pub rate: u32,
    /// How long each load is measured.
    pub duration: Duration,
    /// How long the fleet is watched without a load, with pings and without.
    pub rest: (Duration, Duration),
}

/// A running fleet. Dropped in this order: clients first.
#[derive(Debug)]
struct Fleet {
    clients: Vec<Clients>,
    producer: Producer,
    edges: Vec<Edge>,
    bus: Bus,
    layout: Layout,
    clock: Clock,
    /// All clients' ids.
    ids: Vec<String>,
}

/// What everyone has used at one moment.
#[derive(Debug, Clone, Copy)]
struct Usage {
    at: Duration,
    edges: f64,
    redis: f64,
    clients: f64,
}

/// Puts a fleet of so many edges through everything.
pub fn measure(setting: &Setting<'_>, kind: bus::Kind, edges: usize) -> Result<Reading, TurnError> {
    let mut fleet = Fleet::start(setting, kind, edges, Some(PING_NEVER))?;
    let growth = fleet.fill()?;
    let quiet = fleet.watch(setting.rest.1)?;
    let mut loads = Vec::new();
    for audience in load::Kind::ALL {
        let reading = match audience {
            load::Kind::Broadcast => fleet.broadcast()?,
            one => fleet.load(one, pace(one, setting.rate), setting.duration)?,
        };
        loads.push((audience, LoadReading { cost: reading.cost.without(&quiet), ..reading }));
    }
    let storm = fleet.storm()?;
    let clients = fleet.layout.clients();
    let edges_per_room = ROOM_MEMBERS.map(|members| fleet.layout.edges_per_room(members));
    Ok(Reading { bus: kind, edges, clients, edges_per_room, growth, quiet, loads, storm })
}

/// Watches a fleet whose clients are pinged as by default, and nothing else.
pub fn rest(
    setting: &Setting<'_>,
    kind: bus::Kind,
    edges: usize,
) -> Result<RestReading, TurnError> {
    let mut fleet = Fleet::start(setting, kind, edges, None)?;
    fleet.connect()?;
    let cost = fleet.watch(setting.rest.0)?;
    Ok(RestReading { bus: kind, edges, clients: fleet.layout.clients(), cost })
}

/// How often messages come and how many at once: branches have ten members each, and get them less often.
fn pace(kind: load::Kind, rate: u32) -> (Duration, u64) {
    let messages = (rate / 1_000).max(1);
    let interval = Duration::from_secs(1) * messages / rate;
    match kind {
        load::Kind::Branch => (interval * 5 / 2, messages.into()),
        _ => (interval, messages.into()),
    }
}

// === impl Fleet ===

impl Fleet {
    fn start(
        setting: &Setting<'_>,
        kind: bus::Kind,
        edges: usize,
        ping: Option<Duration>,
    ) -> Result<Self, TurnError> {
        let bus = Bus::start(kind, setting.cores)?;
        let layout = Layout::new(edges, setting.per_edge);
        let clock = Clock::start();
        let start = |_| Edge::start(setting.signal, setting.cores, &bus, ping);
        let running: Vec<Edge> = (0..edges).map(start).collect::<Result<_, _>>()?;
        let producer = Producer::connect(bus.route().clone(), clock)?;
        let mut clients = Vec::new();
        for (edge, Edge { port, .. }) in running.iter().enumerate() {
            let options = clients::Options {
                port: *port,
                redis: bus.route().ports()[0],
                edge,
                edges,
                per_edge: setting.per_edge,
                clock: clock.origin_micros(),
            };
            clients.push(Clients::start(setting.own, setting.cores, &options)?);
        }
        let edges = running;
        let fleet = Self { clients, producer, edges, bus, layout, clock, ids: Vec::new() };
        fleet.await_confirmed(|_| true)?;
        Ok(fleet)
    }

    /// Lets everybody connect and join; says what that took and what it occupies.
    fn fill(&mut self) -> Result<Growth, TurnError> {
        let edge_kib_before = self.resident_kib()?;
        let kernel_kib_before = process::kernel_kib()?;
        let redis_bytes_before = self.bus.memory()?;
        let channels_before = Counts::of_all(&self.edges)?.confirmed;
        let before = self.usage()?;
        let counts = self.connect()?;
        let connect = self.usage()?.since(&before);
        Ok(Growth {
            connect,
            edge_kib: (edge_kib_before, self.resident_kib()?),
            kernel_kib: (kernel_kib_before, process::kernel_kib()?),
            redis_bytes: (redis_bytes_before, self.bus.memory()?),
            redis_connections: self.bus.connections()?,
            channels: counts.confirmed - channels_before,
        })
    }

    /// Lets everybody connect and join, edge after edge, and waits until all of it is confirmed.
    fn connect(&mut self) -> Result<Counts, TurnError> {
        for clients in &mut self.clients {
            self.ids.extend(clients.connect()?);
        }
        let memberships = self.layout.clients() * (ROOM_MEMBERS.len() + DEFAULT_ROOMS);
        self.await_confirmed(|counts| counts.memberships >= memberships as u64)
    }

    /// What the fleet needs when nothing is asked of it.
    fn watch(&self, duration: Duration) -> Result<Cost, TurnError> {
        let before = self.usage()?;
        std::thread::sleep(duration);
        Ok(self.usage()?.since(&before))
    }

    fn load(
        &mut self,
        kind: load::Kind,
        pace: (Duration, u64),
        duration: Duration,
    ) -> Result<LoadReading, TurnError> {
        self.publish(kind, pace, WARM_UP)?;
        let messages_before = Counts::of_all(&self.edges)?.bus_messages;
        let before = self.usage()?;
        let (published, received) = self.publish(kind, pace, duration)?;
        let cost = self.usage()?.since(&before);
        let bus_messages = Counts::of_all(&self.edges)?.bus_messages - messages_before;
        Ok(LoadReading { published, bus_messages, received, cost })
    }

    /// Publishes for a while, and waits until all of it has arrived.
    fn publish(
        &mut self,
        kind: load::Kind,
        pace: (Duration, u64),
        duration: Duration,
    ) -> Result<(u64, Received), TurnError> {
        Clients::begin(&mut self.clients)?;
        let mut turns = kind.turns(&self.layout);
        let published = self.producer.run(pace, duration, |producer| {
            let (number, sequence) = turns.next();
            kind.address(number, &self.ids, |target| producer.publish(target, sequence))
        })?;
        Ok((published, Clients::finish(&mut self.clients, kind, published)?))
    }

    /// Messages to everybody, each when the last has arrived everywhere.
    fn broadcast(&mut self) -> Result<LoadReading, TurnError> {
        let kind = load::Kind::Broadcast;
        let messages_before = Counts::of_all(&self.edges)?.bus_messages;
        let before = self.usage()?;
        let mut received = Received::default();
        for _ in 0..BROADCASTS {
            Clients::begin(&mut self.clients)?;
            kind.address(0, &self.ids, |target| self.producer.publish(target, 0))?;
            received.add(&Clients::finish(&mut self.clients, kind, 1)?);
        }
        let cost = self.usage()?.since(&before);
        let bus_messages = Counts::of_all(&self.edges)?.bus_messages - messages_before;
        Ok(LoadReading { published: BROADCASTS, bus_messages, received, cost })
    }

    /// Restarts a server of Redis, and waits until the edges hear everything again.
    fn storm(&mut self) -> Result<Storm, TurnError> {
        let connects_before = Counts::of_all(&self.edges)?.connects;
        let edges_before = self.edges_cpu()?;
        self.bus.restart_first()?;
        let began = self.clock.elapsed();
        let connects = connects_before + self.edges.len() as u64;
        let counts = self.await_confirmed(|counts| counts.connects >= connects)?;
        Ok(Storm {
            seconds: self.clock.elapsed().saturating_sub(began).as_secs_f64(),
            edges_cpu: self.edges_cpu()? - edges_before,
            redis_cpu: self.bus.first_cpu()?,
            channels: counts.confirmed / self.bus.route().ports().len() as u64,
        })
    }

    /// Waits until Redis has confirmed all that the edges want, and `is_reached`.
    fn await_confirmed(&self, is_reached: impl Fn(&Counts) -> bool) -> Result<Counts, TurnError> {
        let deadline = self.clock.elapsed() + CONFIRM_PATIENCE;
        loop {
            let counts = Counts::of_all(&self.edges)?;
            if counts.confirmed == counts.wanted && counts.links_down == 0 && is_reached(&counts) {
                return Ok(counts);
            }
            if self.clock.elapsed() > deadline {
                return Err(DriverError::Timeout("the edges to hear everything").into());
            }
            std::thread::sleep(CONFIRM_RETRY);
        }
    }

    fn resident_kib(&self) -> Result<f64, TurnError> {
        let processes: Vec<_> = self.edges.iter().map(|edge| &edge.process).collect();
        settle_all(&processes, |interval| {
            std::thread::sleep(interval);
            Ok(())
        })
    }

    fn edges_cpu(&self) -> Result<f64, ProcessError> {
        self.edges.iter().map(|edge| Ok(edge.process.cpu()?.used_seconds)).sum()
    }

    fn usage(&self) -> Result<Usage, TurnError> {
        Ok(Usage {
            at: self.clock.elapsed(),
            edges: self.edges_cpu()?,
            redis: self.bus.cpu()?,
            clients: Clients::cpu(&self.clients)? + process::own_cpu()?.used_seconds,
        })
    }
}

// === impl Usage ===

impl Usage {
    fn since(&self, earlier: &Self) -> Cost {
        Cost {
            seconds: self.at.saturating_sub(earlier.at).as_secs_f64(),
            edges: self.edges - earlier.edges,
            redis: self.redis - earlier.redis,
            clients: self.clients - earlier.clients,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_together_where_there_are_thousands() {
        let millis = Duration::from_millis;
        assert_eq!(pace(load::Kind::User, 8_000), (millis(1), 8));
        assert_eq!(pace(load::Kind::Branch, 8_000), (Duration::from_micros(2_500), 8));
        assert_eq!(pace(load::Kind::Client, 200), (millis(5), 1));
    }
}
