//! Who may log in and which rooms they may join, as far as the binary decides it by configuration.
//!
//! [`jwt`] checks tokens, with keys that [`keys`] reads and `jwks` renews; [`webhook`] asks a service;
//! [`InsecureDev`] believes anything, on loopback. [`RoomPattern`] is the language of `SIGNAL_ROOMS`
//! and of the `rooms` that credentials grant.

pub(crate) mod jwks;
pub mod jwt;
pub mod keys;
mod rooms;
pub mod webhook;

use std::sync::Arc;

use signal_core::id::ClientId;

pub use self::rooms::{PatternError, RoomPattern};

use self::jwks::Keys;
use self::jwt::JwtAuthenticator;
use self::webhook::{Outcome, Webhook};
use crate::config::{Auth, ConfigError, JwtSettings, KeySource};
use crate::hooks::{AuthError, AuthenticateFn, Authenticator, Credentials, Grant, erase};
use crate::http::client::{Client, TlsError};
use crate::tally::Tally;

/// Room patterns that credentials may grant. Each room that a client asks for may be held against all
/// of them, so their number is what a join costs.
const PATTERNS_MAX: usize = 256;

/// Accepts any credentials; the user is `userId` if that is a string. For development only: the
/// configuration refuses it beyond loopback.
#[derive(Clone, Copy, Debug, Default)]
pub struct InsecureDev;

/// What operators see of the authentication by settings, and may renew.
#[derive(Debug, Default)]
pub(crate) struct AuthStatus {
    pub(crate) counts: Arc<AuthCounts>,
    jwt: Option<(KeySource, Arc<Keys>)>,
}

/// What authenticators count.
#[derive(Debug, Default)]
pub(crate) struct AuthCounts {
    pub(crate) webhook: Tally<{ Outcome::ALL.len() }>,
    /// Fetches of keys that brought some, and that did not.
    pub(crate) fetches: Tally<2>,
}

/// The authenticator of the settings. Must be called within the runtime that carries the edge.
pub(crate) fn set_up(auth: &Auth) -> Result<(AuthenticateFn, AuthStatus), ConfigError> {
    let counts = Arc::<AuthCounts>::default();
    let mut status = AuthStatus { counts: counts.clone(), jwt: None };
    let authenticate: AuthenticateFn = match auth {
        Auth::InsecureDev => erase!(InsecureDev, authenticate(client, credentials)),
        Auth::Webhook(settings) => {
            let webhook = Webhook::new(settings, counts)
                .map_err(|error| no_tls("SIGNAL_AUTH_WEBHOOK_URL", &error))?;
            erase!(webhook, authenticate(client, credentials))
        }
        Auth::Jwt(JwtSettings { keys: source, issuer, audience }) => {
            let keys = Keys::new(source.load()?);
            status.jwt = Some((source.clone(), keys.clone()));
            let fetching = match source {
                KeySource::Jwks(url) => {
                    let client = Client::new(url.clone())
                        .map_err(|error| no_tls("SIGNAL_JWT_JWKS_URL", &error))?;
                    let fetching = keys.clone().keep_fetching(client, counts);
                    Some(tokio::spawn(fetching).abort_handle())
                }
                _ => None,
            };
            let jwt = JwtAuthenticator::new(keys, fetching, issuer.as_deref(), audience.as_deref());
            erase!(jwt, authenticate(client, credentials))
        }
    };
    Ok((authenticate, status))
}

fn no_tls(name: &str, error: &TlsError) -> ConfigError {
    ConfigError::Conflict(format!("{name} cannot be asked: {error}"))
}

/// A grant within its bounds, or what is beyond them. How many rooms a client may be in is the
/// settings' to say.
fn bounded(grant: Grant) -> Result<Grant, &'static str> {
    match grant.rooms.len() {
        ..=PATTERNS_MAX => Ok(grant),
        _ => Err("there are more than 256 room patterns"),
    }
}

// === impl AuthStatus ===

impl AuthStatus {
    /// Reads the keys of tokens anew, or has them fetched. What cannot be read changes nothing.
    pub(crate) fn reload(&self) -> Result<(), ConfigError> {
        match &self.jwt {
            None => {}
            Some((KeySource::Jwks(_), keys)) => keys.want(),
            Some((source, keys)) => keys.replace(source.load()?),
        }
        Ok(())
    }

    /// Keys that tokens may be signed with; `None` where there are no tokens.
    pub(crate) fn keys(&self) -> Option<usize> {
        self.jwt.as_ref().map(|(_, keys)| keys.set().len())
    }
}

// === impl InsecureDev ===

impl Authenticator for InsecureDev {
    async fn authenticate(
        &self,
        _client: ClientId,
        credentials: Credentials,
    ) -> Result<Grant, AuthError> {
        Ok(Grant { user_id: credentials.string("userId"), ..Grant::default() })
    }
}
