//! What the tests over real sockets share: an edge, a plain client that can misbehave, a real Redis.
//!
//! Everything waits for events with one generous deadline, which only a test that fails will see.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test binary uses its own part")]
#![allow(clippy::large_futures, reason = "a test runs once")]

pub mod client;
pub mod cluster;
pub mod http;
pub mod keys;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod sealed;
pub mod socket;
pub mod tls;
pub mod traffic;
pub mod web;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use signal_core::redis::{PubSub, RedisMode, RedisSettings};
use signal_emitter::{EdgeCheck, EmitterConfig};
use signal_server::config::Auth;
use signal_server::counts::Counts;
use signal_server::{Config, Signal, SignalBuilder, SignalHandle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use self::cluster::{Cluster, MASTERS};
pub use self::proxy::Proxy;
pub use self::redis::Redis;
pub use self::sealed::Sealed;
pub use self::socket::{Frame, Socket};
pub use self::traffic::Traffic;

/// Beyond any time that something takes which works, on a machine however busy.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for something that has to happen.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("in vain: {what}"))
}

/// Asks again and again until the answer is yes.
pub async fn until(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A running edge on ports of its own.
#[derive(Debug)]
pub struct Edge {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub handle: SignalHandle,
    /// Channels that stay when every client has gone: a probe for each link, broadcasts, revocations.
    pub kept: usize,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

/// Settings for tests: loopback, anyone may log in and join anything, nothing lingers.
pub fn config() -> Config {
    let mut config = Config::default();
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.admin_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    config.workers = 2;
    config.auth = Auth::InsecureDev;
    config.rooms = vec!["*".parse().expect("a pattern")];
    config.drain_delay = Duration::ZERO;
    config.drain_window = Duration::ZERO;
    config.bus_linger = Duration::from_millis(50);
    config.bus_probe_interval = Duration::from_millis(500);
    config
}

/// For an emitter that takes a Redis as it is, with edges or without.
pub fn emitter_config(settings: RedisSettings) -> EmitterConfig {
    let mut config = EmitterConfig::new(settings);
    config.edge_check = EdgeCheck::Off;
    config
}

// === impl Edge ===

impl Edge {
    /// On the in-process bus.
    pub async fn start() -> Self {
        Self::with(config()).await
    }

    /// On a Redis.
    pub async fn on(redis: &Redis) -> Self {
        let mut config = config();
        config.redis = redis.settings();
        let edge = Self::with(config).await;
        edge.ready().await;
        edge
    }

    /// On a cluster.
    pub async fn on_cluster(cluster: &Cluster, pubsub: PubSub) -> Self {
        let mut config = config();
        config.redis = cluster.settings(pubsub);
        // The clients here do not answer pings, and restarting a cluster takes a while.
        config.heartbeat_timeout = Duration::from_mins(10);
        let edge = Self::with(config).await;
        edge.ready().await;
        edge
    }

    /// With these settings.
    pub async fn with(config: Config) -> Self {
        Self::build(Signal::builder().config(config)).await
    }

    /// With hooks, and the settings of [`config`].
    pub async fn build(builder: SignalBuilder) -> Self {
        let config = builder.settings();
        let kept = match (&config.redis.mode, config.redis.pubsub) {
            (RedisMode::None, _) => 0,
            (RedisMode::Cluster { .. }, PubSub::Sharded) => config.workers * MASTERS + 2,
            _ => config.workers + 2,
        };
        let signal = builder.bind().await.expect("the edge binds");
        let (address, handle) = (signal.address(), signal.handle());
        let admin = signal.admin_address().unwrap_or(address);
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            signal.run(stopped).await.expect("the edge runs");
        });
        Self { address, admin, handle, kept, stop: Some(stop), running }
    }

    /// Waits until the edge is ready.
    pub async fn ready(&self) {
        until("the edge is ready", async || self.handle.readiness().is_empty()).await;
    }

    /// A client that is connected and nothing more.
    pub async fn connect(&self) -> Socket {
        Socket::connect(self.address, "/ws").await
    }

    /// A client that is logged in as this user.
    pub async fn login(&self, user: &str) -> Socket {
        let mut socket = self.connect().await;
        socket.login(user).await;
        socket
    }

    /// A client that is logged in and a member of these rooms, confirmed by the bus.
    pub async fn member(&self, user: &str, rooms: &[&str]) -> Socket {
        let mut socket = self.login(user).await;
        self.join(&mut socket, rooms).await;
        socket
    }

    /// Joins rooms and waits until it shows: the plain protocol does not answer a join.
    pub async fn join(&self, socket: &mut Socket, rooms: &[&str]) {
        socket.send(&serde_json::json!({ "event": "join", "data": { "rooms": rooms } })).await;
        for room in rooms {
            socket.marker(&self.handle, room).await;
        }
    }

    /// Numbers of the edge.
    pub async fn counts(&self) -> Counts {
        self.handle.counts().await.expect("the edge runs")
    }

    /// Waits until nothing is left of any client: the proof that everything is forgotten.
    pub async fn is_empty(&self) {
        until("every index is empty", async || {
            let counts = self.counts().await;
            counts.is_empty() && counts.channels_wanted == self.kept
        })
        .await;
    }

    /// Begins the drain.
    pub fn begin_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Drains, and waits for the end.
    pub async fn stop(mut self) {
        self.begin_stop();
        self.ended().await;
    }

    /// Waits for the end.
    pub async fn ended(mut self) {
        within("the edge ends", &mut self.running).await.expect("the edge does not panic");
    }
}
