//! What an edge says to one client: acknowledgements and errors.
//!
//! On the plain protocol only the errors of its table are said, as words; on `signal.v1` a request that
//! carries an id is answered, once, with that id, and errors have a code. Nothing is kept here.

use signal_core::message::json_string;
use signal_core::v1::{ErrorCode, Outgoing};

use super::State;
use super::hub::Slot;

/// A request's id as the JSON text it came as; `None` if there was none.
pub(super) type RequestId = Option<Box<str>>;

impl State {
    /// Acknowledges a request, if its client waits for that. `data` is JSON text.
    pub(super) fn acknowledge(&mut self, slot: Slot, id: &RequestId, data: &str) {
        let is_v1 = self.sockets[slot.0 as usize].variant.is_v1();
        if let (true, Some(id)) = (is_v1, id.as_deref()) {
            let outgoing =
                Outgoing { event_json: "\"ack\"", data: Some(data), to: None, id: Some(id) };
            self.say(slot, &outgoing);
        }
    }

    /// Tells a client what went wrong.
    pub(super) fn fail(&mut self, slot: Slot, id: &RequestId, code: ErrorCode) {
        let message = json_string(code.message());
        let data = if self.sockets[slot.0 as usize].variant.is_v1() {
            format!("{{\"code\":\"{}\",\"message\":{message}}}", code.name())
        } else if matches!(code, ErrorCode::Unsupported | ErrorCode::Failed) {
            return;
        } else {
            format!("{{\"message\":{message}}}")
        };
        let id = id.as_deref();
        let outgoing = Outgoing { event_json: "\"error\"", data: Some(&data), to: None, id };
        self.say(slot, &outgoing);
    }

    /// Says something of the edge's own to a client of `signal.v1`. `data` is JSON text.
    pub(super) fn notify(&mut self, slot: Slot, event_json: &str, data: &str) {
        self.say(slot, &Outgoing { event_json, data: Some(data), to: None, id: None });
    }
}
