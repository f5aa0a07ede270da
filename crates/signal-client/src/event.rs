//! What a client hears.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use signal_core::close::CloseCode;
use signal_core::v1::Address;

/// Something that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Logged in, and in its rooms; with the JSON text of `connected`'s data.
    Online(Box<RawValue>),
    /// A message was delivered.
    Message(Message),
    /// Messages of these rooms, or of everything, may have been missed: load anew.
    Resync {
        /// `None` is everything.
        rooms: Option<Vec<String>>,
        /// `recovered`, or the edge's reason.
        reason: String,
    },
    /// Rooms that may not be joined, or not any more; they are forgotten.
    Denied(Vec<String>),
    /// The edge answered something with an error where nobody waits for it.
    Error {
        /// For programs.
        code: String,
        /// For people.
        message: String,
    },
    /// The connection was lost; the next attempt is in so long.
    Recovering {
        /// How.
        loss: Loss,
        /// Until the next attempt.
        delay: Duration,
    },
    /// It is over; nothing follows.
    Closed(Loss),
}

/// A message that was delivered.
#[derive(Debug)]
pub struct Message {
    /// The event.
    pub event: String,
    /// The producer's JSON text, as it came.
    pub data: Option<Box<RawValue>>,
    /// By what it came.
    pub to: To,
    /// The producer's message id, as JSON text.
    pub id: Option<Box<RawValue>>,
}

/// By what a message came.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum To {
    /// A room.
    Room(String),
    /// The client's user.
    User,
    /// The client itself.
    Client,
    /// Everyone.
    All,
    /// A way that is newer than this client.
    Other,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Loss {
    /// The edge closed it.
    #[error("the edge closed the connection: {code} {reason}")]
    Closed {
        /// The close code.
        code: u16,
        /// The words of the Close frame.
        reason: String,
    },
    /// It ended without a word, or could not be opened.
    #[error("{0}")]
    Failed(String),
    /// The application closed it.
    #[error("closed by the application")]
    Application,
}

// === impl Message ===

impl Message {
    /// Reads the data as a type of your own; absent data reads as `null`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.data.as_deref().map_or("null", RawValue::get))
    }
}

// === impl To ===

impl From<Address<'_>> for To {
    fn from(address: Address<'_>) -> Self {
        match address {
            Address::Room(room) => Self::Room(room.into_owned()),
            Address::User => Self::User,
            Address::Client => Self::Client,
            Address::All => Self::All,
            _ => Self::Other,
        }
    }
}

// === impl Loss ===

impl Loss {
    /// The code of the Close frame, if Signal sends it.
    pub fn code(&self) -> Option<CloseCode> {
        match self {
            Self::Closed { code, .. } => CloseCode::from_code(*code),
            Self::Failed(_) | Self::Application => None,
        }
    }
}
