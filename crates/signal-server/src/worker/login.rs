//! From `authenticate` to `connected`.
//!
//! It owns the order of a login: the authenticator, the handshake where encryption is on, the indexes,
//! and the answer, which waits until the bus has confirmed what the client is to hear, but not for
//! long. Hooks that are ready at once are done within the turn, so that `authenticate` and `join` may
//! come in one burst. What a late hook answers to a client that has gone is dropped. A login is bounded
//! by the session's deadline for it.

use std::fmt::Write as _;

use signal_core::close::CloseCode;
use signal_core::message::json_string;
use tracing::{debug, error};

use super::State;
use super::hub::{GroupKey, GroupKind, Slot};
use super::inbound::poll_once;
use super::session::Phase;
use crate::bus::ChannelKey;
use crate::config::Encryption;
use crate::hooks::{AuthError, BoxFuture, Credentials, Grant, HandshakeAnswer, HookError};

impl State {
    /// A client sent `authenticate`.
    pub(super) fn authenticate(&mut self, slot: Slot, data: Option<&str>) {
        if self.session(slot).phase != Phase::Unauthorized {
            self.send_error(slot, "Already authenticated");
            return;
        }
        self.enter_phase(slot, Phase::Authenticating);
        let data = data.filter(|data| *data != "null").unwrap_or("{}");
        let credentials = Credentials::new(data.to_owned());
        let client = self.session(slot).client;
        let authenticate =
            self.shared.hooks.authenticate.clone().expect("set when the edge is bound");
        let future = authenticate(client, credentials.clone());
        self.go_on(slot, future, |state, slot, outcome| {
            let outcome = outcome.unwrap_or_else(|error| Err(AuthError::Failed(error)));
            state.authenticated(slot, outcome, credentials);
        });
    }

    /// Goes on with what a future brings: at once if it is ready, else when it is, if the client is
    /// still logging in then. A hook that panics has failed.
    fn go_on<T: 'static>(
        &mut self,
        slot: Slot,
        future: BoxFuture<T>,
        then: impl FnOnce(&mut Self, Slot, Result<T, HookError>) + 'static,
    ) {
        let future = match poll_once(future) {
            Ok(outcome) => return then(self, slot, outcome),
            Err(future) => future,
        };
        let client = self.session(slot).client;
        let worker = self.worker.clone();
        tokio::task::spawn_local(async move {
            let outcome = future.await;
            let Some(worker) = worker.upgrade() else { return };
            worker.turn(|state| {
                let still_there = state.sessions.get(slot.0 as usize).is_some_and(|session| {
                    session.client == client && session.phase == Phase::Authenticating
                });
                if still_there {
                    then(state, slot, outcome);
                }
            });
        });
    }

    fn authenticated(
        &mut self,
        slot: Slot,
        outcome: Result<Grant, AuthError>,
        credentials: Credentials,
    ) {
        let client = self.session(slot).client;
        let grant = match outcome {
            Ok(grant) => grant,
            Err(AuthError::Rejected(reason)) => {
                debug!(%client, reason, "login rejected");
                self.counters.logins_rejected += 1;
                return self.refuse(
                    slot,
                    Some("Authentication failed"),
                    CloseCode::AuthenticationFailed,
                );
            }
            Err(AuthError::Failed(source)) => {
                error!(%client, error = %source, "authenticator failed");
                self.counters.logins_failed += 1;
                return self.refuse(
                    slot,
                    Some("Authentication error"),
                    CloseCode::AuthenticationFailed,
                );
            }
        };
        let encryption = self.shared.config.encryption;
        match self.shared.hooks.handshake.clone() {
            _ if encryption == Encryption::Off => self.log_in(slot, grant, None),
            None if encryption == Encryption::Optional => self.log_in(slot, grant, None),
            None => {
                error!("encryption is required, but no handshake is set up");
                self.refuse(slot, None, CloseCode::EncryptionRequired);
            }
            Some(handshake) => {
                let future = handshake(self.client(slot), credentials);
                self.go_on(slot, future, move |state, slot, outcome| {
                    state.shaken_hands(slot, grant, outcome.and_then(|outcome| outcome));
                });
            }
        }
    }

    fn shaken_hands(
        &mut self,
        slot: Slot,
        grant: Grant,
        outcome: Result<Option<HandshakeAnswer>, HookError>,
    ) {
        let required = self.shared.config.encryption == Encryption::Required;
        match outcome {
            Ok(None) if required => {
                self.refuse(
                    slot,
                    Some("Encryption handshake failed"),
                    CloseCode::EncryptionRequired,
                );
            }
            Ok(answer) => self.log_in(slot, grant, answer),
            Err(source) => {
                error!(error = %source, "handshake failed");
                self.refuse(slot, Some("Authentication error"), CloseCode::AuthenticationFailed);
            }
        }
    }

    fn refuse(&mut self, slot: Slot, error: Option<&str>, code: CloseCode) {
        if let Some(error) = error {
            self.send_error(slot, error);
        }
        self.begin_close(slot, code);
    }

    /// The client is in: indexed, in its rooms, and answered as soon as the bus has confirmed.
    fn log_in(&mut self, slot: Slot, grant: Grant, handshake: Option<HandshakeAnswer>) {
        let Grant { user_id, rooms, join, metadata, expires: _ } = grant;
        let session = self.session(slot);
        session.user = user_id.map(Into::into);
        session.in_own_room = true;
        if !rooms.is_empty() || metadata.is_some() || handshake.is_some() {
            let details = session.details();
            details.rooms = rooms;
            details.metadata = metadata.map(Into::into);
            details.handshake = handshake;
        }
        let user = session.user.clone().filter(|user| !user.is_empty());
        let transformed =
            session.details.as_ref().is_some_and(|details| details.handshake.is_some());
        self.hub.admit(slot);
        self.enter_phase(slot, Phase::Authenticated);
        self.listen_for_client(slot);
        let shared = self.shared.clone();
        let rooms = shared.config.default_rooms.iter().chain(&join);
        let groups = rooms.map(|room| (GroupKind::Room, room.as_str()));
        for (kind, name) in groups.chain(user.as_deref().map(|user| (GroupKind::User, user))) {
            if !self.enter_group(slot, kind, name) {
                self.wait_for(slot, ChannelKey::Group(GroupKey { kind, name: name.into() }));
            }
        }
        if self.session(slot).awaiting > 0 {
            self.fanout.hold(&mut self.sockets, slot);
            self.arm(slot);
        } else {
            self.answer_login(slot);
        }
        self.sockets[slot.0 as usize].transformed =
            transformed && self.shared.hooks.transform.is_some();
        self.counters.logins += 1;
        if let Some(hook) = shared.hooks.connected.as_ref() {
            let future = hook(self.client(slot));
            self.run_hook("connected", future);
        }
    }

    /// Sends `connected`, ahead of what was held back for it.
    pub(super) fn answer_login(&mut self, slot: Slot) {
        let session = self.session(slot);
        if session.awaiting > 0 {
            debug!(client = %session.client, "login is answered before the bus has confirmed");
            self.stop_waiting(slot);
        }
        let session = self.session(slot);
        let mut data = format!("{{\"id\":\"{}\"", session.client);
        if let Some(user) = &session.user {
            data.push_str(",\"userId\":");
            data.push_str(&json_string(user));
        }
        let time = humantime::format_rfc3339_millis(std::time::SystemTime::now());
        let _ = write!(data, ",\"time\":\"{time}\"");
        let handshake = session.details.as_mut().and_then(|details| details.handshake.take());
        if let Some(answer) = handshake {
            data.push_str(",\"serverPublicKey\":");
            data.push_str(&json_string(&answer.server_public_key));
            data.push_str(",\"salt\":");
            data.push_str(&json_string(&answer.salt));
        }
        data.push('}');
        let range = self.encode_delivery("\"connected\"", Some(&data));
        if self.sockets[slot.0 as usize].held {
            self.fanout.release(&mut self.sockets, slot, range);
        } else {
            self.fanout.queue(&mut self.sockets, slot, range, true);
        }
        self.arm(slot);
    }
}
