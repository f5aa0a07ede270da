//! Who may log in and which rooms they may join, as far as the binary decides it by configuration.
//!
//! [`jwt`] checks tokens; [`InsecureDev`] believes anything, on loopback; [`RoomPattern`] is the
//! language of `SIGNAL_ROOMS` and of a token's `rooms`.

pub mod jwt;
mod rooms;

pub use self::rooms::{PatternError, RoomPattern};

use signal_core::id::ClientId;

use crate::hooks::{AuthError, Authenticator, Credentials, Grant};

/// Accepts any credentials; the user is `userId` if that is a string. For development only: the
/// configuration refuses it beyond loopback.
#[derive(Clone, Copy, Debug, Default)]
pub struct InsecureDev;

impl Authenticator for InsecureDev {
    async fn authenticate(
        &self,
        _client: ClientId,
        credentials: Credentials,
    ) -> Result<Grant, AuthError> {
        Ok(Grant { user_id: credentials.string("userId"), ..Grant::default() })
    }
}
