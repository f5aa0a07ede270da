//! The compact form: a `MessagePack` array whose elements stand in a fixed order.

use std::borrow::Cow;

use rmp::{Marker, encode};

use super::{Envelope, EnvelopeError, Kind, SCHEMA_VERSION};
use crate::{
    json,
    limits::DATA_DEPTH_MAX,
    msgpack::{Header, MsgPackError, Reader, Value, utf8},
};

/// Elements that Signal writes: v, serverId, type, target, event, data, exclude, id, ts, from, trace.
const ELEMENTS: u32 = 11;

/// Elements up to the event; later ones may be missing, which is the same as nil.
const ELEMENTS_MIN: u32 = 5;

pub(super) fn decode(bytes: &[u8]) -> Result<Envelope<'_>, EnvelopeError> {
    let mut reader = Reader::new(bytes);
    let Header::Array(elements) = reader.header()? else { return Err(EnvelopeError::FirstByte) };
    if elements < ELEMENTS_MIN {
        return Err(EnvelopeError::Shape);
    }
    reader.left = elements;
    if reader.next()? != Value::Unsigned(SCHEMA_VERSION) {
        return Err(EnvelopeError::Shape);
    }
    let server_id = required_text(reader.next()?)?;
    let Value::Unsigned(kind) = reader.next()? else { return Err(EnvelopeError::Shape) };
    let kind = Kind::from_number(kind).ok_or(EnvelopeError::UnknownType)?;
    let target = match reader.next()? {
        Value::Nil => None,
        _ if kind == Kind::Broadcast => None,
        value => Some(Cow::Borrowed(required_text(value)?)),
    };
    let target = kind.checked_target(target)?;
    let event_json = Cow::Owned(json::string(required_text(reader.next()?)?));
    let data = match reader.next()? {
        Value::Nil => None,
        Value::Binary(data) => Some(checked_data(data)?),
        _ => return Err(EnvelopeError::Shape),
    };
    let exclude = exclude(&mut reader)?;
    let id = optional_text(reader.next()?);
    let ts = match reader.next()? {
        Value::Unsigned(ts) => Some(ts),
        _ => None,
    };
    let from = optional_text(reader.next()?);
    let trace = optional_text(reader.next()?);
    reader.end()?;
    Ok(Envelope {
        server_id: server_id.into(),
        kind,
        target,
        event_json,
        data,
        exclude,
        id,
        ts,
        from,
        trace,
    })
}

pub(super) fn encode(envelope: &Envelope<'_>, out: &mut Vec<u8>) {
    const INFALLIBLE: &str = "writing to a Vec cannot fail";
    encode::write_array_len(out, ELEMENTS).expect(INFALLIBLE);
    encode::write_uint(out, SCHEMA_VERSION).expect(INFALLIBLE);
    encode::write_str(out, &envelope.server_id).expect(INFALLIBLE);
    encode::write_uint(out, envelope.kind as u64).expect(INFALLIBLE);
    write_optional_string(out, envelope.target.as_deref());
    encode::write_str(out, &envelope.event()).expect(INFALLIBLE);
    match envelope.data {
        Some(data) => encode::write_bin(out, data.as_bytes()).expect(INFALLIBLE),
        None => write_nil(out),
    }
    if envelope.exclude.is_empty() {
        write_nil(out);
    } else {
        let count = u32::try_from(envelope.exclude.len()).unwrap_or(u32::MAX);
        encode::write_array_len(out, count).expect(INFALLIBLE);
        for client in &envelope.exclude {
            encode::write_str(out, client).expect(INFALLIBLE);
        }
    }
    write_optional_string(out, envelope.id.as_deref());
    match envelope.ts {
        Some(ts) => {
            encode::write_uint(out, ts).expect(INFALLIBLE);
        }
        None => write_nil(out),
    }
    write_optional_string(out, envelope.from.as_deref());
    write_optional_string(out, envelope.trace.as_deref());
}

fn write_nil(out: &mut Vec<u8>) {
    out.push(Marker::Null.to_u8());
}

fn write_optional_string(out: &mut Vec<u8>, value: Option<&str>) {
    match value {
        Some(value) => encode::write_str(out, value).expect("writing to a Vec cannot fail"),
        None => write_nil(out),
    }
}

fn checked_data(data: &[u8]) -> Result<&str, EnvelopeError> {
    Ok(json::validate(utf8(data)?, DATA_DEPTH_MAX)?)
}

fn exclude<'a>(reader: &mut Reader<'a>) -> Result<Vec<Cow<'a, str>>, EnvelopeError> {
    match reader.next_header()? {
        Header::Nil => Ok(Vec::new()),
        Header::Array(clients) => {
            // Not sized by the claimed length: the input may be shorter.
            let mut exclude = Vec::new();
            for _ in 0..clients {
                let header = reader.header()?;
                exclude.push(Cow::Borrowed(required_text(reader.value(header)?)?));
            }
            Ok(exclude)
        }
        _ => Err(EnvelopeError::Shape),
    }
}

fn required_text(value: Value<'_>) -> Result<&str, EnvelopeError> {
    match value {
        Value::Text(text) => Ok(text),
        _ => Err(EnvelopeError::Shape),
    }
}

fn optional_text(value: Value<'_>) -> Option<Cow<'_, str>> {
    match value {
        Value::Text(text) => Some(Cow::Borrowed(text)),
        _ => None,
    }
}

impl From<MsgPackError> for EnvelopeError {
    fn from(error: MsgPackError) -> Self {
        match error {
            MsgPackError::Malformed => Self::MsgPack,
            MsgPackError::NotUtf8 => Self::NotUtf8,
        }
    }
}
