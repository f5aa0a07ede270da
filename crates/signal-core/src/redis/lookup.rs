//! From variables to settings.

use std::path::PathBuf;

use super::{PubSub, RedisMode, RedisSettings, Secret, TlsSettings};
use crate::envelope::Codec;

macro_rules! variables {
    ($($constant:ident = $suffix:literal;)*) => {
        $(const $constant: &str = concat!("APP_ENV_WEBSOCKET_REDIS_", $suffix);)*

        /// The name of every variable that [`RedisSettings::from_lookup`] reads.
        pub const VARIABLES: &[&str] = &[$($constant,)*];
    };
}

variables! {
    MODE = "MODE";
    HOST = "HOST";
    PORT = "PORT";
    CLUSTER_NODES = "CLUSTER_NODES";
    USERNAME = "USERNAME";
    PASSWORD = "PASSWORD";
    PASSWORD_FILE = "PASSWORD_FILE";
    TLS = "TLS";
    TLS_CA_FILE = "TLS_CA_FILE";
    PREFIX = "PREFIX";
    PUBSUB = "PUBSUB";
    CODEC = "CODEC";
}

const HOST_DEFAULT: &str = "127.0.0.1";
const PORT_DEFAULT: u16 = 6379;

/// A setting that is not allowed. Displays as one sentence that names the variable, its value (never
/// a password) and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {problem}")]
pub struct SettingError {
    variable: &'static str,
    problem: String,
}

// === impl SettingError ===

impl SettingError {
    /// The variable to change.
    pub fn variable(&self) -> &'static str {
        self.variable
    }

    fn new(variable: &'static str, problem: impl Into<String>) -> Self {
        Self { variable, problem: problem.into() }
    }

    fn value(variable: &'static str, value: &str, allowed: &str) -> Self {
        Self::new(variable, format!("is {value:?}, allowed is {allowed}"))
    }
}

type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(super) fn read(lookup: Lookup<'_>) -> Result<RedisSettings, SettingError> {
    let mode = mode(lookup)?;
    let pubsub =
        choice(lookup, PUBSUB, &[("classic", PubSub::Classic), ("sharded", PubSub::Sharded)])?;
    if pubsub == PubSub::Sharded && !matches!(mode, RedisMode::Cluster { .. }) {
        return Err(SettingError::new(
            PUBSUB,
            format!("is \"sharded\", which is allowed only with {MODE} = cluster"),
        ));
    }
    let password = get(lookup, PASSWORD).map(Secret);
    let password_file = get(lookup, PASSWORD_FILE).map(PathBuf::from);
    if password.is_some() && password_file.is_some() {
        return Err(SettingError::new(
            PASSWORD_FILE,
            format!("is set and so is {PASSWORD}, allowed is one of the two"),
        ));
    }
    Ok(RedisSettings {
        mode,
        username: get(lookup, USERNAME),
        password,
        password_file,
        tls: tls(lookup)?,
        prefix: prefix(lookup)?,
        pubsub,
        codec: choice(lookup, CODEC, &[("json", Codec::Json), ("msgpack", Codec::MsgPack)])?,
    })
}

fn mode(lookup: Lookup<'_>) -> Result<RedisMode, SettingError> {
    #[derive(Clone, Copy)]
    enum Mode {
        None,
        Single,
        Cluster,
    }
    let modes = [("none", Mode::None), ("single", Mode::Single), ("cluster", Mode::Cluster)];
    match choice(lookup, MODE, &modes)? {
        Mode::None => Ok(RedisMode::None),
        Mode::Single => Ok(RedisMode::Single {
            host: get(lookup, HOST).unwrap_or_else(|| HOST_DEFAULT.to_owned()),
            port: port(lookup)?,
        }),
        Mode::Cluster => Ok(RedisMode::Cluster { nodes: nodes(lookup)? }),
    }
}

fn port(lookup: Lookup<'_>) -> Result<u16, SettingError> {
    let Some(value) = get(lookup, PORT) else { return Ok(PORT_DEFAULT) };
    parse_port(&value).ok_or_else(|| SettingError::value(PORT, &value, "a number from 1 to 65535"))
}

fn nodes(lookup: Lookup<'_>) -> Result<Vec<(String, u16)>, SettingError> {
    let Some(value) = get(lookup, CLUSTER_NODES) else {
        let problem = format!("is not set, {MODE} = cluster needs host:port[,host:port…]");
        return Err(SettingError::new(CLUSTER_NODES, problem));
    };
    let nodes: Option<Vec<_>> = value.split(',').map(|node| parse_node(node.trim())).collect();
    nodes.ok_or_else(|| SettingError::value(CLUSTER_NODES, &value, "host:port[,host:port…]"))
}

fn parse_node(node: &str) -> Option<(String, u16)> {
    let (host, port) = node.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    (!host.is_empty()).then_some((host.to_owned(), parse_port(port)?))
}

fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|&port| port != 0)
}

fn tls(lookup: Lookup<'_>) -> Result<Option<TlsSettings>, SettingError> {
    let on = choice(lookup, TLS, &[("off", false), ("on", true)])?;
    let ca_file = get(lookup, TLS_CA_FILE).map(PathBuf::from);
    if !on && ca_file.is_some() {
        return Err(SettingError::new(
            TLS_CA_FILE,
            format!("is set, allowed only with {TLS} = on"),
        ));
    }
    Ok(on.then_some(TlsSettings { ca_file }))
}

fn prefix(lookup: Lookup<'_>) -> Result<String, SettingError> {
    let prefix = get(lookup, PREFIX).unwrap_or_default();
    if prefix.chars().any(|character| character.is_whitespace() || character.is_control()) {
        return Err(SettingError::value(PREFIX, &prefix, "text without white space"));
    }
    Ok(prefix)
}

/// The first choice is the default.
fn choice<T: Copy>(
    lookup: Lookup<'_>,
    variable: &'static str,
    choices: &[(&str, T)],
) -> Result<T, SettingError> {
    let Some(value) = get(lookup, variable) else { return Ok(choices[0].1) };
    let chosen = choices.iter().find(|(name, _)| *name == value);
    chosen.map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        SettingError::value(variable, &value, &names.join(", "))
    })
}

fn get(lookup: Lookup<'_>, variable: &str) -> Option<String> {
    lookup(variable).filter(|value| !value.is_empty())
}
