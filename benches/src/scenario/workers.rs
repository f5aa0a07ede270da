//! Two workers against one, both on two cores that the driver and Redis share with them.

use crate::rows::TrafficRow;
use crate::turn::{self, Setting, Subject, TrafficReading, TurnError};

/// What `--only` matches.
pub const KEY: &str = "workers";

/// A row's readings with one worker and with two.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The row's title.
    pub title: &'static str,
    /// One worker.
    pub one: TrafficReading,
    /// Two workers.
    pub two: TrafficReading,
}

/// Runs a row with one worker and with two.
pub fn run(setting: &Setting, signal: &Subject, row: &TrafficRow) -> Result<Reading, TurnError> {
    let one = turn::traffic(setting, signal, row)?;
    let two = turn::traffic(&Setting { workers: 2, ..setting.clone() }, signal, row)?;
    Ok(Reading { title: row.title, one, two })
}
