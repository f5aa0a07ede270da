//! Withdrawing credentials: of a user, of one connection, of one token.
//!
//! Owns building the revocation and checking it, like a message's envelope. It never waits beyond the
//! publish itself, which the connection bounds.

use std::borrow::Cow;

use signal_core::envelope::EMITTER_SERVER_ID;
use signal_core::revocation::{Revocation, Subject};

use crate::publish::unix_millis;
use crate::{Emitter, EmitterError, Receipt};

// === impl Emitter ===

impl Emitter {
    /// Withdraws all credentials that a user has by now: every edge closes the user's connections
    /// (4500), and for an hour takes no token that was issued before.
    pub async fn revoke_user(&self, user: &str) -> Result<Receipt, EmitterError> {
        self.revoke(Subject::User(user.into())).await
    }

    /// Closes one connection (4500), on whichever edge it is. Its user may come back.
    pub async fn revoke_client(&self, client: &str) -> Result<Receipt, EmitterError> {
        self.revoke(Subject::Client(client.into())).await
    }

    /// Withdraws one token by its id (`jti`): every edge closes the connections that logged in with it
    /// (4500), and for an hour takes it no more.
    pub async fn revoke_token(&self, token_id: &str) -> Result<Receipt, EmitterError> {
        self.revoke(Subject::Token(token_id.into())).await
    }

    async fn revoke(&self, subject: Subject<'_>) -> Result<Receipt, EmitterError> {
        if subject.validate().is_err() {
            return Err(EmitterError::InvalidTarget(subject.kind()));
        }
        let settings = &self.shared.settings;
        let now = unix_millis();
        let id = settings.ids.next(now).to_string();
        let revocation = Revocation {
            server_id: Cow::Borrowed(EMITTER_SERVER_ID),
            subject,
            id: Some(Cow::Borrowed(&id)),
            ts: now,
        };
        let mut bytes = Vec::new();
        revocation.encode(&mut bytes);
        let channel = settings.names.revocations();
        let receivers = self.shared.connection.publish(channel, bytes.into(), None).await?;
        Ok(Receipt { id, receivers })
    }
}
