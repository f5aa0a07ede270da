//! The keys of a connection that is encrypted, and what may come without them.
//!
//! It owns the offer until it is answered, and then the [`Keyring`] that opens what comes; both end with
//! the connection. What does not open, or comes in clear though keys were agreed on, ends the connection,
//! since whoever comes back is told to load anew.

use serde_json::Value;
use signal_core::crypto::{Keyring, Offer};
use signal_core::v1::Incoming;

/// The keys; see the module.
#[derive(Default)]
pub(crate) struct Keys {
    offer: Option<Offer>,
    ring: Option<Keyring>,
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
        if let Some(offer) = self.offer.take() {
            self.ring = offer.connected(connected).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// What is sealed in a message, as JSON text; `None` if nothing is, nor has to be.
    pub(crate) fn open(&self, message: &Incoming<'_>) -> Result<Option<String>, String> {
        let Some(ring) = &self.ring else { return Ok(None) };
        match message {
            Incoming { event, data: Some(data), to: None, .. } if event == "encrypted" => {
                let opened = ring.open(data).map_err(|error| error.to_string())?;
                Ok(Some(opened.text))
            }
            _ => Err("a message came in clear, though keys were agreed on".to_owned()),
        }
    }

    /// Takes a room's key, in place of the one before.
    pub(crate) fn keep(&mut self, data: &str) -> Result<(), String> {
        let Some(ring) = &mut self.ring else { return Ok(()) };
        ring.learn(data).map_err(|error| error.to_string())
    }

    /// Forgets the keys of a room that was left.
    pub(crate) fn forget(&mut self, room: &str) {
        if let Some(ring) = &mut self.ring {
            ring.forget(room);
        }
    }
}
