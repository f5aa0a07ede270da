//! The client's side of the encryption: what it holds once it is logged in, and what that opens.
//!
//! Owns the session's key and the rooms' keys that the edge hands over, the last one of each room; all
//! of them end with the connection. It must never open under a key that was replaced. At most
//! [`ROOM_KEYS_MAX`] keys, far beyond the rooms that an edge lets a client have.

use std::collections::BTreeMap;
use std::fmt;

use super::{AgreementError, Key, Offer, OpenError};
use crate::json;

/// Beyond these the lowest number goes: the oldest, for one worker.
const ROOM_KEYS_MAX: usize = 1024;

/// The keys of a connection; see the module.
pub struct Keyring {
    session: Key,
    /// By their numbers: whose they are.
    rooms: BTreeMap<u64, (String, Key)>,
}

/// What was in a sealed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The number of the room's key it was sealed under; `None` for the session's.
    pub kid: Option<u64>,
    /// The message, as JSON text.
    pub text: String,
}

/// What an edge sealed, or handed over, is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// A room's key that this client does not have.
    #[error("a message is sealed under a key that was not handed over")]
    UnknownKey,
    /// A `roomkey` without a room, a number or a key.
    #[error("a room key is malformed")]
    NoKey,
    /// It does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
}

// === impl Offer ===

impl Offer {
    /// The keys of the connection, from `data` of `connected`, as JSON text; `None` if the edge does not
    /// encrypt.
    pub fn connected(self, data: &str) -> Result<Option<Keyring>, AgreementError> {
        let halves = json::members(data, &["serverPublicKey", "salt"]);
        let halves = halves.map_err(|_| AgreementError::Malformed)?;
        let [Some(public_key), Some(salt)] = halves.map(|half| json::unescape(half?)) else {
            return Ok(None);
        };
        self.accept(&public_key, &salt).map(|session| Some(Keyring::new(session)))
    }
}

// === impl Keyring ===

impl Keyring {
    /// With the session's key, and none of a room yet.
    pub fn new(session: Key) -> Self {
        Self { session, rooms: BTreeMap::new() }
    }

    /// The session's key, to seal with.
    pub fn session(&mut self) -> &mut Key {
        &mut self.session
    }

    /// The number of a room's present key.
    pub fn kid(&self, room: &str) -> Option<u64> {
        self.rooms.iter().find(|(_, (name, _))| name == room).map(|(kid, _)| *kid)
    }

    /// Opens `data`, as JSON text, of an `encrypted`.
    pub fn open(&self, data: &str) -> Result<Opened, KeyringError> {
        let members = json::members(data, &["kid", "iv", "ct"]);
        let [kid, iv, text] = members.map_err(|_| OpenError::Malformed)?;
        let kid = kid.map(|kid| kid.parse().map_err(|_| OpenError::Malformed)).transpose()?;
        let key = match kid {
            None => &self.session,
            Some(kid) => &self.rooms.get(&kid).ok_or(KeyringError::UnknownKey)?.1,
        };
        Ok(Opened { kid, text: key.open_members(iv, text)? })
    }

    /// Takes a room's key, in place of the one before, from `data`, as JSON text, of a `roomkey`.
    pub fn learn(&mut self, data: &str) -> Result<(), KeyringError> {
        let members = json::members(data, &["room", "kid", "key"]);
        let [room, kid, key] = members.map_err(|_| KeyringError::NoKey)?;
        let room = room.and_then(json::unescape).ok_or(KeyringError::NoKey)?;
        let kid = kid.and_then(|kid| kid.parse().ok()).ok_or(KeyringError::NoKey)?;
        let key = key.and_then(json::unescape).and_then(|key| Key::from_base64(&key));
        let key = key.ok_or(KeyringError::NoKey)?;
        self.forget(&room);
        self.rooms.insert(kid, (room.into_owned(), key));
        if self.rooms.len() > ROOM_KEYS_MAX {
            self.rooms.pop_first();
        }
        Ok(())
    }

    /// Forgets a room's key, as of one that was left.
    pub fn forget(&mut self, room: &str) {
        self.rooms.retain(|_, (name, _)| name != room);
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Keyring").field("rooms", &self.rooms.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{Agreement, RoomKey};
    use crate::v1::Variant;

    const SEALED: &str = r#"{"event":"encrypted","data":"#;

    /// `data` of what is sealed of a text.
    fn sealed(text: &str, seal: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = text.as_bytes().to_vec();
        seal(&mut out);
        let out = String::from_utf8(out).unwrap();
        out.strip_prefix(SEALED).unwrap().strip_suffix('}').unwrap().to_owned()
    }

    fn for_room(key: &mut RoomKey, text: &str) -> String {
        sealed(text, |out| key.seal(out, 0, Variant::V1Json, |_| b""))
    }

    /// A client that is logged in, and the edge's key for it.
    fn agreed() -> (Keyring, Key) {
        let offer = Offer::new();
        let Agreement { server_public_key, salt, key } =
            Agreement::with(offer.public_key()).unwrap();
        let data =
            format!(r#"{{"id":"x","serverPublicKey":"{server_public_key}","salt":"{salt}"}}"#);
        (offer.connected(&data).unwrap().unwrap(), key)
    }

    #[test]
    fn what_is_sealed_for_the_session_or_a_room_is_opened() {
        let (mut keys, mut edge) = agreed();
        let mut room = RoomKey::new("a \"room\"", 7);
        let for_session = sealed("to you", |out| edge.seal(out, 0, Variant::V1Json, |_| b""));
        let opened = Opened { kid: None, text: "to you".to_owned() };
        assert_eq!(keys.open(&for_session), Ok(opened));
        let keyed = for_room(&mut room, "to the room");
        assert_eq!(keys.open(&keyed), Err(KeyringError::UnknownKey));
        keys.learn(room.handover()).unwrap();
        assert_eq!(keys.kid("a \"room\""), Some(7));
        let opened = Opened { kid: Some(7), text: "to the room".to_owned() };
        assert_eq!(keys.open(&keyed), Ok(opened));

        // A later key takes the place of the one before, and a room that was left has none.
        let mut later = RoomKey::new("a \"room\"", 3);
        keys.learn(later.handover()).unwrap();
        assert_eq!(keys.open(&keyed), Err(KeyringError::UnknownKey));
        let keyed = for_room(&mut later, "later");
        assert_eq!(keys.open(&keyed).unwrap().text, "later");
        keys.forget("a \"room\"");
        assert_eq!(keys.open(&keyed), Err(KeyringError::UnknownKey));
        // What this side seals, the other one opens.
        let back = sealed("back", |out| keys.session().seal(out, 0, Variant::V1Json, |_| b""));
        assert_eq!(edge.open(&back).unwrap(), "back");
    }

    #[test]
    fn what_is_none_is_said() {
        assert!(Offer::new().connected(r#"{"id":"x"}"#).unwrap().is_none());
        assert_eq!(Offer::new().connected("x").unwrap_err(), AgreementError::Malformed);
        let bad = r#"{"serverPublicKey":"AAAA","salt":"AAAA"}"#;
        assert_eq!(Offer::new().connected(bad).unwrap_err(), AgreementError::Malformed);
        let (mut keys, mut edge) = agreed();
        let other = sealed("x", |out| edge.seal(out, 0, Variant::V1Json, |_| b""));
        let other = other.replace("\"ct\":\"", "\"ct\":\"AAAA");
        for (data, error) in [
            ("1", OpenError::Malformed),
            (r#"{"kid":"7","iv":"","ct":""}"#, OpenError::Malformed),
            (r#"{"iv":"AAAAAAAAAAAAAAAA"}"#, OpenError::Malformed),
            (&other, OpenError::Unverified),
        ] {
            assert_eq!(keys.open(data), Err(KeyringError::Open(error)), "{data}");
        }
        let key = "A".repeat(43) + "=";
        for data in [
            "[]".to_owned(),
            format!(r#"{{"kid":1,"key":"{key}"}}"#),
            format!(r#"{{"room":"r","kid":-1,"key":"{key}"}}"#),
            format!(r#"{{"room":"r","kid":1,"key":"{}"}}"#, &key[1..]),
        ] {
            assert_eq!(keys.learn(&data), Err(KeyringError::NoKey), "{data}");
        }
        // However many are handed over.
        for kid in 0..2000 {
            keys.learn(&format!(r#"{{"room":"{kid}","kid":{kid},"key":"{key}"}}"#)).unwrap();
        }
        assert_eq!((keys.rooms.len(), keys.kid("1999")), (ROOM_KEYS_MAX, Some(1999)));
    }
}
