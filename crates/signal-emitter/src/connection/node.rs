//! One server of Redis: a client that connects for ever, and what its answers mean.
//!
//! Owns the client and its tasks. It sends a command once, at its first poll or never, and not after
//! its timeout; what may be tried again is for others to decide.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fred::{
    clients::{Client, WithOptions},
    error::{Error, ErrorKind},
    interfaces::{ClientLike, EventInterface, PubsubInterface},
    types::{
        Builder, ClientState, CustomCommand, Value,
        config::{Config, Options, ReconnectPolicy, TcpConfig, UnresponsiveConfig},
    },
};
use signal_core::redis::PubSub;
use tokio::{task::JoinHandle, time::Instant};
use tracing::{info, warn};

use super::{access::Access, slots::Address};
use crate::EmitterError;

/// Commands that may wait to be written.
const PENDING_COMMANDS_MAX: usize = 65_536;

const BACKOFF_MIN_MS: u32 = 100;
const BACKOFF_MAX_MS: u32 = 5_000;
const BACKOFF_BASE: u32 = 2;
const BACKOFF_JITTER_MS: u32 = 250;

/// How often a connection that is being made is looked at.
const CONNECT_POLL: Duration = Duration::from_millis(5);

/// A server; see the module.
pub(super) struct Node {
    address: Address,
    client: Client,
    timeout: Duration,
    /// The same client, with the options of a command.
    commands: WithOptions<Client>,
    /// How often it has connected.
    connections: Arc<AtomicU64>,
    /// An attempt to connect has failed since the last one that did not.
    failed: Arc<AtomicBool>,
    /// The client's own task, then those that log; aborted when the node goes.
    tasks: [JoinHandle<Result<(), Error>>; 3],
}

/// Whether a node's connection is worth a word in the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Log {
    /// Losing it is, and having it again.
    Changes,
    /// It is one attempt of many.
    Nothing,
}

/// Why a command has no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no connection; nothing was sent.
    NotSent,
    /// The connection broke: it may have reached Redis or not.
    Broken(Error),
    /// No answer in time: the same.
    Timeout,
    /// Too much waits for this server; nothing was sent.
    Full,
    /// The slot is another server's; nothing was done.
    Moved(Address, String),
    /// Redis cannot just now, and did nothing.
    Transient(String),
    /// Redis does not want to, and did nothing.
    Refused(String),
}

// === impl Node ===

impl Node {
    /// Begins to connect. Must be called within a tokio runtime, which carries it.
    pub(super) fn start(access: &Access, address: Address, log: Log) -> Result<Self, EmitterError> {
        let timeout = access.timeout;
        let client = build(access.config(&address), timeout).map_err(|error| {
            EmitterError::Connect { address: address.to_string(), source: error.into() }
        })?;
        let connecting = client.connect();
        let failed = Arc::new(AtomicBool::new(false));
        let (fails, works) = (failed.clone(), failed.clone());
        let connections = Arc::new(AtomicU64::new(0));
        let counter = connections.clone();
        let (from, to) = (address.to_string(), address.to_string());
        let lost = client.on_error(move |(error, _)| {
            // Said once, not with every attempt.
            if !fails.swap(true, Ordering::Relaxed) && log == Log::Changes {
                warn!(%error, server = from, "redis connection failed");
            }
            async { Ok(()) }
        });
        let restored = client.on_reconnect(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            if works.swap(false, Ordering::Relaxed) {
                info!(server = to, "redis connection restored");
            }
            async { Ok(()) }
        });
        let commands = client.with_options(&options(timeout));
        let tasks = [connecting, lost, restored];
        Ok(Self { address, client, timeout, commands, connections, failed, tasks })
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// The longest that a command takes without a deadline of its own.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.state() == ClientState::Connected
    }

    /// How often it has connected: another number, another connection.
    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Whether the first attempt to connect, or to connect again, is still under way.
    pub(super) fn is_connecting(&self) -> bool {
        !self.is_connected() && !self.failed.load(Ordering::Relaxed)
    }

    /// Waits for a connection, for ever.
    pub(super) async fn connected(&self) -> Result<(), Error> {
        self.client.wait_for_connect().await
    }

    /// Waits until the first attempt to connect has ended, or until then; returns whether it worked.
    pub(super) async fn settled(&self, until: Instant) -> bool {
        while self.is_connecting() && Instant::now() < until {
            tokio::time::sleep(CONNECT_POLL).await;
        }
        self.is_connected()
    }

    /// Publishes; returns the receivers that this server knows of.
    ///
    /// The command is queued when this is first polled, before anything is awaited. A large future, to
    /// be boxed.
    #[expect(clippy::large_futures, reason = "its callers box it as a whole")]
    pub(super) async fn publish(
        &self,
        pubsub: PubSub,
        channel: String,
        envelope: Bytes,
        timeout: Duration,
    ) -> Result<u64, Failure> {
        if !self.is_connected() {
            return Err(Failure::NotSent);
        }
        let own;
        let commands = if timeout == self.timeout {
            &self.commands
        } else {
            own = self.client.with_options(&options(timeout));
            &own
        };
        let published = match pubsub {
            PubSub::Classic => commands.publish(channel, envelope).await,
            PubSub::Sharded => commands.spublish(channel, envelope).await,
        };
        published.map_err(|error| self.failure(error))
    }

    /// Runs any other command.
    pub(super) async fn command(
        &self,
        name: &'static str,
        arguments: Vec<String>,
    ) -> Result<Value, Failure> {
        if !self.is_connected() {
            return Err(Failure::NotSent);
        }
        let command = CustomCommand::new_static(name, None::<u16>, false);
        let answered = Box::pin(self.commands.custom(command, arguments)).await;
        answered.map_err(|error| self.failure(error))
    }

    /// Ends the connection after what is under way has been answered.
    pub(super) async fn quit(&self) {
        let _ = Box::pin(self.client.quit()).await;
        self.abort();
    }

    fn failure(&self, error: Error) -> Failure {
        let details = error.details();
        match error.kind() {
            ErrorKind::Timeout => Failure::Timeout,
            ErrorKind::Backpressure => Failure::Full,
            _ => match answer_code(details) {
                Some("MOVED") => match details.split(' ').nth(2).map(|text| self.named(text)) {
                    Some(Some(address)) => Failure::Moved(address, details.to_owned()),
                    _ => Failure::Refused(details.to_owned()),
                },
                // Over CLUSTERDOWN the client drops the connection, and says it of all that was under
                // way.
                Some("CLUSTERDOWN") | None => Failure::Broken(error),
                Some("LOADING" | "TRYAGAIN" | "MASTERDOWN" | "ASK") => {
                    Failure::Transient(details.to_owned())
                }
                Some(_) => Failure::Refused(details.to_owned()),
            },
        }
    }

    fn named(&self, text: &str) -> Option<Address> {
        Address::parse(text, &self.address)
    }

    /// Ends the connection at once.
    pub(super) fn abort(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.abort();
    }
}

/// One attempt, at once or not at all.
fn options(timeout: Duration) -> Options {
    Options { timeout: Some(timeout), max_attempts: Some(1), fail_fast: true, ..Options::default() }
}

fn build(config: Config, timeout: Duration) -> Result<Client, Error> {
    let mut policy =
        ReconnectPolicy::new_exponential(0, BACKOFF_MIN_MS, BACKOFF_MAX_MS, BACKOFF_BASE);
    policy.set_jitter(BACKOFF_JITTER_MS);
    let mut builder = Builder::from_config(config);
    builder
        .set_policy(policy)
        .with_performance_config(|performance| performance.default_command_timeout = timeout)
        .with_connection_config(|connection| {
            connection.connection_timeout = timeout;
            connection.internal_command_timeout = timeout;
            connection.max_command_attempts = 1;
            connection.max_command_buffer_len = PENDING_COMMANDS_MAX;
            connection.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
            // Finds a connection whose other end is gone without a word.
            connection.unresponsive =
                UnresponsiveConfig { max_timeout: Some(2 * timeout), interval: timeout };
        });
    builder.build()
}

/// The code that an answer of Redis begins with, such as `NOPERM`; `None` for what the client says
/// about its connection.
fn answer_code(details: &str) -> Option<&str> {
    let code = details.split(' ').next().unwrap_or_default();
    (code.len() > 1 && code.bytes().all(|byte| byte.is_ascii_uppercase())).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_redis_begin_with_a_code() {
        for details in ["NOPERM this user has no permissions", "ERR unknown", "LOADING Redis is"] {
            assert!(answer_code(details).is_some(), "{details}");
        }
        for details in ["", "Too many failed write attempts.", "Client is not initialized.", "A b"]
        {
            assert_eq!(answer_code(details), None, "{details}");
        }
    }
}
