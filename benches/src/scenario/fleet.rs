//! A fleet on one machine: edges with as many clients as a process may hold, on one Redis and on a
//! cluster, from one edge to as many as fit.
//!
//! Owns nothing but the order of the steps; each step has fresh processes and ends them. Bounded by
//! the machine's memory: a connection has both its ends here, and the driver's part beside.

pub mod bus;
pub mod clients;
pub mod edge;
pub mod layout;
pub mod load;
pub mod reading;
pub mod step;

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::reading::{Reading, RestReading};
use self::step::Setting;
use crate::driver::Integrity;
use crate::process;
use crate::turn::TurnError;

/// Files that a process needs beside its connections.
const SPARE_FILES: u64 = 500;

/// What is to be measured.
#[derive(Debug, Clone, clap::Parser)]
pub struct Options {
    /// Sizes of the fleet, one after the other.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_value = "1,2,4,8",
          value_parser = clap::value_parser!(u8).range(1..=64))]
    pub edges: Vec<u8>,
    /// Connections of each edge.
    #[arg(long, default_value_t = 19_000, value_parser = clap::value_parser!(u32).range(10..=60_000))]
    pub per_edge: u32,
    /// On which Redis.
    #[arg(long, value_delimiter = ',', default_value = "single,cluster")]
    pub bus: Vec<bus::Kind>,
    /// Messages a second to single clients, of which those of a millisecond come together; branches get
    /// two fifths of that.
    #[arg(long, default_value_t = 8_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// Seconds of each load.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Seconds for which the largest fleet is watched at rest: each client is pinged once in 30.
    #[arg(long, default_value_t = 31, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub rest: u64,
    /// The server to measure [default: `signal` beside this program].
    #[arg(long, value_name = "PATH")]
    pub signal: Option<PathBuf>,
    /// Also writes what was measured to this file, as tab-separated values.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A process may not hold the connections of an edge.
    #[error("the open-file limit is {limit}, and {needed} are needed")]
    Files {
        /// Files that a process may have.
        limit: u64,
        /// Files that it needs.
        needed: u64,
    },
    /// A step failed.
    #[error("{edges} edges on {bus}: {source}")]
    Step {
        /// Its size.
        edges: usize,
        /// Its Redis.
        bus: &'static str,
        /// Why.
        source: TurnError,
    },
    /// The system refused something.
    #[error("system: {0}")]
    System(#[from] io::Error),
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Report {
    /// Each size on each Redis.
    pub steps: Vec<Reading>,
    /// The largest on each Redis, at rest.
    pub rests: Vec<RestReading>,
}

/// Measures; `own` is this program.
pub fn run(options: &Options, own: &Path) -> Result<Report, FleetError> {
    let limit = process::lift_file_limit()?;
    let needed = u64::from(options.per_edge) + SPARE_FILES;
    if limit < needed {
        return Err(FleetError::Files { limit, needed });
    }
    let beside = || own.with_file_name("signal");
    let signal = options.signal.clone().unwrap_or_else(beside);
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let setting = Setting {
        signal: &signal,
        own,
        cores: &format!("0-{}", cores - 1),
        per_edge: usize::try_from(options.per_edge).expect("it is below a usize"),
        rate: options.rate,
        duration: Duration::from_secs(options.seconds),
        rest: (Duration::from_secs(options.rest), Duration::from_secs(options.seconds * 2)),
    };
    let mut report = Report::default();
    for bus in &options.bus {
        let sizes = options.edges.iter().map(|edges| usize::from(*edges));
        let failed = |edges| move |source| FleetError::Step { edges, bus: bus.name(), source };
        for edges in sizes.clone() {
            eprintln!("{edges} edges on {}", bus.name());
            report.steps.push(step::measure(&setting, *bus, edges).map_err(failed(edges))?);
            report.save(options.out.as_deref())?;
        }
        if let Some(edges) = sizes.max() {
            eprintln!("{edges} edges on {}, at rest", bus.name());
            report.rests.push(step::rest(&setting, *bus, edges).map_err(failed(edges))?);
            report.save(options.out.as_deref())?;
        }
    }
    Ok(report)
}

// === impl Report ===

impl Report {
    /// What was lost, duplicated or reordered in all steps.
    pub fn integrity(&self) -> Integrity {
        self.steps.iter().map(Reading::integrity).fold(Integrity::default(), Integrity::and)
    }

    /// Writes all lines.
    pub fn write_tsv(&self, out: &mut impl io::Write) -> io::Result<()> {
        self.steps.iter().try_for_each(|reading| reading.write_tsv(out))?;
        self.rests.iter().try_for_each(|reading| reading.write_tsv(out))
    }

    /// A run is long: what is known is kept even if a later step fails.
    fn save(&self, path: Option<&Path>) -> io::Result<()> {
        let Some(path) = path else { return Ok(()) };
        self.write_tsv(&mut File::create(path)?)
    }
}
