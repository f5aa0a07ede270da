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

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(variables: &[(&str, &str)]) -> Result<RedisSettings, SettingError> {
        RedisSettings::from_lookup(|name| {
            assert!(VARIABLES.contains(&name), "{name} is not listed");
            let found = variables
                .iter()
                .find(|(suffix, _)| name.strip_prefix("APP_ENV_WEBSOCKET_REDIS_") == Some(suffix));
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn refused(variables: &[(&str, &str)]) -> String {
        read_from(variables).unwrap_err().to_string()
    }

    #[test]
    fn nothing_set_is_no_redis() {
        assert_eq!(read_from(&[]).unwrap(), RedisSettings::default());
        let empty: Vec<_> = VARIABLES
            .iter()
            .map(|name| (name.trim_start_matches("APP_ENV_WEBSOCKET_REDIS_"), ""))
            .collect();
        assert_eq!(read_from(&empty).unwrap(), RedisSettings::default());
    }

    #[test]
    fn single_has_defaults() {
        assert_eq!(
            read_from(&[("MODE", "single")]).unwrap(),
            RedisSettings::single("127.0.0.1", 6379)
        );
    }

    #[test]
    fn everything_set() {
        let settings = read_from(&[
            ("MODE", "cluster"),
            ("CLUSTER_NODES", "a:7000, b:7001,[::1]:7002"),
            ("USERNAME", "edge"),
            ("PASSWORD", "hush"),
            ("TLS", "on"),
            ("TLS_CA_FILE", "ca.pem"),
            ("PREFIX", "test:"),
            ("PUBSUB", "sharded"),
            ("CODEC", "msgpack"),
        ])
        .unwrap();
        let nodes = [("a", 7000), ("b", 7001), ("::1", 7002)];
        let nodes = nodes.map(|(host, port)| (host.to_owned(), port)).to_vec();
        assert_eq!(
            settings,
            RedisSettings {
                mode: RedisMode::Cluster { nodes },
                username: Some("edge".to_owned()),
                password: Some(Secret::new("hush")),
                password_file: None,
                tls: Some(TlsSettings { ca_file: Some(PathBuf::from("ca.pem")) }),
                prefix: "test:".to_owned(),
                pubsub: PubSub::Sharded,
                codec: Codec::MsgPack,
            }
        );
        assert!(!format!("{settings:?}").contains("hush"));
    }

    #[test]
    fn the_password_file_is_passed_on() {
        let settings = read_from(&[("MODE", "single"), ("PASSWORD_FILE", "secret")]).unwrap();
        assert_eq!(settings.password_file, Some(PathBuf::from("secret")));
    }

    #[test]
    fn each_refusal_is_one_sentence_for_the_operator() {
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[("MODE", "sentinel")], "MODE is \"sentinel\", allowed is none, single, cluster"),
            (&[("MODE", "Single")], "MODE is \"Single\", allowed is none, single, cluster"),
            (
                &[("MODE", "single"), ("PORT", "0")],
                "PORT is \"0\", allowed is a number from 1 to 65535",
            ),
            (
                &[("MODE", "single"), ("PORT", "65536")],
                "PORT is \"65536\", allowed is a number from 1 to 65535",
            ),
            (
                &[("MODE", "cluster")],
                "CLUSTER_NODES is not set, APP_ENV_WEBSOCKET_REDIS_MODE = cluster needs \
                 host:port[,host:port…]",
            ),
            (
                &[("MODE", "cluster"), ("CLUSTER_NODES", "a:1,b")],
                "CLUSTER_NODES is \"a:1,b\", allowed is host:port[,host:port…]",
            ),
            (
                &[("MODE", "cluster"), ("CLUSTER_NODES", "::1:7000")],
                "CLUSTER_NODES is \"::1:7000\", allowed is host:port[,host:port…]",
            ),
            (
                &[("MODE", "single"), ("PUBSUB", "sharded")],
                "PUBSUB is \"sharded\", which is allowed only with APP_ENV_WEBSOCKET_REDIS_MODE \
                 = cluster",
            ),
            (&[("PUBSUB", "x")], "PUBSUB is \"x\", allowed is classic, sharded"),
            (&[("CODEC", "cbor")], "CODEC is \"cbor\", allowed is json, msgpack"),
            (&[("TLS", "true")], "TLS is \"true\", allowed is off, on"),
            (
                &[("TLS_CA_FILE", "ca.pem")],
                "TLS_CA_FILE is set, allowed only with APP_ENV_WEBSOCKET_REDIS_TLS = on",
            ),
            (&[("PREFIX", "a b")], "PREFIX is \"a b\", allowed is text without white space"),
            (
                &[("PASSWORD", "hush"), ("PASSWORD_FILE", "secret")],
                "PASSWORD_FILE is set and so is APP_ENV_WEBSOCKET_REDIS_PASSWORD, allowed is one \
                 of the two",
            ),
        ];
        for (variables, sentence) in cases {
            let error = refused(variables);
            assert_eq!(error, format!("APP_ENV_WEBSOCKET_REDIS_{sentence}"));
            assert!(!error.contains("hush"));
        }
    }
}
