//! What was measured of a fleet on one machine, carried to fleets that no machine holds.
//!
//! Pure arithmetic: costs come from a measurement, assumptions are named, and everything else follows.
//! Never a figure of its own. Costs are taken to be linear beyond what was measured; the documents say
//! where that is a guess.

/// Channels of a client that are nobody else's: its id, the room of its id, its user.
const OWN_CHANNELS: f64 = 3.0;

/// Members of the rooms of a client, as in the measurement.
const ROOM_MEMBERS: [f64; 3] = [10.0, 100.0, 1_000.0];

/// Parts into which channels are divided: no more masters than that can share them.
const PARTITIONS: f64 = 256.0;

/// Share of a core that an edge's worker, or a master, may be busy: the rest is for bursts.
const BUSY_MAX: f64 = 0.5;

/// What things cost, as measured.
#[derive(Debug, Clone, Copy)]
pub struct Costs {
    /// Resident KiB of an edge without connections.
    pub edge_empty_kib: f64,
    /// Resident KiB of an edge per connection.
    pub edge_kib: f64,
    /// KiB of the kernel per socket.
    pub socket_kib: f64,
    /// µs of an edge per second and connection, at rest.
    pub rest_micros: f64,
    /// µs of an edge per delivery.
    pub delivery_micros: f64,
    /// µs of an edge per delivery of a message to everybody.
    pub broadcast_micros: f64,
    /// µs of an edge per connection that is made.
    pub connect_micros: f64,
    /// µs of Redis per publish.
    pub publish_micros: f64,
    /// µs of Redis per publish and edge that gets it.
    pub receiver_micros: f64,
    /// Bytes of Redis per channel and edge.
    pub channel_bytes: f64,
    /// µs of Redis per channel that is subscribed anew.
    pub subscribe_micros: f64,
}

/// What is assumed of a fleet.
#[derive(Debug, Clone, Copy)]
pub struct Fleet {
    /// Connections.
    pub connections: f64,
    /// Connections per worker at most.
    pub per_worker: f64,
    /// Workers of an edge, each with a core.
    pub workers: f64,
    /// Messages a second to each client alone.
    pub to_client: f64,
    /// Messages a second to each branch.
    pub to_branch: f64,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Needs {
    /// Edges.
    pub edges: f64,
    /// GiB of an edge, resident.
    pub edge_gib: f64,
    /// GiB of the kernel for an edge's sockets.
    pub socket_gib: f64,
    /// Share of its core that a worker is busy.
    pub worker_busy: f64,
    /// Messages published a second.
    pub publishes: f64,
    /// Edges that get a message to a branch.
    pub receivers: f64,
    /// Messages that edges get from Redis, a second.
    pub bus_messages: f64,
    /// Cores of Redis that this is.
    pub redis_cores: f64,
    /// Masters, none of which is busier than it may be.
    pub masters: f64,
    /// Share of the partitions that the busiest master has, as a multiple of an even share.
    pub unevenness: f64,
    /// Channels of all masters, each counted once per edge, in millions.
    pub channels_millions: f64,
    /// GiB of a master for them.
    pub master_gib: f64,
    /// Connections to a master: a link of each worker, and a publisher of each edge.
    pub master_connections: f64,
    /// Seconds of a master's core to subscribe everything anew.
    pub storm_seconds: f64,
    /// Seconds of an edge's cores to take all its connections again.
    pub reconnect_seconds: f64,
    /// Seconds of a worker's core for a message to everybody.
    pub broadcast_seconds: f64,
    /// Milliseconds of the one master that hands such a message to all edges.
    pub broadcast_redis_millis: f64,
}

/// The edges on which a room has members, on average, if each member is on any of them by chance.
pub fn edges_of_room(edges: f64, members: f64) -> f64 {
    edges * (1.0 - (1.0 - 1.0 / edges).powf(members))
}

/// The line through points, by least squares: its value at zero, and its slope.
pub fn line(points: &[(f64, f64)]) -> (f64, f64) {
    let number = u32::try_from(points.len()).map_or(f64::NAN, f64::from);
    let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / number;
    let (x_mean, y_mean) = (mean(|point| point.0), mean(|point| point.1));
    let both: f64 = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    let square: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    let slope = both / square;
    (y_mean - slope * x_mean, slope)
}

// === impl Fleet ===

impl Fleet {
    /// What it needs.
    pub fn needs(&self, costs: &Costs) -> Needs {
        const KIB_PER_GIB: f64 = 1024.0 * 1024.0;
        let deliveries = self.to_client + self.to_branch;
        let worker_micros = costs.rest_micros + deliveries * costs.delivery_micros;
        // As many as were measured, or as leave it half of its core.
        let most = self.per_worker.min(BUSY_MAX * 1e6 / worker_micros);
        let edges = (self.connections / (most * self.workers)).ceil();
        let per_edge = self.connections / edges;
        let per_worker = per_edge / self.workers;
        let branches = self.connections / ROOM_MEMBERS[0];
        let receivers = edges_of_room(edges, ROOM_MEMBERS[0]);
        let publishes = self.connections * self.to_client + branches * self.to_branch;
        let bus_messages =
            self.connections * self.to_client + branches * self.to_branch * receivers;
        let redis_cores =
            (publishes * costs.publish_micros + bus_messages * costs.receiver_micros) / 1e6;
        let masters = (redis_cores / BUSY_MAX).ceil();
        let shared = |members: &f64| edges_of_room(edges, *members) / members;
        let channels =
            self.connections * (OWN_CHANNELS + ROOM_MEMBERS.iter().map(shared).sum::<f64>());
        Needs {
            edges,
            edge_gib: (costs.edge_empty_kib + per_edge * costs.edge_kib) / KIB_PER_GIB,
            socket_gib: per_edge * costs.socket_kib / KIB_PER_GIB,
            worker_busy: per_worker * worker_micros / 1e6,
            publishes,
            receivers,
            bus_messages,
            redis_cores,
            masters,
            unevenness: (PARTITIONS / masters).ceil() / (PARTITIONS / masters),
            channels_millions: channels / 1e6,
            master_gib: channels / masters * costs.channel_bytes / (KIB_PER_GIB * 1024.0),
            master_connections: edges * (self.workers + 1.0),
            storm_seconds: channels / masters * costs.subscribe_micros / 1e6,
            reconnect_seconds: per_worker * costs.connect_micros / 1e6,
            broadcast_seconds: per_worker * costs.broadcast_micros / 1e6,
            broadcast_redis_millis: edges * costs.receiver_micros / 1e3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: Costs = Costs {
        edge_empty_kib: 10_240.0,
        edge_kib: 1.0,
        socket_kib: 2.0,
        rest_micros: 0.5,
        delivery_micros: 10.0,
        broadcast_micros: 5.0,
        connect_micros: 50.0,
        publish_micros: 10.0,
        receiver_micros: 2.0,
        channel_bytes: 250.0,
        subscribe_micros: 1.0,
    };

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() <= expected.abs() * 1e-3, "{found}, not {expected}");
    }

    #[test]
    fn a_room_is_on_as_many_edges_as_chance_has_it() {
        close(edges_of_room(1.0, 10.0), 1.0);
        // Either all ten are on one of two edges, twice in 1024, or both have some.
        close(edges_of_room(2.0, 10.0), 2.0 - 2.0 / 1024.0);
        close(edges_of_room(1e6, 10.0), 10.0);
    }

    #[test]
    fn a_line_goes_through_its_points() {
        let (start, slope) = line(&[(1.0, 12.0), (2.0, 14.0), (6.0, 22.0)]);
        close(start, 10.0);
        close(slope, 2.0);
    }

    #[test]
    fn a_fleet_needs_what_its_parts_cost() {
        let fleet = Fleet {
            connections: 1e6,
            per_worker: 10_000.0,
            workers: 1.0,
            to_client: 0.1,
            to_branch: 0.1,
        };
        let needs = fleet.needs(&COSTS);
        close(needs.edges, 100.0);
        close(needs.edge_gib, 20_240.0 / 1024.0 / 1024.0);
        // 10 000 connections with 0.2 messages a second, and their pings.
        close(needs.worker_busy, 0.025);
        close(needs.publishes, 110_000.0);
        close(needs.receivers, 9.5618);
        close(needs.bus_messages, 195_618.0);
        close(needs.redis_cores, 1.1 + 0.391_236);
        close(needs.masters, 3.0);
        close(needs.unevenness, 86.0 / (256.0 / 3.0));
        close(needs.master_connections, 200.0);
        close(needs.reconnect_seconds, 0.5);
        close(needs.broadcast_seconds, 0.05);
        close(needs.broadcast_redis_millis, 0.2);
        // Three of its own, 0.956 of its branch, 0.634 of its merchant, 0.1 of its region.
        close(needs.channels_millions, 4.690);
        close(needs.storm_seconds, 4.690 / 3.0);
    }

    #[test]
    fn fewer_and_larger_edges_share_more_channels() {
        let small = Fleet {
            connections: 1e6,
            per_worker: 10_000.0,
            workers: 1.0,
            to_client: 1.0,
            to_branch: 1.0,
        };
        let (small, large) = (small.needs(&COSTS), Fleet { workers: 10.0, ..small }.needs(&COSTS));
        close(large.edges, 10.0);
        assert!(
            large.receivers < small.receivers && large.channels_millions < small.channels_millions
        );
        close(large.worker_busy, small.worker_busy);
    }

    #[test]
    fn a_worker_takes_no_more_than_half_of_its_core() {
        let fleet = Fleet {
            connections: 1e6,
            per_worker: 100_000.0,
            workers: 1.0,
            to_client: 2.0,
            to_branch: 3.0,
        };
        let needs = fleet.needs(&COSTS);
        // 50.5 µs a second for each connection: 9 901 of them.
        close(needs.edges, 101.0);
        assert!(needs.worker_busy <= BUSY_MAX, "{needs:?}");
    }
}
