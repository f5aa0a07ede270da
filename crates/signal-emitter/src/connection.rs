//! Redis: the only part of the crate that knows it.
//!
//! Owns the client, its tasks and the translation of its errors. It must never send a message twice
//! or later than its call, and never hang: each command has a timeout and one attempt. What waits
//! for Redis is bounded in messages and in bytes; beyond that calls fail as overloaded.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use fred::{
    clients::{Client, WithOptions},
    error::{Error, ErrorKind},
    interfaces::{ClientLike, EventInterface, PubsubInterface},
    types::{
        Builder, ClientState,
        config::{Config, Options, ReconnectPolicy, ServerConfig, TcpConfig, UnresponsiveConfig},
    },
};
use signal_core::redis::{RedisMode, RedisSettings};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::EmitterError;

/// Messages that may wait to be written.
const PENDING_MESSAGES_MAX: usize = 65_536;

/// Bytes of envelopes in calls that Redis has not answered.
const PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;

const BACKOFF_MIN_MS: u32 = 100;
const BACKOFF_MAX_MS: u32 = 5_000;
const BACKOFF_BASE: u32 = 2;
const BACKOFF_JITTER_MS: u32 = 250;

const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// One connection to one Redis, made again whenever it breaks: the publishing half of the bus, which
/// the edge uses too. Producers want an [`Emitter`](crate::Emitter).
pub struct Connection {
    client: Client,
    /// The same client, with the options of a publish.
    publisher: WithOptions<Client>,
    timeout: Duration,
    pending_bytes: AtomicUsize,
    shut_down: AtomicBool,
    /// The client's own task, then those that log; aborted when the connection goes.
    tasks: [JoinHandle<Result<(), Error>>; 3],
}

/// Gives the bytes of one call back, however the call ends.
struct Pending<'a> {
    bytes: usize,
    total: &'a AtomicUsize,
}

// === impl Connection ===

impl Connection {
    /// Connects, or says within the timeout why that cannot be.
    pub async fn open(settings: &RedisSettings, timeout: Duration) -> Result<Self, EmitterError> {
        let connection = Self::start(settings, timeout)?;
        let connected =
            tokio::time::timeout(connection.timeout, connection.client.wait_for_connect());
        match connected.await.map_err(Into::into).and_then(|result| result.map_err(Into::into)) {
            Ok(()) => Ok(connection),
            Err(source) => Err(EmitterError::Connect { address: address(settings)?, source }),
        }
    }

    /// Begins to connect, and goes on trying; Redis may be away.
    ///
    /// Must be called within a tokio runtime, which then carries the connection.
    pub fn start(settings: &RedisSettings, timeout: Duration) -> Result<Self, EmitterError> {
        let timeout = timeout.max(TIMEOUT_MIN);
        let (host, port) = server(settings)?;
        let config = Config {
            server: ServerConfig::new_centralized(host, port),
            username: settings.username.clone(),
            password: password(settings)?,
            // At the start as later: Redis is away, and will be back.
            fail_fast: false,
            ..Config::default()
        };
        let client = build(config, timeout).map_err(|error| EmitterError::Connect {
            address: address(settings).unwrap_or_default(),
            source: error.into(),
        })?;
        let connecting = client.connect();
        let lost = client.on_error(|(error, _)| async move {
            warn!(%error, "redis connection failed");
            Ok(())
        });
        let restored = client.on_reconnect(|server| async move {
            info!(%server, "redis connection restored");
            Ok(())
        });
        let options = Options {
            timeout: Some(timeout),
            max_attempts: Some(1),
            fail_fast: true,
            ..Options::default()
        };
        Ok(Self {
            publisher: client.with_options(&options),
            client,
            timeout,
            pending_bytes: AtomicUsize::new(0),
            shut_down: AtomicBool::new(false),
            tasks: [connecting, lost, restored],
        })
    }

    /// Publishes and returns how many subscribers there were.
    ///
    /// The command is queued when this is first polled, before anything is awaited.
    pub async fn publish(&self, channel: String, envelope: Bytes) -> Result<u64, EmitterError> {
        if self.shut_down.load(Ordering::Relaxed) {
            return Err(EmitterError::ShutDown);
        }
        let _pending = Pending::claim(&self.pending_bytes, envelope.len())?;
        // Boxed: the client's future is 5 KiB, which every future of a caller would carry.
        let published = Box::pin(self.publisher.publish(channel, envelope)).await;
        published.map_err(|error| self.translate(error))
    }

    /// Whether there is a connection right now.
    pub fn is_connected(&self) -> bool {
        !self.shut_down.load(Ordering::Relaxed) && self.client.state() == ClientState::Connected
    }

    /// Closes after what is under way has been answered, within the timeout.
    pub async fn shutdown(&self) -> Result<(), EmitterError> {
        if self.shut_down.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let was_connected = self.client.state() == ClientState::Connected;
        let quit = tokio::time::timeout(self.timeout, Box::pin(self.client.quit())).await;
        self.abort();
        // Without a connection there was nothing to finish.
        match quit {
            Err(_) if was_connected => Err(EmitterError::Timeout),
            _ => Ok(()),
        }
    }

    fn translate(&self, error: Error) -> EmitterError {
        if self.shut_down.load(Ordering::Relaxed) {
            return EmitterError::ShutDown;
        }
        match error.kind() {
            ErrorKind::Timeout => EmitterError::Timeout,
            ErrorKind::Backpressure => EmitterError::Overloaded,
            _ if is_answer(error.details()) => EmitterError::Redis(error.details().to_owned()),
            _ => EmitterError::Disconnected { source: error.into() },
        }
    }

    fn abort(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Connection")
            .field("connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.abort();
    }
}

// === impl Pending ===

impl<'a> Pending<'a> {
    fn claim(total: &'a AtomicUsize, bytes: usize) -> Result<Self, EmitterError> {
        let before = total.fetch_add(bytes, Ordering::Relaxed);
        // Made first, so that a refused claim is given back too.
        let pending = Self { bytes, total };
        if before + bytes > PENDING_BYTES_MAX && before > 0 {
            return Err(EmitterError::Overloaded);
        }
        Ok(pending)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn address(settings: &RedisSettings) -> Result<String, EmitterError> {
    server(settings).map(|(host, port)| format!("{host}:{port}"))
}

fn server(settings: &RedisSettings) -> Result<(String, u16), EmitterError> {
    let unsupported = |what, instead| Err(EmitterError::Unsupported { what, instead });
    let (host, port) = match &settings.mode {
        RedisMode::Single { host, port } => (host.clone(), *port),
        RedisMode::None => {
            return unsupported(
                "redis mode none",
                "there is nothing to publish to, set APP_ENV_WEBSOCKET_REDIS_MODE to single",
            );
        }
        RedisMode::Cluster { .. } => {
            return unsupported(
                "redis mode cluster",
                "it comes with a later version, use single until then",
            );
        }
    };
    if settings.tls.is_some() {
        return unsupported("tls to redis", "it comes with a later version, use off until then");
    }
    Ok((host, port))
}

/// Read once, before anything else runs on this emitter.
fn password(settings: &RedisSettings) -> Result<Option<String>, EmitterError> {
    if let Some(path) = &settings.password_file {
        let text = std::fs::read_to_string(path)
            .map_err(|source| EmitterError::PasswordFile { path: path.clone(), source })?;
        return Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()));
    }
    let password = settings.password.as_ref().map(|secret| secret.expose().to_owned());
    // A user without a password logs in with any, but must log in.
    Ok(password.or_else(|| settings.username.as_ref().map(|_| String::new())))
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
            connection.max_command_buffer_len = PENDING_MESSAGES_MAX;
            connection.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
            // Finds a connection whose other end is gone without a word.
            connection.unresponsive =
                UnresponsiveConfig { max_timeout: Some(2 * timeout), interval: timeout };
        });
    builder.build()
}

/// Whether this is what Redis said, which begins with a code such as `NOPERM`, and not what the
/// client says about its connection.
fn is_answer(details: &str) -> bool {
    let code = details.split(' ').next().unwrap_or_default();
    code.len() > 1 && code.bytes().all(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_redis_begin_with_a_code() {
        for details in ["NOPERM this user has no permissions", "ERR unknown", "LOADING Redis is"] {
            assert!(is_answer(details), "{details}");
        }
        for details in ["", "Too many failed write attempts.", "Client is not initialized.", "A b"]
        {
            assert!(!is_answer(details), "{details}");
        }
    }

    #[test]
    fn pending_bytes_are_bounded_and_given_back() {
        let total = AtomicUsize::new(0);
        let large = Pending::claim(&total, PENDING_BYTES_MAX).unwrap();
        assert!(matches!(Pending::claim(&total, 1), Err(EmitterError::Overloaded)));
        drop(large);
        assert_eq!(total.load(Ordering::Relaxed), 0);
        drop(Pending::claim(&total, PENDING_BYTES_MAX + 1).unwrap());
        assert_eq!(total.load(Ordering::Relaxed), 0);
    }
}
