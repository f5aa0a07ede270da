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
use signal_benches::scenario::{churn, emitter, fleet, ingest, mixed, peers, workers};
use signal_benches::turn::{self, Setting, Subject, TurnError};
use signal_benches::{floor, process, summary};

/// Open files that the memory row needs beside its connections.
const SPARE_FILES: u64 = 500;

/// Load before usage is read: buffers have grown and branches are learned well within it.
const WARM_UP: Duration = Duration::from_secs(1);

#[derive(Debug, Parser)]
#[command(name = "signal-bench", about = "Measures Signal against the smallest epoll program")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only rows whose key contains this: room-fixed, room-saturated, unicast-fixed,
    /// unicast-saturated, encrypted-fixed, encrypted-saturated, rooms-saturated, relay, idle, ingest,
    /// churn, mixed, workers, emitter. May be repeated.
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,
    /// Rounds per row; in each, both servers take a turn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of load that are measured per turn.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// One round of one second: enough to see whether it works.
    #[arg(long)]
    quick: bool,
    /// The server to measure [default: `signal` beside this program].
    #[arg(long, value_name = "PATH")]
    signal: Option<PathBuf>,
    /// The program that is the emitter's load [default: `emitter-load` beside this program].
    #[arg(long, value_name = "PATH")]
    emitter: Option<PathBuf>,
    /// Also writes the first table to this file, as tab-separated values.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Measures Signal beside the other servers that `benches/peers/install.sh` put there.
    #[arg(long, value_name = "DIRECTORY")]
    peers: Option<PathBuf>,
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
    /// Runs the members of the room of the fairness row: how its turns start them.
    #[command(hide = true)]
    Crowd(mixed::CrowdOptions),
    /// Measures a fleet of edges: what it costs Redis, the edges and the machine as it grows.
    Fleet(fleet::Options),
    /// Runs the clients of one edge of the fleet: how its steps start them.
    #[command(hide = true)]
    FleetClients(fleet::clients::Options),
    /// Prints the tables, and draws the charts, of several runs.
    Summary(summary::Options),
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
    let ran = match &arguments.command {
        Some(Command::Floor(options)) => floor::run(options).map_err(|error| error.to_string()),
        Some(Command::Crowd(options)) => process::lift_file_limit()
            .map_err(|error| error.to_string())
            .and_then(|_| mixed::crowd(options).map_err(|error| error.to_string())),
        Some(Command::Fleet(options)) => return measure_fleet(options),
        Some(Command::FleetClients(options)) => process::lift_file_limit()
            .map_err(|error| error.to_string())
            .and_then(|_| fleet::clients::run(options).map_err(|error| error.to_string())),
        Some(Command::Summary(options)) => summary::run(options)
            .and_then(|text| io::stdout().write_all(text.as_bytes()))
            .map_err(|error| error.to_string()),
        None => return measure(&arguments),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed("as part of a turn", &error),
    }
}

fn measure(arguments: &Arguments) -> ExitCode {
    let bench = match Bench::prepare(arguments) {
        Ok(bench) => bench,
        Err(message) => {
            eprintln!("signal-bench: {message}");
            return ExitCode::from(64);
        }
    };
    if let Some(cache) = &arguments.peers {
        return bench.run_peers(cache, arguments.out.as_deref());
    }
    let (report, complete) = bench.run();
    if let Err(error) = report.write(&mut io::stdout().lock()) {
        return failed("output", &error);
    }
    let written = arguments.out.as_ref().map_or(Ok(()), |path| {
        let mut file = std::fs::File::create(path)?;
        report.write_tsv(&mut file)
    });
    if let Err(error) = written {
        return failed("output", &error);
    }
    match (complete, report.integrity().is_whole()) {
        (true, true) => ExitCode::SUCCESS,
        (_, false) => ExitCode::from(1),
        (false, true) => ExitCode::from(2),
    }
}

fn measure_fleet(options: &fleet::Options) -> ExitCode {
    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(error) => return failed("cannot find this program", &error),
    };
    let report = match fleet::run(options, &own) {
        Ok(report) => report,
        Err(error) => return failed("fleet", &error),
    };
    let mut lines = Vec::new();
    let written = report.write_tsv(&mut lines).and_then(|()| {
        let tables = summary::fleet_tables(&String::from_utf8_lossy(&lines));
        io::stdout().write_all(tables.as_bytes())
    });
    match written {
        Err(error) => failed("output", &error),
        Ok(()) if report.integrity().is_whole() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(1),
    }
}

/// A run with its arguments understood.
#[derive(Debug)]
struct Bench {
    setting: Setting,
    signal: Subject,
    floor: Subject,
    /// This program, and the emitter's load.
    own: PathBuf,
    emitter: PathBuf,
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
        let keys = keys.chain([ingest::KEY, churn::KEY, mixed::KEY, workers::KEY, emitter::KEY]);
        let keys: Vec<_> = keys.collect();
        for wanted in &arguments.only {
            if !keys.iter().any(|key| key.contains(wanted.as_str())) {
                return Err(format!("--only {wanted} names no row; rows are {}", keys.join(", ")));
            }
        }
        let (rounds, seconds) =
            if arguments.quick { (1, 1) } else { (arguments.rounds, arguments.seconds) };
        Ok(Self {
            setting: Setting {
                server_core: arguments.server_core,
                driver_core: arguments.driver_core,
                workers: 1,
                warm_up: WARM_UP,
                duration: Duration::from_secs(seconds),
            },
            signal: subject(arguments, &own)?,
            floor: Subject::Floor(own.clone()),
            emitter: arguments
                .emitter
                .clone()
                .unwrap_or_else(|| own.with_file_name("emitter-load")),
            own,
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
            // An interval of pings is long: it is watched once, and what the floor does is nothing.
            let mut is_watched = is_signal;
            let rounds = self.rounds("idle connections", |subject| {
                let is_watched = std::mem::take(&mut is_watched);
                let reading = turn::idle(&self.setting, subject, is_watched)?;
                let (kib, micros) = (reading.kib_per_connection, reading.connect_micros);
                Ok((reading, format!("{kib:.2} KiB and {micros:.1} µs per connection")))
            });
            match rounds {
                Ok(rounds) => report.idle = rounds,
                Err(error) => complete = complain("idle connections", &error),
            }
        }
        complete &= self.run_scenarios(&mut report);
        (report, complete)
    }

    /// The turns that are more than one load; false if one failed.
    fn run_scenarios(&self, report: &mut Report) -> bool {
        let mut complete = true;
        if self.wants(ingest::KEY) {
            let rounds = self.rounds("ingest", |subject| {
                let reading = ingest::run(&self.setting, subject)?;
                let ingest::Reading { micros, rate } = reading;
                Ok((reading, format!("{micros:.2} µs per message, {rate:.0} a second")))
            });
            match rounds {
                Ok(rounds) => report.lines.push(ingest::line(&rounds)),
                Err(error) => complete = complain("ingest", &error),
            }
        }
        if self.wants(churn::KEY) {
            match churn::run(&self.setting, &self.signal) {
                Ok(reading) => {
                    eprintln!("{:<22} {:<7} {}", "churn", "signal", reading.describe());
                    report.lines.extend(churn::lines(&reading));
                }
                Err(error) => complete = complain("churn", &error),
            }
        }
        if self.wants(mixed::KEY) {
            let round = self.round("fairness", |subject| {
                let reading = mixed::run(&self.setting, subject, &self.own)?;
                Ok((reading, reading.describe()))
            });
            match round {
                Ok(round) => report.lines.push(mixed::line(&round.signal, &round.floor)),
                Err(error) => complete = complain("fairness", &error),
            }
        }
        let rows = TRAFFIC_ROWS.iter().filter(|row| row.key.ends_with("saturated"));
        for row in rows.filter(|_| self.wants(workers::KEY)) {
            match workers::run(&self.setting, &self.signal, row) {
                Ok(reading) => report.workers.push(reading),
                Err(error) => complete = complain("workers", &error),
            }
        }
        if self.wants(emitter::KEY) {
            let readings = (0..self.rounds).map(|_| emitter::run(&self.setting, &self.emitter));
            match readings.collect::<Result<Vec<_>, _>>() {
                Ok(readings) => report.lines.push(emitter::line(&readings)),
                Err(error) => complete = complain("emitter", &error),
            }
        }
        complete
    }

    /// Measures Signal beside its peers, under the loads that all can take.
    fn run_peers(&self, cache: &Path, out: Option<&Path>) -> ExitCode {
        let mut subjects = vec![("Signal", self.signal.clone())];
        let peers = peers::installed(cache).into_iter();
        subjects.extend(peers.map(|peer| (peer.name, Subject::Peer(peer))));
        let report = peers::run(&self.setting, &subjects, self.rounds, |key| self.wants(key));
        let written = report.write(&mut io::stdout().lock()).and_then(|()| {
            let Some(path) = out else { return Ok(()) };
            report.write_tsv(&mut std::fs::File::create(path)?)
        });
        match written {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed("output", &error),
        }
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
        turn: impl FnMut(&Subject) -> Result<(Reading, String), TurnError>,
    ) -> Result<Vec<Round<Reading>>, TurnError> {
        self.some_rounds(self.rounds, title, turn)
    }

    /// One turn of each, where that takes long or is not a ratio.
    fn round<Reading>(
        &self,
        title: &str,
        turn: impl FnMut(&Subject) -> Result<(Reading, String), TurnError>,
    ) -> Result<Round<Reading>, TurnError> {
        let mut rounds = self.some_rounds(1, title, turn)?;
        Ok(rounds.pop().expect("one round was asked for"))
    }

    fn some_rounds<Reading>(
        &self,
        count: u32,
        title: &str,
        mut turn: impl FnMut(&Subject) -> Result<(Reading, String), TurnError>,
    ) -> Result<Vec<Round<Reading>>, TurnError> {
        let mut take_turn = |subject: &Subject, role: &str| {
            let (reading, text) = turn(subject)?;
            eprintln!("{title:<22} {role:<7} {text}");
            Ok::<_, TurnError>(reading)
        };
        let mut rounds = Vec::new();
        for round in 0..count {
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
