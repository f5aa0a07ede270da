//! What is measured: one entry per row of the table, with the budget of ARCHITECTURE.md.
//!
//! Only data. A new row is a new entry.

use std::time::Duration;

use crate::driver::payload::Audience;
use crate::driver::{Load, Pace};
use crate::floor::Delivery;

/// Clients of every row with traffic.
pub const CLIENTS: usize = 1_000;

/// The two ends of the memory slope, in idle connections. The far end stays below an open-file
/// limit of 20 000 on both sides.
pub const IDLE_CLIENTS: (usize, usize) = (1_000, 15_000);

/// Resident KiB per idle connection that the server may have.
pub const IDLE_KIB_BUDGET: f64 = 1.5;

/// Beyond so many times its budget, a row says that the structure is not the designed one.
pub const STRUCTURE_FACTOR: f64 = 1.3;

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
    /// Most that Signal may spend per delivery, as a multiple of the floor.
    pub budget: f64,
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
pub const TRAFFIC_ROWS: [TrafficRow; 4] = [
    TrafficRow {
        key: "room-fixed",
        title: "room 1000 @ 50 msg/s",
        load: Load {
            audience: Audience::Room,
            pace: Pace::Ticks { interval: Duration::from_millis(20), messages: 1 },
        },
        floor: Delivery::Write,
        budget: 1.10,
        fixed_rate: true,
    },
    TrafficRow {
        key: "room-saturated",
        title: "room 1000 saturated",
        load: Load { audience: Audience::Room, pace: Pace::Window { messages: 16 } },
        floor: Delivery::Coalesce,
        budget: 1.15,
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
        budget: 1.4,
        fixed_rate: true,
    },
    TrafficRow {
        key: "unicast-saturated",
        title: "unicast saturated",
        load: Load { audience: Audience::User, pace: Pace::Window { messages: 256 } },
        floor: Delivery::Coalesce,
        budget: 1.15,
        fixed_rate: false,
    },
];
