//! What a fleet was found to cost, and the lines of a file that say so.
//!
//! Pure. A line has the bus, the number of edges, what was measured, its unit and its value; a reader
//! finds what it knows by name, so that lines may be added.

use std::io::{self, Write};

use super::bus;
use super::clients::Received;
use super::load;
use crate::driver::{Integrity, Latency};
use crate::report::count;

/// CPU seconds over some time.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// How long it was.
    pub seconds: f64,
    /// Of all edges.
    pub edges: f64,
    /// Of all servers of Redis.
    pub redis: f64,
    /// Of the clients and the producer, which are no part of the fleet.
    pub clients: f64,
}

/// What the clients of a fleet took to connect, and occupy; before and after.
#[derive(Debug, Clone, Copy)]
pub struct Growth {
    /// From TCP to confirmed rooms.
    pub connect: Cost,
    /// Resident memory of all edges.
    pub edge_kib: (f64, f64),
    /// Memory of the kernel's objects: both ends of each connection are here.
    pub kernel_kib: (u64, u64),
    /// Memory of all servers of Redis.
    pub redis_bytes: (u64, u64),
    /// Connections to Redis with all clients there, producers and this measurement included.
    pub redis_connections: u64,
    /// Channels that the edges subscribed for the clients, each counted once per edge.
    pub channels: u64,
}

/// What a load did and cost, beyond what the fleet costs without it.
#[derive(Debug)]
pub struct LoadReading {
    /// Messages published.
    pub published: u64,
    /// Messages that edges got from Redis.
    pub bus_messages: u64,
    /// What clients got.
    pub received: Received,
    /// CPU.
    pub cost: Cost,
}

/// What it took to hear everything again after one server of Redis was restarted.
#[derive(Debug, Clone, Copy)]
pub struct Storm {
    /// From the server's first answer to the last confirmation.
    pub seconds: f64,
    /// CPU seconds of all edges.
    pub edges_cpu: f64,
    /// CPU seconds of the server that was restarted.
    pub redis_cpu: f64,
    /// Channels on that server.
    pub channels: u64,
}

/// All of one size.
#[derive(Debug)]
pub struct Reading {
    /// Which Redis.
    pub bus: bus::Kind,
    /// Edges.
    pub edges: usize,
    /// Connections of all.
    pub clients: usize,
    /// Edges on which a room has members, by its size.
    pub edges_per_room: [f64; 3],
    /// Connecting, and memory.
    pub growth: Growth,
    /// No load, and no pings.
    pub quiet: Cost,
    /// Loads.
    pub loads: Vec<(load::Kind, LoadReading)>,
    /// A restart of Redis.
    pub storm: Storm,
}

/// A fleet without a load, whose clients are pinged.
#[derive(Debug, Clone, Copy)]
pub struct RestReading {
    /// Which Redis.
    pub bus: bus::Kind,
    /// Edges.
    pub edges: usize,
    /// Connections of all.
    pub clients: usize,
    /// CPU.
    pub cost: Cost,
}

/// Messages below which their cost to Redis is not told.
const FEW: u64 = 50;

/// A line: what, its unit, its value.
type Line = (String, &'static str, f64);

// === impl Cost ===

impl Cost {
    /// Without what the fleet would have needed anyway in that time.
    #[must_use]
    pub fn without(&self, quiet: &Self) -> Self {
        let share = self.seconds / quiet.seconds;
        Self {
            edges: self.edges - quiet.edges * share,
            redis: self.redis - quiet.redis * share,
            clients: self.clients - quiet.clients * share,
            ..*self
        }
    }
}

// === impl Reading ===

impl Reading {
    /// What was lost, duplicated or reordered under any load.
    pub fn integrity(&self) -> Integrity {
        let loads = self.loads.iter().map(|(_, load)| load.received.integrity);
        loads.fold(Integrity::default(), Integrity::and)
    }

    /// Appends its lines to a file.
    pub fn write_tsv(&self, out: &mut impl Write) -> io::Result<()> {
        write_lines(out, self.bus, self.edges, &self.lines())
    }

    fn lines(&self) -> Vec<Line> {
        let Growth { connect, edge_kib, kernel_kib, redis_bytes, redis_connections, channels } =
            self.growth;
        let (edges, clients) = (count(self.edges as u64), count(self.clients as u64));
        let redis_growth = count(redis_bytes.1) - count(redis_bytes.0);
        let line = |what: &str, unit: &'static str, value: f64| (what.to_owned(), unit, value);
        let mut lines = vec![
            line("connections", "", clients),
            line("edges-per-branch", "", self.edges_per_room[0]),
            line("edges-per-merchant", "", self.edges_per_room[1]),
            line("edges-per-region", "", self.edges_per_room[2]),
            line("edge-empty", "KiB", edge_kib.0 / edges),
            line("edge-full", "KiB", edge_kib.1 / edges),
            line("edge-per-connection", "KiB", (edge_kib.1 - edge_kib.0) / clients),
            // Each connection has two ends.
            line(
                "kernel-per-socket",
                "KiB",
                (count(kernel_kib.1) - count(kernel_kib.0)) / clients / 2.0,
            ),
            line("redis-empty", "KiB", count(redis_bytes.0) / 1024.0),
            line("redis-full", "KiB", count(redis_bytes.1) / 1024.0),
            line("redis-per-connection", "B", redis_growth / clients),
            line("redis-per-channel", "B", redis_growth / count(channels)),
            line("redis-connections", "", count(redis_connections)),
            line("channels-per-connection", "", count(channels) / clients),
            line("connect-time", "s", connect.seconds),
            line("connect-rate", "/s", clients / connect.seconds),
            line("connect-edge", "µs", connect.edges * 1e6 / clients),
            line("connect-redis", "µs", connect.redis * 1e6 / clients),
            line("connect-clients", "µs", connect.clients * 1e6 / clients),
            line("quiet-edge", "ms/s", self.quiet.edges * 1e3 / self.quiet.seconds / edges),
            line("quiet-redis", "ms/s", self.quiet.redis * 1e3 / self.quiet.seconds),
            line("storm-time", "s", self.storm.seconds),
            line("storm-channels", "", count(self.storm.channels)),
            line("storm-redis", "µs", self.storm.redis_cpu * 1e6 / count(self.storm.channels)),
            line("storm-edge", "µs", self.storm.edges_cpu * 1e6 / count(self.storm.channels)),
        ];
        for (kind, load) in &self.loads {
            let lines_of_load = load.lines(edges);
            lines.extend(
                lines_of_load
                    .into_iter()
                    .map(|(what, unit, value)| (format!("{}-{what}", kind.name()), unit, value)),
            );
        }
        lines
    }
}

// === impl LoadReading ===

impl LoadReading {
    fn lines(&self, edges: f64) -> Vec<Line> {
        let (published, bus_messages) = (count(self.published), count(self.bus_messages));
        let deliveries = count(self.received.deliveries);
        let Integrity { lost, duplicated, reordered } = self.received.integrity;
        let redis = self.cost.redis * 1e6 / published;
        let latency = Latency::of(&self.received.latencies);
        let millis = |pick: fn(&Latency) -> u64| {
            latency.as_ref().map_or(f64::NAN, |latency| count(pick(latency)) / 1e3)
        };
        let lines = [
            ("published", "", published),
            ("rate", "/s", published / self.cost.seconds),
            ("deliveries", "", deliveries),
            ("receivers", "", bus_messages / published),
            ("messages-per-edge", "", bus_messages / published / edges),
            // What a few messages cost is lost in what Redis does anyway.
            ("redis", "ms/1000", if self.published < FEW { f64::NAN } else { redis }),
            ("edge-per-delivery", "µs", self.cost.edges * 1e6 / deliveries),
            ("edge-per-message", "µs", self.cost.edges * 1e6 / bus_messages),
            ("clients-per-delivery", "µs", self.cost.clients * 1e6 / deliveries),
            ("p50", "ms", millis(|latency| latency.p50_micros)),
            ("p99", "ms", millis(|latency| latency.p99_micros)),
            ("lost", "", count(lost)),
            ("duplicated", "", count(duplicated)),
            ("reordered", "", count(reordered)),
        ];
        lines.map(|(what, unit, value)| (what.to_owned(), unit, value)).to_vec()
    }
}

// === impl RestReading ===

impl RestReading {
    /// Appends its lines to a file.
    pub fn write_tsv(&self, out: &mut impl Write) -> io::Result<()> {
        let Cost { seconds, edges, redis, .. } = self.cost;
        let clients = count(self.clients as u64);
        let lines = [
            ("rest-time", "s", seconds),
            ("rest-edge", "µs/s", edges * 1e6 / seconds / clients),
            ("rest-redis", "ms/s", redis * 1e3 / seconds),
        ];
        let lines = lines.map(|(what, unit, value)| (what.to_owned(), unit, value));
        write_lines(out, self.bus, self.edges, &lines)
    }
}

fn write_lines(
    out: &mut impl Write,
    bus: bus::Kind,
    edges: usize,
    lines: &[Line],
) -> io::Result<()> {
    for (what, unit, value) in lines {
        writeln!(out, "{}\t{edges}\t{what}\t{unit}\t{value:.4}", bus.name())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: Cost = Cost { seconds: 2.0, edges: 3.0, redis: 1.0, clients: 4.0 };

    #[test]
    fn what_is_needed_anyway_is_taken_off() {
        let quiet = Cost { seconds: 4.0, edges: 1.0, redis: 0.5, clients: 2.0 };
        let Cost { seconds, edges, redis, clients } = COST.without(&quiet);
        let found = [seconds, edges, redis, clients];
        assert_eq!(found.map(f64::to_bits), [2.0, 2.5, 0.75, 3.0].map(f64::to_bits));
    }

    #[test]
    fn a_load_is_divided_by_what_it_did() {
        let received = Received { deliveries: 1_000, ..Received::default() };
        let load = LoadReading { published: 100, bus_messages: 300, received, cost: COST };
        let lines = load.lines(4.0);
        let value = |name: &str| lines.iter().find(|(what, ..)| what == name).unwrap().2;
        let close = |found: f64, expected: f64| (found - expected).abs() < 1e-9;
        assert!(close(value("receivers"), 3.0) && close(value("messages-per-edge"), 0.75));
        assert!(close(value("redis"), 10_000.0) && close(value("edge-per-delivery"), 3_000.0));
        assert!(value("p50").is_nan());
    }

    #[test]
    fn a_line_has_all_that_it_is_found_by() {
        let reading =
            RestReading { bus: bus::Kind::Single, edges: 2, clients: 1_000_000, cost: COST };
        let mut file = Vec::new();
        reading.write_tsv(&mut file).unwrap();
        let text = String::from_utf8(file).unwrap();
        assert!(text.contains("single\t2\trest-edge\tµs/s\t1.5000\n"), "{text}");
    }
}
