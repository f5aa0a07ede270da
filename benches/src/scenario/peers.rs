//! Signal beside the servers that its users would pick instead, under the same loads.
//!
//! Each runs on one core, as its own documents set it up, with what it needs to share messages over
//! Redis. Producers publish on Redis in the form that the server's own producers or edges use.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::driver::{Dialect, Integrity, Privacy};
use crate::report::{cost_micros, maximum, median, minimum};
use crate::rows::{Budget, PRIVACY_ROWS, TRAFFIC_ROWS};
use crate::turn::{self, IdleReading, Setting, Subject, TrafficReading, TurnError};

/// A server beside Signal.
#[derive(Debug, Clone)]
pub struct Peer {
    /// What the table says.
    pub name: &'static str,
    /// How it is spoken to.
    pub dialect: Dialect,
    /// The program and its arguments; `{port}` and `{redis}` are filled in, here and in `settings`.
    pub command: Vec<String>,
    /// Its environment.
    pub settings: Vec<(&'static str, String)>,
    /// What turns encryption on, if it encrypts as Signal's plain protocol does.
    pub encryption: Option<(&'static str, &'static str)>,
    /// It listens before it is ready, and says a line when it is.
    pub says_when_ready: bool,
}

/// What every server did in every turn of a row.
#[derive(Debug)]
pub struct Row<Reading> {
    /// The row's title.
    pub title: String,
    /// By server: its name and its readings.
    pub servers: Vec<(&'static str, Vec<Reading>)>,
}

/// All rows.
#[derive(Debug, Default)]
pub struct PeerReport {
    /// Rows with traffic.
    pub traffic: Vec<Row<TrafficReading>>,
    /// Idle connections.
    pub idle: Vec<Row<IdleReading>>,
}

/// The peers that are installed: in `cache`, by `benches/peers/install.sh`.
pub fn installed(cache: &Path) -> Vec<Peer> {
    let benches = Path::new(env!("CARGO_MANIFEST_DIR"));
    let e2e = benches.with_file_name("e2e");
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let (port, redis) = ("{port}".to_owned(), "{redis}".to_owned());
    let bun = e2e.join("node_modules/.bin/bun");
    let socketio = cache.join("socketio/server.mjs");
    let socketioxide = cache.join("socketioxide/release/socketioxide-peer");
    let centrifugo = cache.join("bin/centrifugo");
    let config = benches.join("peers/centrifugo.json");
    let sockudo = cache.join("sockudo/bin/sockudo");
    let all = [
        (
            bun.clone(),
            Peer {
                name: "npm package on Bun",
                dialect: Dialect::Signal,
                command: vec![text(bun), text(e2e.join("ts-server.ts"))],
                settings: vec![
                    ("PORT", port.clone()),
                    ("APP_ENV_WEBSOCKET_REDIS_PORT", redis.clone()),
                    ("APP_ENV_LOGGER_FOLDER_PATH", text(cache.to_owned())),
                ],
                encryption: Some(("ENCRYPTION", "on")),
                says_when_ready: true,
            },
        ),
        (
            cache.join("socketio/node_modules"),
            Peer {
                name: "socket.io",
                dialect: Dialect::SocketIo,
                command: vec!["node".to_owned(), text(socketio), port.clone(), redis.clone()],
                settings: vec![("NODE_ENV", "production".to_owned())],
                encryption: None,
                says_when_ready: false,
            },
        ),
        (
            socketioxide.clone(),
            Peer {
                name: "socketioxide",
                dialect: Dialect::Socketioxide,
                command: vec![text(socketioxide), port.clone(), redis.clone()],
                settings: Vec::new(),
                encryption: None,
                says_when_ready: false,
            },
        ),
        (
            centrifugo.clone(),
            Peer {
                name: "Centrifugo",
                dialect: Dialect::Centrifugo,
                command: vec![text(centrifugo), "--config".to_owned(), text(config)],
                settings: vec![
                    ("CENTRIFUGO_HTTP_SERVER_ADDRESS", "127.0.0.1".to_owned()),
                    ("CENTRIFUGO_HTTP_SERVER_PORT", port.clone()),
                    ("CENTRIFUGO_ENGINE_TYPE", "redis".to_owned()),
                    ("CENTRIFUGO_ENGINE_REDIS_ADDRESS", "redis://127.0.0.1:{redis}".to_owned()),
                ],
                encryption: None,
                says_when_ready: false,
            },
        ),
        (
            sockudo.clone(),
            Peer {
                name: "Sockudo",
                dialect: Dialect::Sockudo,
                command: vec![text(sockudo)],
                settings: vec![
                    ("RUST_LOG", "error".to_owned()),
                    ("HOST", "127.0.0.1".to_owned()),
                    ("PORT", port),
                    ("ADAPTER_DRIVER", "redis".to_owned()),
                    ("CACHE_DRIVER", "redis".to_owned()),
                    ("DATABASE_REDIS_HOST", "127.0.0.1".to_owned()),
                    ("DATABASE_REDIS_PORT", redis),
                    ("METRICS_ENABLED", "false".to_owned()),
                    ("RATE_LIMITER_ENABLED", "false".to_owned()),
                    ("SOCKUDO_DEFAULT_APP_ID", "bench".to_owned()),
                    ("SOCKUDO_DEFAULT_APP_KEY", "bench".to_owned()),
                    ("SOCKUDO_DEFAULT_APP_SECRET", "bench".to_owned()),
                    ("SOCKUDO_DEFAULT_APP_MAX_CONNECTIONS", "100000".to_owned()),
                ],
                encryption: None,
                says_when_ready: false,
            },
        ),
    ];
    let there = all.into_iter().filter(|(path, _)| path.exists());
    there.map(|(_, peer)| peer).collect()
}

/// Runs every row with every server; a server whose turn fails is left out of that row, and said so.
pub fn run(
    setting: &Setting,
    subjects: &[(&'static str, Subject)],
    rounds: u32,
    wants: impl Fn(&str) -> bool,
) -> PeerReport {
    let mut report = PeerReport::default();
    let describe = |reading: &TrafficReading| {
        let Integrity { lost, duplicated, reordered } = reading.integrity;
        let cost = cost_micros(reading);
        format!("{cost:.2} µs per delivery, {lost}/{duplicated}/{reordered} wrong")
    };
    let rows = TRAFFIC_ROWS.iter().filter(|row| !matches!(row.budget, Budget::P99(_)));
    for row in rows.filter(|row| wants(row.key)) {
        let take = |subject: &Subject| turn::traffic(setting, subject, row);
        report.traffic.push(interleave(row.title, subjects, rounds, take, describe));
    }
    // The plain protocol's session keys, which is what others have too.
    let encrypting: Vec<_> =
        subjects.iter().filter(|(_, subject)| subject.encrypts()).cloned().collect();
    for row in PRIVACY_ROWS.iter().filter(|row| wants(row.key)) {
        let take =
            |subject: &Subject| turn::private_traffic(setting, subject, row, Privacy::Session);
        let title = format!("encrypted {}", row.title);
        report.traffic.push(interleave(&title, &encrypting, rounds, take, describe));
    }
    if wants(crate::rows::IDLE_KEY) {
        let take = |subject: &Subject| turn::idle(setting, subject, false);
        let describe = |reading: &IdleReading| {
            let IdleReading { kib_per_connection, connect_micros, .. } = reading;
            format!("{kib_per_connection:.2} KiB and {connect_micros:.1} µs per connection")
        };
        report.idle.push(interleave("idle connections", subjects, rounds, take, describe));
    }
    report
}

/// Lets the servers take turns; who begins changes from round to round.
fn interleave<Reading>(
    title: &str,
    subjects: &[(&'static str, Subject)],
    rounds: u32,
    take: impl Fn(&Subject) -> Result<Reading, TurnError>,
    describe: impl Fn(&Reading) -> String,
) -> Row<Reading> {
    let mut servers: Vec<_> = subjects.iter().map(|(name, _)| (*name, Vec::new())).collect();
    for round in 0..rounds as usize {
        for place in 0..subjects.len() {
            let index = (round + place) % subjects.len();
            let (name, subject) = &subjects[index];
            match take(subject) {
                Ok(reading) => {
                    eprintln!("{title:<30} {name:<18} {}", describe(&reading));
                    servers[index].1.push(reading);
                }
                Err(error) => eprintln!("{title:<30} {name:<18} {error}"),
            }
        }
    }
    Row { title: title.to_owned(), servers }
}

// === impl PeerReport ===

impl PeerReport {
    /// Writes both tables.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for row in &self.traffic {
            writeln!(
                out,
                "\n{:<30} {:>8} {:>13} {:>10} {:>12} {:>8} {:>9}  lost/dup/reordered",
                row.title, "µs", "(rounds)", "of signal", "deliveries/s", "p99 ms", "redis µs"
            )?;
            let ours = median_of(&row.servers[0].1, cost_micros);
            for (name, readings) in &row.servers {
                write_traffic(out, name, readings, ours)?;
            }
        }
        for row in &self.idle {
            writeln!(
                out,
                "\n{:<30} {:>8} {:>15} {:>10} {:>11} {:>10}",
                row.title, "KiB", "(rounds)", "of signal", "connect µs", "of signal"
            )?;
            let kib = |reading: &IdleReading| reading.kib_per_connection;
            let micros = |reading: &IdleReading| reading.connect_micros;
            let ours = (median_of(&row.servers[0].1, kib), median_of(&row.servers[0].1, micros));
            for (name, readings) in row.servers.iter().filter(|(_, list)| !list.is_empty()) {
                writeln!(
                    out,
                    "  {name:<28} {:>8.2} {:>15} {:>10.1} {:>11.1} {:>10.1}",
                    median_of(readings, kib),
                    spread(readings, kib),
                    median_of(readings, kib) / ours.0,
                    median_of(readings, micros),
                    median_of(readings, micros) / ours.1
                )?;
            }
        }
        Ok(())
    }

    /// Writes every reading as tab-separated values: row, server, what, and the rounds' values.
    pub fn write_tsv(&self, out: &mut impl Write) -> io::Result<()> {
        let list = |values: Vec<f64>| {
            let values: Vec<String> = values.iter().map(|value| format!("{value:.4}")).collect();
            values.join(",")
        };
        for row in &self.traffic {
            for (name, readings) in &row.servers {
                let costs = list(readings.iter().map(cost_micros).collect());
                writeln!(out, "{}\t{name}\tµs\t{costs}", row.title)?;
            }
        }
        for row in &self.idle {
            for (name, readings) in &row.servers {
                let kib = list(readings.iter().map(|read| read.kib_per_connection).collect());
                writeln!(out, "{}\t{name}\tKiB\t{kib}", row.title)?;
                let connect = list(readings.iter().map(|read| read.connect_micros).collect());
                writeln!(out, "connect\t{name}\tµs\t{connect}")?;
            }
        }
        Ok(())
    }
}

fn write_traffic(
    out: &mut impl Write,
    name: &str,
    readings: &[TrafficReading],
    ours: f64,
) -> io::Result<()> {
    if readings.is_empty() {
        return writeln!(out, "  {name:<28} no turn succeeded");
    }
    let sum = readings.iter().fold(Integrity::default(), |sum, reading| sum.and(reading.integrity));
    let late = readings.iter().filter_map(|reading| reading.latency);
    let late: Vec<f64> = late.map(|latency| crate::report::count(latency.p99_micros)).collect();
    writeln!(
        out,
        "  {name:<28} {:>8.2} {:>13} {:>10.2} {:>12.0} {:>8} {:>9.2}  {}/{}/{}",
        median_of(readings, cost_micros),
        spread(readings, cost_micros),
        median_of(readings, cost_micros) / ours,
        median_of(readings, |read| crate::report::count(read.deliveries) / read.seconds),
        if late.is_empty() { "-".to_owned() } else { format!("{:.1}", median(&late) / 1e3) },
        median_of(readings, |read| read.redis_cpu * 1e6 / crate::report::count(read.deliveries)),
        sum.lost,
        sum.duplicated,
        sum.reordered,
    )
}

fn median_of<Reading>(readings: &[Reading], pick: impl Fn(&Reading) -> f64) -> f64 {
    median(&readings.iter().map(pick).collect::<Vec<_>>())
}

fn spread<Reading>(readings: &[Reading], pick: impl Fn(&Reading) -> f64) -> String {
    let values: Vec<f64> = readings.iter().map(pick).collect();
    let low = minimum(&values).unwrap_or(f64::NAN);
    let high = maximum(&values).unwrap_or(f64::NAN);
    format!("({low:.2}–{high:.2})")
}
