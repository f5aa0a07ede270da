//! Credentials that are withdrawn, as the bus carries it.
//!
//! Owns the form of a revocation: `{"serverId", "type": "revoke", "user" | "client" | "token": string,
//! "id"?, "ts"}`, on a channel of its own. It is read strictly, since whoever is misunderstood here
//! keeps a door open: exactly one subject, within [`SUBJECT_BYTES_MAX`], and a time. Fields that a later
//! version adds are passed over. It must never decide who may revoke: that is Redis', by the channel.

use std::borrow::Cow;

use crate::json::{self, JsonError};

/// Bytes of a user's id, a client's, or a token's. What is revoked is remembered, so it is bounded.
pub const SUBJECT_BYTES_MAX: usize = 1024;

const TYPE: &str = "revoke";

/// In the order in which they are written.
const FIELDS: [&str; 7] = ["serverId", "type", "user", "client", "token", "id", "ts"];

/// What is withdrawn, from whom, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation<'a> {
    /// Who published it: an edge's own id, or that of every emitter.
    pub server_id: Cow<'a, str>,
    /// Whose credentials.
    pub subject: Subject<'a>,
    /// Its id, where the producer gives it one.
    pub id: Option<Cow<'a, str>>,
    /// When, in milliseconds since the Unix epoch at the producer: credentials issued later are good.
    pub ts: u64,
}

/// Whose credentials are withdrawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// All of a user's.
    User(Cow<'a, str>),
    /// Those of one connection.
    Client(Cow<'a, str>),
    /// One token, by its id (`jti`).
    Token(Cow<'a, str>),
}

/// Why bytes are no revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum RevocationError {
    /// Not UTF-8, or not JSON.
    #[error("the revocation is not JSON")]
    NotJson,
    /// A field is missing or of the wrong type, or it is not of the type `revoke`.
    #[error("the revocation has the wrong shape")]
    Shape,
    /// It names nobody, or more than one.
    #[error("a revocation names exactly one of user, client and token")]
    Subject,
    /// The name is empty.
    #[error("what is revoked has no name")]
    Empty,
    /// The name is longer than [`SUBJECT_BYTES_MAX`].
    #[error("what is revoked has a name of more than {SUBJECT_BYTES_MAX} bytes")]
    TooLong,
}

// === impl Revocation ===

impl<'a> Revocation<'a> {
    /// Reads a revocation.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RevocationError> {
        let text = std::str::from_utf8(bytes).map_err(|_| RevocationError::NotJson)?;
        let [server_id, kind, user, client, token, id, ts] = json::members(text, &FIELDS)?;
        let string = |text: &'a str| json::unescape(text).ok_or(RevocationError::Shape);
        if kind.and_then(json::unescape).as_deref() != Some(TYPE) {
            return Err(RevocationError::Shape);
        }
        let subject = match (user, client, token) {
            (Some(user), None, None) => Subject::User(string(user)?),
            (None, Some(client), None) => Subject::Client(string(client)?),
            (None, None, Some(token)) => Subject::Token(string(token)?),
            _ => return Err(RevocationError::Subject),
        };
        subject.validate()?;
        Ok(Self {
            server_id: string(server_id.ok_or(RevocationError::Shape)?)?,
            subject,
            id: id.map(string).transpose()?,
            ts: ts.and_then(|ts| ts.parse().ok()).ok_or(RevocationError::Shape)?,
        })
    }

    /// Appends the revocation to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut field = |before: &[u8], value: &str| {
            out.extend_from_slice(before);
            json::write_string(out, value);
        };
        field(b"{\"serverId\":", &self.server_id);
        field(b",\"type\":", TYPE);
        match &self.subject {
            Subject::User(user) => field(b",\"user\":", user),
            Subject::Client(client) => field(b",\"client\":", client),
            Subject::Token(token) => field(b",\"token\":", token),
        }
        if let Some(id) = &self.id {
            field(b",\"id\":", id);
        }
        out.extend_from_slice(format!(",\"ts\":{}}}", self.ts).as_bytes());
    }
}

// === impl Subject ===

impl Subject<'_> {
    /// Whose kind it is, as in the field's name.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Client(_) => "client",
            Self::Token(_) => "token",
        }
    }

    /// The name.
    pub fn name(&self) -> &str {
        match self {
            Self::User(name) | Self::Client(name) | Self::Token(name) => name,
        }
    }

    /// Checks the name.
    pub fn validate(&self) -> Result<(), RevocationError> {
        match self.name().len() {
            0 => Err(RevocationError::Empty),
            1..=SUBJECT_BYTES_MAX => Ok(()),
            _ => Err(RevocationError::TooLong),
        }
    }
}

// === impl RevocationError ===

impl RevocationError {
    /// The label in metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotJson => "revocation_not_json",
            Self::Shape => "revocation_shape",
            Self::Subject | Self::Empty | Self::TooLong => "revocation_subject",
        }
    }
}

impl From<JsonError> for RevocationError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::WrongType => Self::Shape,
            JsonError::Syntax | JsonError::TooDeep => Self::NotJson,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded() {
        let longest = "u".repeat(SUBJECT_BYTES_MAX);
        let mut revocation = Revocation {
            server_id: "emitter".into(),
            subject: Subject::User(longest.as_str().into()),
            id: None,
            ts: 1,
        };
        let mut bytes = Vec::new();
        revocation.encode(&mut bytes);
        assert_eq!(Revocation::decode(&bytes).as_ref(), Ok(&revocation));
        let longer = format!("{longest}u");
        revocation.subject = Subject::User(longer.as_str().into());
        bytes.clear();
        revocation.encode(&mut bytes);
        assert_eq!(Revocation::decode(&bytes), Err(RevocationError::TooLong));
    }

    #[test]
    fn damage_never_panics() {
        let text = br#"{"serverId":"emitter","type":"revoke","user":"u\u00e9","ts":7}"#;
        for at in 0..text.len() {
            let _ = Revocation::decode(&text[..at]);
            for byte in [0, b'"', b'{', b'\\', 0xFF] {
                let mut damaged = text.to_vec();
                damaged[at] = byte;
                let _ = Revocation::decode(&damaged);
            }
        }
    }
}
