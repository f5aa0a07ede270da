//! The compact form: a `MessagePack` array whose elements stand in a fixed order.

use std::borrow::Cow;

use rmp::{Marker, encode};

use super::{Envelope, EnvelopeError, Kind, SCHEMA_VERSION};
use crate::{json, limits::DATA_DEPTH_MAX};

/// Elements that Signal writes: v, serverId, type, target, event, data, exclude, id, ts, from, trace.
const ELEMENTS: u32 = 11;

/// Elements up to the event; later ones may be missing, which is the same as nil.
const ELEMENTS_MIN: u32 = 5;

pub(super) fn decode(bytes: &[u8]) -> Result<Envelope<'_>, EnvelopeError> {
    let mut reader = Reader { bytes, left: 0 };
    let Header::Array(elements) = reader.header()? else { return Err(EnvelopeError::FirstByte) };
    if elements < ELEMENTS_MIN {
        return Err(EnvelopeError::Shape);
    }
    reader.left = elements;
    if reader.next()? != Value::Unsigned(SCHEMA_VERSION) {
        return Err(EnvelopeError::Shape);
    }
    let server_id = reader.next()?.required_text()?;
    let Value::Unsigned(kind) = reader.next()? else { return Err(EnvelopeError::Shape) };
    let kind = Kind::from_number(kind).ok_or(EnvelopeError::UnknownType)?;
    let target = match reader.next()? {
        Value::Nil => None,
        _ if kind == Kind::Broadcast => None,
        value => Some(Cow::Borrowed(value.required_text()?)),
    };
    let target = kind.checked_target(target)?;
    let event_json = Cow::Owned(json::string(reader.next()?.required_text()?));
    let data = match reader.next()? {
        Value::Nil => None,
        Value::Binary(data) => Some(checked_data(data)?),
        _ => return Err(EnvelopeError::Shape),
    };
    let exclude = reader.exclude()?;
    let id = reader.next()?.optional_text();
    let ts = match reader.next()? {
        Value::Unsigned(ts) => Some(ts),
        _ => None,
    };
    let from = reader.next()?.optional_text();
    let trace = reader.next()?.optional_text();
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

/// The payload of an extension has one byte of type in front of it.
fn extension(length: usize) -> Header {
    Header::Bytes(length.saturating_add(1))
}

fn checked_data(data: &[u8]) -> Result<&str, EnvelopeError> {
    Ok(json::validate(utf8(data)?, DATA_DEPTH_MAX)?)
}

fn utf8(bytes: &[u8]) -> Result<&str, EnvelopeError> {
    std::str::from_utf8(bytes).map_err(|_| EnvelopeError::NotUtf8)
}

/// The values that an envelope may hold, but for arrays; whatever else comes has been passed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value<'a> {
    Nil,
    Unsigned(u64),
    Text(&'a str),
    Binary(&'a [u8]),
    Other,
}

/// What one marker stands for.
#[derive(Clone, Copy)]
enum Header {
    Nil,
    Unsigned(u64),
    Text(usize),
    Binary(usize),
    Array(u32),
    /// Scalars and extensions: bytes to pass.
    Bytes(usize),
    /// Values to pass, twice as many as pairs.
    Map(u64),
}

/// Reads the elements of the envelope; every step takes a byte at least, so it ends with the input.
struct Reader<'a> {
    bytes: &'a [u8],
    /// Elements of the envelope not read yet.
    left: u32,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// The next element, nil if there are no more.
    fn next(&mut self) -> Result<Value<'a>, EnvelopeError> {
        let header = self.next_header()?;
        self.value(header)
    }

    fn next_header(&mut self) -> Result<Header, EnvelopeError> {
        if self.left == 0 {
            return Ok(Header::Nil);
        }
        self.left -= 1;
        self.header()
    }

    /// Passes what follows the known elements.
    fn end(&mut self) -> Result<(), EnvelopeError> {
        self.skip(u64::from(self.left))?;
        if self.bytes.is_empty() { Ok(()) } else { Err(EnvelopeError::MsgPack) }
    }

    fn exclude(&mut self) -> Result<Vec<Cow<'a, str>>, EnvelopeError> {
        match self.next_header()? {
            Header::Nil => Ok(Vec::new()),
            Header::Array(clients) => {
                // Not sized by the claimed length: the input may be shorter.
                let mut exclude = Vec::new();
                for _ in 0..clients {
                    let header = self.header()?;
                    exclude.push(Cow::Borrowed(self.value(header)?.required_text()?));
                }
                Ok(exclude)
            }
            _ => Err(EnvelopeError::Shape),
        }
    }

    fn skip(&mut self, values: u64) -> Result<(), EnvelopeError> {
        let mut values = values;
        while values > 0 {
            values -= 1;
            match self.header()? {
                Header::Nil | Header::Unsigned(_) => {}
                Header::Text(length) | Header::Binary(length) | Header::Bytes(length) => {
                    self.take(length)?;
                }
                Header::Array(elements) => values += u64::from(elements),
                Header::Map(parts) => values += parts,
            }
        }
        Ok(())
    }

    /// The value whose header was read.
    fn value(&mut self, header: Header) -> Result<Value<'a>, EnvelopeError> {
        Ok(match header {
            Header::Nil => Value::Nil,
            Header::Unsigned(number) => Value::Unsigned(number),
            Header::Text(length) => Value::Text(utf8(self.take(length)?)?),
            Header::Binary(length) => Value::Binary(self.take(length)?),
            Header::Bytes(length) => {
                self.take(length)?;
                Value::Other
            }
            Header::Array(elements) => {
                self.skip(u64::from(elements))?;
                Value::Other
            }
            Header::Map(parts) => {
                self.skip(parts)?;
                Value::Other
            }
        })
    }

    fn header(&mut self) -> Result<Header, EnvelopeError> {
        let marker = Marker::from_u8(self.take(1)?[0]);
        Ok(match marker {
            Marker::Null => Header::Nil,
            Marker::FixPos(number) => Header::Unsigned(u64::from(number)),
            Marker::U8 => Header::Unsigned(self.number(1)?),
            Marker::U16 => Header::Unsigned(self.number(2)?),
            Marker::U32 => Header::Unsigned(self.number(4)?),
            Marker::U64 => Header::Unsigned(self.number(8)?),
            Marker::FixStr(length) => Header::Text(usize::from(length)),
            Marker::Str8 => Header::Text(self.length(1)?),
            Marker::Str16 => Header::Text(self.length(2)?),
            Marker::Str32 => Header::Text(self.length(4)?),
            Marker::Bin8 => Header::Binary(self.length(1)?),
            Marker::Bin16 => Header::Binary(self.length(2)?),
            Marker::Bin32 => Header::Binary(self.length(4)?),
            Marker::FixArray(elements) => Header::Array(u32::from(elements)),
            Marker::Array16 => Header::Array(self.count(2)?),
            Marker::Array32 => Header::Array(self.count(4)?),
            Marker::FixMap(pairs) => Header::Map(2 * u64::from(pairs)),
            Marker::Map16 => Header::Map(2 * self.number(2)?),
            Marker::Map32 => Header::Map(2 * self.number(4)?),
            Marker::True | Marker::False | Marker::FixNeg(_) => Header::Bytes(0),
            Marker::I8 => Header::Bytes(1),
            Marker::I16 => Header::Bytes(2),
            Marker::I32 | Marker::F32 => Header::Bytes(4),
            Marker::I64 | Marker::F64 => Header::Bytes(8),
            Marker::FixExt1 => extension(1),
            Marker::FixExt2 => extension(2),
            Marker::FixExt4 => extension(4),
            Marker::FixExt8 => extension(8),
            Marker::FixExt16 => extension(16),
            Marker::Ext8 => extension(self.length(1)?),
            Marker::Ext16 => extension(self.length(2)?),
            Marker::Ext32 => extension(self.length(4)?),
            Marker::Reserved => return Err(EnvelopeError::MsgPack),
        })
    }

    fn length(&mut self, width: usize) -> Result<usize, EnvelopeError> {
        usize::try_from(self.number(width)?).map_err(|_| EnvelopeError::MsgPack)
    }

    fn count(&mut self, width: usize) -> Result<u32, EnvelopeError> {
        u32::try_from(self.number(width)?).map_err(|_| EnvelopeError::MsgPack)
    }

    fn number(&mut self, width: usize) -> Result<u64, EnvelopeError> {
        let bytes = self.take(width)?;
        Ok(bytes.iter().fold(0, |number, &byte| (number << 8) | u64::from(byte)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], EnvelopeError> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(EnvelopeError::MsgPack)?;
        self.bytes = rest;
        Ok(taken)
    }
}

// === impl Value ===

impl<'a> Value<'a> {
    fn required_text(self) -> Result<&'a str, EnvelopeError> {
        match self {
            Self::Text(text) => Ok(text),
            _ => Err(EnvelopeError::Shape),
        }
    }

    fn optional_text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            _ => None,
        }
    }
}
