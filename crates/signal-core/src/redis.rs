//! The Redis settings that edges and producers share.
//!
//! Owns names, defaults and validation of `APP_ENV_WEBSOCKET_REDIS_*`. It must never read the
//! environment or a file: the caller passes a lookup, and reads the password file itself.

mod lookup;

use std::{fmt, path::PathBuf};

use crate::envelope::Codec;
pub use lookup::{SettingError, VARIABLES};

/// How to reach Redis, and how to speak on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisSettings {
    /// Where Redis is, if there is one.
    pub mode: RedisMode,
    /// The ACL user; without one Redis takes `default`.
    pub username: Option<String>,
    /// The password, if it was given as such.
    pub password: Option<Secret>,
    /// The file with the password, if it was given so. Never together with `password`.
    pub password_file: Option<PathBuf>,
    /// TLS, if it is on.
    pub tls: Option<TlsSettings>,
    /// In front of every channel.
    pub prefix: String,
    /// The commands that publish and subscribe.
    pub pubsub: PubSub,
    /// The form in which envelopes are sent.
    pub codec: Codec,
}

/// Where Redis is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RedisMode {
    /// Nowhere: one edge, its bus in the process.
    #[default]
    None,
    /// One server.
    Single {
        /// Name or address.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A Redis Cluster.
    Cluster {
        /// Seeds, at least one; the rest is learned from them.
        nodes: Vec<(String, u16)>,
    },
}

/// TLS to Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// PEM file of the authorities to trust; without one, those of the system.
    pub ca_file: Option<PathBuf>,
}

/// The commands that publish and subscribe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PubSub {
    /// `PUBLISH`, what TypeScript servers and emitters use.
    #[default]
    Classic,
    /// `SPUBLISH`, in a cluster only.
    Sharded,
}

/// A string that is not shown by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

// === impl RedisSettings ===

impl RedisSettings {
    /// One Redis at this address, everything else at its default.
    pub fn single(host: &str, port: u16) -> Self {
        Self { mode: RedisMode::Single { host: host.to_owned(), port }, ..Self::default() }
    }

    /// Reads the settings from `lookup`, which maps the name of a variable to its value.
    ///
    /// An empty value is as good as none.
    ///
    /// # Errors
    ///
    /// The first setting that is not allowed, as one sentence for the operator.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingError> {
        lookup::read(&lookup)
    }
}

// === impl PubSub ===

impl PubSub {
    /// The word in settings and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Sharded => "sharded",
        }
    }
}

// === impl Secret ===

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself: the one place to look for who uses it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}
