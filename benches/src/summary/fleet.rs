//! What runs of a fleet come to: tables of what was measured, and of what follows for larger fleets.
//!
//! Pure: lines in, Markdown and bars out. Of several runs it takes the median. What a run did not
//! measure is a dash.

use std::fmt::Write as _;

use super::{Bar, bar, in_order};
use crate::million::{Costs, Fleet, Needs, line};
use crate::report::{maximum, median};

/// What the loads of a run are called, and what tables say.
const LOADS: [(&str, &str); 4] = [
    ("client", "a client"),
    ("user", "a user"),
    ("branch", "a branch of 10"),
    ("broadcast", "everybody"),
];

/// Connections of the fleets that the costs are carried to.
const TARGETS: [(&str, f64); 2] = [("1 M", 1e6), ("20 M", 20e6)];

/// Messages a second to each client, and to each branch.
const RATES: [(&str, f64); 2] = [("calm", 0.1), ("busy", 1.0)];

/// Workers of an edge: as measured, and as many as a larger machine has cores for.
const WORKERS: [f64; 2] = [1.0, 8.0];

/// The lines of all runs.
#[derive(Debug, Default)]
pub(super) struct Figures {
    lines: Vec<Figure>,
}

/// A line, and its value in each run.
#[derive(Debug)]
struct Figure {
    bus: String,
    edges: u32,
    what: String,
    values: Vec<f64>,
}

/// A column of a table: its head, the line it shows, and digits behind the point.
type Column = (&'static str, &'static str, usize);

/// The tables of one run.
pub fn fleet_tables(text: &str) -> String {
    let mut figures = Figures::default();
    figures.add(text);
    figures.tables()
}

// === impl Figures ===

impl Figures {
    /// Adds the lines of a run.
    pub(super) fn add(&mut self, text: &str) {
        for fields in text.lines().map(|line| line.split('\t').collect::<Vec<_>>()) {
            let [bus, edges, what, _, value] = fields[..] else { continue };
            let (Ok(edges), Ok(value)) = (edges.parse(), value.parse::<f64>()) else { continue };
            if value.is_nan() {
                continue;
            }
            let is_same = |known: &&mut Figure| {
                known.bus == bus && known.edges == edges && known.what == what
            };
            match self.lines.iter_mut().find(is_same) {
                Some(known) => known.values.push(value),
                None => self.lines.push(Figure {
                    bus: bus.to_owned(),
                    edges,
                    what: what.to_owned(),
                    values: vec![value],
                }),
            }
        }
    }

    fn value(&self, bus: &str, edges: u32, what: &str) -> Option<f64> {
        let mut lines = self.lines.iter();
        let found =
            lines.find(|line| line.bus == bus && line.edges == edges && line.what == what)?;
        Some(median(&found.values))
    }

    /// Each bus with each of its sizes.
    fn steps(&self) -> Vec<(&str, u32)> {
        let buses = in_order(self.lines.iter().map(|line| line.bus.as_str()));
        let mut steps = Vec::new();
        for bus in buses {
            for line in self.lines.iter().filter(|line| line.bus == bus) {
                if line.what == "connections" && !steps.contains(&(bus, line.edges)) {
                    steps.push((bus, line.edges));
                }
            }
        }
        steps
    }

    /// What was measured.
    pub(super) fn tables(&self) -> String {
        let memory = self.table(&[
            ("connections", "connections", 0),
            ("KiB of an edge, empty", "edge-empty", 0),
            ("KiB of an edge, full", "edge-full", 0),
            ("edge, KiB per connection", "edge-per-connection", 2),
            ("kernel, KiB per socket", "kernel-per-socket", 2),
            ("channels per connection", "channels-per-connection", 2),
            ("Redis, B per channel", "redis-per-channel", 0),
            ("Redis, B per connection", "redis-per-connection", 0),
        ]);
        let connect = self.table(&[
            ("connections", "connections", 0),
            ("s to connect all", "connect-time", 1),
            ("connections/s", "connect-rate", 0),
            ("edge, µs each", "connect-edge", 1),
            ("Redis, µs each", "connect-redis", 1),
            ("clients, µs each", "connect-clients", 1),
            ("channels heard anew", "storm-channels", 0),
            ("s", "storm-time", 2),
            ("Redis, µs per channel", "storm-redis", 2),
            ("edges, µs per channel", "storm-edge", 2),
        ]);
        let rest = self.table(&[
            ("connections", "connections", 0),
            ("an edge without pings, ms/s", "quiet-edge", 2),
            ("Redis, ms/s", "quiet-redis", 2),
            ("edge with pings, µs/s per connection", "rest-edge", 2),
            ("Redis, ms/s with pings", "rest-redis", 2),
        ]);
        format!("{memory}\n{connect}\n{rest}\n{}", self.load_table())
    }

    fn table(&self, columns: &[Column]) -> String {
        let heads: Vec<&str> = columns.iter().map(|(head, ..)| *head).collect();
        let mut text = format!("| Redis | edges | {} |\n", heads.join(" | "));
        let _ = writeln!(text, "|---|---|{}", "---|".repeat(columns.len()));
        for (bus, edges) in self.steps() {
            let cells = self.cells(bus, edges, "", columns);
            let _ = writeln!(text, "| {bus} | {edges} | {cells} |");
        }
        text
    }

    fn load_table(&self) -> String {
        let columns: [Column; 8] = [
            ("messages/s", "rate", 0),
            ("edges that get it", "receivers", 2),
            ("messages per edge", "messages-per-edge", 2),
            ("Redis, ms per 1000", "redis", 1),
            ("edge, µs per delivery", "edge-per-delivery", 2),
            ("edge, µs per bus message", "edge-per-message", 1),
            ("p50, ms", "p50", 2),
            ("p99, ms", "p99", 2),
        ];
        let heads: Vec<&str> = columns.iter().map(|(head, ..)| *head).collect();
        let mut text = format!(
            "| to | Redis | edges | {} | cores in use | lost / twice / late |\n",
            heads.join(" | ")
        );
        let _ = writeln!(text, "|---|---|---|{}---|---|", "---|".repeat(columns.len()));
        for (load, title) in LOADS {
            for (bus, edges) in self.steps() {
                let cells = self.cells(bus, edges, &format!("{load}-"), &columns);
                let wrong = ["lost", "duplicated", "reordered"]
                    .map(|what| number(self.value(bus, edges, &format!("{load}-{what}")), 0));
                let cores = number(self.cores(bus, edges, load), 2);
                let _ = writeln!(
                    text,
                    "| {title} | {bus} | {edges} | {cells} | {cores} | {} |",
                    wrong.join(" / ")
                );
            }
        }
        text
    }

    /// Cores that a load kept busy: the fleet, and the clients and producers that are no part of it.
    fn cores(&self, bus: &str, edges: u32, load: &str) -> Option<f64> {
        let value = |what: &str| self.value(bus, edges, &format!("{load}-{what}"));
        let per_delivery = value("edge-per-delivery")? + value("clients-per-delivery")?;
        let each = value("redis").unwrap_or_default()
            + per_delivery * value("deliveries")? / value("published")?;
        Some(each * value("rate")? / 1e6)
    }

    fn cells(&self, bus: &str, edges: u32, prefix: &str, columns: &[Column]) -> String {
        let cells = columns.iter().map(|(_, what, digits)| {
            number(self.value(bus, edges, &format!("{prefix}{what}")), *digits)
        });
        cells.collect::<Vec<_>>().join(" | ")
    }

    /// What follows for larger fleets; nothing if a cost is not known.
    pub(super) fn carried(&self) -> String {
        let Some((bus, costs)) = self.costs() else { return String::new() };
        let mut text = format!("\n{}\n", cost_table(bus, &costs));
        for workers in WORKERS {
            text += &needs_table(&costs, workers, self.per_worker(bus));
            text.push('\n');
        }
        text
    }

    /// Connections of an edge, as measured.
    fn per_worker(&self, bus: &str) -> f64 {
        let edges = self.largest(bus);
        let connections = self.value(bus, edges, "connections");
        connections.unwrap_or(f64::NAN) / f64::from(edges)
    }

    fn largest(&self, bus: &str) -> u32 {
        let steps = self.steps();
        let sizes = steps.iter().filter(|(of, _)| *of == bus).map(|(_, edges)| *edges);
        sizes.max().unwrap_or_default()
    }

    /// What things cost in the largest fleet of the last bus, which is the one that can grow. But the CPU
    /// of Redis is that of the first: a master of a large cluster is as busy as one server is here, and the
    /// masters here are not, and so do less in a turn.
    fn costs(&self) -> Option<(&str, Costs)> {
        let steps = self.steps();
        let ((first, _), (bus, _)) = (*steps.first()?, *steps.last()?);
        let edges = self.largest(bus);
        let value = |what: &str| self.value(bus, edges, what);
        let single = LOADS.iter().filter(|(load, _)| *load != "broadcast");
        let deliveries =
            single.clone().map(|(load, _)| value(&format!("{load}-edge-per-delivery")));
        let mut points = Vec::new();
        for (_, edges) in steps.iter().filter(|(of, _)| *of == first) {
            for (load, _) in single.clone() {
                let at = |what: &str| self.value(first, *edges, &format!("{load}-{what}"));
                points.push((at("receivers")?, at("redis")?));
            }
        }
        let (publish_micros, receiver_micros) = line(&points);
        let costs = Costs {
            edge_empty_kib: value("edge-empty")?,
            edge_kib: value("edge-per-connection")?,
            socket_kib: value("kernel-per-socket")?,
            rest_micros: value("rest-edge")?,
            // One delivery per message from the bus: what larger fleets come to.
            delivery_micros: maximum(&deliveries.collect::<Option<Vec<_>>>()?)?,
            broadcast_micros: value("broadcast-edge-per-delivery")?,
            connect_micros: value("connect-edge")?,
            publish_micros,
            receiver_micros,
            channel_bytes: value("redis-per-channel")?,
            subscribe_micros: value("storm-redis")?,
        };
        Some((bus, costs))
    }

    /// Files, titles and bars of the charts.
    pub(super) fn charts(&self) -> [(&'static str, &'static str, Vec<Bar>); 2] {
        let bars = |what: &'static str, title: &'static str| {
            self.steps().into_iter().filter_map(move |(bus, edges)| {
                let value = self.value(bus, edges, what)?;
                let plural = if edges == 1 { "" } else { "s" };
                let name = format!("{title}: {bus}, {edges} edge{plural}");
                Some(bar(name, &[value], bus == "single"))
            })
        };
        let memory = bars("edge-per-connection", "edge")
            .chain(bars("kernel-per-socket", "kernel, its end"))
            .collect();
        let redis = bars("client-redis", "to a client").chain(bars("branch-redis", "to a branch"));
        [
            ("fleet-memory.svg", "KiB per connection", memory),
            ("fleet-redis.svg", "CPU of Redis, ms per 1000 publishes", redis.collect()),
        ]
    }
}

fn cost_table(bus: &str, costs: &Costs) -> String {
    let rows = [
        ("edge, without connections", costs.edge_empty_kib / 1024.0, "MiB"),
        ("edge, per connection", costs.edge_kib, "KiB"),
        ("kernel, per socket", costs.socket_kib, "KiB"),
        ("edge, per connection at rest", costs.rest_micros, "µs/s"),
        ("edge, per delivery", costs.delivery_micros, "µs"),
        ("edge, per delivery of a broadcast", costs.broadcast_micros, "µs"),
        ("edge, per connection made", costs.connect_micros, "µs"),
        ("Redis, per publish", costs.publish_micros, "µs"),
        ("Redis, per edge that gets it", costs.receiver_micros, "µs"),
        ("Redis, per channel and edge", costs.channel_bytes, "B"),
        ("Redis, per channel subscribed anew", costs.subscribe_micros, "µs"),
    ];
    let mut text = format!("| what ({bus}) | cost |\n|---|---|\n");
    for (what, value, unit) in rows {
        let _ = writeln!(text, "| {what} | {value:.2} {unit} |");
    }
    text
}

fn needs_table(costs: &Costs, workers: f64, per_worker: f64) -> String {
    type Row = (&'static str, fn(&Needs) -> f64, usize);
    const ROWS: [Row; 17] = [
        ("edges", |needs| needs.edges, 0),
        ("GiB of an edge", |needs| needs.edge_gib, 2),
        ("GiB of the kernel for its sockets", |needs| needs.socket_gib, 2),
        ("a worker's core is busy, %", |needs| needs.worker_busy * 100.0, 1),
        ("publishes/s", |needs| needs.publishes, 0),
        ("edges that get a branch's message", |needs| needs.receivers, 2),
        ("messages/s from Redis to edges", |needs| needs.bus_messages, 0),
        ("cores of Redis", |needs| needs.redis_cores, 1),
        ("masters, at most half busy", |needs| needs.masters, 0),
        ("busiest master, × an even share", |needs| needs.unevenness, 2),
        ("channels, millions", |needs| needs.channels_millions, 1),
        ("GiB of a master for channels", |needs| needs.master_gib, 2),
        ("connections to a master", |needs| needs.master_connections, 0),
        ("s until a restarted master is heard", |needs| needs.storm_seconds, 2),
        ("s until an edge has its clients again", |needs| needs.reconnect_seconds, 2),
        ("broadcast: s of each worker", |needs| needs.broadcast_seconds, 3),
        ("broadcast: ms of one master", |needs| needs.broadcast_redis_millis, 2),
    ];
    let mut heads = Vec::new();
    let mut fleets = Vec::new();
    for (target, connections) in TARGETS {
        for (rate, messages) in RATES {
            heads.push(format!("{target}, {rate}"));
            let (to_client, to_branch) = (messages, messages);
            let fleet = Fleet { connections, per_worker, workers, to_client, to_branch };
            fleets.push(fleet.needs(costs));
        }
    }
    let mut text = format!(
        "| {workers:.0} × up to {per_worker:.0} connections an edge | {} |\n|---|{}\n",
        heads.join(" | "),
        "---|".repeat(heads.len())
    );
    for (title, pick, digits) in ROWS {
        let cells: Vec<String> =
            fleets.iter().map(|needs| number(Some(pick(needs)), digits)).collect();
        let _ = writeln!(text, "| {title} | {} |", cells.join(" | "));
    }
    text
}

/// With spaces between thousands; a dash for nothing.
fn number(value: Option<f64>, digits: usize) -> String {
    let Some(value) = value else { return "–".to_owned() };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (place, digit) in whole.char_indices() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(redis: f64) -> String {
        let mut text = String::new();
        for (edges, receivers) in [(1, 1.0), (2, 2.0)] {
            let mut write = |what: &str, value: f64| {
                let _ = writeln!(text, "cluster\t{edges}\t{what}\tx\t{value:.4}");
            };
            write("connections", 19_000.0 * f64::from(edges));
            for what in [
                "edge-empty",
                "edge-per-connection",
                "kernel-per-socket",
                "rest-edge",
                "broadcast-edge-per-delivery",
                "connect-edge",
                "redis-per-channel",
                "storm-redis",
            ] {
                write(what, 3.0);
            }
            for load in ["client", "user", "branch"] {
                write(&format!("{load}-edge-per-delivery"), 7.0);
                write(&format!("{load}-receivers"), receivers);
                write(&format!("{load}-redis"), redis + 2.0 * receivers);
            }
        }
        text
    }

    #[test]
    fn runs_come_to_their_median_and_what_is_missing_to_a_dash() {
        let mut figures = Figures::default();
        for redis in [9.0, 10.0, 30.0] {
            figures.add(&run(redis));
        }
        assert_eq!(figures.value("cluster", 2, "branch-redis"), Some(14.0));
        let tables = figures.tables();
        assert!(tables.contains("| cluster | 2 | 38 000 | 3 | – | 3.00 |"), "{tables}");
        let (_, costs) = figures.costs().unwrap();
        assert!((costs.publish_micros - 10.0).abs() < 1e-6, "{costs:?}");
        assert!((costs.receiver_micros - 2.0).abs() < 1e-6, "{costs:?}");
        assert!(figures.carried().contains("| edges | 53 | 53 | 1 053 | 1 053 |"));
        assert!(figures.charts().iter().all(|(_, _, bars)| bars.len() == 4));
    }

    #[test]
    fn a_run_without_all_costs_is_not_carried_on() {
        let mut figures = Figures::default();
        figures.add("single\t1\tconnections\t\t20\n");
        assert_eq!(figures.carried(), "");
        assert!(
            fleet_tables("nonsense").lines().all(|line| line.is_empty() || line.starts_with('|'))
        );
    }

    #[test]
    fn thousands_are_apart() {
        for (value, digits, text) in [
            (1_053.0, 0, "1 053"),
            (999.5, 1, "999.5"),
            (1e6, 2, "1 000 000.00"),
            (-12.0, 0, "-12"),
        ] {
            assert_eq!(number(Some(value), digits), text);
        }
    }
}
