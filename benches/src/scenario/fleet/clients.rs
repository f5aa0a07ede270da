//! The clients of one edge: a process of their own, since a process may hold too few files for all.
//!
//! Owns what the two sides say to each other: a command is a line, and so is each answer. The clients
//! answer pings while nothing is asked of them, and end with the last command.

use std::io::{self, BufRead as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use super::layout::Layout;
use super::load::Kind;
use crate::clock::Clock;
use crate::driver::{Driver, DriverError, Histogram, Integrity, Privacy};
use crate::process::{Process, ProcessError};

/// Clients that connect from one address: the kernel takes ever longer to find a free port once half of
/// its range, 14 000, is taken.
const PER_ADDRESS: usize = 10_000;

/// Clients whose connecting has a deadline of its own.
const PIECE: usize = 2_000;

/// What the process is told on its command line.
#[derive(Debug, Clone, clap::Parser)]
pub struct Options {
    /// Port of the edge.
    #[arg(long)]
    pub port: u16,
    /// Port of a Redis.
    #[arg(long)]
    pub redis: u16,
    /// Which edge of the fleet it is.
    #[arg(long)]
    pub edge: usize,
    /// Edges of the fleet.
    #[arg(long)]
    pub edges: usize,
    /// Clients of each.
    #[arg(long)]
    pub per_edge: usize,
    /// Where the fleet's clock began.
    #[arg(long)]
    pub clock: u64,
}

/// What clients are asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    /// Connect, log in, join.
    Connect,
    /// Expect a load.
    Begin,
    /// Wait for the load, of which so many messages were published.
    Finish(Kind, u64),
}

/// What clients got of a load.
#[derive(Debug, Default)]
pub struct Received {
    /// Messages, each counted once per client.
    pub deliveries: u64,
    /// What was lost, duplicated or reordered.
    pub integrity: Integrity,
    /// The time each took.
    pub latencies: Histogram,
}

/// The clients of an edge, seen from the fleet.
#[derive(Debug)]
pub struct Clients {
    process: Process,
}

/// Is the clients.
pub fn run(options: &Options) -> Result<(), DriverError> {
    let layout = Layout::new(options.edges, options.per_edge);
    let first = layout.first_client(options.edge);
    let mut driver = Driver::new(options.port, options.redis, Privacy::None)?;
    driver.only_listen()?;
    driver.follow(Clock::continued(options.clock));
    driver.come_from(first_address(options.port));
    driver.spread(PER_ADDRESS);
    driver.number_users_from(u32::try_from(first).map_err(io::Error::other)?);
    let commands = io::stdin();
    driver.listen_to(commands.as_raw_fd())?;
    say("ready")?;
    loop {
        driver.await_command()?;
        let mut line = String::new();
        if commands.lock().read_line(&mut line)? == 0 {
            return Ok(());
        }
        match Command::parse(&line) {
            Some(Command::Connect) => {
                // A piece at a time, since each piece may take its time.
                for count in (PIECE..options.per_edge).step_by(PIECE) {
                    driver.connect(count)?;
                }
                driver.connect(options.per_edge)?;
                driver.join_each(|client| layout.rooms_of(first + client))?;
                say(&driver.client_ids().collect::<Vec<_>>().join(" "))?;
            }
            Some(Command::Begin) => {
                driver.begin();
                say("ready")?;
            }
            Some(Command::Finish(kind, published)) => {
                let turns = kind.turns(&layout).after(published);
                let sent_to = |client| turns.sent(kind.target_of(&layout, first + client));
                let (deliveries, integrity, latencies) = driver.finish(sent_to)?;
                say(&Received { deliveries, integrity, latencies }.to_line())?;
            }
            None => return Err(DriverError::Unexpected(line)),
        }
    }
}

/// Where the clients of an edge begin to come from. No two edges have a port in common, and what the
/// kernel still remembers of an earlier fleet's connections is not in the way.
fn first_address(port: u16) -> Ipv4Addr {
    let [high, low] = port.to_be_bytes();
    Ipv4Addr::new(127, high, low, 1)
}

fn say(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}

// === impl Command ===

impl Command {
    fn to_line(self) -> String {
        match self {
            Self::Connect => "connect".to_owned(),
            Self::Begin => "begin".to_owned(),
            Self::Finish(kind, published) => format!("finish {} {published}", kind.name()),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["connect"] => Some(Self::Connect),
            ["begin"] => Some(Self::Begin),
            ["finish", kind, published] => {
                Some(Self::Finish(Kind::named(kind)?, published.parse().ok()?))
            }
            _ => None,
        }
    }
}

// === impl Received ===

impl Received {
    fn to_line(&self) -> String {
        let Integrity { lost, duplicated, reordered } = self.integrity;
        let latencies = self.latencies.to_word();
        format!("{} {lost} {duplicated} {reordered} {latencies}", self.deliveries)
    }

    /// Adds what was received of another load.
    pub fn add(&mut self, other: &Self) {
        self.deliveries += other.deliveries;
        self.integrity = self.integrity.and(other.integrity);
        self.latencies.add(&other.latencies);
    }

    /// Adds what other clients say that they got; `None` if it cannot be understood.
    fn add_line(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [deliveries, lost, duplicated, reordered, latencies] = words[..] else { return None };
        self.deliveries += deliveries.parse::<u64>().ok()?;
        self.integrity = self.integrity.and(Integrity {
            lost: lost.parse().ok()?,
            duplicated: duplicated.parse().ok()?,
            reordered: reordered.parse().ok()?,
        });
        self.latencies.add_word(latencies)
    }
}

// === impl Clients ===

impl Clients {
    /// Starts the process; nobody connects yet.
    pub fn start(own: &Path, cores: &str, options: &Options) -> Result<Self, ProcessError> {
        let Options { port, redis, edge, edges, per_edge, clock } = options;
        let numbers = [
            ("--port", u64::from(*port)),
            ("--redis", u64::from(*redis)),
            ("--edge", *edge as u64),
            ("--edges", *edges as u64),
            ("--per-edge", *per_edge as u64),
            ("--clock", *clock),
        ];
        let mut arguments = vec!["fleet-clients".to_owned()];
        arguments.extend(
            numbers.iter().flat_map(|(name, value)| [(*name).to_owned(), value.to_string()]),
        );
        let mut process =
            Process::start_conversing("fleet-clients", cores, own.as_os_str(), &arguments)?;
        process.await_line()?;
        Ok(Self { process })
    }

    /// Lets all connect; returns their ids.
    pub fn connect(&mut self) -> Result<Vec<String>, ProcessError> {
        self.process.tell(&Command::Connect.to_line())?;
        let ids = self.process.await_line()?;
        Ok(ids.split_whitespace().map(str::to_owned).collect())
    }

    /// Lets the clients of all edges expect a load.
    pub fn begin(all: &mut [Self]) -> Result<(), ProcessError> {
        Self::ask(all, Command::Begin).map(drop)
    }

    /// Waits until the clients of all edges have what was published to them.
    pub fn finish(all: &mut [Self], kind: Kind, published: u64) -> Result<Received, ProcessError> {
        let mut received = Received::default();
        for line in Self::ask(all, Command::Finish(kind, published))? {
            let unexpected = || io::Error::other(format!("clients said {line:?}"));
            received.add_line(&line).ok_or_else(unexpected)?;
        }
        Ok(received)
    }

    /// CPU seconds of the clients of all edges.
    pub fn cpu(all: &[Self]) -> Result<f64, ProcessError> {
        all.iter().map(|clients| Ok(clients.process.cpu()?.used_seconds)).sum()
    }

    /// All are asked before the first one's answer is awaited.
    fn ask(all: &mut [Self], command: Command) -> Result<Vec<String>, ProcessError> {
        for clients in &mut *all {
            clients.process.tell(&command.to_line())?;
        }
        all.iter_mut().map(|clients| clients.process.await_line()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_as_they_were_given() {
        for command in [Command::Connect, Command::Begin, Command::Finish(Kind::Branch, 12)] {
            assert_eq!(Command::parse(&format!("{}\n", command.to_line())), Some(command));
        }
        assert_eq!(Command::parse("finish nobody 1"), None);
        assert_eq!(Command::parse(""), None);
    }

    #[test]
    fn what_clients_got_adds_up() {
        let mut latencies = Histogram::default();
        latencies.add_word("100:3").unwrap();
        let integrity = Integrity { lost: 1, duplicated: 2, reordered: 3 };
        let line = Received { deliveries: 7, integrity, latencies }.to_line();
        let mut sum = Received::default();
        (0..2).for_each(|_| sum.add_line(&line).unwrap());
        assert_eq!((sum.deliveries, sum.integrity), (14, integrity.and(integrity)));
        assert_eq!(sum.latencies.to_word(), "100:6");
        assert_eq!(sum.add_line("1 2 3"), None);
    }
}
