//! Connections that come and go: whether the memory that they took is given back.

use std::time::Duration;

use crate::driver::Privacy;
use crate::floor::Delivery;
use crate::report::{Line, Verdict};
use crate::turn::{Setting, Stage, Subject, TurnError, settle};

/// What `--only` matches.
pub const KEY: &str = "churn";

/// Connections of one wave, and waves.
const WAVE: usize = 10_000;
const WAVES: u32 = 10;

/// Between two waves.
const PAUSE: Duration = Duration::from_millis(400);

/// Clients that connect from one address.
const PER_ADDRESS: usize = 10_000;

/// Resident memory at the last plateau may be so many times that at the first.
const BUDGET: f64 = 1.2;

/// What a turn found.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Resident KiB with the first wave connected, and with the last.
    pub plateaus: (f64, f64),
    /// Resident KiB after all have gone.
    pub empty: f64,
    /// CPU of the server per connection that came and went, in microseconds.
    pub micros: f64,
}

/// Lets waves of clients connect, log in and go.
pub fn run(setting: &Setting, subject: &Subject) -> Result<Reading, TurnError> {
    let mut stage = Stage::set(setting, subject, Delivery::Coalesce, Privacy::None)?;
    stage.driver.spread(PER_ADDRESS);
    stage.driver.connect(WAVE)?;
    let first = settle(&mut stage.driver, &stage.server)?;
    let before = stage.server.cpu()?.used_seconds;
    for _ in 1..WAVES {
        stage.driver.disconnect();
        // The server notices before the next wave comes, or there would be too many at once.
        stage.driver.idle(PAUSE)?;
        stage.driver.connect(WAVE)?;
    }
    let last = settle(&mut stage.driver, &stage.server)?;
    let used = stage.server.cpu()?.used_seconds - before;
    stage.driver.disconnect();
    let empty = settle(&mut stage.driver, &stage.server)?;
    let churned = f64::from(WAVES - 1) * 1e4;
    Ok(Reading { plateaus: (first, last), empty, micros: used * 1e6 / churned })
}

// === impl Reading ===

impl Reading {
    /// In words.
    pub fn describe(&self) -> String {
        let mib = |kib: f64| kib / 1024.0;
        let ((first, last), empty) = (self.plateaus, self.empty);
        format!("{:.1} → {:.1} MiB, {:.1} when all have gone", mib(first), mib(last), mib(empty))
    }

    /// The last plateau as a multiple of the first.
    pub fn growth(&self) -> f64 {
        self.plateaus.1 / self.plateaus.0
    }
}

/// The lines of the report. The floor gives nothing back, so there is none beside it.
pub fn lines(signal: &Reading) -> [Line; 2] {
    [
        Line {
            key: KEY.to_owned(),
            title: "memory after churn of 100 000".to_owned(),
            unit: "×",
            signal: vec![signal.growth()],
            floor: Vec::new(),
            ratios: Vec::new(),
            verdict: Some(Verdict::at_most(signal.growth(), BUDGET, "×")),
        },
        Line {
            key: format!("{KEY}-cpu"),
            title: "connect, log in and go".to_owned(),
            unit: "µs",
            signal: vec![signal.micros],
            floor: Vec::new(),
            ratios: Vec::new(),
            verdict: None,
        },
    ]
}
