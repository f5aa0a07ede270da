//! `signal-bench`: Signal beside the floor, in CPU seconds per delivery.
//!
//! ```text
//! cargo build --release --bin signal && cargo run --release -p signal-benches --bin signal-bench
//! ```
//!
//! See `benches/README.md` for what the rows mean. Exits 0 when it could measure (a missed budget
//! is printed, nothing more), 1 when a message was lost, duplicated or reordered, 2 when a turn
//! failed, 64 when its arguments make no sense.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use signal_benches::driver::Privacy;
use signal_benches::report::{PrivacyRound, Report, Round, cost_micros};
use signal_benches::rows::{IDLE_CLIENTS, IDLE_KEY, PRIVACY_ROWS, PrivacyRow, TRAFFIC_ROWS};
use signal_benches::turn::{self, Setting, Subject, TurnError};
use signal_benches::{floor, process};

/// Open files that the memory row needs beside its connections.
const SPARE_FILES: u64 = 1_000;

/// Load before usage is read: buffers have grown and branches are learned well within it.
const WARM_UP: Duration = Duration::from_secs(1);

#[derive(Debug, Parser)]
#[command(name = "signal-bench", about = "Measures Signal against the smallest epoll program")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only rows whose key contains this: room-fixed, room-saturated, unicast-fixed,
    /// unicast-saturated, encrypted-fixed, encrypted-saturated, idle. May be repeated.
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,
    /// Rounds per row; in each, both servers take a turn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of load that are measured per turn.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// One round of two seconds: enough to see whether it works.
    #[arg(long)]
    quick: bool,
    /// The server to measure [default: `signal` beside this program].
    #[arg(long, value_name = "PATH")]
    signal: Option<PathBuf>,
    /// Puts the floor in Signal's place, to see how far from 1.00 the machine's noise goes.
    #[arg(long)]
    self_check: bool,
    /// Core of the server under test.
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of the driver and Redis.
    #[arg(long, default_value_t = 1)]
    driver_core: usize,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Runs the floor itself: how the turns start it.
    #[command(hide = true)]
    Floor(floor::Options),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing is left to tell if the terminal is gone.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    if let Some(Command::Floor(options)) = &arguments.command {
        return match floor::run(options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed("floor", &error),
        };
    }
    let bench = match Bench::prepare(&arguments) {
        Ok(bench) => bench,
        Err(message) => {
            eprintln!("signal-bench: {message}");
            return ExitCode::from(64);
        }
    };
    let (report, complete) = bench.run();
    if let Err(error) = report.write(&mut io::stdout().lock()) {
        return failed("output", &error);
    }
    match (complete, report.integrity().is_whole()) {
        (true, true) => ExitCode::SUCCESS,
        (_, false) => ExitCode::from(1),
        (false, true) => ExitCode::from(2),
    }
}

/// A run with its arguments understood.
#[derive(Debug)]
struct Bench {
    setting: Setting,
    signal: Subject,
    floor: Subject,
    rounds: u32,
    only: Vec<String>,
}

// === impl Bench ===

impl Bench {
    fn prepare(arguments: &Arguments) -> Result<Self, String> {
        let files = process::lift_file_limit().map_err(|error| error.to_string())?;
        let needed = IDLE_CLIENTS.1 as u64 + SPARE_FILES;
        if files < needed {
            return Err(format!("the open-file limit is {files}, and {needed} are needed"));
        }
        let own = std::env::current_exe()
            .map_err(|error| format!("cannot find this program: {error}"))?;
        process::pin_to(arguments.driver_core)
            .map_err(|error| format!("cannot run on core {}: {error}", arguments.driver_core))?;
        let keys = TRAFFIC_ROWS.iter().map(|row| row.key);
        let keys = keys.chain(PRIVACY_ROWS.iter().map(|row| row.key)).chain([IDLE_KEY]);
        let keys: Vec<_> = keys.collect();
        for wanted in &arguments.only {
            if !keys.iter().any(|key| key.contains(wanted.as_str())) {
                return Err(format!("--only {wanted} names no row; rows are {}", keys.join(", ")));
            }
        }
        let (rounds, seconds) =
            if arguments.quick { (1, 2) } else { (arguments.rounds, arguments.seconds) };
        Ok(Self {
            setting: Setting {
                server_core: arguments.server_core,
                driver_core: arguments.driver_core,
                warm_up: WARM_UP,
                duration: Duration::from_secs(seconds),
            },
            signal: subject(arguments, &own)?,
            floor: Subject::Floor(own),
            rounds,
            only: arguments.only.clone(),
        })
    }

    /// Measures all rows; false if a turn failed, whose row is then left out.
    fn run(&self) -> (Report, bool) {
        let mut report = Report::default();
        let mut complete = true;
        for row in TRAFFIC_ROWS.iter().filter(|row| self.wants(row.key)) {
            let rounds = self.rounds(row.title, |subject| {
                let reading = turn::traffic(&self.setting, subject, row)?;
                Ok((reading, format!("{:.2} µs per delivery", cost_micros(&reading))))
            });
            match rounds {
                Ok(rounds) => report.traffic.push((*row, rounds)),
                Err(error) => complete = complain(row.title, &error),
            }
        }
        // The floor does not encrypt: these rows are Signal beside itself.
        let is_signal = matches!(self.signal, Subject::Signal(_));
        for row in PRIVACY_ROWS.iter().filter(|row| is_signal && self.wants(row.key)) {
            match self.private_rounds(row) {
                Ok(rounds) => report.privacy.push((*row, rounds)),
                Err(error) => complete = complain(row.title, &error),
            }
        }
        if self.wants(IDLE_KEY) {
            let rounds = self.rounds("idle connections", |subject| {
                let reading = turn::idle(&self.setting, subject)?;
                let (kib, micros) = (reading.kib_per_connection, reading.connect_micros);
                Ok((reading, format!("{kib:.2} KiB and {micros:.1} µs per connection")))
            });
            match rounds {
                Ok(rounds) => report.idle = rounds,
                Err(error) => complete = complain("idle connections", &error),
            }
        }
        (report, complete)
    }

    /// Lets the three ways of delivering take turns; each begins as often as the others.
    fn private_rounds(&self, row: &PrivacyRow) -> Result<Vec<PrivacyRound>, TurnError> {
        const WAYS: [Privacy; 3] = [Privacy::Clear, Privacy::Session, Privacy::Room];
        let mut rounds = Vec::new();
        for round in 0..self.rounds {
            let mut readings = [None; WAYS.len()];
            for turn in 0..WAYS.len() {
                let way = (round as usize + turn) % WAYS.len();
                let reading = turn::private_traffic(&self.setting, &self.signal, row, WAYS[way])?;
                let cost = cost_micros(&reading);
                eprintln!("{:<22} {:<7?} {cost:.2} µs per delivery", row.title, WAYS[way]);
                readings[way] = Some(reading);
            }
            let [clear, session, room] = readings.map(|reading| reading.expect("each had a turn"));
            rounds.push(PrivacyRound { clear, session, room });
        }
        Ok(rounds)
    }

    fn wants(&self, key: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| key.contains(wanted.as_str()))
    }

    /// Lets the two servers take turns. Who begins alternates, so that drift favours neither.
    fn rounds<Reading>(
        &self,
        title: &str,
        mut turn: impl FnMut(&Subject) -> Result<(Reading, String), TurnError>,
    ) -> Result<Vec<Round<Reading>>, TurnError> {
        let mut take_turn = |subject: &Subject, role: &str| {
            let (reading, text) = turn(subject)?;
            eprintln!("{title:<22} {role:<7} {text}");
            Ok::<_, TurnError>(reading)
        };
        let mut rounds = Vec::new();
        for round in 0..self.rounds {
            rounds.push(if round % 2 == 0 {
                let signal = take_turn(&self.signal, "signal")?;
                Round { signal, floor: take_turn(&self.floor, "floor")? }
            } else {
                let floor = take_turn(&self.floor, "floor")?;
                Round { signal: take_turn(&self.signal, "signal")?, floor }
            });
        }
        Ok(rounds)
    }
}

/// The server in Signal's place.
fn subject(arguments: &Arguments, own: &Path) -> Result<Subject, String> {
    if arguments.self_check {
        return Ok(Subject::Floor(own.to_owned()));
    }
    let beside = || own.with_file_name("signal");
    let binary = arguments.signal.clone().unwrap_or_else(beside);
    if !binary.is_file() {
        return Err(format!(
            "{} does not exist; build it with `cargo build --release --bin signal`",
            binary.display()
        ));
    }
    Ok(Subject::Signal(binary))
}

fn complain(title: &str, error: &TurnError) -> bool {
    eprintln!("{title}: {error}");
    false
}

fn failed(what: &str, error: &dyn Display) -> ExitCode {
    // The exit code says it if this cannot.
    let _ = writeln!(io::stderr(), "signal-bench: {what}: {error}");
    ExitCode::from(2)
}
