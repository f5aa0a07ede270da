//! What an edge records of itself in Redis, for emitters to find.
//!
//! Owns the key and the form of a record. A reader takes what it knows and ignores the rest, so that
//! versions can differ. The key has no prefix: an emitter with the wrong one must see the edges too.

use std::fmt::Write as _;

use crate::{
    json::{members, string, unescape},
    redis::RedisSettings,
};

/// The sorted set of edges; the score is the end of a lease, in milliseconds of Redis' own clock.
pub const EDGES_KEY: &str = "signal:edges";

const MEMBERS: [&str; 5] = ["instance", "version", "prefix", "pubsub", "codec"];

/// One edge. Its members are part of the wire: later versions may add some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeRecord {
    /// Its name on the bus.
    pub instance: String,
    /// Of Signal.
    pub version: String,
    /// In front of its channels.
    pub prefix: String,
    /// `classic` or `sharded`.
    pub pubsub: String,
    /// What it sends; it understands all that its version knows.
    pub codec: String,
}

// === impl EdgeRecord ===

impl EdgeRecord {
    /// The record of an edge with these settings.
    pub fn new(instance: &str, version: &str, settings: &RedisSettings) -> Self {
        Self {
            instance: instance.to_owned(),
            version: version.to_owned(),
            prefix: settings.prefix.clone(),
            pubsub: settings.pubsub.name().to_owned(),
            codec: settings.codec.name().to_owned(),
        }
    }

    /// The record as JSON; the same record is the same text.
    pub fn to_json(&self) -> String {
        let values = [&self.instance, &self.version, &self.prefix, &self.pubsub, &self.codec];
        let mut json = String::from("{");
        for (name, value) in MEMBERS.iter().zip(values) {
            let comma = if json.len() > 1 { "," } else { "" };
            write!(json, "{comma}\"{name}\":{}", string(value))
                .expect("writing to a String cannot fail");
        }
        json.push('}');
        json
    }

    /// Reads a record; `None` if it is none.
    pub fn from_json(text: &str) -> Option<Self> {
        let values = members(text, &MEMBERS).ok()?;
        let value = |index: usize| Some(unescape(values[index]?)?.into_owned());
        Some(Self {
            instance: value(0)?,
            version: value(1)?,
            prefix: value(2)?,
            pubsub: value(3)?,
            codec: value(4)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let settings = RedisSettings { prefix: "a\"b\\:".to_owned(), ..RedisSettings::default() };
        let record = EdgeRecord::new("signal-00ff", "0.1.0", &settings);
        let json = record.to_json();
        assert_eq!(
            json,
            "{\"instance\":\"signal-00ff\",\"version\":\"0.1.0\",\"prefix\":\"a\\\"b\\\\:\",\
             \"pubsub\":\"classic\",\"codec\":\"json\"}"
        );
        assert_eq!(EdgeRecord::from_json(&json), Some(record));
    }

    #[test]
    fn a_reader_takes_what_it_knows() {
        let later = "{\"region\":[1],\"codec\":\"cbor\",\"instance\":\"i\",\"version\":\"9\",\
                     \"prefix\":\"\",\"pubsub\":\"classic\"}";
        assert_eq!(EdgeRecord::from_json(later).unwrap().codec, "cbor");
        for other in ["", "edge", "[]", "{}", "{\"instance\":1}", "{\"instance\":\"i\"}"] {
            assert_eq!(EdgeRecord::from_json(other), None, "{other}");
        }
    }
}
