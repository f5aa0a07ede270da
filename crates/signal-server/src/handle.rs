//! What an embedder holds to send, publish, join and close, from any thread.
//!
//! A handle is a reference to the edge's shared state; every method is a message to a worker or to the
//! bus and its answer. It owns nothing and never touches a socket. Each call is bounded: by a worker's
//! turn, or by the bus' command timeout.

mod revoke;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use signal_core::channel::Target;
use signal_core::close::CloseCode;
use signal_core::envelope::{Envelope, Kind};
use signal_core::id::ClientId;
use signal_core::message::json_string;
use signal_core::redis::PubSub;
use signal_core::revocation::RevocationError;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::bus::{PublishError, Published, Publisher, memory};
use crate::config::ConfigError;
use crate::counts::{ConnectionInfo, Counts};
use crate::server::{PublishCase, PublishResult, Shared};
use crate::worker::{Command, Filter};

/// Sends and publishes; see the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SignalHandle {
    shared: Arc<Shared>,
}

/// A message to publish, and to whom.
#[derive(Clone, Debug)]
pub struct Publication<'a> {
    target: Target<'a>,
    event: Cow<'a, str>,
    data: Option<Cow<'a, str>>,
    exclude: Vec<String>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sent {
    /// To a client of this edge, directly.
    Local,
    /// To the bus, which has so many subscribers for it.
    Published(Published),
    /// The bus is away: to this edge's clients only.
    LocalOnly,
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The data is not to be had as JSON.
    #[error("data cannot be written as JSON")]
    Data(#[from] serde_json::Error),
    /// There is no such room, user or client, since the name is empty.
    #[error("the target has no name")]
    NoTarget,
    /// There is no event.
    #[error("the event is empty")]
    NoEvent,
    /// What is to be revoked cannot be.
    #[error(transparent)]
    Revocation(#[from] RevocationError),
    /// The bus did not take it.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The edge has ended.
    #[error("the edge has ended")]
    Ended,
}

// === impl Publication ===

impl<'a> Publication<'a> {
    /// To a room.
    pub fn room(room: &'a str, event: impl Into<Cow<'a, str>>) -> Self {
        Self::to(Target::Room(room), event)
    }

    /// To all connections of a user.
    pub fn user(user_id: &'a str, event: impl Into<Cow<'a, str>>) -> Self {
        Self::to(Target::User(user_id), event)
    }

    /// To one client.
    pub fn client(client_id: &'a str, event: impl Into<Cow<'a, str>>) -> Self {
        Self::to(Target::Client(client_id), event)
    }

    /// To every logged-in client.
    pub fn broadcast(event: impl Into<Cow<'a, str>>) -> Self {
        Self::to(Target::Broadcast, event)
    }

    /// To a target.
    pub fn to(target: Target<'a>, event: impl Into<Cow<'a, str>>) -> Self {
        Self { target, event: event.into(), data: None, exclude: Vec::new() }
    }

    /// With data, as JSON.
    pub fn data<T: Serialize + ?Sized>(mut self, data: &T) -> Result<Self, SendError> {
        self.data = Some(Cow::Owned(serde_json::to_string(data)?));
        Ok(self)
    }

    /// With data that is JSON text already; it is delivered as it is.
    #[must_use]
    pub fn json(mut self, json: &'a serde_json::value::RawValue) -> Self {
        self.data = Some(Cow::Borrowed(json.get()));
        self
    }

    /// Not to these clients, by id; ids of TypeScript servers are as good as Signal's. For rooms and
    /// broadcasts.
    #[must_use]
    pub fn exclude(mut self, clients: impl IntoIterator<Item = impl ToString>) -> Self {
        self.exclude.extend(clients.into_iter().map(|client| client.to_string()));
        self
    }
}

// === impl SignalHandle ===

impl SignalHandle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The name of this edge on the bus.
    pub fn instance(&self) -> &str {
        &self.shared.instance.name
    }

    /// Reads the files of the settings anew that may change while the edge runs: the keys of tokens and
    /// the certificate. What is no good changes nothing, and is told. It reads files, so it may block for
    /// a moment.
    pub fn reload(&self) -> Result<(), ConfigError> {
        let certificate = self.shared.tls.as_ref().map_or(Ok(()), |tls| tls.reload());
        self.shared.auth.reload().and(certificate)
    }

    /// Sends as a TypeScript server does: nowhere in particular, to everyone; to a client of this edge,
    /// to it; else to the room of that name, which is also where a client of another edge is.
    pub async fn send<T: Serialize + ?Sized>(
        &self,
        destination: Option<&str>,
        event: &str,
        data: &T,
    ) -> Result<Sent, SendError> {
        match destination.filter(|destination| !destination.is_empty()) {
            None => self.broadcast(event, data).await,
            Some(id) => {
                let data = serde_json::to_string(data)?;
                if let Some(client) = ClientId::parse(id)
                    && self.send_here(client, event, &data).await?
                {
                    return Ok(Sent::Local);
                }
                self.publish_json(Target::Room(id), event, Some(&data), &[]).await
            }
        }
    }

    /// Sends to one client: directly if it is on this edge, else over the bus.
    pub async fn send_to_client<T: Serialize + ?Sized>(
        &self,
        client_id: &str,
        event: &str,
        data: &T,
    ) -> Result<Sent, SendError> {
        self.publish(Publication::client(client_id, event).data(data)?).await
    }

    /// Publishes to all connections of a user, on any edge.
    pub async fn send_to_user<T: Serialize + ?Sized>(
        &self,
        user_id: &str,
        event: &str,
        data: &T,
    ) -> Result<Sent, SendError> {
        self.publish(Publication::user(user_id, event).data(data)?).await
    }

    /// Publishes to the members of a room, on any edge.
    pub async fn send_to_room<T: Serialize + ?Sized>(
        &self,
        room: &str,
        event: &str,
        data: &T,
    ) -> Result<Sent, SendError> {
        self.publish(Publication::room(room, event).data(data)?).await
    }

    /// Publishes to every logged-in client, on any edge.
    pub async fn broadcast<T: Serialize + ?Sized>(
        &self,
        event: &str,
        data: &T,
    ) -> Result<Sent, SendError> {
        self.publish(Publication::broadcast(event).data(data)?).await
    }

    /// Publishes. Publications awaited one after another arrive in order at each target.
    pub async fn publish(&self, publication: Publication<'_>) -> Result<Sent, SendError> {
        let Publication { target, event, data, exclude } = publication;
        if let Target::Client(id) = target
            && let Some(client) = ClientId::parse(id)
            && self.send_here(client, &event, data.as_deref().unwrap_or("")).await?
        {
            return Ok(Sent::Local);
        }
        self.publish_json(target, &event, data.as_deref(), &exclude).await
    }

    /// Puts a client of this edge into a room, without asking the room policy; `false` if it is not on
    /// this edge.
    pub async fn join(&self, client: ClientId, room: &str) -> Result<bool, SendError> {
        if room.is_empty() {
            return Err(SendError::NoTarget);
        }
        let room = room.to_owned();
        self.ask(client, |found| Command::Join { client, room, found }).await
    }

    /// Takes a client of this edge out of a room; `false` if it is not on this edge.
    pub async fn leave(&self, client: ClientId, room: &str) -> Result<bool, SendError> {
        let room = room.to_owned();
        self.ask(client, |found| Command::Leave { client, room, found }).await
    }

    /// Closes a client of this edge; `false` if it is not on this edge.
    pub async fn close(&self, client: ClientId, code: CloseCode) -> Result<bool, SendError> {
        self.ask(client, |found| Command::Close { client, code, found }).await
    }

    /// Numbers of this edge, as they are now.
    pub async fn counts(&self) -> Result<Counts, SendError> {
        let mut counts = Counts::default();
        let answers: Vec<_> = (0..self.shared.queues.len())
            .map(|worker| {
                let (answer, answered) = oneshot::channel();
                self.command(worker, Command::Count(answer));
                answered
            })
            .collect();
        for answer in answers {
            counts.add(&answer.await.map_err(|_| SendError::Ended)?);
        }
        counts.directory = self.shared.directory.len();
        counts.unauthenticated = self.shared.gate.unauthenticated();
        Ok(counts)
    }

    /// Connections of this edge that match every part given, no more than `limit`.
    pub async fn connections(
        &self,
        user: Option<&str>,
        room: Option<&str>,
        client: Option<ClientId>,
        limit: usize,
    ) -> Result<Vec<ConnectionInfo>, SendError> {
        let filter =
            Filter { user: user.map(str::to_owned), room: room.map(str::to_owned), client, limit };
        let mut found = Vec::new();
        for worker in 0..self.shared.queues.len() {
            let filter = Filter { limit: limit - found.len(), ..filter.clone() };
            let (answer, answered) = oneshot::channel();
            self.command(worker, Command::List(filter, answer));
            found.extend(answered.await.map_err(|_| SendError::Ended)?);
        }
        Ok(found)
    }

    /// Begins the drain, as the end of the future given to [`Signal::run`](crate::Signal::run) does.
    pub fn drain(&self) {
        self.shared.drain_asked.notify_one();
    }

    /// Whether this edge would take new connections, and why not.
    pub fn readiness(&self) -> Vec<String> {
        self.shared.not_ready()
    }

    /// Sends to a client of this edge; `false` if it is not on this edge.
    async fn send_here(
        &self,
        client: ClientId,
        event: &str,
        data: &str,
    ) -> Result<bool, SendError> {
        let event_json = event_json(event)?;
        let data = (!data.is_empty()).then(|| data.to_owned());
        self.ask(client, |found| Command::Send { client, event_json, data, found }).await
    }

    async fn publish_json(
        &self,
        target: Target<'_>,
        event: &str,
        data: Option<&str>,
        exclude: &[String],
    ) -> Result<Sent, SendError> {
        let (kind, name) = match target {
            Target::Broadcast => (Kind::Broadcast, None),
            Target::Room(name) => (Kind::Room, Some(name)),
            Target::User(name) => (Kind::User, Some(name)),
            Target::Client(name) => (Kind::Client, Some(name)),
        };
        if name.is_some_and(str::is_empty) {
            return Err(SendError::NoTarget);
        }
        let envelope = Envelope {
            server_id: Cow::Borrowed(&self.shared.instance.name),
            kind,
            target: name.map(Cow::Borrowed),
            event_json: Cow::Owned(event_json(event)?),
            data,
            exclude: exclude.iter().map(|client| Cow::Borrowed(client.as_str())).collect(),
            id: self.message_id(),
            ts: None,
            from: None,
            trace: crate::trace::current().map(Cow::Owned),
        };
        let mut bytes = Vec::new();
        envelope.encode(self.shared.codec, &mut bytes);
        let bytes_max = self.shared.config.max_bus_message;
        if bytes.len() > bytes_max {
            return Err(PublishError::TooLarge { bytes: bytes.len(), bytes_max }.into());
        }
        let bytes = Bytes::from(bytes);
        let outcome = match &self.shared.publisher {
            Publisher::Memory => memory::publish(&self.shared, target, bytes).map(Sent::Published),
            Publisher::Redis(publisher) => {
                let channel = self.shared.names.name(target);
                match publisher.publish(channel, bytes.clone()).await {
                    // Nothing was sent, so nobody gets it twice.
                    Err(PublishError::Disconnected) => {
                        memory::publish(&self.shared, target, bytes).map(|_| Sent::LocalOnly)
                    }
                    outcome => outcome.map(Sent::Published),
                }
            }
        };
        let result = match &outcome {
            Ok(Sent::Published(published)) if published.receivers == Some(0) => {
                PublishResult::Unheard
            }
            Ok(Sent::LocalOnly) => PublishResult::LocalOnly,
            Ok(_) => PublishResult::Taken,
            Err(_) => PublishResult::Failed,
        };
        self.shared.published.count(PublishCase(kind, result));
        Ok(outcome?)
    }

    /// With sharded pub/sub a message may come twice while a master and its replica change places: its id
    /// is what edges know it by.
    fn message_id(&self) -> Option<Cow<'static, str>> {
        let settings = self.shared.redis.as_ref()?.settings();
        (settings.pubsub == PubSub::Sharded).then(|| Uuid::now_v7().to_string().into())
    }

    /// Asks the worker that a client's id names; `false` if it is of another edge, or gone.
    async fn ask(
        &self,
        client: ClientId,
        command: impl FnOnce(oneshot::Sender<bool>) -> Command,
    ) -> Result<bool, SendError> {
        let worker = usize::from(client.worker());
        if client.instance() != self.shared.instance.tag || worker >= self.shared.queues.len() {
            return Ok(false);
        }
        let (found, answer) = oneshot::channel();
        self.command(worker, command(found));
        answer.await.map_err(|_| SendError::Ended)
    }

    /// Hands a command to a worker. One that has ended drops it, and with it the sender of the answer.
    fn command(&self, worker: usize, command: Command) {
        self.shared.queues[worker].control(command);
    }
}

fn event_json(event: &str) -> Result<String, SendError> {
    if event.is_empty() {
        return Err(SendError::NoEvent);
    }
    Ok(json_string(event))
}
