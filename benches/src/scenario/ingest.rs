//! Messages from clients to the server: what reading, unmasking, parsing and counting one costs.

use crate::driver::Privacy;
use crate::floor::Delivery;
use crate::report::{Line, Round, ratios};
use crate::turn::{Setting, Stage, Subject, TurnError};

/// What `--only` matches.
pub const KEY: &str = "ingest";

/// Clients that send.
const CLIENTS: usize = 200;

/// What a turn used.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// CPU of the server per message, in microseconds.
    pub micros: f64,
    /// Messages a second.
    pub rate: f64,
}

/// Lets clients send as fast as the server reads.
pub fn run(setting: &Setting, subject: &Subject) -> Result<Reading, TurnError> {
    let mut stage = Stage::set(setting, subject, Delivery::Coalesce, Privacy::None)?;
    stage.driver.connect(CLIENTS)?;
    stage.driver.ingest(setting.warm_up)?;
    let before = (stage.driver.elapsed().as_secs_f64(), stage.server.cpu()?.used_seconds);
    let messages = stage.driver.ingest(setting.duration)?;
    let seconds = stage.driver.elapsed().as_secs_f64() - before.0;
    let used = stage.server.cpu()?.used_seconds - before.1;
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    let messages = messages as f64;
    Ok(Reading { micros: used * 1e6 / messages, rate: messages / seconds })
}

/// The line of the report.
pub fn line(rounds: &[Round<Reading>]) -> Line {
    let values =
        |pick: fn(&Round<Reading>) -> f64| -> Vec<f64> { rounds.iter().map(pick).collect() };
    let (signal, floor) = (values(|round| round.signal.micros), values(|round| round.floor.micros));
    let ratios = ratios(&signal, &floor);
    Line {
        key: KEY.to_owned(),
        title: "ingest, 256 B from a client".to_owned(),
        unit: "µs",
        signal,
        floor,
        ratios,
        verdict: None,
    }
}
