//! What clients send: `join`, `leave`, and messages for the embedder.
//!
//! It owns the protocol's answers and the order of one connection's requests. A hook that is ready at
//! once is done within the turn; while one is not, later requests of that connection wait in its
//! [`Inbox`], and when that has [`INBOX_MESSAGES_MAX`] the connection is not read any further. Other
//! connections never wait. Bad input is answered or counted as the protocol's table says, and changes
//! nothing. A connection beyond its message rate is closed.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::task::{Context, Poll};

use futures_util::future::{FutureExt as _, LocalBoxFuture};
use serde::Deserialize;
use serde_json::value::RawValue;
use signal_core::id::ClientId;
use signal_core::message::{self, ClientMessageError, json_string};
use signal_core::room;
use tracing::warn;

use super::State;
use super::hub::{GroupKind, Slot};
use super::session::Phase;
use crate::hooks::{BoxFuture, HookError, Message};

/// Requests that may wait for a hook before the connection is not read any further.
const INBOX_MESSAGES_MAX: usize = 64;

/// Requests that wait for a hook of their connection.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    waiting: VecDeque<Request>,
}

/// What a logged-in client asks for.
#[derive(Debug)]
pub(super) enum Request {
    Join(Vec<String>),
    Leave(Vec<String>),
    Message(Message),
}

/// What a hook answered.
#[derive(Debug)]
enum Answer {
    Join(Result<Vec<String>, HookError>),
    Handled(Result<(), HookError>),
}

/// A hook's future that cannot panic.
pub(super) type Guarded<T> = LocalBoxFuture<'static, Result<T, HookError>>;

// === impl State ===

impl State {
    /// A message of the plain protocol.
    pub(super) fn on_text(&mut self, slot: Slot, text: &str) {
        let message = match message::parse(text) {
            Ok(message) => message,
            Err(ClientMessageError::NoEvent) => {
                self.counters.messages_dropped += 1;
                return;
            }
            Err(_) => return self.on_invalid(slot),
        };
        match (&*message.event, self.session(slot).phase) {
            ("heartbeat", _) => {}
            ("authenticate", _) => self.authenticate(slot, message.data),
            (_, Phase::Unauthorized | Phase::Authenticating) => {
                self.send_error(slot, "Not authenticated");
            }
            (_, Phase::Closing) => {}
            ("join", _) => self.request(slot, Request::Join(rooms(message.data))),
            ("leave", _) => self.request(slot, Request::Leave(rooms(message.data))),
            (_, Phase::Authenticated) => {
                let message = Message {
                    event: message.event.into_owned(),
                    data: message.data.map(ToOwned::to_owned),
                    id: message.id.map(ToOwned::to_owned),
                };
                self.request(slot, Request::Message(message));
            }
        }
    }

    pub(super) fn on_invalid(&mut self, slot: Slot) {
        self.counters.messages_invalid += 1;
        self.send_error(slot, "Invalid message format");
    }

    /// Sends `error` with a message.
    pub(super) fn send_error(&mut self, slot: Slot, message: &str) {
        let data = format!("{{\"message\":{}}}", json_string(message));
        self.deliver_to(slot, "\"error\"", Some(&data));
    }

    /// Takes one frame from the connection's allowance, which refills with time.
    pub(super) fn spend_allowance(&mut self, slot: Slot) -> bool {
        let now = self.now();
        let rate = self.shared.config.message_rate_f32();
        let burst = self.shared.config.message_burst_f32();
        let session = self.session(slot);
        let passed = now.since(session.allowance_at).as_secs_f32();
        session.allowance_at = now;
        session.allowance = (session.allowance + passed * rate).min(burst) - 1.0;
        session.allowance >= 0.0
    }

    fn request(&mut self, slot: Slot, request: Request) {
        let inbox = self.session(slot).details.as_mut().and_then(|details| details.inbox.as_mut());
        if let Some(inbox) = inbox {
            inbox.waiting.push_back(request);
            let full = inbox.waiting.len() >= INBOX_MESSAGES_MAX;
            self.session(slot).is_paused = full;
            return;
        }
        let Some(future) = self.act(slot, request) else { return };
        self.session(slot).details().inbox = Some(Inbox::default());
        let client = self.session(slot).client;
        let worker = self.worker.clone();
        tokio::task::spawn_local(async move {
            let mut future = future;
            loop {
                let answer = future.await;
                let Some(worker) = worker.upgrade() else { return };
                let next = worker.turn(|state| state.answered(slot, client, answer));
                match next {
                    Some(next) => future = next,
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
    ) -> Option<Guarded<Answer>> {
        let current = self.sessions.get(slot.0 as usize).is_some_and(|session| {
            session.client == client && session.phase == Phase::Authenticated
        });
        if !current {
            return None;
        }
        self.apply(slot, answer);
        loop {
            let session = self.session(slot);
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
    fn act(&mut self, slot: Slot, request: Request) -> Option<Guarded<Answer>> {
        let future: BoxFuture<Answer> = match request {
            Request::Join(rooms) => {
                let rooms = self.askable(slot, rooms);
                if rooms.is_empty() {
                    return None;
                }
                let Some(allow) = self.shared.hooks.allow.clone() else {
                    self.join_by_pattern(slot, &rooms);
                    return None;
                };
                let answer = allow(self.client(slot), rooms.clone());
                Box::pin(async move {
                    Answer::Join(answer.await.map(|mut allowed| {
                        allowed.retain(|room| rooms.contains(room));
                        allowed
                    }))
                })
            }
            Request::Leave(rooms) => {
                for room in rooms {
                    self.leave_room(slot, &room);
                }
                return None;
            }
            Request::Message(message) => {
                let Some(handle) = self.shared.hooks.message.clone() else {
                    self.counters.messages_unhandled += 1;
                    return None;
                };
                let answer = handle(self.client(slot), message);
                Box::pin(async move { Answer::Handled(answer.await) })
            }
        };
        match poll_once(future) {
            Ok(answer) => {
                self.apply(slot, answer);
                None
            }
            Err(future) => Some(future),
        }
    }

    fn apply(&mut self, slot: Slot, answer: Result<Answer, HookError>) {
        match answer {
            Ok(Answer::Join(Ok(rooms))) => {
                for room in rooms {
                    self.join_requested(slot, &room);
                }
            }
            Ok(Answer::Handled(Ok(()))) => {}
            Ok(Answer::Join(Err(error)) | Answer::Handled(Err(error))) | Err(error) => {
                self.counters.hook_errors += 1;
                warn!(client = %self.session(slot).client, %error, "hook failed");
            }
        }
    }

    /// Those of the rooms that a policy may be asked for.
    fn askable(&mut self, slot: Slot, rooms: Vec<String>) -> Vec<String> {
        let client = self.session(slot).client;
        let asked = rooms.len();
        let rooms: Vec<_> = rooms
            .into_iter()
            .filter(|room| {
                room::validate_requested(room).is_ok() || ClientId::parse(room) == Some(client)
            })
            .collect();
        self.counters.joins_denied += (asked - rooms.len()) as u64;
        rooms
    }

    /// Joins those that the settings or the client's credentials allow.
    fn join_by_pattern(&mut self, slot: Slot, rooms: &[String]) {
        let shared = self.shared.clone();
        for room in rooms {
            let session = &self.sessions[slot.0 as usize];
            let own = session.details.as_ref().map_or(&[][..], |details| &details.rooms);
            let user = session.user.as_deref();
            if shared.config.rooms.iter().chain(own).any(|pattern| pattern.matches(room, user)) {
                self.join_requested(slot, room);
            } else {
                self.counters.joins_denied += 1;
            }
        }
    }

    /// Joins a room that the policy allowed, within the bound on rooms.
    fn join_requested(&mut self, slot: Slot, room: &str) {
        let shared = self.shared.clone();
        let is_default =
            |name: &str| shared.config.default_rooms.iter().any(|room| **room == *name);
        let joined = self
            .hub
            .groups_of(slot)
            .filter(|key| key.kind == GroupKind::Room && !is_default(&key.name))
            .count();
        let is_free = is_default(room) || ClientId::parse(room).is_some();
        if !is_free
            && joined >= shared.config.max_rooms
            && !self.hub.is_member(slot, GroupKind::Room, room)
        {
            self.counters.joins_denied += 1;
            return;
        }
        self.enter_room(slot, room);
    }

    /// Runs a hook that nobody waits for.
    pub(super) fn run_hook(
        &mut self,
        name: &'static str,
        future: BoxFuture<Result<(), HookError>>,
    ) {
        let report = move |outcome: Result<Result<(), HookError>, HookError>| {
            if let Err(error) = outcome.and_then(|outcome| outcome) {
                warn!(hook = name, %error, "hook failed");
            }
        };
        match poll_once(future) {
            Ok(outcome) => report(outcome),
            Err(future) => {
                self.hook_tasks.spawn_local(async move { report(future.await) });
            }
        }
    }
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
