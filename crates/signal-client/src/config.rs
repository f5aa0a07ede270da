//! Where a client connects to, as whom, and how it comes back.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use serde_json::{Value, json};
use signal_core::v1::Variant;
use tokio_rustls::rustls::RootCertStore;

use crate::retry::Reconnect;
use crate::tls;

/// Why there are no credentials.
pub type LoginError = Box<dyn StdError + Send + Sync>;

pub(crate) type LoginFuture = Pin<Box<dyn Future<Output = Result<Value, LoginError>> + Send>>;

type Login = Arc<dyn Fn(LoginReason) -> LoginFuture + Send + Sync>;

/// What credentials are needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoginReason {
    /// To log in on a new connection.
    Login,
    /// The present ones end.
    Refresh,
    /// The last ones were refused: the same are no good.
    Refused,
}

/// The settings of a client.
#[derive(Clone)]
pub struct Config {
    pub(crate) url: Uri,
    pub(crate) login: Login,
    pub(crate) rooms: Vec<String>,
    pub(crate) reconnect: Option<Reconnect>,
    pub(crate) variant: Variant,
    /// Requests that may wait for a connection.
    pub(crate) queue: usize,
    pub(crate) is_encrypted: bool,
    /// `None` is the system's.
    pub(crate) authorities: Option<Arc<RootCertStore>>,
}

/// Why a client cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not an address of an edge.
    #[error("\"{0}\" is no address like ws://host:port/path or wss://host:port/path")]
    Url(String),
    /// A file with authorities that is none.
    #[error("no authorities can be read from {}: {problem}", path.display())]
    Authorities {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

// === impl Config ===

impl Config {
    /// A client of the edge at this address, like `ws://host:port/path` or `wss://host/path`, without
    /// credentials.
    pub fn new(url: &str) -> Result<Self, ConfigError> {
        let parsed = url.parse::<Uri>().ok();
        let parsed = parsed
            .filter(|uri| matches!(uri.scheme_str(), Some("ws" | "wss")) && uri.host().is_some());
        let url = parsed.ok_or_else(|| ConfigError::Url(url.to_owned()))?;
        Ok(Self {
            url,
            login: fixed(json!({})),
            rooms: Vec::new(),
            reconnect: Some(Reconnect::default()),
            variant: Variant::V1Json,
            queue: 0,
            is_encrypted: false,
            authorities: None,
        })
    }

    /// Logs in with this, every time.
    #[must_use]
    pub fn credentials(mut self, credentials: Value) -> Self {
        self.login = fixed(credentials);
        self
    }

    /// Asks for credentials, at each login and when they end.
    #[must_use]
    pub fn login<F, R>(mut self, login: F) -> Self
    where
        F: Fn(LoginReason) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Value, LoginError>> + Send + 'static,
    {
        self.login = Arc::new(move |reason| Box::pin(login(reason)));
        self
    }

    /// Joins this room from the beginning.
    #[must_use]
    pub fn room(mut self, room: impl Into<String>) -> Self {
        self.rooms.push(room.into());
        self
    }

    /// The least and the most time between two dials, and how long a connection has to last for the wait
    /// to begin anew.
    #[must_use]
    pub fn reconnect(mut self, min: Duration, max: Duration, stable: Duration) -> Self {
        self.reconnect = Some(Reconnect { min, max, stable });
        self
    }

    /// Sends a public key with each login, and opens what the edge then seals. What the client sends stays
    /// in clear.
    #[must_use]
    pub fn encrypted(mut self) -> Self {
        self.is_encrypted = true;
        self
    }

    /// Trusts the authorities of this file, in PEM, for `wss:`; without it those of the system.
    pub fn authorities(mut self, path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let authorities = tls::of_file(path)
            .map_err(|problem| ConfigError::Authorities { path: path.to_owned(), problem })?;
        self.authorities = Some(Arc::new(authorities));
        Ok(self)
    }

    /// Speaks `signal.v1.msgpack`; without it `signal.v1.json`.
    #[must_use]
    pub fn msgpack(mut self) -> Self {
        self.variant = Variant::V1MsgPack;
        self
    }

    /// Lets so many requests wait while there is no connection, within their time. They are sent once
    /// there is one; beyond, and without this, they fail as [`Offline`](crate::RequestError::Offline).
    #[must_use]
    pub fn queue(mut self, requests_max: usize) -> Self {
        self.queue = requests_max;
        self
    }

    /// Ends with the first connection.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.reconnect = None;
        self
    }
}

fn fixed(credentials: Value) -> Login {
    Arc::new(move |_| {
        let credentials = credentials.clone();
        Box::pin(async move { Ok(credentials) })
    })
}

impl fmt::Debug for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Credentials are not shown.
        formatter
            .debug_struct("Config")
            .field("url", &self.url)
            .field("rooms", &self.rooms)
            .field("reconnect", &self.reconnect)
            .finish_non_exhaustive()
    }
}
