//! The JSON form.

use std::borrow::Cow;

use super::{Envelope, EnvelopeError, Kind, SCHEMA_VERSION};
use crate::json::{self, JsonError};

/// In the order in which envelopes are written, which makes finding them quick.
const FIELDS: [&str; 10] =
    ["serverId", "type", "target", "event", "data", "exclude", "id", "ts", "from", "trace"];

pub(super) fn decode(bytes: &[u8]) -> Result<Envelope<'_>, EnvelopeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| EnvelopeError::NotUtf8)?;
    let [server_id, kind, target, event, data, exclude, id, ts, from, trace] =
        json::members(text, &FIELDS)?;
    let server_id = required_string(server_id)?;
    let kind = Kind::from_name(&required_string(kind)?).ok_or(EnvelopeError::UnknownType)?;
    let target = match target.filter(|_| kind != Kind::Broadcast) {
        None | Some("null") => None,
        target => Some(required_string(target)?),
    };
    let event = event.filter(|event| event.starts_with('"')).ok_or(EnvelopeError::Shape)?;
    let exclude = match exclude {
        None | Some("null") => Vec::new(),
        Some(exclude) => json::strings(exclude)?,
    };
    Ok(Envelope {
        server_id,
        kind,
        target: kind.checked_target(target)?,
        event_json: Cow::Borrowed(event),
        data,
        exclude,
        id: id.and_then(json::unescape),
        ts: ts.and_then(|ts| ts.parse().ok()),
        from: from.and_then(json::unescape),
        trace: trace.and_then(json::unescape),
    })
}

pub(super) fn encode(envelope: &Envelope<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"serverId\":");
    json::write_string(out, &envelope.server_id);
    out.extend_from_slice(b",\"type\":");
    json::write_string(out, envelope.kind.name());
    write_optional_string(out, "target", envelope.target.as_deref());
    write_name(out, "event");
    out.extend_from_slice(envelope.event_json.as_bytes());
    if let Some(data) = envelope.data {
        write_name(out, "data");
        out.extend_from_slice(data.as_bytes());
    }
    if !envelope.exclude.is_empty() {
        write_name(out, "exclude");
        for (index, client) in envelope.exclude.iter().enumerate() {
            out.push(if index == 0 { b'[' } else { b',' });
            json::write_string(out, client);
        }
        out.push(b']');
    }
    let extended = envelope.id.is_some()
        || envelope.ts.is_some()
        || envelope.from.is_some()
        || envelope.trace.is_some();
    if extended {
        write_number(out, "v", SCHEMA_VERSION);
        write_optional_string(out, "id", envelope.id.as_deref());
        if let Some(ts) = envelope.ts {
            write_number(out, "ts", ts);
        }
        write_optional_string(out, "from", envelope.from.as_deref());
        write_optional_string(out, "trace", envelope.trace.as_deref());
    }
    out.push(b'}');
}

fn required_string(token: Option<&str>) -> Result<Cow<'_, str>, EnvelopeError> {
    token.and_then(json::unescape).ok_or(EnvelopeError::Shape)
}

fn write_name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn write_optional_string(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        write_name(out, name);
        json::write_string(out, value);
    }
}

fn write_number(out: &mut Vec<u8>, name: &str, value: u64) {
    write_name(out, name);
    out.extend_from_slice(value.to_string().as_bytes());
}

// === impl EnvelopeError ===

impl From<JsonError> for EnvelopeError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::WrongType => Self::Shape,
            JsonError::Syntax | JsonError::TooDeep => Self::NotJson,
        }
    }
}
