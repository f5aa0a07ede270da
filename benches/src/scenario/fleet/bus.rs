//! The fleet's Redis: one server, or three masters of a cluster.
//!
//! Owns the servers and the directory of a cluster's files; both end with it. Knows what edges are
//! told about it and what the servers say of themselves.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::clock::Clock;
use crate::driver::Route;
use crate::process::{self, Process, ProcessError};

/// Masters of a cluster: the least that Redis calls one.
const MASTERS: usize = 3;

/// The longest that masters may take to find each other.
const FORM_PATIENCE: Duration = Duration::from_secs(30);

/// Between two questions whether they have.
const FORM_RETRY: Duration = Duration::from_millis(50);

/// Which Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// One server.
    Single,
    /// Three masters, sharded pub/sub.
    Cluster,
}

/// The servers.
#[derive(Debug)]
pub struct Bus {
    servers: Vec<Process>,
    /// Where they are, and what each was started with beside its port.
    route: Route,
    further: Vec<Vec<String>>,
    cores: String,
    /// What a cluster writes about itself.
    directory: Option<Directory>,
}

/// A directory that ends with this value.
#[derive(Debug)]
struct Directory(PathBuf);

// === impl Kind ===

impl Kind {
    /// What tables and files say.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Cluster => "cluster",
        }
    }
}

// === impl Bus ===

impl Bus {
    /// Starts the servers, and forms the cluster if it is one.
    pub fn start(kind: Kind, cores: &str) -> Result<Self, ProcessError> {
        let mut bus = match kind {
            Kind::Single => Self {
                servers: Vec::new(),
                route: Route::Single(process::free_port()?),
                further: vec![Vec::new()],
                cores: cores.to_owned(),
                directory: None,
            },
            Kind::Cluster => Self::plan_cluster(cores)?,
        };
        for server in 0..bus.further.len() {
            let process = bus.start_server(server)?;
            bus.servers.push(process);
        }
        if kind == Kind::Cluster {
            bus.form()?;
        }
        Ok(bus)
    }

    fn plan_cluster(cores: &str) -> Result<Self, ProcessError> {
        let directory = std::env::temp_dir().join(format!("signal-fleet-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let directory = Directory(directory);
        let (mut ports, mut further) = (Vec::new(), Vec::new());
        for server in 0..MASTERS {
            ports.push(process::free_port()?);
            let (file, bus_port) =
                (format!("nodes-{server}.conf"), process::free_port()?.to_string());
            let place = directory.0.to_string_lossy();
            let arguments = [
                "--cluster-enabled",
                "yes",
                "--cluster-config-file",
                &file,
                "--cluster-port",
                &bus_port,
                "--dir",
                &place,
            ];
            further.push(arguments.map(str::to_owned).to_vec());
        }
        Ok(Self {
            servers: Vec::new(),
            route: Route::Sharded(ports),
            further,
            cores: cores.to_owned(),
            directory: Some(directory),
        })
    }

    fn start_server(&self, server: usize) -> Result<Process, ProcessError> {
        let further: Vec<&str> = self.further[server].iter().map(String::as_str).collect();
        process::start_redis_with(&self.cores, self.route.ports()[server], &further)
    }

    /// Gives each master its slots, and waits until all see a whole cluster.
    fn form(&self) -> Result<(), ProcessError> {
        let ports = self.route.ports();
        for (master, port) in ports.iter().enumerate() {
            process::ask_redis(*port, &["CLUSTER", "SET-CONFIG-EPOCH", &(master + 1).to_string()])?;
            let (first, last) = Route::slots(master, MASTERS);
            let (first, last) = (first.to_string(), last.to_string());
            process::ask_redis(*port, &["CLUSTER", "ADDSLOTSRANGE", &first, &last])?;
        }
        for (port, further) in ports.iter().zip(&self.further).skip(1) {
            let bus_port = further.iter().skip_while(|word| *word != "--cluster-port").nth(1);
            let bus_port = bus_port.expect("every master was given one");
            let meet = ["CLUSTER", "MEET", "127.0.0.1", &port.to_string(), bus_port];
            process::ask_redis(ports[0], &meet)?;
        }
        let clock = Clock::start();
        while !self.is_whole()? {
            if clock.elapsed() > FORM_PATIENCE {
                return Err(ProcessError::Deaf("redis cluster"));
            }
            std::thread::sleep(FORM_RETRY);
        }
        Ok(())
    }

    fn is_whole(&self) -> io::Result<bool> {
        for port in self.route.ports() {
            let view = process::ask_redis(*port, &["CLUSTER", "INFO"])?;
            let knows_all = view.contains(&format!("cluster_known_nodes:{MASTERS}\r"));
            if !knows_all || !view.contains("cluster_state:ok") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How edges reach it.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        match &self.route {
            Route::Single(port) => vec![
                ("APP_ENV_WEBSOCKET_REDIS_MODE", "single".to_owned()),
                ("APP_ENV_WEBSOCKET_REDIS_PORT", port.to_string()),
            ],
            Route::Sharded(ports) => {
                let nodes: Vec<String> =
                    ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
                vec![
                    ("APP_ENV_WEBSOCKET_REDIS_MODE", "cluster".to_owned()),
                    ("APP_ENV_WEBSOCKET_REDIS_CLUSTER_NODES", nodes.join(",")),
                    ("APP_ENV_WEBSOCKET_REDIS_PUBSUB", "sharded".to_owned()),
                ]
            }
        }
    }

    /// Where producers publish.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// CPU seconds of all servers.
    pub fn cpu(&self) -> Result<f64, ProcessError> {
        self.servers.iter().map(|server| Ok(server.cpu()?.used_seconds)).sum()
    }

    /// Bytes that all servers have allocated.
    pub fn memory(&self) -> io::Result<u64> {
        self.info("memory", "used_memory")
    }

    /// Connections of all servers, this question's among them.
    pub fn connections(&self) -> io::Result<u64> {
        self.info("clients", "connected_clients")
    }

    fn info(&self, section: &str, name: &str) -> io::Result<u64> {
        let ports = self.route.ports().iter();
        ports.map(|port| number(&process::ask_redis(*port, &["INFO", section])?, name)).sum()
    }

    /// Kills the first server, and starts it anew in its place.
    pub fn restart_first(&mut self) -> Result<(), ProcessError> {
        drop(self.servers.remove(0));
        let process = self.start_server(0)?;
        self.servers.insert(0, process);
        Ok(())
    }

    /// CPU seconds of the first server, since it was started.
    pub fn first_cpu(&self) -> Result<f64, ProcessError> {
        Ok(self.servers[0].cpu()?.used_seconds)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        // Before their files go.
        self.servers.clear();
        self.directory = None;
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // It lies where the system clears up.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A line of `INFO`.
fn number(info: &str, name: &str) -> io::Result<u64> {
    let values = info.lines().filter_map(|line| line.split_once(':'));
    let value = values.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse().ok());
    value.ok_or_else(|| io::Error::other(format!("no {name} in what redis says of itself")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_info_is_found_by_its_whole_name() {
        let info = "# Memory\r\nused_memory_rss:9\r\nused_memory:12\r\n";
        assert_eq!(number(info, "used_memory").unwrap(), 12);
        assert!(number(info, "used").is_err());
    }
}
