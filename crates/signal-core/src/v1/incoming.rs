//! What a client reads: the frames that [`Variant::write`] makes, and those of later versions.
//!
//! It must never take a message with an address for one of the edge's own, however the address looks: by
//! that a client knows that no producer speaks for the edge.

use std::borrow::Cow;

use super::Variant;
use crate::json;
use crate::limits::DATA_DEPTH_MAX;
use crate::message::ClientMessageError;
use crate::msgpack::{Header, MsgPackError, Reader, Value};

/// A frame as a client reads it. `data` and `id` are JSON texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// The event, never empty.
    pub event: Cow<'a, str>,
    /// The data, as it was published.
    pub data: Option<&'a str>,
    /// By what it came; `None` for what the edge itself says.
    pub to: Option<Address<'a>>,
    /// The id of the request that this answers, or of the producer's message.
    pub id: Option<Cow<'a, str>>,
}

/// By what a delivery came: [`To`](super::To), as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address<'a> {
    /// A room.
    Room(Cow<'a, str>),
    /// The client's user.
    User,
    /// The client itself.
    Client,
    /// Everyone.
    All,
    /// What a later version may say.
    Other,
}

// === impl Variant ===

impl Variant {
    /// Reads a frame's payload, which an edge has written.
    pub fn read(self, payload: &[u8]) -> Result<Incoming<'_>, ClientMessageError> {
        if self.is_binary() {
            return read_msgpack(payload);
        }
        read_json(std::str::from_utf8(payload).map_err(|_| ClientMessageError::Invalid)?)
    }
}

fn read_json(text: &str) -> Result<Incoming<'_>, ClientMessageError> {
    let [event, data, to, id] = json::members(text, &["event", "data", "to", "id"])?;
    let event = event.and_then(json::unescape).filter(|event| !event.is_empty());
    let event = event.ok_or(ClientMessageError::NoEvent)?;
    Ok(Incoming { event, data, to: to.map(Address::of_json), id: id.map(Cow::Borrowed) })
}

/// A map of `event` (a string), `data` (JSON text as `bin` or string), `to` (a map) and `id` (a string or
/// a natural number). Of a name that comes twice the last counts; other members are passed over.
pub(super) fn read_msgpack(bytes: &[u8]) -> Result<Incoming<'_>, ClientMessageError> {
    let mut reader = Reader::new(bytes);
    let Header::Map(parts) = reader.header()? else { return Err(ClientMessageError::Invalid) };
    let (mut event, mut data, mut to, mut id) = (None, None, None, None);
    for _ in 0..parts / 2 {
        let header = reader.header()?;
        let name = reader.value(header)?;
        let header = reader.header()?;
        if let (Value::Text("to"), Header::Map(parts)) = (name, header) {
            to = Some(Address::of_msgpack(&mut reader, parts)?);
            continue;
        }
        let value = reader.value(header)?;
        match name {
            Value::Text("event") => event = Some(value),
            Value::Text("data") => data = Some(value),
            Value::Text("to") => to = Some(Address::Other),
            Value::Text("id") => id = Some(value),
            _ => {}
        }
    }
    reader.end()?;
    let data = match data {
        None | Some(Value::Nil) => None,
        Some(Value::Text(text)) => Some(text),
        Some(Value::Binary(bytes)) => Some(crate::msgpack::utf8(bytes)?),
        Some(_) => return Err(ClientMessageError::Invalid),
    };
    let data = data.map(|text| json::validate(text, DATA_DEPTH_MAX)).transpose()?;
    let id = match id {
        Some(Value::Text(text)) => Some(Cow::Owned(json::string(text))),
        Some(Value::Unsigned(number)) => Some(Cow::Owned(number.to_string())),
        _ => None,
    };
    match event {
        Some(Value::Text(event)) if !event.is_empty() => {
            Ok(Incoming { event: Cow::Borrowed(event), data, to, id })
        }
        _ => Err(ClientMessageError::NoEvent),
    }
}

// === impl Address ===

impl<'a> Address<'a> {
    fn of_json(text: &'a str) -> Self {
        let Ok([room, user, client, all]) = json::members(text, &["room", "user", "client", "all"])
        else {
            return Self::Other;
        };
        if let Some(room) = room.and_then(json::unescape) {
            return Self::Room(room);
        }
        match [user, client, all].map(|value| value == Some("true")) {
            [true, ..] => Self::User,
            [_, true, _] => Self::Client,
            [.., true] => Self::All,
            _ => Self::Other,
        }
    }

    fn of_msgpack(reader: &mut Reader<'a>, parts: u64) -> Result<Self, MsgPackError> {
        let mut address = Self::Other;
        for _ in 0..parts / 2 {
            let header = reader.header()?;
            let name = reader.value(header)?;
            let header = reader.header()?;
            address = match (name, reader.value(header)?) {
                (Value::Text("room"), Value::Text(room)) => Self::Room(Cow::Borrowed(room)),
                (Value::Text("user"), Value::Other) => Self::User,
                (Value::Text("client"), Value::Other) => Self::Client,
                (Value::Text("all"), Value::Other) => Self::All,
                _ => address,
            };
        }
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{Outgoing, To};

    #[test]
    fn what_is_written_is_read() {
        for variant in [Variant::V1Json, Variant::V1MsgPack] {
            for (to, expected) in [
                (None, None),
                (Some(To::Room("a \"b\"")), Some(Address::Room("a \"b\"".into()))),
                (Some(To::User), Some(Address::User)),
                (Some(To::Client), Some(Address::Client)),
                (Some(To::All), Some(Address::All)),
            ] {
                for (data, id) in [(None, None), (Some("[1.10]"), Some("7")), (None, Some("\"x\""))]
                {
                    let mut out = Vec::new();
                    variant.write(&mut out, &Outgoing { event_json: "\"e\"", data, to, id });
                    let read = variant.read(&out).unwrap();
                    assert_eq!((&*read.event, read.data), ("e", data));
                    assert_eq!((&read.to, read.id.as_deref()), (&expected, id));
                }
            }
        }
    }

    #[test]
    fn an_address_that_is_not_known_is_one() {
        for to in ["{}", "null", "1", "[]", r#"{"tenant":7}"#, r#"{"room":7}"#, r#"{"user":false}"#]
        {
            let text = format!(r#"{{"event":"resync","to":{to}}}"#);
            assert_eq!(Variant::V1Json.read(text.as_bytes()).unwrap().to, Some(Address::Other));
        }
        for to in [&b"\x80"[..], b"\xC0", b"\x07", b"\x81\xA6tenant\x07", b"\x81\xA4room\x07"] {
            let bytes = [&b"\x82\xA5event\xA6resync\xA2to"[..], to].concat();
            let read = Variant::V1MsgPack.read(&bytes).unwrap();
            assert_eq!(read.to, Some(Address::Other), "{to:?}");
        }
    }
}
