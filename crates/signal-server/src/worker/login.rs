//! From `authenticate` to `connected`.
//!
//! It owns the order of a login: the authenticator, the handshake where encryption is on, the indexes,
//! and the answer, which waits until the bus has confirmed what the client is to hear, but not for
//! long. Hooks that are ready at once are done within the turn, so that `authenticate` and `join` may
//! come in one burst. What a late hook answers to a client that has gone is dropped. A login is bounded
//! by the session's deadline for it.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use signal_core::close::CloseCode;
use signal_core::id::ClientId;
use signal_core::message::json_string;
use signal_core::redis::Secret;
use signal_core::room;
use signal_core::v1::{ErrorCode, Outgoing, Variant};
use tokio::time::Instant;
use tracing::{debug, error};

use super::State;
use super::answer::RequestId;
use super::delivery::write_message_frame;
use super::hub::{GroupKey, GroupKind, Slot};
use super::inbound::poll_once;
use super::session::Phase;
use super::wheel::Tick;
use crate::bus::ChannelKey;
use crate::config::Encryption;
use crate::hooks::{AuthError, BoxFuture, Credentials, Grant, HandshakeAnswer, HookError};

impl State {
    /// A client sent `authenticate`.
    pub(super) fn authenticate(&mut self, slot: Slot, data: Option<&str>, id: RequestId) {
        if self.session(slot).phase != Phase::Unauthorized {
            self.fail(slot, &id, ErrorCode::AlreadyAuthenticated);
            return;
        }
        self.enter_phase(slot, Phase::Authenticating);
        let credentials = Credentials::of(data);
        let client = self.session(slot).client;
        let began = Instant::now();
        let authenticate =
            self.shared.hooks.authenticate.clone().expect("set when the edge is bound");
        let future = authenticate(client, credentials.clone());
        self.go_on(slot, future, move |state, slot, outcome| {
            let outcome = outcome.unwrap_or_else(|error| Err(AuthError::Failed(error)));
            state.counters.login_time.observe(began.elapsed());
            state.authenticated(slot, outcome, credentials, id);
        });
    }

    /// A client brought a token with its upgrade: as if it had sent `authenticate` with that.
    pub(super) fn authenticate_by_token(&mut self, slot: Slot, token: &Secret) {
        let data = format!("{{\"token\":{}}}", json_string(token.expose()));
        self.authenticate(slot, Some(&data), None);
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
        id: RequestId,
    ) {
        let client = self.session(slot).client;
        let grant = match outcome {
            Ok(grant) => grant,
            Err(AuthError::Rejected(reason)) => {
                debug!(%client, reason, "login rejected");
                self.counters.logins_rejected += 1;
                let error = Some(ErrorCode::AuthenticationFailed);
                return self.refuse(slot, &id, error, CloseCode::AuthenticationFailed);
            }
            Err(AuthError::Failed(source)) => {
                self.authenticator_failed(client, &source);
                let error = Some(ErrorCode::AuthenticationError);
                return self.refuse(slot, &id, error, CloseCode::AuthenticationFailed);
            }
        };
        let encryption = self.shared.config.encryption;
        match self.shared.hooks.handshake.clone() {
            _ if encryption == Encryption::Off => self.log_in(slot, grant, None, id),
            None if self.shared.hooks.transform.is_none() => {
                self.agree(slot, grant, &credentials, id);
            }
            None if encryption == Encryption::Optional => self.log_in(slot, grant, None, id),
            None => {
                error!("encryption is required, but no handshake is set up");
                self.counters.logins_failed += 1;
                self.refuse(slot, &id, None, CloseCode::EncryptionRequired);
            }
            Some(handshake) => {
                let future = handshake(self.client(slot), credentials);
                self.go_on(slot, future, move |state, slot, outcome| {
                    state.shaken_hands(slot, grant, outcome.and_then(|outcome| outcome), id);
                });
            }
        }
    }

    fn shaken_hands(
        &mut self,
        slot: Slot,
        grant: Grant,
        outcome: Result<Option<HandshakeAnswer>, HookError>,
        id: RequestId,
    ) {
        let required = self.shared.config.encryption == Encryption::Required;
        match outcome {
            Ok(None) if required => {
                self.counters.logins_rejected += 1;
                let error = Some(ErrorCode::EncryptionFailed);
                self.refuse(slot, &id, error, CloseCode::EncryptionRequired);
            }
            Ok(answer) => self.log_in(slot, grant, answer, id),
            Err(source) => {
                error!(error = %source, "handshake failed");
                self.counters.logins_failed += 1;
                let error = Some(ErrorCode::AuthenticationError);
                self.refuse(slot, &id, error, CloseCode::AuthenticationFailed);
            }
        }
    }

    /// Nobody could tell whether credentials are good. The first time is logged, then each power of two
    /// and each thousandth: a service that is down must not fill the log.
    fn authenticator_failed(&mut self, client: ClientId, source: &HookError) {
        self.counters.logins_failed += 1;
        let count = self.counters.logins_failed;
        if count.is_power_of_two() || count.is_multiple_of(1000) {
            let error: &(dyn StdError + 'static) = &**source;
            error!(%client, error, count, "authenticator failed");
        }
    }

    pub(super) fn refuse(
        &mut self,
        slot: Slot,
        id: &RequestId,
        error: Option<ErrorCode>,
        code: CloseCode,
    ) {
        if let Some(error) = error {
            self.fail(slot, id, error);
        }
        self.begin_close(slot, code);
    }

    /// The client is in: indexed, in its rooms, and answered as soon as the bus has confirmed.
    pub(super) fn log_in(
        &mut self,
        slot: Slot,
        grant: Grant,
        handshake: Option<HandshakeAnswer>,
        id: RequestId,
    ) {
        if self.shared.is_revoked(&grant) {
            debug!(client = %self.session(slot).client, "the credentials of a login are revoked");
            self.counters.revoked_logins += 1;
            let error = Some(ErrorCode::AuthenticationFailed);
            return self.refuse(slot, &id, error, CloseCode::CredentialsRevoked);
        }
        let Grant { user_id, rooms, join, metadata, expires, issued: _, token_id } = grant;
        let join = self.assignable(join);
        let session = self.session(slot);
        session.user = user_id.map(Into::into);
        session.in_own_room = true;
        session.is_login_pending = true;
        session.admission = None;
        let transformed = handshake.is_some();
        if !rooms.is_empty()
            || !join.is_empty()
            || metadata.is_some()
            || token_id.is_some()
            || transformed
            || id.is_some()
        {
            let details = session.details();
            details.rooms = rooms;
            details.assigned = join;
            details.metadata = metadata.map(Into::into);
            details.token_id = token_id.map(Into::into);
            details.handshake = handshake;
            details.login = id;
        }
        self.set_expiry(slot, expires);
        self.hub.admit(slot);
        self.enter_phase(slot, Phase::Authenticated);
        self.enter_first_groups(slot);
        if self.session(slot).awaiting > 0 {
            self.fanout.hold(&mut self.sockets, slot);
            self.arm(slot);
        } else {
            self.answer_login(slot);
        }
        self.begin_privacy(slot, transformed);
        self.counters.logins += 1;
        if let Some(hook) = self.shared.hooks.connected.clone() {
            let future = hook(self.client(slot));
            self.run_hook("connected", future);
        }
    }

    /// Notes when the credentials end.
    fn set_expiry(&mut self, slot: Slot, expires: Option<SystemTime>) {
        let tick = expires.map_or(Tick(u32::MAX), |expires| self.tick_of(expires));
        let session = self.session(slot);
        session.set_expiry(tick);
        let since_epoch = expires.and_then(|expires| expires.duration_since(UNIX_EPOCH).ok());
        match since_epoch.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)) {
            None if session.details.is_none() => {}
            milliseconds => session.details().expires = milliseconds,
        }
    }

    /// A client renews its credentials in place: the same user, other rights, another end.
    pub(super) fn refreshed(
        &mut self,
        slot: Slot,
        id: &RequestId,
        outcome: Result<Grant, AuthError>,
    ) {
        let shared = self.shared.clone();
        let session = self.session(slot);
        let grant = match outcome {
            Ok(grant) if shared.is_revoked(&grant) => {
                self.counters.revoked_logins += 1;
                return self.fail(slot, id, ErrorCode::AuthenticationFailed);
            }
            Ok(grant) if grant.user_id.as_deref() == session.user.as_deref() => grant,
            Ok(_) | Err(AuthError::Rejected(_)) => {
                self.counters.logins_rejected += 1;
                return self.fail(slot, id, ErrorCode::AuthenticationFailed);
            }
            Err(AuthError::Failed(source)) => {
                let client = session.client;
                self.authenticator_failed(client, &source);
                return self.fail(slot, id, ErrorCode::AuthenticationError);
            }
        };
        let details = session.details();
        details.rooms = grant.rooms;
        details.token_id = grant.token_id.map(Into::into);
        if let Some(metadata) = grant.metadata {
            details.metadata = Some(metadata.into());
        }
        // What is not assigned any more counts as asked for, and is left if it is not allowed.
        let assigned = self.assignable(grant.join);
        for room in &assigned {
            self.enter_group(slot, GroupKind::Room, room);
        }
        self.session(slot).details().assigned = assigned;
        self.set_expiry(slot, grant.expires);
        self.arm(slot);
        let expires = self.session(slot).details().expires;
        let data = expires.map_or("{}".to_owned(), |expires| format!("{{\"expires\":{expires}}}"));
        self.acknowledge(slot, id, &data);
    }

    /// Those of the rooms that credentials may put a client into: with a name that could be asked for,
    /// which is no other client's own, and no more than a client may be in. Others are denied.
    fn assignable(&mut self, mut rooms: Vec<String>) -> Vec<String> {
        let mut seen = HashSet::new();
        rooms.retain(|room| seen.insert(room.clone()));
        let count = rooms.len();
        rooms.retain(|room| room::validate_requested(room).is_ok());
        rooms.truncate(self.shared.config.max_rooms);
        self.counters.joins_denied += (count - rooms.len()) as u64;
        rooms
    }

    /// The default rooms, those that the credentials assign, and the user's group.
    fn enter_first_groups(&mut self, slot: Slot) {
        self.listen_for_client(slot);
        let shared = self.shared.clone();
        let assigned = self.session(slot).details.as_ref().map(|details| details.assigned.clone());
        let assigned = assigned.unwrap_or_default();
        let rooms = shared.config.default_rooms.iter().chain(&assigned);
        let groups = rooms.map(|room| (GroupKind::Room, room.as_str()));
        let user = self.session(slot).user.clone().filter(|user| !user.is_empty());
        for (kind, name) in groups.chain(user.as_deref().map(|user| (GroupKind::User, user))) {
            if !self.enter_group(slot, kind, name) {
                self.wait_for(slot, ChannelKey::Group(GroupKey { kind, name: name.into() }));
            }
        }
    }

    /// Sends `connected`, ahead of what was held back for it.
    pub(super) fn answer_login(&mut self, slot: Slot) {
        let variant = self.sockets[slot.0 as usize].variant;
        let session = self.session(slot);
        session.is_login_pending = false;
        session.is_degraded = session.awaiting > 0;
        if session.is_degraded {
            debug!(client = %session.client, "login is answered before the bus has confirmed");
        }
        let details = session.details.as_mut();
        let (handshake, id) = details
            .map(|details| (details.handshake.take(), details.login.take()))
            .unwrap_or_default();
        let data = self.connected_data(slot, variant, handshake);
        let outgoing = Outgoing {
            event_json: "\"connected\"",
            data: Some(&data),
            to: None,
            id: id.as_deref().filter(|_| variant.is_v1()),
        };
        let range = self.fanout.encode(|out| write_message_frame(out, variant, &outgoing));
        if self.sockets[slot.0 as usize].held {
            self.fanout.release(&mut self.sockets, slot, range);
        } else {
            self.fanout.queue(&mut self.sockets, slot, range, true);
        }
        self.arm(slot);
    }

    fn connected_data(
        &mut self,
        slot: Slot,
        variant: Variant,
        handshake: Option<HandshakeAnswer>,
    ) -> String {
        let shared = self.shared.clone();
        let session = self.session(slot);
        let mut data = format!("{{\"id\":\"{}\"", session.client);
        if let Some(user) = &session.user {
            let _ = write!(data, ",\"userId\":{}", json_string(user));
        }
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        let _ = write!(data, ",\"time\":\"{time}\"");
        if let Some(answer) = handshake {
            let (key, salt) = (json_string(&answer.server_public_key), json_string(&answer.salt));
            let _ = write!(data, ",\"serverPublicKey\":{key},\"salt\":{salt}");
        }
        if variant.is_v1() {
            let config = &shared.config;
            let _ = write!(
                data,
                ",\"server\":{{\"instance\":\"{}\",\"version\":\"{}\"}},\"heartbeat\":{}",
                shared.instance.name,
                env!("CARGO_PKG_VERSION"),
                config.heartbeat_timeout.as_millis(),
            );
            if let Some(expires) = session.details.as_ref().and_then(|details| details.expires) {
                let _ = write!(data, ",\"expires\":{expires}");
            }
            let _ = write!(
                data,
                ",\"limits\":{{\"message\":{},\"rooms\":{}}}",
                config.max_message, config.max_rooms,
            );
            if session.is_degraded {
                data.push_str(",\"degraded\":true");
            }
        }
        data.push('}');
        data
    }
}
