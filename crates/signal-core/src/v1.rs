//! The `signal.v1` subprotocols: what they add to the plain client wire.
//!
//! Owns names, the frames that edges and clients write, and how each side reads them. It must never look
//! into `data`, which is JSON text in both forms: in `signal.v1.msgpack` it is a `bin` that
//! holds the text, as in the compact envelope, so that numbers keep their digits and an edge never
//! transcodes a payload. A frame is as long as what it holds.

mod incoming;

pub use self::incoming::{Address, Incoming};
use crate::json;
use crate::message::{ClientMessage, ClientMessageError, write_delivery};
use crate::msgpack::{MsgPackError, write_binary, write_text};

/// A name in `Sec-WebSocket-Protocol` that begins so is no subprotocol, but a token to log in with: the
/// one header that a browser's page can put something into.
pub const TOKEN_PREFIX: &str = "signal.v1.token.";

/// How frames for a client are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Variant {
    /// The plain protocol: what clients of the TypeScript fleet speak.
    #[default]
    Plain = 0,
    /// `signal.v1.json`: text frames.
    V1Json = 1,
    /// `signal.v1.msgpack`: binary frames.
    V1MsgPack = 2,
}

/// Why a request was not fulfilled: the `code` of an `error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The message is no object, or has no event.
    InvalidMessage,
    /// The client has to log in first.
    NotAuthenticated,
    /// The client has logged in already, or is about to.
    AlreadyAuthenticated,
    /// The credentials are no good.
    AuthenticationFailed,
    /// Nobody could tell whether they are.
    AuthenticationError,
    /// No keys could be agreed on.
    EncryptionFailed,
    /// What was sealed does not open.
    DecryptionFailed,
    /// Nothing handles this event.
    Unsupported,
    /// What handles it has failed.
    Failed,
}

/// By what a delivery came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To<'a> {
    /// A room.
    Room(&'a str),
    /// The client's user.
    User,
    /// The client itself.
    Client,
    /// Everyone.
    All,
}

/// A frame to write; a client's has no `to`.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The JSON text of the event string.
    pub event_json: &'a str,
    /// The JSON text of the data.
    pub data: Option<&'a str>,
    /// By what it came; `None` for what the edge itself says.
    pub to: Option<To<'a>>,
    /// The JSON text of the request's id that this answers, or of the producer's message id.
    pub id: Option<&'a str>,
}

// === impl Variant ===

impl Variant {
    /// Every variant.
    pub const ALL: [Self; 3] = [Self::Plain, Self::V1Json, Self::V1MsgPack];

    /// The name in `Sec-WebSocket-Protocol`; the plain protocol has none.
    pub const fn subprotocol(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::V1Json => Some("signal.v1.json"),
            Self::V1MsgPack => Some("signal.v1.msgpack"),
        }
    }

    /// The variant of this name.
    pub fn from_subprotocol(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|variant| variant.subprotocol() == Some(name))
    }

    /// Whether its frames are binary.
    pub const fn is_binary(self) -> bool {
        matches!(self, Self::V1MsgPack)
    }

    /// Whether it is `signal.v1`.
    pub const fn is_v1(self) -> bool {
        !matches!(self, Self::Plain)
    }

    /// Appends a frame's payload.
    pub fn write(self, out: &mut Vec<u8>, outgoing: &Outgoing<'_>) {
        match self {
            Self::Plain => write_delivery(out, outgoing.event_json, outgoing.data),
            Self::V1Json => write_json(out, outgoing),
            Self::V1MsgPack => write_msgpack(out, outgoing),
        }
    }

    /// What a client sends: an event, the JSON text of its data, and on `signal.v1` the id of an answer.
    pub fn request(self, event: &str, data: Option<&str>, id: Option<u64>) -> Vec<u8> {
        let (event_json, id) = (json::string(event), id.map(|id| id.to_string()));
        let mut out = Vec::new();
        let id = id.as_deref();
        self.write(&mut out, &Outgoing { event_json: &event_json, data, to: None, id });
        out
    }
}

fn write_json(out: &mut Vec<u8>, outgoing: &Outgoing<'_>) {
    write_delivery(out, outgoing.event_json, outgoing.data);
    out.pop();
    match outgoing.to {
        None => {}
        Some(To::Room(room)) => {
            out.extend_from_slice(b",\"to\":{\"room\":");
            json::write_string(out, room);
            out.push(b'}');
        }
        Some(To::User) => out.extend_from_slice(b",\"to\":{\"user\":true}"),
        Some(To::Client) => out.extend_from_slice(b",\"to\":{\"client\":true}"),
        Some(To::All) => out.extend_from_slice(b",\"to\":{\"all\":true}"),
    }
    if let Some(id) = outgoing.id {
        out.extend_from_slice(b",\"id\":");
        out.extend_from_slice(id.as_bytes());
    }
    out.push(b'}');
}

fn write_msgpack(out: &mut Vec<u8>, outgoing: &Outgoing<'_>) {
    const FIXMAP: u8 = 0x80;
    let members = 1
        + u8::from(outgoing.data.is_some())
        + u8::from(outgoing.to.is_some())
        + u8::from(outgoing.id.is_some());
    out.push(FIXMAP | members);
    write_text(out, "event");
    write_text(out, &json::unescape(outgoing.event_json).unwrap_or_default());
    if let Some(data) = outgoing.data {
        write_text(out, "data");
        write_binary(out, data.as_bytes());
    }
    if let Some(to) = outgoing.to {
        write_text(out, "to");
        out.push(FIXMAP | 1);
        let name = match to {
            To::Room(room) => {
                write_text(out, "room");
                write_text(out, room);
                None
            }
            To::User => Some("user"),
            To::Client => Some("client"),
            To::All => Some("all"),
        };
        if let Some(name) = name {
            const TRUE: u8 = 0xC3;
            write_text(out, name);
            out.push(TRUE);
        }
    }
    if let Some(id) = outgoing.id {
        write_text(out, "id");
        write_id(out, id);
    }
}

/// An id as it came: a string as a string, a natural number as one, anything else as its JSON text.
fn write_id(out: &mut Vec<u8>, id: &str) {
    match (json::unescape(id), id.parse::<u64>()) {
        (Some(text), _) => write_text(out, &text),
        (None, Ok(number)) => {
            rmp::encode::write_uint(out, number).expect("writing to a Vec cannot fail");
        }
        (None, Err(_)) => write_text(out, id),
    }
}

/// Reads a message that a client sends in `signal.v1.msgpack`: as the client reads an edge's, but that it
/// has no address.
pub fn parse_msgpack(bytes: &[u8]) -> Result<ClientMessage<'_>, ClientMessageError> {
    let Incoming { event, data, id, .. } = incoming::read_msgpack(bytes)?;
    Ok(ClientMessage { event, data, id })
}

// === impl ErrorCode ===

impl ErrorCode {
    /// The code as it stands in an `error`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidMessage => "invalid_message",
            Self::NotAuthenticated => "not_authenticated",
            Self::AlreadyAuthenticated => "already_authenticated",
            Self::AuthenticationFailed => "authentication_failed",
            Self::AuthenticationError => "authentication_error",
            Self::EncryptionFailed => "encryption_failed",
            Self::DecryptionFailed => "decryption_failed",
            Self::Unsupported => "unsupported",
            Self::Failed => "failed",
        }
    }

    /// The words, which are those of the plain protocol where it has some.
    pub const fn message(self) -> &'static str {
        match self {
            Self::InvalidMessage => "Invalid message format",
            Self::NotAuthenticated => "Not authenticated",
            Self::AlreadyAuthenticated => "Already authenticated",
            Self::AuthenticationFailed => "Authentication failed",
            Self::AuthenticationError => "Authentication error",
            Self::EncryptionFailed => "Encryption handshake failed",
            Self::DecryptionFailed => "Decryption failed",
            Self::Unsupported => "Nothing handles this event",
            Self::Failed => "The request failed",
        }
    }
}

impl From<MsgPackError> for ClientMessageError {
    fn from(_: MsgPackError) -> Self {
        Self::Invalid
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message;

    fn text(variant: Variant, outgoing: &Outgoing<'_>) -> String {
        let mut out = Vec::new();
        variant.write(&mut out, outgoing);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_frames() {
        let mut outgoing = Outgoing { event_json: "\"e\"", data: Some("1.10"), to: None, id: None };
        assert_eq!(text(Variant::V1Json, &outgoing), r#"{"event":"e","data":1.10}"#);
        outgoing.to = Some(To::Room("a\"b"));
        outgoing.id = Some("\"7\"");
        let expected = r#"{"event":"e","data":1.10,"to":{"room":"a\"b"},"id":"7"}"#;
        assert_eq!(text(Variant::V1Json, &outgoing), expected);
        assert_eq!(text(Variant::Plain, &outgoing), r#"{"event":"e","data":1.10}"#);
        for (to, expected) in [
            (To::User, r#"{"event":"e","to":{"user":true}}"#),
            (To::Client, r#"{"event":"e","to":{"client":true}}"#),
            (To::All, r#"{"event":"e","to":{"all":true}}"#),
        ] {
            let outgoing = Outgoing { event_json: "\"e\"", data: None, to: Some(to), id: None };
            assert_eq!(text(Variant::V1Json, &outgoing), expected);
        }
    }

    #[test]
    fn a_msgpack_frame_byte_by_byte() {
        let mut out = Vec::new();
        let outgoing = Outgoing {
            event_json: "\"e\"",
            data: Some("1.10"),
            to: Some(To::Room("r")),
            id: Some("7"),
        };
        Variant::V1MsgPack.write(&mut out, &outgoing);
        let expected = b"\x84\xa5event\xa1e\xa4data\xc4\x041.10\xa2to\x81\xa4room\xa1r\xa2id\x07";
        assert_eq!(out, expected);
    }

    #[test]
    fn msgpack_messages_and_what_is_none() {
        let good = b"\x83\xa5event\xa1e\xa4data\xc4\x04[1 ]\xa2id\xa1a";
        let message = parse_msgpack(good).unwrap();
        assert_eq!((&*message.event, message.data), ("e", Some("[1 ]")));
        assert_eq!(message.id.as_deref(), Some("\"a\""));
        for (bytes, error) in [
            (&b""[..], ClientMessageError::Invalid),
            (b"\x80", ClientMessageError::NoEvent),
            (b"\x81\xa5event\xa0", ClientMessageError::NoEvent),
            (b"\x81\xa5event\x01", ClientMessageError::NoEvent),
            (b"\x82\xa5event\xa1e\xa4data\x01", ClientMessageError::Invalid),
            (b"\x82\xa5event\xa1e\xa4data\xc4\x01{", ClientMessageError::Invalid),
            (b"\x82\xa5event\xa1e\xa4data\xc4\x01\xff", ClientMessageError::Invalid),
            (b"\x81\xa5event\xa1e\x00", ClientMessageError::Invalid),
            (b"\x82\xa5event\xa1e", ClientMessageError::Invalid),
            (b"\x91\xa1e", ClientMessageError::Invalid),
            (b"\xdf\xff\xff\xff\xff", ClientMessageError::Invalid),
        ] {
            assert_eq!(parse_msgpack(bytes), Err(error), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn both_forms_say_the_same(event in ".{1,20}", data in ".{0,50}", id in ".{0,10}") {
            let event_json = message::json_string(&event);
            let (data, id) = (message::json_string(&data), message::json_string(&id));
            let outgoing = Outgoing {
                event_json: &event_json, data: Some(&data), to: None, id: Some(&id),
            };
            let (mut json, mut msgpack) = (Vec::new(), Vec::new());
            Variant::V1Json.write(&mut json, &outgoing);
            Variant::V1MsgPack.write(&mut msgpack, &outgoing);
            let json = String::from_utf8(json).unwrap();
            let read = message::parse(&json).unwrap();
            prop_assert_eq!(parse_msgpack(&msgpack).unwrap(), read);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse_msgpack(&bytes);
            for variant in Variant::ALL {
                let _ = variant.read(&bytes);
            }
        }
    }
}
