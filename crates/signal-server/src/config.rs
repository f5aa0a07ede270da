//! Settings: from arguments and environment to a typed, validated [`Config`].
//!
//! One table, [`SETTINGS`], names every setting with its default and meaning; flags, environment,
//! `--help`, `signal check` and the README all come from it. This is the only module that reads the
//! environment. A value that is not allowed is one sentence that names the variable and what is; an
//! unknown `SIGNAL_*` variable is an error too, since a misspelt limit is no limit.

mod auth;
mod network;
mod parse;
mod table;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use signal_core::limits;
use signal_core::redis::{RedisMode, RedisSettings, Secret, SettingError};

pub use self::auth::{Auth, HttpUrl, JwtSettings, KeySource, WebhookSettings};
pub use self::network::{Network, NetworkError};
pub use self::table::{SETTINGS, Setting};

use self::parse::{address, bytes, duration, list, number};
use crate::auth::RoomPattern;

/// Open files that are not connections: listeners, Redis, logs, and some to spare.
const FILES_RESERVED: u64 = 256;

/// How the edge is to run. [`Config::default`] is what an empty environment gives, but for the
/// authentication, which has no default that would be safe.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where operators connect; `None` for nowhere.
    pub admin_listen: Option<SocketAddr>,
    /// The path of the WebSocket.
    pub path: String,
    /// Threads that serve connections, 1 to 64.
    pub workers: usize,
    /// How clients log in, unless the embedder decides.
    pub auth: Auth,
    /// Room patterns that any logged-in client may join.
    pub rooms: Vec<RoomPattern>,
    /// Rooms that every client is in from the start.
    pub default_rooms: Vec<String>,
    /// Whether payloads are encrypted.
    pub encryption: Encryption,
    /// Which pages of other sites may connect.
    pub origins: Origins,
    /// Subprotocols to accept as the plain protocol.
    pub subprotocols: Vec<String>,
    /// Time to send `authenticate`.
    pub auth_timeout: Duration,
    /// Between protocol-level pings.
    pub ping_interval: Duration,
    /// Silence after which a logged-in client is closed.
    pub heartbeat_timeout: Duration,
    /// Bytes of a client's message.
    pub max_message: usize,
    /// Bytes queued for a connection.
    pub max_outbox: usize,
    /// Bytes of an envelope.
    pub max_bus_message: usize,
    /// Rooms per connection, defaults and own not counted.
    pub max_rooms: usize,
    /// Connections.
    pub max_connections: usize,
    /// Connections that have not logged in.
    pub max_unauthenticated: usize,
    /// Those of one address; 0 for no such limit.
    pub max_unauthenticated_per_address: usize,
    /// Upgrades per second, with a burst of one second; 0 for no such limit.
    pub accept_rate: u32,
    /// What the client port speaks TLS with, if it does.
    pub tls: Option<TlsFiles>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// Age at which connections are closed (4102) to spread them anew; `None` for never.
    pub max_connection_age: Option<Duration>,
    /// Messages per second and connection.
    pub message_rate: u32,
    /// Messages at once and connection.
    pub message_burst: u32,
    /// From not being ready to refusing connections.
    pub drain_delay: Duration,
    /// Over which the closes of a drain are spread.
    pub drain_window: Duration,
    /// Between probes of a bus link.
    pub bus_probe_interval: Duration,
    /// From the last leave of a room to its unsubscription. No variable; for embedders and tests.
    pub bus_linger: Duration,
    /// What the API asks for; `None` turns off all of it that changes anything.
    pub api_key: Option<Secret>,
    /// Messages per second that the publish API takes, with a burst of one second.
    pub api_rate: u32,
    /// The web page at `/`: in the demo only. No variable.
    pub demo_page: bool,
    /// How to reach Redis.
    pub redis: RedisSettings,
}

/// The files of a certificate, as PEM; they are read anew when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the edge's own certificate first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Whether payloads are encrypted: in the way that is built in, unless the embedder has hooks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Never.
    Off,
    /// For clients that send a key.
    Optional,
    /// For all: those that send none are closed.
    Required,
}

/// Which pages may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Those served by the host that they connect to.
    SameHost,
    /// Any.
    Any,
    /// These, exactly.
    Listed(Vec<String>),
}

/// A setting that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A variable's value.
    #[error("{name} is {value:?}, allowed is {allowed}")]
    Value {
        /// The variable.
        name: &'static str,
        /// What it is set to.
        value: String,
        /// What it may be set to.
        allowed: String,
    },
    /// A variable that there is not.
    #[error("{name} is not a setting of Signal{suggestion}")]
    Unknown {
        /// The name.
        name: String,
        /// ", did you mean …?" or nothing.
        suggestion: String,
    },
    /// Something is missing, or does not go together.
    #[error("{0}")]
    Conflict(String),
    /// A file cannot be read.
    #[error("{name} names {path:?}, which cannot be read: {problem}")]
    File {
        /// The variable.
        name: &'static str,
        /// The file.
        path: String,
        /// Why.
        problem: String,
    },
    /// A Redis setting.
    #[error(transparent)]
    Redis(#[from] SettingError),
}

/// Values of settings by name: from flags, or from the environment where there is no flag.
#[derive(Clone, Debug, Default)]
pub struct Values(BTreeMap<&'static str, String>);

// === impl Values ===

impl Values {
    /// Reads the process' environment; `SIGNAL_*` variables that are no settings are errors.
    pub fn from_environment() -> Result<Self, ConfigError> {
        Self::from_variables(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }))
    }

    fn from_variables(
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut values = Self::default();
        for (name, value) in variables {
            if let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) {
                values.0.insert(setting.name, value);
            } else if name.starts_with("SIGNAL_") || name.starts_with("APP_ENV_WEBSOCKET_REDIS_") {
                let suggestion = table::nearest(&name)
                    .map_or_else(String::new, |near| format!(", did you mean {near}?"));
                return Err(ConfigError::Unknown { name, suggestion });
            }
        }
        Ok(values)
    }

    /// Sets a value, over what the environment said.
    pub fn set(&mut self, name: &'static str, value: String) {
        self.0.insert(name, value);
    }

    /// The value of a setting; an empty one is as good as none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn read<T>(
        &self,
        name: &'static str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        parse(value).map_err(|allowed| ConfigError::Value {
            name,
            value: value.to_owned(),
            allowed,
        })
    }

    /// A secret, given as such or as a file's content.
    fn secret(
        &self,
        name: &'static str,
        file_name: &'static str,
    ) -> Result<Option<Secret>, ConfigError> {
        match (self.get(name), self.get(file_name)) {
            (Some(_), Some(_)) => Err(ConfigError::Conflict(format!(
                "{name} and {file_name} are both set, allowed is one"
            ))),
            (Some(secret), None) => Ok(Some(Secret::new(secret))),
            (None, Some(path)) => read_secret(file_name, path.as_ref()).map(Some),
            (None, None) => Ok(None),
        }
    }
}

fn read_secret(name: &'static str, path: &Path) -> Result<Secret, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::File {
        name,
        path: path.display().to_string(),
        problem: error.to_string(),
    })?;
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 3000)),
            admin_listen: Some(SocketAddr::from(([127, 0, 0, 1], 3001))),
            path: "/ws".to_owned(),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            auth: Auth::default(),
            rooms: Vec::new(),
            default_rooms: vec!["ws-default".to_owned(), "ws-notification".to_owned()],
            encryption: Encryption::Off,
            origins: Origins::SameHost,
            subprotocols: Vec::new(),
            auth_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(30),
            heartbeat_timeout: Duration::from_secs(90),
            max_message: limits::MESSAGE_BYTES_MAX,
            max_outbox: limits::OUTBOX_BYTES_MAX,
            max_bus_message: limits::BUS_MESSAGE_BYTES_MAX,
            max_rooms: limits::ROOMS_PER_CONNECTION_MAX,
            max_connections: connections_default(),
            max_unauthenticated: limits::UNAUTHENTICATED_MAX,
            max_unauthenticated_per_address: 0,
            accept_rate: 0,
            tls: None,
            trusted_proxies: Vec::new(),
            max_connection_age: None,
            message_rate: 200,
            message_burst: 1000,
            drain_delay: Duration::from_secs(5),
            drain_window: Duration::from_secs(30),
            bus_probe_interval: Duration::from_secs(5),
            bus_linger: Duration::from_secs(10),
            api_key: None,
            api_rate: 1000,
            demo_page: false,
            redis: RedisSettings::default(),
        }
    }
}

impl Config {
    /// Gives the values their meaning.
    pub fn from_values(values: &Values) -> Result<Self, ConfigError> {
        let default = Self::default();
        let read_patterns = |text: &str| {
            list(text).map(|item| item.parse().map_err(|error| format!("{error}"))).collect()
        };
        let config = Self {
            listen: values.read("SIGNAL_LISTEN", default.listen, address)?,
            admin_listen: values.read("SIGNAL_ADMIN_LISTEN", default.admin_listen, |text| {
                if text == "off" { Ok(None) } else { address(text).map(Some) }
            })?,
            path: values.read("SIGNAL_PATH", default.path, parse::path)?,
            workers: values.read("SIGNAL_WORKERS", default.workers, |text| number(text, 1, 64))?,
            auth: Auth::from_values(values)?,
            rooms: values.read("SIGNAL_ROOMS", Vec::new(), read_patterns)?,
            default_rooms: values.read("SIGNAL_DEFAULT_ROOMS", default.default_rooms, |text| {
                Ok(list(text).map(str::to_owned).collect())
            })?,
            encryption: values.read("SIGNAL_ENCRYPTION", default.encryption, parse::encryption)?,
            origins: values.read("SIGNAL_ALLOWED_ORIGINS", default.origins, parse::origins)?,
            subprotocols: values.read("SIGNAL_SUBPROTOCOLS", Vec::new(), parse::tokens)?,
            auth_timeout: values.read("SIGNAL_AUTH_TIMEOUT", default.auth_timeout, duration)?,
            ping_interval: values.read("SIGNAL_PING_INTERVAL", default.ping_interval, duration)?,
            heartbeat_timeout: values.read(
                "SIGNAL_HEARTBEAT_TIMEOUT",
                default.heartbeat_timeout,
                duration,
            )?,
            max_message: values.read("SIGNAL_MAX_MESSAGE", default.max_message, bytes)?,
            max_outbox: values.read("SIGNAL_MAX_OUTBOX", default.max_outbox, bytes)?,
            max_bus_message: values.read(
                "SIGNAL_MAX_BUS_MESSAGE",
                default.max_bus_message,
                bytes,
            )?,
            max_rooms: values
                .read("SIGNAL_MAX_ROOMS", default.max_rooms, |text| number(text, 1, 65_536))?,
            max_connections: values.read(
                "SIGNAL_MAX_CONNECTIONS",
                default.max_connections,
                |text| number(text, 1, 1 << 28),
            )?,
            max_unauthenticated: values.read(
                "SIGNAL_MAX_UNAUTHENTICATED",
                default.max_unauthenticated,
                |text| number(text, 1, 1 << 28),
            )?,
            max_unauthenticated_per_address: values.read(
                "SIGNAL_MAX_UNAUTHENTICATED_PER_ADDRESS",
                default.max_unauthenticated_per_address,
                |text| number(text, 0, 1 << 28),
            )?,
            accept_rate: values
                .read("SIGNAL_ACCEPT_RATE", default.accept_rate, |text| number(text, 0, 1 << 24))?,
            tls: tls(values)?,
            trusted_proxies: values.read("SIGNAL_TRUSTED_PROXIES", Vec::new(), parse::networks)?,
            max_connection_age: values.read(
                "SIGNAL_MAX_CONNECTION_AGE",
                default.max_connection_age,
                |text| if text == "off" { Ok(None) } else { duration(text).map(Some) },
            )?,
            message_rate: values.read("SIGNAL_MESSAGE_RATE", default.message_rate, |text| {
                number(text, 1, 1 << 24)
            })?,
            message_burst: values.read("SIGNAL_MESSAGE_BURST", default.message_burst, |text| {
                number(text, 1, 1 << 24)
            })?,
            drain_delay: values.read("SIGNAL_DRAIN_DELAY", default.drain_delay, duration)?,
            drain_window: values.read("SIGNAL_DRAIN_WINDOW", default.drain_window, duration)?,
            bus_probe_interval: values.read(
                "SIGNAL_BUS_PROBE_INTERVAL",
                default.bus_probe_interval,
                duration,
            )?,
            bus_linger: default.bus_linger,
            api_key: values.secret("SIGNAL_API_KEY", "SIGNAL_API_KEY_FILE")?,
            api_rate: values
                .read("SIGNAL_API_RATE", default.api_rate, |text| number(text, 1, 1 << 24))?,
            demo_page: false,
            redis: redis(values)?,
        };
        config.validate(false)?;
        Ok(config)
    }

    /// Checks what single values cannot tell. `own_authenticator` says that the embedder has one.
    pub(crate) fn validate(&self, own_authenticator: bool) -> Result<(), ConfigError> {
        let conflict = |text: String| Err(ConfigError::Conflict(text));
        match &self.auth {
            _ if own_authenticator => {}
            Auth::InsecureDev if !self.listen.ip().is_loopback() => {
                return conflict(format!(
                    "SIGNAL_AUTH is \"insecure-dev\", which believes anyone, and SIGNAL_LISTEN is {}, \
                     allowed is a loopback address",
                    self.listen
                ));
            }
            Auth::Jwt(jwt) => drop(jwt.keys.load()?),
            _ => {}
        }
        if self.max_bus_message > self.max_outbox / 2 {
            return conflict(format!(
                "SIGNAL_MAX_BUS_MESSAGE is {} bytes, allowed is at most half of SIGNAL_MAX_OUTBOX \
                 ({} bytes)",
                self.max_bus_message, self.max_outbox
            ));
        }
        if let Some(files) = &self.tls {
            crate::tls::check(files)?;
        }
        for name in &self.default_rooms {
            if signal_core::room::validate_requested(name).is_err() {
                return conflict(format!(
                    "SIGNAL_DEFAULT_ROOMS has {name:?}, allowed are names of 1 to 256 characters that \
                     do not start with \"ws:\""
                ));
            }
        }
        for (name, duration) in [
            ("SIGNAL_AUTH_TIMEOUT", self.auth_timeout),
            ("SIGNAL_PING_INTERVAL", self.ping_interval),
            ("SIGNAL_HEARTBEAT_TIMEOUT", self.heartbeat_timeout),
            ("SIGNAL_BUS_PROBE_INTERVAL", self.bus_probe_interval),
        ] {
            if duration.is_zero() {
                return conflict(format!("{name} is 0, allowed is a positive duration"));
            }
        }
        Ok(())
    }

    /// What carries messages, for people.
    pub fn bus_name(&self) -> &'static str {
        match self.redis.mode {
            RedisMode::None => "in-process",
            RedisMode::Single { .. } => "redis",
            RedisMode::Cluster { .. } => "redis cluster",
        }
    }

    /// How clients log in, for people.
    pub fn auth_name(&self) -> &'static str {
        self.auth.name()
    }
}

fn tls(values: &Values) -> Result<Option<TlsFiles>, ConfigError> {
    match (values.get("SIGNAL_TLS_CERT_FILE"), values.get("SIGNAL_TLS_KEY_FILE")) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => {
            Ok(Some(TlsFiles { certificate: certificate.into(), key: key.into() }))
        }
        _ => Err(ConfigError::Conflict(
            "one of SIGNAL_TLS_CERT_FILE and SIGNAL_TLS_KEY_FILE is set, allowed is both or none"
                .to_owned(),
        )),
    }
}

fn redis(values: &Values) -> Result<RedisSettings, ConfigError> {
    let mut settings = RedisSettings::from_lookup(|name| values.get(name).map(str::to_owned))?;
    if let Some(path) = settings.password_file.take() {
        settings.password = Some(read_secret("APP_ENV_WEBSOCKET_REDIS_PASSWORD_FILE", &path)?);
    }
    Ok(settings)
}

/// Where an OpenTelemetry collector listens, by the variable that all its exporters read.
#[cfg(feature = "otel")]
pub fn telemetry_endpoint() -> Option<String> {
    std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT")?.into_string().ok()
}

/// The soft limit on open files, less what is not connections.
fn connections_default() -> usize {
    let files = open_files_limit().saturating_sub(FILES_RESERVED);
    usize::try_from(files).unwrap_or(usize::MAX).max(1)
}

/// The soft limit on open files.
pub(crate) fn open_files_limit() -> u64 {
    /// What most systems give a process.
    const DEFAULT: u64 = 1024;
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next())
        .and_then(|files| files.parse().ok())
        .unwrap_or(DEFAULT)
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
