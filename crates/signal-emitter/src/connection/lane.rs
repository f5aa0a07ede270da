//! Messages whose order counts, on their way to Redis: one lane for all of them, or one per partition
//! in a sharded cluster.
//!
//! A lane owns a queue and the task that sends from it. At most a window is under way, on one
//! connection; when messages have to go out again, or elsewhere, all that is under way is waited for
//! first, and for another server a moment more, so that none overtakes another. Nothing goes out after its deadline, nor once its call has
//! been dropped. Bounded by the [`Allowance`].

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesOrdered};
use parking_lot::Mutex;
use signal_core::{
    channel::{PARTITIONS, partition, sharded_name},
    redis::PubSub,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use super::{
    claim::Allowance,
    node::{Failure, Node},
    queue::{Due, Message, Outcome, Queue},
    record,
    route::Route,
};
use crate::EmitterError;

/// After Redis was away, edges may take so long to be back before messages go out to nobody: longer
/// than the longest pause between their attempts.
const EDGES_BACK_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a lane looks whether an edge is back.
const EDGES_BACK_POLL: Duration = Duration::from_millis(50);

/// Messages under way on all lanes together; more would only wait in the kernel's buffers.
const WINDOW_TOTAL: usize = 16_384;

/// How often a lane looks whether Redis is back.
const AWAY_POLL: Duration = Duration::from_millis(25);

/// Before messages go out again, so that a broken server is not asked in a tight loop.
const AGAIN_DELAY: Duration = Duration::from_millis(10);

/// The same, while Redis says that it cannot just now.
const TRANSIENT_DELAY: Duration = Duration::from_millis(100);

/// Between the last message to one server and the first to another. What a server takes reaches the
/// subscribers of others over the cluster's own connections, some milliseconds later; and a master that
/// has become a replica takes messages still. Without a pause the new server's messages are faster.
const CHANGE_DELAY: Duration = Duration::from_millis(200);

/// Servers that one message is sent on to, at most, if it is not to be held: after a migration each is
/// told of its new owner once.
const REDIRECTIONS_MAX: u8 = 5;

/// All lanes of a connection.
pub(super) struct Lanes {
    route: Arc<Route>,
    policy: Policy,
    allowance: Allowance,
    /// Each begins with its first message.
    all: Box<[OnceLock<Arc<Lane>>]>,
    runtime: Handle,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// What lanes do while Redis is away, and when it is back.
#[derive(Clone, Copy)]
pub(super) struct Policy {
    /// What waits is held.
    pub(super) hold: bool,
    /// What was held goes out once an edge has said that it is back.
    pub(super) await_edges: bool,
}

/// One lane; see the module.
struct Lane {
    route: Arc<Route>,
    policy: Policy,
    window: usize,
    queue: Mutex<Queue>,
    /// Something was put into the queue.
    work: Notify,
}

/// What is under way, all of it on one connection.
#[derive(Default)]
struct Flight {
    answers: FuturesOrdered<BoxFuture<'static, (u64, Result<u64, Failure>)>>,
    /// The server, and which of the connections to it.
    connection: Option<(Arc<Node>, u64)>,
    /// Redis was away, and nothing has gone out since.
    was_away: bool,
    last_sent: Option<Instant>,
}

/// What messages wait for, other than what is under way.
#[derive(Clone, Copy)]
enum Pause {
    /// A connection, or that what another server took has got through.
    Away,
    /// An edge.
    Edges,
}

/// A call that waits for its outcome. Dropped before, it takes its message out.
struct Call<'a> {
    lane: &'a Lane,
    ticket: u64,
    waiting: bool,
}

// === impl Lanes ===

impl Lanes {
    /// Must be called within a tokio runtime, which carries the lanes.
    pub(super) fn new(route: Arc<Route>, policy: Policy, allowance: Allowance) -> Self {
        let count = if route.is_sharded() { PARTITIONS } else { 1 };
        let all = (0..count).map(|_| OnceLock::new()).collect();
        let runtime = Handle::current();
        Self { route, policy, allowance, all, runtime, tasks: Mutex::default() }
    }

    /// Publishes; the message is queued when this is first polled, before anything is awaited.
    pub(super) async fn publish(
        &self,
        channel: String,
        envelope: Bytes,
        deadline: Duration,
    ) -> Outcome {
        let deadline = Instant::now() + deadline;
        let (index, channel) = match self.all.len() {
            1 => (0, channel),
            _ => (usize::from(partition(&channel)), sharded_name(&channel)),
        };
        let entry = self.allowance.claim(Queue::ENTRY_BYTES)?;
        let claim = self.allowance.claim(channel.len() + envelope.len())?;
        let lane = self.all[index].get_or_init(|| self.start());
        let message = Message { channel, envelope, _claim: claim };
        let (ticket, outcome) = lane.queue.lock().push(message, deadline, entry);
        let call = Call { lane, ticket, waiting: true };
        lane.work.notify_one();
        call.outcome(outcome, deadline).await
    }

    /// Whether nothing waits and nothing is under way.
    pub(super) fn are_idle(&self) -> bool {
        self.all.iter().filter_map(OnceLock::get).all(|lane| lane.queue.lock().is_empty())
    }

    /// Ends every call.
    pub(super) fn end(&self) {
        for lane in self.all.iter().filter_map(OnceLock::get) {
            lane.queue.lock().end();
        }
    }

    fn start(&self) -> Arc<Lane> {
        let lane = Arc::new(Lane {
            route: self.route.clone(),
            policy: self.policy,
            window: WINDOW_TOTAL / self.all.len(),
            queue: Mutex::default(),
            work: Notify::new(),
        });
        let task = self.runtime.spawn(lane.clone().run());
        self.tasks.lock().push(task.abort_handle());
        lane
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        for task in self.tasks.get_mut() {
            task.abort();
        }
    }
}

// === impl Lane ===

impl Lane {
    async fn run(self: Arc<Self>) {
        let mut flight = Flight::default();
        // Set while what is under way is waited for, before messages go out again.
        let mut rewind: Option<Duration> = None;
        loop {
            let mut pause = None;
            match rewind {
                Some(delay) if flight.answers.is_empty() => {
                    tokio::time::sleep(delay).await;
                    self.queue.lock().rewind();
                    rewind = None;
                    continue;
                }
                Some(_) => {}
                None => pause = self.fill(&mut flight),
            }
            if let Some(Pause::Edges) = pause {
                self.edges_back().await;
                flight.was_away = false;
                continue;
            }
            let may_fill = rewind.is_none() && flight.answers.len() < self.window;
            tokio::select! {
                biased;
                Some((ticket, answer)) = flight.answers.next(), if !flight.answers.is_empty() => {
                    if let Some(delay) = self.settle(ticket, answer) {
                        rewind = rewind.max(Some(delay));
                    }
                }
                () = tokio::time::sleep(AWAY_POLL), if pause.is_some() => {}
                () = self.work.notified(), if may_fill => {}
            }
        }
    }

    /// Waits until an edge has said that it is there: Redis forgets it when it restarts, and the edge
    /// says it anew when it has subscribed. Not for longer than an edge takes that comes back.
    async fn edges_back(&self) {
        let until = Instant::now() + EDGES_BACK_TIMEOUT;
        while Instant::now() < until {
            match record::edges(&self.route).await {
                Ok(edges) if edges.is_empty() => {}
                // If it cannot be known, nobody waits for it.
                Ok(_) | Err(_) => return,
            }
            tokio::time::sleep(EDGES_BACK_POLL).await;
        }
    }

    /// Sends what may be sent now. Returns what messages wait for, if it is not what is under way.
    fn fill(&self, flight: &mut Flight) -> Option<Pause> {
        let mut queue = self.queue.lock();
        while flight.answers.len() < self.window {
            let due = queue.next()?;
            let timeout = due.deadline.saturating_duration_since(Instant::now());
            if timeout.is_zero() {
                queue.expire(due.ticket);
                continue;
            }
            let node = self.route.node(&due.channel);
            let Some(node) = node.as_ref().filter(|node| node.is_connected()) else {
                if !flight.answers.is_empty() {
                    return None;
                }
                if self.policy.hold || node.is_some_and(|node| node.is_connecting()) {
                    flight.was_away = true;
                    return Some(Pause::Away);
                }
                queue.settle(due.ticket, Err(EmitterError::Disconnected));
                continue;
            };
            if !flight.is_on(node) {
                // What is on another connection is waited for: it must not be overtaken.
                if !flight.answers.is_empty() {
                    return None;
                }
                if !flight.may_change_to(node) {
                    return Some(Pause::Away);
                }
                flight.board(node);
            }
            if flight.was_away && self.policy.await_edges {
                return Some(Pause::Edges);
            }
            flight.was_away = false;
            queue.started();
            flight.last_sent = Some(Instant::now());
            // The client keeps commands for a server that it cannot reach; one that waits there too long
            // is taken back, and goes to whoever is in charge by then.
            let timeout = if self.policy.hold { timeout.min(node.timeout()) } else { timeout };
            let (node, pubsub) = (node.clone(), self.route.pubsub());
            flight.answers.push_back(Box::pin(attempt(node, pubsub, due, timeout)));
        }
        None
    }

    /// Takes an answer. Returns a delay if the message has to go out again.
    fn settle(&self, ticket: u64, answer: Result<u64, Failure>) -> Option<Duration> {
        let mut queue = self.queue.lock();
        let (outcome, again) = match answer {
            Ok(receivers) => (Ok(self.route.counted(receivers)), None),
            Err(Failure::Moved(address, text)) => {
                self.route.moved(&text, address);
                let again = self.policy.hold || queue.redirected(ticket) <= REDIRECTIONS_MAX;
                (Err(EmitterError::Redis(text)), again.then_some((false, AGAIN_DELAY)))
            }
            Err(failure) => {
                let again = match &failure {
                    // Either the attempt's timeout or the deadline, which the queue knows.
                    Failure::Broken(_) | Failure::Timeout => Some((true, AGAIN_DELAY)),
                    Failure::NotSent => Some((false, AGAIN_DELAY)),
                    Failure::Transient(_) | Failure::Full => Some((false, TRANSIENT_DELAY)),
                    Failure::Refused(_) | Failure::Moved(..) => None,
                };
                (Err(failure.into()), again.filter(|_| self.policy.hold))
            }
        };
        let Some((uncertain, delay)) = again else {
            queue.settle(ticket, outcome);
            return None;
        };
        queue.again(ticket, uncertain);
        Some(delay)
    }
}

/// Sends a message once.
async fn attempt(
    node: Arc<Node>,
    pubsub: PubSub,
    due: Due,
    timeout: Duration,
) -> (u64, Result<u64, Failure>) {
    let published = node.publish(pubsub, due.channel, due.envelope);
    (due.ticket, published.receivers(timeout).await)
}

// === impl Flight ===

impl Flight {
    fn is_on(&self, node: &Arc<Node>) -> bool {
        let is_same = |(own, count): &(Arc<Node>, u64)| {
            Arc::ptr_eq(own, node) && *count == node.connections()
        };
        self.connection.as_ref().is_some_and(is_same)
    }

    /// Whether what an earlier server took has got through, if it was another one.
    fn may_change_to(&self, node: &Arc<Node>) -> bool {
        let is_same = self.connection.as_ref().is_none_or(|(own, _)| Arc::ptr_eq(own, node));
        is_same || self.last_sent.is_none_or(|sent| sent.elapsed() >= CHANGE_DELAY)
    }

    /// What goes out next goes to this server. It may have been away, even if nobody noticed.
    fn board(&mut self, node: &Arc<Node>) {
        let before = self.connection.replace((node.clone(), node.connections()));
        self.was_away |= before.is_some();
    }
}

// === impl Call ===

impl Call<'_> {
    async fn outcome(mut self, outcome: oneshot::Receiver<Outcome>, deadline: Instant) -> Outcome {
        let outcome = timeout_at(deadline, outcome).await;
        self.waiting = false;
        match outcome {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(EmitterError::ShutDown),
            Err(_) => Err(match self.lane.queue.lock().withdraw(self.ticket) {
                true => EmitterError::Timeout,
                false => EmitterError::Expired,
            }),
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.waiting {
            self.lane.queue.lock().withdraw(self.ticket);
        }
    }
}
