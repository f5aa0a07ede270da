//! What is measured: one entry per row of the table, with the budget of ARCHITECTURE.md.
//!
//! Only data. A new row is a new entry.

use std::time::Duration;

use crate::driver::payload::Audience;
use crate::driver::{Load, Pace};
use crate::floor::Delivery;

/// Clients of most rows with traffic.
pub const CLIENTS: usize = 1_000;

/// The two ends of the memory slope, in idle connections. The far end stays below an open-file
/// limit of 20 000 on both sides.
pub const IDLE_CLIENTS: (usize, usize) = (1_000, 19_000);

/// Resident KiB per idle connection that the server may have.
pub const IDLE_KIB_BUDGET: f64 = 1.5;

/// CPU that an idle connection may cost, in microseconds per second.
pub const IDLE_CPU_BUDGET: f64 = 0.5;

/// Beyond so many times its budget, a row says that the structure is not the designed one.
pub const STRUCTURE_FACTOR: f64 = 1.3;

/// What of a row is held against the floor.
#[derive(Debug, Clone, Copy)]
pub enum Budget {
    /// CPU per delivery, at most so many times the floor's.
    Cpu(f64),
    /// The 99th percentile of the time a message takes, likewise.
    P99(f64),
    /// CPU per delivery, for orientation.
    None,
}

/// A row with traffic.
#[derive(Debug, Clone, Copy)]
pub struct TrafficRow {
    /// What `--only` matches.
    pub key: &'static str,
    /// What the table says.
    pub title: &'static str,
    /// The load.
    pub load: Load,
    /// How the floor delivers in this row.
    pub floor: Delivery,
    /// Clients.
    pub clients: usize,
    /// What Signal may take, as a multiple of the floor.
    pub budget: Budget,
    /// True if the load has a rate of its own, so that the time a message takes means something.
    pub fixed_rate: bool,
}

/// A row that compares Signal with itself: the same room in clear, with session keys, with a room key.
#[derive(Debug, Clone, Copy)]
pub struct PrivacyRow {
    /// What `--only` matches.
    pub key: &'static str,
    /// What the table says.
    pub title: &'static str,
    /// The load.
    pub load: Load,
    /// True if the load has a rate of its own.
    pub fixed_rate: bool,
}

/// Most that a delivery under a room key may cost, as a multiple of the same in clear.
pub const ROOM_KEY_BUDGET: f64 = 1.25;

/// The rows of encryption, in the order of the table.
pub const PRIVACY_ROWS: [PrivacyRow; 2] = [
    PrivacyRow {
        key: "encrypted-fixed",
        title: "room 1000 @ 20 msg/s",
        load: Load {
            audience: Audience::Room,
            pace: Pace::Ticks { interval: Duration::from_millis(50), messages: 1 },
        },
        fixed_rate: true,
    },
    PrivacyRow {
        key: "encrypted-saturated",
        title: "room 1000 saturated",
        load: Load { audience: Audience::Room, pace: Pace::Window { messages: 16 } },
        fixed_rate: false,
    },
];

/// What `--only` matches for the memory row.
pub const IDLE_KEY: &str = "idle";

/// The rows with traffic, in the order of the table.
pub const TRAFFIC_ROWS: [TrafficRow; 6] = [
    TrafficRow {
        key: "room-fixed",
        title: "room 1000 @ 50 msg/s",
        load: Load {
            audience: Audience::Room,
            pace: Pace::Ticks { interval: Duration::from_millis(20), messages: 1 },
        },
        floor: Delivery::Write,
        clients: CLIENTS,
        budget: Budget::Cpu(1.10),
        fixed_rate: true,
    },
    TrafficRow {
        key: "room-saturated",
        title: "room 1000 saturated",
        load: Load { audience: Audience::Room, pace: Pace::Window { messages: 16 } },
        floor: Delivery::Coalesce,
        clients: CLIENTS,
        budget: Budget::Cpu(1.15),
        fixed_rate: false,
    },
    TrafficRow {
        key: "unicast-fixed",
        title: "unicast 20 000/s",
        load: Load {
            audience: Audience::User,
            // Five messages every 250 µs.
            pace: Pace::Ticks { interval: Duration::from_micros(250), messages: 5 },
        },
        floor: Delivery::Coalesce,
        clients: CLIENTS,
        budget: Budget::Cpu(1.4),
        fixed_rate: true,
    },
    TrafficRow {
        key: "unicast-saturated",
        title: "unicast saturated",
        load: Load { audience: Audience::User, pace: Pace::Window { messages: 256 } },
        floor: Delivery::Coalesce,
        clients: CLIENTS,
        budget: Budget::Cpu(1.15),
        fixed_rate: false,
    },
    TrafficRow {
        key: "rooms-saturated",
        title: "500 rooms of 10 saturated",
        load: Load { audience: Audience::Rooms, pace: Pace::Window { messages: 64 } },
        floor: Delivery::Coalesce,
        clients: 5_000,
        budget: Budget::None,
        fixed_rate: false,
    },
    TrafficRow {
        key: "relay",
        title: "2 000/s to rooms of 10, p99",
        load: Load {
            audience: Audience::Rooms,
            pace: Pace::Ticks { interval: Duration::from_micros(500), messages: 1 },
        },
        floor: Delivery::Write,
        clients: CLIENTS,
        budget: Budget::P99(1.5),
        fixed_rate: true,
    },
];
