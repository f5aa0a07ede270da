//! The engine's measurement, in reading order:
//!
//! - [`rows`]: what is measured, and the budget of each row;
//! - [`turn`]: one turn of one server: fresh Redis, fresh server, clients, warm-up, reading;
//! - [`scenario`]: turns that are more than one load: churn, fairness, ingest, workers, the emitter,
//!   and a fleet of many edges;
//! - [`driver`]: the single-threaded load driver: clients, publisher, sequence checks;
//! - [`floor`]: the smallest epoll program that does Signal's work, the yardstick;
//! - [`process`]: child processes pinned to a core, and what the kernel says they used;
//! - [`report`]: medians, ratios and the table;
//! - [`summary`]: what several runs come to, as tables and charts;
//! - [`million`]: what a fleet was measured to cost, carried to larger ones;
//! - [`websocket`], [`resp`], [`clock`]: the bytes and the time both sides share.
//!
//! Nothing here is part of the product, and the engine is not linked in: Signal is measured from
//! outside, as the release binary that users run. `signal-micro` and `emitter-load` are programs of
//! their own, with features of their own.

pub mod clock;
pub mod driver;
pub mod floor;
pub mod million;
pub mod process;
pub mod report;
pub mod resp;
pub mod rows;
pub mod scenario;
pub mod summary;
pub mod turn;
pub mod websocket;
