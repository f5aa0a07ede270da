//! A connection's state and its deadlines: from the upgrade to the end.
//!
//! It owns who the client is, where it stands (`unauthorized → authenticating → authenticated`, then
//! closing), when it was last heard and what it waits for; the socket is the fan-out's. One entry in
//! the wheel per connection, at the nearest of its deadlines; what is due is computed from the state
//! when the entry fires, so nothing has to be cancelled. Kept small: it is paid for every connection.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, SystemTime};

use signal_core::close::CloseCode;
use signal_core::crypto::Key;
use signal_core::id::ClientId;
use tracing::info;

use super::State;
use super::allowance::MessageAllowance;
use super::answer::RequestId;
use super::fanout::{SendFailure, Socket};
use super::hub::{GroupKind, Slot};
use super::inbound::Inbox;
use super::stream::Stream;
use super::wheel::{TICK, Tick};
use crate::auth::RoomPattern;
use crate::counts::ConnectionInfo;
use crate::gate::Admission;
use crate::hooks::{Client, HandshakeAnswer};
use crate::http::Accepted;
use crate::ws::frame::{Opcode, write_close, write_frame};
use crate::ws::parser::Parser;

/// After its Close frame a peer has this long to answer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A peer that cannot even take the Close frame is cut after this.
const BLOCKED_CLOSE_TIMEOUT: Duration = Duration::from_millis(800);

/// A login that the authenticator takes longer for than this many auth timeouts is given up.
const AUTHENTICATING_FACTOR: u32 = 3;

/// A login is answered after this long even if the bus has not confirmed its channels.
const CONFIRMATION_TIMEOUT: Duration = Duration::from_millis(900);

/// A client is told this long before its credentials end, so that it can get new ones.
const EXPIRING_NOTICE: Duration = Duration::from_mins(1);

/// Credentials that have ended close the connection after this.
const EXPIRY_GRACE: Duration = Duration::from_secs(5);

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Unauthorized,
    Authenticating,
    Authenticated,
    /// A Close frame was sent, by us or in answer.
    Closing,
}

/// A connection; see the module.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, one byte each")]
pub(super) struct Session {
    pub(super) client: ClientId,
    pub(super) phase: Phase,
    /// It is in the room of its own id, which the hub does not keep.
    pub(super) in_own_room: bool,
    /// The peer broke the protocol: whatever it still sends is not looked at.
    pub(super) is_broken: bool,
    /// The peer's Close frame has come.
    pub(super) peer_closed: bool,
    /// Reading has stopped until its hooks have caught up.
    pub(super) is_paused: bool,
    /// Why it was closed, where Signal or the peer gave a reason.
    pub(super) close: Option<u16>,
    pub(super) parser: Parser,
    pub(super) user: Option<Arc<str>>,
    /// What few connections have.
    pub(super) details: Option<Box<Details>>,
    /// The login is not answered yet.
    pub(super) is_login_pending: bool,
    /// The login was answered before the bus had confirmed all that it waits for.
    pub(super) is_degraded: bool,
    /// The client was told that its credentials end.
    is_told_expiring: bool,
    /// Channels of the login that the bus has not confirmed.
    pub(super) awaiting: u16,
    /// When the credentials end.
    expires: Tick,
    opened: Tick,
    /// When it has reached the age at which connections are spread anew.
    ends: Tick,
    /// Bytes the client sent.
    pub(super) received_bytes: u64,
    /// When the phase began.
    since: Tick,
    last_activity: Tick,
    next_ping: Tick,
    /// The tick of its entry in the wheel; other entries are stale.
    timer_at: Tick,
    /// Messages it may send now; refilled with time.
    pub(super) allowance: MessageAllowance,
    /// Its place among those that have not logged in; none once it has.
    pub(super) admission: Option<Box<Admission>>,
    waker: Option<Waker>,
}

/// What few connections have.
#[derive(Debug, Default)]
pub(super) struct Details {
    /// Rooms it may join beside those that everyone may.
    pub(super) rooms: Vec<RoomPattern>,
    /// Rooms that its credentials put it into.
    pub(super) assigned: Vec<String>,
    /// Acknowledgements of joins that wait for the bus, in the worker's table.
    pub(super) joins: Vec<u32>,
    pub(super) metadata: Option<Arc<serde_json::Value>>,
    /// The id of the token that it logged in with.
    pub(super) token_id: Option<Box<str>>,
    pub(super) handshake: Option<HandshakeAnswer>,
    /// Present if the session is encrypted.
    pub(super) session_key: Option<Box<Key>>,
    /// The id of the request that logged in, until it is answered.
    pub(super) login: RequestId,
    /// When the credentials end, in milliseconds since the Unix epoch.
    pub(super) expires: Option<u64>,
    /// Present while a hook is under way.
    pub(super) inbox: Option<Inbox>,
}

// === impl Session ===

impl Session {
    /// Whether it is logged in and not on its way out.
    pub(super) fn is_online(&self) -> bool {
        self.phase == Phase::Authenticated
    }

    pub(super) fn is_closing(&self) -> bool {
        self.phase == Phase::Closing
    }

    pub(super) fn details(&mut self) -> &mut Details {
        self.details.get_or_insert_default()
    }

    /// Its state in `signal_connections`.
    pub(super) fn state_name(&self) -> &'static str {
        match self.phase {
            Phase::Unauthorized => "unauthorized",
            Phase::Authenticating => "authenticating",
            Phase::Authenticated => "authenticated",
            Phase::Closing => "closing",
        }
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// When something is due because the credentials end.
    fn credentials_deadline(&self) -> Tick {
        match self.is_told_expiring {
            true => self.expires.after(EXPIRY_GRACE),
            false => self.expires.before(EXPIRING_NOTICE),
        }
    }

    /// Notes when the credentials end.
    pub(super) fn set_expiry(&mut self, expires: Tick) {
        self.expires = expires;
        self.is_told_expiring = false;
    }

    pub(super) fn set_waker(&mut self, waker: &Waker) {
        if self.waker.is_none() {
            self.waker = Some(waker.clone());
        }
    }
}

// === impl State ===

impl State {
    /// Takes a new connection in; with a token it logs in at once.
    pub(super) fn open(
        &mut self,
        stream: Stream,
        accepted: &Accepted,
        admission: Box<Admission>,
    ) -> Slot {
        let now = self.now();
        let entry = self.sessions.vacant_entry();
        let slot = Slot(u32::try_from(entry.key()).expect("slots have 28 bits"));
        let instance = self.shared.instance.tag;
        let random = crate::random::bits();
        let client = ClientId::from_parts(instance, self.id, slot.0, random);
        let ends = self.shared.config.max_connection_age.map_or(Tick(u32::MAX), |age| {
            // A tenth is left to chance, so that connections of one moment do not end in one.
            now.after(age.mul_f64(1.0 - 0.1 * crate::random::fraction()))
        });
        entry.insert(Session {
            client,
            phase: Phase::Unauthorized,
            in_own_room: false,
            is_broken: false,
            peer_closed: false,
            is_paused: false,
            close: None,
            parser: Parser::default(),
            user: None,
            details: None,
            is_login_pending: false,
            is_degraded: false,
            is_told_expiring: false,
            awaiting: 0,
            expires: Tick(u32::MAX),
            opened: now,
            ends,
            received_bytes: 0,
            since: now,
            last_activity: now,
            next_ping: now,
            timer_at: Tick(u32::MAX),
            allowance: MessageAllowance::default(),
            admission: Some(admission),
            waker: None,
        });
        let socket = self.sockets.insert(Socket::new(stream, accepted.variant));
        assert_eq!(socket, slot.0 as usize, "sockets and sessions share their slots");
        self.counters.opened += 1;
        self.note_connection_count();
        self.arm(slot);
        if let Some(token) = &accepted.token {
            self.authenticate_by_token(slot, token);
        }
        slot
    }

    pub(super) fn session(&mut self, slot: Slot) -> &mut Session {
        &mut self.sessions[slot.0 as usize]
    }

    /// The client as hooks see it.
    pub(super) fn client(&self, slot: Slot) -> Client {
        let session = &self.sessions[slot.0 as usize];
        Client {
            id: session.client,
            user_id: session.user.clone(),
            metadata: session.details.as_ref().and_then(|details| details.metadata.clone()),
            signal: self.shared.handle(),
        }
    }

    /// A connection as operators see it.
    pub(super) fn describe(&self, slot: Slot, session: &Session) -> ConnectionInfo {
        let socket = &self.sockets[slot.0 as usize];
        let groups = self.hub.groups_of(slot).filter(|key| key.kind == GroupKind::Room);
        ConnectionInfo {
            client: session.client,
            user: session.user.clone(),
            state: session.state_name(),
            variant: socket.variant,
            age: self.now().since(session.opened),
            silence: self.now().since(session.last_activity),
            rooms: groups.map(|key| key.name.clone()).collect(),
            outbox_bytes: socket.queued_bytes(),
            received_bytes: session.received_bytes,
            sent_bytes: socket.sent_bytes,
        }
    }

    /// Moves to another phase, whose deadlines count from now.
    pub(super) fn enter_phase(&mut self, slot: Slot, phase: Phase) {
        let now = self.now();
        let ping_interval = self.shared.config.ping_interval;
        let session = self.session(slot);
        session.phase = phase;
        session.since = now;
        if phase == Phase::Authenticated {
            session.next_ping = now.after(ping_interval);
        }
        self.arm(slot);
    }

    pub(super) fn note_activity(&mut self, slot: Slot) {
        let now = self.now();
        self.session(slot).last_activity = now;
    }

    /// Sees to it that the wheel fires at the session's nearest deadline.
    pub(super) fn arm(&mut self, slot: Slot) {
        let deadline = self.deadline(slot);
        let session = &mut self.sessions[slot.0 as usize];
        if deadline < session.timer_at || session.timer_at <= self.wheel.now() {
            session.timer_at = self.wheel.insert(slot, deadline);
        }
    }

    fn deadline(&self, slot: Slot) -> Tick {
        let config = &self.shared.config;
        let session = &self.sessions[slot.0 as usize];
        match session.phase {
            Phase::Unauthorized => session.since.after(config.auth_timeout),
            Phase::Authenticating => {
                session.since.after(config.auth_timeout.saturating_mul(AUTHENTICATING_FACTOR))
            }
            Phase::Authenticated if session.is_login_pending => {
                session.since.after(CONFIRMATION_TIMEOUT)
            }
            Phase::Authenticated => session
                .next_ping
                .min(session.last_activity.after(config.heartbeat_timeout))
                .min(session.credentials_deadline())
                .min(session.ends),
            Phase::Closing => {
                session.since.after(match self.sockets[slot.0 as usize].is_blocked() {
                    true => BLOCKED_CLOSE_TIMEOUT,
                    false => CLOSE_TIMEOUT,
                })
            }
        }
    }

    /// An entry of the wheel fired.
    pub(super) fn on_timer(&mut self, slot: Slot, at: Tick) {
        let Some(session) = self.sessions.get(slot.0 as usize) else { return };
        if session.timer_at != at {
            return;
        }
        if self.deadline(slot) <= self.now() {
            self.on_deadline(slot);
        }
        if self.sessions.contains(slot.0 as usize) {
            self.arm(slot);
        }
    }

    fn on_deadline(&mut self, slot: Slot) {
        let now = self.now();
        let session = &self.sessions[slot.0 as usize];
        match session.phase {
            Phase::Unauthorized | Phase::Authenticating => {
                self.begin_close(slot, CloseCode::AuthenticationTimeout);
            }
            Phase::Authenticated if session.is_login_pending => self.answer_login(slot),
            Phase::Authenticated => {
                let silent_since = session.last_activity;
                let timeout = self.shared.config.heartbeat_timeout;
                if silent_since.after(timeout) <= now && !session.is_paused {
                    self.begin_close(slot, CloseCode::HeartbeatTimeout);
                    return;
                }
                let next_ping = now.after(self.shared.config.ping_interval);
                let session = self.session(slot);
                if session.ends <= now {
                    self.say_goodbye(slot, "too old", CloseCode::TooOld);
                    return;
                }
                if session.is_paused {
                    session.last_activity = now;
                }
                if session.next_ping <= now {
                    session.next_ping = next_ping;
                    self.send_frame(slot, Opcode::Ping, &[]);
                }
                self.check_credentials(slot);
            }
            Phase::Closing => self.cut(slot),
        }
    }

    /// The tick at which a time of the clock comes.
    pub(super) fn tick_of(&self, time: SystemTime) -> Tick {
        match time.duration_since(SystemTime::now()) {
            Ok(remaining) => self.now().after(remaining),
            Err(_) => self.now(),
        }
    }

    /// Tells the client that its credentials end, and closes it when they have.
    fn check_credentials(&mut self, slot: Slot) {
        let now = self.now();
        let is_v1 = self.sockets[slot.0 as usize].variant.is_v1();
        let session = self.session(slot);
        if session.credentials_deadline() > now {
            return;
        }
        if session.is_told_expiring {
            self.begin_close(slot, CloseCode::CredentialsRevoked);
            return;
        }
        session.is_told_expiring = true;
        let milliseconds = session.expires.since(now).as_millis();
        if is_v1 {
            self.notify(slot, "\"expiring\"", &format!("{{\"in\":{milliseconds}}}"));
        }
    }

    /// Queues a control frame.
    pub(super) fn send_frame(&mut self, slot: Slot, opcode: Opcode, payload: &[u8]) {
        let range = self.fanout.encode(|out| write_frame(out, opcode, payload));
        self.fanout.queue(&mut self.sockets, slot, range, true);
    }

    /// Sends a Close frame and takes the connection out of every index; the peer has a moment to
    /// answer.
    pub(super) fn begin_close(&mut self, slot: Slot, code: CloseCode) {
        self.begin_close_with(slot, code.code(), code.reason());
    }

    pub(super) fn begin_close_with(&mut self, slot: Slot, code: u16, reason: &str) {
        if self.session(slot).is_closing() {
            return;
        }
        self.forget(slot);
        let session = self.session(slot);
        session.close = Some(code);
        session.is_login_pending = false;
        let socket = &mut self.sockets[slot.0 as usize];
        if std::mem::take(&mut socket.held) {
            // What was held back goes out before the Close frame, by the connection's task.
            self.sessions[slot.0 as usize].wake();
        }
        let range = self.fanout.encode(|out| write_close(out, code, reason));
        self.fanout.queue(&mut self.sockets, slot, range, true);
        self.fanout.write_now(&mut self.sockets, slot);
        self.enter_phase(slot, Phase::Closing);
    }

    /// Has the connection's task end it now.
    pub(super) fn cut(&mut self, slot: Slot) {
        let socket = &mut self.sockets[slot.0 as usize];
        socket.failure.get_or_insert(SendFailure::Disconnected);
        self.wake(slot);
    }

    /// The connection is over: nothing of it remains.
    pub(crate) fn finish(&mut self, slot: Slot) {
        self.forget(slot);
        let client = self.shared.hooks.disconnected.as_ref().map(|_| self.client(slot));
        let socket = self.sockets.remove(slot.0 as usize);
        let session = self.sessions.remove(slot.0 as usize);
        self.note_connection_count();
        self.shared.give_back(self.id);
        let code = match socket.failure {
            Some(SendFailure::SlowConsumer) => Some(CloseCode::SlowConsumer.code()),
            _ => session.close,
        };
        self.counters.count_close(code);
        info!(
            client = %session.client,
            user = session.user.as_deref(),
            state = session.state_name(),
            code,
            failure = socket.failure.map(SendFailure::name),
            seconds = (TICK * (self.now().0 - session.opened.0)).as_secs_f32(),
            received_bytes = session.received_bytes,
            sent_bytes = socket.sent_bytes,
            "connection ended"
        );
        drop(socket);
        if let (Some(hook), Some(client)) = (self.shared.hooks.disconnected.clone(), client) {
            let code = code.and_then(CloseCode::from_code);
            let future = hook(client, code);
            self.run_hook("disconnected", future);
        }
    }
}
