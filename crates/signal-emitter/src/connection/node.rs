//! One server of Redis: its link, and what its answers mean.
//!
//! It sends a command once, at its first poll or never, and not after its timeout; what may be tried
//! again is for others to decide. It ends with this value.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use redis_protocol::resp3::types::OwnedFrame;
use signal_core::redis::PubSub;
use tokio::{
    sync::oneshot,
    task::AbortHandle,
    time::{Instant, timeout, timeout_at},
};

use super::{
    access::{Access, LinkError},
    link::{self, Answer, Command, Link, State, Unanswered},
    resp::number,
    slots::Address,
};
use crate::EmitterError;

/// A server; see the module.
pub(super) struct Node {
    address: Address,
    timeout: Duration,
    link: Arc<Link>,
    task: AbortHandle,
}

/// A message that was queued, or could not be.
pub(super) struct Published<'a> {
    node: &'a Node,
    sent: Sent,
}

type Sent = Result<oneshot::Receiver<Answer>, Unanswered>;

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
    Broken(Arc<LinkError>),
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
    pub(super) fn start(access: &Arc<Access>, address: Address, log: Log) -> Self {
        let link = Arc::new(Link::new());
        let is_logged = log == Log::Changes;
        let running = link::run(access.clone(), address.clone(), link.clone(), is_logged);
        let task = tokio::spawn(running).abort_handle();
        Self { address, timeout: access.timeout(), link, task }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// The longest that a command takes without a deadline of its own.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn is_connected(&self) -> bool {
        self.link.is_connected()
    }

    /// How often it has connected: another number, another connection.
    pub(super) fn connections(&self) -> u64 {
        self.link.connections()
    }

    /// Whether the first attempt to connect, or to connect again, is still under way.
    pub(super) fn is_connecting(&self) -> bool {
        self.link.is_connecting()
    }

    /// Waits for a connection until then, or until Redis says that there will be none.
    pub(super) async fn connected(&self, until: Instant) -> Result<(), EmitterError> {
        let is_clear = |state: &State| match state {
            State::Connected | State::Ended => true,
            State::Connecting => false,
            State::Away(error) => error.is_lasting(),
        };
        let source = match timeout_at(until, self.link.state(is_clear)).await {
            Ok(State::Connected) => return Ok(()),
            // The last attempt says more than that time is over.
            outcome => match outcome.unwrap_or_else(|_| self.link.state_now()) {
                State::Away(error) => error,
                _ => Arc::new(LinkError::ConnectTimeout),
            },
        };
        Err(EmitterError::Connect { address: self.address.to_string(), source: source.into() })
    }

    /// Waits until the first attempt to connect has ended, or until then; returns whether it worked.
    pub(super) async fn settled(&self, until: Instant) -> bool {
        let is_settled = |state: &State| !matches!(state, State::Connecting);
        let settled = timeout_at(until, self.link.state(is_settled)).await;
        matches!(settled, Ok(State::Connected))
    }

    /// Queues a message; its [`Published`] says what became of it.
    pub(super) fn publish(
        &self,
        pubsub: PubSub,
        channel: String,
        envelope: Bytes,
    ) -> Published<'_> {
        let name = match pubsub {
            PubSub::Classic => "PUBLISH",
            PubSub::Sharded => "SPUBLISH",
        };
        Published { node: self, sent: self.link.send(Command::Publish { name, channel, envelope }) }
    }

    /// Runs any other command.
    pub(super) async fn command(
        &self,
        name: &'static str,
        arguments: Vec<String>,
    ) -> Result<OwnedFrame, Failure> {
        self.answer(self.link.send(Command::Other { name, arguments }), self.timeout).await
    }

    async fn answer(&self, sent: Sent, longest: Duration) -> Result<OwnedFrame, Failure> {
        let answer = match sent {
            Ok(answer) => timeout(longest, answer).await.map_err(|_| Failure::Timeout)?,
            Err(unsent) => Ok(Err(unsent)),
        };
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Unanswered::NotSent)) => Err(Failure::NotSent),
            Ok(Err(Unanswered::Full)) => Err(Failure::Full),
            Ok(Err(Unanswered::Broken(error))) => Err(Failure::Broken(error)),
            Ok(Err(Unanswered::Refused(words))) => Err(self.refusal(words)),
            // Ended while the command was on its way.
            Err(_) => Err(Failure::Broken(Arc::new(LinkError::Closed))),
        }
    }

    fn refusal(&self, words: String) -> Failure {
        let mut parts = words.split(' ');
        match parts.next().unwrap_or_default() {
            "MOVED" => match parts.nth(1).and_then(|text| Address::parse(text, &self.address)) {
                Some(address) => Failure::Moved(address, words),
                None => Failure::Refused(words),
            },
            "CLUSTERDOWN" | "LOADING" | "TRYAGAIN" | "MASTERDOWN" | "ASK" => {
                Failure::Transient(words)
            }
            _ => Failure::Refused(words),
        }
    }

    /// Ends the connection after what is under way has been answered.
    pub(super) async fn quit(&self) {
        self.link.begin_quit();
        let is_over = |state: &State| !matches!(state, State::Connected);
        self.link.state(is_over).await;
        self.abort();
    }

    /// Ends the connection at once.
    pub(super) fn abort(&self) {
        self.task.abort();
        self.link.end();
    }
}

// === impl Published ===

impl Published<'_> {
    /// The receivers that the server knows of.
    pub(super) async fn receivers(self, timeout: Duration) -> Result<u64, Failure> {
        let answer = self.node.answer(self.sent, timeout).await?;
        number(&answer).ok_or_else(|| Failure::Refused("the answer is no number".to_owned()))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.abort();
    }
}
