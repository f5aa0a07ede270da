//! The edge as a whole: build, bind, run, drain.
//!
//! It owns the listeners, the worker threads and what all workers share, which is set once and read
//! afterwards. It never touches a connection: an accepted socket goes to the worker with the fewest
//! connections, and stays there. The caller owns the stop signal.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use signal_core::channel::ChannelNames;
use signal_core::envelope::Codec;
use signal_core::redis::RedisMode;
use signal_emitter::connection::access::Access;
use tokio::sync::Notify;
use tracing::{debug, error, info, warn};

use crate::auth::{self, AuthStatus};
use crate::bus::{LinkStatuses, Publisher, redis};
use crate::config::{Config, ConfigError};
use crate::gate::{Admission, Gate, SPARE_PLACES};
use crate::handle::SignalHandle;
use crate::hooks::{
    Authenticator, ConnectHook, DisconnectHook, Handshake, Hooks, MessageHandler,
    OutboundTransformer, RoomPolicy, erase,
};
use crate::http;
use crate::revocations::Revocations;
use crate::tally::{Allowance, Tally};
pub(crate) use crate::tally::{PublishCase, PublishResult, Refusal, SUBJECTS};
use crate::tls::Tls;
use crate::worker::directory::{Directory, WORKERS_MAX, WorkerId};
use crate::worker::queue::Queue;
use crate::worker::{self, Command};

/// What remains after the drain's window for peers to answer their Close frames.
const DRAIN_GRACE: Duration = Duration::from_secs(3);

/// A link that is not confirmed for longer than this makes the edge not ready.
const UNCONFIRMED_MAX: Duration = Duration::from_secs(2);

/// After a failed accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How often the end of a drain is looked for.
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// Pending connections in the kernel's queue.
const BACKLOG: i32 = 4096;

/// An edge that is bound and not running yet.
#[derive(Debug)]
pub struct Signal {
    shared: Arc<Shared>,
    listener: TcpListener,
    admin: Option<TcpListener>,
    workers: Vec<JoinHandle<()>>,
    /// Follows the topology of a Redis Cluster.
    watching: tokio::task::JoinHandle<()>,
}

/// Puts an edge together.
#[derive(Debug)]
pub struct SignalBuilder {
    config: Box<Config>,
    hooks: Hooks,
}

/// Why an edge could not be put together, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignalError {
    /// A setting is not allowed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address could not be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The bus' settings are not allowed.
    #[error("redis settings")]
    Redis(#[source] signal_emitter::EmitterError),
    /// A worker has failed, which is a bug: the edge ends rather than serve a part of its clients.
    #[error("a worker has failed")]
    WorkerFailed,
    /// The operating system refused a thread or a runtime.
    #[error("cannot start a worker")]
    Worker(#[source] io::Error),
}

/// A connection that has been accepted, on its way to a worker.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) stream: std::net::TcpStream,
    pub(crate) address: SocketAddr,
    pub(crate) admission: Box<Admission>,
}

/// Which edge this is.
#[derive(Debug)]
pub(crate) struct Instance {
    /// 48 random bits that its clients' ids carry.
    pub(crate) tag: u64,
    /// The same as text: `serverId` on the bus.
    pub(crate) name: String,
}

/// What all workers and handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) hooks: Hooks,
    pub(crate) auth: AuthStatus,
    pub(crate) instance: Instance,
    pub(crate) names: ChannelNames,
    pub(crate) codec: Codec,
    /// Absent on the in-process bus.
    pub(crate) redis: Option<Access>,
    /// What is known of the cluster, if there is one.
    pub(crate) watch: redis::watch::Watch,
    pub(crate) publisher: Publisher,
    pub(crate) directory: Directory,
    pub(crate) queues: Vec<Queue<Command>>,
    pub(crate) links: Arc<LinkStatuses>,
    /// WebSocket connections of each worker.
    pub(crate) connections: Vec<AtomicUsize>,
    /// Sockets handed to each worker, whatever has become of them; what balances the workers.
    sockets: Vec<AtomicUsize>,
    /// The drain has begun: not ready.
    pub(crate) draining: AtomicBool,
    /// Upgrades are refused.
    pub(crate) refusing: AtomicBool,
    /// Notified when a worker has panicked, or could not start.
    pub(crate) failed: Notify,
    /// Absent where clients connect in the clear.
    pub(crate) tls: Option<Arc<Tls>>,
    /// The places of connections that have not logged in.
    pub(crate) gate: Arc<Gate>,
    /// TCP connections accepted.
    pub(crate) accepted: AtomicU64,
    /// Connections refused, by reason.
    pub(crate) refused: Tally<{ Refusal::ALL.len() }>,
    /// Revocations obeyed, by what they are of.
    pub(crate) revoked: Tally<{ SUBJECTS.len() }>,
    /// What they forbid.
    pub(crate) revocations: Revocations,
    /// Publishes of this edge, by kind and result.
    pub(crate) published: Tally<{ PublishCase::COUNT }>,
    /// Notified when an operator asks for a drain.
    pub(crate) drain_asked: Notify,
    /// What the publish API may still take.
    pub(crate) api_allowance: Mutex<Allowance>,
}

// === impl SignalBuilder ===

impl SignalBuilder {
    /// With these settings.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = Box::new(config);
        self
    }

    /// The settings so far.
    pub fn settings(&self) -> &Config {
        &self.config
    }

    /// Decides who may log in, instead of what the settings say.
    #[must_use]
    pub fn authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.hooks.authenticate = Some(erase!(authenticator, authenticate(client, credentials)));
        self
    }

    /// Decides who may join what, instead of the settings' and the credentials' patterns.
    #[must_use]
    pub fn room_policy(mut self, policy: impl RoomPolicy) -> Self {
        self.hooks.allow = Some(erase!(policy, allow(client, rooms)));
        self
    }

    /// Is told of logins.
    #[must_use]
    pub fn on_connect(mut self, hook: impl ConnectHook) -> Self {
        self.hooks.connected = Some(erase!(hook, connected(client)));
        self
    }

    /// Is told of connections that ended.
    #[must_use]
    pub fn on_disconnect(mut self, hook: impl DisconnectHook) -> Self {
        self.hooks.disconnected = Some(erase!(hook, disconnected(client, code)));
        self
    }

    /// Handles clients' messages.
    #[must_use]
    pub fn on_message(mut self, handler: impl MessageHandler) -> Self {
        self.hooks.message = Some(erase!(handler, handle(client, message)));
        self
    }

    /// Agrees on keys with clients, where encryption is on, instead of the way that is built in.
    #[must_use]
    pub fn handshake(mut self, handshake: impl Handshake) -> Self {
        self.hooks.handshake = Some(erase!(handshake, handshake(client, credentials)));
        self
    }

    /// Changes what clients get that have shaken hands. With it nothing is encrypted by the edge itself.
    #[must_use]
    pub fn outbound_transformer(mut self, transformer: impl OutboundTransformer) -> Self {
        self.hooks.transform = Some(Arc::new(transformer));
        self
    }

    /// Binds the addresses and starts the workers. Must be called within a tokio runtime, which
    /// carries the edge until it has run.
    #[expect(clippy::unused_async, reason = "it needs a runtime, and says so by its type")]
    pub async fn bind(self) -> Result<Signal, SignalError> {
        let Self { config, mut hooks } = self;
        config.validate(hooks.authenticate.is_some())?;
        let mut auth = AuthStatus::default();
        if hooks.authenticate.is_none() {
            let (authenticate, status) = auth::set_up(&config.auth)?;
            hooks.authenticate = Some(authenticate);
            auth = status;
        }
        let listener = bind(config.listen)?;
        let admin = config.admin_listen.map(bind).transpose()?;
        if let Some(admin) = &admin {
            admin.set_nonblocking(true).map_err(SignalError::Worker)?;
        }
        let shared = Arc::new(Shared::new(*config, hooks, auth)?);
        let mut workers = Vec::new();
        for id in 0..shared.queues.len() {
            let id = u8::try_from(id).expect("at most 64 workers");
            let shared = shared.clone();
            let worker = std::thread::Builder::new()
                .name(format!("worker-{id}"))
                .spawn(move || {
                    if let Err(error) = worker::run(&shared, id) {
                        error!(worker = id, %error, "worker could not start");
                        shared.failed.notify_one();
                    }
                    shared.queues[usize::from(id)].close();
                })
                .map_err(SignalError::Worker)?;
            workers.push(worker);
        }
        let watching = tokio::spawn(redis::watch::run(shared.clone()));
        Ok(Signal { shared, listener, admin, workers, watching })
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, SignalError> {
    let listen = || {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    listen().map_err(|source| SignalError::Bind { address, source })
}

// === impl Signal ===

impl Signal {
    /// Begins to put an edge together.
    pub fn builder() -> SignalBuilder {
        SignalBuilder { config: Box::default(), hooks: Hooks::default() }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound socket has an address")
    }

    /// Where operators connect, if anywhere.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        let admin = self.admin.as_ref()?;
        Some(admin.local_addr().expect("a bound socket has an address"))
    }

    /// To send, publish, join, close.
    pub fn handle(&self) -> SignalHandle {
        self.shared.handle()
    }

    /// Serves until `shutdown` is done, then drains: not ready, a delay, then no new connections, and
    /// closes spread over the window.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), SignalError> {
        let accepting = self.accept_in_background().map_err(SignalError::Worker)?;
        let admin = self
            .admin
            .take()
            .map(|admin| tokio::spawn(http::admin::serve(self.shared.clone(), admin)));
        let certificates = self.shared.tls.clone().map(|tls| tokio::spawn(tls.watch()));
        let outcome = tokio::select! {
            () = async { self.until_asked(shutdown).await; self.drain().await } => Ok(()),
            () = self.shared.failed.notified() => Err(SignalError::WorkerFailed),
        };
        drop(accepting);
        if let Publisher::Redis(publisher) = &self.shared.publisher {
            publisher.retire().await;
        }
        for task in admin.into_iter().chain(certificates) {
            task.abort();
        }
        outcome
    }

    /// Until the caller or an operator asks for the end.
    async fn until_asked(&self, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            () = shutdown => {}
            () = self.shared.drain_asked.notified() => {}
        }
    }

    /// Accepts on a thread of its own, which only waits for the kernel: the sockets it hands out are
    /// registered with their worker's runtime alone.
    fn accept_in_background(&self) -> io::Result<Accepting> {
        let listener = self.listener.try_clone()?;
        let (shared, accepted) = (self.shared.clone(), self.listener.try_clone()?);
        let thread = std::thread::Builder::new()
            .name("acceptor".to_owned())
            .spawn(move || accept(&shared, &accepted))?;
        Ok(Accepting { listener, thread: Some(thread) })
    }

    async fn drain(&self) {
        let config = &self.shared.config;
        self.shared.draining.store(true, Ordering::Relaxed);
        info!(delay = ?config.drain_delay, window = ?config.drain_window, "draining");
        tokio::time::sleep(config.drain_delay).await;
        self.shared.refusing.store(true, Ordering::Relaxed);
        for queue in &self.shared.queues {
            queue.control(Command::Drain(config.drain_window));
        }
        let ended = async {
            while self.shared.connection_count() > 0 {
                tokio::time::sleep(DRAIN_POLL).await;
            }
        };
        let limit = config.drain_window + DRAIN_GRACE;
        if tokio::time::timeout(limit, ended).await.is_err() {
            let left = self.shared.connection_count();
            warn!(left, "drain is over; the connections that are left are cut");
        }
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        self.watching.abort();
        for queue in &self.shared.queues {
            queue.control(Command::Stop);
        }
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                error!("a worker panicked");
            }
        }
        // One that panicked has not closed its own.
        self.shared.queues.iter().for_each(Queue::close);
    }
}

/// The acceptor's thread; it ends when this is dropped.
struct Accepting {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Accepting {
    fn drop(&mut self) {
        // Wakes the thread: `accept` fails on a listener that is shut down.
        let _ = socket2::SockRef::from(&self.listener).shutdown(std::net::Shutdown::Both);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            error!("the acceptor panicked");
        }
    }
}

/// Hands out connections until the listener is shut down.
fn accept(shared: &Shared, listener: &TcpListener) {
    loop {
        match listener.accept() {
            Ok((stream, address)) => shared.hand_out(stream, address),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return,
            Err(error) => {
                // Out of descriptors, most likely: wait until some are given back.
                warn!(%error, "cannot accept a connection");
                std::thread::sleep(ACCEPT_RETRY);
            }
        }
    }
}

// === impl Shared ===

impl Shared {
    fn new(mut config: Config, hooks: Hooks, auth: AuthStatus) -> Result<Self, SignalError> {
        let tag = crate::random::bits() >> 16;
        let name = format!("signal-{tag:012x}");
        let workers = config.workers.clamp(1, WORKERS_MAX);
        let redis_settings = std::mem::take(&mut config.redis);
        let names = ChannelNames::new(&redis_settings.prefix);
        let codec = redis_settings.codec;
        let links = Arc::new(LinkStatuses::new(workers));
        let (redis, publisher) = if redis_settings.mode == RedisMode::None {
            (None, Publisher::Memory)
        } else {
            let publisher = redis::Publisher::start(&redis_settings, &name, &links)
                .map_err(SignalError::Redis)?;
            let access = redis::link::access(redis_settings).map_err(SignalError::Redis)?;
            (Some(access), Publisher::Redis(publisher))
        };
        Ok(Self {
            tls: config.tls.as_ref().map(Tls::load).transpose()?.map(Arc::new),
            gate: Arc::new(Gate::new(&config)),
            config,
            hooks,
            auth,
            instance: Instance { tag, name },
            names,
            codec,
            redis,
            watch: redis::watch::Watch::default(),
            publisher,
            directory: Directory::new(workers),
            queues: (0..workers).map(|_| Queue::default()).collect(),
            links,
            connections: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            sockets: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            draining: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            failed: Notify::new(),
            accepted: AtomicU64::new(0),
            refused: Tally::default(),
            revoked: Tally::default(),
            revocations: Revocations::default(),
            published: Tally::default(),
            drain_asked: Notify::new(),
            api_allowance: Mutex::new(Allowance::full()),
        })
    }

    pub(crate) fn handle(self: &Arc<Self>) -> SignalHandle {
        SignalHandle::new(self.clone())
    }

    /// WebSocket connections on all workers.
    pub(crate) fn connection_count(&self) -> usize {
        self.connections.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.connection_count() >= self.config.max_connections
    }

    /// A place for a connection that comes from this address.
    fn admit(&self, address: SocketAddr) -> Result<Box<Admission>, Refusal> {
        let sockets: usize = self.sockets.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        if sockets >= self.config.max_connections.saturating_add(SPARE_PLACES) {
            return Err(Refusal::Cap);
        }
        // A proxy's connection is counted when it has said whose it is.
        let address = Some(address.ip())
            .filter(|address| !http::is_trusted(&self.config.trusted_proxies, *address));
        self.gate.admit(address).map(Box::new)
    }

    fn hand_out(&self, stream: std::net::TcpStream, address: SocketAddr) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let prepared = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true));
        if let Err(error) = prepared {
            debug!(%error, "a connection ended before it was served");
            return;
        }
        let admission = match self.admit(address) {
            Ok(admission) => admission,
            Err(reason) => {
                self.refused.count(reason);
                return http::refuse(&stream, self.tls.is_none());
            }
        };
        let (worker, _) = self
            .sockets
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .enumerate()
            .min_by_key(|(_, count)| *count)
            .expect("there is a worker");
        self.sockets[worker].fetch_add(1, Ordering::Relaxed);
        self.queues[worker].control(Command::Accept(Arrival { stream, address, admission }));
    }

    /// A socket that was handed to a worker is closed.
    pub(crate) fn give_back(&self, worker: WorkerId) {
        self.sockets[usize::from(worker)].fetch_sub(1, Ordering::Relaxed);
    }

    /// Why this edge should get no new connections; empty if it should.
    pub(crate) fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.draining.load(Ordering::Relaxed) {
            reasons.push("draining".to_owned());
        }
        if self.is_full() {
            reasons.push("at the connection cap".to_owned());
        }
        if self.auth.keys() == Some(0) {
            reasons.push("no keys of tokens have been fetched".to_owned());
        }
        let probe_age_max = match self.redis {
            Some(_) => 2 * self.config.bus_probe_interval,
            None => Duration::MAX,
        };
        reasons.extend(self.links.problems(UNCONFIRMED_MAX, probe_age_max));
        if let Some(access) = &self.redis
            && matches!(access.settings().mode, RedisMode::Cluster { .. })
        {
            reasons.extend(self.watch.problems());
        }
        if let Publisher::Redis(publisher) = &self.publisher
            && !publisher.is_connected()
        {
            reasons.push("bus publisher is not connected".to_owned());
        }
        reasons
    }
}
