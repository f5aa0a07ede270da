//! How clients log in: which settings go together, and what they name.
//!
//! Exactly one of `jwt`, `webhook` and `insecure-dev`, and for `jwt` exactly one place that keys come
//! from: a setting that would not be obeyed is refused, since whoever set it believes that it is. Files
//! are read whole, within a bound.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use hyper::Uri;
use hyper::http::uri::PathAndQuery;
use signal_core::redis::Secret;

use super::{ConfigError, Values, parse};
use crate::auth::keys::{KeyError, KeySet, secret_lines};

/// Bytes of a file with keys: more than a set of the largest keys has.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// The longest that a login may wait for the webhook; the login itself ends after three
/// `SIGNAL_AUTH_TIMEOUT`.
const WEBHOOK_TIMEOUT_MAX: Duration = Duration::from_mins(1);

/// Where keys come from; exactly one is set.
const KEY_SOURCES: [&str; 4] = [
    "SIGNAL_JWT_SECRET",
    "SIGNAL_JWT_SECRET_FILE",
    "SIGNAL_JWT_PUBLIC_KEY_FILE",
    "SIGNAL_JWT_JWKS_URL",
];

const JWT_CHECKS: [&str; 2] = ["SIGNAL_JWT_ISSUER", "SIGNAL_JWT_AUDIENCE"];

const WEBHOOK_SETTINGS: [&str; 2] = ["SIGNAL_AUTH_WEBHOOK_URL", "SIGNAL_AUTH_WEBHOOK_TIMEOUT"];

/// How clients log in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Auth {
    /// A JSON Web Token in `token`.
    Jwt(JwtSettings),
    /// Whatever a service says of the credentials.
    Webhook(WebhookSettings),
    /// Anything; on loopback only.
    InsecureDev,
}

/// How tokens are checked.
#[derive(Clone, Debug)]
pub struct JwtSettings {
    /// Where the keys come from.
    pub keys: KeySource,
    /// What `iss` must be.
    pub issuer: Option<String>,
    /// What `aud` must hold.
    pub audience: Option<String>,
}

/// Where the keys of tokens come from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum KeySource {
    /// A shared secret.
    Secret(Secret),
    /// A file with shared secrets, one on each line.
    SecretFile(PathBuf),
    /// A file with public keys in PEM.
    PublicKeyFile(PathBuf),
    /// A JSON Web Key Set, which is fetched again and again.
    Jwks(HttpUrl),
}

/// Whom to ask about credentials.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// Where to POST them.
    pub url: HttpUrl,
    /// How long a login may wait for the answer.
    pub timeout: Duration,
}

/// An `http` or `https` URL without credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl {
    uri: Uri,
    host: String,
    port: u16,
    is_tls: bool,
}

// === impl Auth ===

impl Auth {
    /// Tokens with keys from here, of any issuer and audience.
    pub fn jwt(keys: KeySource) -> Self {
        Self::Jwt(JwtSettings { keys, issuer: None, audience: None })
    }

    /// A webhook with the default timeout.
    pub fn webhook(url: HttpUrl) -> Self {
        Self::Webhook(WebhookSettings { url, timeout: Duration::from_secs(5) })
    }

    pub(super) fn from_values(values: &Values) -> Result<Self, ConfigError> {
        let kind = values.get("SIGNAL_AUTH").unwrap_or("jwt");
        let others: &[&str] = match kind {
            "jwt" => &WEBHOOK_SETTINGS,
            "webhook" => &[KEY_SOURCES.as_slice(), &JWT_CHECKS].concat(),
            // For a try, whatever else is set.
            "insecure-dev" => return Ok(Self::InsecureDev),
            value => {
                return Err(ConfigError::Value {
                    name: "SIGNAL_AUTH",
                    value: value.to_owned(),
                    allowed: "jwt, webhook or insecure-dev".to_owned(),
                });
            }
        };
        if let Some(name) = others.iter().find(|name| values.get(name).is_some()) {
            return Err(ConfigError::Conflict(format!(
                "{name} is set, but SIGNAL_AUTH is \"{kind}\", which does not obey it"
            )));
        }
        match kind {
            "webhook" => webhook(values).map(Self::Webhook),
            _ => Ok(Self::Jwt(JwtSettings {
                keys: KeySource::from_values(values)?,
                issuer: values.get("SIGNAL_JWT_ISSUER").map(str::to_owned),
                audience: values.get("SIGNAL_JWT_AUDIENCE").map(str::to_owned),
            })),
        }
    }

    /// Its name in `SIGNAL_AUTH`.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Jwt(_) => "jwt",
            Self::Webhook(_) => "webhook",
            Self::InsecureDev => "insecure-dev",
        }
    }
}

impl Default for Auth {
    /// What an empty environment gives: tokens, with a secret that is still to be set.
    fn default() -> Self {
        Self::jwt(KeySource::Secret(Secret::new("")))
    }
}

fn webhook(values: &Values) -> Result<WebhookSettings, ConfigError> {
    let url = values.get("SIGNAL_AUTH_WEBHOOK_URL").ok_or_else(|| {
        let problem = "SIGNAL_AUTH is \"webhook\" and needs SIGNAL_AUTH_WEBHOOK_URL";
        ConfigError::Conflict(problem.to_owned())
    })?;
    let url = read_url("SIGNAL_AUTH_WEBHOOK_URL", url)?;
    let default = Duration::from_secs(5);
    let timeout = values.read("SIGNAL_AUTH_WEBHOOK_TIMEOUT", default, |text| {
        let timeout = parse::duration(text)?;
        let is_allowed = !timeout.is_zero() && timeout <= WEBHOOK_TIMEOUT_MAX;
        is_allowed.then_some(timeout).ok_or_else(|| "a positive duration up to 1m".to_owned())
    })?;
    Ok(WebhookSettings { url, timeout })
}

fn read_url(name: &'static str, text: &str) -> Result<HttpUrl, ConfigError> {
    text.parse().map_err(|allowed| {
        // Before an @ may be a password.
        let value = if text.contains('@') { "***" } else { text }.to_owned();
        ConfigError::Value { name, value, allowed }
    })
}

// === impl KeySource ===

impl KeySource {
    fn from_values(values: &Values) -> Result<Self, ConfigError> {
        let mut set = KEY_SOURCES.iter().filter_map(|name| Some((*name, values.get(name)?)));
        let first = set.next();
        if let (Some((first, _)), Some((second, _))) = (first, set.next()) {
            return Err(ConfigError::Conflict(format!(
                "{first} and {second} are both set, allowed is one"
            )));
        }
        Ok(match first {
            Some(("SIGNAL_JWT_SECRET_FILE", path)) => Self::SecretFile(path.into()),
            Some(("SIGNAL_JWT_PUBLIC_KEY_FILE", path)) => Self::PublicKeyFile(path.into()),
            Some((name @ "SIGNAL_JWT_JWKS_URL", text)) => Self::Jwks(read_url(name, text)?),
            Some((_, secret)) => Self::Secret(Secret::new(secret)),
            None => Self::Secret(Secret::new("")),
        })
    }

    /// Reads the keys; those of a set that is fetched are not there yet.
    pub(crate) fn load(&self) -> Result<KeySet, ConfigError> {
        match self {
            Self::Secret(secret) if secret.expose().is_empty() => {
                Err(ConfigError::Conflict(format!(
                    "SIGNAL_AUTH is \"jwt\" and needs one of {} (for a try without: \
                     SIGNAL_AUTH=insecure-dev)",
                    KEY_SOURCES.join(", ")
                )))
            }
            Self::Secret(secret) => KeySet::from_secret(secret.expose()).map_err(|problem| {
                ConfigError::Conflict(format!("SIGNAL_JWT_SECRET is no good: {problem}"))
            }),
            Self::SecretFile(path) => {
                load_file("SIGNAL_JWT_SECRET_FILE", path, KeySet::from_secret_lines)
            }
            Self::PublicKeyFile(path) => {
                load_file("SIGNAL_JWT_PUBLIC_KEY_FILE", path, KeySet::from_pem)
            }
            Self::Jwks(_) => Ok(KeySet::default()),
        }
    }

    /// The secret that an edge would sign with: the first one.
    pub fn signing_secret(&self) -> Result<Option<Secret>, ConfigError> {
        Ok(match self {
            Self::Secret(secret) => Some(secret.clone()),
            Self::SecretFile(path) => {
                secret_lines(&read("SIGNAL_JWT_SECRET_FILE", path)?).next().map(Secret::new)
            }
            Self::PublicKeyFile(_) | Self::Jwks(_) => None,
        })
    }
}

fn load_file(
    name: &'static str,
    path: &Path,
    parse: fn(&str) -> Result<KeySet, KeyError>,
) -> Result<KeySet, ConfigError> {
    parse(&read(name, path)?).map_err(|problem| {
        let path = path.display().to_string();
        ConfigError::Conflict(format!("{name} names {path:?}, which is no good: {problem}"))
    })
}

fn read(name: &'static str, path: &Path) -> Result<String, ConfigError> {
    let mut text = String::new();
    let outcome = std::fs::File::open(path)
        .and_then(|file| file.take(KEY_FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| error.to_string());
    let problem = match outcome {
        Err(problem) => problem,
        Ok(_) if text.len() as u64 > KEY_FILE_BYTES_MAX => {
            format!("it has more than {KEY_FILE_BYTES_MAX} bytes")
        }
        Ok(_) => return Ok(text),
    };
    Err(ConfigError::File { name, path: path.display().to_string(), problem })
}

// === impl HttpUrl ===

impl HttpUrl {
    /// The host, without the brackets of an IPv6 address.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// What a `Host` header says.
    pub(crate) fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    /// What a request asks for.
    pub(crate) fn target(&self) -> &str {
        self.uri.path_and_query().map_or("/", PathAndQuery::as_str)
    }
}

impl FromStr for HttpUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = || "an http:// or https:// URL without a user in it".to_owned();
        let uri: Uri = text.parse().map_err(|_| allowed())?;
        let (is_tls, port) = match uri.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            _ => return Err(allowed()),
        };
        let authority = uri.authority().ok_or_else(allowed)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || authority.as_str().contains('@') {
            return Err(allowed());
        }
        let port = authority.port_u16().unwrap_or(port);
        Ok(Self { uri, host, port, is_tls })
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(formatter)
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(formatter)
    }
}
