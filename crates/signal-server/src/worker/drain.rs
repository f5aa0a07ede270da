//! The end of a worker's connections when its edge drains, and of those that are to come back elsewhere.
//!
//! It owns how many of them have been told to go by now: a share of those there were, as large as the
//! share of the window that has passed, so that they come back to others a few at a time. Bounded by
//! the connections; each is told once.

use std::time::Duration;

use signal_core::close::CloseCode;

use super::State;
use super::hub::Slot;
use super::wheel::Tick;

/// Clients that are told to come back do so spread over this time.
const RECONNECT_SPREAD: Duration = Duration::from_secs(2);

/// A drain under way; see the module.
#[derive(Debug)]
pub(super) struct Drain {
    began: Tick,
    window: Duration,
    /// Connections when it began.
    connections: usize,
    closed: usize,
}

// === impl State ===

impl State {
    /// Begins to close every connection, spread over a time.
    pub(super) fn begin_drain(&mut self, window: Duration) {
        let connections = self.sessions.len();
        self.drain = Some(Drain { began: self.now(), window, connections, closed: 0 });
        self.drain_some();
    }

    /// Closes as many connections as the time since the drain began asks for.
    pub(super) fn drain_some(&mut self) {
        let Some(drain) = &self.drain else { return };
        let passed = self.now().since(drain.began);
        let share = match drain.window.is_zero() {
            true => 1.0,
            false => (passed.as_secs_f64() / drain.window.as_secs_f64()).min(1.0),
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of a count of connections"
        )]
        let target = match share >= 1.0 {
            true => usize::MAX,
            false => (share * drain.connections as f64) as usize,
        };
        let count = target.saturating_sub(drain.closed);
        let slots: Vec<Slot> = self
            .sessions
            .iter()
            .filter(|(_, session)| !session.is_closing())
            .take(count)
            .map(|(index, _)| Slot(u32::try_from(index).expect("slots have 28 bits")))
            .collect();
        if let Some(drain) = &mut self.drain {
            drain.closed += slots.len();
        }
        for slot in slots {
            self.say_goodbye(slot, "draining", CloseCode::Draining);
        }
    }

    /// Closes a connection that is to come back; clients of `signal.v1` are told when.
    pub(super) fn say_goodbye(&mut self, slot: Slot, reason: &str, code: CloseCode) {
        if !self.sockets[slot.0 as usize].variant.is_v1() {
            let code = match code {
                CloseCode::Draining => CloseCode::ServerShuttingDown,
                code => code,
            };
            self.begin_close(slot, code);
            return;
        }
        if self.session(slot).is_online() {
            let spread = RECONNECT_SPREAD.mul_f64(crate::random::fraction()).as_millis();
            let data = format!("{{\"reason\":\"{reason}\",\"retryAfterMs\":{spread}}}");
            self.notify(slot, "\"goodbye\"", &data);
        }
        self.begin_close(slot, code);
    }
}
