//! One connection at a time to one server, made again for ever: commands in, replies out.
//!
//! Owns the commands that wait to be written, those that wait for their reply, and the task that
//! writes and reads. All that waits is written with one call, and a command whose caller has gone by
//! then is not written at all. A command is sent once, on one connection or never: when a connection
//! ends, what was on it has an unknown fate, what was not has not been sent, and both are told so after
//! the state has changed. Bounded by [`COMMANDS_MAX`] and, in bytes, by the callers' allowance.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use redis_protocol::resp3::types::OwnedFrame;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    sync::{oneshot, watch},
    time::{Instant, Sleep, sleep_until},
};
use tracing::{info, warn};
use uuid::Uuid;

use super::{
    access::{Access, LinkError, Stream},
    resp::{Reply, read_reply, write_command},
    slots::Address,
};

/// Commands that may wait to be written or answered.
const COMMANDS_MAX: usize = 65_536;

/// Encoded at a time; what is encoded goes out even if its caller goes.
const OUT_BYTES: usize = 64 * 1024;

/// Room for one read.
const READ_BYTES: usize = 16 * 1024;

/// A quarter of the replies under way, or so many, are handed out before their callers get their turn.
/// What those send next is written then, and Redis works on it while the others get their replies:
/// otherwise each side would wait for the other.
const REPLIES_PER_TURN_MIN: usize = 16;

/// A reply that is larger is none: the largest is a cluster's table of slots.
const REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Attempts to connect are this far apart at first, and up to the longest later, with jitter.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// What the task and its users share.
pub(super) struct Link {
    inbox: Mutex<Inbox>,
    /// Wakes the task for what is in the inbox.
    work: AtomicWaker,
    state: watch::Sender<State>,
    connections: AtomicU64,
}

/// What is known of the connection.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// There is none yet, or it has just broken: an attempt is under way.
    Connecting,
    Connected,
    /// The last attempt failed; the next one comes.
    Away(Arc<LinkError>),
    /// There will be no more.
    Ended,
}

/// What is asked of a server.
#[derive(Debug)]
pub(super) enum Command {
    /// `PUBLISH` or `SPUBLISH`.
    Publish { name: &'static str, channel: String, envelope: Bytes },
    /// Anything else.
    Other { name: &'static str, arguments: Vec<String> },
}

/// Why a command has no value.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// It was not sent.
    NotSent,
    /// It was not sent, since too much waits.
    Full,
    /// The connection broke after it had, or may have, been sent.
    Broken(Arc<LinkError>),
    /// Redis did not do it, in its words.
    Refused(String),
}

/// What came of a command.
pub(super) type Answer = Result<OwnedFrame, Unanswered>;

#[derive(Default)]
struct Inbox {
    /// There is a connection, and it takes commands.
    is_open: bool,
    is_quitting: bool,
    waiting: Waiting,
    /// So many more have been taken by the connection.
    under_way: usize,
}

type Waiting = VecDeque<(Command, oneshot::Sender<Answer>)>;

/// What a connection has while it lasts.
struct Session<'a> {
    link: &'a Link,
    stream: Stream,
    /// Taken, and not encoded yet.
    taken: Waiting,
    /// Encoded commands, and how much of them is written.
    out: Vec<u8>,
    written: usize,
    /// Callers in the order of their commands, and when each was encoded.
    under_way: VecDeque<(oneshot::Sender<Answer>, Instant)>,
    has_answered: bool,
    /// What was read: so many bytes, of which so many are decoded.
    input: Vec<u8>,
    filled: usize,
    decoded: usize,
    /// Not all of it has been looked at.
    has_more: bool,
    /// The longest that a reply takes before the connection counts as dead.
    silence_max: Duration,
    silence: Pin<Box<Sleep>>,
}

// === impl Link ===

impl Link {
    pub(super) fn new() -> Self {
        Self {
            inbox: Mutex::default(),
            work: AtomicWaker::new(),
            state: watch::Sender::new(State::Connecting),
            connections: AtomicU64::new(0),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(*self.state.borrow(), State::Connected)
    }

    pub(super) fn is_connecting(&self) -> bool {
        matches!(*self.state.borrow(), State::Connecting)
    }

    /// How often it has connected: another number, another connection.
    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Acquire)
    }

    /// Waits for a state.
    pub(super) async fn state(&self, wanted: impl FnMut(&State) -> bool) -> State {
        let mut states = self.state.subscribe();
        let state = states.wait_for(wanted).await;
        state.map_or(State::Ended, |state| state.clone())
    }

    /// The state now.
    pub(super) fn state_now(&self) -> State {
        self.state.borrow().clone()
    }

    /// Puts a command behind the others; its answer comes unless the connection is ended.
    pub(super) fn send(&self, command: Command) -> Result<oneshot::Receiver<Answer>, Unanswered> {
        let (answer, receiver) = oneshot::channel();
        let was_empty = {
            let mut inbox = self.inbox.lock();
            if !inbox.is_open {
                return Err(Unanswered::NotSent);
            }
            if inbox.waiting.len() + inbox.under_way >= COMMANDS_MAX {
                return Err(Unanswered::Full);
            }
            inbox.waiting.push_back((command, answer));
            inbox.waiting.len() == 1
        };
        if was_empty {
            self.work.wake();
        }
        Ok(receiver)
    }

    /// Takes no more commands, and ends the connection once all have been answered.
    pub(super) fn begin_quit(&self) {
        self.inbox.lock().is_quitting = true;
        self.work.wake();
    }

    /// There will be no connection any more.
    pub(super) fn end(&self) {
        self.close(State::Ended);
    }

    fn open(&self) {
        self.connections.fetch_add(1, Ordering::Release);
        let mut inbox = self.inbox.lock();
        inbox.is_open = self.enter(State::Connected);
    }

    /// The state changes first: who hears that a command has failed must not take the connection for one
    /// that is still there.
    fn close(&self, state: State) {
        let waiting = {
            let mut inbox = self.inbox.lock();
            inbox.is_open = false;
            inbox.under_way = 0;
            self.enter(state);
            std::mem::take(&mut inbox.waiting)
        };
        refuse(waiting);
    }

    /// Enters a state, unless there is none any more: the task may still run as it is told to end.
    fn enter(&self, next: State) -> bool {
        self.state.send_if_modified(|state| {
            let has_next = !matches!(state, State::Ended);
            if has_next {
                *state = next;
            }
            has_next
        })
    }
}

/// Connects for ever, and serves each connection until it ends; returns when told to quit.
pub(super) async fn run(access: Arc<Access>, address: Address, link: Arc<Link>, is_logged: bool) {
    let mut failures = 0;
    let mut is_lost = false;
    loop {
        match access.connect(&address.host, address.port).await {
            Ok(stream) => {
                if std::mem::take(&mut is_lost) && is_logged {
                    info!(server = %address, "redis connection restored");
                }
                let mut session = Session::new(&link, stream, 2 * access.timeout());
                link.open();
                let Err(error) = poll_fn(|context| session.poll(context)).await else {
                    link.end();
                    return;
                };
                if is_logged {
                    warn!(%error, server = %address, "redis connection lost");
                }
                is_lost = true;
                // One that answered was a good one: the next attempts begin anew.
                failures = if session.has_answered { 0 } else { failures + 1 };
                link.close(State::Connecting);
                session.fail(error);
            }
            Err(error) => {
                // Said once, not with every attempt.
                if !std::mem::replace(&mut is_lost, true) && is_logged {
                    warn!(%error, server = %address, "redis connection failed");
                }
                failures += 1;
                link.close(State::Away(Arc::new(error)));
            }
        }
        tokio::time::sleep(spread(backoff(failures))).await;
    }
}

fn refuse(waiting: Waiting) {
    for (_, answer) in waiting {
        // Whoever waited may have gone.
        let _ = answer.send(Err(Unanswered::NotSent));
    }
}

fn backoff(failures: u32) -> Duration {
    BACKOFF_MIN.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX) / 2
}

/// From half the time to one and a half: those that lost the same server do not come back in step.
pub(super) fn spread(pause: Duration) -> Duration {
    let [chance, ..] = Uuid::new_v4().into_bytes();
    pause / 2 + pause * u32::from(chance) / 255
}

// === impl Session ===

impl<'a> Session<'a> {
    fn new(link: &'a Link, stream: Stream, silence_max: Duration) -> Self {
        Self {
            link,
            stream,
            taken: VecDeque::new(),
            out: Vec::new(),
            written: 0,
            under_way: VecDeque::new(),
            has_answered: false,
            input: vec![0; READ_BYTES],
            filled: 0,
            decoded: 0,
            has_more: false,
            silence_max,
            silence: Box::pin(sleep_until(Instant::now() + silence_max)),
        }
    }

    /// Ready when the connection has ended: as it was told to, or for some other reason.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        self.link.work.register(context.waker());
        loop {
            let is_quitting = self.take_commands();
            if is_quitting && self.under_way.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let wrote = self.write(context)?;
            let read = self.read(context)?;
            if read && self.hand_out()? {
                // Behind those who have been answered.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !wrote && !read {
                break;
            }
        }
        self.watch_silence(context)
    }

    /// Encodes what waits, as much as goes out at once. Returns whether nothing more is to come.
    fn take_commands(&mut self) -> bool {
        let is_quitting = {
            let mut inbox = self.link.inbox.lock();
            if self.taken.is_empty() {
                std::mem::swap(&mut self.taken, &mut inbox.waiting);
            }
            inbox.under_way = self.taken.len() + self.under_way.len();
            inbox.is_open &= !inbox.is_quitting;
            inbox.is_quitting && inbox.waiting.is_empty()
        };
        if !self.taken.is_empty() {
            let now = Instant::now();
            while self.out.len() < OUT_BYTES
                && let Some((command, answer)) = self.taken.pop_front()
            {
                if !answer.is_closed() {
                    command.write(&mut self.out);
                    self.under_way.push_back((answer, now));
                }
            }
        }
        is_quitting && self.taken.is_empty()
    }

    /// Returns whether all that was encoded is written, so that more may be.
    fn write(&mut self, context: &mut Context<'_>) -> Result<bool, LinkError> {
        while self.written < self.out.len() {
            let rest = &self.out[self.written..];
            match Pin::new(&mut self.stream).poll_write(context, rest) {
                Poll::Ready(Ok(0)) => return Err(LinkError::Closed),
                Poll::Ready(written) => self.written += written?,
                Poll::Pending => return Ok(false),
            }
        }
        let wrote = !self.out.is_empty();
        self.out.clear();
        self.written = 0;
        // With TLS, what is written may still be on its way to the socket.
        if let Poll::Ready(flushed) = Pin::new(&mut self.stream).poll_flush(context) {
            flushed?;
        }
        Ok(wrote)
    }

    /// Reads once, unless there is more to hand out. Returns whether there is anything.
    fn read(&mut self, context: &mut Context<'_>) -> Result<bool, LinkError> {
        if self.has_more {
            return Ok(true);
        }
        self.input.copy_within(self.decoded..self.filled, 0);
        self.filled -= self.decoded;
        self.decoded = 0;
        if self.filled == 0 && self.input.len() > READ_BYTES {
            self.input = vec![0; READ_BYTES];
        }
        if self.filled == self.input.len() {
            if self.filled >= REPLY_BYTES_MAX {
                return Err(LinkError::Endless);
            }
            self.input.resize(2 * self.filled, 0);
        }
        let mut space = ReadBuf::new(&mut self.input[self.filled..]);
        match Pin::new(&mut self.stream).poll_read(context, &mut space) {
            Poll::Pending => return Ok(false),
            Poll::Ready(read) => read?,
        }
        match space.filled().len() {
            0 => Err(LinkError::Closed),
            count => {
                self.filled += count;
                Ok(true)
            }
        }
    }

    /// Hands replies to their callers, so many at a time. Returns whether there may be more.
    fn hand_out(&mut self) -> Result<bool, LinkError> {
        self.has_more = false;
        for _ in 0..REPLIES_PER_TURN_MIN.max(self.under_way.len() / 4) {
            let Some((reply, taken)) = read_reply(&self.input[self.decoded..self.filled])? else {
                return Ok(false);
            };
            self.decoded += taken;
            self.has_answered = true;
            let (caller, _) = self.under_way.pop_front().ok_or(LinkError::OutOfStep)?;
            // Whoever waited may have gone.
            let _ = caller.send(match reply {
                Reply::Value(value) => Ok(value),
                Reply::Refused(words) => Err(Unanswered::Refused(words)),
            });
        }
        self.has_more = self.decoded < self.filled;
        Ok(self.has_more)
    }

    /// Ready when the oldest reply is overdue: the other end is gone without a word.
    fn watch_silence(&mut self, context: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        loop {
            ready!(self.silence.as_mut().poll(context));
            let now = Instant::now();
            let since = self.under_way.front().map_or(now, |(_, sent)| *sent);
            if now >= since + self.silence_max {
                return Poll::Ready(Err(LinkError::Silent));
            }
            self.silence.as_mut().reset(since + self.silence_max);
        }
    }

    /// Nobody knows what became of the commands that were on this connection, but of those whose replies
    /// have come; those that were only taken were not sent.
    fn fail(mut self, error: LinkError) {
        while let Ok(true) = self.hand_out() {}
        let error = Arc::new(error);
        for (caller, _) in self.under_way {
            let _ = caller.send(Err(Unanswered::Broken(error.clone())));
        }
        refuse(self.taken);
    }
}

// === impl Command ===

impl Command {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Publish { name, channel, envelope } => {
                write_command(out, &[name.as_bytes(), channel.as_bytes(), envelope]);
            }
            Self::Other { name, arguments } => {
                let arguments = arguments.iter().map(String::as_bytes);
                let parts: Vec<&[u8]> = std::iter::once(name.as_bytes()).chain(arguments).collect();
                write_command(out, &parts);
            }
        }
    }
}
