//! The keys of a connection that is encrypted, and what they open.
//!
//! It owns the session's key, from the offer on, and the room keys that the edge hands over, the last one
//! of each room; all of them end with the connection. What does not open ends the connection, since
//! whoever comes back is told to load anew.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use signal_core::crypto::{Key, Offer};

/// The keys; see the module.
#[derive(Default)]
pub(crate) struct Keys {
    offer: Option<Offer>,
    session: Option<Key>,
    /// By room: the number of its key, and the key.
    rooms: HashMap<String, (u64, Key)>,
}

#[derive(Deserialize)]
struct Outer<'a> {
    event: &'a str,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Sealed {
    kid: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServerHalf {
    server_public_key: Option<String>,
    salt: Option<String>,
}

#[derive(Deserialize)]
struct RoomKey {
    room: String,
    kid: u64,
    key: String,
}

// === impl Keys ===

impl Keys {
    /// Adds a public key to credentials, if they can hold one.
    pub(crate) fn offer(&mut self, credentials: &mut Value) {
        if let Value::Object(members) = credentials {
            let offer = Offer::new();
            members.insert("publicKey".to_owned(), offer.public_key().into());
            self.offer = Some(offer);
        }
    }

    /// Takes what `connected` says: the edge's half, or nothing if it does not encrypt.
    pub(crate) fn accept(&mut self, connected: &str) -> Result<(), String> {
        let Some(offer) = self.offer.take() else { return Ok(()) };
        let half: ServerHalf =
            serde_json::from_str(connected).map_err(|error| error.to_string())?;
        if let (Some(public_key), Some(salt)) = (half.server_public_key, half.salt) {
            let key = offer.accept(&public_key, &salt).map_err(|error| error.to_string())?;
            self.session = Some(key);
        }
        Ok(())
    }

    /// Takes a room's key, in place of the one before.
    pub(crate) fn keep(&mut self, data: &str) -> Result<(), String> {
        let RoomKey { room, kid, key } =
            serde_json::from_str(data).map_err(|error| error.to_string())?;
        let key = Key::from_base64(&key).ok_or("a room key is no key")?;
        self.rooms.insert(room, (kid, key));
        Ok(())
    }

    /// The message in a frame's text: itself, or what is sealed in it.
    pub(crate) fn open<'a>(&self, text: &'a str) -> Result<Cow<'a, str>, String> {
        let Some(session) = &self.session else { return Ok(text.into()) };
        let outer: Result<Outer<'_>, _> = serde_json::from_str(text);
        let Ok(Outer { event: "encrypted", data: Some(data) }) = outer else {
            return Ok(text.into());
        };
        let Sealed { kid } = serde_json::from_str(data.get()).map_err(|error| error.to_string())?;
        let key = match kid {
            None => session,
            Some(kid) => {
                let found = self.rooms.values().find(|(known, _)| *known == kid);
                &found.ok_or("a message is sealed under a key that was not handed over")?.1
            }
        };
        key.open(data.get()).map(Cow::Owned).map_err(|error| error.to_string())
    }
}
