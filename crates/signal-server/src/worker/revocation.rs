//! Credentials that are withdrawn: what a worker does about them.
//!
//! It owns the ending of connections whose user, token or own id was revoked, in the turn in which the
//! worker hears of it, and the refusal of logins and refreshes that come too late. Every worker is told,
//! by whichever hears of it: the first one, which listens for all, or a handle. A connection that is
//! just logging in is found by its login itself, which looks at what was revoked as its last step.
//! Tokens are looked for once per turn, however many were revoked in it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hashbrown::HashSet;
use signal_core::close::CloseCode;
use signal_core::id::ClientId;
use signal_core::revocation::{Revocation, Subject};
use tracing::info;

use super::hub::{GroupKind, Slot};
use super::{Command, State};
use crate::hooks::Grant;
use crate::server::Shared;
use crate::tally::subject_case;

/// Whose connections are to end.
#[derive(Clone, Debug)]
pub(crate) enum Revoked {
    User(Arc<str>),
    Client(ClientId),
    Token(Arc<str>),
}

// === impl Shared ===

impl Shared {
    /// Obeys a revocation: remembers it, then tells the workers.
    pub(crate) fn revoke(&self, subject: &Subject<'_>, ts: u64) {
        info!(kind = subject.kind(), name = subject.name(), "credentials revoked");
        self.revoked.count(subject_case(subject));
        // In this order: a login that the workers do not find yet will find this.
        self.revocations.note(subject, ts);
        let revoked = match subject {
            Subject::User(user) => Revoked::User(user.as_ref().into()),
            Subject::Token(token) => Revoked::Token(token.as_ref().into()),
            Subject::Client(client) => {
                let client =
                    ClientId::parse(client).filter(|client| client.instance() == self.instance.tag);
                if let Some(client) = client
                    && let Some(queue) = self.queues.get(usize::from(client.worker()))
                {
                    queue.control(Command::Revoke(Revoked::Client(client)));
                }
                return;
            }
        };
        for queue in &self.queues {
            queue.control(Command::Revoke(revoked.clone()));
        }
    }

    /// Whether what a login was granted has been withdrawn meanwhile.
    pub(super) fn is_revoked(&self, grant: &Grant) -> bool {
        self.revocations.forbid(grant)
    }
}

/// Now, as a revocation carries it.
pub(crate) fn revoked_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

// === impl State ===

impl State {
    /// A revocation came from the bus.
    pub(super) fn bus_revocation(&mut self, payload: &[u8]) {
        self.counters.bus_messages += 1;
        match Revocation::decode(payload) {
            // It was obeyed before it was published.
            Ok(revocation) if revocation.server_id == self.shared.instance.name => {}
            Ok(revocation) => self.shared.revoke(&revocation.subject, revocation.ts),
            Err(error) => self.bus_message_bad(error.reason()),
        }
    }

    /// Ends the connections here that are meant.
    pub(super) fn revoke(&mut self, revoked: Revoked) {
        match revoked {
            Revoked::User(user) => {
                for slot in self.hub.members(GroupKind::User, &user).to_vec() {
                    self.end_revoked(slot);
                }
            }
            Revoked::Client(client) => {
                let session = self.sessions.get(client.slot() as usize);
                if session.is_some_and(|session| session.client == client) {
                    self.end_revoked(Slot(client.slot()));
                }
            }
            Revoked::Token(token) => {
                self.revoked_tokens.insert(token);
            }
        }
    }

    /// Ends the connections that logged in with one of the tokens that were revoked in this turn.
    pub(super) fn end_revoked_tokens(&mut self) {
        let tokens: HashSet<Arc<str>> = std::mem::take(&mut self.revoked_tokens);
        let slots: Vec<Slot> = self
            .sessions
            .iter()
            .filter(|(_, session)| {
                let details = session.details.as_ref();
                let token = details.and_then(|details| details.token_id.as_deref());
                token.is_some_and(|token| tokens.contains(token))
            })
            .map(|(index, _)| Slot(u32::try_from(index).expect("slots have 28 bits")))
            .collect();
        for slot in slots {
            self.end_revoked(slot);
        }
    }

    fn end_revoked(&mut self, slot: Slot) {
        if !self.session(slot).is_closing() {
            self.counters.revoked_connections += 1;
            self.begin_close(slot, CloseCode::CredentialsRevoked);
        }
    }
}
