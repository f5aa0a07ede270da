//! One core's share of the edge: its connections, its hub, its link to the bus. Nothing is shared.
//!
//! A worker is one thread with one single-threaded runtime. Its [`State`] is touched by one task at a
//! time, always within a *turn*: something happened (bytes came from the bus or from a client, a
//! command, a tick), everything that follows from it is queued, and at the end of the turn each socket
//! that is owed something is written once. Nothing awaits within a turn. Other threads reach a worker
//! through its [`queue::Queue`] only.
//!
//! In the data's way: [`delivery`] takes a message from the bus, [`hub`] says who gets it, [`fanout`]
//! writes it. Around it: [`connection`] reads what clients send, [`login`] and [`inbound`] act on it,
//! [`membership`] tells the bus what to listen to, [`bus_events`] hears what became of it,
//! [`encryption`] seals and opens with [`room_keys`], [`session`] and [`wheel`] watch the time.

mod allowance;
mod answer;
mod bus_events;
mod connection;
pub(crate) mod delivery;
pub(crate) mod directory;
mod drain;
pub(crate) mod encryption;
pub(crate) mod fanout;
pub(crate) mod hub;
mod inbound;
mod joins;
mod login;
pub(crate) mod membership;
pub(crate) mod queue;
mod repeats;
mod resync;
pub(crate) mod revocation;
mod room_keys;
mod session;
pub(crate) mod stream;
pub(crate) mod wheel;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashSet;
use signal_core::close::CloseCode;
use signal_core::id::ClientId;
use signal_core::redis::{PubSub, RedisMode};
use signal_core::v1::To;
use slab::Slab;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use self::delivery::{Delivery, Forward};
use self::directory::{Tenure, WorkerId};
use self::drain::Drain;
use self::fanout::{Fanout, Sockets};
use self::hub::{GroupKey, Hub, Slot};
use self::joins::Joins;
use self::membership::{Memberships, Visit};
use self::repeats::Repeats;
pub(crate) use self::resync::ResyncReason;
use self::resync::Resyncs;
use self::revocation::Revoked;
use self::room_keys::RoomKeys;
use self::session::Session;
use self::wheel::{TICK, Tick, Wheel};
use crate::bus::{Link, LinkState, redis};
use crate::counts::{ConnectionInfo, Counters, Counts};
use crate::http::Upgraded;
use crate::server::{Arrival, Shared};

/// Bytes of one read from a client.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Hooks still running when a worker ends have this long.
const HOOKS_TIMEOUT: Duration = Duration::from_secs(2);

/// Commands worked off in one turn.
const COMMANDS_PER_TURN: usize = 256;

/// What others ask of a worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// A new TCP connection.
    Accept(Arrival),
    /// A message on the in-process bus, on a channel that this worker is home to: a group's, in that
    /// tenure.
    Bus { channel: String, envelope: Bytes, group: Option<(GroupKey, Tenure)> },
    /// A message for members here, from the channel's home.
    Forward(Arc<Forward>),
    /// Another worker has members of a group that this one is home to.
    Interest(GroupKey, Tenure, WorkerId, Visit),
    /// Another worker has none any more.
    Disinterest(GroupKey, WorkerId),
    /// The home says whether the bus has confirmed a group: it has now, or no longer.
    Confirmed(GroupKey, Tenure, Visit, bool),
    /// A message for one client here; answers whether it is here.
    Send {
        client: ClientId,
        event_json: String,
        data: Option<String>,
        found: oneshot::Sender<bool>,
    },
    /// Puts a client into a room; answers whether it is here.
    Join { client: ClientId, room: String, found: oneshot::Sender<bool> },
    /// Takes a client out of a room; answers whether it is here.
    Leave { client: ClientId, room: String, found: oneshot::Sender<bool> },
    /// Closes a client; answers whether it is here.
    Close { client: ClientId, code: CloseCode, found: oneshot::Sender<bool> },
    /// The nodes of the Redis Cluster, as they are now.
    Topology(Arc<redis::Topology>),
    /// Ends the connections whose credentials were withdrawn.
    Revoke(Revoked),
    /// Messages for a group (`None`: for everyone) may have been lost on their way here.
    Resync(Option<GroupKey>, ResyncReason),
    /// Asks for connections that match.
    List(Filter, oneshot::Sender<Vec<ConnectionInfo>>),
    /// Asks for numbers.
    Count(oneshot::Sender<Counts>),
    /// Closes every connection, spread over a time.
    Drain(Duration),
    /// Ends the worker, and what connections are left.
    Stop,
}

/// Which connections are asked for; each part that is given has to match.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) user: Option<String>,
    pub(crate) room: Option<String>,
    pub(crate) client: Option<ClientId>,
    /// No more than this.
    pub(crate) limit: usize,
}

/// A worker; see the module.
#[derive(Debug)]
pub(crate) struct Worker {
    id: WorkerId,
    shared: Arc<Shared>,
    state: RefCell<State>,
}

/// All that a worker knows.
#[derive(Debug)]
pub(crate) struct State {
    id: WorkerId,
    shared: Arc<Shared>,
    worker: Weak<Worker>,
    hub: Hub,
    sockets: Sockets,
    /// By the same slots as `sockets`.
    sessions: Slab<Session>,
    fanout: Fanout,
    room_keys: RoomKeys,
    memberships: Memberships,
    joins: Joins,
    resyncs: Resyncs,
    repeats: Repeats,
    /// Revoked in the turn under way.
    revoked_tokens: HashSet<Arc<str>>,
    pub(crate) link: Link,
    wheel: Wheel,
    drain: Option<Drain>,
    /// The producers' times of the messages of the turn under way, in milliseconds since the epoch.
    lags: Vec<u64>,
    /// Hooks that nobody waits for; finished ones are swept at each tick.
    hook_tasks: JoinSet<()>,
    scratch: Vec<u8>,
    /// Wakes the task that writes the backlog, while it waits for one.
    backlog_waker: Option<Waker>,
    pub(crate) counters: Counters,
}

/// Runs a worker on this thread until it is told to stop.
pub(crate) fn run(shared: &Arc<Shared>, id: WorkerId) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    let worker = Worker::new(shared.clone(), id);
    runtime.block_on(async {
        if let Some(access) = &shared.redis
            && let RedisMode::Single { host, port } = &access.settings().mode
        {
            worker.turn(|state| state.topology(&redis::Topology::single(host, *port)));
        }
        tokio::task::spawn_local(worker.clone().tick());
        tokio::task::spawn_local(worker.clone().write_backlog());
        worker.work_off_commands().await;
        // Sockets close before the runtime that they are registered with goes.
        let mut hooks = worker.turn(State::end_all);
        let _ = tokio::time::timeout(HOOKS_TIMEOUT, async {
            while hooks.join_next().await.is_some() {}
        })
        .await;
    });
    Ok(())
}

/// A worker's way to listen.
fn link(shared: &Shared, id: WorkerId) -> Link {
    let worker = usize::from(id);
    let Some(access) = &shared.redis else {
        shared.links.open(worker, "in-process".to_owned(), LinkState::Confirmed);
        return Link::Memory;
    };
    let has_tags = access.settings().pubsub == PubSub::Sharded;
    let names = redis::WireNames::new(shared.names.clone(), &shared.instance.name, id, has_tags);
    Link::Redis(Box::new(redis::Links::new(names, worker, shared.links.clone())))
}

// === impl Worker ===

impl Worker {
    fn new(shared: Arc<Shared>, id: WorkerId) -> Rc<Self> {
        Rc::new_cyclic(|worker| {
            let link = link(&shared, id);
            let mut state = State {
                id,
                worker: worker.clone(),
                hub: Hub::default(),
                sockets: Slab::new(),
                sessions: Slab::new(),
                fanout: Fanout::new(shared.config.max_outbox),
                room_keys: RoomKeys::new(id),
                memberships: Memberships::default(),
                joins: Joins::default(),
                resyncs: Resyncs::default(),
                repeats: Repeats::default(),
                revoked_tokens: HashSet::default(),
                link,
                wheel: Wheel::default(),
                drain: None,
                lags: Vec::new(),
                hook_tasks: JoinSet::new(),
                scratch: vec![0; SCRATCH_BYTES],
                backlog_waker: None,
                counters: Counters::default(),
                shared: shared.clone(),
            };
            state.listen_always();
            Self { id, shared, state: RefCell::new(state) }
        })
    }

    /// Its number.
    pub(crate) fn id(&self) -> WorkerId {
        self.id
    }

    /// What all workers share.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Does something with the state, then writes what is owed.
    pub(crate) fn turn<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.borrow_mut();
        let watch = PanicWatch(&self.shared);
        let result = act(&mut state);
        state.end_turn();
        drop(watch);
        result
    }

    /// A TCP connection has become a WebSocket.
    pub(crate) fn open(self: &Rc<Self>, upgraded: Upgraded) {
        let Upgraded { stream, accepted, mut early, admission } = upgraded;
        let slot = self.turn(|state| state.open(stream, &accepted, admission));
        let ended = self.turn(|state| state.receive(slot, &mut early).is_break());
        if ended {
            self.turn(|state| state.finish(slot));
        } else {
            tokio::task::spawn_local(connection::Connection::new(self.clone(), slot));
        }
    }

    async fn work_off_commands(self: &Rc<Self>) {
        let queue = &self.shared.queues[usize::from(self.id)];
        let mut batch = VecDeque::new();
        loop {
            queue.ready().await;
            queue.take(&mut batch);
            while !batch.is_empty() {
                let stop = self.turn(|state| {
                    let count = batch.len().min(COMMANDS_PER_TURN);
                    batch.drain(..count).any(|command| state.command(command))
                });
                if stop {
                    return;
                }
                tokio::task::yield_now().await;
            }
        }
    }

    async fn tick(self: Rc<Self>) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let began = interval.tick().await;
        loop {
            let due = interval.tick().await;
            let passed = due - began;
            let delay = due.elapsed();
            let now = u32::try_from(passed.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX);
            self.turn(|state| {
                state.counters.tick_delay.observe(delay);
                state.tick(Tick(now));
            });
        }
    }

    /// Each turn writes a slice of the backlog; this makes turns while nothing else does. Between two
    /// of them it yields, which lets the runtime look at every socket: a task that woke itself would
    /// keep it from that for 61 polls, and a message to one client waiting for as many slices.
    async fn write_backlog(self: Rc<Self>) {
        loop {
            std::future::poll_fn(|context| self.poll_backlog(context)).await;
            while self.turn(|state| state.fanout.has_backlog()) {
                tokio::task::yield_now().await;
            }
        }
    }

    fn poll_backlog(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        if state.fanout.has_backlog() {
            return Poll::Ready(());
        }
        state.backlog_waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// A runtime catches a task's panic, and the worker would go on with a state that nobody knows. An
/// edge that has lost a worker must not look as if it were well, so the whole edge ends.
struct PanicWatch<'a>(&'a Shared);

impl Drop for PanicWatch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.notify_one();
        }
    }
}

// === impl State ===

impl State {
    /// Writes what is owed, and wakes the tasks that have to look at their sockets.
    fn end_turn(&mut self) {
        if !self.revoked_tokens.is_empty() {
            self.end_revoked_tokens();
        }
        self.fanout.flush(&mut self.sockets);
        self.note_lags();
        if self.fanout.has_attention() {
            for slot in self.fanout.take_attention() {
                self.wake(slot);
            }
        }
        if self.fanout.has_backlog()
            && let Some(waker) = self.backlog_waker.take()
        {
            waker.wake();
        }
    }

    fn wake(&self, slot: Slot) {
        if let Some(session) = self.sessions.get(slot.0 as usize) {
            session.wake();
        }
    }

    fn now(&self) -> Tick {
        self.wheel.now()
    }

    /// What all workers share.
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The largest envelope that is taken.
    pub(crate) fn bus_message_bytes_max(&self) -> usize {
        self.shared.config.max_bus_message
    }

    /// A connection of this worker by its client's id, unless it is on its way out.
    fn find(&self, client: ClientId) -> Option<Slot> {
        if client.instance() != self.shared.instance.tag || client.worker() != self.id {
            return None;
        }
        let session = self.sessions.get(client.slot() as usize)?;
        (session.client == client && session.is_online()).then_some(Slot(client.slot()))
    }

    /// Acts on a command; returns whether it is the last one.
    fn command(&mut self, command: Command) -> bool {
        match command {
            Command::Accept(arrival) => {
                if let Some(worker) = self.worker.upgrade() {
                    tokio::task::spawn_local(crate::http::serve(worker, arrival));
                }
            }
            Command::Bus { channel, envelope, group } => {
                if group.is_none_or(|(key, tenure)| self.memberships.is_at_home(&key, tenure)) {
                    self.bus_message(channel.as_bytes(), &envelope);
                }
            }
            Command::Forward(forward) => self.forwarded(&forward),
            Command::Interest(key, tenure, worker, visit) => {
                self.interest(&key, tenure, worker, visit);
            }
            Command::Disinterest(key, worker) => self.disinterest(key, worker),
            Command::Confirmed(key, tenure, visit, confirmed) => {
                self.home_confirmed(key, tenure, visit, confirmed);
            }
            Command::Send { client, event_json, data, found } => {
                let slot = self.find(client);
                if let Some(slot) = slot {
                    let delivery = Delivery::new(&event_json, data.as_deref());
                    self.deliver_to(slot, To::Client, &delivery);
                }
                let _ = found.send(slot.is_some());
            }
            Command::Join { client, room, found } => {
                let slot = self.find(client);
                if let Some(slot) = slot {
                    self.enter_room(slot, &room);
                }
                let _ = found.send(slot.is_some());
            }
            Command::Leave { client, room, found } => {
                let slot = self.find(client);
                if let Some(slot) = slot {
                    self.leave_room(slot, &room);
                }
                let _ = found.send(slot.is_some());
            }
            Command::Close { client, code, found } => {
                let slot = self.find(client);
                if let Some(slot) = slot {
                    self.begin_close(slot, code);
                }
                let _ = found.send(slot.is_some());
            }
            Command::Topology(topology) => self.topology(&topology),
            Command::Revoke(revoked) => self.revoke(revoked),
            Command::Resync(group, reason) => self.resync_later(group, reason),
            Command::List(filter, answer) => {
                let _ = answer.send(self.list(&filter));
            }
            Command::Count(answer) => {
                let _ = answer.send(self.count());
            }
            Command::Drain(window) => self.begin_drain(window),
            Command::Stop => return true,
        }
        false
    }

    fn tick(&mut self, now: Tick) {
        let mut due = Vec::new();
        self.wheel.advance(now, |_, slot, at| due.push((slot, at)));
        for (slot, at) in due {
            self.on_timer(slot, at);
        }
        self.end_lingering();
        if let Link::Redis(links) = &mut self.link {
            links.close_idle();
        }
        self.end_waiting_joins();
        self.announce_resyncs();
        self.drain_some();
        while self.hook_tasks.try_join_next().is_some() {}
    }

    /// Numbers as they are now, and what became of the hub's indexes.
    fn count(&self) -> Counts {
        let (channels_wanted, channels_confirmed) = self.link.counts();
        let mut counts = Counts {
            counters: self.counters.clone(),
            rooms: 0,
            users: 0,
            interests: self.memberships.interests(),
            lingering: self.memberships.lingering(),
            elsewhere: self.memberships.elsewhere(),
            waiting: self.memberships.waiting() + self.joins.len(),
            room_keys: self.room_keys.len(),
            channels_wanted,
            channels_confirmed,
            ..Counts::default()
        };
        counts.counters.sent = self.fanout.counters;
        counts.counters.room_keys = self.room_keys.made();
        for (_, socket) in &self.sockets {
            counts.count_outbox(socket.queued_bytes());
        }
        for (key, members) in self.hub.groups() {
            match key.kind {
                hub::GroupKind::Room => {
                    counts.rooms += 1;
                    counts.memberships += members as u64;
                }
                hub::GroupKind::User => counts.users += 1,
            }
        }
        for (_, session) in &self.sessions {
            counts.count_connection(session.state_name());
        }
        counts
    }

    /// The connections that match.
    fn list(&self, filter: &Filter) -> Vec<ConnectionInfo> {
        let is_member =
            |slot: Slot, room: &String| self.hub.is_member(slot, hub::GroupKind::Room, room);
        self.sessions
            .iter()
            .map(|(index, session)| {
                (Slot(u32::try_from(index).expect("slots have 28 bits")), session)
            })
            .filter(|(slot, session)| {
                filter.client.is_none_or(|client| session.client == client)
                    && filter.user.as_ref().is_none_or(|user| session.user.as_deref() == Some(user))
                    && filter.room.as_ref().is_none_or(|room| is_member(*slot, room))
            })
            .take(filter.limit)
            .map(|(slot, session)| self.describe(slot, session))
            .collect()
    }

    /// Ends every connection; returns the hooks that this set going, and those under way.
    fn end_all(&mut self) -> JoinSet<()> {
        let slots: Vec<_> = self.sessions.iter().map(|(index, _)| index).collect();
        for index in slots {
            let slot = Slot(u32::try_from(index).expect("slots have 28 bits"));
            self.say_goodbye(slot, "draining", CloseCode::Draining);
            self.finish(slot);
        }
        std::mem::take(&mut self.hook_tasks)
    }

    fn note_connection_count(&self) {
        let count = &self.shared.connections[usize::from(self.id)];
        count.store(self.sessions.len(), Ordering::Relaxed);
    }
}
