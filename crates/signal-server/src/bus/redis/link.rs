//! One worker's subscriber connection: connects, subscribes, reads, and begins anew when it fails.
//!
//! It owns the socket and its two buffers; the table of channels is the worker's. It hands each
//! message to the worker where it lies in the read buffer, and lets the worker write its sockets once
//! per read. It never waits for the worker, never gives up, and never trusts silence: a probe goes to
//! itself through Redis at every interval, and a link that brings neither the probe nor anything else
//! is torn down. The read buffer holds one message at most beyond a read; what is larger than the
//! limit is passed over without being kept.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use signal_core::redis::RedisSettings;
use signal_emitter::EmitterError;
use signal_emitter::connection::access::{Access, LinkError, Stream};
use signal_emitter::connection::resp::{begin_command, write_part};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tracing::{info, warn};

use super::push::{Received, decode_front};
use super::subscriptions::{Outcome, Refusal};
use super::topology::Node;
use super::{LinkId, Links, Subscriptions, WireNames};
use crate::bus::{ChannelKey, Link, LinkStatus};
use crate::worker::{State, Worker};

/// Bounds of the wait between attempts; each is drawn evenly from zero to the current bound.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Bytes of one read, hence of one batch.
const READ_BYTES: usize = 64 * 1024;

/// Reads before other tasks of the worker get their turn.
const READS_PER_POLL: usize = 4;

/// Bytes waiting to be written, beyond which no further command is taken from the table.
const WRITE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes that may wait for the end of what they belong to, beyond those of the largest message.
const WAITING_BYTES_MAX: usize = 256 * 1024;

/// Intervals without the probe's return, after which traffic of other channels excuses nothing.
const PROBES_MISSED_MAX: u32 = 3;

/// How links show in `CLIENT LIST`.
const CLIENT_NAME: &str = "signal-edge";

/// Connecting, and the answer to HELLO, take no longer than this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How links, and those who ask for the topology, reach a node.
pub(crate) fn access(settings: RedisSettings) -> Result<Access, EmitterError> {
    Access::new(settings, CLIENT_NAME, CONNECT_TIMEOUT)
}

/// Keeps one of the worker's links until it is aborted.
pub(crate) async fn run(worker: Rc<Worker>, link: LinkId, node: Arc<Node>) {
    let Some(access) = &worker.shared().redis else { return };
    let Some(status) = worker.turn(|state| links(state).map(|links| links.status(link).clone()))
    else {
        return;
    };
    let mut backoff = BACKOFF_MIN;
    loop {
        let began = Instant::now();
        let error = match access.connect(&node.host, node.port).await {
            Ok(stream) => {
                info!(worker = worker.id(), %node, "bus link connected");
                status.probed();
                worker.turn(|state| state.bus_connected(link));
                let mut connection = Connection::new(stream, &worker, link);
                let error = connection.drive(&worker).await;
                worker.turn(|state| state.bus_lost(link));
                error
            }
            Err(error) => error,
        };
        worker.shared().watch.ask();
        if began.elapsed() > BACKOFF_MAX {
            backoff = BACKOFF_MIN;
        }
        let wait = backoff.mul_f64(crate::random::fraction());
        let retry_ms = wait.as_millis();
        warn!(worker = worker.id(), %node, %error, retry_ms, "bus link is down");
        tokio::time::sleep(wait).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

fn links(state: &mut State) -> Option<&mut Links> {
    match &mut state.link {
        Link::Redis(links) => Some(links),
        Link::Memory => None,
    }
}

/// A connection that speaks RESP3.
struct Connection {
    stream: Stream,
    link: LinkId,
    status: Arc<LinkStatus>,
    buffer: Vec<u8>,
    /// What of the buffer has come and is not used up.
    start: usize,
    end: usize,
    /// Bytes of an oversized message still to be passed over.
    passing_over: usize,
    commands: Vec<u8>,
    /// How much of `commands` Redis took.
    written: usize,
    probe: Probe,
    names: WireNames,
    /// A channel's name, written anew for each use.
    name: String,
}

struct Probe {
    interval: Interval,
    /// The number of the last probe, and whether it came back.
    number: u64,
    returned: bool,
    /// Intervals that ended without its return.
    missed: u32,
    /// Something arrived since the last interval.
    heard: bool,
}

// === impl Connection ===

impl Connection {
    fn new(stream: Stream, worker: &Worker, link: LinkId) -> Self {
        let mut interval = tokio::time::interval(worker.shared().config.bus_probe_interval);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let probe = Probe { interval, number: 0, returned: true, missed: 0, heard: true };
        let (status, names) = worker.turn(|state| {
            let links = own(state);
            (links.status(link).clone(), links.names().clone())
        });
        Self {
            stream,
            link,
            status,
            buffer: vec![0; READ_BYTES],
            start: 0,
            end: 0,
            passing_over: 0,
            commands: Vec::new(),
            written: 0,
            probe,
            names,
            name: String::new(),
        }
    }

    /// Runs until the connection fails.
    async fn drive(&mut self, worker: &Worker) -> LinkError {
        std::future::poll_fn(|context| match self.poll(worker, context) {
            Poll::Ready(Err(error)) => Poll::Ready(error),
            Poll::Ready(Ok(never)) => match never {},
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    fn poll(
        &mut self,
        worker: &Worker,
        context: &mut Context<'_>,
    ) -> Poll<Result<std::convert::Infallible, LinkError>> {
        let mut reads = 0;
        while let Poll::Ready(outcome) = self.poll_read(context) {
            outcome?;
            worker.turn(|state| self.handle_all(state))?;
            reads += 1;
            if reads == READS_PER_POLL {
                context.waker().wake_by_ref();
                break;
            }
        }
        worker.turn(|state| {
            self.table(state).set_waker(context.waker());
            self.take_commands(state);
        });
        // The probe comes after the subscribe of its own channel.
        while self.probe.interval.poll_tick(context).is_ready() {
            worker.turn(|state| self.probe(state))?;
        }
        self.poll_write(context)
    }

    /// Reads once; pending if there is nothing, or if it is time for other tasks.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let mut space = ReadBuf::new(&mut self.buffer[self.end..]);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut space))?;
        let count = space.filled().len();
        if count == 0 {
            return Poll::Ready(Err(LinkError::Closed));
        }
        self.end += count;
        self.probe.heard = true;
        Poll::Ready(Ok(()))
    }

    /// Handles all that has come whole.
    fn handle_all(&mut self, state: &mut State) -> Result<(), LinkError> {
        let passed = self.passing_over.min(self.end - self.start);
        self.start += passed;
        self.passing_over -= passed;
        let buffer = std::mem::take(&mut self.buffer);
        let outcome = self.handle_buffer(&buffer, state);
        self.buffer = buffer;
        outcome?;
        self.make_room();
        if self.end > state.bus_message_bytes_max() + WAITING_BYTES_MAX {
            return Err(LinkError::Endless);
        }
        Ok(())
    }

    fn handle_buffer(&mut self, buffer: &[u8], state: &mut State) -> Result<(), LinkError> {
        while self.start < self.end {
            let bytes_max = state.bus_message_bytes_max();
            let Some((received, taken)) = decode_front(&buffer[self.start..self.end], bytes_max)?
            else {
                break;
            };
            self.start += taken;
            match received {
                Received::Message { channel, payload } => self.message(state, channel, payload),
                Received::Oversized { bytes, .. } => {
                    state.bus_message_oversized();
                    let passed = bytes.min(self.end - self.start);
                    self.start += passed;
                    self.passing_over = bytes - passed;
                }
                Received::Answered { subscribe, channel } => {
                    self.answered(state, subscribe, channel)?;
                }
                Received::Reply(_) => expect_outcome(&self.table(state).replied())?,
                Received::Refused(words) => self.refused(state, &words)?,
                Received::Other => {}
            }
        }
        Ok(())
    }

    fn message(&mut self, state: &mut State, channel: &[u8], payload: &[u8]) {
        let channel = self.names.without_tag(channel);
        if own(state).has_let_go(self.link, channel) || state.bus_message(channel, payload) {
            return;
        }
        // A probe: the number that came back tells which one.
        if std::str::from_utf8(payload).ok().and_then(|number| number.parse().ok())
            == Some(self.probe.number)
        {
            self.probe.returned = true;
            self.probe.missed = 0;
            self.status.probed();
        }
    }

    /// The table of this link.
    fn table<'a>(&self, state: &'a mut State) -> &'a mut Subscriptions {
        own(state).table(self.link)
    }

    fn answered(
        &mut self,
        state: &mut State,
        subscribe: bool,
        channel: &[u8],
    ) -> Result<(), LinkError> {
        let channel = self.names.without_tag(channel);
        let (names, name) = (&self.names, &mut self.name);
        let outcome = own(state).table(self.link).answered(subscribe, |key| {
            names.write(key, name);
            name.as_bytes() == channel
        });
        match outcome {
            Outcome::Confirmed(key) => state.bus_confirmed(self.link, &key),
            Outcome::Unexpected if !subscribe && self.names.is_sharded() => {
                self.taken_away(state, channel)?;
            }
            outcome => expect_outcome(&outcome)?,
        }
        own(state).note_state(self.link);
        Ok(())
    }

    /// Redis ended a subscription that nobody gave up: its slot has moved.
    fn taken_away(&self, state: &mut State, channel: &[u8]) -> Result<(), LinkError> {
        let key = self.names.key(channel).ok_or(LinkError::OutOfStep)?;
        if self.table(state).taken_away(&key) {
            state.bus_interrupted(&key);
        }
        state.shared().watch.ask();
        Ok(())
    }

    fn refused(&self, state: &mut State, words: &str) -> Result<(), LinkError> {
        let refusal = match words.split(' ').next().unwrap_or_default() {
            "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" => {
                state.shared().watch.ask();
                Refusal::State
            }
            _ => Refusal::Channels,
        };
        let outcome = self.table(state).refuse(refusal);
        expect_outcome(&outcome)?;
        match outcome {
            Outcome::Refused(key) => {
                warn!(%words, channel = describe(&key), "redis refuses a channel");
            }
            Outcome::Probed if refusal == Refusal::Channels => {
                warn!(%words, "redis refuses the probe");
            }
            _ => {}
        }
        own(state).note_state(self.link);
        Ok(())
    }

    /// Sends the next probe, unless the last one is missing.
    fn probe(&mut self, state: &mut State) -> Result<(), LinkError> {
        if !self.probe.returned {
            self.probe.missed += 1;
            if !self.probe.heard || self.probe.missed >= PROBES_MISSED_MAX {
                return Err(LinkError::Silent);
            }
        }
        self.probe.heard = false;
        self.probe.returned = false;
        self.probe.number += 1;
        let links = own(state);
        if let Some(key) = links.probe(self.link) {
            let verb: &[u8] = if self.names.is_sharded() { b"SPUBLISH" } else { b"PUBLISH" };
            let partition = self.names.partition(&key);
            begin_command(&mut self.commands, 3);
            write_part(&mut self.commands, verb);
            self.write_channel(&key, partition);
            write_part(&mut self.commands, self.probe.number.to_string().as_bytes());
            links.table(self.link).probe_sent();
        } else {
            // Its node carries nothing any more; the link is about to end.
            self.probe.returned = true;
        }
        let table = links.table(self.link);
        table.retry_refused();
        table.retry_postponed();
        Ok(())
    }

    /// Moves what is to be (un)subscribed from the table to the socket's buffer.
    fn take_commands(&mut self, state: &mut State) {
        while self.commands.len() - self.written < WRITE_BYTES_MAX {
            let Some(command) = self.table(state).next_command() else { break };
            let verb: &[u8] = match (self.names.is_sharded(), command.subscribe) {
                (false, true) => b"SUBSCRIBE",
                (false, false) => b"UNSUBSCRIBE",
                (true, true) => b"SSUBSCRIBE",
                (true, false) => b"SUNSUBSCRIBE",
            };
            begin_command(&mut self.commands, 1 + command.keys.len());
            write_part(&mut self.commands, verb);
            for key in &command.keys {
                self.write_channel(key, command.partition);
            }
        }
        own(state).note_state(self.link);
    }

    /// Appends a channel's name as an argument.
    fn write_channel(&mut self, key: &ChannelKey, partition: u8) {
        self.names.write(key, &mut self.name);
        let mut argument = String::with_capacity(self.name.len() + 8);
        self.names.write_tag(partition, &mut argument);
        argument.push_str(&self.name);
        write_part(&mut self.commands, argument.as_bytes());
    }

    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<std::convert::Infallible, LinkError>> {
        while self.written < self.commands.len() {
            let rest = &self.commands[self.written..];
            match ready!(pin!(&mut self.stream).poll_write(context, rest)) {
                Ok(count) => self.written += count,
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        self.commands.clear();
        self.commands.shrink_to(READ_BYTES);
        self.written = 0;
        // TLS may hold some of it back.
        match ready!(pin!(&mut self.stream).poll_flush(context)) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    /// Moves what is left to the front, and has room for a read behind it.
    fn make_room(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == 0 && self.buffer.len() > READ_BYTES {
            self.buffer = vec![0; READ_BYTES];
        } else if self.buffer.len() - self.end < READ_BYTES / 2 {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
    }
}

fn expect_outcome(outcome: &Outcome) -> Result<(), LinkError> {
    match outcome {
        Outcome::Unexpected => Err(LinkError::OutOfStep),
        _ => Ok(()),
    }
}

fn describe(key: &ChannelKey) -> String {
    key.with_target(|target| match target {
        Some(target) => format!("{target:?}"),
        None => format!("{key:?}"),
    })
}

/// The links of a worker that has this one.
fn own(state: &mut State) -> &mut Links {
    links(state).expect("a link runs only where the worker has links")
}
