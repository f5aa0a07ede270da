//! Clients that encrypt: what they agree on, and what they open.
//!
//! What opens is `signal-core`'s, as in every other client. Owns what makes it cheap: the last texts
//! opened under room keys. What a thousand members get is the same, so it is opened once and then
//! compared. What is sealed for one client has to be opened for each. Messages are told apart by how
//! they begin, which Signal always writes the same, and not parsed.

use std::collections::VecDeque;

use signal_core::crypto::{Keyring, Offer};
use signal_core::v1::Variant;

use super::DriverError;

/// Texts remembered: four times what is under way in the saturated row.
const OPENED_MAX: usize = 64;

const SEALED: &[u8] = br#"{"event":"encrypted","data":"#;
const KEYED: &[u8] = br#"{"event":"encrypted","data":{"kid":"#;
const HANDOVER: &str = r#"{"event":"roomkey","data":"#;

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

    pub(crate) fn encrypts(self) -> bool {
        matches!(self, Self::Session | Self::Room)
    }
}

// === impl Seals ===

impl Seals {
    /// The text of a message; `None` if it handed over a room's key.
    pub(super) fn open<'a>(
        &'a mut self,
        keys: Option<&mut Keyring>,
        payload: &'a [u8],
    ) -> Result<Option<&'a [u8]>, DriverError> {
        let Some(keys) = keys else { return Ok(Some(payload)) };
        if payload.starts_with(KEYED) {
            return self.open_keyed(keys, payload).map(Some);
        }
        self.text = keys.open(data(payload)?).map_err(|_| unexpected(payload))?.text;
        let handover = self.text.strip_prefix(HANDOVER).and_then(|rest| rest.strip_suffix('}'));
        if let Some(handover) = handover {
            return keys.learn(handover).map(|()| None).map_err(|_| unexpected(payload));
        }
        Ok(Some(self.text.as_bytes()))
    }

    fn open_keyed(&mut self, keys: &Keyring, payload: &[u8]) -> Result<&[u8], DriverError> {
        let known = self.opened.iter().position(|opened| opened.payload == payload);
        let index = if let Some(index) = known {
            index
        } else {
            let text = keys.open(data(payload)?).map_err(|_| unexpected(payload))?.text;
            if self.opened.len() == OPENED_MAX {
                self.opened.pop_front();
            }
            self.opened.push_back(Opened { payload: payload.to_vec(), text });
            self.opened.len() - 1
        };
        Ok(self.opened[index].text.as_bytes())
    }
}

/// The keys that were agreed on, from what `connected` says.
pub(super) fn agree(offer: Offer, connected: &[u8]) -> Option<Keyring> {
    let connected = Variant::V1Json.read(connected).ok()?;
    offer.connected(connected.data?).ok()?
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
        let mut client = agree(offer, connected.as_bytes()).unwrap();
        let mut room = RoomKey::new("r", 7);
        let mut seals = Seals::default();
        let handover = format!(r#"{{"event":"roomkey","data":{}}}"#, room.handover());
        let keyed = sealed(|out| {
            out.extend_from_slice(b"to the room");
            room.seal(out, 0, Variant::V1Json, |_| b"");
        });
        assert!(seals.open(Some(&mut client), &keyed).is_err(), "the key was not handed over");
        let handover = sealed(|out| {
            out.extend_from_slice(handover.as_bytes());
            key.seal(out, 0, Variant::V1Json, |_| b"");
        });
        assert_eq!(seals.open(Some(&mut client), &handover).unwrap(), None);
        for _ in 0..2 {
            let text = seals.open(Some(&mut client), &keyed).unwrap();
            assert_eq!(text, Some(&b"to the room"[..]));
        }
        assert_eq!(seals.open(None, b"in clear").unwrap(), Some(&b"in clear"[..]));
        assert!(seals.open(Some(&mut client), b"in clear").is_err());
    }
}
