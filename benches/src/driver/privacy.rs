//! Clients that encrypt: what they agree on, and what they open.
//!
//! Owns the room's keys, which all clients have, and the last texts opened under them: what a thousand
//! members get is the same, so it is opened once and then compared, and the driver stays cheap. What
//! is sealed for one client has to be opened for each.

use std::collections::{HashMap, VecDeque};

use serde::Deserialize;
use signal_core::crypto::{Key, Offer};

use super::DriverError;

/// Texts remembered: four times what is under way in the saturated row.
const OPENED_MAX: usize = 64;

const SEALED: &[u8] = br#"{"event":"encrypted","data":"#;
const KEYED: &[u8] = br#"{"event":"encrypted","data":{"kid":"#;

/// How clients get what they get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privacy {
    /// The plain protocol, from a server that does not encrypt.
    None,
    /// `signal.v1` in clear, from one that does for others.
    Clear,
    /// The plain protocol, each message sealed for each client.
    Session,
    /// `signal.v1`, each message sealed once for the room.
    Room,
}

#[derive(Debug, Default)]
pub(super) struct Seals {
    rooms: HashMap<u64, Key>,
    opened: VecDeque<Opened>,
    /// The last text that was sealed for one client.
    text: String,
}

#[derive(Debug)]
struct Opened {
    payload: Vec<u8>,
    text: String,
}

// === impl Privacy ===

impl Privacy {
    pub(super) fn is_v1(self) -> bool {
        matches!(self, Self::Clear | Self::Room)
    }

    pub(super) fn encrypts(self) -> bool {
        matches!(self, Self::Session | Self::Room)
    }
}

// === impl Seals ===

impl Seals {
    /// The text of a message; `None` if it handed over a room's key.
    pub(super) fn open<'a>(
        &'a mut self,
        key: Option<&Key>,
        payload: &'a [u8],
    ) -> Result<Option<&'a [u8]>, DriverError> {
        let Some(key) = key else { return Ok(Some(payload)) };
        if payload.starts_with(KEYED) {
            return self.open_keyed(payload).map(Some);
        }
        let data = data(payload)?;
        self.text = key.open(data).map_err(|_| unexpected(payload))?;
        if self.text.starts_with(r#"{"event":"roomkey""#) {
            let (kid, key) = room_key(&self.text).ok_or_else(|| unexpected(payload))?;
            self.rooms.insert(kid, key);
            return Ok(None);
        }
        Ok(Some(self.text.as_bytes()))
    }

    fn open_keyed(&mut self, payload: &[u8]) -> Result<&[u8], DriverError> {
        let known = self.opened.iter().position(|opened| opened.payload == payload);
        let index = if let Some(index) = known {
            index
        } else {
            let data = data(payload)?;
            let kid = data["{\"kid\":".len()..].split(',').next();
            let kid: Option<u64> = kid.and_then(|digits| digits.parse().ok());
            let key = kid.and_then(|kid| self.rooms.get(&kid));
            let text = key.and_then(|key| key.open(data).ok());
            let text = text.ok_or_else(|| unexpected(payload))?;
            if self.opened.len() == OPENED_MAX {
                self.opened.pop_front();
            }
            self.opened.push_back(Opened { payload: payload.to_vec(), text });
            self.opened.len() - 1
        };
        Ok(self.opened[index].text.as_bytes())
    }
}

/// The session's key, from the server's half in `connected`.
pub(super) fn session_key(offer: Offer, connected: &[u8]) -> Option<Key> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Half<'a> {
        server_public_key: &'a str,
        salt: &'a str,
    }
    #[derive(Deserialize)]
    struct Connected<'a> {
        #[serde(borrow)]
        data: Half<'a>,
    }
    let Connected { data } = serde_json::from_slice(connected).ok()?;
    offer.accept(data.server_public_key, data.salt).ok()
}

fn room_key(text: &str) -> Option<(u64, Key)> {
    #[derive(Deserialize)]
    struct Handover<'a> {
        kid: u64,
        key: &'a str,
    }
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        data: Handover<'a>,
    }
    let Message { data } = serde_json::from_str(text).ok()?;
    Some((data.kid, Key::from_base64(data.key)?))
}

/// The text of `data` of a sealed message.
fn data(payload: &[u8]) -> Result<&str, DriverError> {
    let data = payload.strip_prefix(SEALED).and_then(|rest| rest.strip_suffix(b"}"));
    data.and_then(|data| std::str::from_utf8(data).ok()).ok_or_else(|| unexpected(payload))
}

fn unexpected(payload: &[u8]) -> DriverError {
    DriverError::Unexpected(String::from_utf8_lossy(payload).into_owned())
}

#[cfg(test)]
mod tests {
    use signal_core::crypto::{Agreement, RoomKey};
    use signal_core::v1::Variant;

    use super::*;

    fn sealed(seal: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        seal(&mut out);
        out
    }

    #[test]
    fn what_is_sealed_for_a_session_or_a_room_is_opened() {
        let offer = Offer::new();
        let Agreement { server_public_key, salt, mut key } =
            Agreement::with(offer.public_key()).unwrap();
        let connected = format!(
            r#"{{"event":"connected","data":{{"serverPublicKey":"{server_public_key}","salt":"{salt}"}}}}"#
        );
        let client = session_key(offer, connected.as_bytes()).unwrap();
        let mut room = RoomKey::new("r", 7);
        let mut seals = Seals::default();
        let handover = format!(r#"{{"event":"roomkey","data":{}}}"#, room.handover());
        let keyed = sealed(|out| {
            out.extend_from_slice(b"to the room");
            room.seal(out, 0, Variant::V1Json, |_| b"");
        });
        assert!(seals.open(Some(&client), &keyed).is_err(), "the key was not handed over");
        let handover = sealed(|out| {
            out.extend_from_slice(handover.as_bytes());
            key.seal(out, 0, Variant::V1Json, |_| b"");
        });
        assert_eq!(seals.open(Some(&client), &handover).unwrap(), None);
        for _ in 0..2 {
            let text = seals.open(Some(&client), &keyed).unwrap();
            assert_eq!(text, Some(&b"to the room"[..]));
        }
        assert_eq!(seals.open(None, b"in clear").unwrap(), Some(&b"in clear"[..]));
        assert!(seals.open(Some(&client), b"in clear").is_err());
    }
}
