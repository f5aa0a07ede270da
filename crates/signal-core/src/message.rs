//! The client wire: `{"event": string, "data"?: any, "id"?: any}`.
//!
//! Owns reading what a client sends and writing what it gets. It must never look into `data`, which
//! goes through untouched. A message is as long as the frame it came in.

use std::borrow::Cow;

pub use crate::json::string as json_string;
use crate::json::{self, JsonError};

const EVENT: &str = "{\"event\":";
const DATA: &str = ",\"data\":";

/// What a client sent. `data` and `id` are JSON texts, exactly as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientMessage<'a> {
    /// The event, never empty.
    pub event: Cow<'a, str>,
    /// The JSON text of `data`; `None` if there is no such member.
    pub data: Option<&'a str>,
    /// The JSON text of `id`, of any type; `None` if there is no such member.
    pub id: Option<Cow<'a, str>>,
}

/// Why a text is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientMessageError {
    /// Not JSON, not an object, or too deep: the client is told.
    #[error("the message is not a JSON object")]
    Invalid,
    /// `event` is absent, empty, or no string: counted and dropped.
    #[error("the message has no event")]
    NoEvent,
}

/// Reads a message.
pub fn parse(text: &str) -> Result<ClientMessage<'_>, ClientMessageError> {
    let [event, data, id] = json::members(text, &["event", "data", "id"])?;
    let event = event.and_then(json::unescape).filter(|event| !event.is_empty());
    let event = event.ok_or(ClientMessageError::NoEvent)?;
    Ok(ClientMessage { event, data, id: id.map(Cow::Borrowed) })
}

/// Appends `{"event":E,"data":D}`, or `{"event":E}` without data.
///
/// `event_json` and `data` are JSON texts; they are not checked again.
pub fn write_delivery(out: &mut Vec<u8>, event_json: &str, data: Option<&str>) {
    out.reserve(delivery_len(event_json, data));
    out.extend_from_slice(EVENT.as_bytes());
    out.extend_from_slice(event_json.as_bytes());
    if let Some(data) = data {
        out.extend_from_slice(DATA.as_bytes());
        out.extend_from_slice(data.as_bytes());
    }
    out.push(b'}');
}

/// Bytes that [`write_delivery`] appends, so that a frame header can be written first.
pub fn delivery_len(event_json: &str, data: Option<&str>) -> usize {
    EVENT.len() + event_json.len() + data.map_or(0, |data| DATA.len() + data.len()) + 1
}

// === impl ClientMessageError ===

impl From<JsonError> for ClientMessageError {
    fn from(_: JsonError) -> Self {
        Self::Invalid
    }
}
