//! One worker's subscriber connection: connects, subscribes, reads, and begins anew when it fails.
//!
//! It owns the socket and its two buffers; the table of channels is the worker's. It hands each
//! message to the worker where it lies in the read buffer, and lets the worker write its sockets once
//! per read. It never waits for the worker, never gives up, and never trusts silence: a probe goes to
//! itself through Redis at every interval, and a link that brings neither the probe nor anything else
//! is torn down. The read buffer holds one message at most beyond a read; what is larger than the
//! limit is passed over without being kept.

use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use signal_core::channel::ChannelNames;
use signal_core::redis::{RedisMode, RedisSettings};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior, timeout};
use tracing::{info, warn};

use super::Subscriptions;
use super::push::{NotResp, Received, decode_front};
use super::subscriptions::{Outcome, SubscriptionCommand};
use crate::bus::{ChannelKey, Link, LinkState};
use crate::worker::{State, Worker};

/// Connecting, and the answer to HELLO, take no longer than this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

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

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("connecting took too long")]
    ConnectTimeout,
    #[error("redis refused the connection: {0}")]
    Refused(String),
    #[error("redis closed the connection")]
    Closed,
    #[error("the probe did not come back")]
    Silent,
    #[error("redis sent something without an end")]
    Endless,
    #[error("redis answered something that was not asked")]
    OutOfStep,
    #[error(transparent)]
    NotResp(#[from] NotResp),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Keeps the worker's link until the worker ends.
pub(crate) async fn run(worker: Rc<Worker>, settings: RedisSettings, probe_interval: Duration) {
    let status = worker.link_status();
    let mut backoff = BACKOFF_MIN;
    loop {
        let began = Instant::now();
        let error = match connect(&settings).await {
            Ok(stream) => {
                info!(worker = worker.id(), "bus link connected");
                status.probed();
                status.set(LinkState::Unconfirmed);
                worker.turn(State::bus_connected);
                let mut connection = Connection::new(stream, &worker, probe_interval);
                let error = connection.drive(&worker).await;
                status.set(LinkState::Down);
                worker.turn(State::bus_lost);
                error
            }
            Err(error) => error,
        };
        if began.elapsed() > BACKOFF_MAX {
            backoff = BACKOFF_MIN;
        }
        let wait = backoff.mul_f64(crate::random::fraction());
        warn!(worker = worker.id(), %error, retry_ms = wait.as_millis(), "bus link is down");
        tokio::time::sleep(wait).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

fn subscriptions(state: &mut State) -> &mut Subscriptions {
    match &mut state.link {
        Link::Redis(subscriptions) => subscriptions,
        Link::Memory => unreachable!("a Redis link runs only where the worker has one"),
    }
}

/// Connects and switches to RESP3.
async fn connect(settings: &RedisSettings) -> Result<TcpStream, LinkError> {
    let RedisMode::Single { host, port } = &settings.mode else {
        unreachable!("the configuration admits a single Redis only");
    };
    let attempt = async {
        let mut stream = TcpStream::connect((host.as_str(), *port)).await?;
        stream.set_nodelay(true)?;
        hello(&mut stream, settings).await?;
        Ok(stream)
    };
    timeout(CONNECT_TIMEOUT, attempt).await.unwrap_or(Err(LinkError::ConnectTimeout))
}

async fn hello(stream: &mut TcpStream, settings: &RedisSettings) -> Result<(), LinkError> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut arguments = vec!["HELLO", "3"];
    if let Some(password) = &settings.password {
        let user = settings.username.as_deref().unwrap_or("default");
        arguments.extend(["AUTH", user, password.expose()]);
    }
    arguments.extend(["SETNAME", "signal-edge"]);
    let mut command = Vec::new();
    write_command(&mut command, arguments.len());
    for argument in arguments {
        write_bulk(&mut command, argument.as_bytes());
    }
    stream.write_all(&command).await?;
    let mut buffer = Vec::new();
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(LinkError::Closed);
        }
        match decode_front(&buffer, READ_BYTES)? {
            Some((Received::Refused(words), _)) => return Err(LinkError::Refused(words)),
            Some(_) => return Ok(()),
            None => {}
        }
    }
}

/// A connection that speaks RESP3.
struct Connection {
    stream: TcpStream,
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
    names: ChannelNames,
    /// The channel on which the link hears itself.
    probe_channel: String,
    /// A channel's name, written anew for each comparison.
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
    fn new(stream: TcpStream, worker: &Worker, probe_interval: Duration) -> Self {
        let mut interval = tokio::time::interval(probe_interval);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let probe = Probe { interval, number: 0, returned: true, missed: 0, heard: true };
        Self {
            stream,
            buffer: vec![0; READ_BYTES],
            start: 0,
            end: 0,
            passing_over: 0,
            commands: Vec::new(),
            written: 0,
            probe,
            names: worker.shared().names.clone(),
            probe_channel: worker.probe_channel(),
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
            subscriptions(state).set_waker(context.waker());
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
                Received::Reply(_) => expect_outcome(&subscriptions(state).replied())?,
                Received::Refused(words) => refused(state, &words)?,
                Received::Other => {}
            }
        }
        Ok(())
    }

    fn message(&mut self, state: &mut State, channel: &[u8], payload: &[u8]) {
        if state.bus_message(channel, payload) {
            return;
        }
        // A probe: the number that came back tells which one.
        if std::str::from_utf8(payload).ok().and_then(|number| number.parse().ok())
            == Some(self.probe.number)
        {
            self.probe.returned = true;
            self.probe.missed = 0;
            state.link_status().probed();
        }
    }

    fn answered(
        &mut self,
        state: &mut State,
        subscribe: bool,
        channel: &[u8],
    ) -> Result<(), LinkError> {
        let outcome = subscriptions(state).answered(subscribe, |key| self.name(key) == channel);
        expect_outcome(&outcome)?;
        if let Outcome::Confirmed(key) = outcome {
            state.bus_confirmed(&key);
        }
        state.note_link_state();
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
        write_command(&mut self.commands, 3);
        write_bulk(&mut self.commands, b"PUBLISH");
        write_bulk(&mut self.commands, self.probe_channel.as_bytes());
        write_bulk(&mut self.commands, self.probe.number.to_string().as_bytes());
        let subscriptions = subscriptions(state);
        subscriptions.probe_sent();
        subscriptions.retry_refused();
        Ok(())
    }

    /// Moves what is to be (un)subscribed from the table to the socket's buffer.
    fn take_commands(&mut self, state: &mut State) {
        while self.commands.len() - self.written < WRITE_BYTES_MAX {
            let Some(command) = subscriptions(state).next_command() else { break };
            let (verb, keys): (&[u8], _) = match command {
                SubscriptionCommand::Subscribe(keys) => (b"SUBSCRIBE", keys),
                SubscriptionCommand::Unsubscribe(keys) => (b"UNSUBSCRIBE", keys),
            };
            write_command(&mut self.commands, 1 + keys.len());
            write_bulk(&mut self.commands, verb);
            for key in keys {
                self.name(&key);
                write_bulk(&mut self.commands, self.name.as_bytes());
            }
        }
        state.note_link_state();
    }

    /// A channel's name on the bus.
    fn name(&mut self, key: &ChannelKey) -> &[u8] {
        self.name.clear();
        key.with_target(|target| match target {
            Some(target) => self.names.write(target, &mut self.name),
            None => self.name.push_str(&self.probe_channel),
        });
        self.name.as_bytes()
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
        Poll::Pending
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

fn refused(state: &mut State, words: &str) -> Result<(), LinkError> {
    let outcome = subscriptions(state).refuse();
    expect_outcome(&outcome)?;
    match outcome {
        Outcome::Refused(key) => warn!(%words, channel = describe(&key), "redis refuses a channel"),
        Outcome::Probed => warn!(%words, "redis refuses the probe"),
        _ => {}
    }
    state.note_link_state();
    Ok(())
}

fn describe(key: &ChannelKey) -> String {
    key.with_target(|target| format!("{target:?}"))
}

fn write_command(out: &mut Vec<u8>, arguments: usize) {
    out.extend_from_slice(format!("*{arguments}\r\n").as_bytes());
}

fn write_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}
