//! The bus wire: what producers and edges publish, as JSON and as compact `MessagePack`.
//!
//! Owns decoding, checking and encoding of an envelope. It must never build `data` into values or
//! change a byte of it: the text is checked once, here, and delivered as it is. The caller refuses
//! what is longer than [`BUS_MESSAGE_BYTES_MAX`](crate::limits::BUS_MESSAGE_BYTES_MAX) before it
//! decodes; nothing here grows beyond the input.

mod json;
mod msgpack;

use std::borrow::Cow;

use crate::{
    channel::Target,
    json::{string, unescape},
};

/// Version of the schema that Signal writes.
const SCHEMA_VERSION: u64 = 1;

/// The `serverId` of every emitter.
pub const EMITTER_SERVER_ID: &str = "emitter";

/// One message on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Who published it: an edge's own id, or [`EMITTER_SERVER_ID`].
    pub server_id: Cow<'a, str>,
    /// What `target` names.
    pub kind: Kind,
    /// The room, user or client, never empty; `None` for a broadcast.
    pub target: Option<Cow<'a, str>>,
    /// The JSON text of the event string, quotes and escapes as they came.
    pub event_json: Cow<'a, str>,
    /// The JSON text of the payload, as it came; `None` if there is none.
    pub data: Option<&'a str>,
    /// Clients that must not get it. Applies to rooms and broadcast.
    pub exclude: Vec<Cow<'a, str>>,
    /// The message's id, a `UUIDv7` where Signal published it.
    pub id: Option<Cow<'a, str>>,
    /// When it was published, in milliseconds since the Unix epoch at the producer.
    pub ts: Option<u64>,
    /// The producer's name.
    pub from: Option<Cow<'a, str>>,
    /// A W3C `traceparent`.
    pub trace: Option<Cow<'a, str>>,
}

/// What the target of an envelope names; the numbers are those of the compact form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Everybody.
    Broadcast = 0,
    /// A room.
    Room = 1,
    /// A user.
    User = 2,
    /// A client.
    Client = 3,
}

/// The form in which envelopes are sent; both are always understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// What TypeScript servers understand.
    #[default]
    Json,
    /// The compact array.
    MsgPack,
}

/// Why bytes are no envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Text that is not UTF-8.
    #[error("the envelope is not UTF-8")]
    NotUtf8,
    /// The envelope or its data is not JSON, or is nested too deeply.
    #[error("the envelope or its data is not JSON")]
    NotJson,
    /// A required field is missing or of the wrong type.
    #[error("the envelope has the wrong shape")]
    Shape,
    /// None of the four kinds.
    #[error("the envelope is of an unknown type")]
    UnknownType,
    /// A room, user or client message that names none.
    #[error("the envelope names no target")]
    MissingTarget,
    /// Broken `MessagePack`.
    #[error("the envelope is not MessagePack")]
    MsgPack,
    /// Neither of the two forms begins like this.
    #[error("the envelope begins with an unknown byte")]
    FirstByte,
}

// === impl Envelope ===

impl<'a> Envelope<'a> {
    /// An envelope with the required fields only. `data` is JSON text and is not checked here.
    pub fn new(
        server_id: impl Into<Cow<'a, str>>,
        target: Target<'a>,
        event: &str,
        data: Option<&'a str>,
    ) -> Self {
        let (kind, target) = Kind::split(target);
        Self {
            server_id: server_id.into(),
            kind,
            target: target.map(Cow::Borrowed),
            event_json: Cow::Owned(string(event)),
            data,
            exclude: Vec::new(),
            id: None,
            ts: None,
            from: None,
            trace: None,
        }
    }

    /// Reads an envelope in either form, which the first byte tells.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        match bytes.first() {
            Some(b'{' | b' ' | b'\t' | b'\n' | b'\r') => json::decode(bytes),
            Some(0x90..=0x9f | 0xdc | 0xdd) => msgpack::decode(bytes),
            _ => Err(EnvelopeError::FirstByte),
        }
    }

    /// Appends the envelope to `out`.
    ///
    /// `event_json` and `data` must be JSON texts, as they are in whatever [`Envelope::decode`] and
    /// [`Envelope::new`] made.
    pub fn encode(&self, codec: Codec, out: &mut Vec<u8>) {
        match codec {
            Codec::Json => json::encode(self, out),
            Codec::MsgPack => msgpack::encode(self, out),
        }
    }

    /// The event as text. A surrogate without its other half becomes U+FFFD.
    pub fn event(&self) -> Cow<'_, str> {
        unescape(&self.event_json).unwrap_or_default()
    }

    /// Whether the envelope agrees with the channel it came on.
    ///
    /// The channel decides who gets a message, so that a Redis ACL on channels means something.
    pub fn matches(&self, target: Target<'_>) -> bool {
        let (kind, name) = Kind::split(target);
        self.kind == kind && (kind == Kind::Broadcast || self.target.as_deref() == name)
    }
}

// === impl Kind ===

impl Kind {
    /// The word in the JSON form.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Broadcast => "broadcast",
            Self::Room => "room",
            Self::User => "user",
            Self::Client => "client",
        }
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "broadcast" => Some(Self::Broadcast),
            "room" => Some(Self::Room),
            "user" => Some(Self::User),
            "client" => Some(Self::Client),
            _ => None,
        }
    }

    const fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Broadcast),
            1 => Some(Self::Room),
            2 => Some(Self::User),
            3 => Some(Self::Client),
            _ => None,
        }
    }

    const fn split(target: Target<'_>) -> (Self, Option<&str>) {
        match target {
            Target::Broadcast => (Self::Broadcast, None),
            Target::Room(room) => (Self::Room, Some(room)),
            Target::User(user) => (Self::User, Some(user)),
            Target::Client(client) => (Self::Client, Some(client)),
        }
    }

    /// The target that an envelope of this kind keeps, given the one it came with.
    fn checked_target(
        self,
        target: Option<Cow<'_, str>>,
    ) -> Result<Option<Cow<'_, str>>, EnvelopeError> {
        if self == Self::Broadcast {
            return Ok(None);
        }
        match target {
            Some(target) if !target.is_empty() => Ok(Some(target)),
            _ => Err(EnvelopeError::MissingTarget),
        }
    }
}

// === impl Codec ===

impl Codec {
    /// The word in settings and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::MsgPack => "msgpack",
        }
    }
}

// === impl EnvelopeError ===

impl EnvelopeError {
    /// The label in metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotUtf8 => "not_utf8",
            Self::NotJson => "not_json",
            Self::Shape => "shape",
            Self::UnknownType => "unknown_type",
            Self::MissingTarget => "missing_target",
            Self::MsgPack => "msgpack",
            Self::FirstByte => "first_byte",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_compares_kind_and_target() {
        let room = Envelope::new("s", Target::Room("a"), "e", None);
        assert!(room.matches(Target::Room("a")));
        for other in [Target::Room("b"), Target::User("a"), Target::Client("a"), Target::Broadcast]
        {
            assert!(!room.matches(other), "{other:?}");
        }
        let mut broadcast = Envelope::new("s", Target::Broadcast, "e", None);
        assert!(broadcast.matches(Target::Broadcast));
        assert!(!broadcast.matches(Target::Room("a")));
        broadcast.target = Some("ignored".into());
        assert!(broadcast.matches(Target::Broadcast));
    }

    #[test]
    fn the_event_is_unescaped_on_demand() {
        let envelope = Envelope::new("s", Target::Broadcast, "a\"b", None);
        assert_eq!(envelope.event_json, r#""a\"b""#);
        assert_eq!(envelope.event(), "a\"b");
    }
}
