//! Where an embedder decides: who may log in, who may join, and what to do with messages.
//!
//! Each hook is a trait with one async method, and each trait is implemented for closures. They
//! correspond one to one to the options of the TypeScript `WebSocketServerHelper`:
//!
//! | here | there |
//! |---|---|
//! | [`Authenticator`] | `authenticateFn` |
//! | [`Handshake`] | `handshakeFn` |
//! | [`RoomPolicy`] | `validateRoomFn` |
//! | [`ConnectHook`] | `clientConnectedFn` |
//! | [`DisconnectHook`] | `clientDisconnectedFn` |
//! | [`MessageHandler`] | `messageHandler` |
//! | [`OutboundTransformer`] | `outboundTransformer` |
//!
//! A hook's future runs on the connection's worker. One that is ready at once costs nothing more; one
//! that waits holds up later messages of its own connection, which keep their order, and nobody else.

use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use serde::de::DeserializeOwned;
use signal_core::close::CloseCode;
use signal_core::id::ClientId;

use crate::auth::RoomPattern;
use crate::handle::SignalHandle;

/// Anything that went wrong in a hook.
pub type HookError = Box<dyn StdError + Send + Sync>;

/// A connection, as hooks see it.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its id, given at the upgrade.
    pub id: ClientId,
    /// Whom it logged in as, if the authenticator named a user.
    pub user_id: Option<Arc<str>>,
    /// What the authenticator attached.
    pub metadata: Option<Arc<serde_json::Value>>,
    /// To send, publish, join, close.
    pub signal: SignalHandle,
}

/// What a client sent with `authenticate`.
#[derive(Clone, Debug)]
pub struct Credentials {
    json: String,
}

/// A login that was accepted.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Grant {
    /// The user; an empty id is shown to the client, but is no user to send to.
    pub user_id: Option<String>,
    /// Rooms it may join, beside those that the settings allow everyone.
    pub rooms: Vec<RoomPattern>,
    /// Rooms it is in from the start.
    pub join: Vec<String>,
    /// When the credentials end.
    pub expires: Option<SystemTime>,
    /// When they were issued. A user's revocation withdraws what was issued before it; credentials that
    /// do not say count as such.
    pub issued: Option<SystemTime>,
    /// The token's own id (`jti`), by which it alone can be revoked.
    pub token_id: Option<String>,
    /// Anything the embedder wants to find again in [`Client::metadata`].
    pub metadata: Option<serde_json::Value>,
}

/// A login that was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The credentials are no good; the log has the reason, the client is told only that it failed.
    #[error("credentials rejected: {0}")]
    Rejected(String),
    /// Nobody could tell whether they are.
    #[error("could not authenticate")]
    Failed(#[source] HookError),
}

/// A message of a logged-in client that Signal itself has no use for.
#[derive(Clone, Debug)]
pub struct Message {
    /// The event, never empty.
    pub event: String,
    /// The JSON text of `data`, untouched; `None` if there was none.
    pub data: Option<String>,
    /// The JSON text of `id`; `None` if there was none.
    pub id: Option<String>,
}

/// What a message's handler answers: the `data` of the acknowledgement, where the client asked for one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    json: Option<String>,
}

/// What a client is told after a handshake: the keys that end up in `connected`.
#[derive(Clone, Debug)]
pub struct HandshakeAnswer {
    /// `serverPublicKey` in `connected`.
    pub server_public_key: String,
    /// `salt` in `connected`.
    pub salt: String,
}

/// A delivery in another form, for one client.
#[derive(Clone, Debug)]
pub struct Transformed {
    /// The event.
    pub event: String,
    /// The JSON text of the data.
    pub data: Option<String>,
}

/// Decides who may log in.
pub trait Authenticator: Send + Sync + 'static {
    /// Whom these credentials stand for.
    fn authenticate(
        &self,
        client: ClientId,
        credentials: Credentials,
    ) -> impl Future<Output = Result<Grant, AuthError>> + Send;
}

/// Decides which rooms a client may join.
pub trait RoomPolicy: Send + Sync + 'static {
    /// Those of `rooms` that the client may join; others in the answer are ignored. The names have
    /// been checked already.
    fn allow(
        &self,
        client: Client,
        rooms: Vec<String>,
    ) -> impl Future<Output = Result<Vec<String>, HookError>> + Send;
}

/// Told when a client has logged in.
pub trait ConnectHook: Send + Sync + 'static {
    /// The client has been sent `connected`, or will be before anything else.
    fn connected(&self, client: Client) -> impl Future<Output = Result<(), HookError>> + Send;
}

/// Told when a connection has ended that had been logged in or not.
pub trait DisconnectHook: Send + Sync + 'static {
    /// Nothing can be sent to it any more. The code is Signal's own reason, if it had one.
    fn disconnected(
        &self,
        client: Client,
        code: Option<CloseCode>,
    ) -> impl Future<Output = Result<(), HookError>> + Send;
}

/// Handles what clients send beside logging in, joining and leaving.
pub trait MessageHandler: Send + Sync + 'static {
    /// One message; those of one connection come one after another, in order. Clients of `signal.v1`
    /// that sent an id get the reply as the acknowledgement's data, or an error.
    fn handle(
        &self,
        client: Client,
        message: Message,
    ) -> impl Future<Output = Result<Reply, HookError>> + Send;
}

/// Agrees on keys with a client that is logging in; instead of the encryption that is built in.
pub trait Handshake: Send + Sync + 'static {
    /// What goes into `connected`; `None` if the client sent nothing to agree on. From then on the
    /// client's deliveries pass through the [`OutboundTransformer`].
    fn handshake(
        &self,
        client: Client,
        credentials: Credentials,
    ) -> impl Future<Output = Result<Option<HandshakeAnswer>, HookError>> + Send;
}

/// Changes what one client gets, to encrypt it for one.
pub trait OutboundTransformer: Send + Sync + 'static {
    /// The delivery in its other form; `None` leaves it as it is. Called in the order of delivery, and
    /// on the delivery path: it must not block, so it is not async.
    fn transform(&self, client: &Client, event: &str, data: Option<&str>) -> Option<Transformed>;
}

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The hooks of an edge, without their types.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    /// Set when the edge is bound.
    pub(crate) authenticate: Option<AuthenticateFn>,
    pub(crate) allow: Option<AllowFn>,
    pub(crate) connected: Option<ConnectedFn>,
    pub(crate) disconnected: Option<DisconnectedFn>,
    pub(crate) message: Option<MessageFn>,
    pub(crate) handshake: Option<HandshakeFn>,
    pub(crate) transform: Option<Arc<dyn OutboundTransformer>>,
}

pub(crate) type AuthenticateFn =
    Arc<dyn Fn(ClientId, Credentials) -> BoxFuture<Result<Grant, AuthError>> + Send + Sync>;
pub(crate) type AllowFn =
    Arc<dyn Fn(Client, Vec<String>) -> BoxFuture<Result<Vec<String>, HookError>> + Send + Sync>;
pub(crate) type ConnectedFn = Arc<dyn Fn(Client) -> BoxFuture<Result<(), HookError>> + Send + Sync>;
pub(crate) type DisconnectedFn =
    Arc<dyn Fn(Client, Option<CloseCode>) -> BoxFuture<Result<(), HookError>> + Send + Sync>;
pub(crate) type MessageFn =
    Arc<dyn Fn(Client, Message) -> BoxFuture<Result<Reply, HookError>> + Send + Sync>;
pub(crate) type HandshakeFn = Arc<
    dyn Fn(Client, Credentials) -> BoxFuture<Result<Option<HandshakeAnswer>, HookError>>
        + Send
        + Sync,
>;

/// Takes a hook's type away: its method becomes a function whose futures own the hook.
macro_rules! erase {
    ($hook:expr, $method:ident($($argument:ident),*)) => {{
        let hook = std::sync::Arc::new($hook);
        std::sync::Arc::new(move |$($argument),*| {
            let hook = hook.clone();
            Box::pin(async move { hook.$method($($argument),*).await })
                as $crate::hooks::BoxFuture<_>
        })
    }};
}
pub(crate) use erase;

// === impl Credentials ===

impl Credentials {
    /// What a client sent; null and nothing count as `{}`.
    pub(crate) fn of(data: Option<&str>) -> Self {
        Self { json: data.filter(|data| *data != "null").unwrap_or("{}").to_owned() }
    }

    /// The JSON text of `data`; `{}` where the client sent null or nothing.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Reads them as a type of your own.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.json)
    }

    /// A member that is a string: `token`, `userId`.
    pub fn string(&self, name: &str) -> Option<String> {
        let mut members = self.parse::<serde_json::Map<String, serde_json::Value>>().ok()?;
        match members.remove(name) {
            Some(serde_json::Value::String(text)) => Some(text),
            _ => None,
        }
    }
}

// === impl Grant ===

impl Grant {
    /// A login as this user, with no further rights.
    pub fn user(user_id: impl Into<String>) -> Self {
        Self { user_id: Some(user_id.into()), ..Self::default() }
    }
}

// === impl Message ===

impl Message {
    /// Reads the data as a type of your own; absent data reads as `null`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.data.as_deref().unwrap_or("null"))
    }
}

// === impl Reply ===

impl Reply {
    /// Data, as JSON.
    pub fn data<T: Serialize + ?Sized>(data: &T) -> Result<Self, serde_json::Error> {
        serde_json::to_string(data).map(|json| Self { json: Some(json) })
    }

    /// The JSON text; `null` if there is no data.
    pub(crate) fn json(&self) -> &str {
        self.json.as_deref().unwrap_or("null")
    }
}

impl From<()> for Reply {
    fn from((): ()) -> Self {
        Self::default()
    }
}

// === closures ===

impl<F, R> Authenticator for F
where
    F: Fn(ClientId, Credentials) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Grant, AuthError>> + Send,
{
    fn authenticate(
        &self,
        client: ClientId,
        credentials: Credentials,
    ) -> impl Future<Output = Result<Grant, AuthError>> + Send {
        self(client, credentials)
    }
}

impl<F, R> RoomPolicy for F
where
    F: Fn(Client, Vec<String>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Vec<String>, HookError>> + Send,
{
    fn allow(
        &self,
        client: Client,
        rooms: Vec<String>,
    ) -> impl Future<Output = Result<Vec<String>, HookError>> + Send {
        self(client, rooms)
    }
}

impl<F, R> ConnectHook for F
where
    F: Fn(Client) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), HookError>> + Send,
{
    fn connected(&self, client: Client) -> impl Future<Output = Result<(), HookError>> + Send {
        self(client)
    }
}

impl<F, R> DisconnectHook for F
where
    F: Fn(Client, Option<CloseCode>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<(), HookError>> + Send,
{
    fn disconnected(
        &self,
        client: Client,
        code: Option<CloseCode>,
    ) -> impl Future<Output = Result<(), HookError>> + Send {
        self(client, code)
    }
}

impl<F, R, T> MessageHandler for F
where
    F: Fn(Client, Message) -> R + Send + Sync + 'static,
    R: Future<Output = Result<T, HookError>> + Send,
    T: Into<Reply>,
{
    fn handle(
        &self,
        client: Client,
        message: Message,
    ) -> impl Future<Output = Result<Reply, HookError>> + Send {
        let answer = self(client, message);
        async { answer.await.map(Into::into) }
    }
}

impl<F, R> Handshake for F
where
    F: Fn(Client, Credentials) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Option<HandshakeAnswer>, HookError>> + Send,
{
    fn handshake(
        &self,
        client: Client,
        credentials: Credentials,
    ) -> impl Future<Output = Result<Option<HandshakeAnswer>, HookError>> + Send {
        self(client, credentials)
    }
}

impl<F> OutboundTransformer for F
where
    F: Fn(&Client, &str, Option<&str>) -> Option<Transformed> + Send + Sync + 'static,
{
    fn transform(&self, client: &Client, event: &str, data: Option<&str>) -> Option<Transformed> {
        self(client, event, data)
    }
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Hooks").finish_non_exhaustive()
    }
}
