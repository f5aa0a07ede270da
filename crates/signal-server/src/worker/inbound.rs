//! What clients send: `join`, `leave`, and messages for the embedder.
//!
//! It owns the protocol's answers and the order of one connection's requests. A hook that is ready at
//! once is done within the turn; while one is not, later requests of that connection wait in its
//! [`Inbox`], and when that has [`INBOX_MESSAGES_MAX`] the connection is not read any further. Other
//! connections never wait. Bad input is answered or counted as the protocol's table says, and changes
//! nothing. A connection beyond its message rate is closed.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::task::{Context, Poll};

use futures_util::future::{FutureExt as _, LocalBoxFuture};
use serde::Deserialize;
use serde_json::value::RawValue;
use signal_core::id::ClientId;
use signal_core::message::{ClientMessage, ClientMessageError, json_string};
use signal_core::room;
use signal_core::v1::ErrorCode;
use tracing::warn;

use super::State;
use super::answer::RequestId;
use super::hub::{GroupKey, GroupKind, Slot};
use super::joins::Joined;
use super::session::Phase;
use crate::hooks::{AuthError, BoxFuture, Credentials, Grant, HookError, Message, Reply};

/// Requests that may wait for a hook before the connection is not read any further.
const INBOX_MESSAGES_MAX: usize = 64;

/// A join may name this many times the rooms that a client may be in; those beyond are denied unasked,
/// since each name may be held against hundreds of patterns.
const ROOMS_ASKED_FACTOR: usize = 8;

/// Requests that wait for a hook of their connection.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    waiting: VecDeque<Request>,
}

/// What a logged-in client asks for, and the id to answer it with.
#[derive(Debug)]
pub(super) struct Request {
    kind: RequestKind,
    id: RequestId,
}

#[derive(Debug)]
enum RequestKind {
    Join(Vec<String>),
    Leave(Vec<String>),
    Refresh(Credentials),
    /// Leave the rooms that the client may not be in any more.
    Recheck,
    Message(Message),
}

/// What a hook answered.
enum Answer {
    Join { denied: Vec<String>, allowed: Result<Vec<String>, HookError> },
    Refresh(Result<Grant, AuthError>),
    Recheck(Result<Vec<String>, HookError>),
    Handled(Result<Reply, HookError>),
}

/// A hook's future that cannot panic.
pub(super) type Guarded<T> = LocalBoxFuture<'static, Result<T, HookError>>;

// === impl State ===

impl State {
    /// A client's message, or why it is none.
    pub(super) fn on_message(
        &mut self,
        slot: Slot,
        message: Result<ClientMessage<'_>, ClientMessageError>,
    ) {
        let message = match message {
            Ok(message) => message,
            Err(ClientMessageError::NoEvent) => {
                self.counters.messages_dropped += 1;
                if self.sockets[slot.0 as usize].variant.is_v1() {
                    self.fail(slot, &None, ErrorCode::InvalidMessage);
                }
                return;
            }
            Err(_) => {
                self.counters.messages_invalid += 1;
                return self.fail(slot, &None, ErrorCode::InvalidMessage);
            }
        };
        if self.is_encrypted(slot, &message.event) {
            return self.on_encrypted(slot, message.data);
        }
        let id: RequestId = message.id.map(|id| id.as_ref().into());
        let kind = match (&*message.event, self.session(slot).phase) {
            ("heartbeat", _) => return self.acknowledge(slot, &id, "null"),
            ("authenticate", _) => return self.authenticate(slot, message.data, id),
            (_, Phase::Unauthorized | Phase::Authenticating) => {
                return self.fail(slot, &id, ErrorCode::NotAuthenticated);
            }
            (_, Phase::Closing) => return,
            ("join", _) => RequestKind::Join(rooms(message.data)),
            ("leave", _) => RequestKind::Leave(rooms(message.data)),
            ("refresh", _) if self.sockets[slot.0 as usize].variant.is_v1() => {
                RequestKind::Refresh(Credentials::of(message.data))
            }
            (_, Phase::Authenticated) => RequestKind::Message(Message {
                event: message.event.into_owned(),
                data: message.data.map(ToOwned::to_owned),
                id: id.as_deref().map(ToOwned::to_owned),
            }),
        };
        self.request(slot, Request { kind, id });
    }

    /// Takes one frame from the connection's allowance, which refills with time.
    pub(super) fn spend_allowance(&mut self, slot: Slot) -> bool {
        let now = self.now();
        let (rate, burst) = (self.shared.config.message_rate, self.shared.config.message_burst);
        self.session(slot).allowance.spend(now, rate, burst)
    }

    pub(super) fn request(&mut self, slot: Slot, request: Request) {
        let inbox = self.session(slot).details.as_mut().and_then(|details| details.inbox.as_mut());
        if let Some(inbox) = inbox {
            inbox.waiting.push_back(request);
            let full = inbox.waiting.len() >= INBOX_MESSAGES_MAX;
            self.session(slot).is_paused = full;
            return;
        }
        let Some((future, mut id)) = self.act(slot, request) else { return };
        self.session(slot).details().inbox = Some(Inbox::default());
        let client = self.session(slot).client;
        let worker = self.worker.clone();
        tokio::task::spawn_local(async move {
            let mut future = future;
            loop {
                let answer = future.await;
                let Some(worker) = worker.upgrade() else { return };
                let next = worker.turn(|state| state.answered(slot, client, answer, id));
                match next {
                    Some(next) => (future, id) = next,
                    None => return,
                }
            }
        });
    }

    /// A hook has answered; goes on with the requests that waited, up to the next hook that waits.
    fn answered(
        &mut self,
        slot: Slot,
        client: ClientId,
        answer: Result<Answer, HookError>,
        id: RequestId,
    ) -> Option<(Guarded<Answer>, RequestId)> {
        let current = self.sessions.get(slot.0 as usize).is_some_and(|session| {
            session.client == client && session.phase == Phase::Authenticated
        });
        if !current {
            return None;
        }
        self.apply(slot, answer, id);
        loop {
            let session = self.session(slot);
            if !session.is_online() {
                return None;
            }
            let inbox = session.details.as_mut().and_then(|details| details.inbox.as_mut())?;
            let Some(request) = inbox.waiting.pop_front() else {
                session.details().inbox = None;
                self.resume(slot);
                return None;
            };
            if inbox.waiting.len() < INBOX_MESSAGES_MAX / 2 {
                self.resume(slot);
            }
            if let Some(future) = self.act(slot, request) {
                return Some(future);
            }
        }
    }

    fn resume(&mut self, slot: Slot) {
        let session = self.session(slot);
        if std::mem::take(&mut session.is_paused) {
            session.wake();
        }
    }

    /// Acts on a request; returns the hook's future if it has to be waited for.
    fn act(&mut self, slot: Slot, request: Request) -> Option<(Guarded<Answer>, RequestId)> {
        let Request { kind, id } = request;
        let future: BoxFuture<Answer> = match kind {
            RequestKind::Join(rooms) => {
                let (rooms, denied) = self.askable(slot, rooms);
                let allow = self.shared.hooks.allow.clone();
                let Some(allow) = allow.filter(|_| !rooms.is_empty()) else {
                    let allowed = Ok(self.allowed_by_pattern(slot, &rooms));
                    let denied = without(rooms, denied, &allowed);
                    self.apply(slot, Ok(Answer::Join { denied, allowed }), id);
                    return None;
                };
                let answer = allow(self.client(slot), rooms.clone());
                Box::pin(async move {
                    let allowed = answer.await.map(|mut allowed| {
                        let asked: HashSet<&String> = rooms.iter().collect();
                        allowed.retain(|room| asked.contains(room));
                        allowed
                    });
                    Answer::Join { denied: without(rooms, denied, &allowed), allowed }
                })
            }
            RequestKind::Leave(rooms) => {
                let left: Vec<_> =
                    rooms.into_iter().filter(|room| self.leave_room(slot, room)).collect();
                let left: Vec<_> = left.iter().map(|room| json_string(room)).collect();
                self.acknowledge(slot, &id, &format!("{{\"rooms\":[{}]}}", left.join(",")));
                return None;
            }
            RequestKind::Refresh(credentials) => {
                let authenticate = self.shared.hooks.authenticate.clone().expect("set when bound");
                let answer = authenticate(self.session(slot).client, credentials);
                Box::pin(async move { Answer::Refresh(answer.await) })
            }
            RequestKind::Recheck => {
                let rooms = self.requested_rooms(slot);
                let allow = self.shared.hooks.allow.clone();
                let Some(allow) = allow.filter(|_| !rooms.is_empty()) else {
                    let allowed = self.allowed_by_pattern(slot, &rooms);
                    self.apply(slot, Ok(Answer::Recheck(Ok(allowed))), None);
                    return None;
                };
                let answer = allow(self.client(slot), rooms);
                Box::pin(async move { Answer::Recheck(answer.await) })
            }
            RequestKind::Message(message) => {
                let Some(handle) = self.shared.hooks.message.clone() else {
                    self.counters.messages_unhandled += 1;
                    self.fail(slot, &id, ErrorCode::Unsupported);
                    return None;
                };
                let answer = handle(self.client(slot), message);
                Box::pin(async move { Answer::Handled(answer.await) })
            }
        };
        match poll_once(future) {
            Ok(answer) => {
                self.apply(slot, answer, id);
                None
            }
            Err(future) => Some((future, id)),
        }
    }

    fn apply(&mut self, slot: Slot, answer: Result<Answer, HookError>, id: RequestId) {
        match answer {
            Ok(Answer::Join { mut denied, allowed: Ok(allowed) }) => {
                let mut joined = Joined::default();
                let rooms_max = self.shared.config.max_rooms;
                let mut left = rooms_max.saturating_sub(self.requested(slot).count());
                for room in allowed {
                    match self.join_requested(slot, &room, &mut left) {
                        None => denied.push(room),
                        Some(confirmed) => {
                            if !confirmed {
                                joined.unconfirmed.push(GroupKey::room(&room));
                            }
                            joined.rooms.push(room);
                        }
                    }
                }
                self.counters.joins_denied += denied.len() as u64;
                joined.denied = denied;
                self.acknowledge_join(slot, id, joined);
            }
            Ok(Answer::Refresh(outcome)) => {
                let accepted = outcome.is_ok();
                self.refreshed(slot, &id, outcome);
                if accepted {
                    self.request(slot, Request { kind: RequestKind::Recheck, id: None });
                }
            }
            Ok(Answer::Recheck(Ok(allowed))) => {
                for room in self.requested_rooms(slot) {
                    if !allowed.contains(&room) {
                        self.leave_room(slot, &room);
                    }
                }
            }
            Ok(Answer::Handled(Ok(reply))) => self.acknowledge(slot, &id, reply.json()),
            Ok(
                Answer::Join { allowed: Err(error), .. }
                | Answer::Recheck(Err(error))
                | Answer::Handled(Err(error)),
            )
            | Err(error) => {
                self.counters.hook_errors += 1;
                warn!(client = %self.session(slot).client, %error, "hook failed");
                self.fail(slot, &id, ErrorCode::Failed);
            }
        }
    }

    /// Those of the rooms that a policy may be asked for, and the others.
    fn askable(&mut self, slot: Slot, rooms: Vec<String>) -> (Vec<String>, Vec<String>) {
        let client = self.session(slot).client;
        let mut left = self.shared.config.max_rooms.saturating_mul(ROOMS_ASKED_FACTOR);
        rooms.into_iter().partition(|room| {
            let is_room =
                room::validate_requested(room).is_ok() || ClientId::parse(room) == Some(client);
            let is_asked = is_room && left > 0;
            left -= usize::from(is_asked);
            is_asked
        })
    }

    /// Those that the settings or the client's credentials allow.
    fn allowed_by_pattern(&self, slot: Slot, rooms: &[String]) -> Vec<String> {
        let session = &self.sessions[slot.0 as usize];
        let own = session.details.as_ref().map_or(&[][..], |details| &details.rooms);
        let user = session.user.as_deref();
        let patterns = || self.shared.config.rooms.iter().chain(own);
        let allowed = |room: &&String| patterns().any(|pattern| pattern.matches(room, user));
        rooms.iter().filter(allowed).cloned().collect()
    }

    /// The rooms that the client is in because it asked: neither default nor assigned.
    fn requested(&self, slot: Slot) -> impl Iterator<Item = &GroupKey> {
        let details = self.sessions[slot.0 as usize].details.as_ref();
        let assigned = details.map_or(&[][..], |details| &details.assigned);
        let given = move || self.shared.config.default_rooms.iter().chain(assigned);
        self.hub.groups_of(slot).filter(move |key| {
            key.kind == GroupKind::Room && !given().any(|room| **room == *key.name)
        })
    }

    fn requested_rooms(&self, slot: Slot) -> Vec<String> {
        self.requested(slot).map(|key| key.name.to_string()).collect()
    }

    /// Joins a room that the policy allowed, if it is one of the rooms that are `left` to the client or
    /// does not count: `None` beyond that, else whether the bus has confirmed it.
    fn join_requested(&mut self, slot: Slot, room: &str, left: &mut usize) -> Option<bool> {
        let is_free = self.shared.config.default_rooms.iter().any(|name| name == room)
            || ClientId::parse(room).is_some()
            || self.hub.is_member(slot, GroupKind::Room, room);
        if !is_free {
            *left = left.checked_sub(1)?;
        }
        self.enter_room(slot, room)
    }

    /// Runs a hook that nobody waits for.
    pub(super) fn run_hook(
        &mut self,
        name: &'static str,
        future: BoxFuture<Result<(), HookError>>,
    ) {
        let future = match poll_once(future) {
            Ok(outcome) => {
                if let Err(error) = outcome.flatten() {
                    self.hook_failed(name, &error);
                }
                return;
            }
            Err(future) => future,
        };
        let worker = self.worker.clone();
        self.hook_tasks.spawn_local(async move {
            let Err(error) = future.await.flatten() else { return };
            if let Some(worker) = worker.upgrade() {
                worker.turn(|state| state.hook_failed(name, &error));
            }
        });
    }

    /// A hook of the embedder's failed, or panicked, where no client waits for an answer.
    pub(super) fn hook_failed(&mut self, name: &'static str, error: &HookError) {
        self.counters.hook_errors += 1;
        warn!(hook = name, %error, "hook failed");
    }
}

/// The denied rooms: `denied`, and those of `rooms` that are not allowed.
fn without(
    rooms: Vec<String>,
    mut denied: Vec<String>,
    allowed: &Result<Vec<String>, HookError>,
) -> Vec<String> {
    if let Ok(allowed) = allowed {
        let allowed: HashSet<&String> = allowed.iter().collect();
        denied.extend(rooms.into_iter().filter(|room| !allowed.contains(room)));
    }
    denied
}

/// The strings in `rooms` of a request's data; whatever else is there is passed over.
fn rooms(data: Option<&str>) -> Vec<String> {
    #[derive(Deserialize)]
    struct Request<'a> {
        #[serde(borrow, default)]
        rooms: Option<Vec<&'a RawValue>>,
    }
    let request: Option<Request<'_>> = data.and_then(|data| serde_json::from_str(data).ok());
    request
        .and_then(|request| request.rooms)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|room| serde_json::from_str::<Cow<'_, str>>(room.get()).ok())
        .map(Cow::into_owned)
        .collect()
}

/// Polls a hook's future once, so that one that needs no waiting is done at once; a panic is an error.
pub(super) fn poll_once<T: 'static>(
    future: BoxFuture<T>,
) -> Result<Result<T, HookError>, Guarded<T>> {
    let mut guarded: Guarded<T> = AssertUnwindSafe(future)
        .catch_unwind()
        .map(|outcome| outcome.map_err(|_| HookError::from("the hook panicked")))
        .boxed_local();
    // Whoever gets the future back polls it with a waker of its own.
    match guarded.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(outcome) => Ok(outcome),
        Poll::Pending => Err(guarded),
    }
}
