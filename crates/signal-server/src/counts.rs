//! Numbers of a worker and of an edge: counters that only grow, and gauges read from the state itself.
//!
//! Each worker counts in plain fields of its own; they are added up when someone asks. Nothing is
//! counted twice, and no gauge is kept beside the state it describes, so none can drift.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use signal_core::id::ClientId;
use signal_core::v1::Variant;

/// Upper bounds of the buckets of [`Histogram`], in seconds.
pub const SECONDS: [f64; 12] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Upper bounds of the buckets of the outboxes' sizes, in bytes.
pub const OUTBOX_BYTES: [u64; 6] = [1024, 4096, 16_384, 65_536, 262_144, 1_048_576];

/// Label of a close code outside the table and the protocol's own.
const OTHER_CODES: u16 = 0;

/// How long something took, by buckets of [`SECONDS`].
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Histogram {
    /// Observations in each bucket alone; the last holds what is beyond all bounds.
    pub buckets: [u64; SECONDS.len() + 1],
    /// The sum of all observations, in seconds.
    pub sum: f64,
}

/// A connection, as operators see it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The client's id.
    pub client: ClientId,
    /// The user, if it is logged in as one.
    pub user: Option<Arc<str>>,
    /// Its state.
    pub state: &'static str,
    /// How it wants its frames.
    pub variant: Variant,
    /// Since the upgrade.
    pub age: Duration,
    /// Since it was last heard.
    pub silence: Duration,
    /// The rooms it is in, its own left out.
    pub rooms: Vec<Arc<str>>,
    /// Bytes that it has not taken yet.
    pub outbox_bytes: usize,
    /// Bytes it sent and was sent.
    pub received_bytes: u64,
    /// Bytes that its socket took.
    pub sent_bytes: u64,
}

/// What has happened since the start.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// WebSocket connections opened.
    pub opened: u64,
    /// Logins accepted.
    pub logins: u64,
    /// Logins rejected.
    pub logins_rejected: u64,
    /// Logins that nobody could decide.
    pub logins_failed: u64,
    /// Connections ended because their credentials were revoked.
    pub revoked_connections: u64,
    /// Logins and refreshes refused because their credentials had been.
    pub revoked_logins: u64,
    /// Bytes read from clients.
    pub bytes_received: u64,
    /// Frames read from clients.
    pub frames_received: u64,
    /// Messages that are not JSON objects.
    pub messages_invalid: u64,
    /// Messages without an event.
    pub messages_dropped: u64,
    /// Messages that nothing handles.
    pub messages_unhandled: u64,
    /// Connections closed because they sent too much.
    pub rate_exceeded: u64,
    /// Rooms asked for and not allowed.
    pub joins_denied: u64,
    /// Hooks that failed.
    pub hook_errors: u64,
    /// Messages that came from the bus.
    pub bus_messages: u64,
    /// Messages from the bus that had come before.
    pub bus_repeats: u64,
    /// Messages from the bus that were dropped, by reason.
    pub bus_decode_errors: BTreeMap<&'static str, u64>,
    /// Connections of links to the bus, each of which subscribes everything anew.
    pub bus_connects: u64,
    /// From a producer's `ts` to the sockets' writes.
    pub bus_lag: Histogram,
    /// What the authenticator took.
    pub login_time: Histogram,
    /// By how much the worker's ticks were late.
    pub tick_delay: Histogram,
    /// Times at which messages may have been lost between bus and clients.
    pub bus_gaps: u64,
    /// Clients that were told to reload, since messages may have been lost.
    pub resyncs: u64,
    /// Ended connections by close code: Signal's or the peer's; 1006 without one, 0 for unknown ones.
    pub closes: BTreeMap<u16, u64>,
    /// Messages sealed for one client each.
    pub sealed_for_sessions: u64,
    /// Messages sealed for all members of a room, once per worker and variant.
    pub sealed_for_rooms: u64,
    /// Keys made for rooms.
    pub room_keys: u64,
    /// Sealed messages of clients that could not be opened.
    pub decryptions_failed: u64,
    /// What was sent.
    pub sent: SendCounters,
}

/// What sending did, counted.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SendCounters {
    /// Frames queued for a socket.
    pub frames: u64,
    /// Bytes that sockets took.
    pub bytes: u64,
    /// Writes.
    pub writes: u64,
    /// Outboxes that were full.
    pub overflows: u64,
}

/// Numbers at one moment.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Counts {
    /// What has happened since the start.
    pub counters: Counters,
    /// Connections by state.
    pub connections: BTreeMap<&'static str, u64>,
    /// Rooms with members, per worker; a client's own room is not one.
    pub rooms: u64,
    /// Users with connections, per worker.
    pub users: u64,
    /// Groups that the edge listens to, lingering ones included.
    pub interests: usize,
    /// Groups of those that wait to be given up, or did a moment ago.
    pub lingering: usize,
    /// Groups that a worker hears of through another one, per worker.
    pub elsewhere: usize,
    /// Channels that logins and joins wait for.
    pub waiting: usize,
    /// Channels wanted on Redis.
    pub channels_wanted: usize,
    /// Channels that Redis has confirmed.
    pub channels_confirmed: usize,
    /// Rooms with members that encrypt, per worker.
    pub room_keys: usize,
    /// Groups in the directory of workers; none with a single worker.
    pub directory: usize,
    /// Connections that have not logged in, those that are no WebSockets yet included.
    pub unauthenticated: usize,
    /// Memberships of rooms, a client's own left out.
    pub memberships: u64,
    /// Bytes waiting for slow consumers.
    pub outbox_bytes: u64,
    /// Connections with bytes waiting, by buckets of [`OUTBOX_BYTES`]; the last is beyond all bounds.
    pub outboxes: [u64; OUTBOX_BYTES.len() + 1],
}

// === impl Counters ===

impl Counters {
    /// Notes the end of a connection.
    pub(crate) fn count_close(&mut self, code: Option<u16>) {
        let code = match code {
            None => 1006,
            Some(code) if signal_core::close::CloseCode::from_code(code).is_some() => code,
            Some(code @ 1000..=1015) => code,
            Some(_) => OTHER_CODES,
        };
        *self.closes.entry(code).or_default() += 1;
    }

    /// Notes a message that was dropped; returns how many were, for this reason.
    pub(crate) fn count_decode_error(&mut self, reason: &'static str) -> u64 {
        let count = self.bus_decode_errors.entry(reason).or_default();
        *count += 1;
        *count
    }

    fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.logins += other.logins;
        self.logins_rejected += other.logins_rejected;
        self.logins_failed += other.logins_failed;
        self.revoked_connections += other.revoked_connections;
        self.revoked_logins += other.revoked_logins;
        self.bytes_received += other.bytes_received;
        self.frames_received += other.frames_received;
        self.messages_invalid += other.messages_invalid;
        self.messages_dropped += other.messages_dropped;
        self.messages_unhandled += other.messages_unhandled;
        self.rate_exceeded += other.rate_exceeded;
        self.joins_denied += other.joins_denied;
        self.hook_errors += other.hook_errors;
        self.bus_messages += other.bus_messages;
        self.bus_repeats += other.bus_repeats;
        self.bus_connects += other.bus_connects;
        self.bus_lag.add(&other.bus_lag);
        self.login_time.add(&other.login_time);
        self.tick_delay.add(&other.tick_delay);
        self.bus_gaps += other.bus_gaps;
        self.resyncs += other.resyncs;
        self.sealed_for_sessions += other.sealed_for_sessions;
        self.sealed_for_rooms += other.sealed_for_rooms;
        self.room_keys += other.room_keys;
        self.decryptions_failed += other.decryptions_failed;
        self.sent.frames += other.sent.frames;
        self.sent.bytes += other.sent.bytes;
        self.sent.writes += other.sent.writes;
        self.sent.overflows += other.sent.overflows;
        for (reason, count) in &other.bus_decode_errors {
            *self.bus_decode_errors.entry(reason).or_default() += count;
        }
        for (code, count) in &other.closes {
            *self.closes.entry(*code).or_default() += count;
        }
    }
}

// === impl Histogram ===

impl Histogram {
    pub(crate) fn observe(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = SECONDS.iter().position(|bound| seconds <= *bound).unwrap_or(SECONDS.len());
        self.buckets[bucket] += 1;
        self.sum += seconds;
    }

    fn add(&mut self, other: &Self) {
        self.sum += other.sum;
        for (bucket, other) in self.buckets.iter_mut().zip(other.buckets) {
            *bucket += other;
        }
    }
}

// === impl Counts ===

impl Counts {
    /// Connections in any state.
    pub fn connections_total(&self) -> u64 {
        self.connections.values().sum()
    }

    /// Whether nothing is left of any client: no connection, no index entry, no interest of theirs.
    pub fn is_empty(&self) -> bool {
        self.connections_total() == 0
            && self.rooms == 0
            && self.users == 0
            && self.interests == 0
            && self.lingering == 0
            && self.elsewhere == 0
            && self.waiting == 0
            && self.room_keys == 0
            && self.directory == 0
            && self.unauthenticated == 0
            && self.outbox_bytes == 0
    }

    /// Notes what waits for one connection.
    pub(crate) fn count_outbox(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        if bytes > 0 {
            let bucket = OUTBOX_BYTES.iter().position(|bound| bytes <= *bound);
            self.outboxes[bucket.unwrap_or(OUTBOX_BYTES.len())] += 1;
            self.outbox_bytes += bytes;
        }
    }

    pub(crate) fn count_connection(&mut self, state: &'static str) {
        *self.connections.entry(state).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.counters.add(&other.counters);
        for (state, count) in &other.connections {
            *self.connections.entry(state).or_default() += count;
        }
        self.rooms += other.rooms;
        self.users += other.users;
        self.interests += other.interests;
        self.lingering += other.lingering;
        self.elsewhere += other.elsewhere;
        self.waiting += other.waiting;
        self.room_keys += other.room_keys;
        self.channels_wanted += other.channels_wanted;
        self.channels_confirmed += other.channels_confirmed;
        self.memberships += other.memberships;
        self.outbox_bytes += other.outbox_bytes;
        for (bucket, other) in self.outboxes.iter_mut().zip(other.outboxes) {
            *bucket += other;
        }
    }
}
