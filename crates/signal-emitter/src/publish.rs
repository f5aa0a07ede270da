//! One message, from target to receipt.
//!
//! Owns building the envelope and checking it. It must never wait: whatever is wrong with a message
//! is known before Redis is asked.

use std::{
    borrow::Cow,
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use signal_core::{
    channel::{ChannelNames, Target},
    envelope::{Codec, EMITTER_SERVER_ID, Envelope},
    json,
    limits::DATA_DEPTH_MAX,
};

use crate::{EmitterError, emitter::Shared, message_id::MessageIds};

/// Bytes of an envelope beside its data, as a first guess for the buffer.
const ENVELOPE_BYTES_GUESS: usize = 256;

/// A message that is being put together. Nothing is published until [`Publish::send`] is awaited.
///
/// What is wrong with it, say data that cannot be serialised, comes out of `send`.
#[must_use = "nothing is published until `send` is awaited"]
pub struct Publish<'a> {
    shared: &'a Shared,
    recipient: Recipient<'a>,
    event: Cow<'a, str>,
    data: Result<Option<Cow<'a, str>>, EmitterError>,
    exclude: Vec<Cow<'a, str>>,
    trace: Option<Cow<'a, str>>,
    /// The emitter's timeout, if there is none.
    deadline: Option<Duration>,
    require_receivers: bool,
}

/// What Redis said to a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The message's id, which clients of `signal.v1` and the edges' logs show.
    pub id: String,
    pub(crate) receivers: Option<u64>,
}

/// What every message of one emitter has in common.
pub(crate) struct Settings {
    pub(crate) names: ChannelNames,
    pub(crate) codec: Codec,
    pub(crate) name: Option<String>,
    pub(crate) message_bytes_max: usize,
    pub(crate) ids: MessageIds,
}

pub(crate) enum Recipient<'a> {
    Broadcast,
    Room(Cow<'a, str>),
    User(Cow<'a, str>),
    Client(Cow<'a, str>),
}

// === impl Publish ===

impl<'a> Publish<'a> {
    pub(crate) fn new(shared: &'a Shared, recipient: Recipient<'a>) -> Self {
        Self {
            shared,
            recipient,
            event: Cow::Borrowed(""),
            data: Ok(None),
            exclude: Vec::new(),
            trace: None,
            deadline: None,
            require_receivers: false,
        }
    }

    /// The event, which a message must have.
    pub fn event(mut self, event: impl Into<Cow<'a, str>>) -> Self {
        self.event = event.into();
        self
    }

    /// The payload, as whatever serialises to JSON. Without one, clients get the event alone.
    pub fn data<T: Serialize + ?Sized>(mut self, data: &T) -> Self {
        self.data = serde_json::to_string(data)
            .map(|text| Some(Cow::Owned(text)))
            .map_err(EmitterError::Serialize);
        self
    }

    /// The payload, as JSON text, which clients get as it is.
    pub fn json(mut self, text: &'a str) -> Self {
        self.data = Ok(Some(Cow::Borrowed(text)));
        self
    }

    /// Clients that must not get it. Edges apply it to rooms and broadcasts.
    pub fn exclude<I>(mut self, clients: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Cow<'a, str>>,
    {
        self.exclude.extend(clients.into_iter().map(Into::into));
        self
    }

    /// A W3C `traceparent`, for edges that trace.
    pub fn trace(mut self, traceparent: impl Into<Cow<'a, str>>) -> Self {
        self.trace = Some(traceparent.into());
        self
    }

    /// The longest that this message may take, instead of the emitter's timeout. It never goes out
    /// later. More than a day counts as a day.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Makes it an error, [`EmitterError::NoReceivers`], if nobody is subscribed.
    ///
    /// With classic pub/sub in a cluster nobody knows: there it is [`EmitterError::Unsupported`], and
    /// nothing is sent.
    pub fn require_receivers(mut self) -> Self {
        self.require_receivers = true;
        self
    }

    /// Publishes the message.
    ///
    /// Messages to one target arrive in the order in which these futures are first polled: awaited
    /// one after the other, or joined in order.
    ///
    /// # Errors
    ///
    /// See [`EmitterError`]; each comes by the deadline.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is polled, nothing happens. Dropped later, the message may still go out; one
    /// that is held because Redis is away is taken out.
    pub async fn send(self) -> Result<Receipt, EmitterError> {
        let (shared, deadline, required) = (self.shared, self.deadline, self.require_receivers);
        if required && !shared.connection.counts_receivers() {
            return Err(EmitterError::Unsupported {
                what: "require_receivers with classic pub/sub in a cluster",
                instead: "a server of a cluster counts its own subscribers alone, use sharded \
                          pub/sub",
            });
        }
        let (channel, envelope, id) = self.encode()?;
        match shared.connection.publish(channel, envelope.into(), deadline).await? {
            Some(0) if required => Err(EmitterError::NoReceivers { id }),
            receivers => Ok(Receipt { id, receivers }),
        }
    }

    /// The channel, the envelope and the message's id.
    fn encode(self) -> Result<(String, Vec<u8>, String), EmitterError> {
        let target = self.recipient.target();
        let unnamed = match target {
            Target::Room("") => Some("room"),
            Target::User("") => Some("user"),
            Target::Client("") => Some("client"),
            _ => None,
        };
        if let Some(kind) = unnamed {
            return Err(EmitterError::InvalidTarget(kind));
        }
        if self.event.is_empty() {
            return Err(EmitterError::NoEvent);
        }
        let data = self.data?;
        let data = match data.as_deref() {
            Some(text) => {
                Some(json::validate(text, DATA_DEPTH_MAX).map_err(EmitterError::InvalidJson)?)
            }
            None => None,
        };
        let settings = &self.shared.settings;
        let now = unix_millis();
        let id = settings.ids.next(now).to_string();
        let mut envelope = Envelope::new(EMITTER_SERVER_ID, target, &self.event, data);
        envelope.exclude = self.exclude;
        envelope.id = Some(Cow::Borrowed(&id));
        envelope.ts = Some(now);
        envelope.from = settings.name.as_deref().map(Cow::Borrowed);
        envelope.trace = self.trace;

        let mut bytes = Vec::with_capacity(ENVELOPE_BYTES_GUESS + data.map_or(0, str::len));
        envelope.encode(settings.codec, &mut bytes);
        let max = settings.message_bytes_max;
        if bytes.len() > max {
            return Err(EmitterError::TooLarge { bytes: bytes.len(), max });
        }
        Ok((settings.names.name(target), bytes, id))
    }
}

impl fmt::Debug for Publish<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Publish")
            .field("target", &self.recipient.target())
            .field("event", &self.event)
            .finish_non_exhaustive()
    }
}

// === impl Receipt ===

impl Receipt {
    /// How many subscribers Redis handed the message to: edges, not clients. Zero means that it
    /// reached nobody. `None` with classic pub/sub in a cluster, where nobody knows.
    pub fn receivers(&self) -> Option<u64> {
        self.receivers
    }
}

// === impl Recipient ===

impl Recipient<'_> {
    fn target(&self) -> Target<'_> {
        match self {
            Self::Broadcast => Target::Broadcast,
            Self::Room(room) => Target::Room(room),
            Self::User(user) => Target::User(user),
            Self::Client(client) => Target::Client(client),
        }
    }
}

/// Milliseconds since the Unix epoch; zero if the clock stands before it.
pub(crate) fn unix_millis() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
