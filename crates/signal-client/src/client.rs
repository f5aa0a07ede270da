//! What an application holds: a handle to ask with, and what it hears.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use crate::config::Config;
use crate::driver::Driver;
use crate::event::Event;
use crate::queue::Request;

/// Events that wait to be read. When so many do, the connection is not read any further, and the edge
/// closes it in the end as a slow consumer.
const EVENTS_MAX: usize = 1024;

/// Requests that wait for the driver; beyond, who asks waits.
const COMMANDS_MAX: usize = 64;

/// A request takes no longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A client, to ask with. Clones speak for the same connection, which ends with [`close`](Self::close),
/// or when its [`Events`] are dropped.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
}

/// What a client hears. It has to be read: everything waits for it.
#[derive(Debug)]
pub struct Events {
    events: mpsc::Receiver<Event>,
}

/// Why a request was not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// There is no connection, and no place in the queue: nothing was sent.
    #[error("the client is not online")]
    Offline,
    /// Too many requests wait for their answers: nothing was sent.
    #[error("too many requests wait for their answers")]
    Busy,
    /// The connection was lost before the answer.
    #[error("the connection was lost before the answer")]
    Disconnected,
    /// The answer did not come in time.
    #[error("the request was not answered in time")]
    Timeout,
    /// A room may not be joined.
    #[error("a room may not be joined: {0:?}")]
    Denied(Vec<String>),
    /// A room was left meanwhile.
    #[error("the room was left")]
    Left,
    /// The client is closed.
    #[error("the client is closed")]
    Closed,
    /// The data cannot be written as JSON.
    #[error("the data is no JSON: {0}")]
    Data(String),
    /// The edge answered with an error.
    #[error("{message} ({code})")]
    Refused {
        /// For programs.
        code: String,
        /// For people.
        message: String,
    },
}

pub(crate) type Answer = oneshot::Sender<Result<Box<RawValue>, RequestError>>;

#[derive(Debug)]
pub(crate) enum Command {
    Join { rooms: Vec<String>, answer: oneshot::Sender<Result<(), RequestError>> },
    Leave { rooms: Vec<String> },
    Request(Request),
    Close,
}

/// Connects, and goes on until it is closed. Needs a tokio runtime.
pub fn connect(config: Config) -> (Client, Events) {
    let (commands, asked) = mpsc::channel(COMMANDS_MAX);
    let (events, heard) = mpsc::channel(EVENTS_MAX);
    tokio::spawn(Driver::new(config, asked, events).run());
    (Client { commands }, Events { events: heard })
}

// === impl Client ===

impl Client {
    /// Joins rooms, and joins them again on every connection. Ends once nothing published from now on is
    /// missed, however long that takes.
    pub async fn join<R: Into<String>>(
        &self,
        rooms: impl IntoIterator<Item = R>,
    ) -> Result<(), RequestError> {
        let (answer, joined) = oneshot::channel();
        let rooms = rooms.into_iter().map(Into::into).collect();
        self.send(Command::Join { rooms, answer }).await?;
        joined.await.unwrap_or(Err(RequestError::Closed))
    }

    /// Leaves rooms, and forgets them.
    pub async fn leave<R: Into<String>>(
        &self,
        rooms: impl IntoIterator<Item = R>,
    ) -> Result<(), RequestError> {
        let rooms = rooms.into_iter().map(Into::into).collect();
        self.send(Command::Leave { rooms }).await
    }

    /// Sends, and ends with what the edge's handler answers. Without a connection it fails, or waits for
    /// one if [`Config::queue`] lets it.
    pub async fn request<T: Serialize + ?Sized>(
        &self,
        event: &str,
        data: &T,
    ) -> Result<Box<RawValue>, RequestError> {
        let data = serde_json::value::to_raw_value(data)
            .map_err(|error| RequestError::Data(error.to_string()))?;
        let (answer, answered) = oneshot::channel();
        let event = event.to_owned();
        let request = async {
            self.send(Command::Request(Request { event, data, answer })).await?;
            answered.await.unwrap_or(Err(RequestError::Closed))
        };
        tokio::time::timeout(REQUEST_TIMEOUT, request).await.unwrap_or(Err(RequestError::Timeout))
    }

    /// Ends the connection for good.
    pub async fn close(&self) {
        // It may have ended already.
        let _ = self.send(Command::Close).await;
    }

    async fn send(&self, command: Command) -> Result<(), RequestError> {
        self.commands.send(command).await.map_err(|_| RequestError::Closed)
    }
}

// === impl Events ===

impl Events {
    /// The next event; `None` after [`Event::Closed`].
    ///
    /// # Cancel safety
    ///
    /// No event is lost.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}
