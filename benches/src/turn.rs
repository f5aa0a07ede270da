//! One turn of one server: fresh Redis, fresh server, clients, warm-up, reading.
//!
//! Owns the processes of the turn, and ends them with it. Signal and the floor get the identical
//! treatment: which one it is decides the command line and nothing else.

use std::path::PathBuf;
use std::time::Duration;

use crate::driver::{Dialect, Driver, DriverError, Integrity, Latency, Load, Privacy};
use crate::floor::Delivery;
use crate::process::{self, Cpu, Process, ProcessError};
use crate::rows::{CLIENTS, IDLE_CLIENTS, PrivacyRow, TrafficRow};
use crate::scenario::peers::Peer;

/// Between two readings of resident memory.
const SETTLE_INTERVAL: Duration = Duration::from_millis(400);

/// Readings of resident memory at most: an allocator that never rests is read as it is.
const SETTLE_READINGS_MAX: usize = 20;

/// How long idle connections are watched: each of them is pinged once, by default.
const REST: Duration = Duration::from_secs(31);

/// Growth between two readings that counts as none, in KiB.
const SETTLE_KIB: u64 = 64;

/// Why a turn gave no reading.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// A process failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The load could not be driven.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The system refused something.
    #[error("system: {0}")]
    System(#[from] std::io::Error),
}

/// Which server has the turn.
#[derive(Debug, Clone)]
pub enum Subject {
    /// The release binary.
    Signal(PathBuf),
    /// The floor, which is `signal-bench` itself, so that it is never stale.
    Floor(PathBuf),
    /// Another server.
    Peer(Peer),
}

/// Where and for how long turns run.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The core of the server under test.
    pub server_core: usize,
    /// The core of the driver and Redis.
    pub driver_core: usize,
    /// Threads of Signal that serve connections; more than one of them get both cores.
    pub workers: usize,
    /// How long the load runs before usage is read.
    pub warm_up: Duration,
    /// How long the load is measured.
    pub duration: Duration,
}

/// What a turn with traffic used and did.
#[derive(Debug, Clone, Copy)]
pub struct TrafficReading {
    /// Messages that reached a client while usage was measured.
    pub deliveries: u64,
    /// Reads that brought them.
    pub reads: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// CPU seconds of the server.
    pub server_cpu: f64,
    /// Seconds that the server waited for its core, because something else ran there.
    pub server_waited: f64,
    /// CPU seconds of Redis.
    pub redis_cpu: f64,
    /// CPU seconds of the driver.
    pub driver_cpu: f64,
    /// The time messages took, where the load has a rate of its own.
    pub latency: Option<Latency>,
    /// What was lost, duplicated or reordered in the whole turn.
    pub integrity: Integrity,
}

/// What a turn with idle connections used.
#[derive(Debug, Clone, Copy)]
pub struct IdleReading {
    /// KiB of resident memory per connection between the two ends.
    pub kib_per_connection: f64,
    /// Microseconds of CPU per connection between the two ends.
    pub connect_micros: f64,
    /// Microseconds of CPU per second and connection afterwards, if that was watched.
    pub rest_micros: Option<f64>,
}

/// Runs a load against a server.
pub fn traffic(
    setting: &Setting,
    subject: &Subject,
    row: &TrafficRow,
) -> Result<TrafficReading, TurnError> {
    let stage = Stage::set(setting, subject, row.floor, Privacy::None)?;
    measure(stage, setting, row.load, row.clients, row.fixed_rate)
}

/// Runs a load against a server that encrypts, whose clients get it as `privacy` says.
pub fn private_traffic(
    setting: &Setting,
    subject: &Subject,
    row: &PrivacyRow,
    privacy: Privacy,
) -> Result<TrafficReading, TurnError> {
    let stage = Stage::set(setting, subject, Delivery::Coalesce, privacy)?;
    measure(stage, setting, row.load, CLIENTS, row.fixed_rate)
}

fn measure(
    mut stage: Stage,
    setting: &Setting,
    load: Load,
    clients: usize,
    fixed_rate: bool,
) -> Result<TrafficReading, TurnError> {
    let driver = &mut stage.driver;
    driver.connect(clients)?;
    driver.join(load.audience)?;
    driver.await_delivery(load.audience)?;

    let mut running = driver.start(load)?;
    driver.run(&mut running, setting.warm_up)?;
    if fixed_rate {
        driver.record_latency();
    }
    let before = Usage::read(&stage.server, &stage.redis, driver)?;
    driver.run(&mut running, setting.duration)?;
    let after = Usage::read(&stage.server, &stage.redis, driver)?;
    let latency = driver.take_latency();
    driver.drain(&running)?;

    Ok(TrafficReading {
        deliveries: after.deliveries - before.deliveries,
        reads: after.reads - before.reads,
        seconds: after.seconds - before.seconds,
        server_cpu: after.server.used_seconds - before.server.used_seconds,
        server_waited: after.server.waited_seconds - before.server.waited_seconds,
        redis_cpu: after.redis_cpu - before.redis_cpu,
        driver_cpu: after.driver_cpu - before.driver_cpu,
        latency,
        integrity: driver.integrity(&running),
    })
}

/// Fills a server with idle connections, and watches them for a while if `is_watched`.
pub fn idle(
    setting: &Setting,
    subject: &Subject,
    is_watched: bool,
) -> Result<IdleReading, TurnError> {
    let (few, many) = IDLE_CLIENTS;
    let mut stage = Stage::set(setting, subject, Delivery::Coalesce, Privacy::None)?;
    stage.driver.connect(few)?;
    let resident_before = settle(&mut stage.driver, &stage.server)?;
    let cpu_before = stage.server.cpu()?.used_seconds;
    stage.driver.connect(many)?;
    let resident_after = settle(&mut stage.driver, &stage.server)?;
    let cpu_after = stage.server.cpu()?.used_seconds;
    let rest_micros = match is_watched {
        true => Some(rest(&mut stage, many)?),
        false => None,
    };
    let added = u32::try_from(many - few).map_or(f64::NAN, f64::from);
    Ok(IdleReading {
        kib_per_connection: (resident_after - resident_before) / added,
        connect_micros: (cpu_after - cpu_before) * 1e6 / added,
        rest_micros,
    })
}

/// CPU per second and connection, in microseconds, over a whole interval of pings.
fn rest(stage: &mut Stage, connections: usize) -> Result<f64, TurnError> {
    let before = (stage.driver.elapsed().as_secs_f64(), stage.server.cpu()?.used_seconds);
    stage.driver.idle(REST)?;
    let seconds = stage.driver.elapsed().as_secs_f64() - before.0;
    let used = stage.server.cpu()?.used_seconds - before.1;
    let connections = u32::try_from(connections).map_or(f64::NAN, f64::from);
    Ok(used * 1e6 / seconds / connections)
}

/// The processes of a turn, and its driver. Dropped in this order: clients first.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) driver: Driver,
    pub(crate) server: Process,
    pub(crate) redis: Process,
    pub(crate) port: u16,
    pub(crate) redis_port: u16,
}

/// What everyone has used at one moment.
#[derive(Debug)]
struct Usage {
    seconds: f64,
    deliveries: u64,
    reads: u64,
    server: Cpu,
    redis_cpu: f64,
    driver_cpu: f64,
}

// === impl Setting ===

impl Setting {
    fn server_cores(&self) -> String {
        match self.workers {
            1 => self.server_core.to_string(),
            _ => format!("{},{}", self.server_core, self.driver_core),
        }
    }
}

// === impl Subject ===

impl Subject {
    fn start(
        &self,
        setting: &Setting,
        port: u16,
        redis: u16,
        delivery: Delivery,
        privacy: Privacy,
    ) -> Result<Process, TurnError> {
        let cores = setting.server_cores();
        let started = match self {
            Self::Signal(binary) => {
                let encryption = if privacy == Privacy::None { "off" } else { "optional" };
                let mut settings = edge_settings(port, setting.workers);
                settings.extend([
                    ("SIGNAL_ENCRYPTION", encryption.to_owned()),
                    ("SIGNAL_ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
                    ("APP_ENV_WEBSOCKET_REDIS_MODE", "single".to_owned()),
                    ("APP_ENV_WEBSOCKET_REDIS_PORT", redis.to_string()),
                ]);
                let arguments = ["serve".to_owned()];
                Process::start("signal", &cores, binary.as_os_str(), &arguments, &settings)?
            }
            Self::Floor(binary) => {
                let (port, redis) = (port.to_string(), redis.to_string());
                let mut arguments = vec!["floor", "--port", &port, "--redis", &redis];
                arguments.extend((delivery == Delivery::Coalesce).then_some("--coalesce"));
                let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
                Process::start("floor", &cores, binary.as_os_str(), &arguments, &[])?
            }
            Self::Peer(peer) => {
                let fill = |text: &String| {
                    let text = text.replace("{port}", &port.to_string());
                    text.replace("{redis}", &redis.to_string())
                };
                let command: Vec<String> = peer.command.iter().map(fill).collect();
                let mut settings: Vec<_> =
                    peer.settings.iter().map(|(name, value)| (*name, fill(value))).collect();
                let encryption = peer.encryption.filter(|_| privacy.encrypts());
                settings.extend(encryption.map(|(name, value)| (name, value.to_owned())));
                let (program, arguments) = command.split_first().expect("a command has a program");
                let program = program.as_ref();
                if peer.says_when_ready {
                    let name = peer.name;
                    let mut process =
                        Process::start_speaking(name, &cores, program, arguments, &settings)?;
                    process.await_line()?;
                    process
                } else {
                    Process::start(peer.name, &cores, program, arguments, &settings)?
                }
            }
        };
        Ok(started)
    }

    /// Whether it can encrypt.
    pub(crate) fn encrypts(&self) -> bool {
        match self {
            Self::Signal(_) => true,
            Self::Floor(_) => false,
            Self::Peer(peer) => peer.encryption.is_some(),
        }
    }

    fn dialect(&self) -> Dialect {
        match self {
            Self::Signal(_) | Self::Floor(_) => Dialect::Signal,
            Self::Peer(peer) => peer.dialect,
        }
    }
}

// === impl Stage ===

impl Stage {
    pub(crate) fn set(
        setting: &Setting,
        subject: &Subject,
        delivery: Delivery,
        privacy: Privacy,
    ) -> Result<Self, TurnError> {
        let redis_port = process::free_port()?;
        let redis = process::start_redis(setting.driver_core, redis_port)?;
        let port = process::free_port()?;
        let mut server = subject.start(setting, port, redis_port, delivery, privacy)?;
        server.await_port(port)?;
        let mut driver = Driver::new(port, redis_port, privacy)?;
        driver.speak(subject.dialect());
        Ok(Self { driver, server, redis, port, redis_port })
    }
}

// === impl Usage ===

impl Usage {
    fn read(server: &Process, redis: &Process, driver: &Driver) -> Result<Self, TurnError> {
        let progress = driver.progress();
        Ok(Self {
            seconds: driver.elapsed().as_secs_f64(),
            deliveries: progress.deliveries,
            reads: progress.reads,
            server: server.cpu()?,
            redis_cpu: redis.cpu()?.used_seconds,
            driver_cpu: process::own_cpu()?.used_seconds,
        })
    }
}

/// The settings of an edge that is measured, but for its bus and its admin port.
pub(crate) fn edge_settings(port: u16, workers: usize) -> Vec<(&'static str, String)> {
    vec![
        ("SIGNAL_LISTEN", format!("127.0.0.1:{port}")),
        ("SIGNAL_WORKERS", workers.to_string()),
        // The rate that a client may have is not what is measured.
        ("SIGNAL_MESSAGE_RATE", "1000000".to_owned()),
        ("SIGNAL_MESSAGE_BURST", "1000000".to_owned()),
        ("SIGNAL_AUTH", "insecure-dev".to_owned()),
        ("SIGNAL_ROOMS", "*".to_owned()),
        ("SIGNAL_LOG", "warn".to_owned()),
    ]
}

/// Waits until the server's resident memory rests; returns it in KiB.
pub(crate) fn settle(driver: &mut Driver, server: &Process) -> Result<f64, TurnError> {
    settle_all(&[server], |interval| Ok(driver.idle(interval)?))
}

/// Waits until the resident memory of all servers together rests; returns it in KiB. `idle` lets the
/// time between two readings pass.
pub(crate) fn settle_all(
    servers: &[&Process],
    mut idle: impl FnMut(Duration) -> Result<(), TurnError>,
) -> Result<f64, TurnError> {
    let read = || servers.iter().map(|server| server.resident_kib()).sum::<Result<u64, _>>();
    let mut last = read()?;
    let mut rests = 0;
    for _ in 0..SETTLE_READINGS_MAX {
        idle(SETTLE_INTERVAL)?;
        let resident = read()?;
        rests = if resident.abs_diff(last) <= SETTLE_KIB { rests + 1 } else { 0 };
        last = resident;
        if rests == 3 {
            break;
        }
    }
    Ok(u32::try_from(last).map_or(f64::NAN, f64::from))
}
