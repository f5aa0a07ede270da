//! The emitter against `redis-benchmark`: publishes a second, for the same PUBLISH.

use std::path::Path;
use std::process::Command;

use crate::process;
use crate::report::{Line, Verdict};
use crate::turn::{Setting, TurnError};

/// What `--only` matches.
pub const KEY: &str = "emitter";

/// Messages published by each.
const MESSAGES: u32 = 300_000;

/// Under way at once.
const PIPELINE: u32 = 64;

/// The emitter must make at least so much of what `redis-benchmark` makes.
const BUDGET: f64 = 0.8;

/// Publishes a second.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// By the emitter.
    pub emitter: f64,
    /// By `redis-benchmark -P`.
    pub benchmark: f64,
}

/// Lets both publish to the same Redis, one after the other; `load` is the program `emitter-load`.
pub fn run(setting: &Setting, load: &Path) -> Result<Reading, TurnError> {
    let port = process::free_port()?;
    let _redis = process::start_redis(setting.driver_core, port)?;
    let (port, messages, pipeline) = (port.to_string(), MESSAGES.to_string(), PIPELINE.to_string());
    let core = setting.server_core.to_string();
    let mut emitter = Command::new("taskset");
    emitter.args(["-c", &core]).arg(load).args([&port, &messages, &pipeline]);
    let mut benchmark = Command::new("taskset");
    benchmark.args(["-c", &core, "redis-benchmark", "-p", &port, "-n", &messages]);
    benchmark.args(["-c", "1", "-P", &pipeline, "--csv"]);
    benchmark.args(["PUBLISH", "ws:room:bench", &"x".repeat(ENVELOPE_BYTES)]);
    Ok(Reading { emitter: last_number(&mut emitter)?, benchmark: last_number(&mut benchmark)? })
}

/// Bytes of the envelope that the emitter makes of 256 bytes of data.
const ENVELOPE_BYTES: usize = 420;

/// The first number on the last line, without quotes: how both say what they made.
fn last_number(command: &mut Command) -> Result<f64, TurnError> {
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let fields = text.lines().last().unwrap_or_default().split(',');
    let mut numbers = fields.filter_map(|field| field.trim_matches('"').parse::<f64>().ok());
    numbers.next().ok_or_else(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        std::io::Error::other(format!("no rate in {text:?} {errors}")).into()
    })
}

/// The line of the report.
pub fn line(readings: &[Reading]) -> Line {
    let ratios: Vec<f64> =
        readings.iter().map(|reading| reading.emitter / reading.benchmark).collect();
    let worst = crate::report::median(&ratios);
    Line {
        key: KEY.to_owned(),
        title: "emitter / redis-benchmark -P".to_owned(),
        unit: "k/s",
        signal: readings.iter().map(|reading| reading.emitter / 1e3).collect(),
        floor: readings.iter().map(|reading| reading.benchmark / 1e3).collect(),
        ratios,
        verdict: Some(Verdict::at_least(worst, BUDGET, "")),
    }
}
