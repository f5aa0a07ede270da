//! An edge of the fleet: its process, and what it counts.
//!
//! Owns the process. Reads `/metrics` by the names of `docs/metrics.md`.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::bus::Bus;
use crate::process::{self, Process, ProcessError};
use crate::turn::edge_settings;

/// Threads of an edge.
pub const WORKERS: usize = 1;

/// A running edge.
#[derive(Debug)]
pub struct Edge {
    /// Its process.
    pub process: Process,
    /// Where clients connect.
    pub port: u16,
    admin_port: u16,
}

/// What an edge counts, as far as the fleet's measurement needs it. Edges add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages from the bus.
    pub bus_messages: u64,
    /// Channels that it wants to listen to.
    pub wanted: u64,
    /// Channels that Redis has confirmed.
    pub confirmed: u64,
    /// Links that were made.
    pub connects: u64,
    /// Links that are not up, with everything confirmed.
    pub links_down: u64,
    /// Memberships of rooms.
    pub memberships: u64,
}

// === impl Edge ===

impl Edge {
    /// Starts an edge on `bus`, which pings its clients so often; waits until it accepts connections.
    pub fn start(
        binary: &Path,
        cores: &str,
        bus: &Bus,
        ping: Option<Duration>,
    ) -> Result<Self, ProcessError> {
        let (port, admin_port) = (process::free_port()?, process::free_port()?);
        let mut settings = edge_settings(port, WORKERS);
        settings.push(("SIGNAL_ADMIN_LISTEN", format!("127.0.0.1:{admin_port}")));
        if let Some(ping) = ping {
            settings.push(("SIGNAL_PING_INTERVAL", format!("{}s", ping.as_secs())));
            settings.push(("SIGNAL_HEARTBEAT_TIMEOUT", format!("{}s", ping.as_secs() * 3)));
        }
        settings.extend(bus.settings());
        let arguments = ["serve".to_owned()];
        let binary = binary.as_os_str();
        let mut process = Process::start("signal", cores, binary, &arguments, &settings)?;
        process.await_port(port)?;
        process.await_port(admin_port)?;
        Ok(Self { process, port, admin_port })
    }

    /// Asks what it counts.
    pub fn counts(&self) -> io::Result<Counts> {
        Counts::parse(&process::fetch(self.admin_port, "/metrics")?)
    }
}

// === impl Counts ===

impl Counts {
    fn parse(page: &str) -> io::Result<Self> {
        let value = |name: &str| -> io::Result<u64> {
            let lines = page.lines().filter_map(|line| line.rsplit_once(' '));
            let value =
                lines.filter(|(key, _)| *key == name).find_map(|(_, text)| text.parse().ok());
            value.ok_or_else(|| io::Error::other(format!("no {name} among the metrics")))
        };
        Ok(Self {
            bus_messages: value("signal_bus_messages_total")?,
            wanted: value(r#"signal_bus_subscriptions{state="wanted"}"#)?,
            confirmed: value(r#"signal_bus_subscriptions{state="confirmed"}"#)?,
            connects: value("signal_bus_connects_total")?,
            links_down: value(r#"signal_bus_links{state="down"}"#)?
                + value(r#"signal_bus_links{state="unconfirmed"}"#)?,
            memberships: value("signal_memberships")?,
        })
    }

    /// Those of all edges.
    pub fn of_all(edges: &[Edge]) -> io::Result<Self> {
        let mut sum = Self::default();
        for edge in edges {
            let Self { bus_messages, wanted, confirmed, connects, links_down, memberships } =
                edge.counts()?;
            sum.bus_messages += bus_messages;
            sum.wanted += wanted;
            sum.confirmed += confirmed;
            sum.connects += connects;
            sum.links_down += links_down;
            sum.memberships += memberships;
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_by_name_and_label() {
        let page = "# HELP signal_memberships of rooms\nsignal_memberships 5\n\
                    signal_bus_messages_total 7\nsignal_bus_connects_total 1\n\
                    signal_bus_links{state=\"down\"} 1\n\
                    signal_bus_links{state=\"unconfirmed\"} 2\n\
                    signal_bus_subscriptions{state=\"wanted\"} 9\n\
                    signal_bus_subscriptions{state=\"confirmed\"} 8\n";
        let expected = Counts {
            bus_messages: 7,
            wanted: 9,
            confirmed: 8,
            connects: 1,
            links_down: 3,
            memberships: 5,
        };
        assert_eq!(Counts::parse(page).unwrap(), expected);
        let error = Counts::parse("signal_bus_messages_total_of 7").unwrap_err().to_string();
        assert!(error.contains("signal_bus_messages_total"), "{error}");
    }
}
