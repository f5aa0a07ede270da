//! Redis: the only part of the crate that knows it.
//!
//! Owns the way there and what waits for it. It must never send a message later than its call, never
//! hang, and send a message twice only where the caller asked for it by [`WhenAway::Hold`]. What waits
//! for Redis is bounded in messages and in bytes; beyond that calls fail as overloaded.
//!
//! In reading order: [`access`] (user, password, TLS), `link` and `node` (one server, its wire in
//! [`resp`]), `slots` and `cluster` (many), `route` (either), `queue` and `lane` (messages whose order
//! counts across servers and outages), `record` (which edges there are). Edges make their own connections
//! with [`access`] and [`resp`] too.

pub mod access;
mod claim;
mod cluster;
mod lane;
mod link;
mod node;
mod queue;
mod record;
pub mod resp;
mod route;
mod slots;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use signal_core::redis::{PubSub, RedisSettings};
use tokio::time::Instant;

use self::{
    access::Access,
    claim::Allowance,
    lane::{Lanes, Policy},
    node::{Failure, Node},
    route::Route,
};
use crate::{EdgeCheck, EmitterConfig, EmitterError, WhenAway};

/// How producers, and the publishing halves of edges, show in `CLIENT LIST`.
const CLIENT_NAME: &str = "signal-emitter";

/// Bytes of envelopes in calls that Redis has not answered.
const PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// As good as never, and a point in time that exists.
const DEADLINE_MAX: Duration = Duration::from_hours(24);

/// How often the end of what is under way is looked for.
const SHUTDOWN_POLL: Duration = Duration::from_millis(5);

/// Connections to one Redis, made again whenever they break: the publishing half of the bus, which the
/// edge uses too. Producers want an [`Emitter`](crate::Emitter).
pub struct Connection {
    route: Arc<Route>,
    way: Way,
    timeout: Duration,
    shut_down: AtomicBool,
}

/// How messages get onto the route.
enum Way {
    /// Straight to the one server, each once.
    Straight(Arc<Node>, Allowance),
    /// In lanes, which keep the order when messages go out again or elsewhere.
    Lanes(Lanes),
}

// === impl Connection ===

impl Connection {
    /// Connects, or says within the timeout why that cannot be.
    pub(crate) async fn open(config: &EmitterConfig) -> Result<Self, EmitterError> {
        let await_edges = config.edge_check == EdgeCheck::Require;
        let connection = Self::new(&config.redis, config.timeout, config.when_away, await_edges)?;
        connection.route.connected(Instant::now() + connection.timeout).await?;
        Ok(connection)
    }

    /// Begins to connect, and goes on trying; while Redis is away, calls fail at once.
    ///
    /// Must be called within a tokio runtime, which then carries the connection.
    pub fn start(settings: &RedisSettings, timeout: Duration) -> Result<Self, EmitterError> {
        Self::new(settings, timeout, WhenAway::Fail, false)
    }

    fn new(
        settings: &RedisSettings,
        timeout: Duration,
        when_away: WhenAway,
        await_edges: bool,
    ) -> Result<Self, EmitterError> {
        let access = Access::new(settings.clone(), CLIENT_NAME, timeout)?;
        let timeout = access.timeout();
        let route = Route::start(Arc::new(access))?;
        let way = match (&*route, when_away) {
            (Route::Single(node), WhenAway::Fail) => {
                Way::Straight(node.clone(), Allowance::new(PENDING_BYTES_MAX))
            }
            (_, WhenAway::Fail) => {
                let policy = Policy { hold: false, await_edges: false };
                Way::Lanes(Lanes::new(route.clone(), policy, Allowance::new(PENDING_BYTES_MAX)))
            }
            (_, WhenAway::Hold { bytes_max }) => {
                let policy = Policy { hold: true, await_edges };
                Way::Lanes(Lanes::new(route.clone(), policy, Allowance::new(bytes_max)))
            }
        };
        Ok(Self { route, way, timeout, shut_down: AtomicBool::new(false) })
    }

    /// Publishes and returns how many subscribers there were, where Redis knows: not with classic
    /// pub/sub in a cluster. Without a deadline, the connection's timeout is it.
    ///
    /// The message takes its place when this is first polled, before anything is awaited.
    pub async fn publish(
        &self,
        channel: String,
        envelope: Bytes,
        deadline: Option<Duration>,
    ) -> Result<Option<u64>, EmitterError> {
        if self.shut_down.load(Ordering::Relaxed) {
            return Err(EmitterError::ShutDown);
        }
        let deadline = deadline.unwrap_or(self.timeout).min(DEADLINE_MAX);
        if deadline.is_zero() {
            return Err(EmitterError::Expired);
        }
        match &self.way {
            Way::Straight(node, allowance) => {
                let _claim = allowance.claim(envelope.len())?;
                // Queued before anything is awaited, so that the future has not to carry it.
                let published = node.publish(PubSub::Classic, channel, envelope);
                published.receivers(deadline).await.map(Some).map_err(|failure| {
                    match self.shut_down.load(Ordering::Relaxed) {
                        true => EmitterError::ShutDown,
                        false => failure.into(),
                    }
                })
            }
            // Boxed: it is large, and every future of a caller would carry it.
            Way::Lanes(lanes) => Box::pin(lanes.publish(channel, envelope, deadline)).await,
        }
    }

    /// Whether a message published now would go out now. In a cluster with sharded pub/sub that takes
    /// every master; one that is away is no reason not to publish to the others.
    pub fn is_connected(&self) -> bool {
        !self.shut_down.load(Ordering::Relaxed) && self.route.is_connected()
    }

    /// Whether [`Connection::publish`] says how many subscribers there were.
    pub fn counts_receivers(&self) -> bool {
        self.route.counts_receivers()
    }

    /// Closes after what is under way has been answered, within the timeout. What is held because Redis
    /// is away has that long too.
    pub async fn shutdown(&self) -> Result<(), EmitterError> {
        if self.shut_down.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let was_connected = self.route.is_connected();
        let ended = tokio::time::timeout(self.timeout, async {
            if let Way::Lanes(lanes) = &self.way {
                while !lanes.are_idle() {
                    tokio::time::sleep(SHUTDOWN_POLL).await;
                }
            }
            self.route.quit().await;
        });
        let ended = ended.await;
        if let Way::Lanes(lanes) = &self.way {
            lanes.end();
        }
        self.route.abort();
        // Without a connection there was nothing to finish.
        match ended {
            Err(_) if was_connected => Err(EmitterError::Timeout),
            _ => Ok(()),
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
        self.route.abort();
    }
}

impl From<Failure> for EmitterError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotSent => Self::Disconnected,
            Failure::Broken(source) => Self::Lost { source: source.into() },
            Failure::Timeout => Self::Timeout,
            Failure::Full => Self::Overloaded,
            Failure::Moved(_, text) | Failure::Transient(text) | Failure::Refused(text) => {
                Self::Redis(text)
            }
        }
    }
}
