//! Fairness: what a room of ten thousand costs the messages to single clients beside it.
//!
//! The room's members are another process, the *crowd*, with the lowest priority on the driver's core:
//! what is measured is how long the server keeps a message waiting, not how long the driver does.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use crate::driver::payload::Audience;
use crate::driver::{Driver, DriverError, Latency, Load, Pace, Privacy};
use crate::floor::Delivery;
use crate::process::Process;
use crate::report::{Line, Verdict};
use crate::turn::{Setting, Stage, Subject, TurnError};

/// What `--only` matches.
pub const KEY: &str = "mixed";

/// Clients that get messages of their own, and members of the room.
const CLIENTS: usize = 100;
const MEMBERS: usize = 10_000;

/// A message to one client at every tick, and one to the room at every hundredth.
const TICK: Duration = Duration::from_millis(1);
const ROOM_PERIOD: usize = 100;

/// Milliseconds that the room may add to the 99th percentile.
const BUDGET_MS: f64 = 5.0;

/// The crowd's user ids begin here, beyond those of the single clients.
const FIRST_MEMBER: u32 = 50_000;

/// What the crowd is told on its command line.
#[derive(Debug, Clone, clap::Parser)]
pub struct CrowdOptions {
    /// Port of the server.
    #[arg(long)]
    pub port: u16,
    /// Port of Redis.
    #[arg(long)]
    pub redis: u16,
}

/// What a turn found.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Times of messages to single clients, without the room's messages.
    pub alone: Latency,
    /// The same beside them.
    pub beside: Latency,
}

/// Measures the single clients, without the room's messages and beside them.
pub fn run(setting: &Setting, subject: &Subject, own: &Path) -> Result<Reading, TurnError> {
    let mut stage = Stage::set(setting, subject, Delivery::Write, Privacy::None)?;
    let (port, redis) = (stage.port.to_string(), stage.redis_port.to_string());
    let arguments = ["crowd", "--port", &port, "--redis", &redis].map(str::to_owned);
    let core = setting.driver_core.to_string();
    let mut crowd = Process::start_speaking("crowd", &core, own.as_os_str(), &arguments, &[])?;
    crowd.await_line()?;

    let driver = &mut stage.driver;
    let pace = Pace::Ticks { interval: TICK, messages: 1 };
    driver.connect(CLIENTS)?;
    driver.await_delivery(Audience::User)?;
    let mut running = driver.start(Load { audience: Audience::User, pace })?;
    let mut latencies = [None; 2];
    for (latency, period) in latencies.iter_mut().zip([None, Some(ROOM_PERIOD)]) {
        running.set_crowd(period);
        driver.run(&mut running, setting.warm_up)?;
        driver.record_latency();
        driver.run(&mut running, setting.duration)?;
        *latency = driver.take_latency();
    }
    driver.drain(&running)?;
    let (Some(alone), Some(beside)) = (latencies[0], latencies[1]) else {
        return Err(DriverError::Timeout("messages to single clients").into());
    };
    Ok(Reading { alone, beside })
}

/// Is the crowd: joins the room, says so, and reads until it is killed.
pub fn crowd(options: &CrowdOptions) -> Result<(), DriverError> {
    /// The lowest there is.
    const NICENESS: i32 = 19;
    rustix::process::nice(NICENESS).map_err(io::Error::from)?;
    let mut driver = Driver::new(options.port, options.redis, Privacy::None)?;
    driver.number_users_from(FIRST_MEMBER);
    driver.connect(MEMBERS)?;
    driver.join(Audience::Room)?;
    driver.await_delivery(Audience::Room)?;
    writeln!(io::stdout(), "ready")?;
    loop {
        driver.idle(Duration::from_secs(1))?;
    }
}

// === impl Reading ===

impl Reading {
    /// What the room adds to the 99th percentile, in milliseconds.
    pub fn added_ms(&self) -> f64 {
        let millis = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1e3;
        millis(self.beside.p99_micros) - millis(self.alone.p99_micros)
    }

    /// In words.
    pub fn describe(&self) -> String {
        let text = |latency: Latency| {
            let Latency { p50_micros, p99_micros, p999_micros } = latency;
            format!("p50 {p50_micros}, p99 {p99_micros}, p99.9 {p999_micros} µs")
        };
        format!("alone {}; beside the room {}", text(self.alone), text(self.beside))
    }
}

/// The line of the report.
pub fn line(signal: &Reading, floor: &Reading) -> Line {
    Line {
        key: KEY.to_owned(),
        title: "p99 added by a room of 10 000".to_owned(),
        unit: "ms",
        signal: vec![signal.added_ms()],
        floor: vec![floor.added_ms()],
        ratios: Vec::new(),
        verdict: Some(Verdict::at_most(signal.added_ms(), BUDGET_MS, "ms")),
    }
}
