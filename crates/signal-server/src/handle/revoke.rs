//! Withdrawing credentials: here at once, and on every other edge through the bus.

use std::borrow::Cow;

use signal_core::revocation::{Revocation, Subject};

use super::{SendError, Sent, SignalHandle};
use crate::bus::{PublishError, Publisher};
use crate::worker::revocation::revoked_now;

// === impl SignalHandle ===

impl SignalHandle {
    /// Withdraws all credentials that a user has by now: every edge closes the user's connections
    /// (4500), and for an hour takes no credentials that were issued before.
    pub async fn revoke_user(&self, user_id: &str) -> Result<Sent, SendError> {
        self.revoke(Subject::User(user_id.into())).await
    }

    /// Closes one connection (4500), on whichever edge it is. Its user may come back.
    pub async fn revoke_client(&self, client_id: &str) -> Result<Sent, SendError> {
        self.revoke(Subject::Client(client_id.into())).await
    }

    /// Withdraws one token by its id (`jti`): every edge closes the connections that logged in with it
    /// (4500), and for an hour takes it no more.
    pub async fn revoke_token(&self, token_id: &str) -> Result<Sent, SendError> {
        self.revoke(Subject::Token(token_id.into())).await
    }

    /// This edge obeys in any case, also if the bus does not take it.
    pub(crate) async fn revoke(&self, subject: Subject<'_>) -> Result<Sent, SendError> {
        subject.validate()?;
        let ts = revoked_now();
        self.shared.revoke(&subject, ts);
        let server_id = Cow::Borrowed(self.shared.instance.name.as_str());
        let mut bytes = Vec::new();
        Revocation { server_id, subject, id: None, ts }.encode(&mut bytes);
        match &self.shared.publisher {
            Publisher::Memory => Ok(Sent::Local),
            Publisher::Redis(publisher) => {
                let channel = self.shared.names.revocations();
                match publisher.publish(channel, bytes.into()).await {
                    Ok(taken) => Ok(Sent::Published(taken)),
                    Err(PublishError::Disconnected) => Ok(Sent::LocalOnly),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }
}
